//! Setting a leaf's limits, and making sure that the kernel has taken them.
//!
//! A leaf is used for task after task, so what it holds already is not written again, and what the next task does not want
//! is put back. Nothing is believed that was not read back: controllers can be taken away from us at any time. Deliberately
//! absent: which task has which limit.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Leaf;

/// The period of `cpu.max` in microseconds: short enough that a task which is held back still answers, and long enough
/// that a short task is through before its share is used up.
pub const CPU_PERIOD_US: u64 = 100_000;

/// One limit of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The file: `memory.max`.
    pub file: &'static str,
    /// What it shall hold.
    pub value: String,
    /// What it holds without a limit.
    pub default: String,
}

impl Setting {
    /// A limit in bytes or in processes.
    pub fn number(file: &'static str, value: u64) -> Self {
        Self { file, value: value.to_string(), default: "max".to_owned() }
    }

    /// A share, of which 100 is the usual one.
    pub fn weight(file: &'static str, value: u32) -> Self {
        Self { file, value: value.to_string(), default: "100".to_owned() }
    }

    /// CPU time in percent of one processor.
    pub fn cpu(percent: u32) -> Self {
        let quota = u64::from(percent) * CPU_PERIOD_US / 100;
        let (value, default) = (format!("{quota} {CPU_PERIOD_US}"), format!("max {CPU_PERIOD_US}"));
        Self { file: "cpu.max", value, default }
    }

    /// Bytes a second to and from a device.
    pub fn io(device: &str, read: Option<u64>, written: Option<u64>) -> Self {
        let mut value = device.to_owned();
        for (name, bytes) in [("rbps", read), ("wbps", written)] {
            if let Some(bytes) = bytes {
                let _ = write!(value, " {name}={bytes}");
            }
        }
        Self { file: "io.max", value, default: format!("{device} rbps=max wbps=max") }
    }

    /// Whether a file with this text holds the limit.
    fn is_held_by(&self, text: &str) -> bool {
        match self.file {
            // A line for each device, with more on it than was asked for.
            "io.max" => {
                let mut wanted = self.value.split(' ');
                let device = wanted.next().unwrap_or_default();
                let line = text.lines().find(|line| line.split(' ').next() == Some(device)).unwrap_or_default();
                wanted.all(|word| line.split(' ').any(|known| known == word))
            }
            "io.weight" => text.lines().any(|line| line.strip_prefix("default ") == Some(&self.value)),
            _ => text.trim_ascii_end() == self.value,
        }
    }
}

impl Leaf {
    /// Has the leaf hold a limit.
    ///
    /// # Errors
    /// `NotFound`: the controller is not there, or the whole leaf is not. Else what the kernel says, or that it took
    /// something else.
    pub fn hold(&self, setting: &Setting) -> io::Result<()> {
        if setting.is_held_by(&self.read(setting.file)?) {
            return Ok(());
        }
        self.note(setting);
        self.write(setting.file, &setting.value)?;
        let taken = self.read(setting.file)?;
        if setting.is_held_by(&taken) {
            return Ok(());
        }
        Err(io::Error::other(format!("{} holds {} instead of {}", setting.file, taken.trim_ascii(), setting.value)))
    }

    /// Puts every limit back that an earlier task had and whose file is not wanted now.
    pub fn let_go_of_others(&self, is_wanted: impl Fn(&str) -> bool) {
        self.held.borrow_mut().retain(|(file, default)| {
            // What cannot be put back is gone with its controller, or is tried again with the next task.
            is_wanted(file) || self.write(file, default).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
    }

    /// Whether an earlier task has left limits.
    pub fn has_limits(&self) -> bool {
        !self.held.borrow().is_empty()
    }

    fn note(&self, setting: &Setting) {
        let mut held = self.held.borrow_mut();
        held.retain(|(file, _)| *file != setting.file);
        held.push((setting.file, setting.default.clone()));
    }

    /// How often a process could not be made for `pids.max`, since the leaf was made.
    pub fn refused_pids(&self) -> u64 {
        let text = self.read("pids.events").unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("max ")?.trim_ascii().parse().ok()).unwrap_or(0)
    }

    /// The share of time in which all of the leaf's processes waited for memory, as a running total in microseconds.
    pub fn memory_stall_us(&self) -> Option<u64> {
        let text = self.read("memory.pressure").ok()?;
        let full = text.lines().find(|line| line.starts_with("full "))?;
        full.split(' ').find_map(|word| word.strip_prefix("total=")?.parse().ok())
    }

    /// Memory that the kernel could not simply drop: what is used without the cached pages of files.
    pub fn used_memory(&self) -> Option<u64> {
        let current = self.number("memory.current")?;
        let text = self.read("memory.stat").unwrap_or_default();
        let of = |name: &str| {
            let lines = text.lines();
            lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok()).next().unwrap_or(0)
        };
        Some(current.saturating_sub(of("file").saturating_sub(of("shmem"))))
    }
}

/// The device, as `MAJOR:MINOR` of the whole disk, on which a directory lies; `None` where that is no block device.
pub fn device_of(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).ok()?.dev();
    let name = format!("{}:{}", libc::major(device), libc::minor(device));
    let entry = Path::new("/sys/dev/block").join(&name).canonicalize().ok()?;
    if !entry.join("partition").exists() {
        return Some(name);
    }
    Some(std::fs::read_to_string(entry.parent()?.join("dev")).ok()?.trim_ascii_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_the_kernel_wants_them() {
        let cpu = Setting::cpu(25);
        assert_eq!((cpu.value.as_str(), cpu.default.as_str()), ("25000 100000", "max 100000"));
        assert_eq!(Setting::number("memory.max", 512 << 20).value, "536870912");
        let io = Setting::io("8:0", Some(1_000), None);
        assert_eq!((io.value.as_str(), io.default.as_str()), ("8:0 rbps=1000", "8:0 rbps=max wbps=max"));
    }

    #[test]
    fn what_is_read_back_is_compared_by_the_files_own_format() {
        assert!(Setting::cpu(100).is_held_by("100000 100000\n") && !Setting::cpu(100).is_held_by("max 100000\n"));
        assert!(Setting::weight("io.weight", 50).is_held_by("default 50\n8:0 100\n"));
        let io = Setting::io("8:0", Some(5), Some(7));
        assert!(io.is_held_by("8:16 rbps=1 wbps=1\n8:0 rbps=5 wbps=7 riops=max wiops=max\n"));
        assert!(!io.is_held_by("8:0 rbps=5 wbps=max riops=max wiops=max\n") && !io.is_held_by(""));
    }
}
