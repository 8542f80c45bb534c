//! Everything that can go wrong between a program and its pool.
//!
//! Deliberately absent: exit codes and printing, which are the command line's.

use std::fmt;
use std::io;

use crate::config::ConfigError;
use crate::local::LocalError;
use crate::rundir::DirError;
use crate::wire::{CallError, ClientError};

use super::outcome::TaskFailure;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The pool did not do it, or is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody holds the queue, and there is none yet.
    #[error("no pool is running, and there is no queue in {0}")]
    NoQueue(String),
    /// Only a running pool could do it.
    #[error("no pool is running")]
    NotRunning,
    /// The queue did not do it; there is no pool.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The queue cannot be had; there is no pool.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The directories cannot be found.
    #[error(transparent)]
    Dirs(#[from] DirError),
    /// An option, or the configuration file that was named, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This program has not said that it can be executed again.
    #[error("this program cannot be a pool yet: call acode::api::init at the top of main, or name another program")]
    NotInitialised,
    /// A directory for a private pool cannot be made.
    #[error("cannot make a directory for the pool")]
    Folder(#[source] io::Error),
    /// The kernel refuses a process.
    #[error("cannot start a process for the pool")]
    Process(#[source] io::Error),
    /// The pool's process ended before it accepted work.
    #[error("the pool did not start: {why}")]
    NotStarted {
        /// What it said.
        why: String,
    },
    /// The queue is held by another pool.
    #[error("the pool did not start: {why}")]
    Held {
        /// By whom.
        why: String,
    },
    /// The kernel refuses something else that this needs.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// Parameters or a result have no JSON form, or not that of their type.
    #[error("cannot convert that from or to JSON")]
    Json(#[from] serde_json::Error),
    /// What was asked for does not fit together.
    #[error("{0}")]
    Usage(String),
    /// The task did not complete.
    #[error(transparent)]
    Task(#[from] Box<TaskFailure>),
    /// Tasks did not complete that were waited for.
    #[error(transparent)]
    Failures(#[from] Failures),
    /// The wait was ended by its [`CancelToken`](super::CancelToken). What was asked of the pool may be done even so.
    #[error("the call was cancelled")]
    Cancelled,
    /// The time for the call is over. What was asked of the pool may be done even so.
    #[error("the time for the call is over")]
    DeadlineExceeded,
}

impl ApiError {
    /// Whether the pool is gone, or was never there.
    pub fn is_pool_gone(&self) -> bool {
        match self {
            Self::NotRunning => true,
            Self::Client(error) => matches!(
                error,
                ClientError::NotRunning { .. } | ClientError::HungUp | ClientError::Io(_) | ClientError::Connect { .. }
            ),
            _ => false,
        }
    }
}

/// The tasks of a wait that did not complete: all of them, not only the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Failures {
    /// How many tasks were waited for.
    pub total: usize,
    /// Those that did not complete, in the order of their submission.
    pub failures: Vec<TaskFailure>,
}

impl Failures {
    /// The most failures that its words name; the rest is counted.
    const MAX_TOLD: usize = 10;
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} tasks did not complete", self.failures.len(), self.total)?;
        for (place, failure) in self.failures.iter().take(Self::MAX_TOLD).enumerate() {
            write!(f, "{}{failure}", if place == 0 { ": " } else { "; " })?;
        }
        match self.failures.len().saturating_sub(Self::MAX_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Failures {}
