//! The configuration: what `acode.yaml`, the `ACODE_*` variables and the flags say, as one checked value.
//!
//! This file holds what can be configured, in units that the types carry, and its defaults; `keys` holds each key's
//! name, range and meaning; `load` finds the file and lays variables and flags over it; `cpus` counts the processors
//! that the pool may use. Deliberately absent: the paths of the state directory (`rundir`), and every use of a value.

mod cpus;
mod error;
mod keys;
mod load;

#[cfg(test)]
mod tests;

pub use cpus::usable_cpus;
pub use error::{ConfigError, Origin};
pub use keys::{Reference, reference};
pub use load::{Loaded, Overrides, Vars, load};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::{Env, Retry, Rlimits};

/// Everything that can be configured. The defaults are those of [`Config::default`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The worker processes: `workers`.
    pub workers: Workers,
    /// What a task gets that does not say otherwise: `tasks`.
    pub tasks: Tasks,
    /// The output journal: `output`.
    pub output: Output,
    /// What is kept of finished work: `retention`.
    pub retention: Retention,
    /// The queue: `queue`.
    pub queue: Queue,
    /// The control socket: `control`.
    pub control: Control,
    /// The metrics: `metrics`.
    pub metrics: Metrics,
    /// The supervisor's own log: `log`.
    pub log: Log,
    /// The pool as a whole: `pool`.
    pub pool: Pool,
}

/// The worker processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workers {
    /// How many workers run, from 1 to `max_count`. After loading never 0: the processors that may be used where
    /// nothing is said.
    pub count: u32,
    /// The most workers that the pool may be scaled to.
    pub max_count: u32,
    /// How the tasks of a worker are isolated.
    pub mode: WorkerMode,
    /// How often an idle worker looks for work without being woken: the safety net under the doorbell.
    pub poll_interval: Duration,
    /// The longest pause between two such looks; each pause without work is twice the one before.
    pub idle_backoff_max: Duration,
    /// How long a graceful stop waits for running tasks before it kills them and puts them back.
    pub drain_timeout: Duration,
    /// How often a worker says that it lives.
    pub heartbeat_interval: Duration,
    /// After which silence a worker is unhealthy, is killed, and its task is given to another.
    pub heartbeat_timeout: Duration,
    /// The time between SIGTERM and SIGKILL when a task is ended.
    pub kill_grace: Duration,
    /// How many workers a task may take with it before it is quarantined.
    pub max_worker_losses: u32,
    /// Limits of every task's processes.
    pub rlimits: Rlimits,
    /// The file mode mask of tasks.
    pub umask: u32,
    /// Limits of one task as a whole.
    pub limits: Limits,
    /// What happens to a task above its memory or disk limit.
    pub over_limit_action: OverLimitAction,
}

/// How the tasks of a worker are isolated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WorkerMode {
    /// Each task in a process tree of its own.
    #[default]
    Process,
}

/// Limits of one task as a whole. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// CPU time, in percent of one processor: 250 is two and a half processors.
    pub cpu_percent: Option<u32>,
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// Disk space in the scratch directory, in MiB.
    pub disk_mb: Option<u64>,
}

/// What happens to a task above its memory or disk limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverLimitAction {
    /// It is told in the log and the events.
    #[default]
    Warn,
    /// It is slowed down.
    Throttle,
    /// It is ended.
    Kill,
}

/// What a task gets that does not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// The time that an attempt may take; `None` is without end.
    pub timeout: Option<Duration>,
    /// Retries of a task that failed.
    pub retry: Retry,
    /// The variables that tasks inherit from the supervisor: names, or the beginnings of names with a `*` at the end.
    pub environment_allow: Vec<String>,
    /// Variables that every task gets.
    pub environment_set: Env,
}

impl Tasks {
    /// Whether a task may inherit the variable `name` from the supervisor.
    pub fn inherits(&self, name: &str) -> bool {
        self.environment_allow.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    }
}

/// The output journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Bytes of standard output and error together that are kept of one attempt; more is read and dropped.
    pub max_bytes_per_task: u64,
    /// The size in bytes at which a worker begins a new journal segment.
    pub segment_bytes: u64,
}

/// What is kept of finished work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a finished task is kept; `None` is for ever.
    pub max_age: Option<Duration>,
    /// The most finished tasks that are kept.
    pub max_finished_tasks: u64,
    /// The time between two prunings.
    pub interval: Duration,
    /// The most events that are kept.
    pub max_events: u64,
}

/// The queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The most unfinished tasks, members of arrays included; a submission beyond is refused.
    pub max_tasks: u64,
}

/// The control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The most clients at a time.
    pub max_connections: u32,
    /// How long a client that follows events may take nothing of what waits for it before it is cut off.
    pub slow_reader: Duration,
}

/// The metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// The loopback address on which they are served over HTTP; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// How often they are told as an event while tasks run; `None` is never.
    pub events_interval: Option<Duration>,
}

/// The supervisor's own log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// How much is told.
    pub level: LogLevel,
    /// The file, absolute; standard error where there is none.
    pub file: Option<PathBuf>,
}

/// How much the log tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// And what may.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

/// The pool as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name, as status and logs show it.
    pub name: String,
}

/// An enumeration whose values have names in the configuration.
pub trait Named: Copy + PartialEq + Sized + 'static {
    /// Every value with its name.
    const NAMES: &'static [(&'static str, Self)];

    /// The value of this name.
    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The value's name.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl Named for WorkerMode {
    const NAMES: &'static [(&'static str, Self)] = &[("process", Self::Process)];
}

impl Named for OverLimitAction {
    const NAMES: &'static [(&'static str, Self)] =
        &[("warn", Self::Warn), ("throttle", Self::Throttle), ("kill", Self::Kill)];
}

impl Named for LogLevel {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            // Stands for 'the processors that may be used' until `load` has counted them.
            count: 0,
            max_count: 256,
            mode: WorkerMode::default(),
            poll_interval: Duration::from_secs(1),
            idle_backoff_max: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(1),
            heartbeat_timeout: Duration::from_secs(10),
            kill_grace: Duration::from_secs(5),
            max_worker_losses: 3,
            rlimits: Rlimits::default(),
            umask: 0o077,
            limits: Limits::default(),
            over_limit_action: OverLimitAction::default(),
        }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        let allow = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ"];
        Self {
            timeout: None,
            retry: Retry::default(),
            environment_allow: allow.map(str::to_owned).to_vec(),
            environment_set: Env::new(),
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self { max_bytes_per_task: 64 << 20, segment_bytes: 64 << 20 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Some(Duration::from_secs(30 * 86_400)),
            max_finished_tasks: 1_000_000,
            interval: Duration::from_secs(60),
            max_events: 1_000_000,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_tasks: 10_000_000 }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { max_connections: 256, slow_reader: Duration::from_secs(30) }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: None, events_interval: Some(Duration::from_secs(60)) }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self { name: "default".to_owned() }
    }
}
