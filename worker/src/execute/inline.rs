//! A task as an action in the worker itself: a call of a function, with nothing between it and the worker.
//!
//! Nothing that costs a call of the kernel is done before an action asks for it: an action that uses neither its scratch
//! directory nor its output leaves no trace of itself. Deliberately absent: where the action comes from, which is the
//! caller's to know, and everything that a process could be given and a function cannot, which is refused at submission.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::charge::Charge;
use super::minder::{self, Shared};
use super::panics;
use super::phase::End;
use super::process::{Attempt, Tools};
use super::settle::{blank, collect};
use super::times::Times;
use super::watch::Watch;
use super::worktree;
use crate::actions::{Context, Facts, Host, Outcome, ParamsError, Why};
use crate::failpoint;
use crate::output::{Stream, Writer};
use crate::room;
use crate::sys::tree::{self, Reaper, Remains, Used};
use crate::sys::{clock, describe};
use crate::task::{ERROR_MAX, HeldLimit, Hold, Isolation, PROGRESS_MESSAGE_MAX, TreeGuard, Verdict};
use crate::wire::{Finished, LineClosed, Progress};

/// How often processes that an action has left are looked for while they are being killed.
const REAP_INTERVAL: std::time::Duration = std::time::Duration::from_millis(2);
/// Why no limit is held.
const NOT_HELD: &str = "not held: the action runs in the worker";
/// No process is made in less time than this, in nanoseconds.
const FORK_NS: u64 = 10_000;
/// What is said of an action that did not end.
const OVERDUE: &str = "it did not end when it was told to, and its worker was ended with it";

/// Runs the attempt to its end and cleans up after it: `work` is the action itself, which is called once or, where something
/// that it is to have cannot be had, not at all. The report of its end is returned, not sent.
///
/// `work` runs on this thread, the worker's first. Meanwhile nothing of `tools` can be used but by way of its context, and
/// orders, reports, times and signs of life are the minder's.
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
    let mut finished = Finished {
        isolation: attempt.task.spec.own_isolation().unwrap_or(Isolation::None),
        guard: TreeGuard::Worker,
        ..blank(attempt, Verdict::WorkerLost, started_us)
    };
    let mut used_room = attempt.task.spec.worktree.is_some();
    match prepare(tools, attempt) {
        Ok(facts) => {
            finished.limits = limits(tools, attempt);
            let grace_ms = attempt.task.spec.grace_ms.unwrap_or(tools.settings.kill_grace_ms);
            let (times, beat_ms) = (times(tools, attempt, started_ns), tools.settings.heartbeat_interval_ms);
            let charge = Charge::new(finished, started_ns, times, grace_ms, beat_ms);
            finished = act(tools, attempt, charge, &facts, &mut used_room, work);
        }
        Err(verdict) => finished.verdict = verdict,
    }
    tools.orders_kept.clear();
    finished.finished_us = clock::unix_us();
    finished.usage.wall_us = (clock::monotonic_ns() - started_ns) / 1_000;
    failpoint!("inline.after-action");
    if used_room {
        settle(tools, attempt, &mut finished);
        failpoint!("inline.after-cleanup");
    }
    Ok(finished)
}

/// What the action is told of its task, with what has to be made for that.
fn prepare(tools: &mut Tools, attempt: &Attempt) -> Result<Facts, Verdict> {
    let spec = &attempt.task.spec;
    let settings = &tools.settings;
    if !settings.sandbox.is_open() && !settings.sandbox_rules.may_loosen {
        let why = "the pool has a sandbox for its tasks, which an action in the worker is not in: isolation process is";
        return Err(Verdict::NotStarted { why: why.to_owned(), errno: None });
    }
    let checkpoint = match spec.checkpoint {
        false => None,
        true => Some(
            room::make_checkpoint(&settings.checkpoints, attempt.task.id.seq())
                .map_err(|error| refuse("the checkpoint directory cannot be made", &error))?,
        ),
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

fn refuse(what: &str, error: &io::Error) -> Verdict {
    Verdict::NotStarted { why: format!("{what}: {}", describe(error)), errno: error.raw_os_error() }
}

fn times(tools: &Tools, attempt: &Attempt, started_ns: u64) -> Times {
    let spec = &attempt.task.spec;
    let timeout_ms = tools.settings.timeout_of(spec);
    Times::new(started_ns, timeout_ms, spec.soft_timeout.map(|soft| soft.before_ms))
}

/// The limits that the pool has for its tasks, none of which is held here.
fn limits(tools: &Tools, attempt: &Attempt) -> Vec<HeldLimit> {
    let wanted = Watch::limits(tools, attempt).values().into_iter();
    let held = |(key, value): (&str, Option<u64>)| {
        let (limit, by) = (key.to_owned(), NOT_HELD.to_owned());
        value.map(|value| HeldLimit { limit, value, hold: Hold::None, by, exceeded: false })
    };
    wanted.filter_map(held).collect()
}

/// Calls the action, under the minder's eyes.
fn act(
    tools: &mut Tools,
    attempt: &Attempt,
    charge: Box<Charge>,
    facts: &Facts,
    used_room: &mut bool,
    work: impl FnOnce(&mut Context<'_>) -> Result<Outcome, ParamsError>,
) -> Finished {
    let shared = match minder::ready(tools) {
        Ok(shared) => shared,
        Err(error) => {
            let verdict = refuse("the worker's second thread cannot be made", &error);
            return Finished { verdict, ..charge.finished };
        }
    };
    minder::begin(tools, &shared, charge);
    tools.journal.begin(facts.id, facts.attempt, tools.settings.output);
    let (journal, scratch) = (&mut tools.journal, tools.room.scratch());
    let mut inside = Inside { journal, scratch, used_room, shared: &shared };
    let (ended, place) = panics::during(|| work(&mut Context::new(facts, &mut inside)));
    if let (Ok(Outcome::Panicked(words)), Some(place)) = (&ended, place) {
        inside.tell_panic(&place, words);
    }
    // Nobody else takes it.
    let Some(mut charge) = minder::end(tools, &shared) else { return blank(attempt, Verdict::WorkerLost, 0) };
    let now_ns = clock::monotonic_ns();
    // Beside programs that wait, telling others from them costs more than an action that cannot have made any.
    let too_short = now_ns.saturating_sub(charge.started_ns) < FORK_NS && tree::has_aside();
    let leaked = !too_short && end_what_is_left(tools);
    let used = minder::count(tools, &charge, clock::monotonic_ns());
    charge.finished.output = tools.journal.finish(clock::unix_us());
    charge.finished.leaked = leaked;
    let why = charge.phase.why();
    told(&mut charge.finished, why, used);
    judge(&mut charge.finished, why, ended);
    charge.finished
}

/// How it ended: as it was told to, or as it did by itself.
fn judge(finished: &mut Finished, why: Option<End>, ended: Result<Outcome, ParamsError>) {
    let by_itself = match ended {
        Ok(outcome) => {
            let verdict = Verdict::Exited { code: outcome.code() };
            finished.error = outcome.error();
            if let Outcome::Done(result) = outcome {
                finished.result = result;
            }
            verdict
        }
        Err(error) => Verdict::NotStarted { why: error.to_string(), errno: None },
    };
    finished.verdict = why.map_or(by_itself, End::verdict);
}

/// What is said in any case of an attempt that was told to end, or was not.
fn told(finished: &mut Finished, why: Option<End>, used: Used) {
    finished.given_back = matches!(why, Some(End::GiveBack | End::Orphaned));
    finished.usage.user_us = used.user_us;
    finished.usage.system_us = used.system_us;
    finished.usage.read_bytes = used.read_bytes;
    finished.usage.written_bytes = used.written_bytes;
}

/// The end of an action that goes on when its grace is over, as the minder tells it.
pub fn overdue(charge: &mut Charge, why: End, used: Used) {
    let finished = &mut charge.finished;
    finished.verdict = why.verdict();
    finished.error = Some(OVERDUE.to_owned());
    told(finished, Some(why), used);
    finished.finished_us = clock::unix_us();
    finished.usage.wall_us = clock::monotonic_ns().saturating_sub(charge.started_ns) / 1_000;
}

/// Kills the processes that the action has left running, and says whether there were any. Without any it is one call of the
/// kernel.
fn end_what_is_left(tools: &mut Tools) -> bool {
    let mut reaper = Reaper::new(0);
    let mut leaked = false;
    while reaper.reap() == Remains::Something {
        leaked = true;
        tree::kill_all(None);
        tools.claimer.beat(clock::monotonic_ns());
        // Whatever it is told now came too late; that the supervisor has gone shows at the next look.
        let _ = tools.keep_orders();
        std::thread::sleep(REAP_INTERVAL);
    }
    leaked
}

/// Sees to the room that the action has used. What it answers counts, and not what lies there.
fn settle(tools: &mut Tools, attempt: &Attempt, finished: &mut Finished) {
    let (result, error, progress) = (finished.result.take(), finished.error.take(), finished.progress.take());
    collect(tools, attempt, finished);
    finished.result = result;
    finished.error = error.or(finished.error.take());
    finished.progress = progress;
}

/// The worker itself, as its action sees it.
struct Inside<'t> {
    journal: &'t mut Writer,
    scratch: &'t Path,
    used_room: &'t mut bool,
    shared: &'t Arc<Shared>,
}

impl Inside<'_> {
    /// Says where it panicked, as a program does.
    fn tell_panic(&mut self, place: &str, words: &str) {
        let words = &words[..words.floor_char_boundary(ERROR_MAX)];
        self.write(true, format!("panicked at {place}:\n{words}\n").as_bytes());
    }
}

impl Host for Inside<'_> {
    fn told_to_end(&self) -> Option<Why> {
        self.shared.flags().told()
    }

    fn is_warned(&self) -> bool {
        self.shared.flags().is_warned()
    }

    fn progress(&mut self, percent: f64, message: &str) {
        // It is shown on terminals.
        let message = &message[..message.floor_char_boundary(PROGRESS_MESSAGE_MAX)];
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.shared.progresses(Progress { percent, message });
    }

    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        let stream = if is_error { Stream::Stderr } else { Stream::Stdout };
        self.journal.append(stream, bytes, clock::unix_us());
        self.shared.wrote(self.journal.so_far());
    }

    fn scratch(&mut self) -> io::Result<PathBuf> {
        *self.used_room = true;
        Ok(self.scratch.to_owned())
    }
}
