//! Every verdict that an attempt can end with here, and what the task says about itself on the way.
//!
//! Out-of-memory and over-limit need limits by cgroup, which are not there yet. Deliberately absent: what the task
//! finds around itself (`environment.rs`), timeouts and cancellation in detail (`timeouts.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use acode::wire::types::{Progress, TaskRecord};
use acode_worker::task::{RESULT_MAX, TaskSpec, TaskState};
use common::{Options, Pool, is_alive, shell, signal, wait_until};
use more::{cancel, command, gated, only_attempt, open_gate, reaches, verdict};
use nix::sys::signal::Signal;

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    let id = pool.submit_spec(spec);
    pool.wait(id)
}

#[test]
fn an_exit_code_is_reported_as_it_is() {
    let pool = Pool::start(Options::workers(1));
    for code in [0, 1, 2, 42, 125, 126, 127, 128, 130, 137, 139, 143, 255] {
        let task = run(&pool, shell(&format!("exit {code}"), &[]));
        let state = if code == 0 { TaskState::Completed } else { TaskState::Failed };
        // 137 in particular is what a process chose to exit with, and no word on memory.
        assert_eq!((task.state, verdict(&task), task.exit_code), (state, "exited", Some(code)));
        assert_eq!(task.signal, None);
        assert_eq!(only_attempt(&task).exit_code, Some(code));
    }
}

#[test]
fn a_signal_from_elsewhere_is_reported_as_it_is() {
    let pool = Pool::start(Options::workers(1));
    for number in [1, 2, 6, 9, 10, 13, 14, 15, 24, 25] {
        let task = run(&pool, shell(&format!("kill -{number} $$"), &[]));
        assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "signalled"), "signal {number}");
        assert_eq!((task.signal, task.exit_code), (Some(number), None));
        assert_eq!(only_attempt(&task).signal, Some(number));
    }
}

#[test]
fn a_core_dump_is_a_signal_all_the_same() {
    let pool = Pool::start(Options::workers(1).config("workers:\n  rlimits:\n    coreBytes: 18446744073709551615"));
    let task = run(&pool, shell("kill -SEGV $$", &[]));
    assert_eq!((task.state, verdict(&task), task.signal), (TaskState::Failed, "signalled", Some(11)));
}

#[test]
fn a_task_that_is_cancelled_before_or_while_it_runs_says_so() {
    let pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    let pending = pool.submit(&["true"]);
    assert!(cancel(&pool, pending) && cancel(&pool, running));
    let task = pool.wait(pending);
    assert_eq!((task.state, task.verdict, task.attempts.map(|all| all.len())), (TaskState::Cancelled, None, Some(0)));
    let task = pool.wait(running);
    assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"));
}

#[test]
fn a_task_that_takes_its_workers_with_it_is_quarantined() {
    let pool = Pool::start(Options::workers(1).signals_go_anywhere().config("workers:\n  maxWorkerLosses: 2"));
    // Its parent is the worker.
    let task = run(&pool, shell("kill -KILL $PPID; sleep 1000", &[]));
    assert_eq!((task.state, verdict(&task), task.attempt_count), (TaskState::Failed, "worker-lost", 2));
    assert!(task.attempts.unwrap().iter().all(|attempt| attempt.verdict.as_deref() == Some("worker-lost")));
    assert_eq!(run(&pool, command(&["true"])).state, TaskState::Completed, "the pool goes on");
}

#[track_caller]
fn not_started(pool: &Pool, spec: TaskSpec, why: &str) {
    let task = run(pool, spec);
    assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "not-started"), "{task:?}");
    let error = task.error.clone().unwrap_or_default();
    assert!(error.contains(why), "'{error}' does not say '{why}'");
    assert_eq!((task.exit_code, task.signal), (None, None));
    assert_eq!(only_attempt(&task).reason.as_deref(), Some(error.as_str()));
}

fn write(pool: &Pool, name: &str, content: &str, mode: u32) -> String {
    fs::write(pool.file(name), content).unwrap();
    fs::set_permissions(pool.file(name), fs::Permissions::from_mode(mode)).unwrap();
    pool.path(name)
}

#[test]
fn a_program_that_cannot_be_started_says_why() {
    let pool = Pool::start(Options::workers(1));
    let missing = "No such file or directory";
    not_started(&pool, command(&["/nonexistent/program"]), missing);
    not_started(&pool, command(&["no-such-program-anywhere"]), missing);
    let plain = write(&pool, "plain", "#!/bin/sh\n", 0o600);
    not_started(&pool, command(&[&plain]), "Permission denied");
    let lost = write(&pool, "lost", "#!/nonexistent/interpreter\n", 0o700);
    not_started(&pool, command(&[&lost]), missing);
    let garbage = write(&pool, "garbage", "\u{1}\u{2}\u{3}", 0o700);
    not_started(&pool, command(&[&garbage]), "Exec format error");
    not_started(&pool, command(&["/tmp"]), "Permission denied");
    let through = write(&pool, "file", "", 0o600) + "/program";
    not_started(&pool, command(&[&through]), "Not a directory");
    assert_eq!(run(&pool, command(&["true"])).state, TaskState::Completed);
}

#[test]
fn a_place_or_an_input_that_is_missing_says_so() {
    let pool = Pool::start(Options::workers(1));
    let cwd = |path: &str| TaskSpec { cwd: Some(path.to_owned()), ..command(&["true"]) };
    not_started(&pool, cwd("/nonexistent"), "cannot enter '/nonexistent': No such file or directory");
    not_started(&pool, cwd("/etc/passwd"), "cannot enter '/etc/passwd': Not a directory");
    let stdin = |path: &str| TaskSpec { stdin: Some(path.to_owned()), ..command(&["true"]) };
    not_started(&pool, stdin("/nonexistent"), "cannot read '/nonexistent': No such file or directory");
}

#[test]
fn a_fifo_as_standard_input_is_refused_and_does_not_hang_the_worker() {
    let pool = Pool::start(Options::workers(1));
    let fifo = pool.path("fifo");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    not_started(&pool, TaskSpec { stdin: Some(fifo), ..command(&["cat"]) }, "a FIFO");
    assert_eq!(run(&pool, command(&["true"])).state, TaskState::Completed);
}

#[test]
fn what_is_left_running_is_killed_and_told() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"setsid sh -c 'echo $$ >"$1"; exec sleep 1000' sh "$1" </dev/null >/dev/null 2>&1 &
        while [ ! -s "$1" ]; do sleep 0.01; done"#;
    let task = run(&pool, shell(script, &[&pool.path("pid")]));
    assert_eq!((task.state, task.exit_code), (TaskState::Completed, Some(0)), "the leader's end is what counts");
    assert!(only_attempt(&task).leaked);
    assert!(!is_alive(pool.lines("pid")[0].parse().unwrap()));
    let clean = run(&pool, shell("sleep 0.05 & wait", &[]));
    assert!(!only_attempt(&clean).leaked);
}

#[test]
fn nothing_is_left_after_a_task() {
    let pool = Pool::start(Options::workers(1));
    let worker = pool.idle_workers().remove(0);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", worker.pid)).unwrap().count();
    let busy_work = r#"mkdir -p a/b; echo x >a/b/c; ln -s / root; mkfifo f; chmod 0 a; echo o; echo e >&2
        echo 1 >$ACODE_RESULT; echo pid $$ >"$1"; pwd >>"$1""#;
    run(&pool, shell(busy_work, &[&pool.path("facts")]));
    let before = descriptors();
    for _ in 0..20 {
        run(&pool, shell(busy_work, &[&pool.path("facts")]));
    }
    assert_eq!(descriptors(), before, "no descriptor is left");
    let scratch = pool.lines("facts")[1].clone();
    let left = fs::read_dir(&scratch).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(left, 0, "{scratch} is empty or gone");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", worker.pid)).unwrap();
    assert_eq!(children, "");
}

#[test]
fn a_result_and_an_error_text_are_kept() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"echo '{"a": [1, 2.5, "x"]}' >$ACODE_RESULT; echo "  something broke " >$ACODE_ERROR; exit 3"#;
    let task = run(&pool, shell(script, &[]));
    let result: serde_json::Value = serde_json::from_str(task.result.unwrap().get()).unwrap();
    assert_eq!(result, serde_json::json!({ "a": [1, 2.5, "x"] }));
    assert_eq!((task.error.as_deref(), task.exit_code), (Some("something broke"), Some(3)));
    let next = run(&pool, command(&["true"]));
    assert!(next.result.is_none() && next.error.is_none(), "it is not the next task's");
}

#[test]
fn a_result_that_is_none_is_refused_with_a_reason() {
    let pool = Pool::start(Options::workers(1));
    for (script, why) in [
        ("echo '{nonsense' >$ACODE_RESULT", "not JSON"),
        ("head -c 70000 /dev/zero | tr '\\0' 1 >$ACODE_RESULT", "larger than"),
        ("mkdir $ACODE_RESULT", "not a regular file"),
        ("ln -s /etc/passwd $ACODE_RESULT", "not a regular file"),
        ("mkfifo $ACODE_RESULT", "not a regular file"),
    ] {
        let task = run(&pool, shell(script, &[]));
        assert_eq!(task.state, TaskState::Completed, "{script}");
        assert!(task.result.is_none());
        let error = task.error.unwrap_or_default();
        assert!(error.contains(why), "{script}: '{error}' does not say '{why}'");
    }
    let largest = format!("printf '\"%s\"' $(head -c {} /dev/zero | tr '\\0' x) >$ACODE_RESULT", RESULT_MAX - 2);
    assert_eq!(run(&pool, shell(&largest, &[])).result.unwrap().get().len(), RESULT_MAX);
}

#[test]
fn a_result_deeper_than_any_reader_takes_does_no_harm() {
    let pool = Pool::start(Options::workers(1));
    let task = run(&pool, shell("head -c 60000 /dev/zero | tr '\\0' '[' >$ACODE_RESULT", &[]));
    assert!(task.result.is_none() && task.error.is_some());
}

#[test]
fn progress_is_reported_while_the_task_runs() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"echo "12.4 half of it" >$ACODE_PROGRESS; while [ ! -e "$1" ]; do sleep 0.02; done
        echo nonsense >$ACODE_PROGRESS; echo "99 nearly" >$ACODE_PROGRESS"#;
    let id = pool.submit_spec(shell(script, &[&pool.path("gate")]));
    let said = |percent, message: &str| Some(Progress { percent, message: Some(message.to_owned()) });
    wait_until("its progress shows", || pool.show(id).progress == said(12, "half of it"));
    assert_eq!(pool.show(id).state, TaskState::Running);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(id).progress, said(99, "nearly"), "the last word stays");
    assert!(more::events_of(&pool.events(), id).contains(&"task-progress"));
    assert_eq!(run(&pool, command(&["true"])).progress, None);
}

#[test]
fn a_flood_of_progress_disturbs_nobody() {
    let pool = Pool::start(Options::workers(2));
    let id = pool.submit_spec(shell("i=0; while :; do i=$((i+1)); echo $((i % 101)); done >$ACODE_PROGRESS", &[]));
    wait_until("it is heard", || pool.show(id).progress.is_some());
    for _ in 0..20 {
        assert_eq!(run(&pool, command(&["true"])).state, TaskState::Completed);
    }
    assert!(cancel(&pool, id));
    assert_eq!(pool.wait(id).state, TaskState::Cancelled);
}

#[test]
fn a_worker_that_is_killed_under_a_task_is_no_fault_of_the_task() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(shell("[ $ACODE_ATTEMPT = 2 ] || exec sleep 1000", &[]));
    reaches(&pool, id, TaskState::Running);
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2));
    assert_eq!(task.attempts.unwrap()[0].verdict.as_deref(), Some("worker-lost"));
}
