//! Figures of a container's cgroup, and how its limits are held, whichever hierarchy they come from.

use crate::task::{HeldLimit, Hold, Limits, LiveUse, Usage, UsageSource};

/// What a container's cgroup has counted since it was made. What nobody counts is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// CPU time in microseconds.
    pub cpu_us: Option<u64>,
    /// Of it in user mode.
    pub user_us: Option<u64>,
    /// Of it in the kernel.
    pub system_us: Option<u64>,
    /// Time in which the CPU limit held it back, in microseconds.
    pub throttled_us: Option<u64>,
    /// Memory now, in bytes.
    pub memory: Option<u64>,
    /// The most memory so far, in bytes; the most that was seen, where the kernel does not keep it.
    pub peak_memory: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// The most of them so far; the most that were seen, where the kernel does not keep it.
    pub peak_pids: Option<u64>,
    /// Bytes read from block devices.
    pub read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub written_bytes: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// How often a process could not be made for the limit on them.
    pub refused_pids: Option<u64>,
}

impl Reading {
    /// This reading with a later one. Nothing that was counted is lost when the cgroup is gone: its files say nothing then.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let most = |one: Option<u64>, other: Option<u64>| one.max(other);
        Self {
            cpu_us: most(self.cpu_us, later.cpu_us),
            user_us: most(self.user_us, later.user_us),
            system_us: most(self.system_us, later.system_us),
            throttled_us: most(self.throttled_us, later.throttled_us),
            memory: later.memory.or(self.memory),
            peak_memory: most(most(self.peak_memory, later.peak_memory), later.memory),
            pids: later.pids.or(self.pids),
            peak_pids: most(most(self.peak_pids, later.peak_pids), later.pids),
            read_bytes: most(self.read_bytes, later.read_bytes),
            written_bytes: most(self.written_bytes, later.written_bytes),
            oom_kills: most(self.oom_kills, later.oom_kills),
            refused_pids: most(self.refused_pids, later.refused_pids),
        }
    }

    /// What is shown of a running task. Disk space is looked at elsewhere.
    pub fn live(&self) -> LiveUse {
        LiveUse {
            cpu_us: self.cpu_us.unwrap_or(0),
            memory_bytes: self.memory.unwrap_or(0),
            pids: self.pids.unwrap_or(0),
            disk_bytes: 0,
        }
    }

    /// Writes what was counted over what is said of the client's own process.
    pub fn settle(&self, usage: &mut Usage) {
        if self.cpu_us.is_none() && self.peak_memory.is_none() && self.memory.is_none() {
            return;
        }
        usage.user_us = self.user_us.or(self.cpu_us).unwrap_or(0);
        usage.system_us = self.system_us.unwrap_or(0);
        // The client's own largest process says nothing of the task.
        usage.max_rss_bytes = 0;
        usage.read_bytes = self.read_bytes.unwrap_or(0);
        usage.written_bytes = self.written_bytes.unwrap_or(0);
        usage.peak_memory_bytes = self.peak_memory.max(self.memory);
        usage.throttled_us = self.throttled_us;
        usage.oom_kills = self.oom_kills;
        usage.peak_pids = self.peak_pids.max(self.pids);
        usage.source = UsageSource::Cgroup;
    }

    /// Notes which limits were met, going by what was counted.
    pub fn mark_exceeded(&self, held: &mut [HeldLimit]) {
        let counted = |count: Option<u64>| count.is_some_and(|count| count > 0);
        let facts = [
            ("memoryMb", counted(self.oom_kills)),
            ("pids", counted(self.refused_pids)),
            ("cpuPercent", counted(self.throttled_us)),
        ];
        for limit in held {
            limit.exceeded |= facts.iter().any(|(key, met)| *met && limit.limit == *key);
        }
    }
}

/// How a file holds a limit: its name, or why it does not.
pub(super) type Back = Result<&'static str, String>;

/// Asks for each limit how it is held; `unheld` are those that the engine was not even asked for.
pub(super) fn held(
    wanted: &Limits,
    unheld: &[(&'static str, &'static str)],
    read_back: impl Fn(&str) -> Option<Back>,
) -> Vec<HeldLimit> {
    let limits = wanted.values().into_iter().filter_map(|(key, value)| Some((key, value?)));
    let held = limits.filter_map(|(key, value)| {
        let back = match unheld.iter().find(|(known, _)| *known == key) {
            Some((_, why)) => Err((*why).to_owned()),
            None => read_back(key)?,
        };
        let (hold, by) = match back {
            Ok(file) => (Hold::Enforced, file.to_owned()),
            Err(why) => (Hold::None, why),
        };
        Some(HeldLimit { limit: key.to_owned(), value, hold, by, exceeded: false })
    });
    held.collect()
}

/// Whether a file that should hold `expected` does, by what it says.
pub(super) fn compare(file: &'static str, expected: u64, found: Option<String>) -> Back {
    match found {
        None => Err(format!("there is no {file}")),
        Some(text) if text == expected.to_string() => Ok(file),
        Some(text) => Err(format!("{file} holds {text} instead of {expected}")),
    }
}
