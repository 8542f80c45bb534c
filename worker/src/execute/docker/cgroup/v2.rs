//! A container's cgroup in v2.

use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::reading::{Back, Reading, compare};
use crate::sys::cgroup::{CPU_PERIOD_US, Leaf};
use crate::task::Limits;

/// The cgroup by its directory.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    leaf: Leaf,
}

impl Group {
    /// Opens what is there; makes nothing.
    pub fn open(path: PathBuf) -> Option<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let leaf = Leaf::from_fd(open(&path, flags, Mode::empty()).ok()?);
        Some(Self { path, leaf })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn reading(&self) -> Reading {
        let gauges = self.leaf.gauges();
        let (cpu, io) = (gauges.cpu(), gauges.io());
        Reading {
            cpu_us: cpu.map(|cpu| cpu.usage_us),
            user_us: cpu.map(|cpu| cpu.user_us),
            system_us: cpu.map(|cpu| cpu.system_us),
            throttled_us: cpu.and_then(|cpu| cpu.throttled_us),
            memory: gauges.memory(),
            peak_memory: gauges.memory_peak(),
            pids: gauges.pids(),
            peak_pids: gauges.pids_peak(),
            read_bytes: io.map(|io| io.read_bytes),
            written_bytes: io.map(|io| io.written_bytes),
            oom_kills: self.leaf.memory_events().map(|events| events.oom_kill),
            refused_pids: gauges.pids().map(|_| self.leaf.refused_pids()),
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
        self.leaf.is_populated().unwrap_or(false)
    }

    pub fn kill(&self) -> io::Result<()> {
        match self.leaf.kill() {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            // Before Linux 5.14 there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.is_dir() => {
                super::v1::kill_below(&self.path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            killed => killed,
        }
    }
}
