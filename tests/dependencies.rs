//! Graphs of tasks, through the real binary: who is meant, what falls with whom, what is told of it, and how large they
//! may be.
//!
//! Deliberately absent: the kinds of dependencies one by one (`arrays.rs`), and what the store makes of them
//! (`src/store/tests/dependencies.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::fmt::Write;

use acode::wire::request::{Submit, Why};
use acode::wire::types::{CauseRecord, Waiting};
use acode::wire::{CallError, ClientError, TaskRef};
use acode_worker::task::{
    Array, Blocker, Dependency, DependencyKind, Priority, Submission, TaskId, TaskSpec, TaskState,
};
use command::Acode;
use common::{Options, Pool, shell, wait_until};
use more::{entry, gated, open_gate, reaches};

fn named(name: &str, spec: TaskSpec) -> Submission {
    entry(TaskSpec { name: Some(name.into()), ..spec })
}

fn after(task: Submission, on: &[Blocker]) -> Submission {
    let wait = |on: &Blocker| Dependency { on: on.clone(), when: DependencyKind::Succeeded };
    Submission { dependencies: on.iter().map(wait).collect(), ..task }
}

fn why(pool: &Pool, id: TaskId) -> acode::wire::reply::WhyReply {
    pool.call(&Why { id: TaskRef::Id(id) })
}

#[test]
fn tasks_of_the_queue_are_depended_on_by_name() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let ids = pool.submit_all(vec![named("fetch", more::command(&["true"])), named("fetch", gated(&pool, "gate"))]);
    reaches(&pool, ids[1], TaskState::Running);
    pool.wait(ids[0]);
    // By the command line on one that runs, and one that has ended.
    let running: TaskId = acode.ok(&["task", "submit", "--after", "fetch", "--", "true"]).parse().unwrap();
    let ended = acode.ok(&["task", "submit", "--after", &ids[0].seq().to_string(), "--", "true"]);
    pool.wait(ended.parse().unwrap());
    // By a task file, in which its own tasks come first, and later ones may be named.
    let file =
        "tasks:\n- {command: 'true', name: last, after: [first, 'name:fetch']}\n- {command: 'true', name: first}\n";
    let said = acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0).out;
    let last: TaskId = said.lines().last().unwrap().parse().unwrap();
    let first: TaskId = said.lines().next().unwrap().parse().unwrap();
    pool.wait(first);
    match pool.show(last).waiting {
        Some(Waiting::Dependencies { on, .. }) => assert_eq!(on, [ids[1]]),
        other => panic!("{other:?}"),
    }
    // And by JSON Lines, whose names of the queue are looked up as well.
    let line = format!("{{\"command\":\"true\",\"after\":\"id:{}\"}}\n", ids[1].seq());
    let line = acode.says_to(line, &["task", "submit", "--file", "-"]).expect(0).out;
    open_gate(&pool, "gate");
    for id in [running, last, line.trim().parse().unwrap()] {
        assert_eq!(pool.wait(id).state, TaskState::Completed);
    }
    let said = acode.says(&["task", "submit", "--after", "fetsch", "--", "true"]).expect(4);
    assert!(said.err.contains("no such task: fetsch"), "{said:?}");
    let unknown = after(entry(more::command(&["true"])), &[Blocker::Task("fetsch".into())]);
    let refused = pool.try_call(&Submit::new(vec![unknown]));
    assert!(matches!(refused, Err(ClientError::Call(CallError::NoSuchTask { .. }))), "{refused:?}");
    pool.wait_all();
}

#[test]
fn a_cycle_is_refused_with_its_tasks() {
    let pool = Pool::start(Options::workers(1));
    let file = "tasks:\n- {command: x, name: a, after: c}\n- {command: x, name: b, after: a}\n- {command: x, name: c, after: b}\n";
    let said = Acode::of(&pool).says_to(file, &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains("a -> c -> b -> a"), "{said:?}");
    assert_eq!(pool.status().tasks.total(), 0);
}

#[test]
fn what_falls_with_another_says_how_and_where_that_began() {
    let pool = Pool::start(Options::workers(2));
    let on = |place| [Blocker::Entry(place)];
    let ids = pool.submit_all(vec![
        named("fetch", shell(r#"while [ ! -e "$1" ]; do sleep 0.02; done; exit 3"#, &[&pool.path("gate")])),
        after(named("encode", more::command(&["true"])), &on(0)),
        after(entry(more::command(&["true"])), &on(1)),
        after(named("tell", more::command(&["true"])), &[Blocker::Entry(2), Blocker::Entry(1)]),
    ]);
    reaches(&pool, ids[0], TaskState::Running);
    let waits = why(&pool, ids[3]);
    let told = format!("waits for 2 tasks: {} (encode, pending), {} (pending)", ids[1], ids[2]);
    assert_eq!(waits.text, told);
    assert_eq!(why(&pool, ids[1]).text, format!("waits for 1 task: {} (fetch, running)", ids[0]));
    open_gate(&pool, "gate");
    let last = pool.wait(ids[3]);
    assert_eq!(last.state, TaskState::Cancelled);
    let cause = last.cause.unwrap();
    assert!(cause.dependency == ids[1] || cause.dependency == ids[2], "{cause:?}");
    assert_eq!(cause.root, ids[0]);
    let error = last.error.unwrap();
    assert!(error.contains(&format!("root cause: {} failed", ids[0])), "{error}");
    let third = pool.show(ids[2]);
    assert_eq!(third.cause, Some(CauseRecord { dependency: ids[1], root: ids[0] }));
    let text = why(&pool, ids[2]).text;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("cancelled: dependency {} was cancelled", ids[1])), "{text}");
    assert_eq!(lines[1].trim(), format!("<- {} (encode): cancelled", ids[1]));
    assert!(lines[2].trim().starts_with(&format!("<- {} (fetch): failed", ids[0])), "{text}");
    assert!(lines[2].contains('3'), "with its exit code: {text}");
}

#[test]
fn a_root_cause_is_named_at_the_end_of_a_long_chain_and_without_a_pool() {
    let mut pool = Pool::start(Options::workers(1));
    let mut tasks = vec![entry(shell("exit 9", &[]))];
    tasks.extend((1..200).map(|n| after(entry(more::command(&["true"])), &[Blocker::Entry(n - 1)])));
    let ids = pool.submit_all(tasks);
    let last = pool.wait(ids[199]);
    assert_eq!(last.cause, Some(CauseRecord { dependency: ids[198], root: ids[0] }));
    pool.stop();
    let text = Acode::of(&pool).ok(&["task", "why", &ids[199].to_string()]);
    assert!(text.lines().count() < 30 && text.lines().last().unwrap().contains(&ids[0].to_string()), "{text}");
}

#[test]
fn a_fan_in_of_a_hundred_thousand_is_submitted_from_a_task_file() {
    let pool = Pool::start(Options::workers(1).config("queue:\n  maxTasks: 200000"));
    // They are not to run: it is about the graph.
    let mut file = String::new();
    (0..100_000)
        .for_each(|n| writeln!(file, "{{\"command\": \"true\", \"name\": \"t{n}\", \"delay\": \"1h\"}}").unwrap());
    let names: Vec<String> = (0..100_000).map(|n| format!("\"t{n}\"")).collect();
    writeln!(file, "{{\"command\": \"true\", \"name\": \"last\", \"after\": [{}]}}", names.join(",")).unwrap();
    let acode = Acode::of(&pool);
    let said = acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0).out;
    let mut ids = said.lines().map(|id| id.parse::<TaskId>().unwrap());
    let (last, middle) = (ids.next_back().unwrap(), ids.nth(50_000).unwrap());
    match why(&pool, last).waiting {
        Some(Waiting::Dependencies { on, count, .. }) => assert_eq!((on.len(), count), (Waiting::MAX_NAMED, 100_000)),
        other => panic!("{other:?}"),
    }
    more::cancel(&pool, middle);
    let ended = pool.wait(last);
    assert_eq!(ended.cause, Some(CauseRecord { dependency: middle, root: middle }));
    // And by name, on the command line, once more.
    let text = acode.ok(&["task", "why", "last"]);
    assert!(text.contains(&format!("{middle} was cancelled")), "{text}");
}

#[test]
fn a_chain_goes_on_beside_work_of_lower_priority_that_never_ends() {
    const LINKS: u32 = 100;
    let pool = Pool::start(Options::workers(2));
    let low = entry(TaskSpec { priority: Priority::Low, ..more::command(&["true"]) });
    let others = Submission { array: Some(Array::Range { first: 0, count: 1_000_000 }), ..low };
    let others = pool.submit_all(vec![others])[0];
    wait_until("the workers are busy", || pool.status().tasks.completed > 0);
    let link = |n: u32| {
        let on = n.checked_sub(1).map(Blocker::Entry);
        after(entry(TaskSpec { priority: Priority::High, ..more::command(&["true"]) }), on.as_slice())
    };
    let ids = pool.submit_all((0..LINKS).map(link).collect());
    assert_eq!(pool.wait(ids[LINKS as usize - 1]).state, TaskState::Completed);
    assert_eq!(pool.show(others).state, TaskState::Pending);
    more::cancel(&pool, others);
    pool.wait_all();
}
