//! Limits of an attempt that its cgroup leaf holds: CPU, memory, processes, I/O.
//!
//! Each is put into the leaf before the task is born, read back, and told as what it is: enforced, observed or none. What
//! no controller holds is looked at from time to time (`sample`), where that helps. Deliberately absent: the limits of the
//! scratch directory, and how the leaf's files are written (`sys::cgroup`).

use std::io;

use super::super::birth;
use super::super::process::Tools;
use super::sample::{self, Sampler};
use super::{Over, Settled};
use crate::sys::cgroup::{self, Leaves, MemoryEvents, Setting, device_of};
use crate::task::{HeldLimit, Hold, Limits, OverLimitAction, Verdict};

const MIB: u64 = 1 << 20;
/// How often memory is looked at that may be exceeded, in nanoseconds.
const LOOK_NS: u64 = 100_000_000;
/// How often a task is looked at that is slowed down, in nanoseconds.
const PROGRESS_NS: u64 = 1_000_000_000;
/// So many such looks in a row in which it stood still for memory, and it is beyond help.
const STUCK_LOOKS: u32 = 10;
/// The share of the time between two looks that counts as standing still.
const STUCK_SHARE: f64 = 0.8;
/// How far above the point at which it is slowed down a task is ended, as a part of the limit.
const THROTTLE_ROOM: u64 = 4;
/// A leaf in which an earlier task's pages take more than this part of the limit is not used again.
const CROWDED_PART: u64 = 8;

/// The leaf's limits.
#[derive(Debug, Default)]
pub struct Leaf {
    held: Vec<HeldLimit>,
    guard: Guard,
    next_ns: Option<u64>,
    /// What the leaf had counted before.
    refused_pids: u64,
    memory: MemoryEvents,
}

/// What has to be looked at while the task runs.
#[derive(Debug, Default)]
enum Guard {
    #[default]
    Nothing,
    /// The leaf counts its memory, and nobody acts on it.
    Memory { limit: u64 },
    /// The leaf slows the task down, which must not become standing still.
    Throttled { limit: u64, stuck: u32, high: u64, stall_us: Option<u64>, looked_ns: u64 },
    /// Nothing counts for us.
    Sampled { sampler: Sampler, kill: bool },
}

/// Why a limit is not held by the kernel.
struct Missing(String);

impl Leaf {
    /// Puts the limits in place.
    ///
    /// # Errors
    /// The verdict of a task that shall be killed above a limit, where nothing can tell that it is above.
    pub fn begin(tools: &mut Tools, limits: &Limits) -> Result<Self, Verdict> {
        let action = limits.action.unwrap_or_default();
        if !has_any(limits) {
            if let Some(leaf) = current(tools).filter(|leaf| leaf.has_limits()) {
                leaf.let_go_of_others(|_| false);
            }
            return Ok(Self::default());
        }
        birth::find_leaf(&mut tools.leaves);
        make_room(tools, limits);
        let settings = wanted(limits, action, tools);
        let mut own = Self::default();
        if let Some(leaf) = current(tools) {
            leaf.let_go_of_others(|file| {
                settings.iter().flat_map(|(_, setting)| setting).any(|known| known.file == file)
            });
        }
        for ((limit, value), setting) in settings {
            let put = setting.and_then(|setting| put(tools, &setting));
            // Without a word from anybody it is a part of the memory limit.
            if limit != "swapMb" || limits.swap_mb.is_some() {
                own.tell(limit, value, put);
            }
        }
        if let Some(mb) = limits.memory_mb.filter(|_| own.find("memoryMb").is_none()) {
            own.tell("memoryMb", mb, Err(Missing(String::new())));
        }
        own.set_guard(tools, limits, action)?;
        if let Some(leaf) = current(tools) {
            own.refused_pids = if limits.pids.is_some() { leaf.refused_pids() } else { 0 };
            own.memory = leaf.memory_events().unwrap_or_default();
        }
        Ok(own)
    }

    /// Notes how a limit is held. Of several files for one limit the worst counts.
    fn tell(&mut self, limit: &'static str, value: u64, put: Result<&'static str, Missing>) {
        let (hold, by) = match put {
            Ok(file) => (Hold::Enforced, file.to_owned()),
            Err(Missing(why)) => (Hold::None, why),
        };
        match self.held.iter_mut().find(|known| known.limit == limit) {
            Some(known) if known.hold == Hold::Enforced && hold == Hold::None => {
                (known.hold, known.by) = (hold, by);
            }
            Some(_) => {}
            None => self.held.push(HeldLimit { limit: limit.to_owned(), value, hold, by, exceeded: false }),
        }
    }

    fn find(&mut self, limit: &str) -> Option<&mut HeldLimit> {
        self.held.iter_mut().find(|held| held.limit == limit)
    }

    /// Decides what is looked at while the task runs.
    fn set_guard(&mut self, tools: &Tools, limits: &Limits, action: OverLimitAction) -> Result<(), Verdict> {
        let limit = limits.memory_mb.map(|mb| mb.saturating_mul(MIB));
        let enforced = |held: Option<&mut HeldLimit>| held.is_none_or(|held| held.hold == Hold::Enforced);
        let by_leaf = enforced(self.find("memoryMb"));
        let counts = current(tools).is_some_and(cgroup::Leaf::has_memory);
        self.guard = match (limit, action) {
            (Some(limit), OverLimitAction::Warn) if counts => {
                self.observe("memoryMb", "memory.current, looked at every 100 ms");
                Guard::Memory { limit }
            }
            (Some(limit), OverLimitAction::Throttle) if by_leaf => {
                Guard::Throttled { limit, stuck: 0, high: 0, stall_us: None, looked_ns: 0 }
            }
            (Some(_), OverLimitAction::Kill) if by_leaf => Guard::Nothing,
            (Some(_), OverLimitAction::Kill) if !tools.settings.allow_observed => {
                let why = self.find("memoryMb").map(|held| held.by.clone()).unwrap_or_default();
                return Err(refuse("memoryMb", &why));
            }
            (Some(_), _) => {
                self.observe("memoryMb", sample::BY);
                Guard::Nothing
            }
            (None, _) => Guard::Nothing,
        };
        let unheld_pids = !enforced(self.find("pids"));
        let sampled_memory = limit.filter(|_| matches!(self.guard, Guard::Nothing) && !by_leaf);
        if unheld_pids {
            self.observe("pids", sample::BY);
        }
        if matches!(self.guard, Guard::Nothing) && (unheld_pids || sampled_memory.is_some()) {
            let pids = limits.pids.filter(|_| unheld_pids).map(u64::from);
            let sampler = Sampler { memory: sampled_memory, pids };
            self.guard = Guard::Sampled { sampler, kill: action == OverLimitAction::Kill };
        }
        // The first look is soon: a task may use up a machine in a second.
        self.next_ns = (!matches!(self.guard, Guard::Nothing)).then_some(0);
        Ok(())
    }

    fn observe(&mut self, limit: &str, by: &str) {
        if let Some(held) = self.find(limit) {
            let why = if held.by.is_empty() { by.to_owned() } else { format!("{by} ({})", held.by) };
            (held.hold, held.by) = (Hold::Observed, why);
        }
    }

    /// When it wants to look again.
    pub fn next_ns(&self) -> Option<u64> {
        self.next_ns
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, tools: &Tools, now_ns: u64) -> Option<Over> {
        if self.next_ns.is_none_or(|at| now_ns < at) {
            return None;
        }
        let (over, exceeded, pause_ns) = match &mut self.guard {
            Guard::Nothing => return None,
            Guard::Memory { limit } => {
                let used = current(tools).and_then(|leaf| match leaf.number("memory.current") {
                    Some(current) if current > *limit => leaf.used_memory(),
                    other => other,
                });
                (None, used.is_some_and(|used| used > *limit).then_some("memoryMb"), LOOK_NS)
            }
            Guard::Throttled { limit, stuck, high, stall_us, looked_ns } => {
                let is_stuck = current(tools)
                    .is_some_and(|leaf| stands_still(leaf, *limit, high, stall_us, now_ns.saturating_sub(*looked_ns)));
                *looked_ns = now_ns;
                *stuck = if is_stuck { *stuck + 1 } else { 0 };
                let over = (*stuck >= STUCK_LOOKS).then_some(Over::Memory);
                (over, over.map(|_| "memoryMb"), PROGRESS_NS)
            }
            Guard::Sampled { sampler, kill } => {
                let (found, took_ns) = sampler.look(current(tools));
                // Looking must not become the work.
                (found.filter(|_| *kill), found.map(Over::key), LOOK_NS.max(took_ns.saturating_mul(20)))
            }
        };
        self.next_ns = Some(now_ns.saturating_add(pause_ns));
        if let Some(held) = exceeded.and_then(|key| self.find(key)) {
            held.exceeded = true;
        }
        over
    }

    /// Takes stock.
    pub fn settle(mut self, tools: &Tools, settled: &mut Settled) {
        let Some(leaf) = current(tools) else {
            settled.limits.append(&mut self.held);
            return;
        };
        let kills = settled.usage.oom_kills.unwrap_or(0);
        let by_itself = matches!(settled.verdict, Verdict::Exited { .. } | Verdict::Signalled { .. });
        if kills > 0 && by_itself {
            settled.verdict = Verdict::OutOfMemory;
        }
        let refused = self.find("pids").is_some() && leaf.refused_pids() > self.refused_pids;
        let slowed = matches!(self.guard, Guard::Throttled { .. });
        let throttled = settled.usage.throttled_us.is_some_and(|us| us > 0);
        // Who was killed for the limit of the pool has not exceeded his own.
        let at_limit = self.find("memoryMb").is_some()
            && leaf
                .memory_events()
                .is_some_and(|now| now.max > self.memory.max && kills > 0 || slowed && now.high > self.memory.high);
        let facts = [("memoryMb", at_limit), ("pids", refused), ("cpuPercent", throttled)];
        for (key, exceeded) in facts {
            if let Some(held) = self.find(key) {
                held.exceeded |= exceeded;
            }
        }
        settled.limits.append(&mut self.held);
    }
}

fn current(tools: &Tools) -> Option<&cgroup::Leaf> {
    tools.leaves.as_ref().map(Leaves::current)
}

fn has_any(limits: &Limits) -> bool {
    let others = Limits { disk_mb: None, disk_files: None, action: None, ..*limits };
    !others.is_empty()
}

/// Takes another leaf where pages of earlier tasks would count against this one, or where its controller was changed.
fn make_room(tools: &mut Tools, limits: &Limits) {
    let (Some(leaves), Some(memory_mb)) = (tools.leaves.as_mut(), limits.memory_mb) else { return };
    let charged = leaves.current().number("memory.current");
    // A controller that has come or gone meanwhile: what was opened of it does not count any more.
    let is_stale = charged.is_some() != leaves.current().gauges().memory().is_some();
    if is_stale || charged.unwrap_or(0) > memory_mb.saturating_mul(MIB) / CROWDED_PART {
        // Without another one the task runs in this one, where the kernel drops what it can.
        let _ = leaves.replace();
    }
}

type Wanted = ((&'static str, u64), Result<Setting, Missing>);

/// What is to be put into the leaf for these limits, each with its key and value.
fn wanted(limits: &Limits, action: OverLimitAction, tools: &Tools) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    if let Some(percent) = limits.cpu_percent {
        wanted.push((("cpuPercent", u64::from(percent)), Ok(Setting::cpu(percent))));
    }
    if let Some(weight) = limits.cpu_weight {
        wanted.push((("cpuWeight", u64::from(weight)), Ok(Setting::weight("cpu.weight", weight))));
    }
    if let Some(mb) = limits.memory_mb {
        let bytes = mb.saturating_mul(MIB);
        let mut add = |file, bytes| wanted.push((("memoryMb", mb), Ok(Setting::number(file, bytes))));
        match action {
            // The pool's own limit is the floor under the host.
            OverLimitAction::Warn => {}
            OverLimitAction::Throttle => {
                add("memory.high", bytes);
                add("memory.max", bytes.saturating_add(bytes / THROTTLE_ROOM));
            }
            OverLimitAction::Kill => add("memory.max", bytes),
        }
    }
    if limits.memory_mb.is_none() || action != OverLimitAction::Warn {
        let swap = limits.swap_mb.or(limits.memory_mb.map(|_| 0));
        if let Some(mb) = swap {
            wanted.push((("swapMb", mb), Ok(Setting::number("memory.swap.max", mb.saturating_mul(MIB)))));
        }
    }
    if let Some(pids) = limits.pids {
        wanted.push((("pids", u64::from(pids)), Ok(Setting::number("pids.max", u64::from(pids)))));
    }
    if let Some(weight) = limits.io_weight {
        wanted.push((("ioWeight", u64::from(weight)), Ok(Setting::weight("io.weight", weight))));
    }
    let (read, written) = (limits.io_read_bytes, limits.io_write_bytes);
    if read.is_some() || written.is_some() {
        let device = device_of(&tools.settings.rooms);
        for (key, bytes) in [("ioReadBytes", read), ("ioWriteBytes", written)] {
            let Some(bytes) = bytes else { continue };
            let setting = match &device {
                Some(device) => Ok(Setting::io(device, read, written)),
                None => Err(Missing("the state directory lies on no block device".to_owned())),
            };
            wanted.push(((key, bytes), setting));
        }
    }
    wanted
}

/// Puts one limit into the leaf; gives the file that holds it.
fn put(tools: &Tools, setting: &Setting) -> Result<&'static str, Missing> {
    let Some(leaf) = current(tools) else { return Err(missing(tools, "there is no cgroup for tasks")) };
    match leaf.hold(setting) {
        Ok(()) => Ok(setting.file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(missing(tools, &format!("there is no {}", setting.file)))
        }
        Err(error) => Err(Missing(format!("{}: {error}", setting.file))),
    }
}

fn missing(tools: &Tools, what: &str) -> Missing {
    Missing(match &tools.ladder.why {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    })
}

/// A task that shall be killed above a limit does not run where it would not be.
fn refuse(limit: &str, why: &str) -> Verdict {
    let why = format!(
        "{limit} cannot be enforced, and overLimitAction is kill: {why} (workers.resources.allowObserved: true has it \
         looked at instead)"
    );
    Verdict::NotStarted { why, errno: None }
}

/// Whether a task that is slowed down got nowhere since the last look, `passed_ns` ago: nearly all the time all of it waited
/// for memory, or, where the kernel does not count that, it was held back and is above its limit all the same.
fn stands_still(leaf: &cgroup::Leaf, limit: u64, high: &mut u64, stall_us: &mut Option<u64>, passed_ns: u64) -> bool {
    let (high_now, stall_now) = (leaf.memory_events().map_or(0, |events| events.high), leaf.memory_stall_us());
    let (high_before, stall_before) = (std::mem::replace(high, high_now), std::mem::replace(stall_us, stall_now));
    // The first look has nothing to compare with.
    if high_now <= high_before || high_before == 0 {
        return false;
    }
    match (stall_before, stall_now) {
        (Some(before), Some(now)) => (now - before.min(now)) as f64 * 1e3 >= passed_ns as f64 * STUCK_SHARE,
        (_, _) => leaf.used_memory().is_some_and(|used| used > limit),
    }
}
