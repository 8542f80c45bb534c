//! The attributes of files that keep even root from removing them: immutable, append-only.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstatat};

/// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS` of <linux/fs.h>.
const GET_FLAGS: libc::Ioctl = 0x8008_6601_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_6602_u32 as libc::Ioctl;
/// `FS_IMMUTABLE_FL | FS_APPEND_FL`.
const FIXED: libc::c_int = 0x10 | 0x20;

/// Makes the directory, and what is called `name` in it, removable, as far as these attributes go and we may change
/// them. Says whether anything was changed. Only regular files and directories have them; nothing else is opened.
pub fn loosen(directory: impl AsFd, name: &CStr) -> bool {
    let mut changed = clear(directory.as_fd());
    let no_follow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let has_them = |stat: &FileStat| matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR);
    if fstatat(directory.as_fd(), name, no_follow).is_ok_and(|stat| has_them(&stat)) {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        changed |= openat(directory, name, flags, Mode::empty()).is_ok_and(clear);
    }
    changed
}

fn clear(file: impl AsFd) -> bool {
    let fd = file.as_fd().as_raw_fd();
    let mut flags: libc::c_int = 0;
    // SAFETY: whatever the numbers of the calls say, the kernel writes and reads an int.
    unsafe {
        libc::ioctl(fd, GET_FLAGS, &raw mut flags) == 0 && flags & FIXED != 0 && {
            flags &= !FIXED;
            libc::ioctl(fd, SET_FLAGS, &raw const flags) == 0
        }
    }
}
