//! What is said about the modes of workers and the container engine: by `worker status`, when a pool comes up without it, and
//! when a task is submitted that no worker of the pool may take.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use acode_worker::task::{Class, Isolation};

use super::Context;
use crate::api::Door;
use crate::config::Modes;
use crate::wire::request::Status;
use crate::wire::types::StatusRecord;
use crate::wire::{Client, EngineRecord};

/// How long a pool that has just come up is asked for what its workers know of the engine.
const PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(20);

/// The pool's mode, with numbers where there are two.
pub fn mode(status: &StatusRecord) -> String {
    let counts = &status.workers.modes;
    match is_mixed(status) {
        true => format!("{} (process {}, docker {})", status.pool.mode, counts.process, counts.docker),
        false => status.pool.mode.clone(),
    }
}

/// Whether its workers are of two modes.
pub fn is_mixed(status: &StatusRecord) -> bool {
    status.pool.mode == "mixed"
}

/// How it stands with the engine, in one line.
pub fn words(docker: &EngineRecord) -> String {
    let (since, why) = (docker.since.map(|since| since.to_string()).unwrap_or_default(), why(docker));
    match docker.available {
        None => "no worker has found out yet".to_owned(),
        Some(true) => format!("available since {since} ({why})"),
        Some(false) => format!("unavailable since {since} ({why}): {}", fallback(docker)),
    }
}

/// What the engine or its client has said, on one line; longer than a table can bear, because it says what to do.
fn why(docker: &EngineRecord) -> String {
    const LONGEST: usize = 400;
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    docker.why.as_deref().unwrap_or_default().trim().chars().map(shown).take(LONGEST).collect()
}

/// What becomes of tasks meanwhile.
fn fallback(docker: &EngineRecord) -> &'static str {
    match docker.fallback == Isolation::Process.name() {
        true => "tasks that ask for a container wait, all others run as processes",
        false => "tasks for its workers wait",
    }
}

/// Says so if a pool that has just come up, and whose log goes to a file, cannot use the engine that its workers need.
pub fn tell_absence(context: &Context, modes: &Modes) {
    if !modes.has(Isolation::Docker) {
        return;
    }
    let Ok(mut client) = Client::connect(&context.dirs.control_socket()) else { return };
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A pool that does not answer any more is told of by whoever talks to it next.
        let Ok(reply) = client.call(&Status {}) else { return };
        let Some(docker) = reply.status.docker else { return };
        match docker.available {
            Some(true) => return,
            Some(false) => {
                eprintln!("acode: warning: Docker is not available: {}", why(&docker));
                return eprintln!("       until it is, {}", fallback(&docker));
            }
            None if Instant::now() < deadline => std::thread::sleep(NAP),
            None => return eprintln!("acode: warning: Docker has not answered yet; see: acode worker status"),
        }
    }
}

/// Says so if the pool that runs has no workers for some of what was submitted. Asks nothing where tasks do not ask.
pub fn tell_unserved(door: &mut Door, classes: impl IntoIterator<Item = Class>) {
    let asked = |class: Class| match class {
        Class::Any => None,
        Class::Process => Some(Isolation::Process),
        Class::Docker => Some(Isolation::Docker),
    };
    let asked: BTreeSet<Isolation> = classes.into_iter().filter_map(asked).collect();
    let Door::Pool(client) = door else { return };
    if asked.is_empty() {
        return;
    }
    // The tasks are accepted, and this is a note only.
    let Ok(reply) = client.call(&Status {}) else { return };
    let mode = reply.status.pool.mode.as_str();
    for isolation in asked.into_iter().filter(|asked| mode != "mixed" && mode != asked.name()) {
        eprintln!("acode: this pool has no {isolation} workers: what asks for one waits until it has");
        eprintln!("       workers.mode says of which modes they are, as in process:4,docker:2");
    }
}
