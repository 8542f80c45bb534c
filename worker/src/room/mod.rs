//! What a task is given, and what is taken away after it.
//!
//! A worker slot keeps one room, `<rooms>/<slot>/`, for all its tasks: making directories on a disk for every task
//! would halve the spawn rate. It holds `scratch/`, the task's private working directory, and `progress`, a FIFO; the
//! task may leave `result` and `error`. Between two tasks the room is brought back to what a fresh one is.
//!
//! Invariant: nothing outside the room is touched, whatever a task planted in it. What a task has moved out of its
//! room is the task's to keep.
//!
//! Deliberately absent: killing what still runs. A room is cleaned after its task's whole process tree is dead.

mod artifacts;
mod checkpoint;
mod collect;
pub mod disk;
mod fixture;
mod kept;
mod progress;
mod scratch;
mod tree;
pub mod worktree;

use std::io;
use std::path::{Path, PathBuf};

pub use artifacts::{ArtifactBounds, StoredArtifacts, keep_artifacts, remove_artifacts, stored_artifacts};
pub use checkpoint::{checkpoints, make_checkpoint, remove_checkpoint};
pub use collect::Collected;
pub use kept::{Kept, attempt_name, kept, remove_kept, trim_kept};
pub use progress::Progress;
pub use scratch::Room;
pub use tree::{empty_folder, remove_tree, remove_tree_at};

/// Why a room cannot be had, looked at, or removed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} room {}", path.display())]
pub struct RoomError {
    /// What was attempted, as a participle.
    doing: &'static str,
    /// The room's directory.
    path: PathBuf,
    /// Why it failed.
    source: io::Error,
}

impl RoomError {
    /// Returns a function that gives an error the context of `doing` something to the room at `path`.
    fn of<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self { doing, path: path.to_owned(), source: error.into() }
    }
}
