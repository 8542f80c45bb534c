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

    fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.pids, &self.memory, &self.cpuacct, &self.cpu, &self.blkio].into_iter().filter_map(Option::as_deref)
    }

    pub fn reading(&self) -> Reading {
        let (memory, pids, cpu) = (self.memory.as_deref(), self.pids.as_deref(), self.cpuacct.as_deref());
        let io = read(self.blkio.as_deref(), "blkio.throttle.io_service_bytes_recursive")
            .or_else(|| read(self.blkio.as_deref(), "blkio.throttle.io_service_bytes"));
        let nanos = |file| number(cpu, file).map(|nanos| nanos / 1_000);
        let cpu_us = nanos("cpuacct.usage");
        let parts = cpu_us.zip(nanos("cpuacct.usage_user")).zip(nanos("cpuacct.usage_sys"));
        let parts = parts.map(|((all, user), system)| divide(all, user, system));
        Reading {
            cpu_us,
            user_us: parts.map(|(user, _)| user),
            system_us: parts.map(|(_, system)| system),
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

/// Divides CPU time that was counted exactly by two parts that were counted at the clock's ticks.
fn divide(all: u64, user: u64, system: u64) -> (u64, u64) {
    let both = u128::from(user) + u128::from(system);
    // The part of a whole is not larger than it.
    let user = u64::try_from(u128::from(all) * u128::from(user) / both.max(1)).unwrap_or(all);
    (user, all - user)
}

/// Bytes over all devices, in lines of `MAJOR:MINOR Read BYTES`.
fn moved(text: &str, direction: &str) -> u64 {
    let of = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next() == Some(direction)).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cgroups in a folder, all in one, as joint hierarchies have them.
    fn groups(files: &[(&str, &str)]) -> (tempfile::TempDir, Groups) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let mut groups = Groups::default();
        for controller in crate::execute::docker::cgroup::find::CONTROLLERS {
            groups.put(controller, folder.path().to_owned());
        }
        (folder, groups)
    }

    #[test]
    fn everything_is_read_in_acodes_units() {
        let (_folder, groups) = groups(&[
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.max_usage_in_bytes", "8192\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("cpuacct.usage", "29309240\n"),
            ("cpuacct.usage_user", "12000000\n"),
            ("cpuacct.usage_sys", "17309240\n"),
            ("cpu.stat", "nr_periods 3\nnr_throttled 1\nthrottled_time 5000000\n"),
            ("pids.current", "3\n"),
            ("pids.peak", "5\n"),
            ("pids.events", "max 4\n"),
            (
                "blkio.throttle.io_service_bytes",
                "254:0 Read 4096\n254:0 Write 1\n8:0 Read 4\n254:0 Total 4097\nTotal 4101\n",
            ),
        ]);
        let expected = Reading {
            cpu_us: Some(29_309),
            user_us: Some(12_000),
            system_us: Some(17_309),
            throttled_us: Some(5_000),
            memory: Some(4_096),
            peak_memory: Some(8_192),
            pids: Some(3),
            peak_pids: Some(5),
            read_bytes: Some(4_100),
            written_bytes: Some(1),
            oom_kills: Some(2),
            refused_pids: Some(4),
        };
        assert_eq!(groups.reading(), expected);
    }

    #[test]
    fn a_limit_is_held_only_if_it_reads_as_it_was_asked_for() {
        let wanted = Limits {
            memory_mb: Some(64),
            swap_mb: Some(0),
            cpu_percent: Some(50),
            cpu_weight: Some(50),
            pids: Some(20),
            io_read_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let (_folder, held) = groups(&[
            ("memory.limit_in_bytes", "67108864\n"),
            ("memory.memsw.limit_in_bytes", "67108864\n"),
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.shares", "512\n"),
            ("pids.max", "20\n"),
            ("blkio.throttle.read_bps_device", "254:0 1048576\n"),
        ]);
        for key in ["memoryMb", "swapMb", "cpuPercent", "cpuWeight", "pids", "ioReadBytes"] {
            assert!(held.limit(key, &wanted, Some("254:0")).unwrap().is_ok(), "{key}");
        }
        assert_eq!(held.limit("diskMb", &wanted, None), None);
        let (_folder, loose) = groups(&[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.shares", "1024\n"),
            ("pids.max", "max\n"),
            ("blkio.throttle.read_bps_device", "8:0 1048576\n"),
        ]);
        for key in ["memoryMb", "swapMb", "cpuPercent", "cpuWeight", "pids", "ioReadBytes"] {
            assert!(loose.limit(key, &wanted, Some("254:0")).unwrap().is_err(), "{key}");
        }
    }
}
