//! The library face: the same pool for programs of one's own.
//!
//! Deliberately absent: a second way to do anything. The command line is a client of this.

mod cancel;
mod door;
mod error;
mod launch;
mod line;
mod outcome;
pub mod role;

pub use acode_worker::actions::{ActionError, Cancelled, Context, Registry, WorkAction};
pub use cancel::CancelToken;
pub use door::{Door, Need, RoomWait};
pub use error::{ApiError, Failures};
pub use launch::PoolProcess;
pub use outcome::{TaskFailure, TaskOutcome};
pub use role::init;
