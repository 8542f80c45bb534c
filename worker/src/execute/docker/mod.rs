//! One attempt in a container, through the command line client of docker or podman.
//!
//! The client that runs the container is the leader of the attempt's process tree, and the attempt is an ordinary one but
//! for the few places where a tree is ended, stopped or warned: those ask the [`Container`].
//!
//! Pure: `command` is the command line, `program` how this program itself runs in there, `environment` the variables, `inspect` what the engine says of a container and
//! `judge` what follows from it, `breaker` whether the engine is to be trusted, `cgroup` what the kernel says of a
//! container. The rest does things: `engine` calls the client and waits, `errand` does not wait, `marks` remember what may
//! exist, `launch` begins, `container` is the time between, `conclude` the end, `removal` what is left after it.

mod availability;
mod breaker;
mod cgroup;
mod command;
mod conclude;
mod container;
mod engine;
mod environment;
mod errand;
mod inspect;
mod judge;
mod launch;
mod limits;
mod marks;
mod meter;
mod mounts;
mod name;
mod program;
mod refused;
mod removal;
mod words;

pub use availability::{attend, isolation_of};
pub use conclude::freed_name;
pub use container::{Container, Found};
pub use launch::{clear_the_way, start};
pub use meter::Meter;
pub use removal::{Moment, remove_ended, sweep};

use super::process::Tools;
use crate::sys::clock;
use crate::task::Isolation;

/// What a worker knows of its containers and their engine.
#[derive(Debug, Default)]
pub struct Containers {
    availability: availability::Availability,
    ended: removal::Ended,
    /// The last attempt failed because another container has its name.
    name_taken: bool,
    /// Where the cgroup of a container was found that is not in a usual place.
    cgroup_parent: String,
    /// Whether the cgroup of any container was found up to now.
    sees_cgroups: bool,
}

/// How soon a worker looks again whether it is in the table, in milliseconds.
const REGISTERED_MS: u64 = 5;

/// For how long at the most an idle worker may sleep, in milliseconds, before it has to ask the engine, or to remove what
/// has ended; nothing if it may sleep as long as it likes.
pub fn nap_ms(tools: &Tools) -> Option<u64> {
    let containers = &tools.containers;
    let ended = containers.ended.nap_ms(clock::monotonic_ns());
    match tools.mode.isolation {
        Isolation::Process | Isolation::None | Isolation::Library => ended,
        Isolation::Docker if !tools.claimer.is_registered() => Some(REGISTERED_MS),
        Isolation::Docker => containers.availability.nap_ms().into_iter().chain(ended).min(),
    }
}
