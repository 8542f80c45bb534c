//! A task as an action out of a shared object: in the worker itself, and in a link namespace of its own, so that two tasks
//! can use two versions of one library.
//!
//! `shelf` has the loaded libraries, `elf` reads what one needs, `stub` makes the linker look for it in the library's own
//! search path; the calls are those of `acode_action.h` (`sys::plugin`). Deliberately absent: the attempt around the call,
//! which is `inline`'s.

mod elf;
mod shelf;
mod stub;

pub use shelf::Libraries;

use serde_json::value::RawValue;

use super::inline;
use super::process::{Attempt, Tools};
use super::settle::blank;
use crate::actions::{Context, Outcome, ParamsError, Why};
use crate::sys::clock;
use crate::sys::plugin::{self, Caller, Entry, Fact};
use crate::task::{Action, ERROR_MAX, Isolation, Library, RESULT_MAX, Verdict};
use crate::wire::{Finished, LineClosed};

/// Runs the attempt to its end and cleans up after it. The report of its end is returned, not sent.
///
/// # Errors
/// The supervisor has gone; nothing of the task is left by then.
pub fn run(tools: &mut Tools, attempt: &Attempt) -> Result<Finished, LineClosed> {
    let Some((action, library)) = named(attempt) else {
        return Ok(not_started(attempt, "isolation library needs a library"));
    };
    if !tools.settings.sandbox.is_open() && !tools.settings.sandbox_rules.may_loosen {
        let why = "sandbox: a library runs in the worker itself, outside of any sandbox, and the pool's own may not be \
                   loosened (workers.sandbox.override is false)";
        return Ok(not_started(attempt, why));
    }
    let mut libraries = std::mem::take(&mut tools.libraries);
    let mut worn_out = false;
    // Loaded where the action runs, since the constructors of a library are its code as well.
    let ended = inline::run(tools, attempt, |context| match libraries.get(library) {
        Ok(entry) => call(entry, action, library, context),
        Err(error) => {
            worn_out = matches!(error, shelf::LibraryError::WornOut(_));
            Err(refused(library, &error.to_string()))
        }
    });
    tools.libraries = libraries;
    let mut finished = ended?;
    if worn_out {
        // Some libraries cannot be unloaded, whatever the linker is told. A worker that is full of them makes way for a new
        // one, and the task has not begun.
        finished.given_back = true;
        tools.stopping = true;
    }
    Ok(finished)
}

fn named(attempt: &Attempt) -> Option<(&Action, &Library)> {
    let action = attempt.task.spec.action.as_deref()?;
    Some((action, action.library.as_ref()?))
}

fn not_started(attempt: &Attempt, why: &str) -> Finished {
    let verdict = Verdict::NotStarted { why: why.to_owned(), errno: None };
    Finished { isolation: Isolation::Library, ..blank(attempt, verdict, clock::unix_us()) }
}

fn refused(library: &Library, why: &str) -> ParamsError {
    ParamsError::Library { path: library.path.clone(), why: why.to_owned() }
}

/// Has the library do it.
fn call(entry: &Entry, action: &Action, library: &Library, context: &mut Context<'_>) -> Result<Outcome, ParamsError> {
    let mut call = Call { context, result: None, error: None };
    let name = action.name.as_deref().unwrap_or_default();
    let code = entry.execute(name.as_bytes(), action.params.to_string().as_bytes(), &mut call);
    let words = call.error.unwrap_or_else(|| format!("its library returned {code}, and did not say why"));
    match code {
        plugin::DONE => Ok(Outcome::Done(call.result)),
        plugin::PANICKED => Ok(Outcome::Panicked(words)),
        plugin::REFUSED => Err(refused(library, &words)),
        _ => Ok(Outcome::Failed(words)),
    }
}

/// One action of a library, as the library sees it.
struct Call<'c, 'h> {
    context: &'c mut Context<'h>,
    result: Option<String>,
    error: Option<String>,
}

impl Caller for Call<'_, '_> {
    fn told_to_end(&self) -> i32 {
        match self.context.told_to_end() {
            None => plugin::GO_ON,
            Some(Why::Timeout) => plugin::TIMED_OUT,
            Some(Why::Cancel) => plugin::CANCELLED,
            Some(Why::GiveBack) => plugin::GIVE_BACK,
        }
    }

    fn progress(&mut self, percent: f64, message: &[u8]) {
        if percent.is_finite() {
            self.context.progress(percent, &String::from_utf8_lossy(message));
        }
    }

    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        use std::io::Write;
        // Output is taken or lost; there is nobody who could be told.
        let _ = match is_error {
            false => self.context.stdout().write_all(bytes),
            true => self.context.stderr().write_all(bytes),
        };
    }

    fn result(&mut self, json: &[u8]) -> bool {
        match serde_json::from_slice::<&RawValue>(json) {
            Ok(value) if value.get().len() <= RESULT_MAX => {
                self.result = (value.get() != "null").then(|| value.get().to_owned());
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn error(&mut self, words: &[u8]) {
        self.error = Some(String::from_utf8_lossy(&words[..words.len().min(ERROR_MAX)]).into_owned());
    }

    fn fact(&mut self, fact: Fact) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        let path = match fact {
            Fact::TaskId => return Some(self.context.task_id().to_string().into_bytes()),
            Fact::Scratch => self.context.scratch().ok(),
            // Without the slash that joining nothing would leave at its end.
            Fact::WorkingDirectory => self.context.path("").ok().map(|path| path.components().collect()),
            Fact::Checkpoint => self.context.checkpoint().map(ToOwned::to_owned),
        };
        path.map(|path: std::path::PathBuf| path.into_os_string().into_vec())
    }

    fn meta(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let key = std::str::from_utf8(key).ok()?;
        self.context.meta().get(key).map(|value| value.clone().into_bytes())
    }

    fn attempt(&self) -> u32 {
        self.context.attempt()
    }

    fn worker_slot(&self) -> u32 {
        self.context.worker_slot()
    }
}
