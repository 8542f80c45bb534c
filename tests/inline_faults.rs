//! Actions in the worker itself that do not end, or that take their worker along.
//!
//! Such an action ends with its worker, which is followed by a fresh one; what counts against the task is what it did, and
//! nothing counts against the pool. Deliberately absent: kills from outside (`failpoints.rs`, `chaos.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::Stop;
use acode::wire::types::{StopMode, TaskRecord};
use acode_worker::task::{Retries, TaskId, TaskSpec, TaskState};
use common::actions::inline;
use common::{Options, Pool, is_alive, wait_until};
use more::{cancel, events_of, only_attempt, reaches, verdict, written};
use serde_json::{Value, json};

/// Nobody waits long for an action that does not listen.
const SHORT: &str = "workers: {killGraceMs: 50}\ntasks: {retries: {count: 0}}";

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

/// An action that hears nothing for ten minutes.
fn deaf() -> TaskSpec {
    inline("spin", json!({ "ms": 600_000 }))
}

/// Asserts that nothing was wrong with the pool: no worker failed, and it still works.
#[track_caller]
fn assert_well(pool: &Pool) {
    let wrong = |name: &str| ["worker-failed", "worker-error", "worker-unhealthy"].contains(&name);
    let events: Vec<_> = pool.events().into_iter().filter(|event| wrong(&event.event)).collect();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(run(pool, inline("echo", json!(1))).state, TaskState::Completed);
    pool.idle_workers();
}

#[test]
fn an_action_that_does_not_hear_its_timeout_ends_with_its_worker_and_a_fresh_one_follows() {
    let pool = Pool::start(Options::workers(1).with_actions().config(SHORT));
    let first = pool.idle_workers().remove(0);
    let task = run(&pool, TaskSpec { timeout_ms: Some(50), ..deaf() });
    assert_eq!((task.state, verdict(&task)), (TaskState::Timeout, "timed-out"), "{task:?}");
    assert!(task.error.as_ref().unwrap().contains("its worker was ended with it"), "{task:?}");
    let usage = only_attempt(&task).usage.unwrap();
    assert!(usage.wall_us >= 100_000, "timeout and grace: {usage:?}");
    wait_until("it is gone", || !is_alive(first.pid));
    let second = pool.idle_workers().remove(0);
    assert_ne!(second.id, first.id);
    assert_eq!((task.crash_count, task.attempt_count), (0, 1), "its own failure, and no crash");
    assert_well(&pool);
}

#[test]
fn so_many_of_them_as_there_are_tasks_neither_crash_a_task_nor_the_pool() {
    let tight = "workers: {killGraceMs: 10, maxWorkerLosses: 1}\ntasks: {retries: {count: 0}}";
    let pool = Pool::start(Options::workers(1).with_actions().config(tight));
    let ids: Vec<TaskId> = (0..12).map(|_| pool.submit_spec(TaskSpec { timeout_ms: Some(20), ..deaf() })).collect();
    for id in ids {
        let task = pool.wait(id);
        assert_eq!((task.state, task.crash_count, task.attempt_count), (TaskState::Timeout, 0, 1), "{task:?}");
        assert_eq!(events_of(&pool.events(), id).iter().filter(|name| name.ends_with("requeued")).count(), 0);
    }
    assert_well(&pool);
}

#[test]
fn one_that_is_cancelled_ends_so_with_what_it_has_said_and_left() {
    let pool = Pool::start(Options::workers(1).with_actions().config(SHORT));
    let first = pool.idle_workers().remove(0);
    let id = pool.submit_spec(inline("deaf", json!({ "says": "before\n", "file": pool.path("child") })));
    wait_until("it has left a child", || pool.lines("child").len() == 1);
    let running = reaches(&pool, id, TaskState::Running);
    assert_eq!(running.state, TaskState::Running);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"), "{task:?}");
    assert_eq!(written(&pool, id).out(), "before\n");
    assert!(only_attempt(&task).leaked, "{task:?}");
    assert!(!is_alive(pool.lines("child")[0].parse().unwrap()), "what it has left is dead");
    wait_until("a fresh worker is there", || pool.idle_workers().iter().all(|worker| worker.id != first.id));
    assert_well(&pool);
}

#[test]
fn what_takes_the_worker_along_is_a_crash_and_is_quarantined_in_the_end() {
    let pool = Pool::start(Options::workers(2).with_actions().config("workers: {maxWorkerLosses: 2}"));
    for spec in [
        inline("abort", Value::Null),
        inline("overflow", Value::Null),
        inline("exit", json!({ "code": 3 })),
        inline("exit", json!({ "code": 0 })),
    ] {
        let name = spec.display_name().to_owned();
        let task = run(&pool, spec);
        assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "worker-lost"), "{name}: {task:?}");
        assert_eq!((task.crash_count, task.attempt_count), (2, 2), "{name}: {task:?}");
    }
    assert_eq!(run(&pool, inline("echo", json!(1))).state, TaskState::Completed);
}

#[test]
fn a_drain_takes_back_who_listens_and_who_does_not() {
    let config = "workers: {killGraceMs: 100, drainTimeoutSeconds: 1}";
    let mut pool = Pool::start(Options::workers(2).with_actions().config(config));
    let sleeper = pool.submit_spec(inline("sleep", json!({ "ms": 2_500 })));
    let deaf = pool.submit_spec(inline("spin", json!({ "ms": 600_000, "attempts": 1 })));
    for id in [sleeper, deaf] {
        reaches(&pool, id, TaskState::Running);
    }
    assert!(pool.stop_as(Stop { mode: StopMode::Drain, timeout_ms: None }).success());
    pool.restart();
    for id in [sleeper, deaf] {
        let task = pool.wait(id);
        assert_eq!((task.state, task.attempt_count, task.crash_count), (TaskState::Completed, 2, 0), "{task:?}");
        assert_eq!(task.attempts.unwrap()[0].verdict.as_deref(), Some("cancelled"), "taken back, and no failure");
    }
}

#[test]
fn workers_leave_with_their_actions_when_the_supervisor_is_gone() {
    let mut pool = Pool::start(Options::workers(2).with_actions().config("workers: {killGraceMs: 100}"));
    let sleeper = pool.submit_spec(inline("sleep", json!({ "ms": 1_500 })));
    let deaf = pool.submit_spec(inline("spin", json!({ "ms": 600_000, "attempts": 1 })));
    for id in [sleeper, deaf] {
        reaches(&pool, id, TaskState::Running);
    }
    let workers: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    pool.kill9();
    wait_until("they have left by themselves", || workers.iter().all(|pid| !is_alive(*pid)));
    pool.restart();
    for id in [sleeper, deaf] {
        let task = pool.wait(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "{task:?}");
    }
}

#[test]
fn a_forced_stop_waits_for_no_action() {
    let mut pool = Pool::start(Options::workers(1).with_actions());
    let id = pool.submit_spec(inline("spin", json!({ "ms": 600_000, "attempts": 1 })));
    reaches(&pool, id, TaskState::Running);
    assert!(pool.stop().success());
    pool.restart();
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "{task:?}");
}

#[test]
fn a_timeout_that_is_retried_runs_in_the_fresh_worker() {
    let pool = Pool::start(Options::workers(1).with_actions().config("workers: {killGraceMs: 10}"));
    let retry = Some(Retries { count: Some(2), delay_ms: Some(1), ..Retries::default() });
    let spin = inline("spin", json!({ "ms": 600_000, "attempts": 2 }));
    let task = run(&pool, TaskSpec { retry, timeout_ms: Some(30), ..spin });
    assert_eq!((task.state, task.attempt_count, task.crash_count), (TaskState::Completed, 3, 0), "{task:?}");
    let workers: Vec<_> = task.attempts.unwrap().into_iter().map(|attempt| attempt.worker).collect();
    assert!(workers[0] != workers[1] && workers[1] != workers[2], "{workers:?}");
}
