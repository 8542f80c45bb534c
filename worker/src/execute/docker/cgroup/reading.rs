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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stays_counted_when_the_cgroup_is_gone() {
        let first =
            Reading { cpu_us: Some(5), memory: Some(100), pids: Some(4), oom_kills: Some(1), ..Reading::default() };
        let second =
            Reading { cpu_us: Some(9), memory: Some(60), pids: Some(7), oom_kills: Some(1), ..Reading::default() };
        let all = Reading::default().then(first).then(second).then(Reading::default());
        assert_eq!((all.cpu_us, all.memory, all.pids, all.oom_kills), (Some(9), Some(60), Some(7), Some(1)));
        assert_eq!((all.peak_memory, all.peak_pids), (Some(100), Some(7)), "the most that was seen");
        assert_eq!(all.live(), LiveUse { cpu_us: 9, memory_bytes: 60, pids: 7, disk_bytes: 0 });
    }

    #[test]
    fn a_container_that_nobody_saw_leaves_the_usage_as_it_is() {
        let own = Usage { user_us: 7, ..Usage::default() };
        let mut usage = own;
        Reading::default().settle(&mut usage);
        assert_eq!(usage, own);
        let seen =
            Reading { cpu_us: Some(9), user_us: Some(4), system_us: Some(5), memory: Some(1), ..Reading::default() };
        seen.settle(&mut usage);
        assert_eq!((usage.user_us, usage.system_us, usage.source), (4, 5, UsageSource::Cgroup));
    }

    #[test]
    fn every_limit_is_told_with_its_hold_and_what_was_met_is_marked() {
        let wanted = Limits {
            memory_mb: Some(64),
            pids: Some(5),
            cpu_weight: Some(9),
            disk_mb: Some(3),
            io_weight: Some(50),
            ..Limits::default()
        };
        let unheld = [("ioWeight", "no such steps")];
        let mut held = held(&wanted, &unheld, |key| match key {
            "memoryMb" => Some(compare("memory.max", 5, Some("5".to_owned()))),
            "pids" => Some(compare("pids.max", 5, Some("max".to_owned()))),
            "cpuWeight" => Some(compare("cpu.weight", 9, None)),
            _ => None,
        });
        Reading { oom_kills: Some(1), refused_pids: Some(0), ..Reading::default() }.mark_exceeded(&mut held);
        let told: Vec<_> =
            held.iter().map(|held| (held.limit.as_str(), held.hold, held.by.as_str(), held.exceeded)).collect();
        let expected = [
            ("cpuWeight", Hold::None, "there is no cpu.weight", false),
            ("memoryMb", Hold::Enforced, "memory.max", true),
            ("pids", Hold::None, "pids.max holds max instead of 5", false),
            ("ioWeight", Hold::None, "no such steps", false),
        ];
        assert_eq!(told, expected, "the disk is held elsewhere");
    }
}
