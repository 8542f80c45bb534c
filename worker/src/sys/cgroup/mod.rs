//! Cgroup v2 leaves: making them, killing and counting what is in them, removing them.
//!
//! Works on directory descriptors. What is here uses the hierarchy's core only, so it needs no controller and is at home on
//! hybrid hosts too. `place` finds where we are, `delegate` builds the pool's part of the hierarchy, `leaves` keeps a
//! worker's leaves, `limits` and `stats` are what controllers add, `pool` the limits of all tasks together.

mod delegate;
mod gauges;
mod leaves;
mod limits;
mod place;
mod pool;
mod stats;

pub use delegate::{Grounds, clear, probe};
pub use gauges::Gauges;
pub use leaves::Leaves;
pub use limits::{CPU_PERIOD_US, Setting, device_of};
pub use place::{is_marked, own_directory};
pub use pool::{PoolCaps, PoolHeld, hold_pool, most_pids, usable_memory};
pub use stats::{CpuStat, IoStat, MemoryEvents};

use std::cell::{Cell, OnceCell, RefCell};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// One cgroup by its directory.
#[derive(Debug)]
pub struct Leaf {
    directory: OwnedFd,
    killed: Cell<bool>,
    /// Limits that it holds, each with what its file holds without.
    held: RefCell<Vec<(&'static str, String)>>,
    has_memory: OnceCell<bool>,
    gauges: OnceCell<Gauges>,
    /// What shows that a task has meddled with it: `cgroup.freeze` and `cgroup.subtree_control`.
    signs: OnceCell<[Option<fs::File>; 2]>,
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
        Self {
            directory,
            killed: Cell::new(false),
            held: RefCell::default(),
            has_memory: OnceCell::new(),
            gauges: OnceCell::new(),
            signs: OnceCell::new(),
        }
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

    /// Whether it has the memory controller, as it was when this was first asked.
    pub fn has_memory(&self) -> bool {
        *self.has_memory.get_or_init(|| self.open("memory.events", OFlag::O_RDONLY).is_ok())
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        self.open(name, OFlag::O_WRONLY)?.write_all(value.as_bytes())
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
