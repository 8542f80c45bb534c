//! Sandboxes: by what means each kind would be held here, and whether what the configuration asks of all tasks can be had.
//!
//! Deliberately absent: how it is found out (`worker/src/sys/confine`).

use acode_worker::task::{DeviceAccess, FileAccess, NetworkAccess, SignalReach};

use super::{Finding, Host};

const HOW: &str = "run as root, or permit unprivileged user namespaces ('unshare -Ur true' must work)";

/// No network.
pub fn network(host: &Host<'_>) -> Finding {
    kind(host, "network", host.config.workers.sandbox.default.network == Some(NetworkAccess::None), HOW)
}

/// A file system that is not the host's.
pub fn filesystem(host: &Host<'_>) -> Finding {
    let asked = host.config.workers.sandbox.default.filesystem.is_some_and(|access| access != FileAccess::Host);
    kind(host, "filesystem", asked, HOW)
}

/// A few devices only.
pub fn devices(host: &Host<'_>) -> Finding {
    kind(host, "devices", host.config.workers.sandbox.default.devices == Some(DeviceAccess::Minimal), HOW)
}

/// Another user.
pub fn user(host: &Host<'_>) -> Finding {
    kind(host, "user", host.config.workers.sandbox.default.user.is_some(), "run the pool as root")
}

/// Whom a task without a sandbox may signal.
pub fn signals(host: &Host<'_>) -> Finding {
    match host.config.workers.sandbox.signals {
        SignalReach::Host => Finding::ok("workers.sandbox.signals is host: those of its user"),
        SignalReach::Own => {
            kind(host, "signals", false, "use Linux 6.12 or later: until then tasks of one user can signal each other")
        }
    }
}

fn kind(host: &Host<'_>, name: &str, asked: bool, remedy: &str) -> Finding {
    let found = host.abilities.describe().into_iter().find(|(known, _)| *known == name).map(|(_, by)| by);
    match found.unwrap_or_default() {
        by if !by.starts_with("none") => Finding::ok(by),
        by if asked => Finding::bad(format!("{by}; workers.sandbox asks for it"), remedy),
        by => Finding::note(by, remedy),
    }
}
