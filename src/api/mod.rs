//! The library: the same pool for programs of one's own.
//!
//! [`WorkerPool`] is a pool: started by this program in processes of its own, or running already. [`WorkerExecutor`] runs
//! typed actions in one. [`Door`] is the way to a queue, whether a pool runs or not. Deliberately absent: a second way to do
//! anything. The command line is a client of this.
//!
//! # A pool of one's own
//!
//! A program makes itself capable of pools by calling [`init`] at the top of `main`, with the actions that it has. A pool's
//! processes are made of the same file: it is executed again as a supervisor, and `init` does not return there. The pool ends
//! with its program, whether that drops the last handle, returns, panics or is killed.
//!
//! Without more, the queue is in a temporary directory that goes with the pool. With
//! [`durable`](WorkerPoolOptions::durable) it is in a directory that stays: what was accepted is on disk when the call
//! returns, and is run by the next pool of that directory if this one does not live to do it.
//!
//! # Ends
//!
//! A [`TaskHandle`] is an id and the way to the pool; it costs nothing, and nothing is lost with it. Whoever waits does so in
//! one call of the protocol, for any number of tasks: [`TaskHandle::wait`], [`WorkHandle::join`], [`WorkerPool::wait`],
//! [`WorkQueue::wait`]. Whoever wants to be called instead is called by one thread of the library
//! ([`WorkerPool::submit_with`], [`WorkerPool::on`]), which follows the pool's events from before the submission. Nothing
//! waits when it is dropped.
//!
//! # Calls that end
//!
//! ```standalone_crate
//! use acode::api::{self, ApiError, CancelToken, Registry, Task, WorkerPool, WorkerPoolOptions};
//! use std::time::Duration;
//!
//! fn main() -> Result<(), ApiError> {
//!     api::init(Registry::built_in());
//!     let pool = WorkerPool::start(WorkerPoolOptions::default().worker_count(1))?;
//!     let handle = pool.submit(Task::command(["sleep", "1000"]))?;
//!
//!     // A time for each call of this handle of the pool.
//!     let impatient = pool.within(Duration::from_millis(50));
//!     assert!(matches!(impatient.wait(&[handle.id()]), Err(ApiError::DeadlineExceeded)));
//!
//!     // A token that another thread cancels.
//!     let token = CancelToken::new()?;
//!     let waiting = std::thread::spawn({
//!         let pool = pool.cancellable(&token);
//!         move || pool.wait_all()
//!     });
//!     token.cancel();
//!     assert!(matches!(waiting.join().unwrap(), Err(ApiError::Cancelled)));
//!     pool.stop(true)
//! }
//! ```

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
