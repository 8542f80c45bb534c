//! Containers and artefacts: `docker` and `artifacts`.

use std::path::PathBuf;
use std::time::Duration;

use acode_worker::task::{Mount, Pull};

/// Containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// The command line client, by its name or its absolute path: docker, or one that understands its options.
    pub program: String,
    /// The image of tasks that name none.
    pub image: Option<String>,
    /// When images are pulled.
    pub pull: Pull,
    /// The network of tasks that name none.
    pub network: String,
    /// The user inside; `None` is that of the pool.
    pub user: Option<String>,
    /// The platform of images that have several.
    pub platform: Option<String>,
    /// What every container sees of the host beside its room.
    pub mounts: Vec<Mount>,
    /// Directories and files within which the mounts of tasks must lie.
    pub allowed_mounts: Vec<PathBuf>,
    /// Further arguments of `docker run`, for every container.
    pub args: Vec<String>,
    /// Further arguments that a task may give: in full, or a beginning with a `*` at its end.
    pub allowed_args: Vec<String>,
    /// Whether containers can write to their image's files, in a layer that is lost at their end.
    pub writable_root: bool,
    /// The size of `/tmp` in MiB; with 0 there is none but the image's.
    pub tmpfs_mb: u64,
    /// What becomes of tasks that do not ask for a container while the engine is unavailable.
    pub fallback: Fallback,
    /// How long a call of the client may take that should return at once.
    pub call_timeout: Duration,
    /// How long from `docker run` until the container must be there, pulling included.
    pub start_timeout: Duration,
    /// The time between two looks for containers that nobody owns.
    pub sweep_interval: Duration,
}

/// What becomes of tasks that do not ask for a container while the engine is unavailable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// They run as processes.
    #[default]
    Process,
    /// They wait, like those that ask for one.
    Refuse,
}

/// Files of tasks that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Artifacts {
    /// The most bytes that are kept of one attempt.
    pub max_bytes: u64,
    /// The most files.
    pub max_files: u32,
}

impl Fallback {
    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Refuse => "refuse",
        }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            program: "docker".to_owned(),
            image: None,
            pull: Pull::default(),
            network: "none".to_owned(),
            user: None,
            platform: None,
            mounts: Vec::new(),
            allowed_mounts: Vec::new(),
            args: Vec::new(),
            allowed_args: Vec::new(),
            writable_root: false,
            tmpfs_mb: 64,
            fallback: Fallback::default(),
            call_timeout: Duration::from_secs(10),
            start_timeout: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(60),
        }
    }
}

impl Default for Artifacts {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_files: 10_000 }
    }
}

/// Whether a text names a program: a path must be absolute, for nobody could say where it begins.
pub(super) fn is_program(text: &str) -> bool {
    let is_plain = !text.is_empty() && !text.starts_with('-') && !text.contains('\0');
    is_plain && (text.starts_with('/') || !text.contains('/'))
}
