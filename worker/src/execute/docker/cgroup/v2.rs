//! A container's cgroup in v2.

use std::io;
use std::path::PathBuf;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::reading::{Back, Reading, compare};
use crate::sys::cgroup::{CPU_PERIOD_US, Leaf};
use crate::task::Limits;

/// The cgroup by its path. Opened anew for each look: its files may come one after the other, and go all at once.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Opens what is there; makes nothing.
    fn leaf(&self) -> Option<Leaf> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Some(Leaf::from_fd(open(&self.path, flags, Mode::empty()).ok()?))
    }

    pub fn reading(&self) -> Reading {
        let Some(leaf) = self.leaf() else { return Reading::default() };
        let gauges = leaf.gauges();
        let (cpu, io, pids) = (gauges.cpu(), gauges.io(), gauges.pids());
        Reading {
            cpu_us: cpu.map(|cpu| cpu.usage_us),
            user_us: cpu.map(|cpu| cpu.user_us),
            system_us: cpu.map(|cpu| cpu.system_us),
            throttled_us: cpu.and_then(|cpu| cpu.throttled_us),
            memory: gauges.memory(),
            peak_memory: gauges.memory_peak(),
            pids,
            peak_pids: gauges.pids_peak(),
            read_bytes: io.map(|io| io.read_bytes),
            written_bytes: io.map(|io| io.written_bytes),
            oom_kills: leaf.memory_events().map(|events| events.oom_kill),
            refused_pids: pids.map(|_| leaf.refused_pids()),
        }
    }

    /// Whether a limit is held, and by which file; `None` for one that no cgroup holds.
    pub fn limit(&self, key: &str, wanted: &Limits, device: Option<&str>) -> Option<Back> {
        let bytes = |mb: Option<u64>| mb.map(|mb| mb.saturating_mul(1 << 20));
        let number = |file, value: u64| compare(file, value, self.text(file));
        match key {
            "memoryMb" => Some(number("memory.max", bytes(wanted.memory_mb)?)),
            "swapMb" => Some(number("memory.swap.max", bytes(wanted.swap_mb)?)),
            "pids" => Some(number("pids.max", u64::from(wanted.pids?))),
            "cpuWeight" => Some(number("cpu.weight", u64::from(wanted.cpu_weight?))),
            "cpuPercent" => Some(self.processors(wanted.cpu_percent?)),
            "ioReadBytes" => Some(self.bandwidth("rbps", wanted.io_read_bytes?, device?)),
            "ioWriteBytes" => Some(self.bandwidth("wbps", wanted.io_write_bytes?, device?)),
            _ => None,
        }
    }

    fn processors(&self, percent: u32) -> Back {
        let Some(text) = self.text("cpu.max") else { return Err("there is no cpu.max".to_owned()) };
        let mut words = text.split(' ').map(|word| word.parse::<u64>().ok());
        let (quota, period) = (words.next().flatten(), words.next().flatten().unwrap_or(CPU_PERIOD_US));
        match quota.map(|quota| quota.saturating_mul(100) / period.max(1)) {
            Some(found) if found == u64::from(percent) => Ok("cpu.max"),
            Some(_) | None => Err(format!("cpu.max holds {text} instead of {percent} %")),
        }
    }

    fn bandwidth(&self, direction: &str, bytes: u64, device: &str) -> Back {
        let Some(text) = self.text("io.max") else { return Err("there is no io.max".to_owned()) };
        let line = text.lines().find(|line| line.split(' ').next() == Some(device)).unwrap_or_default();
        match line.split(' ').any(|word| word == format!("{direction}={bytes}")) {
            true => Ok("io.max"),
            false => Err(format!("io.max holds '{line}' instead of {direction}={bytes}")),
        }
    }

    fn text(&self, file: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.path.join(file)).ok()?.trim_ascii_end().to_owned())
    }

    pub fn is_populated(&self) -> bool {
        // A cgroup that cannot be read is gone.
        self.leaf().is_some_and(|leaf| leaf.is_populated().unwrap_or(false))
    }

    pub fn kill(&self) -> io::Result<()> {
        let Some(leaf) = self.leaf() else { return Ok(()) };
        match leaf.kill() {
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            // Before Linux 5.14 there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => super::v1::kill_below(&self.path),
            killed => killed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup that is a folder of files.
    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let group = Group::new(folder.path().to_owned());
        (folder, group)
    }

    #[test]
    fn what_comes_late_is_read_and_what_is_gone_says_nothing() {
        let (folder, group) = group(&[("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n")]);
        assert_eq!((group.reading().cpu_us, group.reading().memory), (Some(30), None));
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.events", "max 3\noom_kill 2\n"),
            ("pids.current", "3\n"),
            ("pids.events", "max 4\n"),
            ("io.stat", "8:0 rbytes=5 wbytes=2 rios=9\n"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let all = group.reading();
        assert_eq!((all.memory, all.oom_kills, all.pids, all.refused_pids), (Some(4096), Some(2), Some(3), Some(4)));
        assert_eq!((all.read_bytes, all.written_bytes, all.peak_pids), (Some(5), Some(2), None));
        assert!(group.is_populated());
        folder.close().unwrap();
        assert_eq!(group.reading(), Reading::default());
        assert!(!group.is_populated() && group.kill().is_ok());
    }

    #[test]
    fn a_limit_is_held_only_if_it_reads_as_it_was_asked_for() {
        let wanted = Limits {
            memory_mb: Some(64),
            swap_mb: Some(0),
            cpu_percent: Some(50),
            cpu_weight: Some(50),
            pids: Some(20),
            io_write_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let (_folder, held) = group(&[
            ("memory.max", "67108864\n"),
            ("memory.swap.max", "0\n"),
            ("cpu.max", "25000 50000\n"),
            ("cpu.weight", "50\n"),
            ("pids.max", "20\n"),
            ("io.max", "254:0 rbps=max wbps=1048576 riops=max wiops=max\n"),
        ]);
        let (_folder, loose) = group(&[
            ("memory.max", "max\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.weight", "100\n"),
            ("pids.max", "max\n"),
            ("io.max", "8:0 rbps=max wbps=1048576 riops=max wiops=max\n"),
        ]);
        for key in ["memoryMb", "swapMb", "cpuPercent", "cpuWeight", "pids", "ioWriteBytes"] {
            assert!(held.limit(key, &wanted, Some("254:0")).unwrap().is_ok(), "{key}");
            assert!(loose.limit(key, &wanted, Some("254:0")).unwrap().is_err(), "{key}");
        }
        assert_eq!((held.limit("diskMb", &wanted, None), held.limit("ioReadBytes", &wanted, None)), (None, None));
    }
}
