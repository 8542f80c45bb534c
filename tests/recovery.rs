//! Recovery: whatever is killed, no task is lost and none runs twice at once; what cannot go on ends with clear words.
//!
//! Each test makes one disaster and looks at what the store, the tasks' own marks and the process table say afterwards;
//! the harness looks for what is left. Deliberately absent: kills at chosen instructions (`failpoints.rs`) and at
//! random ones (`chaos.rs`).

mod common;

use std::process::Stdio;
use std::time::Duration;

use acode::wire::request::Stop;
use acode::wire::types::{StopMode, TaskRecord};
use acode_worker::task::{Retry, TaskSpec, TaskState};
use common::history::History;
use common::{Options, Pool, is_alive, scaled, shell, signal, wait_until};
use nix::sys::signal::Signal;

/// Writes its attempt's number to the file `$1` for ever, in a session of its own, and so does a child of it; from the
/// second attempt on it ends at once. So an attempt that lives on after its end was seen shows in the file.
const OBSTINATE: &str = r#"
    echo "$ACODE_TASK_ID $ACODE_ATTEMPT" >>"$1"
    [ "$ACODE_ATTEMPT" -gt 1 ] && exit 0
    trap '' TERM
    beat='while :; do echo "$ACODE_TASK_ID $ACODE_ATTEMPT" >>"$1"; sleep 0.005; done'
    setsid sh -c "$beat" sh "$1" &
    eval "$beat"
"#;

fn obstinate(pool: &Pool) -> TaskSpec {
    shell(OBSTINATE, &[&pool.path("marks")])
}

/// Waits until an obstinate task has left marks, its child included.
fn wait_for_marks(pool: &Pool) {
    wait_until("the task leaves marks", || pool.lines("marks").len() > 20);
}

fn verdicts(task: &TaskRecord) -> Vec<&str> {
    let attempts = task.attempts.as_ref().unwrap();
    attempts.iter().map(|attempt| attempt.verdict.as_deref().unwrap_or("none")).collect()
}

/// Asserts that what this pool ran never ran twice at once.
#[track_caller]
fn assert_no_overlap(pool: &Pool) {
    History::read(&pool.lines("marks")).assert_no_overlap();
}

#[test]
fn a_killed_worker_takes_its_tree_along_and_its_task_runs_again() {
    let pool = Pool::start(Options::workers(2));
    let task = pool.submit_spec(obstinate(&pool));
    wait_for_marks(&pool);
    let worker = pool.worker_of(task);
    signal(worker.pid, Signal::SIGKILL);
    let record = pool.wait(task);
    assert_eq!(record.state, TaskState::Completed);
    assert_eq!(verdicts(&record), ["worker-lost", "exited"]);
    assert_no_overlap(&pool);
    let now: Vec<u32> = pool.idle_workers().iter().map(|worker| worker.pid).collect();
    assert!(!now.contains(&worker.pid) && now.len() == 2, "{now:?}");
    let failed = pool.events().into_iter().find(|event| event.event == "worker-failed").unwrap();
    assert_eq!(failed.worker, Some(worker.id));
}

#[test]
fn a_killed_worker_is_replaced_and_its_task_requeued_at_once() {
    let pool = Pool::start(Options::workers(1));
    let task = pool
        .submit_spec(shell(r#"echo up >>"$1"; [ "$ACODE_ATTEMPT" = 1 ] && sleep 300; exit 0"#, &[&pool.path("marks")]));
    wait_until("the task runs", || !pool.lines("marks").is_empty());
    let began = std::time::Instant::now();
    signal(pool.worker_of(task).pid, Signal::SIGKILL);
    assert_eq!(verdicts(&pool.wait(task)), ["worker-lost", "exited"]);
    // Seen by its pidfd and not by a missing heartbeat, which takes ten seconds.
    assert!(began.elapsed() < scaled(Duration::from_secs(8)), "{:?}", began.elapsed());
}

#[test]
fn a_stopped_worker_is_killed_before_its_task_is_given_to_another() {
    let pool =
        Pool::start(Options::workers(2).config("workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 1000"));
    let task = pool.submit_spec(obstinate(&pool));
    wait_for_marks(&pool);
    let worker = pool.worker_of(task);
    signal(worker.pid, Signal::SIGSTOP);
    let record = pool.wait(task);
    assert_eq!((record.state, verdicts(&record)), (TaskState::Completed, vec!["worker-lost", "exited"]));
    assert!(!is_alive(worker.pid));
    assert_no_overlap(&pool);
    let unhealthy = pool.events().into_iter().find(|event| event.event == "worker-unhealthy").unwrap();
    assert_eq!(unhealthy.worker, Some(worker.id));
}

#[test]
fn a_stopped_idle_worker_is_replaced() {
    let pool =
        Pool::start(Options::workers(2).config("workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 1000"));
    let stopped = pool.idle_workers()[0].pid;
    signal(stopped, Signal::SIGSTOP);
    wait_until("the stopped worker is gone", || !is_alive(stopped));
    assert!(pool.idle_workers().iter().all(|worker| worker.pid != stopped));
    assert_eq!(pool.wait(pool.submit(&["true"])).exit_code, Some(0));
}

#[test]
fn a_task_that_kills_its_workers_is_quarantined_and_the_pool_lives_on() {
    let pool = Pool::start(Options::workers(2).signals_go_anywhere().config("workers:\n  maxWorkerLosses: 2"));
    let spec = TaskSpec { retry: Some(Retry { count: 5, ..Retry::default() }.into()), ..shell("kill -9 $PPID", &[]) };
    let poison = pool.wait(pool.submit_spec(spec));
    assert_eq!((poison.state, poison.verdict.as_deref()), (TaskState::Failed, Some("worker-lost")));
    assert_eq!(verdicts(&poison), ["worker-lost", "worker-lost"]);
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
    assert_eq!(pool.idle_workers().len(), 2);
}

#[test]
fn a_task_that_kills_the_supervisor_is_put_back() {
    let mut pool = Pool::start(Options::workers(2).signals_go_anywhere());
    let script = r#"echo "$ACODE_TASK_ID $$" >>"$1"; [ "$ACODE_ATTEMPT" = 1 ] && kill -9 "$2"; exit 0"#;
    let task = pool.submit_spec(shell(script, &[&pool.path("marks"), &pool.pid().to_string()]));
    pool.wait_exit();
    pool.restart();
    assert_eq!(pool.wait(task).state, TaskState::Completed);
    assert_no_overlap(&pool);
}

#[test]
fn a_killed_supervisor_loses_no_task_and_doubles_none() {
    let mut pool = Pool::start(Options::workers(4));
    let script = r#"echo "$ACODE_TASK_ID $$" >>"$1"; sleep 0.002; echo "$ACODE_TASK_ID $$" >>"$1""#;
    let entry = acode_worker::task::Submission { spec: shell(script, &[&pool.path("marks")]), ..Default::default() };
    let ids = pool.submit_all(vec![entry; 500]);
    for lines in [100, 400] {
        wait_until("some tasks have run", || pool.lines("marks").len() > lines);
        let old = pool.processes();
        pool.kill9();
        pool.restart();
        let living: Vec<&u32> = old.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(living.is_empty(), "processes of the killed pool run on: {living:?}\n{}", pool.log());
    }
    assert_eq!(pool.wait_all().unsuccessful, []);
    let history = History::read(&pool.lines("marks"));
    history.assert_no_overlap();
    history.assert_ran(&ids);
    common::history::assert_completed_once(&pool, &ids);
}

#[test]
fn orphans_of_a_pool_killed_all_at_once_are_killed_before_their_task_runs_again() {
    let mut pool = Pool::start(Options::workers(2));
    let task = pool.submit_spec(obstinate(&pool));
    wait_for_marks(&pool);
    let mut family = vec![pool.pid(), pool.nursery()];
    family.extend(pool.workers().iter().map(|worker| worker.pid));
    let all = pool.processes();
    // Stopped first, so that none of them sees another one's end.
    family.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    family.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    pool.wait_exit();
    wait_until("the whole pool is dead", || family.iter().all(|pid| !is_alive(*pid)));
    let orphans: Vec<u32> = all.into_iter().filter(|pid| is_alive(*pid)).collect();
    assert!(!orphans.is_empty(), "the task has left no orphan: this test shows nothing");
    let trace = pool.state_dir().join("rooms/0/scratch/trace");
    std::fs::create_dir_all(trace.parent().unwrap()).unwrap();
    std::fs::write(&trace, "").unwrap();
    pool.restart();
    assert!(!trace.exists(), "the room of a dead pool is still there");
    assert!(orphans.iter().all(|pid| !is_alive(*pid)), "orphans run on: {orphans:?}\n{}", pool.log());
    assert_eq!(pool.wait(task).state, TaskState::Completed);
    assert_no_overlap(&pool);
}

#[test]
fn workers_that_are_stopped_when_their_supervisor_dies_are_killed_by_the_next_one() {
    let mut pool = Pool::start(Options::workers(2).config("workers:\n  killGraceMs: 100"));
    let task = pool.submit_spec(obstinate(&pool));
    wait_for_marks(&pool);
    let workers: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    workers.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    pool.kill9();
    assert!(workers.iter().all(|pid| is_alive(*pid)));
    pool.restart();
    assert!(workers.iter().all(|pid| !is_alive(*pid)));
    assert!(pool.log().contains("killing a worker that was left over"), "{}", pool.log());
    assert_eq!(pool.wait(task).state, TaskState::Completed);
    assert_no_overlap(&pool);
}

#[test]
fn a_second_supervisor_on_the_same_directory_ends_at_once_and_names_the_first() {
    let pool = Pool::start(Options::workers(1));
    let began = std::time::Instant::now();
    let second = pool.command().stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(6), "{words}");
    assert!(words.contains(&format!("held by process {}", pool.pid())), "{words}");
    assert!(began.elapsed() < scaled(Duration::from_secs(5)));
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
}

#[test]
fn a_pool_whose_workers_die_at_boot_gives_up_with_a_clear_error() {
    let mut pool = Pool::prepare(Options::workers(3).var("ACODE_FAILPOINTS", "worker.boot"));
    pool.launch();
    assert_eq!(pool.wait_exit().code(), Some(1));
    let log = pool.log();
    assert!(log.contains("acode: workers do not start: killed by SIGKILL"), "{log}");
    assert!(log.matches("worker died").count() <= 10, "{log}");
    assert_eq!(pool.leftovers(), [""; 0]);
    pool.remove_var("ACODE_FAILPOINTS");
}

#[test]
fn a_pool_without_its_nursery_finishes_what_runs_and_ends_with_an_error() {
    let mut pool = Pool::start(Options::workers(1));
    let script = r#"echo up >>"$1"; while ! [ -e "$2" ]; do sleep 0.01; done"#;
    let running = pool.submit_spec(shell(script, &[&pool.path("marks"), &pool.path("go")]));
    let queued = pool.submit(&["true"]);
    wait_until("the task runs", || !pool.lines("marks").is_empty());
    signal(pool.nursery(), Signal::SIGKILL);
    wait_until("the pool drains", || pool.log().contains("the nursery died"));
    std::fs::write(pool.file("go"), "").unwrap();
    assert_eq!(pool.wait_exit().code(), Some(1));
    assert!(pool.log().contains("the nursery process was killed"), "{}", pool.log());
    assert_eq!(pool.leftovers(), [""; 0]);
    pool.restart();
    assert_eq!(verdicts(&pool.wait(running)), ["exited"]);
    assert_eq!(pool.wait(queued).state, TaskState::Completed);
}

#[test]
fn a_stop_that_runs_out_of_patience_puts_tasks_back_and_counts_no_failure() {
    let mut pool = Pool::start(Options::workers(2).config("workers:\n  killGraceMs: 100"));
    let task = pool.submit_spec(obstinate(&pool));
    wait_for_marks(&pool);
    let status = pool.stop_as(Stop { mode: StopMode::Drain, timeout_ms: Some(200) });
    assert_eq!(status.code(), Some(0), "{}", pool.log());
    assert_eq!(pool.leftovers(), [""; 0]);
    pool.restart();
    // It has no retries, so it would have ended as failed if the first attempt counted.
    let record = pool.wait(task);
    assert_eq!((record.state, verdicts(&record)), (TaskState::Completed, vec!["cancelled", "exited"]));
    assert_no_overlap(&pool);
}

#[test]
fn a_stop_by_force_kills_at_once_and_puts_tasks_back() {
    let mut pool = Pool::start(Options::workers(2));
    let task = pool.submit_spec(obstinate(&pool));
    wait_for_marks(&pool);
    let began = std::time::Instant::now();
    assert_eq!(pool.stop().code(), Some(0));
    assert!(began.elapsed() < scaled(Duration::from_secs(5)), "a forced stop took {:?}", began.elapsed());
    assert_eq!(pool.leftovers(), [""; 0]);
    pool.restart();
    let record = pool.wait(task);
    assert_eq!((record.state, verdicts(&record)), (TaskState::Completed, vec!["worker-lost", "exited"]));
    assert_no_overlap(&pool);
}

#[test]
fn descriptors_do_not_grow_with_tasks_clients_or_dead_workers() {
    let pool = Pool::start(Options::workers(2));
    let open = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count());
    let work = |rounds: u32| {
        for _ in 0..rounds {
            let entry = acode_worker::task::Submission { spec: shell("echo out", &[]), ..Default::default() };
            pool.submit_all(vec![entry; 10]);
            pool.wait_all();
            let killed = pool.idle_workers()[0].pid;
            signal(killed, Signal::SIGKILL);
            wait_until("it is replaced", || pool.idle_workers().iter().all(|worker| worker.pid != killed));
        }
        (pool.pid(), pool.nursery())
    };
    let (supervisor, nursery) = work(2);
    // The connection of the last call may not be closed yet on the other side.
    let mut before = 0;
    wait_until("the last connection is closed", || {
        let was = std::mem::replace(&mut before, open(supervisor));
        was == before
    });
    let nursery_before = open(nursery);
    work(12);
    wait_until("the supervisor has as few descriptors as before", || open(supervisor) <= before);
    assert_eq!(open(nursery), nursery_before);
}

#[test]
fn tasks_finish_during_a_patient_stop() {
    let mut pool = Pool::start(Options::workers(2));
    let task = pool.submit_spec(shell(r#"echo up >>"$1"; sleep 0.3"#, &[&pool.path("marks")]));
    wait_until("the task runs", || !pool.lines("marks").is_empty());
    pool.stop_as(Stop { mode: StopMode::Drain, timeout_ms: None });
    pool.restart();
    let record = pool.wait(task);
    assert_eq!((record.state, verdicts(&record)), (TaskState::Completed, vec!["exited"]));
}

#[test]
fn a_queue_of_a_newer_version_is_refused_and_left_as_it_is() {
    let mut pool = Pool::start(Options::workers(1));
    pool.wait(pool.submit(&["true"]));
    pool.stop();
    let queue = pool.state_dir().join("queue.db");
    let version = |set: Option<u32>| -> u32 {
        let db = rusqlite::Connection::open(&queue).unwrap();
        set.into_iter().for_each(|number| db.pragma_update(None, "user_version", number).unwrap());
        db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    let known = version(None);
    version(Some(99));
    pool.launch();
    assert_eq!(pool.wait_exit().code(), Some(1));
    let log = pool.log();
    assert!(log.contains("schema version 99, written by a newer acode"), "{log}");
    assert_eq!(version(None), 99);
    assert_eq!(pool.leftovers(), [""; 0]);
    version(Some(known));
}
