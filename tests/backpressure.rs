//! Backpressure: submitters wait while the queue is nearly full, and tasks wait while the machine lacks something.
//!
//! The machine's state is brought about by limits that it cannot meet, and mended by other ones and a SIGHUP.
//! Deliberately absent: the decisions by themselves (`supervisor::pressure`, `supervisor::backlog`), and pauses by hand
//! (`pause.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::time::{Duration, Instant};

use acode::wire::request::{Ping, Stop, Submit, Why};
use acode::wire::types::{PoolState, StopMode, Waiting};
use acode::wire::{CallError, Client, ClientError, TaskRef};
use acode_worker::task::{Submission, TaskId, TaskState};
use command::Acode;
use common::{Options, PATIENCE, Pool, eventually, shell, signal, wait_until};
use more::{command as words, entry, gated, open_gate, reaches};
use nix::sys::signal::Signal;

/// A queue of ten tasks whose submitters wait from the fifth on, and a worker that does one task at a time.
const TEN: &str = "queue:\n  maxTasks: 10\n  backpressureThreshold: 0.5\n  maxWaitSeconds: 60";

fn gates(pool: &Pool, count: usize) -> Vec<Submission> {
    (0..count).map(|_| entry(gated(pool, "gate"))).collect()
}

/// A submission that waits in a thread of its own.
fn submit_aside(pool: &Pool, tasks: Vec<Submission>, wait_ms: Option<u64>) -> std::thread::JoinHandle<Outcome> {
    let mut client = pool.client();
    std::thread::spawn(move || client.call(&Submit { tasks, wait_ms }).map(|submitted| submitted.ids))
}

type Outcome = Result<Vec<TaskId>, ClientError>;

fn waits(pool: &Pool, submitters: &str) {
    wait_until("submitters wait", || {
        pool.status().queue.backpressure.is_some_and(|pressed| pressed.why.ends_with(submitters))
    });
}

fn full(outcome: Outcome) -> (u64, u64) {
    match outcome {
        Err(ClientError::Call(CallError::QueueFull { queued, limit })) => (queued, limit),
        other => panic!("the queue should be full: {other:?}"),
    }
}

/// The events of backpressure: `on` or `off`, with the cause.
fn told(pool: &Pool) -> Vec<(String, serde_json::Value)> {
    let events = pool.events().into_iter().filter(|event| event.event.starts_with("backpressure-"));
    events.map(|event| (event.event, serde_json::from_str(event.data.unwrap().get()).unwrap())).collect()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

// The queue.

#[test]
fn submitters_wait_above_the_threshold_and_are_let_in_by_their_order() {
    let pool = Pool::start(Options::workers(1).config(TEN));
    pool.call(&Submit::new(gates(&pool, 5)));
    let first = submit_aside(&pool, vec![entry(words(&["true"]))], None);
    waits(&pool, "1 submitter waits");
    let second = submit_aside(&pool, vec![entry(words(&["true"]))], None);
    waits(&pool, "2 submitters wait");
    // The queue could hold them, but it is above its threshold.
    assert_eq!(pool.status().tasks.total(), 5);
    let log = "the queue is nearly full: submitters wait";
    assert_eq!(count(&pool.log(), log), 1, "once for all of them");
    open_gate(&pool, "gate");
    let (first, second) = (first.join().unwrap().unwrap()[0], second.join().unwrap().unwrap()[0]);
    assert!(first < second, "by their order of arrival");
    pool.wait_all();
    wait_until("it is over", || pool.status().queue.backpressure.is_none());
    let told = told(&pool);
    assert_eq!(told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["backpressure-on", "backpressure-off"]);
    assert_eq!(told[0].1, serde_json::json!({ "cause": "queue", "figure": 5.0, "limit": 5.0 }));
    assert_eq!(count(&pool.log(), log), 1);
}

#[test]
fn a_call_that_waits_is_taken_at_its_bound_if_it_fits_and_refused_if_not() {
    let pool = Pool::start(Options::workers(1).config(TEN));
    pool.call(&Submit::new(gates(&pool, 5)));
    assert_eq!(full(submit_aside(&pool, gates(&pool, 1), Some(0)).join().unwrap()), (5, 5), "it does not wait");
    let began = Instant::now();
    assert_eq!(submit_aside(&pool, gates(&pool, 5), Some(300)).join().unwrap().unwrap().len(), 5);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(full(submit_aside(&pool, gates(&pool, 1), Some(10)).join().unwrap()), (10, 10));
    // What can never fit does not wait.
    assert_eq!(full(submit_aside(&pool, gates(&pool, 11), None).join().unwrap()), (10, 10));
    open_gate(&pool, "gate");
    pool.wait_all();
}

#[test]
fn a_client_that_goes_away_while_it_waits_has_submitted_nothing() {
    let pool = Pool::start(Options::workers(1).config(TEN));
    pool.call(&Submit::new(gates(&pool, 5)));
    let mut gone = pool.client();
    let mark = entry(shell(r#"touch "$1""#, &[&pool.path("mark")]));
    for _ in 0..3 {
        gone.queue(&Submit::new(vec![mark.clone()])).unwrap();
    }
    gone.flush().unwrap();
    waits(&pool, "1 submitter waits");
    drop(gone);
    wait_until("nobody waits", || pool.status().queue.backpressure.is_some_and(|it| !it.why.contains("wait")));
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(pool.status().tasks.total(), 5);
    assert!(!pool.file("mark").exists());
}

#[test]
fn answers_keep_their_order_when_a_call_waits_or_is_refused() {
    let pool = Pool::start(Options::workers(1).config(TEN));
    let mut client = pool.client();
    client.queue(&Submit::new(gates(&pool, 4))).unwrap();
    client.queue(&Submit::new(gates(&pool, 11))).unwrap();
    client.queue(&Submit::new(gates(&pool, 1))).unwrap();
    client.queue(&Submit { tasks: gates(&pool, 2), wait_ms: Some(50) }).unwrap();
    client.queue(&Submit { tasks: gates(&pool, 9), wait_ms: Some(50) }).unwrap();
    client.queue(&Ping {}).unwrap();
    assert_eq!(client.receive::<Submit>().unwrap().ids.len(), 4);
    assert_eq!(full(client.receive::<Submit>().map(|it| it.ids)).1, 10);
    assert_eq!(client.receive::<Submit>().unwrap().ids.len(), 1);
    assert_eq!(client.receive::<Submit>().unwrap().ids.len(), 2);
    assert_eq!(full(client.receive::<Submit>().map(|it| it.ids)), (7, 10));
    assert_eq!(client.receive::<Ping>().unwrap().pid, pool.pid());
    open_gate(&pool, "gate");
    pool.wait_all();
}

#[test]
fn others_are_served_while_submitters_wait_and_a_stop_refuses_them() {
    let mut pool = Pool::start(Options::workers(1).config(TEN));
    let ids = pool.call(&Submit::new(gates(&pool, 5))).ids;
    reaches(&pool, ids[0], TaskState::Running);
    let waiting = submit_aside(&pool, gates(&pool, 1), None);
    waits(&pool, "1 submitter waits");
    more::cancel(&pool, ids[4]);
    // That made room, so it is let in; the next one waits again.
    assert_eq!(waiting.join().unwrap().unwrap().len(), 1);
    let waiting = submit_aside(&pool, gates(&pool, 1), None);
    waits(&pool, "1 submitter waits");
    pool.call(&Stop { mode: StopMode::Force, timeout_ms: None });
    assert!(matches!(waiting.join().unwrap(), Err(ClientError::Call(CallError::Draining))));
    pool.wait_exit();
}

#[test]
fn the_command_line_waits_as_long_as_it_is_told() {
    let pool = Pool::start(Options::workers(1).config("queue:\n  maxTasks: 2"));
    pool.call(&Submit::new(gates(&pool, 2)));
    let acode = Acode::of(&pool);
    let said = acode.says(&["task", "submit", "--no-wait", "--", "true"]).expect(5);
    assert!(said.out.is_empty() && said.err.contains("it holds 2 of at most 2 tasks"), "{said:?}");
    acode.says(&["task", "submit", "--wait-for-room", "100ms", "--", "true"]).expect(5);
    acode.says(&["task", "submit", "--wait-for-room", "1s", "--no-wait", "--", "true"]).expect(2);
    let waiting = acode.spawn(&["task", "submit", "--", "true"]);
    waits(&pool, "1 submitter waits");
    let status = acode.ok(&["worker", "status"]);
    assert!(status.contains("Backpressure: the queue holds 2 of at most 2 tasks, and 1 submitter waits"), "{status}");
    open_gate(&pool, "gate");
    let id = waiting.finish().expect(0).out.trim().to_owned();
    acode.ok(&["task", "wait", &id]);
}

#[test]
fn a_file_larger_than_the_queue_is_slowed_and_nothing_of_it_is_dropped() {
    let pool = Pool::start(Options::workers(2).config("queue:\n  maxTasks: 20"));
    let acode = Acode::of(&pool);
    let one = r#"{"command": ["true"]}"#;
    let mut lines: Vec<String> = (0..300).map(|_| one.to_owned()).collect();
    // Places in the file stay places in the file, and an array is a call of its own.
    lines[250] = r#"{"name": "last", "command": ["true"], "array": "1-15"}"#.to_owned();
    lines.push(r#"{"command": ["true"], "after": "last"}"#.to_owned());
    let said = acode.says_to(lines.join("\n"), &["task", "submit", "--file", "-"]).expect(0);
    let mut ids: Vec<&str> = said.out.lines().collect();
    assert_eq!(ids.len(), 301);
    let printed = ids.clone();
    ids.sort_unstable();
    assert_eq!(printed, ids, "in the order of the file");
    pool.wait_all();
    assert_eq!(pool.status().tasks.completed, 299 + 15 + 1);
}

#[test]
fn a_run_larger_than_its_queue_is_slowed_too() {
    let pool = Pool::prepare(Options::workers(1));
    let yaml = "queue: {maxTasks: 5}\n";
    std::fs::write(pool.file("small.yaml"), yaml).unwrap();
    let lines: Vec<String> = (0..60).map(|_| r#"{"command": ["true"]}"#.to_owned()).collect();
    std::fs::write(pool.file("tasks.jsonl"), lines.join("\n")).unwrap();
    let acode = Acode::without_state(&pool);
    let said = acode.says(&["run", "--count", "1", "--config", &pool.path("small.yaml"), &pool.path("tasks.jsonl")]);
    assert!(said.expect(0).err.contains("60 of 60 tasks completed"));
}

#[test]
fn a_bulk_submission_gives_up_when_nothing_moves_any_more() {
    let pool = Pool::start(Options::workers(1).config("queue:\n  maxTasks: 3"));
    let acode = Acode::of(&pool);
    let later = r#"{"command": ["true"], "delay": "1h"}"#;
    let lines: Vec<&str> = (0..10).map(|_| later).collect();
    let said = acode.says_to(lines.join("\n"), &["task", "submit", "--file", "-"]).expect(5);
    assert_eq!(said.out.lines().count(), 3, "{said:?}");
    assert!(said.err.contains("waiting for room") && said.err.contains("queue.maxTasks"), "{said:?}");
    wait_until("nobody waits", || pool.status().queue.backpressure.is_some_and(|it| !it.why.contains("wait")));
    assert_eq!(pool.status().tasks.pending, 3);
}

#[test]
fn without_a_pool_nobody_makes_room_so_nobody_waits() {
    let pool = Pool::prepare(Options::workers(1).config("queue:\n  maxTasks: 2"));
    let acode = Acode::of(&pool);
    let began = Instant::now();
    for code in [0, 0, 5] {
        acode.says(&["task", "submit", "--", "true"]).expect(code);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

// The machine.

/// Gives the pool another configuration while it runs.
fn reconfigure(pool: &Pool, yaml: &str) {
    let before = count(&pool.log(), "configuration read again");
    std::fs::write(pool.file("acode.yaml"), yaml).unwrap();
    signal(pool.pid(), Signal::SIGHUP);
    wait_until("the configuration is read", || count(&pool.log(), "configuration read again") > before);
}

fn limit(line: &str) -> String {
    format!("backpressure:\n  resumeAfterSeconds: 0\n  {line}")
}

/// A pool that lacks something from the beginning starts nothing, says so everywhere, and goes on when it is mended.
fn holds_tasks_back(unmeetable: &str, mended: &str, cause: &str, words_of: &str) {
    let pool = Pool::start(Options::workers(2).config(&limit(unmeetable)));
    assert!(eventually(PATIENCE, || pool.status().pool.state == PoolState::Paused), "{}", pool.log());
    let id = pool.submit(&["true"]);
    let why = pool.status().pool.paused.unwrap().why;
    assert!(why.starts_with(words_of), "{why}");
    let waiting = pool.call(&Why { id: TaskRef::Id(id) });
    assert!(matches!(&waiting.waiting, Some(Waiting::Paused { why }) if why.starts_with(words_of)), "{waiting:?}");
    assert!(pool.log().contains(&format!("no further task is started: {words_of}")), "{}", pool.log());
    pool.idle_workers();
    assert_eq!(pool.show(id).state, TaskState::Pending);
    reconfigure(&pool, &limit(mended));
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert_eq!(pool.status().pool.state, PoolState::Running);
    let told = told(&pool);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["backpressure-on", "backpressure-off"]);
    assert!(told.iter().all(|(_, data)| data["cause"] == cause && data["limit"].is_number()), "{told:?}");
    let figure = told[0].1["figure"].as_f64().unwrap();
    assert!(figure > 0.0, "{told:?}");
    assert!(pool.log().contains("tasks are started again: "), "{}", pool.log());
}

#[test]
fn a_lack_of_memory_holds_tasks_back_until_there_is_enough() {
    holds_tasks_back("minFreeMemoryMb: 900000000", "minFreeMemoryMb: 1", "memory", "free memory ");
}

#[test]
fn a_lack_of_disk_space_holds_tasks_back_until_there_is_enough() {
    holds_tasks_back("minFreeDiskMb: 900000000", "minFreeDiskMb: 1", "disk", "free disk space ");
}

#[test]
fn a_high_load_holds_tasks_back_until_it_is_permitted() {
    // The load of a machine that does nothing is nought, so we see to it that there is some.
    let (stop, busy) = std::sync::mpsc::channel::<()>();
    let spin = std::thread::spawn(move || while busy.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {});
    holds_tasks_back("maxLoadPerCpu: 0.001", "maxLoadPerCpu: 10000", "load", "load ");
    drop(stop);
    spin.join().unwrap();
}

#[test]
fn a_run_whose_pool_starts_nothing_says_why() {
    let pool = Pool::prepare(Options::workers(1));
    std::fs::write(pool.file("hungry.yaml"), limit("minFreeMemoryMb: 900000000")).unwrap();
    let acode = Acode::without_state(&pool);
    let running = acode.spawn(&["run", "--config", &pool.path("hungry.yaml"), "--", "true"]);
    wait_until("it says so", || running.err().contains("no task is started for now: free memory "));
    signal(running.pid(), Signal::SIGINT);
    running.finish().expect(130);
}

#[test]
fn what_runs_goes_on_and_what_was_published_is_taken_back() {
    let pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    let rest: Vec<TaskId> = (0..20).map(|_| pool.submit(&["true"])).collect();
    reconfigure(&pool, &limit("minFreeMemoryMb: 900000000"));
    wait_until("it is paused", || pool.status().pool.state == PoolState::Paused);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(running).state, TaskState::Completed);
    pool.idle_workers();
    assert_eq!(pool.status().tasks.pending, 20);
    // A pause by hand on top of it: tasks are started again when neither is left.
    let paused = pool.call(&acode::wire::request::Pause { reason: Some("x".to_owned()) }).paused.unwrap().why;
    assert!(paused.starts_with("by hand: x; free memory "), "{paused}");
    reconfigure(&pool, "backpressure: {enabled: false}");
    wait_until("the memory is of no concern", || pool.status().pool.paused.is_some_and(|it| it.why == "by hand: x"));
    assert_eq!(pool.status().tasks.pending, 20);
    pool.call(&acode::wire::request::Resume {});
    pool.wait_all();
    assert!(rest.iter().all(|id| pool.show(*id).state == TaskState::Completed));
}

#[test]
fn waiting_submitters_leave_connections_for_others() {
    let pool = Pool::start(Options::workers(1).config(&format!("{TEN}\ncontrol:\n  maxConnections: 8")));
    pool.call(&Submit::new(gates(&pool, 5)));
    let waiting: Vec<_> = (0..6).map(|_| submit_aside(&pool, gates(&pool, 1), None)).collect();
    waits(&pool, "6 submitters wait");
    let refused = submit_aside(&pool, gates(&pool, 1), None).join().unwrap();
    assert!(
        matches!(&refused, Err(ClientError::Call(CallError::Busy { reason })) if reason.starts_with("6 ")),
        "{refused:?}"
    );
    assert_eq!(pool.status().tasks.total(), 5);
    open_gate(&pool, "gate");
    waiting.into_iter().for_each(|waiting| assert_eq!(waiting.join().unwrap().unwrap().len(), 1));
    pool.wait_all();
}

#[test]
fn clients_may_come_and_go_while_others_wait() {
    let pool = Pool::start(Options::workers(1).config(TEN));
    pool.call(&Submit::new(gates(&pool, 5)));
    let waiting: Vec<_> = (0..20).map(|_| submit_aside(&pool, vec![entry(words(&["true"]))], None)).collect();
    waits(&pool, "20 submitters wait");
    for _ in 0..50 {
        let mut client: Client = pool.client();
        client.queue(&Submit::new(gates(&pool, 1))).unwrap();
        client.flush().unwrap();
    }
    open_gate(&pool, "gate");
    for waiting in waiting {
        waiting.join().unwrap().unwrap();
    }
    pool.wait_all();
    assert_eq!(pool.status().tasks.completed, 25);
}
