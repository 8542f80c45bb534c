//! The number of workers while a pool runs: up, down, its bounds, and who goes first.
//!
//! Deliberately absent: scaling by load, which no part of acode does yet; SIGTTIN and SIGTTOU (`signals.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;

use acode::wire::request::{Scale, Stop};
use acode::wire::types::{StopMode, WorkerStatus};
use acode::wire::{CallError, ClientError};
use acode_worker::task::TaskState;
use common::{Options, Pool, is_alive, wait_until};
use more::{gated, only_attempt, open_gate, reaches};

fn scale(pool: &Pool, count: u32) -> (u32, u32) {
    let scaled = pool.call(&Scale { count });
    (scaled.before, scaled.target)
}

#[track_caller]
fn becomes(pool: &Pool, count: usize) {
    wait_until(&format!("{count} workers are idle and no other is there"), || {
        let workers = pool.workers();
        workers.len() == count && workers.iter().all(|worker| worker.status == WorkerStatus::Idle)
    });
}

#[test]
fn scaling_up_adds_workers() {
    let pool = Pool::start(Options::workers(2));
    let before: BTreeSet<_> = pool.idle_workers().into_iter().map(|worker| worker.id).collect();
    assert_eq!(scale(&pool, 6), (2, 6));
    becomes(&pool, 6);
    let after: BTreeSet<_> = pool.workers().into_iter().map(|worker| worker.id).collect();
    assert!(before.is_subset(&after), "those that were there stay");
    let ids = pool.submit_all((0..6).map(|_| more::entry(gated(&pool, "gate"))).collect());
    wait_until("all six work", || pool.status().tasks.running == 6);
    open_gate(&pool, "gate");
    let workers: BTreeSet<_> = ids.iter().map(|id| only_attempt(&pool.wait(*id)).worker).collect();
    assert_eq!(workers.len(), 6);
    let scaled = pool.events().into_iter().find(|event| event.event == "pool-scaled").unwrap();
    assert_eq!(scaled.data.unwrap().get(), r#"{"from":2,"to":6}"#);
}

#[test]
fn new_workers_take_tasks_that_wait_already() {
    let pool = Pool::start(Options::workers(1));
    pool.submit_all((0..3).map(|_| more::entry(gated(&pool, "gate"))).collect());
    wait_until("one runs", || pool.status().tasks.running == 1);
    scale(&pool, 3);
    wait_until("three run", || pool.status().tasks.running == 3);
    open_gate(&pool, "gate");
}

#[test]
fn scaling_down_stops_idle_workers_first() {
    let pool = Pool::start(Options::workers(4));
    let all = pool.idle_workers();
    let ids = pool.submit_all((0..2).map(|_| more::entry(gated(&pool, "gate"))).collect());
    let busy: BTreeSet<_> = ids.iter().map(|id| pool.worker_of(*id).id).collect();
    assert_eq!(scale(&pool, 2), (4, 2));
    wait_until("the idle ones have left", || pool.workers().len() == 2);
    let left: BTreeSet<_> = pool.workers().iter().map(|worker| worker.id).collect();
    assert_eq!(left, busy);
    for gone in all.iter().filter(|worker| !busy.contains(&worker.id)) {
        wait_until("its process is gone", || !is_alive(gone.pid));
    }
    open_gate(&pool, "gate");
    ids.iter().for_each(|id| assert_eq!(pool.wait(*id).attempt_count, 1));
    becomes(&pool, 2);
}

#[test]
fn a_busy_worker_finishes_before_it_is_scaled_away() {
    let pool = Pool::start(Options::workers(2));
    let ids = pool.submit_all((0..2).map(|_| more::entry(gated(&pool, "gate"))).collect());
    ids.iter().for_each(|id| drop(reaches(&pool, *id, TaskState::Running)));
    let queued = pool.submit(&["true"]);
    scale(&pool, 1);
    wait_until("one is leaving", || pool.status().workers.stopping == 1);
    assert_eq!(pool.status().tasks.running, 2, "its task runs on");
    open_gate(&pool, "gate");
    for id in ids {
        let task = pool.wait(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1));
    }
    assert_eq!(pool.wait(queued).state, TaskState::Completed);
    becomes(&pool, 1);
}

#[test]
fn scaling_beyond_the_maximum_is_refused() {
    let pool = Pool::start(Options::workers(2).config("workers:\n  maxCount: 3"));
    let refused = pool.try_call(&Scale { count: 4 });
    assert!(matches!(refused, Err(ClientError::Call(CallError::InvalidParameter { .. }))), "{refused:?}");
    assert_eq!(pool.status().workers.max, 3);
    assert_eq!(scale(&pool, 3), (2, 3));
    becomes(&pool, 3);
}

#[test]
fn scaling_below_one_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let refused = pool.try_call(&Scale { count: 0 });
    assert!(matches!(refused, Err(ClientError::Call(CallError::InvalidParameter { .. }))), "{refused:?}");
    assert_eq!(pool.status().workers.target, 1);
}

#[test]
fn a_pool_that_stops_is_not_scaled() {
    let mut pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, id, TaskState::Running);
    pool.call(&Stop { mode: StopMode::Drain, timeout_ms: None });
    let refused = pool.try_call(&Scale { count: 2 });
    assert!(matches!(refused, Err(ClientError::Call(CallError::Draining))), "{refused:?}");
    open_gate(&pool, "gate");
    pool.wait_exit();
}

#[test]
fn scaling_to_and_fro_ends_at_the_last_number() {
    let pool = Pool::start(Options::workers(1));
    for count in [16, 2, 9, 1, 5] {
        scale(&pool, count);
    }
    becomes(&pool, 5);
    let id = pool.submit(&["true"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
}
