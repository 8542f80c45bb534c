//! What attempts and pools use, as records: of an attempt that has ended, of one that runs, of a pool's cgroup.
//!
//! Pure data. Deliberately absent: the measuring (`worker/src/execute/watch/meter.rs`).

use std::collections::BTreeMap;

pub use acode_worker::sys::ladder::Rung;
use acode_worker::task::{HeldLimit, LiveUse, Usage, UsageSource};
use serde::{Deserialize, Serialize};

/// What an ended attempt used. What nobody counted is `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageRecord {
    /// Wall-clock time in microseconds.
    pub wall_us: u64,
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident set of any one process, in bytes.
    pub max_rss_bytes: u64,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written that are meant for block devices.
    pub written_bytes: u64,
    /// The most memory of all its processes together, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Time in which its CPU limit held it back, in microseconds.
    pub throttled_us: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// The most processes and threads at once.
    pub peak_pids: Option<u64>,
    /// The most disk space of its scratch directory, in bytes.
    pub peak_disk_bytes: Option<u64>,
    /// Who counted CPU time and memory.
    pub source: UsageSource,
}

impl UsageRecord {
    /// CPU time in microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.user_us.saturating_add(self.system_us)
    }

    /// The most memory that is known of, in bytes: of all of its processes, else of the largest.
    pub fn memory_bytes(&self) -> u64 {
        self.peak_memory_bytes.unwrap_or(self.max_rss_bytes)
    }
}

impl From<Usage> for UsageRecord {
    fn from(usage: Usage) -> Self {
        let Usage {
            wall_us,
            user_us,
            system_us,
            max_rss_bytes,
            read_bytes,
            written_bytes,
            peak_memory_bytes,
            throttled_us,
            oom_kills,
            peak_pids,
            peak_disk_bytes,
            source,
        } = usage;
        Self {
            wall_us,
            user_us,
            system_us,
            max_rss_bytes,
            read_bytes,
            written_bytes,
            peak_memory_bytes,
            throttled_us,
            oom_kills,
            peak_pids,
            peak_disk_bytes,
            source,
        }
    }
}

/// What a running attempt uses, as the last look at it found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRecord {
    /// CPU time so far, in microseconds.
    pub cpu_us: u64,
    /// Memory now, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Disk space of the scratch directory now, in bytes, where somebody looks at it.
    pub disk_bytes: Option<u64>,
}

impl From<LiveUse> for LiveRecord {
    fn from(live: LiveUse) -> Self {
        let LiveUse { cpu_us, memory_bytes, pids, disk_bytes } = live;
        Self { cpu_us, memory_bytes, pids, disk_bytes: (disk_bytes > 0).then_some(disk_bytes) }
    }
}

/// What holds the limits of a pool's tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRecord {
    /// How much of cgroup v2 there is.
    pub rung: Rung,
    /// The directory under which tasks run.
    pub path: Option<String>,
    /// The controllers that tasks have, by name.
    pub controllers: Vec<String>,
    /// Why it is no better, if it could be.
    pub why: Option<String>,
    /// The limits of all tasks together.
    pub limits: Vec<HeldLimit>,
}

/// What the tasks of a pool have used since its start, and use now; part of its metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskUsage {
    /// CPU time of ended attempts, in seconds.
    pub cpu_seconds: f64,
    /// Time in which CPU limits held ended attempts back, in seconds.
    pub throttled_seconds: f64,
    /// Processes that the kernel killed for want of memory, in ended attempts.
    pub oom_kills: u64,
    /// Bytes that ended attempts read from block devices.
    pub read_bytes: u64,
    /// Bytes that ended attempts wrote, meant for block devices.
    pub written_bytes: u64,
    /// The most memory of one ended attempt, in bytes.
    pub peak_memory_bytes: u64,
    /// Memory of the running attempts, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads of the running attempts.
    pub pids: u64,
    /// Attempts that ended because they exceeded a limit, by its key.
    pub over_limit: BTreeMap<String, u64>,
    /// The running attempts, by their worker's slot.
    pub running: Vec<RunningUse>,
}

/// What one worker's running task uses; part of a pool's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunningUse {
    /// The worker's slot.
    pub slot: u16,
    /// CPU time so far, in microseconds.
    pub cpu_us: u64,
    /// Memory now, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
}
