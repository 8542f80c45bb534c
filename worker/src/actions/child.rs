//! One action in a process made for it: what a program does that a worker has executed again in the role `action`.
//!
//! The worker has checked the action before, so that the process ends as the action does: with 0, 1 or 101, or by what
//! killed it. It is an ordinary attempt of an ordinary task, with the same room, limits and sandbox; what it is to do stands
//! in the file that `ACODE_PARAMS` names. Deliberately absent: everything that only a pool or a command line needs. Nothing
//! here depends on which file is executed, since in a container that is a loader.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::context::{Context, Facts, Host, Why};
use super::registry::{Outcome, Registry};
use crate::failpoint;
use crate::sys::signal::{self, Noted};
use crate::sys::{describe, environ, process};
use crate::task::{Action, Env, PROGRESS_MESSAGE_MAX, TaskId};

/// The variable that says in which role a program is executed again.
pub const ROLE: &str = "ACODE_ROLE";
/// The role of a process that does one action.
pub const ROLE_ACTION: &str = "action";
/// The variable that names the file in which a process finds what it is to do.
pub const PARAMS: &str = "ACODE_PARAMS";
/// The signal that warns an action of its timeout.
pub const WARNING: i32 = libc::SIGUSR1;
/// The exit code of a process that could not even begin its action, as of a shell whose program cannot be executed.
const EXIT_NOT_BEGUN: i32 = 126;
/// How often progress is told at most; the supervisor is told less often still.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// What the process finds in that file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assigned<'a> {
    /// What it is to do.
    pub action: Cow<'a, Action>,
    /// For which task.
    pub task: TaskId,
    /// In which attempt.
    pub attempt: u32,
    /// In which slot.
    pub slot: u32,
    /// The submitter's own facts.
    pub meta: Cow<'a, Env>,
}

/// Does the action that this process was made for, and gives its exit code. The process must have one thread, and
/// nothing else to do.
pub fn play(registry: &Registry) -> i32 {
    process::set_name(c"acode-action");
    // From here on a signal is heard by the action; one that has come before ended a process that had done nothing.
    let assigned = signal::note().map_err(|error| format!("signals cannot be heard: {}", describe(&error)));
    match assigned.and_then(|()| read_assigned()) {
        Ok(assigned) => run(registry, &assigned),
        Err(why) => not_begun(&why),
    }
}

fn read_assigned() -> Result<Assigned<'static>, String> {
    let place = environ::take(PARAMS).ok_or_else(|| format!("{PARAMS} does not say what there is to do"))?;
    let text = std::fs::read(&place)
        .map_err(|error| format!("'{}' cannot be read: {}", place.to_string_lossy(), describe(&error)))?;
    serde_json::from_slice(&text).map_err(|error| format!("what there is to do cannot be understood: {error}"))
}

fn not_begun(why: &str) -> i32 {
    eprintln!("acode: {why}");
    leave("ACODE_ERROR", why);
    EXIT_NOT_BEGUN
}

fn run(registry: &Registry, assigned: &Assigned<'_>) -> i32 {
    let facts = Facts {
        id: assigned.task,
        attempt: assigned.attempt,
        slot: assigned.slot,
        meta: assigned.meta.clone().into_owned(),
        // The process was born in it.
        cwd: std::env::current_dir().ok(),
        checkpoint: std::env::var_os("ACODE_CHECKPOINT").map(PathBuf::from),
    };
    let mut host = Child::new();
    failpoint!("action.before-run");
    let ran = registry.run(&assigned.action, &mut Context::new(&facts, &mut host));
    failpoint!("action.before-result");
    host.finish();
    match ran {
        Ok(outcome) => end(outcome),
        Err(error) => not_begun(&error.to_string()),
    }
}

/// Leaves what came of it, and gives the exit code for it.
fn end(outcome: Outcome) -> i32 {
    let outcome = match outcome {
        Outcome::Done(Some(result)) if !leave("ACODE_RESULT", &result) => {
            Outcome::Failed("its result could not be written".to_owned())
        }
        outcome => outcome,
    };
    if let Some(error) = outcome.error() {
        leave("ACODE_ERROR", &error);
    }
    match outcome {
        // It has heard the signal and has not done its work: so it ends as whoever hears no signals.
        Outcome::Failed(_) if Noted::Term.has_come() => signal::end_by_term(),
        outcome => outcome.code(),
    }
}

/// Writes a text to the file that this variable names; whether that could be done.
fn leave(variable: &str, text: &str) -> bool {
    std::env::var_os(variable).is_some_and(|place| std::fs::write(place, text).is_ok())
}

/// The process, as its action's host.
struct Child {
    /// The FIFO, once there is something to tell; none where it cannot be written to.
    progress: Option<Option<File>>,
    told_at: Option<Instant>,
    /// The last word on its progress, if that was not told yet.
    untold: Option<String>,
}

impl Child {
    fn new() -> Self {
        Self { progress: None, told_at: None, untold: None }
    }

    fn tell(&mut self) {
        let Some(line) = self.untold.take() else { return };
        self.told_at = Some(Instant::now());
        // A line is written whole or not at all, and one that finds no room is followed by others.
        if let Some(progress) = self.progress.get_or_insert_with(open_progress)
            && progress.write(line.as_bytes()).is_err()
        {
            self.untold = Some(line);
        }
    }

    /// Says what was not said yet.
    fn finish(&mut self) {
        self.tell();
        let _ = io::stdout().flush();
    }
}

impl Host for Child {
    fn told_to_end(&self) -> Option<Why> {
        // Why it is sent, the signal does not say; the worker, who does not ask for our reason, knows.
        Noted::Term.has_come().then_some(Why::Cancel)
    }

    fn is_warned(&self) -> bool {
        Noted::User.has_come()
    }

    fn progress(&mut self, percent: f64, message: &str) {
        let message = &message[..message.floor_char_boundary(PROGRESS_MESSAGE_MAX)];
        self.untold = Some(format!("{percent:.1} {}\n", message.replace(['\n', '\r'], " ")));
        if self.told_at.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) {
            self.tell();
        }
    }

    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        // Nobody but the worker reads it, and what it does not take is lost.
        let _ = match is_error {
            true => io::stderr().write_all(bytes),
            false => io::stdout().write_all(bytes),
        };
    }

    fn scratch(&mut self) -> io::Result<PathBuf> {
        let place = std::env::var_os("ACODE_SCRATCH").map(PathBuf::from);
        place.ok_or_else(|| io::Error::other("there is no scratch directory"))
    }
}

/// The worker holds it open; nobody waits for a reader, or for room in it.
fn open_progress() -> Option<File> {
    let place = std::env::var_os("ACODE_PROGRESS")?;
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(place).ok()
}
