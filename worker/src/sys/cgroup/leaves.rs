//! One worker's leaves: where its tasks are born.
//!
//! Deliberately absent: the limits of a task (`limits`), and when it must be killed.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Leaf;

/// The place of one worker's leaves: always one fresh enough to be born into.
///
/// Recent kernels (seen on 6.18) kill a process that is cloned into a cgroup which has been killed before, for they compare the
/// count of kills of the wrong cgroup. So a leaf is used for task after task until it had to be killed, and then never
/// again.
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

    /// Replaces the leaf if it has been killed; to be called when nothing lives in it.
    ///
    /// # Errors
    /// What the kernel says; the old leaf stays.
    pub fn renew(&mut self) -> io::Result<()> {
        if self.current.killed.get() { self.replace() } else { Ok(()) }
    }

    /// Replaces the leaf; to be called when nothing lives in it.
    ///
    /// # Errors
    /// What the kernel says; the old leaf stays.
    pub fn replace(&mut self) -> io::Result<()> {
        let fresh = make_at(&self.base, self.number + 1)?;
        self.current.drop_caches();
        // One that the kernel still holds for a moment is removed with all of the worker's later.
        let _ = unlinkat(&self.base, leaf_name(self.number).as_str(), UnlinkatFlags::RemoveDir);
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
    /// Has the kernel drop the pages of files that it keeps for this leaf. A removed leaf lives on in the kernel for as long
    /// as a page is charged to it, and thousands of them would.
    fn drop_caches(&self) {
        if let Some(charged) = self.number("memory.current").filter(|charged| *charged > 0) {
            // Since Linux 5.19. It says EAGAIN when some of it is in use.
            let _ = self.write("memory.reclaim", &charged.to_string());
        }
    }
}
