//! The seven states of a task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task stands. `Assigned` and `Running` are facts about the live pool, never of the stored record: a task
/// that a crash interrupts is pending again the moment the pool is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum TaskState {
    /// Waiting: queued, for a time, for other tasks, or for room.
    Pending = 0,
    /// Claimed by a worker, its process not started yet.
    Assigned = 1,
    /// Its process runs.
    Running = 2,
    /// Ended with success.
    Completed = 3,
    /// Ended without success, and no retry is left.
    Failed = 4,
    /// Ended because somebody, or a failed dependency, cancelled it.
    Cancelled = 5,
    /// Ended because it ran longer than its timeout, and no retry is left.
    Timeout = 6,
}

impl TaskState {
    /// All states, in the order of a task's life.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Assigned, Self::Running, Self::Completed, Self::Failed, Self::Cancelled, Self::Timeout];

    /// Whether the task has ended for good.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Assigned | Self::Running => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Timeout => true,
        }
    }

    /// The state with this stored number.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// The state's name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
