//! The course of an attempt that has a process tree: it runs, is asked to end, is killed; and what is told of it meanwhile.
//!
//! When each of these is due is decided here, alike for a command, a container and a worker program; how it is done is the
//! tree's. Deliberately absent: output, limits, the verdict, and what has no tree of its own (`charge`).

use std::time::Duration;

use super::orders::Told;
use super::phase::{End, Phase};
use super::process::{Attempt, Tools};
use super::times::{Due, PROGRESS_INTERVAL_NS, SHORT_NS, Times};
use crate::failpoint;
use crate::sys::clock;
use crate::wire::{LineClosed, Progress, Report};

/// How often a tree that is being ended is looked at, in nanoseconds.
pub const REAP_INTERVAL_NS: u64 = 2_000_000;

/// How far an attempt is.
pub struct Course<'t> {
    /// What its worker has at hand.
    pub tools: &'t mut Tools,
    /// What it is for.
    pub attempt: &'t Attempt,
    /// The leader of its tree.
    pub pid: i32,
    /// What is going on with the tree.
    pub phase: Phase,
    /// How long it may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// When it began, in microseconds of Unix time.
    pub started_us: i64,
    /// When to report the start; nothing once that is done.
    pub tell_start_ns: Option<u64>,
    /// Whether its leader left something behind.
    pub leaked: bool,
    /// What it has said last of how far it is.
    pub progress: Option<Progress>,
    times: Times,
    grace_ns: u64,
    progress_told_ns: u64,
}

impl<'t> Course<'t> {
    /// Of an attempt that began at these times, of Unix and of the monotonic clock, with this leader.
    pub fn new(tools: &'t mut Tools, attempt: &'t Attempt, pid: i32, (at_us, at_ns): (i64, u64)) -> Self {
        let (spec, settings) = (&attempt.task.spec, &tools.settings);
        let timeout_ms = settings.timeout_of(spec);
        let grace_ms = spec.grace_ms.unwrap_or(settings.kill_grace_ms);
        // Whoever waits for the start is told at once.
        let wait_ns = if tools.start_limit_ms(attempt).is_some() { 0 } else { SHORT_NS };
        Self {
            attempt,
            pid,
            phase: Phase::Running,
            timeout_ms,
            started_us: at_us,
            tell_start_ns: Some(at_ns.saturating_add(wait_ns)),
            leaked: false,
            progress: None,
            times: Times::new(at_ns, timeout_ms, spec.soft_timeout.map(|soft| soft.before_ms)),
            grace_ns: grace_ms.saturating_mul(1_000_000),
            progress_told_ns: 0,
            tools,
        }
    }

    /// Nobody has asked it to end.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// It is being killed.
    pub fn is_killing(&self) -> bool {
        matches!(self.phase, Phase::Killing { .. })
    }

    /// When its time asks for something, in nanoseconds of the monotonic clock.
    pub fn next_ns(&self) -> Option<u64> {
        self.times.next_ns()
    }

    /// Lets the clocks go on; false if they do.
    pub fn restart_clocks(&mut self) -> bool {
        self.times.resume(clock::monotonic_ns())
    }
}

/// What an attempt runs in, and how that is asked to end, killed, stopped and warned.
pub trait Tree<'t> {
    /// How far the attempt is.
    fn course(&mut self) -> &mut Course<'t>;

    /// Asks it to end; false if there is nobody who could be asked.
    fn ask_to_end(&mut self, why: End) -> bool;

    /// Kills what can be seen of it now; to be repeated until nothing is left.
    fn kill(&mut self);

    /// Stops it where it is.
    fn stop(&mut self);

    /// Lets it go on.
    fn go_on(&mut self);

    /// Tells it that its time is almost over.
    fn warn(&mut self);

    /// Asks it to end; it is killed when the grace is over.
    fn end(&mut self, why: End) {
        let course = self.course();
        if !course.is_running() {
            return;
        }
        course.phase = Phase::Terminating { why, kill_at_ns: clock::monotonic_ns().saturating_add(course.grace_ns) };
        if !self.ask_to_end(why) {
            return self.end_now(why);
        }
        // What is suspended finds the question waiting when it goes on.
        self.resume();
    }

    /// Ends it without any grace, or with no more of it.
    fn end_now(&mut self, why: End) {
        let why = match self.course().phase {
            Phase::Running => why,
            Phase::Terminating { why, .. } => why,
            Phase::Killing { .. } => return,
        };
        self.course().phase = Phase::Killing { why: Some(why) };
        self.kill();
    }

    /// Stops it, and its clocks.
    fn suspend(&mut self) {
        let course = self.course();
        if course.is_running() && course.times.suspend(clock::monotonic_ns()) {
            self.stop();
            failpoint!("worker.after-suspend");
        }
    }

    /// Lets it go on, and its clocks.
    fn resume(&mut self) {
        if self.course().restart_clocks() {
            self.go_on();
            failpoint!("worker.after-resume");
        }
    }

    /// Does what time asks for at `now`.
    fn keep_phase(&mut self, now: u64) {
        let course = self.course();
        match course.phase {
            Phase::Running => match course.times.due(now) {
                Due::Nothing => {}
                Due::Warn => self.warn(),
                Due::Over => self.end(End::Timeout),
            },
            Phase::Terminating { why, kill_at_ns } if now >= kill_at_ns => self.end_now(why),
            Phase::Terminating { .. } => {}
            Phase::Killing { .. } => self.kill(),
        }
    }

    /// Follows what the supervisor says of it.
    fn take_orders(&mut self) {
        loop {
            let course = self.course();
            match course.tools.next_told(course.attempt.ticket) {
                Ok(None) => return,
                Ok(Some(Told::Cancel { now: true })) => self.end_now(End::Cancel),
                Ok(Some(Told::Cancel { now: false })) => self.end(End::Cancel),
                Ok(Some(Told::GiveBack { now: true })) => self.end_now(End::GiveBack),
                Ok(Some(Told::GiveBack { now: false })) => self.end(End::GiveBack),
                Ok(Some(Told::Suspend)) => self.suspend(),
                Ok(Some(Told::Resume)) => self.resume(),
                Err(LineClosed) => {
                    self.end(End::Orphaned);
                    // The pipe stays ready for ever; a short pause keeps this from spinning until the tree is gone.
                    std::thread::sleep(Duration::from_millis(1));
                    return;
                }
            }
        }
    }

    /// Reports the start, unless that was done.
    fn tell_start(&mut self) {
        let course = self.course();
        if course.tell_start_ns.take().is_none() {
            return;
        }
        let (ticket, id, pid) = (course.attempt.ticket, course.attempt.task.id, course.pid);
        let (claimed_us, at_us) = (course.attempt.claimed_us, course.started_us);
        if course.tools.line.report(&Report::Started { ticket, id, pid, claimed_us, at_us }).is_err() {
            self.end(End::Orphaned);
        }
        failpoint!("worker.after-started");
    }

    /// Reports the start when it is due.
    fn tell_start_if_due(&mut self, now: u64) {
        if self.course().tell_start_ns.is_some_and(|at| now >= at) {
            self.tell_start();
        }
    }

    /// Passes on how far it says it is, if that is not too often.
    fn pass_progress(&mut self, progress: Progress, now: u64) {
        let course = self.course();
        course.progress = Some(progress.clone());
        if now.saturating_sub(course.progress_told_ns) < PROGRESS_INTERVAL_NS {
            return;
        }
        course.progress_told_ns = now;
        let (ticket, id) = (course.attempt.ticket, course.attempt.task.id);
        // A task that speaks has started for everybody, however short it will be.
        self.tell_start();
        // A supervisor that is gone shows on the order pipe at the next wait.
        let _ = self.course().tools.line.report(&Report::Progress { ticket, id, progress });
    }
}
