//! Reports: what a worker tells the supervisor.

use serde::{Deserialize, Serialize};

use crate::claim::Ticket;
use crate::task::{Artifacts, HeldLimit, Isolation, OutputRef, TaskId, TreeGuard, Usage, Verdict};

/// One report. Times are microseconds of Unix time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The worker is up.
    Ready,
    /// The worker cannot work at all; it leaves after this.
    BootFailed {
        /// Why, in words.
        why: String,
    },
    /// A task is about to be started, which may take so long. Sent only for a task with a limit on that.
    Starting {
        /// Which claim.
        ticket: Ticket,
        /// Which task.
        id: TaskId,
        /// Milliseconds.
        limit_ms: u64,
    },
    /// A task's process runs. Not sent for a task that ends at once.
    Started {
        /// Which claim.
        ticket: Ticket,
        /// Which task.
        id: TaskId,
        /// The pid of its leader.
        pid: i32,
        /// When it was claimed.
        claimed_us: i64,
        /// Since when.
        at_us: i64,
    },
    /// A task told how far it is.
    Progress {
        /// Which claim.
        ticket: Ticket,
        /// Which task.
        id: TaskId,
        /// How far.
        progress: Progress,
    },
    /// An attempt has ended, with all of its processes.
    Finished(Box<Finished>),
    /// The claim could not be understood as a task: the slot's content is broken.
    Unreadable {
        /// Which claim.
        ticket: Ticket,
        /// Why, in words.
        why: String,
    },
    /// The container engine can be used from now on, or cannot.
    Engine {
        /// Whether it can.
        up: bool,
        /// What it says of itself, its version for one; or why it cannot be used.
        why: String,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's number.
        nonce: u64,
    },
    /// The worker leaves as it was told to.
    Leaving,
}

/// How far a task is, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    pub percent: f64,
    /// What it says about that; may be empty.
    pub message: String,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Which claim.
    pub ticket: Ticket,
    /// Which task.
    pub id: TaskId,
    /// Which attempt.
    pub attempt: u32,
    /// How it ended.
    pub verdict: Verdict,
    /// Whether it ended because the pool took it back: then the verdict does not count, and the task runs again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_back: bool,
    /// How it was kept apart.
    pub isolation: Isolation,
    /// What held its tree.
    pub guard: TreeGuard,
    /// What it used.
    pub usage: Usage,
    /// Where its output is.
    pub output: OutputRef,
    /// When it was claimed.
    pub claimed_us: i64,
    /// When its process was started.
    pub started_us: i64,
    /// When it had ended.
    pub finished_us: i64,
    /// How its limits were held; empty if it had none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<HeldLimit>,
    /// How its sandbox was held, one thing each in words; empty if it had none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sandbox: Vec<String>,
    /// Where its scratch directory was kept, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<std::path::PathBuf>,
    /// What was kept of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// Whether something of it still ran when its leader had ended, and was killed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaked: bool,
    /// The JSON text that it left as its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The text that it left as its error, or what was wrong with its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it has a checkpoint directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint: bool,
    /// How far it said it was at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

impl Finished {
    /// An end of which nothing more is known: of this claim, for this task's attempt, all at one time.
    pub fn blank(ticket: Ticket, (id, attempt): (TaskId, u32), verdict: Verdict, at_us: i64) -> Self {
        Self {
            ticket,
            id,
            attempt,
            verdict,
            given_back: false,
            isolation: Isolation::Process,
            guard: TreeGuard::Subreaper,
            usage: Usage::default(),
            output: OutputRef::default(),
            claimed_us: at_us,
            started_us: at_us,
            finished_us: at_us,
            limits: Vec::new(),
            sandbox: Vec::new(),
            kept: None,
            artifacts: None,
            leaked: false,
            result: None,
            error: None,
            checkpoint: false,
            progress: None,
        }
    }
}
