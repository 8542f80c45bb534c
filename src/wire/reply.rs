//! What the server answers, one type per method.
//!
//! Deliberately absent: errors (`error.rs`) and the records inside the replies (`record.rs`).

use acode_worker::task::{TaskId, TaskState};
use serde::{Deserialize, Serialize};

use super::MetricsRecord;
use super::types::{
    CheckRecord, EventRecord, GroupRecord, LogSource, PauseRecord, PoolState, Progress, StatusRecord, TaskCounts,
    TaskRecord, Waiting, WorkerRecord,
};

/// `Submit`: accepted, and on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// One id for each entry, in their order; an array has one.
    pub ids: Vec<TaskId>,
}

/// `Resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// One id for each name, in their order.
    pub ids: Vec<TaskId>,
}

/// `Cancel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Cancelled, or being ended just now.
    pub cancelled: Vec<TaskId>,
    /// Ended already, and left alone.
    pub ended: Vec<TaskId>,
    /// Of a group: there are more, ask again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A task that was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which.
    pub id: TaskId,
    /// Why.
    pub why: String,
}

/// `Hold`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Held now, or before.
    pub held: Vec<TaskId>,
    /// Left as they are.
    pub refused: Vec<Refusal>,
}

/// `Release`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Not held any more.
    pub released: Vec<TaskId>,
    /// Left as they are.
    pub refused: Vec<Refusal>,
}

/// `Groups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// By name.
    pub groups: Vec<GroupRecord>,
}

/// `LimitGroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLimited {
    /// As it is now.
    pub group: GroupRecord,
}

/// `Suspend`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    /// Stopped where they are.
    pub suspended: Vec<TaskId>,
    /// Not running, and left alone.
    pub refused: Vec<TaskId>,
}

/// `Continue`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Going on.
    pub resumed: Vec<TaskId>,
    /// Not suspended, and left alone.
    pub refused: Vec<TaskId>,
}

/// `Retry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// Pending again.
    pub retried: Vec<TaskId>,
    /// Not ended yet, or completed, and left alone.
    pub refused: Vec<TaskId>,
}

/// `Show`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// The task with its attempts.
    pub task: TaskRecord,
}

/// `List`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Listed {
    /// The tasks, without their attempts.
    pub tasks: Vec<TaskRecord>,
    /// If there are more: what to give as `after` to go on.
    pub next: Option<TaskId>,
}

/// `Why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReply {
    /// The task.
    pub id: TaskId,
    /// Where it stands.
    pub state: TaskState,
    /// Why it does not run yet, if it is pending.
    pub waiting: Option<Waiting>,
    /// The answer in one sentence, for any state.
    pub text: String,
}

/// `Pause` and `Resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pausing {
    /// Why no task is started now, and since when; none if tasks are started. After `Resume` the machine's state may
    /// still be in the way.
    pub paused: Option<PauseRecord>,
}

/// `Wait`: with `more` one now, one whenever the counts change (at most some ten a second), and the last one, without
/// `continues`, when all have ended. Without `more` only the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// The tasks that are waited for, counted; of an array every member.
    pub counts: TaskCounts,
    /// In the last reply, those that did not complete; the first [`Waited::MAX_NAMED`] of them.
    pub unsuccessful: Vec<TaskId>,
    /// In all but the last reply: those that run and say how far they are, the longest running ones first, at most
    /// [`Waited::MAX_SHOWN`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<RunningTask>,
}

/// A running task that says how far it is, in a [`Waited`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The task.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// What it says.
    pub progress: Progress,
}

impl Waited {
    /// The most tasks that a reply names.
    pub const MAX_NAMED: usize = 100;
    /// The most running tasks that a reply shows.
    pub const MAX_SHOWN: usize = 3;
}

/// `Events`: with `more` as many replies as it takes; with `follow` it goes on until the client hangs up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EventBatch {
    /// In their order.
    pub events: Vec<EventRecord>,
    /// So many events between the place asked for, or the one before these, and these were removed meanwhile.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `Logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlaces {
    /// The folder of the journals.
    pub directory: String,
    /// The attempts asked for, oldest first; all that run now, if none was named.
    pub sources: Vec<LogSource>,
}

/// `Status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The pool, in figures.
    pub status: StatusRecord,
}

/// `Workers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkersReply {
    /// All that live, oldest first.
    pub workers: Vec<WorkerRecord>,
}

/// `Metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsReply {
    /// The figures.
    pub metrics: MetricsRecord,
    /// The same and more in Prometheus' text format, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// `Scale` and `Autoscale`: begun, not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// How many there should have been until now.
    pub before: u32,
    /// How many there shall be.
    pub target: u32,
}

/// `Reload`: done. What is wrong with a configuration is the reason of `Refused`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {}

/// `Check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// All that lived when it began, but those that have left meanwhile as they were told to.
    pub workers: Vec<CheckRecord>,
}

/// `Stop`: with `more` one now and one whenever something changes, until the socket closes because the pool has
/// stopped; without, one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// The supervisor's process, which ends when the pool has stopped.
    pub pid: u32,
    /// What the pool does.
    pub state: PoolState,
    /// How many tasks are still running.
    pub running: u64,
    /// How many are queued.
    pub pending: u64,
}

/// `Prune`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Tasks removed.
    pub tasks: u64,
    /// Bytes of logs removed.
    pub log_bytes: u64,
}

/// `Ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The supervisor's process.
    pub pid: u32,
    /// The pool's name.
    pub pool: String,
    /// Which version of the protocol it speaks: [`super::PROTOCOL`].
    #[serde(default = "first_protocol")]
    pub protocol: u32,
}

/// The version that was spoken before pools told theirs.
fn first_protocol() -> u32 {
    1
}

/// `org.varlink.service.GetInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Which version.
    pub version: String,
    /// Where to read about it.
    pub url: String,
    /// What it speaks.
    pub interfaces: Vec<String>,
}

impl ServiceInfo {
    /// About this build.
    pub fn own() -> Self {
        Self {
            vendor: "acode".to_owned(),
            product: "acode".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: String::new(),
            interfaces: vec!["org.varlink.service".to_owned(), super::INTERFACE.to_owned()],
        }
    }
}

/// `org.varlink.service.GetInterfaceDescription`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceDescription {
    /// The interface file.
    pub description: String,
}
