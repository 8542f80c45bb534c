//! Resource limits of a task that the kernel holds per process (`setrlimit`).

use serde::{Deserialize, Serialize};

/// The rlimits of a task's processes. `None` leaves what the supervisor itself runs under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rlimits {
    /// Largest core dump, in bytes (`RLIMIT_CORE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<u64>,
    /// Most open files (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Largest file that may be written, in bytes (`RLIMIT_FSIZE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
    /// Largest address space, in bytes (`RLIMIT_AS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// CPU time in seconds after which the process is killed (`RLIMIT_CPU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Most processes of the user (`RLIMIT_NPROC`); does not bind root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl Rlimits {
    /// Whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These limits, with those of memory multiplied by `scale`, which is at least 1.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        // A product beyond the largest number becomes that number.
        let grown = |bytes: u64| if scale > 1.0 { (bytes as f64 * scale) as u64 } else { bytes };
        Self { address_space_bytes: self.address_space_bytes.map(grown), ..self }
    }

    /// These limits, with those of `other` where these are silent.
    pub fn or(self, other: Self) -> Self {
        Self {
            core_bytes: self.core_bytes.or(other.core_bytes),
            open_files: self.open_files.or(other.open_files),
            file_size_bytes: self.file_size_bytes.or(other.file_size_bytes),
            address_space_bytes: self.address_space_bytes.or(other.address_space_bytes),
            cpu_seconds: self.cpu_seconds.or(other.cpu_seconds),
            processes: self.processes.or(other.processes),
        }
    }
}
