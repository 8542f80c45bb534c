//! One worker's leaves: where its tasks are born.
//!
//! Deliberately absent: the limits of a task (`limits`), and when it must be killed.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Leaf, remove_tree};

/// The place of one worker's leaves: always one fresh enough to be born into.
///
/// Recent kernels (seen on 6.18) kill a process that is cloned into a cgroup which has been killed before, for they compare the
/// count of kills of the wrong cgroup. So a leaf is used for task after task until it had to be killed, or a task has built
/// in it, and then never again.
#[derive(Debug)]
pub struct Leaves {
    base: OwnedFd,
    number: u32,
    current: Leaf,
}

impl Leaves {
    /// Makes the first leaf in the cgroup with this directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(base: OwnedFd) -> io::Result<Self> {
        let current = make_at(&base, 0)?;
        Ok(Self { base, number: 0, current })
    }

    /// The leaf to be born into.
    pub fn current(&self) -> &Leaf {
        &self.current
    }

    /// Replaces the leaf if it has been killed or built in; to be called when nothing lives in it.
    ///
    /// # Errors
    /// What the kernel says; the old leaf stays.
    pub fn renew(&mut self) -> io::Result<()> {
        if self.current.killed.get() || self.current.is_built_in() { self.replace() } else { Ok(()) }
    }

    /// Replaces the leaf; to be called when nothing lives in it.
    ///
    /// # Errors
    /// What the kernel says; the old leaf stays.
    pub fn replace(&mut self) -> io::Result<()> {
        let fresh = make_at(&self.base, self.number + 1)?;
        self.current.drop_caches();
        // One that the kernel still holds for a moment is removed with all of the worker's later.
        let old = leaf_name(self.number);
        if unlinkat(&self.base, old.as_str(), UnlinkatFlags::RemoveDir).is_err() {
            let _ = remove_tree(&PathBuf::from(format!("/proc/self/fd/{}/{old}", self.base.as_raw_fd())));
        }
        self.number += 1;
        self.current = fresh;
        Ok(())
    }
}

fn leaf_name(number: u32) -> String {
    format!("t{number}")
}

fn make_at(base: &OwnedFd, number: u32) -> io::Result<Leaf> {
    let name = leaf_name(number);
    mkdirat(base, name.as_str(), Mode::S_IRWXU)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let leaf = Leaf::from_fd(openat(base, name.as_str(), flags, Mode::empty())?);
    if leaf.has_memory() {
        // A task that has lost one of its processes is of no use any more, whoever's limit it was.
        let _ = leaf.write("memory.oom.group", "1");
    }
    Ok(leaf)
}

impl Leaf {
    /// Whether a task has made cgroups in it, as its user may be allowed to; has left it so that all who come into it are
    /// frozen; or has it hand on controllers, as container engines do, so that nobody may come into it at all.
    fn is_built_in(&self) -> bool {
        let open = |name| self.open(name, OFlag::O_RDONLY).ok();
        // Asked after every task, so these stay open, and the first bytes are enough.
        let files = self.signs.get_or_init(|| [open("cgroup.freeze"), open("cgroup.subtree_control")]);
        let begins = |file: &Option<File>, usual: &[u8]| {
            let mut text = [0; 8];
            file.as_ref().is_none_or(|file| file.read_at(&mut text, 0).is_ok_and(|length| text[..length] == *usual))
        };
        let as_made = begins(&files[0], b"0\n") && (begins(&files[1], b"") || begins(&files[1], b"\n"));
        self.has_below() || !as_made
    }

    /// Whether there are cgroups in it.
    pub fn has_below(&self) -> bool {
        // A directory of this file system has a link for itself, one from above, and one for each cgroup below.
        fstat(&self.directory).is_ok_and(|stat| stat.st_nlink > 2)
    }

    /// Has the kernel drop the pages of files that it keeps for this leaf. A removed leaf lives on in the kernel for as long
    /// as a page is charged to it, and thousands of them would.
    fn drop_caches(&self) {
        if let Some(charged) = self.number("memory.current").filter(|charged| *charged > 0) {
            // Since Linux 5.19. It says EAGAIN when some of it is in use.
            let _ = self.write("memory.reclaim", &charged.to_string());
        }
    }
}
