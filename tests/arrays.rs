//! Arrays and dependencies: many tasks from one record, and tasks that wait for others.
//!
//! Deliberately absent: task files, which make both (`src/taskfile/tests.rs`), and the store's own bookkeeping.

mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;

use acode::wire::request::{List, Submit};
use acode::wire::types::{TaskRecord, Waiting};
use acode::wire::{CallError, ClientError, TaskRef};
use acode_worker::task::{Array, Blocker, Dependency, DependencyKind, Submission, TaskId, TaskSpec, TaskState};
use common::{Options, Pool, shell, wait_until};
use more::{cancel, command, entry, events_of, gated, open_gate, reaches, retry};

fn array(spec: TaskSpec, array: Array) -> Submission {
    Submission { spec, array: Some(array), ..Submission::default() }
}

fn range(spec: TaskSpec, first: u64, count: u64) -> Submission {
    array(spec, Array::Range { first, count })
}

fn members(pool: &Pool, id: TaskId) -> Vec<TaskRecord> {
    pool.call(&List { array: Some(TaskRef::Id(id)), limit: Some(1_000), ..List::default() }).tasks
}

#[test]
fn a_range_runs_once_for_each_number() {
    let pool = Pool::start(Options::workers(3));
    let spec = shell(r#"echo {item} {index} $2 >>"$1""#, &[&pool.path("ran"), "{item}-{index}"]);
    let id = pool.submit_all(vec![range(spec, 10, 600)])[0];
    let whole = pool.wait(id);
    assert_eq!((whole.state, whole.array.unwrap().members.completed), (TaskState::Completed, 600));
    let mut lines = pool.lines("ran");
    lines.sort();
    let mut expected: Vec<_> = (0..600).map(|n| format!("{0} {n} {0}-{n}", n + 10)).collect();
    expected.sort();
    assert_eq!(lines, expected);
    assert_eq!(pool.status().tasks.completed, 600, "members count, the array itself does not");
    assert_eq!(events_of(&pool.events(), id), ["array-submitted", "task-completed"]);
}

#[test]
fn items_fill_their_placeholders_everywhere() {
    let pool = Pool::start(Options::workers(1));
    let items = ["/data/in/a b.tar.gz", "plain", "{item}", "ünïcode"].map(str::to_owned).to_vec();
    let script = r#"printf '%s|' "$@" "$VAR" "$ACODE_META_KEY" >>"$0"; echo >>"$0""#;
    let mut spec =
        command(&["sh", "-c", script, &pool.path("ran"), "{item}", "{name}", "{stem}", "{dir}", "{index}", "{{x}}"]);
    spec.env.insert("VAR".into(), "v-{stem}".into());
    spec.meta.insert("key".into(), "m-{index}".into());
    spec.name = Some("do {name}".into());
    let id = pool.submit_all(vec![array(spec, Array::Items(items.clone()))])[0];
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let expected = [
        "/data/in/a b.tar.gz|a b.tar.gz|a b.tar|/data/in|0|{x}|v-a b.tar|m-0|",
        "plain|plain|plain|.|1|{x}|v-plain|m-1|",
        "{item}|{item}|{item}|.|2|{x}|v-{item}|m-2|",
        "ünïcode|ünïcode|ünïcode|.|3|{x}|v-ünïcode|m-3|",
    ];
    assert_eq!(pool.lines("ran"), expected);
    let members = members(&pool, id);
    let seen: Vec<_> = members.iter().map(|task| task.member.clone().unwrap()).collect();
    assert!(seen.iter().zip(&items).all(|(member, item)| member.item == *item && member.of == id));
    assert_eq!(members[0].name, "do a b.tar.gz");
}

#[test]
fn one_failed_member_fails_the_array_and_the_others_run() {
    let pool = Pool::start(Options::workers(2));
    let id = pool.submit_all(vec![range(shell("[ {item} != 5 ]", &[]), 0, 10)])[0];
    let whole = pool.wait(id);
    let counts = whole.array.unwrap().members;
    assert_eq!((whole.state, counts.completed, counts.failed), (TaskState::Failed, 9, 1));
    let failed: Vec<_> = members(&pool, id).into_iter().filter(|task| task.state == TaskState::Failed).collect();
    assert_eq!((failed.len(), failed[0].member.as_ref().unwrap().index), (1, 5));
}

#[test]
fn a_retried_array_runs_again_what_did_not_complete() {
    let pool = Pool::start(Options::workers(2));
    let script = r#"echo {item} >>"$2"; [ {item} -lt 3 ] || [ -e "$1" ]"#;
    let id = pool.submit_all(vec![range(shell(script, &[&pool.path("gate"), &pool.path("ran")]), 0, 5)])[0];
    assert_eq!(pool.wait(id).state, TaskState::Failed);
    open_gate(&pool, "gate");
    assert!(retry(&pool, id));
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let mut ran = pool.lines("ran");
    ran.sort();
    assert_eq!(ran, ["0", "1", "2", "3", "3", "4", "4"]);
}

#[test]
fn cancelling_an_array_ends_all_of_it() {
    let pool = Pool::start(Options::workers(2));
    let id = pool.submit_all(vec![range(command(&["sleep", "1000"]), 0, 2_000)])[0];
    wait_until("two members run", || pool.show(id).array.unwrap().members.running == 2);
    assert!(cancel(&pool, id));
    let whole = pool.wait(id);
    assert_eq!((whole.state, whole.array.unwrap().members.cancelled), (TaskState::Cancelled, 2_000));
    wait_until("the workers are free", || pool.status().workers.idle == 2);
    assert_eq!(pool.status().tasks.cancelled, 2_000);
    let untouched = pool.events().into_iter().filter(|event| event.task == Some(id) && event.event == "task-cancelled");
    assert!(untouched.into_iter().any(|event| event.data.is_some_and(|data| data.get().contains("\"count\":"))));
}

#[test]
fn one_member_can_be_cancelled_by_itself() {
    let pool = Pool::start(Options::workers(1));
    let gate = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, gate, TaskState::Running);
    let id = pool.submit_all(vec![range(shell(r#"echo {item} >>"$1""#, &[&pool.path("ran")]), 0, 4)])[0];
    let second = TaskRef::Number(id.seq() + 2);
    let reply = pool.call(&acode::wire::request::Cancel { ids: vec![second], ..Default::default() });
    assert_eq!(reply.cancelled.len(), 1);
    open_gate(&pool, "gate");
    let counts = pool.wait(id).array.unwrap().members;
    assert_eq!((counts.completed, counts.cancelled), (3, 1));
    assert_eq!(pool.lines("ran"), ["0", "2", "3"]);
}

#[test]
fn arrays_of_no_size_or_of_any_size_are_refused() {
    let pool = Pool::start(Options::workers(1));
    let spec = || command(&["true"]);
    let refused = pool.try_call(&Submit::new(vec![range(spec(), u64::MAX, 1)]));
    assert!(matches!(refused, Err(ClientError::Call(CallError::InvalidSubmission { .. }))), "{refused:?}");
    let sizes = [vec![0], vec![Array::MAX + 1], vec![u64::MAX], vec![u64::MAX, 2], vec![u64::MAX - 1, u64::MAX - 1]];
    for sizes in sizes {
        let tasks = sizes.iter().map(|count| range(spec(), 0, *count)).collect();
        let refused = pool.try_call(&Submit::new(tasks));
        let fit = matches!(
            refused,
            Err(ClientError::Call(CallError::InvalidSubmission { .. } | CallError::QueueFull { .. }))
        );
        assert!(fit, "{sizes:?}: {refused:?}");
    }
    let id = pool.submit_all(vec![range(spec(), i64::MAX as u64 - 1, 1)])[0];
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert_eq!(pool.status().tasks.total(), 1);
}

fn after(spec: TaskSpec, on: &[(Blocker, DependencyKind)]) -> Submission {
    let dependencies = on.iter().map(|(on, when)| Dependency { on: on.clone(), when: *when }).collect();
    Submission { spec, dependencies, ..Submission::default() }
}

fn script(pool: &Pool, name: &str, code: i32) -> TaskSpec {
    shell(&format!(r#"echo {name} >>"$1"; exit {code}"#), &[&pool.path("order")])
}

#[test]
fn a_chain_runs_in_its_order() {
    let pool = Pool::start(Options::workers(4));
    let mut tasks = vec![entry(shell(r#"sleep 0.2; echo t0 >>"$1""#, &[&pool.path("order")]))];
    for n in 1..8 {
        tasks.push(after(script(&pool, &format!("t{n}"), 0), &[(Blocker::Entry(n - 1), DependencyKind::Succeeded)]));
    }
    let ids = pool.submit_all(tasks);
    let waiting = pool.show(ids[7]).waiting;
    assert_eq!(waiting, Some(Waiting::Dependencies { on: vec![ids[6]], count: 1, tasks: Vec::new() }));
    pool.wait(ids[7]);
    assert_eq!(pool.lines("order"), (0..8).map(|n| format!("t{n}")).collect::<Vec<_>>());
}

#[test]
fn each_kind_of_dependency_has_its_way() {
    use DependencyKind::{Ended, Failed, Succeeded};
    let pool = Pool::start(Options::workers(2));
    let on = |which: u32, kind| [(Blocker::Entry(which), kind)];
    let ids = pool.submit_all(vec![
        entry(script(&pool, "good", 0)),
        entry(script(&pool, "bad", 1)),
        after(script(&pool, "after-good", 0), &on(0, Succeeded)),
        after(script(&pool, "after-bad", 0), &on(1, Succeeded)),
        after(script(&pool, "any-good", 0), &on(0, Ended)),
        after(script(&pool, "any-bad", 0), &on(1, Ended)),
        after(script(&pool, "failed-good", 0), &on(0, Failed)),
        after(script(&pool, "failed-bad", 0), &on(1, Failed)),
        after(script(&pool, "both", 0), &[(Blocker::Entry(0), Succeeded), (Blocker::Entry(1), Failed)]),
    ]);
    pool.wait_all();
    let ran: BTreeSet<String> = pool.lines("order").into_iter().collect();
    let expected = ["good", "bad", "after-good", "any-good", "any-bad", "failed-bad", "both"];
    assert_eq!(ran, expected.map(str::to_owned).into());
    for cancelled in [3, 6] {
        let task = pool.wait(ids[cancelled]);
        assert_eq!(task.state, TaskState::Cancelled);
        let blocker = ids[if cancelled == 3 { 1 } else { 0 }].to_string();
        assert!(task.error.as_ref().is_some_and(|error| error.contains(&blocker)), "{:?}", task.error);
    }
}

#[test]
fn a_failure_cancels_what_waits_for_it_however_far_away() {
    let pool = Pool::start(Options::workers(2));
    let mut tasks = vec![entry(command(&["false"]))];
    for n in 0..20 {
        tasks.push(after(command(&["true"]), &[(Blocker::Entry(n), DependencyKind::Succeeded)]));
    }
    let ids = pool.submit_all(tasks);
    pool.wait_all();
    let counts = pool.status().tasks;
    assert_eq!((counts.failed, counts.cancelled), (1, 20));
    // What comes too late is told the same.
    let late = pool.submit_all(vec![after(command(&["true"]), &[(Blocker::Id(ids[0]), DependencyKind::Succeeded)])])[0];
    assert_eq!(pool.wait(late).state, TaskState::Cancelled);
    let met = pool.submit_all(vec![after(command(&["true"]), &[(Blocker::Id(ids[0]), DependencyKind::Failed)])])[0];
    assert_eq!(pool.wait(met).state, TaskState::Completed);
}

#[test]
fn a_retry_lets_what_waits_wait() {
    let pool = Pool::start(Options::workers(2).config("tasks:\n  retries:\n    count: 2\n    delayMs: 1"));
    let ids = pool.submit_all(vec![
        entry(shell("[ $ACODE_ATTEMPT = 3 ]", &[])),
        after(command(&["true"]), &[(Blocker::Entry(0), DependencyKind::Succeeded)]),
    ]);
    assert_eq!(pool.wait(ids[1]).state, TaskState::Completed);
    assert_eq!(pool.show(ids[0]).attempt_count, 3);
}

#[test]
fn a_task_waits_for_a_whole_array_and_an_array_for_a_task() {
    let pool = Pool::start(Options::workers(4));
    let mut second = range(shell(r#"[ -e "$1" ] && echo x >>"$2""#, &[&pool.path("made"), &pool.path("ran")]), 0, 20);
    second.dependencies = vec![Dependency { on: Blocker::Entry(0), when: DependencyKind::Succeeded }];
    let count = shell(r#"[ $(wc -l <"$1") = 20 ]"#, &[&pool.path("ran")]);
    let ids = pool.submit_all(vec![
        entry(shell(r#"sleep 0.2; touch "$1""#, &[&pool.path("made")])),
        second,
        after(count, &[(Blocker::Entry(1), DependencyKind::Succeeded)]),
    ]);
    assert_eq!(pool.wait(ids[2]).state, TaskState::Completed);
    assert_eq!(pool.show(ids[1]).array.unwrap().members.completed, 20);
}

#[test]
fn dependencies_on_nothing_are_refused_and_nothing_is_accepted() {
    let pool = Pool::start(Options::workers(1));
    let known = pool.submit(&["true"]);
    let unknown = TaskId::new(1, known.queue(), 1 << 30);
    let foreign = TaskId::new(1, known.queue() ^ 1, known.seq());
    for on in [Blocker::Id(unknown), Blocker::Id(foreign), Blocker::Entry(1), Blocker::Entry(7)] {
        let tasks = vec![entry(command(&["true"])), after(command(&["true"]), &[(on.clone(), DependencyKind::Ended)])];
        let refused = pool.try_call(&Submit::new(tasks));
        let at = matches!(&refused, Err(ClientError::Call(CallError::InvalidSubmission { entry: Some(1), .. })));
        assert!(at, "{on:?}: {refused:?}");
    }
    pool.wait(known);
    assert_eq!(pool.status().tasks.total(), 1);
}
