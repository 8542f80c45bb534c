//! The JSON records that people's scripts read: `--json` prints exactly these, and the control protocol carries them.
//!
//! Every record that stands alone has the `schema` number. Absent values are `null`, not left out, so that a script may
//! rely on the keys; only `attempts` and `hooks` are left out where they were not asked for. Times are RFC 3339 in UTC with
//! microseconds. Deliberately absent: how they look as text (`cli/render.rs`).

use acode_worker::task::{
    Action, Artifacts, Docker, Env, HeldLimit, Isolation, OutputRef, Priority, TaskId, TaskState, TreeGuard, Verdict,
    WorkerId, Worktree,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::types::{PoolState, ScalingMode, TaskCounts, Waiting, WorkerStatus};
use super::{CgroupRecord, EngineRecord, LiveRecord, ModeCounts, SCHEMA, Stamp, UsageRecord};

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
    /// What holds the limits of its tasks.
    #[serde(default)]
    pub cgroup: Option<CgroupRecord>,
    /// Whether the queue can be written.
    pub queue: QueueRecord,
    /// How it stands with the container engine, if it has docker workers.
    #[serde(default)]
    pub docker: Option<EngineRecord>,
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
    /// Why it starts no task, if it is paused.
    #[serde(default)]
    pub paused: Option<PauseRecord>,
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
    /// Who decides how many there shall be.
    #[serde(default)]
    pub scaling: ScalingMode,
    /// All that live, by their mode.
    #[serde(default)]
    pub modes: ModeCounts,
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
    /// How many unfinished tasks it may hold: `queue.maxTasks`.
    #[serde(default)]
    pub limit: u64,
    /// Why submitters wait, if the queue is nearly full.
    #[serde(default)]
    pub backpressure: Option<PauseRecord>,
}

/// Something that is held up, in a [`StatusRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// Why, in words.
    pub why: String,
    /// Since when.
    pub since: Stamp,
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
    /// What that uses now, if it has been looked at.
    #[serde(default)]
    pub usage_now: Option<LiveRecord>,
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

/// What a health check has found out about a worker: an element of `acode worker check --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its ULID.
    pub id: WorkerId,
    /// Its process.
    pub pid: u32,
    /// What it does, at the end of the check.
    pub status: WorkerStatus,
    /// Whether it has answered in time.
    pub healthy: bool,
    /// After how many microseconds it did.
    pub answered_in_us: Option<u64>,
    /// Memory of its own process, without its task's, in bytes.
    pub memory_bytes: Option<u64>,
    /// The task that it holds, at the end of the check.
    pub current_task: Option<TaskId>,
    /// What is wrong with it, in words.
    pub problem: Option<String>,
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
    /// Urgency, as it was asked for.
    pub priority: Priority,
    /// The present urgency, if it has become more urgent by waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present_priority: Option<Priority>,
    /// Its limit group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When it must have started, if it has not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Stamp>,
    /// What it last said about itself.
    pub progress: Option<Progress>,
    /// Why it does not run yet, if it is pending.
    pub waiting: Option<Waiting>,
    /// Program and arguments; empty for an action.
    pub command: Vec<String>,
    /// Its action, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Working directory, if one was asked for.
    pub cwd: Option<String>,
    /// How it is to be kept apart, if it says so; else as the pool does it.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// Its container, where it differs from the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// Its git worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree: Option<Worktree>,
    /// The submitter's own facts.
    pub meta: Env,
    /// What no other task that has not ended may have, if it was given such a key.
    #[serde(default)]
    pub key: Option<String>,
    /// If a dependency cancelled it: which one, and the end to which that goes back.
    #[serde(default)]
    pub cause: Option<CauseRecord>,
    /// If this is a finish hook: the task that had ended.
    #[serde(default)]
    pub hook_of: Option<TaskId>,
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
    /// Whether it runs, but its processes are stopped where they are.
    #[serde(default)]
    pub suspended: bool,
    /// Since when, if so.
    #[serde(default)]
    pub suspended_at: Option<Stamp>,
    /// What it uses now, if it runs and has been looked at.
    #[serde(default)]
    pub usage_now: Option<LiveRecord>,
    /// How much output is kept of its last attempt.
    pub output: OutputSizes,
    /// How many attempts there have been.
    pub attempt_count: u32,
    /// How many of them crashed: their worker was lost, or they ran out of memory.
    #[serde(default)]
    pub crash_count: u32,
    /// How many of those ran out of memory.
    #[serde(default)]
    pub oom_count: u32,
    /// All attempts, first to last; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<AttemptRecord>>,
    /// Its finish hooks, which are tasks of their own; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<TaskId>>,
}

/// Why a dependency cancelled a task, in a [`TaskRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseRecord {
    /// What it waited for itself, and which ended otherwise than it was to.
    pub dependency: TaskId,
    /// The first of the chain: what did not end for want of a dependency, but by itself.
    pub root: TaskId,
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
    pub usage: Option<UsageRecord>,
    /// When its process was started.
    pub started_at: Option<Stamp>,
    /// When it ended.
    pub finished_at: Option<Stamp>,
    /// Whether something was left running after its leader's end, and had to be killed.
    pub leaked: bool,
    /// Where its output lies in its worker's journal.
    pub output: Option<OutputRef>,
    /// How its limits were held; none while it runs.
    #[serde(default)]
    pub limits: Vec<HeldLimit>,
    /// Where its scratch directory was kept, if it was.
    #[serde(default)]
    pub kept: Option<String>,
    /// What held its sandbox, if it had one.
    #[serde(default)]
    pub sandbox: Option<serde_json::Value>,
    /// What was kept of its files.
    #[serde(default)]
    pub artifacts: Option<Artifacts>,
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
        Verdict::NotStarted { why, .. } | Verdict::EngineFailed { why } => Some(why.clone()),
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
