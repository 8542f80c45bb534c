//! Actions in containers whose image has nothing of ours, with a real engine; and commands with parameters in there.
//!
//! The image is a static busybox: neither a C library nor a loader. Deliberately absent: what holds for any container
//! (`docker.rs` and its kin), and what holds for any action in a process (`action_process.rs`).

mod common;
#[path = "common/docker.rs"]
mod docker;
#[path = "common/more.rs"]
mod more;

use std::fs;

use acode::wire::types::TaskRecord;
use acode_worker::task::{Action, Docker, Isolation, Limits, OverLimitAction, SoftTimeout, TaskSpec, TaskState};
use common::actions::action;
use common::engine::Engine;
use common::{Options, Pool, shell, wait_until};
use docker::{assert_nothing_left, options, within_ms};
use more::{cancel, only_attempt, reaches, verdict, written};
use serde_json::{Value, json};

/// A task of an action in a container.
fn contained(name: &str, params: Value) -> TaskSpec {
    action(Isolation::Docker, name, params)
}

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

fn result(task: &TaskRecord) -> Value {
    task.result.as_ref().map_or(Value::Null, |result| serde_json::from_str(result.get()).unwrap())
}

#[track_caller]
fn answers(pool: &Pool, spec: TaskSpec) -> Value {
    let task = run(pool, spec);
    let said = || pool.try_call(&acode::wire::request::Status {}).map(|_| written(pool, task.id).err());
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{:?}\n{}", said(), pool.log());
    result(&task)
}

#[test]
fn an_action_runs_in_an_image_that_has_no_library() {
    let Some(engine) = Engine::start() else { return };
    let pool = Pool::start(options(&engine, 1, "").with_actions());
    let task = run(&pool, contained("echo", json!({ "x": 1 })));
    assert_eq!((task.state, result(&task)), (TaskState::Completed, json!({ "x": 1 })), "{task:?}\n{}", pool.log());
    assert_eq!(only_attempt(&task).isolation, Some(Isolation::Docker));
    let run_there =
        json!({ "run": ["sh", "-c", "ls /lib /lib64 2>&1; echo $LD_LIBRARY_PATH-$ACODE_ROLE; busybox true"] });
    let world = answers(&pool, contained("world", run_there));
    let root = world["root"].as_array().unwrap();
    assert!(root.contains(&json!("bin")) && !root.contains(&json!("lib64")), "it sees the image: {root:?}");
    assert!(world["said"].as_str().unwrap().ends_with("\n-"), "what it starts is the image's own: {world}");
    assert_eq!(world["cwd"], world["env"]["ACODE_SCRATCH"]);
    assert_eq!(world["fds"], json!(["0", "1", "2"]));
    let task = run(&pool, contained("fail", json!({ "words": "no luck" })));
    assert_eq!((task.exit_code, task.error.as_deref()), (Some(1), Some("no luck")), "{task:?}");
    let task = run(&pool, contained("panic", json!({ "words": "help" })));
    assert_eq!((task.exit_code, task.error.as_deref()), (Some(101), Some("panicked: help")), "{task:?}");
    assert!(written(&pool, task.id).err().contains("panicked at"));
    let left = answers(&pool, contained("scratch", json!({ "name": "f", "text": "x" })));
    assert_eq!(left["before"], 0);
    let id = pool.submit_spec(contained("progress", json!({ "steps": 2, "ms": 20 })));
    let told = pool.wait(id).progress.unwrap();
    assert_eq!((told.percent, told.message.as_deref()), (100, Some("step 2")));
    assert_nothing_left(&engine, pool);
}

#[test]
fn it_hears_what_a_process_hears() {
    let Some(engine) = Engine::start() else { return };
    let pool = Pool::start(options(&engine, 1, "").with_actions());
    let timeout_ms = Some(within_ms(3_000));
    let grace_ms = Some(within_ms(60_000));
    let spec = TaskSpec { timeout_ms, grace_ms, ..contained("sleep", json!({ "ms": 600_000 })) };
    let task = run(&pool, spec);
    assert_eq!(verdict(&task), "timed-out", "{task:?}");
    let id = pool.submit_spec(TaskSpec { grace_ms, ..contained("sleep", json!({ "ms": 600_000 })) });
    reaches(&pool, id, TaskState::Running);
    assert!(cancel(&pool, id));
    assert_eq!(verdict(&pool.wait(id)), "cancelled");
    let soft = format!(r#"{{"beforeMs": {}}}"#, within_ms(60_000));
    let soft_timeout: Option<SoftTimeout> = serde_json::from_str(&soft).unwrap();
    let timeout_ms = Some(within_ms(64_000));
    let spec = TaskSpec { timeout_ms, soft_timeout, ..contained("heed", Value::Null) };
    assert_eq!(answers(&pool, spec), json!("warned"));
    assert_nothing_left(&engine, pool);
}

#[test]
fn its_memory_is_the_containers() {
    let Some(engine) = Engine::start() else { return };
    let pool = Pool::start(options(&engine, 1, "").with_actions());
    let limits = Limits { memory_mb: Some(48), action: Some(OverLimitAction::Kill), ..Limits::default() };
    let spec = TaskSpec { limits, ..contained("hoard", json!({ "mb": 160, "ms": 600_000 })) };
    let task = run(&pool, spec);
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    let spec = TaskSpec { limits, ..contained("hoard", json!({ "mb": 2, "ms": 1 })) };
    assert_eq!(answers(&pool, spec), json!(2 << 20));
    assert_nothing_left(&engine, pool);
}

#[test]
fn params_and_entrypoints_in_containers() {
    let Some(engine) = Engine::start() else { return };
    let pool = Pool::start(options(&engine, 1, "").with_actions());
    let own = Docker { entrypoint: Some("/bin/echo".to_owned()), ..Docker::default() };
    let task = run(&pool, TaskSpec { docker: Some(own), ..contained("echo", json!(1)) });
    assert_eq!(verdict(&task), "not-started", "{task:?}");
    assert!(only_attempt(&task).reason.as_deref().unwrap().contains("docker.entrypoint"), "{task:?}");
    let params = json!({ "two": ["ü"] });
    let action = Action { params: params.clone(), ..Action::default() };
    let none = Docker { entrypoint: Some(String::new()), ..Docker::default() };
    let command = shell(r#"cat "$ACODE_PARAMS" >"$ACODE_RESULT""#, &[]);
    let spec =
        TaskSpec { action: Some(Box::new(action)), isolation: Some(Isolation::Docker), docker: Some(none), ..command };
    assert_eq!(answers(&pool, spec), params);
    let task = run(&pool, contained("nobody", Value::Null));
    assert_eq!(verdict(&task), "not-started", "{task:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_program_that_was_replaced_runs_on_in_containers() {
    let Some(engine) = Engine::start() else { return };
    let home = tempfile::Builder::new().prefix("ax-").tempdir_in("/tmp").unwrap();
    let program = home.path().join("acode");
    fs::copy(common::actions::program(), &program).unwrap();
    let pool = Pool::start(options(&engine, 1, "").of_program(program.to_str().unwrap()));
    assert_eq!(answers(&pool, contained("echo", json!(1))), json!(1));
    // As a package manager does it.
    fs::write(home.path().join("new"), "#!/bin/false\n").unwrap();
    fs::rename(home.path().join("new"), &program).unwrap();
    assert_eq!(answers(&pool, contained("echo", json!(2))), json!(2));
    fs::remove_file(&program).unwrap();
    assert_eq!(answers(&pool, contained("echo", json!(3))), json!(3));
    // For the next start of this pool.
    fs::copy(common::actions::program(), &program).unwrap();
    let rooms = fs::read_dir(pool.state_dir().join("rooms/0")).into_iter().flatten().flatten();
    let left: Vec<_> = rooms.map(|entry| entry.file_name()).filter(|name| name == "program").collect();
    assert!(left.is_empty(), "the copy goes with the attempt");
    assert_nothing_left(&engine, pool);
}

#[test]
fn without_the_engine_an_action_runs_as_a_process() {
    let Some(mut engine) = Engine::start() else { return };
    let pool = Pool::start(options(&engine, 1, "").with_actions());
    engine.stop_daemon();
    let spec = TaskSpec { isolation: None, ..contained("echo", json!("here")) };
    wait_until("it falls back", || {
        let task = run(&pool, spec.clone());
        task.state == TaskState::Completed && only_attempt_isolation(&task) == Some(Isolation::Process)
    });
    engine.restart();
}

fn only_attempt_isolation(task: &TaskRecord) -> Option<Isolation> {
    task.attempts.as_ref().and_then(|attempts| attempts.last()).and_then(|last| last.isolation)
}

#[test]
fn an_action_with_no_word_on_its_isolation_runs_as_the_pool_does() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let task = run(&pool, TaskSpec { isolation: None, ..contained("echo", json!(1)) });
    assert_eq!(only_attempt(&task).isolation, Some(Isolation::Process));
}
