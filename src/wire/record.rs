//! The JSON records that people's scripts read: `--json` prints exactly these, and the control protocol carries them.
//!
//! Every record that stands alone has the `schema` number. Absent values are `null`, not left out, so that a script may
//! rely on the keys; only `attempts` is left out where it was not asked for. Times are RFC 3339 in UTC with
//! microseconds. Deliberately absent: how they look as text (`cli/render.rs`).

use acode_worker::task::{Env, Isolation, OutputRef, Priority, TaskId, TaskState, TreeGuard, Usage, Verdict, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::types::{PoolState, TaskCounts, Waiting, WorkerStatus};
use super::{SCHEMA, Stamp};

/// `acode worker status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The pool itself.
    pub pool: PoolRecord,
    /// Its workers, counted.
    pub workers: WorkerCounts,
    /// The tasks of the queue, counted by state.
    pub tasks: TaskCounts,
    /// What the pool and its tasks use.
    pub resources: Resources,
    /// Whether the queue can be written.
    pub queue: QueueRecord,
    /// The address on which metrics are served over HTTP, if they are.
    #[serde(default)]
    pub metrics_listen: Option<String>,
}

/// The pool, in a [`StatusRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its name, by `--pool`.
    pub name: String,
    /// A ULID, new with each start.
    pub id: String,
    /// The supervisor's process.
    pub pid: u32,
    /// What it does.
    pub state: PoolState,
    /// The isolation of its workers: `process`, `docker`, or `mixed`.
    pub mode: String,
    /// When it started.
    pub started_at: Stamp,
    /// The version of acode that runs it.
    pub version: String,
}

/// The workers, counted, in a [`StatusRecord`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounts {
    /// All that live.
    pub active: u32,
    /// Of these, starting.
    pub starting: u32,
    /// Of these, idle.
    pub idle: u32,
    /// Of these, busy.
    pub busy: u32,
    /// Of these, unhealthy.
    pub unhealthy: u32,
    /// Of these, stopping.
    pub stopping: u32,
    /// How many there shall be.
    pub target: u32,
    /// The fewest there may be.
    pub min: u32,
    /// The most there may be.
    pub max: u32,
}

/// What a pool uses, in a [`StatusRecord`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU time per wall-clock time since the last look, in percent of one CPU.
    pub cpu_percent: f64,
    /// Memory of the supervisor, the workers and their tasks, in bytes.
    pub memory_bytes: u64,
}

/// How the queue is, in a [`StatusRecord`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Whether submissions are accepted.
    pub accepting: bool,
    /// Why they are not, or what else is wrong.
    pub problem: Option<String>,
}

/// One worker: an element of `acode worker list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its ULID.
    pub id: WorkerId,
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub status: WorkerStatus,
    /// Its isolation: `process` or `docker`.
    pub mode: String,
    /// The task that it holds.
    pub current_task: Option<TaskId>,
    /// When it was made.
    pub started_at: Stamp,
    /// When its loop last turned; none before its first turn.
    pub last_heartbeat_at: Option<Stamp>,
    /// Attempts that ended with success here.
    pub tasks_completed: u64,
    /// Attempts that ended without.
    pub tasks_failed: u64,
    /// Whether its heartbeat is in time.
    pub healthy: bool,
}

/// One task: `acode task show --json`, and an element of `acode task list --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its ULID.
    pub id: TaskId,
    /// Its number in the queue, which names it as well as the id does.
    pub number: u64,
    /// The name given, else the program's file name.
    pub name: String,
    /// Where it stands.
    pub state: TaskState,
    /// The last ended attempt's verdict, by name.
    pub verdict: Option<String>,
    /// The last ended attempt's exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that killed the last ended attempt, if one did.
    pub signal: Option<i32>,
    /// What the task left in `$ACODE_ERROR`, or why it could not run.
    pub error: Option<String>,
    /// What the task left in `$ACODE_RESULT`.
    pub result: Option<Box<RawValue>>,
    /// Urgency.
    pub priority: Priority,
    /// What it last said about itself.
    pub progress: Option<Progress>,
    /// Why it does not run yet, if it is pending.
    pub waiting: Option<Waiting>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory, if one was asked for.
    pub cwd: Option<String>,
    /// The submitter's own facts.
    pub meta: Env,
    /// If this is an array: its members, counted.
    pub array: Option<ArrayRecord>,
    /// If this is a member of an array: which one.
    pub member: Option<MemberRecord>,
    /// When it was accepted.
    pub submitted_at: Stamp,
    /// When its last attempt started.
    pub started_at: Option<Stamp>,
    /// When it ended for good.
    pub finished_at: Option<Stamp>,
    /// How much output is kept of its last attempt.
    pub output: OutputSizes,
    /// How many attempts there have been.
    pub attempt_count: u32,
    /// All attempts, first to last; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<AttemptRecord>>,
}

impl TaskRecord {
    /// Fills the fields that follow from the last ended attempt's verdict; a reason goes where no error is yet.
    pub fn set_verdict(&mut self, verdict: &Verdict) {
        self.verdict = Some(verdict.name().to_owned());
        self.exit_code = verdict.exit_code();
        self.signal = verdict.signal();
        self.error = self.error.take().or_else(|| reason(verdict));
    }
}

/// One attempt of a task, in a [`TaskRecord`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// From 1.
    pub number: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// How it ended, by name; none while it runs.
    pub verdict: Option<String>,
    /// Its exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that killed it, if one did that acode did not send.
    pub signal: Option<i32>,
    /// What else the verdict says: why it was not started, which limit it exceeded.
    pub reason: Option<String>,
    /// How it was kept apart.
    pub isolation: Option<Isolation>,
    /// What held its process tree together.
    pub tree_guard: Option<TreeGuard>,
    /// What it used; none while it runs.
    pub usage: Option<Usage>,
    /// When its process was started.
    pub started_at: Option<Stamp>,
    /// When it ended.
    pub finished_at: Option<Stamp>,
    /// Whether something was left running after its leader's end, and had to be killed.
    pub leaked: bool,
    /// Where its output lies in its worker's journal.
    pub output: Option<OutputRef>,
}

impl AttemptRecord {
    /// Fills the fields that follow from the verdict.
    pub fn set_verdict(&mut self, verdict: &Verdict) {
        self.verdict = Some(verdict.name().to_owned());
        self.exit_code = verdict.exit_code();
        self.signal = verdict.signal();
        self.reason = reason(verdict);
    }
}

/// What a verdict says in words beyond its name.
fn reason(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::NotStarted { why, .. } => Some(why.clone()),
        Verdict::OverLimit { limit } => Some(format!("exceeded {limit}")),
        Verdict::Exited { .. }
        | Verdict::Signalled { .. }
        | Verdict::TimedOut
        | Verdict::OutOfMemory
        | Verdict::Cancelled
        | Verdict::WorkerLost => None,
    }
}

/// What a running task says about itself through `$ACODE_PROGRESS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// In words.
    pub message: Option<String>,
}

/// An array, in the [`TaskRecord`] of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayRecord {
    /// How many members it has.
    pub count: u64,
    /// Their states, counted; those that were never touched are pending.
    pub members: TaskCounts,
}

/// Which member of an array a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The array.
    pub of: TaskId,
    /// Its place, from 0.
    pub index: u64,
    /// Its item.
    pub item: String,
}

/// How much of an attempt's output is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSizes {
    /// Bytes of standard output.
    pub stdout_bytes: u64,
    /// Bytes of standard error.
    pub stderr_bytes: u64,
    /// Whether there was more.
    pub truncated: bool,
}

impl From<OutputRef> for OutputSizes {
    fn from(output: OutputRef) -> Self {
        Self { stdout_bytes: output.stdout_bytes, stderr_bytes: output.stderr_bytes, truncated: output.truncated }
    }
}

/// One thing that happened: a line of `acode events`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its place in the order of all events of the queue.
    pub seq: u64,
    /// When it was recorded.
    pub at: Stamp,
    /// What happened, by name: `task-submitted`, `worker-started`, ...
    pub event: String,
    /// To which task.
    pub task: Option<TaskId>,
    /// In which attempt.
    pub attempt: Option<u32>,
    /// By which worker.
    pub worker: Option<WorkerId>,
    /// What else there is to say: an object.
    pub data: Option<Box<RawValue>>,
}

impl EventRecord {
    /// An event about nothing in particular yet.
    pub fn new(seq: u64, at: Stamp, event: impl Into<String>) -> Self {
        Self { schema: SCHEMA, seq, at, event: event.into(), task: None, attempt: None, worker: None, data: None }
    }
}
