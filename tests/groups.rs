//! Limit groups: never more at once than may be, in order with everything else, at no cost to others.
//!
//! Deliberately absent: what else decides a task's turn (`order.rs`), and the same rules under simulated loads.

#[path = "common/command.rs"]
mod cli;
mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::{Cancel, Hold, LimitGroup, Release};
use acode::wire::types::Waiting;
use acode_worker::task::{Array, GroupWish, Priority, Submission, TaskId, TaskSpec, TaskState};
use cli::Acode;
use common::{Options, Pool, shell, wait_until};
use more::{command, gated, open_gate, reaches};

fn wish(name: &str, max: Option<u32>) -> Option<GroupWish> {
    Some(GroupWish { name: name.to_owned(), max })
}

fn of_group(spec: TaskSpec, name: &str, max: Option<u32>) -> Submission {
    Submission { spec, group: wish(name, max), ..Submission::default() }
}

/// A task that notes its beginning and its end in the file `log`, with a while between them.
fn noted(pool: &Pool, seconds: &str) -> TaskSpec {
    shell(r#"echo + >>"$1"; sleep "$2"; echo - >>"$1""#, &[&pool.path("log"), seconds])
}

/// A task that writes a word to the file `order`.
fn writes(pool: &Pool, word: &str) -> TaskSpec {
    shell(r#"echo "$2" >>"$1""#, &[&pool.path("order"), word])
}

/// The most tasks that were between their notes at a time.
fn most_at_once(pool: &Pool) -> i32 {
    let (mut now, mut most) = (0, 0);
    for line in pool.lines("log") {
        now += if line == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    most
}

#[test]
fn a_groups_limit_is_never_exceeded_whatever_else_runs() {
    let pool = Pool::start(Options::workers(4));
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(of_group(noted(&pool, "0.02"), "g", Some(2)));
        tasks.push(more::entry(command(&["true"])));
    }
    let array = Some(Array::Range { first: 0, count: 20 });
    tasks.push(Submission { array, ..of_group(noted(&pool, "0.01"), "g", None) });
    pool.submit_all(tasks);
    pool.wait_all();
    assert_eq!(pool.status().tasks.completed, 60);
    assert_eq!(pool.lines("log").len(), 80);
    assert_eq!(most_at_once(&pool), 2, "as many as may, and no more");
}

#[test]
fn tasks_of_all_groups_come_in_the_order_of_submission() {
    let pool = Pool::start(Options::workers(1));
    let gate = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, gate, TaskState::Running);
    let groups = [Some("a"), None, Some("b"), None, Some("a"), Some("c"), Some("b"), None];
    for (index, group) in groups.into_iter().enumerate() {
        let spec = writes(&pool, &index.to_string());
        let task = match group {
            Some(name) => of_group(spec, name, Some(5)),
            None => more::entry(spec),
        };
        pool.submit_all(vec![task]);
    }
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(pool.lines("order"), (0..groups.len()).map(|index| index.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_task_that_waited_for_its_group_comes_before_what_is_younger() {
    let pool = Pool::start(Options::workers(1));
    let gate = pool.submit_all(vec![of_group(gated(&pool, "gate"), "g", Some(1))])[0];
    reaches(&pool, gate, TaskState::Running);
    pool.submit_all(vec![of_group(writes(&pool, "second"), "g", None)]);
    // They take long enough that a supervisor on a busy machine sees the group's room before most of them have run.
    let other = shell(r#"echo other >>"$1"; sleep 0.05"#, &[&pool.path("order")]);
    pool.submit_all((0..60).map(|_| more::entry(other.clone())).collect());
    open_gate(&pool, "gate");
    pool.wait_all();
    let order = pool.lines("order");
    let place = order.iter().position(|word| word == "second").unwrap();
    assert!(place < 40, "it came as number {place} of {}, although it was the oldest", order.len());
}

#[test]
fn a_full_group_keeps_nobody_else_from_running_and_says_what_it_waits_for() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let gate = pool.submit_all(vec![of_group(gated(&pool, "gate"), "encode", Some(1))])[0];
    reaches(&pool, gate, TaskState::Running);
    let waiting = pool.submit_all((0..500).map(|_| of_group(command(&["true"]), "encode", None)).collect());
    let others = pool.submit_all((0..50).map(|_| more::entry(command(&["true"]))).collect());
    others.iter().for_each(|id| assert_eq!(pool.wait(*id).state, TaskState::Completed));
    let why = acode.ok(&["task", "why", &waiting[0].to_string()]);
    assert_eq!(why, format!("group encode is full: 1 of 1 running ({gate})"));
    let said = pool.show(waiting[9]).waiting;
    assert!(matches!(&said, Some(Waiting::Group { limit: 1, running: 1, on, .. }) if *on == [gate]), "{said:?}");
    let group = &acode.json(&["task", "group", "encode"])[0];
    assert_eq!((group["limit"].as_u64(), group["running"].as_u64()), (Some(1), Some(1)));
    assert_eq!(group["waiting"].as_u64(), Some(500));
    open_gate(&pool, "gate");
    assert_eq!(pool.wait_all().counts.unsuccessful(), 0);
    assert_eq!(acode.json(&["task", "group"])[0]["waiting"].as_u64(), Some(0));
}

#[test]
fn an_urgent_task_takes_the_place_of_a_published_one_of_its_group() {
    let pool = Pool::start(Options::workers(1));
    let gate = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, gate, TaskState::Running);
    let task = |word: &str, priority| {
        let spec = TaskSpec { priority, ..writes(&pool, word) };
        pool.submit_all(vec![of_group(spec, "g", Some(1))])[0]
    };
    let patient = task("patient", Priority::Normal);
    task("high", Priority::High);
    let urgent = task("urgent", Priority::Critical);
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(pool.lines("order"), ["urgent", "high", "patient"]);
    assert!(pool.show(urgent).started_at < pool.show(patient).started_at);
}

#[test]
fn a_later_word_and_the_command_change_the_limit() {
    let pool = Pool::start(Options::workers(4));
    let running = |count: u64| wait_until("so many run", || pool.status().tasks.running == count);
    pool.submit_all((0..4).map(|_| of_group(gated(&pool, "gate"), "g", Some(1))).collect());
    running(1);
    let later = pool.submit_all(vec![of_group(gated(&pool, "gate"), "g", Some(2))])[0];
    running(2);
    assert_eq!(pool.show(later).state, TaskState::Pending);
    Acode::of(&pool).ok(&["task", "group", "g", "--limit", "3"]);
    running(3);
    assert_eq!(pool.call(&LimitGroup { name: "g".into(), max: None }).group.limit, None);
    running(4);
    open_gate(&pool, "gate");
    pool.wait_all();
    for (limit, code) in [("0", 2), ("some", 2), ("1000001", 2)] {
        Acode::of(&pool).says(&["task", "group", "g", "--limit", limit]).expect(code);
    }
    Acode::of(&pool).says(&["task", "group", "nobody"]).expect(4);
}

#[test]
fn the_configurations_limit_wins_and_a_lower_one_holds_back_what_is_published() {
    let pool = Pool::start(Options::workers(3).config("groups:\n  limits: {g: 2}"));
    pool.submit_all((0..6).map(|_| of_group(noted(&pool, "0.05"), "g", Some(6))).collect());
    pool.wait_all();
    assert_eq!(most_at_once(&pool), 2);
    let said = Acode::of(&pool).says(&["task", "group", "g", "--limit", "5"]);
    assert!(said.code == Some(1) && said.err.contains("groups.limits"), "{said:?}");
    // Published ones beyond a limit that has become lower are taken back.
    let gate = pool.submit_spec(gated(&pool, "gate"));
    let gates = pool.submit_all((0..2).map(|_| more::entry(gated(&pool, "gate"))).collect());
    gates.iter().chain([&gate]).for_each(|id| drop(reaches(&pool, *id, TaskState::Running)));
    std::fs::remove_file(pool.file("log")).unwrap();
    pool.submit_all((0..6).map(|_| of_group(noted(&pool, "0.05"), "h", Some(6))).collect());
    pool.call(&LimitGroup { name: "h".into(), max: Some(1) });
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(most_at_once(&pool), 1);
}

#[test]
fn groups_survive_the_supervisor_and_are_there_without_one() {
    let mut pool = Pool::start(Options::workers(3));
    let ids = pool.submit_all((0..6).map(|_| of_group(noted(&pool, "0.05"), "g", Some(1))).collect());
    reaches(&pool, ids[0], TaskState::Running);
    pool.kill9();
    let acode = Acode::of(&pool);
    let group = &acode.json(&["task", "group"])[0];
    assert_eq!((group["name"].as_str(), group["limit"].as_u64()), (Some("g"), Some(1)));
    let added = acode.ok(&["task", "submit", "--limit-group", "g=2", "--", "true"]);
    assert_eq!(acode.json(&["task", "group", "g"])[0]["limit"].as_u64(), Some(2));
    acode.ok(&["task", "group", "g", "--limit", "1"]);
    let _ = std::fs::remove_file(pool.file("log"));
    pool.restart();
    pool.wait_all();
    assert_eq!(acode.json(&["task", "show", &added])["group"].as_str(), Some("g"));
    assert_eq!(most_at_once(&pool), 1);
}

#[test]
fn cancelling_a_group_ends_all_of_it_and_nothing_else() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let running = pool.submit_all(vec![of_group(command(&["sleep", "1000"]), "g", Some(1))])[0];
    reaches(&pool, running, TaskState::Running);
    let mut tasks: Vec<Submission> = (0..5_000).map(|_| of_group(command(&["true"]), "g", None)).collect();
    let array = Some(Array::Range { first: 0, count: 1_000 });
    tasks.push(Submission { array, ..of_group(command(&["true"]), "g", None) });
    tasks.push(Submission { delay_ms: Some(3_600_000), ..of_group(command(&["true"]), "g", None) });
    let ids = pool.submit_all(tasks);
    let other = pool.submit_all(vec![of_group(gated(&pool, "gate"), "h", None)])[0];
    let said = acode.ok(&["task", "cancel", "--group", "g", "--reason", "the disk is too small"]);
    assert_eq!(said.lines().count(), 5_003);
    let ended = pool.wait(running);
    assert_eq!((ended.state, ended.error.as_deref()), (TaskState::Cancelled, Some("the disk is too small")));
    for id in [ids[0], ids[4_999], ids[5_000], ids[5_001]] {
        let task = pool.wait(id);
        assert_eq!((task.state, task.error.as_deref()), (TaskState::Cancelled, Some("the disk is too small")));
    }
    assert_eq!(pool.status().tasks.cancelled, 6_002);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(other).state, TaskState::Completed);
    let nobody = pool.try_call(&Cancel { group: Some("nobody".into()), ..Cancel::default() });
    assert!(nobody.unwrap_err().to_string().contains("nobody"));
}

#[test]
fn a_held_group_starts_nothing_until_it_is_released() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let gate = pool.submit_spec(gated(&pool, "gate"));
    let second = pool.submit_spec(gated(&pool, "gate"));
    [gate, second].iter().for_each(|id| drop(reaches(&pool, *id, TaskState::Running)));
    let before: TaskId = pool.submit_all(vec![of_group(command(&["true"]), "g", None)])[0];
    pool.call(&Hold { group: Some("g".into()), ..Hold::default() });
    let after = pool.submit_all(vec![of_group(command(&["true"]), "g", None)])[0];
    open_gate(&pool, "gate");
    [gate, second].iter().for_each(|id| drop(pool.wait(*id)));
    let free = pool.submit(&["true"]);
    pool.wait(free);
    for id in [before, after] {
        let why = acode.ok(&["task", "why", &id.to_string()]);
        assert!(why.starts_with("group g held since 20") && why.ends_with("by request"), "{why}");
    }
    pool.call(&Release { group: Some("g".into()), ..Release::default() });
    assert_eq!(pool.wait(before).state, TaskState::Completed);
    assert_eq!(pool.wait(after).state, TaskState::Completed);
    acode.says(&["task", "hold", "--group", "nobody"]).expect(4);
}

#[test]
fn a_group_that_is_none_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for words in [["--group", "a b"], ["--limit-group", "g=0"], ["--limit-group", "g"], ["--group", ""]] {
        acode.says(&[&["task", "submit"], &words[..], &["--", "true"]].concat()).expect(2);
    }
    let file = "tasks:\n  - {command: 'true', limitGroup: {name: g, max: 0}}\n";
    let said = acode.says_to(file, &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains("its limit is 0"), "{said:?}");
    let file = "tasks:\n  - {command: 'true', limitGroup: {name: g, max: 3}}\n  - {command: 'true', group: g}\n";
    acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0);
    assert_eq!(acode.json(&["task", "group", "g"])[0]["limit"].as_u64(), Some(3));
    pool.wait_all();
}
