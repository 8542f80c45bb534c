//! A process tree under this process as subreaper: whether anything of it lives, and how it is ended.
//!
//! With every orphan falling to this process, 'no child left' means 'no descendant left', whatever the tree did:
//! double forks, new sessions, a leader that died first. A cgroup leaf makes the kill one write instead of many.
//! Children that are set aside (`aside`), and all below them, belong to no tree here. Deliberately absent: any policy of
//! when to end a tree.

use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::Leaf;
use super::{aside, process};

/// What is left of the tree under this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: every descendant has ended and is reaped.
    Nothing,
    /// At least one process that has not ended.
    Something,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// Whether a core dump was written.
        core_dumped: bool,
    },
}

/// What processes have used, as the kernel counts it for those that were waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident set of any one process, in bytes.
    pub max_rss_bytes: u64,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written to block devices.
    pub written_bytes: u64,
}

/// Reaps one tree: keeps the leader's end apart and adds up what all of it used.
#[derive(Debug)]
pub struct Reaper {
    leader: i32,
    /// How the leader ended, once it has.
    pub leader_end: Option<Ended>,
    /// What the processes reaped so far used, and those that they had waited for.
    pub used: Used,
}

impl Reaper {
    /// A reaper for the tree whose leader has this pid.
    pub fn new(leader: i32) -> Self {
        Self { leader, leader_end: None, used: Used::default() }
    }

    /// Reaps all that has ended, without waiting. Children that are set aside are reaped too, and do not count.
    pub fn reap(&mut self) -> Remains {
        let mut seen_alone = false;
        loop {
            let mut status = 0;
            // SAFETY: a resource usage of all zeroes is valid, and the kernel may write to both places.
            let (pid, used) = unsafe {
                let mut used: libc::rusage = std::mem::zeroed();
                (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut used), used)
            };
            match pid {
                0 if aside::is_empty() || !others().is_empty() => return Remains::Something,
                // The kernel's list may miss one while another one goes from it, so it is believed when it has said so
                // twice with nobody to reap in between.
                0 if seen_alone => return Remains::Nothing,
                0 => seen_alone = true,
                -1 if Errno::last() == Errno::EINTR => {}
                // ECHILD: there is no child at all, so no descendant either.
                -1 => return Remains::Nothing,
                _ if aside::note_end(pid, end_of(status)) => seen_alone = false,
                _ => {
                    seen_alone = false;
                    self.count(&used);
                    if pid == self.leader {
                        self.leader_end = Some(end_of(status));
                    }
                }
            }
        }
    }

    fn count(&mut self, used: &libc::rusage) {
        let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
        self.used.user_us += micros(used.ru_utime);
        self.used.system_us += micros(used.ru_stime);
        // Kilobytes for the resident set, blocks of 512 bytes for the disk: so says getrusage(2).
        self.used.max_rss_bytes = self.used.max_rss_bytes.max(used.ru_maxrss as u64 * 1_024);
        self.used.read_bytes += used.ru_inblock as u64 * 512;
        self.used.written_bytes += used.ru_oublock as u64 * 512;
    }
}

fn end_of(status: i32) -> Ended {
    if libc::WIFEXITED(status) {
        Ended::Exited(libc::WEXITSTATUS(status))
    } else {
        Ended::Signalled { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    }
}

/// Sends `signal` to every process of the tree: those in the leaf where there is one and the task has made none below it,
/// else all descendants.
pub fn signal_all(leaf: Option<&Leaf>, signal: Signal) {
    let members = match leaf.filter(|leaf| !leaf.has_below()).map(Leaf::pids) {
        Some(Ok(pids)) => pids,
        Some(Err(_)) | None => descendants(),
    };
    for pid in members {
        // One that has ended meanwhile needs no signal any more. It cannot be a stranger with a reused pid: the
        // members' zombies are reaped by us alone, and not between the listing and here.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The most looks for processes that were born while the tree was being stopped.
const STOP_ROUNDS_MAX: u32 = 100;

/// Stops every process of the tree where it is: by its leaf where there is one that can, else one by one until no new
/// one turns up.
pub fn suspend_all(leaf: Option<&Leaf>) {
    if leaf.is_some_and(|leaf| leaf.freeze(true).is_ok()) {
        return;
    }
    let mut stopped = BTreeSet::new();
    for _ in 0..STOP_ROUNDS_MAX {
        let fresh: Vec<i32> = descendants().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
            stopped.insert(pid);
        }
    }
}

/// Lets a tree go on that [`suspend_all`] has stopped.
pub fn resume_all(leaf: Option<&Leaf>) {
    // After the leaf, the signal: it may have been stopped one by one, and means nothing to a process that runs.
    let thawed = leaf.is_some_and(|leaf| leaf.freeze(false).is_ok());
    if !thawed {
        signal_all(leaf, Signal::SIGCONT);
    }
}

/// Kills every process of the tree, as far as it can be seen now; to be repeated until nothing is left.
pub fn kill_all(leaf: Option<&Leaf>) {
    let all_in_leaf = leaf.is_some_and(|leaf| leaf.kill().is_ok() && leaf.is_populated().unwrap_or(false));
    // One that has moved to another cgroup, as its user may be allowed to, is our descendant there too. It is looked for
    // only when nothing else is left: a large tree is not listed again and again while the kernel kills it.
    if !all_in_leaf {
        signal_all(None, Signal::SIGKILL);
    }
}

/// Whether there is a child beside this one that is not set aside: something that its processes have left. To be asked
/// when all that has ended is reaped.
pub fn has_other_than(leader: i32) -> bool {
    others().iter().any(|pid| *pid != leader)
}

/// Whether children are set aside.
pub fn has_aside() -> bool {
    !aside::is_empty()
}

/// The children of this process that are not set aside. Where the kernel does not list them, all processes are looked at.
fn others() -> Vec<i32> {
    let mut children = process::children();
    if children.is_empty() && !aside::is_empty() {
        let own = i32::try_from(std::process::id()).ok();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        children = pids.filter(|pid| process::parent(*pid) == own).collect();
    }
    aside::others(children)
}

/// All descendants of this process that live, parents before children, but for those that are set aside.
pub fn descendants() -> Vec<i32> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open = others();
    while let Some(pid) = open.pop() {
        if seen.insert(pid) {
            found.push(pid);
            open.extend(children_of(pid));
        }
    }
    found
}

/// The children of all threads of a process; none when it is gone.
fn children_of(pid: i32) -> Vec<i32> {
    let Ok(tasks) = procfs::process::Process::new(pid).and_then(|process| process.tasks()) else { return Vec::new() };
    let children = tasks.flatten().filter_map(|task| task.children().ok()).flatten();
    children.filter_map(|child| i32::try_from(child).ok()).collect()
}
