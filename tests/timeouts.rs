//! Ends that somebody else brings about: timeouts, cancellation, and the tries that follow a failure.
//!
//! Deliberately absent: what the judgement is in itself, which `src/supervisor/judge.rs` tests.

mod common;
#[path = "common/more.rs"]
mod more;

use std::time::{Duration, Instant};

use acode::wire::TaskRef;
use acode::wire::request::Cancel;
use acode::wire::types::Waiting;
use acode_worker::task::{Array, Retries, Retry, SoftTimeout, Submission, TaskSpec, TaskState};
use common::{Options, Pool, is_alive, shell, wait_until};
use more::{cancel, command, events_of, gated, only_attempt, open_gate, reaches, retry, verdict};

/// What leaves its session, its parent and its process group, and says its pid.
const DAEMON: &str = r#"setsid sh -c 'trap "" TERM HUP; sh -c "trap \"\" TERM HUP; echo \$\$ >>\"\$1\"; while :; do sleep 1; done" sh "$1" &' sh "$1" </dev/null >/dev/null 2>&1 &"#;

fn timed(spec: TaskSpec, timeout_ms: u64, grace_ms: u64) -> TaskSpec {
    TaskSpec { timeout_ms: Some(timeout_ms), grace_ms: Some(grace_ms), ..spec }
}

#[test]
fn a_task_that_runs_too_long_ends_in_timeout() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(timed(command(&["sleep", "1000"]), 200, 5_000));
    let began = Instant::now();
    let task = pool.wait(id);
    assert!(began.elapsed() < Duration::from_secs(5), "SIGTERM is enough for sleep");
    assert_eq!(
        (task.state, verdict(&task), task.exit_code, task.signal),
        (TaskState::Timeout, "timed-out", None, None)
    );
    assert!(only_attempt(&task).usage.unwrap().wall_us >= 200_000);
    assert_eq!(events_of(&pool.events(), id), ["task-submitted", "task-assigned", "task-started", "task-timeout"]);
    assert_eq!(pool.status().tasks.timeout, 1);
    let next = pool.submit(&["true"]);
    assert_eq!(pool.wait(next).state, TaskState::Completed, "the worker goes on");
}

#[test]
fn a_task_gets_sigterm_first_and_may_clean_up() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"trap 'echo cleaned >"$1"; exit 0' TERM; while :; do sleep 0.02; done"#;
    let id = pool.submit_spec(timed(shell(script, &[&pool.path("cleaned")]), 200, 30_000));
    let task = pool.wait(id);
    assert_eq!(pool.lines("cleaned"), ["cleaned"]);
    assert_eq!(task.state, TaskState::Timeout, "an exit code of 0 after that is no success");
}

#[test]
fn a_task_that_ignores_sigterm_is_killed_after_its_grace() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"trap "" TERM; while :; do sleep 0.02; done"#;
    let id = pool.submit_spec(timed(shell(script, &[]), 100, 300));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task)), (TaskState::Timeout, "timed-out"));
    let wall = only_attempt(&task).usage.unwrap().wall_us;
    assert!((400_000..10_000_000).contains(&wall), "{wall} us");
}

#[test]
fn a_timeout_ends_the_whole_tree() {
    let pool = Pool::start(Options::workers(1));
    let script = format!("{DAEMON}\n{DAEMON}\ntrap '' TERM; while :; do sleep 0.02; done");
    let id = pool.submit_spec(timed(shell(&script, &[&pool.path("pids")]), 500, 100));
    wait_until("both have escaped", || pool.lines("pids").len() == 2);
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Timeout);
    let pids: Vec<u32> = pool.lines("pids").iter().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "dead before the end is reported");
}

#[test]
fn a_stopped_task_is_ended_all_the_same() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(timed(shell("kill -STOP $$", &[]), 100, 5_000));
    let began = Instant::now();
    assert_eq!(pool.wait(id).state, TaskState::Timeout);
    assert!(began.elapsed() < Duration::from_secs(4), "SIGCONT lets it take its SIGTERM");
}

#[test]
fn the_default_timeout_comes_from_the_configuration() {
    let pool = Pool::start(Options::workers(1).config("tasks:\n  timeoutSeconds: 1"));
    let id = pool.submit(&["sleep", "1000"]);
    let own = pool.submit_spec(timed(command(&["sleep", "1.2"]), 60_000, 100));
    assert_eq!(pool.wait(id).state, TaskState::Timeout);
    assert_eq!(pool.wait(own).state, TaskState::Completed, "a task's own word counts for more");
}

#[test]
fn a_running_task_is_cancelled_within_its_grace() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"trap "" TERM; echo $$ >"$1"; while :; do sleep 0.02; done"#;
    let id = pool.submit_spec(TaskSpec { grace_ms: Some(200), ..shell(script, &[&pool.path("pid")]) });
    wait_until("it runs", || pool.lines("pid").len() == 1);
    let began = Instant::now();
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"));
    assert!(!is_alive(pool.lines("pid")[0].parse().unwrap()));
}

#[test]
fn a_cancelled_task_is_marked_cancelled() {
    let pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    let pending = pool.submit(&["true"]);
    let reason = Some("not needed".to_owned());
    pool.call(&Cancel { ids: vec![TaskRef::Id(pending), TaskRef::Id(running)], group: None, reason, now: false });
    for (id, attempts) in [(pending, 0), (running, 1)] {
        let task = pool.wait(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Cancelled, attempts));
        assert_eq!(task.error.as_deref(), Some("not needed"));
    }
    assert_eq!(pool.status().tasks.cancelled, 2);
    let events = pool.events();
    assert_eq!(events_of(&events, pending), ["task-submitted", "task-cancelled"]);
    assert_eq!(events_of(&events, running), ["task-submitted", "task-assigned", "task-started", "task-cancelled"]);
}

#[test]
fn cancelling_tells_whether_it_could_be_done() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit(&["true"]);
    pool.wait(id);
    assert!(!cancel(&pool, id), "it has ended already");
    assert_eq!(pool.show(id).state, TaskState::Completed);
}

#[test]
fn a_delayed_task_waits_and_can_be_cancelled_meanwhile() {
    let pool = Pool::start(Options::workers(1));
    let delayed = |ms| Submission { spec: command(&["true"]), delay_ms: Some(ms), ..Submission::default() };
    let ids = pool.submit_all(vec![delayed(300), delayed(3_600_000)]);
    assert!(matches!(pool.show(ids[1]).waiting, Some(Waiting::Delayed { .. })));
    let task = pool.wait(ids[0]);
    assert!(task.started_at.unwrap().micros() - task.submitted_at.micros() >= 299_000);
    assert!(cancel(&pool, ids[1]));
    assert_eq!(pool.wait(ids[1]).state, TaskState::Cancelled);
}

fn retried(spec: TaskSpec, count: u32, delay_ms: u64) -> TaskSpec {
    let retry: Retries =
        Retry { count, delay_ms, factor: 2.0, max_delay_ms: 60_000, jitter: 0.0, ..Retry::default() }.into();
    TaskSpec { retry: Some(retry), ..spec }
}

#[test]
fn a_failed_task_is_retried_as_often_as_asked() {
    let pool = Pool::start(Options::workers(1));
    let hopeless = pool.submit_spec(retried(shell("exit 3", &[]), 3, 1));
    let third = pool.submit_spec(retried(shell("[ $ACODE_ATTEMPT = 3 ]", &[]), 5, 1));
    let task = pool.wait(hopeless);
    assert_eq!((task.state, task.exit_code, task.attempt_count), (TaskState::Failed, Some(3), 4));
    let numbers: Vec<u32> = task.attempts.unwrap().iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let task = pool.wait(third);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 3));
    let started = ["task-assigned", "task-started", "task-retried"];
    let expected: Vec<&str> = ["task-submitted"]
        .into_iter()
        .chain(started)
        .chain(started)
        .chain(["task-assigned", "task-started", "task-completed"])
        .collect();
    assert_eq!(events_of(&pool.events(), third), expected);
}

#[test]
fn the_delay_before_a_retry_grows() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(retried(shell("exit 1", &[]), 3, 100));
    let waiting =
        |attempt: u32| matches!(pool.show(id).waiting, Some(Waiting::RetryAt { attempt: n, .. }) if n == attempt);
    wait_until("it waits for its third attempt", || waiting(3) || pool.show(id).attempt_count > 2);
    let attempts = pool.wait(id).attempts.unwrap();
    let gaps: Vec<i64> = attempts
        .windows(2)
        .map(|pair| pair[1].started_at.unwrap().micros() - pair[0].finished_at.unwrap().micros())
        .collect();
    for (gap, least) in gaps.iter().zip([100_000, 200_000, 400_000]) {
        assert!(*gap >= least, "{gaps:?}");
    }
    assert!(gaps[2] < 10_000_000, "{gaps:?}");
}

#[test]
fn a_timeout_is_retried_like_a_failure() {
    let pool = Pool::start(Options::workers(1));
    let spec = timed(shell("[ $ACODE_ATTEMPT = 2 ] || exec sleep 1000", &[]), 200, 100);
    let id = pool.submit_spec(retried(spec, 1, 1));
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2));
    assert_eq!(task.attempts.unwrap()[0].verdict.as_deref(), Some("timed-out"));
}

#[test]
fn retries_come_from_the_configuration_unless_the_task_has_its_own() {
    let yaml = "tasks:\n  retries:\n    count: 2\n    delayMs: 1";
    let pool = Pool::start(Options::workers(1).config(yaml));
    let by_default = pool.submit(&["false"]);
    let none = pool.submit_spec(retried(command(&["false"]), 0, 1));
    assert_eq!(pool.wait(by_default).attempt_count, 3);
    assert_eq!(pool.wait(none).attempt_count, 1);
}

#[test]
fn a_task_that_waits_for_its_retry_can_be_cancelled() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(retried(command(&["false"]), 5, 3_600_000));
    wait_until("it waits", || matches!(pool.show(id).waiting, Some(Waiting::RetryAt { .. })));
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Cancelled, 1));
}

#[test]
fn a_retry_by_hand_brings_back_what_did_not_complete() {
    let pool = Pool::start(Options::workers(1));
    let failed = pool.submit_spec(shell(r#"[ -e "$1" ]"#, &[&pool.path("gate")]));
    let running = pool.submit_spec(gated(&pool, "gate2"));
    let cancelled = pool.submit(&["true"]);
    reaches(&pool, failed, TaskState::Failed);
    assert!(!retry(&pool, running), "what has not ended is left alone");
    assert!(cancel(&pool, cancelled));
    assert_eq!(pool.wait(cancelled).state, TaskState::Cancelled);
    open_gate(&pool, "gate");
    open_gate(&pool, "gate2");
    assert!(retry(&pool, failed) && retry(&pool, cancelled));
    assert_eq!(pool.wait(failed).state, TaskState::Completed);
    let task = pool.wait(cancelled);
    assert_eq!((task.state, task.error), (TaskState::Completed, None), "its old reason is forgotten");
    assert!(!retry(&pool, failed), "what completed is left alone");
}

#[test]
fn times_beyond_the_end_of_time_do_no_harm() {
    let pool = Pool::start(Options::workers(1));
    let spec = TaskSpec { timeout_ms: Some(u64::MAX), grace_ms: Some(u64::MAX), ..command(&["true"]) };
    let id = pool.submit_spec(spec.clone());
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let never = pool.submit_all(vec![Submission { spec, delay_ms: Some(u64::MAX), ..Submission::default() }])[0];
    let hopeless = pool.submit_spec(retried(command(&["false"]), 3, u64::MAX));
    let retry: Retries =
        Retry { count: 3, delay_ms: u64::MAX, factor: 1e300, max_delay_ms: u64::MAX, jitter: 1.0, ..Retry::default() }
            .into();
    let worse = pool.submit_spec(TaskSpec { retry: Some(retry), ..command(&["false"]) });
    wait_until("one waits for its retry", || matches!(pool.show(hopeless).waiting, Some(Waiting::RetryAt { .. })));
    wait_until("the other has been tried", || pool.show(worse).attempt_count > 0);
    assert!(matches!(pool.show(never).waiting, Some(Waiting::Delayed { .. })));
    assert_eq!(pool.status().queue.problem, None);
    for id in [never, hopeless, worse] {
        assert!(cancel(&pool, id));
        assert_eq!(pool.wait(id).state, TaskState::Cancelled);
    }
}

fn warned(spec: TaskSpec, before_ms: u64, signal: &str) -> TaskSpec {
    TaskSpec { soft_timeout: Some(SoftTimeout { before_ms, signal: signal.parse().unwrap() }), ..spec }
}

#[test]
fn a_task_is_warned_once_before_its_timeout_and_may_finish_in_time() {
    let pool = Pool::start(Options::workers(2));
    let script =
        r#"n=0; trap 'echo warned >>"$1"; n=$((n + 1))' USR1; while [ $n -lt $2 ]; do sleep 0.02; done; exit 0"#;
    let finishes = timed(shell(script, &[&pool.path("one"), "1"]), 60_000, 5_000);
    let finishes = pool.submit_spec(warned(finishes, 59_500, "USR1"));
    let task = pool.wait(finishes);
    assert_eq!((task.state, pool.lines("one")), (TaskState::Completed, vec!["warned".to_owned()]));
    let goes_on = timed(shell(script, &[&pool.path("two"), "2"]), 900, 5_000);
    let goes_on = pool.submit_spec(warned(goes_on, 600, "10"));
    let task = pool.wait(goes_on);
    assert_eq!((task.state, pool.lines("two")), (TaskState::Timeout, vec!["warned".to_owned()]));
}

#[test]
fn who_dies_of_the_warning_has_timed_out() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(warned(timed(command(&["sleep", "1000"]), 60_000, 5_000), 59_900, "TERM"));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task)), (TaskState::Timeout, "timed-out"));
    let own = pool.submit_spec(warned(timed(shell("kill -USR2 $$", &[]), 60_000, 5_000), 10, "USR2"));
    assert_eq!(pool.wait(own).state, TaskState::Failed, "nobody has warned it yet");
}

#[test]
fn a_warning_without_a_timeout_is_nothing_and_one_as_long_as_it_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(warned(command(&["sleep", "0.3"]), 1, "USR1"));
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let spec = warned(timed(command(&["true"]), 100, 100), 100, "USR1");
    let tasks = vec![Submission { spec, ..Submission::default() }];
    let refused = pool.try_call(&acode::wire::request::Submit::new(tasks)).unwrap_err().to_string();
    assert!(refused.contains("softTimeout.beforeMs is 100: less than the timeout is expected"), "{refused}");
}

#[test]
fn a_start_that_hangs_ends_as_timed_out_and_is_no_crash() {
    let config = "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 400";
    let options = Options::workers(1).config(config).dies_once_at("worker.before-spawn=stop");
    let pool = Pool::start(options);
    // Longer than any silence is borne otherwise.
    let id = pool.submit_spec(TaskSpec { start_timeout_ms: Some(1_500), ..command(&["true"]) });
    let task = pool.wait(id);
    assert!(pool.has_struck("worker.before-spawn"));
    assert_eq!((task.state, verdict(&task), task.crash_count), (TaskState::Timeout, "timed-out", 0), "{}", pool.log());
    assert_eq!(task.error.as_deref(), Some("did not start within 1.5s"));
    let next = pool.submit_spec(TaskSpec { start_timeout_ms: Some(30_000), ..command(&["sleep", "0.1"]) });
    assert_eq!(pool.wait(next).state, TaskState::Completed, "another worker goes on");
}

#[test]
fn a_start_that_hangs_is_tried_again_like_any_failure() {
    let config = "tasks:\n  startTimeoutSeconds: 1";
    let pool = Pool::start(Options::workers(1).config(config).dies_once_at("worker.before-spawn=stop"));
    let id = pool.submit_spec(retried(command(&["true"]), 1, 1));
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count, task.crash_count), (TaskState::Completed, 2, 0));
}

#[test]
fn a_cancellation_now_leaves_no_grace_not_even_what_is_left_of_it() {
    let pool = Pool::start(Options::workers(2));
    let script = r#"trap "" TERM; echo $$ >>"$1"; while :; do sleep 0.02; done"#;
    let deaf = || TaskSpec { grace_ms: Some(3_600_000), ..shell(script, &[&pool.path("pids")]) };
    let (asked, told) = (pool.submit_spec(deaf()), pool.submit_spec(deaf()));
    wait_until("both run", || pool.lines("pids").len() == 2);
    assert!(cancel(&pool, asked) && cancel(&pool, asked), "a second wish changes nothing");
    assert_eq!(pool.show(asked).state, TaskState::Running);
    let now = Cancel {
        ids: vec![TaskRef::Id(asked), TaskRef::Id(told)],
        group: None,
        reason: Some("enough".into()),
        now: true,
    };
    assert_eq!(pool.call(&now).cancelled.len(), 2);
    let (asked, told) = (pool.wait(asked), pool.wait(told));
    assert_eq!((asked.state, told.state), (TaskState::Cancelled, TaskState::Cancelled));
    assert_eq!((asked.error.as_deref(), told.error.as_deref()), (Some("cancelled by request"), Some("enough")));
}

#[test]
fn an_array_is_cancelled_with_members_that_run_and_members_that_nobody_touched() {
    let pool = Pool::start(Options::workers(2));
    let array = Some(Array::Range { first: 1, count: 5_000 });
    let header =
        pool.submit_all(vec![Submission { spec: command(&["sleep", "1000"]), array, ..Submission::default() }])[0];
    wait_until("two members run", || pool.status().tasks.running == 2);
    let reason = Some("not needed".to_owned());
    pool.call(&Cancel { ids: vec![TaskRef::Id(header)], group: None, reason, now: false });
    let task = pool.wait(header);
    assert_eq!((task.state, task.array.unwrap().members.cancelled), (TaskState::Cancelled, 5_000));
    assert_eq!(task.error.as_deref(), Some("not needed"));
}
