//! A worker dies at one chosen instruction of what it does with worker programs: the task runs again, and nothing is left.
//!
//! Deliberately absent: faults of the programs themselves (`worker_programs.rs`).

mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/programs.rs"]
mod programs;

use acode::wire::request::Stop;
use acode::wire::types::StopMode;
use acode_worker::task::{TaskSpec, TaskState};
use common::{Options, Pool, is_alive, wait_until};
use more::{cancel, entry, reaches};
use programs::{answer, odd};
use serde_json::json;

/// Some tasks of two programs and some commands go through two workers, one of which dies at the point.
fn dies_at(point: &str) {
    let pool = Pool::start(Options::workers(2).dies_once_at(point));
    let mut tasks = Vec::new();
    for number in 0..12 {
        let mut spec = odd(&pool, json!({"do": "tell"}));
        spec.env.insert("KIND".to_owned(), (number % 2).to_string());
        tasks.push(entry(spec));
        tasks.push(entry(common::shell("sleep 0.005", &[])));
    }
    let ids = pool.submit_all(tasks);
    pool.wait_all();
    assert!(pool.has_struck(point), "nobody passed {point}\n{}", pool.log());
    for id in ids {
        assert_eq!(pool.show(id).state, TaskState::Completed);
    }
    // What drops the pool looks for what is left.
}

#[test]
fn before_a_program_is_started() {
    dies_at("programs.before-start");
}

#[test]
fn after_a_program_was_found_or_started() {
    dies_at("programs.after-start");
    dies_at("programs.after-start@3");
}

#[test]
fn after_a_task_was_handed_over() {
    dies_at("programs.after-task");
    dies_at("programs.after-task@3");
}

#[test]
fn before_the_cleanup() {
    dies_at("programs.before-cleanup@2");
}

#[test]
fn after_the_program_was_told_of_a_cancellation() {
    let pool = Pool::start(Options::workers(1).dies_once_at("programs.after-cancel"));
    let id = pool.submit_spec(TaskSpec { grace_ms: Some(60_000), ..odd(&pool, json!({"do": "heed"})) });
    reaches(&pool, id, TaskState::Running);
    assert!(cancel(&pool, id));
    assert_eq!(pool.wait(id).state, TaskState::Cancelled);
    assert!(pool.has_struck("programs.after-cancel"));
    answer(&pool, odd(&pool, json!({"do": "tell"})));
}

#[test]
fn while_it_waits_for_its_programs_to_leave() {
    let mut pool = Pool::start(Options::workers(1).dies_once_at("programs.within-close"));
    let pid = answer(&pool, odd(&pool, json!({"do": "stay"})))["pid"].as_u64().unwrap() as u32;
    let _ = pool.try_call(&Stop { mode: StopMode::Drain, timeout_ms: None });
    pool.wait_exit();
    assert!(pool.has_struck("programs.within-close"));
    wait_until("the program has gone with it", || !is_alive(pid));
}
