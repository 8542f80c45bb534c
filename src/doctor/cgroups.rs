//! Cgroups: how much of the hierarchy a pool that were started here would have.

use std::fs;
use std::path::PathBuf;

use acode_worker::sys::{cgroup, features};
use nix::unistd::{AccessFlags, access};

use super::{Finding, Host};

const HOW: &str = "start the pool by its systemd unit (Delegate=yes), or by \
                   'systemd-run --user --scope -p Delegate=yes acode worker start'";

/// The controllers that limits are held by.
const LIMITING: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Where a pool would stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The cgroup under which it would make its own, if it may.
    pub directory: Option<PathBuf>,
    /// The controllers that it could hand on to tasks.
    pub controllers: Vec<String>,
    /// Why it is no better.
    pub why: Option<String>,
}

/// Looks where this process stands, which a pool started here would inherit.
pub fn standing() -> Standing {
    let Some(own) = cgroup::own_directory() else {
        return Standing { why: Some("no cgroup v2 hierarchy is mounted".to_owned()), ..Standing::default() };
    };
    if access(&own, AccessFlags::W_OK).is_err() {
        let why = Some(format!("the cgroup {} may not be written", own.display()));
        return Standing { why, ..Standing::default() };
    }
    let list = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    let known = list.split_ascii_whitespace().filter(|name| LIMITING.contains(name));
    let controllers: Vec<String> = known.map(str::to_owned).collect();
    let why = controllers.is_empty().then(|| format!("no controller is available to the cgroup {}", own.display()));
    Standing { directory: Some(own), controllers, why }
}

/// The step of the ladder.
pub fn rung(host: &Host<'_>) -> Finding {
    let standing = &host.cgroups;
    let why = standing.why.clone().unwrap_or_default();
    match &standing.directory {
        Some(directory) if !standing.controllers.is_empty() => {
            Finding::ok(format!("delegated: limits are held under {}", directory.display()))
        }
        Some(_) => Finding::note(format!("core only: trees are killed as one, {why}"), HOW),
        None => Finding::note(format!("none: {why}"), HOW),
    }
}

/// Those that limits need.
pub fn controllers(host: &Host<'_>) -> Finding {
    let there = &host.cgroups.controllers;
    let missing: Vec<&str> = LIMITING.into_iter().filter(|name| !there.iter().any(|known| known == name)).collect();
    let had = if there.is_empty() { "none".to_owned() } else { there.join(" ") };
    match missing.as_slice() {
        [] => Finding::ok(had),
        missing => {
            let remedy = format!("have them delegated: {HOW}");
            Finding::note(format!("{had} (without {})", missing.join(" ")), &remedy)
        }
    }
}

/// Whether the cgroup was given to us, as far as that shows.
pub fn delegation(host: &Host<'_>) -> Finding {
    let Some(directory) = &host.cgroups.directory else {
        return Finding::note("nothing is delegated", HOW);
    };
    let mut value = [0; 8];
    let given = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| features::attribute(directory, name, &mut value).is_some_and(|text| text == b"1"));
    let under_systemd = std::path::Path::new("/run/systemd/system").is_dir();
    match (given, under_systemd) {
        (true, _) => Finding::ok("the cgroup is marked as delegated"),
        (false, true) => Finding::note("systemd manages this cgroup and has not delegated it", HOW),
        (false, false) => Finding::ok("the cgroup may be written, and no systemd manages it"),
    }
}

/// Whether trees can be killed by one write (Linux 5.14).
pub fn kill(host: &Host<'_>) -> Finding {
    // The root of the hierarchy has no such file, and its children have.
    let has = |directory: &PathBuf| {
        directory.join("cgroup.kill").exists()
            || fs::read_dir(directory)
                .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join("cgroup.kill").exists()))
    };
    let version = super::kernel::release();
    let there = host.cgroups.directory.as_ref().is_some_and(has) || version >= Some((5, 14));
    let remedy = "use Linux 5.14 or later: until then trees are killed process by process";
    Finding::have(there && host.cgroups.directory.is_some(), "there", "not there", remedy)
}
