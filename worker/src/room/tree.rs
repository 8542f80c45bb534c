//! Removes a directory tree that a task has left, whatever it is made of.
//!
//! Everything goes by directory descriptors: a symbolic link is removed and never followed, and a mount is taken away and
//! never entered. Attributes that forbid removal are cleared where we may. Depth costs neither stack nor descriptors: what lies deeper than [`LEVELS_MAX`] is moved
//! up to the top first. Deliberately absent: protection against processes that change the tree meanwhile beyond that
//! nothing outside it is ever touched; the tree's processes are dead by then.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::{attributes, mount};

/// The most directories of a tree that are open at once.
const LEVELS_MAX: usize = 32;
/// The most subdirectories of one directory that are remembered at once.
const PENDING_MAX: usize = 256;
/// The most names that are tried for a directory on its way up.
const NAMES_MAX: u32 = 1 << 20;

/// A directory that is being emptied.
struct Level {
    dir: Dir,
    /// Subdirectories that are not empty. The last one is the one that the next level is emptying, if there is one.
    pending: Vec<CString>,
}

/// Removes the directory at `path` and all that is in it. That there is none is no error.
///
/// # Errors
/// Something cannot be removed, and we may not change that: an immutable file, a mount, a directory of another user.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = CString::new(path.file_name().ok_or_else(invalid)?.as_encoded_bytes()).map_err(|_| invalid())?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match open(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(parent) => remove_tree_at(parent, &name),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes all that is in the folder at `path`, and leaves the folder itself, which may be a mount of the administrator's.
/// That there is none is no error.
///
/// # Errors
/// As for [`remove_tree`]; what can be removed is, all the same.
pub fn empty_folder(path: &Path) -> io::Result<()> {
    let mut folder = match Dir::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened?,
    };
    let names: Vec<CString> = folder.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    let entries = names.iter().filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..");
    // One that stays must not keep the others.
    let removed: Vec<io::Result<()>> = entries.map(|name| remove_tree_at(&folder, name)).collect();
    removed.into_iter().collect()
}

/// Removes whatever is called `name` in the directory `parent`: a file, a link, or a directory with all that is in
/// it. That there is nothing is no error.
///
/// # Errors
/// As for [`remove_tree`].
pub fn remove_tree_at(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    match remove_at(parent.as_fd(), name) {
        // Looked for only now, because hardly any task mounts anything, and the list of all mounts may be long.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EXDEV)) => {
            let folder = std::fs::read_link(format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd()))?;
            match mount::detach_below(&folder.join(std::ffi::OsStr::from_bytes(name.to_bytes()))) {
                Ok(count) if count > 0 => remove_at(parent.as_fd(), name),
                Ok(_) | Err(_) => Err(error),
            }
        }
        removed => removed,
    }
}

fn remove_at(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    if remove_one(parent.as_fd(), name, None)? {
        return Ok(());
    }
    let top = open_dir(parent.as_fd(), name)?;
    empty_dir(Dir::from_fd(top)?)?;
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

/// Removes all that is in a directory, and leaves the directory itself.
///
/// # Errors
/// As for [`remove_tree`].
pub(super) fn empty_dir(top: Dir) -> io::Result<()> {
    let mut levels = vec![Level { dir: top, pending: Vec::new() }];
    let mut moved = 0;
    while let Some(level) = levels.last_mut() {
        if level.pending.is_empty() {
            level.pending = sweep(&mut level.dir)?;
        }
        let Some(name) = level.pending.last() else {
            // Nothing is left here. The level above removes the empty directory.
            levels.pop();
            if let Some(above) = levels.last_mut()
                && let Some(name) = above.pending.pop()
            {
                unlinkat(&above.dir, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
            }
            continue;
        };
        let child = open_dir(level.dir.as_fd(), name)?;
        if levels.len() < LEVELS_MAX {
            levels.push(Level { dir: Dir::from_fd(child)?, pending: Vec::new() });
        } else {
            drop(child);
            move_up(&mut levels, &mut moved)?;
        }
    }
    Ok(())
}

/// Removes what can be removed at once, and returns some of the subdirectories that are not empty. An empty answer
/// means that nothing is left.
fn sweep(dir: &mut Dir) -> io::Result<Vec<CString>> {
    loop {
        let mut removed = false;
        let mut full = Vec::new();
        // The descriptor is the directory's own; a copy of it serves while the iterator borrows the directory.
        let fd = dir.as_fd().try_clone_to_owned()?;
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if remove_one(&fd, name, entry.file_type())? {
                removed = true;
            } else {
                full.push(name.to_owned());
                if full.len() == PENDING_MAX {
                    break;
                }
            }
        }
        // While entries vanish a directory may show only some of those that stay, so an answer of 'nothing left' is
        // believed only of a pass that removed nothing.
        if !full.is_empty() || !removed {
            return Ok(full);
        }
    }
}

/// Removes one entry. False: it is a directory that is not empty, and now one that may be entered.
fn remove_one(dir: impl AsFd, name: &CStr, kind: Option<Type>) -> io::Result<bool> {
    let is_dir = match kind {
        Some(Type::Directory) => true,
        Some(Type::Fifo | Type::CharacterDevice | Type::BlockDevice | Type::File | Type::Symlink | Type::Socket) => {
            false
        }
        None => match fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
            Err(Errno::ENOENT) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        },
    };
    let flag = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    let unlink = || unlinkat(dir.as_fd(), name, flag);
    let unlinked = match unlink() {
        Err(Errno::EPERM) if attributes::loosen(dir.as_fd(), name) => unlink(),
        unlinked => unlinked,
    };
    match unlinked {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) if is_dir => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a subdirectory and sees to it that its owner may read and change it.
fn open_dir(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = match open_here(parent.as_fd(), name, flags) {
        Err(Errno::EACCES) => {
            // Without read permission only a path descriptor can be had, and only by its name in /proc can its mode
            // be changed on every kernel. It names the directory itself, so no link is followed.
            let path = open_here(parent.as_fd(), name, flags | OFlag::O_PATH)?;
            let proc = format!("/proc/self/fd/{}", path.as_raw_fd());
            fchmodat(parent.as_fd(), proc.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            open_here(parent.as_fd(), name, flags)?
        }
        opened => opened?,
    };
    if fstat(&fd)?.st_mode & libc::S_IRWXU != libc::S_IRWXU {
        fchmod(&fd, Mode::S_IRWXU)?;
    }
    Ok(fd)
}

/// `openat` that refuses to cross into another mount. An old kernel, or a seccomp profile that does not know the call,
/// leaves the comparison of devices.
pub(super) fn open_here(parent: impl AsFd, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(parent.as_fd(), name, how) {
        Err(Errno::ENOSYS | Errno::EPERM) => {}
        opened => return opened,
    }
    let fd = openat(parent.as_fd(), name, flags, Mode::empty())?;
    if fstat(&fd)?.st_dev != fstat(parent)?.st_dev {
        return Err(Errno::EXDEV);
    }
    Ok(fd)
}

/// Moves the directory that is due in the deepest level up to the top, where a later pass finds it.
fn move_up(levels: &mut [Level], moved: &mut u32) -> io::Result<()> {
    let Some((deepest, above)) = levels.split_last_mut() else { return Ok(()) };
    let (Some(top), Some(name)) = (above.first(), deepest.pending.pop()) else { return Ok(()) };
    while *moved < NAMES_MAX {
        *moved += 1;
        let target = CString::new(format!(".moved-up-{moved}"))?;
        match renameat(&deepest.dir, name.as_c_str(), &top.dir, target.as_c_str()) {
            Ok(()) => return Ok(()),
            Err(Errno::EPERM) if attributes::loosen(&deepest.dir, &name) => {}
            // The task has something of this name there.
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::other("no name is left for a deep directory"))
}
