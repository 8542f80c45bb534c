//! The end of a container's attempt, when its client is dead: what became of the container, and what follows.
//!
//! The client's exit code 0 says it all. Everything else is looked into: what the engine knows of the container decides,
//! and whatever of it still runs is stopped, killed and removed, each step with its own deadline. What could not be ended
//! keeps its mark, and the attempt says `leaked`. Deliberately absent: the words on what the engine says (`judge`).

use super::super::process::{Attempt, Tools};
use super::availability::probe;
use super::container::Container;
use super::engine::{CallError, call};
use super::inspect::{INSPECT, Inspected};
use super::judge::{Decision, Evidence, Known, judge};
use super::marks;
use super::meter::Meter;
use super::removal::{remove, remove_of_task};
use super::words::Words;
use crate::failpoint;
use crate::sys::tree::Ended;
use crate::task::Verdict;

/// What the client says of a name that another container has.
const NAME_TAKEN: &str = "is already in use by container";

/// What became of an attempt in a container.
#[derive(Debug)]
pub struct Concluded {
    /// How it ended.
    pub verdict: Verdict,
    /// Whether something of it may still run.
    pub leaked: bool,
    /// What is known of what it used.
    pub meter: Meter,
}

/// What is known of the container itself.
#[derive(Debug)]
enum State {
    There(Box<Inspected>),
    Absent,
    Unknown(CallError),
}

/// What is left to do about the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There is none.
    Nothing,
    /// It has ended.
    Ended,
    /// It runs, or is about to.
    Running,
    /// Nobody knows: the engine gives no answer, or may be about to make it.
    Unknown,
}

impl Container {
    /// Sees to the end. `by_us` is the verdict of an attempt that we have ended, `client` how the client did.
    pub fn conclude(
        mut self,
        tools: &mut Tools,
        attempt: &Attempt,
        by_us: Option<Verdict>,
        client: Option<Ended>,
    ) -> Concluded {
        let id = self.mark.container();
        tools.containers.sees_cgroups |= self.meter.has_found();
        if let Some(parent) = self.cgroup_parent.take() {
            tools.containers.cgroup_parent = parent;
        }
        if by_us.is_none() && client == Some(Ended::Exited(0)) {
            tools.containers.availability.call_ok();
            return self.close(tools, attempt, id, Rest::Ended, Verdict::Exited { code: 0 });
        }
        failpoint!("docker.before-inspect");
        let state = match &id {
            Some(id) => inspect(tools, id),
            None => State::Absent,
        };
        let (verdict, rest) = match by_us {
            Some(verdict) => (verdict, rest_of(&state, id.is_none())),
            // A client that vanished without a word is as good as killed.
            None => {
                let client = client.unwrap_or(Ended::Signalled { signal: libc::SIGKILL, core_dumped: false });
                let words = Words::of(&String::from_utf8_lossy(self.last_words()));
                self.judge(tools, &state, client, &words, id.is_none())
            }
        };
        match (&verdict, &state) {
            (Verdict::EngineFailed { why }, _) => tools.containers.availability.call_failed(why),
            (_, State::Unknown(error)) => {
                let why = error.to_string();
                tools.containers.availability.call_failed(&why);
            }
            (_, State::There(_) | State::Absent) => tools.containers.availability.call_ok(),
        }
        self.close(tools, attempt, id, rest, verdict)
    }

    /// What follows from an end that is not ours.
    fn judge(
        &mut self,
        tools: &mut Tools,
        state: &State,
        client: Ended,
        words: &Words,
        nameless: bool,
    ) -> (Verdict, Rest) {
        let container = match state {
            State::There(inspected) => Known::Container(inspected),
            State::Absent => Known::Absent,
            State::Unknown(_) => Known::Unknown,
        };
        let evidence = Evidence { client, container, oom_kills: self.meter.oom_kills(), words };
        tools.containers.name_taken = nameless && words.text.contains(NAME_TAKEN);
        // A killed client may have asked for a container that comes only now.
        let unheard = nameless && matches!(client, Ended::Signalled { .. });
        let rest = rest_of(state, unheard);
        let decision = judge(&evidence);
        let engine_answers = match &decision {
            Decision::EngineMaybeAtFault { .. } => probe(tools).is_ok(),
            Decision::Verdict(_) | Decision::StillRunning | Decision::NeverStarted { .. } => true,
        };
        let lost = || {
            let how = match client {
                Ended::Exited(code) => format!("ended with code {code}"),
                Ended::Signalled { signal, .. } => format!("was killed by signal {signal}"),
            };
            Verdict::EngineFailed { why: format!("the docker client {how} while its container ran") }
        };
        (decision.verdict(engine_answers).unwrap_or_else(lost), rest)
    }

    /// Ends what runs, and sees to the removal.
    fn close(
        mut self,
        tools: &mut Tools,
        attempt: &Attempt,
        id: Option<String>,
        rest: Rest,
        verdict: Verdict,
    ) -> Concluded {
        let task = attempt.task.id;
        let (is_gone, is_dead) = match (rest, &id) {
            (Rest::Nothing, _) => (true, true),
            (Rest::Ended, Some(id)) => {
                tools.containers.ended.note(task, id.clone(), !verdict.is_success());
                return Concluded { verdict, leaked: false, meter: self.meter };
            }
            (Rest::Running, Some(id)) => self.end_running(tools, id),
            // An engine that gives no answer is not asked again and again.
            (Rest::Unknown, Some(id)) => {
                let is_dead = self.meter.kill_all(id, &tools.containers.cgroup_parent);
                (remove(tools, &[id]).is_ok(), is_dead)
            }
            (Rest::Ended | Rest::Running | Rest::Unknown, None) => (remove_of_task(tools, task).is_ok(), false),
        };
        let Self { mark, meter, .. } = self;
        // Its lock goes first, for one that is held is not removed.
        drop(mark);
        match is_gone {
            true => marks::remove(&tools.settings.docker.folder, task, id.as_deref()),
            false => tools.containers.ended.note_stubborn(task, id),
        }
        Concluded { verdict, leaked: !is_gone && !is_dead, meter }
    }

    /// Stops, kills and removes a container that has lost its client; whether it is gone, and whether it is dead.
    fn end_running(&mut self, tools: &mut Tools, id: &str) -> (bool, bool) {
        let (grace, limit_ms) = (self.grace_seconds().to_string(), tools.settings.docker.call_timeout_ms);
        let stop_ms = limit_ms.saturating_add(self.grace_seconds().saturating_mul(1_000));
        // One that was asked to end before has had its grace.
        let is_stopped = !self.was_asked_to_end() && is_done(call(tools, &["stop", "-t", &grace, id], stop_ms));
        failpoint!("docker.after-stop");
        let is_killed = is_stopped
            || is_done(call(tools, &["kill", id], limit_ms))
            || self.meter.kill_all(id, &tools.containers.cgroup_parent);
        (remove(tools, &[id]).is_ok(), is_killed)
    }
}

/// Whether a call to end a container found it ended, or did so.
fn is_done(told: Result<String, CallError>) -> bool {
    told.map_or_else(|error| error.means_not_running(), |_| true)
}

/// What is to be done about a container in this state; `unheard` if there may be one that nobody knows the id of.
fn rest_of(state: &State, unheard: bool) -> Rest {
    match state {
        State::There(inspected) if inspected.state.is_running() => Rest::Running,
        // What is being started may run in a moment.
        State::There(inspected) if !inspected.state.has_started() && inspected.state.error.is_empty() => Rest::Running,
        State::There(_) => Rest::Ended,
        State::Absent if unheard => Rest::Unknown,
        State::Absent => Rest::Nothing,
        State::Unknown(_) => Rest::Unknown,
    }
}

fn inspect(tools: &mut Tools, id: &str) -> State {
    let arguments: Vec<&str> = INSPECT.into_iter().chain([id]).collect();
    let limit_ms = tools.settings.docker.call_timeout_ms;
    let text = match call(tools, &arguments, limit_ms) {
        Ok(text) => text,
        Err(error) if error.means_gone() => return State::Absent,
        Err(error) => return State::Unknown(error),
    };
    match Inspected::read(&text).map(|mut all| all.pop()) {
        Ok(Some(inspected)) => State::There(Box::new(inspected)),
        Ok(None) => State::Absent,
        Err(error) => State::Unknown(CallError::Refused { what: "inspect".to_owned(), words: error.to_string() }),
    }
}

/// Whether the attempt failed because another container has its name, and that was one of ours and is removed now: then
/// it is worth one more try.
pub fn freed_name(tools: &mut Tools, attempt: &Attempt) -> bool {
    std::mem::take(&mut tools.containers.name_taken)
        && remove_of_task(tools, attempt.task.id).is_ok_and(|removed| removed > 0)
}
