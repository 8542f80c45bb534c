//! The kernel, as far as acode needs more of it than std and nix offer: the home of this crate's `unsafe`.
//!
//! Each function is a thin, safe face over one primitive. Deliberately absent: any knowledge of tasks, workers or
//! the queue.

pub mod aside;
pub mod attributes;
pub mod cgroup;
pub mod clock;
pub mod confine;
pub mod copy;
pub mod dl;
pub mod entries;
pub mod environ;
pub mod failpoint;
pub mod features;
pub mod image;
pub mod ladder;
pub mod loopback;
pub mod mount;
pub mod pipe;
pub mod plugin;
pub mod process;
pub mod quota;
pub mod rlimit;
pub mod signal;
pub mod spawn;
pub mod stray;
pub mod tree;
pub mod usage;

/// The kernel's word without Rust's '(os error N)'.
pub fn describe(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| nix::errno::Errno::from_raw(n).desc().to_owned())
}
