//! A task as an action in the worker itself: a call of a function, with nothing between it and the worker.
//!
//! Nothing that costs a call of the kernel is done before an action asks for it: an action that uses neither its scratch
//! directory nor its output leaves no trace of itself. Deliberately absent: where the action comes from, which is the
//! caller's to know, and everything that a process could be given and a function cannot, which is refused at submission.

use std::io;
use std::path::{Path, PathBuf};

use super::process::{Attempt, Tools};
use super::settle::{blank, collect};
use super::worktree;
use crate::actions::{Context, Facts, Host, Outcome, ParamsError, Why};
use crate::failpoint;
use crate::output::{Stream, Writer};
use crate::room;
use crate::sys::{clock, describe};
use crate::task::{Isolation, Verdict};
use crate::wire::{Finished, LineClosed, Progress};

/// Runs the attempt to its end and cleans up after it: `work` is the action itself, which is called once or, where something
/// that it is to have cannot be had, not at all. The report of its end is returned, not sent.
///
/// # Errors
/// The supervisor has gone; nothing of the task is left by then.
pub fn run(
    tools: &mut Tools,
    attempt: &Attempt,
    work: impl FnOnce(&mut Context<'_>) -> Result<Outcome, ParamsError>,
) -> Result<Finished, LineClosed> {
    let started_us = clock::unix_us();
    let started_ns = clock::monotonic_ns();
    failpoint!("inline.before-action");
    let mut used_room = attempt.task.spec.worktree.is_some();
    let mut finished = match prepare(tools, attempt) {
        Ok(facts) => act(tools, attempt, &facts, &mut used_room, work),
        Err(verdict) => blank(attempt, verdict, started_us),
    };
    finished.isolation = attempt.task.spec.own_isolation().unwrap_or(Isolation::None);
    tools.orders_kept.clear();
    finished.started_us = started_us;
    finished.finished_us = clock::unix_us();
    finished.usage.wall_us = (clock::monotonic_ns() - started_ns) / 1_000;
    failpoint!("inline.after-action");
    if used_room {
        settle(tools, attempt, &mut finished);
    }
    Ok(finished)
}

/// What the action is told of its task, with what has to be made for that.
fn prepare(tools: &mut Tools, attempt: &Attempt) -> Result<Facts, Verdict> {
    let spec = &attempt.task.spec;
    let checkpoint = match spec.checkpoint {
        false => None,
        true => Some(room::make_checkpoint(&tools.settings.checkpoints, attempt.task.id.seq()).map_err(|error| {
            let why = format!("the checkpoint directory cannot be made: {}", describe(&error));
            Verdict::NotStarted { why, errno: error.raw_os_error() }
        })?),
    };
    worktree::make(tools, attempt)?;
    let worktree = tools.worktrees.current().map(|made| made.place().to_owned());
    Ok(Facts {
        id: attempt.task.id,
        attempt: attempt.task.attempt,
        slot: u32::from(tools.facts.slot),
        meta: spec.meta.clone(),
        cwd: spec.cwd.as_ref().map(PathBuf::from).or(worktree),
        checkpoint,
    })
}

fn act(
    tools: &mut Tools,
    attempt: &Attempt,
    facts: &Facts,
    used_room: &mut bool,
    work: impl FnOnce(&mut Context<'_>) -> Result<Outcome, ParamsError>,
) -> Finished {
    tools.journal.begin(attempt.task.id, attempt.task.attempt, tools.settings.output);
    let (journal, scratch) = (&mut tools.journal, tools.room.scratch());
    let mut inside = Inside { journal, scratch, used_room, progress: None };
    let ended = work(&mut Context::new(facts, &mut inside));
    let progress = inside.progress.take();
    let output = tools.journal.finish(clock::unix_us());
    let mut finished = blank(attempt, Verdict::WorkerLost, 0);
    finished.output = output;
    finished.progress = progress;
    match ended {
        Ok(outcome) => {
            finished.verdict = Verdict::Exited { code: outcome.code() };
            finished.error = outcome.error();
            if let Outcome::Done(result) = outcome {
                finished.result = result;
            }
        }
        Err(error) => finished.verdict = Verdict::NotStarted { why: error.to_string(), errno: None },
    }
    finished
}

/// Sees to the room that the action has used. What it answers counts, and not what lies there.
fn settle(tools: &mut Tools, attempt: &Attempt, finished: &mut Finished) {
    let own = (finished.result.take(), finished.error.take(), finished.progress.take());
    collect(tools, attempt, finished);
    let (result, error, progress) = own;
    finished.result = result;
    finished.error = error.or(finished.error.take());
    finished.progress = progress;
}

/// The worker itself, as its action sees it.
struct Inside<'t> {
    journal: &'t mut Writer,
    scratch: &'t Path,
    used_room: &'t mut bool,
    progress: Option<Progress>,
}

impl Host for Inside<'_> {
    fn told_to_end(&self) -> Option<Why> {
        None
    }

    fn progress(&mut self, percent: f64, message: &str) {
        self.progress = Some(Progress { percent, message: message.to_owned() });
    }

    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        let stream = if is_error { Stream::Stderr } else { Stream::Stdout };
        self.journal.append(stream, bytes, clock::unix_us());
    }

    fn scratch(&mut self) -> io::Result<PathBuf> {
        *self.used_room = true;
        Ok(self.scratch.to_owned())
    }
}
