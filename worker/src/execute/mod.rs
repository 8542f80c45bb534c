//! One attempt of one task, from its assignment to its verdict. One file per isolation.

mod artifacts;
mod birth;
mod call;
mod chores;
mod docker;
mod inline;
mod keep;
mod orders;
mod phase;
mod process;
mod program;
mod route;
mod sandbox;
mod settle;
mod start;
mod times;
mod watch;
mod worktree;

pub use chores::Chores;
pub use docker::{Containers, Moment, attend, nap_ms, remove_ended};
pub use process::{Attempt, Tools};
pub use program::WorkerFacts;
pub use route::run;
pub use sandbox::Sandboxes;
pub use settle::blank;
pub use worktree::{Made, Worktrees, clear_row};
