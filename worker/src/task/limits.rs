//! Resource limits: of a task as a whole ([`Limits`]), and of each of its processes ([`Rlimits`], `setrlimit`).
//!
//! Pure data. Deliberately absent: how a limit is held, which depends on the host (`sys::cgroup`, `execute::watch`).

use serde::{Deserialize, Serialize};

use super::SpecError;

/// The rlimits of a task's processes. `None` leaves what the supervisor itself runs under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rlimits {
    /// Largest core dump, in bytes (`RLIMIT_CORE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<u64>,
    /// Most open files (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Largest file that may be written, in bytes (`RLIMIT_FSIZE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
    /// Largest address space, in bytes (`RLIMIT_AS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// CPU time in seconds after which the process is killed (`RLIMIT_CPU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Most processes of the user (`RLIMIT_NPROC`); does not bind root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl Rlimits {
    /// Whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These limits, with those of memory multiplied by `scale`, which is at least 1.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        // A product beyond the largest number becomes that number.
        let grown = |bytes: u64| if scale > 1.0 { (bytes as f64 * scale) as u64 } else { bytes };
        Self { address_space_bytes: self.address_space_bytes.map(grown), ..self }
    }

    /// These limits, with those of `other` where these are silent.
    pub fn or(self, other: Self) -> Self {
        Self {
            core_bytes: self.core_bytes.or(other.core_bytes),
            open_files: self.open_files.or(other.open_files),
            file_size_bytes: self.file_size_bytes.or(other.file_size_bytes),
            address_space_bytes: self.address_space_bytes.or(other.address_space_bytes),
            cpu_seconds: self.cpu_seconds.or(other.cpu_seconds),
            processes: self.processes.or(other.processes),
        }
    }
}

/// Limits of one task as a whole: of all its processes together. `None` leaves what the pool says, and in the pool's own
/// settings is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// CPU time, in percent of one processor: 250 is two and a half processors. Always held where it can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Share of the processors where tasks compete for them, 1 to 10,000; the kernel's default is 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Swap space in MiB, beside the memory; none by default where memory is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_mb: Option<u64>,
    /// Disk space of the scratch directory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Files, directories and links in the scratch directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_files: Option<u64>,
    /// Processes and threads at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Share of the disk's time where tasks compete for it, 1 to 10,000; the kernel's default is 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u32>,
    /// Bytes read a second from the disk of the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_read_bytes: Option<u64>,
    /// Bytes written a second to the disk of the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_write_bytes: Option<u64>,
    /// What happens above the memory or disk limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<OverLimitAction>,
}

impl Limits {
    /// Whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These limits, with those of memory multiplied by `scale`, which is at least 1.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        let grown = |mb: u64| if scale > 1.0 { (mb as f64 * scale) as u64 } else { mb };
        Self { memory_mb: self.memory_mb.map(grown), ..self }
    }

    /// These limits, with those of `other` where these are silent.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            cpu_weight: self.cpu_weight.or(other.cpu_weight),
            memory_mb: self.memory_mb.or(other.memory_mb),
            swap_mb: self.swap_mb.or(other.swap_mb),
            disk_mb: self.disk_mb.or(other.disk_mb),
            disk_files: self.disk_files.or(other.disk_files),
            pids: self.pids.or(other.pids),
            io_weight: self.io_weight.or(other.io_weight),
            io_read_bytes: self.io_read_bytes.or(other.io_read_bytes),
            io_write_bytes: self.io_write_bytes.or(other.io_write_bytes),
            action: self.action.or(other.action),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The first limit that is out of its range.
    pub fn validate(&self) -> Result<(), SpecError> {
        const MIB_MAX: u64 = 1 << 30;
        let ranges: [(&str, u64, u64, &str); 10] = [
            ("limits.cpuPercent", 1, 409_600, "1 to 409600"),
            ("limits.cpuWeight", 1, 10_000, "1 to 10000"),
            ("limits.memoryMb", 1, MIB_MAX, "1 to 1073741824"),
            ("limits.swapMb", 0, MIB_MAX, "0 to 1073741824"),
            ("limits.diskMb", 1, MIB_MAX, "1 to 1073741824"),
            ("limits.diskFiles", 1, 1_000_000_000, "1 to 1000000000"),
            ("limits.pids", 1, 4_194_304, "1 to 4194304"),
            ("limits.ioWeight", 1, 10_000, "1 to 10000"),
            ("limits.ioReadBytes", 4_096, 1 << 40, "4096 to 1099511627776"),
            ("limits.ioWriteBytes", 4_096, 1 << 40, "4096 to 1099511627776"),
        ];
        for ((_, value), (field, low, high, expected)) in self.values().into_iter().zip(ranges) {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                return Err(SpecError::OutOfRange { field, value: value.to_string(), expected });
            }
        }
        Ok(())
    }

    /// These limits, none above its maximum. Where they are silent the maximum holds; but nobody is given a share that he
    /// did not ask for.
    #[must_use]
    pub fn within(self, max: &Self) -> Self {
        fn least<T: Ord>(own: Option<T>, max: Option<T>) -> Option<T> {
            match (own, max) {
                (Some(own), Some(max)) => Some(own.min(max)),
                (own, max) => own.or(max),
            }
        }
        let share = |own: Option<u32>, max: Option<u32>| own.map(|own| max.map_or(own, |max| own.min(max)));
        Self {
            cpu_percent: least(self.cpu_percent, max.cpu_percent),
            cpu_weight: share(self.cpu_weight, max.cpu_weight),
            memory_mb: least(self.memory_mb, max.memory_mb),
            swap_mb: self.swap_mb.map(|own| max.swap_mb.map_or(own, |max| own.min(max))),
            disk_mb: least(self.disk_mb, max.disk_mb),
            disk_files: least(self.disk_files, max.disk_files),
            pids: least(self.pids, max.pids),
            io_weight: share(self.io_weight, max.io_weight),
            io_read_bytes: least(self.io_read_bytes, max.io_read_bytes),
            io_write_bytes: least(self.io_write_bytes, max.io_write_bytes),
            action: self.action,
        }
    }

    /// Each limit but the action, with its key.
    pub fn values(&self) -> [(&'static str, Option<u64>); 10] {
        [
            ("cpuPercent", self.cpu_percent.map(u64::from)),
            ("cpuWeight", self.cpu_weight.map(u64::from)),
            ("memoryMb", self.memory_mb),
            ("swapMb", self.swap_mb),
            ("diskMb", self.disk_mb),
            ("diskFiles", self.disk_files),
            ("pids", self.pids.map(u64::from)),
            ("ioWeight", self.io_weight.map(u64::from)),
            ("ioReadBytes", self.io_read_bytes),
            ("ioWriteBytes", self.io_write_bytes),
        ]
    }

    /// The first limit above its maximum: its key, its value and the maximum.
    pub fn above(&self, max: &Self) -> Option<(&'static str, u64, u64)> {
        let pairs = self.values().into_iter().zip(max.values());
        pairs.into_iter().find_map(|((key, own), (_, max))| {
            let (own, max) = (own?, max?);
            (own > max).then_some((key, own, max))
        })
    }
}

/// What happens to a task above its memory or disk limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverLimitAction {
    /// It is told in the log and the events.
    #[default]
    Warn,
    /// It is slowed down.
    Throttle,
    /// It is ended.
    Kill,
}

/// How well a limit is held on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// By the kernel.
    Enforced,
    /// By looking at it from time to time: it may be exceeded in between.
    Observed,
    /// Not at all.
    None,
}

/// How one limit of an attempt was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLimit {
    /// The limit, by its key: `memoryMb`.
    pub limit: String,
    /// Its value, in the unit of its key.
    pub value: u64,
    /// How well.
    pub hold: Hold,
    /// By what: `memory.max`, `project quota`, `sampling`; or why not.
    pub by: String,
    /// Whether it was exceeded, or its end reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exceeded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(cpu_percent: Option<u32>, memory_mb: Option<u64>) -> Limits {
        Limits { cpu_percent, memory_mb, ..Limits::default() }
    }

    #[test]
    fn the_maximum_holds_where_nobody_says_anything_and_above_it() {
        let max = limits(Some(100), Some(512));
        assert_eq!(limits(None, Some(64)).within(&max), limits(Some(100), Some(64)));
        assert_eq!(limits(Some(200), None).within(&max), max);
        assert_eq!(limits(Some(200), None).within(&Limits::default()), limits(Some(200), None));
        // A retry with more memory stays below it too.
        assert_eq!(limits(None, Some(400)).scaled(2.0).within(&max).memory_mb, Some(512));
    }

    #[test]
    fn nobody_is_given_a_share_or_swap_for_want_of_a_word() {
        let max = Limits { cpu_weight: Some(500), io_weight: Some(50), swap_mb: Some(9), ..Limits::default() };
        assert_eq!(Limits::default().within(&max), Limits::default());
        let greedy = Limits { cpu_weight: Some(900), io_weight: Some(60), swap_mb: Some(10), ..Limits::default() };
        assert_eq!(greedy.within(&max), max);
    }

    #[test]
    fn what_is_above_its_maximum_is_named() {
        let max = limits(Some(100), Some(512));
        assert_eq!(limits(Some(100), Some(513)).above(&max), Some(("memoryMb", 513, 512)));
        assert_eq!(limits(Some(100), None).above(&max), None);
        assert_eq!(limits(Some(1_000), None).above(&Limits::default()), None);
    }

    #[test]
    fn a_limit_out_of_range_is_refused() {
        assert!(limits(Some(25), Some(1)).validate().is_ok());
        let error = limits(None, Some(0)).validate().unwrap_err().to_string();
        assert!(error.contains("limits.memoryMb") && error.contains('0'), "{error}");
        assert!(Limits { io_read_bytes: Some(1), ..Limits::default() }.validate().is_err());
        assert!(Limits { swap_mb: Some(0), ..Limits::default() }.validate().is_ok());
    }
}
