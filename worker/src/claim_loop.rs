//! A worker's whole life: wait, claim, execute, report, and again.
//!
//! The doorbell on the order pipe is what wakes an idle worker; looking at the table from time to time is the safety
//! net. Deliberately absent: the freeing of slots, which the supervisor does when it has committed the verdict.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::actions::Registry;
use crate::claim::{Claimer, Region, Ticket, WorkerState};
use crate::execute::WorkerFacts;
use crate::execute::{self, Attempt, Moment, Sandboxes, Tools};
use crate::failpoint;
use crate::output::Writer;
use crate::room::Room;
use crate::sys::cgroup::Leaves;
use crate::sys::spawn::CStringArray;
use crate::sys::{clock, pipe, process, signal, spawn};
use crate::task::{Assignment, Class};
use crate::wire::{EXIT_BOOT_FAILED, EXIT_ORPHANED, Inherited, Line, LineClosed, Report, SPILLED, WorkerMode};

/// Lives a worker's life and returns its exit code. `user_namespace` is for its tasks' sandboxes, `actions` is what it can do
/// by itself.
pub fn live(inherited: Inherited, user_namespace: Option<OwnedFd>, actions: &'static Registry) -> i32 {
    let Inherited { birth, orders, reports, table, lock: _lock, leaf } = inherited;
    let name = std::ffi::CString::new(format!("acode-w{}", birth.row)).unwrap_or_default();
    process::set_name(&name);
    let mut line = Line::new(orders, reports);
    failpoint!("worker.boot");
    let joined = become_worker(&line).and_then(|()| join_table(table, birth.row, birth.mode));
    let claimer = match joined {
        Ok(claimer) => claimer,
        Err(error) => return boot_failed(&mut line, &error.to_string()),
    };
    let prepared = Room::open(&birth.settings.rooms, u32::from(birth.row)).map_err(io::Error::other).and_then(|room| {
        let null = above_stdio(std::fs::File::open("/dev/null")?.into())?;
        Ok((room, null))
    });
    process::set_umask(birth.settings.umask);
    let (room, null) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return boot_failed(&mut line, &format!("no room for tasks: {error}")),
    };
    let mut worker = Worker {
        tools: Tools {
            facts: WorkerFacts { id: birth.id.to_string(), slot: birth.row },
            claimer,
            line,
            room,
            journal: Writer::new(&birth.settings.journal, birth.id, birth.settings.segment_bytes),
            leaves: leaf.and_then(usable_leaves),
            ladder: birth.ladder,
            sandboxes: Sandboxes::new(user_namespace),
            null,
            argv: CStringArray::default(),
            envp: CStringArray::default(),
            buffer: Vec::new(),
            next_settings: None,
            stopping: false,
            mode: birth.mode,
            containers: execute::Containers::default(),
            orders_kept: Vec::new(),
            chores: execute::Chores::default(),
            worktrees: execute::Worktrees::default(),
            settings: birth.settings,
            actions,
            minder: execute::Minder::default(),
            libraries: execute::Libraries::default(),
            programs: execute::Programs::default(),
        },
        payload: Vec::new(),
        backoff_ms: 0,
    };
    let ended = worker.work();
    worker.tools.claimer.set_state(WorkerState::Stopping);
    execute::close(&mut worker.tools);
    failpoint!("worker.before-leave");
    if ended.is_ok() {
        let _ = worker.tools.line.report(&Report::Leaving);
    }
    // What is left of the room is removed by the next worker in this slot, or at the next start.
    let _ = worker.tools.room.remove();
    if ended.is_ok() { 0 } else { EXIT_ORPHANED }
}

/// Descriptors 0 to 2 are replaced in a child before it executes, so nothing that it gets may lie there.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    Ok(nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3)).map(|raw| {
        // The number is fresh from the kernel and owned by nobody else yet.
        crate::sys::pipe::own(raw)
    })?)
}

fn become_worker(line: &Line) -> io::Result<()> {
    signal::reset()?;
    process::become_subreaper()?;
    process::give_up_new_privileges()?;
    pipe::set_nonblocking(line.orders_fd())
}

/// The worker's leaves, if tasks can be born into them.
fn usable_leaves(base: OwnedFd) -> Option<Leaves> {
    let leaves = Leaves::new(base).ok()?;
    spawn::can_be_born_into(leaves.current().as_fd()).then_some(leaves)
}

fn join_table(table: OwnedFd, row: u16, mode: WorkerMode) -> io::Result<Claimer> {
    let region = Arc::new(Region::open(table)?);
    let classes: Vec<Class> = Class::ALL.into_iter().filter(|class| mode.takes(*class)).collect();
    Claimer::new(region, row, &classes).map_err(io::Error::other)
}

fn boot_failed(line: &mut Line, why: &str) -> i32 {
    let _ = line.report(&Report::BootFailed { why: why.to_owned() });
    EXIT_BOOT_FAILED
}

struct Worker {
    tools: Tools,
    payload: Vec<u8>,
    backoff_ms: u64,
}

impl Worker {
    fn work(&mut self) -> Result<(), LineClosed> {
        self.tools.claimer.beat(clock::monotonic_ns());
        failpoint!("worker.before-ready");
        self.tools.line.report(&Report::Ready)?;
        execute::clear_row(&mut self.tools);
        loop {
            self.tools.take_orders()?;
            if let Some(settings) = self.tools.next_settings.take() {
                execute::send_all_away(&mut self.tools);
                process::set_umask(settings.umask);
                self.tools.settings = *settings;
            }
            execute::Chores::work(&mut self.tools);
            if self.tools.stopping {
                execute::remove_ended(&mut self.tools, Moment::Leaving);
                return Ok(());
            }
            execute::attend(&mut self.tools)?;
            execute::remove_ended(&mut self.tools, Moment::Claiming);
            failpoint!("worker.before-claim");
            match self.tools.claimer.claim(&mut self.payload) {
                Some(ticket) => self.serve(ticket)?,
                None => self.rest()?,
            }
        }
    }

    /// Sees one claim through.
    fn serve(&mut self, ticket: Ticket) -> Result<(), LineClosed> {
        failpoint!("worker.after-claim");
        let claimed_us = clock::unix_us();
        self.backoff_ms = 0;
        let claimer = &self.tools.claimer;
        claimer.set_state(WorkerState::Busy);
        claimer.beat(clock::monotonic_ns());
        let report = match read_assignment(&self.payload) {
            Ok(task) => {
                let attempt = Attempt { ticket, task, claimed_us };
                Report::Finished(Box::new(execute::run(&mut self.tools, &attempt)?))
            }
            Err(why) => Report::Unreadable { ticket, why },
        };
        failpoint!("worker.before-report");
        self.tools.line.report(&report)?;
        failpoint!("worker.after-report");
        self.tools.claimer.holds(None);
        Ok(())
    }

    /// Sleeps until the doorbell rings or it is time to look, whichever is first.
    fn rest(&mut self) -> Result<(), LineClosed> {
        let claimer = &self.tools.claimer;
        claimer.set_state(WorkerState::Idle);
        // Said before the last look: a supervisor that publishes after this look sees us idle, and rings.
        if claimer.anything_ready() {
            return Ok(());
        }
        let settings = &self.tools.settings;
        self.backoff_ms = match self.backoff_ms {
            0 => settings.poll_interval_ms,
            longer => longer.saturating_mul(2).min(settings.idle_backoff_max_ms.max(settings.poll_interval_ms)),
        };
        let chores_ms = execute::nap_ms(&self.tools);
        let mut left_ms = chores_ms.map_or(self.backoff_ms, |chores_ms| self.backoff_ms.min(chores_ms));
        while left_ms > 0 {
            self.tools.claimer.beat(clock::monotonic_ns());
            execute::tend(&mut self.tools);
            let programs_ms = execute::due_ms(&self.tools).unwrap_or(u64::MAX);
            let nap_ms = left_ms.min(self.tools.settings.idle_heartbeat_interval_ms.max(1)).min(programs_ms);
            let mut fds = [PollFd::new(self.tools.line.orders_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(nap_ms).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
                break;
            }
            left_ms -= nap_ms;
            if left_ms == 0 && chores_ms.is_some() {
                execute::remove_ended(&mut self.tools, Moment::Idle);
            }
        }
        Ok(())
    }
}

/// Reads the assignment from a slot's payload, or from the file that it names.
fn read_assignment(payload: &[u8]) -> Result<Assignment, String> {
    use std::os::unix::ffi::OsStrExt;
    let spilled = match payload.split_first() {
        Some((&SPILLED, path)) => {
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
            Some(std::fs::read(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?)
        }
        Some(_) | None => None,
    };
    serde_json::from_slice(spilled.as_deref().unwrap_or(payload)).map_err(|e| format!("not an assignment: {e}"))
}
