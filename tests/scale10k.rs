//! Ten thousand tasks, a hundred workers, and arrays that are larger still.
//!
//! The bounds are generous, because a debug build on a busy machine must meet them: `scripts/bench` has the figures.
//! Deliberately absent: any comparison with others.

mod common;
#[path = "common/more.rs"]
mod more;

use std::time::{Duration, Instant};

use acode::wire::request::Submit;
use acode_worker::task::{Array, Submission};
use common::{Options, Pool, eventually, wait_until};
use more::{command, entry};

#[test]
fn ten_thousand_tasks_all_complete() {
    let pool = Pool::start(Options::workers(4));
    let tasks = || (0..2_500).map(|_| entry(command(&["true"]))).collect::<Vec<_>>();
    // One request behind the other on one connection, as a bulk submission does it.
    let mut client = pool.client();
    for _ in 0..4 {
        client.queue(&Submit::new(tasks())).unwrap();
    }
    let ids: Vec<_> = (0..4).flat_map(|_| client.receive::<Submit>().unwrap().ids).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]) && ids.len() == 10_000);
    wait_until("all have completed", || pool.status().tasks.completed == 10_000);
    let counts = pool.status().tasks;
    assert_eq!((counts.total(), counts.unsuccessful()), (10_000, 0));
}

#[test]
fn a_hundred_workers_are_up_in_under_a_second() {
    // The machine may be busy with something else for a while, so one good try of some is enough.
    let mut tries = Vec::new();
    let quick = (0..5).any(|_| {
        let began = Instant::now();
        let pool = Pool::start(Options::workers(100));
        let up = eventually(Duration::from_secs(20), || pool.status().workers.idle == 100);
        tries.push(began.elapsed());
        assert!(up, "{:?}", pool.status().workers);
        pool.submit_all((0..500).map(|_| entry(command(&["true"]))).collect());
        assert_eq!(pool.wait_all().counts.unsuccessful(), 0);
        tries.last().is_some_and(|took| *took < Duration::from_secs(1))
    });
    assert!(quick, "{tries:?}");
}

#[test]
fn an_array_of_a_hundred_thousand_costs_one_record() {
    let pool = Pool::start(Options::workers(1));
    let gate = pool.submit_spec(more::gated(&pool, "gate"));
    more::reaches(&pool, gate, acode_worker::task::TaskState::Running);
    let size = || std::fs::metadata(pool.state_dir().join("queue.db-wal")).map_or(0, |wal| wal.len());
    let before = size();
    let array = Some(Array::Range { first: 0, count: 100_000 });
    let id = pool.submit_all(vec![Submission { spec: command(&["true"]), array, ..Submission::default() }])[0];
    let task = pool.show(id);
    assert_eq!(task.array.unwrap().count, 100_000);
    assert_eq!(pool.status().tasks.pending, 100_000);
    // A row for each would be some megabytes; what is read ahead for the workers is a window of some hundred.
    assert!(size() - before < 1 << 20, "the journal of the queue grew by {} bytes", size() - before);
    assert!(more::cancel(&pool, id));
    let task = pool.wait(id);
    assert_eq!(task.array.unwrap().members.cancelled, 100_000);
    more::open_gate(&pool, "gate");
}
