//! Cgroups: how much of the hierarchy a pool that were started here would have.

use std::fs;
use std::path::PathBuf;

use acode_worker::sys::cgroup;
use acode_worker::sys::ladder::{Ladder, Rung};

use super::{Finding, Host};

const HOW: &str = "start the pool by its systemd unit (Delegate=yes), or by \
                   'systemd-run --user --scope -p Delegate=yes acode worker start'";

/// What helps where the controllers are bound to cgroup v1.
const HYBRID: &str = "boot with systemd.unified_cgroup_hierarchy=1: here the controllers belong to cgroup v1";

/// What leads to the next step of the ladder.
fn remedy(host: &Host<'_>) -> &'static str {
    let is_hybrid = host.ladder.directory.as_ref().is_some_and(|own| own.starts_with("/sys/fs/cgroup/unified"));
    if is_hybrid { HYBRID } else { HOW }
}

/// The step of the ladder.
pub fn rung(host: &Host<'_>) -> Finding {
    let Ladder { rung, directory, why, .. } = &host.ladder;
    let why = why.as_deref().unwrap_or("no cgroup can be made");
    match rung {
        Rung::Delegated => {
            let place = directory.as_ref().map(|place| format!(" under {}", place.display())).unwrap_or_default();
            Finding::ok(format!("delegated: limits are held{place}"))
        }
        Rung::Core => Finding::note(format!("core only: trees are killed as one; {why}"), remedy(host)),
        Rung::None => Finding::note(format!("none: {why}"), remedy(host)),
    }
}

/// Those that limits need.
pub fn controllers(host: &Host<'_>) -> Finding {
    let named = host.ladder.controllers.named();
    let missing: Vec<&str> = named.into_iter().filter(|(_, has)| !has).map(|(name, _)| name).collect();
    let had = host.ladder.controllers.names().join(" ");
    match missing.as_slice() {
        [] => Finding::ok(had),
        _ if had.is_empty() => Finding::note("none", remedy(host)),
        missing => {
            let remedy = format!("have them delegated: {}", remedy(host));
            Finding::note(format!("{had} (without {})", missing.join(" ")), &remedy)
        }
    }
}

/// Whether the cgroup was given to us, as far as that shows.
pub fn delegation(host: &Host<'_>) -> Finding {
    let Some(directory) = &host.ladder.directory else {
        return Finding::note("nothing is delegated", HOW);
    };
    let given = cgroup::is_marked(directory);
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
    let there = host.ladder.directory.as_ref().is_some_and(has) || version >= Some((5, 14));
    let remedy = "use Linux 5.14 or later: until then trees are killed process by process";
    Finding::have(there && host.ladder.directory.is_some(), "there", "not there", remedy)
}
