//! Limits of all tasks of a pool together: what keeps it from using up the host.
//!
//! By the setters of the cgroups crate, which work on any v2 directory by its path, and read back, because they do not
//! tell of everything. Deliberately absent: what the limits are by default, which the configuration decides.

use std::fs;
use std::path::{Path, PathBuf};

use cgroups_rs::MaxValue;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;

use super::CPU_PERIOD_US;

/// The limits of a pool. `None` is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCaps {
    /// CPU time in percent of one processor.
    pub cpu_percent: Option<u32>,
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// Processes and threads at once.
    pub pids: Option<u32>,
}

/// How one limit of a pool is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolHeld {
    /// The limit, by its key.
    pub limit: &'static str,
    /// Its value, in the unit of its key.
    pub value: u64,
    /// By which file, or why it is not held.
    pub by: Result<&'static str, String>,
}

/// Has the cgroup of all tasks hold these limits, and says how well each is held. What is no limit any more is put back.
pub fn hold_pool(tasks: Option<&Path>, caps: &PoolCaps) -> Vec<PoolHeld> {
    let quota = caps.cpu_percent.map(|percent| i64::from(percent) * (CPU_PERIOD_US as i64) / 100);
    let bytes = caps.memory_mb.and_then(|mb| i64::try_from(mb).ok()?.checked_mul(1 << 20));
    let max = caps.pids.map_or(MaxValue::Max, |pids| MaxValue::Value(i64::from(pids)));
    if let Some(tasks) = tasks.map(PathBuf::from) {
        // Whether they did it shows when it is read back.
        let _ = CpuController::new(tasks.clone(), true).set_cfs_quota_and_period(Some(quota.unwrap_or(-1)), None);
        let _ = MemController::new(tasks.clone(), true).set_limit(bytes.unwrap_or(-1));
        let _ = PidController::new(tasks, true).set_pid_max(max);
    }
    let limits = [
        (
            "cpuPercent",
            caps.cpu_percent.map(u64::from),
            "cpu.max",
            quota.map(|quota| format!("{quota} {CPU_PERIOD_US}")),
        ),
        ("memoryMb", caps.memory_mb, "memory.max", bytes.map(|bytes| bytes.to_string())),
        ("pids", caps.pids.map(u64::from), "pids.max", caps.pids.map(|pids| pids.to_string())),
    ];
    let held = limits.into_iter().filter_map(|(limit, value, file, expected)| {
        let by = read_back(tasks, file, &expected.unwrap_or_default());
        Some(PoolHeld { limit, value: value?, by })
    });
    held.collect()
}

fn read_back(tasks: Option<&Path>, file: &'static str, expected: &str) -> Result<&'static str, String> {
    let Some(tasks) = tasks else { return Err("there is no cgroup for tasks".to_owned()) };
    match fs::read_to_string(tasks.join(file)) {
        Ok(text) if text.trim_ascii_end() == expected => Ok(file),
        Ok(text) => Err(format!("{file} holds {}", text.trim_ascii_end())),
        Err(_) => Err(format!("there is no {file}")),
    }
}

/// The memory that this process and its tasks may use at most, in bytes: the host's, or less where a cgroup above says so.
pub fn usable_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let total =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let own = super::own_directory();
    let above = own.iter().flat_map(|own| own.ancestors()).filter_map(|cgroup| number(&cgroup.join("memory.max")));
    total.map(|kib| kib << 10).into_iter().chain(above).min()
}

/// How many processes and threads the host can have at most, or less where a cgroup above says so.
pub fn most_pids() -> Option<u64> {
    let host = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map(|file| number(Path::new(file)));
    let own = super::own_directory();
    let above = own.iter().flat_map(|own| own.ancestors()).filter_map(|cgroup| number(&cgroup.join("pids.max")));
    host.into_iter().flatten().chain(above).min()
}

/// The number in a file; `None` where it says `max` or is missing.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim_ascii_end().parse().ok()
}
