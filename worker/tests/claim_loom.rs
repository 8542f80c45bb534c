//! Explores the interleavings of the claim table's algorithm with loom, on the production code over a heap table.
//!
//! Run with `cargo test -p acode-worker --features loom --test claim_loom`. Each model is small, and bounded in how
//! often a thread is preempted where it would explode otherwise. Deliberately absent: real processes and real deaths;
//! those are in claim_race.rs. Here a death is a claimer that stops right after its compare-and-swap.

use std::sync::Arc;

use acode_worker::claim::{Claimer, Geometry, Lane, NOBODY, Producer, Region, Ticket, WorkerState};
use acode_worker::task::{Class, Priority, WorkerId};
use loom::thread;

const LANE: Lane = Lane { priority: Priority::Critical, class: Class::Any };

/// Explores a model. `preemptions` bounds how often threads are preempted in one execution.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn table(slots: u32, lane_capacity: u32) -> (Arc<Region>, Producer) {
    let region = Arc::new(Region::create(Geometry { workers: 2, slots, lane_capacity }).unwrap());
    (region.clone(), Producer::new(region))
}

fn publish(producer: &mut Producer, number: u64) -> Option<Ticket> {
    producer.publish(LANE, &number.to_ne_bytes()).ok()
}

/// Publishes as soon as a claim has made room. Waiting for it, instead of trying once, makes loom visit the executions
/// in which there is room: it explores a failed try against the claim that would let it succeed only by chance.
fn publish_when_there_is_room(producer: &mut Producer, number: u64) {
    while publish(producer, number).is_none() {
        thread::yield_now();
    }
}

fn number(payload: &[u8]) -> u64 {
    u64::from_ne_bytes(payload.try_into().unwrap())
}

/// A worker that tries to claim `tries` times; returns what it got, in order.
fn worker(region: &Arc<Region>, row: u16, tries: usize) -> thread::JoinHandle<Vec<(Ticket, u64)>> {
    let region = region.clone();
    thread::spawn(move || {
        let claimer = Claimer::new(region, row, &[Class::Any]).unwrap();
        let mut payload = Vec::new();
        let claims = (0..tries).filter_map(|_| Some((claimer.claim(&mut payload)?, number(&payload))));
        claims.collect()
    })
}

/// Checks that each worker saw rising numbers, and that all that was claimed is the beginning of what was published:
/// in a lane that is first in, first out no task is claimed while an older one is ready.
fn assert_fifo(claims: &[Vec<(Ticket, u64)>]) -> usize {
    for one in claims {
        assert!(one.windows(2).all(|w| w[0].1 < w[1].1), "a worker saw {one:?}");
    }
    let mut all: Vec<u64> = claims.iter().flatten().map(|c| c.1).collect();
    all.sort_unstable();
    assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
    all.len()
}

#[test]
fn one_task_goes_to_one_of_two_workers() {
    explore(5, || {
        let (region, mut producer) = table(1, 1);
        let ticket = publish(&mut producer, 0).unwrap();
        let workers = [worker(&region, 0, 1), worker(&region, 1, 1)];
        let claims = workers.map(|w| w.join().unwrap());
        assert_eq!(assert_fifo(&claims), 1);
        assert!(producer.release(ticket));
        assert!(!producer.release(ticket));
    });
}

#[test]
fn tasks_published_while_two_workers_claim_are_claimed_once_and_in_order() {
    explore(3, || {
        let (region, mut producer) = table(2, 2);
        let workers = [worker(&region, 0, 2), worker(&region, 1, 1)];
        let tickets = [0, 1].map(|n| publish(&mut producer, n).unwrap());
        let claims = workers.map(|w| w.join().unwrap());
        let claimed = assert_fifo(&claims);
        // What nobody claimed is still there: nothing is lost, and no head has passed it.
        assert_eq!(worker(&region, 0, 3).join().unwrap().len(), 2 - claimed);
        assert!(tickets.into_iter().all(|t| producer.release(t)));
        assert_eq!((producer.free_slots(), producer.total_ready()), (2, 0));
    });
}

#[test]
fn a_ring_that_laps_a_slow_worker_keeps_its_order() {
    explore(2, || {
        let (region, mut producer) = table(4, 2);
        (0..2).for_each(|n| assert!(publish(&mut producer, n).is_some()));
        let workers = [worker(&region, 0, 1), worker(&region, 1, 2)];
        // As soon as something is claimed, its cell is used again.
        publish_when_there_is_room(&mut producer, 2);
        let published = 3 + usize::from(publish(&mut producer, 3).is_some());
        let claims = workers.map(|w| w.join().unwrap());
        let claimed = assert_fifo(&claims);
        assert!(claimed >= 2);
        assert_eq!(worker(&region, 0, 5).join().unwrap().len() + claimed, published);
    });
}

#[test]
fn a_worker_that_was_lapped_does_not_claim_out_of_order() {
    explore(3, || {
        let (region, mut producer) = table(3, 2);
        (0..2).for_each(|n| assert!(publish(&mut producer, n).is_some()));
        // One claim each, so a worker that took the third task for the first would leave a gap.
        let workers = [worker(&region, 0, 1), worker(&region, 1, 1)];
        publish_when_there_is_room(&mut producer, 2);
        let claims = workers.map(|w| w.join().unwrap());
        assert_eq!(assert_fifo(&claims), 2);
        assert_eq!(worker(&region, 0, 3).join().unwrap().len(), 1);
    });
}

#[test]
fn a_ring_of_one_position_is_lapped_at_every_claim() {
    explore(3, || {
        let (region, mut producer) = table(2, 1);
        publish(&mut producer, 0).unwrap();
        let workers = [worker(&region, 0, 1), worker(&region, 1, 2)];
        publish_when_there_is_room(&mut producer, 1);
        let claims = workers.map(|w| w.join().unwrap());
        let claimed = assert_fifo(&claims);
        assert!(claimed >= 1);
        assert_eq!(worker(&region, 0, 2).join().unwrap().len(), 2 - claimed);
    });
}

#[test]
fn either_a_worker_claims_or_the_supervisor_retracts() {
    explore(5, || {
        let (region, mut producer) = table(2, 2);
        let tickets = [0, 1].map(|n| publish(&mut producer, n).unwrap());
        let workers = [worker(&region, 0, 1), worker(&region, 1, 1)];
        let retracted = producer.retract(tickets[0]);
        let claims = workers.map(|w| w.join().unwrap()).concat();
        assert_eq!(claims.iter().filter(|c| c.0 == tickets[0]).count(), usize::from(!retracted));
        assert_eq!(claims.iter().filter(|c| c.0 == tickets[1]).count(), 1);
        assert_eq!(producer.release(tickets[0]), !retracted);
        assert!(!producer.retract(tickets[0]));
        assert!(producer.release(tickets[1]));
        assert_eq!((producer.free_slots(), producer.total_ready()), (2, 0));
    });
}

#[test]
fn a_retracted_slot_that_is_published_anew_is_another_task() {
    explore(4, || {
        let (region, mut producer) = table(1, 2);
        let first = publish(&mut producer, 10).unwrap();
        let running = worker(&region, 0, 1);
        let second = if producer.retract(first) { publish(&mut producer, 11) } else { None };
        let claims = running.join().unwrap();
        match second {
            // The worker came between the two, or got the second; its payload is never the first's.
            Some(second) => {
                assert!(claims.iter().all(|c| *c == (second, 11)));
                assert!(!producer.release(first));
            }
            None => assert_eq!(claims, [(first, 10)]),
        }
    });
}

#[test]
fn a_released_slot_is_used_again_while_a_slow_worker_still_walks() {
    explore(3, || {
        let (region, mut producer) = table(1, 1);
        let first = publish(&mut producer, 0).unwrap();
        let slow = worker(&region, 1, 1);
        let mut claims = worker(&region, 0, 1).join().unwrap();
        // A report has arrived, so the slot is freed and filled again under the eyes of the slow worker.
        let reported = claims.first().is_some_and(|c| c.0 == first);
        if reported {
            assert!(producer.release(first));
            assert!(publish(&mut producer, 1).is_some());
        }
        claims.extend(slow.join().unwrap());
        assert!(claims.iter().all(|c| c.1 + 1 == c.0.generation), "{claims:?}");
        claims.dedup();
        assert_eq!(claims.iter().filter(|c| c.0 == first).count(), 1);
    });
}

#[test]
fn the_task_of_a_worker_that_dies_in_its_claim_is_reclaimed_once() {
    explore(4, || {
        let (region, mut producer) = table(2, 2);
        let tickets = [0, 1].map(|n| publish(&mut producer, n).unwrap());
        let doomed = region.clone();
        let doomed = thread::spawn(move || Claimer::new(doomed, 0, &[Class::Any]).unwrap().claim_and_vanish());
        let living = worker(&region, 1, 2);
        let lost = doomed.join().unwrap();
        // The row is empty as soon as its tasks are reclaimed, although they are not freed yet.
        assert_eq!(producer.reclaim(0), Vec::from_iter(lost));
        assert_eq!(producer.reclaim(0), []);
        let living = living.join().unwrap();
        assert_eq!(living.len() + usize::from(lost.is_some()), 2);
        for ticket in tickets {
            assert_eq!(producer.holder(ticket), Some(if lost == Some(ticket) { NOBODY } else { 1 }));
            assert!(producer.release(ticket));
        }
        // Both positions are dead, and the ring takes two tasks again.
        assert!(publish(&mut producer, 2).is_some() && publish(&mut producer, 3).is_some());
        assert_eq!(worker(&region, 0, 2).join().unwrap().len(), 2);
    });
}

#[test]
fn a_worker_never_sleeps_through_a_publication() {
    explore(5, || {
        let (region, mut producer) = table(1, 1);
        producer.register(0, WorkerId::from_u128(1), 1, 1).unwrap();
        let sleeper = thread::spawn(move || {
            let claimer = Claimer::new(region, 0, &[Class::Any]).unwrap();
            claimer.set_state(WorkerState::Idle);
            !claimer.anything_ready()
        });
        publish(&mut producer, 0).unwrap();
        let rings = producer.row(0).unwrap().state == WorkerState::Idle;
        let sleeps = sleeper.join().unwrap();
        assert!(rings || !sleeps, "the task waits, the worker sleeps, and nobody rings");
    });
}
