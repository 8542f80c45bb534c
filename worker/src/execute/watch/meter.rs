//! What an attempt uses: counted at its end, and looked at while it runs.
//!
//! Two sources. The leaf's files, where its controllers are: a leaf serves one task after another, so its counters are
//! read at both ends, and its peaks count only if they were risen by this attempt or could be begun anew. Else what the
//! kernel says of the processes that were reaped, and looks at `/proc` from time to time for the peaks.
//!
//! A task without limits that ends within a moment is not looked at at all: what was reaped tells all of it, but for
//! what the cgroup counts alone. The looks at a longer one become rarer, and those that take long become rarer still.
//! Deliberately absent: limits, and the disk space, which those know who look at it.

use super::super::process::Tools;
use super::Settled;
use crate::sys::cgroup::{CpuStat, Gauges, IoStat, Leaf};
use crate::sys::clock;
use crate::sys::tree::{self, Used};
use crate::sys::usage::{self, InUse};
use crate::task::{Limits, Usage, UsageSource};

/// How long an attempt has run when it is first looked at, in nanoseconds: as its start is reported by itself.
const FIRST_NS: u64 = 5_000_000;
/// The time from the first look to the second; it doubles with each further one.
const PAUSE_NS: u64 = 50_000_000;
/// The longest time between two looks: a worker wakes up for its heartbeat as often.
const PAUSE_MAX_NS: u64 = 1_000_000_000;
/// A look that takes long is followed by a pause of so many times that: at most a fiftieth of a processor is spent.
const PAUSE_SHARE: u64 = 50;
/// The most processes that are looked at one by one, at each look.
const LOOK_MAX: usize = 512;

/// The counting of one attempt.
#[derive(Debug, Default)]
pub struct Meter {
    look_ns: u64,
    pause_ns: u64,
    /// Whether the counters at its beginning are known: of a task without limits only once it is looked at.
    begun: bool,
    fresh: bool,
    /// Whether the leaf's peak of memory was begun anew for it.
    peak_reset: bool,
    /// What the leaf had in memory before.
    memory_before: u64,
    memory_peak_before: u64,
    pids_peak_before: u64,
    cpu_before: CpuStat,
    io_before: IoStat,
    peak_memory: u64,
    peak_pids: u64,
}

impl Meter {
    /// One that never looks: somebody else does.
    pub fn none() -> Self {
        Self { look_ns: u64::MAX, pause_ns: PAUSE_NS, ..Self::default() }
    }

    /// Begins to count; to be called when the leaf is the one that the task will be born into.
    pub fn begin(tools: &mut Tools, limits: &Limits) -> Self {
        let mut meter = Self { look_ns: clock::monotonic_ns() + FIRST_NS, pause_ns: PAUSE_NS, ..Self::default() };
        let Some(leaf) = tools.leaf() else { return meter };
        let gauges = leaf.gauges();
        let limited = !Limits { action: None, ..*limits }.is_empty();
        if limited || gauges.counts_memory() {
            meter.fresh = gauges.is_fresh();
            meter.memory_before = if meter.fresh { 0 } else { gauges.memory().unwrap_or(0) };
            if limited {
                meter.read_before(gauges, CpuStat::default());
            }
        }
        meter
    }

    /// Reads the leaf's counters, `spent` of which belong to this attempt already.
    fn read_before(&mut self, gauges: &Gauges, spent: CpuStat) {
        self.begun = true;
        let cpu = gauges.cpu().unwrap_or_default();
        self.cpu_before = CpuStat {
            usage_us: cpu.usage_us.saturating_sub(spent.usage_us),
            user_us: cpu.user_us.saturating_sub(spent.user_us),
            system_us: cpu.system_us.saturating_sub(spent.system_us),
            throttled_us: cpu.throttled_us,
        };
        self.io_before = gauges.io().unwrap_or_default();
        if !self.fresh {
            self.peak_reset = gauges.reset_memory_peak();
            self.memory_peak_before = gauges.memory_peak().unwrap_or(0);
            self.pids_peak_before = gauges.pids_peak().unwrap_or(0);
        }
    }

    /// When it wants to look again.
    pub fn next_ns(&self) -> Option<u64> {
        Some(self.look_ns)
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, tools: &Tools, now_ns: u64) {
        if now_ns < self.look_ns {
            return;
        }
        let began_ns = clock::thread_cpu_ns();
        let used = self.used(tools.leaf());
        self.peak_memory = self.peak_memory.max(used.memory_bytes);
        self.peak_pids = self.peak_pids.max(used.tasks);
        tools.claimer.uses(used.cpu_us, used.memory_bytes, used.tasks);
        let took_ns = clock::thread_cpu_ns().saturating_sub(began_ns);
        self.look_ns = clock::monotonic_ns().saturating_add(self.pause_ns.max(took_ns.saturating_mul(PAUSE_SHARE)));
        self.pause_ns = self.pause_ns.saturating_mul(2).min(PAUSE_MAX_NS);
    }

    /// What the attempt uses now.
    fn used(&mut self, leaf: Option<&Leaf>) -> InUse {
        let pids = || leaf.and_then(|leaf| leaf.pids().ok()).unwrap_or_else(tree::descendants);
        let Some(gauges) = leaf.map(Leaf::gauges) else { return usage::of(&pids(), LOOK_MAX) };
        let mut seen = None;
        if !self.begun {
            // What it has used in its first moment is what its processes say, to a tick of the clock.
            let used = *seen.insert(usage::of(&pids(), LOOK_MAX));
            let spent = CpuStat { usage_us: used.cpu_us, ..CpuStat::default() };
            self.read_before(gauges, spent);
        }
        let (memory, tasks) = (gauges.memory(), gauges.pids());
        let by_proc = match (memory, tasks) {
            (Some(_), Some(_)) => InUse::default(),
            (None, _) | (_, None) => seen.unwrap_or_else(|| usage::of(&pids(), LOOK_MAX)),
        };
        let cpu_us = gauges.cpu().map(|cpu| cpu.usage_us.saturating_sub(self.cpu_before.usage_us));
        InUse {
            cpu_us: cpu_us.unwrap_or(by_proc.cpu_us),
            memory_bytes: memory.map_or(by_proc.memory_bytes, |now| now.saturating_sub(self.memory_before)),
            tasks: tasks.unwrap_or(by_proc.tasks),
        }
    }

    /// Takes stock.
    pub fn settle(self, tools: &Tools, used: &Used, settled: &mut Settled) {
        let looked = self.pause_ns > PAUSE_NS;
        if looked {
            tools.claimer.uses(0, 0, 0);
            tools.claimer.uses_disk(0);
        }
        let mut usage = Usage {
            user_us: used.user_us,
            system_us: used.system_us,
            max_rss_bytes: used.max_rss_bytes,
            read_bytes: used.read_bytes,
            written_bytes: used.written_bytes,
            // No process had more than all of them together.
            peak_memory_bytes: looked.then_some(self.peak_memory.max(used.max_rss_bytes)),
            peak_pids: looked.then_some(self.peak_pids.max(1)),
            ..Usage::default()
        };
        if let Some(leaf) = tools.leaf() {
            let gauges = leaf.gauges();
            // Asked after every task, so that the kills in one are not laid to the next.
            usage.oom_kills = gauges.take_oom_kills().filter(|kills| self.begun || *kills > 0);
            if self.begun {
                self.read_leaf(gauges, &mut usage);
            }
        }
        settled.usage = usage;
    }

    /// What the leaf has counted. Never less than what its processes say: of a task without limits, the leaf's counters
    /// were first read when it had run for a moment.
    fn read_leaf(&self, gauges: &Gauges, usage: &mut Usage) {
        let cpu = gauges.cpu().unwrap_or_default();
        usage.user_us = usage.user_us.max(cpu.user_us.saturating_sub(self.cpu_before.user_us));
        usage.system_us = usage.system_us.max(cpu.system_us.saturating_sub(self.cpu_before.system_us));
        usage.throttled_us = cpu.throttled_us.map(|now| now.saturating_sub(self.cpu_before.throttled_us.unwrap_or(0)));
        if let Some(io) = gauges.io() {
            // What is written back only later, or by the kernel itself, the leaf counts too late or not at all.
            usage.read_bytes = usage.read_bytes.max(io.read_bytes.saturating_sub(self.io_before.read_bytes));
            usage.written_bytes =
                usage.written_bytes.max(io.written_bytes.saturating_sub(self.io_before.written_bytes));
        }
        let risen = |peak: Option<u64>, before: u64, whole: bool| peak.filter(|peak| whole || *peak > before);
        let whole = self.fresh || self.peak_reset;
        if let Some(peak) = risen(gauges.memory_peak(), self.memory_peak_before, whole) {
            let own = peak.saturating_sub(self.memory_before);
            usage.peak_memory_bytes = Some(usage.peak_memory_bytes.unwrap_or(0).max(own));
        }
        if let Some(peak) = risen(gauges.pids_peak(), self.pids_peak_before, self.fresh) {
            usage.peak_pids = Some(usage.peak_pids.unwrap_or(0).max(peak));
        }
        if gauges.counts_memory() {
            usage.source = UsageSource::Cgroup;
        }
    }
}
