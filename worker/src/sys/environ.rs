//! The process's own environment, as far as something is to go from it for good.
//!
//! What a service manager hands to a supervisor is for that alone: neither the nursery and the workers, who are forked
//! off it, nor a task may inherit it. Deliberately absent: setting anything.

use std::ffi::{CString, OsString};

/// Takes a variable out of the environment of this process, and gives what it was. Its value is wiped as well from the
/// place where the kernel put it, which /proc shows of this process and of all that are forked off it.
///
/// The calling process must have one thread.
pub fn take(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    let c_name = CString::new(name).ok()?;
    // SAFETY: the caller has one thread, so nobody changes the environment between getenv and the writing, and nobody
    // holds a reference into it: std copies what it reads. What getenv gives ends at its NUL, and is writable memory, be it
    // the kernel's stack area or the heap.
    unsafe {
        let place = libc::getenv(c_name.as_ptr());
        if !place.is_null() {
            std::ptr::write_bytes(place, 0, libc::strlen(place));
        }
    }
    // SAFETY: the caller has one thread.
    unsafe { std::env::remove_var(name) };
    Some(value)
}
