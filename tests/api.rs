//! The library's pools, as a program with threads uses them.
//!
//! The test harness has a `main` of its own, so the pools are those of `examples/pool_actions.rs`; that a program can be its
//! own pool, `tests/examples.rs` proves. Deliberately absent: what the actions do.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use acode::api::{
    ActionError, ApiError, CancelToken, Context, EventKind, Isolation, Limits, Priority, Task, TaskFailure, TaskId,
    TaskState, WorkAction, WorkerMode, WorkerPool, WorkerPoolOptions, WorkerStatus,
};
use common::{PATIENCE, actions, wait_until};
use serde_json::{Value, json};

/// An action of the other program: here it is a name and its types.
macro_rules! remote {
    ($type:ident, $name:literal, $output:ty) => {
        struct $type;
        impl WorkAction for $type {
            const NAME: &'static str = $name;
            type Params = Value;
            type Output = $output;
            fn execute(_: Value, _: &mut Context<'_>) -> Result<$output, ActionError> {
                Err(ActionError::new("not here"))
            }
        }
    };
}

remote!(Echo, "echo", Value);
remote!(Numbers, "echo", Vec<u32>);
remote!(Sleep, "sleep", Value);
remote!(Fail, "fail", Value);
remote!(Panic, "panic", Value);

fn options(workers: u32) -> WorkerPoolOptions {
    WorkerPoolOptions::default().program(actions::program()).worker_count(workers).set("workers.killGraceMs", 200)
}

fn start(workers: u32) -> WorkerPool {
    WorkerPool::start(options(workers)).unwrap()
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn sleep(seconds: u32) -> Task {
    Task::command(["sleep".to_owned(), seconds.to_string()])
}

/// The pool's processes and its directory are gone.
#[track_caller]
fn assert_gone(pids: &[u32], folder: &Path) {
    wait_until("its processes have ended", || !pids.iter().any(|pid| is_alive(*pid)));
    assert!(!folder.exists(), "{} is left", folder.display());
}

fn pids(pool: &WorkerPool) -> Vec<u32> {
    pool.pid().into_iter().chain(pool.workers().unwrap().into_iter().map(|worker| worker.pid)).collect()
}

#[test]
fn a_pool_starts_runs_a_task_and_stops_in_peace_leaving_nothing() {
    let pool = start(2);
    let (all, folder) = (pids(&pool), pool.state_directory().to_owned());
    assert_eq!(all.len(), 3);
    let handle = pool.submit(Task::command(["sh", "-c", "echo '{\"n\":7}' > $ACODE_RESULT"]).name("seven")).unwrap();
    let outcome = handle.join().unwrap();
    assert_eq!((outcome.name.as_str(), outcome.result["n"].as_u64(), outcome.attempts), ("seven", Some(7), 1));
    let running = pool.submit(sleep(1)).unwrap();
    wait_until("it runs", || running.record().unwrap().state == TaskState::Running);
    pool.stop(false).unwrap();
    // A graceful stop has let it finish, and what has ended can be learnt after the stop.
    assert!(running.wait().unwrap().is_success());
    assert!(pool.status().unwrap_err().is_pool_gone());
    drop(pool);
    assert_gone(&all, &folder);
}

#[test]
fn a_forced_stop_kills_and_a_durable_queue_runs_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("queue");
    let pool = WorkerPool::start(options(1).durable(&state)).unwrap();
    let task = Task::command(["sh", "-c", "test $ACODE_ATTEMPT -gt 1 || sleep 1000"]);
    let handle = pool.submit(task).unwrap();
    wait_until("it runs", || handle.record().unwrap().state == TaskState::Running);
    let began = Instant::now();
    pool.stop(true).unwrap();
    assert!(began.elapsed() < Duration::from_secs(30));
    let error = handle.wait().unwrap_err();
    assert!(error.is_pool_gone(), "{error}");
    drop(pool);
    let again = WorkerPool::start(options(1).durable(&state)).unwrap();
    assert!(again.handle(handle.id()).wait().unwrap().is_success());
    again.stop(false).unwrap();
    assert!(state.join("queue.db").exists());
}

#[test]
fn dropping_the_last_handle_ends_a_private_pool() {
    let pool = start(1);
    let (all, folder) = (pids(&pool), pool.state_directory().to_owned());
    let handle = pool.submit(sleep(1000)).unwrap();
    wait_until("it runs", || handle.record().unwrap().state == TaskState::Running);
    let clone = pool.clone();
    drop(pool);
    assert!(clone.status().is_ok());
    drop(clone);
    assert_gone(&all, &folder);
    assert!(matches!(handle.wait(), Err(ApiError::NotRunning)));
}

#[test]
fn the_pool_is_scaled_and_tells_of_its_workers_and_itself() {
    let pool = start(1);
    assert_eq!(pool.scale(3).unwrap(), 1);
    wait_until("three workers are idle", || pool.status().unwrap().idle_count == 3);
    let handle = pool.submit(sleep(1000)).unwrap();
    let busy = || pool.workers().unwrap().into_iter().find(|worker| worker.status == WorkerStatus::Busy);
    wait_until("one is busy with it", || busy().is_some_and(|worker| worker.current_task == Some(handle.id())));
    let worker = busy().unwrap();
    assert!(worker.started_at.micros() > 0 && worker.last_heartbeat_at.is_some() && worker.healthy);
    let waiting = pool.submit(sleep(0).hold()).unwrap();
    let status = pool.status().unwrap();
    assert_eq!((status.active_count, status.busy_count, status.pending_tasks), (3, 1, 1));
    assert!(status.resources.memory_bytes > 0);
    assert!(pool.perform_health_checks().unwrap().iter().all(|check| check.healthy));
    let cancelled = pool.cancel(&[handle.id(), waiting.id()]).unwrap();
    assert_eq!(cancelled.len(), 2);
    assert_eq!(handle.wait().unwrap().state, TaskState::Cancelled);
    assert!(!handle.cancel().unwrap(), "what has ended cannot be cancelled");
    wait_until("the metrics count it", || pool.metrics().unwrap().cancelled == 2);
    let metrics = pool.metrics().unwrap();
    assert_eq!((metrics.total_workers, metrics.unhealthy_workers, metrics.running_tasks), (3, 0, 0));
    assert_eq!(pool.scale(1).unwrap(), 3);
    wait_until("two have left", || pool.status().unwrap().active_count == 1);
    assert!(matches!(pool.scale(0), Err(ApiError::Client(_))));
    pool.stop(false).unwrap();
}

#[test]
fn every_end_of_a_task_is_called_back_once_however_fast_it_comes() {
    let pool = start(2);
    let (told, heard) = mpsc::channel();
    let mut ids = Vec::new();
    for n in 0..200 {
        let told = told.clone();
        let task = Task::custom("echo", json!(n)).isolation(Isolation::None);
        let handle = pool.submit_with(task, move |outcome| told.send(outcome.unwrap()).unwrap()).unwrap();
        ids.push(handle.id());
    }
    let mut ended: Vec<(TaskId, Value)> = Vec::new();
    for _ in 0..200 {
        let outcome = heard.recv_timeout(PATIENCE).unwrap();
        ended.push((outcome.id, outcome.result));
    }
    ended.sort_by_key(|(id, _)| *id);
    let expected: Vec<(TaskId, Value)> = ids.into_iter().zip((0..200).map(|n| json!(n))).collect();
    assert_eq!(ended, expected);
    pool.stop(false).unwrap();
    drop(told);
    assert!(heard.recv().is_err(), "nobody is called twice");
}

#[test]
fn callbacks_that_panic_or_submit_do_no_harm_and_a_stop_calls_all_of_them() {
    let pool = start(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    pool.submit_with(Task::command(["true"]), |_| panic!("in a callback, as the test wants it")).unwrap();
    let (inner, noted) = (pool.clone(), Arc::clone(&order));
    pool.submit_with(Task::command(["true"]), move |outcome| {
        noted.lock().unwrap().push(outcome.unwrap().state);
        inner.submit(Task::command(["false"]).name("from a callback")).unwrap();
    })
    .unwrap();
    wait_until("the callback has submitted", || {
        pool.task("name:from a callback".parse::<acode::api::TaskRef>().unwrap()).is_ok()
    });
    let noted = Arc::clone(&order);
    let running =
        pool.submit_with(sleep(1), move |outcome| noted.lock().unwrap().push(outcome.unwrap().state)).unwrap();
    wait_until("it runs", || running.record().unwrap().state == TaskState::Running);
    let lost = Arc::clone(&order);
    pool.submit_with(sleep(1), move |outcome| {
        assert!(outcome.unwrap_err().is_pool_gone());
        lost.lock().unwrap().push(TaskState::Pending);
    })
    .unwrap();
    pool.stop(false).unwrap();
    let order = order.lock().unwrap();
    assert_eq!(order.first(), Some(&TaskState::Completed));
    assert_eq!(order.iter().filter(|state| **state == TaskState::Completed).count(), 2);
    assert_eq!(order.iter().filter(|state| **state == TaskState::Pending).count(), 1, "{order:?}");
}

#[test]
fn a_wait_reports_every_failure_and_not_only_the_first() {
    let pool = start(2);
    let queue = pool.executor().no_isolation();
    for n in 0..250 {
        if n % 2 == 0 {
            queue.submit::<Fail>(json!({"words": format!("no {n}")})).unwrap();
        } else {
            queue.submit::<Echo>(json!(n)).unwrap();
        }
    }
    let error = queue.wait().unwrap_err();
    let ApiError::Failures(failures) = &error else { panic!("{error}") };
    assert_eq!((failures.total, failures.failures.len()), (250, 125));
    let words: Vec<String> = failures.failures.iter().map(|failure| failure.words.clone()).collect();
    assert_eq!(words, (0..250).step_by(2).map(|n| format!("no {n}")).collect::<Vec<_>>());
    let told = error.to_string();
    assert!(told.starts_with("125 of 250 tasks did not complete: task ") && told.ends_with("and 115 more"), "{told}");
    assert!(queue.wait().is_ok(), "what was waited for is done with");
    pool.stop(false).unwrap();
}

#[test]
fn what_a_wait_that_was_ended_has_not_seen_the_next_one_waits_for() {
    let pool = start(1);
    // Long enough for any single call, and not for the first of the tasks.
    let executor = pool.within(Duration::from_secs(3)).executor();
    let queue = executor.no_isolation();
    queue.submit::<Sleep>(json!({"ms": 8_000})).unwrap();
    executor.process_isolation(|fork| fork).submit::<Fail>(json!({"words": "late"})).unwrap();
    assert!(matches!(executor.wait(), Err(ApiError::DeadlineExceeded)));
    let told = loop {
        match executor.wait() {
            Err(ApiError::DeadlineExceeded) => {}
            told => break told,
        }
    };
    let Err(ApiError::Failures(failures)) = told else { panic!("{told:?}") };
    assert_eq!((failures.total, failures.failures.len()), (2, 1));
    assert!(executor.wait().is_ok() && queue.wait().is_ok(), "what was waited for is done with");
    pool.stop(false).unwrap();
}

#[test]
fn typed_handles_give_the_answer_or_the_words() {
    let pool = start(2);
    let executor = pool.executor();
    let queue = executor.no_isolation();
    assert_eq!(queue.submit::<Numbers>(json!([1, 2, 3])).unwrap().join().unwrap(), [1, 2, 3]);
    let wrong = queue.submit::<Numbers>(json!("no numbers")).unwrap().join().unwrap_err();
    assert!(matches!(wrong, ApiError::Json(_)), "{wrong}");
    let failure = |error: ApiError| match error {
        ApiError::Task(failure) => *failure,
        other => panic!("{other}"),
    };
    let failed: TaskFailure = failure(queue.submit::<Fail>(json!({"words": "too bad"})).unwrap().join().unwrap_err());
    assert_eq!((failed.state, failed.words.as_str(), failed.name.as_str()), (TaskState::Failed, "too bad", "fail"));
    let panicked = failure(queue.submit::<Panic>(json!({"words": "oh"})).unwrap().join().unwrap_err());
    assert_eq!(panicked.words, "panicked: oh");
    let first = queue.submit_as::<Echo>(json!("a"), |task| task.hold().meta("user", "456")).unwrap();
    let second = queue.submit_as::<Echo>(json!("b"), |task| task.priority(Priority::Critical).after(&first)).unwrap();
    let record = second.task().record().unwrap();
    assert_eq!((record.state, record.priority), (TaskState::Pending, Priority::Critical));
    assert_eq!(first.task().record().unwrap().meta["user"], "456");
    assert!(first.cancel().unwrap());
    // What waited for it falls with it.
    assert_eq!(second.task().wait().unwrap().state, TaskState::Cancelled);
    let answers: Vec<Value> = queue
        .submit_all::<Echo>((0..50).map(|n| json!(n)))
        .unwrap()
        .iter()
        .map(|handle| handle.join().unwrap())
        .collect();
    assert_eq!(answers, (0..50).map(|n| json!(n)).collect::<Vec<_>>());
    // Those that failed were joined and not waited for: the executor tells of them as well.
    let ApiError::Failures(failures) = executor.wait().unwrap_err() else { panic!() };
    assert_eq!(failures.failures.len(), 4);
    pool.stop(false).unwrap();
}

#[test]
fn actions_get_their_timeout_and_retries_from_the_options() {
    let pool = WorkerPool::start(
        options(1).task_timeout(Duration::from_secs(1)).max_retries(1).retry_delay(Duration::from_millis(10)),
    )
    .unwrap();
    let queue = pool.executor().no_isolation();
    let late = queue.submit::<Sleep>(json!({"ms": 60_000})).unwrap();
    let failing = queue.submit::<Fail>(json!({"words": "again"})).unwrap();
    let own = queue.submit_as::<Fail>(json!({"words": "once"}), |task| task.retries(0)).unwrap();
    let outcome = late.task().wait().unwrap();
    assert_eq!((outcome.state, outcome.verdict.as_deref()), (TaskState::Timeout, Some("timed-out")));
    assert_eq!(failing.task().wait().unwrap().attempts, 2);
    assert_eq!(own.task().wait().unwrap().attempts, 1);
    pool.stop(true).unwrap();
}

#[test]
fn any_call_that_waits_is_ended_by_its_token_or_its_time() {
    let pool = start(1);
    let handle = pool.submit(sleep(1000)).unwrap();
    let token = CancelToken::new().unwrap();
    let bound = pool.cancellable(&token);
    type Call = Box<dyn FnOnce(WorkerPool) -> Result<(), ApiError> + Send>;
    let calls: Vec<Call> = vec![
        Box::new(|pool| pool.wait_all().map(drop)),
        Box::new({
            let id = handle.id();
            move |pool| pool.wait(&[id])
        }),
        Box::new({
            let id = handle.id();
            move |pool| pool.handle(id).wait().map(drop)
        }),
        Box::new(|pool| pool.events().unwrap().last().unwrap().map(drop)),
    ];
    let waiting: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let pool = bound.clone();
            std::thread::spawn(move || call(pool))
        })
        .collect();
    let late = pool.within(Duration::from_millis(50)).wait(&[handle.id()]);
    assert!(matches!(late, Err(ApiError::DeadlineExceeded)));
    token.cancel();
    for thread in waiting {
        assert!(matches!(thread.join().unwrap(), Err(ApiError::Cancelled)));
    }
    assert!(matches!(bound.status(), Err(ApiError::Cancelled)), "it stays cancelled");
    assert!(matches!(bound.submit_all([sleep(0)]), Err(ApiError::Cancelled)));
    let late = pool.within(Duration::from_millis(100)).stop_when_empty();
    assert!(matches!(late, Err(ApiError::DeadlineExceeded)), "the pool goes on with what it was told");
    let started = WorkerPool::start_with(options(1), Some(&token), None);
    assert!(matches!(started, Err(ApiError::Cancelled)));
    pool.stop(true).unwrap();
}

#[test]
fn events_are_followed_from_before_a_submission_and_listeners_are_called() {
    let pool = start(1);
    let last = pool.last_event().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heard);
    let scaled =
        pool.on("scaledUp".parse().unwrap(), move |event| noted.lock().unwrap().push(event.worker_count())).unwrap();
    let every = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&every);
    pool.on_any(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        panic!("in a listener, as the test wants it");
    })
    .unwrap();
    let handle = pool.submit(Task::command(["true"])).unwrap();
    handle.join().unwrap();
    let of_task = pool.events_after(last).unwrap().map(Result::unwrap).filter(|event| event.task == Some(handle.id()));
    let kinds: Vec<EventKind> = of_task.map(|event| event.kind.unwrap()).take(4).collect();
    use EventKind as E;
    assert_eq!(kinds, [E::TaskSubmitted, E::TaskAssigned, E::TaskStarted, E::TaskCompleted]);
    pool.scale(2).unwrap();
    wait_until("the listener has heard of it", || *heard.lock().unwrap() == [Some(2)]);
    assert!(pool.off(scaled) && !pool.off(scaled));
    pool.scale(3).unwrap();
    let before = pool.last_event().unwrap();
    let follower = pool.events_after(before).unwrap();
    pool.stop(false).unwrap();
    let names: Vec<String> = follower.map(|event| event.unwrap().name).collect();
    assert_eq!(names.last().map(String::as_str), Some("pool-stopped"), "the stream ends with the pool");
    assert_eq!(*heard.lock().unwrap(), [Some(2)]);
    assert!(every.load(Ordering::Relaxed) > 5, "a listener that panics is called again");
}

#[test]
fn a_running_pool_is_attached_to_and_left_running() {
    let owner = start(1);
    let state = owner.state_directory().to_owned();
    let guest = WorkerPool::attach(Some(&state)).unwrap();
    assert_eq!(guest.pid(), None);
    let (told, heard) = mpsc::channel();
    let handle =
        guest.submit_with(Task::command(["true"]), move |outcome| told.send(outcome.is_ok()).unwrap()).unwrap();
    assert!(heard.recv_timeout(PATIENCE).unwrap());
    guest.pause(Some("a look")).unwrap();
    assert!(owner.status().unwrap().record.pool.paused.is_some());
    guest.resume().unwrap();
    drop(guest);
    assert!(owner.handle(handle.id()).wait().unwrap().is_success());
    owner.stop(false).unwrap();
    let absent = WorkerPool::attach(Some(&state)).unwrap_err();
    assert!(absent.is_pool_gone() && absent.to_string().starts_with("no pool is running"), "{absent}");
}

#[test]
fn a_durable_queue_outlives_the_death_of_its_pool() {
    let folder = tempfile::tempdir().unwrap();
    let pool = WorkerPool::start(options(1).durable(folder.path())).unwrap();
    let (told, heard) = mpsc::channel();
    let running = pool.submit(Task::command(["sh", "-c", "test $ACODE_ATTEMPT -gt 1 || sleep 1000"])).unwrap();
    let queued = pool.submit_with(Task::command(["true"]), move |outcome| told.send(outcome).unwrap()).unwrap();
    wait_until("it runs", || running.record().unwrap().state == TaskState::Running);
    let pid = i32::try_from(pool.pid().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    // Who waits is told that nobody knows, and not left waiting.
    assert!(heard.recv_timeout(PATIENCE).unwrap().unwrap_err().is_pool_gone());
    assert!(running.wait().unwrap_err().is_pool_gone());
    drop(pool);
    let again = WorkerPool::start(options(1).durable(folder.path())).unwrap();
    again.wait(&[running.id(), queued.id()]).unwrap();
    again.stop(false).unwrap();
}

#[test]
fn eight_threads_share_one_pool() {
    let pool = start(2);
    let queue = pool.executor().no_isolation();
    let called = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (pool, queue, called) = (pool.clone(), queue.clone(), Arc::clone(&called));
            scope.spawn(move || {
                for n in 0..25 {
                    let called = Arc::clone(&called);
                    let params = json!(thread * 100 + n);
                    let handle = queue
                        .submit_with::<Echo>(
                            params.clone(),
                            |task| task,
                            move |answer| {
                                answer.unwrap();
                                called.fetch_add(1, Ordering::Relaxed);
                            },
                        )
                        .unwrap();
                    assert_eq!(handle.join().unwrap(), params);
                    assert!(pool.status().unwrap().active_count > 0);
                }
            });
        }
    });
    queue.wait().unwrap();
    assert!(pool.metrics().unwrap().connections < 32, "connections are kept and used again");
    pool.stop(false).unwrap();
    assert_eq!(called.load(Ordering::Relaxed), 200);
}

#[test]
fn what_cannot_be_is_refused_in_clear_words() {
    let says = |options: WorkerPoolOptions| WorkerPool::start(options).unwrap_err().to_string();
    assert_eq!(says(options(0)), "the pool's options: workers.count is 0: 1 to 1024 is expected");
    let unknown = says(options(1).set("workers.cuont", 2));
    assert_eq!(unknown, "the pool's options: unknown key 'workers.cuont': did you mean 'workers.count'?");
    let modes = says(options(1).modes("thread"));
    assert!(modes.starts_with("the pool's options: workers.mode is thread: "), "{modes}");
    let thresholds = says(WorkerPoolOptions::manager().scale_up_threshold(0.2));
    assert!(thresholds.contains("workers.scaling.scaleDownThreshold is 0.3"), "{thresholds}");
    // This program is a test harness, which does not call `init`.
    let own = WorkerPool::start(WorkerPoolOptions::default()).unwrap_err();
    assert!(matches!(own, ApiError::NotInitialised), "{own}");
    let stranger = WorkerPool::start(options(1).program("/bin/true")).unwrap_err();
    assert_eq!(stranger.to_string(), "the pool did not start: its process ended without a word");
    assert!(matches!(WorkerPool::start(options(1).program("/nowhere")), Err(ApiError::Process(_))));
    let folder = tempfile::tempdir().unwrap();
    let pool = WorkerPool::start(options(1).durable(folder.path())).unwrap();
    let taken = says(options(1).durable(folder.path()));
    assert!(taken.starts_with("the pool did not start: ") && taken.contains("is held by process"), "{taken}");
    let queue = pool.executor().process_isolation(|fork| fork.max_memory("much"));
    assert_eq!(
        queue.submit::<Echo>(json!(1)).unwrap_err().to_string(),
        "max_memory 'much' is no size: one as in 512m is expected"
    );
    let refused = pool.executor().no_isolation().submit::<Fail>(json!({"wrods": 1})).unwrap_err().to_string();
    assert!(refused.contains("params of fail") && refused.contains("wrods"), "{refused}");
    assert!(matches!(pool.handle("01K00000000000000000000000".parse().unwrap()).wait(), Err(ApiError::Client(_))));
    pool.stop(false).unwrap();
}

#[test]
fn the_managers_defaults_are_those_of_its_document() {
    let pool = WorkerPool::start(WorkerPoolOptions::manager().program(actions::program())).unwrap();
    let status = pool.status().unwrap().record;
    assert_eq!((status.queue.limit, status.pool.mode.as_str()), (1_000, "process"));
    wait_until("the least number of workers is there", || pool.status().unwrap().active_count == 2);
    pool.stop(false).unwrap();
    let changed = WorkerPoolOptions::manager().min_workers(4).max_workers(16).task_timeout(Duration::from_secs(60));
    changed.max_retries(5).auto_scaling(true).check().unwrap();
    let record = WorkerPoolOptions::default()
        .worker_count(1)
        .mode(WorkerMode::Process)
        .poll_interval(Duration::from_millis(500))
        .drain_timeout(Duration::from_secs(5))
        .limits(Limits { pids: Some(64), ..Limits::default() })
        .program(actions::program());
    let pool = WorkerPool::start(record).unwrap();
    let forks = Task::command(["sh", "-c", "cat /proc/self/limits > /dev/null"]);
    assert!(pool.submit(forks).unwrap().join().is_ok());
    pool.stop(false).unwrap();
}

#[test]
fn a_reload_reads_the_file_again_under_the_options() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("acode.yaml");
    std::fs::write(&file, "pool:\n  name: before\nworkers:\n  count: 3\n").unwrap();
    let pool = WorkerPool::start(options(1).config_file(&file)).unwrap();
    assert_eq!(pool.status().unwrap().record.pool.name, "before");
    std::fs::write(&file, "pool:\n  name: after\nworkers:\n  count: 3\n").unwrap();
    pool.reload().unwrap();
    assert_eq!(pool.status().unwrap().record.pool.name, "after");
    std::fs::write(&file, "pool:\n  nmae: after\n").unwrap();
    let refused = pool.reload().unwrap_err().to_string();
    assert!(refused.contains("nmae"), "{refused}");
    assert_eq!(pool.workers().unwrap().len(), 1, "the options are over the file");
    pool.stop(false).unwrap();
}

#[test]
fn the_command_line_and_the_library_see_one_pool() {
    let pool = start(1);
    let state = pool.state_directory().to_str().unwrap().to_owned();
    let acode = |words: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_acode")).args(["--state-dir", &state]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let id: TaskId = acode(&["task", "submit", "--", "true"]).parse().unwrap();
    assert!(pool.handle(id).wait().unwrap().is_success());
    acode(&["worker", "stop"]);
    assert!(pool.status().unwrap_err().is_pool_gone());
    assert!(pool.handle(id).wait().unwrap().is_success(), "its queue is there until the handle goes");
}

#[test]
fn each_isolation_is_asked_for_as_its_queue_says() {
    let pool = start(1);
    let executor = pool.executor();
    let held = |queue: &acode::api::WorkQueue| {
        let handle = queue.submit_as::<Echo>(json!(1), |task| task.hold()).unwrap();
        handle.task().record().unwrap()
    };
    let library = held(&executor.library_isolation(|library| library.path("/opt/a.so").search_path("/opt/lib")));
    let named = library.action.unwrap().library.unwrap();
    assert_eq!((named.path.as_str(), named.search_path.as_slice()), ("/opt/a.so", &["/opt/lib".to_owned()][..]));
    assert_eq!(library.isolation, Some(Isolation::Library));
    let docker = held(&executor.docker_isolation(|docker| docker.image("debian:12").network("none")));
    assert_eq!(docker.docker.unwrap().image.as_deref(), Some("debian:12"));
    assert_eq!(docker.isolation, Some(Isolation::Docker));
    assert_eq!(held(&executor.no_isolation()).isolation, Some(Isolation::None));
    let reused = held(&executor.process_isolation(|fork| fork.reuse(true)));
    assert!(reused.action.unwrap().reuse);

    let queue = executor.process_isolation(|fork| fork.max_memory("512m").env("LANG", "C"));
    let handle = queue.submit::<Echo>(json!({"a": 1})).unwrap();
    assert_eq!(handle.join().unwrap(), json!({"a": 1}));
    let attempts = handle.task().record().unwrap().attempts.unwrap();
    let memory = attempts[0].limits.iter().find(|limit| limit.limit == "memoryMb").unwrap();
    assert_eq!((memory.value, attempts[0].isolation), (512, Some(Isolation::Process)));
    pool.stop(true).unwrap();
}
