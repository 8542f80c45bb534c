//! A task as a process tree of its own: spawned, watched, ended, collected.
//!
//! The worker is the subreaper of all that the task starts, so 'no child left' means that the whole tree is gone, and
//! an attempt ends only then. Deliberately absent: retries and every decision about what comes next.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::docker::{self, Container, Containers, Found};
use super::orders::Told;
use super::own_program;
use super::phase::{End, Phase};
use super::program::WorkerFacts;
use super::sandbox::Sandboxes;
use super::settle::{blank, collect};
use super::start::{Outputs, Writers, start};
use super::times::{Due, Times};
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
/// How often a task's progress is passed on at most, in nanoseconds.
const PROGRESS_INTERVAL_NS: u64 = 100_000_000;
/// How long an attempt runs before its start is reported by itself, in nanoseconds. The report of a shorter one's end
/// says it all, and spares the supervisor half of what it would have to read.
const SHORT_NS: u64 = 5_000_000;
/// How often a tree that is being ended is looked at, in nanoseconds.
const REAP_INTERVAL_NS: u64 = 2_000_000;
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
    tools: &'r mut Tools,
    attempt: &'r Attempt,
    child: Child,
    reaper: Reaper,
    outputs: Outputs,
    phase: Phase,
    times: Times,
    watch: Watch,
    /// What the child is the client of, if it is one.
    container: Option<Box<Container>>,
    /// The signal that has warned it of its timeout.
    warned_by: Option<i32>,
    grace_ns: u64,
    leaked: bool,
    started_us: i64,
    /// When to report the start; nothing once that is done.
    tell_start_ns: Option<u64>,
    progress: Option<Progress>,
    progress_told_ns: u64,
}

/// Runs the attempt to its end and cleans up after it. The report of its end is returned, not sent.
///
/// # Errors
/// The supervisor has gone; the task's tree is dead by then, and its room clean.
pub fn run(tools: &mut Tools, attempt: &Attempt) -> Result<Finished, LineClosed> {
    let started_us = clock::unix_us();
    let started_ns = clock::monotonic_ns();
    let start_limit = attempt.task.spec.start_timeout_ms.or(tools.settings.start_timeout_ms);
    if let Some(limit_ms) = start_limit {
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
    let spec = &attempt.task.spec;
    let timeout_ms = tools.settings.timeout_of(spec);
    let grace_ns = spec.grace_ms.unwrap_or(tools.settings.kill_grace_ms).saturating_mul(1_000_000);
    // Whoever waits for the start is told at once; and of a container, when it is seen to run.
    let waits = spec.start_timeout_ms.or(tools.settings.start_timeout_ms).is_some();
    let tell_after_ns = if container.is_some() { u64::MAX } else { u64::from(!waits) * SHORT_NS };
    let run = Run {
        attempt,
        reaper: Reaper::new(child.pid),
        child,
        outputs,
        phase: Phase::Running,
        times: Times::new(started_ns, timeout_ms, spec.soft_timeout.map(|soft| soft.before_ms)),
        watch,
        container,
        warned_by: None,
        grace_ns,
        leaked: false,
        started_us,
        tell_start_ns: Some(started_ns.saturating_add(tell_after_ns)),
        progress: None,
        progress_told_ns: 0,
        tools,
    };
    run.run_out(writers)
}

impl Run<'_> {
    /// Watches the tree until nothing of it is left, and says how it ended. `writers` are our copies of the output
    /// pipes' far ends: as long as we hold them, a pipe wakes us for data only and not for its end.
    fn run_out(mut self, writers: Writers) -> Finished {
        let caps = self.tools.settings.output;
        self.tools.journal.begin(self.attempt.task.id, self.attempt.task.attempt, caps);
        if !self.tools.orders_kept.is_empty() {
            self.take_orders();
        }
        while self.watch() == Remains::Something {}
        drop(writers);
        self.drain_outputs();
        if self.times.resume(clock::monotonic_ns()) && self.container.is_none() {
            // It was killed where it stood; who is born into the leaf next must be able to run.
            tree::resume_all(self.tools.leaf());
        }
        let why = self.phase.why();
        let (verdict, guard, meter) = match self.container.take() {
            None => (self.verdict(why), self.guard(), None),
            Some(container) => {
                let (verdict, meter) = self.conclude(*container, why);
                (verdict, TreeGuard::Engine, Some(meter))
            }
        };
        let isolation = if meter.is_some() { Isolation::Docker } else { Isolation::Process };
        let mut settled = self.watch.settle(self.tools, &self.reaper.used, verdict);
        if let Some(meter) = meter {
            meter.settle(self.tools, &mut settled);
        }
        Finished {
            given_back: matches!(why, Some(End::GiveBack | End::Orphaned)),
            isolation,
            guard,
            usage: settled.usage,
            limits: settled.limits,
            output: self.tools.journal.finish(clock::unix_us()),
            leaked: self.leaked,
            progress: self.progress.take(),
            ..blank(self.attempt, settled.verdict, self.started_us)
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
        let concluded = container.conclude(self.tools, self.attempt, why.map(End::verdict), self.reaper.leader_end);
        self.leaked |= concluded.leaked;
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
        self.tools.claimer.beat(now);
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
            if leader_runs && self.reaper.leader_end.is_some() && matches!(self.phase, Phase::Running) {
                // Beside a client that has ended there may be others, which end soon.
                self.leaked = self.container.is_none();
                self.phase = Phase::Killing { why: None };
            }
        }
        if ready.progress {
            self.pass_progress(now);
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
            polled(self.tools.line.orders_fd()),
            polled(self.tools.room.progress_fd()),
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
        let heartbeat = self.tools.settings.heartbeat_interval_ms.saturating_mul(1_000_000);
        let phase = match self.phase {
            Phase::Running => {
                self.times.next_ns().into_iter().chain(self.watch.next_ns()).map(until).min().unwrap_or(heartbeat)
            }
            Phase::Terminating { kill_at_ns, .. } if leader_runs => until(kill_at_ns),
            // The engine takes its time.
            Phase::Killing { .. } if leader_runs && self.container.is_some() => ENGINE_INTERVAL_NS,
            Phase::Terminating { .. } | Phase::Killing { .. } => REAP_INTERVAL_NS,
        };
        let start = self.tell_start_ns.map_or(heartbeat, until);
        let container = self.container.as_ref().map_or(heartbeat, |container| until(container.next_ns(now)));
        phase.min(heartbeat).min(start).min(container).div_ceil(1_000_000)
    }

    /// Reports the start, unless that was done.
    fn tell_start(&mut self) {
        if self.tell_start_ns.take().is_none() {
            return;
        }
        let (ticket, id, pid) = (self.attempt.ticket, self.attempt.task.id, self.child.pid);
        let (claimed_us, at_us) = (self.attempt.claimed_us, self.started_us);
        let started = Report::Started { ticket, id, pid, claimed_us, at_us };
        if self.tools.line.report(&started).is_err() {
            self.end(End::Orphaned);
        }
        failpoint!("worker.after-started");
    }

    fn keep_time(&mut self, now: u64) {
        if self.tell_start_ns.is_some_and(|at| now >= at) {
            self.tell_start();
        }
        if let Some(container) = &mut self.container {
            match container.look(self.tools, now) {
                Found::Nothing => {}
                Found::Begun => self.tell_start(),
                Found::TooLate => self.end_now(End::NotBegun),
            }
        }
        if matches!(self.phase, Phase::Running)
            && let Some(over) = self.watch.look(self.tools, now)
        {
            self.end_now(End::OverLimit(over));
        }
        match self.phase {
            Phase::Running => match self.times.due(now) {
                Due::Nothing => {}
                Due::Warn => self.warn(),
                Due::Over => self.end(End::Timeout),
            },
            Phase::Terminating { why, kill_at_ns } if now >= kill_at_ns => {
                self.phase = Phase::Killing { why: Some(why) };
                self.kill();
            }
            Phase::Terminating { .. } => {}
            Phase::Killing { .. } => self.kill(),
        }
    }

    /// Kills what can be seen of the tree now; to be repeated until nothing is left.
    fn kill(&mut self) {
        match &mut self.container {
            None => tree::kill_all(self.tools.leaf()),
            Some(container) => container.kill(self.tools, self.reaper.leader_end, clock::monotonic_ns()),
        }
    }

    /// Tells the leader's process group that its time is almost over.
    fn warn(&mut self) {
        let spec = &self.attempt.task.spec;
        let Some(soft) = spec.soft_timeout else { return };
        // An action hears of it in its own way.
        let signal = own_program::action_of(spec).map_or(soft.signal.number(), |_| child::WARNING);
        self.warned_by = Some(signal);
        match &mut self.container {
            None => process::signal_group(self.child.pid, signal),
            Some(container) => container.signal(self.tools, signal),
        }
    }

    /// Stops the tree where it is, and its clocks.
    fn suspend(&mut self) {
        if matches!(self.phase, Phase::Running) && self.times.suspend(clock::monotonic_ns()) {
            match &mut self.container {
                None => tree::suspend_all(self.tools.leaf()),
                Some(container) => container.pause(self.tools, true),
            }
            failpoint!("worker.after-suspend");
        }
    }

    /// Lets it go on.
    fn resume(&mut self) {
        if self.times.resume(clock::monotonic_ns()) {
            match &mut self.container {
                None => tree::resume_all(self.tools.leaf()),
                Some(container) => container.pause(self.tools, false),
            }
            failpoint!("worker.after-resume");
        }
    }

    /// Asks the tree to end; it is killed when the grace is over.
    fn end(&mut self, why: End) {
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Terminating { why, kill_at_ns: clock::monotonic_ns() + self.grace_ns };
                if self.container.is_some() {
                    return self.end_container(why);
                }
                tree::signal_all(self.tools.leaf(), Signal::SIGTERM);
                // A stopped process takes its SIGTERM only when it goes on.
                tree::signal_all(self.tools.leaf(), Signal::SIGCONT);
                // And what is suspended finds it waiting when it goes on.
                self.resume();
            }
            Phase::Terminating { .. } | Phase::Killing { .. } => {}
        }
    }

    fn end_container(&mut self, why: End) {
        self.resume();
        let Some(container) = &mut self.container else { return };
        // Without a container yet there is nobody to be asked.
        if !container.ask_to_end(self.tools) {
            self.end_now(why);
        }
    }

    /// Ends the tree without any grace, or with no more of it.
    fn end_now(&mut self, why: End) {
        let why = match self.phase {
            Phase::Running => why,
            Phase::Terminating { why, .. } => why,
            Phase::Killing { .. } => return,
        };
        self.phase = Phase::Killing { why: Some(why) };
        self.kill();
    }

    fn take_orders(&mut self) {
        loop {
            match self.tools.next_told(self.attempt.ticket) {
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
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    return;
                }
            }
        }
    }

    fn pass_progress(&mut self, now: u64) {
        let Some(progress) = self.tools.room.read_progress() else { return };
        let progress = Progress { percent: f64::from(progress.percent), message: progress.message };
        self.progress = Some(progress.clone());
        if now.saturating_sub(self.progress_told_ns) >= PROGRESS_INTERVAL_NS {
            self.progress_told_ns = now;
            // A task that speaks has started for everybody, however short it will be.
            self.tell_start();
            let (ticket, id) = (self.attempt.ticket, self.attempt.task.id);
            // A supervisor that is gone shows on the order pipe at the next wait.
            let _ = self.tools.line.report(&Report::Progress { ticket, id, progress });
        }
    }

    /// Reads what is there once; to be called only when something is, because the pipe blocks otherwise.
    fn read_output(&mut self, index: usize) -> usize {
        let buffer = &mut self.tools.buffer;
        buffer.resize(READ_BYTES, 0);
        let (stream, fd) = &self.outputs[index];
        let length = nix::unistd::read(fd, buffer).unwrap_or(0);
        if length > 0 {
            self.tools.journal.append(*stream, &buffer[..length], clock::unix_us());
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

/// What a wait has found.
#[derive(Debug, Default)]
struct Ready {
    outputs: [bool; 2],
    orders: bool,
    progress: bool,
    leader: bool,
}
