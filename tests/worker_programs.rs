//! Worker programs and reused processes: what passes over their pipes, what becomes of them, and that tasks of other kinds
//! neither see nor touch them.
//!
//! Most tests use one program (`ODD`) whose tasks say what it is to do wrong. Deliberately absent: the examples of the
//! documentation, which `worker_examples.rs` runs, and deaths at failpoints (`program_faults.rs`).

mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/programs.rs"]
mod programs;

use acode::wire::TaskRef;
use acode::wire::request::{Continue, Reload, Submit, Suspend};
use acode::wire::types::TaskRecord;
use acode_worker::task::{
    Action, Isolation, Limits, Retries, Sandbox, SoftTimeout, TaskSignal, TaskSpec, TaskState, TreeGuard,
};
use common::actions::action;
use common::{Options, Pool, is_alive, shell, signal, wait_until};
use more::{cancel, entry, gated, only_attempt, open_gate, reaches, verdict, written};
use nix::sys::signal::Signal;
use programs::{answer, error, odd, pid_of, plain, result};
use serde_json::json;

fn one() -> Pool {
    Pool::start(Options::workers(1))
}

/// What an attempt that was never started was refused with.
fn reason(task: &TaskRecord) -> String {
    only_attempt(task).reason.clone().unwrap_or_default()
}

#[test]
fn one_process_does_one_task_after_another_and_is_told_all_about_them() {
    let pool = one();
    let mut spec = odd(&pool, json!({"do": "tell"}));
    spec.meta.insert("who".to_owned(), "me".to_owned());
    spec.timeout_ms = Some(60_000);
    spec.checkpoint = true;
    let first = answer(&pool, spec);
    let second = answer(&pool, odd(&pool, json!({"do": "tell"})));
    assert_eq!(first["pid"], second["pid"]);
    let told = &first["told"];
    assert_eq!((&told["protocol"], &told["attempt"], &told["slot"]), (&json!(1), &json!(1), &json!(0)), "{told}");
    assert_eq!(
        (&told["action"], &told["name"], &told["meta"]),
        (&json!("custom"), &json!("odd"), &json!({"who": "me"}))
    );
    assert_eq!(told["scratch"], told["cwd"]);
    assert!(told["deadline"].as_u64().unwrap() > 1_600_000_000_000 && second["told"]["deadline"].is_null());
    assert!(told["checkpoint"].as_str().unwrap().starts_with('/') && second["told"]["checkpoint"].is_null());
    let environment = &first["environment"];
    assert_eq!(environment["ACODE_PROTOCOL"], "1");
    assert!(environment["ACODE_TASK_ID"].is_null() && environment["ACODE_ROLE"].is_null(), "{environment}");
}

#[test]
fn output_progress_and_files_are_the_tasks_own() {
    let pool = one();
    let mut spec = odd(&pool, json!({"do": "speak", "out": "hello\n", "err": "oh\n", "raw": "raw\n", "file": "made"}));
    spec.artifacts = vec!["made".to_owned()];
    let id = pool.submit_spec(spec);
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    let written = written(&pool, id);
    assert_eq!(
        (written.out().as_str(), written.err().contains("oh\n") && written.err().contains("raw\n")),
        ("hello\n", true)
    );
    let progress = task.progress.as_ref().unwrap();
    assert_eq!((progress.percent, progress.message.as_deref()), (50, Some("half")));
    let attempt = only_attempt(&task);
    assert_eq!(attempt.artifacts.as_ref().map(|kept| kept.files), Some(1), "{attempt:?}");
    assert_eq!(attempt.isolation, Some(Isolation::Process));
    // The next one finds nothing of it.
    assert_eq!(answer(&pool, odd(&pool, json!({"do": "list"})))["files"], json!([]));
}

#[test]
fn an_error_is_a_failure_and_the_program_lives_on() {
    let pool = one();
    let pid = pid_of(&pool);
    let failed = |payload| {
        let task = pool.wait(pool.submit_spec(odd(&pool, payload)));
        (verdict(&task).to_owned(), task.exit_code, error(&task))
    };
    assert_eq!(failed(json!({"do": "fail", "words": "no"})), ("exited".into(), Some(1), "no".into()));
    assert_eq!(failed(json!({"do": "fail", "words": "no", "code": 7})).1, Some(7));
    assert_eq!(failed(json!({"do": "fail", "words": "no", "code": 0})).1, Some(1));
    assert!(failed(json!({"do": "big"})).2.contains("larger than"));
    assert_eq!(pid_of(&pool), pid);
}

#[test]
fn one_that_dies_at_a_task_ends_it_as_it_ended_itself() {
    let pool = one();
    for (payload, name, code, number) in [
        (json!({"do": "die", "code": 3, "words": "my last words"}), "exited", Some(3), None),
        (json!({"do": "die", "code": 0, "words": "my last words"}), "exited", Some(1), None),
        (json!({"do": "die", "signal": 9, "words": "my last words"}), "signalled", None, Some(9)),
    ] {
        let before = pid_of(&pool);
        let task = pool.wait(pool.submit_spec(odd(&pool, payload)));
        assert_eq!((verdict(&task), task.exit_code, task.signal), (name, code, number), "{task:?}");
        assert!(error(&task).contains("without an answer") && error(&task).contains("my last words"), "{task:?}");
        assert_ne!(pid_of(&pool), before);
    }
}

#[test]
fn a_death_is_a_failure_that_is_retried() {
    let pool = one();
    let mut spec = odd(&pool, json!({"do": "die-once", "mark": pool.path("mark")}));
    spec.retry = Some(Retries { count: Some(2), ..Retries::default() });
    let task = pool.wait(pool.submit_spec(spec));
    assert_eq!((task.state, programs::attempts(&task)), (TaskState::Completed, 2), "{task:?}");
}

#[test]
fn one_that_answers_and_leaves_has_answered() {
    let pool = one();
    let first = answer(&pool, odd(&pool, json!({"do": "leave"})));
    assert_ne!(pid_of(&pool), first["pid"].as_u64().unwrap() as u32);
}

#[test]
fn a_death_between_two_tasks_is_nobodys_failure() {
    let pool = one();
    let pid = pid_of(&pool);
    signal(pid, Signal::SIGKILL);
    wait_until("it is dead", || !is_alive(pid));
    assert_ne!(pid_of(&pool), pid);
    // And one that speaks when it was not asked is replaced.
    let talker = answer(&pool, odd(&pool, json!({"do": "talk-later", "mark": pool.path("said")})))["pid"].clone();
    wait_until("it has spoken", || !pool.lines("said").is_empty());
    assert_ne!(u64::from(pid_of(&pool)), talker.as_u64().unwrap());
}

#[test]
fn garbage_ends_the_task_and_the_program() {
    let pool = one();
    for (payload, words) in [
        (json!({"do": "say", "text": "Traceback: ouch\n"}), "no message"),
        (json!({"do": "say", "text": "{\"type\":\"reslut\"}\n"}), "no message"),
        (json!({"do": "say", "text": "[1,2]\n"}), "no message"),
        (json!({"do": "say", "text": "{\"type\":\"ready\"}\n"}), "ready while it had a task"),
        (json!({"do": "say", "text": "{\"type\":\"result\",\"id\":\"X\",\"payload\":1}\n"}), "does not have"),
        (json!({"do": "twice"}), "gone on after its answer"),
        (json!({"do": "flood", "newline": false}), "more than"),
        (json!({"do": "flood", "newline": true}), "more than"),
    ] {
        let before = pid_of(&pool);
        let task = pool.wait(pool.submit_spec(odd(&pool, payload.clone())));
        assert_eq!(
            (task.state, verdict(&task), task.exit_code),
            (TaskState::Failed, "exited", Some(1)),
            "{payload}: {task:?}"
        );
        assert!(error(&task).contains(words) && error(&task).len() <= 4096, "{payload}: {}", error(&task));
        assert!(!is_alive(before), "{payload}");
        assert_ne!(pid_of(&pool), before);
    }
}

#[test]
fn any_number_of_lines_may_come_at_once() {
    let pool = one();
    let pid = pid_of(&pool);
    for (lines, bytes) in [(63, 0), (64, 0), (65, 0), (66, 0), (1000, 0), (10_000, 0), (64, 65_536), (100, 65_536)] {
        let spec = odd(&pool, json!({"do": "burst", "lines": lines, "bytes": bytes}));
        let task = pool.wait(pool.submit_spec(TaskSpec { timeout_ms: Some(30_000), ..spec }));
        assert_eq!(task.state, TaskState::Completed, "{lines} lines, {bytes} bytes: {task:?}");
        assert_eq!(written(&pool, task.id).out().len(), lines - 1);
    }
    assert_eq!(pid_of(&pool), pid);
}

#[test]
fn one_whose_child_never_stops_writing_errors_is_heard_all_the_same() {
    let pool = one();
    let first = answer(&pool, odd(&pool, json!({"do": "noisy"})));
    let next = TaskSpec { timeout_ms: Some(30_000), ..odd(&pool, json!({"do": "tell"})) };
    assert_eq!(answer(&pool, next)["pid"], first["pid"]);
}

#[test]
fn a_closed_standard_input_is_the_failure_of_no_other_task() {
    let pool = one();
    let with = |what: &str| {
        let task = pool.wait(pool.submit_spec(TaskSpec {
            timeout_ms: Some(30_000),
            ..plain(&pool, json!({"do": what, "mark": pool.path("closed")}))
        }));
        let pid = task.result.is_some().then(|| result(&task).as_u64().unwrap());
        (task, pid)
    };
    // Before it has answered: nothing could be told to it any more.
    let (task, _) = with("close");
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(1)), "{task:?}");
    assert!(error(&task).contains("closed its standard input"), "{task:?}");
    // While it waits, and just when it is handed a task.
    for what in ["close-idle", "close-late"] {
        let (first, pid) = with(what);
        assert_eq!(first.state, TaskState::Completed, "{first:?}");
        if what == "close-idle" {
            // Or was found out already, and sent away.
            let gone = || pid.is_some_and(|pid| !is_alive(pid as u32));
            wait_until("it has closed its input", || !pool.lines("closed").is_empty() || gone());
        }
        let (second, next) = with("nothing");
        assert_eq!(second.state, TaskState::Completed, "{what}: {second:?}");
        assert_ne!(next, pid);
        assert!(!is_alive(pid.unwrap() as u32), "{what}");
    }
}

#[test]
fn what_is_said_too_late_is_not_held_against_a_task_that_nobody_has_read() {
    let pool = one();
    let first = answer(&pool, plain(&pool, json!({"do": "again-late"})));
    let second = pool.wait(pool.submit_spec(plain(&pool, json!({"do": "nothing"}))));
    // It has no retries, and needs none: the attempt that was not begun does not count.
    assert_eq!(second.state, TaskState::Completed, "{second:?}");
    assert_ne!(result(&second), first);
}

#[test]
fn what_cannot_be_done_is_refused_when_it_is_submitted() {
    let pool = one();
    let refused = |spec: TaskSpec| pool.try_call(&Submit::new(vec![entry(spec)])).unwrap_err().to_string();
    let program = |words: &[&str]| {
        let mut spec = odd(&pool, json!({}));
        spec.action.as_mut().unwrap().program = words.iter().map(|&word| word.to_owned()).collect();
        spec
    };
    let stdin = Some("/dev/null".to_owned());
    let words = refused(TaskSpec { stdin: stdin.clone(), ..program(&["cat"]) });
    assert!(words.contains("stdin and a worker program"), "{words}");
    let mut reused = action(Isolation::Process, "echo", json!({}));
    reused.action.as_mut().unwrap().reuse = true;
    let words = refused(TaskSpec { stdin, ..reused });
    assert!(words.contains("stdin and a worker program"), "{words}");
    let words = refused(program(&["./worker"]));
    assert!(words.contains("action.program './worker' is not an absolute path"), "{words}");
    let words = refused(TaskSpec { command: vec!["bin/tool".to_owned()], ..TaskSpec::default() });
    assert!(words.contains("command 'bin/tool' is not an absolute path"), "{words}");
    let words = refused(TaskSpec { on_finish: vec!["./tell".to_owned()], cwd: Some("/".into()), ..shell("true", &[]) });
    assert!(words.contains("onFinish './tell' is not an absolute path"), "{words}");
    // From a directory that is named, everybody can tell where it is.
    let spec = TaskSpec { cwd: Some("/usr/bin".into()), ..program(&["./python3", "-S", &pool.path("odd.py")]) };
    let spec = TaskSpec {
        action: spec.action.map(|action| Box::new(Action { params: json!({"do": "tell"}), ..*action })),
        ..spec
    };
    answer(&pool, spec);
    let task = pool.wait(pool.submit_spec(TaskSpec {
        cwd: Some("/bin".into()),
        command: vec!["./true".into()],
        ..TaskSpec::default()
    }));
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
}

#[test]
fn a_variable_that_acode_gives_to_programs_cannot_be_forged() {
    let pool = one();
    let seen = |forged: &[String]| {
        let mut spec = plain(&pool, json!({"do": "nothing"}));
        spec.env.extend(forged.iter().map(|name| (name.clone(), "forged".to_owned())));
        let pid = answer(&pool, spec).as_u64().unwrap();
        std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap()
    };
    let plain = seen(&[]);
    let names = plain.split_terminator('\0').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned());
    let names: Vec<String> = names.filter(|name| name.starts_with("ACODE_")).collect();
    assert!(names.iter().any(|name| name == "ACODE_PROTOCOL"), "{names:?}");
    assert_eq!(seen(&names), plain);
}

#[test]
fn one_that_never_becomes_ready_is_a_program_that_cannot_be_started() {
    let pool = one();
    let with = |script: &str| {
        let mut spec = odd(&pool, json!({}));
        let action = spec.action.as_mut().unwrap();
        action.program = ["sh", "-c", script].map(str::to_owned).to_vec();
        spec
    };
    let ended = |spec| {
        let task = pool.wait(pool.submit_spec(spec));
        assert_eq!(verdict(&task), "not-started", "{task:?}");
        reason(&task)
    };
    let died = ended(with("echo my last words >&2; exit 4"));
    assert!(died.contains("exited(4) before it was ready") && died.contains("my last words"), "{died}");
    let silent = ended(TaskSpec { start_timeout_ms: Some(300), ..with("echo $$ >>pids; exec sleep 300") });
    assert!(silent.contains("ready within 270 ms"), "{silent}");
    let garbage = ended(with("echo hello; exec sleep 300"));
    assert!(garbage.contains("no message") && garbage.contains("hello"), "{garbage}");
    let mute = ended(with("exec >&-; exec sleep 300"));
    assert!(mute.contains("closed its standard output"), "{mute}");
    let mut missing = with("");
    missing.action.as_mut().unwrap().program = vec!["/nowhere/worker".to_owned()];
    let missing = ended(missing);
    assert!(missing.contains("cannot execute '/nowhere/worker'"), "{missing}");
    let no_cwd = ended(TaskSpec { cwd: Some("/nowhere".into()), ..with("") });
    assert!(no_cwd.contains("cannot enter '/nowhere'"), "{no_cwd}");
}

#[test]
fn a_task_is_ended_by_a_message_and_the_program_lives_on() {
    let pool = one();
    let pid = pid_of(&pool);
    let timed_out = TaskSpec { timeout_ms: Some(200), grace_ms: Some(60_000), ..odd(&pool, json!({"do": "heed"})) };
    let task = pool.wait(pool.submit_spec(timed_out));
    assert_eq!((verdict(&task), error(&task)), ("timed-out", "told: timeout".to_owned()), "{task:?}");
    let id = pool.submit_spec(TaskSpec { grace_ms: Some(60_000), ..odd(&pool, json!({"do": "heed"})) });
    reaches(&pool, id, TaskState::Running);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, error(&task)), (TaskState::Cancelled, "told: cancel".to_owned()), "{task:?}");
    let mut warned = odd(&pool, json!({"do": "heed"}));
    warned.timeout_ms = Some(60_000);
    warned.soft_timeout = Some(SoftTimeout { before_ms: 59_900, signal: TaskSignal::default() });
    assert_eq!(answer(&pool, warned)["left"], 59_900);
    assert_eq!(pid_of(&pool), pid);
}

#[test]
fn one_that_does_not_hear_is_killed_with_all_that_it_has_started() {
    let pool = one();
    let pid = pid_of(&pool);
    let payload = json!({"do": "ignore", "pids": pool.path("pids")});
    let spec = TaskSpec { timeout_ms: Some(300), grace_ms: Some(100), ..odd(&pool, payload) };
    let task = pool.wait(pool.submit_spec(spec));
    assert_eq!(verdict(&task), "timed-out", "{task:?}");
    let pids: Vec<u32> = pool.lines("pids").iter().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().chain([&pid]).all(|pid| !is_alive(*pid)), "{pids:?}");
    assert_ne!(pid_of(&pool), pid);
}

#[test]
fn one_that_reads_nothing_or_says_nothing_holds_nobody_up() {
    let pool = one();
    let large = "x".repeat(900_000);
    // It is ready and never reads: what it is to be told does not fit into its pipe.
    let mut spec = odd(&pool, json!(large));
    let program = ["sh", "-c", r#"echo '{"type":"ready"}'; exec sleep 300"#];
    spec.action.as_mut().unwrap().program = program.map(str::to_owned).to_vec();
    let task = pool.wait(pool.submit_spec(TaskSpec { timeout_ms: Some(300), grace_ms: Some(100), ..spec }));
    assert_eq!(verdict(&task), "timed-out", "{task:?}");
    // One that reads slowly gets all of it.
    let slow = answer(&pool, odd(&pool, json!({"do": "measure", "text": large})));
    assert_eq!(slow["length"], 900_000);
    let task = pool.wait(pool.submit_spec(odd(&pool, json!({"do": "close"}))));
    assert!(error(&task).contains("closed its standard output"), "{task:?}");
    let busy = pool.submit_spec(odd(&pool, json!({"do": "half-a-line"})));
    reaches(&pool, busy, TaskState::Running);
    assert!(cancel(&pool, busy));
    assert_eq!(pool.wait(busy).state, TaskState::Cancelled);
}

fn leaves_are_killed(pool: &Pool) {
    let before = pid_of(pool);
    let id = pool.submit_spec(odd(pool, json!({"do": "orphan", "pids": pool.path("pids")})));
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    assert!(only_attempt(&task).leaked, "{task:?}");
    let orphan: u32 = pool.lines("pids")[0].parse().unwrap();
    assert!(!is_alive(orphan) && !is_alive(before));
    // Helpers that it keeps are its own.
    let helped = answer(pool, odd(pool, json!({"do": "helper"})));
    let helper = helped["helper"].as_u64().unwrap() as u32;
    assert!(is_alive(helper) && helped["pid"] == pid_of(pool));
    assert!(is_alive(helper));
    // And they go with it.
    signal(pid_of(pool), Signal::SIGKILL);
    pid_of(pool);
    assert!(!is_alive(helper));
}

#[test]
fn what_a_task_leaves_running_goes_with_its_program() {
    leaves_are_killed(&one());
}

#[test]
fn what_a_task_leaves_running_goes_with_its_program_without_cgroups_too() {
    if let Some(pool) = programs::without_cgroups() {
        leaves_are_killed(&pool);
    }
}

/// Commands run, leak, are suspended and killed beside an idle program that neither notices nor is noticed.
fn commands_and_programs_do_not_meet(pool: &Pool, guard: TreeGuard) {
    let helped = answer(pool, odd(pool, json!({"do": "helper"})));
    let (pid, helper) = (pid_of(pool), helped["helper"].as_u64().unwrap() as u32);
    let plain = pool.wait(pool.submit(&["true"]));
    assert_eq!((plain.state, only_attempt(&plain).leaked), (TaskState::Completed, false), "{plain:?}");
    assert_eq!(only_attempt(&plain).tree_guard, Some(guard));
    let leaky = shell(
        "sh -c 'echo $$ >>\"$1\"; exec sleep 300' sh \"$1\" & while [ ! -s \"$1\" ]; do :; done",
        &[&pool.path("leaked")],
    );
    let leaky = pool.wait(pool.submit_spec(leaky));
    assert!(only_attempt(&leaky).leaked, "{leaky:?}");
    assert!(!is_alive(pool.lines("leaked")[0].parse().unwrap()));
    assert!(is_alive(pid) && is_alive(helper));
    let held = pool.submit_spec(gated(pool, "never"));
    reaches(pool, held, TaskState::Running);
    assert_eq!(pool.call(&Suspend { ids: vec![TaskRef::Id(held)] }).suspended, [held]);
    assert!(programs::state_of(pid) == 'S' && programs::state_of(helper) == 'S');
    assert_eq!(pool.call(&Continue { ids: vec![TaskRef::Id(held)] }).resumed, [held]);
    assert!(cancel(pool, held));
    assert_eq!(pool.wait(held).state, TaskState::Cancelled);
    let slow = pool.wait(
        pool.submit_spec(TaskSpec { timeout_ms: Some(100), ..shell("trap '' TERM; sleep 300 & sleep 300", &[]) }),
    );
    assert_eq!(verdict(&slow), "timed-out");
    assert!(is_alive(helper));
    assert_eq!(pid_of(pool), pid);
    // One that dies while a command runs does not end that, nor is it taken for a part of it.
    let running = pool.submit_spec(gated(pool, "gate"));
    reaches(pool, running, TaskState::Running);
    signal(pid, Signal::SIGKILL);
    wait_until("it is dead", || !is_alive(pid));
    open_gate(pool, "gate");
    let running = pool.wait(running);
    assert_eq!(running.state, TaskState::Completed);
    assert!(guard == TreeGuard::Subreaper || !only_attempt(&running).leaked, "{running:?}");
    assert_ne!(pid_of(pool), pid);
    assert!(!is_alive(helper));
}

#[test]
fn commands_and_programs_neither_see_nor_touch_each_other() {
    let pool = Pool::start(Options::workers(1).config("workers:\n  killGraceMs: 1000"));
    let guard = only_attempt(&pool.wait(pool.submit(&["true"]))).tree_guard.unwrap();
    commands_and_programs_do_not_meet(&pool, guard);
}

#[test]
fn commands_and_programs_neither_see_nor_touch_each_other_without_cgroups() {
    if let Some(pool) = programs::without_cgroups() {
        commands_and_programs_do_not_meet(&pool, TreeGuard::Subreaper);
    }
}

#[test]
fn a_suspended_task_stands_still_with_its_program() {
    let pool = one();
    let pid = pid_of(&pool);
    let id = pool.submit_spec(odd(&pool, json!({"do": "tick", "file": pool.path("ticks")})));
    wait_until("it ticks", || pool.lines("ticks").len() > 3);
    assert_eq!(pool.call(&Suspend { ids: vec![TaskRef::Id(id)] }).suspended, [id]);
    wait_until("it stands still", || {
        let before = pool.lines("ticks").len();
        std::thread::sleep(std::time::Duration::from_millis(150));
        pool.lines("ticks").len() == before
    });
    assert_eq!(pool.call(&Continue { ids: vec![TaskRef::Id(id)] }).resumed, [id]);
    let before = pool.lines("ticks").len();
    wait_until("it ticks again", || pool.lines("ticks").len() > before);
    assert!(cancel(&pool, id));
    assert_eq!(pool.wait(id).state, TaskState::Cancelled);
    assert_eq!(pid_of(&pool), pid);
}

#[test]
fn different_beginnings_are_different_processes_and_four_of_them_are_kept() {
    let pool = one();
    let with = |value: u32| {
        let mut spec = odd(&pool, json!({"do": "tell"}));
        spec.env.insert("KIND".to_owned(), value.to_string());
        let told = answer(&pool, spec);
        assert_eq!(told["environment"]["KIND"], value.to_string());
        told["pid"].as_u64().unwrap() as u32
    };
    let first: Vec<u32> = (0..4).map(with).collect();
    assert_eq!((0..4).map(with).collect::<Vec<_>>(), first);
    // The one that was not used for the longest time goes.
    with(4);
    wait_until("the first has gone", || !is_alive(first[0]));
    assert!(first[1..].iter().all(|pid| is_alive(*pid)));
    assert_eq!(with(1), first[1]);
    assert_ne!(with(0), first[0]);
    let limited =
        TaskSpec { limits: Limits { disk_mb: Some(64), ..Limits::default() }, ..odd(&pool, json!({"do": "tell"})) };
    assert!(!first.contains(&(answer(&pool, limited)["pid"].as_u64().unwrap() as u32)));
}

#[test]
fn the_pools_own_program_does_what_nobody_else_does_and_follows_the_configuration() {
    let pool = Pool::prepare(Options::workers(1));
    let mut pool = pool;
    programs::write_odd(&pool);
    let config = |level: &str| {
        let yaml =
            format!("log:\n  level: {level}\nactions:\n  program: [{}, {}]\n", programs::PYTHON, pool.path("odd.py"));
        std::fs::write(pool.file("acode.yaml"), yaml).unwrap();
    };
    config("debug");
    pool.restart();
    let tell = || {
        let mut spec = odd(&pool, json!({"do": "tell"}));
        spec.action.as_mut().unwrap().program.clear();
        answer(&pool, spec)["pid"].as_u64().unwrap() as u32
    };
    let pid = tell();
    assert_eq!(tell(), pid);
    let yaml = std::fs::read_to_string(pool.file("acode.yaml")).unwrap();
    std::fs::write(pool.file("acode.yaml"), format!("{yaml}workers:\n  killGraceMs: 3000\n")).unwrap();
    pool.call(&Reload {});
    wait_until("another process does it", || tell() != pid);
    wait_until("the old one has gone", || !is_alive(pid));
}

#[test]
fn a_sandbox_shows_each_task_its_own_directory() {
    let pool = one();
    let sandbox = Some(Sandbox { filesystem: Some(acode_worker::task::FileAccess::ReadOnly), ..Sandbox::default() });
    let spec = |name: &str| TaskSpec { sandbox: sandbox.clone(), ..odd(&pool, json!({"do": "write", "name": name})) };
    let task = pool.wait(pool.submit_spec(spec("first")));
    if verdict(&task) == "not-started" {
        return eprintln!("sandboxes cannot be had here: {}", reason(&task));
    }
    let first = result(&task);
    let second = answer(&pool, spec("second"));
    assert_eq!((&first["files"], &second["files"]), (&json!(["first"]), &json!(["second"])));
    assert_eq!(first["pid"], second["pid"]);
    assert!(only_attempt(&task).sandbox.is_some());
}

#[test]
fn what_an_attempt_uses_is_its_own_part() {
    let pool = one();
    let burn = |ms: u64| {
        let task = pool.wait(pool.submit_spec(odd(&pool, json!({"do": "burn", "ms": ms}))));
        let usage = only_attempt(&task).usage.unwrap();
        usage.user_us + usage.system_us
    };
    let (long, short) = (burn(700), burn(1));
    assert!(long >= 500_000, "{long}");
    assert!(short < long / 2, "{short} of {long}");
}

#[test]
fn a_stop_lets_programs_leave_and_kills_those_that_stay() {
    let mut pool = Pool::start(Options::workers(1).config("workers:\n  killGraceMs: 1000"));
    let mut spec = odd(&pool, json!({"do": "tell"}));
    spec.env.insert("FAREWELL".to_owned(), pool.path("farewell"));
    let polite = answer(&pool, spec)["pid"].as_u64().unwrap() as u32;
    let stubborn = answer(&pool, odd(&pool, json!({"do": "stay"})))["pid"].as_u64().unwrap() as u32;
    pool.call(&acode::wire::request::Stop { mode: acode::wire::types::StopMode::Drain, timeout_ms: None });
    assert!(pool.wait_exit().success(), "{}", pool.log());
    assert_eq!(pool.lines("farewell"), ["shutdown"]);
    assert!(!is_alive(polite) && !is_alive(stubborn));
}

#[test]
fn a_killed_worker_takes_its_programs_along_and_a_running_task_runs_again() {
    let pool = one();
    let idle = pid_of(&pool);
    signal(pool.idle_workers()[0].pid, Signal::SIGKILL);
    wait_until("the program has gone with it", || !is_alive(idle));
    let id = pool.submit_spec(odd(&pool, json!({"do": "once", "mark": pool.path("mark")})));
    wait_until("it runs", || pool.lines("mark").len() == 1);
    let busy: u32 = pool.lines("mark")[0].parse().unwrap();
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    let task = pool.wait(id);
    assert_eq!((task.state, programs::attempts(&task)), (TaskState::Completed, 2), "{task:?}");
    assert!(!is_alive(busy));
}

#[test]
fn actions_in_a_reused_process_are_the_same_as_in_one_of_their_own() {
    let pool = Pool::start(Options::workers(1).with_actions());
    let reused = |name: &str, params| {
        let mut spec = action(Isolation::Process, name, params);
        spec.action.as_mut().unwrap().reuse = true;
        spec
    };
    let run = |name: &str, params| pool.wait(pool.submit_spec(reused(name, params)));
    let own_pid = || {
        let id = pool.submit_spec(reused("sleep", json!({"ms": 60_000})));
        reaches(&pool, id, TaskState::Running);
        let pids = programs::children_of(pool.worker_of(id).pid);
        assert!(cancel(&pool, id));
        assert_eq!(pool.wait(id).state, TaskState::Cancelled);
        pids
    };
    assert_eq!(result(&run("echo", json!({"a": [1, "ä"]}))), json!({"a": [1, "ä"]}));
    let pids = own_pid();
    assert_eq!(pids.len(), 1);
    let failed = run("fail", json!({"words": "no"}));
    assert_eq!((verdict(&failed), failed.exit_code, error(&failed)), ("exited", Some(1), "no".to_owned()));
    let panicked = run("panic", json!({"words": "ouch"}));
    assert_eq!((panicked.exit_code, error(&panicked)), (Some(101), "panicked: ouch".to_owned()));
    let printed = run("print", json!({"out": "out ä\n", "err": "err\n", "times": 2}));
    let output = written(&pool, printed.id);
    assert_eq!((output.out(), output.err()), ("out ä\n".repeat(2), "err\n".repeat(2)));
    let stepped = run("progress", json!({"steps": 4, "ms": 1}));
    assert_eq!(stepped.progress.map(|progress| progress.percent), Some(100));
    let unknown = run("nothing-like-that", json!({}));
    assert_eq!(verdict(&unknown), "not-started", "{unknown:?}");
    assert_eq!(own_pid(), pids);
    // One that takes the process along is a death like any other's.
    let exited = run("exit", json!({"code": 9}));
    assert_eq!((verdict(&exited), exited.exit_code), ("exited", Some(9)), "{exited:?}");
    assert_ne!(own_pid(), pids);
}
