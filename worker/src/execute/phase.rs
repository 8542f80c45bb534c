//! How far an attempt is on its way to its end, and why it is on it. Pure data.

use super::watch::Over;
use crate::task::Verdict;

/// Why a worker ends an attempt before it ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its time is over.
    Timeout,
    /// It exceeded a limit.
    OverLimit(Over),
    /// Somebody cancelled it.
    Cancel,
    /// The pool takes it back.
    GiveBack,
    /// The supervisor is gone.
    Orphaned,
    /// Its container has not begun in time.
    NotBegun,
}

impl End {
    /// The verdict on an attempt that was ended so.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Timeout => Verdict::TimedOut,
            Self::OverLimit(over) => over.verdict(),
            Self::Cancel | Self::GiveBack | Self::Orphaned => Verdict::Cancelled,
            Self::NotBegun => Verdict::EngineFailed { why: "the container has not begun in time".to_owned() },
        }
    }
}

/// What is going on with the tree.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// Nobody has asked it to end.
    Running,
    /// Asked to end; killed at this time of the monotonic clock.
    Terminating {
        /// Why.
        why: End,
        /// When it is killed.
        kill_at_ns: u64,
    },
    /// Being killed.
    Killing {
        /// Why; nothing if it is what its leader has left.
        why: Option<End>,
    },
}

impl Phase {
    /// Why it was ended, if it was.
    pub fn why(self) -> Option<End> {
        match self {
            Self::Running => None,
            Self::Terminating { why, .. } => Some(why),
            Self::Killing { why } => why,
        }
    }
}
