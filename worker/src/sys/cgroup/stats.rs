//! What a cgroup counts: processor time, memory, processes, I/O. Each figure is there only if its controller is.
//!
//! Deliberately absent: what the figures mean for a task.

use super::{Gauges, Leaf};

/// What `memory.events` counts since the cgroup was made, of it and all below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Times that it was held back at `memory.high`.
    pub high: u64,
    /// Times that it ran against `memory.max`.
    pub max: u64,
    /// Times that reclaim could not help.
    pub oom: u64,
    /// Processes killed for memory.
    pub oom_kill: u64,
    /// Times that all of it was killed for memory (Linux 5.15 or later).
    pub oom_group_kill: u64,
}

/// What `cpu.stat` counts since the cgroup was made. The first three are there without the controller too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// CPU time in microseconds.
    pub usage_us: u64,
    /// Of it in user mode.
    pub user_us: u64,
    /// Of it in the kernel.
    pub system_us: u64,
    /// Time in which `cpu.max` held it back, in microseconds, if the controller is there.
    pub throttled_us: Option<u64>,
}

/// What `io.stat` counts over all devices since the cgroup was made, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoStat {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub written_bytes: u64,
}

impl MemoryEvents {
    pub(super) fn parse(text: &str) -> Self {
        let of = |name| value_of(text, name).unwrap_or(0);
        Self {
            high: of("high"),
            max: of("max"),
            oom: of("oom"),
            oom_kill: of("oom_kill"),
            oom_group_kill: of("oom_group_kill"),
        }
    }
}

impl CpuStat {
    pub(super) fn parse(text: &str) -> Self {
        let of = |name| value_of(text, name).unwrap_or(0);
        Self {
            usage_us: of("usage_usec"),
            user_us: of("user_usec"),
            system_us: of("system_usec"),
            throttled_us: value_of(text, "throttled_usec"),
        }
    }
}

impl IoStat {
    pub(super) fn parse(text: &str) -> Self {
        let sum = |name: &str| {
            let words = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            words.filter_map(|number| number.parse::<u64>().ok()).sum()
        };
        Self { read_bytes: sum("rbytes"), written_bytes: sum("wbytes") }
    }
}

/// A file of one number; `None` where it says `max`.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim_ascii_end().parse().ok()
}

impl Leaf {
    /// `memory.events`.
    pub fn memory_events(&self) -> Option<MemoryEvents> {
        Some(MemoryEvents::parse(&self.read("memory.events").ok()?))
    }

    /// A file that holds one number, such as `memory.current`, `memory.peak` (Linux 5.19) or `pids.peak` (6.6). `None`
    /// where the file is missing or says `max`.
    pub fn number(&self, file: &str) -> Option<u64> {
        number(&self.read(file).ok()?)
    }

    /// Its files that are read again and again, kept open from the first time that they are asked for.
    pub fn gauges(&self) -> &Gauges {
        self.gauges.get_or_init(|| Gauges::of(self))
    }
}

/// The number behind `name` in lines of `name number`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim_ascii().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_whole_name() {
        let text = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 3\nthrottled_usec 7\n";
        let stat = CpuStat { usage_us: 30, user_us: 20, system_us: 10, throttled_us: Some(7) };
        assert_eq!(CpuStat::parse(text), stat);
        assert_eq!(CpuStat::parse("usage_usec 1\n").throttled_us, None, "without the controller it is not counted");
        let events = MemoryEvents::parse("low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n");
        assert_eq!((events.high, events.max, events.oom, events.oom_kill, events.oom_group_kill), (1, 2, 3, 4, 5));
    }

    #[test]
    fn io_is_summed_over_devices() {
        let text = "254:0 rbytes=10 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n254:16 \n8:0 rbytes=5 wbytes=2 rios=9\n";
        assert_eq!(IoStat::parse(text), IoStat { read_bytes: 15, written_bytes: 3 });
        assert_eq!((number("17\n"), number("max\n")), (Some(17), None));
    }
}
