//! What is needed to run an attempt in a container and runs no program itself: data, texts and files that are read.
//!
//! `command` is the command line, `environment` the variables, `inspect` what the engine says of a container and `judge`
//! what follows from it, `breaker` whether the engine is to be trusted, `cgroup` what the kernel says of a container.
//! Deliberately absent: every call of the client.

mod breaker;
mod cgroup;
mod command;
mod environment;
mod inspect;
mod judge;
mod limits;
mod mounts;
mod name;
mod refused;
mod words;

pub use breaker::{Breaker, Change, Event, State};
pub use cgroup::{ContainerCgroup, Hint, Reading, device_path, is_unified};
pub use command::{Bind, Request, command_line, unheld};
pub use environment::{EnvFile, Variables, pool_variables};
pub use inspect::{INSPECT, InspectError, Inspected};
pub use judge::{Cause, Decision, Evidence, Known, judge};
pub use name::{Client, ContainerId, container_name};
pub use refused::Refused;
pub use words::{Speaker, Words};
