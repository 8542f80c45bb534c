//! With what a program starts a pool: every key of the configuration, the usual ones by methods.
//!
//! Deliberately absent: checks. The same code that reads a configuration file checks them, in the same words, at the start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use acode_worker::task::{Limits, OverLimitAction};
use serde_json::{Value, json};

use super::ApiError;
use super::task::millis;
use crate::config::{self, Named};

/// How the workers of a pool keep their tasks apart. A pool of several is made by [`WorkerPoolOptions::modes`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerMode {
    /// In processes.
    #[default]
    Process,
    /// In containers.
    Docker,
}

impl WorkerMode {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

/// Where a pool's queue is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// In a directory that goes with the pool.
    #[default]
    Private,
    /// In this one, which stays.
    Durable(PathBuf),
}

/// The options of a pool. Its defaults are those of the configuration; neither a configuration file nor the environment is
/// looked at, unless a file is named.
///
/// ```
/// use acode::api::{WorkerMode, WorkerPoolOptions};
/// use std::time::Duration;
///
/// let options = WorkerPoolOptions::default()
///     .worker_count(4)
///     .mode(WorkerMode::Process)
///     .poll_interval(Duration::from_secs(1))
///     .drain_timeout(Duration::from_secs(60))
///     .set("workers.killGraceMs", 500);
/// options.check()?;
///
/// let wrong = WorkerPoolOptions::default().worker_count(0).check().unwrap_err();
/// assert_eq!(wrong.to_string(), "the pool's options: workers.count is 0: 1 to 1024 is expected");
/// # Ok::<(), acode::api::ApiError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "options do nothing until a pool is started with them"]
pub struct WorkerPoolOptions {
    pub(super) place: Place,
    pub(super) program: Option<PathBuf>,
    pub(super) file: Option<PathBuf>,
    pub(super) keys: Vec<(String, Value)>,
}

impl WorkerPoolOptions {
    /// The defaults of a manager of CPU-intensive work: 2 to 8 workers by load, a queue of 1000 tasks, 30 seconds and
    /// three retries a second apart for each task, health checks every 30 seconds, workers replaced after 100 tasks or
    /// above 512 MiB, submitters waiting from 90 % of the queue on, and metrics told every five seconds.
    pub fn manager() -> Self {
        Self::default()
            .min_workers(2)
            .max_workers(8)
            .set("workers.count", 2)
            .auto_scaling(true)
            .max_task_queue_size(1_000)
            .task_timeout(Duration::from_secs(30))
            .max_retries(3)
            .retry_delay(Duration::from_secs(1))
            .health_checks(true)
            .health_check_interval(Duration::from_secs(30))
            .worker_idle_timeout(Duration::from_secs(300))
            .max_worker_memory_mb(512)
            .scale_up_threshold(0.7)
            .scale_down_threshold(0.3)
            .scale_up_cooldown(Duration::from_secs(30))
            .scale_down_cooldown(Duration::from_secs(60))
            .backpressure_threshold(0.9)
            .max_tasks_per_worker(100)
            .metrics_interval(Duration::from_secs(5))
    }

    /// Any key of the configuration, by its path as the manual has it: `.set("docker.image", "debian:12")`. The last one
    /// of several counts.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.keys.retain(|(known, _)| *known != key);
        self.keys.push((key, value));
        self
    }

    /// The queue is in this directory, and outlives the pool: whatever was accepted is there when a pool is started with it
    /// again.
    pub fn durable(mut self, state_directory: impl Into<PathBuf>) -> Self {
        self.place = Place::Durable(state_directory.into());
        self
    }

    /// A configuration file under the options.
    pub fn config_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Another program in the place of this one, for those that cannot be executed again: `acode` itself, or any program
    /// that calls [`init`](super::init). Its actions are what the pool can do.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// How many workers run. The number does not follow the load then, unless [`Self::auto_scaling`] says so.
    pub fn worker_count(self, count: u32) -> Self {
        self.set("workers.count", count)
    }

    /// How tasks are kept apart that do not say.
    pub fn mode(self, mode: WorkerMode) -> Self {
        self.set("workers.mode", mode.name())
    }

    /// Workers of several modes: `process:4,docker:2`.
    pub fn modes(self, modes: impl Into<String>) -> Self {
        self.set("workers.mode", modes.into())
    }

    /// How often an idle worker looks for work without being woken.
    pub fn poll_interval(self, interval: Duration) -> Self {
        self.set("workers.pollIntervalMs", millis(interval))
    }

    /// How long a graceful stop waits for running tasks, in whole seconds.
    pub fn drain_timeout(self, timeout: Duration) -> Self {
        self.set("workers.drainTimeoutSeconds", seconds(timeout))
    }

    /// Limits of every task that does not say otherwise.
    pub fn limits(self, limits: Limits) -> Self {
        let values = limits.values().into_iter().filter_map(|(name, value)| Some((name, value?)));
        let limited = values.fold(self, |options, (name, value)| options.set(format!("workers.limits.{name}"), value));
        match limits.action {
            Some(action) => limited.over_limit_action(action),
            None => limited,
        }
    }

    /// What happens to a task above its memory or disk limit.
    pub fn over_limit_action(self, action: OverLimitAction) -> Self {
        self.set("workers.resources.overLimitAction", Named::name(action))
    }

    /// The fewest workers that scaling by load leaves.
    pub fn min_workers(self, count: u32) -> Self {
        self.set("workers.scaling.minCount", count)
    }

    /// The most workers that scaling by load makes.
    pub fn max_workers(self, count: u32) -> Self {
        self.set("workers.scaling.maxCount", count)
    }

    /// Whether the number of workers follows the load.
    pub fn auto_scaling(self, enabled: bool) -> Self {
        self.set("workers.scaling.enabled", enabled)
    }

    /// The share of workers in demand above which the pool grows.
    pub fn scale_up_threshold(self, share: f64) -> Self {
        self.set("workers.scaling.scaleUpThreshold", share)
    }

    /// The share of workers in demand below which it shrinks.
    pub fn scale_down_threshold(self, share: f64) -> Self {
        self.set("workers.scaling.scaleDownThreshold", share)
    }

    /// The least time between two growths, in whole seconds.
    pub fn scale_up_cooldown(self, time: Duration) -> Self {
        self.set("workers.scaling.scaleUpCooldownSeconds", seconds(time))
    }

    /// The least time between any change and a shrinking, in whole seconds.
    pub fn scale_down_cooldown(self, time: Duration) -> Self {
        self.set("workers.scaling.scaleDownCooldownSeconds", seconds(time))
    }

    /// How long demand must have been low before workers are let go, in whole seconds.
    pub fn worker_idle_timeout(self, time: Duration) -> Self {
        self.set("workers.scaling.idleTimeoutSeconds", seconds(time))
    }

    /// The most tasks in the queue that have not ended.
    pub fn max_task_queue_size(self, tasks: u64) -> Self {
        self.set("queue.maxTasks", tasks)
    }

    /// The share of the queue from which on submitters wait.
    pub fn backpressure_threshold(self, share: f64) -> Self {
        self.set("queue.backpressureThreshold", share)
    }

    /// The time that an attempt may take that does not say, of commands and of actions; in whole seconds.
    pub fn task_timeout(self, timeout: Duration) -> Self {
        let timeout = seconds(timeout);
        self.set("tasks.timeoutSeconds", timeout).set("actions.timeoutSeconds", timeout)
    }

    /// The most retries of a task that does not say, of commands and of actions.
    pub fn max_retries(self, count: u32) -> Self {
        self.set("tasks.retries.count", count).set("actions.retries", count)
    }

    /// The time before the first retry, in whole milliseconds.
    pub fn retry_delay(self, delay: Duration) -> Self {
        self.set("tasks.retries.delayMs", millis(delay))
    }

    /// Whether workers are checked from time to time.
    pub fn health_checks(self, enabled: bool) -> Self {
        self.set("workers.healthCheck.enabled", enabled)
    }

    /// The time between two checks, in whole seconds.
    pub fn health_check_interval(self, interval: Duration) -> Self {
        self.set("workers.healthCheck.intervalSeconds", seconds(interval))
    }

    /// A worker whose own memory is above this is replaced, in MiB.
    pub fn max_worker_memory_mb(self, mebibytes: u64) -> Self {
        self.set("workers.recycle.maxMemoryMb", mebibytes)
    }

    /// A worker is replaced after so many tasks.
    pub fn max_tasks_per_worker(self, tasks: u64) -> Self {
        self.set("workers.recycle.maxTasks", tasks)
    }

    /// The worker program that does the custom actions which nobody else is named for, with its arguments.
    pub fn worker_script<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        let words: Vec<Value> = words.into_iter().map(|word| json!(word.into())).collect();
        self.set("actions.program", words)
    }

    /// How often the metrics are told as an event while tasks run, in whole seconds.
    pub fn metrics_interval(self, interval: Duration) -> Self {
        self.set("metrics.eventsIntervalSeconds", seconds(interval))
    }

    /// Whether the pool's log tells everything that happens and how.
    pub fn debug_logging(self, enabled: bool) -> Self {
        self.set("log.level", if enabled { "debug" } else { "info" })
    }

    /// Where the pool's log goes: an absolute path; else to a file of the state directory.
    pub fn log_file(self, file: &Path) -> Self {
        self.set("log.file", file.to_string_lossy())
    }

    /// Checks the options as a start does.
    ///
    /// # Errors
    /// [`ApiError::Config`], with the words for the first thing that is wrong.
    pub fn check(&self) -> Result<(), ApiError> {
        config::load_options(self.file.as_deref(), &self.keys)?;
        Ok(())
    }
}

/// Whole seconds, of which none is lost: a time that is no whole number of them becomes the next one that is.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}
