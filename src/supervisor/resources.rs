//! What the pool uses: CPU time and memory of the supervisor, the workers and their tasks.
//!
//! Read from /proc on demand, so a pool that nobody looks at spends nothing on it. A process that vanishes between
//! two reads counts as nothing. Deliberately absent: limits.

use procfs::Current;
use procfs::process::Process;

use crate::wire::types::Resources;

/// Remembers the last look, for the difference.
#[derive(Debug, Default)]
pub struct Meter {
    /// CPU ticks of all processes at the last look, with those of their reaped children.
    ticks: u64,
    looked_ns: u64,
    /// What the last look has found.
    last: Resources,
}

impl Meter {
    /// What the processes `pids` use now; CPU since the last look, or since `started_ns` at the first one.
    ///
    /// The time of a process goes over to its parent when it is reaped, so the sum over living processes and their
    /// reaped children only grows, and short tasks that nobody ever sees alive are in it.
    pub fn look(&mut self, pids: impl Iterator<Item = i32>, now_ns: u64, started_ns: u64) -> Resources {
        let mut used = Resources::default();
        let mut ticks = 0_u64;
        for pid in pids {
            let Ok(stat) = Process::new(pid).and_then(|process| process.stat()) else { continue };
            let reaped = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
            ticks += stat.utime + stat.stime + reaped;
            used.memory_bytes += stat.rss * procfs::page_size();
        }
        let since_ns = if self.looked_ns == 0 { started_ns } else { self.looked_ns };
        let wall = now_ns.saturating_sub(since_ns).max(1) as f64 / 1e9;
        let spent = ticks.saturating_sub(self.ticks);
        used.cpu_percent = spent as f64 / procfs::ticks_per_second() as f64 / wall * 100.0;
        (self.ticks, self.looked_ns, self.last) = (ticks, now_ns, used);
        used
    }

    /// What the last look has found, if that was less than `age_ns` ago.
    pub fn recent(&self, now_ns: u64, age_ns: u64) -> Option<Resources> {
        (self.looked_ns > 0 && now_ns.saturating_sub(self.looked_ns) < age_ns).then_some(self.last)
    }
}

/// What one process, this one, uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OwnUse {
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Memory that is really there, in bytes.
    pub resident_bytes: u64,
    /// The address space, in bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The most there may be.
    pub max_fds: u64,
}

impl OwnUse {
    /// Looks. What /proc does not tell is 0.
    pub fn look() -> Self {
        let Ok(own) = Process::myself() else { return Self::default() };
        let Ok(stat) = own.stat() else { return Self::default() };
        let max_fds = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_fds: own.fd_count().unwrap_or(0) as u64,
            max_fds: max_fds.map_or(0, |(soft, _)| soft),
        }
    }
}

/// The machine's memory, in bytes; 0 if /proc does not tell.
pub fn machine_memory() -> u64 {
    procfs::Meminfo::current().map_or(0, |memory| memory.mem_total)
}
