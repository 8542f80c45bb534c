//! Cgroup v2 leaves: making them, killing and counting what is in them, removing them.
//!
//! Works on directory descriptors and on the hierarchy's core only, so it needs no controller and is at home on hybrid
//! hosts too. Deliberately absent: limits, which need controllers.

mod gauges;
mod stats;

pub use gauges::{Gauges, enabled_controllers};
pub use stats::{CpuStat, IoStat, MemoryEvents};

use std::cell::{Cell, OnceCell};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The directory of this process' own cgroup in the v2 hierarchy, if one is mounted.
pub fn own_directory() -> Option<PathBuf> {
    let list = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = list.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = mount_point()?.join(own.trim_start_matches('/'));
    directory.is_dir().then_some(directory)
}

/// Where the v2 hierarchy is mounted: at the usual place, or on a hybrid host wherever it was put.
fn mount_point() -> Option<PathBuf> {
    if cgroups_rs::hierarchies::is_cgroup2_unified_mode() {
        return Some(PathBuf::from("/sys/fs/cgroup"));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// One cgroup by its directory.
#[derive(Debug)]
pub struct Leaf {
    directory: OwnedFd,
    killed: Cell<bool>,
    gauges: OnceCell<Gauges>,
}

impl Leaf {
    /// Opens the cgroup at `path`, made if it is not there.
    ///
    /// # Errors
    /// What the kernel says, as a rule that the hierarchy is not writable for us.
    pub fn make(path: &Path) -> io::Result<Self> {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::from_fd(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// The cgroup behind an open directory.
    pub fn from_fd(directory: OwnedFd) -> Self {
        Self { directory, killed: Cell::new(false), gauges: OnceCell::new() }
    }

    /// Kills every process in the cgroup and below it, at once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> io::Result<()> {
        self.killed.set(true);
        self.open("cgroup.kill", OFlag::O_WRONLY)?.write_all(b"1")
    }

    /// Stops every process in the cgroup where it is, or lets all go on. What is stopped can still be killed.
    ///
    /// # Errors
    /// What the kernel says; before Linux 5.2 there is no such file.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        self.open("cgroup.freeze", OFlag::O_WRONLY)?.write_all(if frozen { b"1" } else { b"0" })
    }

    /// The pids of the processes in the cgroup itself.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        let list = self.read("cgroup.procs")?;
        Ok(list.lines().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Whether any process lives in the cgroup or below it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_populated(&self) -> io::Result<bool> {
        Ok(self.read("cgroup.events")?.lines().any(|line| line == "populated 1"))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        self.open(name, OFlag::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn open(&self, name: &str, flags: OFlag) -> io::Result<fs::File> {
        Ok(fs::File::from(openat(&self.directory, name, flags | OFlag::O_CLOEXEC, Mode::empty())?))
    }
}

impl AsFd for Leaf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

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
        if self.current.killed.get() {
            let fresh = make_at(&self.base, self.number + 1)?;
            // One that the kernel still holds for a moment is removed with all of the worker's later.
            let _ = unlinkat(&self.base, leaf_name(self.number).as_str(), UnlinkatFlags::RemoveDir);
            self.number += 1;
            self.current = fresh;
        }
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
    Ok(Leaf::from_fd(openat(base, name.as_str(), flags, Mode::empty())?))
}

/// The pids of the processes in the cgroup at `path` and below it; none where it cannot be read.
pub fn pids_below(path: &Path) -> Vec<i32> {
    let own = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(pids_below(&entry.path()));
        }
    }
    pids
}

/// Kills all that lives in the cgroup at `path` and below it, and removes it with its sub-cgroups. True when it is
/// gone at the end; false when something in it would not die within `patience`.
///
/// # Errors
/// What the kernel says on reading or killing.
pub fn kill_and_remove(path: &Path, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        if !path.is_dir() {
            return Ok(true);
        }
        let leaf = Leaf::make(path)?;
        if leaf.is_populated()? {
            leaf.kill()?;
        } else if remove_tree(path).is_ok() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        // A killed process leaves its cgroup when it is through the kernel's exit, not when it is signalled.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes empty cgroups, the deepest first. The files in them go with them.
///
/// # Errors
/// What the kernel says; something may live in them.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
