//! Which way an attempt goes: a process or a container, the worker itself, a library, or a worker program.
//!
//! Deliberately absent: the ways themselves, each of which has a file of its own.

use super::inline;
use super::library;
use super::process::{self, Attempt, Tools};
use super::settle::blank;
use crate::actions::Registry;
use crate::sys::clock;
use crate::task::{Action, ActionType, Isolation, TaskSpec, Verdict};
use crate::wire::{Finished, LineClosed};

/// Where an attempt runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// In a process made for it, or a container: a command, or this program in the role `action`.
    Process,
    /// In the worker itself.
    Inline,
    /// In the worker itself, out of a shared object.
    Library,
    /// In a long-lived child of the worker: a worker program, or this program in the role `daemon`.
    Program,
    /// Nowhere: there is nothing to do.
    Nowhere,
}

/// Where an attempt at this runs, in a pool that has these actions, and a worker program of its own or not.
pub(super) fn route(spec: &TaskSpec, actions: &Registry, pool_has_program: bool) -> Route {
    let Some(action) = &spec.action else {
        return if spec.command.is_empty() { Route::Nowhere } else { Route::Process };
    };
    if !spec.command.is_empty() {
        return Route::Process;
    }
    if !action.program.is_empty() || falls_to_program(action, actions, pool_has_program) {
        return Route::Program;
    }
    match spec.own_isolation() {
        Some(Isolation::None) => Route::Inline,
        Some(Isolation::Library) => Route::Library,
        Some(Isolation::Process) | None if action.reuse => Route::Program,
        Some(Isolation::Process | Isolation::Docker) | None => Route::Process,
    }
}

/// Whether a custom action is the pool's worker program's to do: nobody else is named for it, or knows it.
pub(super) fn falls_to_program(action: &Action, actions: &Registry, pool_has_program: bool) -> bool {
    let known = action.name.as_deref().is_some_and(|name| actions.has(name));
    pool_has_program && action.kind == ActionType::Custom && action.library.is_none() && !known
}

/// Runs the attempt to its end and cleans up after it. The report of its end is returned, not sent.
///
/// # Errors
/// The supervisor has gone; nothing of the task is left by then.
pub fn run(tools: &mut Tools, attempt: &Attempt) -> Result<Finished, LineClosed> {
    let pool_has_program = !tools.settings.actions.program.is_empty();
    match route(&attempt.task.spec, tools.actions, pool_has_program) {
        Route::Process => process::run(tools, attempt),
        Route::Inline => run_inline(tools, attempt),
        Route::Library => library::run(tools, attempt),
        Route::Program => super::programs::run(tools, attempt),
        Route::Nowhere => Ok(not_started(attempt, "the task has no command")),
    }
}

/// Runs one of this program's own actions in the worker itself.
fn run_inline(tools: &mut Tools, attempt: &Attempt) -> Result<Finished, LineClosed> {
    let Some(action) = &attempt.task.spec.action else { return Ok(not_started(attempt, "the task has no action")) };
    let actions = tools.actions;
    inline::run(tools, attempt, |context| actions.run(action, context))
}

fn not_started(attempt: &Attempt, why: &str) -> Finished {
    blank(attempt, Verdict::NotStarted { why: why.to_owned(), errno: None }, clock::unix_us())
}
