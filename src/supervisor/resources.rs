//! What the pool uses: CPU time and memory of the supervisor, the workers and their tasks.
//!
//! Read from /proc on demand, so a pool that nobody looks at spends nothing on it. A process that vanishes between
//! two reads counts as nothing. Deliberately absent: limits.

use std::collections::HashMap;

use procfs::process::Process;

use crate::wire::types::Resources;

/// Remembers the last look, for the difference.
#[derive(Debug, Default)]
pub struct Meter {
    /// CPU ticks by pid at the last look.
    ticks: HashMap<i32, u64>,
    looked_ns: u64,
}

impl Meter {
    /// What the processes `pids` use now; CPU since the last look, or since `started_ns` at the first one.
    pub fn look(&mut self, pids: impl Iterator<Item = i32>, now_ns: u64, started_ns: u64) -> Resources {
        let mut ticks = HashMap::new();
        let mut used = Resources::default();
        let mut spent = 0_u64;
        for pid in pids {
            let Ok(stat) = Process::new(pid).and_then(|process| process.stat()) else { continue };
            let total = stat.utime + stat.stime;
            // A pid that was not there before has spent all of its time since.
            spent += total.saturating_sub(self.ticks.get(&pid).copied().unwrap_or(0));
            ticks.insert(pid, total);
            used.memory_bytes += stat.rss * procfs::page_size();
        }
        let since_ns = if self.looked_ns == 0 { started_ns } else { self.looked_ns };
        let wall = now_ns.saturating_sub(since_ns).max(1) as f64 / 1e9;
        used.cpu_percent = spent as f64 / procfs::ticks_per_second() as f64 / wall * 100.0;
        self.ticks = ticks;
        self.looked_ns = now_ns;
        used
    }
}
