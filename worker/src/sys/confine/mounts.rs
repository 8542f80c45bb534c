//! A view of the file system of its own, laid out by a list of steps that was written beforehand.
//!
//! The child between clone and exec walks through the list: system calls on texts that the parent keeps, nothing else.
//! Parts of the old view are taken first, as clones of their mounts, and put into the new one afterwards, so that it
//! does not matter what is covered in between. Deliberately absent: which parts those are.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

/// The most parts that one list may take.
pub const PARTS_MAX: usize = 96;

const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;

/// The kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// One step. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// From here on no mount comes from outside, and none goes there.
    Detach,
    /// Takes a clone of what is at a path, with all that is mounted below, as the next part.
    Take(CString),
    /// Makes the part with this number read-only, with all below.
    SealPart(usize),
    /// Makes all that is mounted at a path and below read-only.
    SealTree(CString),
    /// Makes what is mounted at a path read-only.
    Seal(CString),
    /// Mounts an empty file system in memory, with these options.
    Memory(CString, CString),
    /// Makes a directory of this mode; there may be one.
    Directory(CString, u32),
    /// Makes an empty file; there may be one.
    File(CString),
    /// Makes a symbolic link: its content, its place.
    Link(CString, CString),
    /// Puts the part with this number at a path.
    Put(usize, CString),
    /// Mounts a file system of this kind, with these options.
    Kernel(CString, &'static CStr, &'static CStr),
    /// What is mounted at a path becomes the root, and the old root is gone.
    Root(CString),
}

/// The parts that are taken; their descriptors close themselves when the child executes.
type Parts = [RawFd; PARTS_MAX];

/// Walks through the steps. The number of the one that failed, with errno saying why. Async-signal-safe.
pub(super) fn walk(steps: &[Step]) -> Result<(), usize> {
    let mut parts: Parts = [-1; PARTS_MAX];
    let mut taken = 0;
    // Modes are said outright.
    // SAFETY: a plain system call; the mask is this process' own.
    unsafe { libc::umask(0) };
    for (number, step) in steps.iter().enumerate() {
        if !step.go(&mut parts, &mut taken) {
            return Err(number);
        }
    }
    Ok(())
}

impl Step {
    fn go(&self, parts: &mut Parts, taken: &mut usize) -> bool {
        let nothing: *const libc::c_char = std::ptr::null();
        // SAFETY: system calls on NUL-terminated texts and structures that live during each call. They change this
        // process' view of the file system, which is its own.
        unsafe {
            match self {
                Self::Detach => {
                    let flags = libc::MS_REC | libc::MS_PRIVATE;
                    libc::mount(nothing, c"/".as_ptr(), nothing, flags, std::ptr::null()) == 0
                }
                Self::Take(path) => {
                    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_RECURSIVE as u32;
                    let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
                    let Some(place) = parts.get_mut(*taken).filter(|_| fd >= 0) else { return false };
                    *place = fd as RawFd;
                    *taken += 1;
                    true
                }
                Self::SealPart(number) => seal(part(parts, *number), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE),
                Self::SealTree(path) => seal(libc::AT_FDCWD, path, libc::AT_RECURSIVE),
                Self::Seal(path) => seal(libc::AT_FDCWD, path, 0),
                Self::Memory(path, options) => mount_new(path, c"tmpfs", options),
                Self::Kernel(path, kind, options) => mount_new(path, kind, options),
                Self::Directory(path, mode) => there_is(libc::mkdir(path.as_ptr(), *mode)),
                Self::File(path) => there_is(libc::mknod(path.as_ptr(), libc::S_IFREG | 0o600, 0)),
                Self::Link(content, path) => there_is(libc::symlink(content.as_ptr(), path.as_ptr())),
                Self::Put(number, path) => {
                    let (from, to) = (part(parts, *number), libc::AT_FDCWD);
                    let flags = MOVE_MOUNT_F_EMPTY_PATH;
                    libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) == 0
                }
                Self::Root(path) => {
                    let here = c".".as_ptr();
                    // The old root ends up over the new one at '.', and is taken off from there.
                    libc::chdir(path.as_ptr()) == 0
                        && libc::syscall(libc::SYS_pivot_root, here, here) == 0
                        && libc::umount2(here, libc::MNT_DETACH) == 0
                        && libc::chdir(c"/".as_ptr()) == 0
                }
            }
        }
    }
}

fn part(parts: &Parts, number: usize) -> RawFd {
    parts.get(number).copied().unwrap_or(-1)
}

fn seal(at: RawFd, path: &CStr, flags: i32) -> bool {
    let attributes = Attributes { set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, ..Attributes::default() };
    let (pointer, size) = (&raw const attributes, size_of::<Attributes>());
    // SAFETY: the structure lives during the call and has the size that is told.
    unsafe { libc::syscall(libc::SYS_mount_setattr, at, path.as_ptr(), flags, pointer, size) == 0 }
}

fn mount_new(path: &CStr, kind: &CStr, options: &CStr) -> bool {
    let flags = libc::MS_NOSUID | if kind == c"devpts" { 0 } else { libc::MS_NODEV };
    // SAFETY: all texts live during the call.
    unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) == 0 }
}

/// Whether something was made, or was there already.
fn there_is(made: i32) -> bool {
    // SAFETY: reads this thread's errno.
    made == 0 || unsafe { *libc::__errno_location() } == libc::EEXIST
}
