//! Records about workers' modes and the container engine.

use acode_worker::task::Isolation;
use serde::{Deserialize, Serialize};

use super::Stamp;

/// How it stands with the container engine, in a [`super::types::StatusRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// Whether every docker worker can use it; absent until the first of them has found out.
    pub available: Option<bool>,
    /// Since when that is so.
    pub since: Option<Stamp>,
    /// What it says of itself, or why it cannot be used.
    pub why: Option<String>,
    /// What becomes of tasks that do not ask for a container while it cannot: they run as a `process`, or `refuse`.
    pub fallback: String,
}

/// How many workers there are of each mode, in a [`super::types::WorkerCounts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeCounts {
    /// Those that run tasks as processes.
    pub process: u32,
    /// Those that run tasks in containers.
    pub docker: u32,
}

impl ModeCounts {
    /// One more of this mode.
    pub fn add(&mut self, mode: Isolation) {
        match mode {
            Isolation::Process => self.process += 1,
            Isolation::Docker => self.docker += 1,
            // No worker has these as its mode.
            Isolation::None | Isolation::Library => {}
        }
    }
}
