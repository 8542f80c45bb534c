//! A container's cgroups in v1: one in each hierarchy.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::reading::{Back, Reading, compare};
use crate::execute::docker::limits;
use crate::sys::{cgroup, process};
use crate::task::Limits;

/// A container's cgroups, each by the path in its hierarchy.
#[derive(Debug, Default)]
pub(super) struct Groups {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
    blkio: Option<PathBuf>,
}

impl Groups {
    /// Takes note of where it is in the hierarchy of a controller.
    pub fn put(&mut self, controller: &str, path: PathBuf) {
        let place = match controller {
            "memory" => &mut self.memory,
            "cpu" => &mut self.cpu,
            "cpuacct" => &mut self.cpuacct,
            "pids" => &mut self.pids,
            "blkio" => &mut self.blkio,
            _ => return,
        };
        *place = Some(path);
    }

    /// Whether it is anywhere.
    pub fn has_any(&self) -> bool {
        self.all().next().is_some()
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.pids, &self.memory, &self.cpuacct, &self.cpu, &self.blkio].into_iter().filter_map(Option::as_deref)
    }

    pub fn path(&self) -> &Path {
        self.all().next().unwrap_or(Path::new("/"))
    }

    pub fn reading(&self) -> Reading {
        let (memory, pids, cpu) = (self.memory.as_deref(), self.pids.as_deref(), self.cpuacct.as_deref());
        let io = read(self.blkio.as_deref(), "blkio.throttle.io_service_bytes_recursive")
            .or_else(|| read(self.blkio.as_deref(), "blkio.throttle.io_service_bytes"));
        let nanos = |file| number(cpu, file).map(|nanos| nanos / 1_000);
        Reading {
            cpu_us: nanos("cpuacct.usage"),
            user_us: nanos("cpuacct.usage_user"),
            system_us: nanos("cpuacct.usage_sys"),
            throttled_us: named(self.cpu.as_deref(), "cpu.stat", "throttled_time").map(|nanos| nanos / 1_000),
            memory: number(memory, "memory.usage_in_bytes"),
            peak_memory: number(memory, "memory.max_usage_in_bytes"),
            pids: number(pids, "pids.current"),
            peak_pids: number(pids, "pids.peak"),
            read_bytes: io.as_deref().map(|text| moved(text, "Read")),
            written_bytes: io.as_deref().map(|text| moved(text, "Write")),
            oom_kills: named(memory, "memory.oom_control", "oom_kill"),
            refused_pids: named(pids, "pids.events", "max"),
        }
    }

    /// Whether a limit is held, and by which file; `None` for one that no cgroup holds.
    pub fn limit(&self, key: &str, wanted: &Limits, device: Option<&str>) -> Option<Back> {
        let (memory, pids) = (self.memory.as_deref(), self.pids.as_deref());
        let bytes = |mb: Option<u64>| mb.map(|mb| mb.saturating_mul(1 << 20));
        let number = |folder, file, value: u64| compare(file, value, read(folder, file));
        match key {
            "memoryMb" => Some(number(memory, "memory.limit_in_bytes", bytes(wanted.memory_mb)?)),
            "swapMb" => {
                let both = bytes(wanted.memory_mb)?.saturating_add(bytes(wanted.swap_mb)?);
                Some(number(memory, "memory.memsw.limit_in_bytes", both))
            }
            "pids" => Some(number(pids, "pids.max", u64::from(wanted.pids?))),
            "cpuWeight" => Some(number(self.cpu.as_deref(), "cpu.shares", limits::shares(wanted.cpu_weight?, false))),
            "cpuPercent" => Some(self.processors(wanted.cpu_percent?)),
            "ioReadBytes" => Some(self.bandwidth("blkio.throttle.read_bps_device", wanted.io_read_bytes?, device?)),
            "ioWriteBytes" => Some(self.bandwidth("blkio.throttle.write_bps_device", wanted.io_write_bytes?, device?)),
            _ => None,
        }
    }

    fn processors(&self, percent: u32) -> Back {
        let cpu = self.cpu.as_deref();
        let (quota, period) = (number(cpu, "cpu.cfs_quota_us"), number(cpu, "cpu.cfs_period_us"));
        match quota.zip(period) {
            Some((quota, period)) if quota.saturating_mul(100) / period.max(1) == u64::from(percent) => {
                Ok("cpu.cfs_quota_us")
            }
            Some((quota, period)) => Err(format!("cpu.cfs_quota_us holds {quota} of {period} instead of {percent} %")),
            None => Err("there is no cpu.cfs_quota_us, or no limit in it".to_owned()),
        }
    }

    fn bandwidth(&self, file: &'static str, bytes: u64, device: &str) -> Back {
        let Some(text) = read(self.blkio.as_deref(), file) else { return Err(format!("there is no {file}")) };
        match text.lines().any(|line| line == format!("{device} {bytes}")) {
            true => Ok(file),
            false => Err(format!("{file} holds '{text}' instead of {bytes}")),
        }
    }

    pub fn is_populated(&self) -> bool {
        self.all().any(|path| !cgroup::pids_below(path).is_empty())
    }

    pub fn kill(&self) -> io::Result<()> {
        // One hierarchy is enough: all of a container's processes are in each.
        self.all().find(|path| !cgroup::pids_below(path).is_empty()).map_or(Ok(()), kill_below)
    }
}

/// Kills every process in the cgroup at `path` and below it.
///
/// # Errors
/// What the kernel says of the first that cannot be killed; the others are.
pub(super) fn kill_below(path: &Path) -> io::Result<()> {
    let mut outcome = Ok(());
    for pid in cgroup::pids_below(path) {
        // 0 is a process that our pid namespace does not show.
        let killed = match pid {
            0 => Err(io::Error::other("the container's processes are outside of what can be seen from here")),
            pid => kill_one(path, pid),
        };
        match killed {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) && outcome.is_ok() => outcome = Err(error),
            _ => {}
        }
    }
    outcome
}

/// Kills one process, which must still be in the cgroup once it is held: its pid may have become another's.
fn kill_one(path: &Path, pid: i32) -> io::Result<()> {
    let pidfd = process::pidfd_open(pid)?;
    if !cgroup::pids_below(path).contains(&pid) {
        return Ok(());
    }
    process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL)
}

fn read(folder: Option<&Path>, file: &str) -> Option<String> {
    Some(fs::read_to_string(folder?.join(file)).ok()?.trim_ascii_end().to_owned())
}

fn number(folder: Option<&Path>, file: &str) -> Option<u64> {
    read(folder, file)?.parse().ok()
}

/// The number behind `name` in lines of `name number`.
fn named(folder: Option<&Path>, file: &str, name: &str) -> Option<u64> {
    let text = read(folder, file)?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim_ascii().parse().ok())
}

/// Bytes over all devices, in lines of `MAJOR:MINOR Read BYTES`.
fn moved(text: &str, direction: &str) -> u64 {
    let of = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next() == Some(direction)).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(of).sum()
}
