//! acode: a durable task queue and pre-fork worker pool for one Linux server.
//!
//! A pool is a family of processes: a supervisor that keeps the queue, and workers that run commands and typed actions. The
//! program `acode` is one way to use it; this crate is the other, for programs that want a pool inside. Both are the same
//! pool: what one has submitted the other sees.
//!
//! ```standalone_crate
//! use acode::api::{self, ActionError, Context, Registry, WorkAction, WorkerPool, WorkerPoolOptions};
//!
//! /// Work with a name, what it is told, and what it answers.
//! struct Square;
//!
//! impl WorkAction for Square {
//!     const NAME: &'static str = "square";
//!     type Params = u64;
//!     type Output = u64;
//!
//!     fn execute(number: u64, _: &mut Context<'_>) -> Result<u64, ActionError> {
//!         number.checked_mul(number).ok_or_else(|| ActionError::new("too large"))
//!     }
//! }
//!
//! fn main() -> Result<(), api::ApiError> {
//!     // The pool executes this program again for its other processes: this call does their work.
//!     api::init(Registry::built_in().with::<Square>());
//!
//!     let pool = WorkerPool::start(WorkerPoolOptions::default())?;
//!     let queue = pool.executor().no_isolation();
//!     let handles = (0..10).map(|number| queue.submit::<Square>(number)).collect::<Result<Vec<_>, _>>()?;
//!     let squares = handles.iter().map(|handle| handle.join()).collect::<Result<Vec<_>, _>>()?;
//!     assert_eq!(squares.iter().sum::<u64>(), 285);
//!     pool.stop(false)
//! }
//! ```
//!
//! [`api`] is the library. The other modules are what it and the command line are made of; they are public for tools that look
//! closer, and may change with any version. Whole programs are in `docs/examples` of the repository: a file processor, a manager of
//! CPU-intensive work, a service that loses nothing when it is killed.

pub mod api;
mod artifacts;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod local;
pub mod records;
pub mod repository;
pub mod requests;
pub mod rundir;
pub mod store;
pub mod supervisor;
mod sweep;
pub mod taskfile;
pub mod tree;
pub mod wire;

/// An error with all of its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent wrappers repeat their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
