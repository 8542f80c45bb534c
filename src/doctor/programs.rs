//! systemd, which is not needed.

use std::path::Path;

use super::{Finding, Host};

/// Whether systemd runs this system, and acode under it.
pub fn systemd(_: &Host<'_>) -> Finding {
    if !Path::new("/run/systemd/system").is_dir() {
        return Finding::note(
            "not the init of this system",
            "none needed: start the pool by whatever starts services here",
        );
    }
    match std::env::var_os("INVOCATION_ID") {
        Some(_) => Finding::ok("there, and this runs in a unit of it"),
        None => Finding::ok("there"),
    }
}
