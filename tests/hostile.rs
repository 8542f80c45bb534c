//! Absurd wishes and nasty tasks: refused, or borne as far as they go, and never a reason for the pool to stand still.
//!
//! Deliberately absent: messages that are no requests at all; those are the wire's tests.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use acode::wire::request::{Submit, Wait};
use acode_worker::task::{Array, Retries, Retry, Submission, TaskSpec, TaskState};
use common::{Options, Pool, shell, signal, wait_until};
use nix::sys::signal::Signal;

/// The user of a pool that is not root's.
const NOBODY: u32 = 65_534;

fn truth() -> Submission {
    Submission { spec: shell("exit 0", &[]), ..Submission::default() }
}

/// Submits this, accepted or not, and asserts that the pool takes and runs the next task all the same.
fn pool_survives(submission: Submission) {
    let pool = Pool::start(Options::workers(1));
    let answer = pool.try_call(&Submit::new(vec![truth(), submission, truth()]));
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
    assert!(pool.status().queue.accepting, "{:?}", pool.status().queue);
    if let Ok(submitted) = answer {
        for id in [submitted.ids[0], submitted.ids[2]] {
            assert_eq!(pool.wait(id).state, TaskState::Completed);
        }
    }
}

#[test]
fn an_endless_delay_is_only_that_tasks_own_trouble() {
    pool_survives(Submission { delay_ms: Some(u64::MAX), ..truth() });
}

#[test]
fn an_array_whose_numbers_overflow_is_only_its_own_trouble() {
    pool_survives(Submission { array: Some(Array::Range { first: u64::MAX, count: 3 }), ..truth() });
    pool_survives(Submission { array: Some(Array::Range { first: i64::MAX as u64, count: 3 }), ..truth() });
}

#[test]
fn arrays_that_are_larger_than_any_number_are_refused() {
    let endless = || Submission { array: Some(Array::Range { first: 1, count: u64::MAX }), ..truth() };
    let pool = Pool::start(Options::workers(1));
    let refused = pool.try_call(&Submit::new(vec![endless(), endless(), truth()]));
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
}

#[test]
fn an_item_that_no_program_could_get_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let items = vec!["fine".to_owned(), "cut\0off".to_owned()];
    let array = Submission { array: Some(Array::Items(items)), ..truth() };
    let refused = pool.try_call(&Submit::new(vec![array])).unwrap_err();
    assert!(refused.to_string().contains("NUL"), "{refused}");
}

/// Makes the queue refuse something, as a defect of acode would: an error that no repetition mends.
fn with_trigger(trigger: &str) -> Pool {
    let mut pool = Pool::start(Options::workers(2));
    pool.stop();
    let db = rusqlite::Connection::open(pool.state_dir().join("queue.db")).unwrap();
    db.execute_batch(trigger).unwrap();
    drop(db);
    pool.restart();
    pool
}

#[test]
fn a_submission_that_cannot_be_stored_is_refused_as_a_whole_and_holds_up_nobody() {
    let pool = with_trigger(
        "CREATE TRIGGER defect BEFORE INSERT ON task WHEN NEW.spec LIKE '%poison%'
         BEGIN SELECT RAISE(ABORT, 'refused by the test'); END",
    );
    let poison = Submission { spec: shell("echo poison", &[]), ..Submission::default() };
    let mut client = pool.client();
    for tasks in [vec![truth()], vec![truth(), poison, truth()], vec![truth(), truth()]] {
        client.queue(&Submit::new(tasks)).unwrap();
    }
    let first = client.receive::<Submit>().unwrap().ids;
    let refused = client.receive::<Submit>().unwrap_err();
    assert!(refused.to_string().contains("refused by the test"), "{refused}");
    let last = client.receive::<Submit>().unwrap().ids;
    for id in first.into_iter().chain(last) {
        assert_eq!(pool.wait(id).state, TaskState::Completed);
    }
    assert_eq!(pool.status().tasks.total(), 3);
    assert!(pool.log().contains("a defect of acode"), "{}", pool.log());
}

#[test]
fn an_end_that_cannot_be_stored_holds_up_no_other_task() {
    let mut pool = with_trigger(
        "CREATE TRIGGER defect BEFORE INSERT ON attempt WHEN NEW.verdict LIKE '%\"code\":77%'
         BEGIN SELECT RAISE(ABORT, 'refused by the test'); END",
    );
    let mark = pool.path("marks");
    let script = r#"echo run >>"$1"; exit 77"#;
    let poison = pool.submit_spec(shell(script, &[&mark]));
    common::wait_until("the end is given up", || pool.log().contains("a defect of acode"));
    for _ in 0..20 {
        assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
    }
    // It is not run again and again for that.
    assert_eq!(pool.lines("marks").len(), 1);
    pool.stop();
    let db = rusqlite::Connection::open(pool.state_dir().join("queue.db")).unwrap();
    db.execute_batch("DROP TRIGGER defect").unwrap();
    drop(db);
    pool.restart();
    assert_eq!(pool.wait(poison).exit_code, Some(77));
}

#[test]
fn an_endless_retry_delay_is_only_that_tasks_own_trouble() {
    let retry: Retries =
        Retry { count: 3, delay_ms: u64::MAX, max_delay_ms: u64::MAX, jitter: 0.0, ..Retry::default() }.into();
    let spec = TaskSpec { retry: Some(retry), ..shell("exit 3", &[]) };
    let pool = Pool::start(Options::workers(1));
    let patient = pool.submit_spec(spec);
    common::wait_until("the first attempt has failed", || pool.show(patient).attempt_count == 1);
    assert_eq!(pool.wait(pool.submit(&["true"])).state, TaskState::Completed);
    assert_eq!(pool.show(patient).state, TaskState::Pending);
}

#[test]
fn endless_timeouts_and_graces_are_no_trouble_at_all() {
    let spec = TaskSpec { timeout_ms: Some(u64::MAX), grace_ms: Some(u64::MAX), ..shell("exit 0", &[]) };
    let pool = Pool::start(Options::workers(1));
    assert_eq!(pool.wait(pool.submit_spec(spec)).state, TaskState::Completed);
    pool.call(&Wait { ids: Vec::new(), all: true });
}

#[test]
fn what_cannot_be_removed_is_never_seen_by_the_next_task() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can put something into a room that its pool cannot remove");
    }
    let mut pool = Pool::start(Options::workers(1).of_user(NOBODY));
    let waits = r#"pwd >"$1.new" && mv "$1.new" "$1"; until [ -e "$2" ]; do sleep 0.01; done"#;
    let id = pool.submit_spec(shell(waits, &[&pool.path("where"), &pool.path("gate")]));
    wait_until("the task says where it is", || pool.file("where").exists());
    let theirs = PathBuf::from(fs::read_to_string(pool.file("where")).unwrap().trim_end()).join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("x"), "").unwrap();
    fs::write(pool.file("gate"), "").unwrap();
    let task = pool.wait(id);
    assert!(task.error.as_ref().is_some_and(|why| why.contains("could not be removed")), "{task:?}");
    let looks = r#"[ -z "$(ls -A)" ] && [ "$PWD" = "$ACODE_SCRATCH" ]"#;
    assert_eq!(pool.wait(pool.submit_spec(shell(looks, &[]))).exit_code, Some(0));
    // Neither a new worker nor a new pool stumbles over it.
    signal(pool.workers()[0].pid, Signal::SIGKILL);
    assert_eq!(pool.wait(pool.submit_spec(shell(looks, &[]))).exit_code, Some(0));
    pool.kill9();
    pool.restart();
    assert_eq!(pool.wait(pool.submit_spec(shell(looks, &[]))).exit_code, Some(0));
    let rooms = pool.state_dir().join("rooms");
    let stuck = find(&rooms, "x");
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    // Once that is taken out by hand, the rest goes when the pool ends.
    fs::remove_dir_all(stuck[0].parent().unwrap()).unwrap();
}

/// The files of this name below a folder.
fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => find(&entry.path(), name),
        Ok(_) if entry.file_name() == name => vec![entry.path()],
        Ok(_) | Err(_) => Vec::new(),
    });
    found.collect()
}
