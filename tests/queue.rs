//! The queue of a living pool: one owner, a bound, retention, and a disk that is full.
//!
//! Deliberately absent: what a killed supervisor leaves (`recovery.rs`), and the store by itself (`src/store/tests`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::path::Path;
use std::process::Command;

use acode::wire::request::{Prune, Submit, Wait};
use acode::wire::{CallError, ClientError, TaskRef};
use acode_worker::task::{Array, Submission, TaskId, TaskState};
use common::{Options, Pool, eventually, shell, wait_until};
use more::{command, entry, gated, open_gate, reaches};

#[test]
fn a_second_supervisor_ends_at_once_and_names_the_first() {
    let pool = Pool::start(Options::workers(1));
    let second = pool.command().stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(6));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&pool.pid().to_string()), "{said}");
    let id = pool.submit(&["true"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed, "the first is not disturbed");
}

fn full(result: Result<acode::wire::reply::Submitted, ClientError>) -> (u64, u64) {
    match result {
        Err(ClientError::Call(CallError::QueueFull { queued, limit })) => (queued, limit),
        other => panic!("the queue should be full: {other:?}"),
    }
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let pool = Pool::start(Options::workers(1).config("queue:\n  maxTasks: 5\n  backpressureThreshold: 1"));
    let tasks = |count: usize| Submit::new((0..count).map(|_| entry(gated(&pool, "gate"))).collect());
    pool.call(&tasks(4));
    assert_eq!(full(pool.try_call(&tasks(2))), (4, 5));
    let array = Some(Array::Range { first: 0, count: 2 });
    let array = Submit::new(vec![Submission { spec: command(&["true"]), array, ..Submission::default() }]);
    assert_eq!(full(pool.try_call(&array)), (4, 5), "members count one by one");
    pool.call(&tasks(1));
    assert_eq!(full(pool.try_call(&tasks(1))), (5, 5));
    open_gate(&pool, "gate");
    wait_until("there is room", || pool.status().tasks.completed == 5);
    pool.call(&tasks(5));
    pool.wait_all();
}

#[test]
fn the_bound_holds_within_one_batch_of_pipelined_submissions() {
    let pool = Pool::start(Options::workers(1).config("queue:\n  maxTasks: 50\n  backpressureThreshold: 1"));
    let gate = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, gate, TaskState::Running);
    let mut client = pool.client();
    let array = |count| Some(Array::Range { first: 0, count });
    for _ in 0..10 {
        let tasks = vec![Submission { spec: command(&["true"]), array: array(10), ..Submission::default() }];
        client.queue(&Submit::new(tasks)).unwrap();
    }
    let results: Vec<bool> = (0..10).map(|_| client.receive::<Submit>().is_ok()).collect();
    assert_eq!(results.iter().filter(|accepted| **accepted).count(), 4, "{results:?}");
    open_gate(&pool, "gate");
    pool.wait_all();
}

#[test]
fn a_queue_of_one_takes_one_after_the_other() {
    // Ends and starts that wait for their commit are no tasks, and must not count as such.
    let pool = Pool::start(Options::workers(1).config("queue:\n  maxTasks: 1"));
    for _ in 0..50 {
        let id = pool.submit(&["true"]);
        pool.wait(id);
    }
}

#[test]
fn retention_removes_tasks_events_and_output() {
    let yaml =
        "retention:\n  maxFinishedTasks: 5\n  maxEvents: 10\n  intervalSeconds: 1\noutput:\n  segmentBytes: 65536";
    let mut pool = Pool::start(Options::workers(1).config(yaml));
    let ids = pool.submit_all((0..40).map(|_| entry(command(&["head", "-c", "60000", "/dev/zero"]))).collect());
    let last = ids[39];
    pool.wait(last);
    wait_until("old tasks are gone", || pool.status().tasks.completed <= 5);
    let newest = pool.show(last);
    assert_eq!(newest.state, TaskState::Completed, "the newest are kept");
    assert_eq!(more::written(&pool, last).stdout.len(), 60_000);
    let gone = pool.try_call(&acode::wire::request::Show { id: TaskRef::Id(ids[0]) });
    assert!(matches!(gone, Err(ClientError::Call(CallError::NoSuchTask { .. }))), "{gone:?}");
    wait_until("old events are gone", || pool.events().len() <= 12);
    // A worker's own segments stay while it lives; those of one that has left go with their tasks.
    let journal = pool.state_dir().join("journal");
    pool.stop();
    pool.restart();
    let kept = pool.call(&Prune { keep: Some(1), ..Prune::default() });
    assert!(kept.tasks > 0 && kept.log_bytes > 0, "{kept:?}");
    let left: u64 = fs::read_dir(&journal).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(left < 300_000, "{left} bytes of output are left for one task of 60000");
}

#[test]
fn pruning_by_hand_keeps_what_it_is_told_to() {
    let pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    open_gate(&pool, "gate");
    let ids = pool.submit_all((0..6).map(|_| entry(command(&["true"]))).collect());
    pool.wait_all();
    assert_eq!(pool.call(&Prune { older_than_ms: Some(3_600_000), ..Prune::default() }).tasks, 0);
    assert_eq!(pool.call(&Prune { keep: Some(2), ..Prune::default() }).tasks, 5);
    assert_eq!(pool.show(ids[5]).state, TaskState::Completed);
    assert_eq!(more::prune_everything(&pool), 2);
    assert_eq!(pool.status().tasks.total(), 0);
}

/// A small file system of its own, in memory, as the state directory of a pool that is not started yet.
struct Tiny<'p>(&'p Path);

impl<'p> Tiny<'p> {
    fn mount(path: &'p Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"]).arg(path).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(path))
    }

    /// Takes all that is left of it.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        // Until it says that there is no more.
        while std::io::Write::write_all(&mut file, &[b'x'; 4096]).is_ok() {}
        while std::io::Write::write_all(&mut file, b"x").is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

fn unavailable(result: &Result<acode::wire::reply::Submitted, ClientError>) -> bool {
    matches!(result, Err(ClientError::Call(CallError::QueueUnavailable { .. })))
}

#[test]
fn a_full_disk_stops_acceptance_and_nothing_else() {
    // A disk so small has never as much left as is asked for by default.
    let mut pool = Pool::prepare(Options::workers(2).config("backpressure:\n  minFreeDiskMb: none"));
    let state = pool.state_dir();
    let Some(tiny) = Tiny::mount(&state) else {
        return eprintln!("not run: no file system can be mounted here, so no disk can be filled");
    };
    pool.restart();
    let script = r#"while [ ! -e "$1" ]; do sleep 0.02; done; echo done >>"$2"; head -c 200000 /dev/zero"#;
    let running = pool.submit_spec(shell(script, &[&pool.path("gate"), &pool.path("done")]));
    reaches(&pool, running, TaskState::Running);
    let mut acknowledged: Vec<TaskId> = vec![running];
    tiny.fill();
    let big = || Submit::new((0..50).map(|_| entry(shell("true", &[&"x".repeat(1_000)]))).collect());
    let mut refusal = None;
    wait_until("a submission is refused", || {
        let result = pool.try_call(&big());
        let refused = unavailable(&result);
        match result {
            Ok(reply) => acknowledged.extend(reply.ids),
            Err(error) => refusal = Some(error),
        }
        refused
    });
    let status = pool.status();
    assert!(!status.queue.accepting, "{refusal:?}");
    let problem = status.queue.problem.unwrap_or_default();
    assert!(problem.contains("no space left"), "{problem}");
    assert!(pool.log().contains("the queue cannot be written"));
    assert_eq!(pool.status().tasks.running, 1, "what runs lives on");
    open_gate(&pool, "gate");
    wait_until("the running task ends", || pool.lines("done") == ["done"]);
    // For longer than it takes to try again: a disk that is full does not look healed in between.
    let healed = eventually(std::time::Duration::from_millis(1_500), || pool.status().queue.accepting);
    assert!(!healed, "{}", pool.log());

    tiny.empty();
    wait_until("the queue is written again", || pool.status().queue.accepting);
    acknowledged.push(pool.submit(&["true"]));
    for id in &acknowledged {
        pool.call(&Wait { ids: vec![TaskRef::Id(*id)], all: false });
        let task = pool.show(*id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1));
    }
    assert_eq!(pool.lines("done").len(), 1, "and nothing is run twice");
    let events = pool.events();
    let told = |name: &str| events.iter().filter(|event| event.event == name).count();
    assert_eq!((told("queue-broken"), told("queue-healed")), (1, 1));
    pool.stop();
    assert_eq!(pool.leftovers(), Vec::<String>::new());
    pool.restart();
    pool.stop();
    drop(tiny);
}
