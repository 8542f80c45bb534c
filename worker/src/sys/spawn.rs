//! Starting a program: vfork-style clone3 into a cgroup leaf, with everything set between clone and exec.
//!
//! A plain fork copies page tables and costs up to half of the spawn rate. Here the child borrows our memory until it
//! executes (`CLONE_VM | CLONE_VFORK`), on a stack of its own, and tells of a failed step by writing to that memory.
//! Deliberately absent: path search by environment and any shell; the caller names the files to try.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::confine::{Confinement, Part};
use super::process::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CloneArgs, pidfd_open};
use super::rlimit::RawLimit;

/// All that a child is told. The pointers must be valid during the call.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Files to execute: the first that exists is taken.
    pub programs: &'a [&'a CStr],
    /// Arguments, the program's name first.
    pub argv: &'a CStringArray,
    /// Environment, `NAME=value`.
    pub envp: &'a CStringArray,
    /// Working directory.
    pub cwd: &'a CStr,
    /// What becomes descriptors 0, 1 and 2; each must be above 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The directory of the cgroup v2 leaf in which the child is born.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Limits to set.
    pub rlimits: &'a [RawLimit],
    /// File mode creation mask.
    pub umask: u32,
    /// What it is shut off from.
    pub confinement: Option<&'a Confinement>,
    /// Whether it is bound by disk quotas even as root: without the privilege (`CAP_SYS_RESOURCE`) of passing over them.
    pub heeds_quota: bool,
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    /// Its pid, valid until it is reaped.
    pub pid: i32,
    /// The descriptor that holds it.
    pub pidfd: OwnedFd,
    /// Whether it was born in the leaf that was asked for.
    pub in_cgroup: bool,
}

/// The step between clone and exec that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Creating the process.
    Clone = 0,
    /// Putting descriptors 0 to 2 in place.
    Stdio = 1,
    /// Setting a limit.
    Limit = 2,
    /// Entering the working directory.
    Cwd = 3,
    /// Executing the program.
    Exec = 4,
    /// Confining itself; [`SpawnError::part`] says more.
    Confine = 5,
}

/// Where the number of a confinement's part begins in the number by which a child tells of its failure.
const PART_SHIFT: u32 = 8;

/// A program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{step:?}: {source}")]
pub struct SpawnError {
    /// Where it failed.
    pub step: Step,
    /// The part of the confinement that failed, and of the file system's layout the number of the step.
    pub part: Option<(Part, usize)>,
    /// The kernel's word.
    pub source: io::Error,
}

/// A NULL-terminated array of C strings in one piece of memory, as exec wants it.
#[derive(Debug, Default)]
pub struct CStringArray {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    pointers: Vec<*const c_char>,
}

impl CStringArray {
    /// Empties the array and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Adds the concatenation of `parts`; whatever follows a NUL byte is lost, so callers check for it first.
    pub fn push(&mut self, parts: &[&[u8]]) {
        self.starts.push(self.bytes.len());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
    }

    /// Makes the array ready for exec; to be called after the last `push`.
    pub fn seal(&mut self) {
        let base = self.bytes.as_ptr();
        self.pointers.clear();
        self.pointers.extend(self.starts.iter().map(|start| base.wrapping_add(*start).cast::<c_char>()));
        self.pointers.push(std::ptr::null());
    }

    /// The strings, without their ends.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        self.starts.iter().zip(ends).map(|(start, end)| &self.bytes[*start..end - 1])
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// What parent and child share while the child borrows our memory.
struct Shared<'a> {
    spawn: &'a Spawn<'a>,
    join_cgroup: Option<RawFd>,
    failure: UnsafeCell<(i32, i32)>,
}

/// Starts a program.
///
/// # Errors
/// The step that failed and the kernel's word on it. No process is left.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Child, SpawnError> {
    debug_assert!(!spawn.argv.pointers.is_empty() && !spawn.envp.pointers.is_empty(), "arrays are sealed");
    let shared = Shared { spawn, join_cgroup: None, failure: UnsafeCell::new((-1, 0)) };
    let born = match vfork_into(&shared) {
        Err(error) if is_refusal(&error) => fork_fallback(spawn, &shared),
        born => born.map(|(pid, pidfd)| Child { pid, pidfd, in_cgroup: spawn.cgroup.is_some() }),
    };
    let child = born.map_err(|source| SpawnError { step: Step::Clone, part: None, source })?;
    // SAFETY: the child has executed or ended, so nobody else touches the cell any more.
    let (step, errno) = unsafe { *shared.failure.get() };
    match step_of(step & 0xff) {
        None => Ok(child),
        Some(kind) => {
            // It is about to end with code 127 and is reaped here, so that nobody sees a child that never was.
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid), None);
            let number = step >> PART_SHIFT;
            let part = (kind == Step::Confine)
                .then(|| (Part::of(number), usize::try_from(number - Part::Mounts as i32).unwrap_or(0)));
            Err(SpawnError { step: kind, part, source: io::Error::from_raw_os_error(errno) })
        }
    }
}

/// Whether a process can be born into this leaf and live. Not where the kernel lacks the call, nor where it kills such
/// a process because our own cgroup was killed some time before.
pub fn can_be_born_into(leaf: BorrowedFd<'_>) -> bool {
    let (mut argv, mut envp) = (CStringArray::default(), CStringArray::default());
    argv.push(&[b"probe"]);
    argv.seal();
    envp.seal();
    // Executing a directory fails in the child itself, so that nothing has to exist for it.
    let Ok(null) = std::fs::File::open("/dev/null") else { return false };
    let stdio = [null.as_fd(); 3];
    let cgroup = Some(leaf);
    let probe = Spawn {
        programs: &[c"/"],
        argv: &argv,
        envp: &envp,
        cwd: c"/",
        stdio,
        cgroup,
        rlimits: &[],
        umask: 0,
        heeds_quota: false,
        confinement: None,
    };
    matches!(spawn(&probe), Err(SpawnError { step: Step::Exec, .. }))
}

fn step_of(number: i32) -> Option<Step> {
    let all = [Step::Clone, Step::Stdio, Step::Limit, Step::Cwd, Step::Exec, Step::Confine];
    all.into_iter().find(|step| *step as i32 == number)
}

/// Whether the kernel, or a seccomp profile, does not offer the call or one of its flags.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::EACCES))
}

fn vfork_into(shared: &Shared<'_>) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: i32 = -1;
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND;
    let mut args =
        CloneArgs { flags, pidfd: &raw mut pidfd as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = shared.spawn.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = std::os::fd::AsRawFd::as_raw_fd(&cgroup) as u64;
    }
    args.stack = child_stack()? as u64;
    args.stack_size = CHILD_STACK_BYTES as u64;
    // SAFETY: the child runs `child_entry` on the stack given, which nobody else uses: this thread is suspended until
    // the child has executed or ended, and then the child is off it.
    let pid = unsafe { clone3_call(&args, std::ptr::from_ref(shared).cast::<libc::c_void>().cast_mut()) };
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid as i32));
    }
    // SAFETY: the kernel has stored a new descriptor of ours in `pidfd`.
    Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Room for the child's few calls.
const CHILD_STACK_BYTES: usize = 64 * 1024;

thread_local! {
    /// The lowest address of this thread's stack for children; null until it is needed. A bare pointer, because a value
    /// with a destructor would make every worker write to pages of the dynamic linker.
    static CHILD_STACK: Cell<*mut libc::c_void> = const { Cell::new(std::ptr::null_mut()) };
}

/// This thread's stack for children, kept as long as the process lives. A mapping of its own, because its pages become
/// resident one by one as they are used; the allocator would write zeroes to all of them.
fn child_stack() -> io::Result<*mut libc::c_void> {
    let known = CHILD_STACK.get();
    if !known.is_null() {
        return Ok(known);
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at a place of the kernel's choice touches no memory that is in use.
    let new =
        unsafe { libc::mmap(std::ptr::null_mut(), CHILD_STACK_BYTES, protection, flags | libc::MAP_STACK, -1, 0) };
    if new == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    CHILD_STACK.set(new);
    Ok(new)
}

/// Calls clone3; the child calls `child_entry(shared)` on its own stack and never returns. Gives the pid, or minus the
/// error number.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3_call(args: &CloneArgs, shared: *mut libc::c_void) -> i64 {
    let result: i64;
    // SAFETY: the caller vouches for the stack in `args`; the child never comes back to this frame.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") shared,
            in("r13") child_entry as *const (),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone3_call(args: &CloneArgs, shared: *mut libc::c_void) -> i64 {
    let result: i64;
    // SAFETY: the caller vouches for the stack in `args`; the child never comes back to this frame.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_ref(args) => result,
            in("x1") size_of::<CloneArgs>(),
            in("x20") shared,
            in("x21") child_entry as *const (),
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3_call(_: &CloneArgs, _: *mut libc::c_void) -> i64 {
    -i64::from(libc::ENOSYS)
}

/// The child's life between clone and exec. Only async-signal-safe calls: the memory is the parent's.
extern "C" fn child_entry(shared: *mut libc::c_void) -> ! {
    // SAFETY: the parent passed a `Shared` that outlives the child's use of it, and is suspended meanwhile.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    let step = prepare(shared).unwrap_or_else(|| execute(shared.spawn) as i32);
    // SAFETY: as above, we alone write to the cell; `__errno_location` is the parent's, who is suspended.
    unsafe {
        *shared.failure.get() = (step, *libc::__errno_location());
        libc::_exit(127)
    }
}

/// All but the exec; the number of the step that failed, if one did.
fn prepare(shared: &Shared<'_>) -> Option<i32> {
    use std::os::fd::AsRawFd;
    let spawn = shared.spawn;
    // SAFETY: system calls on descriptors, paths and masks that the parent keeps valid; nothing allocates.
    unsafe {
        libc::setsid();
        if let Some(procs) = shared.join_cgroup {
            // Who was to live under the cgroup's limits does not live without.
            if libc::write(procs, c"0".as_ptr().cast(), 1) < 0 {
                return Some(Step::Clone as i32);
            }
        }
        for (target, source) in spawn.stdio.iter().enumerate() {
            if libc::dup2(source.as_raw_fd(), target as i32) < 0 {
                return Some(Step::Stdio as i32);
            }
        }
        // Everything of ours is close-on-exec already; this holds for what a library may have opened otherwise.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if let Some(failed) = confine(spawn, Confinement::enter_spaces) {
            return Some(failed);
        }
        libc::umask(spawn.umask as libc::mode_t);
        if !spawn.rlimits.iter().all(|limit| limit.apply()) {
            return Some(Step::Limit as i32);
        }
        // Another user could not take it from itself.
        if spawn.heeds_quota && !give_up_passing_quotas() {
            return Some(Step::Limit as i32);
        }
        if let Some(failed) = confine(spawn, Confinement::become_user) {
            return Some(failed);
        }
        if libc::chdir(spawn.cwd.as_ptr()) != 0 {
            return Some(Step::Cwd as i32);
        }
        // A hint only: the cgroup and the subreaper are what holds. After a change of user, which takes it away.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    confine(spawn, Confinement::give_up)
}

/// Takes one part of the confinement; the number of the step that failed, if one did.
fn confine(spawn: &Spawn<'_>, part: fn(&Confinement) -> Result<(), i32>) -> Option<i32> {
    let failed = spawn.confinement.map_or(Ok(()), part).err()?;
    Some(Step::Confine as i32 | failed << PART_SHIFT)
}

/// Sees to it that the program to be executed will not have `CAP_SYS_RESOURCE`, by which ext4 lets a process pass over
/// quotas; this process keeps it until then. Async-signal-safe; says whether the kernel took it.
fn give_up_passing_quotas() -> bool {
    /// The number of `CAP_SYS_RESOURCE`.
    const RESOURCE: libc::c_ulong = 24;
    // SAFETY: plain system calls on numbers.
    unsafe {
        let is_held = libc::prctl(libc::PR_CAPBSET_READ, RESOURCE, 0, 0, 0) == 1;
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_LOWER, RESOURCE, 0, 0);
        !is_held || libc::prctl(libc::PR_CAPBSET_DROP, RESOURCE, 0, 0, 0) == 0
    }
}

/// Executes the first program that exists; returns only on failure, with errno saying why.
fn execute(spawn: &Spawn<'_>) -> Step {
    let mut denied = false;
    for program in spawn.programs {
        // SAFETY: all three are NUL-terminated and live in the parent, which waits.
        let errno = unsafe {
            libc::execve(program.as_ptr(), spawn.argv.as_ptr(), spawn.envp.as_ptr());
            *libc::__errno_location()
        };
        match errno {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR => {}
            _ => return Step::Exec,
        }
    }
    // As execvp does: a file that may not be executed says more than one that does not exist. Of a single candidate
    // the kernel's own word stands.
    if spawn.programs.len() != 1 {
        // SAFETY: writes to this thread's errno.
        unsafe { *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT } };
    }
    Step::Exec
}

/// The way of old: fork, and the child itself joins the cgroup. For kernels and sandboxes that refuse clone3.
fn fork_fallback(spawn: &Spawn<'_>, shared: &Shared<'_>) -> io::Result<Child> {
    use std::os::fd::AsRawFd;
    let open =
        |leaf| nix::fcntl::openat(leaf, "cgroup.procs", nix::fcntl::OFlag::O_WRONLY, nix::sys::stat::Mode::empty());
    let procs = spawn.cgroup.map(open).transpose()?;
    let (reader, writer) = super::pipe::pipe()?;
    // SAFETY: the child calls only async-signal-safe functions before it executes or ends.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let own = Shared {
                spawn,
                join_cgroup: procs.as_ref().map(AsRawFd::as_raw_fd),
                failure: UnsafeCell::new((-1, 0)),
            };
            fork_child(&own, writer.as_raw_fd())
        }
        pid => {
            drop(writer);
            let pidfd = pidfd_open(pid)?;
            let mut told = [0_u8; 8];
            if nix::unistd::read(&reader, &mut told)? == told.len() {
                let (step, errno) = told.split_at(4);
                let number = |bytes: &[u8]| bytes.try_into().map_or(0, i32::from_ne_bytes);
                // SAFETY: after a fork the cell is ours alone.
                unsafe { *shared.failure.get() = (number(step), number(errno)) };
            }
            Ok(Child { pid, pidfd, in_cgroup: procs.is_some() })
        }
    }
}

fn fork_child(own: &Shared<'_>, writer: RawFd) -> ! {
    // SAFETY: plain system calls in a forked child; all that they point to was copied with the memory.
    unsafe {
        let kept = libc::fcntl(writer, libc::F_DUPFD_CLOEXEC, 3);
        let step = prepare(own).unwrap_or_else(|| execute(own.spawn) as i32);
        let mut told = [0_u8; 8];
        told[..4].copy_from_slice(&step.to_ne_bytes());
        told[4..].copy_from_slice(&(*libc::__errno_location()).to_ne_bytes());
        libc::write(kept, told.as_ptr().cast(), told.len());
        libc::_exit(127)
    }
}
