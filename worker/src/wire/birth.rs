//! What a worker is born with.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::{WorkerMode, WorkerSettings};
use crate::sys::ladder::Ladder;
use crate::task::WorkerId;

/// The first byte of a slot's payload that is not the assignment itself but the path of a file that holds it.
pub const SPILLED: u8 = b'@';
/// Exit code of a worker that could not begin to work.
pub const EXIT_BOOT_FAILED: i32 = 70;
/// Exit code of a worker whose supervisor went away.
pub const EXIT_ORPHANED: i32 = 71;

/// What a worker is born with. Its descriptors come in this order: orders, reports, claim table, workers' lock, and
/// the cgroup leaf where there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Birth {
    /// The worker's id.
    pub id: WorkerId,
    /// Its row in the claim table, which is also its slot number.
    pub row: u16,
    /// How it works.
    pub settings: WorkerSettings,
    /// Of which kind it is.
    #[serde(default)]
    pub mode: WorkerMode,
    /// How far limits can be held here.
    #[serde(default)]
    pub ladder: Ladder,
}

/// The descriptors of a newborn worker, each with one use.
#[derive(Debug)]
pub struct Inherited {
    /// What it is.
    pub birth: Birth,
    /// Where orders come from.
    pub orders: OwnedFd,
    /// Where reports go.
    pub reports: OwnedFd,
    /// The claim table's memory.
    pub table: OwnedFd,
    /// Held, and never used: it tells a later supervisor that this worker lives.
    pub lock: OwnedFd,
    /// The directory of its tasks' cgroup leaf.
    pub leaf: Option<OwnedFd>,
}
