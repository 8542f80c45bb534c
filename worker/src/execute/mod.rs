//! One attempt of one task, from its assignment to its verdict. One file per isolation.

mod keep;
mod process;
mod program;
mod times;
mod watch;

pub use keep::Chores;
pub use process::{Attempt, Tools, blank, run};
pub use program::WorkerFacts;
