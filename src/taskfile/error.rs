//! Why a task file cannot be used.
//!
//! Deliberately absent: what a submission's receiver may find wrong with it later.

use crate::tree::{At, Fault};

/// Why a task file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TaskFileError {
    /// It cannot be read.
    #[error("cannot read {name}")]
    Unreadable {
        /// The file, or what stands for it.
        name: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is too large to be read as one document.
    #[error("{name} is larger than {max} bytes, the most for YAML (JSON Lines may be of any length)")]
    TooLarge {
        /// The file, or what stands for it.
        name: String,
        /// The most that is read.
        max: usize,
    },
    /// Something in it is wrong.
    #[error("{name}:{at}: {words}")]
    Wrong {
        /// The file, or what stands for it.
        name: String,
        /// Where.
        at: At,
        /// What.
        words: String,
    },
}

impl TaskFileError {
    /// The fault `fault` in the file `name`.
    pub(super) fn at(name: &str, fault: Fault) -> Self {
        Self::Wrong { name: name.to_owned(), at: fault.at, words: fault.to_string() }
    }
}
