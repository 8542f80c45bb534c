//! The artefacts of an attempt, as clients read them: from the folder itself, like output from the journal.
//!
//! Client and pool are on one machine and of one user, so the files do not go through the socket. Deliberately absent:
//! which attempts have any, which is the queue's to say, and removal.

mod fetch;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use acode_worker::room;
use acode_worker::task::{Patterns, TaskId};

pub use fetch::{Fetched, check, fetch, print};

/// Why artefacts cannot be read or copied.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There never were any.
    #[error("task {task} has no artefacts{}", attempt.map(|number| format!(" of attempt {number}")).unwrap_or_default())]
    None {
        /// The task, or the array.
        task: TaskId,
        /// The attempt that was asked for.
        attempt: Option<u32>,
    },
    /// There were.
    #[error("the artefacts of task {task} are gone: {} is not there", folder.display())]
    Gone {
        /// The task.
        task: TaskId,
        /// Where they were.
        folder: PathBuf,
    },
    /// The patterns mean none of them.
    #[error("no artefact of task {task} matches")]
    NoMatch {
        /// The task, or the array.
        task: TaskId,
    },
    /// Something would have been overwritten.
    #[error("{} exists already{}", path.display(), if *more == 0 { String::new() } else { format!(", and so do {more} more") })]
    Exists {
        /// The first of it.
        path: PathBuf,
        /// How many more there are.
        more: usize,
    },
    /// There is something in the place of a directory, or a directory in that of a file.
    #[error("{} is in the way", path.display())]
    Blocked {
        /// What is.
        path: PathBuf,
    },
    /// The kernel refuses something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ArtifactError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// What an artefact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file of so many bytes.
    File(u64),
    /// A link to another path below the folder.
    Link(PathBuf),
}

/// One artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it lies, below the folder of files.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// When the task changed it last.
    pub modified: SystemTime,
}

/// The numbers of tasks from the first to the last that have artefacts in this folder of all of them, in order.
pub fn owners(folder: &Path, first: TaskId, last: u64) -> Vec<TaskId> {
    let mut tasks: Vec<TaskId> = room::stored_artifacts(folder)
        .into_iter()
        .filter(|one| !one.is_draft && one.task.queue() == first.queue())
        .map(|one| one.task)
        .filter(|task| (first.seq()..=last).contains(&task.seq()))
        .collect();
    tasks.sort_unstable_by_key(|task| task.seq());
    tasks.dedup();
    tasks
}

/// Where the files of an attempt are, in this folder of all artefacts.
pub fn files_of(folder: &Path, task: TaskId, attempt: u32) -> PathBuf {
    folder.join(room::attempt_name(task, attempt)).join("files")
}

/// The artefacts in this folder of files that the patterns mean, by path; all if there are none.
///
/// # Errors
/// The folder is gone, or cannot be read.
pub fn list(files: &Path, task: TaskId, patterns: &Patterns) -> Result<Vec<Artifact>, ArtifactError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = files.join(&folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::Gone { task, folder: files.to_owned() });
            }
            entries => entries.map_err(ArtifactError::io("read", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(ArtifactError::io("read", &path))?;
            let own = folder.join(entry.file_name());
            let facts = entry.metadata().map_err(ArtifactError::io("read", &own))?;
            let kind = match () {
                () if facts.is_dir() => {
                    folders.push(own);
                    continue;
                }
                () if facts.is_symlink() => {
                    Kind::Link(fs::read_link(entry.path()).map_err(ArtifactError::io("read", &own))?)
                }
                () => Kind::File(facts.len()),
            };
            if patterns.is_empty() || patterns.match_path(own.iter()) {
                let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Artifact { path: own, kind, modified });
            }
        }
    }
    found.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(found)
}
