//! What this kernel can do beyond what every supported one can, found out without changing anything.
//!
//! Each probe calls with arguments that cannot succeed, and tells by the refusal whether the call is there.
//! Deliberately absent: what follows from it.

use std::io::Error;

/// What follows the name of a call in the probe: an error for which the kernel has looked at its arguments.
fn is_there(result: i64) -> bool {
    result >= 0 || !matches!(Error::last_os_error().raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES))
}

/// Whether `clone3` can be called: a container's filter may say that it cannot.
pub fn has_clone3() -> bool {
    // SAFETY: a size of zero is refused before anything is read; nothing is made.
    is_there(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0) })
}

/// Whether processes can be held by descriptors (Linux 5.3).
pub fn has_pidfd() -> bool {
    // SAFETY: no process has this number; no memory is handed over.
    is_there(unsafe { libc::syscall(libc::SYS_pidfd_open, -1, 0) })
}

/// Whether paths can be resolved inside a directory only (Linux 5.6).
pub fn has_openat2() -> bool {
    // SAFETY: a size of zero is refused before anything is read; nothing is opened.
    is_there(unsafe { libc::syscall(libc::SYS_openat2, -1, std::ptr::null::<u8>(), std::ptr::null::<u8>(), 0) })
}

/// Whether filters of system calls can be installed.
pub fn has_seccomp() -> bool {
    const GET_ACTION_AVAIL: u32 = 2;
    const KILL_PROCESS: u32 = 0x8000_0000;
    let action = KILL_PROCESS;
    // SAFETY: the kernel reads one number, which lives as long as the call.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acode_itself_needs_is_there() {
        assert!(has_pidfd(), "workers are held by pidfds");
        // These depend on the host; that they answer is what is looked at.
        let _ = (has_clone3(), has_openat2(), has_seccomp());
    }
}
