//! How one attempt of a task ended, and what it used.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The one honest word on how an attempt ended.
///
/// An exit code of 137 is an exit code, not a memory kill: `OutOfMemory` is said only when the kernel counted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Verdict {
    /// The leader exited by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// The leader was killed by a signal that acode did not send.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// It ran longer than its timeout.
    TimedOut,
    /// The kernel killed it for memory.
    OutOfMemory,
    /// It exceeded a limit other than memory.
    OverLimit {
        /// Which limit, by its configuration key.
        limit: String,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// Its worker died, and the task went with it.
    WorkerLost,
    /// The container engine failed under it, and the task is not to blame.
    EngineFailed {
        /// How, in words.
        why: String,
    },
    /// It could not be started.
    NotStarted {
        /// Why, in words.
        why: String,
        /// The kernel's error number, where there is one.
        errno: Option<i32>,
    },
}

impl Verdict {
    /// Whether the attempt did what was asked.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }

    /// The verdict's name, as JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Signalled { .. } => "signalled",
            Self::TimedOut => "timed-out",
            Self::OutOfMemory => "out-of-memory",
            Self::OverLimit { .. } => "over-limit",
            Self::Cancelled => "cancelled",
            Self::WorkerLost => "worker-lost",
            Self::EngineFailed { .. } => "engine-failed",
            Self::NotStarted { .. } => "not-started",
        }
    }

    /// The exit code, if the leader exited by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code } => Some(*code),
            _ => None,
        }
    }

    /// The signal that killed the leader, if one did that acode did not send.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Signalled { signal, .. } => Some(*signal),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited({code})"),
            Self::Signalled { signal, core_dumped } => {
                let name = nix::sys::signal::Signal::try_from(*signal).map_or("unknown", |s| s.as_str());
                write!(f, "signalled({name}{})", if *core_dumped { ", core dumped" } else { "" })
            }
            Self::OverLimit { limit } => write!(f, "over-limit({limit})"),
            Self::EngineFailed { why } => write!(f, "engine-failed({why})"),
            Self::NotStarted { why, .. } => write!(f, "not-started({why})"),
            Self::TimedOut | Self::OutOfMemory | Self::Cancelled | Self::WorkerLost => f.write_str(self.name()),
        }
    }
}

/// What held an attempt's process tree together, so that all of it could be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum TreeGuard {
    /// A cgroup v2 leaf: the kernel kills all of it at once.
    Cgroup = 0,
    /// The worker as subreaper: it kills its descendants until none is left.
    Subreaper = 1,
    /// The container engine, which is asked to kill all of it.
    Engine = 2,
    /// The worker, whose own call the attempt was: it ends with it, as do its threads.
    Worker = 3,
}

impl TreeGuard {
    /// All of them, in the order of their stored numbers.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Subreaper, Self::Engine, Self::Worker];

    /// The one with this stored number.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

/// Where an attempt's output lies in its worker's journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputRef {
    /// The number of the segment file in which the output begins.
    pub segment: u64,
    /// Offset of the first chunk, in bytes.
    pub offset: u64,
    /// From the first chunk's beginning to the last one's end in bytes, frames and all, over all segments.
    pub length: u64,
    /// Bytes of standard output kept.
    pub stdout_bytes: u64,
    /// Bytes of standard error kept.
    pub stderr_bytes: u64,
    /// Whether the cap cut some of it off.
    pub truncated: bool,
}
