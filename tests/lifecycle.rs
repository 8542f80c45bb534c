//! The life of a pool and of its workers: start, register, work, drain, stop, and the way of a task through it.
//!
//! Deliberately absent: deaths (`recovery.rs`), scaling (`scaling.rs`), signals (`signals.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use acode::wire::request::{Scale, Stop, Submit};
use acode::wire::types::{PoolState, StopMode, Waiting, WorkerStatus};
use acode::wire::{CallError, ClientError};
use acode_worker::task::{TaskState, TreeGuard};
use common::{Options, Pool, eventually, is_alive, scaled, shell, signal, wait_until};
use more::{command, entry, events_of, gated, only_attempt, open_gate, reaches, verdict};
use nix::sys::signal::Signal;

fn stop(mode: StopMode) -> Stop {
    Stop { mode, timeout_ms: None }
}

#[test]
fn start_launches_the_configured_workers() {
    let pool = Pool::start(Options::workers(3));
    let workers = pool.idle_workers();
    assert_eq!(workers.len(), 3);
    let pids: BTreeSet<u32> = workers.iter().map(|worker| worker.pid).collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert_eq!(pool.processes().len(), 5, "supervisor, nursery and three workers");
}

#[test]
fn stop_ends_every_process_of_the_pool() {
    let mut pool = Pool::start(Options::workers(3));
    pool.idle_workers();
    let all = pool.processes();
    assert!(pool.stop_as(stop(StopMode::Drain)).success());
    assert!(all.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(pool.leftovers(), Vec::<String>::new());
}

#[test]
fn a_graceful_stop_lets_running_tasks_finish() {
    let mut pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    let queued = pool.submit(&["true"]);
    reaches(&pool, running, TaskState::Running);
    pool.call(&stop(StopMode::Drain));
    assert_eq!(pool.status().pool.state, PoolState::Draining);
    assert!(!pool.status().queue.accepting);
    let refused = pool.try_call(&Submit::new(vec![entry(command(&["true"]))]));
    assert!(matches!(refused, Err(ClientError::Call(CallError::Draining))), "{refused:?}");
    assert_eq!(pool.show(queued).waiting, Some(Waiting::Draining));
    open_gate(&pool, "gate");
    assert!(pool.wait_exit().success());
    pool.restart();
    assert_eq!(pool.show(running).attempt_count, 1, "it was not run again");
    assert_eq!(pool.wait(running).state, TaskState::Completed);
    assert_eq!(pool.wait(queued).state, TaskState::Completed, "what was queued is run by the next pool");
}

#[test]
fn a_forced_stop_kills_at_once_and_requeues() {
    let mut pool = Pool::start(Options::workers(1));
    let file = pool.path("runs");
    let task = shell(r#"trap "" TERM; echo $$ >>"$1"; [ $ACODE_ATTEMPT != 1 ] || exec sleep 1000"#, &[&file]);
    let id = pool.submit_spec(task);
    wait_until("the task runs", || pool.lines("runs").len() == 1);
    let began = Instant::now();
    assert!(pool.stop().success());
    assert!(began.elapsed() < scaled(Duration::from_secs(5)), "force waits for no grace: {:?}", began.elapsed());
    assert!(!is_alive(pool.lines("runs")[0].parse().unwrap()));
    pool.restart();
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2));
    assert!(events_of(&pool.events(), id).contains(&"task-requeued"));
}

#[test]
fn tasks_beyond_the_drain_timeout_are_requeued() {
    let options = Options::workers(1).config("workers:\n  drainTimeoutSeconds: 1\n  killGraceMs: 100");
    let mut pool = Pool::start(options);
    let id = pool.submit_spec(shell("[ $ACODE_ATTEMPT != 1 ] || exec sleep 1000", &[]));
    reaches(&pool, id, TaskState::Running);
    assert!(pool.stop_as(stop(StopMode::Drain)).success());
    pool.restart();
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2));
    let attempts = task.attempts.unwrap();
    assert_eq!(attempts[0].verdict.as_deref(), Some("cancelled"), "taken back, and no failure of the task's");
}

#[test]
fn a_stop_may_bring_its_own_patience() {
    let mut pool = Pool::start(Options::workers(1).config("workers:\n  killGraceMs: 100"));
    let id = pool.submit(&["sleep", "1000"]);
    reaches(&pool, id, TaskState::Running);
    let began = Instant::now();
    assert!(pool.stop_as(Stop { mode: StopMode::Drain, timeout_ms: Some(100) }).success());
    assert!(began.elapsed() < scaled(Duration::from_secs(20)), "the configured patience is a minute");
}

#[test]
fn stop_when_empty_finishes_the_queue() {
    let mut pool = Pool::start(Options::workers(1));
    let tasks: Vec<_> = (0..20).map(|_| entry(shell(r#"echo x >>"$1""#, &[&pool.path("out")]))).collect();
    pool.submit_all(tasks);
    assert!(pool.stop_as(stop(StopMode::WhenEmpty)).success());
    assert_eq!(pool.lines("out").len(), 20);
}

#[test]
fn an_idle_pool_stops_in_under_ten_seconds() {
    for mode in [StopMode::Drain, StopMode::Force, StopMode::WhenEmpty] {
        let mut pool = Pool::start(Options::workers(4));
        pool.idle_workers();
        let began = Instant::now();
        assert!(pool.stop_as(stop(mode)).success());
        assert!(began.elapsed() < scaled(Duration::from_secs(5)), "{mode:?} took {:?}", began.elapsed());
    }
}

#[test]
fn worker_ids_are_unique_ulids() {
    let pool = Pool::start(Options::workers(8));
    let workers = pool.idle_workers();
    let ids: BTreeSet<String> = workers.iter().map(|worker| worker.id.to_string()).collect();
    assert_eq!(ids.len(), 8);
    for worker in &workers {
        let text = worker.id.to_string();
        let ulid = ulid::Ulid::from_string(&text).expect("a ULID");
        assert_eq!(text.len(), 26);
        let born_ms = worker.started_at.micros() / 1_000;
        assert_eq!(ulid.timestamp_ms() as i64, born_ms, "it carries the time of birth");
    }
}

#[test]
fn workers_register_on_start_and_deregister_on_stop() {
    let mut pool = Pool::start(Options::workers(2));
    let workers: BTreeSet<_> = pool.idle_workers().into_iter().map(|worker| worker.id).collect();
    assert!(pool.stop_as(stop(StopMode::Drain)).success());
    pool.restart();
    let events = pool.events();
    for id in &workers {
        let of_it: Vec<_> = events.iter().filter(|event| event.worker == Some(*id)).collect();
        let names: Vec<_> = of_it.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(names, ["worker-created", "worker-started", "worker-exited", "worker-stopped"]);
    }
    assert!(pool.workers().iter().all(|worker| !workers.contains(&worker.id)), "the dead are listed no more");
}

#[test]
fn status_counts_active_workers() {
    let pool = Pool::start(Options::workers(3));
    pool.idle_workers();
    let id = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, id, TaskState::Running);
    let counts = pool.status().workers;
    assert_eq!((counts.active, counts.busy, counts.idle, counts.target), (3, 1, 2, 3));
    assert_eq!((counts.starting, counts.unhealthy, counts.stopping), (0, 0, 0));
    let tasks = pool.status().tasks;
    assert_eq!((tasks.pending, tasks.running), (0, 1));
    open_gate(&pool, "gate");
}

#[test]
fn a_worker_is_idle_then_busy_then_idle() {
    let pool = Pool::start(Options::workers(1));
    let worker = pool.idle_workers().remove(0);
    let id = pool.submit_spec(gated(&pool, "gate"));
    let busy = pool.worker_of(id);
    assert_eq!((busy.id, busy.status, busy.healthy), (worker.id, WorkerStatus::Busy, true));
    open_gate(&pool, "gate");
    pool.wait(id);
    let idle = pool.idle_workers().remove(0);
    assert_eq!((idle.id, idle.current_task, idle.tasks_completed), (worker.id, None, 1));
}

#[test]
fn every_worker_status_is_seen() {
    if !cfg!(debug_assertions) {
        return eprintln!("not run: a release build has no failpoints, so no worker can be held while it starts");
    }
    let options = Options::workers(1).dies_once_at("worker.boot=stop");
    let pool = Pool::start(options);
    wait_until("the worker is stopped in its birth", || pool.has_struck("worker.boot"));
    let worker = pool.workers().remove(0);
    assert_eq!((worker.status, worker.last_heartbeat_at), (WorkerStatus::Starting, None));
    signal(worker.pid, Signal::SIGCONT);
    wait_until("it is idle", || pool.workers()[0].status == WorkerStatus::Idle);
    let id = pool.submit_spec(gated(&pool, "gate"));
    assert_eq!(pool.worker_of(id).status, WorkerStatus::Busy);
    pool.call(&Scale { count: 2 });
    pool.idle_workers_are(1);
    let second = pool.submit_spec(gated(&pool, "gate"));
    pool.worker_of(second);
    pool.call(&Scale { count: 1 });
    wait_until("one is stopping", || pool.workers().iter().any(|w| w.status == WorkerStatus::Stopping));
    assert_eq!(pool.status().workers.stopping, 1);
    open_gate(&pool, "gate");
    wait_until("it has stopped", || pool.workers().len() == 1);
}

/// Looks at a pool whose size is not the one that it was started with.
trait Sized {
    fn idle_workers_are(&self, count: usize);
}

impl Sized for Pool {
    #[track_caller]
    fn idle_workers_are(&self, count: usize) {
        wait_until("workers are idle", || {
            self.workers().iter().filter(|worker| worker.status == WorkerStatus::Idle).count() == count
        });
    }
}

#[test]
fn start_and_end_are_reported() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(gated(&pool, "gate"));
    let running = reaches(&pool, id, TaskState::Running);
    assert!(running.started_at.is_some() && running.finished_at.is_none());
    assert_eq!(running.attempt_count, 1);
    open_gate(&pool, "gate");
    let ended = pool.wait(id);
    assert!(ended.finished_at > ended.started_at);
    assert_eq!(events_of(&pool.events(), id), ["task-submitted", "task-assigned", "task-started", "task-completed"]);
}

#[test]
fn the_heartbeat_goes_on_while_a_task_runs() {
    let pool = Pool::start(Options::workers(1).config("workers:\n  heartbeatIntervalMs: 20"));
    let id = pool.submit_spec(gated(&pool, "gate"));
    let mut last = pool.worker_of(id).last_heartbeat_at;
    for _ in 0..3 {
        wait_until("the heart beats again", || pool.worker_of(id).last_heartbeat_at > last);
        last = pool.worker_of(id).last_heartbeat_at;
    }
    open_gate(&pool, "gate");
}

#[test]
fn the_heartbeat_names_the_task() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(gated(&pool, "gate"));
    assert_eq!(pool.worker_of(id).current_task, Some(id));
    open_gate(&pool, "gate");
    pool.wait(id);
    assert_eq!(pool.idle_workers()[0].current_task, None);
}

#[test]
fn one_worker_runs_many_tasks() {
    let pool = Pool::start(Options::workers(1));
    pool.submit_all((0..50).map(|n| entry(command(&["sh", "-c", &format!("exit {}", n % 2)]))).collect());
    pool.wait_all();
    let worker = pool.idle_workers().remove(0);
    assert_eq!((worker.tasks_completed, worker.tasks_failed), (25, 25));
}

#[test]
fn a_task_goes_all_the_way_from_submit_to_completed() {
    let pool = Pool::start(Options::workers(1));
    let mut spec = shell("echo out; echo err >&2; echo '{\"n\":1}' >$ACODE_RESULT", &[]);
    spec.name = Some("whole way".to_owned());
    let id = pool.submit_spec(spec);
    let task = pool.wait(id);
    assert_eq!((task.id, task.state, task.exit_code), (id, TaskState::Completed, Some(0)));
    assert_eq!((task.name.as_str(), verdict(&task)), ("whole way", "exited"));
    assert_eq!(task.result.as_ref().unwrap().get(), r#"{"n":1}"#);
    let attempt = only_attempt(&task);
    assert_eq!((attempt.number, attempt.leaked), (1, false));
    assert!(attempt.usage.unwrap().wall_us > 0 && attempt.usage.unwrap().max_rss_bytes > 0);
    assert_eq!((task.output.stdout_bytes, task.output.stderr_bytes), (4, 4));
    assert!(task.submitted_at <= task.started_at.unwrap() && task.started_at <= task.finished_at);
    let written = more::written(&pool, id);
    assert_eq!((written.out().as_str(), written.err().as_str()), ("out\n", "err\n"));
}

#[test]
fn tasks_run_in_parallel() {
    let pool = Pool::start(Options::workers(4));
    // Each of the four ends only when all four are there.
    let script = r#": >"$1/$ACODE_WORKER_SLOT"; while [ $(ls "$1" | wc -l) -lt 4 ]; do sleep 0.02; done"#;
    std::fs::create_dir(pool.file("met")).unwrap();
    let ids = pool.submit_all((0..4).map(|_| entry(shell(script, &[&pool.path("met")]))).collect());
    let ended = pool.wait_all();
    assert_eq!(ended.unsuccessful, []);
    let workers: BTreeSet<_> = ids.iter().map(|id| only_attempt(&pool.show(*id)).worker).collect();
    assert_eq!(workers.len(), 4);
}

#[test]
fn tasks_wait_while_all_workers_are_busy() {
    let pool = Pool::start(Options::workers(2));
    let ids = pool.submit_all((0..5).map(|_| entry(gated(&pool, "gate"))).collect());
    wait_until("two run", || pool.status().tasks.running == 2);
    let tasks = pool.status().tasks;
    assert_eq!((tasks.running, tasks.assigned, tasks.pending), (2, 0, 3));
    assert!(matches!(pool.show(ids[4]).waiting, Some(Waiting::Queued { .. })));
    open_gate(&pool, "gate");
    assert!(eventually(common::PATIENCE, || pool.status().tasks.completed == 5));
}

#[test]
fn a_claimed_task_is_assigned_until_its_process_runs() {
    if !cfg!(debug_assertions) {
        return eprintln!("not run: a release build has no failpoints, so no claim can be held before its spawn");
    }
    let pool = Pool::start(Options::workers(1).dies_once_at("worker.before-spawn=stop"));
    let id = pool.submit(&["true"]);
    wait_until("the worker is stopped behind its claim", || pool.has_struck("worker.before-spawn"));
    let task = reaches(&pool, id, TaskState::Assigned);
    assert!(task.started_at.is_none() && task.waiting.is_none());
    assert_eq!(pool.status().tasks.assigned, 1);
    signal(pool.worker_of(id).pid, Signal::SIGCONT);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
}

/// Executes what follows under a filter by which the kernel does not know `clone3`, as the filters of containers have it.
const WITHOUT_CLONE3: &str = r#"
import ctypes, os, struct, sys
LOAD, JUMP_IF_EQUAL, RETURN, CLONE3, REFUSE, ALLOW = 0x20, 0x15, 0x06, 435, 0x50000 | 38, 0x7FFF0000
steps = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.prctl(SECCOMP, FILTER, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn where_a_container_refuses_clone3_the_old_calls_do() {
    let pool = Pool::start(Options::workers(2).through(&["python3", "-c", WITHOUT_CLONE3]));
    let ids: Vec<_> = (0..10).map(|_| pool.submit(&["sh", "-c", "sleep 0.01; exit 7"])).collect();
    for id in ids {
        let task = pool.wait(id);
        assert_eq!(task.exit_code, Some(7), "{task:?}");
        // A leaf, if there can be one, is entered by the child itself.
        let guard = task.attempts.unwrap()[0].tree_guard;
        assert_eq!(guard == Some(TreeGuard::Cgroup), common::has_cgroup(&pool), "{guard:?}");
    }
    signal(pool.workers()[0].pid, Signal::SIGKILL);
    assert_eq!(pool.wait(pool.submit(&["true"])).exit_code, Some(0));
}
