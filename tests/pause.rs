//! Pauses by hand: no further task is started until somebody says so, whatever happens to the pool meanwhile.
//!
//! Deliberately absent: pauses that the machine's state brings about (`backpressure.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::{Resume, Status, Stop, Why};
use acode::wire::types::{PoolState, StopMode, Waiting};
use acode::wire::{CallError, ClientError, TaskRef, request};
use acode_worker::task::{TaskId, TaskState};
use command::Acode;
use common::{Options, Pool, shell, wait_until};
use more::{cancel, gated, open_gate, reaches};

fn pause(pool: &Pool, reason: &str) {
    let paused = pool.call(&request::Pause { reason: Some(reason.to_owned()) }).paused.unwrap();
    assert_eq!(paused.why, format!("by hand: {reason}"));
}

fn resume(pool: &Pool) {
    assert_eq!(pool.call(&Resume {}).paused, None);
}

fn why(pool: &Pool, id: TaskId) -> Option<Waiting> {
    pool.call(&Why { id: TaskRef::Id(id) }).waiting
}

fn paused(why: &str) -> Option<Waiting> {
    Some(Waiting::Paused { why: why.to_owned() })
}

/// The pauses and their ends, as events.
fn told(pool: &Pool) -> Vec<String> {
    let events = pool.events().into_iter().filter(|event| event.event.starts_with("pool-"));
    events.map(|event| event.event).filter(|name| ["pool-paused", "pool-resumed"].contains(&name.as_str())).collect()
}

/// A task that leaves a line in a file.
fn mark(pool: &Pool, name: &str) -> TaskId {
    pool.submit_spec(shell(r#"echo "$2" >>"$1""#, &[&pool.path("marks"), name]))
}

#[test]
fn a_paused_pool_finishes_what_runs_and_starts_nothing_more() {
    let pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    // Published behind the running one, so that it has to be taken back.
    let waiting = mark(&pool, "waiting");
    pause(&pool, "full moon");
    let later = mark(&pool, "later");
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(running).state, TaskState::Completed);
    pool.idle_workers();
    for id in [waiting, later] {
        assert_eq!((pool.show(id).state, why(&pool, id)), (TaskState::Pending, paused("by hand: full moon")));
    }
    let status = pool.status();
    assert_eq!(status.pool.state, PoolState::Paused);
    assert_eq!(status.pool.paused.unwrap().why, "by hand: full moon");
    assert!(pool.lines("marks").is_empty());
    resume(&pool);
    pool.wait(later);
    assert_eq!(pool.lines("marks"), ["waiting", "later"], "the order of submission survives the pause");
    assert_eq!((pool.status().pool.state, told(&pool).len()), (PoolState::Running, 2));
}

#[test]
fn a_pause_outlives_the_supervisor_and_is_said_at_the_next_start() {
    let mut pool = Pool::start(Options::workers(2));
    pause(&pool, "repairs");
    let id = mark(&pool, "once");
    pool.kill9();
    pool.restart();
    assert!(pool.log().contains("the pool is still paused by hand: repairs"), "{}", pool.log());
    pool.idle_workers();
    assert_eq!(why(&pool, id), paused("by hand: repairs"));
    pool.stop();
    let said = Acode::of(&pool).says(&["worker", "start", "--detach", "--count", "2"]).expect(0);
    assert!(said.err.contains("acode: the pool is still paused by hand: repairs"), "{said:?}");
    assert_eq!(why(&pool, id), paused("by hand: repairs"));
    resume(&pool);
    pool.wait(id);
    assert_eq!(told(&pool), ["pool-paused", "pool-resumed"]);
    let acode = Acode::of(&pool);
    acode.ok(&["worker", "stop"]);
    pool.restart();
    assert_eq!(pool.status().pool.paused, None);
}

#[test]
fn the_command_line_pauses_with_a_reason_and_says_how_it_stands() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    assert_eq!(acode.ok(&["worker", "pause", "--reason", "backup"]), "paused by hand: backup");
    // Said again without a reason, it keeps the one it has, and nothing has happened.
    assert_eq!(acode.ok(&["worker", "pause"]), "paused by hand: backup");
    let status = acode.ok(&["worker", "status"]);
    assert!(status.contains("State: paused (by hand: backup)"), "{status}");
    let id = acode.ok(&["task", "submit", "--", "true"]);
    assert_eq!(acode.ok(&["task", "why", &id]), "paused: by hand: backup");
    assert_eq!(acode.json(&["worker", "pause", "--reason", "restore"])["paused"]["why"], "by hand: restore");
    assert_eq!(acode.json(&["worker", "resume"])["paused"], serde_json::Value::Null);
    assert_eq!(acode.ok(&["worker", "resume"]), "tasks are started");
    acode.ok(&["task", "wait", &id]);
    assert_eq!(told(&pool), ["pool-paused", "pool-paused", "pool-resumed"]);
}

#[test]
fn submitting_cancelling_and_arrays_work_while_it_is_paused() {
    let pool = Pool::start(Options::workers(2));
    pause(&pool, "x");
    let (doomed, kept) = (mark(&pool, "doomed"), mark(&pool, "kept"));
    let acode = Acode::of(&pool);
    let array = acode.ok(&["task", "submit", "--array", "1-5", "--", "true"]);
    cancel(&pool, doomed);
    assert_eq!(pool.show(doomed).state, TaskState::Cancelled);
    resume(&pool);
    pool.wait(kept);
    acode.ok(&["task", "wait", &array]);
    assert_eq!(pool.lines("marks"), ["kept"]);
}

#[test]
fn a_paused_pool_stops_but_not_when_its_queue_is_empty() {
    let mut pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    let id = mark(&pool, "x");
    pause(&pool, "x");
    let refused = pool.try_call(&Stop { mode: StopMode::WhenEmpty, timeout_ms: None });
    assert!(
        matches!(&refused, Err(ClientError::Call(CallError::Refused { reason })) if reason.contains("paused by hand: x"))
    );
    let said = Acode::of(&pool).says(&["worker", "stop", "--when-empty"]).expect(1);
    assert!(said.err.contains("would never become empty") && said.err.contains("acode worker resume"), "{said:?}");
    // A drain lets the running task finish, and keeps the rest, and the pause.
    let mut client = pool.client();
    client.call(&Stop { mode: StopMode::Drain, timeout_ms: None }).unwrap();
    open_gate(&pool, "gate");
    pool.wait_exit();
    pool.restart();
    assert_eq!((pool.show(running).state, why(&pool, id)), (TaskState::Completed, paused("by hand: x")));
    pool.stop();
    pool.restart();
    resume(&pool);
    pool.wait(id);
}

#[test]
fn a_worker_that_dies_during_a_pause_leaves_its_task_waiting() {
    let pool = Pool::start(Options::workers(2));
    let id = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, id, TaskState::Running);
    let worker = pool.worker_of(id);
    pause(&pool, "x");
    common::signal(worker.pid, nix::sys::signal::Signal::SIGKILL);
    wait_until("the task is put back", || why(&pool, id) == paused("by hand: x"));
    open_gate(&pool, "gate");
    pool.idle_workers();
    assert_eq!(pool.call(&Status {}).status.tasks.pending, 1);
    resume(&pool);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
}
