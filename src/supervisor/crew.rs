//! The worker processes: their pipes, their pidfds, their cgroup leaves, and the burial of the dead.
//!
//! A worker that dies is gone for the rest of the supervisor only when its task's whole tree is dead too and its last
//! reports are read. Deliberately absent: decisions about who is to live, which are `decide`'s.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use acode_worker::nursery::Nursery;
use acode_worker::sys::cgroup::{self, Leaf};
use acode_worker::sys::{clock, pipe, process};
use acode_worker::task::{Isolation, WorkerId};
use acode_worker::wire::{Birth, FrameError, Frames, Order, Report, WorkerMode, WorkerSettings, encode};
use nix::errno::Errno;

use super::limits::Holding;

/// Bytes of orders that may wait for a worker which does not read them; it is stuck then, and killed for that.
const ORDERS_MAX: usize = 64 * 1024;
/// Bytes read from a report pipe at once.
const READ_BYTES: usize = 64 * 1024;

/// What every worker is born with beside its pipes.
#[derive(Debug)]
pub struct Cradle<'a> {
    /// Makes the process.
    pub nursery: &'a Nursery,
    /// The claim table's memory.
    pub table: std::os::fd::BorrowedFd<'a>,
    /// The lock that tells of living workers.
    pub lock: &'a OwnedFd,
    /// Where the leaves are made, and how far they hold limits.
    pub holding: &'a Holding,
    /// How workers work.
    pub settings: &'a WorkerSettings,
}

/// One worker process.
#[derive(Debug)]
pub struct Hand {
    /// Its id.
    pub id: WorkerId,
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// When it was made, in microseconds of Unix time.
    pub born_us: i64,
    /// Of which kind it is.
    pub mode: WorkerMode,
    /// Attempts that ended with success.
    pub completed: u64,
    /// Attempts that ended otherwise.
    pub failed: u64,
    /// Whether it was said that it has done its share.
    pub worn: bool,
    /// When its doorbell was last rung, in nanoseconds of the monotonic clock.
    pub rung_ns: u64,
    /// Holds the process.
    pub pidfd: OwnedFd,
    /// Where its reports come from.
    pub reports: OwnedFd,
    orders: OwnedFd,
    unsent: Vec<u8>,
    frames: Frames,
    /// The cgroup that holds the leaves of its tasks.
    leaf: Option<Leaf>,
    /// And its path.
    home: Option<PathBuf>,
    dead: bool,
}

/// All worker processes by row, the dead ones included until they are buried.
#[derive(Debug)]
pub struct Crew {
    hands: BTreeMap<u16, Hand>,
    buffer: Vec<u8>,
    nursery_pid: i32,
}

/// What reading a worker's reports has come to.
#[derive(Debug)]
pub enum Heard {
    /// All that there is for now.
    All,
    /// The worker has closed its end, or talks nonsense.
    Broken(Option<FrameError>),
}

impl Crew {
    /// No workers yet.
    pub fn new(nursery_pid: i32) -> Self {
        Self { hands: BTreeMap::new(), buffer: Vec::new(), nursery_pid }
    }

    /// The worker in this row.
    pub fn get(&self, row: u16) -> Option<&Hand> {
        self.hands.get(&row)
    }

    /// The worker in this row.
    pub fn get_mut(&mut self, row: u16) -> Option<&mut Hand> {
        self.hands.get_mut(&row)
    }

    /// All workers with their rows, by row.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Hand)> {
        self.hands.iter().map(|(row, hand)| (*row, hand))
    }

    /// Whether there is none, living or dead.
    pub fn is_empty(&self) -> bool {
        self.hands.is_empty()
    }

    /// Has a worker of this mode made for this row.
    ///
    /// # Errors
    /// The kernel refuses a process or a descriptor, or the nursery is gone.
    pub fn bear(&mut self, row: u16, mode: WorkerMode, cradle: &Cradle<'_>) -> io::Result<&Hand> {
        let born_us = clock::unix_us();
        let id = WorkerId::generate((born_us / 1_000) as u64)?;
        let (orders_reader, orders) = pipe::pipe()?;
        let (reports, reports_writer) = pipe::pipe()?;
        pipe::set_nonblocking(&orders)?;
        pipe::set_nonblocking(&reports)?;
        let made = cradle.holding.grounds.as_ref().map(|grounds| grounds.make_home(row)).transpose()?;
        let (home, leaf) = made.unzip();
        let mut fds = vec![
            orders_reader.as_raw_fd(),
            reports_writer.as_raw_fd(),
            cradle.table.as_raw_fd(),
            cradle.lock.as_raw_fd(),
        ];
        fds.extend(leaf.as_ref().map(|leaf| leaf.as_fd().as_raw_fd()));
        let birth = Birth { id, row, mode, settings: cradle.settings.clone(), ladder: cradle.holding.ladder.clone() };
        let (pid, pidfd) = cradle.nursery.bear(&birth, &fds)?;
        let hand = Hand {
            id,
            pid,
            start_time: process::start_time(pid).unwrap_or(0),
            born_us,
            mode,
            completed: 0,
            failed: 0,
            worn: false,
            rung_ns: 0,
            pidfd,
            reports,
            orders,
            unsent: Vec::new(),
            frames: Frames::default(),
            leaf,
            home,
            dead: false,
        };
        Ok(self.hands.entry(row).insert_entry(hand).into_mut())
    }

    /// The pids of all processes of tasks that can be seen: those in the workers' leaves.
    pub fn task_pids(&self) -> Vec<i32> {
        let homes = self.hands.values().filter_map(|hand| hand.home.as_ref());
        homes.flat_map(|home| cgroup::pids_below(home)).collect()
    }

    /// Sends an order. A worker that is dead, or stuck, gets none; its end is on its way by other means.
    pub fn order(&mut self, row: u16, order: &Order) {
        let Some(hand) = self.hands.get_mut(&row) else { return };
        if !hand.dead && hand.unsent.len() < ORDERS_MAX && encode(order, &mut hand.unsent).is_ok() {
            hand.flush();
        }
    }

    /// Sends what a full pipe did not take before.
    pub fn flush(&mut self) {
        self.hands.values_mut().filter(|hand| !hand.unsent.is_empty()).for_each(Hand::flush);
    }

    /// Kills a worker and all of its task. The rest follows when its pidfd tells of its end.
    pub fn kill(&self, row: u16) {
        let Some(hand) = self.hands.get(&row) else { return };
        // Its end shows by the pidfd; one that has ended already needs no kill.
        let _ = process::pidfd_signal(hand.pidfd.as_fd(), nix::libc::SIGKILL);
        hand.kill_tree();
    }

    /// Reads what a worker has to say, at most until `each` has had it all.
    pub fn hear(&mut self, row: u16, mut each: impl FnMut(Report)) -> Heard {
        let Some(hand) = self.hands.get_mut(&row) else { return Heard::All };
        self.buffer.resize(READ_BYTES, 0);
        let mut drained = false;
        loop {
            let broken = loop {
                match hand.frames.pop_report() {
                    Ok(Some(report)) => each(report),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if broken.is_some() {
                return Heard::Broken(broken);
            }
            // What comes after a read that did not fill its buffer wakes the poll again. Of a dead worker nothing more
            // comes, and its last words are read to the end.
            if drained && !hand.dead {
                return Heard::All;
            }
            match nix::unistd::read(&hand.reports, &mut self.buffer) {
                Ok(0) => return Heard::Broken(None),
                Ok(length) => {
                    hand.frames.feed(&self.buffer[..length]);
                    drained = length < self.buffer.len();
                }
                Err(Errno::EINTR) => {}
                Err(_) => return Heard::All,
            }
        }
    }

    /// Takes note of a worker's death, and begins its burial.
    pub fn died(&mut self, row: u16) -> Option<nix::sys::wait::WaitStatus> {
        let hand = self.hands.get_mut(&row)?;
        let status = process::try_wait(hand.pidfd.as_fd()).ok()??;
        hand.dead = true;
        hand.kill_tree();
        Some(status)
    }

    /// The dead workers whose trees are dead too.
    pub fn ready_for_burial(&self) -> Vec<u16> {
        let dead: Vec<_> = self.hands.iter().filter(|(_, hand)| hand.dead).collect();
        // Clients of the container engine that were called between two tasks run outside of any leaf.
        let in_leaves = || self.hands.values().all(|hand| hand.has_leaf() && hand.mode.isolation == Isolation::Process);
        if dead.is_empty() || (!in_leaves() && self.strangers_remain()) {
            return Vec::new();
        }
        dead.into_iter().filter(|(_, hand)| hand.tree_is_dead()).map(|(row, _)| *row).collect()
    }

    /// Whether a dead worker still waits for its tree to end.
    pub fn has_unburied(&self) -> bool {
        self.hands.values().any(|hand| hand.dead)
    }

    /// Kills and reaps the orphans that fell to us from dead workers; true while one is left.
    fn strangers_remain(&self) -> bool {
        let mut remain = false;
        for pid in self.strangers() {
            let target = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGKILL);
            remain |= !reap(pid);
        }
        remain
    }

    /// Our children that are neither the nursery nor workers: what orphans of dead workers are, and nothing else is.
    fn strangers(&self) -> impl Iterator<Item = i32> {
        let known = |pid: &i32| *pid == self.nursery_pid || self.hands.values().any(|hand| hand.pid == *pid);
        process::children().into_iter().filter(move |pid| !known(pid))
    }

    /// Reaps orphans that fell to us and have ended.
    pub fn reap_orphans(&self) {
        for pid in self.strangers() {
            reap(pid);
        }
    }

    /// Forgets a worker.
    pub fn bury(&mut self, row: u16) -> Option<Hand> {
        self.hands.remove(&row)
    }
}

/// Reaps one child if it has ended; true if it is gone.
fn reap(pid: i32) -> bool {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    !matches!(
        waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
    )
}

/// Whether this is what the kernel says of a cgroup that was removed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ENOENT))
}

impl Hand {
    /// Whether its process has ended.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match nix::unistd::write(&self.orders, &self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(Errno::EINTR) => {}
                // Full: later. Closed: the worker is dead, and its pidfd says so.
                Err(_) => return,
            }
        }
    }

    fn kill_tree(&self) {
        if let Some(leaf) = &self.leaf {
            // A leaf that cannot be killed shows as populated for ever, which the burial waits for.
            let _ = leaf.kill();
        }
    }

    /// Whether its tasks are born in a cgroup, as far as can be seen from here.
    fn has_leaf(&self) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| !leaf.is_populated().is_err_and(|error| is_gone(&error)))
    }

    fn tree_is_dead(&self) -> bool {
        match self.leaf.as_ref().map(Leaf::is_populated) {
            None | Some(Ok(false)) => true,
            // The directory is gone, so nothing can live in it.
            Some(Err(error)) => is_gone(&error),
            Some(Ok(true)) => {
                self.kill_tree();
                false
            }
        }
    }
}
