//! A process is killed at one chosen instruction, and nothing is lost, doubled or left.
//!
//! Every failpoint of the code is a line in a table here, and every line is the same experiment: some thirty tasks of all
//! kinds go through the pool, one process dies at the point, whoever has died is started again, and then each accepted
//! task has exactly one verdict, no two runs of one task overlapped, and the harness finds nothing left behind. A
//! point that nobody passed fails its test. Deliberately absent: kills of two processes at once (`chaos.rs`).

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use acode::wire::request::{Status, Stop, Submit};
use acode::wire::types::StopMode;
use acode_worker::task::{Array, Blocker, Dependency, DependencyKind, Priority, Retries, Submission, TaskId, TaskSpec};
use common::actions::inline;
use common::history::{History, assert_completed_once};
use common::{Options, PATIENCE, Pool, shell};
use serde_json::json;

/// Each task leaves a mark at its beginning and at its end, and takes long enough to be in the middle of it.
const SCRIPT: &str = r#"echo "$ACODE_TASK_ID $$" >>"$1"; sleep 0.005; echo "$ACODE_TASK_ID $$" >>"$1""#;

fn spec(pool: &Pool, priority: Priority) -> TaskSpec {
    TaskSpec { priority, ..shell(SCRIPT, &[&pool.path("marks")]) }
}

/// The requests of the experiment: single tasks of all priorities, an array, one that is too large for its slot of the
/// claim table, and one that waits for the array.
fn requests(pool: &Pool) -> Vec<Vec<Submission>> {
    let single = |priority| Submission { spec: spec(pool, priority), ..Submission::default() };
    let mut requests: Vec<Vec<Submission>> = (0..5).map(|_| Priority::ALL.into_iter().map(single).collect()).collect();
    let array = Submission { array: Some(Array::Range { first: 1, count: 8 }), ..single(Priority::High) };
    let mut large = single(Priority::Low);
    large.spec.env.insert("LARGE".to_owned(), "x".repeat(20_000));
    large.spec.action = Some(Box::default());
    let mut last = single(Priority::Critical);
    last.dependencies = vec![Dependency { on: Blocker::Entry(0), when: DependencyKind::Succeeded }];
    requests.insert(2, vec![array, large, last]);
    requests
}

/// Submits one request until it is accepted, as somebody does who got no answer because the pool had died.
fn submit(pool: &mut Pool, tasks: Vec<Submission>, point: &str) -> Vec<TaskId> {
    loop {
        match pool.try_call(&Submit::new(tasks.clone())) {
            Ok(submitted) => return submitted.ids,
            Err(_) => revive(pool, point),
        }
    }
}

/// The points of a list, as `ACODE_FAILPOINTS` has it.
fn assert_struck(pool: &Pool, points: &str) {
    for point in points.split(',') {
        assert!(pool.has_struck(point), "nobody passed {point}\n{}", pool.log());
    }
}

/// Waits for the end of a pool that has been struck, and starts it again.
fn revive(pool: &mut Pool, point: &str) {
    use std::os::unix::process::ExitStatusExt;
    if !pool.is_down() {
        let status = pool.wait_exit();
        let expected =
            if point.starts_with("nursery.") { status.code() == Some(1) } else { status.signal() == Some(9) };
        assert!(expected, "the pool ended by itself ({status}):\n{}", pool.log());
    }
    pool.revive();
}

/// Waits until nothing is left to do, whoever dies meanwhile.
fn finish(pool: &mut Pool, point: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pool.try_call(&Status {}) {
            Ok(reply) if reply.status.tasks.total() == reply.status.tasks.ended() => return,
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => revive(pool, point),
        }
        assert!(Instant::now() < deadline, "tasks are stuck: {:?}\n{}", pool.status().tasks, pool.log());
    }
}

fn assert_all_is_well(pool: &Pool, accepted: &[TaskId]) {
    let counts = pool.status().tasks;
    assert_eq!(counts.unsuccessful(), 0, "{counts:?}\n{}", pool.log());
    let history = History::read(&pool.lines("marks"));
    history.assert_no_overlap();
    assert_completed_once(pool, accepted);
    let arrays = |id: &&TaskId| pool.show(**id).array.is_some();
    let singles: Vec<TaskId> = accepted.iter().filter(|id| !arrays(id)).copied().collect();
    history.assert_ran(&singles);
    assert!(history.tasks() >= singles.len() + 8, "members of the array never ran");
}

/// The experiment: a process of a running pool dies at the point.
fn dies_at(point: &str) {
    experiment(Pool::prepare(Options::workers(3).dies_once_at(point)), point);
}

/// The experiment with actions in the workers themselves: most of them short, some with a scratch directory.
fn dies_within_at(point: &str) {
    let mut pool = Pool::prepare(Options::workers(3).with_actions().dies_once_at(point));
    pool.revive();
    let params =
        |number: u64| json!({ "file": pool.path("marks"), "ms": number % 4 * 10, "room": number.is_multiple_of(3) });
    let mark = |number| Submission { spec: inline("mark", params(number)), ..Submission::default() };
    let tasks: Vec<Submission> = (0..30).map(mark).collect();
    let accepted = submit(&mut pool, tasks, point);
    finish(&mut pool, point);
    assert_struck(&pool, point);
    let history = History::read(&pool.lines("marks"));
    history.assert_no_overlap();
    assert_completed_once(&pool, &accepted);
    history.assert_ran(&accepted);
}

/// The experiment with an action that does not end at its timeout, and does when it is tried again.
fn dies_at_the_end_of_a_worker_at(point: &str) {
    let mut pool = Pool::prepare(Options::workers(2).with_actions().dies_once_at(point));
    pool.revive();
    let spin = inline("spin", json!({ "ms": 600_000, "attempts": 1 }));
    let retry = Some(Retries { count: Some(1), delay_ms: Some(1), ..Retries::default() });
    let spec = TaskSpec { timeout_ms: Some(50), grace_ms: Some(50), retry, ..spin };
    let tasks = (0..4).map(|_| Submission { spec: spec.clone(), ..Submission::default() }).collect();
    let accepted = submit(&mut pool, tasks, point);
    finish(&mut pool, point);
    assert_struck(&pool, point);
    assert_completed_once(&pool, &accepted);
    assert!(accepted.iter().all(|id| pool.show(*id).attempt_count == 2));
}

/// The same with a worker that is stopped at the point instead, so that only its silence gives it away.
fn falls_silent_at(point: &str) {
    let config = "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 600";
    let stopped = format!("{point}=stop");
    experiment(Pool::prepare(Options::workers(3).config(config).dies_once_at(&stopped)), &stopped);
}

fn experiment(mut pool: Pool, point: &str) {
    pool.revive();
    let mut accepted = Vec::new();
    for tasks in requests(&pool) {
        accepted.extend(submit(&mut pool, tasks, point));
    }
    finish(&mut pool, point);
    assert_struck(&pool, point);
    assert_all_is_well(&pool, &accepted);
}

/// The experiment with a stop in the middle of the work, during which a process dies.
fn dies_in_a_stop_at(point: &str) {
    let mut pool = Pool::prepare(Options::workers(3).dies_once_at(point));
    pool.revive();
    let accepted: Vec<TaskId> = requests(&pool).into_iter().flat_map(|tasks| pool.submit_all(tasks)).collect();
    // It may die before it has answered.
    let _ = pool.try_call(&Stop { mode: StopMode::Drain, timeout_ms: None });
    pool.wait_exit();
    assert!(pool.has_struck(point), "nobody passed {point}\n{}", pool.log());
    pool.revive();
    finish(&mut pool, point);
    assert_all_is_well(&pool, &accepted);
}

/// The experiment with a supervisor that was killed under load, and dies again while it recovers.
fn dies_in_recovery_at(point: &str) {
    let mut pool = Pool::start(Options::workers(3));
    let accepted: Vec<TaskId> = requests(&pool).into_iter().flat_map(|tasks| pool.submit_all(tasks)).collect();
    common::wait_until("tasks run", || pool.lines("marks").len() > 5);
    pool.kill9();
    pool.dies_once_at(point);
    pool.launch();
    pool.wait_exit();
    assert!(pool.has_struck(point), "nobody passed {point}\n{}", pool.log());
    pool.revive();
    finish(&mut pool, point);
    assert_all_is_well(&pool, &accepted);
}

macro_rules! experiments {
    ($experiment:ident: $($name:ident = $point:literal;)*) => {
        $(#[test]
        fn $name() {
            $experiment($point);
        })*
    };
}

experiments! { dies_at:
    worker_at_boot = "worker.boot";
    worker_before_it_says_that_it_is_ready = "worker.before-ready";
    worker_before_its_first_claim = "worker.before-claim";
    worker_before_a_later_claim = "worker.before-claim@4";
    worker_after_its_first_claim = "worker.after-claim";
    worker_after_a_later_claim = "worker.after-claim@4";
    worker_before_the_spawn = "worker.before-spawn@2";
    worker_before_it_writes_params_down = "worker.before-params";
    worker_after_it_wrote_params_down = "worker.after-params";
    worker_after_the_spawn = "worker.after-spawn@2";
    worker_after_it_told_of_the_start = "worker.after-started@2";
    worker_before_the_cleanup = "worker.before-cleanup@2";
    worker_after_the_cleanup = "worker.after-cleanup@2";
    worker_before_the_report = "worker.before-report@2";
    worker_after_the_report = "worker.after-report@2";
}

// Every 40th byte of a report, and each side of the border between its length and its text.
experiments! { dies_at:
    worker_in_a_report_at_byte_0 = "worker.report-byte@0";
    worker_in_a_report_at_byte_1 = "worker.report-byte@1";
    worker_in_a_report_at_byte_3 = "worker.report-byte@3";
    worker_in_a_report_at_byte_4 = "worker.report-byte@4";
    worker_in_a_report_at_byte_5 = "worker.report-byte@5";
    worker_in_a_report_at_byte_40 = "worker.report-byte@40";
    worker_in_a_report_at_byte_80 = "worker.report-byte@80";
    worker_in_a_report_at_byte_120 = "worker.report-byte@120";
    worker_in_a_report_at_byte_160 = "worker.report-byte@160";
    worker_in_a_report_at_byte_200 = "worker.report-byte@200";
    worker_in_a_report_at_byte_240 = "worker.report-byte@240";
    worker_in_a_report_at_byte_280 = "worker.report-byte@280";
    worker_in_a_report_at_byte_320 = "worker.report-byte@320";
    worker_in_a_report_at_byte_360 = "worker.report-byte@360";
    worker_in_a_report_at_byte_400 = "worker.report-byte@400";
    worker_in_a_report_at_byte_440 = "worker.report-byte@440";
    worker_in_a_report_at_byte_480 = "worker.report-byte@480";
    worker_behind_the_last_byte_of_a_report = "worker.report-byte@999999";
}

experiments! { dies_at:
    supervisor_while_it_buries_a_worker = "worker.after-spawn@2,supervisor.before-reclaim";
    supervisor_after_it_took_a_dead_workers_task = "worker.after-spawn@2,supervisor.after-reclaim";
    supervisor_with_a_worker_that_nobody_knows = "supervisor.after-bear";
    supervisor_with_a_second_such_worker = "supervisor.after-bear@2";
    supervisor_with_its_first_submission_in_hand = "supervisor.after-accept";
    supervisor_with_a_later_submission_in_hand = "supervisor.after-accept@4";
    supervisor_before_its_first_commit = "supervisor.before-commit";
    supervisor_before_the_second_commit = "supervisor.before-commit@2";
    supervisor_before_the_fifth_commit = "supervisor.before-commit@5";
    supervisor_before_the_ninth_commit = "supervisor.before-commit@9";
    supervisor_after_its_first_commit = "supervisor.after-commit";
    supervisor_after_the_second_commit = "supervisor.after-commit@2";
    supervisor_after_the_fifth_commit = "supervisor.after-commit@5";
    supervisor_after_the_ninth_commit = "supervisor.after-commit@9";
    supervisor_before_a_release = "supervisor.before-release@3";
    supervisor_before_a_later_release = "supervisor.before-release@8";
    supervisor_before_its_first_publication = "supervisor.before-publish";
    supervisor_before_a_later_publication = "supervisor.before-publish@12";
    supervisor_after_its_first_publication = "supervisor.after-publish";
    supervisor_after_a_later_publication = "supervisor.after-publish@12";
    nursery_before_its_first_birth = "nursery.before-birth";
    nursery_before_a_later_birth = "nursery.before-birth@2";
    nursery_after_its_first_birth = "nursery.after-birth";
    nursery_after_a_later_birth = "nursery.after-birth@3";
}

experiments! { falls_silent_at:
    silent_worker_before_it_is_ready = "worker.before-ready";
    silent_worker_before_a_claim = "worker.before-claim@2";
    silent_worker_after_a_claim = "worker.after-claim@2";
    silent_worker_before_the_spawn = "worker.before-spawn@2";
    silent_worker_after_the_spawn = "worker.after-spawn@2";
    silent_worker_after_it_told_of_the_start = "worker.after-started@2";
    silent_worker_before_the_report = "worker.before-report@2";
    silent_worker_after_the_report = "worker.after-report@2";
}

experiments! { dies_within_at:
    worker_before_its_action = "inline.before-action@2";
    worker_with_a_minder_just_made = "minder.after-birth";
    worker_after_its_minder_told_of_the_start = "minder.after-started";
    worker_after_its_action = "inline.after-action@2";
    worker_after_the_cleanup_behind_an_action = "inline.after-cleanup";
    worker_after_the_report_of_an_action = "worker.after-report@3";
}

experiments! { dies_at_the_end_of_a_worker_at:
    minder_before_it_kills_what_is_left = "minder.before-kill";
    minder_before_it_reports = "minder.before-report";
    minder_after_it_has_reported = "minder.after-report";
}

experiments! { dies_in_a_stop_at:
    worker_before_it_leaves = "worker.before-leave";
    supervisor_before_a_reclaim = "supervisor.before-reclaim";
    supervisor_after_a_reclaim = "supervisor.after-reclaim@2";
    supervisor_before_it_closes_the_queue = "supervisor.before-close";
    supervisor_before_it_sweeps_up = "supervisor.before-sweep";
}

experiments! { dies_in_recovery_at:
    recovery_before_the_wait_for_stragglers = "recover.before-stragglers";
    recovery_before_it_clears_away = "recover.before-clearing";
    recovery_after_its_cgroups_are_made = "cgroup.after-make";
    recovery_before_it_puts_tasks_back = "recover.before-put-back";
    recovery_after_it_put_tasks_back = "recover.after-put-back";
    recovery_after_the_socket_is_there = "recover.after-listen";
}

#[test]
fn every_failpoint_of_the_code_has_its_experiment() {
    let own = include_str!("failpoints.rs");
    let mut points = Vec::new();
    for folder in ["src", "worker/src"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut points);
    }
    assert!(points.len() > 25, "{points:?}");
    // These need tasks of their own kind, and are passed in the tests of those.
    const ELSEWHERE: [&str; 48] = [
        "action.before-run",
        "action.before-result",
        "artifacts.before-copy",
        "artifacts.within-copy",
        "artifacts.before-rename",
        "artifacts.after-rename",
        "artifacts.before-removal",
        // These need an engine.
        "docker.after-mark",
        "docker.after-run",
        "docker.before-inspect",
        "docker.after-stop",
        "docker.before-remove",
        "docker.after-remove",
        "docker.before-unmark",
        "docker.before-sweep",
        "worktree.after-mark",
        "worktree.after-add",
        "worktree.after-checkout",
        "worktree.before-patch",
        "worktree.before-remove",
        "worktree.after-remove",
        "recover.before-worktree",
        "worker.after-project",
        "worker.after-quota",
        "worker.after-image",
        "worker.after-loop",
        "worker.after-mount",
        "worker.before-keep",
        "worker.after-keep",
        "worker.before-kept-removal",
        "worker.before-checkpoint",
        "worker.after-checkpoint",
        "worker.before-discard",
        "worker.after-discard",
        "supervisor.before-discard",
        "sweep.before-copy",
        "worker.after-suspend",
        "worker.after-resume",
        "worker.out-of-memory",
        // These need worker programs.
        "programs.before-start",
        "programs.after-start",
        "programs.after-task",
        "programs.after-cancel",
        "programs.before-cleanup",
        "programs.within-close",
        // And these a cgroup with controllers.
        "cgroup.after-move",
        "cgroup.after-enable",
        "worker.sandbox-means",
    ];
    let others = [
        include_str!("action_process.rs"),
        include_str!("artifacts.rs"),
        include_str!("docker_faults.rs"),
        include_str!("checkpoint.rs"),
        include_str!("suspend.rs"),
        include_str!("retries.rs"),
        include_str!("disk.rs"),
        include_str!("cleanup.rs"),
        include_str!("limits.rs"),
        include_str!("program_faults.rs"),
        include_str!("sandbox.rs"),
        include_str!("worktree_faults.rs"),
    ];
    for point in ELSEWHERE {
        assert!(others.iter().any(|text| text.contains(&format!("\"{point}"))), "{point} has no experiment");
    }
    let missing: Vec<_> = points.iter().filter(|point| !own.contains(&format!("\"{point}"))).collect();
    assert!(missing.is_empty(), "no experiment: {missing:?}");
}

/// The names of all failpoints in the sources below this folder.
fn collect(folder: &Path, points: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, points);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for call in ["failpoint!(\"", "failpoint::cut(\""] {
                points.extend(text.split(call).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
}
