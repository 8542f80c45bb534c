//! A worker program that does what its tasks say, right or wrong, and what tests ask of it.
//!
//! Deliberately absent: anything that a user's program would look like; that is in `docs/examples`.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;

use acode::wire::types::TaskRecord;
use acode_worker::task::{Action, TaskSpec, TaskState};
use serde_json::{Value, json};

use crate::common::{Options, Pool};

/// The interpreter itself and none of its wrappers, which would be further processes.
pub const PYTHON: &str = "/usr/bin/python3";

const ODD: &str = include_str!("odd.py");
const PLAIN: &str = include_str!("plain.py");

/// Writes the program beside the pool's state.
pub fn write_odd(pool: &Pool) {
    let place = pool.file("odd.py");
    if !place.exists() {
        fs::write(place, ODD).unwrap();
    }
}

/// A task for the program.
pub fn odd(pool: &Pool, payload: Value) -> TaskSpec {
    write_odd(pool);
    let program = vec![PYTHON.to_owned(), "-S".to_owned(), pool.path("odd.py")];
    let action = Action { name: Some("odd".to_owned()), params: payload, program, ..Action::default() };
    TaskSpec { action: Some(Box::new(action)), ..TaskSpec::default() }
}

/// A task for a program that has one thread and reads no more than a line at a time; its result is the program's process.
pub fn plain(pool: &Pool, payload: Value) -> TaskSpec {
    let place = pool.file("plain.py");
    if !place.exists() {
        fs::write(place, PLAIN).unwrap();
    }
    let mut spec = odd(pool, payload);
    spec.action.as_mut().unwrap().program[2] = pool.path("plain.py");
    spec
}

/// The result of a task that has one.
#[track_caller]
pub fn result(task: &TaskRecord) -> Value {
    let result = task.result.as_ref().unwrap_or_else(|| panic!("no result: {task:?}"));
    serde_json::from_str(result.get()).unwrap()
}

/// Runs a task that goes well, and gives its result.
#[track_caller]
pub fn answer(pool: &Pool, spec: TaskSpec) -> Value {
    let task = pool.wait(pool.submit_spec(spec));
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    result(&task)
}

/// The process of the program.
#[track_caller]
pub fn pid_of(pool: &Pool) -> u32 {
    answer(pool, odd(pool, json!({"do": "tell"})))["pid"].as_u64().unwrap() as u32
}

/// A task's error.
pub fn error(task: &TaskRecord) -> String {
    task.error.clone().unwrap_or_default()
}

/// How many attempts a task has had.
pub fn attempts(task: &TaskRecord) -> usize {
    task.attempts.as_ref().map_or(0, Vec::len)
}

/// The state of a process, as `ps` has it.
pub fn state_of(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('X')
}

/// The children of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A pool of one worker that sees no cgroups; none where they cannot be hidden.
pub fn without_cgroups() -> Option<Pool> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can hide the cgroups of this host from a pool");
        return None;
    }
    Some(Pool::start(Options::workers(1).without_cgroups().config("workers:\n  killGraceMs: 1000")))
}
