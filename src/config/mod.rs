//! The configuration: what `acode.yaml`, the `ACODE_*` variables and the flags say, as one checked value.
//!
//! This file holds what can be configured, in units that the types carry, and its defaults; `table` holds each key's
//! name, range and meaning, and `keys` the kinds of values; `load` finds the file and lays variables and flags over it; `cpus` counts the processors
//! that the pool may use. Deliberately absent: the paths of the state directory (`rundir`), and every use of a value.

mod cpus;
mod docker;
mod error;
mod keys;
mod load;
mod modes;
mod sandbox;
mod table;

#[cfg(test)]
mod tests;

pub use cpus::usable_cpus;
pub use docker::{Artifacts, Docker, Fallback};
pub use error::{ConfigError, Origin};
pub use keys::{Reference, reference};
pub use load::{Loaded, Overrides, Vars, load, load_options};
pub use modes::{Modes, ModesError};
pub use sandbox::Sandboxes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::{DiskMethod, Env, Limits, Pull, Retry, Rlimits};

pub use acode_worker::task::{Cleanup as When, OverLimitAction};

/// Everything that can be configured. The defaults are those of [`Config::default`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The worker processes: `workers`.
    pub workers: Workers,
    /// What a task gets that does not say otherwise: `tasks`.
    pub tasks: Tasks,
    /// When what tasks leave is removed: `cleanup`.
    pub cleanup: Cleanup,
    /// The output journal: `output`.
    pub output: Output,
    /// What is kept of finished work: `retention`.
    pub retention: Retention,
    /// The queue: `queue`.
    pub queue: Queue,
    /// When no further task is started for want of resources: `backpressure`.
    pub backpressure: Backpressure,
    /// The GNU make jobserver: `jobserver`.
    pub jobserver: Jobserver,
    /// Limit groups: `groups`.
    pub groups: Groups,
    /// The control socket: `control`.
    pub control: Control,
    /// The metrics: `metrics`.
    pub metrics: Metrics,
    /// Containers: `docker`.
    pub docker: Docker,
    /// Typed tasks: `actions`.
    pub actions: Actions,
    /// Files of tasks that are kept: `artifacts`.
    pub artifacts: Artifacts,
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
    /// Of which modes they are.
    pub mode: Modes,
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
    /// The largest limits that a task may have; where neither it nor `limits` says anything, these are its limits.
    pub max_limits: Limits,
    /// What happens to a task above its memory or disk limit.
    pub over_limit_action: OverLimitAction,
    /// Whether a limit above which a task is killed may be looked at instead, where nothing enforces it.
    pub allow_observed: bool,
    /// What tasks may reach.
    pub sandbox: Sandboxes,
    /// By what means the limits of scratch directories are held.
    pub disk_method: DiskMethod,
    /// How their number follows the load.
    pub scaling: Scaling,
    /// How they are looked after.
    pub health_check: HealthCheck,
    /// When they are replaced by fresh ones.
    pub recycle: Recycle,
}

/// How the number of workers follows the load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Whether it does. After loading never [`Switch::Auto`].
    pub enabled: Switch,
    /// The fewest workers that it leaves.
    pub min_count: u32,
    /// The most workers that it makes. After loading never 0: the processors that may be used where nothing is said.
    pub max_count: u32,
    /// The share of workers in demand above which the pool grows.
    pub up_threshold: f64,
    /// The share of workers in demand below which it shrinks.
    pub down_threshold: f64,
    /// The least time between two growths.
    pub up_cooldown: Duration,
    /// The least time from any change to a shrinking.
    pub down_cooldown: Duration,
    /// How long demand must have been low before the pool shrinks.
    pub idle_timeout: Duration,
}

/// Something that is on, off, or either by what else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
    /// By what else is said.
    #[default]
    Auto,
}

/// How workers are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whether they are checked from time to time.
    pub enabled: bool,
    /// The time between two checks.
    pub interval: Duration,
}

/// When a worker is replaced by a fresh one. `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recycle {
    /// After so many tasks.
    pub max_tasks: Option<u64>,
    /// When its own memory, measured at a health check, is above so many MiB.
    pub max_memory_mb: Option<u64>,
}

/// What a task gets that does not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// The time that an attempt may take; `None` is without end.
    pub timeout: Option<Duration>,
    /// The time from a worker's claim within which a task's process must run; `None` is without end.
    pub start_timeout: Option<Duration>,
    /// Retries of a task that failed.
    pub retry: Retry,
    /// The variables that tasks inherit from the supervisor: names, or the beginnings of names with a `*` at the end.
    pub environment_allow: Vec<String>,
    /// Variables that every task gets.
    pub environment_set: Env,
    /// Program and arguments that run as a task of their own when a task has ended; none if empty.
    pub on_finish: Vec<String>,
    /// After which time a finish hook is ended, this one or a task's own.
    pub on_finish_timeout: Duration,
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

/// What an action gets that does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actions {
    /// Program and arguments of the worker program that does the custom actions which nobody else is named for; none if
    /// empty.
    pub program: Vec<String>,
    /// The time that an attempt may take; `None` is as of commands.
    pub timeout: Option<Duration>,
    /// The most retries; `None` is as of commands.
    pub retries: Option<u32>,
}

/// When what tasks leave is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanup {
    /// After which ends a scratch directory is removed; else it is kept.
    pub scratch: When,
    /// After which ends a git worktree is removed; else its changes are kept as a patch, and its files as scratch directories are.
    pub worktrees: When,
    /// The most scratch directories that are kept.
    pub max_kept: u32,
    /// How long they are kept; `None` is as long as their tasks.
    pub max_kept_age: Option<Duration>,
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Queue {
    /// The most unfinished tasks, members of arrays included; a submission beyond is refused.
    pub max_tasks: u64,
    /// A task that has been ready for so long without being started moves up by one priority; zero: none does.
    pub ageing: Duration,
    /// The share of `max_tasks` from which on submitters wait, 0 to 1; at 1 nobody waits.
    pub backpressure_threshold: f64,
    /// How long a submitter waits that does not say otherwise.
    pub max_wait: Duration,
}

/// When no further task is started for want of resources. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backpressure {
    /// Whether any of it counts.
    pub enabled: bool,
    /// The machine's load average of one minute, for each processor.
    pub max_load_per_cpu: Option<f64>,
    /// Memory that the machine has left, in MiB.
    pub min_free_memory_mb: Option<u64>,
    /// Disk space that the state directory's file system has left, in MiB.
    pub min_free_disk_mb: Option<u64>,
    /// The share of time in which all processes waited for memory, over ten seconds, in percent.
    pub max_memory_pressure: Option<f64>,
    /// The same for input and output.
    pub max_io_pressure: Option<f64>,
    /// The share of time in which some process waited for a processor, over ten seconds, in percent.
    pub max_cpu_pressure: Option<f64>,
    /// How long all must have been well, with a margin, before tasks are started again.
    pub resume_after: Duration,
}

/// The GNU make jobserver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Jobserver {
    /// How many processes the pool and its tasks' jobs run at once; `None` is the processors that may be used.
    pub slots: Option<u32>,
}

/// Limit groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// The most tasks of a group at once, by the group's name; wins over what submitters say.
    pub limits: BTreeMap<String, u32>,
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
    /// The limits of all its tasks together.
    pub limits: PoolLimits,
}

/// The limits of all tasks of a pool together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolLimits {
    /// CPU time in percent of one processor; `None` is no limit.
    pub cpu_percent: Option<u32>,
    /// Memory in MiB; `None` leaves a reserve to the rest of the host.
    pub memory_mb: Option<u64>,
    /// Processes and threads at once; `None` is half of what the host can have.
    pub pids: Option<u32>,
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

impl Named for Fallback {
    const NAMES: &'static [(&'static str, Self)] = &[("process", Self::Process), ("refuse", Self::Refuse)];
}

impl Named for Pull {
    const NAMES: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("missing", Self::Missing), ("always", Self::Always)];
}

impl Named for OverLimitAction {
    const NAMES: &'static [(&'static str, Self)] =
        &[("warn", Self::Warn), ("throttle", Self::Throttle), ("kill", Self::Kill)];
}

impl Named for When {
    const NAMES: &'static [(&'static str, Self)] =
        &[("always", Self::Always), ("success", Self::Success), ("failure", Self::Failure), ("never", Self::Never)];
}

impl Named for DiskMethod {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("quota", Self::Quota),
        ("loop", Self::Loop),
        ("tmpfs", Self::Tmpfs),
        ("sampling", Self::Sampling),
    ];
}

impl Named for Switch {
    const NAMES: &'static [(&'static str, Self)] = &[("true", Self::On), ("false", Self::Off), ("auto", Self::Auto)];
}

impl Named for bool {
    const NAMES: &'static [(&'static str, Self)] = &[("true", true), ("false", false)];
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
            mode: Modes::default(),
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
            max_limits: Limits::default(),
            over_limit_action: OverLimitAction::default(),
            allow_observed: false,
            sandbox: Sandboxes::default(),
            disk_method: DiskMethod::default(),
            scaling: Scaling::default(),
            health_check: HealthCheck::default(),
            recycle: Recycle::default(),
        }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            enabled: Switch::default(),
            min_count: 2,
            // Stands for 'the processors that may be used' until `load` has counted them.
            max_count: 0,
            up_threshold: 0.7,
            down_threshold: 0.3,
            up_cooldown: Duration::from_secs(30),
            down_cooldown: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::from_secs(30) }
    }
}

impl Default for Recycle {
    fn default() -> Self {
        Self { max_tasks: Some(10_000), max_memory_mb: Some(512) }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        let allow = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ"];
        Self {
            timeout: None,
            start_timeout: None,
            retry: Retry::default(),
            environment_allow: allow.map(str::to_owned).to_vec(),
            environment_set: Env::new(),
            on_finish: Vec::new(),
            on_finish_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Cleanup {
    fn default() -> Self {
        Self {
            scratch: When::Always,
            worktrees: When::Success,
            max_kept: 100,
            max_kept_age: Some(Duration::from_secs(7 * 86_400)),
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
        Self {
            max_tasks: 10_000_000,
            ageing: Duration::ZERO,
            backpressure_threshold: 0.9,
            max_wait: Duration::from_secs(30),
        }
    }
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            enabled: true,
            max_load_per_cpu: None,
            min_free_memory_mb: Some(64),
            min_free_disk_mb: Some(64),
            max_memory_pressure: Some(40.0),
            max_io_pressure: None,
            max_cpu_pressure: None,
            resume_after: Duration::from_secs(5),
        }
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
        Self { name: "default".to_owned(), limits: PoolLimits::default() }
    }
}
