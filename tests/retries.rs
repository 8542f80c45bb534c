//! Tries that follow a failure or a crash, as a task or the pool asks for them, and what is told about them.
//!
//! Deliberately absent: the arithmetic of delays and the decisions in themselves, which `worker/src/task/retry.rs` and
//! `src/supervisor/judge.rs` test.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use acode_worker::task::{Array, Retries, Rlimits, Submission, TaskId, TaskSpec, TaskState};
use command::Acode;
use common::{Options, Pool, shell, wait_until};
use more::{output_of, reaches, verdict, written};

fn tried(script: &str, retries: Retries) -> TaskSpec {
    TaskSpec { retry: Some(Retries { delay_ms: Some(1), jitter: Some(0.0), ..retries }), ..shell(script, &[]) }
}

fn only(codes: &[u8]) -> Retries {
    Retries { count: Some(3), on_codes: codes.iter().copied().collect(), ..Retries::default() }
}

fn attempts(pool: &Pool, id: TaskId) -> (TaskState, u32) {
    let task = pool.wait(id);
    (task.state, task.attempt_count)
}

#[test]
fn only_the_listed_exit_codes_are_tried_again() {
    let pool = Pool::start(Options::workers(1));
    let never = Retries { count: Some(3), except_codes: [9].into_iter().collect(), ..Retries::default() };
    for (script, retries, expected) in [
        ("exit 7", only(&[7, 8]), 4),
        ("exit 9", only(&[7, 8]), 1),
        ("kill -9 $$", only(&[7, 137]), 1),
        ("exit 9", never, 1),
        ("exit 7", never, 4),
        ("kill -9 $$", never, 4),
    ] {
        let id = pool.submit_spec(tried(script, retries));
        assert_eq!(attempts(&pool, id), (TaskState::Failed, expected), "{script} {retries:?}");
    }
}

#[test]
fn the_configuration_lists_codes_and_a_task_says_only_what_differs() {
    let yaml = "tasks:\n  retries: {count: 2, delayMs: 1, onCodes: [7], maxDelayMs: 5}";
    let pool = Pool::start(Options::workers(1).config(yaml));
    let (listed, other) = (pool.submit(&["sh", "-c", "exit 7"]), pool.submit(&["sh", "-c", "exit 8"]));
    assert_eq!(attempts(&pool, listed), (TaskState::Failed, 3));
    assert_eq!(attempts(&pool, other), (TaskState::Failed, 1));
    let own = Retries { max_crashes: Some(9), ..Retries::default() };
    let id = pool.submit_spec(TaskSpec { retry: Some(own), ..shell("exit 7", &[]) });
    assert_eq!(attempts(&pool, id), (TaskState::Failed, 3), "the pool's number holds where the task is silent");
}

#[test]
fn the_members_of_an_array_are_tried_as_their_array_says() {
    let pool = Pool::start(Options::workers(2));
    let spec = TaskSpec { retry: tried("", only(&[3])).retry, ..shell("exit $1", &["{item}"]) };
    let array = Submission { spec, array: Some(Array::Range { first: 3, count: 2 }), ..Submission::default() };
    let header = pool.submit_all(vec![array])[0];
    assert_eq!(pool.wait(header).state, TaskState::Failed);
    let member = |n| TaskId::new(header.millis(), header.queue(), header.seq() + n);
    assert_eq!((attempts(&pool, member(1)).1, attempts(&pool, member(2)).1), (4, 1));
}

#[test]
fn a_poison_task_is_quarantined_and_a_flaky_one_still_gets_its_retries() {
    let pool = Pool::start(Options::workers(1).signals_go_anywhere());
    let poison = Retries { count: Some(50), max_crashes: Some(2), ..Retries::default() };
    let id = pool.submit_spec(tried("kill -9 $PPID; sleep 100", poison));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task), task.attempt_count), (TaskState::Failed, "worker-lost", 2));
    assert_eq!(task.error.as_deref(), Some("quarantined after 2 crashes: lost its worker 2 times"));
    assert_eq!((task.crash_count, task.oom_count), (2, 0));
    // It crashes once, fails twice, and then succeeds: neither count is used up by the other.
    let script = r#"echo x >>"$1"; case $(wc -l <"$1") in 1) kill -9 $PPID; sleep 100;; 2|3) exit 1;; esac"#;
    let retry = Some(Retries { count: Some(2), delay_ms: Some(1), max_crashes: Some(2), ..Retries::default() });
    let flaky = pool.submit_spec(TaskSpec { retry, ..shell(script, &[&pool.path("runs")]) });
    assert_eq!(attempts(&pool, flaky), (TaskState::Completed, 4));
}

#[test]
fn each_attempt_out_of_memory_gets_a_larger_limit_which_a_restart_does_not_forget() {
    let mut pool = Pool::start(Options::workers(1).var("ACODE_FAILPOINTS", "worker.out-of-memory"));
    // The limit as the shell sees it, in KiB; it fails, and so ends out of memory, below 400 MiB.
    let script = r#"ulimit -v >>"$1"; [ "$(ulimit -v)" -ge 409600 ]"#;
    let retries = Retries { memory_factor: Some(2.0), max_crashes: Some(9), ..Retries::default() };
    let rlimits = Rlimits { address_space_bytes: Some(100 << 20), ..Rlimits::default() };
    let id = pool.submit_spec(TaskSpec { retry: Some(retries), rlimits, ..shell(script, &[&pool.path("limits")]) });
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count, task.oom_count), (TaskState::Completed, 3, 2));
    assert_eq!(pool.lines("limits"), ["102400", "204800", "409600"]);

    let gated = r#"ulimit -v >>"$1"; [ -e "$2" ] && [ "$(ulimit -v)" -gt 102400 ]"#;
    let retries = Retries { memory_factor: Some(2.0), max_crashes: Some(1_000), ..Retries::default() };
    let spec = TaskSpec { retry: Some(retries), rlimits, ..shell(gated, &[&pool.path("again"), &pool.path("gate")]) };
    let id = pool.submit_spec(spec);
    wait_until("it has run out of memory twice", || pool.show(id).oom_count >= 2);
    pool.stop();
    let before = pool.lines("again").len();
    more::open_gate(&pool, "gate");
    pool.restart();
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let limits = pool.lines("again");
    assert!(limits.len() > before && limits[before].parse::<u64>().unwrap() >= 400 << 10, "{limits:?}");
}

#[test]
fn out_of_memory_counts_against_the_crash_cap() {
    let pool = Pool::start(Options::workers(1).var("ACODE_FAILPOINTS", "worker.out-of-memory"));
    let id = pool.submit_spec(tried("exit 1", Retries { max_crashes: Some(2), ..Retries::default() }));
    let task = pool.wait(id);
    assert_eq!((task.state, verdict(&task), task.attempt_count), (TaskState::Failed, "out-of-memory", 2));
    let acode = Acode::of(&pool);
    let why = acode.ok(&["task", "why", &id.to_string()]);
    assert!(why.contains("failed after 2 attempts, out of memory"), "{why}");
    assert!(why.contains("quarantined after 2 crashes: ran out of memory 2 times"), "{why}");
    assert!(acode.ok(&["task", "show", &id.to_string()]).contains("Crashes    2, 2 of them out of memory"));
}

#[test]
fn why_tells_the_evidence_of_an_end_and_of_a_retry() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let why = |id: TaskId| acode.ok(&["task", "why", &id.to_string()]);
    let failed = pool.submit(&["sh", "-c", "echo no space >$ACODE_ERROR; exit 3"]);
    pool.wait(failed);
    let text = why(failed);
    assert!(text.starts_with("failed, exit code 3, ran ") && text.ends_with("MiB: no space"), "{text}");
    assert!(text.contains("peak memory "), "{text}");
    let killed = pool.submit(&["sh", "-c", "kill -9 $$"]);
    pool.wait(killed);
    assert!(why(killed).starts_with("failed, killed by SIGKILL (9)"), "{}", why(killed));
    let late = pool.submit_spec(TaskSpec { timeout_ms: Some(100), ..shell("sleep 100", &[]) });
    pool.wait(late);
    assert!(why(late).starts_with("timeout, timed out (timeout 0.1 s)"), "{}", why(late));
    let id = acode.ok(&["task", "submit", "--retries", "3", "--retry-delay", "1h", "--", "sh", "-c", "exit 7"]);
    wait_until("it waits for its retry", || acode.ok(&["task", "why", &id]).starts_with("retry at "));
    let text = acode.ok(&["task", "why", &id]);
    assert!(text.ends_with("(attempt 2 of 4) after exit code 7"), "{text}");
}

#[test]
fn every_option_of_retries_is_taken_and_nonsense_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let options = "--retries 2 --retry-delay 1ms --retry-factor 1 --retry-max-delay 5ms --retry-jitter 0 --retry-on 7,8 \
                   --max-crashes 4 --oom-retry-factor 1.5";
    let mut words = vec!["task", "submit"];
    words.extend(options.split_whitespace());
    words.extend(["--", "sh", "-c", "exit 8"]);
    let id = acode.ok(&words);
    acode.says(&["task", "wait", &id]).expect(1);
    assert_eq!(acode.json(&["task", "show", &id])["attempt_count"], 3);
    for wrong in [
        ["--retry-on", "256"],
        ["--retry-on", "x"],
        ["--retry-factor", "0.5"],
        ["--retry-jitter", "2"],
        ["--max-crashes", "0"],
        ["--oom-retry-factor", "0"],
    ] {
        acode.says(&[&["task", "submit"], &wrong[..], &["true"]].concat()).expect(2);
    }
    acode.says(&["task", "submit", "--retry-on", "1", "--no-retry-on", "2", "true"]).expect(2);
    let both = "{\"command\": [\"true\"], \"retries\": {\"onCodes\": [1], \"exceptCodes\": 2}}";
    let said = acode.says_to(both, &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains("exclude each other"), "{}", said.err);
}

#[test]
fn a_retry_of_a_task_sees_the_number_of_its_attempt() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(tried("echo $ACODE_ATTEMPT; [ $ACODE_ATTEMPT = 3 ]", only(&[1])));
    reaches(&pool, id, TaskState::Completed);
    assert_eq!(written(&pool, id).out(), "3\n");
    assert_eq!(output_of(&pool, shell("echo $ACODE_ATTEMPT", &[])), "1\n");
}
