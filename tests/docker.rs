//! Tasks in containers, through the real binary and a real engine of each test's own.
//!
//! After each test the engine holds nothing of ours. Where there is no engine each test says why and passes. Deliberately
//! absent: what happens when somebody is killed or hangs (`docker_faults.rs`).

mod common;
#[path = "common/docker.rs"]
mod docker;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use acode::wire::TaskRef;
use acode::wire::request::{Continue, Suspend};
use acode_worker::task::{
    Docker, Hold, Isolation, Limits, SoftTimeout, TaskId, TaskSpec, TaskState, TreeGuard, UsageSource,
};
use common::engine::Engine;
use common::{Pool, shell, wait_until};
use docker::{assert_nothing_left, ended, in_container, options, pool, seconds, within_ms};
use more::{cancel, command, only_attempt, output_of, reaches, verdict, written};

#[test]
fn a_task_runs_in_a_container_and_tells_all_that_it_would_as_a_process() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let script = r#"echo out; echo err >&2; echo '{"n":1}' >"$ACODE_RESULT"; echo "50 half" >"$ACODE_PROGRESS"
        touch mine; stat -c %u mine; pwd; echo "$ACODE_SCRATCH"; hostname; exit 7"#;
    let task = ended(&pool, shell(script, &[]));
    assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "exited"), "{task:?}\n{}", pool.log());
    let attempt = only_attempt(&task);
    assert_eq!(attempt.exit_code, Some(7));
    assert_eq!((attempt.isolation, attempt.tree_guard), (Some(Isolation::Docker), Some(TreeGuard::Engine)));
    let said = written(&pool, task.id);
    let out = said.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines[0], said.err().as_str()), ("out", "err\n"), "{lines:?}");
    assert_eq!(lines[1], nix::unistd::geteuid().to_string(), "files belong to the pool's user");
    assert_eq!(lines[2], lines[3], "the scratch directory is where it is on the host");
    assert_eq!(lines[4].len(), 12, "a host name of its own: {lines:?}");
    assert_eq!(task.result.as_ref().map(|result| result.get()), Some(r#"{"n":1}"#));
    assert_nothing_left(&engine, pool);
}

#[test]
fn standard_input_and_variables_arrive_and_stand_on_no_command_line() {
    let Some(mut engine) = Engine::start() else { return };
    let cli = engine.recording_cli();
    let pool = pool(&engine, 1, &format!("  program: {}\n", cli.program()));
    std::fs::write(pool.file("input"), "from a file\n").unwrap();
    let mut spec = shell(r#"cat; printf '%s|%s|%s' "$ONE" "$TWO" "$ACODE_META_KIND""#, &[]);
    spec.stdin = Some(pool.path("input"));
    spec.env = [("ONE", "secret-one"), ("TWO", "secret\ntwo")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    spec.meta = [("kind".to_owned(), "secret-three".to_owned())].into();
    assert_eq!(output_of(&pool, spec), "from a file\nsecret-one|secret\ntwo|secret-three");
    let words = cli.calls().concat().join(" ");
    assert!(words.contains("--env-file=") && !words.contains("secret"), "{words}");
    assert_nothing_left(&engine, pool);
    engine.stop_daemon();
}

#[test]
fn nothing_of_the_hosts_environment_is_inside_and_nothing_of_the_tasks_is_shown_outside() {
    let Some(engine) = Engine::start() else { return };
    let pool =
        Pool::start(options(&engine, 1, "").var("TOP_SECRET", "of-the-host").var("LD_LIBRARY_PATH", "/of-the-host"));
    let mut spec = in_container(shell("env; exec sleep 1000", &[]));
    spec.env = [("OWN_SECRET".to_owned(), "of-the-task".to_owned())].into();
    let id = pool.submit_spec(spec);
    reaches(&pool, id, TaskState::Running);
    wait_until("it runs", || engine.running().len() == 1);
    let told = |file: &str| {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let texts = processes.filter_map(|entry| Some((entry.path(), fs::read(entry.path().join(file)).ok()?)));
        let telling = texts.filter(|(_, text)| text.windows(11).any(|part| part == b"of-the-task"));
        telling.map(|(path, _)| fs::read_to_string(path.join("comm")).unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(told("cmdline"), [""; 0], "on a command line");
    // It is in the container's own environment alone, the client has none of it.
    assert!(
        told("environ").iter().all(|name| ["docker-init", "sleep", "tini"].contains(&name.trim())),
        "{:?}",
        told("environ")
    );
    for entry in fs::read_dir(pool.state_dir().join("containers")).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
    }
    assert!(cancel(&pool, id));
    pool.wait(id);
    let said = written(&pool, id).out();
    assert!(said.contains("OWN_SECRET=of-the-task\n") && !said.contains("of-the-host"), "{said}");
    assert!(!said.contains("DOCKER_"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("PATH=/usr/local/sbin:")), "the image's own: {said}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn what_speaks_before_its_cgroup_is_found_is_counted_all_the_same() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    // The place of its cgroups is this engine's own, and told by the engine alone.
    let task = ended(&pool, shell("echo at once; exec sleep $1", &[&seconds(3)]));
    let attempt = only_attempt(&task);
    let usage = attempt.usage.unwrap();
    assert_eq!(usage.source, UsageSource::Cgroup, "{attempt:?}");
    assert!(usage.peak_memory_bytes.is_some_and(|bytes| bytes > 10_000), "{usage:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn what_cannot_be_started_says_why_and_whose_fault_it_is() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let refused = |spec: TaskSpec| {
        let task = ended(&pool, spec);
        let attempt = only_attempt(&task);
        assert_eq!(verdict(&task), "not-started", "{task:?}\n{}", written(&pool, task.id).err());
        assert_eq!(attempt.isolation, Some(Isolation::Docker));
        attempt.reason.clone().unwrap_or_default()
    };
    let why = refused(command(&["/no/such/program"]));
    assert!(why.contains("/no/such/program"), "{why}");
    let why = refused(command(&["/etc"]));
    assert!(why.to_lowercase().contains("permission denied"), "{why}");
    let image = Some("no-such-image:1".to_owned());
    let why = refused(TaskSpec { docker: Some(Docker { image, ..Docker::default() }), ..command(&["true"]) });
    assert!(why.contains("no-such-image:1"), "{why}");
    // The same codes, by tasks that did start.
    for code in [1, 125, 126, 127, 137] {
        let task = ended(&pool, shell(&format!("exit {code}"), &[]));
        assert_eq!((verdict(&task), only_attempt(&task).exit_code), ("exited", Some(code)));
    }
    assert_nothing_left(&engine, pool);
}

#[test]
fn timeout_and_cancellation_end_the_container_by_term_and_by_kill() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 3, "");
    let polite = TaskSpec {
        timeout_ms: Some(within_ms(2_500)),
        ..shell("trap 'echo bye; exit 3' TERM; while :; do sleep 0.1; done", &[])
    };
    let deaf = TaskSpec {
        timeout_ms: Some(within_ms(2_500)),
        grace_ms: Some(300),
        ..shell("trap '' TERM; while :; do sleep 0.1; done", &[])
    };
    let (polite, deaf) = (pool.submit_spec(polite), pool.submit_spec(deaf));
    let endless = pool.submit_spec(command(&["sleep", "1000"]));
    reaches(&pool, endless, TaskState::Running);
    wait_until("three run", || engine.running().len() == 3);
    assert!(cancel(&pool, endless));
    let tasks = [polite, deaf, endless].map(|id| pool.wait(id));
    assert_eq!(tasks.each_ref().map(verdict), ["timed-out", "timed-out", "cancelled"], "{tasks:?}");
    assert!(tasks.iter().all(|task| !only_attempt(task).leaked), "{tasks:?}");
    assert_eq!(written(&pool, polite).out(), "bye\n");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_warning_comes_before_the_timeout() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let spec = |script: &str| TaskSpec {
        timeout_ms: Some(within_ms(20_000)),
        soft_timeout: Some(SoftTimeout { before_ms: within_ms(17_000), signal: "SIGUSR1".parse().unwrap() }),
        ..shell(script, &[])
    };
    let task = ended(&pool, spec("trap 'echo warned; exit 0' USR1; while :; do sleep 0.1; done"));
    assert_eq!((task.state, written(&pool, task.id).out().as_str()), (TaskState::Completed, "warned\n"), "{task:?}");
    let task = ended(&pool, spec("sleep 1000"));
    assert_eq!(verdict(&task), "timed-out", "who is ended by the warning has timed out: {task:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_suspended_container_is_paused_and_goes_on_or_ends() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let suspend = |id: TaskId| assert_eq!(pool.call(&Suspend { ids: vec![TaskRef::Id(id)] }).suspended, [id]);
    let is_paused = |paused: &str| {
        wait_until("it is paused, or not", || {
            let all = engine.running();
            all.len() == 1 && engine.inspect(&all[0], "{{.State.Paused}}") == paused
        });
    };
    let id = pool.submit_spec(in_container(shell("sleep $1; echo done", &[&seconds(2)])));
    reaches(&pool, id, TaskState::Running);
    wait_until("it runs", || engine.running().len() == 1);
    suspend(id);
    is_paused("true");
    std::thread::sleep(Duration::from_millis(within_ms(2_500)));
    assert_eq!(pool.call(&Continue { ids: vec![TaskRef::Id(id)] }).resumed, [id]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let id = pool.submit_spec(in_container(command(&["sleep", "1000"])));
    wait_until("it runs", || engine.running().len() == 1);
    suspend(id);
    is_paused("true");
    assert!(cancel(&pool, id));
    assert_eq!(verdict(&pool.wait(id)), "cancelled");
    assert_nothing_left(&engine, pool);
}

#[test]
fn limits_are_held_and_read_back_and_want_of_memory_is_told() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let limits = Limits { memory_mb: Some(48), cpu_percent: Some(50), pids: Some(40), ..Limits::default() };
    let task = ended(&pool, TaskSpec { limits, ..shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done", &[]) });
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    let attempt = only_attempt(&task);
    let held: Vec<_> = attempt.limits.iter().map(|held| (held.limit.as_str(), held.value, held.hold)).collect();
    for wanted in [("memoryMb", 48), ("cpuPercent", 50), ("pids", 40)] {
        assert!(held.contains(&(wanted.0, wanted.1, Hold::Enforced)), "{:?}", attempt.limits);
    }
    let usage = attempt.usage.unwrap();
    assert!(usage.peak_memory_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
    let hungry = TaskSpec { limits, ..shell("head -c 200000000 /dev/zero | tail", &[]) };
    let task = ended(&pool, hungry);
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    let held = &task.attempts.as_ref().unwrap().last().unwrap().limits;
    assert!(held.iter().any(|held| held.limit == "memoryMb" && held.exceeded), "{held:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_scratch_directory_has_its_limit_in_a_container_too() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let limits =
        Limits { disk_mb: Some(8), action: Some(acode_worker::task::OverLimitAction::Kill), ..Limits::default() };
    let task = ended(&pool, TaskSpec { limits, ..shell("head -c 30000000 /dev/zero >big; sleep 100", &[]) });
    assert_eq!(verdict(&task), "over-limit", "{task:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_container_that_is_drained_is_given_back_and_left_nowhere() {
    let Some(engine) = Engine::start() else { return };
    let mut pool = pool(&engine, 1, "");
    let id = pool.submit_spec(in_container(command(&["sleep", "1000"])));
    wait_until("it runs", || engine.running().len() == 1);
    let stop = acode::wire::request::Stop { mode: acode::wire::types::StopMode::Drain, timeout_ms: Some(300) };
    assert!(pool.stop_as(stop).success());
    assert_eq!(engine.containers(), Vec::<String>::new());
    pool.restart();
    wait_until("it runs again", || engine.running().len() == 1);
    assert!(cancel(&pool, id));
    assert_eq!(verdict(&pool.wait(id)), "cancelled");
    assert_nothing_left(&engine, pool);
}

#[test]
fn nobody_elses_container_is_touched() {
    let Some(engine) = Engine::start() else { return };
    let label = ["--label", "acode.pool=0123456789", "--label", "acode.task=0", "--label", "acode.worker=0"];
    let arguments = [&["run", "--detach", "--network=none"][..], &label, &[engine.image(), "sleep", "1000"]].concat();
    let others = engine.docker(&arguments);
    let pool = Pool::start(options(&engine, 1, "  sweepIntervalSeconds: 1\n"));
    let task = ended(&pool, in_container(command(&["true"])));
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    std::thread::sleep(Duration::from_secs(2));
    let mut pool = pool;
    assert!(pool.stop().success());
    assert_eq!((engine.running(), engine.containers()), (vec![others.clone()], vec![others]));
}

#[test]
fn a_stop_by_force_leaves_no_container() {
    let Some(engine) = Engine::start() else { return };
    let mut pool = Pool::start(options(&engine, 2, ""));
    let stubborn = "trap '' TERM; while :; do sleep 1; done";
    let ids = [0, 1].map(|_| pool.submit_spec(in_container(shell(stubborn, &[]))));
    wait_until("both run", || engine.running().len() == 2);
    ids.iter().for_each(|id| drop(reaches(&pool, *id, TaskState::Running)));
    assert!(pool.stop().success());
    assert_eq!(engine.containers_labelled("acode.pool"), [""; 0]);
    // What it has taken back runs again.
    pool.restart();
    wait_until("both run again", || engine.running().len() == 2);
    for id in ids {
        assert!(cancel(&pool, id));
        assert_eq!(pool.wait(id).state, TaskState::Cancelled);
    }
}
