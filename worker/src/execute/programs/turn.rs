//! One attempt in a program: handed over, watched, answered or ended.
//!
//! The program is the leader of the attempt's tree. It is asked to end by a message, and killed with all of its tree when
//! the grace is over; one that breaks the protocol is killed at once, for nothing that it says can be believed any more.
//! Deliberately absent: how it is found and kept (`keeper`), and retries.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::course::{Course, REAP_INTERVAL_NS, Tree};
use super::super::phase::{End, Phase};
use super::super::process::{Attempt, Tools};
use super::super::settle::blank;
use super::super::times::SHORT_NS;
use super::child::Heard;
use super::words::{self, Answer};
use super::{Seat, keeper};
use crate::actions::protocol::{FromProgram, LogStream, PROTOCOL, ToProgram, Work, line};
use crate::failpoint;
use crate::output::Stream;
use crate::sys::cgroup::Leaves;
use crate::sys::tree::{self, Ended, Reaper, Remains, Used};
use crate::sys::{clock, pipe, usage};
use crate::task::{ERROR_MAX, Isolation, TreeGuard, Verdict};
use crate::wire::{Finished, Progress};

/// How long a program may take until it is ready, in milliseconds, if no start timeout says otherwise.
const READY_MS: u64 = 30_000;
/// How long one may live that has closed its standard output or input, in nanoseconds: as a rule it is on its way out.
const MUTE_NS: u64 = 1_000_000_000;
/// Lines that are taken before anything else is looked at again.
const LINES_MAX: usize = 64;

/// An attempt that a program has been given.
pub struct Turn<'t> {
    course: Course<'t>,
    id: String,
    seat: Seat,
    reaper: Reaper,
    /// Until when it may take to be ready; nothing once it is.
    ready_by_ns: Option<u64>,
    ready_ms: u64,
    /// When it must be gone that can be spoken with no more.
    mute_until_ns: Option<u64>,
    answer: Option<Answer>,
    /// What it did that cannot be gone on from.
    fault: Option<String>,
    /// It had waited for this task.
    had_waited: bool,
    /// Lines of it may lie in our own memory, where no poll sees them.
    has_more: bool,
    waits: bool,
    used_before: Used,
}

impl<'t> Turn<'t> {
    pub(super) fn new(tools: &'t mut Tools, attempt: &'t Attempt, seat: Seat, at: (i64, u64)) -> Self {
        let limit_ms = tools.start_limit_ms(attempt);
        // A little before the supervisor loses its patience with the worker.
        let ready_ms = limit_ms.map_or(READY_MS, |limit| limit - limit / 10);
        let is_ready = seat.program.is_ready;
        let pid = seat.program.child.pid;
        let mut course = Course::new(tools, attempt, pid, at);
        if !is_ready {
            // Its start is told when it is ready.
            course.tell_start_ns = None;
        }
        let mut turn = Self {
            course,
            id: attempt.task.id.to_string(),
            reaper: Reaper::new(pid),
            ready_by_ns: (!is_ready).then(|| clock::monotonic_ns().saturating_add(ready_ms.saturating_mul(1_000_000))),
            ready_ms,
            mute_until_ns: None,
            answer: None,
            fault: None,
            had_waited: is_ready,
            has_more: false,
            waits: limit_ms.is_some(),
            used_before: Used::default(),
            seat,
        };
        if is_ready {
            turn.used_before = turn.used();
        }
        turn
    }

    /// Watches the program until it has answered, or is gone with all of its tree; says how the attempt ended.
    pub fn run_out(mut self) -> Finished {
        let caps = self.course.tools.settings.output;
        self.course.tools.journal.begin(self.course.attempt.task.id, self.course.attempt.task.attempt, caps);
        self.seat.program.forget_words();
        if self.ready_by_ns.is_none() {
            self.hand_over();
        }
        if !self.course.tools.orders_kept.is_empty() {
            self.take_orders();
        }
        while self.watch() {}
        self.conclude()
    }

    /// Tells the program what to do.
    fn hand_over(&mut self) {
        let (task, tools) = (&self.course.attempt.task, &*self.course.tools);
        let Some(action) = &task.spec.action else { return };
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let scratch = text(tools.room.scratch());
        let worktree = tools.worktrees.current().map(|made| text(made.place()));
        let now_ms = u64::try_from(self.course.started_us / 1_000).unwrap_or(0);
        let work = Work {
            protocol: PROTOCOL,
            id: self.id.clone(),
            attempt: task.attempt,
            action: action.kind.name().to_owned(),
            name: action.name.clone(),
            payload: action.told().into_owned(),
            meta: task.spec.meta.clone(),
            slot: tools.facts.slot.into(),
            cwd: task.spec.cwd.clone().or(worktree).unwrap_or_else(|| scratch.clone()),
            scratch,
            checkpoint: self.seat.checkpoint.as_deref().map(text),
            deadline: self.course.timeout_ms.map(|ms| now_ms.saturating_add(ms)),
        };
        self.seat.program.begin_task();
        self.seat.program.tell(&line(&ToProgram::Task(Box::new(work))));
        failpoint!("programs.after-task");
    }

    /// Waits for one thing to happen and sees to it; false when the attempt is over.
    fn watch(&mut self) -> bool {
        let leader_runs = self.reaper.leader_end.is_none();
        let ready = self.wait(leader_runs);
        let now = clock::monotonic_ns();
        self.course.tools.claimer.beat(now);
        if ready.input {
            self.seat.program.send();
            self.seat.program.check_input();
        }
        if ready.errors {
            self.read_errors();
        }
        if ready.output || self.has_more {
            self.listen();
        }
        if leader_runs && self.answer.is_some() && self.fault.is_none() && !self.course.is_killing() {
            return self.part();
        }
        if ready.leader || !leader_runs {
            let remains = self.reaper.reap();
            if leader_runs && self.reaper.leader_end.is_some() {
                self.mourn(remains);
            }
            if remains == Remains::Nothing {
                return false;
            }
        }
        if ready.orders {
            self.take_orders();
        }
        self.keep_time(now);
        true
    }

    fn wait(&self, leader_runs: bool) -> Ready {
        let program = &self.seat.program;
        let output = program.output().filter(|_| self.listens());
        // One that is gone or lets nothing through would be ready for ever.
        let pidfd = leader_runs.then(|| program.child.pidfd.as_fd());
        // One to which nothing is to be written is watched for its end alone.
        let input = if program.has_unsent() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let wanted = [
            (output, PollFlags::POLLIN),
            (program.errors(), PollFlags::POLLIN),
            (program.input(), input),
            (Some(self.course.tools.line.orders_fd()), PollFlags::POLLIN),
            (pidfd, PollFlags::POLLIN),
        ];
        let mut places = [None; 5];
        let mut fds = Vec::with_capacity(wanted.len());
        for (place, (fd, flags)) in places.iter_mut().zip(wanted) {
            if let Some(fd) = fd {
                *place = Some(fds.len());
                fds.push(PollFd::new(fd, flags));
            }
        }
        let timeout = PollTimeout::try_from(self.timeout_ms(leader_runs)).unwrap_or(PollTimeout::MAX);
        // An error is as good as nothing ready.
        let _ = poll(&mut fds, timeout);
        let [output, errors, input, orders, leader] = places
            .map(|place| place.and_then(|place: usize| fds[place].revents()).is_some_and(|events| !events.is_empty()));
        Ready { output, errors, input, orders, leader }
    }

    /// Milliseconds until time alone is a reason to look again.
    fn timeout_ms(&self, leader_runs: bool) -> u64 {
        if self.has_more && self.listens() {
            return 0;
        }
        let now = clock::monotonic_ns();
        let until = |at: u64| at.saturating_sub(now);
        let heartbeat = self.course.tools.settings.heartbeat_interval_ms.saturating_mul(1_000_000);
        let phase = match self.course.phase {
            Phase::Running => [self.course.next_ns(), self.seat.watch.next_ns()].into_iter().flatten().min(),
            Phase::Terminating { kill_at_ns, .. } if leader_runs => Some(kill_at_ns),
            Phase::Terminating { .. } | Phase::Killing { .. } => Some(now + REAP_INTERVAL_NS),
        };
        let times = [phase, self.course.tell_start_ns, self.ready_by_ns, self.mute_until_ns];
        times.into_iter().flatten().map(until).fold(heartbeat, u64::min).div_ceil(1_000_000)
    }

    /// Whether what the program says means anything.
    fn listens(&self) -> bool {
        self.answer.is_none() && self.fault.is_none() && !self.course.is_killing()
    }

    /// Takes the lines that are there, or as many as may be taken at once.
    fn listen(&mut self) {
        self.has_more = false;
        for _ in 0..LINES_MAX {
            if !self.listens() {
                return;
            }
            match self.seat.program.hear() {
                Heard::Line(line) => self.understand(&line),
                Heard::TooLong(line) => self.break_off(words::too_long(&line)),
                Heard::Nothing => return,
            }
        }
        self.has_more = true;
    }

    fn understand(&mut self, line: &[u8]) {
        let id = self.ready_by_ns.is_none().then_some(self.id.as_str());
        let said = match words::understand(line, id) {
            Ok(said) => said,
            Err(why) => return self.break_off(why),
        };
        match said {
            FromProgram::Ready {} => self.be_ready(),
            FromProgram::Progress { percent, message, .. } => {
                let progress = Progress { percent: percent.clamp(0.0, 100.0), message };
                self.pass_progress(progress, clock::monotonic_ns());
            }
            FromProgram::Log { text, stream, .. } => {
                let stream = match stream {
                    LogStream::Stdout => Stream::Stdout,
                    LogStream::Stderr => Stream::Stderr,
                };
                self.course.tools.journal.append(stream, text.as_bytes(), clock::unix_us());
            }
            said @ (FromProgram::Result { .. } | FromProgram::Error { .. }) => {
                self.answer = words::answer(said);
                if let Some(line) = self.seat.program.unheard() {
                    self.break_off(words::more(&line));
                }
            }
        }
    }

    fn be_ready(&mut self) {
        self.ready_by_ns = None;
        self.seat.program.is_ready = true;
        let wait_ns = if self.waits { 0 } else { SHORT_NS };
        self.course.tell_start_ns = Some(clock::monotonic_ns().saturating_add(wait_ns));
        self.hand_over();
    }

    /// Reads once from standard error: the task's output, and the program's last words.
    fn read_errors(&mut self) -> usize {
        let read = self.seat.program.read_errors(&mut self.course.tools.buffer);
        if !read.is_empty() {
            self.course.tools.journal.append(Stream::Stderr, read, clock::unix_us());
        }
        read.len()
    }

    /// Reads what lies on standard error now. More may come for as long as a child of the program writes.
    fn read_last_errors(&mut self) {
        let mut left = self.seat.program.errors().map_or(0, pipe::unread);
        while left > 0 {
            match self.read_errors() {
                0 => return,
                length => left = left.saturating_sub(length),
            }
        }
    }

    /// The program has answered. True if it has left something that must go first, and it with that.
    fn part(&mut self) -> bool {
        // What it has written before its answer is there by now.
        self.read_last_errors();
        let remains = self.reaper.reap();
        if self.reaper.leader_end.is_none() && !tree::has_other_than(self.seat.program.child.pid) {
            return false;
        }
        self.course.leaked = tree::has_other_than(self.seat.program.child.pid);
        if remains == Remains::Nothing {
            return false;
        }
        self.course.phase = Phase::Killing { why: self.course.phase.why() };
        tree::kill_all(self.course.tools.leaf());
        true
    }

    /// The program has ended. What it said last counts.
    fn mourn(&mut self, remains: Remains) {
        self.read_last_errors();
        // What an orphan of it goes on to say counts no more.
        let mut left = self.seat.program.untaken();
        while self.listens() && left > 0 {
            let Heard::Line(line) = self.seat.program.hear() else { break };
            self.understand(&line);
            left = left.saturating_sub(line.len() + 1);
        }
        if self.course.is_running() {
            self.course.leaked = remains == Remains::Something;
            self.course.phase = Phase::Killing { why: None };
        }
    }

    /// Nothing that the program says can be believed any more.
    fn break_off(&mut self, why: String) {
        self.fault.get_or_insert(why);
        if !self.course.is_killing() {
            self.course.phase = Phase::Killing { why: self.course.phase.why() };
            tree::kill_all(self.course.tools.leaf());
        }
    }

    /// It can be spoken with no more, and has not answered.
    fn keep_silence(&mut self, now: u64) {
        let has_begun = !self.had_waited || !self.seat.program.has_read_nothing();
        let patience_ns = if has_begun { MUTE_NS } else { 0 };
        if now >= *self.mute_until_ns.get_or_insert(now.saturating_add(patience_ns)) {
            let what = if self.seat.program.is_mute() { "output" } else { "input" };
            self.break_off(format!("has closed its standard {what} and has not answered"));
        }
    }

    fn keep_time(&mut self, now: u64) {
        self.tell_start_if_due(now);
        if self.listens() && (self.seat.program.is_mute() || self.seat.program.is_deaf()) {
            self.keep_silence(now);
        }
        if self.course.is_running() {
            if self.ready_by_ns.is_some_and(|at| now >= at) {
                let ready_ms = self.ready_ms;
                return self.break_off(format!("has not said that it is ready within {ready_ms} ms"));
            }
            if let Some(over) = self.seat.watch.look(self.course.tools, now) {
                self.end_now(End::OverLimit(over));
            }
        }
        self.keep_phase(now);
    }
}

impl<'t> Tree<'t> for Turn<'t> {
    fn course(&mut self) -> &mut Course<'t> {
        &mut self.course
    }

    fn ask_to_end(&mut self, why: End) -> bool {
        if self.ready_by_ns.is_some() {
            // It has no task yet.
            return false;
        }
        let cancel = ToProgram::Cancel { id: self.id.clone(), why: words::reason(why) };
        self.seat.program.tell(&line(&cancel));
        failpoint!("programs.after-cancel");
        true
    }

    fn kill(&mut self) {
        tree::kill_all(self.course.tools.leaf());
    }

    fn stop(&mut self) {
        tree::suspend_all(self.course.tools.leaf());
        // It cannot become ready where it stands.
        self.ready_by_ns = self.ready_by_ns.map(|_| u64::MAX);
    }

    fn go_on(&mut self) {
        tree::resume_all(self.course.tools.leaf());
        let ready_ns = clock::monotonic_ns().saturating_add(self.ready_ms.saturating_mul(1_000_000));
        self.ready_by_ns = self.ready_by_ns.map(|_| ready_ns);
    }

    fn warn(&mut self) {
        if let Some(soft) = self.course.attempt.task.spec.soft_timeout.filter(|_| self.ready_by_ns.is_none()) {
            let (id, left) = (self.id.clone(), soft.before_ms);
            self.seat.program.tell(&line(&ToProgram::Warn { id, left }));
        }
    }
}

/// The end of an attempt.
impl Turn<'_> {
    fn conclude(mut self) -> Finished {
        if self.course.restart_clocks() {
            // It has answered, or was killed, where it stood.
            tree::resume_all(self.course.tools.leaf());
        }
        let why = self.course.phase.why();
        let untouched = why.is_none() && self.has_never_begun();
        let (verdict, result, error) = self.judge(why);
        let used = self.used();
        let before = self.used_before;
        let used = Used {
            user_us: used.user_us.saturating_sub(before.user_us),
            system_us: used.system_us.saturating_sub(before.system_us),
            ..used
        };
        let guard = if self.seat.program.child.in_cgroup { TreeGuard::Cgroup } else { TreeGuard::Subreaper };
        let lives = self.reaper.leader_end.is_none();
        let Self { course: Course { tools, attempt, leaked, progress, started_us, .. }, seat, .. } = self;
        let settled = seat.watch.settle(tools, &used, verdict);
        let finished = Finished {
            given_back: untouched || matches!(why, Some(End::GiveBack | End::Orphaned)),
            isolation: Isolation::Process,
            guard,
            usage: settled.usage,
            limits: settled.limits,
            output: tools.journal.finish(clock::unix_us()),
            leaked,
            progress,
            result,
            error,
            ..blank(attempt, settled.verdict, started_us)
        };
        let mut program = seat.program;
        program.leaves = std::mem::replace(&mut tools.leaves, seat.saved);
        match lives {
            true => tools.programs.keep(program),
            false => keeper::bury(tools, program),
        }
        finished
    }

    /// Whether it had died, as it waited, before it could read of the task: then that runs again, as if nothing had been.
    /// Whatever it did wrong then was not about this task. Never said of a program that was started for this task, or one that
    /// dies of itself would be started without end.
    fn has_never_begun(&self) -> bool {
        let is_dead = self.reaper.leader_end.is_some();
        self.had_waited && self.answer.is_none() && is_dead && self.seat.program.has_read_nothing()
    }

    /// How it ended: the verdict, the result and the error.
    fn judge(&mut self, why: Option<End>) -> (Verdict, Option<String>, Option<String>) {
        let program = words::name(&self.seat.program.key.argv);
        let last_words = self.seat.program.last_words();
        let failed = |what: &str| words::cut(format!("{program} {what}{last_words}"), ERROR_MAX);
        let not_started = |why: String| (Verdict::NotStarted { why, errno: None }, None, None);
        if let Some(why) = why {
            let (result, error) = match self.answer.take() {
                Some(Answer::Done(result)) => (result, None),
                Some(Answer::Failed(error, _)) => (None, Some(error)),
                None => (None, self.fault.take().map(|fault| failed(&fault))),
            };
            return (why.verdict(), result, error);
        }
        match (self.fault.take(), self.answer.take(), self.reaper.leader_end) {
            (Some(fault), _, _) if self.ready_by_ns.is_some() => not_started(failed(&fault)),
            (Some(fault), _, _) => (Verdict::Exited { code: 1 }, None, Some(failed(&fault))),
            (None, Some(Answer::Done(result)), _) => (Verdict::Exited { code: 0 }, result, None),
            (None, Some(Answer::Failed(error, code)), _) => (Verdict::Exited { code }, None, Some(error)),
            (None, None, end) if self.ready_by_ns.is_some() => {
                not_started(failed(&format!("{} before it was ready", words::ended(end))))
            }
            (None, None, end) => {
                let error = failed(&format!("{} without an answer", words::ended(end)));
                let verdict = match end {
                    // It may have meant well; the task has not been done.
                    Some(Ended::Exited(0)) => Verdict::Exited { code: 1 },
                    Some(end) => words::verdict(end),
                    // A child of ours cannot vanish unreaped; if the kernel says so, nobody knows how it ended.
                    None => Verdict::WorkerLost,
                };
                (verdict, None, Some(error))
            }
        }
    }

    /// What the program's tree has used since it was started: by its leaf, else by what its processes say.
    fn used(&self) -> Used {
        let pid = self.seat.program.child.pid;
        let (reaped, lives) = (self.reaper.used, self.reaper.leader_end.is_none());
        let living = if lives { usage::of(&[pid], 1) } else { usage::InUse::default() };
        let max_rss_bytes = reaped.max_rss_bytes.max(living.memory_bytes);
        match self.course.tools.leaves.as_ref().map(Leaves::current).and_then(|leaf| leaf.gauges().cpu()) {
            Some(cpu) => Used { user_us: cpu.user_us, system_us: cpu.system_us, max_rss_bytes, ..reaped },
            // Of those that live, the time in both modes together is known.
            None => Used { user_us: reaped.user_us + living.cpu_us, max_rss_bytes, ..reaped },
        }
    }
}

/// What a wait has found.
#[derive(Debug, Default)]
struct Ready {
    output: bool,
    errors: bool,
    input: bool,
    orders: bool,
    leader: bool,
}
