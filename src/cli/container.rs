//! What tables say about containers. Pure.

use acode_worker::task::{Docker, Isolation};

use crate::wire::types::AttemptRecord;

/// What a task says about its container, in one line.
pub fn words(docker: &Docker) -> String {
    let Docker { image, entrypoint, network, platform, user, pull, mounts, args } = docker;
    let entrypoint = entrypoint.as_deref().map(|program| if program.is_empty() { "none" } else { program });
    let named = [
        ("image", image.as_deref()),
        ("entry point", entrypoint),
        ("network", network.as_deref()),
        ("platform", platform.as_deref()),
        ("user", user.as_deref()),
        ("pull", pull.map(|pull| pull.name())),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?)));
    let mounts = mounts.iter().map(|mount| format!("mount {mount}"));
    named.chain(mounts).chain(args.iter().cloned()).collect::<Vec<_>>().join(", ")
}

/// Where an attempt ran, as far as that is worth a note: in a container, or as a process although others of its task
/// (`mixed`) ran in one, because there was no container engine just then.
pub fn place(attempt: &AttemptRecord, mixed: bool) -> Option<&'static str> {
    match attempt.isolation {
        Some(Isolation::Docker) => Some("in a container"),
        Some(Isolation::Process) if mixed => Some("as a process"),
        Some(Isolation::None) => Some("in the worker"),
        Some(Isolation::Library) => Some("in the worker, from a library"),
        Some(Isolation::Process) | None => None,
    }
}
