//! Built-in typed tasks beside the tools that people trust: submitted to a pool, and the tools run here.
//!
//! Deliberately absent: what any type does.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::{Command, Stdio};

use acode::wire::types::TaskRecord;
use acode_worker::task::{Action, ActionType, Isolation, TaskId, TaskSpec, TaskState};
use serde_json::Value;

use crate::common::{Pool, wait_until};
use crate::more::written;

/// Both ways in which a built-in action runs without a container.
pub const ISOLATIONS: [Isolation; 2] = [Isolation::None, Isolation::Process];

/// A task of a built-in type, in the worker itself, whose relative paths start in the pool's directory.
pub fn typed(pool: &Pool, kind: ActionType, params: Value) -> TaskSpec {
    let action = Action { kind, params, ..Action::default() };
    let cwd = Some(pool.path("").trim_end_matches('/').to_owned());
    TaskSpec { action: Some(Box::new(action)), isolation: Some(Isolation::None), cwd, ..TaskSpec::default() }
}

/// The result of a task that has completed.
#[track_caller]
pub fn result(pool: &Pool, task: &TaskRecord) -> Value {
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", written(pool, task.id).err());
    serde_json::from_str(task.result.as_ref().unwrap().get()).unwrap()
}

/// Runs a typed task, expects it to complete, and gives its result.
#[track_caller]
pub fn done(pool: &Pool, kind: ActionType, params: Value) -> Value {
    result(pool, &pool.wait(pool.submit_spec(typed(pool, kind, params))))
}

/// Runs a typed task, expects it to fail, and gives its error.
#[track_caller]
pub fn fails(pool: &Pool, kind: ActionType, params: Value) -> String {
    let task = pool.wait(pool.submit_spec(typed(pool, kind, params)));
    assert_eq!((task.state, task.exit_code), (TaskState::Failed, Some(1)), "{task:?}");
    task.error.unwrap()
}

/// Waits until a task has told that it is under way.
#[track_caller]
pub fn is_under_way(pool: &Pool, id: TaskId) {
    wait_until("the task is under way", || {
        let task = pool.show(id);
        assert!(!task.state.is_final(), "it is over too soon: {task:?}");
        task.progress.is_some()
    });
}

/// Whether these programs are here; says so if one is not.
pub fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let tried = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_err()
    });
    if let Some(program) = missing {
        eprintln!("not tested beside {program}: it is not installed here");
    }
    missing.is_none()
}

/// Runs a program in a folder, and gives its standard output if it succeeds, else its standard error.
pub fn tool(folder: &Path, words: &[&str]) -> Result<Vec<u8>, String> {
    let output =
        Command::new(words[0]).args(&words[1..]).current_dir(folder).env("LC_ALL", "C.UTF-8").output().unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The same as text, without the last line end; a failure fails the test.
#[track_caller]
pub fn says(folder: &Path, words: &[&str]) -> String {
    let said = tool(folder, words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    String::from_utf8_lossy(&said).trim_end().to_owned()
}

/// A text of so many bytes that is neither random nor all the same.
pub fn text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 64);
    let mut number = 0_u64;
    while text.len() < bytes {
        text.extend(format!("line {number} says {}\n", number.wrapping_mul(6_364_136_223_846_793_005) >> 40).bytes());
        number += 1;
    }
    text.truncate(bytes);
    text
}
