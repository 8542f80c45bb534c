//! One attempt of one task, from its assignment to its verdict. One file per isolation.

mod artifacts;
mod birth;
mod call;
mod charge;
mod chores;
mod course;
mod docker;
mod inline;
mod keep;
mod library;
mod minder;
mod orders;
mod own_program;
mod panics;
mod phase;
mod process;
mod program;
mod programs;
mod route;
mod sandbox;
mod settle;
mod start;
mod times;
mod watch;
mod worktree;

pub use chores::Chores;
pub use docker::{Containers, Moment, attend, nap_ms, remove_ended};
pub use library::Libraries;
pub use minder::Minder;
pub use process::{Attempt, Tools};
pub use program::WorkerFacts;
pub use programs::{Programs, close, due_ms, send_all_away, tend};
pub use route::run;
pub use sandbox::Sandboxes;
pub use settle::blank;
pub use worktree::{Made, Worktrees, clear_row};
