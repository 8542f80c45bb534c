//! A task as a process tree of its own: spawned, watched, ended, collected.
//!
//! The worker is the subreaper of all that the task starts, so 'no child left' means that the whole tree is gone, and
//! an attempt ends only then. Deliberately absent: retries and every decision about what comes next.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::course::{Course, REAP_INTERVAL_NS, Tree};
use super::docker::{self, Container, Containers, Found};
use super::orders::Told;
use super::own_program;
use super::phase::{End, Phase};
use super::program::WorkerFacts;
use super::sandbox::Sandboxes;
use super::settle::{blank, collect};
use super::start::{Outputs, Writers, start};
use super::watch::Watch;
use crate::actions::{Registry, child};
use crate::claim::{Claimer, Ticket};
use crate::failpoint;
use crate::output::Writer;
use crate::room::Room;
use crate::sys::cgroup::{Leaf, Leaves};
use crate::sys::failpoint;
use crate::sys::ladder::Ladder;
use crate::sys::spawn::{CStringArray, Child};
use crate::sys::tree::{self, Ended, Reaper, Remains};
use crate::sys::{clock, process};
use crate::task::{Assignment, Isolation, TreeGuard, Verdict};
use crate::wire::{Finished, Line, LineClosed, Progress, Report, WorkerMode, WorkerSettings};

/// Bytes read from a task's output at once.
const READ_BYTES: usize = 64 * 1024;
/// How often a container is looked at that the engine is killing, in nanoseconds.
const ENGINE_INTERVAL_NS: u64 = 20_000_000;

/// What a worker keeps at hand from task to task.
pub struct Tools {
    /// How it works.
    pub settings: WorkerSettings,
    /// Who it is.
    pub facts: WorkerFacts,
    /// Its row and the table.
    pub claimer: Claimer,
    /// Its pipes.
    pub line: Line,
    /// The task's room.
    pub room: Room,
    /// Where output goes.
    pub journal: Writer,
    /// Where tasks are born, if there is a cgroup hierarchy.
    pub leaves: Option<Leaves>,
    /// How far limits can be held here.
    pub ladder: Ladder,
    /// What sandboxes are made with.
    pub sandboxes: Sandboxes,
    /// What becomes standard input by default.
    pub null: OwnedFd,
    /// Arguments, kept for their memory.
    pub argv: CStringArray,
    /// Environment, kept for its memory.
    pub envp: CStringArray,
    /// Output in passing; empty until a task says something.
    pub buffer: Vec<u8>,
    /// New settings that wait for the end of the running task.
    pub next_settings: Option<Box<WorkerSettings>>,
    /// Whether the worker was told to leave.
    pub stopping: bool,
    /// Of which kind it is.
    pub mode: WorkerMode,
    /// What it knows of its containers and their engine; nothing as long as it has none.
    pub containers: Containers,
    /// What the attempt at hand was told while something else was waited for, until it looks.
    pub orders_kept: Vec<(Ticket, Told)>,
    /// What is to be done when no task runs.
    pub chores: super::chores::Chores,
    /// The running attempt's git worktree.
    pub worktrees: super::worktree::Worktrees,
    /// The actions that this program has.
    pub actions: &'static Registry,
    /// Who minds those that run in the worker itself.
    pub minder: super::minder::Minder,
    /// The shared objects with actions that are loaded.
    pub libraries: super::library::Libraries,
    /// Programs that wait for the next task.
    pub programs: super::programs::Programs,
}

impl Tools {
    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.leaves.as_ref().map(Leaves::current)
    }

    /// How long the attempt may take to start, in milliseconds, if anybody waits for that.
    pub(super) fn start_limit_ms(&self, attempt: &Attempt) -> Option<u64> {
        attempt.task.spec.start_timeout_ms.or(self.settings.start_timeout_ms)
    }
}

/// One claim being worked on.
#[derive(Debug)]
pub struct Attempt {
    /// The claim.
    pub ticket: Ticket,
    /// What it is for.
    pub task: Assignment,
    /// When it was claimed, in microseconds of Unix time.
    pub claimed_us: i64,
}

/// A started attempt.
struct Run<'r> {
    course: Course<'r>,
    child: Child,
    reaper: Reaper,
    outputs: Outputs,
    watch: Watch,
    /// What the child is the client of, if it is one.
    container: Option<Box<Container>>,
    /// The signal that has warned it of its timeout.
    warned_by: Option<i32>,
}

/// Runs the attempt to its end and cleans up after it. The report of its end is returned, not sent.
///
/// # Errors
/// The supervisor has gone; the task's tree is dead by then, and its room clean.
pub fn run(tools: &mut Tools, attempt: &Attempt) -> Result<Finished, LineClosed> {
    let started_us = clock::unix_us();
    let started_ns = clock::monotonic_ns();
    if let Some(limit_ms) = tools.start_limit_ms(attempt) {
        let (ticket, id) = (attempt.ticket, attempt.task.id);
        tools.line.report(&Report::Starting { ticket, id, limit_ms })?;
    }
    failpoint!("worker.before-spawn");
    let mut finished = attempt_once(tools, attempt, started_us, started_ns);
    if docker::freed_name(tools, attempt) {
        finished = attempt_once(tools, attempt, started_us, started_ns);
    }
    tools.orders_kept.clear();
    finished.finished_us = clock::unix_us();
    finished.usage.wall_us = (clock::monotonic_ns() - started_ns) / 1_000;
    finished.sandbox = tools.sandboxes.take_held();
    failpoint!("worker.before-cleanup");
    collect(tools, attempt, &mut finished);
    failpoint!("worker.after-cleanup");
    Ok(finished)
}

/// What an attempt begins with.
type Begun = (Child, Outputs, Writers, Watch, Option<Box<Container>>);

/// Begins an attempt, in the isolation that its task and this worker have in common.
fn begin(tools: &mut Tools, attempt: &Attempt) -> Result<Begun, (Verdict, Isolation)> {
    if tools.mode.isolation == Isolation::Docker {
        docker::clear_the_way(tools, attempt).map_err(|verdict| (verdict, Isolation::Docker))?;
    }
    let isolation = docker::isolation_of(tools, &attempt.task.spec);
    let isolation = isolation.map_err(|verdict| (verdict, tools.mode.isolation))?;
    let begun = match isolation {
        // What runs in the worker itself does not come here.
        Isolation::Process | Isolation::None | Isolation::Library => {
            start(tools, attempt).map(|(child, out, writers, watch)| (child, out, writers, watch, None))
        }
        Isolation::Docker => docker::start(tools, attempt)
            .map(|(child, out, writers, watch, container)| (child, out, writers, watch, Some(Box::new(container)))),
    };
    begun.map_err(|verdict| (verdict, isolation))
}

fn attempt_once(tools: &mut Tools, attempt: &Attempt, started_us: i64, started_ns: u64) -> Finished {
    let (child, outputs, writers, watch, container) = match begin(tools, attempt) {
        Ok(begun) => begun,
        Err((verdict, isolation)) => return Finished { isolation, ..blank(attempt, verdict, started_us) },
    };
    failpoint!("worker.after-spawn");
    let mut course = Course::new(tools, attempt, child.pid, (started_us, started_ns));
    if container.is_some() {
        // Its start is told when it is seen to run.
        course.tell_start_ns = Some(u64::MAX);
    }
    let reaper = Reaper::new(child.pid);
    let run = Run { course, child, reaper, outputs, watch, container, warned_by: None };
    run.run_out(writers)
}

impl Run<'_> {
    /// Watches the tree until nothing of it is left, and says how it ended. `writers` are our copies of the output
    /// pipes' far ends: as long as we hold them, a pipe wakes us for data only and not for its end.
    fn run_out(mut self, writers: Writers) -> Finished {
        let caps = self.course.tools.settings.output;
        self.course.tools.journal.begin(self.course.attempt.task.id, self.course.attempt.task.attempt, caps);
        if !self.course.tools.orders_kept.is_empty() {
            self.take_orders();
        }
        while self.watch() == Remains::Something {}
        drop(writers);
        self.drain_outputs();
        if self.course.restart_clocks() && self.container.is_none() {
            // It was killed where it stood; who is born into the leaf next must be able to run.
            tree::resume_all(self.course.tools.leaf());
        }
        let why = self.course.phase.why();
        let (verdict, guard, meter) = match self.container.take() {
            None => (self.verdict(why), self.guard(), None),
            Some(container) => {
                let (verdict, meter) = self.conclude(*container, why);
                (verdict, TreeGuard::Engine, Some(meter))
            }
        };
        let isolation = if meter.is_some() { Isolation::Docker } else { Isolation::Process };
        let mut settled = self.watch.settle(self.course.tools, &self.reaper.used, verdict);
        if let Some(meter) = meter {
            meter.settle(self.course.tools, &mut settled);
        }
        Finished {
            given_back: matches!(why, Some(End::GiveBack | End::Orphaned)),
            isolation,
            guard,
            usage: settled.usage,
            limits: settled.limits,
            output: self.course.tools.journal.finish(clock::unix_us()),
            leaked: self.course.leaked,
            progress: self.course.progress.take(),
            ..blank(self.course.attempt, settled.verdict, self.course.started_us)
        }
    }

    fn guard(&self) -> TreeGuard {
        if self.child.in_cgroup { TreeGuard::Cgroup } else { TreeGuard::Subreaper }
    }

    /// How it ended, when its leader was the task itself.
    fn verdict(&self, why: Option<End>) -> Verdict {
        let verdict = match (why, self.reaper.leader_end) {
            (Some(why), _) => why.verdict(),
            (None, Some(Ended::Exited(code))) => Verdict::Exited { code },
            (None, Some(Ended::Signalled { signal, .. })) if self.warned_by == Some(signal) => Verdict::TimedOut,
            (None, Some(Ended::Signalled { signal, core_dumped })) => Verdict::Signalled { signal, core_dumped },
            // Our only child cannot vanish unreaped; if the kernel says so, nobody knows how it ended.
            (None, None) => Verdict::WorkerLost,
        };
        let ran_out = why.is_none() && !verdict.is_success() && failpoint::cut("worker.out-of-memory").is_some();
        if ran_out { Verdict::OutOfMemory } else { verdict }
    }

    /// How it ended, when its leader was the client of its container.
    fn conclude(&mut self, container: Container, why: Option<End>) -> (Verdict, docker::Meter) {
        let concluded =
            container.conclude(self.course.tools, self.course.attempt, why.map(End::verdict), self.reaper.leader_end);
        self.course.leaked |= concluded.leaked;
        let verdict = match concluded.verdict {
            // What a signal has ended shows as a code in a container.
            Verdict::Exited { code } if self.warned_by.is_some_and(|signal| code == 128 + signal) => Verdict::TimedOut,
            verdict => verdict,
        };
        (verdict, concluded.meter)
    }

    /// Waits for one thing to happen and sees to it.
    fn watch(&mut self) -> Remains {
        let leader_runs = self.reaper.leader_end.is_none();
        let ready = self.wait(leader_runs);
        let now = clock::monotonic_ns();
        self.course.tools.claimer.beat(now);
        for index in 0..self.outputs.len() {
            if ready.outputs[index] {
                self.read_output(index);
            }
        }
        if ready.leader || !leader_runs {
            let remains = self.reaper.reap();
            if remains == Remains::Nothing {
                return remains;
            }
            if leader_runs && self.reaper.leader_end.is_some() && self.course.is_running() {
                // Beside a client that has ended there may be others, which end soon.
                self.course.leaked = self.container.is_none();
                self.course.phase = Phase::Killing { why: None };
            }
        }
        if ready.progress {
            self.read_progress(now);
        }
        if ready.orders {
            self.take_orders();
        }
        self.keep_time(now);
        Remains::Something
    }

    fn wait(&self, leader_runs: bool) -> Ready {
        let polled = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [
            polled(self.outputs[0].1.as_fd()),
            polled(self.outputs[1].1.as_fd()),
            polled(self.course.tools.line.orders_fd()),
            polled(self.course.tools.room.progress_fd()),
            polled(self.child.pidfd.as_fd()),
        ];
        // A leader that has ended would make its pidfd ready for ever.
        let used = if leader_runs { fds.len() } else { fds.len() - 1 };
        let timeout = PollTimeout::try_from(self.timeout_ms(leader_runs)).unwrap_or(PollTimeout::MAX);
        // An error is as good as nothing ready: a signal, or memory short for a moment.
        let _ = poll(&mut fds[..used], timeout);
        let is_ready = |index: usize| fds[index].revents().is_some_and(|events| !events.is_empty());
        Ready {
            outputs: [is_ready(0), is_ready(1)],
            orders: is_ready(2),
            progress: is_ready(3),
            leader: leader_runs && is_ready(4),
        }
    }

    /// Milliseconds until time alone is a reason to look again.
    fn timeout_ms(&self, leader_runs: bool) -> u64 {
        let now = clock::monotonic_ns();
        let until = |at: u64| at.saturating_sub(now);
        let heartbeat = self.course.tools.settings.heartbeat_interval_ms.saturating_mul(1_000_000);
        let phase = match self.course.phase {
            Phase::Running => {
                self.course.next_ns().into_iter().chain(self.watch.next_ns()).map(until).min().unwrap_or(heartbeat)
            }
            Phase::Terminating { kill_at_ns, .. } if leader_runs => until(kill_at_ns),
            // The engine takes its time.
            Phase::Killing { .. } if leader_runs && self.container.is_some() => ENGINE_INTERVAL_NS,
            Phase::Terminating { .. } | Phase::Killing { .. } => REAP_INTERVAL_NS,
        };
        let start = self.course.tell_start_ns.map_or(heartbeat, until);
        let container = self.container.as_ref().map_or(heartbeat, |container| until(container.next_ns(now)));
        phase.min(heartbeat).min(start).min(container).div_ceil(1_000_000)
    }

    fn keep_time(&mut self, now: u64) {
        self.tell_start_if_due(now);
        if let Some(container) = &mut self.container {
            match container.look(self.course.tools, now) {
                Found::Nothing => {}
                Found::Begun => self.tell_start(),
                Found::TooLate => self.end_now(End::NotBegun),
            }
        }
        if self.course.is_running()
            && let Some(over) = self.watch.look(self.course.tools, now)
        {
            self.end_now(End::OverLimit(over));
        }
        self.keep_phase(now);
    }

    fn read_progress(&mut self, now: u64) {
        if let Some(progress) = self.course.tools.room.read_progress() {
            let progress = Progress { percent: f64::from(progress.percent), message: progress.message };
            self.pass_progress(progress, now);
        }
    }

    /// Reads what is there once; to be called only when something is, because the pipe blocks otherwise.
    fn read_output(&mut self, index: usize) -> usize {
        let buffer = &mut self.course.tools.buffer;
        buffer.resize(READ_BYTES, 0);
        let (stream, fd) = &self.outputs[index];
        let length = nix::unistd::read(fd, buffer).unwrap_or(0);
        if length > 0 {
            self.course.tools.journal.append(*stream, &buffer[..length], clock::unix_us());
            if let Some(container) = &mut self.container {
                container.hear(*stream, &buffer[..length]);
            }
        }
        length
    }

    /// Reads what is left when all writers are dead. If a stranger was handed the pipe and holds it open, what it
    /// writes from now on is nobody's output.
    fn drain_outputs(&mut self) {
        loop {
            let mut fds =
                [&self.outputs[0], &self.outputs[1]].map(|(_, fd)| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            let ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            let readable = fds.map(|fd| ready && fd.revents().is_some_and(|r| r.contains(PollFlags::POLLIN)));
            let read: usize = (0..readable.len()).filter(|i| readable[*i]).map(|index| self.read_output(index)).sum();
            if read == 0 {
                break;
            }
        }
    }
}

impl<'r> Tree<'r> for Run<'r> {
    fn course(&mut self) -> &mut Course<'r> {
        &mut self.course
    }

    fn ask_to_end(&mut self, _: End) -> bool {
        if self.container.is_some() {
            // An engine asks nobody who is paused.
            self.resume();
        }
        let leaf = self.course.tools.leaf();
        let Some(container) = &mut self.container else {
            tree::signal_all(leaf, Signal::SIGTERM);
            // A stopped process takes its SIGTERM only when it goes on.
            tree::signal_all(leaf, Signal::SIGCONT);
            return true;
        };
        // Without a container yet there is nobody.
        container.ask_to_end(self.course.tools)
    }

    fn kill(&mut self) {
        match &mut self.container {
            None => tree::kill_all(self.course.tools.leaf()),
            Some(container) => container.kill(self.course.tools, self.reaper.leader_end, clock::monotonic_ns()),
        }
    }

    fn stop(&mut self) {
        match &mut self.container {
            None => tree::suspend_all(self.course.tools.leaf()),
            Some(container) => container.pause(self.course.tools, true),
        }
    }

    fn go_on(&mut self) {
        match &mut self.container {
            None => tree::resume_all(self.course.tools.leaf()),
            Some(container) => container.pause(self.course.tools, false),
        }
    }

    fn warn(&mut self) {
        let spec = &self.course.attempt.task.spec;
        let Some(soft) = spec.soft_timeout else { return };
        // An action hears of it in its own way.
        let signal = own_program::action_of(spec).map_or(soft.signal.number(), |_| child::WARNING);
        self.warned_by = Some(signal);
        match &mut self.container {
            None => process::signal_group(self.child.pid, signal),
            Some(container) => container.signal(self.course.tools, signal),
        }
    }
}

/// What a wait has found.
#[derive(Debug, Default)]
struct Ready {
    outputs: [bool; 2],
    orders: bool,
    progress: bool,
    leader: bool,
}
