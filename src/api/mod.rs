//! The library face: the same pool for programs of one's own.
//!
//! Deliberately absent: a second way to do anything. The command line is a client of this.

pub mod role;

pub use acode_worker::actions::{ActionError, Cancelled, Context, Registry, WorkAction};
pub use role::init;
