//! Project quotas of ext4 and XFS: a number on a directory that all below inherits, with a limit and a count.
//!
//! By `quotactl_fd` (Linux 5.14), so that no block device has to be found. Deliberately absent: which numbers are used.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `PRJQUOTA` of <linux/quota.h>: the kind of quota that goes by project.
const PROJECT: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_GETNEXTQUOTA: u32 = 0x80_0009;
/// `XQM_CMD(5)`: what is accounted and enforced, on any file system.
const Q_XGETQSTAT: u32 = 0x5805;
/// `FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD`: projects are counted, and held.
const PROJECTS_HELD: u16 = 0x10 | 0x20;
/// `QIF_BLIMITS | QIF_ILIMITS`: the limits of the request count, and nothing else.
const LIMITS: u32 = 1 | 4;
/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` of <linux/fs.h>.
const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const SET_ATTRIBUTES: libc::Ioctl = 0x401c_5820_u32 as libc::Ioctl;
/// `FS_XFLAG_PROJINHERIT`: what is made below gets the same project.
const INHERIT: u32 = 0x200;
/// The unit of `hard_blocks`, in bytes.
const BLOCK: u64 = 1024;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_nextdqblk`, of which `struct if_dqblk` is all but the last member.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_files: u64,
    soft_files: u64,
    files: u64,
    block_time: u64,
    file_time: u64,
    valid: u32,
    id: u32,
}

/// `struct fs_quota_stat`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct State {
    version: i8,
    flags: u16,
    padding: i8,
    files: [Counted; 2],
    in_core: u32,
    times: [i32; 3],
    warnings: [u16; 2],
}

/// `struct fs_qfilestat`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    inode: u64,
    blocks: u64,
    extents: u32,
}

/// What a project uses, and what it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Project {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
    /// The most bytes; 0 is no limit. The kernel counts them in KiB.
    pub max_bytes: u64,
    /// The most inodes; 0 is no limit.
    pub max_files: u64,
}

/// Whether the file system of `folder` counts projects and holds them to their limits.
///
/// # Errors
/// What the kernel says: it has no quotas, the file system has none, or the call is not there.
pub fn is_held(folder: impl AsFd) -> io::Result<bool> {
    let mut state = State { version: 1, ..State::default() };
    // SAFETY: the kernel writes one `State` to it.
    unsafe { call(folder, Q_XGETQSTAT, 0, (&raw mut state).cast())? };
    Ok(state.flags & PROJECTS_HELD == PROJECTS_HELD)
}

/// What project `id` uses and may use.
///
/// # Errors
/// What the kernel says.
pub fn read(folder: impl AsFd, id: u32) -> io::Result<Project> {
    let mut record = Record::default();
    // SAFETY: the kernel writes one `struct if_dqblk`, which is shorter than a `Record`.
    match unsafe { call(folder, Q_GETQUOTA, id, (&raw mut record).cast()) } {
        // XFS says that of a project that it has never heard of.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Project::default()),
        read => read.map(|()| project(&record)),
    }
}

/// The first project from `id` on that uses or may use anything; `None` if there is none.
///
/// # Errors
/// What the kernel says.
pub fn next(folder: impl AsFd, id: u32) -> io::Result<Option<(u32, Project)>> {
    let mut record = Record::default();
    // SAFETY: the kernel writes one `Record`.
    match unsafe { call(folder, Q_GETNEXTQUOTA, id, (&raw mut record).cast()) } {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        read => read.map(|()| Some((record.id, project(&record)))),
    }
}

/// Sets the hard limits of project `id`, in bytes and in inodes; 0 is none.
///
/// # Errors
/// What the kernel says.
pub fn limit(folder: impl AsFd, id: u32, max_bytes: u64, max_files: u64) -> io::Result<()> {
    let hard_blocks = max_bytes.div_ceil(BLOCK);
    let mut record = Record { hard_blocks, hard_files: max_files, valid: LIMITS, ..Record::default() };
    // SAFETY: the kernel reads one `struct if_dqblk`, which is shorter than a `Record`.
    unsafe { call(folder, Q_SETQUOTA, id, (&raw mut record).cast()) }
}

/// Gives `folder`, and all that will be made in it, to project `id`.
///
/// # Errors
/// What the kernel says.
pub fn assign(folder: impl AsFd, id: u32) -> io::Result<()> {
    let mut attributes = Attributes::default();
    let fd = folder.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one `Attributes` to it.
    if unsafe { libc::ioctl(fd, GET_ATTRIBUTES, &raw mut attributes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.project = id;
    attributes.flags |= INHERIT;
    // SAFETY: the kernel reads one `Attributes` from it.
    if unsafe { libc::ioctl(fd, SET_ATTRIBUTES, &raw const attributes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn project(record: &Record) -> Project {
    Project {
        bytes: record.bytes,
        files: record.files,
        max_bytes: record.hard_blocks.saturating_mul(BLOCK),
        max_files: record.hard_files,
    }
}

/// `quotactl_fd` for project quotas.
///
/// # Safety
/// `place` must be what `command` reads or writes.
unsafe fn call(folder: impl AsFd, command: u32, id: u32, place: *mut libc::c_void) -> io::Result<()> {
    let fd = folder.as_fd().as_raw_fd();
    // `QCMD` of <linux/quota.h>.
    let command = command << 8 | PROJECT;
    // SAFETY: the caller vouches for the place.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd, command, id, place) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Attributes>(), 28);
        assert_eq!(size_of::<Record>(), 72);
        assert_eq!(size_of::<State>(), 80);
    }
}
