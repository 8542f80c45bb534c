//! Every key of the configuration: its path, its range, its meaning, and the place of its value.
//!
//! The one table from which the file is read, the variables are named, the ranges are checked and the reference is
//! printed, so that none of them can say something else. Deliberately absent: rules between two keys; `load` has them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::{DiskMethod, Env, ExitCodes, GroupWish, SignalReach};

use super::{Config, LogLevel, Modes, Named, OverLimitAction, Switch, When, sandbox};
use crate::tree::{Fault, Node};

/// The most workers that any configuration may ask for. Each costs the supervisor a few descriptors, and the usual
/// limit is some thousands.
const WORKERS_MAX: u64 = 1024;
const HOUR_MS: u64 = 3_600_000;
const DAY_S: u64 = 86_400;
const YEAR_S: u64 = 366 * DAY_S;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// The longest name of a pool: it goes into labels and status lines.
const NAME_MAX: usize = 64;

/// One key.
pub(super) struct Key {
    /// Its path, as in `workers.count`.
    pub path: &'static str,
    /// Its value's kind, range and place.
    pub slot: Slot,
    /// What it means, for the reference.
    pub meaning: &'static str,
}

/// How to find a value in the configuration.
type Place<T> = fn(&mut Config) -> &mut T;

/// The kind, range and place of a key's value. Ranges are in the key's own unit.
pub(super) enum Slot {
    Count(Place<u32>, u64, u64),
    OptionalCount(Place<Option<u32>>, u64, u64),
    Amount(Place<u64>, u64, u64),
    OptionalAmount(Place<Option<u64>>, u64, u64),
    Millis(Place<Duration>, u64, u64),
    Seconds(Place<Duration>, u64, u64),
    OptionalSeconds(Place<Option<Duration>>, u64, u64),
    OptionalDays(Place<Option<Duration>>, u64, u64),
    Real(Place<f64>, f64, f64),
    OptionalReal(Place<Option<f64>>, f64, f64),
    Codes(Place<ExitCodes>),
    Octal(Place<u32>),
    Flag(Place<bool>),
    Switch(Place<Switch>),
    Modes(Place<Modes>),
    Action(Place<OverLimitAction>),
    Method(Place<DiskMethod>),
    Cleanup(Place<When>),
    Level(Place<LogLevel>),
    /// The part of the default sandbox with this name.
    Sandbox(&'static str),
    Signals(Place<SignalReach>),
    Paths(Place<Vec<PathBuf>>),
    Patterns(Place<Vec<String>>),
    Words(Place<Vec<String>>),
    Variables(Place<Env>),
    Limits(Place<BTreeMap<String, u32>>),
    File(Place<Option<PathBuf>>),
    Name(Place<String>),
    Listen(Place<Option<SocketAddr>>),
}

const fn key(path: &'static str, slot: Slot, meaning: &'static str) -> Key {
    Key { path, slot, meaning }
}

/// Every key, in the order of the reference.
#[rustfmt::skip]
pub(super) static KEYS: &[Key] = &[
    key("workers.count", Slot::Count(|c| &mut c.workers.count, 1, WORKERS_MAX),
        "worker processes, by default the processors that may be used; while the pool scales by load, those that it begins with"),
    key("workers.maxCount", Slot::Count(|c| &mut c.workers.max_count, 1, WORKERS_MAX),
        "the most workers that the pool may be scaled to"),
    key("workers.mode", Slot::Modes(|c| &mut c.workers.mode),
        "how tasks are kept apart; with numbers a mixed pool, whose first mode takes the tasks that do not say"),
    key("workers.pollIntervalMs", Slot::Millis(|c| &mut c.workers.poll_interval, 10, HOUR_MS),
        "how often an idle worker looks for work without being woken"),
    key("workers.idleBackoffMaxMs", Slot::Millis(|c| &mut c.workers.idle_backoff_max, 10, HOUR_MS),
        "the longest pause between two such looks; they double from workers.pollIntervalMs on"),
    key("workers.drainTimeoutSeconds", Slot::Seconds(|c| &mut c.workers.drain_timeout, 0, 7 * DAY_S),
        "how long a graceful stop waits for running tasks"),
    key("workers.heartbeatIntervalMs", Slot::Millis(|c| &mut c.workers.heartbeat_interval, 10, 60_000),
        "how often a worker says that it lives"),
    key("workers.heartbeatTimeoutMs", Slot::Millis(|c| &mut c.workers.heartbeat_timeout, 20, HOUR_MS),
        "after which silence a worker is killed and its task given to another"),
    key("workers.killGraceMs", Slot::Millis(|c| &mut c.workers.kill_grace, 0, HOUR_MS),
        "from SIGTERM to SIGKILL when a task is ended"),
    key("workers.maxWorkerLosses", Slot::Count(|c| &mut c.workers.max_worker_losses, 1, 1_000),
        "how many crashes, workers lost and attempts out of memory, put a task into quarantine"),
    key("workers.umask", Slot::Octal(|c| &mut c.workers.umask),
        "the file mode mask of tasks, octal"),
    key("workers.rlimits.coreBytes", Slot::OptionalAmount(|c| &mut c.workers.rlimits.core_bytes, 0, u64::MAX),
        "the largest core dump of a task's process"),
    key("workers.rlimits.openFiles", Slot::OptionalAmount(|c| &mut c.workers.rlimits.open_files, 8, u64::MAX),
        "the most open files of a task's process"),
    key("workers.rlimits.fileSizeBytes", Slot::OptionalAmount(|c| &mut c.workers.rlimits.file_size_bytes, 0, u64::MAX),
        "the largest file that a task's process may write"),
    key("workers.rlimits.addressSpaceBytes", Slot::OptionalAmount(|c| &mut c.workers.rlimits.address_space_bytes, KIB, u64::MAX),
        "the largest address space of a task's process"),
    key("workers.rlimits.cpuSeconds", Slot::OptionalAmount(|c| &mut c.workers.rlimits.cpu_seconds, 1, YEAR_S),
        "the CPU time after which a task's process is killed"),
    key("workers.rlimits.processes", Slot::OptionalAmount(|c| &mut c.workers.rlimits.processes, 1, u64::MAX),
        "the most processes of the tasks' user; does not bind root"),
    key("workers.limits.cpuPercent", Slot::OptionalCount(|c| &mut c.workers.limits.cpu_percent, 1, 100 * 4096),
        "CPU time of one task, in percent of one processor"),
    key("workers.limits.cpuWeight", Slot::OptionalCount(|c| &mut c.workers.limits.cpu_weight, 1, 10_000),
        "share of the processors of one task where tasks compete for them; the usual one is 100"),
    key("workers.limits.memoryMb", Slot::OptionalAmount(|c| &mut c.workers.limits.memory_mb, 1, TIB / KIB),
        "memory of one task, in MiB"),
    key("workers.limits.swapMb", Slot::OptionalAmount(|c| &mut c.workers.limits.swap_mb, 0, TIB / KIB),
        "swap space of one task, in MiB; none is 0 where its memory is limited"),
    key("workers.limits.diskMb", Slot::OptionalAmount(|c| &mut c.workers.limits.disk_mb, 1, TIB / KIB),
        "disk space of one task's scratch directory, in MiB"),
    key("workers.limits.diskFiles", Slot::OptionalAmount(|c| &mut c.workers.limits.disk_files, 1, 1_000_000_000),
        "files, directories and links in one task's scratch directory"),
    key("workers.limits.pids", Slot::OptionalCount(|c| &mut c.workers.limits.pids, 1, 4_194_304),
        "processes and threads of one task at once"),
    key("workers.limits.ioWeight", Slot::OptionalCount(|c| &mut c.workers.limits.io_weight, 1, 10_000),
        "share of the disk's time of one task where tasks compete for it; the usual one is 100"),
    key("workers.limits.ioReadBytes", Slot::OptionalAmount(|c| &mut c.workers.limits.io_read_bytes, 4096, TIB),
        "bytes that one task reads a second from the disk of the state directory"),
    key("workers.limits.ioWriteBytes", Slot::OptionalAmount(|c| &mut c.workers.limits.io_write_bytes, 4096, TIB),
        "bytes that one task writes a second to the disk of the state directory"),
    key("workers.maxLimits.cpuPercent", Slot::OptionalCount(|c| &mut c.workers.max_limits.cpu_percent, 1, 100 * 4096),
        "the most that a task may ask for as its cpuPercent"),
    key("workers.maxLimits.cpuWeight", Slot::OptionalCount(|c| &mut c.workers.max_limits.cpu_weight, 1, 10_000),
        "the most that a task may ask for as its cpuWeight"),
    key("workers.maxLimits.memoryMb", Slot::OptionalAmount(|c| &mut c.workers.max_limits.memory_mb, 1, TIB / KIB),
        "the most that a task may ask for as its memoryMb"),
    key("workers.maxLimits.swapMb", Slot::OptionalAmount(|c| &mut c.workers.max_limits.swap_mb, 0, TIB / KIB),
        "the most that a task may ask for as its swapMb"),
    key("workers.maxLimits.diskMb", Slot::OptionalAmount(|c| &mut c.workers.max_limits.disk_mb, 1, TIB / KIB),
        "the most that a task may ask for as its diskMb"),
    key("workers.maxLimits.diskFiles", Slot::OptionalAmount(|c| &mut c.workers.max_limits.disk_files, 1, 1_000_000_000),
        "the most that a task may ask for as its diskFiles"),
    key("workers.maxLimits.pids", Slot::OptionalCount(|c| &mut c.workers.max_limits.pids, 1, 4_194_304),
        "the most that a task may ask for as its pids"),
    key("workers.maxLimits.ioWeight", Slot::OptionalCount(|c| &mut c.workers.max_limits.io_weight, 1, 10_000),
        "the most that a task may ask for as its ioWeight"),
    key("workers.maxLimits.ioReadBytes", Slot::OptionalAmount(|c| &mut c.workers.max_limits.io_read_bytes, 4096, TIB),
        "the most that a task may ask for as its ioReadBytes"),
    key("workers.maxLimits.ioWriteBytes", Slot::OptionalAmount(|c| &mut c.workers.max_limits.io_write_bytes, 4096, TIB),
        "the most that a task may ask for as its ioWriteBytes"),
    key("workers.resources.overLimitAction", Slot::Action(|c| &mut c.workers.over_limit_action),
        "what happens to a task above its memory or disk limit"),
    key("workers.resources.allowObserved", Slot::Flag(|c| &mut c.workers.allow_observed),
        "whether a limit above which tasks are killed may be looked at from time to time where the kernel cannot enforce it"),
    key("workers.sandbox.network", Slot::Sandbox("network"),
        "what a task may reach of the network"),
    key("workers.sandbox.filesystem", Slot::Sandbox("filesystem"),
        "what a task may do to the file system"),
    key("workers.sandbox.devices", Slot::Sandbox("devices"),
        "which devices a task may open"),
    key("workers.sandbox.user", Slot::Sandbox("user"),
        "the user that tasks run as; for pools of root"),
    key("workers.sandbox.override", Slot::Flag(|c| &mut c.workers.sandbox.may_loosen),
        "whether a task may ask for less of a sandbox than the four above"),
    key("workers.sandbox.readable", Slot::Paths(|c| &mut c.workers.sandbox.readable),
        "what filesystem=scratch shows beside programs and libraries"),
    key("workers.sandbox.writable", Slot::Paths(|c| &mut c.workers.sandbox.writable),
        "what can be written to under filesystem=read-only and scratch, beside the scratch directory"),
    key("workers.sandbox.signals", Slot::Signals(|c| &mut c.workers.sandbox.signals),
        "whom a task without a sandbox may send signals to, and trace, where the kernel can tell: its own processes, or \
         those of its user"),
    key("workers.disk.method", Slot::Method(|c| &mut c.workers.disk_method),
        "by what means the disk limit of a task is held; auto: quota where there is one, else sampling"),
    key("workers.scaling.enabled", Slot::Switch(|c| &mut c.workers.scaling.enabled),
        "whether the number of workers follows the load; auto: unless workers.count is given"),
    key("workers.scaling.minCount", Slot::Count(|c| &mut c.workers.scaling.min_count, 1, WORKERS_MAX),
        "the fewest workers that scaling by load leaves; the default is lowered to workers.scaling.maxCount"),
    key("workers.scaling.maxCount", Slot::Count(|c| &mut c.workers.scaling.max_count, 1, WORKERS_MAX),
        "the most workers that scaling by load makes; by default the processors that may be used"),
    key("workers.scaling.scaleUpThreshold", Slot::Real(|c| &mut c.workers.scaling.up_threshold, 0.01, 1.0),
        "the share of workers in demand above which the pool grows"),
    key("workers.scaling.scaleDownThreshold", Slot::Real(|c| &mut c.workers.scaling.down_threshold, 0.0, 1.0),
        "the share of workers in demand below which the pool shrinks; 0 is never"),
    key("workers.scaling.scaleUpCooldownSeconds", Slot::Seconds(|c| &mut c.workers.scaling.up_cooldown, 0, DAY_S),
        "the least time between two growths"),
    key("workers.scaling.scaleDownCooldownSeconds", Slot::Seconds(|c| &mut c.workers.scaling.down_cooldown, 0, DAY_S),
        "the least time from a growth or a shrinking to the next shrinking"),
    key("workers.scaling.idleTimeoutSeconds", Slot::Seconds(|c| &mut c.workers.scaling.idle_timeout, 1, DAY_S),
        "how long demand must have been low before the pool shrinks"),
    key("workers.healthCheck.enabled", Slot::Flag(|c| &mut c.workers.health_check.enabled),
        "whether workers are checked from time to time"),
    key("workers.healthCheck.intervalSeconds", Slot::Seconds(|c| &mut c.workers.health_check.interval, 1, DAY_S),
        "the time between two health checks"),
    key("workers.recycle.maxTasks", Slot::OptionalAmount(|c| &mut c.workers.recycle.max_tasks, 1, u64::MAX),
        "a worker is replaced after so many tasks"),
    key("workers.recycle.maxMemoryMb", Slot::OptionalAmount(|c| &mut c.workers.recycle.max_memory_mb, 1, TIB / KIB),
        "a worker is replaced when a health check finds its own memory above this, in MiB"),
    key("tasks.timeoutSeconds", Slot::OptionalSeconds(|c| &mut c.tasks.timeout, 1, YEAR_S),
        "how long an attempt may take"),
    key("tasks.startTimeoutSeconds", Slot::OptionalSeconds(|c| &mut c.tasks.start_timeout, 1, YEAR_S),
        "how long it may take from a worker's claim until a task's process runs"),
    key("tasks.retries.count", Slot::Count(|c| &mut c.tasks.retry.count, 0, 1_000_000),
        "further attempts after one that failed"),
    key("tasks.retries.delayMs", Slot::Amount(|c| &mut c.tasks.retry.delay_ms, 0, YEAR_S * 1_000),
        "the delay before the first retry"),
    key("tasks.retries.factor", Slot::Real(|c| &mut c.tasks.retry.factor, 1.0, 1_000.0),
        "by how much each further delay is longer than the one before"),
    key("tasks.retries.maxDelayMs", Slot::Amount(|c| &mut c.tasks.retry.max_delay_ms, 0, YEAR_S * 1_000),
        "the longest delay"),
    key("tasks.retries.jitter", Slot::Real(|c| &mut c.tasks.retry.jitter, 0.0, 1.0),
        "the share of a delay that is random: 0.1 spreads it over 90 % to 110 %"),
    key("tasks.retries.onCodes", Slot::Codes(|c| &mut c.tasks.retry.on_codes),
        "if there is any: only these exit codes are tried again, and no other end"),
    key("tasks.retries.exceptCodes", Slot::Codes(|c| &mut c.tasks.retry.except_codes),
        "exit codes that are never tried again; not together with tasks.retries.onCodes"),
    key("tasks.retries.memoryFactor", Slot::Real(|c| &mut c.tasks.retry.memory_factor, 1.0, 1_000.0),
        "what the memory limit is multiplied by for each attempt that ran out of memory"),
    key("tasks.environment.allow", Slot::Patterns(|c| &mut c.tasks.environment_allow),
        "the variables that tasks inherit from the supervisor; a * at the end stands for any end"),
    key("tasks.environment.set", Slot::Variables(|c| &mut c.tasks.environment_set),
        "variables that every task gets"),
    key("tasks.onFinish", Slot::Words(|c| &mut c.tasks.on_finish),
        "what runs as a task of its own when a task has ended, with the verdict in its environment"),
    key("tasks.onFinishTimeoutSeconds", Slot::Seconds(|c| &mut c.tasks.on_finish_timeout, 1, YEAR_S),
        "how long such a task may take, and one that a task asks for itself"),
    key("cleanup.scratch", Slot::Cleanup(|c| &mut c.cleanup.scratch),
        "after which ends of an attempt its scratch directory is removed; after others it is kept"),
    key("cleanup.worktrees", Slot::Cleanup(|c| &mut c.cleanup.worktrees),
        "after which ends of an attempt its git worktree is removed; after others its changes and its files are kept"),
    key("cleanup.maxKept", Slot::Count(|c| &mut c.cleanup.max_kept, 0, 100_000),
        "the most scratch directories that are kept; the oldest go first"),
    key("cleanup.maxKeptAgeDays", Slot::OptionalDays(|c| &mut c.cleanup.max_kept_age, 1, 36_500),
        "how long a scratch directory is kept; at most as long as its task"),
    key("artifacts.maxBytes", Slot::Amount(|c| &mut c.artifacts.max_bytes, 0, TIB),
        "bytes that are kept of one attempt's artefacts and of its changes in a git worktree"),
    key("output.maxBytesPerTask", Slot::Amount(|c| &mut c.output.max_bytes_per_task, 0, TIB),
        "bytes of output that are kept of one attempt"),
    key("output.segmentBytes", Slot::Amount(|c| &mut c.output.segment_bytes, 64 * KIB, 4 * GIB),
        "the size at which a worker begins a new journal segment"),
    key("retention.maxAgeDays", Slot::OptionalDays(|c| &mut c.retention.max_age, 1, 36_500),
        "how long finished tasks are kept"),
    key("retention.maxFinishedTasks", Slot::Amount(|c| &mut c.retention.max_finished_tasks, 0, 1_000_000_000),
        "the most finished tasks that are kept"),
    key("retention.intervalSeconds", Slot::Seconds(|c| &mut c.retention.interval, 1, DAY_S),
        "the time between two prunings"),
    key("retention.maxEvents", Slot::Amount(|c| &mut c.retention.max_events, 0, 1_000_000_000),
        "the most events that are kept"),
    key("queue.maxTasks", Slot::Amount(|c| &mut c.queue.max_tasks, 1, 1_000_000_000),
        "the most unfinished tasks; a submission beyond is refused"),
    key("queue.backpressureThreshold", Slot::Real(|c| &mut c.queue.backpressure_threshold, 0.01, 1.0),
        "the share of queue.maxTasks from which on submitters wait; at 1 nobody waits"),
    key("queue.maxWaitSeconds", Slot::Seconds(|c| &mut c.queue.max_wait, 0, 7 * DAY_S),
        "how long a submitter waits for room that does not say otherwise"),
    key("backpressure.enabled", Slot::Flag(|c| &mut c.backpressure.enabled),
        "whether no further task is started while the machine lacks resources"),
    key("backpressure.maxLoadPerCpu", Slot::OptionalReal(|c| &mut c.backpressure.max_load_per_cpu, 0.001, 10_000.0),
        "the highest load average of one minute, for each processor"),
    key("backpressure.minFreeMemoryMb", Slot::OptionalAmount(|c| &mut c.backpressure.min_free_memory_mb, 1, TIB / KIB),
        "the least memory that is left, in MiB"),
    key("backpressure.minFreeDiskMb", Slot::OptionalAmount(|c| &mut c.backpressure.min_free_disk_mb, 1, TIB / KIB),
        "the least disk space that is left to the state directory, in MiB"),
    key("backpressure.maxMemoryPressure", Slot::OptionalReal(|c| &mut c.backpressure.max_memory_pressure, 0.1, 100.0),
        "the most time in which all processes wait for memory, in percent"),
    key("backpressure.maxIoPressure", Slot::OptionalReal(|c| &mut c.backpressure.max_io_pressure, 0.1, 100.0),
        "the most time in which all processes wait for the disk, in percent"),
    key("backpressure.maxCpuPressure", Slot::OptionalReal(|c| &mut c.backpressure.max_cpu_pressure, 0.1, 100.0),
        "the most time in which some process waits for a processor, in percent"),
    key("backpressure.resumeAfterSeconds", Slot::Seconds(|c| &mut c.backpressure.resume_after, 0, DAY_S),
        "how long all must have been well, by a tenth, before tasks are started again"),
    key("jobserver.slots", Slot::OptionalCount(|c| &mut c.jobserver.slots, 1, 4096),
        "how many jobs tasks with a jobserver run at once in all; none is the processors that may be used"),
    key("queue.ageingSeconds", Slot::Seconds(|c| &mut c.queue.ageing, 0, YEAR_S),
        "a task that is ready for so long moves up by one priority, and again after as long; 0: none does"),
    key("groups.limits", Slot::Limits(|c| &mut c.groups.limits),
        "the most tasks of a limit group at once, by its name; wins over --limit-group"),
    key("control.maxConnections", Slot::Count(|c| &mut c.control.max_connections, 1, 10_000),
        "the most clients at a time"),
    key("control.slowReaderSeconds", Slot::Seconds(|c| &mut c.control.slow_reader, 1, DAY_S),
        "how long a follower of events may take nothing of what waits for it before it is cut off"),
    key("metrics.listen", Slot::Listen(|c| &mut c.metrics.listen),
        "where GET /metrics is answered over HTTP; port 0 is any that is free"),
    key("metrics.eventsIntervalSeconds", Slot::OptionalSeconds(|c| &mut c.metrics.events_interval, 1, DAY_S),
        "how often the metrics are told as an event while tasks run"),
    key("log.level", Slot::Level(|c| &mut c.log.level),
        "how much the supervisor's log tells"),
    key("log.file", Slot::File(|c| &mut c.log.file),
        "the supervisor's log, relative to the configuration file; standard error where none is named"),
    key("pool.name", Slot::Name(|c| &mut c.pool.name),
        "the pool's name in status and logs"),
    key("pool.limits.cpuPercent", Slot::OptionalCount(|c| &mut c.pool.limits.cpu_percent, 1, 100 * 4096),
        "CPU time of all tasks together, in percent of one processor"),
    key("pool.limits.memoryMb", Slot::OptionalAmount(|c| &mut c.pool.limits.memory_mb, 1, TIB / KIB),
        "memory of all tasks together, in MiB; none leaves a tenth, and at least 256 MiB, to the rest of the host"),
    key("pool.limits.pids", Slot::OptionalCount(|c| &mut c.pool.limits.pids, 1, 4_194_304),
        "processes and threads of all tasks together; none is half of what the host can have"),
];

/// A key as the manual shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its path, as in `workers.count`; the name carries the unit.
    pub path: &'static str,
    /// The environment variable that overrides it.
    pub variable: String,
    /// Its default.
    pub default: String,
    /// What it may be.
    pub allowed: String,
    /// What it means.
    pub meaning: &'static str,
}

/// Every key, for the manual and for `acode help`.
pub fn reference() -> Vec<Reference> {
    let mut defaults = Config::default();
    let describe = |key: &Key| Reference {
        path: key.path,
        variable: key.variable(),
        default: match key.path {
            "workers.count" | "workers.scaling.maxCount" => "processors".to_owned(),
            _ => key.slot.show(&mut defaults),
        },
        allowed: key.slot.allowed(),
        meaning: key.meaning,
    };
    KEYS.iter().map(describe).collect()
}

impl Key {
    /// The variable that overrides the key: `ACODE_WORKERS_POLL_INTERVAL_MS` for `workers.pollIntervalMs`.
    pub fn variable(&self) -> String {
        let mut name = "ACODE_".to_owned();
        for letter in self.path.chars() {
            match letter {
                '.' => name.push('_'),
                upper if upper.is_ascii_uppercase() => name.extend(['_', upper]),
                other => name.push(other.to_ascii_uppercase()),
            }
        }
        name
    }

    /// Puts the value of `node` into its place.
    pub fn apply(&self, node: &Node<'_>, config: &mut Config) -> Result<(), Fault> {
        let whole = |low: u64, high: u64| {
            let number = node.as_whole(self.path)?;
            if (low..=high).contains(&number) { Ok(number) } else { Err(self.refuse(node)) }
        };
        let or_none = |low, high| if is_none(node) { Ok(None) } else { whole(low, high).map(Some) };
        // A count's range ends far below 2^32, so nothing is cut off by narrowing it.
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        match &self.slot {
            Slot::Count(place, low, high) => *place(config) = narrow(whole(*low, *high)?),
            Slot::OptionalCount(place, low, high) => *place(config) = or_none(*low, *high)?.map(narrow),
            Slot::Amount(place, low, high) => *place(config) = whole(*low, *high)?,
            Slot::OptionalAmount(place, low, high) => *place(config) = or_none(*low, *high)?,
            Slot::Millis(place, low, high) => *place(config) = Duration::from_millis(whole(*low, *high)?),
            Slot::Seconds(place, low, high) => *place(config) = Duration::from_secs(whole(*low, *high)?),
            Slot::OptionalSeconds(place, low, high) => {
                *place(config) = or_none(*low, *high)?.map(Duration::from_secs);
            }
            Slot::OptionalDays(place, low, high) => {
                *place(config) = or_none(*low, *high)?.map(|days| Duration::from_secs(days * DAY_S));
            }
            Slot::Real(place, low, high) => *place(config) = self.real(node, *low, *high)?,
            Slot::OptionalReal(place, low, high) => {
                *place(config) = if is_none(node) { None } else { Some(self.real(node, *low, *high)?) };
            }
            Slot::Codes(place) => *place(config) = self.codes(node)?,
            Slot::Octal(place) => *place(config) = self.octal(node)?,
            Slot::Flag(place) => *place(config) = self.named(node)?,
            Slot::Switch(place) => *place(config) = self.named(node)?,
            Slot::Modes(place) => {
                *place(config) = node.as_text(self.path)?.parse().map_err(|_| self.refuse(node))?;
            }
            Slot::Action(place) => *place(config) = self.named(node)?,
            Slot::Method(place) => *place(config) = self.named(node)?,
            Slot::Cleanup(place) => *place(config) = self.named(node)?,
            Slot::Level(place) => *place(config) = self.named(node)?,
            Slot::Sandbox(part) => sandbox::apply(node, self.path, part, &mut config.workers.sandbox.default)?,
            Slot::Signals(place) => *place(config) = self.named(node)?,
            Slot::Paths(place) => *place(config) = sandbox::paths(node, self.path, &self.slot.allowed())?,
            Slot::Patterns(place) => *place(config) = self.patterns(node)?,
            Slot::Words(place) => *place(config) = self.words(node)?,
            Slot::Variables(place) => *place(config) = self.variables(node)?,
            Slot::Limits(place) => *place(config) = self.limits(node)?,
            Slot::File(place) => {
                *place(config) = if is_none(node) { None } else { Some(PathBuf::from(node.as_text(self.path)?)) };
            }
            Slot::Name(place) => *place(config) = self.name(node)?,
            Slot::Listen(place) => *place(config) = if is_none(node) { None } else { Some(self.loopback(node)?) },
        }
        Ok(())
    }

    fn real(&self, node: &Node<'_>, low: f64, high: f64) -> Result<f64, Fault> {
        let number = node.as_real(self.path)?;
        (low..=high).contains(&number).then_some(number).ok_or_else(|| self.refuse(node))
    }

    fn refuse(&self, node: &Node<'_>) -> Fault {
        node.refused(self.path, &self.slot.allowed())
    }

    fn named<T: Named>(&self, node: &Node<'_>) -> Result<T, Fault> {
        T::from_name(node.as_text(self.path)?).ok_or_else(|| self.refuse(node))
    }

    /// A mask is octal with or without quotes: `077` is how everybody writes it.
    fn octal(&self, node: &Node<'_>) -> Result<u32, Fault> {
        let text = node.as_text(self.path)?;
        let digits = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(digits, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(|| self.refuse(node))
    }

    fn codes(&self, node: &Node<'_>) -> Result<ExitCodes, Fault> {
        let code = |item: &Node<'_>| {
            let number = item.as_whole(self.path)?;
            u8::try_from(number).map_err(|_| item.refused(self.path, &self.slot.allowed()))
        };
        node.items(self.path)?.iter().map(code).collect()
    }

    fn patterns(&self, node: &Node<'_>) -> Result<Vec<String>, Fault> {
        let pattern = |item: &Node<'_>| {
            let text = item.as_text(self.path)?;
            let name = text.strip_suffix('*').unwrap_or(text);
            let valid = !text.is_empty() && !name.contains(['*', '=', '\0']);
            if valid { Ok(text.to_owned()) } else { Err(item.refused(self.path, &self.slot.allowed())) }
        };
        node.items(self.path)?.iter().map(pattern).collect()
    }

    /// A command. A path in place of a program's name must be absolute: nobody could say where it begins.
    fn words(&self, node: &Node<'_>) -> Result<Vec<String>, Fault> {
        let items = if is_none(node) { &[] } else { node.items(self.path)? };
        let word = |item: &Node<'_>| Ok(item.as_text(self.path)?.to_owned());
        let words: Vec<String> = items.iter().map(word).collect::<Result<_, _>>()?;
        let program =
            words.first().is_none_or(|first| !first.is_empty() && (first.starts_with('/') || !first.contains('/')));
        if program && !words.iter().any(|word| word.contains('\0')) { Ok(words) } else { Err(self.refuse(node)) }
    }

    fn variables(&self, node: &Node<'_>) -> Result<Env, Fault> {
        let mut variables = Env::new();
        for entry in node.entries(self.path)? {
            let value = entry.node.as_text(&format!("{}.{}", self.path, entry.key))?;
            if entry.key.is_empty() || entry.key.contains(['=', '\0']) || value.contains('\0') {
                return Err(Fault::other(entry.at, format!("'{}' is not a variable", entry.key.escape_debug())));
            }
            variables.insert(entry.key.clone().into_owned(), value.to_owned());
        }
        Ok(variables)
    }

    /// Whoever may connect may read, so no other machine may.
    fn loopback(&self, node: &Node<'_>) -> Result<SocketAddr, Fault> {
        let address = node.as_text(self.path)?.parse().ok();
        address.filter(|address: &SocketAddr| address.ip().is_loopback()).ok_or_else(|| self.refuse(node))
    }

    fn limits(&self, node: &Node<'_>) -> Result<BTreeMap<String, u32>, Fault> {
        let mut limits = BTreeMap::new();
        for entry in node.entries(self.path)? {
            let max = entry.node.as_whole(&format!("{}.{}", self.path, entry.key))?;
            let max = u32::try_from(max).unwrap_or(u32::MAX);
            let group = GroupWish { name: entry.key.clone().into_owned(), max: Some(max) };
            group.validate().map_err(|words| Fault::other(entry.at, format!("{}: {words}", self.path)))?;
            limits.insert(group.name, max);
        }
        Ok(limits)
    }

    fn name(&self, node: &Node<'_>) -> Result<String, Fault> {
        let text = node.as_text(self.path)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let valid = (1..=NAME_MAX).contains(&text.len()) && text.chars().all(fits);
        if valid { Ok(text.to_owned()) } else { Err(self.refuse(node)) }
    }
}

/// Whether a value that may be absent is: nothing, or the word for it, which a variable can say too.
fn is_none(node: &Node<'_>) -> bool {
    node.is_null() || node.as_text("").is_ok_and(|text| text == "none")
}

impl Slot {
    /// What the value may be, in words.
    pub fn allowed(&self) -> String {
        match self {
            Self::Count(_, low, high)
            | Self::Amount(_, low, high)
            | Self::Millis(_, low, high)
            | Self::Seconds(_, low, high) => range(*low, *high),
            Self::OptionalCount(_, low, high)
            | Self::OptionalAmount(_, low, high)
            | Self::OptionalSeconds(_, low, high)
            | Self::OptionalDays(_, low, high) => format!("{} or none", range(*low, *high)),
            Self::Real(_, low, high) => format!("{low} to {high}"),
            Self::OptionalReal(_, low, high) => format!("{low} to {high} or none"),
            Self::Codes(_) => "a list of exit codes, 0 to 255".to_owned(),
            Self::Octal(_) => "000 to 777".to_owned(),
            Self::Flag(_) => names::<bool>(),
            Self::Switch(_) => names::<Switch>(),
            Self::Modes(_) => "process or docker, or both with numbers as in process:4,docker:2".to_owned(),
            Self::Action(_) => names::<OverLimitAction>(),
            Self::Method(_) => names::<DiskMethod>(),
            Self::Cleanup(_) => names::<When>(),
            Self::Level(_) => names::<LogLevel>(),
            Self::Sandbox(part) => sandbox::allowed(part),
            Self::Signals(_) => names::<SignalReach>(),
            Self::Paths(_) => "a list of absolute paths".to_owned(),
            Self::Patterns(_) => "a list of names, each with or without a * at its end,".to_owned(),
            Self::Words(_) => "a program, by its name or its absolute path, and its arguments, as a list,".to_owned(),
            Self::Variables(_) => "a mapping of names to texts".to_owned(),
            Self::Limits(_) => format!("a mapping of names to numbers from 1 to {}", GroupWish::LIMIT_MAX),
            Self::File(_) => "a path or none".to_owned(),
            Self::Name(_) => format!("1 to {NAME_MAX} letters, digits, '-', '_' or '.'"),
            Self::Listen(_) => "a loopback address, 127.0.0.1:PORT or [::1]:PORT, or none".to_owned(),
        }
    }

    /// The value in `config`, as it would be written.
    fn show(&self, config: &mut Config) -> String {
        fn or_none<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "none".to_owned(), |value| value.to_string())
        }
        match self {
            Self::Count(place, ..) => place(config).to_string(),
            Self::OptionalCount(place, ..) => or_none(*place(config)),
            Self::Amount(place, ..) => place(config).to_string(),
            Self::OptionalAmount(place, ..) => or_none(*place(config)),
            Self::Millis(place, ..) => place(config).as_millis().to_string(),
            Self::Seconds(place, ..) => place(config).as_secs().to_string(),
            Self::OptionalSeconds(place, ..) => or_none(place(config).map(|time| time.as_secs())),
            Self::OptionalDays(place, ..) => or_none(place(config).map(|time| time.as_secs() / DAY_S)),
            Self::Real(place, ..) => place(config).to_string(),
            Self::OptionalReal(place, ..) => or_none(*place(config)),
            Self::Codes(place) => {
                let codes: Vec<String> = place(config).iter().map(|code| code.to_string()).collect();
                format!("[{}]", codes.join(", "))
            }
            Self::Octal(place) => format!("{:03o}", place(config)),
            Self::Flag(place) => place(config).name().to_owned(),
            Self::Switch(place) => place(config).name().to_owned(),
            Self::Modes(place) => place(config).to_string(),
            Self::Action(place) => place(config).name().to_owned(),
            Self::Method(place) => Named::name(*place(config)).to_owned(),
            Self::Cleanup(place) => place(config).name().to_owned(),
            Self::Level(place) => place(config).name().to_owned(),
            Self::Sandbox(part) => sandbox::show(part, &config.workers.sandbox.default),
            Self::Signals(place) => place(config).name().to_owned(),
            Self::Paths(place) => {
                let paths: Vec<_> = place(config).iter().map(|path| path.display().to_string()).collect();
                format!("[{}]", paths.join(", "))
            }
            Self::Patterns(place) | Self::Words(place) => format!("[{}]", place(config).join(", ")),
            Self::Variables(_) | Self::Limits(_) => "{}".to_owned(),
            Self::File(place) => or_none(place(config).as_ref().map(|path| path.display())),
            Self::Name(place) => place(config).clone(),
            Self::Listen(place) => or_none(*place(config)),
        }
    }
}

fn range(low: u64, high: u64) -> String {
    if high == u64::MAX { format!("{low} or more") } else { format!("{low} to {high}") }
}

fn names<T: Named>() -> String {
    let names: Vec<_> = T::NAMES.iter().map(|(name, _)| *name).collect();
    names.join(" or ")
}
