//! The library: the same pool for programs of one's own.
//!
//! [`WorkerPool`] is a pool: started by this program in processes of its own, or running already. [`WorkerExecutor`] runs
//! typed actions in one. [`Door`] is the way to a queue, whether a pool runs or not. Deliberately absent: a second way to do
//! anything. The command line is a client of this.

mod cancel;
mod door;
mod error;
mod event;
mod executor;
mod handle;
mod hub;
mod launch;
mod line;
mod options;
mod outcome;
mod pool;
pub mod role;
mod task;
mod wait;

/// The built-in actions with their parameters and answers, and what actions are made of.
pub use acode_worker::actions;
pub use acode_worker::actions::{ActionError, Cancelled, Context, Registry, WorkAction};
pub use acode_worker::task::{
    Action, ActionType, Array, DependencyKind, Docker, IfExists, Isolation, Library, Limits, Mount, OverLimitAction,
    Priority, Retries, Rlimits, Submission, TaskId, TaskSpec, TaskState, WorkerId,
};
pub use cancel::CancelToken;
pub use door::{Door, Need, RoomWait};
pub use error::{ApiError, Failures};
pub use event::{Event, Events, NoSuchEvent};
pub use executor::{DockerSpec, ForkOptions, LibrarySpec, WorkQueue, WorkerExecutor};
pub use handle::{TaskHandle, WorkHandle};
pub use launch::PoolProcess;
pub use options::{WorkerMode, WorkerPoolOptions};
pub use outcome::{TaskFailure, TaskOutcome};
pub use pool::{PoolMetrics, PoolStatus, WorkerInfo, WorkerPool};
pub use role::init;
pub use task::Task;

pub use crate::store::EventKind;
pub use crate::wire::types::{CheckRecord, Resources, StatusRecord, TaskCounts, TaskRecord, WorkerStatus};
pub use crate::wire::{Stamp, TaskRef};
