//! Signal dispositions and masks of the calling process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

/// The size of the kernel's set of signals, in bytes.
const SIGSET_BYTES: usize = 8;

/// Gives every signal its default disposition and unblocks all but SIGPIPE and SIGXFSZ, which stay blocked so that a
/// write to a closed pipe, or beyond a size limit, is an error and not a death. A task inherits the dispositions; its own mask is emptied before exec.
///
/// # Errors
/// What `sigprocmask` says.
pub fn reset() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // The system call itself, since glibc refuses to touch the two real-time signals that it keeps to itself, and
        // an ancestor may have ignored them. SIGKILL and SIGSTOP cannot be set; they are at their defaults already.
        // SAFETY: all zeroes is SIG_DFL, which installs no handler, so no code of ours can run in signal context. The
        // buffer is larger than the kernel's structure on any architecture.
        unsafe {
            let default = [0_u64; 8];
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), none, SIGSET_BYTES);
        }
    }
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGPIPE);
    blocked.add(Signal::SIGXFSZ);
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?)
}

/// Signals that are only taken note of from the call of [`note`] on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Noted {
    /// SIGTERM.
    Term = 0,
    /// SIGUSR1.
    User = 1,
}

/// Which of them have come.
static NOTED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

impl Noted {
    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::SIGTERM,
            Self::User => Signal::SIGUSR1,
        }
    }

    /// Whether it has come.
    pub fn has_come(self) -> bool {
        NOTED[self as usize].load(Ordering::Relaxed)
    }
}

/// Has this process take note of SIGTERM and SIGUSR1 instead of dying by them. Calls that they interrupt go on.
///
/// # Errors
/// What `sigaction` says.
pub fn note() -> io::Result<()> {
    extern "C" fn take(number: i32) {
        for noted in [Noted::Term, Noted::User] {
            if noted.signal() as i32 == number {
                NOTED[noted as usize].store(true, Ordering::Relaxed);
            }
        }
    }
    let action = SigAction::new(SigHandler::Handler(take), SaFlags::SA_RESTART, SigSet::empty());
    for noted in [Noted::Term, Noted::User] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { sigaction(noted.signal(), &action) }?;
    }
    Ok(())
}

/// Ends this process by SIGTERM, as it would have ended had it taken no note of it.
pub fn end_by_term() -> ! {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { sigaction(Signal::SIGTERM, &default) };
    let _ = nix::sys::signal::raise(Signal::SIGTERM);
    // Somebody has blocked it.
    super::process::exit_now(128 + Signal::SIGTERM as i32)
}
