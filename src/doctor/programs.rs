//! Other programs: systemd and Docker. None of them is needed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Finding, Host};

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(10);

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

/// Whether containers can be run.
pub fn docker(_: &Host<'_>) -> Finding {
    let install = "needed for tasks in containers only: install Docker, and let this user reach its socket";
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.Version}}"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return Finding::note("no client", install) };
    match ended_in_time(&mut child) {
        None => Finding::note(format!("the engine did not answer within {} s", PATIENCE.as_secs()), install),
        Some(false) => Finding::note("a client, and no engine that it reaches", install),
        Some(true) => {
            let version = child.stdout.take().and_then(|out| std::io::read_to_string(out).ok()).unwrap_or_default();
            Finding::ok(format!("engine {}", version.trim()))
        }
    }
}

/// Whether the program succeeded; nothing if it had to be killed.
fn ended_in_time(child: &mut Child) -> Option<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(NAP),
            Ok(None) | Err(_) => {
                // One that has ended meanwhile needs no kill; what it was is of no interest.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}
