//! What a container uses and how its limits are held, by looking at its cgroup while it is there.
//!
//! The engine removes the cgroup with the container's last process, so what counts is the last look; the peaks are the
//! kernel's own where it keeps them. Deliberately absent: disk space, which the host holds and counts (`watch`).

use std::path::PathBuf;
use std::time::Duration;

use super::super::process::Tools;
use super::super::watch::Settled;
use super::cgroup::{ContainerCgroup, Hint, Reading};
use super::name::ContainerId;
use crate::sys::clock;
use crate::task::{HeldLimit, Hold, Limits, Usage, Verdict};

/// The time between the first two looks, in nanoseconds; it doubles with each further one.
const LOOK_NS: u64 = 10_000_000;
/// The longest time between two looks: what is used after the last one is not counted.
const LOOK_MAX_NS: u64 = 250_000_000;
/// A look that takes long is followed by a pause of so many times that: at most a fiftieth of a processor is spent.
const PAUSE_SHARE: u64 = 50;
/// So many looks in the beginning read the limits back, because the runtime may be about to write them.
const LIMIT_LOOKS: u32 = 5;
/// How long killing by the cgroup may take.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// The meter of one container.
#[derive(Debug)]
pub struct Meter {
    limits: Limits,
    rooms: PathBuf,
    cgroup: Option<ContainerCgroup>,
    id: Option<ContainerId>,
    /// So many looks more search it anew: runtimes join one hierarchy of v1 after the other.
    searches: u32,
    /// Below which folder it was found, if that is none of the usual ones.
    parent: String,
    held: Vec<HeldLimit>,
    limit_looks: u32,
    reading: Reading,
    look_ns: u64,
    pause_ns: u64,
}

impl Meter {
    /// For a container with these limits.
    pub fn new(tools: &Tools, limits: &Limits) -> Self {
        Self {
            limits: *limits,
            rooms: tools.settings.rooms.clone(),
            cgroup: None,
            id: None,
            searches: LIMIT_LOOKS,
            parent: String::new(),
            held: Vec::new(),
            limit_looks: LIMIT_LOOKS,
            reading: Reading::default(),
            look_ns: u64::MAX,
            pause_ns: LOOK_NS,
        }
    }

    /// Whether the container's cgroup is found, and something lives in it. `parent` is where such were found before.
    pub fn finds(&mut self, id: &str, parent: &str) -> bool {
        let Ok(id) = id.parse::<ContainerId>() else { return false };
        if self.cgroup.is_none() {
            self.cgroup = ContainerCgroup::find(&id, Hint { pid: None, parent });
            (self.id, self.parent) = (Some(id), parent.to_owned());
        }
        self.begins_to_look()
    }

    fn begins_to_look(&mut self) -> bool {
        let runs = self.cgroup.as_ref().is_some_and(ContainerCgroup::is_populated);
        if runs && self.look_ns == u64::MAX {
            self.look_ns = 0;
        }
        runs
    }

    /// Whether the container's cgroup was ever found.
    pub fn has_found(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Finds the cgroup by the container's first process; gives the place where it is, below its hierarchy.
    pub fn find_by_process(&mut self, id: &str, pid: i32) -> Option<String> {
        let id = id.parse::<ContainerId>().ok()?;
        self.cgroup = self.cgroup.take().or_else(|| ContainerCgroup::find(&id, Hint { pid: Some(pid), parent: "" }));
        if self.cgroup.is_some() && self.look_ns == u64::MAX {
            self.look_ns = 0;
        }
        let parent = parent_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?, id.as_str())?;
        (self.id, self.parent) = (Some(id), parent.clone());
        Some(parent)
    }

    /// When it wants to look.
    pub fn next_ns(&self) -> u64 {
        self.look_ns
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, tools: &Tools, now_ns: u64) {
        if now_ns < self.look_ns {
            return;
        }
        let began_ns = clock::thread_cpu_ns();
        self.read();
        let live = self.reading.live();
        tools.claimer.uses(live.cpu_us, live.memory_bytes, live.pids);
        let took_ns = clock::thread_cpu_ns().saturating_sub(began_ns);
        self.look_ns = now_ns.saturating_add(self.pause_ns.max(took_ns.saturating_mul(PAUSE_SHARE)));
        self.pause_ns = self.pause_ns.saturating_mul(2).min(LOOK_MAX_NS);
    }

    fn read(&mut self) {
        if let Some(id) = self.id.as_ref().filter(|_| self.searches > 0 && self.cgroup.is_some()) {
            self.searches -= 1;
            let parent = &self.parent;
            self.cgroup = ContainerCgroup::find(id, Hint { pid: None, parent }).or(self.cgroup.take());
        }
        let Some(cgroup) = &self.cgroup else { return };
        self.reading = self.reading.then(cgroup.reading());
        let all_held = !self.held.is_empty() && self.held.iter().all(|held| held.hold == Hold::Enforced);
        if self.limit_looks > 0 && !all_held && cgroup.is_populated() {
            self.limit_looks -= 1;
            self.held = cgroup.held(&self.limits, &self.rooms);
        }
    }

    /// Processes that were killed for want of memory, as far as was seen.
    pub fn oom_kills(&mut self) -> Option<u64> {
        self.read();
        self.reading.oom_kills
    }

    /// Kills what lives in it, without the engine. To be repeated.
    pub fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            // Where that is not ours to do there is nothing else either.
            let _ = cgroup.kill();
        }
    }

    /// Kills what lives in it, until nothing does; true if so.
    pub fn kill_all(&mut self, id: &str, parent: &str) -> bool {
        self.finds(id, parent);
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.kill_all(KILL_PATIENCE).unwrap_or(false))
    }

    /// Writes what was counted over what is said of the client, and tells how the limits were held.
    pub fn settle(mut self, tools: &Tools, settled: &mut Settled) {
        if self.look_ns != u64::MAX {
            tools.claimer.uses(0, 0, 0);
        }
        self.read();
        settled.usage = Usage { peak_disk_bytes: settled.usage.peak_disk_bytes, ..Usage::default() };
        self.reading.settle(&mut settled.usage);
        if self.held.is_empty() {
            self.held = unseen(&self.limits);
        }
        if settled.verdict == Verdict::OutOfMemory {
            // The engine has said so when the cgroup was gone.
            self.reading.oom_kills = self.reading.oom_kills.max(Some(1));
            settled.usage.oom_kills = self.reading.oom_kills;
        }
        self.reading.mark_exceeded(&mut self.held);
        settled.limits.splice(0..0, self.held);
    }
}

/// The cgroup above that of the container, as `/proc/<pid>/cgroup` tells it.
fn parent_in(text: &str, id: &str) -> Option<String> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let above = paths.filter_map(|path| path.split_once(id)?.0.rsplit_once('/').map(|(above, _)| above.to_owned()));
    above.max_by_key(String::len)
}

/// Limits of a container whose cgroup was never seen.
fn unseen(limits: &Limits) -> Vec<HeldLimit> {
    let by_engine = Limits { disk_mb: None, disk_files: None, ..*limits };
    let told = by_engine.values().into_iter().filter_map(|(limit, value)| Some((limit, value?)));
    let why = "asked for, and the container's cgroup was not seen";
    told.map(|(limit, value)| HeldLimit {
        limit: limit.to_owned(),
        value,
        hold: Hold::None,
        by: why.to_owned(),
        exceeded: false,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_container_is_told_by_its_process() {
        let id = "a".repeat(64);
        let v1 = format!("12:pids:/place/{id}\n1:name=systemd:/place/{id}\n0::/\n");
        assert_eq!(parent_in(&v1, &id).as_deref(), Some("/place"));
        let v2 = format!("0::/system.slice/docker-{id}.scope/init\n");
        assert_eq!(parent_in(&v2, &id).as_deref(), Some("/system.slice"));
        assert_eq!(parent_in("0::/\n", &id), None);
    }

    #[test]
    fn limits_that_were_not_seen_are_not_said_to_be_held() {
        let limits = Limits { memory_mb: Some(5), disk_mb: Some(7), ..Limits::default() };
        let told = unseen(&limits);
        assert_eq!((told.len(), told[0].limit.as_str(), told[0].hold), (1, "memoryMb", Hold::None));
    }
}
