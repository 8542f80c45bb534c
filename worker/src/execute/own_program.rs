//! An action in a process of its own: this program, executed again; and the file in which a task finds its parameters.
//!
//! The attempt is an ordinary one in all else. The action is checked here, in the worker, before there is a process: so what
//! that ends with is the action's own doing. Deliberately absent: what the process does (`actions::child`).

use std::borrow::Cow;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::process::{Attempt, Tools};
use super::program;
use crate::actions::child::Assigned;
use crate::failpoint;
use crate::sys::{describe, image};
use crate::task::{Action, Env, TaskSpec, Verdict};

/// The action that is to be done by this program executed again; none for a command.
pub fn action_of(spec: &TaskSpec) -> Option<&Action> {
    spec.action.as_deref().filter(|_| spec.command.is_empty())
}

/// Writes down what the task is to do, if that does not stand on its command line, and says where.
///
/// # Errors
/// The verdict of an action that cannot be done here, or of a file that cannot be written.
pub fn give_params(tools: &Tools, attempt: &Attempt) -> Result<Option<PathBuf>, Verdict> {
    let task = &attempt.task;
    let Some(action) = task.spec.action.as_deref() else { return Ok(None) };
    let text = match action_of(&task.spec) {
        None => serde_json::to_vec(&action.told()),
        Some(action) => {
            check(tools, action).map_err(refuse)?;
            serde_json::to_vec(&Assigned {
                action: Cow::Borrowed(action),
                task: task.id,
                attempt: task.attempt,
                slot: tools.facts.slot.into(),
                meta: Cow::Borrowed(&task.spec.meta),
            })
        }
    };
    let text = text.map_err(|error| refuse(format!("the parameters cannot be written down: {error}")))?;
    failpoint!("worker.before-params");
    let given = tools.room.give_params(&text).map(Path::to_owned);
    let given = given.map_err(|error| Verdict::NotStarted {
        why: format!("the parameters cannot be written down: {}", describe(&error)),
        errno: error.raw_os_error(),
    })?;
    failpoint!("worker.after-params");
    Ok(Some(given))
}

/// Whether the action can be done by this program executed again.
pub(super) fn check(tools: &Tools, action: &Action) -> Result<(), String> {
    if action.library.is_some() {
        return Err("an action of a library runs in isolation library".to_owned());
    }
    if image::own().was_started_by_hand() {
        return Err("the pool was started through the dynamic loader by hand, and cannot be executed again".to_owned());
    }
    tools.actions.check_own(action).map_err(|error| error.to_string())
}

fn refuse(why: impl Into<String>) -> Verdict {
    Verdict::NotStarted { why: why.into(), errno: None }
}

/// The files to try for what this task executes, in order.
///
/// # Errors
/// The verdict of a task that executes nothing.
pub fn candidates(spec: &TaskSpec, base: &Env) -> Result<Vec<CString>, Verdict> {
    match (spec.command.first(), action_of(spec)) {
        (Some(program), _) => Ok(program::candidates(program, base, &spec.env)),
        (None, Some(_)) => {
            // The file itself comes first, since its name may be another version's by now, or out of sight; and where there
            // is no /proc, its name.
            let name = CString::new(image::own().program().as_os_str().as_bytes()).ok();
            Ok([Some(image::SELF.to_owned()), name].into_iter().flatten().collect())
        }
        (None, None) => Err(refuse("the task has no command")),
    }
}

/// What stands on the command line: of an action its name, for people who look at the processes.
pub fn words(spec: &TaskSpec) -> Cow<'_, [String]> {
    match action_of(spec) {
        None => Cow::Borrowed(&spec.command),
        Some(action) => {
            let program = image::own().program().to_string_lossy().into_owned();
            Cow::Owned(vec![program, action.display_name().to_owned()])
        }
    }
}

/// What a process of this program must be able to see.
pub fn files() -> impl Iterator<Item = &'static Path> + use<> {
    image::own().files()
}
