//! What a cgroup counts: processor time, memory, processes, I/O. Each figure is there only if its controller is.
//!
//! Deliberately absent: what the figures mean for a task.

use super::Leaf;

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

impl Leaf {
    /// `memory.events`.
    pub fn memory_events(&self) -> Option<MemoryEvents> {
        let text = self.read("memory.events").ok()?;
        let of = |name| value_of(&text, name).unwrap_or(0);
        Some(MemoryEvents {
            high: of("high"),
            max: of("max"),
            oom: of("oom"),
            oom_kill: of("oom_kill"),
            oom_group_kill: of("oom_group_kill"),
        })
    }

    /// `cpu.stat`.
    pub fn cpu_stat(&self) -> Option<CpuStat> {
        let text = self.read("cpu.stat").ok()?;
        let of = |name| value_of(&text, name).unwrap_or(0);
        Some(CpuStat {
            usage_us: of("usage_usec"),
            user_us: of("user_usec"),
            system_us: of("system_usec"),
            throttled_us: value_of(&text, "throttled_usec"),
        })
    }

    /// `io.stat`.
    pub fn io_stat(&self) -> Option<IoStat> {
        let text = self.read("io.stat").ok()?;
        let sum = |name: &str| {
            let words = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            words.filter_map(|number| number.parse::<u64>().ok()).sum()
        };
        Some(IoStat { read_bytes: sum("rbytes"), written_bytes: sum("wbytes") })
    }

    /// A file that holds one number, such as `memory.current`, `memory.peak` (Linux 5.19) or `pids.peak` (6.6). `None`
    /// where the file is missing or says `max`.
    pub fn number(&self, file: &str) -> Option<u64> {
        self.read(file).ok()?.trim_ascii_end().parse().ok()
    }
}

/// The number behind `name` in lines of `name number`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim_ascii().parse().ok())
}
