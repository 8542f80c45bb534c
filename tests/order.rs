//! Whose turn it is: priorities, ageing, holding and releasing, start times and start deadlines, old queues.
//!
//! Deliberately absent: limit groups (`groups.rs`), and dependencies by themselves.

#[path = "common/command.rs"]
mod cli;
mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::TaskRef;
use acode::wire::request::{Hold, Release};
use acode::wire::types::Waiting;
use acode_worker::task::{
    Array, Blocker, Dependency, DependencyKind, Priority, Submission, TaskId, TaskSpec, TaskState,
};
use cli::Acode;
use common::{Options, Pool, shell, wait_until};
use more::{command, entry, events_of, gated, open_gate, reaches};

/// A task that writes a word to the file `order`.
fn writes(pool: &Pool, word: &str) -> TaskSpec {
    shell(r#"echo "$2" >>"$1""#, &[&pool.path("order"), word])
}

fn urgent(spec: TaskSpec, priority: Priority) -> TaskSpec {
    TaskSpec { priority, ..spec }
}

/// A pool of one worker that is busy until the gate is opened.
fn busy(options: Options) -> (Pool, TaskId) {
    let pool = Pool::start(options);
    let gate = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, gate, TaskState::Running);
    (pool, gate)
}

fn hold(pool: &Pool, id: TaskId) -> bool {
    pool.call(&Hold { ids: vec![TaskRef::Id(id)], group: None }).held == [id]
}

fn release(pool: &Pool, id: TaskId) -> bool {
    pool.call(&Release { ids: vec![TaskRef::Id(id)], group: None }).released == [id]
}

fn now_us() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64
}

#[test]
fn a_critical_task_behind_100000_normal_ones_starts_next() {
    let (mut pool, _) = busy(Options::workers(1));
    let normal: Vec<Submission> = (0..10_000).map(|_| entry(writes(&pool, "normal"))).collect();
    (0..10).for_each(|_| drop(pool.submit_all(normal.clone())));
    assert_eq!(pool.status().tasks.pending, 100_000);
    let critical = pool.submit_spec(urgent(writes(&pool, "critical"), Priority::Critical));
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(critical).state, TaskState::Completed);
    assert_eq!(pool.lines("order")[0], "critical");
    pool.stop();
}

#[test]
fn a_low_task_becomes_more_urgent_by_waiting_and_still_shows_what_was_asked_for() {
    let (pool, gate) = busy(Options::workers(1).config("queue:\n  ageingSeconds: 1"));
    let acode = Acode::of(&pool);
    let low = pool.submit_spec(urgent(writes(&pool, "low"), Priority::Low));
    let array = Some(Array::Range { first: 0, count: 3 });
    let spec = urgent(writes(&pool, "member"), Priority::Low);
    let array = pool.submit_all(vec![Submission { spec, array, ..Submission::default() }])[0];
    for present in [Priority::Normal, Priority::High, Priority::Critical] {
        wait_until("it is more urgent", || pool.show(low).present_priority == Some(present));
        assert_eq!(pool.show(low).priority, Priority::Low);
    }
    let member = TaskId::new(array.millis(), array.queue(), array.seq() + 3);
    wait_until("members are as well", || pool.show(member).present_priority == Some(Priority::Critical));
    assert!(acode.ok(&["task", "show", &low.to_string()]).contains("low (critical by waiting)"));
    pool.submit_spec(urgent(writes(&pool, "high"), Priority::High));
    pool.submit_spec(writes(&pool, "normal"));
    assert_eq!(pool.show(gate).present_priority, None, "what runs does not wait");
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(pool.lines("order"), ["low", "member", "member", "member", "high", "normal"]);
}

#[test]
fn without_ageing_nothing_moves() {
    let (pool, _) = busy(Options::workers(1));
    let low = pool.submit_spec(urgent(writes(&pool, "low"), Priority::Low));
    let soon = Submission { spec: writes(&pool, "later"), delay_ms: Some(700), ..Submission::default() };
    let later = pool.submit_all(vec![soon])[0];
    wait_until("it is ready", || matches!(pool.show(later).waiting, Some(Waiting::Queued { .. })));
    assert_eq!(pool.show(low).present_priority, None);
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(pool.lines("order"), ["later", "low"]);
}

#[test]
fn a_held_task_is_not_started_before_it_is_released() {
    let (mut pool, gate) = busy(Options::workers(1));
    let acode = Acode::of(&pool);
    let held = acode.ok(&["task", "submit", "--hold", "--", "true"]);
    let published = pool.submit(&["true"]);
    assert!(hold(&pool, published));
    assert!(hold(&pool, published), "it may be held twice");
    assert!(!hold(&pool, gate), "it runs");
    let said = acode.says(&["task", "hold", &gate.to_string()]).expect(1);
    assert!(said.err.contains("it has started"), "{said:?}");
    open_gate(&pool, "gate");
    pool.wait(gate);
    let said = acode.says(&["task", "hold", &gate.to_string()]).expect(1);
    assert!(said.err.contains("it has ended"), "{said:?}");
    pool.wait(pool.submit(&["true"]));
    let why = acode.ok(&["task", "why", &held]);
    assert!(why.starts_with("held since 20") && why.ends_with(" by request"), "{why}");
    assert!(acode.ok(&["task", "list", "--state", "pending"]).contains("held since"));
    pool.kill9();
    pool.restart();
    pool.wait(pool.submit(&["true"]));
    assert!(matches!(pool.show(published).waiting, Some(Waiting::Held { .. })), "also after a crash");
    assert_eq!(acode.ok(&["task", "release", &held, &published.to_string()]).lines().count(), 2);
    assert_eq!(pool.wait(published).state, TaskState::Completed);
    let said = acode.says(&["task", "release", &held]).expect(1);
    assert!(said.err.contains(&held), "{said:?}");
    pool.wait_all();
    let kinds = ["task-submitted", "task-held", "task-released", "task-assigned", "task-started", "task-completed"];
    assert_eq!(events_of(&pool.events(), published), kinds);
}

#[test]
fn arrays_are_held_as_a_whole_and_members_one_by_one() {
    let (pool, _) = busy(Options::workers(1));
    let array = |count| {
        let array = Some(Array::Range { first: 0, count });
        pool.submit_all(vec![Submission { spec: command(&["true"]), array, ..Submission::default() }])[0]
    };
    let member = |of: TaskId, index: u64| TaskId::new(of.millis(), of.queue(), of.seq() + 1 + index);
    let (whole, partly, large) = (array(3), array(3), array(100_000));
    assert!(hold(&pool, whole) && hold(&pool, member(partly, 1)) && hold(&pool, large));
    assert!(hold(&pool, member(large, 99_999)));
    open_gate(&pool, "gate");
    wait_until("two of three have ended", || pool.show(partly).array.unwrap().members.completed == 2);
    assert_eq!(pool.show(member(partly, 1)).state, TaskState::Pending);
    assert!(release(&pool, member(whole, 2)), "one member alone");
    assert_eq!(pool.wait(member(whole, 2)).state, TaskState::Completed);
    assert_eq!(pool.show(whole).array.unwrap().members.pending, 2);
    assert!(release(&pool, whole) && release(&pool, partly));
    assert_eq!((pool.wait(whole).state, pool.wait(partly).state), (TaskState::Completed, TaskState::Completed));
    assert_eq!(pool.show(large).array.unwrap().members.pending, 100_000);
    more::cancel(&pool, large);
    assert_eq!(pool.wait(large).state, TaskState::Cancelled);
    assert_eq!(pool.status().tasks.pending, 0);
}

#[test]
fn a_task_that_has_not_started_by_its_deadline_is_cancelled_and_one_that_has_goes_on() {
    let pool = Pool::start(Options::workers(1));
    let deadline_us = now_us() + 700_000;
    let expires_us = Some(deadline_us);
    let started =
        pool.submit_all(vec![Submission { spec: gated(&pool, "gate"), expires_us, ..Submission::default() }])[0];
    reaches(&pool, started, TaskState::Running);
    let late = pool.submit_all(vec![Submission { spec: command(&["true"]), expires_us, ..Submission::default() }])[0];
    let behind = |when| Submission {
        spec: command(&["true"]),
        dependencies: vec![Dependency { on: Blocker::Id(late), when }],
        ..Submission::default()
    };
    let ids = pool.submit_all(vec![behind(DependencyKind::Succeeded), behind(DependencyKind::Ended)]);
    let array = Some(Array::Range { first: 0, count: 50_000 });
    let members = Submission { spec: command(&["true"]), array, expires_us, ..Submission::default() };
    let array = pool.submit_all(vec![members])[0];
    let task = pool.wait(late);
    assert_eq!(task.state, TaskState::Cancelled);
    assert!(task.error.as_deref().unwrap().starts_with("not started by 20"), "{task:?}");
    assert!(task.finished_at.unwrap().micros() as u64 >= deadline_us);
    assert_eq!(pool.wait(ids[0]).state, TaskState::Cancelled);
    assert_eq!(pool.wait(array).state, TaskState::Cancelled);
    assert_eq!(pool.show(started).state, TaskState::Running);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(started).state, TaskState::Completed);
    assert_eq!(pool.wait(ids[1]).state, TaskState::Completed);
    assert!(pool.status().tasks.cancelled >= 50_000, "all members that had not started");
}

#[test]
fn only_the_first_start_counts_for_the_deadline() {
    let pool = Pool::start(Options::workers(1));
    let retry = Some(acode_worker::task::Retries { count: Some(1), delay_ms: Some(900), ..Default::default() });
    let spec = TaskSpec { retry, ..shell("[ $ACODE_ATTEMPT = 2 ]", &[]) };
    let expires_us = Some(now_us() + 600_000);
    let id = pool.submit_all(vec![Submission { spec, expires_us, ..Submission::default() }])[0];
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "{task:?}");
}

#[test]
fn a_start_time_is_kept_and_a_deadline_before_it_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let at_us = now_us() + 400_000;
    let timed = Submission { spec: command(&["true"]), not_before_us: Some(at_us), ..Submission::default() };
    let task = pool.wait(pool.submit_all(vec![timed])[0]);
    assert!(task.started_at.unwrap().micros() as u64 >= at_us);
    let far = acode.ok(&["task", "submit", "--not-before", "2099-01-01 00:00", "--", "true"]);
    assert!(acode.ok(&["task", "why", &far]).starts_with("not before 20"));
    let past = acode.ok(&["task", "submit", "--not-before", "2001-01-01T00:00:00Z", "--", "true"]);
    acode.says(&["task", "wait", &past]).expect(0);
    let said = acode.says(&["task", "submit", "--delay", "2h", "--expires", "1h", "--", "true"]).expect(2);
    assert!(said.err.contains("before it may start"), "{said:?}");
    acode.says(&["task", "submit", "--not-before", "soon", "--", "true"]).expect(2);
    let file = "tasks:\n  - {command: 'true', expires: 1h, notBefore: '2001-01-01T00:00:00Z', hold: true}\n";
    let id = acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0).out;
    assert!(acode.ok(&["task", "show", id.trim()]).contains("Expires"));
    assert!(acode.ok(&["task", "why", id.trim()]).starts_with("held since"));
}

#[test]
fn why_counts_who_is_ahead() {
    let (pool, _) = busy(Options::workers(1));
    let acode = Acode::of(&pool);
    let ids = pool.submit_all((0..3).map(|_| entry(command(&["true"]))).collect());
    let array = Some(Array::Range { first: 0, count: 500 });
    pool.submit_all(vec![Submission { spec: command(&["true"]), array, ..Submission::default() }]);
    let behind = pool.submit(&["true"]);
    pool.submit_all((0..600).map(|_| entry(command(&["true"]))).collect());
    let last = pool.submit(&["true"]);
    let why = |id: TaskId| acode.ok(&["task", "why", &id.to_string()]);
    assert_eq!(why(ids[0]), "queued: next in priority normal");
    assert_eq!(why(ids[1]), "queued: 1 task ahead in priority normal");
    assert_eq!(why(behind), "queued: 503 tasks ahead in priority normal");
    assert_eq!(why(last), "queued: more than 1000 tasks ahead in priority normal");
    open_gate(&pool, "gate");
    pool.wait_all();
}

#[test]
fn all_of_it_works_without_a_pool() {
    let mut pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let submit = |words: &[&str]| acode.ok(&[&["task", "submit"], words, &["--", "true"]].concat());
    let held = submit(&["--hold", "--group", "g"]);
    let plain = submit(&["--limit-group", "g=1"]);
    let late = submit(&["--expires", "10ms"]);
    acode.ok(&["task", "hold", &plain]);
    assert!(acode.ok(&["task", "why", &plain]).starts_with("held since"));
    acode.ok(&["task", "release", &plain]);
    acode.says(&["task", "release", &plain]).expect(1);
    acode.ok(&["task", "hold", "--group", "g"]);
    assert!(acode.ok(&["task", "why", &plain]).starts_with("group g held since"));
    acode.ok(&["task", "release", "--group", "g"]);
    pool.restart();
    acode.says(&["task", "wait", &plain]).expect(0);
    acode.says(&["task", "wait", &late]).expect(1);
    assert!(acode.ok(&["task", "why", &late]).contains("not started by"));
    pool.stop();
    assert_eq!(acode.ok(&["task", "cancel", "--group", "g"]), held);
    assert_eq!(acode.json(&["task", "show", &held])["state"], "cancelled");
}

#[test]
fn a_queue_of_version_one_is_brought_up_to_date_and_run() {
    let mut pool = Pool::prepare(Options::workers(2));
    std::fs::create_dir_all(pool.state_dir()).unwrap();
    let old = rusqlite::Connection::open(pool.state_dir().join("queue.db")).unwrap();
    old.execute_batch(include_str!("../src/store/schema.sql")).unwrap();
    let (now_ms, tag) = (now_us() / 1_000, 77_u64);
    let spec = |word: &str| serde_json::to_string(&writes(&pool, word)).unwrap();
    let insert =
        "INSERT INTO task(seq, kind, state, priority, class, blockers, not_before_us, held, flags, submitted_ms,
        spec) VALUES(?1, ?2, 0, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9)";
    let task = |seq: u64, kind: u8, priority: u8, spec: Option<String>| {
        let (blockers, flags, held) = if seq == 2 { (1, 2, 0) } else { (0, u8::from(seq == 1), 0) };
        let delay = if seq == 3 { now_us() + 200_000 } else { 0 };
        let row = rusqlite::params![seq, kind, priority, blockers, delay, held, flags, now_ms, spec];
        old.execute(insert, row).unwrap();
    };
    task(1, 0, 2, Some(spec("plain")));
    task(2, 0, 2, Some(spec("dependent")));
    task(3, 0, 1, Some(spec("delayed")));
    task(4, 1, 3, Some(spec("{item}")));
    task(5, 2, 3, None);
    old.execute_batch(&format!(
        "INSERT INTO dep VALUES (1, 2, 0, 0); INSERT INTO array(seq, count, first, cursor, open) VALUES (4, 3, 7, 1, 3);
         INSERT INTO meta VALUES ('tag', {tag}); INSERT INTO ledger VALUES (1, 1, 8, 1, {now_ms}, 6, 0, 0, 0, 0);
         PRAGMA application_id = 1633906532; PRAGMA user_version = 1"
    ))
    .unwrap();
    drop(old);
    pool.restart();
    pool.wait_all();
    assert_eq!(pool.status().tasks.completed, 6);
    let mut words = pool.lines("order");
    words.sort();
    assert_eq!(words, ["7", "8", "9", "delayed", "dependent", "plain"]);
}
