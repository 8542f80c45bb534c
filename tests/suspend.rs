//! Suspending what runs and letting it go on; and that everything that ends a task ends a suspended one too.
//!
//! Deliberately absent: how the clocks are reckoned, which `worker/src/execute/times.rs` tests.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::time::{Duration, Instant};

use acode::wire::TaskRef;
use acode::wire::request::{Continue, Stop, Suspend};
use acode::wire::types::StopMode;
use acode_worker::task::{Retries, TaskId, TaskSpec, TaskState, TreeGuard};
use command::Acode;
use common::{Options, Pool, is_alive, shell, signal, wait_until};
use more::{cancel, events_of, gated, open_gate, reaches, verdict};
use nix::sys::signal::Signal;

/// Two processes that count, one of them in a session of its own.
const COUNTERS: &str = r#"echo $$ >>"$2"; setsid sh -c 'echo $$ >>"$2"; while :; do echo y >>"$1"; sleep 0.01; done' sh "$1" "$2" &
while :; do echo x >>"$1"; sleep 0.01; done"#;

fn counting(pool: &Pool) -> TaskSpec {
    shell(COUNTERS, &[&pool.path("ticks"), &pool.path("pids")])
}

fn suspend(pool: &Pool, id: TaskId) -> bool {
    pool.call(&Suspend { ids: vec![TaskRef::Id(id)] }).suspended == [id]
}

fn resume(pool: &Pool, id: TaskId) -> bool {
    pool.call(&Continue { ids: vec![TaskRef::Id(id)] }).resumed == [id]
}

/// Waits until nobody counts any more: two looks some way apart see the same.
fn comes_to_rest(pool: &Pool) {
    wait_until("the counters stand still", || {
        let before = pool.lines("ticks").len();
        std::thread::sleep(Duration::from_millis(150));
        pool.lines("ticks").len() == before
    });
}

/// A task that counts, and is suspended.
fn suspended(pool: &Pool, spec: TaskSpec) -> TaskId {
    let id = pool.submit_spec(spec);
    reaches(pool, id, TaskState::Running);
    wait_until("both count", || pool.lines("ticks").len() > 4 && pool.lines("pids").len() == 2);
    assert!(suspend(pool, id));
    comes_to_rest(pool);
    id
}

fn assert_dead(pool: &Pool) {
    let pids: Vec<u32> = pool.lines("pids").iter().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
}

#[test]
fn without_a_cgroup_every_process_of_the_tree_is_stopped_by_itself() {
    if !common::can_hide_cgroups() {
        return eprintln!("not tested here: this user may not unshare the mount namespace, which root may");
    }
    let pool = Pool::start(Options::workers(1).without_cgroups());
    let id = suspended(&pool, counting(&pool));
    let before = pool.lines("ticks").len();
    assert!(resume(&pool, id));
    wait_until("both count on", || {
        let new = &pool.lines("ticks")[before..];
        ["x", "y"].iter().all(|who| new.iter().filter(|tick| tick == who).count() > 2)
    });
    assert!(suspend(&pool, id));
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Cancelled);
    let guards: Vec<_> = task.attempts.iter().flatten().map(|attempt| attempt.tree_guard).collect();
    assert_eq!(guards, [Some(TreeGuard::Subreaper)]);
    assert_dead(&pool);
    let next = pool.submit_spec(shell("true", &[]));
    assert_eq!(pool.wait(next).state, TaskState::Completed);
}

#[test]
fn a_suspended_task_stands_still_and_goes_on_where_it_was() {
    let pool = Pool::start(Options::workers(1));
    let id = suspended(&pool, counting(&pool));
    let task = pool.show(id);
    assert_eq!((task.state, task.suspended), (TaskState::Running, true));
    assert!(task.suspended_at.is_some());
    let acode = Acode::of(&pool);
    assert!(acode.ok(&["task", "why", &id.to_string()]).starts_with("suspended since "));
    assert!(!suspend(&pool, id), "it is suspended already");
    let before = pool.lines("ticks").len();
    assert!(resume(&pool, id) && !resume(&pool, id));
    wait_until("it counts on", || pool.lines("ticks").len() > before + 4);
    assert!(!pool.show(id).suspended);
    let told: Vec<String> = events_of(&pool.events(), id).into_iter().map(str::to_owned).collect();
    assert_eq!(told, ["task-submitted", "task-assigned", "task-started", "task-suspended", "task-resumed"]);
    assert!(cancel(&pool, id));
    pool.wait(id);
    assert_dead(&pool);
}

#[test]
fn the_timeout_stands_still_and_heartbeats_go_on_meanwhile() {
    let config = "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 400";
    let pool = Pool::start(Options::workers(1).config(config));
    let spec = TaskSpec { timeout_ms: Some(3_000), ..counting(&pool) };
    let id = suspended(&pool, spec);
    let began = Instant::now();
    // Longer than the timeout and than any silence is borne.
    wait_until("its timeout would have passed", || began.elapsed() > Duration::from_millis(3_500));
    let task = pool.show(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Running, 1), "{}", pool.log());
    assert!(resume(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task)), (TaskState::Timeout, "timed-out"));
    assert_dead(&pool);
}

#[test]
fn a_suspended_task_sees_sigterm_when_it_is_cancelled() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"trap 'echo bye >"$3"; exit 0' TERM; "#.to_owned() + COUNTERS;
    let arguments = [pool.path("ticks"), pool.path("pids"), pool.path("bye")];
    let spec = TaskSpec { grace_ms: Some(30_000), ..shell(&script, &[&arguments[0], &arguments[1], &arguments[2]]) };
    let id = suspended(&pool, spec);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, task.suspended), (TaskState::Cancelled, false));
    assert_eq!(pool.lines("bye"), ["bye"]);
    assert_dead(&pool);
    let next = pool.submit(&["true"]);
    assert_eq!(pool.wait(next).state, TaskState::Completed, "the next one is born into no ice");
}

#[test]
fn a_task_killed_while_suspended_leaves_the_worker_fit_for_the_next() {
    let pool = Pool::start(Options::workers(1));
    let id = suspended(&pool, counting(&pool));
    for pid in pool.lines("pids") {
        signal(pid.parse().unwrap(), Signal::SIGKILL);
    }
    assert_eq!(pool.wait(id).state, TaskState::Failed);
    let next = pool.submit(&["true"]);
    assert_eq!(pool.wait(next).state, TaskState::Completed);
}

#[test]
fn a_lost_worker_takes_its_suspended_task_with_it_and_the_next_attempt_runs() {
    let pool = Pool::start(Options::workers(1));
    let id = suspended(&pool, counting(&pool));
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    wait_until("it runs again", || pool.lines("pids").len() == 4);
    let before = pool.lines("ticks").len();
    wait_until("it counts", || pool.lines("ticks").len() > before + 4);
    let task = pool.show(id);
    assert_eq!((task.suspended, task.crash_count), (false, 1));
    let first: Vec<u32> = pool.lines("pids")[..2].iter().map(|pid| pid.parse().unwrap()).collect();
    assert!(first.iter().all(|pid| !is_alive(*pid)));
    assert!(cancel(&pool, id));
    pool.wait(id);
}

#[test]
fn a_stop_ends_a_suspended_task_and_puts_it_back() {
    for mode in [StopMode::Drain, StopMode::Force] {
        let mut pool = Pool::start(Options::workers(1));
        let id = suspended(&pool, counting(&pool));
        pool.stop_as(Stop { mode, timeout_ms: (mode == StopMode::Drain).then_some(100) });
        assert_dead(&pool);
        pool.restart();
        wait_until("it runs again", || pool.lines("pids").len() == 4);
        let task = pool.show(id);
        assert_eq!((task.suspended, task.crash_count), (false, 0));
        assert!(cancel(&pool, id));
        pool.wait(id);
    }
}

#[test]
fn a_retry_does_not_inherit_the_suspension() {
    let pool = Pool::start(Options::workers(1));
    let retry = Some(Retries { count: Some(1), delay_ms: Some(1), ..Retries::default() });
    let id = suspended(&pool, TaskSpec { retry, ..counting(&pool) });
    for pid in pool.lines("pids") {
        signal(pid.parse().unwrap(), Signal::SIGKILL);
    }
    wait_until("it runs again", || pool.lines("pids").len() == 4);
    let before = pool.lines("ticks").len();
    wait_until("it counts", || pool.lines("ticks").len() > before + 4);
    assert!(!pool.show(id).suspended);
    assert!(cancel(&pool, id));
    pool.wait(id);
}

#[test]
fn what_does_not_run_is_refused_by_its_id() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    let pending = pool.submit(&["true"]);
    let (running, pending) = (running.to_string(), pending.to_string());
    let said = acode.says(&["task", "suspend", &running, &pending]).expect(1);
    assert_eq!(said.out.trim(), running);
    assert!(said.err.contains(&pending) && !said.err.contains(&running), "{}", said.err);
    let said = acode.says(&["task", "resume", &running, &pending]).expect(1);
    assert_eq!(said.out.trim(), running);
    open_gate(&pool, "gate");
    acode.ok(&["task", "wait", "--all"]);
    acode.says(&["task", "suspend", &running]).expect(1);
}

#[test]
fn a_worker_that_dies_with_its_task_just_suspended_or_resumed_leaves_nothing() {
    for point in ["worker.after-suspend", "worker.after-resume"] {
        let pool = Pool::start(Options::workers(1).dies_once_at(point));
        let id = pool.submit_spec(counting(&pool));
        wait_until("both count", || pool.lines("ticks").len() > 4 && pool.lines("pids").len() == 2);
        assert!(suspend(&pool, id));
        // The worker may have died of the first already, and the task not be suspended any more.
        resume(&pool, id);
        wait_until("it runs again", || pool.lines("pids").len() == 4);
        assert!(pool.has_struck(point));
        let first: Vec<u32> = pool.lines("pids")[..2].iter().map(|pid| pid.parse().unwrap()).collect();
        assert!(first.iter().all(|pid| !is_alive(*pid)));
        assert!(cancel(&pool, id));
        pool.wait(id);
    }
}
