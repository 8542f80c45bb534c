//! One attempt of one task, from its assignment to its verdict. One file per isolation.

mod birth;
mod keep;
mod process;
mod program;
mod sandbox;
mod times;
mod watch;

pub use keep::Chores;
pub use process::{Attempt, Tools, blank, run};
pub use program::WorkerFacts;
pub use sandbox::Sandboxes;
