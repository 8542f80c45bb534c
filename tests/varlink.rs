//! A live pool, driven by a Varlink client that nobody here wrote: PyPI's `varlink`, which checks every call and reply
//! against the interface that the pool itself hands out.
//!
//! Deliberately absent: installing it; `scripts/test` does that and names the interpreter.

#[path = "common/command.rs"]
mod command;
mod common;

use std::process::{Command, Stdio};

use command::Running;
use common::{Options, Pool};

/// An interpreter that has the package. One that was named must have it.
fn python() -> Option<String> {
    if let Some(named) = std::env::var("ACODE_TEST_PYTHON").ok().filter(|path| !path.is_empty()) {
        return Some(named);
    }
    let mut check = Command::new("python3");
    check.args(["-c", "import varlink"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    check.status().is_ok_and(|status| status.success()).then(|| "python3".to_owned())
}

#[test]
fn a_foreign_varlink_client_drives_a_live_pool() {
    let Some(python) = python() else {
        eprintln!("not run: python3 has no package 'varlink'; scripts/test installs it");
        return;
    };
    let pool = Pool::start(Options::workers(2));
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/varlink_client.py");
    let mut command = Command::new(python);
    command.arg(client).arg(pool.socket());
    let said = Running::new(command, None).finish().expect(0);
    assert!(said.out.contains("all as it should be"), "{said:?}");
}
