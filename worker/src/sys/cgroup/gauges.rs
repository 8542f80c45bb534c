//! The files of a leaf that are read for task after task, kept open: a read is then one call of the kernel.
//!
//! Owner: the leaf. Deliberately absent: what a difference between two readings means, which is the meter's.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;

use super::stats::number;
use super::{CpuStat, IoStat, Leaf, MemoryEvents};

/// More than any of the files holds; `io.stat` has some hundred bytes for each device.
const LONGEST: usize = 4096;

/// A leaf's files, each there only if its controller and a recent enough kernel are.
#[derive(Debug)]
pub struct Gauges {
    cpu: Option<File>,
    io: Option<File>,
    memory: Option<File>,
    memory_peak: Option<File>,
    memory_events: Option<File>,
    pids: Option<File>,
    pids_peak: Option<File>,
    /// Whether a write to `memory.peak` begins it anew for us (Linux 6.12).
    resets: bool,
    used: Cell<bool>,
    oom_kills: Cell<u64>,
}

impl Gauges {
    pub(super) fn of(leaf: &Leaf) -> Self {
        let open = |name| leaf.open(name, OFlag::O_RDONLY).ok();
        // The kernel refuses to open a file for writing that takes none, root's wish or not.
        let writable = leaf.open("memory.peak", OFlag::O_RDWR).ok();
        let resets = writable.is_some();
        let gauges = Self {
            cpu: open("cpu.stat"),
            io: open("io.stat"),
            memory: open("memory.current"),
            memory_peak: writable.or_else(|| open("memory.peak")),
            memory_events: open("memory.events"),
            pids: open("pids.current"),
            pids_peak: open("pids.peak"),
            resets,
            used: Cell::new(false),
            oom_kills: Cell::new(0),
        };
        gauges.take_oom_kills();
        gauges
    }

    /// Whether a task is born into the leaf for the first time; to be asked once for each.
    pub fn is_fresh(&self) -> bool {
        !self.used.replace(true)
    }

    /// `cpu.stat`.
    pub fn cpu(&self) -> Option<CpuStat> {
        read(self.cpu.as_ref(), CpuStat::parse)
    }

    /// `io.stat`.
    pub fn io(&self) -> Option<IoStat> {
        read(self.io.as_ref(), IoStat::parse)
    }

    /// `memory.current`, in bytes.
    pub fn memory(&self) -> Option<u64> {
        read(self.memory.as_ref(), number).flatten()
    }

    /// `memory.peak`, in bytes: since it was last begun anew, or since the leaf was made.
    pub fn memory_peak(&self) -> Option<u64> {
        read(self.memory_peak.as_ref(), number).flatten()
    }

    /// Begins `memory.peak` anew, if the kernel can.
    pub fn reset_memory_peak(&self) -> bool {
        self.resets && self.memory_peak.as_ref().is_some_and(|file| file.write_at(b"reset", 0).is_ok())
    }

    /// `pids.current`.
    pub fn pids(&self) -> Option<u64> {
        read(self.pids.as_ref(), number).flatten()
    }

    /// `pids.peak`, since the leaf was made.
    pub fn pids_peak(&self) -> Option<u64> {
        read(self.pids_peak.as_ref(), number).flatten()
    }

    /// The processes that were killed for memory since this was last asked.
    pub fn take_oom_kills(&self) -> Option<u64> {
        let events = read(self.memory_events.as_ref(), MemoryEvents::parse)?;
        Some(events.oom_kill.saturating_sub(self.oom_kills.replace(events.oom_kill)))
    }

    /// Whether memory is counted here.
    pub fn counts_memory(&self) -> bool {
        self.memory.is_some()
    }
}

fn read<T>(file: Option<&File>, parse: impl FnOnce(&str) -> T) -> Option<T> {
    let mut text = [0; LONGEST];
    let length = file?.read_at(&mut text, 0).ok()?;
    Some(parse(std::str::from_utf8(&text[..length]).ok()?))
}
