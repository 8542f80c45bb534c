//! Orders: what the supervisor tells a worker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ArtifactSettings, DockerSettings, WorktreeSettings};
use crate::claim::Ticket;
use crate::task::{Cleanup, DiskMethod, Env, Limits, OutputCaps, Rlimits, Sandbox, SandboxRules, TaskSpec};

/// One order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The doorbell: there is something to claim.
    Wake,
    /// End this attempt, as cancelled. Means nothing to a worker that does not hold the ticket.
    Cancel {
        /// Which claim.
        ticket: Ticket,
        /// Without any grace.
        #[serde(default)]
        now: bool,
    },
    /// Stop this attempt's processes where they are, until they are resumed. Its time does not run meanwhile.
    Suspend {
        /// Which claim.
        ticket: Ticket,
    },
    /// Let them go on.
    Resume {
        /// Which claim.
        ticket: Ticket,
    },
    /// Do this between two tasks.
    Chore(Chore),
    /// End this attempt and give it back, neither done nor failed: the pool stops.
    GiveBack {
        /// Which claim.
        ticket: Ticket,
        /// Without any grace.
        #[serde(default)]
        now: bool,
    },
    /// Claim nothing more, and leave when the running task has ended.
    Stop,
    /// Answer with this number: whether the worker is well.
    Ping {
        /// The number.
        nonce: u64,
    },
    /// Work by these settings from the next task on.
    Configure(Box<WorkerSettings>),
}

/// What a worker does between two tasks for the supervisor, which does not wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chore {
    /// Remove the checkpoint directory of the task with this number.
    Checkpoint {
        /// Which task.
        number: u64,
    },
    /// Remove the kept scratch directory of this name.
    Kept {
        /// Its name in the folder of kept directories.
        name: String,
    },
    /// Remove the containers of workers that are no more.
    Containers,
    /// Remove the worktree that this mark tells of.
    Worktree {
        /// The mark's name in the folder of marks.
        name: String,
    },
    /// Remove the artefacts of this name.
    Artifacts {
        /// Their name in the folder of artefacts.
        name: String,
    },
}

/// All that a worker needs to know beside its tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSettings {
    /// Milliseconds between two looks at the table while idle; the doorbell is what wakes as a rule.
    pub poll_interval_ms: u64,
    /// The longest that this interval grows to, doubling with each look in vain.
    pub idle_backoff_max_ms: u64,
    /// Milliseconds between two signs of life while a task runs.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds between two signs of life while idle.
    pub idle_heartbeat_interval_ms: u64,
    /// Milliseconds from SIGTERM to SIGKILL for a task that does not say otherwise.
    pub kill_grace_ms: u64,
    /// Milliseconds that an attempt may take if its task does not say otherwise.
    pub timeout_ms: Option<u64>,
    /// Milliseconds from the claim within which a process must run, if its task does not say otherwise.
    #[serde(default)]
    pub start_timeout_ms: Option<u64>,
    /// The allow-listed environment.
    pub environment: Env,
    /// Limits for tasks that do not say otherwise.
    pub rlimits: Rlimits,
    /// Limits of a task as a whole, where it does not say otherwise.
    #[serde(default)]
    pub limits: Limits,
    /// The largest limits that a task may have.
    #[serde(default)]
    pub max_limits: Limits,
    /// Whether a limit above which a task is killed may be looked at instead, where nothing enforces it.
    #[serde(default)]
    pub allow_observed: bool,
    /// What tasks may reach that do not say otherwise.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What else holds for sandboxes.
    #[serde(default)]
    pub sandbox_rules: SandboxRules,
    /// When scratch directories are removed of tasks that do not say otherwise.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// Where scratch directories are kept, and how many.
    #[serde(default)]
    pub kept: KeptPlace,
    /// By what means disk limits are held.
    #[serde(default)]
    pub disk: DiskMethod,
    /// File mode creation mask of tasks.
    pub umask: u32,
    /// How much output is kept.
    pub output: OutputCaps,
    /// Bytes at which an output segment is closed and the next begun.
    pub segment_bytes: u64,
    /// The folder of rooms.
    pub rooms: PathBuf,
    /// The folder of the output journal.
    pub journal: PathBuf,
    /// For tasks that want a jobserver.
    pub jobserver: JobserverPlace,
    /// The folder of checkpoint directories.
    #[serde(default)]
    pub checkpoints: PathBuf,
    /// For containers.
    #[serde(default)]
    pub docker: DockerSettings,
    /// For files that are kept.
    #[serde(default)]
    pub artifacts: ArtifactSettings,
    /// For git worktrees.
    #[serde(default)]
    pub worktrees: WorktreeSettings,
    /// For actions.
    #[serde(default)]
    pub actions: ActionSettings,
}

impl WorkerSettings {
    /// Milliseconds that an attempt of this task may take.
    pub fn timeout_of(&self, spec: &TaskSpec) -> Option<u64> {
        let of_actions = spec.action.as_ref().and(self.actions.timeout_ms);
        spec.timeout_ms.or(of_actions).or(self.timeout_ms)
    }
}

/// What actions get that do not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionSettings {
    /// Program and arguments of the pool's own worker program, which does the custom actions that nobody else is named for;
    /// none if empty.
    #[serde(default)]
    pub program: Vec<String>,
    /// Milliseconds that an attempt may take, where that differs from those of commands.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Where scratch directories are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPlace {
    /// The folder, on the file system of the rooms.
    pub folder: PathBuf,
    /// The most of them.
    pub max: u32,
}

/// Where the pool's GNU make jobserver is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobserverPlace {
    /// The fifo that holds the tokens.
    pub fifo: PathBuf,
    /// How many jobs run at once in all.
    pub slots: u32,
}
