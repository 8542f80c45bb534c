//! The parts of requests, replies and records: states, counts, reasons.
//!
//! Pure data. Names are snake_case here, as in every record that people read; the task's specification itself keeps
//! the camelCase of the task file. Deliberately absent: the records themselves, which are in `record.rs` and given
//! again from here.

use std::fmt;

use acode_worker::task::{TaskId, TaskState, WorkerId};
use serde::{Deserialize, Serialize};

use super::Stamp;
pub use super::record::{
    ArrayRecord, AttemptRecord, CauseRecord, CheckRecord, EventRecord, MemberRecord, OutputSizes, PauseRecord,
    PoolRecord, Progress, QueueRecord, Resources, StatusRecord, TaskRecord, WorkerCounts, WorkerRecord,
};

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// Forked, and not heard from yet.
    Starting,
    /// Waiting for a task.
    Idle,
    /// Running a task.
    Busy,
    /// Its heartbeat has stopped; it is about to be killed.
    Unhealthy,
    /// Told to leave, and finishing what it has.
    Stopping,
    /// Gone.
    Stopped,
}

impl WorkerStatus {
    /// The status' name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolState {
    /// Recovering the queue and making its first workers.
    Starting,
    /// Taking and running tasks.
    Running,
    /// Running, but starting no task for now.
    Paused,
    /// Finishing: no task is started any more.
    Draining,
    /// Ending its workers.
    Stopping,
}

impl PoolState {
    /// The state's name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who decides how many workers there shall be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingMode {
    /// The load.
    Auto,
    /// Somebody who has set the number, until it is handed back to the load.
    Manual,
    /// The configuration, or whoever sets another number: scaling by load is switched off.
    #[default]
    Off,
}

impl ScalingMode {
    /// The mode's name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
            Self::Off => "off",
        }
    }
}

/// How a pool shall stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Start nothing more, let the running tasks finish until the timeout, then kill and requeue them.
    #[default]
    Drain,
    /// Kill the running tasks now and requeue them.
    Force,
    /// Run everything that is queued, too, then stop.
    WhenEmpty,
}

/// How many tasks are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskCounts {
    /// Waiting.
    pub pending: u64,
    /// Claimed, not started yet.
    pub assigned: u64,
    /// Running.
    pub running: u64,
    /// Ended with success.
    pub completed: u64,
    /// Ended without.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Ended by their timeout.
    pub timeout: u64,
}

impl TaskCounts {
    /// How many are in this state.
    pub fn get(&self, state: TaskState) -> u64 {
        match state {
            TaskState::Pending => self.pending,
            TaskState::Assigned => self.assigned,
            TaskState::Running => self.running,
            TaskState::Completed => self.completed,
            TaskState::Failed => self.failed,
            TaskState::Cancelled => self.cancelled,
            TaskState::Timeout => self.timeout,
        }
    }

    /// The count of this state, to change it.
    pub fn get_mut(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Pending => &mut self.pending,
            TaskState::Assigned => &mut self.assigned,
            TaskState::Running => &mut self.running,
            TaskState::Completed => &mut self.completed,
            TaskState::Failed => &mut self.failed,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Timeout => &mut self.timeout,
        }
    }

    /// Adds others to these.
    pub fn add(&mut self, more: Self) {
        for state in TaskState::ALL {
            *self.get_mut(state) += more.get(state);
        }
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        TaskState::ALL.into_iter().map(|state| self.get(state)).sum()
    }

    /// How many have ended, in whatever way.
    pub fn ended(&self) -> u64 {
        TaskState::ALL.into_iter().filter(|state| state.is_final()).map(|state| self.get(state)).sum()
    }

    /// How many have ended without success.
    pub fn unsuccessful(&self) -> u64 {
        self.failed + self.cancelled + self.timeout
    }
}

/// A limit group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its name.
    pub name: String,
    /// The most tasks of it at once; none if there is no limit.
    pub limit: Option<u32>,
    /// Its tasks that a worker holds.
    pub running: u64,
    /// Its other tasks that have not ended.
    pub waiting: u64,
    /// Since when it is held as a whole, if it is.
    pub held_since: Option<Stamp>,
}

/// Why a pending task does not run yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Waiting {
    /// It is its turn as soon as those ahead of it have been taken.
    Queued {
        /// How many are ahead of it, where that was counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ahead: Option<u64>,
    },
    /// Other tasks must end first.
    Dependencies {
        /// Which ones; the first [`Waiting::MAX_NAMED`] of them.
        on: Vec<TaskId>,
        /// How many in all.
        count: u64,
        /// The same ones with what they are and where they stand; only where that was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tasks: Vec<Awaited>,
    },
    /// It was submitted with a delay.
    Delayed {
        /// When it may start.
        until: Stamp,
    },
    /// An attempt failed, and the next one has to wait.
    RetryAt {
        /// When it may start.
        until: Stamp,
        /// The number of the next attempt.
        attempt: u32,
        /// The number of the last one that there will be, if all fail; absent after a crash, or where nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
        /// How the last one ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// A person holds it, or all of its group.
    Held {
        /// Since when.
        since: Stamp,
        /// The group, if that is held.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// As many tasks of its group run as may.
    Group {
        /// The group.
        name: String,
        /// How many may.
        limit: u32,
        /// How many do, or are about to.
        running: u64,
        /// Which; the first [`Waiting::MAX_NAMED`] of them.
        on: Vec<TaskId>,
    },
    /// The pool starts nothing for now.
    Paused {
        /// Why.
        why: String,
    },
    /// The pool is stopping.
    Draining,
    /// No pool is running.
    NoPool,
    /// The container engine cannot be used.
    Docker {
        /// Why.
        why: String,
    },
    /// No worker of this pool may take it.
    NoWorker {
        /// What it asks for.
        class: String,
    },
}

/// A task that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Its id.
    pub id: TaskId,
    /// The name that it was given.
    pub name: Option<String>,
    /// Where it stands.
    pub state: TaskState,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name}, {})", self.id, self.state),
            None => write!(f, "{} ({})", self.id, self.state),
        }
    }
}

impl Waiting {
    /// The most blockers that a reason names.
    pub const MAX_NAMED: usize = 20;

    /// The reason's name, as JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Dependencies { .. } => "dependencies",
            Self::Delayed { .. } => "delayed",
            Self::RetryAt { .. } => "retry-at",
            Self::Held { .. } => "held",
            Self::Group { .. } => "group",
            Self::Paused { .. } => "paused",
            Self::Draining => "draining",
            Self::NoPool => "no-pool",
            Self::Docker { .. } => "docker",
            Self::NoWorker { .. } => "no-worker",
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued { ahead: None } => f.write_str("queued"),
            Self::Queued { ahead: Some(0) } => f.write_str("queued: next to run"),
            Self::Queued { ahead: Some(ahead) } => write!(f, "queued: {ahead} ahead of it"),
            Self::Dependencies { on, count, tasks } => {
                let mut named: Vec<String> = tasks.iter().map(ToString::to_string).collect();
                if named.is_empty() {
                    named = on.iter().map(ToString::to_string).collect();
                }
                let plural = if *count == 1 { "task" } else { "tasks" };
                write!(f, "waits for {count} {plural}: {}", named.join(", "))?;
                match count.saturating_sub(on.len() as u64) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Delayed { until } => write!(f, "not before {until}"),
            Self::Held { since, group: None } => write!(f, "held since {since} by request"),
            Self::Held { since, group: Some(name) } => write!(f, "group {name} held since {since} by request"),
            Self::Group { name, limit, running, on } => {
                write!(f, "group {name} is full: {running} of {limit} running")?;
                let named: Vec<String> = on.iter().map(TaskId::to_string).collect();
                match (named.is_empty(), running.saturating_sub(on.len() as u64)) {
                    (true, _) => Ok(()),
                    (false, 0) => write!(f, " ({})", named.join(", ")),
                    (false, more) => write!(f, " ({} and {more} more)", named.join(", ")),
                }
            }
            Self::RetryAt { until, attempt, of, after } => {
                write!(f, "retry at {until} (attempt {attempt}")?;
                match of {
                    Some(of) => write!(f, " of {of})")?,
                    None => f.write_str(")")?,
                }
                after.as_ref().map_or(Ok(()), |after| write!(f, " after {after}"))
            }
            Self::Paused { why } => write!(f, "paused: {why}"),
            Self::Draining => f.write_str("the pool is stopping and starts no more tasks"),
            Self::NoPool => f.write_str("no pool is running: `acode worker start` starts one"),
            Self::Docker { why } => write!(f, "waits for Docker: {why}"),
            Self::NoWorker { class } => write!(f, "no worker of this pool takes {class} tasks"),
        }
    }
}

/// Where the output of one attempt lies, for a client to read it from the journal itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSource {
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub name: String,
    /// Which attempt.
    pub attempt: u32,
    /// The worker in whose journal it lies.
    pub worker: WorkerId,
    /// The number of the segment in which it begins.
    pub segment: u64,
    /// The offset in that segment at which it begins, or at which to begin to look, in bytes.
    pub offset: u64,
    /// Bytes from there to the end of the output over all segments; absent while the attempt runs.
    pub length: Option<u64>,
}
