//! Finish hooks, through the real binary: each end has one, none is lost or doubled by a death, and one that hangs harms
//! nobody.
//!
//! Deliberately absent: what the store makes of them (`src/store/tests/hooks.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::Submit;
use acode::wire::types::TaskRecord;
use acode::wire::{CallError, ClientError};
use acode_worker::task::{
    Array, Blocker, Dependency, DependencyKind, Priority, Submission, TaskId, TaskSpec, TaskState,
};
use command::Acode;
use common::{Options, Pool, shell, wait_until};
use more::{cancel, entry, gated, reaches, retry};

/// A hook that appends a line to the file: what it was told, in the order of the words.
fn tells(pool: &Pool, file: &str) -> Vec<String> {
    let script = r#"echo "$ACODE_HOOK_NUMBER $ACODE_HOOK_NAME $ACODE_HOOK_STATE v=$ACODE_HOOK_VERDICT \
x=$ACODE_HOOK_EXIT_CODE s=$ACODE_HOOK_SIGNAL n=$ACODE_HOOK_ATTEMPTS m=$ACODE_META_TEAM" >>"$1""#;
    shell(script, &[&pool.path(file)]).command
}

fn hooked(pool: &Pool, spec: TaskSpec) -> TaskSpec {
    TaskSpec { on_finish: tells(pool, "told"), ..spec }
}

/// The only hook of a task, when it has ended.
#[track_caller]
fn hook_of(pool: &Pool, id: TaskId) -> TaskRecord {
    let hooks = pool.show(id).hooks.unwrap();
    assert_eq!(hooks.len(), 1, "{hooks:?}");
    pool.wait(hooks[0])
}

#[test]
fn a_hook_is_told_the_verdict_and_belongs_to_its_task() {
    let pool = Pool::start(Options::workers(2));
    let mut spec = hooked(&pool, shell("exit 3", &[]));
    spec.name = Some("encode".into());
    spec.meta.insert("team".into(), "video".into());
    let id = pool.submit_spec(spec);
    assert_eq!(pool.wait(id).state, TaskState::Failed);
    let hook = hook_of(&pool, id);
    assert_eq!((hook.state, hook.hook_of, hook.priority), (TaskState::Completed, Some(id), Priority::High));
    assert_eq!((hook.name.as_str(), hook.hooks), ("on-finish:encode", Some(Vec::new())));
    let told = format!("{} encode failed v=exited x=3 s= n=1 m=video", id.seq());
    assert_eq!(pool.lines("told"), [told]);
    // Each is shown with the other.
    let acode = Acode::of(&pool);
    assert!(acode.ok(&["task", "show", "encode"]).contains(&hook.id.to_string()));
    assert!(acode.ok(&["task", "show", "on-finish:encode"]).contains(&format!("Hook of    {id}")));
    // Run again by hand it ends again.
    assert!(retry(&pool, id));
    pool.wait(id);
    assert_eq!(pool.show(id).hooks.unwrap().len(), 2);
    pool.wait_all();
}

#[test]
fn each_way_to_an_end_has_one_hook() {
    let pool = Pool::start(Options::workers(2).signals_go_anywhere().config("workers:\n  maxWorkerLosses: 2"));
    let submit = |spec: TaskSpec| pool.submit_spec(hooked(&pool, spec));
    let flaky = shell(r#"[ -e "$1" ] || { touch "$1"; exit 1; }"#, &[&pool.path("tried")]);
    let retry = acode_worker::task::Retries { count: Some(3), delay_ms: Some(10), ..Default::default() };
    let retried = submit(TaskSpec { retry: Some(retry), ..flaky });
    let timed_out = submit(TaskSpec { timeout_ms: Some(50), ..shell("sleep 600", &[]) });
    let signalled = submit(shell("kill -9 $$", &[]));
    let missing = submit(more::command(&["/no/such/program"]));
    let poison = submit(shell("kill -9 $PPID; sleep 600", &[]));
    let running = submit(shell("sleep 600", &[]));
    let mut dependent = entry(hooked(&pool, more::command(&["true"])));
    dependent.dependencies = vec![Dependency { on: Blocker::Id(running), when: DependencyKind::Succeeded }];
    let dependent = pool.submit_all(vec![dependent])[0];
    reaches(&pool, running, TaskState::Running);
    cancel(&pool, running);
    let ends = [
        (retried, "completed v=exited x=0 s= n=2"),
        (timed_out, "timeout v=timed-out x= s= n=1"),
        (signalled, "failed v=signalled x= s=9 n=1"),
        (missing, "failed v=not-started x= s= n=1"),
        (poison, "failed v=worker-lost x= s= n=2"),
        (running, "cancelled v=cancelled x= s= n=1"),
        (dependent, "cancelled v= x= s= n=0"),
    ];
    for (id, _) in &ends {
        pool.wait(*id);
        hook_of(&pool, *id);
    }
    let lines = pool.lines("told");
    assert_eq!(lines.len(), ends.len(), "{lines:?}");
    for (id, told) in ends {
        let line = lines.iter().find(|line| line.starts_with(&format!("{} ", id.seq()))).unwrap();
        assert!(line.contains(told), "{line}: {told}");
    }
}

#[test]
fn an_array_has_one_hook_and_the_pools_runs_for_all_but_hooks() {
    let config = "tasks:\n  onFinish: [sh, -c, 'echo \"$ACODE_HOOK_STATE $ACODE_HOOK_NAME\" >>\"$OUT\"']";
    let mut pool = Pool::prepare(Options::workers(2));
    let told = pool.path("pool");
    let text = format!("{config}\n  environment:\n    set:\n      OUT: {told}\n");
    std::fs::write(pool.file("acode.yaml"), text).unwrap();
    pool.restart();
    let array = Some(Array::Range { first: 0, count: 20 });
    let array = Submission { array, ..entry(hooked(&pool, more::command(&["true"]))) };
    let array = pool.submit_all(vec![array])[0];
    let plain = pool.submit(&["false"]);
    pool.wait_all();
    assert_eq!(pool.show(array).hooks.unwrap().len(), 2, "its own and the pool's");
    assert_eq!(pool.lines("told").len(), 1);
    let mut lines = pool.lines("pool");
    lines.sort();
    assert_eq!(lines, ["completed true", "failed false"]);
    assert_eq!(hook_of(&pool, plain).state, TaskState::Completed);
    // With the next reload there is none any more.
    std::fs::write(pool.file("acode.yaml"), "log:\n  level: debug\n").unwrap();
    common::signal(pool.pid(), nix::sys::signal::Signal::SIGHUP);
    wait_until("the configuration is read", || pool.events().iter().any(|event| event.event == "pool-reloaded"));
    let later = pool.submit(&["true"]);
    pool.wait(later);
    assert_eq!(pool.show(later).hooks.unwrap(), []);
}

#[test]
fn a_hook_that_hangs_is_ended_and_a_full_queue_does_not_refuse_it() {
    let config = "queue:\n  maxTasks: 2\n  backpressureThreshold: 1\ntasks:\n  onFinishTimeoutSeconds: 1\n  retries:\n    count: 5";
    let pool = Pool::start(Options::workers(1).config(config));
    let hangs = shell("sleep 600", &[]).command;
    let no_retry = Some(acode_worker::task::Retries { count: Some(0), ..Default::default() });
    let spec = TaskSpec { on_finish: hangs, retry: no_retry, ..gated(&pool, "gate") };
    let first = pool.submit_all(vec![entry(spec), entry(more::command(&["true"]))]);
    more::open_gate(&pool, "gate");
    pool.wait(first[0]);
    // Two are still there, one of them the hook: it counts, and was not refused.
    let refused = pool.try_call(&Submit::new(vec![entry(more::command(&["true"])), entry(more::command(&["true"]))]));
    assert!(matches!(refused, Err(ClientError::Call(CallError::QueueFull { .. }))), "{refused:?}");
    let hook = hook_of(&pool, first[0]);
    assert_eq!((hook.state, hook.attempt_count), (TaskState::Timeout, 1));
    assert_eq!(pool.wait(first[1]).state, TaskState::Completed);
}

/// The supervisor dies at the so-manieth pass of this point, in the life of one task from its start to its hook's end;
/// says whether it came so far.
fn dies_at(point: &str) -> bool {
    let mut pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(hooked(&pool, gated(&pool, "gate")));
    reaches(&pool, id, TaskState::Running);
    // Only a pool that is started with it knows the point, so the task begins anew in one that does.
    pool.kill9();
    pool.dies_once_at(point);
    pool.launch();
    more::open_gate(&pool, "gate");
    let told = || pool.lines("told").len();
    wait_until("it dies, or the hook runs", || pool.has_struck(point) || told() > 0);
    let _ = common::eventually(std::time::Duration::from_millis(200), || pool.has_struck(point));
    let struck = pool.has_struck(point);
    if struck {
        pool.wait_exit();
        pool.revive();
    } else {
        wait_until("the pool answers", || pool.try_call(&acode::wire::request::Ping {}).is_ok());
        // It is not to die in its stop, either.
        let name = point.split('@').next().unwrap();
        std::fs::write(pool.file("struck").join(name), "").unwrap();
    }
    pool.wait(id);
    assert_eq!(hook_of(&pool, id).state, TaskState::Completed, "exactly one hook, although it dies at {point}");
    assert!(!pool.lines("told").is_empty());
    struck
}

/// Every commit of that life is tried, so that the one with the end is among them.
fn dies_around_each_commit(point: &str) {
    let struck = (1..=6).take_while(|pass| dies_at(&format!("{point}@{pass}"))).count();
    assert!(struck >= 2, "the start and the end are two commits at the least: {struck}");
}

#[test]
fn a_supervisor_killed_before_the_commit_of_an_end_loses_no_hook() {
    dies_around_each_commit("supervisor.before-commit");
}

#[test]
fn a_supervisor_killed_after_the_commit_of_an_end_doubles_no_hook() {
    dies_around_each_commit("supervisor.after-commit");
}

#[test]
fn hooks_are_asked_for_on_the_command_line_and_outlive_a_private_pool() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::without_state(&pool);
    let told = pool.path("told");
    let hook = format!("sh -c 'sleep 0.2; echo \"$ACODE_HOOK_STATE\" >>{told}'");
    acode.says(&["run", "--on-finish", &hook, "--", "true"]).expect(0);
    assert_eq!(pool.lines("told"), ["completed"]);
    let file = format!("tasks:\n- {{command: 'false', onFinish: [sh, -c, 'echo \"$ACODE_HOOK_STATE\" >>{told}']}}\n");
    std::fs::write(pool.file("tasks.yaml"), file).unwrap();
    acode.says(&["run", &pool.path("tasks.yaml")]).expect(1);
    assert_eq!(pool.lines("told"), ["completed", "failed"]);
    let said = acode.says(&["run", "--on-finish", "", "--", "true"]).expect(2);
    assert!(said.err.contains("there is no program in it"), "{said:?}");
}

#[test]
fn a_task_cancelled_without_a_pool_has_its_hook_when_there_is_one() {
    let mut pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let hook = format!("sh -c 'echo \"$ACODE_HOOK_STATE $ACODE_HOOK_REASON\" >>{}'", pool.path("told"));
    let id = acode.ok(&["task", "submit", "--on-finish", &hook, "--", "true"]);
    acode.ok(&["task", "cancel", &id]);
    pool.restart();
    let id: TaskId = id.parse().unwrap();
    assert_eq!(hook_of(&pool, id).state, TaskState::Completed);
    assert_eq!(pool.lines("told"), ["cancelled cancelled by request"]);
}
