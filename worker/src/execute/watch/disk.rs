//! The limit of an attempt's scratch directory: when it is looked at, and what an excess means.
//!
//! | action | held by the kernel | by looking |
//! |---|---|---|
//! | warn | counted only | counted only |
//! | throttle | writes beyond the limit fail | counted only |
//! | kill | writes beyond the limit fail, and the attempt ends | the attempt ends |
//!
//! With `kill` a directory that is found above its limit, while the task runs or at its end, is an attempt over its
//! limit, whatever the task made of the failing writes: one that passed over them has lost data without a word. What a
//! task had removed again before anybody looked is not held against it. Deliberately absent: the means, which are
//! `room::disk`'s.

use super::super::process::{Attempt, Tools};
use super::{Over, Settled};
use crate::room::disk::{Amount, DiskLimit, Held, Means, SLACK_BYTES, Seen, Wish};
use crate::sys::{clock, tree};
use crate::task::{Cleanup, DiskMethod, HeldLimit, Hold, Limits, OverLimitAction, Rlimits, Verdict};

/// The longest time between two looks, in nanoseconds.
const LOOK_MAX_NS: u64 = 100_000_000;
/// The shortest.
const LOOK_MIN_NS: u64 = 20_000_000;
/// A look that took so long is followed by a pause of so many times that: a tenth of a processor at most.
const PAUSE_PER_LOOK: u64 = 9;
/// The signal for writing beyond `RLIMIT_FSIZE`.
const SIGXFSZ: i32 = libc::SIGXFSZ;

/// The scratch directory's limit; nothing for a task without one.
#[derive(Debug, Default)]
pub struct Disk {
    active: Option<Box<Active>>,
}

/// A limit that there is.
#[derive(Debug)]
struct Active {
    held: Held,
    limits: Limits,
    limit: DiskLimit,
    action: OverLimitAction,
    /// The largest file that the task may write, where that is what holds it.
    file_size: Option<u64>,
    next_ns: u64,
    peak: Amount,
    /// What was found last was above the limit; one more such look makes it certain.
    suspected: bool,
    exceeded: Exceeded,
}

/// Which limits were exceeded.
#[derive(Debug, Clone, Copy, Default)]
struct Exceeded {
    bytes: bool,
    files: bool,
}

impl Exceeded {
    fn over(self) -> Option<Over> {
        if self.bytes { Some(Over::Disk) } else { self.files.then_some(Over::DiskFiles) }
    }
}

impl Disk {
    /// Puts the limits in place, by the best means that `method` allows.
    ///
    /// # Errors
    /// The scratch directory cannot even be looked at.
    pub fn begin(tools: &mut Tools, attempt: &Attempt, limits: &Limits, method: DiskMethod) -> Result<Self, Verdict> {
        if limits.disk_mb.is_none() && limits.disk_files.is_none() {
            return Ok(Self::default());
        }
        let bytes = limits.disk_mb.map(|mb| mb.saturating_mul(1 << 20));
        let limit = DiskLimit { bytes, files: limits.disk_files };
        let action = limits.action.unwrap_or_default();
        let cleanup = attempt.task.spec.cleanup.unwrap_or(tools.settings.cleanup);
        let keeps = cleanup != Cleanup::Always
            || !attempt.task.spec.artifacts.is_empty()
            || attempt.task.spec.worktree.is_some();
        let wish = Wish { method, limit, wall: action != OverLimitAction::Warn, keeps };
        let held = tools.room.hold(&wish).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Verdict::NotStarted { why: format!("the scratch directory cannot be limited: {cause}"), errno: None }
        })?;
        // Where nobody but we holds it, one file at least cannot run away between two looks.
        let bounds_files = held.means() == Means::Sampling && action == OverLimitAction::Kill;
        let file_size = bytes.filter(|_| bounds_files).map(|bytes| bytes.saturating_add(SLACK_BYTES));
        let active = Active {
            held,
            limits: *limits,
            limit,
            action,
            file_size,
            next_ns: clock::monotonic_ns() + LOOK_MIN_NS,
            peak: Amount::default(),
            suspected: false,
            exceeded: Exceeded::default(),
        };
        Ok(Self { active: Some(Box::new(active)) })
    }

    /// The limits of the task's processes, with what holds the disk limit.
    pub fn bound(&self, rlimits: Rlimits) -> Rlimits {
        let Some(own) = self.active.as_ref().and_then(|active| active.file_size) else { return rlimits };
        let file_size = rlimits.file_size_bytes.map_or(own, |other| other.min(own));
        Rlimits { file_size_bytes: Some(file_size), ..rlimits }
    }

    /// Whether the task must not have the privilege of passing over quotas.
    pub fn needs_quota(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.held.means() == Means::Quota && active.has_wall())
    }

    /// When it wants to look again.
    pub fn next_ns(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.next_ns)
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, tools: &Tools, now_ns: u64) -> Option<Over> {
        let active = self.active.as_mut().filter(|active| now_ns >= active.next_ns)?;
        let pids = || match tools.leaves.as_ref().map(|leaves| leaves.current().pids()) {
            Some(Ok(pids)) => pids,
            Some(Err(_)) | None => tree::descendants(),
        };
        let seen = active.held.look(pids);
        active.note(seen);
        let took_ns = clock::monotonic_ns().saturating_sub(now_ns);
        let pause_ns = took_ns.saturating_mul(PAUSE_PER_LOOK);
        let at_least = if active.is_calm(seen) { LOOK_MAX_NS } else { LOOK_MIN_NS };
        active.next_ns = now_ns.saturating_add(took_ns).saturating_add(pause_ns.max(at_least));
        active.exceeded.over().filter(|_| active.action == OverLimitAction::Kill)
    }

    /// Takes stock.
    pub fn settle(self, _tools: &Tools, settled: &mut Settled) {
        if let Some(active) = self.active {
            active.settle(settled);
        }
    }
}

impl Active {
    /// Whether writes beyond the limit fail.
    fn has_wall(&self) -> bool {
        self.action != OverLimitAction::Warn && self.held.means() != Means::Sampling
    }

    fn excess(&self, amount: Amount) -> Exceeded {
        let above = |limit: Option<u64>, figure: u64| limit.is_some_and(|limit| figure > limit);
        Exceeded { bytes: above(self.limit.bytes, amount.bytes), files: above(self.limit.files, amount.files) }
    }

    fn note(&mut self, seen: Seen) {
        let excess = self.excess(seen.amount());
        let is_over = excess.over().is_some();
        // While files are moved about, a walk may meet one of them twice. So it takes two of them in a row.
        let is_certain = self.held.means() != Means::Sampling || self.suspected;
        if is_over && !is_certain {
            self.suspected = true;
            self.held.begin_again();
            return;
        }
        if let Seen::Whole(_) = seen {
            self.suspected = false;
        }
        if is_certain || !is_over {
            self.peak = self.peak.max(seen.amount());
        }
        if is_over {
            self.exceeded.bytes |= excess.bytes;
            self.exceeded.files |= excess.files;
        }
    }

    /// Whether there is no hurry: all was seen, and the limit is as far away again as what is there.
    fn is_calm(&self, seen: Seen) -> bool {
        let far = |limit: Option<u64>, figure: u64| limit.is_none_or(|limit| figure < limit / 2);
        let amount = seen.amount();
        let is_far = far(self.limit.bytes, amount.bytes) && far(self.limit.files, amount.files);
        // What was told already is not looked for any more; only its peak is of interest.
        let is_told = self.exceeded.over().is_some();
        matches!(seen, Seen::Whole(_)) && !self.suspected && (is_far || is_told)
    }

    fn settle(self, settled: &mut Settled) {
        let (means, has_wall) = (self.held.means(), self.has_wall());
        let mut by = means.to_string();
        if self.file_size.is_some() {
            by.push_str(" and RLIMIT_FSIZE");
        }
        if let Some(why) = self.held.why_not() {
            by = format!("{by} (no other: {why})");
        }
        let Self { held, limits, action, mut exceeded, peak, file_size, limit, .. } = self;
        let last = held.last();
        exceeded.bytes |= limit.bytes.is_some_and(|limit| last.bytes > limit);
        exceeded.files |= limit.files.is_some_and(|limit| last.files > limit);
        if file_size.is_some() && matches!(settled.verdict, Verdict::Signalled { signal: SIGXFSZ, .. }) {
            exceeded.bytes = true;
        }
        if action == OverLimitAction::Kill
            && let Some(over) = exceeded.over()
            && matches!(settled.verdict, Verdict::Exited { .. } | Verdict::Signalled { .. })
        {
            settled.verdict = over.verdict();
        }
        let hold = if has_wall { Hold::Enforced } else { Hold::Observed };
        let told = [("diskMb", limits.disk_mb, exceeded.bytes), ("diskFiles", limits.disk_files, exceeded.files)];
        for (limit, value, exceeded) in told {
            let Some(value) = value else { continue };
            settled.limits.push(HeldLimit { limit: limit.to_owned(), value, hold, by: by.clone(), exceeded });
        }
        settled.usage.peak_disk_bytes = Some(peak.max(last).bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Room;
    use crate::task::Usage;
    use std::fs;

    const EXITED: Verdict = Verdict::Exited { code: 0 };

    struct Bench {
        _home: tempfile::TempDir,
        room: Room,
    }

    impl Bench {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let room = Room::open(&home.path().join("rooms"), 1).unwrap();
            Self { _home: home, room }
        }

        fn watch(&mut self, action: OverLimitAction) -> Active {
            let limit = DiskLimit { bytes: Some(1 << 20), files: Some(3) };
            let method = DiskMethod::Sampling;
            let held = self.room.hold(&Wish { method, limit, wall: true, keeps: false }).unwrap();
            Active {
                held,
                limits: Limits { disk_mb: Some(1), disk_files: Some(3), ..Limits::default() },
                limit,
                action,
                file_size: None,
                next_ns: 0,
                peak: Amount::default(),
                suspected: false,
                exceeded: Exceeded::default(),
            }
        }

        fn write(&self, name: &str, bytes: usize) {
            let path = self.room.scratch().join(name);
            fs::write(&path, vec![1; bytes]).unwrap();
            fs::File::open(path).unwrap().sync_all().unwrap();
        }
    }

    fn look(active: &mut Active) -> Option<Over> {
        let seen = active.held.look(Vec::new);
        active.note(seen);
        active.exceeded.over()
    }

    fn settle(active: Active, verdict: Verdict) -> Settled {
        let mut settled = Settled { verdict, usage: Usage::default(), limits: Vec::new() };
        active.settle(&mut settled);
        settled
    }

    #[test]
    fn an_excess_is_believed_when_it_is_seen_twice_in_a_row() {
        let mut bench = Bench::new();
        let mut active = bench.watch(OverLimitAction::Kill);
        assert_eq!(look(&mut active), None);
        bench.write("big", 2 << 20);
        assert_eq!(look(&mut active), None);
        fs::remove_file(bench.room.scratch().join("big")).unwrap();
        assert_eq!(look(&mut active), None, "it may have been met twice on its way");
        bench.write("big", 2 << 20);
        assert_eq!((look(&mut active), look(&mut active)), (None, Some(Over::Disk)));
    }

    #[test]
    fn what_was_held_how_and_whether_it_was_exceeded_is_told() {
        let mut bench = Bench::new();
        let mut active = bench.watch(OverLimitAction::Warn);
        bench.write("big", 2 << 20);
        assert_eq!((look(&mut active), look(&mut active)), (None, Some(Over::Disk)));
        fs::remove_file(bench.room.scratch().join("big")).unwrap();
        let settled = settle(active, EXITED);
        assert_eq!(settled.verdict, EXITED);
        assert!(settled.usage.peak_disk_bytes.is_some_and(|peak| (2 << 20..3 << 20).contains(&peak)));
        let told: Vec<_> = settled.limits.iter().map(|held| (held.limit.as_str(), held.value, held.exceeded)).collect();
        assert_eq!(told, [("diskMb", 1, true), ("diskFiles", 3, false)]);
        assert!(settled.limits.iter().all(|held| held.hold == Hold::Observed && held.by == "sampling"));
    }

    #[test]
    fn only_kill_makes_a_verdict_of_it_and_only_of_an_end_that_it_explains() {
        let over = |limit: &str| Verdict::OverLimit { limit: limit.to_owned() };
        let signal = |signal| Verdict::Signalled { signal, core_dumped: false };
        for (action, files, before, after) in [
            (OverLimitAction::Kill, 4, EXITED, over("diskFiles")),
            (OverLimitAction::Kill, 3, EXITED, EXITED),
            (OverLimitAction::Kill, 4, Verdict::TimedOut, Verdict::TimedOut),
            (OverLimitAction::Kill, 4, Verdict::Cancelled, Verdict::Cancelled),
            (OverLimitAction::Throttle, 4, EXITED, EXITED),
            (OverLimitAction::Kill, 0, signal(SIGXFSZ), over("diskMb")),
            (OverLimitAction::Kill, 0, signal(9), signal(9)),
        ] {
            let mut bench = Bench::new();
            let mut active = bench.watch(action);
            active.file_size = (action == OverLimitAction::Kill).then_some(1 << 20);
            (0..files).for_each(|number| bench.write(&number.to_string(), 1));
            assert_eq!(settle(active, before.clone()).verdict, after, "{action:?} {files} {before:?}");
        }
    }

    #[test]
    fn the_smaller_file_size_holds() {
        let mut bench = Bench::new();
        let mut active = bench.watch(OverLimitAction::Kill);
        active.file_size = Some(500);
        let disk = Disk { active: Some(Box::new(active)) };
        let bound = |file_size_bytes| disk.bound(Rlimits { file_size_bytes, ..Rlimits::default() }).file_size_bytes;
        assert_eq!((bound(None), bound(Some(100)), bound(Some(900))), (Some(500), Some(100), Some(500)));
        assert_eq!(Disk::default().bound(Rlimits::default()), Rlimits::default());
    }
}
