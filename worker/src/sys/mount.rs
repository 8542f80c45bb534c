//! Mounts: making and taking away, a view of one's own, and what is mounted below a place.
//!
//! Deliberately absent: what is mounted, and why.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The most mounts below one place that are taken away.
const DETACH_MAX: usize = 4_096;
/// The number of `CAP_SYS_ADMIN`.
const SYS_ADMIN: u32 = 21;

/// Whether this process may mount, as far as its capabilities go.
pub fn is_privileged() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    held.is_some_and(|held| held & 1 << SYS_ADMIN != 0)
}

/// Gives the calling process, which must have one thread, a view of the file system of its own: it sees what the host
/// mounts, the host does not see what it mounts, and that goes with its last process.
///
/// # Errors
/// What the kernel says.
pub fn enter_private_view() -> io::Result<()> {
    // SAFETY: a plain system call; the caller has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let null = std::ptr::null();
    // SAFETY: the target is NUL-terminated, and the rest is ignored for a change of propagation.
    check(unsafe { libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_SLAVE, null.cast()) })
}

/// Mounts `source` at `target`, without set-user-id programs and devices.
///
/// # Errors
/// What the kernel says.
pub fn mount(source: &CStr, target: &Path, kind: &CStr, options: &str) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOATIME;
    let (source, kind, options) = (source.as_ptr(), kind.as_ptr(), options.as_ptr());
    // SAFETY: all four are NUL-terminated.
    check(unsafe { libc::mount(source, target.as_ptr(), kind, flags, options.cast()) })
}

/// Takes away the mount whose root this is; what still uses it keeps it alive for itself.
///
/// # Errors
/// What the kernel says.
pub fn detach(root: impl AsFd) -> io::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()))?;
    // SAFETY: the path is NUL-terminated; it leads to the descriptor's own place, whatever is called what.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
}

/// Takes away all that is mounted at `place` and below it, the latest first; no symbolic link is followed. Gives how
/// many there were.
///
/// # Errors
/// What the kernel says.
pub fn detach_below(place: &Path) -> io::Result<usize> {
    let mut mounts = below(place)?;
    mounts.truncate(DETACH_MAX);
    for mount in mounts.iter().rev() {
        let path = CString::new(mount.as_os_str().as_bytes())?;
        // SAFETY: the path is NUL-terminated.
        match check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
            // It went with another one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {}
            done => done?,
        }
    }
    Ok(mounts.len())
}

/// Where something is mounted at `place` or below it, in the order of mounting.
///
/// # Errors
/// The list cannot be read.
pub fn below(place: &Path) -> io::Result<Vec<PathBuf>> {
    let list = std::fs::read("/proc/self/mountinfo")?;
    let points = list.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(unescape).filter(|point| point.starts_with(place)).collect())
}

/// A path as the list of mounts has it: space, tab, newline and backslash are octal numbers there.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = &tail[3..];
            }
            None => {
                path.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_were_meant() {
        assert_eq!(unescape(br"/a\040b\134\011c"), Path::new("/a b\\\tc"));
        assert_eq!(unescape(br"/plain\9x"), Path::new(r"/plain\9x"));
    }

    #[test]
    fn only_what_is_below_is_found() {
        assert!(below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(below(Path::new("/pro")).unwrap().is_empty());
    }
}
