//! By what means a task's scratch directory is held to its limits.

use serde::{Deserialize, Serialize};

/// How the limits of scratch directories are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskMethod {
    /// By a project quota where the file system has them, else by looking.
    #[default]
    Auto,
    /// By a project quota.
    Quota,
    /// By a file system of the limit's size in a file, mounted through a loop device.
    Loop,
    /// By a file system of the limit's size in memory.
    Tmpfs,
    /// By looking at what the directory holds, from time to time.
    Sampling,
}

impl DiskMethod {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Quota => "quota",
            Self::Loop => "loop",
            Self::Tmpfs => "tmpfs",
            Self::Sampling => "sampling",
        }
    }
}
