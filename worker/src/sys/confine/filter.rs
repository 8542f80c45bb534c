//! A filter of system calls (seccomp) that keeps a confined process from what would undo its confinement, and from
//! those parts of the kernel that a task has no business with.
//!
//! It is a list of what is refused, with an error and never with a kill, so that programs that merely try go on. What is
//! refused is refused in every personality: calls of a foreign architecture, 32-bit ones and x32 are refused whole.
//! Deliberately absent: arguments behind pointers, which a filter cannot see; calls that take those are refused whole or
//! answered with 'no such call', so that libraries fall back to the older call whose arguments can be seen.

use std::io;

/// `struct seccomp_data`: the call's number, its architecture, and the arguments, 64 bits each.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
const AT_ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
#[cfg(target_arch = "x86_64")]
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
/// No filter is made for other architectures.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: u32 = 0;
/// The bit that marks a call of the x32 personality.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// The flags of clone and unshare that make namespaces, without that of times, which shares its bit with a signal.
const NEW_NAMESPACES: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
const NEW_TIME: u32 = 0x80;

/// What is refused in every sandbox.
const REFUSED: &[i64] = &[
    // Other kernels and other code in this one.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Keys, which do not know of namespaces.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The file system as the sandbox has laid it out, and ways around it.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    // Other processes.
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    SYS_PROCESS_MADVISE,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// What does as if the kernel had no such call: libraries then take the older one.
const UNKNOWN: &[i64] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// libc lacks it for some architectures; the number is the same on all.
const SYS_PROCESS_MADVISE: i64 = 440;
const SYS_QUOTACTL_FD: i64 = 443;

/// Which sockets a filter refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sockets {
    /// None.
    #[default]
    Allowed,
    /// Unix sockets: what listens on this machine by a path.
    NoUnix,
    /// All.
    Refused,
}

/// What a filter refuses beside what every one does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Sockets that cannot be made; pairs of them always can.
    pub sockets: Sockets,
    /// Tracing of processes: for where nothing else keeps it to one's own.
    pub no_tracing: bool,
    /// Signals to these processes and to everybody at once: for where nothing else keeps signals to one's own.
    pub no_signals_to: Vec<i32>,
    /// Changes of how these processes are scheduled.
    pub untouchable: Vec<i32>,
}

/// A filter, ready to be entered.
#[derive(Debug, Clone)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Filter {
    /// Makes a filter.
    ///
    /// # Errors
    /// The numbers of calls are not known for this architecture.
    pub fn new(wanted: &Wanted) -> io::Result<Self> {
        if ARCH == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let mut filter = Self { program: Vec::with_capacity(256) };
        filter.op(LOAD, AT_ARCH, 0, 0);
        filter.op(EQUAL, ARCH, 1, 0);
        filter.refuse(libc::EPERM);
        filter.op(LOAD, AT_NUMBER, 0, 0);
        #[cfg(target_arch = "x86_64")]
        {
            filter.op(AT_LEAST, X32, 0, 1);
            filter.refuse(libc::ENOSYS);
        }
        for call in REFUSED.iter().chain(&[SYS_QUOTACTL_FD]) {
            filter.call(*call, libc::EPERM);
        }
        for call in UNKNOWN {
            filter.call(*call, libc::ENOSYS);
        }
        filter.call_with(libc::SYS_unshare, 0, ANY_BIT, &[NEW_NAMESPACES | NEW_TIME]);
        filter.call_with(libc::SYS_clone, 0, ANY_BIT, &[NEW_NAMESPACES]);
        // Pushing characters into a terminal that is shared with others.
        filter.call_with(libc::SYS_ioctl, 1, EQUAL, &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32]);
        filter.processes(wanted);
        match wanted.sockets {
            Sockets::Allowed => {}
            Sockets::NoUnix => filter.call_with(libc::SYS_socket, 0, EQUAL, &[libc::AF_UNIX.cast_unsigned()]),
            Sockets::Refused => filter.call(libc::SYS_socket, libc::EPERM),
        }
        filter.allow();
        Ok(filter)
    }

    /// Refuses what is done to others by their number.
    fn processes(&mut self, wanted: &Wanted) {
        // Limits of others: whoever may set them may end them by one. Zero is oneself.
        self.op(EQUAL, libc::SYS_prlimit64 as u32, 0, 4);
        self.op(LOAD, AT_ARGUMENTS, 0, 0);
        self.op(EQUAL, 0, 1, 0);
        self.refuse(libc::EPERM);
        self.allow();
        if wanted.no_tracing {
            self.call(libc::SYS_ptrace, libc::EPERM);
        }
        let numbers = |pids: &[i32]| pids.iter().map(|pid| pid.cast_unsigned()).collect::<Vec<_>>();
        if !wanted.no_signals_to.is_empty() {
            // By a descriptor nobody can see whom it means.
            self.call(libc::SYS_pidfd_send_signal, libc::ENOSYS);
            let mut targets = numbers(&wanted.no_signals_to);
            targets.extend(wanted.no_signals_to.iter().map(|pid| pid.wrapping_neg().cast_unsigned()));
            targets.push((-1_i32).cast_unsigned());
            for call in [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, SYS_SIGQUEUE, SYS_TGSIGQUEUE] {
                self.call_with(call, 0, EQUAL, &targets);
            }
        }
        if !wanted.untouchable.is_empty() {
            let targets = numbers(&wanted.untouchable);
            for call in [
                libc::SYS_sched_setaffinity,
                libc::SYS_sched_setscheduler,
                libc::SYS_sched_setparam,
                libc::SYS_sched_setattr,
            ] {
                self.call_with(call, 0, EQUAL, &targets);
            }
            for call in [libc::SYS_setpriority, libc::SYS_ioprio_set] {
                self.call_with(call, 1, EQUAL, &targets);
            }
        }
    }

    fn op(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.program.push(libc::sock_filter { code, jt, jf, k });
    }

    fn refuse(&mut self, errno: i32) {
        self.op(ANSWER, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), 0, 0);
    }

    fn allow(&mut self) {
        self.op(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0);
    }

    /// Refuses a call, whatever its arguments.
    fn call(&mut self, number: i64, errno: i32) {
        self.op(EQUAL, number as u32, 0, 1);
        self.refuse(errno);
    }

    /// Refuses a call whose argument, of which the lower half is looked at, passes `test` against one of `values`.
    fn call_with(&mut self, number: i64, argument: u32, test: u16, values: &[u32]) {
        // Each value takes two instructions; the load and the final answer one each.
        let length = u8::try_from(values.len() * 2 + 2).unwrap_or(u8::MAX);
        self.op(EQUAL, number as u32, 0, length);
        self.op(LOAD, AT_ARGUMENTS + argument * 8, 0, 0);
        for value in values {
            self.op(test, *value, 0, 1);
            self.refuse(libc::EPERM);
        }
        self.allow();
    }

    /// Puts the calling process under the filter, for good. Async-signal-safe; needs `no_new_privs`.
    pub(super) fn enter(&self) -> bool {
        let program = libc::sock_fprog { len: self.program.len() as u16, filter: self.program.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program, which lives in the parent that waits; only the caller is restricted.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) == 0 }
    }
}

const SYS_SIGQUEUE: i64 = libc::SYS_rt_sigqueueinfo;
const SYS_TGSIGQUEUE: i64 = libc::SYS_rt_tgsigqueueinfo;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, by the rules of the kernel's classic BPF.
    fn run(filter: &Filter, arch: u32, number: i64, arguments: [u64; 6]) -> u32 {
        let mut data = [0_u32; 16];
        (data[0], data[1]) = (number as u32, arch);
        for (at, argument) in arguments.iter().enumerate() {
            (data[4 + at * 2], data[5 + at * 2]) = (*argument as u32, (*argument >> 32) as u32);
        }
        let (mut at, mut loaded) = (0, 0);
        loop {
            let op = filter.program[at];
            let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
            at += 1;
            match op.code {
                LOAD => loaded = data[op.k as usize / 4],
                EQUAL => at += jump(loaded == op.k),
                ANY_BIT => at += jump(loaded & op.k != 0),
                #[cfg(target_arch = "x86_64")]
                AT_LEAST => at += jump(loaded >= op.k),
                ANSWER => return op.k,
                other => panic!("instruction {other}"),
            }
        }
    }

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn what_undoes_a_sandbox_is_refused_and_the_rest_is_not() {
        let filter = Filter::new(&Wanted::default()).unwrap();
        let answer = |number, first| run(&filter, ARCH, number, [first, 0, 0, 0, 0, 0]);
        for call in REFUSED {
            assert_eq!(answer(*call, 0), EPERM, "call {call}");
        }
        for call in UNKNOWN {
            assert_eq!(answer(*call, 0), ENOSYS, "call {call}");
        }
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_socket, libc::SYS_kill, libc::SYS_ptrace] {
            assert_eq!(answer(call, 0), ALLOWED, "call {call}");
        }
        assert_eq!(answer(libc::SYS_unshare, 0x1000_0000), EPERM);
        assert_eq!(answer(libc::SYS_unshare, 0x200), ALLOWED, "an open file table of its own");
        assert_eq!(answer(libc::SYS_clone, 0x1000_0000 | 17), EPERM);
        assert_eq!(answer(libc::SYS_clone, 17), ALLOWED, "a fork");
        assert_eq!(answer(libc::SYS_prlimit64, 0), ALLOWED);
        assert_eq!(answer(libc::SYS_prlimit64, 77), EPERM);
    }

    #[test]
    fn a_foreign_personality_gets_nothing() {
        let filter = Filter::new(&Wanted::default()).unwrap();
        assert_eq!(run(&filter, ARCH ^ 0x8000_0000, 1, [0; 6]), EPERM);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(&filter, ARCH, libc::SYS_mount | i64::from(X32), [0; 6]), ENOSYS);
    }

    #[test]
    fn what_was_wanted_is_refused_on_top() {
        let wanted =
            Wanted { sockets: Sockets::Refused, no_tracing: true, no_signals_to: vec![70, 71], untouchable: vec![70] };
        let filter = Filter::new(&wanted).unwrap();
        let answer = |number, first: i64, second: u64| run(&filter, ARCH, number, [first as u64, second, 0, 0, 0, 0]);
        assert_eq!((answer(libc::SYS_socket, 2, 0), answer(libc::SYS_socketpair, 1, 0)), (EPERM, ALLOWED));
        assert_eq!(answer(libc::SYS_ptrace, 16, 0), EPERM);
        for target in [70, 71, -70, -71, -1] {
            assert_eq!(answer(libc::SYS_kill, target, 9), EPERM, "kill {target}");
        }
        assert_eq!((answer(libc::SYS_kill, 72, 9), answer(libc::SYS_kill, 0, 9)), (ALLOWED, ALLOWED));
        assert_eq!((answer(libc::SYS_setpriority, 0, 70), answer(libc::SYS_setpriority, 0, 71)), (EPERM, ALLOWED));
    }
}
