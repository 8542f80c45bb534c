//! Processes held by descriptor: fork, pidfds, waiting, and what identifies a process for good.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// The kernel's `struct clone_args`, version 2.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// `CLONE_INTO_CGROUP`; libc's own constant has overflowed to 0.
pub(super) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_CLEAR_SIGHAND`, likewise.
pub(super) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// What a fork returns.
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the old one: the child's pid and pidfd.
    Parent(i32, OwnedFd),
}

/// Forks the calling process, which must have one thread. The child is a child of this process.
///
/// # Errors
/// There are several threads, or what `clone3` says; as a rule that a process limit is reached.
pub fn fork() -> io::Result<Forked> {
    clone_copy(0, libc::SIGCHLD as u64)
}

/// Forks the calling process so that the child becomes a child of this process' parent, which is told of its end.
///
/// # Errors
/// As for [`fork`].
pub fn fork_sibling() -> io::Result<Forked> {
    // The exit signal must be 0 with CLONE_PARENT: the kernel takes that of the calling process.
    clone_copy(libc::CLONE_PARENT as u64, 0)
}

/// Forks the calling process, which must have one thread, into a user namespace of its own.
///
/// # Errors
/// As for [`fork`], and what keeps this user from having such a namespace.
pub fn fork_into_user_namespace() -> io::Result<Forked> {
    clone_copy(libc::CLONE_NEWUSER as u64, libc::SIGCHLD as u64)
}

/// A fork copies the locks of threads that it does not copy.
fn assert_single_threaded() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        threads => Err(io::Error::other(format!("this process has {threads} threads, it must have one"))),
    }
}

fn clone_copy(flags: u64, exit_signal: u64) -> io::Result<Forked> {
    assert_single_threaded()?;
    let mut pidfd: i32 = -1;
    let args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has its own copy of the stack, so returning twice is what fork does;
    // the arguments live until the call returns, and there is one thread, as was just checked.
    let mut pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid == -1 && matches!(Errno::last(), Errno::ENOSYS | Errno::EPERM) {
        // Filters of containers cannot look into the arguments of clone3, and refuse it whole. The old call can all this.
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; without a stack of its own the child goes on with its copy of ours.
        pid = unsafe { libc::syscall(libc::SYS_clone, args.flags | exit_signal, none, &raw mut pidfd, none, none) };
    }
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: the kernel has stored a new descriptor of ours in `pidfd`.
        _ => Ok(Forked::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Ends the process at once, without running destructors or exit handlers that belong to another process' past.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Takes this mask for what the process and all of its threads make from now on. The owner's own bits are not masked: they
/// are for whoever makes something, to use it.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask & 0o077));
}

/// Closes what a program has inherited beside its three standard streams. To be called before it has opened anything.
pub fn close_inherited() {
    // SAFETY: a plain system call. The caller has no descriptor of its own from 3 on yet, so nothing that it owns is closed.
    // A kernel without it leaves them open, which is a blemish and not a fault.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

/// Opens a pidfd of a living process.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor returned is new and ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Sends `signal` to the process behind a pidfd.
///
/// # Errors
/// `ESRCH` when it has ended.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a plain system call; a null siginfo asks for the default one.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends `signal`, by its number, to the process group that this process leads. One that is gone needs none.
pub fn signal_group(leader: i32, signal: i32) {
    // SAFETY: a plain system call. The leader is a child of ours that is not reaped, so its group is no stranger's.
    unsafe { libc::kill(-leader, signal) };
}

/// Reaps the child behind a pidfd, if it has ended.
///
/// # Errors
/// `ECHILD` when it is not our child, or was reaped before.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<WaitStatus>> {
    match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)? {
        WaitStatus::StillAlive => Ok(None),
        status => Ok(Some(status)),
    }
}

/// Waits for the end of the child behind a pidfd, and reaps it.
///
/// # Errors
/// `ECHILD` when it is not our child, or was reaped before.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<WaitStatus> {
    loop {
        match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED) {
            Err(nix::errno::Errno::EINTR) => {}
            ended => return Ok(ended?),
        }
    }
}

/// Makes this process the one to which orphaned descendants fall.
///
/// # Errors
/// What `prctl` says.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Gives up, for this process and all that it starts, every gain of privileges by exec.
///
/// # Errors
/// What `prctl` says.
pub fn give_up_new_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Keeps other processes of the same user from looking into this one: its memory, descriptors, environment, and tracing
/// it. Its children by fork are kept likewise, and what they execute is not.
///
/// # Errors
/// What `prctl` says.
pub fn forbid_looks_inside() -> io::Result<()> {
    // The library behind these reads /proc/self/auxv at its first use, on kernels before 6.4, and gives up the process if it
    // may not. From here on only root may.
    let _ = (procfs::page_size(), procfs::ticks_per_second());
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Names this process for `ps` and `top`; cut at 15 bytes by the kernel.
pub fn set_name(name: &std::ffi::CStr) {
    // A wrong name is a blemish and not a fault.
    let _ = nix::sys::prctl::set_name(name);
}

/// When the process started, in clock ticks since boot: with pid and boot id it names a process for good.
/// `None` when it is gone.
pub fn start_time(pid: i32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// Whose child a process is. `None` when it is gone.
pub fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 4)?.parse().ok()
}

/// One of the fields from the third on of `/proc/<pid>/stat`, which everybody may read.
fn stat_field(pid: i32, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold anything; after the last one the fields are plain.
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 3)?.to_owned())
}

/// The user whose process it is, by its real number. `None` when it is gone.
pub fn user(pid: i32) -> Option<u32> {
    // Not the owner of its folder in /proc, which is root where it cannot be looked into.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok())
}

/// The id of this boot of the kernel.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The pids of the children of this process, whichever of its threads has made them, zombies included. Empty where the
/// kernel does not list them.
pub fn children() -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", Pid::this())) else { return Vec::new() };
    let lists = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("children")));
    let lists: Vec<String> = lists.map(Result::unwrap_or_default).collect();
    lists.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

/// What a process is called: the beginning of its program's file name, unless it calls itself otherwise. `None` for one
/// that has ended.
pub fn name(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(") ")?;
    let is_dead = after.starts_with(['Z', 'X']);
    let (_, name) = before.split_once(" (")?;
    (!is_dead).then(|| name.to_owned())
}
