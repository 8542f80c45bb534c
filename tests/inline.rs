//! Isolation `none`: actions in the worker itself, through the real binary with actions for tests.
//!
//! Deliberately absent: processes that are killed at one chosen place (`failpoints.rs`, `inline_faults.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::types::TaskRecord;
use acode_worker::task::{Isolation, TaskSpec, TaskState};
use common::actions::inline;
use common::{Options, Pool};
use more::{only_attempt, verdict, written};
use serde_json::{Value, json};

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

fn result(task: &TaskRecord) -> Value {
    task.result.as_ref().map_or(Value::Null, |result| serde_json::from_str(result.get()).unwrap())
}

#[test]
fn an_action_answers_fails_and_panics_in_the_worker_itself() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let worker = pool.idle_workers().remove(0);
    let task = run(&pool, inline("echo", json!({ "x": [1, "two"] })));
    assert_eq!((task.state, verdict(&task), task.exit_code), (TaskState::Completed, "exited", Some(0)), "{task:?}");
    assert_eq!(result(&task), json!({ "x": [1, "two"] }));
    assert_eq!(only_attempt(&task).isolation, Some(Isolation::None));
    let facts = result(&run(&pool, inline("facts", Value::Null)));
    assert_eq!(facts["pid"], worker.pid, "it ran in the worker");
    let task = run(&pool, inline("fail", json!({ "words": "no luck" })));
    assert_eq!((task.state, task.exit_code, task.error.as_deref()), (TaskState::Failed, Some(1), Some("no luck")));
    let task = run(&pool, inline("panic", json!({ "words": "help" })));
    assert_eq!((task.exit_code, task.error.as_deref()), (Some(101), Some("panicked: help")));
    assert_eq!(pool.idle_workers().remove(0).id, worker.id, "the worker lives on");
}

#[test]
fn what_an_action_says_is_its_tasks_output() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let task = run(&pool, inline("print", json!({ "out": "o", "err": "e", "times": 3 })));
    let said = written(&pool, task.id);
    assert_eq!((said.out().as_ref(), said.err().as_ref()), ("ooo", "eee"));
}
