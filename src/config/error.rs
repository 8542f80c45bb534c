//! What can be wrong with the configuration, and where the wrong value came from.
//!
//! Deliberately absent: exit codes; every one of these is 'bad input' at the edge.

use std::fmt;
use std::path::PathBuf;

use crate::tree::At;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf, At),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// The options with which a program starts a pool.
    Options,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, at) if at.is_known() => write!(f, "{}:{at}", path.display()),
            Self::File(path, _) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
            Self::Options => f.write_str("the pool's options"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for does not exist or cannot be read.
    #[error("cannot read the configuration file {}{}", path.display(), named_by(.by))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it, if somebody did: a flag or a variable.
        by: Option<&'static str>,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("the configuration file {} is larger than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        max: u64,
    },
    /// A key or a value is wrong, or the file is not YAML.
    #[error("{origin}: {words}")]
    Wrong {
        /// Where.
        origin: Origin,
        /// What, with the key, the value, and what is expected.
        words: String,
    },
}

fn named_by(by: &Option<&'static str>) -> String {
    by.map(|name| format!(" (named by {name})")).unwrap_or_default()
}
