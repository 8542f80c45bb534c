//! Signal dispositions and masks of the calling process.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

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
