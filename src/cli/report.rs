//! What `acode run` says when the work is over: of one task its exit code, of an action its result too, of many a
//! summary with the first that failed.
//!
//! Deliberately absent: what tasks print while they run, which `foreground.rs` passes on.

use std::time::Duration;

use acode_worker::task::{TaskId, TaskState};
use serde::Serialize;

use super::foreground::Ended;
use super::render::{Out, legible, plain};
use super::{CliError, Context, Exit, tables};
use crate::api::Door;
use crate::wire::reply::Shown;
use crate::wire::request::{List, Show};
use crate::wire::types::TaskRecord;

/// What shells add to a signal's number for the exit code of the command that it killed.
const SIGNALLED: i32 = 128;
/// What shells say of a command that cannot be started.
const NOT_STARTED: u8 = 127;
/// What timeout(1) says of a command that it ended.
const TIMED_OUT: u8 = 124;
/// The most failures that a summary names.
const NAMED_MAX: usize = 10;
/// The most characters of an error's first line in it.
const WORDS_MAX: usize = 300;

/// Tells how one task ended; one that `answers` is an action.
///
/// # Errors
/// Standard output does not take it.
pub fn one(context: &Context, task: &TaskRecord, answers: bool) -> Result<Exit, CliError> {
    if answers {
        let mut out = Out::new();
        match &task.result {
            _ if context.json => out.json(task)?,
            Some(result) => out.line(result.get())?,
            None => {}
        }
        out.finish()?;
    }
    let (name, verdict) = (plain(&task.name), task.verdict.as_deref());
    Ok(Exit::Code(match (task.exit_code, task.signal) {
        (Some(code), _) => {
            if let Some(why) = task.error.as_deref().filter(|_| answers) {
                eprintln!("acode: {name}: {}", legible(why));
            }
            u8::try_from(code).unwrap_or(1)
        }
        (None, Some(signal)) => u8::try_from(SIGNALLED + signal).unwrap_or(1),
        (None, None) => {
            let why = task.error.as_deref().or(verdict).unwrap_or("it did not run");
            eprintln!("acode: {name}: {}", legible(why));
            match verdict {
                Some("not-started") => NOT_STARTED,
                Some("timed-out") => TIMED_OUT,
                Some(_) | None => 1,
            }
        }
    }))
}

/// A task that did not complete, as a summary names it.
#[derive(Debug, Serialize)]
struct Failure {
    id: TaskId,
    number: u64,
    name: String,
    state: TaskState,
    verdict: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
}

impl From<TaskRecord> for Failure {
    fn from(task: TaskRecord) -> Self {
        let TaskRecord { id, number, name, state, verdict, exit_code, signal, error, .. } = task;
        Self { id, number, name, state, verdict, exit_code, signal, error }
    }
}

impl Failure {
    fn line(&self) -> String {
        let ending = match &self.verdict {
            Some(verdict) => tables::ending(verdict, self.exit_code, self.signal),
            None => self.state.to_string(),
        };
        let words = self.error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default();
        let words: String = words.chars().take(WORDS_MAX).collect();
        let words = if words.is_empty() { words } else { format!(": {words}") };
        legible(&format!("{} (#{}): {ending}{words}", plain(&self.name), self.number))
    }
}

/// The first tasks that did not complete, of those that the pool has named. Nothing if the pool is gone: it has told what
/// counts.
fn failures(door: &mut Door, unsuccessful: &[TaskId]) -> Vec<Failure> {
    let mut found: Vec<TaskRecord> = Vec::new();
    let mut arrays: Vec<TaskId> = Vec::new();
    for id in unsuccessful {
        if found.len() >= NAMED_MAX {
            break;
        }
        let Ok(Shown { task }) = door.call(&Show { id: (*id).into() }) else { break };
        // Members that ended before anybody waited are not named, or an array as a whole is: so it is asked for its first.
        let array = task.member.as_ref().map(|member| member.of).or(task.array.as_ref().map(|_| task.id));
        match array {
            None => found.push(task),
            Some(array) if arrays.contains(&array) => {}
            Some(array) => {
                arrays.push(array);
                let states = vec![TaskState::Failed, TaskState::Timeout, TaskState::Cancelled];
                let limit = u32::try_from(NAMED_MAX).ok();
                let list = List { states, limit, array: Some(array.into()), ..List::default() };
                let Ok(listed) = door.call(&list) else { break };
                found.extend(listed.tasks);
            }
        }
    }
    found.truncate(NAMED_MAX);
    found.into_iter().map(Failure::from).collect()
}

/// Tells how many tasks ended.
///
/// # Errors
/// Standard output does not take it.
pub fn all(context: &Context, door: &mut Door, ended: &Ended) -> Result<Exit, CliError> {
    let counts = &ended.counts;
    let failures = if ended.interrupted.is_none() { failures(door, &ended.unsuccessful) } else { Vec::new() };
    if context.json {
        let mut out = Out::new();
        out.answer(&serde_json::json!({
            "tasks": counts,
            "unsuccessful": ended.unsuccessful,
            "failures": failures,
            "seconds": ended.took.as_secs_f64(),
            "interrupted": ended.interrupted,
        }))?;
        out.finish()?;
    } else {
        failures.iter().for_each(|failure| eprintln!("acode: {}", failure.line()));
        let more = counts.unsuccessful().saturating_sub(failures.len() as u64);
        if more > 0 && !failures.is_empty() {
            eprintln!("acode: and {more} more without success");
        }
        eprintln!("{}", sentence(ended));
    }
    Ok(match ended.interrupted {
        Some(signal) => Exit::Code(u8::try_from(SIGNALLED + signal).unwrap_or(1)),
        None if counts.completed == counts.total() => Exit::Done,
        None => Exit::Failed,
    })
}

fn sentence(ended: &Ended) -> String {
    let counts = &ended.counts;
    let mut parts = vec![format!("{} of {} tasks completed", counts.completed, counts.total())];
    let rest = counts.pending + counts.assigned + counts.running;
    for (count, word) in
        [(counts.failed, "failed"), (counts.timeout, "timed out"), (counts.cancelled, "cancelled"), (rest, "left")]
    {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    format!("acode: {} in {}", parts.join(", "), seconds(ended.took))
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
