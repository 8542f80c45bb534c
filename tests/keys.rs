//! Unique keys and names, through the real binary: what is refused, what takes its place, and who is meant.
//!
//! Deliberately absent: what the store makes of them (`src/store/tests/keys.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use acode::wire::request::{Resolve, Retry, Submit};
use acode::wire::{CallError, ClientError, TaskRef};
use acode_worker::task::{Array, Blocker, Dependency, DependencyKind, IfExists, Key, Submission, TaskId, TaskState};
use command::Acode;
use common::{Options, Pool};
use more::{cancel, entry, gated, open_gate};

fn keyed(task: Submission, text: &str, if_exists: IfExists) -> Submission {
    Submission { key: Some(Key { text: text.into(), if_exists }), ..task }
}

fn quick(text: &str, if_exists: IfExists) -> Submission {
    keyed(entry(more::command(&["true"])), text, if_exists)
}

/// Who has the key that a call was refused for.
#[track_caller]
fn holder<R: std::fmt::Debug>(refused: Result<R, ClientError>, key: &str) -> TaskId {
    match refused {
        Err(ClientError::Call(CallError::KeyExists { key: taken, task })) if taken == key => task.parse().unwrap(),
        other => panic!("the key '{key}' should be taken: {other:?}"),
    }
}

#[test]
fn a_key_exists_once_among_the_tasks_that_have_not_ended() {
    let pool = Pool::start(Options::workers(2));
    let gate = entry(gated(&pool, "gate"));
    let first = pool.submit_all(vec![keyed(gate.clone(), "nightly", IfExists::Refuse)])[0];
    assert_eq!(pool.show(first).key.as_deref(), Some("nightly"));

    // All of a request is refused for one of its entries.
    let before = pool.status().tasks.total();
    let both = vec![entry(more::command(&["true"])), quick("nightly", IfExists::Refuse)];
    assert_eq!(holder(pool.try_call(&Submit::new(both)), "nightly"), first);
    assert_eq!(pool.status().tasks.total(), before);

    // With 'existing' its id takes the entry's place, also for what waits for that entry.
    let mut after = entry(more::command(&["true"]));
    after.dependencies = vec![Dependency { on: Blocker::Entry(1), when: DependencyKind::Succeeded }];
    let ids = pool.submit_all(vec![quick("other", IfExists::Existing), quick("nightly", IfExists::Existing), after]);
    assert_eq!(ids[1], first);
    assert_eq!(pool.status().tasks.total(), before + 2);
    pool.wait(ids[0]);
    assert_eq!(pool.show(ids[2]).state, TaskState::Pending);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(ids[2]).state, TaskState::Completed);

    // Ended, it has let go of the key.
    let second = pool.submit_all(vec![quick("nightly", IfExists::Refuse)])[0];
    assert_ne!(first, second);
    pool.wait(second);
}

#[test]
fn entries_of_one_request_are_unlike_too() {
    let pool = Pool::start(Options::workers(1));
    let pair = |second| Submit::new(vec![quick("k", IfExists::Existing), quick("k", second)]);
    match pool.try_call(&pair(IfExists::Refuse)) {
        Err(ClientError::Call(CallError::InvalidSubmission { entry: Some(1), reason })) => {
            assert!(reason.contains("'k'") && reason.contains("earlier entry"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.status().tasks.total(), 0);
    let ids = pool.call(&pair(IfExists::Existing)).ids;
    assert_eq!(ids[0], ids[1]);
    pool.wait(ids[0]);
    for length in [0, 257] {
        let tasks = vec![quick(&"x".repeat(length), IfExists::Existing)];
        let refused = pool.try_call(&Submit::new(tasks));
        assert!(matches!(refused, Err(ClientError::Call(CallError::InvalidSubmission { .. }))), "{refused:?}");
    }
}

#[test]
fn pipelined_requests_see_each_others_keys() {
    let pool = Pool::start(Options::workers(1));
    let mut client = pool.client();
    for _ in 0..20 {
        client.queue(&Submit::new(vec![keyed(entry(gated(&pool, "gate")), "k", IfExists::Existing)])).unwrap();
    }
    let ids: Vec<TaskId> = (0..20).map(|_| client.receive::<Submit>().unwrap().ids[0]).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    open_gate(&pool, "gate");
    pool.wait_all();
    assert_eq!(pool.status().tasks.total(), 1);
}

#[test]
fn a_task_whose_key_was_given_away_is_not_retried() {
    let pool = Pool::start(Options::workers(1));
    let array = Some(Array::Range { first: 0, count: 3 });
    let mut first = keyed(entry(more::command(&["false"])), "k", IfExists::Refuse);
    first.array = array;
    let first = pool.submit_all(vec![first])[0];
    pool.wait(first);
    let member = TaskId::new(first.millis(), first.queue(), first.seq() + 1);
    let second = pool.submit_all(vec![keyed(entry(gated(&pool, "gate")), "k", IfExists::Refuse)])[0];
    for id in [first, member] {
        assert_eq!(holder(pool.try_call(&Retry { ids: vec![TaskRef::Id(id)] }), "k"), second, "{id}");
    }
    cancel(&pool, second);
    pool.wait(second);
    let third = pool.submit_all(vec![quick("k", IfExists::Refuse)])[0];
    pool.wait(third);
    // Two that had the same key cannot come back together.
    let both = Retry { ids: vec![TaskRef::Id(second), TaskRef::Id(first)] };
    assert_eq!(holder(pool.try_call(&both), "k"), second);
    assert_eq!(pool.call(&Retry { ids: vec![TaskRef::Id(first)] }).retried, [first]);
    pool.wait(first);
}

#[test]
fn keys_hold_across_a_crash_and_without_a_pool() {
    let mut pool = Pool::start(Options::workers(1));
    let first = pool.submit_all(vec![keyed(entry(gated(&pool, "gate")), "k", IfExists::Refuse)])[0];
    pool.kill9();
    pool.restart();
    assert_eq!(holder(pool.try_call(&Submit::new(vec![quick("k", IfExists::Refuse)])), "k"), first);
    pool.stop();

    let acode = Acode::of(&pool);
    let said = acode.says(&["task", "submit", "--key", "k", "--", "true"]).expect(1);
    assert!(said.err.contains(&first.to_string()) && said.err.contains("'k'"), "{said:?}");
    assert!(said.err.contains("--if-exists existing"), "{said:?}");
    let said = acode.says(&["task", "submit", "--key", "k", "--if-exists", "existing", "--", "true"]).expect(0);
    assert_eq!(said.out.trim(), first.to_string());
    acode.says(&["task", "cancel", &first.to_string()]).expect(0);
    let second = acode.says(&["task", "submit", "--key", "k", "--", "true"]).expect(0).out;
    let said = acode.says(&["task", "retry", &first.to_string()]).expect(1);
    assert!(said.err.contains(second.trim()), "{said:?}");
}

#[test]
fn a_name_means_the_youngest_task_that_was_given_it() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let submit = |name: &str| {
        let said = acode.says(&["task", "submit", "--name", name, "--", "true"]).expect(0);
        said.out.trim().parse::<TaskId>().unwrap()
    };
    let old = submit("encode");
    let young = submit("encode");
    // Names that could be taken for a number or an id.
    let (number, prefix) = (submit("77777"), submit("0abc"));
    pool.wait_all();
    let resolve = |text: &str| pool.call(&Resolve { ids: vec![text.parse().unwrap()] }).ids[0];
    assert_eq!([resolve("encode"), resolve("name:encode")], [young, young]);
    assert_eq!([resolve("77777"), resolve("0abc"), resolve("name:0abc")], [number, prefix, prefix]);
    assert_eq!(resolve(&old.seq().to_string()), old);
    let shown = acode.says(&["task", "show", "encode", "--json"]).expect(0).out;
    assert!(shown.contains(&young.to_string()), "{shown}");
    assert_eq!(acode.says(&["task", "wait", "encode", "name:77777"]).expect(0).out, "");
    // The program's name is no name that was given.
    for unknown in ["true", "name:true", "Encode"] {
        let said = acode.says(&["task", "why", unknown]).expect(4);
        assert!(said.err.contains("no such task: "), "{said:?}");
    }
}
