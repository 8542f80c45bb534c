//! Containers when somebody is killed, hangs, or goes away: client, worker, supervisor, engine.
//!
//! Each fault is made for real. Afterwards every task has ended once and as it should, and the engine holds nothing of
//! ours. Deliberately absent: containers that nobody disturbs (`docker.rs`).

mod common;
#[path = "common/docker.rs"]
mod docker;
#[path = "common/more.rs"]
mod more;

use acode::wire::types::TaskRecord;
use acode_worker::task::{Isolation, TaskId, TaskSpec, TaskState};
use common::engine::{Engine, HangingSocket};
use common::{Options, PATIENCE, Pool, eventually, shell, signal, wait_until};
use docker::{assert_nothing_left, comes_clean, ended, in_container, marks, options, pool};
use more::{cancel, command, only_attempt, reaches, verdict};
use nix::sys::signal::Signal;

/// The client that runs a task's container.
fn client_of(task: TaskId) -> Option<u32> {
    let name = format!("--name=acode-{}", task.to_string().to_lowercase());
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
    })
}

/// A task that runs for ever at its first attempt and is done at once at the second.
fn once_endless() -> TaskSpec {
    in_container(shell(
        r#"[ "$ACODE_ATTEMPT" = 1 ] && [ ! -e "$ACODE_CHECKPOINT/seen" ] || exit 0
        touch "$ACODE_CHECKPOINT/seen"; exec sleep 1000"#,
        &[],
    ))
}

fn with_checkpoint(spec: TaskSpec) -> TaskSpec {
    TaskSpec { checkpoint: true, ..spec }
}

/// How a task's attempts ended.
fn verdicts(task: &TaskRecord) -> Vec<&str> {
    task.attempts.iter().flatten().filter_map(|attempt| attempt.verdict.as_deref()).collect()
}

/// Submits a task and waits until its container runs.
fn running(engine: &Engine, pool: &Pool, spec: TaskSpec) -> TaskId {
    let id = pool.submit_spec(spec);
    reaches(pool, id, TaskState::Running);
    wait_until("its container runs", || {
        engine.containers_labelled(&format!("acode.task={id}")).iter().any(|one| engine.running().contains(one))
    });
    wait_until("it has begun", || client_of(id).is_some());
    id
}

#[test]
fn a_killed_client_is_the_engines_fault_and_the_task_runs_again() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let id = running(&engine, &pool, with_checkpoint(once_endless()));
    signal(client_of(id).unwrap(), Signal::SIGKILL);
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    assert_eq!(verdicts(&task), ["engine-failed", "exited"], "{task:?}");
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_killed_worker_leaves_a_container_that_is_removed_before_the_next_attempt() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "");
    let id = running(&engine, &pool, with_checkpoint(once_endless()));
    let first = engine.running();
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    assert!(!engine.running().iter().any(|one| first.contains(one)), "the first container is gone");
    assert_nothing_left(&engine, pool);
}

#[test]
fn containers_of_a_killed_pool_are_found_by_the_next() {
    let Some(engine) = Engine::start() else { return };
    let mut pool = pool(&engine, 2, "  sweepIntervalSeconds: 1\n");
    let ids: Vec<TaskId> = (0..2).map(|_| pool.submit_spec(in_container(command(&["sleep", "1000"])))).collect();
    wait_until("both run", || engine.running().len() == 2);
    for process in pool.processes() {
        signal(process, Signal::SIGKILL);
    }
    pool.kill9();
    assert_eq!(engine.running().len(), 2, "nobody was there to end them");
    pool.restart();
    let first = engine.running();
    wait_until("both run again", || ids.iter().all(|id| client_of(*id).is_some()) && engine.running().len() == 2);
    ids.iter().for_each(|id| assert!(cancel(&pool, *id)));
    ids.iter().for_each(|id| assert_eq!(verdict(&pool.wait(*id)), "cancelled"));
    comes_clean(&engine, &pool);
    drop(first);
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_killed_supervisor_takes_its_containers_along() {
    let Some(engine) = Engine::start() else { return };
    let mut pool = pool(&engine, 1, "");
    let id = pool.submit_spec(in_container(command(&["sleep", "1000"])));
    wait_until("it runs", || engine.running().len() == 1);
    pool.kill9();
    wait_until("its worker ends it", || engine.running().is_empty());
    pool.restart();
    wait_until("it runs again", || engine.running().len() == 1);
    assert!(cancel(&pool, id));
    pool.wait(id);
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_killed_engine_burns_nothing_and_is_used_again_when_it_is_back() {
    let Some(mut engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "  callTimeoutSeconds: 2\n");
    let id = running(&engine, &pool, with_checkpoint(once_endless()));
    engine.kill_daemon();
    wait_until("the pool knows", || pool.events().iter().any(|event| event.event == "docker-unavailable"));
    assert_ne!(pool.show(id).state, TaskState::Completed);
    engine.restart();
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    assert_eq!(verdicts(&task), ["engine-failed", "exited"], "{task:?}");
    assert!(pool.events().iter().any(|event| event.event == "docker-available"));
    comes_clean(&engine, &pool);
    assert_nothing_left(&engine, pool);
}

#[test]
fn a_frozen_engine_holds_nobody_up() {
    let Some(engine) = Engine::start() else { return };
    let pool = pool(&engine, 1, "  callTimeoutSeconds: 2\n  sweepIntervalSeconds: 1\n");
    let spec = TaskSpec { timeout_ms: Some(4_000), grace_ms: Some(200), ..in_container(command(&["sleep", "1000"])) };
    let id = running(&engine, &pool, spec);
    engine.freeze();
    let task = pool.wait(id);
    assert_eq!(verdict(&task), "timed-out", "{task:?}\n{}", pool.log());
    let attempt = only_attempt(&task);
    assert!(!attempt.leaked, "it was killed without the engine: {attempt:?}");
    assert!(!marks(&pool).is_empty(), "what is not known to be removed keeps its mark");
    engine.thaw();
    comes_clean(&engine, &pool);
    let task = ended(&pool, command(&["true"]));
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
    assert_nothing_left(&engine, pool);
}

#[test]
fn tasks_that_need_no_container_fall_back_to_processes_and_the_others_wait() {
    let Some(mut engine) = Engine::start() else { return };
    engine.stop_daemon();
    let pool = pool(&engine, 1, "  callTimeoutSeconds: 2\n");
    let any = pool.submit_spec(command(&["true"]));
    let task = pool.wait(any);
    assert_eq!(
        (task.state, only_attempt(&task).isolation),
        (TaskState::Completed, Some(Isolation::Process)),
        "{task:?}"
    );
    let waits = pool.submit_spec(in_container(command(&["true"])));
    engine.restart();
    let task = pool.wait(waits);
    assert_eq!(
        (task.state, only_attempt(&task).isolation),
        (TaskState::Completed, Some(Isolation::Docker)),
        "{task:?}"
    );
    let back = pool.submit_spec(command(&["true"]));
    assert_eq!(only_attempt(&pool.wait(back)).isolation, Some(Isolation::Docker));
    assert_nothing_left(&engine, pool);
}

#[test]
fn an_engine_that_accepts_and_never_answers_is_no_engine() {
    let hanging = HangingSocket::start();
    let yaml = "workers:\n  mode: docker\ndocker:\n  image: x:1\n  callTimeoutSeconds: 1\n";
    let pool = Pool::start(hanging.options(Options::workers(1).config(yaml)));
    let id = pool.submit_spec(command(&["true"]));
    let task = pool.wait(id);
    assert_eq!(
        (task.state, only_attempt(&task).isolation),
        (TaskState::Completed, Some(Isolation::Process)),
        "{task:?}"
    );
    let waits = pool.submit_spec(in_container(command(&["true"])));
    assert!(hanging.accepted() > 0 && pool.show(waits).state == TaskState::Pending);
    assert!(cancel(&pool, waits));
}

#[test]
fn a_container_that_does_not_begin_in_time_is_the_engines_fault() {
    let Some(mut engine) = Engine::start() else { return };
    // The first three times.
    let script = format!(
        r#"f={}/runs; [ "$1" != run ] || {{ echo x >>"$f"; [ $(wc -l <"$f") -gt 2 ] || sleep 1000; }}"#,
        engine.folder().display()
    );
    let cli = engine.scripted_cli(&script);
    let pool = pool(&engine, 1, &format!("  program: {}\n  startTimeoutSeconds: 5\n", cli.program()));
    let task = ended(&pool, command(&["true"]));
    assert_eq!(verdicts(&task), ["engine-failed", "engine-failed", "exited"], "{task:?}\n{}", pool.log());
    assert!(task.attempts.iter().flatten().next().and_then(|one| one.reason.as_deref()).unwrap().contains("in time"));
    assert_nothing_left(&engine, pool);
    engine.stop_daemon();
}

#[test]
fn a_name_that_an_old_container_of_ours_has_is_freed_and_anybody_elses_is_not() {
    let Some(mut engine) = Engine::start() else { return };
    // Just before a container is made there is another one of its name: first one of ours, then a stranger's.
    let script = format!(
        r#"f={}/runs; [ "$1" != run ] || {{ echo x >>"$f"; n=$(wc -l <"$f"); for a in "$@"; do case "$a" in
            --name=*) name=$a;; --label=acode.pool=*) pool=$a;; --label=acode.task=*) task=$a;; esac; done
            [ $n != 1 ] || docker create $name $pool $task {image} true >/dev/null
            [ $n != 3 ] || docker create $name --label other=1 {image} true >/dev/null; }}"#,
        engine.folder().display(),
        image = engine.image(),
    );
    let cli = engine.scripted_cli(&script);
    let pool = pool(&engine, 1, &format!("  program: {}\n", cli.program()));
    let task = ended(&pool, command(&["true"]));
    assert_eq!(verdicts(&task), ["exited"], "{task:?}\n{}", pool.log());
    let id = pool.submit_spec(in_container(command(&["true"])));
    wait_until("it has failed once", || !verdicts(&pool.show(id)).is_empty());
    assert_eq!(verdicts(&pool.show(id))[0], "engine-failed");
    let others = engine.containers_labelled("other=1");
    assert_eq!(others.len(), 1, "a stranger's container is not touched");
    engine.docker(&["rm", &others[0]]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert_nothing_left(&engine, pool);
    engine.stop_daemon();
}

#[test]
fn a_worker_that_is_killed_anywhere_leaves_nothing_for_good() {
    const POINTS: [&str; 9] = [
        "docker.after-mark",
        "docker.after-run",
        "docker.before-inspect",
        "docker.after-stop",
        "docker.before-remove",
        "docker.after-remove",
        "docker.before-unmark",
        "docker.before-sweep",
        "worker.before-report",
    ];
    let Some(engine) = Engine::start() else { return };
    for point in POINTS {
        let pool = Pool::start(options(&engine, 2, "  sweepIntervalSeconds: 1\n").dies_once_at(point));
        let failing = in_container(shell("exit 3", &[]));
        let mut ids: Vec<TaskId> = (0..4).map(|_| pool.submit_spec(in_container(command(&["true"])))).collect();
        ids.push(pool.submit_spec(failing));
        if ["docker.after-stop", "docker.before-sweep"].contains(&point) {
            // A client is lost, and then a worker.
            let id = running(&engine, &pool, with_checkpoint(once_endless()));
            match point {
                "docker.after-stop" => signal(client_of(id).unwrap(), Signal::SIGKILL),
                _ => signal(pool.worker_of(id).pid, Signal::SIGKILL),
            }
            ids.push(id);
        }
        let states: Vec<TaskState> = ids.iter().map(|id| pool.wait(*id).state).collect();
        let expected = |at: usize| if at == 4 { TaskState::Failed } else { TaskState::Completed };
        assert!(
            states.iter().enumerate().all(|(at, state)| *state == expected(at)),
            "{point}: {states:?}\n{}",
            pool.log()
        );
        assert!(eventually(PATIENCE, || pool.has_struck(point)), "nobody passed {point}\n{}", pool.log());
        comes_clean(&engine, &pool);
        assert_nothing_left(&engine, pool);
    }
}
