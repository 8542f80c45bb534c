//! What the claim table promises to one supervisor and its workers, in one process: order, bounds, stale tickets.
//!
//! Deliberately absent: races; those are in claim_race.rs (processes) and claim_loom.rs (interleavings).

#![cfg(not(feature = "loom"))]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use acode_worker::claim::{
    Claimer, Full, Geometry, Lane, NOBODY, NoSuchRow, PAYLOAD_MAX, Producer, Region, Ticket, WorkerState,
};
use acode_worker::task::{Class, Priority, WorkerId};
use proptest::prelude::*;

const NORMAL: Lane = Lane { priority: Priority::Normal, class: Class::Any };

fn table(slots: u32, lane_capacity: u32) -> (Arc<Region>, Producer) {
    let region = Arc::new(Region::create(Geometry { workers: 4, slots, lane_capacity }).unwrap());
    (region.clone(), Producer::new(region))
}

fn claimer(region: &Arc<Region>, row: u16, classes: &[Class]) -> Claimer {
    Claimer::new(region.clone(), row, classes).unwrap()
}

fn claims(claimer: &Claimer) -> String {
    let mut payload = Vec::new();
    let mut all = String::new();
    while claimer.claim(&mut payload).is_some() {
        all.push_str(std::str::from_utf8(&payload).unwrap());
    }
    all
}

#[test]
fn priorities_come_first_and_classes_take_turns() {
    let (region, mut producer) = table(32, 8);
    for (text, priority, class) in [
        ("l", Priority::Low, Class::Any),
        ("1", Priority::Normal, Class::Any),
        ("2", Priority::Normal, Class::Any),
        ("3", Priority::Normal, Class::Any),
        ("a", Priority::Normal, Class::Process),
        ("b", Priority::Normal, Class::Process),
        ("X", Priority::Critical, Class::Docker),
        ("h", Priority::High, Class::Process),
        ("C", Priority::Critical, Class::Process),
    ] {
        producer.publish(Lane { priority, class }, text.as_bytes()).unwrap();
    }
    assert_eq!(producer.total_ready(), 9);
    assert_eq!(claims(&claimer(&region, 0, &[Class::Any, Class::Process])), "Ch1a2b3l");
    assert_eq!((producer.total_ready(), producer.ready_in(NORMAL)), (1, 0));
    assert!(!claimer(&region, 0, &[Class::Any, Class::Process]).anything_ready());
    assert!(claimer(&region, 1, &[Class::Docker]).anything_ready());
    assert_eq!(claims(&claimer(&region, 1, &[Class::Docker])), "X");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (region, mut producer) = table(3, 2);
    assert_eq!(producer.publish(NORMAL, &vec![0; PAYLOAD_MAX + 1]), Err(Full::Payload(PAYLOAD_MAX + 1)));
    producer.publish(NORMAL, &vec![7; PAYLOAD_MAX]).unwrap();
    producer.publish(NORMAL, b"").unwrap();
    assert_eq!(producer.publish(NORMAL, b"x"), Err(Full::Lane));
    producer.publish(Lane { class: Class::Docker, ..NORMAL }, b"x").unwrap();
    assert_eq!(producer.publish(Lane { class: Class::Process, ..NORMAL }, b"x"), Err(Full::Slots));
    assert_eq!((producer.free_slots(), producer.total_ready()), (0, 3));
    let (worker, mut payload) = (claimer(&region, 0, &[Class::Any]), Vec::new());
    worker.claim(&mut payload).unwrap();
    assert_eq!(payload, vec![7; PAYLOAD_MAX]);
    worker.claim(&mut payload).unwrap();
    assert_eq!(payload, b"");
    assert_eq!(worker.claim(&mut payload), None);
}

#[test]
fn retracted_tasks_are_skipped_and_give_their_room_back() {
    let (region, mut producer) = table(8, 4);
    let tickets: Vec<Ticket> = (0..4).map(|n| producer.publish(NORMAL, &[b'0' + n]).unwrap()).collect();
    assert!(producer.retract(tickets[0]) && producer.retract(tickets[1]));
    assert_eq!((producer.ready_in(NORMAL), producer.free_slots()), (2, 6));
    // The ring's positions are all in use, but two of them are dead and at its head.
    producer.publish(NORMAL, b"4").unwrap();
    producer.publish(NORMAL, b"5").unwrap();
    assert_eq!(producer.publish(NORMAL, b"6"), Err(Full::Lane));
    // A dead position behind a live one waits for it, unless the whole lane is taken back.
    assert!(producer.retract(tickets[3]));
    assert_eq!(producer.publish(NORMAL, b"6"), Err(Full::Lane));
    assert_eq!(producer.ready_in(NORMAL), 3);
    assert_eq!(producer.retract_lane(NORMAL).len(), 3);
    assert_eq!((producer.ready_in(NORMAL), producer.free_slots()), (0, 8));
    for text in [b"6", b"7", b"8", b"9"] {
        producer.publish(NORMAL, text).unwrap();
    }
    assert_eq!(claims(&claimer(&region, 0, &[Class::Any])), "6789");
}

#[test]
fn a_lane_that_lives_of_retractions_never_gets_stuck() {
    let (_region, mut producer) = table(2, 4);
    for _ in 0..1000 {
        let ticket = producer.publish(NORMAL, b"x").unwrap();
        assert!(producer.retract(ticket));
    }
    assert_eq!(producer.total_ready(), 0);
}

#[test]
fn stale_and_invented_tickets_are_refused() {
    let (region, mut producer) = table(2, 4);
    let (worker, mut payload) = (claimer(&region, 1, &[Class::Any]), Vec::new());
    let first = producer.publish(NORMAL, b"a").unwrap();
    assert!(!producer.release(first), "nobody has claimed it");
    assert_eq!(producer.holder(first), None);
    assert_eq!(worker.claim(&mut payload), Some(first));
    assert_eq!(producer.holder(first), Some(1));
    assert!(!producer.retract(first));
    assert!(producer.release(first));
    let second = producer.publish(NORMAL, b"b").unwrap();
    assert_eq!((second.slot, second.generation), (first.slot, first.generation + 1));
    assert_eq!(worker.claim(&mut payload), Some(second));
    for forged in [first, Ticket { slot: u32::MAX, ..second }, Ticket { generation: 0, ..second }] {
        assert!(!producer.release(forged) && !producer.retract(forged) && producer.holder(forged).is_none());
    }
    assert!(producer.release(second));
}

#[test]
fn a_dead_workers_tasks_are_reclaimed_and_its_row_is_used_again() {
    let (region, mut producer) = table(4, 4);
    let mut payload = Vec::new();
    let tickets: Vec<Ticket> = (0..3).map(|n| producer.publish(NORMAL, &[n]).unwrap()).collect();
    let id = WorkerId::generate(5).unwrap();
    producer.register(2, id, 4711, 99).unwrap();
    let dead = claimer(&region, 2, &[Class::Any]);
    dead.claim(&mut payload).unwrap();
    claimer(&region, 3, &[Class::Any]).claim(&mut payload).unwrap();
    assert_eq!(producer.reclaim(2), [tickets[0]]);
    producer.clear(2).unwrap();
    assert_eq!((producer.row(2), producer.rows().count()), (None, 0));
    let heir = claimer(&region, 2, &[Class::Any]);
    assert_eq!(heir.claim(&mut payload), Some(tickets[2]));
    assert_eq!(producer.holder(tickets[0]), Some(NOBODY));
    assert_eq!(producer.reclaim(2), [tickets[2]]);
    assert!(producer.release(tickets[0]) && producer.release(tickets[2]) && producer.release(tickets[1]));
    assert_eq!(producer.free_slots(), 4);
}

#[test]
fn a_row_tells_what_its_worker_does() {
    let (region, mut producer) = table(4, 4);
    let id = WorkerId::generate(5).unwrap();
    let worker = claimer(&region, 1, &[Class::Any]);
    producer.register(1, id, 4711, 99).unwrap();
    let born = producer.row(1).unwrap();
    assert_eq!((born.id, born.pid, born.start, born.state), (id, 4711, 99, WorkerState::Starting));
    assert_eq!((born.held, born.heartbeat_ns, born.claimed), (None, 0, 0));
    let ticket = producer.publish(NORMAL, b"x").unwrap();
    assert_eq!(worker.claim(&mut Vec::new()), Some(ticket));
    worker.set_state(WorkerState::Busy);
    worker.holds(Some(ticket));
    worker.beat(123);
    let busy = producer.row(1).unwrap();
    assert_eq!((busy.state, busy.held, busy.heartbeat_ns, busy.claimed), (WorkerState::Busy, Some(ticket), 123, 1));
    // A worker that is faster than its registration keeps the state it has set.
    producer.register(1, id, 4711, 99).unwrap();
    assert_eq!(producer.row(1), Some(busy));
    assert_eq!(producer.rows().collect::<Vec<_>>(), [(1, busy)]);
    assert_eq!(producer.register(4, id, 1, 1), Err(NoSuchRow(4)));
    assert_eq!(Claimer::new(region, 4, &[]).err(), Some(NoSuchRow(4)));
}

#[test]
fn only_slots_in_use_take_memory() {
    let (region, mut producer) = table(4096, 64);
    let worker = claimer(&region, 0, &[Class::Any]);
    for _ in 0..1000 {
        producer.publish(NORMAL, &[1; 2000]).unwrap();
        let ticket = worker.claim(&mut Vec::new()).unwrap();
        assert_eq!(producer.reclaim(0), [ticket]);
        assert!(producer.release(ticket));
    }
    let file = File::from(region.fd().try_clone_to_owned().unwrap());
    let bytes = file.metadata().unwrap().blocks() * 512;
    assert!(bytes <= 64 * 1024, "{bytes} bytes are resident");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A peer that writes anything anywhere behind the header can spoil the table, but nobody panics or hangs.
    #[test]
    fn nonsense_in_the_memory_panics_nobody(seed in any::<u64>(), dense in any::<bool>()) {
        let (region, mut producer) = table(4, 4);
        let id = WorkerId::generate(5).unwrap();
        producer.register(0, id, 1, 1).unwrap();
        let tickets: Vec<Ticket> = (0..3).filter_map(|n| producer.publish(NORMAL, &[n; 9]).ok()).collect();
        let file = File::from(region.fd().try_clone_to_owned().unwrap());
        let (size, mut random) = (file.metadata().unwrap().len(), seed | 1);
        for offset in (4096..size).step_by(8) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if dense || random >> 61 == 0 {
                file.write_all_at(&(random >> (random >> 58)).to_ne_bytes(), offset).unwrap();
            }
        }
        let worker = claimer(&region, 0, &[Class::Any, Class::Docker]);
        let mut payload = Vec::new();
        for _ in 0..20 {
            let _ = (worker.claim(&mut payload), worker.anything_ready());
            prop_assert!(payload.len() <= PAYLOAD_MAX);
            let _ = (producer.publish(NORMAL, b"x"), producer.total_ready(), producer.rows().count());
        }
        for ticket in tickets.into_iter().chain(producer.reclaim(0)) {
            let _ = (producer.holder(ticket), producer.retract(ticket), producer.release(ticket));
        }
        for lane in Lane::all() {
            producer.retract_lane(lane);
        }
        prop_assert!(producer.free_slots() <= 4);
    }
}
