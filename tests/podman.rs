//! Tasks in containers of podman, which has no engine: through the real binary, and with storage of each test's own.
//!
//! Where there is no podman each test says why and passes. Deliberately absent: what is the same with docker
//! (`docker.rs`), and containers without root.

mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/podman.rs"]
mod private;

use acode::wire::TaskRef;
use acode::wire::request::{Continue, Stop, Suspend};
use acode::wire::types::{StopMode, TaskRecord};
use acode_worker::task::{Docker, Hold, Isolation, Limits, TaskId, TaskSpec, TaskState, TreeGuard};
use common::{PATIENCE, Pool, eventually, shell, signal, wait_until};
use more::{cancel, command, only_attempt, verdict, written};
use nix::sys::signal::Signal;
use private::Podman;

fn in_container(spec: TaskSpec) -> TaskSpec {
    TaskSpec { isolation: Some(Isolation::Docker), ..spec }
}

#[track_caller]
fn ended(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    let id = pool.submit_spec(in_container(spec));
    pool.wait(id)
}

/// Submits one that runs for long, and waits until it does.
#[track_caller]
fn sleeper(podman: &Podman, pool: &Pool) -> TaskId {
    let id = pool.submit_spec(in_container(command(&["sleep", "1000"])));
    wait_until("it runs", || podman.running().len() == 1);
    wait_until("it is told", || pool.show(id).state == TaskState::Running);
    id
}

fn marks(pool: &Pool) -> Vec<String> {
    let entries = std::fs::read_dir(pool.state_dir().join("containers")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Stops the pool, and looks whether podman or the pool still holds something.
#[track_caller]
fn assert_nothing_left(podman: &Podman, mut pool: Pool) {
    assert!(pool.stop_as(Stop { mode: StopMode::Drain, timeout_ms: Some(10_000) }).success(), "{}", pool.log());
    assert_eq!(podman.containers(), Vec::<String>::new(), "containers are left\n{}", pool.log());
    assert_eq!(podman.keepers(), Vec::<u32>::new(), "keepers are left\n{}", pool.log());
    assert_eq!(marks(&pool), Vec::<String>::new(), "marks are left\n{}", pool.log());
}

/// The client that runs the only container, as the worker's child.
fn client_of(pool: &Pool, id: TaskId) -> u32 {
    let worker = pool.worker_of(id).pid;
    let is_client = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).take(2).collect();
        parent == Some(worker) && words.len() == 2 && words[1] == b"run"
    };
    pool.processes().into_iter().find(is_client).expect("the client of the container")
}

#[test]
fn tasks_run_in_containers_and_say_what_they_would_elsewhere() {
    let Some(podman) = Podman::start() else { return };
    let pool = Pool::start(podman.options(2, ""));
    let script =
        r#"echo out; echo err >&2; cat; echo "$ONE"; echo '{"n":1}' >"$ACODE_RESULT"; touch mine; pwd; exit 7"#;
    std::fs::write(pool.file("input"), "from a file\n").unwrap();
    let mut spec = shell(script, &[]);
    spec.stdin = Some(pool.path("input"));
    spec.env = [("ONE".to_owned(), "secret\ntwo".to_owned())].into();
    let task = ended(&pool, spec);
    assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "exited"), "{task:?}\n{}", pool.log());
    let attempt = only_attempt(&task);
    assert_eq!((attempt.exit_code, attempt.leaked), (Some(7), false), "{attempt:?}");
    assert_eq!((attempt.isolation, attempt.tree_guard), (Some(Isolation::Docker), Some(TreeGuard::Engine)));
    let said = written(&pool, task.id);
    assert!(said.out().starts_with("out\nfrom a file\nsecret\ntwo\n/"), "{}", said.out());
    assert_eq!(said.err(), "err\n");
    assert_eq!(task.result.as_ref().map(|result| result.get()), Some(r#"{"n":1}"#));
    let task = ended(&pool, command(&["true"]));
    assert_eq!((task.state, only_attempt(&task).leaked), (TaskState::Completed, false), "{task:?}");
    assert_nothing_left(&podman, pool);
}

#[test]
fn what_cannot_be_started_is_told_from_what_ends_with_the_same_code() {
    let Some(podman) = Podman::start() else { return };
    let pool = Pool::start(podman.options(1, ""));
    let refused = |spec: TaskSpec| {
        let task = ended(&pool, spec);
        assert_eq!(verdict(&task), "not-started", "{task:?}\n{}", pool.log());
        only_attempt(&task).reason.clone().unwrap_or_default()
    };
    assert!(refused(command(&["/no/such/program"])).contains("No such file"));
    assert!(refused(command(&["/home"])).contains("ermission denied"));
    let image = Some("no-such-image:1".to_owned());
    let why = refused(TaskSpec { docker: Some(Docker { image, ..Docker::default() }), ..command(&["true"]) });
    assert!(why.contains("no-such-image:1"), "{why}");
    for code in [1, 125, 126, 127, 137] {
        let task = ended(&pool, shell(&format!("exit {code}"), &[]));
        assert_eq!((verdict(&task), only_attempt(&task).exit_code), ("exited", Some(code)), "{task:?}");
    }
    assert_nothing_left(&podman, pool);
}

#[test]
fn timeout_cancellation_and_suspension_reach_the_container() {
    let Some(podman) = Podman::start() else { return };
    let pool = Pool::start(podman.options(2, ""));
    let polite = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let polite = in_container(TaskSpec { timeout_ms: Some(4_000), ..shell(polite, &[]) });
    let deaf = shell("trap '' TERM; while :; do sleep 0.1; done", &[]);
    let deaf = in_container(TaskSpec { timeout_ms: Some(4_000), grace_ms: Some(300), ..deaf });
    let (polite, deaf) = (pool.submit_spec(polite), pool.submit_spec(deaf));
    for id in [polite, deaf] {
        let task = pool.wait(id);
        assert_eq!((verdict(&task), only_attempt(&task).leaked), ("timed-out", false), "{task:?}");
    }
    assert_eq!(written(&pool, polite).out(), "up\nbye\n");
    let id = sleeper(&podman, &pool);
    assert_eq!(pool.call(&Suspend { ids: vec![TaskRef::Id(id)] }).suspended, [id]);
    let paused = |count| {
        wait_until("paused or not", || podman.podman(&["ps", "-q", "--filter", "status=paused"]).len() == count)
    };
    paused(1);
    assert_eq!(pool.call(&Continue { ids: vec![TaskRef::Id(id)] }).resumed, [id]);
    paused(0);
    assert_eq!(pool.call(&Suspend { ids: vec![TaskRef::Id(id)] }).suspended, [id]);
    paused(1);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((verdict(&task), only_attempt(&task).leaked), ("cancelled", false), "{task:?}");
    assert_nothing_left(&podman, pool);
}

#[test]
fn limits_are_held_and_want_of_memory_is_told() {
    let Some(podman) = Podman::start() else { return };
    let pool = Pool::start(podman.options(1, ""));
    let limits = Limits { memory_mb: Some(48), pids: Some(40), ..Limits::default() };
    let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1";
    let task = ended(&pool, TaskSpec { limits, ..shell(busy, &[]) });
    let attempt = only_attempt(&task);
    for wanted in ["memoryMb", "pids"] {
        let is_held = attempt.limits.iter().any(|held| held.limit == wanted && held.hold == Hold::Enforced);
        assert!(is_held, "{wanted}: {:?}", attempt.limits);
    }
    let usage = attempt.usage.unwrap();
    assert!(usage.user_us + usage.system_us > 50_000, "{usage:?}");
    assert!(usage.peak_memory_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
    let task = ended(
        &pool,
        TaskSpec { limits, ..shell("head -c 200000000 /dev/zero | tail; code=$?; sleep 1; exit $code", &[]) },
    );
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    assert_nothing_left(&podman, pool);
}

#[test]
fn a_container_that_loses_its_client_is_ended_and_its_task_runs_again() {
    let Some(podman) = Podman::start() else { return };
    let pool = Pool::start(podman.options(1, ""));
    let script = format!("[ -e '{0}' ] && exit 0; touch '{0}'; sleep 1000", "$ACODE_CHECKPOINT/seen");
    let script = script.replace('\'', "\"");
    let id = pool.submit_spec(in_container(TaskSpec { checkpoint: true, grace_ms: Some(500), ..shell(&script, &[]) }));
    wait_until("it runs", || podman.running().len() == 1);
    wait_until("it has begun", || pool.show(id).state == TaskState::Running);
    wait_until("it has left its sign", || podman.podman(&["ps", "-q"]).len() == 1);
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(client_of(&pool, id), Signal::SIGKILL);
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    let attempts = task.attempts.clone().unwrap_or_default();
    assert_eq!(attempts[0].verdict.as_deref(), Some("engine-failed"), "{attempts:?}");
    assert!(attempts.iter().all(|attempt| !attempt.leaked), "{attempts:?}");
    assert_nothing_left(&podman, pool);
}

#[test]
fn a_worker_or_a_keeper_that_is_killed_leaves_nothing() {
    let Some(podman) = Podman::start() else { return };
    let pool = Pool::start(podman.options(1, "  sweepIntervalSeconds: 1\n"));
    let id = sleeper(&podman, &pool);
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    let lost = || pool.show(id).attempts.iter().flatten().any(|one| one.verdict.as_deref() == Some("worker-lost"));
    wait_until("its end is told", lost);
    cancel(&pool, id);
    pool.wait(id);
    let is_clean = || podman.containers().is_empty() && marks(&pool).is_empty() && podman.keepers().is_empty();
    assert!(eventually(PATIENCE, is_clean), "{:?} {:?}\n{}", podman.containers(), marks(&pool), pool.log());
    let id = sleeper(&podman, &pool);
    let keepers = podman.keepers();
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    signal(keepers[0], Signal::SIGKILL);
    // Its container goes on without it, and is still to be ended.
    cancel(&pool, id);
    let task = pool.wait(id);
    assert_ne!(task.state, TaskState::Completed, "{task:?}");
    assert!(task.attempts.iter().flatten().all(|attempt| !attempt.leaked), "{task:?}");
    assert_nothing_left(&podman, pool);
}

#[test]
fn a_supervisor_that_is_killed_leaves_nothing_to_the_next() {
    let Some(podman) = Podman::start() else { return };
    let mut pool = Pool::start(podman.options(1, "  sweepIntervalSeconds: 1\n"));
    let id = sleeper(&podman, &pool);
    pool.kill9();
    pool.restart();
    wait_until("it runs again or has ended", || podman.running().len() == 1 || pool.show(id).state.is_final());
    cancel(&pool, id);
    pool.wait(id);
    let is_clean = || podman.containers().is_empty() && marks(&pool).is_empty() && podman.keepers().is_empty();
    assert!(eventually(PATIENCE, is_clean), "{:?} {:?}\n{}", podman.containers(), marks(&pool), pool.log());
    assert_nothing_left(&podman, pool);
}
