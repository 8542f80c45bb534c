//! Isolation `none`: actions in the worker itself, through the real binary with actions for tests.
//!
//! Deliberately absent: actions that do not end, or take their worker along (`inline_faults.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::path::Path;

use acode::wire::request::{Check, Suspend};
use acode::wire::types::{Progress, TaskRecord, WorkerStatus};
use acode::wire::{CallError, ClientError, TaskRef};
use acode_worker::task::{
    Cleanup, Hold, Isolation, Limits, Retries, Rlimits, Sandbox, SoftTimeout, TaskSpec, TaskState, TreeGuard,
};
use common::actions::inline;
use common::{Options, Pool, is_alive, shell, wait_until};
use more::{cancel, entry, events_of, only_attempt, reaches, verdict, written};
use serde_json::{Value, json};

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

fn result(task: &TaskRecord) -> Value {
    task.result.as_ref().map_or(Value::Null, |result| serde_json::from_str(result.get()).unwrap())
}

/// How many threads a process has.
fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

#[test]
fn an_action_answers_and_fails_in_the_worker_itself() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let worker = pool.idle_workers().remove(0);
    let task = run(&pool, inline("echo", json!({ "x": [1, "two"] })));
    assert_eq!((task.state, verdict(&task), task.exit_code), (TaskState::Completed, "exited", Some(0)), "{task:?}");
    assert_eq!(result(&task), json!({ "x": [1, "two"] }));
    let attempt = only_attempt(&task);
    assert_eq!((attempt.isolation, attempt.tree_guard), (Some(Isolation::None), Some(TreeGuard::Worker)));
    let facts = result(&run(&pool, inline("facts", Value::Null)));
    assert_eq!(facts["pid"], worker.pid, "it ran in the worker");
    let task = run(&pool, inline("fail", json!({ "words": "no luck" })));
    assert_eq!((task.state, task.exit_code, task.error.as_deref()), (TaskState::Failed, Some(1), Some("no luck")));
    // Only the worker finds out about these, whose params nobody can read before.
    let task = run(
        &pool,
        TaskSpec { retry: Some(Retries { count: Some(0), ..Retries::default() }), ..inline("nobody", Value::Null) },
    );
    assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "not-started"), "{task:?}");
    assert!(task.error.unwrap().contains("there is no action 'nobody' here"));
    assert_eq!(pool.idle_workers().remove(0).id, worker.id, "the worker lives on");
}

#[test]
fn a_panic_ends_the_task_and_speaks_to_nobody_else() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let worker = pool.idle_workers().remove(0);
    let words = format!("help {}", "x".repeat(100_000));
    let task = run(&pool, inline("panic", json!({ "words": words })));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(101)));
    assert!(task.error.as_ref().unwrap().starts_with("panicked: help x"), "{task:?}");
    let said = written(&pool, task.id).err();
    assert!(said.starts_with("panicked at examples/pool_actions.rs:") && said.contains("\nhelp xx"), "{said}");
    assert!(said.len() < words.len(), "it is bounded");
    assert!(!pool.log().contains("help x"), "the pool's log has nothing of it");
    assert_eq!(pool.idle_workers().remove(0).id, worker.id, "the worker lives on");
}

#[test]
fn what_an_action_says_is_its_tasks_output_within_the_bounds() {
    let pool = Pool::start(Options::workers(1).with_actions().config("output: {maxBytesPerTask: 1000}"));
    let task = run(&pool, inline("print", json!({ "out": "o", "err": "e", "times": 3 })));
    let said = written(&pool, task.id);
    assert_eq!((said.out(), said.err()), ("ooo".to_owned(), "eee".to_owned()));
    let task = run(&pool, inline("print", json!({ "out": "0123456789", "times": 1_000 })));
    assert!(task.output.truncated && task.output.stdout_bytes == 1_000, "{:?}", task.output);
    assert_eq!(written(&pool, task.id).out().len(), 1_000);
}

#[test]
fn a_worker_has_one_thread_until_its_first_action_and_two_from_then_on() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let worker = pool.idle_workers().remove(0);
    run(&pool, shell("true", &[]));
    assert_eq!(threads(worker.pid), 1, "a command needs none");
    run(&pool, inline("noop", Value::Null));
    assert_eq!(threads(worker.pid), 2);
    let ids = pool.submit_all((0..300).map(|_| entry(inline("noop", Value::Null))).collect());
    for id in ids {
        assert_eq!(pool.wait(id).state, TaskState::Completed);
    }
    assert_eq!(threads(worker.pid), 2);
    // Commands run beside it as ever, in a sandbox too.
    let sandboxed = Sandbox { network: Some(acode_worker::task::NetworkAccess::Host), ..Sandbox::default() };
    let task = run(&pool, TaskSpec { sandbox: Some(sandboxed), ..shell("echo well", &[]) });
    assert_eq!((task.state, written(&pool, task.id).out().as_str()), (TaskState::Completed, "well\n"));
    assert_eq!(pool.idle_workers().remove(0).id, worker.id);
}

#[test]
fn an_action_that_listens_is_cancelled_and_its_worker_lives_on() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let worker = pool.idle_workers().remove(0);
    let id = pool.submit_spec(inline("sleep", json!({ "ms": 600_000 })));
    reaches(&pool, id, TaskState::Running);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"), "{task:?}");
    assert_eq!(pool.idle_workers().remove(0).id, worker.id);
    assert_eq!(events_of(&pool.events(), id), ["task-submitted", "task-assigned", "task-started", "task-cancelled"]);
}

#[test]
fn an_action_that_listens_ends_at_its_timeout_and_is_warned_before() {
    let pool = Pool::start(Options::workers(1).with_actions().config("tasks: {retries: {count: 0}}"));
    let worker = pool.idle_workers().remove(0);
    let task = run(&pool, TaskSpec { timeout_ms: Some(50), ..inline("sleep", json!({ "ms": 600_000 })) });
    assert_eq!((task.state, verdict(&task)), (TaskState::Timeout, "timed-out"), "{task:?}");
    let soft = SoftTimeout { before_ms: 59_900, signal: "SIGUSR1".parse().unwrap() };
    let warned = TaskSpec { timeout_ms: Some(60_000), soft_timeout: Some(soft), ..inline("heed", Value::Null) };
    let task = run(&pool, warned);
    assert_eq!((task.state, result(&task)), (TaskState::Completed, json!("warned")), "{task:?}");
    let task = run(&pool, TaskSpec { timeout_ms: Some(60_000), ..inline("echo", json!(1)) });
    assert_eq!(task.state, TaskState::Completed, "what it was told is not told to the next one");
    assert_eq!(pool.idle_workers().remove(0).id, worker.id);
}

#[test]
fn a_long_action_starts_tells_its_progress_and_leaves_the_worker_healthy() {
    let quick = "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 1000";
    let pool = Pool::start(Options::workers(1).with_actions().config(quick));
    let worker = pool.idle_workers().remove(0);
    let id = pool.submit_spec(inline("progress", json!({ "steps": 4, "ms": 700 })));
    let running = reaches(&pool, id, TaskState::Running);
    assert!(running.started_at.is_some());
    wait_until("its progress is told while it runs", || pool.show(id).progress.is_some_and(|told| told.percent >= 50));
    let told = pool.show(id);
    assert_eq!(told.state, TaskState::Running, "{told:?}");
    let busy = pool.worker_of(id);
    assert_eq!((busy.id, busy.status, busy.healthy), (worker.id, WorkerStatus::Busy, true));
    let checked = pool.call(&Check {}).workers.remove(0);
    assert!(checked.healthy && checked.answered_in_us.is_some(), "{checked:?}");
    let refused = pool.call(&Suspend { ids: vec![TaskRef::Id(id)] });
    assert_eq!((refused.suspended.len(), refused.refused), (0, vec![id]), "a call cannot be stopped where it is");
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1), "its silence was not taken for a death");
    assert_eq!(task.progress, Some(Progress { percent: 100, message: Some("step 4".to_owned()) }));
    assert_eq!(pool.idle_workers().remove(0).id, worker.id);
}

#[test]
fn a_failing_action_is_retried_like_any_task() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let retry = Some(Retries { count: Some(2), delay_ms: Some(1), ..Retries::default() });
    let task = run(&pool, TaskSpec { retry, ..inline("fail", json!({ "words": "again" })) });
    assert_eq!((task.state, task.attempt_count, task.crash_count), (TaskState::Failed, 3, 0), "{task:?}");
}

#[test]
fn the_scratch_directory_is_there_for_who_asks_and_clean_for_the_next() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let file = |name: &str| inline("scratch", json!({ "name": name, "text": "found" }));
    for _ in 0..3 {
        let answer = result(&run(&pool, file("a.txt")));
        assert_eq!(answer["before"], 0, "nothing of an earlier task");
        assert!(!Path::new(answer["path"].as_str().unwrap()).exists(), "it went with its task");
    }
    let kept = run(&pool, TaskSpec { cleanup: Some(Cleanup::Never), ..file("b.txt") });
    let folder = only_attempt(&kept).kept.clone().unwrap();
    assert_eq!(std::fs::read_to_string(Path::new(&folder).join("b.txt")).unwrap(), "found");
    assert_eq!(result(&kept)["before"], 0, "its own answer counts");
    let artifacts = run(&pool, TaskSpec { artifacts: vec!["*.txt".to_owned()], ..file("c.txt") });
    let folder = only_attempt(&artifacts).artifacts.clone().unwrap().folder;
    assert_eq!(std::fs::read_to_string(folder.join("files/c.txt")).unwrap(), "found");
    std::fs::create_dir(pool.file("here")).unwrap();
    let answer = result(&run(&pool, TaskSpec { cwd: Some(pool.path("here")), ..file("d.txt") }));
    assert_eq!(answer["path"], pool.path("here/d.txt"), "a working directory is where relative paths lead");
    assert_eq!(std::fs::read_to_string(pool.file("here/d.txt")).unwrap(), "found");
}

#[test]
fn an_action_is_told_of_its_task() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let meta = [("user".to_owned(), "ada".to_owned())].into();
    let task = run(&pool, TaskSpec { meta, checkpoint: true, ..inline("facts", Value::Null) });
    let facts = result(&task);
    assert_eq!((&facts["id"], &facts["attempt"]), (&json!(task.id), &json!(1)));
    assert_eq!((&facts["slot"], &facts["meta"]), (&json!(0), &json!({ "user": "ada" })));
    assert!(facts["checkpoint"].as_str().unwrap().starts_with(pool.state_dir().to_str().unwrap()));
}

#[test]
fn processes_that_an_action_has_left_are_killed() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let task = run(&pool, inline("child", json!({ "seconds": 600 })));
    let pid = u32::try_from(result(&task)["pid"].as_u64().unwrap()).unwrap();
    assert_eq!((task.state, only_attempt(&task).leaked), (TaskState::Completed, true));
    assert!(!is_alive(pid), "an attempt is not over while a process of it lives");
    let task = run(&pool, inline("child", json!({ "seconds": 0 })));
    assert_eq!(task.state, TaskState::Completed);
}

#[test]
fn what_only_a_process_can_have_is_refused_at_submission() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let echo = || inline("echo", json!(1));
    let rlimits = Rlimits { open_files: Some(9), ..Rlimits::default() };
    let unfit = [
        ("sandbox", TaskSpec { sandbox: Some(Sandbox::default()), ..echo() }),
        ("limits", TaskSpec { limits: Limits { memory_mb: Some(64), ..Limits::default() }, ..echo() }),
        ("rlimits", TaskSpec { rlimits, ..echo() }),
        ("environment", TaskSpec { env: [("A".to_owned(), "b".to_owned())].into(), ..echo() }),
        ("standard input", TaskSpec { stdin: Some("/dev/null".to_owned()), ..echo() }),
        ("jobserver", TaskSpec { jobserver: true, ..echo() }),
        ("for actions", TaskSpec { isolation: Some(Isolation::None), ..shell("true", &[]) }),
    ];
    for (word, spec) in unfit {
        let request = acode::wire::request::Submit::new(vec![entry(spec)]);
        match pool.try_call(&request) {
            Err(ClientError::Call(error @ CallError::InvalidSubmission { .. })) => {
                let words = error.to_string();
                assert!(words.contains("isolation none") && words.contains(word), "{words}");
            }
            other => panic!("{word}: {other:?}"),
        }
    }
}

#[test]
fn the_pools_limits_are_told_not_to_be_held_and_its_sandbox_keeps_actions_out() {
    let pool = Pool::start(Options::workers(1).with_actions().config("workers: {limits: {pids: 50}}"));
    let task = run(&pool, inline("echo", json!(1)));
    let [limit] = &only_attempt(&task).limits[..] else { panic!("{task:?}") };
    assert_eq!((limit.limit.as_str(), limit.value, limit.hold), ("pids", 50, Hold::None));
    assert!(limit.by.contains("runs in the worker"), "{limit:?}");
    let strict = "workers: {sandbox: {filesystem: read-only}}\ntasks: {retries: {count: 0}}";
    let pool = Pool::start(Options::workers(1).with_actions().config(strict));
    let task = run(&pool, inline("echo", json!(1)));
    assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "not-started"), "{task:?}");
    assert!(task.error.unwrap().contains("sandbox"));
}

#[test]
fn usage_is_the_time_that_passed_and_of_a_long_action_the_processors_too() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let task = run(&pool, inline("burn", json!({ "ms": 300 })));
    let usage = only_attempt(&task).usage.unwrap();
    assert!(usage.wall_us >= 300_000, "{usage:?}");
    assert!(usage.cpu_us() > 20_000 && usage.cpu_us() < usage.wall_us * 2, "{usage:?}");
    assert_eq!((usage.peak_memory_bytes, usage.peak_pids), (None, None), "nobody has counted these");
    let task = run(&pool, inline("sleep", json!({ "ms": 200 })));
    let usage = only_attempt(&task).usage.unwrap();
    assert!(usage.wall_us >= 200_000 && usage.cpu_us() < 150_000, "what burned before is not its own: {usage:?}");
}
