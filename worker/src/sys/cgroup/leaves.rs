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
    /// What its leaves are called, before their numbers.
    series: String,
    number: u32,
    current: Leaf,
    /// Whether what lives in it stays there, so that there is no other one to be born into.
    keeps: bool,
}

impl Leaves {
    /// Makes the first leaf in the cgroup with this directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(base: OwnedFd) -> io::Result<Self> {
        let series = "t".to_owned();
        let current = make_at(&base, &format!("{series}0"))?;
        Ok(Self { base, series, number: 0, current, keeps: false })
    }

    /// Makes a leaf beside these for a process that stays in it for more than one task. `number` must be one of its own.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_for_keeps(&self, number: u32) -> io::Result<Self> {
        let (base, series) = (self.base.try_clone()?, format!("p{number}-"));
        let current = make_at(&base, &format!("{series}0"))?;
        Ok(Self { base, series, number: 0, current, keeps: true })
    }

    /// Removes the leaf for good; to be called when nothing lives in it.
    pub fn remove(self) {
        self.current.drop_caches();
        self.remove_current();
    }

    /// Removes what is called as the current one is.
    fn remove_current(&self) {
        // One that the kernel still holds for a moment is removed with all of the worker's later.
        let old = self.name(self.number);
        if unlinkat(&self.base, old.as_str(), UnlinkatFlags::RemoveDir).is_err() {
            let _ = remove_tree(&PathBuf::from(format!("/proc/self/fd/{}/{old}", self.base.as_raw_fd())));
        }
    }

    fn name(&self, number: u32) -> String {
        format!("{}{number}", self.series)
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
        if self.keeps {
            return Err(io::Error::other("something stays in it"));
        }
        let fresh = make_at(&self.base, &self.name(self.number + 1))?;
        self.current.drop_caches();
        self.remove_current();
        self.number += 1;
        self.current = fresh;
        Ok(())
    }
}

fn make_at(base: &OwnedFd, name: &str) -> io::Result<Leaf> {
    mkdirat(base, name, Mode::S_IRWXU)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let leaf = Leaf::from_fd(openat(base, name, flags, Mode::empty())?);
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
