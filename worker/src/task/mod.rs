//! The vocabulary of tasks: what the two halves of acode, the store and the control protocol all speak.
//!
//! Pure data with its rules: no I/O, no clock, no kernel. Everything here is serialisable, and its JSON form is
//! the one that people see, so a change of a name here is a change of the public interface.

mod action;
mod cleanup;
mod disk;
mod docker;
mod id;
mod isolation;
mod limits;
mod paths;
mod pattern;
mod retry;
mod sandbox;
mod soft;
mod spec;
mod state;
mod submission;
mod usage;
pub mod varint;
mod verdict;
mod worktree;

pub use action::{Action, ActionType, Library};
pub use cleanup::Cleanup;
pub use disk::DiskMethod;
pub use docker::{Docker, Mount, MountError, Pull};
pub use id::{IdError, TaskId, WorkerId};
pub use isolation::Isolation;
pub use limits::{HeldLimit, Hold, Limits, OverLimitAction, Rlimits};
pub use pattern::{NoPattern, Patterns, Reach, Step};
pub use retry::{ExitCodes, Retries, Retry};
pub use sandbox::{DeviceAccess, FileAccess, NetworkAccess, Sandbox, SandboxError, SandboxRules, SignalReach};
pub use soft::{SignalError, SoftTimeout, TaskSignal};
pub use spec::{Assignment, Class, Env, OutputCaps, Priority, SpecError, TaskSpec};
pub use state::TaskState;
pub use submission::{
    Array, Blocker, Dependency, DependencyKind, GroupWish, IfExists, Key, Submission, fill_placeholders,
};
pub use usage::{LiveUse, Usage, UsageSource};
pub use verdict::{OutputRef, TreeGuard, Verdict};
pub use worktree::{ARTIFACT_PATTERNS_MAX, Artifacts, Worktree, validate_patterns};

/// The largest result that a task may leave in `$ACODE_RESULT`, in bytes.
pub const RESULT_MAX: usize = 64 * 1024;
/// The largest error text that a task may leave in `$ACODE_ERROR`, in bytes; more is cut.
pub const ERROR_MAX: usize = 4 * 1024;
/// The largest progress message that is kept, in bytes; more is cut.
pub const PROGRESS_MESSAGE_MAX: usize = 256;
