//! An action that runs in the worker, as the minder watches it: what it is told, what it has said, and when it is over.
//!
//! The thread that runs the action hands it over before the call and takes it back after it; in between it is the minder's.
//! Deliberately absent: the thread that minds it, and how a worker is ended (`minder`).

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::chores::Chores;
use super::orders::{Inbox, Told};
use super::phase::{End, Phase};
use super::times::{Due, PROGRESS_INTERVAL_NS, SHORT_NS, Times};
use crate::actions::Why;
use crate::claim::Ticket;
use crate::failpoint;
use crate::sys::tree::Used;
use crate::wire::{Finished, Line, LineClosed, Progress, Report, WorkerSettings};

/// What an action can see at any time for next to nothing.
#[derive(Debug, Default)]
pub struct Flags {
    /// Why it is to end: the place of that in [`WHYS`], from 1; 0 if it is not.
    told: AtomicU8,
    warned: AtomicBool,
}

const WHYS: [Why; 3] = [Why::Timeout, Why::Cancel, Why::GiveBack];

impl Flags {
    /// Whether the action is to end, and why.
    pub fn told(&self) -> Option<Why> {
        let place = usize::from(self.told.load(Ordering::Relaxed)).checked_sub(1)?;
        WHYS.get(place).copied()
    }

    /// Whether it was warned of its timeout.
    pub fn is_warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }

    /// For the next action.
    pub fn clear(&self) {
        self.told.store(0, Ordering::Relaxed);
        self.warned.store(false, Ordering::Relaxed);
    }

    fn tell(&self, why: End) {
        let place = match why {
            // The last two are none of an action's, which has no limits and no container.
            End::Timeout | End::OverLimit(_) | End::NotBegun => 1,
            End::Cancel => 2,
            End::GiveBack | End::Orphaned => 3,
        };
        self.told.store(place, Ordering::Relaxed);
    }
}

/// What a look at a running action has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It may go on, and is to be looked at again by this time of the monotonic clock.
    Next(u64),
    /// Its grace is over, and it has not ended.
    Overdue(End),
}

/// One running action.
#[derive(Debug)]
pub struct Charge {
    /// Its end, as far as that is known before it.
    pub finished: Finished,
    /// How far it is on its way there.
    pub phase: Phase,
    /// What the worker had used when it began.
    pub used_before: Used,
    /// When it began, in nanoseconds of the monotonic clock.
    pub started_ns: u64,
    /// When its time is over.
    pub times: Times,
    /// How long it has from being told to end until it is ended.
    pub grace_ns: u64,
    /// How often a sign of life is due meanwhile, in milliseconds.
    pub beat_ms: u64,
    /// What it was told before it began.
    pub kept: Vec<(Ticket, Told)>,
    /// Whether it has said more about its progress than was passed on.
    says_more: bool,
    progress_told_ns: u64,
    tell_start_ns: Option<u64>,
    /// The supervisor is gone, and its pipe is ready for ever.
    pub is_closed: bool,
    stopping: bool,
    next_settings: Option<Box<WorkerSettings>>,
    chores: Chores,
}

impl Charge {
    /// An action that begins at `started_ns`, and is told to end `grace_ms` before it is ended.
    pub fn new(finished: Finished, started_ns: u64, times: Times, grace_ms: u64, beat_ms: u64) -> Box<Self> {
        // It changes hands several times, and is large.
        Box::new(Self {
            finished,
            phase: Phase::Running,
            used_before: Used::default(),
            started_ns,
            times,
            grace_ns: grace_ms.saturating_mul(1_000_000),
            beat_ms,
            kept: Vec::new(),
            says_more: false,
            progress_told_ns: 0,
            tell_start_ns: Some(started_ns.saturating_add(SHORT_NS)),
            is_closed: false,
            stopping: false,
            next_settings: None,
            chores: Chores::default(),
        })
    }

    /// Takes note of what it says about its progress.
    pub fn progresses(&mut self, progress: Progress) {
        self.finished.progress = Some(progress);
        self.says_more = true;
    }

    /// Hands over what the worker was ordered meanwhile.
    pub fn hand_over(&mut self, to: &mut Inbox<'_>) {
        *to.stopping |= self.stopping;
        if let Some(settings) = self.next_settings.take() {
            *to.next_settings = Some(settings);
        }
        to.chores.append(std::mem::take(&mut self.chores));
    }

    /// Sees to all that is due at `now`.
    pub fn look(&mut self, line: &mut Line, flags: &Flags, now: u64) -> Found {
        self.take_orders(line, flags, now);
        if self.tell_start_ns.is_some_and(|at| now >= at) {
            self.tell_start(line, flags, now);
        }
        if self.says_more && now >= self.progress_told_ns.saturating_add(PROGRESS_INTERVAL_NS) {
            self.pass_progress(line, flags, now);
        }
        if let Phase::Running = self.phase {
            match self.times.due(now) {
                Due::Nothing => {}
                Due::Warn => flags.warned.store(true, Ordering::Relaxed),
                Due::Over => self.end(End::Timeout, false, flags, now),
            }
        }
        match self.phase {
            Phase::Running => Found::Next(self.next_ns()),
            Phase::Terminating { why, kill_at_ns } if now >= kill_at_ns => Found::Overdue(why),
            Phase::Terminating { kill_at_ns, .. } => Found::Next(kill_at_ns),
            // Nobody kills an action but with its worker.
            Phase::Killing { .. } => Found::Next(u64::MAX),
        }
    }

    fn next_ns(&self) -> u64 {
        let progress = self.says_more.then(|| self.progress_told_ns.saturating_add(PROGRESS_INTERVAL_NS));
        [self.times.next_ns(), self.tell_start_ns, progress].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Takes what orders have come.
    pub fn take_orders(&mut self, line: &mut Line, flags: &Flags, now: u64) {
        loop {
            match self.next_told(line) {
                Ok(None) => return,
                Ok(Some((ticket, _))) if ticket != self.finished.ticket => {}
                Ok(Some((_, Told::Cancel { now: at_once }))) => self.end(End::Cancel, at_once, flags, now),
                Ok(Some((_, Told::GiveBack { now: at_once }))) => self.end(End::GiveBack, at_once, flags, now),
                // A call cannot be stopped where it is; the supervisor does not ask for it.
                Ok(Some((_, Told::Suspend | Told::Resume))) => {}
                Err(LineClosed) => {
                    self.is_closed = true;
                    return self.end(End::Orphaned, false, flags, now);
                }
            }
        }
    }

    fn next_told(&mut self, line: &mut Line) -> Result<Option<(Ticket, Told)>, LineClosed> {
        if !self.kept.is_empty() {
            return Ok(Some(self.kept.remove(0)));
        }
        let Self { stopping, next_settings, chores, .. } = self;
        Inbox { line, stopping, next_settings, chores }.take_next()
    }

    /// Tells the action to end; its worker is ended with it when the grace is over.
    fn end(&mut self, why: End, at_once: bool, flags: &Flags, now: u64) {
        let grace_ns = if at_once { 0 } else { self.grace_ns };
        self.phase = match self.phase {
            Phase::Running => Phase::Terminating { why, kill_at_ns: now.saturating_add(grace_ns) },
            Phase::Terminating { why, .. } if at_once => Phase::Terminating { why, kill_at_ns: now },
            told @ (Phase::Terminating { .. } | Phase::Killing { .. }) => told,
        };
        flags.tell(self.phase.why().unwrap_or(why));
    }

    fn tell_start(&mut self, line: &mut Line, flags: &Flags, now: u64) {
        if self.tell_start_ns.take().is_none() {
            return;
        }
        let Finished { ticket, id, claimed_us, started_us: at_us, .. } = self.finished;
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        self.report(&Report::Started { ticket, id, pid, claimed_us, at_us }, line, flags, now);
        failpoint!("minder.after-started");
    }

    fn pass_progress(&mut self, line: &mut Line, flags: &Flags, now: u64) {
        let Some(progress) = self.finished.progress.clone() else { return };
        self.says_more = false;
        self.progress_told_ns = now;
        // A task that speaks has started for everybody, however short it will be.
        self.tell_start(line, flags, now);
        let Finished { ticket, id, .. } = self.finished;
        self.report(&Report::Progress { ticket, id, progress }, line, flags, now);
    }

    fn report(&mut self, report: &Report, line: &mut Line, flags: &Flags, now: u64) {
        if line.report(report).is_err() {
            self.is_closed = true;
            self.end(End::Orphaned, false, flags, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::sys::pipe;
    use crate::task::{TaskId, Verdict};
    use crate::wire::{Frames, Order, encode};

    const MS: u64 = 1_000_000;
    const TICKET: Ticket = Ticket { slot: 3, generation: 7 };

    /// The supervisor's ends of a line.
    struct Supervisor {
        orders: OwnedFd,
        reports: OwnedFd,
    }

    impl Supervisor {
        fn with_line() -> (Self, Line) {
            let (order_reader, orders) = pipe::pipe().unwrap();
            let (reports, report_writer) = pipe::pipe().unwrap();
            pipe::set_nonblocking(&order_reader).unwrap();
            pipe::set_nonblocking(&reports).unwrap();
            (Self { orders, reports }, Line::new(order_reader, report_writer))
        }

        fn order(&self, order: &Order) {
            let mut bytes = Vec::new();
            encode(order, &mut bytes).unwrap();
            nix::unistd::write(&self.orders, &bytes).unwrap();
        }

        fn heard(&self) -> Vec<Report> {
            let (mut frames, mut bytes) = (Frames::default(), [0; 4096]);
            while let Ok(length) = nix::unistd::read(&self.reports, &mut bytes) {
                frames.feed(&bytes[..length]);
            }
            std::iter::from_fn(|| frames.pop().unwrap()).collect()
        }
    }

    /// A charge that begins at 0, has two seconds, is warned half a second before, and has a grace of 100 ms.
    fn charge() -> Box<Charge> {
        let finished = Finished::blank(TICKET, (TaskId::new(1, 1, 1), 1), Verdict::WorkerLost, 5);
        Charge::new(finished, 0, Times::new(0, Some(2_000), Some(500)), 100, 1_000)
    }

    #[test]
    fn a_short_action_is_not_spoken_of_and_a_longer_one_once() {
        let (supervisor, mut line) = Supervisor::with_line();
        let (mut charge, flags) = (charge(), Flags::default());
        assert_eq!(charge.look(&mut line, &flags, MS), Found::Next(SHORT_NS));
        assert_eq!(supervisor.heard(), []);
        assert_eq!(charge.look(&mut line, &flags, 6 * MS), Found::Next(1_500 * MS));
        assert_eq!(charge.look(&mut line, &flags, 7 * MS), Found::Next(1_500 * MS));
        assert!(matches!(supervisor.heard()[..], [Report::Started { ticket: TICKET, at_us: 5, .. }]));
    }

    #[test]
    fn progress_is_passed_on_ten_times_a_second_at_most_and_the_last_of_it_is_kept() {
        let (supervisor, mut line) = Supervisor::with_line();
        let (mut charge, flags) = (charge(), Flags::default());
        for ms in 101..=400 {
            charge.progresses(Progress { percent: ms as f64 / 4.0, message: String::new() });
            charge.look(&mut line, &flags, ms * MS);
        }
        let heard = supervisor.heard();
        let [Report::Started { .. }, told @ ..] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(charge.finished.progress.unwrap().percent, 100.0);
    }

    #[test]
    fn an_action_is_warned_then_told_and_then_overdue() {
        let (_supervisor, mut line) = Supervisor::with_line();
        let (mut charge, flags) = (charge(), Flags::default());
        charge.look(&mut line, &flags, 1_499 * MS);
        assert!(!flags.is_warned() && flags.told().is_none());
        charge.look(&mut line, &flags, 1_500 * MS);
        assert!(flags.is_warned() && flags.told().is_none());
        assert_eq!(charge.look(&mut line, &flags, 2_000 * MS), Found::Next(2_100 * MS));
        assert_eq!(flags.told(), Some(Why::Timeout));
        assert_eq!(charge.look(&mut line, &flags, 2_100 * MS), Found::Overdue(End::Timeout));
    }

    #[test]
    fn the_first_word_counts_and_a_second_may_take_the_rest_of_the_grace() {
        let (supervisor, mut line) = Supervisor::with_line();
        let (mut charge, flags) = (charge(), Flags::default());
        supervisor.order(&Order::Cancel { ticket: Ticket { generation: 6, ..TICKET }, now: true });
        assert_eq!(charge.look(&mut line, &flags, MS), Found::Next(SHORT_NS), "that was for an earlier claim");
        supervisor.order(&Order::Suspend { ticket: TICKET });
        supervisor.order(&Order::Cancel { ticket: TICKET, now: false });
        assert_eq!(charge.look(&mut line, &flags, 2 * MS), Found::Next(102 * MS));
        supervisor.order(&Order::GiveBack { ticket: TICKET, now: true });
        assert_eq!(charge.look(&mut line, &flags, 3 * MS), Found::Overdue(End::Cancel));
        assert_eq!(flags.told(), Some(Why::Cancel));
    }

    #[test]
    fn pings_are_answered_and_what_is_for_the_worker_is_handed_over() {
        let (supervisor, mut line) = Supervisor::with_line();
        let (mut charge, flags) = (charge(), Flags::default());
        for order in [Order::Ping { nonce: 9 }, Order::Wake, Order::Stop] {
            supervisor.order(&order);
        }
        charge.look(&mut line, &flags, MS);
        assert_eq!(supervisor.heard(), [Report::Pong { nonce: 9 }]);
        let (mut stopping, mut next_settings, mut chores) = (false, None, Chores::default());
        let to =
            Inbox { line: &mut line, stopping: &mut stopping, next_settings: &mut next_settings, chores: &mut chores };
        charge.hand_over(&mut { to });
        assert!(stopping && next_settings.is_none());
    }

    #[test]
    fn without_a_supervisor_it_is_told_to_end() {
        let (supervisor, mut line) = Supervisor::with_line();
        let (mut charge, flags) = (charge(), Flags::default());
        drop(supervisor);
        assert_eq!(charge.look(&mut line, &flags, MS), Found::Next(101 * MS));
        assert!(charge.is_closed && flags.told() == Some(Why::GiveBack));
        assert_eq!(charge.look(&mut line, &flags, 101 * MS), Found::Overdue(End::Orphaned));
    }
}
