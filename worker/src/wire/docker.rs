//! What workers know about containers, artefacts and worktrees, from the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::task::{Class, Cleanup, Docker, Env, Isolation};

/// What a worker needs for containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerSettings {
    /// The command line client: docker, or one that understands its options, such as podman.
    pub program: String,
    /// The client's whole environment: nothing of a task's is in it.
    pub environment: Env,
    /// What tells this queue's containers from all others: the value of the label `acode.pool`.
    pub pool: String,
    /// The folder of marks: for each container that may exist a file with its id.
    pub folder: PathBuf,
    /// What holds for tasks that do not say otherwise. Its mounts and arguments come before those of the task.
    pub default: Docker,
    /// Directories and files within which a task's mounts must lie. Absolute.
    pub allowed_mounts: Vec<PathBuf>,
    /// Arguments that a task may add: each in full, or a beginning with a `*` at its end.
    pub allowed_args: Vec<String>,
    /// Whether the image can be written to, in a layer that is lost at the end.
    pub writable_root: bool,
    /// The size of `/tmp` in MiB.
    pub tmpfs_mb: u64,
    /// Milliseconds that a call of the client may take which should return at once.
    pub call_timeout_ms: u64,
    /// Milliseconds from the call of `docker run` until the container must be there, pulling included.
    pub start_timeout_ms: u64,
    /// Whether tasks that do not ask for a container run as processes while the engine is unavailable.
    pub fallback: bool,
}

/// What a worker needs to keep files of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArtifactSettings {
    /// The folder of all artefacts.
    pub folder: PathBuf,
    /// The most bytes that are kept of one attempt.
    pub max_bytes: u64,
    /// The most files.
    pub max_files: u32,
}

/// What a worker needs for git worktrees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorktreeSettings {
    /// The folder of marks: for each worktree that may exist a file that tells where.
    pub folder: PathBuf,
    /// The folder of locks, one for each repository.
    pub locks: PathBuf,
    /// After which ends a worktree is removed; else its changes are kept as a patch, and its files with its scratch directory.
    pub cleanup: Cleanup,
}

/// Of which kind a worker is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerMode {
    /// How it keeps its tasks apart.
    pub isolation: Isolation,
    /// Whether this is the pool's default: then it takes tasks that do not say how.
    pub serves_any: bool,
}

impl WorkerMode {
    /// Whether such a worker takes tasks of this class.
    pub fn takes(self, class: Class) -> bool {
        match class {
            Class::Any => self.serves_any,
            Class::Process => self.isolation == Isolation::Process,
            Class::Docker => self.isolation == Isolation::Docker,
        }
    }
}
