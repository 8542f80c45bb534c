//! The programs that a worker keeps: found by what they were started with, sent away when there are too many, buried when
//! they are dead.
//!
//! Owner: the worker. While it works at anything else they are set aside (`sys::aside`), so that they are no part of any
//! attempt's tree. One that is to go is told so and has a while for it, in which nobody waits for it. Deliberately absent:
//! what a program does for an attempt, which is `turn`'s.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::process::Tools;
use super::child::Program;
use super::key::Key;
use crate::actions::protocol::{ToProgram, line};
use crate::failpoint;
use crate::sys::cgroup::{Leaf, Leaves};
use crate::sys::tree::{self, Reaper, Remains};
use crate::sys::{aside, clock, process};

/// The most programs that wait for a worker's next task. Beside them there may be as many that are on their way out.
const KEPT_MAX: usize = 4;
/// The longest that a program may take to leave, in milliseconds, however long a task's grace is.
const LEAVE_MAX_MS: u64 = 5_000;
/// How long killed processes are waited for, in nanoseconds. What is left then is looked after by the next attempt's end.
const BURY_NS: u64 = 2_000_000_000;
/// How often they are looked at meanwhile.
const BURY_INTERVAL: Duration = Duration::from_millis(1);
/// Reads of what one program has left on its standard error, at most, each time it is looked at.
const DRAIN_MAX: usize = 64;

/// The programs of one worker.
#[derive(Debug, Default)]
pub struct Programs {
    /// The one used last is the last.
    idle: Vec<Program>,
    /// On their way out, each with the time at which it is killed.
    leaving: Vec<(Program, u64)>,
    /// How many leaves were made.
    leaves: u32,
}

impl Programs {
    /// Whether there is nothing to look after.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.leaving.is_empty()
    }

    /// A leaf for a program to be born into; none where there are no cgroups.
    pub fn make_leaves(&mut self, of: Option<&Leaves>) -> Option<Leaves> {
        self.leaves = self.leaves.wrapping_add(1);
        of.and_then(|leaves| leaves.make_for_keeps(self.leaves).ok())
    }

    /// Keeps a program for the next task, set aside.
    pub fn keep(&mut self, program: Program) {
        set_aside(&program);
        self.idle.push(program);
    }
}

fn set_aside(program: &Program) {
    aside::set(program.child.pid, program.leaves.as_ref().map(Leaves::current));
}

/// Takes the program that was started with this, if there is one that lives and is silent. It is the worker's child like any
/// other from here on.
pub fn take(tools: &mut Tools, key: &Key) -> Option<Program> {
    tend(tools);
    let at = tools.programs.idle.iter().position(|program| program.key == *key)?;
    let program = tools.programs.idle.remove(at);
    match aside::take_back(program.child.pid) {
        None => Some(program),
        // It has ended since it was looked at.
        Some(_) => {
            bury(tools, program);
            None
        }
    }
}

/// Makes room for one more.
pub fn make_room(tools: &mut Tools) {
    while tools.programs.idle.len() >= KEPT_MAX {
        let oldest = tools.programs.idle.remove(0);
        send_away(tools, oldest);
    }
    while tools.programs.leaving.len() > KEPT_MAX {
        let (first, _) = tools.programs.leaving.remove(0);
        put_down(tools, first);
    }
}

/// Sends all programs away, because what they were started with is the pool's no more.
pub fn send_all_away(tools: &mut Tools) {
    for program in std::mem::take(&mut tools.programs.idle) {
        send_away(tools, program);
    }
}

/// Tells a program, which is set aside, to leave.
fn send_away(tools: &mut Tools, mut program: Program) {
    program.tell(&line(&ToProgram::Shutdown {}));
    program.close_input();
    let patience_ms = tools.settings.kill_grace_ms.min(LEAVE_MAX_MS);
    let kill_at_ns = clock::monotonic_ns().saturating_add(patience_ms.saturating_mul(1_000_000));
    tools.programs.leaving.push((program, kill_at_ns));
}

/// Looks after all programs, without waiting for any: reads what they have said on standard error, and buries those that have
/// ended. To be called when the worker is at no attempt.
pub fn tend(tools: &mut Tools) {
    if tools.programs.is_empty() {
        return;
    }
    for mut program in std::mem::take(&mut tools.programs.idle) {
        drain(&mut program, &mut tools.buffer);
        program.check_input();
        // Who speaks without being asked cannot be told from one who answers late.
        let is_fit = !is_over(&program) && program.unheard().is_none() && !program.is_mute() && !program.is_deaf();
        match is_fit {
            true => tools.programs.idle.push(program),
            false => put_down(tools, program),
        }
    }
    let now = clock::monotonic_ns();
    for (mut program, kill_at_ns) in std::mem::take(&mut tools.programs.leaving) {
        drain(&mut program, &mut tools.buffer);
        // It shall not have to wait for want of a listener.
        program.discard();
        match is_over(&program) || now >= kill_at_ns {
            true => put_down(tools, program),
            false => tools.programs.leaving.push((program, kill_at_ns)),
        }
    }
}

/// When there is something to be done for a program that leaves, in milliseconds from now.
pub fn due_ms(tools: &Tools) -> Option<u64> {
    let next = tools.programs.leaving.iter().map(|(_, kill_at_ns)| *kill_at_ns).min()?;
    Some(next.saturating_sub(clock::monotonic_ns()).div_ceil(1_000_000).max(1))
}

/// Ends all programs, before the worker goes: each may leave by itself within its time.
pub fn close(tools: &mut Tools) {
    send_all_away(tools);
    while !tools.programs.is_empty() {
        tools.claimer.beat(clock::monotonic_ns());
        // Whoever asks whether we live is answered. What else is ordered means nothing now.
        let is_deaf = tools.take_orders().is_err();
        let pidfds = tools.programs.leaving.iter().map(|(program, _)| program.child.pidfd.as_fd());
        let mut fds: Vec<_> = pidfds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        if !is_deaf {
            fds.push(PollFd::new(tools.line.orders_fd(), PollFlags::POLLIN));
        }
        let heartbeat_ms = tools.settings.heartbeat_interval_ms.max(1);
        let timeout = PollTimeout::try_from(due_ms(tools).unwrap_or(1).min(heartbeat_ms));
        // An error is as good as nothing ready.
        let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX));
        drop(fds);
        failpoint!("programs.within-close");
        tend(tools);
    }
}

fn drain(program: &mut Program, buffer: &mut Vec<u8>) {
    for _ in 0..DRAIN_MAX {
        if program.read_errors(buffer).is_empty() {
            return;
        }
    }
}

fn is_over(program: &Program) -> bool {
    let mut fds = [PollFd::new(program.child.pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Ends a program that is set aside, and all that it has left.
fn put_down(tools: &mut Tools, program: Program) {
    // While it is not reaped its number is its own.
    if aside::take_back(program.child.pid).is_none() {
        process::signal_group(program.child.pid, libc::SIGKILL);
    }
    bury(tools, program);
}

/// Kills what is left of a program that is set aside no more, waits until it is gone, and removes its leaf. Whatever else is
/// a child of the worker, and not set aside, goes with it.
pub fn bury(tools: &mut Tools, mut program: Program) {
    let leaves = program.leaves.take();
    let mut reaper = Reaper::new(program.child.pid);
    let give_up_ns = clock::monotonic_ns().saturating_add(BURY_NS);
    loop {
        let leaf = leaves.as_ref().map(Leaves::current);
        if reaper.reap() == Remains::Nothing && !is_populated(leaf) {
            break;
        }
        if clock::monotonic_ns() >= give_up_ns {
            break;
        }
        tree::kill_all(leaf);
        tools.claimer.beat(clock::monotonic_ns());
        std::thread::sleep(BURY_INTERVAL);
    }
    if let Some(leaves) = leaves {
        leaves.remove();
    }
}

fn is_populated(leaf: Option<&Leaf>) -> bool {
    leaf.is_some_and(|leaf| leaf.is_populated().unwrap_or(false))
}
