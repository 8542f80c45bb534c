//! The health of workers: they are asked, by hand and from time to time, and one that is not well is replaced; what
//! happens to workers is told as events.
//!
//! Deliberately absent: heartbeats that stop by themselves, and what becomes of a lost worker's task (`recovery.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;

use acode::wire::request::{Check, Scale};
use acode::wire::types::{EventRecord, WorkerStatus};
use acode::wire::{CallError, ClientError};
use acode_worker::task::TaskState;
use command::Acode;
use common::{Options, Pool, signal, wait_until};
use more::{gated, open_gate, reaches};
use nix::sys::signal::Signal;

fn of_kind(pool: &Pool, kind: &str) -> Vec<EventRecord> {
    pool.events().into_iter().filter(|event| event.event == kind).collect()
}

fn data(event: &EventRecord) -> serde_json::Value {
    serde_json::from_str(event.data.as_ref().unwrap().get()).unwrap()
}

/// Workers whose silence is noticed soon.
const IMPATIENT: &str = "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 1000";

#[test]
fn a_check_by_hand_asks_idle_and_busy_workers_alike() {
    let pool = Pool::start(Options::workers(3));
    pool.idle_workers();
    let id = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, id, TaskState::Running);
    let checked = pool.call(&Check {}).workers;
    assert_eq!(checked.len(), 3);
    for worker in &checked {
        assert!(worker.healthy && worker.problem.is_none() && worker.answered_in_us.is_some(), "{worker:?}");
        assert!(worker.memory_bytes.unwrap() > 100_000, "a process has some memory: {worker:?}");
    }
    let busy: Vec<_> = checked.iter().filter(|worker| worker.status == WorkerStatus::Busy).collect();
    assert_eq!(busy.iter().map(|worker| worker.current_task).collect::<Vec<_>>(), [Some(id)]);
    let asked: BTreeSet<_> = checked.iter().map(|worker| worker.id).collect();
    let beats: BTreeSet<_> =
        of_kind(&pool, "worker-heartbeat").into_iter().map(|event| event.worker.unwrap()).collect();
    assert_eq!(beats, asked, "each answer is an event");
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(id).attempt_count, 1, "being asked harms no task");
}

#[test]
fn a_worker_that_does_not_answer_is_replaced_and_its_task_recovered() {
    let pool = Pool::start(Options::workers(2).config(IMPATIENT));
    pool.idle_workers();
    let id = pool.submit_spec(gated(&pool, "gate"));
    let sick = pool.worker_of(id);
    signal(sick.pid, Signal::SIGSTOP);
    let said = Acode::of(&pool).says(&["--json", "worker", "check"]).expect(1);
    let checked: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for worker in checked.as_array().unwrap() {
        let healthy = worker["id"] != sick.id.to_string();
        assert_eq!(worker["healthy"], healthy, "{worker}");
        assert_eq!(worker["problem"].is_null(), healthy, "{worker}");
        assert_eq!(worker["answered_in_us"].is_u64(), healthy, "{worker}");
    }
    open_gate(&pool, "gate");
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2));
    let workers = pool.idle_workers();
    assert!(workers.iter().all(|worker| worker.id != sick.id), "another one is in its place");
    let errors = of_kind(&pool, "worker-error");
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((error.worker, &data(error)["why"]), (Some(sick.id), &"unhealthy".into()));
}

#[test]
fn workers_are_checked_from_time_to_time_without_filling_the_queue() {
    let pool = Pool::start(
        Options::workers(2).config("workers: {healthCheck: {intervalSeconds: 1}, recycle: {maxMemoryMb: 1}}"),
    );
    // That a worker is found too large tells that the check was made.
    wait_until("a check was made", || !of_kind(&pool, "worker-recycled").is_empty());
    assert!(of_kind(&pool, "worker-heartbeat").is_empty(), "only those are told that somebody asked for");
}

#[test]
fn checks_from_time_to_time_can_be_switched_off() {
    let yaml = "workers: {healthCheck: {enabled: false, intervalSeconds: 1}, recycle: {maxMemoryMb: 1}}";
    let pool = Pool::start(Options::workers(1).config(yaml));
    let before = pool.idle_workers().remove(0).id;
    // Longer than the interval, in which something else goes on.
    let id = pool.submit_spec(common::shell("sleep 2.5", &[]));
    pool.wait(id);
    assert!(of_kind(&pool, "worker-recycled").is_empty());
    assert_eq!(pool.idle_workers().remove(0).id, before);
    assert!(pool.call(&Check {}).workers[0].healthy, "by hand they can be checked all the same");
    wait_until("that counts for recycling", || of_kind(&pool, "worker-recycled").len() == 1);
}

#[test]
fn a_worker_that_dies_while_it_is_asked_is_told_of() {
    let pool = Pool::start(Options::workers(2));
    let dead = pool.idle_workers().remove(0);
    signal(dead.pid, Signal::SIGSTOP);
    let checked = std::thread::scope(|scope| {
        let check = scope.spawn(|| pool.call(&Check {}).workers);
        wait_until("the other one has answered", || of_kind(&pool, "worker-heartbeat").len() == 1);
        signal(dead.pid, Signal::SIGKILL);
        check.join().unwrap()
    });
    let record = checked.iter().find(|worker| worker.id == dead.id).unwrap();
    assert!(!record.healthy && record.problem.as_deref().is_some_and(|why| why.contains("SIGKILL")), "{record:?}");
    assert_eq!(record.status, WorkerStatus::Stopped);
}

#[test]
fn a_check_keeps_nobody_else_waiting() {
    let pool = Pool::start(Options::workers(2));
    let stopped = pool.idle_workers().remove(0);
    signal(stopped.pid, Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let check = scope.spawn(|| pool.call(&Check {}).workers);
        wait_until("the other one has answered", || of_kind(&pool, "worker-heartbeat").len() == 1);
        let id = pool.submit(&["true"]);
        assert_eq!(pool.wait(id).state, TaskState::Completed);
        assert!(!check.is_finished(), "one has not answered yet");
        signal(stopped.pid, Signal::SIGCONT);
        assert!(check.join().unwrap().iter().all(|worker| worker.healthy), "late is not too late");
    });
}

#[test]
fn there_are_not_more_checks_at_a_time_than_are_allowed() {
    let pool = Pool::start(Options::workers(2));
    let stopped = pool.idle_workers().remove(0);
    signal(stopped.pid, Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let checks: Vec<_> = (0..16).map(|_| scope.spawn(|| pool.call(&Check {}).workers)).collect();
        wait_until("all are going on", || of_kind(&pool, "worker-heartbeat").len() == 16);
        let refused = pool.try_call(&Check {});
        assert!(matches!(refused, Err(ClientError::Call(CallError::Busy { .. }))), "{refused:?}");
        signal(stopped.pid, Signal::SIGCONT);
        for check in checks {
            assert!(check.join().unwrap().iter().all(|worker| worker.healthy));
        }
    });
    assert_eq!(pool.call(&Check {}).workers.len(), 2);
}

#[test]
fn the_table_of_a_check_names_every_worker() {
    let pool = Pool::start(Options::workers(2));
    let workers = pool.idle_workers();
    let text = Acode::of(&pool).ok(&["worker", "check"]);
    for worker in workers {
        let line = text.lines().find(|line| line.contains(&worker.id.to_string())).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("idle") && line.contains("yes") && line.contains(&worker.pid.to_string()), "{line}");
    }
}

#[test]
fn the_life_of_a_worker_is_told_from_birth_to_end() {
    let pool = Pool::start(Options::workers(1));
    let first = pool.idle_workers().remove(0);
    pool.call(&Scale { count: 2 });
    wait_until("there are two", || pool.status().workers.idle == 2);
    let second = pool.workers().into_iter().find(|worker| worker.id != first.id).unwrap();
    pool.call(&Scale { count: 1 });
    wait_until("one has left", || pool.workers().len() == 1);
    signal(first.pid, Signal::SIGKILL);
    wait_until("it is replaced", || {
        pool.workers().iter().any(|worker| worker.id != first.id && worker.status == WorkerStatus::Idle)
    });
    let told = |id| {
        let of_it = pool.events().into_iter().filter(|event| event.worker == Some(id));
        of_it.map(|event| (event.event.clone(), event.data.as_ref().map(|_| data(&event)))).collect::<Vec<_>>()
    };
    let names =
        |told: &[(String, Option<serde_json::Value>)]| told.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (died, left) = (told(first.id), told(second.id));
    assert_eq!(names(&died), ["worker-created", "worker-started", "worker-exited", "worker-failed"]);
    assert_eq!(names(&left), ["worker-created", "worker-started", "worker-exited", "worker-stopped"]);
    assert_eq!(left[1].1.as_ref().unwrap()["pid"], second.pid);
    assert_eq!(died[2].1, Some(serde_json::json!({ "signal": 9 })));
    assert_eq!(left[2].1, Some(serde_json::json!({ "code": 0 })));
}

#[test]
fn a_worker_that_is_not_ready_is_created_but_not_started() {
    if !cfg!(debug_assertions) {
        return eprintln!("not run: a release build has no failpoints, so no worker can be held while it starts");
    }
    let pool = Pool::start(Options::workers(1).dies_once_at("worker.boot=stop"));
    wait_until("it is held in its birth", || pool.has_struck("worker.boot"));
    assert_eq!(of_kind(&pool, "worker-created").len(), 1);
    assert!(of_kind(&pool, "worker-started").is_empty());
    signal(pool.workers()[0].pid, Signal::SIGCONT);
    wait_until("it is told", || of_kind(&pool, "worker-started").len() == 1);
}

#[test]
fn a_worker_that_cannot_begin_is_told_of() {
    let mut pool = Pool::start(Options::workers(1));
    let worker = pool.idle_workers().remove(0);
    let rooms = pool.state_dir().join("rooms");
    std::fs::remove_dir_all(&rooms).unwrap();
    std::fs::write(&rooms, "in the way").unwrap();
    signal(worker.pid, Signal::SIGKILL);
    assert!(!pool.wait_exit().success(), "no worker can begin, so the pool gives up");
    pool.restart();
    let errors = of_kind(&pool, "worker-error");
    assert!(!errors.is_empty());
    for error in errors {
        assert!(error.worker.is_some_and(|id| id != worker.id));
        let data = data(&error);
        assert_eq!(data["why"], "boot_failed");
        assert!(data["error"].as_str().unwrap().contains("no room"), "{data}");
    }
}

#[test]
fn a_worker_that_cannot_be_made_is_told_of() {
    // More environment than fits into a birth, so that no worker can ever be made and the pool gives up.
    let yaml = format!("tasks: {{environment: {{set: {{LARGE: {}}}}}}}", "x".repeat(200_000));
    let mut pool = Pool::prepare(Options::workers(1).config(&yaml));
    pool.launch();
    assert!(!pool.wait_exit().success());
    std::fs::write(pool.file("acode.yaml"), "").unwrap();
    pool.restart();
    let errors = of_kind(&pool, "worker-error");
    assert!(!errors.is_empty());
    for error in errors {
        let data = data(&error);
        assert_eq!((error.worker, &data["why"], &data["row"]), (None, &"worker_creation_failed".into(), &0.into()));
        assert!(data["error"].as_str().unwrap().contains("environment"), "{data}");
    }
}
