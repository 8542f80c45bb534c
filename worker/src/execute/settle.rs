//! The end of an attempt, when its processes are dead: what it left is collected, kept or removed.
//!
//! Deliberately absent: the verdict, which is found before.

use super::artifacts;
use super::process::{Attempt, Tools};
use super::worktree;
use crate::task::Verdict;
use crate::wire::{Finished, Progress};

/// An end without a process.
pub fn blank(attempt: &Attempt, verdict: Verdict, at_us: i64) -> Finished {
    let task = &attempt.task;
    Finished {
        claimed_us: attempt.claimed_us,
        checkpoint: task.spec.checkpoint,
        ..Finished::blank(attempt.ticket, (task.id, task.attempt), verdict, at_us)
    }
}

/// Takes what the task left in its room, and makes the room fit for the next one.
pub fn collect(tools: &mut Tools, attempt: &Attempt, finished: &mut Finished) {
    let spec = &attempt.task.spec;
    let left = tools.room.collect();
    if let Some(progress) = left.progress {
        finished.progress = Some(Progress { percent: f64::from(progress.percent), message: progress.message });
    }
    finished.result = left.result;
    finished.error = left.error.or(left.result_error);
    artifacts::keep(tools, spec, finished);
    worktree::settle(tools, attempt, finished);
    super::keep::keep(tools, worktree::cleanup(tools, spec), finished);
    if tools.leaves.as_mut().is_some_and(|leaves| leaves.renew().is_err()) {
        // Without a leaf that a task could be born into, the subreaper alone holds trees together from now on.
        tools.leaves = None;
    }
    if let Err(error) = tools.room.clean() {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        finished.error.get_or_insert_with(|| format!("the scratch directory could not be removed: {cause}"));
        // The next task gets a new one, and if that fails this worker takes none.
        tools.stopping |= tools.room.replace().is_err();
    }
}
