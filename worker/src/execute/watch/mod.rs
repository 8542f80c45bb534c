//! What watches over one attempt's limits, and counts what it uses.
//!
//! Owner: the attempt, from just before its process is made until its tree is dead and its room not yet cleaned. Three
//! parts with the same four steps (begin, next_ns, look, settle): `leaf`, limits that its cgroup holds; `disk`, its
//! scratch directory; `meter`, what it uses. A task without limits costs no system call here before its end.
//!
//! Deliberately absent: the ending of the tree, which is the attempt's; this part only says that it must end.

mod disk;
mod leaf;
mod meter;
mod sample;

use super::process::{Attempt, Tools};
use crate::sys::tree::Used;
use crate::task::{DiskMethod, HeldLimit, Limits, Rlimits, Usage, Verdict};

/// A limit whose excess ends an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Memory: without a kill of the kernel's, but beyond help.
    Memory,
    /// Bytes in the scratch directory.
    Disk,
    /// Entries of the scratch directory.
    DiskFiles,
    /// Processes and threads.
    Pids,
}

impl Over {
    /// How an attempt ended that was ended for this.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Memory => Verdict::OutOfMemory,
            Self::Disk | Self::DiskFiles | Self::Pids => Verdict::OverLimit { limit: self.key().to_owned() },
        }
    }

    /// The limit's key.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "memoryMb",
            Self::Disk => "diskMb",
            Self::DiskFiles => "diskFiles",
            Self::Pids => "pids",
        }
    }
}

/// The watch over one attempt.
#[derive(Debug)]
pub struct Watch {
    leaf: leaf::Leaf,
    disk: disk::Disk,
    meter: meter::Meter,
}

/// What is mounted in the worker's own view of the files, nobody else sees who is there already.
fn seen_by_others(method: DiskMethod) -> DiskMethod {
    match method {
        DiskMethod::Loop | DiskMethod::Tmpfs => DiskMethod::Auto,
        method @ (DiskMethod::Auto | DiskMethod::Quota | DiskMethod::Sampling) => method,
    }
}

/// What is known of an attempt when its tree is dead.
#[derive(Debug)]
pub struct Settled {
    /// How it ended: as it seemed, or as its limits explain it.
    pub verdict: Verdict,
    /// What it used, but for the time that passed.
    pub usage: Usage,
    /// How its limits were held.
    pub limits: Vec<HeldLimit>,
}

impl Watch {
    /// Puts the limits in place that the task is born into.
    ///
    /// # Errors
    /// The verdict of a task that must not run without them.
    pub fn begin(tools: &mut Tools, attempt: &Attempt) -> Result<Self, Verdict> {
        let limits = Self::limits(tools, attempt);
        Ok(Self {
            leaf: leaf::Leaf::begin(tools, &limits)?,
            disk: disk::Disk::begin(tools, attempt, &limits, tools.settings.disk)?,
            meter: meter::Meter::begin(tools, &limits),
        })
    }

    /// Watches over what is left to watch when the task is in a container: its scratch directory. What the container
    /// itself is held to, and what it uses, is none of the leaf's, in which there is only the client.
    ///
    /// # Errors
    /// As for [`Watch::begin`].
    pub fn beside_container(tools: &mut Tools, attempt: &Attempt, limits: &Limits) -> Result<Self, Verdict> {
        Ok(Self {
            leaf: leaf::Leaf::begin(tools, &Limits::default())?,
            disk: disk::Disk::begin(tools, attempt, limits, seen_by_others(tools.settings.disk))?,
            meter: meter::Meter::none(),
        })
    }

    /// Watches over an attempt in a program that may live already, and whose leaf is at hand.
    ///
    /// # Errors
    /// As for [`Watch::begin`].
    pub fn in_program(tools: &mut Tools, attempt: &Attempt) -> Result<Self, Verdict> {
        let limits = Self::limits(tools, attempt);
        Ok(Self {
            leaf: leaf::Leaf::begin(tools, &limits)?,
            disk: disk::Disk::begin(tools, attempt, &limits, seen_by_others(tools.settings.disk))?,
            meter: meter::Meter::begin(tools, &limits),
        })
    }

    /// The limits of an attempt: its task's, the pool's where that says nothing, and none above its maximum.
    pub fn limits(tools: &Tools, attempt: &Attempt) -> Limits {
        let spec = &attempt.task.spec;
        let limits = spec.limits.or(tools.settings.limits).scaled(attempt.task.memory_scale);
        limits.within(&tools.settings.max_limits)
    }

    /// The limits of the task's processes, with what holds its disk limit.
    pub fn bound(&self, rlimits: Rlimits) -> Rlimits {
        self.disk.bound(rlimits)
    }

    /// Whether the task must not have the privilege of passing over disk quotas.
    pub fn needs_quota(&self) -> bool {
        self.disk.needs_quota()
    }

    /// When it wants to look again, in nanoseconds of the monotonic clock.
    pub fn next_ns(&self) -> Option<u64> {
        [self.leaf.next_ns(), self.disk.next_ns(), self.meter.next_ns()].into_iter().flatten().min()
    }

    /// Looks at what is due: the limit for which the attempt must end now, if there is one.
    pub fn look(&mut self, tools: &Tools, now_ns: u64) -> Option<Over> {
        self.meter.look(tools, now_ns);
        let over_memory = self.leaf.look(tools, now_ns);
        self.disk.look(tools, now_ns).or(over_memory)
    }

    /// Takes stock; to be called when the tree is dead and before its leaf and room are used again. `verdict` is how
    /// the attempt seems to have ended.
    pub fn settle(self, tools: &Tools, used: &Used, verdict: Verdict) -> Settled {
        let mut settled = Settled { verdict, usage: Usage::default(), limits: Vec::new() };
        self.meter.settle(tools, used, &mut settled);
        self.leaf.settle(tools, &mut settled);
        self.disk.settle(tools, &mut settled);
        settled
    }
}
