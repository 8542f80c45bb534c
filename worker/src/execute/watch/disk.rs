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
use crate::task::{Cleanup, HeldLimit, Hold, Limits, OverLimitAction, Rlimits, Verdict};

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
    /// Puts the limits in place.
    ///
    /// # Errors
    /// The scratch directory cannot even be looked at.
    pub fn begin(tools: &mut Tools, attempt: &Attempt, limits: &Limits) -> Result<Self, Verdict> {
        if limits.disk_mb.is_none() && limits.disk_files.is_none() {
            return Ok(Self::default());
        }
        let bytes = limits.disk_mb.map(|mb| mb.saturating_mul(1 << 20));
        let limit = DiskLimit { bytes, files: limits.disk_files };
        let action = limits.action.unwrap_or_default();
        let cleanup = attempt.task.spec.cleanup.unwrap_or(tools.settings.cleanup);
        let wish = Wish {
            method: tools.settings.disk,
            limit,
            wall: action != OverLimitAction::Warn,
            keeps: cleanup != Cleanup::Always,
        };
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
