//! One attempt of one task, from its assignment to its verdict. One file per isolation.

mod birth;
mod chores;
#[allow(dead_code, unused_imports, reason = "the calls of the client are on their way")]
mod docker;
mod keep;
mod process;
mod program;
mod sandbox;
mod settle;
mod start;
mod times;
mod watch;

pub use chores::Chores;
pub use process::{Attempt, Tools, run};
pub use program::WorkerFacts;
pub use sandbox::Sandboxes;
pub use settle::blank;
