//! The entries of a directory, with a place to go on from, and what each of them takes on the disk.
//!
//! What `nix::dir` has not: positions to come back to with another descriptor, and whether an entry is the root of a
//! mount. Deliberately absent: going down.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One buffer of directory entries, in bytes: some two hundred names.
const BUFFER: usize = 8 * 1024;
/// Where a name begins in `struct linux_dirent64`.
const NAME: usize = 19;

/// An entry's name, and the position behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name; never `.` or `..`.
    pub name: CString,
    /// Where the next entry is.
    pub next: i64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The device that it lies on.
    pub device: (u32, u32),
    /// Its inode number.
    pub inode: u64,
    /// How many names it has.
    pub links: u32,
    /// Bytes on the disk: those of holes do not count.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether something is mounted on it.
    pub is_mount: bool,
}

/// The entries of the directory from `position` on, 0 at first, as many as come at once; none at the end. The
/// position of the last one says where to go on.
///
/// # Errors
/// What the kernel says.
pub fn list(directory: impl AsFd, position: i64) -> io::Result<Vec<Entry>> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: a plain system call.
    if unsafe { libc::lseek64(fd, position, libc::SEEK_SET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut entries = Vec::new();
    loop {
        let mut buffer = [0_u8; BUFFER];
        // SAFETY: the kernel writes at most so many bytes to the buffer.
        let length = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
        let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
        read(&buffer[..length.min(BUFFER)], &mut entries);
        // A buffer may hold nothing but the two that are left out.
        if length == 0 || !entries.is_empty() {
            return Ok(entries);
        }
    }
}

fn read(mut buffer: &[u8], entries: &mut Vec<Entry>) {
    let array = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_ne_bytes);
    while buffer.len() > NAME {
        let next = array(&buffer[8..16]);
        let length = usize::from(u16::from_ne_bytes([buffer[16], buffer[17]])).clamp(NAME, buffer.len());
        let (record, rest) = buffer.split_at(length);
        if let Ok(name) = CStr::from_bytes_until_nul(&record[NAME..])
            && name != c"."
            && name != c".."
        {
            entries.push(Entry { name: name.to_owned(), next });
        }
        buffer = rest;
    }
}

/// What is called `name` in the directory; the directory itself if the name is empty. No link is followed.
///
/// # Errors
/// What the kernel says.
pub fn look(directory: impl AsFd, name: &CStr) -> io::Result<Facts> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    facts(directory.as_fd().as_raw_fd(), name, flags)
}

/// What is behind a link of `/proc/<pid>/fd`.
///
/// # Errors
/// What the kernel says.
pub fn look_behind(path: &CStr) -> io::Result<Facts> {
    facts(libc::AT_FDCWD, path, 0)
}

fn facts(directory: i32, name: &CStr, flags: i32) -> io::Result<Facts> {
    // SAFETY: all zeroes is a valid `statx`, which the kernel writes to.
    let (result, found) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let mask = libc::STATX_BASIC_STATS;
        (libc::statx(directory, name.as_ptr(), flags, mask, &raw mut found), found)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Facts {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        links: found.stx_nlink,
        bytes: found.stx_blocks.saturating_mul(512),
        is_dir: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR,
        is_mount: found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_once_whoever_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..1_000 {
            std::fs::write(folder.path().join(format!("file-{number}")), "").unwrap();
        }
        let (mut names, mut position) = (Vec::new(), 0);
        loop {
            let directory = std::fs::File::open(folder.path()).unwrap();
            let entries = list(&directory, position).unwrap();
            let Some(last) = entries.last() else { break };
            position = last.next;
            names.extend(entries.into_iter().map(|entry| entry.name));
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 1_000);
    }

    #[test]
    fn holes_do_not_count_and_mounts_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let sparse = look(&directory, c"sparse").unwrap();
        assert!(sparse.bytes < 1 << 20 && !sparse.is_dir && !sparse.is_mount && sparse.links == 1);
        assert!(look(&directory, c"").unwrap().is_dir);
        let root = std::fs::File::open("/").unwrap();
        assert!(look(&root, c"proc").unwrap().is_mount);
    }
}
