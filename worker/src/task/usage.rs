//! What an attempt used, and who counted it.

use serde::{Deserialize, Serialize};

/// What an attempt used. What nobody counted is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Time in which its CPU limit held it back, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// The most processes and threads at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_pids: Option<u64>,
    /// The most disk space of its scratch directory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_disk_bytes: Option<u64>,
    /// Who counted CPU time and memory.
    pub source: UsageSource,
}

impl Usage {
    /// The figures that every attempt has, if there are no others, and the kernel has counted for the processes that were waited
    /// for.
    pub fn plain(&self) -> Option<[u64; 6]> {
        // All fields are named, so that a new one has to be thought of here.
        let Self {
            wall_us,
            user_us,
            system_us,
            max_rss_bytes,
            read_bytes,
            written_bytes,
            peak_memory_bytes: None,
            throttled_us: None,
            oom_kills: None,
            peak_pids: None,
            peak_disk_bytes: None,
            source: UsageSource::Rusage,
        } = *self
        else {
            return None;
        };
        Some([wall_us, user_us, system_us, max_rss_bytes, read_bytes, written_bytes])
    }

    /// The usage with these figures, in the order of [`Usage::plain`].
    pub fn from_plain(figures: [u64; 6]) -> Self {
        let [wall_us, user_us, system_us, max_rss_bytes, read_bytes, written_bytes] = figures;
        Self { wall_us, user_us, system_us, max_rss_bytes, read_bytes, written_bytes, ..Self::default() }
    }
}

/// What a running task uses, as its last look at it found: figures of one moment each, not all of the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveUse {
    /// CPU time so far, in microseconds.
    pub cpu_us: u64,
    /// Memory now, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Disk space of its scratch directory now, in bytes; 0 where nobody looks.
    pub disk_bytes: u64,
}

/// Who counted what an attempt used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// The kernel, for the processes that were waited for (`rusage`); peaks by looking at `/proc` from time to time.
    #[default]
    Rusage,
    /// The kernel, for all that lived in the attempt's cgroup.
    Cgroup,
}

impl UsageSource {
    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rusage => "rusage",
            Self::Cgroup => "cgroup",
        }
    }
}
