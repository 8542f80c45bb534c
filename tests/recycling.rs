//! Recycling: a worker that has done its share, or has grown too large, is replaced by a fresh one between two tasks.
//!
//! Deliberately absent: how many are replaced at a time and in which order, which are stories of `src/supervisor/decide.rs`.

mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;

use acode::wire::types::{EventRecord, ScalingMode, WorkerStatus};
use acode_worker::task::{TaskId, TaskState};
use common::{Options, Pool, wait_until};
use more::{entry, gated, only_attempt, open_gate, reaches};

fn recycled(pool: &Pool) -> Vec<EventRecord> {
    pool.events().into_iter().filter(|event| event.event == "worker-recycled").collect()
}

/// Runs so many tasks one after the other, and gives the workers that ran them.
fn run_in_turn(pool: &Pool, count: usize) -> Vec<acode_worker::task::WorkerId> {
    let one = |_| {
        let task = pool.wait(pool.submit(&["true"]));
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1), "{task:?}");
        only_attempt(&task).worker
    };
    (0..count).map(one).collect()
}

#[test]
fn a_worker_is_replaced_after_its_share_of_tasks() {
    let pool = Pool::start(Options::workers(1).config("workers: {recycle: {maxTasks: 3}}"));
    let first = pool.idle_workers().remove(0).id;
    let ran = run_in_turn(&pool, 3);
    assert!(ran.iter().all(|worker| *worker == first), "not before");
    wait_until("it is replaced", || pool.workers().iter().all(|worker| worker.id != first));
    let events = recycled(&pool);
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event.worker, Some(first));
    assert_eq!(event.data.as_ref().unwrap().get(), r#"{"value":3,"why":"tasks"}"#);
    let workers = run_in_turn(&pool, 12);
    assert!(workers.iter().collect::<BTreeSet<_>>().len() >= 3, "and so on: {workers:?}");
    let ends: Vec<_> = pool.events().into_iter().map(|event| event.event).collect();
    assert!(!ends.iter().any(|name| name == "worker-failed" || name.starts_with("pool-scaled")), "nothing was wrong");
}

#[test]
fn a_task_is_never_interrupted_for_it_and_never_are_there_more_at_once_than_workers() {
    let pool = Pool::start(Options::workers(2).config("workers: {recycle: {maxTasks: 1}}"));
    let ids = pool.submit_all((0..60).map(|_| entry(common::shell(BESIDE, &[&pool.path("running")]))).collect());
    for id in ids {
        let task = pool.wait(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1), "{task:?}");
    }
    assert!(recycled(&pool).len() >= 10, "they were replaced all the time");
    let status = pool.status().workers;
    assert_eq!((status.target, status.scaling), (2, ScalingMode::Off));
}

/// Fails if more than two of it run at once. Each holds a name in a directory while it runs.
const BESIDE: &str = r#"mkdir -p "$1"; : >"$1/$$"; sleep 0.01; set -- "$1" "$1"/*; rm "$1/$$"; [ $# -le 3 ]"#;

#[test]
fn a_busy_worker_finishes_its_task_before_it_is_replaced() {
    let pool = Pool::start(Options::workers(1).config("workers: {recycle: {maxTasks: 1}}"));
    let first = pool.idle_workers().remove(0).id;
    // Both at once: the second is claimed before anybody can say that the worker is to leave.
    let both: Vec<TaskId> = pool.submit_all(vec![
        entry(more::command(&["true"])),
        entry(gated(&pool, "gate")),
        entry(gated(&pool, "gate")),
    ]);
    pool.wait(both[0]);
    let running = both[1];
    reaches(&pool, running, TaskState::Running);
    assert_eq!(pool.status().tasks.running, 1, "a pool of one runs one");
    open_gate(&pool, "gate");
    both.iter().for_each(|id| assert_eq!(pool.wait(*id).attempt_count, 1));
    wait_until("it is gone", || pool.workers().iter().all(|worker| worker.id != first));
}

#[test]
fn a_worker_that_has_grown_too_large_is_replaced_at_a_health_check() {
    // No process fits into a mebibyte, so every check finds the worker too large.
    let pool = Pool::start(
        Options::workers(2).config("workers: {healthCheck: {intervalSeconds: 1}, recycle: {maxMemoryMb: 1}}"),
    );
    let first: BTreeSet<_> = pool.idle_workers().into_iter().map(|worker| worker.id).collect();
    wait_until("both are replaced", || pool.workers().iter().all(|worker| !first.contains(&worker.id)));
    let event = recycled(&pool).remove(0);
    let data: serde_json::Value = serde_json::from_str(event.data.unwrap().get()).unwrap();
    assert_eq!(data["why"], "memory");
    assert!(data["value"].as_u64().unwrap() > 1 << 20, "{data}");
    run_in_turn(&pool, 3);
}

#[test]
fn never_is_the_whole_pool_replaced_at_a_time() {
    let pool = Pool::start(Options::workers(4).config("workers: {recycle: {maxTasks: 2}}"));
    pool.idle_workers();
    let ids = pool.submit_all((0..200).map(|_| entry(more::command(&["true"]))).collect());
    wait_until("all have ended", || {
        let leaving = pool.workers().iter().filter(|worker| worker.status == WorkerStatus::Stopping).count();
        // A quarter of four, and the one that has left meanwhile may be listed until it is buried.
        assert!(leaving <= 1, "{leaving} leave at once");
        ids.iter().all(|id| pool.show(*id).state == TaskState::Completed)
    });
    assert!(recycled(&pool).len() >= 4);
}

#[test]
fn recycling_can_be_switched_off() {
    let pool = Pool::start(Options::workers(1).config("workers: {recycle: {maxTasks: none, maxMemoryMb: none}}"));
    let workers = run_in_turn(&pool, 10);
    assert_eq!(workers.iter().collect::<BTreeSet<_>>().len(), 1);
    assert!(recycled(&pool).is_empty());
}
