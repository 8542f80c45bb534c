//! Actions in processes of their own, through the real binary with actions for tests; and commands with parameters.
//!
//! Such an attempt is one like any other, so each thing that holds for a command is tried once for an action. Deliberately
//! absent: containers (`action_docker.rs`), and what the built-in types do.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/more.rs"]
mod more;
#[path = "common/repository.rs"]
mod repository;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use acode::wire::types::TaskRecord;
use acode_worker::task::{
    Action, DeviceAccess, FileAccess, Isolation, NetworkAccess, OverLimitAction, Retries, Rlimits, Sandbox,
    SoftTimeout, TaskSpec, TaskState, Worktree,
};
use command::Acode;
use common::actions::action;
use common::{Options, Pool, shell, wait_until};
use limits::{assert_held_as_here, limited, memory_mb, watchful_options};
use more::{cancel, only_attempt, reaches, verdict, written};
use repository::{Repo, has_git};
use serde_json::{Value, json};

/// A task of an action in a process of its own.
fn child(name: &str, params: Value) -> TaskSpec {
    action(Isolation::Process, name, params)
}

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

fn result(task: &TaskRecord) -> Value {
    task.result.as_ref().map_or(Value::Null, |result| serde_json::from_str(result.get()).unwrap())
}

#[track_caller]
fn answers(pool: &Pool, spec: TaskSpec) -> Value {
    let task = run(pool, spec);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", written(pool, task.id).err());
    result(&task)
}

fn pool() -> Pool {
    Pool::start(Options::workers(1).with_actions())
}

#[test]
fn an_action_answers_fails_and_panics_in_a_process_of_its_own() {
    let pool = pool();
    let worker = pool.idle_workers().remove(0);
    let task = run(&pool, child("echo", json!({ "x": [1, "two"] })));
    assert_eq!((task.state, verdict(&task), task.exit_code), (TaskState::Completed, "exited", Some(0)), "{task:?}");
    assert_eq!(result(&task), json!({ "x": [1, "two"] }));
    assert_eq!(only_attempt(&task).isolation, Some(Isolation::Process));
    let facts = answers(&pool, child("facts", Value::Null));
    assert_ne!(facts["pid"], worker.pid);
    let task = run(&pool, child("fail", json!({ "words": "no luck" })));
    assert_eq!((task.state, task.exit_code, task.error.as_deref()), (TaskState::Failed, Some(1), Some("no luck")));
    let task = run(&pool, child("panic", json!({ "words": "help" })));
    assert_eq!((task.exit_code, task.error.as_deref()), (Some(101), Some("panicked: help")));
    let said = written(&pool, task.id).err();
    assert!(said.contains("panicked at") && said.contains("help"), "as Rust says it: {said}");
    assert_eq!(pool.idle_workers().remove(0).id, worker.id);
}

#[test]
fn what_kills_its_process_is_its_verdict() {
    let pool = pool();
    let worker = pool.idle_workers().remove(0);
    for (name, signal) in [("abort", 6), ("overflow", 6)] {
        let task = run(&pool, child(name, Value::Null));
        assert_eq!((verdict(&task), task.signal), ("signalled", Some(signal)), "{name}: {task:?}");
    }
    let task = run(&pool, child("exit", json!({ "code": 7 })));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(7)));
    let task = run(&pool, child("child", json!({ "seconds": 600 })));
    assert!(only_attempt(&task).leaked, "what it has left running is killed: {task:?}");
    assert_eq!(pool.idle_workers().remove(0).id, worker.id);
}

#[test]
fn what_does_not_fit_is_refused_and_what_nobody_knows_is_not_started() {
    let pool = pool();
    let acode = Acode::of(&pool);
    let wrong = r#"{"ms": "long"}"#;
    let said = acode.says(&["task", "submit", "--type", "custom", "--action", "sleep", "--params", wrong]).expect(2);
    assert!(said.err.contains("sleep"), "{said:?}");
    let task = run(&pool, child("nobody", Value::Null));
    assert_eq!(verdict(&task), "not-started", "{task:?}");
    let reason = only_attempt(&task).reason.clone().unwrap();
    assert!(reason.contains("there is no action 'nobody' here") && reason.contains("echo"), "{reason}");
}

#[test]
fn it_is_told_what_any_task_is_told_and_inherits_no_more() {
    let pool = Pool::start(Options::workers(1).with_actions().var("SECRET_OF_THE_POOL", "x"));
    let mut spec = child("facts", Value::Null);
    spec.meta.insert("User-Id".to_owned(), "17".to_owned());
    spec.checkpoint = true;
    let task = run(&pool, spec);
    let facts = result(&task);
    assert_eq!((&facts["id"], &facts["attempt"]), (&json!(task.id.to_string()), &json!(1)));
    assert_eq!(facts["meta"], json!({ "User-Id": "17" }), "as it was said, not as a variable's name");
    assert!(facts["checkpoint"].as_str().unwrap().contains("checkpoints"), "{facts}");

    let mut spec = child("world", json!({ "run": ["sh", "-c", "echo $ACODE_ROLE-$ACODE_PARAMS-$OWN"] }));
    spec.env = [("OWN", "mine"), ("ACODE_ROLE", "supervisor"), ("ACODE_PARAMS", "/forged")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let world = answers(&pool, spec);
    let env = world["env"].as_object().unwrap();
    assert_eq!(env["OWN"], "mine");
    assert!(!env.contains_key("SECRET_OF_THE_POOL") && !env.contains_key("ACODE_ROLE"), "{env:?}");
    assert_eq!(world["said"], "--mine", "nor does what it starts inherit a role");
    assert_eq!(world["fds"], json!(["0", "1", "2"]), "no descriptor of the pool's");
    assert_eq!(world["cwd"], env["ACODE_SCRATCH"]);
    let status = world["status"].as_str().unwrap();
    assert!(status.contains("acode-action"), "{status}");
    assert!(world["words"].as_str().unwrap().ends_with("pool_actions\0world\0"), "{world}");
}

#[test]
fn relative_paths_start_where_it_was_born_and_nothing_stays() {
    let pool = pool();
    let file = json!({ "name": "out.txt", "text": "x" });
    for _ in 0..3 {
        let left = answers(&pool, child("scratch", file.clone()));
        assert_eq!(left["before"], 0, "a fresh scratch directory");
        assert!(!fs::exists(left["path"].as_str().unwrap()).unwrap());
    }
    let spec = TaskSpec { cwd: Some(pool.path("")), ..child("scratch", file.clone()) };
    answers(&pool, spec);
    assert_eq!(fs::read_to_string(pool.file("out.txt")).unwrap(), "x");
    let spec = TaskSpec { artifacts: vec!["*.txt".to_owned()], ..child("scratch", file) };
    let task = run(&pool, spec);
    let artifacts = only_attempt(&task).artifacts.clone().unwrap();
    assert_eq!((artifacts.files, artifacts.bytes), (1, 1), "{artifacts:?}");
}

#[test]
fn large_params_output_and_progress_go_through() {
    let pool = pool();
    let words = "w".repeat(900_000);
    let task = run(&pool, child("fail", json!({ "words": words })));
    assert_eq!(task.error.as_deref().map(str::len), Some(acode_worker::task::ERROR_MAX));
    let task = run(&pool, child("echo", json!(words)));
    assert_eq!(task.exit_code, Some(1));
    assert!(task.error.as_deref().unwrap().contains("the result is larger than"), "{:?}", task.error);
    let id = pool.submit_spec(child("print", json!({ "out": "o\n", "err": "e", "times": 1_000 })));
    pool.wait(id);
    let said = written(&pool, id);
    assert_eq!((said.out(), said.err()), ("o\n".repeat(1_000), "e".repeat(1_000)));
    let id = pool.submit_spec(child("progress", json!({ "steps": 4, "ms": 60 })));
    wait_until("its progress shows", || pool.show(id).progress.is_some());
    let told = pool.wait(id).progress.unwrap();
    assert_eq!((told.percent, told.message.as_deref()), (100, Some("step 4")), "the last word is never left out");
}

#[test]
fn it_hears_its_timeout_and_its_cancellation() {
    let pool = pool();
    let spec = TaskSpec { timeout_ms: Some(200), grace_ms: Some(60_000), ..child("sleep", json!({ "ms": 600_000 })) };
    let task = run(&pool, spec);
    assert_eq!((verdict(&task), task.state), ("timed-out", TaskState::Timeout), "within its grace: {task:?}");
    let spec = TaskSpec { timeout_ms: Some(200), grace_ms: Some(200), ..child("spin", json!({ "ms": 600_000 })) };
    assert_eq!(verdict(&run(&pool, spec)), "timed-out", "who hears nothing is killed");
    let spec = TaskSpec { grace_ms: Some(60_000), ..child("sleep", json!({ "ms": 600_000 })) };
    let id = pool.submit_spec(spec);
    reaches(&pool, id, TaskState::Running);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"));
}

#[test]
fn actions_have_a_default_timeout_of_their_own() {
    let config = "tasks: {timeoutSeconds: 600}\nactions: {timeoutSeconds: 1}";
    let pool = Pool::start(Options::workers(1).with_actions().config(config));
    assert_eq!(verdict(&run(&pool, child("sleep", json!({ "ms": 600_000 })))), "timed-out");
    let command = TaskSpec { action: Some(Box::default()), ..shell("exec sleep 600", &[]) };
    assert_eq!(verdict(&run(&pool, command)), "timed-out", "a command with parameters is one too");
    let spec = TaskSpec { timeout_ms: Some(600_000), ..child("sleep", json!({ "ms": 1_200 })) };
    assert_eq!(answers(&pool, spec), json!({ "slept": 1_200 }), "its own word goes first");
}

#[test]
fn it_works_in_a_worktree() {
    if !has_git() {
        eprintln!("skipped: git is not installed");
        return;
    }
    let pool = pool();
    let repo = Repo::make(pool.file("repo"));
    let worktree = Worktree { repo: repo.text(), reference: None, commit: repo.head(), keep_changes: false };
    let file = json!({ "name": "made-by-an-action", "text": "x" });
    let left = answers(&pool, TaskSpec { worktree: Some(worktree), ..child("scratch", file) });
    assert!(left["before"].as_u64().unwrap() > 0, "the commit's files are there: {left}");
    assert!(!fs::exists(left["path"].as_str().unwrap()).unwrap() && !repo.file("made-by-an-action").exists());
}

#[test]
fn it_hears_the_warning_of_its_timeout_whatever_the_signal() {
    let pool = pool();
    for soft in [r#"{"beforeMs": 60000}"#, r#"{"beforeMs": 60000, "signal": "TERM"}"#] {
        let soft: SoftTimeout = serde_json::from_str(soft).unwrap();
        let timeout_ms = Some(60_500);
        let warned = TaskSpec { timeout_ms, soft_timeout: Some(soft), ..child("heed", Value::Null) };
        assert_eq!(answers(&pool, warned), json!("warned"));
        let deaf = TaskSpec { timeout_ms, soft_timeout: Some(soft), ..child("sleep", json!({ "ms": 1_000 })) };
        assert_eq!(answers(&pool, deaf), json!({ "slept": 1_000 }), "who does not care goes on");
    }
}

#[test]
fn who_is_told_to_end_by_somebody_else_ends_by_that_signal() {
    let pool = Pool::start(Options::workers(1).with_actions().signals_go_anywhere());
    let id = pool.submit_spec(child("sleep", json!({ "ms": 600_000 })));
    reaches(&pool, id, TaskState::Running);
    let worker = pool.worker_of(id).pid;
    let own = || fs::read_to_string(format!("/proc/{worker}/task/{worker}/children")).unwrap_or_default();
    let is_action =
        |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "acode-action\n");
    wait_until("it has begun", || own().split_ascii_whitespace().any(is_action));
    let pid = own().split_ascii_whitespace().find(|pid| is_action(pid)).unwrap().parse().unwrap();
    // The name comes just before it hears signals.
    common::signal_when_heard(pid, nix::sys::signal::Signal::SIGTERM);
    let task = pool.wait(id);
    assert_eq!((verdict(&task), task.signal), ("signalled", Some(15)), "{task:?}");
}

#[test]
fn its_limits_are_those_of_any_task() {
    let pool = Pool::start(watchful_options(1).with_actions());
    let spec = child("hoard", json!({ "mb": 160, "ms": 600_000 }));
    let task = run(&pool, limited(spec, memory_mb(48, OverLimitAction::Kill)));
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    assert_held_as_here(&pool, &task, "memoryMb");
    let spec = child("hoard", json!({ "mb": 2, "ms": 1 }));
    assert_eq!(answers(&pool, limited(spec, memory_mb(256, OverLimitAction::Kill))), json!(2 << 20));
    let rlimits = Rlimits { file_size_bytes: Some(4_096), ..Rlimits::default() };
    let text = "x".repeat(8_192);
    let spec = TaskSpec { rlimits, ..child("scratch", json!({ "name": "f", "text": text })) };
    let task = run(&pool, spec);
    assert_eq!((verdict(&task), task.signal), ("signalled", Some(25)), "SIGXFSZ: {task:?}");
}

#[test]
fn its_limits_hold_in_a_process_that_is_used_again() {
    let pool = Pool::start(watchful_options(1).with_actions());
    let reused = |mb: u32, ms: u32| {
        let mut spec = child("hoard", json!({ "mb": mb, "ms": ms }));
        spec.action.as_mut().unwrap().reuse = true;
        limited(spec, memory_mb(64, OverLimitAction::Kill))
    };
    for _ in 0..2 {
        assert_eq!(answers(&pool, reused(2, 1)), json!(2 << 20));
        let task = run(&pool, reused(160, 600_000));
        assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
        assert_held_as_here(&pool, &task, "memoryMb");
    }
    // Whoever comes next has a process that nobody has filled.
    assert_eq!(answers(&pool, reused(2, 1)), json!(2 << 20));
}

#[test]
fn a_failed_action_is_tried_again() {
    let pool = pool();
    let retry = Retries { count: Some(2), delay_ms: Some(1), ..Retries::default() };
    let spec = TaskSpec { retry: Some(retry), ..child("fail", json!({ "words": "again" })) };
    let task = run(&pool, spec);
    assert_eq!((task.attempt_count, task.error.as_deref()), (3, Some("again")));
}

#[test]
fn a_sandbox_shows_it_no_more_than_any_task() {
    let hosts = [Options::workers(1).of_user(65534), Options::workers(1)];
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: sandboxes of several users: not root");
        return;
    }
    let no_means = hosts[0].clone().var("ACODE_FAILPOINTS", "worker.sandbox-means@1");
    for (number, options) in hosts.into_iter().chain([no_means]).enumerate() {
        let pool = Pool::start(options.with_actions());
        let sandbox = Sandbox {
            network: Some(NetworkAccess::None),
            filesystem: Some(FileAccess::Scratch),
            devices: Some(DeviceAccess::Minimal),
            ..Sandbox::default()
        };
        let spec = TaskSpec { sandbox: Some(sandbox), ..child("echo", json!("in there")) };
        let first = pool.wait(pool.submit_spec(spec.clone()));
        if first.error.as_deref().is_some_and(|error| error.contains("restricts files from ABI 3 on")) {
            eprintln!("skipped: pool {number}: {}", first.error.unwrap_or_default());
            continue;
        }
        assert_eq!(result(&first), json!("in there"), "pool {number}: {first:?}");
        let left =
            answers(&pool, TaskSpec { action: child("scratch", json!({ "name": "f", "text": "" })).action, ..spec });
        assert_eq!(left["before"], 0, "pool {number}: {left}");
    }
}

#[test]
fn another_user_can_execute_it_wherever_it_lies() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: another user: not root");
        return;
    }
    // In a folder where nobody else may go, and whose name is gone by the time.
    let home = tempfile::Builder::new().prefix("ax-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = home.path().join("acode");
    fs::copy(common::actions::program(), &program).unwrap();
    let pool = Pool::start(Options::workers(1).of_program(program.to_str().unwrap()));
    let sandbox = |filesystem| {
        Some(Sandbox { user: Some("nobody".to_owned()), filesystem: Some(filesystem), ..Sandbox::default() })
    };
    for is_there in [true, false] {
        if !is_there {
            fs::remove_file(&program).unwrap();
        }
        for filesystem in [FileAccess::Host, FileAccess::ReadOnly, FileAccess::Scratch] {
            let world = answers(&pool, TaskSpec { sandbox: sandbox(filesystem), ..child("world", json!({})) });
            let status = world["status"].as_str().unwrap();
            assert!(status.contains("Uid:\t65534\t65534"), "{filesystem:?} {is_there}: {status}");
        }
        assert_eq!(answers(&pool, child("echo", json!(is_there))), json!(is_there));
    }
}

#[test]
fn an_action_that_is_killed_around_its_work_has_no_half_result() {
    let pool = pool();
    for point in ["action.before-run", "action.before-result"] {
        let once = pool.file("struck");
        let mut spec = child("scratch", json!({ "name": "f", "text": "x" }));
        spec.env = [("ACODE_FAILPOINTS", point), ("ACODE_FAILPOINTS_ONCE", once.to_str().unwrap())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let id = pool.submit_spec(spec.clone());
        let task = pool.wait(id);
        assert!(pool.has_struck(point), "{point}: {task:?}");
        assert_eq!(
            (verdict(&task), task.signal, result(&task)),
            ("signalled", Some(9), Value::Null),
            "{point}: {task:?}"
        );
        assert_eq!(answers(&pool, spec)["before"], 0, "{point}: a fresh room for the next one");
    }
}

#[test]
fn a_suspended_action_stands_still() {
    let pool = pool();
    let acode = Acode::of(&pool);
    let id = pool.submit_spec(child("progress", json!({ "steps": 100_000, "ms": 1 })));
    wait_until("it goes on", || pool.show(id).progress.is_some());
    acode.ok(&["task", "suspend", &id.to_string()]);
    wait_until("it stands", || pool.show(id).suspended);
    acode.ok(&["task", "resume", &id.to_string()]);
    wait_until("it goes on", || !pool.show(id).suspended);
    assert!(cancel(&pool, id));
    assert_eq!(verdict(&pool.wait(id)), "cancelled");
}

#[test]
fn a_command_finds_its_params_in_a_file() {
    let pool = Pool::start(Options::workers(1));
    let with = |params: Value, script: &str| {
        let action = Action { params, ..Action::default() };
        TaskSpec { action: Some(Box::new(action)), ..shell(script, &[]) }
    };
    let script = r#"cat "$ACODE_PARAMS" >"$ACODE_RESULT"; echo "$ACODE_ROLE""#;
    let params = json!({ "deep": [1, { "two": "ü\n" }], "long": "x".repeat(10_000) });
    let task = run(&pool, with(params.clone(), script));
    assert_eq!((result(&task), written(&pool, task.id).out()), (params, "\n".to_owned()), "{task:?}");
    assert_eq!(answers(&pool, with(Value::Null, script)), json!({}), "who is told nothing is told an empty object");
    let ruin = r#"rm "$ACODE_PARAMS"; mkdir "$ACODE_PARAMS"; touch "$ACODE_PARAMS/x""#;
    answers(&pool, with(json!(1), ruin));
    assert_eq!(answers(&pool, with(json!(2), script)), json!(2), "a fresh room for the next one");
    let plain = run(&pool, shell(r#"ls "$ACODE_SCRATCH/.."; echo "${ACODE_PARAMS-none}""#, &[]));
    assert_eq!(written(&pool, plain.id).out(), "progress\nscratch\nnone\n");
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--type", "custom", "--params", "[7]", "--", "sh", "-c", script]);
    acode.ok(&["task", "wait", &id]);
    assert_eq!(acode.json(&["task", "show", &id])["result"], json!([7]));
}

#[test]
fn show_and_list_tell_what_an_action_is() {
    let pool = pool();
    let id = pool.submit_spec(child("echo", json!({ "input": "/data/in", "level": 3 })));
    pool.wait(id);
    let acode = Acode::of(&pool);
    let shown = acode.ok(&["task", "show", &id.to_string()]);
    assert!(shown.contains("Action     custom 'echo'\n"), "{shown}");
    assert!(shown.contains("Params     {\n             \"input\": \"/data/in\",\n"), "{shown}");
    assert!(!shown.contains("Command"), "{shown}");
    assert!(acode.ok(&["task", "list"]).contains(" echo "), "its name");
    assert_eq!(acode.json(&["task", "show", &id.to_string()])["action"]["name"], "echo");
}
