//! Whether this worker may use the container engine now, as it finds out by itself: by probes, and by what comes of real
//! calls.
//!
//! Each docker worker has its own opinion, because each has its own environment and luck, and nobody has to be asked. What
//! follows is which tasks it claims, and how it runs those that may run either way. Deliberately absent: when an opinion
//! changes, which is the `breaker`'s.

use super::super::process::Tools;
use super::breaker::{Breaker, Change, Event};
use super::engine::{CallError, call};
use super::name::Client;
use crate::sys::clock;
use crate::task::{Class, Isolation, TaskSpec, Verdict};
use crate::wire::{LineClosed, Report};

/// What comes of a worker's look at its engine.
#[derive(Debug, Default)]
pub struct Availability {
    breaker: Breaker,
    /// What the supervisor was not told yet.
    untold: Option<Change>,
}

impl Availability {
    /// Takes note of a call that did what it should, or that failed for reasons of the task's.
    pub fn call_ok(&mut self) {
        self.take(Event::CallOk);
    }

    /// Takes note of a call that failed by the engine's fault.
    pub fn call_failed(&mut self, why: &str) {
        self.take(Event::CallFailed(why));
    }

    /// Whether a task may be given to the engine.
    pub fn is_up(&self) -> bool {
        self.breaker.lets_through()
    }

    /// For how long at the most an idle worker may sleep, in milliseconds.
    pub fn nap_ms(&self) -> Option<u64> {
        self.breaker.next_probe_ms().map(|at| at.saturating_sub(now_ms()))
    }

    fn take(&mut self, event: Event<'_>) {
        self.untold = self.breaker.take(event, now_ms()).or(self.untold.take());
    }
}

fn now_ms() -> u64 {
    clock::monotonic_ns() / 1_000_000
}

/// Looks after the engine between two tasks: asks it if it is time to, tells the supervisor what has changed, and takes
/// those classes of tasks that can be run now.
///
/// # Errors
/// The supervisor is gone.
pub fn attend(tools: &mut Tools) -> Result<(), LineClosed> {
    if tools.mode.isolation == Isolation::Process {
        return Ok(());
    }
    if tools.containers.availability.breaker.wants_probe(now_ms()) {
        match probe(tools) {
            Ok(version) => tools.containers.availability.take(Event::ProbeOk(&version)),
            Err(error) => tools.containers.availability.take(Event::ProbeFailed(&error.to_string())),
        }
    }
    if let Some(change) = tools.containers.availability.untold.take() {
        let report = match change {
            Change::Up(why) => Report::Engine { up: true, why },
            Change::Down(why) => Report::Engine { up: false, why },
        };
        tools.line.report(&report)?;
    }
    let classes = classes(tools);
    tools.claimer.take_only(classes);
    Ok(())
}

/// Asks the engine for its version.
///
/// # Errors
/// It gave none.
pub fn probe(tools: &mut Tools) -> Result<String, CallError> {
    let settings = &tools.settings.docker;
    // Podman has no engine to ask; what runs containers is the client itself.
    let format = match Client::of(&settings.program) {
        Client::Docker => "{{.Server.Version}}",
        Client::Podman => "{{.Client.Version}}",
    };
    let limit_ms = settings.call_timeout_ms;
    let version = call(tools, &["version", "--format", format], limit_ms)?.trim().to_owned();
    match version.is_empty() {
        false => Ok(version),
        true => Err(CallError::Refused { what: "version".to_owned(), words: "the engine tells no version".to_owned() }),
    }
}

/// The tasks that a docker worker takes now.
fn classes(tools: &Tools) -> &'static [Class] {
    // A worker that is not in the table yet would be taken for a dead one, and its containers with it.
    let may_use = tools.containers.availability.is_up() && tools.claimer.is_registered();
    match (may_use, tools.mode.serves_any, tools.settings.docker.fallback) {
        (true, true, _) => &[Class::Any, Class::Docker],
        (true, false, _) => &[Class::Docker],
        (false, true, true) => &[Class::Any],
        (false, true | false, false) | (false, false, true) => &[],
    }
}

/// How this task is kept apart here and now.
///
/// # Errors
/// The verdict of a task that this worker cannot run: lanes keep such tasks from it, and it holds against mistakes.
pub fn isolation_of(tools: &Tools, spec: &TaskSpec) -> Result<Isolation, Verdict> {
    let refuse = |why: &str| Err(Verdict::NotStarted { why: why.to_owned(), errno: None });
    match (tools.mode.isolation, spec.class()) {
        (Isolation::None | Isolation::Library, _) => refuse("this worker has a mode that no worker has"),
        (Isolation::Process, Class::Any | Class::Process) => Ok(Isolation::Process),
        (Isolation::Process, Class::Docker) => refuse(
            "the task asks for a container, and this worker runs tasks as processes (workers.mode has docker workers)",
        ),
        (Isolation::Docker, Class::Docker) => Ok(Isolation::Docker),
        (Isolation::Docker, Class::Process) => {
            refuse("the task asks for a process, and this worker runs tasks in containers (workers.mode has others)")
        }
        (Isolation::Docker, Class::Any) => {
            let falls_back = !tools.containers.availability.is_up() && tools.settings.docker.fallback;
            Ok(if falls_back { Isolation::Process } else { Isolation::Docker })
        }
    }
}
