//! What can go wrong with the queue's database, told apart by what the owner has to do about it.
//!
//! Owner: the store. Deliberately absent: retrying. The supervisor decides when to reopen.

use std::path::{Path, PathBuf};

use acode_worker::task::TaskId;
use rusqlite::ErrorCode;

/// Why the queue cannot be opened, read or written. After `Full` and `Io` the store must be reopened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the quota, is full. Nothing is lost; heal it, reopen, apply the same operations again.
    #[error("no space left for {path}")]
    Full {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Reading or writing failed. As with `Full`, except that it may not heal.
    #[error("input or output on {path} failed")]
    Io {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file or its folder cannot be made or opened.
    #[error("cannot open {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The content of the database is damaged.
    #[error("{path} is damaged")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is no database.
    #[error("{path} is not a database")]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is a database, but of something else.
    #[error("{path} is a database of another program")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer acode has written it.
    #[error("{path} has schema version {found}, written by a newer acode: this one knows versions up to {known}")]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    Busy {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// An earlier error closed the way: reopen first.
    #[error("{path} must be reopened after an error")]
    Broken {
        /// The database.
        path: PathBuf,
    },
    /// A stored value or an operation makes no sense: a defect of acode, not of the machine.
    #[error("defect in the queue: {what}")]
    Bug {
        /// What was met.
        what: String,
        /// What SQLite says, if it was SQLite that refused.
        source: Option<rusqlite::Error>,
    },
}

impl StoreError {
    /// Whether the store must be reopened before it can be written again.
    pub fn needs_reopen(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Io { .. } | Self::Open { .. } | Self::Broken { .. } => true,
            Self::Corrupt { .. }
            | Self::NotADatabase { .. }
            | Self::Foreign { .. }
            | Self::NewerSchema { .. }
            | Self::Busy { .. }
            | Self::Bug { .. } => false,
        }
    }

    /// Sorts an error of SQLite's.
    pub(super) fn sort(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path, source },
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory,
            ) => Self::Io { path, source },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, source },
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path, source },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path, source },
            // ErrorCode is open-ended; whatever is left is misuse or a broken constraint.
            Some(_) | None => Self::Bug { what: source.to_string(), source: Some(source) },
        }
    }

    /// A defect in words.
    pub(super) fn bug(what: impl Into<String>) -> Self {
        Self::Bug { what: what.into(), source: None }
    }
}

/// Why one submission is refused. Nothing of it is written; the rest of its batch is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// A dependency is on something that the queue does not have, or no longer.
    #[error("no task {0} to depend on")]
    UnknownDependency(TaskId),
    /// A dependency is on a member of an array.
    #[error("{0} is a member of an array: depend on the array")]
    MemberDependency(TaskId),
    /// A dependency names a later entry, or one that does not exist.
    #[error("dependency on entry {0}, which is not an earlier one of the same request")]
    UnknownEntry(u32),
    /// A dependency names a task that nobody looked up.
    #[error("no task '{0}' to depend on")]
    UnknownName(String),
    /// Another task that has not ended has the key.
    #[error("task {1} has the key '{0}' and has not ended")]
    KeyExists(String, TaskId),
    /// An array without members would never end.
    #[error("the array has no members")]
    EmptyArray,
    /// More members than an array may have.
    #[error("the array has {0} members: at most {max} are allowed", max = acode_worker::task::Array::MAX)]
    LargeArray(u64),
    /// The numbers of its members are beyond what is stored.
    #[error("the array's numbers begin at {0}, and end beyond {max}", max = i64::MAX)]
    LargeNumber(u64),
    /// An item cannot be handed to a program.
    #[error("an item of the array holds a NUL byte")]
    Nul,
    /// The id belongs to another queue.
    #[error("{0} is an id of another queue")]
    ForeignId(TaskId),
    /// The group's name or limit is none.
    #[error("{0}")]
    Group(String),
    /// A further group would be too many.
    #[error("group '{0}' would be one more than the {max} that a queue may have", max = super::GROUPS_MAX)]
    TooManyGroups(String),
    /// Its start deadline comes before it may start.
    #[error("it would expire before it may start")]
    ExpiresBeforeStart,
    /// The specification does not become JSON.
    #[error("the specification cannot be stored: {0}")]
    Spec(String),
}

/// Why a text names no single task.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No id begins with it.
    #[error("no task '{0}'")]
    NotFound(String),
    /// More than one id begins with it.
    #[error("'{prefix}' is the beginning of more than one id, of {first} for one")]
    Ambiguous {
        /// The text given.
        prefix: String,
        /// One of them.
        first: TaskId,
    },
    /// The text cannot be the beginning of an id.
    #[error("'{0}' is not the beginning of an id")]
    NotAnId(String),
    /// The queue could not be read.
    #[error("the queue could not be searched")]
    Store(#[from] StoreError),
}
