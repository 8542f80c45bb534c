//! Attempts in long-lived children of the worker: worker programs, and this program in the role `daemon`.
//!
//! A program is set aside (`sys::aside`) while it has no task. For one it becomes the leader of the attempt's tree, with its
//! leaf in the place of the worker's own, so that limits, figures, orders and kills are those of any process; the attempt is
//! over when it has answered and has left nothing behind. `key` is what it was started with, `child` its pipes, `keeper`
//! those that wait, `turn` one attempt, `words` what they say. Deliberately absent: several tasks at once in one program.

mod child;
mod keeper;
mod key;
mod turn;
mod words;

use std::path::PathBuf;

use self::child::{Birth, Program};
pub use self::keeper::{Programs, close, due_ms, send_all_away, tend};
use self::key::Key;
use self::turn::Turn;
use super::own_program;
use super::process::{Attempt, Tools};
use super::sandbox::{self, Plan};
use super::settle::{blank, collect};
use super::watch::Watch;
use super::worktree;
use crate::failpoint;
use crate::room;
use crate::sys::cgroup::Leaves;
use crate::sys::{clock, describe};
use crate::task::Verdict;
use crate::wire::{Finished, LineClosed, Report};

/// Runs the attempt to its end and cleans up after it. The report of its end is returned, not sent.
///
/// # Errors
/// The supervisor has gone; nothing of the attempt is left by then.
pub fn run(tools: &mut Tools, attempt: &Attempt) -> Result<Finished, LineClosed> {
    let (started_us, started_ns) = (clock::unix_us(), clock::monotonic_ns());
    if let Some(limit_ms) = tools.start_limit_ms(attempt) {
        let (ticket, id) = (attempt.ticket, attempt.task.id);
        tools.line.report(&Report::Starting { ticket, id, limit_ms })?;
    }
    let mut finished = match begin(tools, attempt) {
        Ok(seat) => Turn::new(tools, attempt, seat, (started_us, started_ns)).run_out(),
        Err(verdict) => blank(attempt, verdict, started_us),
    };
    tools.orders_kept.clear();
    finished.finished_us = clock::unix_us();
    finished.usage.wall_us = (clock::monotonic_ns() - started_ns) / 1_000;
    finished.sandbox = tools.sandboxes.take_held();
    let (result, error) = (finished.result.take(), finished.error.take());
    failpoint!("programs.before-cleanup");
    collect(tools, attempt, &mut finished);
    // What it has answered goes before what it may have left in files.
    finished.result = result.or(finished.result);
    finished.error = error.or(finished.error);
    Ok(finished)
}

/// A program with an attempt to do, and what it takes meanwhile.
#[derive(Debug)]
struct Seat {
    program: Program,
    watch: Watch,
    checkpoint: Option<PathBuf>,
    /// The worker's own leaves, in whose place the program's are.
    saved: Option<Leaves>,
}

/// Finds or starts the attempt's program, and has its limits in place.
fn begin(tools: &mut Tools, attempt: &Attempt) -> Result<Seat, Verdict> {
    let spec = &attempt.task.spec;
    let refuse = |why: String, errno| Verdict::NotStarted { why, errno };
    if spec.stdin.is_some() {
        return Err(refuse("a worker program has its messages on standard input, which cannot be a file".into(), None));
    }
    let checkpoint = match spec.checkpoint {
        false => None,
        true => Some(room::make_checkpoint(&tools.settings.checkpoints, attempt.task.id.seq()).map_err(|error| {
            refuse(format!("the checkpoint directory cannot be made: {}", describe(&error)), error.raw_os_error())
        })?),
    };
    worktree::make(tools, attempt)?;
    let pipes = child::pipes();
    let (near, far) = pipes.map_err(|e| refuse(format!("no pipes: {}", describe(&e)), e.raw_os_error()))?;
    // Also for a program that runs already: the task's directories are made over to its user.
    let plan = sandbox::plan(tools, attempt, checkpoint.as_deref(), &far.1)?;
    let key = Key::of(tools, attempt, checkpoint.as_ref(), matches!(plan, Plan::Closed(_)));
    if key.is_own
        && let Some(Err(why)) = spec.action.as_deref().map(|action| own_program::check(tools, action))
    {
        return Err(refuse(why, None));
    }
    let mut known = keeper::take(tools, &key);
    let leaves = match &mut known {
        Some(program) => program.leaves.take(),
        None => {
            keeper::make_room(tools);
            tools.programs.make_leaves(tools.leaves.as_ref())
        }
    };
    let saved = std::mem::replace(&mut tools.leaves, leaves);
    let begun = Watch::in_program(tools, attempt).and_then(|watch| {
        let program = match known.take() {
            Some(program) => program,
            None => {
                let rlimits = watch.bound(key.rlimits);
                let birth = Birth { near, far, plan: &plan, rlimits, needs_quota: watch.needs_quota() };
                failpoint!("programs.before-start");
                Program::start(tools, key, birth)?
            }
        };
        Ok((program, watch))
    });
    match begun {
        Ok((program, watch)) => {
            failpoint!("programs.after-start");
            Ok(Seat { program, watch, checkpoint, saved })
        }
        Err(verdict) => {
            let leaves = std::mem::replace(&mut tools.leaves, saved);
            match known {
                Some(mut program) => {
                    program.leaves = leaves;
                    tools.programs.keep(program);
                }
                None => leaves.into_iter().for_each(Leaves::remove),
            }
            Err(verdict)
        }
    }
}
