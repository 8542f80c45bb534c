//! Filling the table, with a real queue and a real table in one process, and claims made by hand.

use std::sync::{Arc, LazyLock};

use acode_worker::claim::{Claimer, Geometry, Region};
use acode_worker::task::{Array, Class, GroupWish, Priority, Retry, Submission, TaskSpec};

use super::*;
use crate::store::{NewTask, Store};
use crate::supervisor::desk::{WIDE, WINDOW};

const LANE: Lane = Lane { priority: Priority::Normal, class: Class::Any };

struct Bench {
    store: Store,
    desk: Desk,
    producer: Producer,
    claimer: Claimer,
    now_ns: u64,
    ahead: usize,
    dir: tempfile::TempDir,
}

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy { retry: Retry::default(), max_crashes: 3 });

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let geometry = Geometry { workers: 4, slots: 12 * WIDE as u32, lane_capacity: 4 * WIDE as u32 };
        let region = Arc::new(Region::create(geometry).unwrap());
        let producer = Producer::new(Arc::clone(&region));
        let claimer = Claimer::new(region, 0, &[Class::Any, Class::Process]).unwrap();
        Self { store, desk: Desk::default(), producer, claimer, now_ns: 1, ahead: WINDOW, dir }
    }

    fn filling(&mut self) -> Filling<'_> {
        let (desk, queue, producer) = (&mut self.desk, &self.store, &mut self.producer);
        Filling {
            desk,
            queue,
            producer,
            spill: self.dir.path(),
            jobserver: None,
            policy: &POLICY,
            workers: 1,
            ahead: self.ahead,
            now_ns: self.now_ns,
        }
    }

    fn apply(&mut self, ops: &[Op]) {
        let applied = self.store.apply(ops).unwrap();
        self.desk.has_expanded();
        for group in &applied.groups {
            self.desk.set_group(group.id, group.max, group.held_us > 0);
            self.filling().hold_back(group.id);
        }
        for ready in &applied.ready {
            self.desk.expect(Lane { priority: ready.priority, class: ready.class }, ready.group, ready.id.seq());
        }
    }

    fn fill(&mut self) {
        loop {
            let ops = fill(&mut self.filling()).unwrap();
            if ops.is_empty() {
                return;
            }
            self.apply(&ops);
        }
    }

    fn submit(&mut self, priority: Priority, group: Option<(&str, u32)>, array: Option<u64>) -> u64 {
        let spec = TaskSpec { command: vec!["true".to_owned()], priority, ..TaskSpec::default() };
        let group = group.map(|(name, max)| GroupWish { name: name.to_owned(), max: Some(max) });
        let array = array.map(|count| Array::Range { first: 0, count });
        let id = self.store.allocate(1_000, 1 + array.as_ref().map_or(0, Array::len));
        let submission = Submission { spec, array, group, ..Submission::default() };
        self.desk.expect(Lane { priority, ..LANE }, 0, id.seq());
        self.apply(&[Op::Submit(Arc::new(NewTask::new(id, 1_000_000, submission, &[]).unwrap()))]);
        id.seq()
    }

    fn many(&mut self, group: Option<(&str, u32)>, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.submit(Priority::Normal, group, None)).collect()
    }

    /// Claims the next task, as a worker would; its number.
    fn claim(&mut self) -> Option<u64> {
        let mut payload = Vec::new();
        let ticket = self.claimer.claim(&mut payload)?;
        Some(self.desk.by_ticket(ticket).unwrap().id.seq())
    }

    /// Ends a task that was claimed.
    fn end(&mut self, seq: u64) {
        let id = self.desk.get(seq).unwrap().id;
        // As good as an end: it is not ready any more.
        self.apply(&[Op::Cancel { id, keep: Arc::from([]), reason: String::new(), at_us: 2_000_000 }]);
        let active = self.desk.take(seq).unwrap();
        self.producer.release(active.ticket);
    }

    /// Runs everything, one after the other; the numbers in their order.
    fn run_all(&mut self) -> Vec<u64> {
        let mut order = Vec::new();
        loop {
            self.fill();
            let Some(seq) = self.claim() else { return order };
            order.push(seq);
            self.end(seq);
        }
    }
}

#[test]
fn streams_are_merged_by_number() {
    let mut bench = Bench::new();
    let mut all = Vec::new();
    for round in 0..400 {
        let group = [None, Some(("a", 500)), Some(("b", 500)), None][round % 4];
        all.extend(bench.many(group, 1));
    }
    assert_eq!(bench.run_all(), all);
}

#[test]
fn members_of_arrays_keep_their_place_between_groups() {
    let mut bench = Bench::new();
    let first = bench.submit(Priority::Normal, Some(("a", 100)), None);
    let array = bench.submit(Priority::Normal, Some(("b", 3)), Some(70));
    let last = bench.submit(Priority::Normal, None, None);
    let order = bench.run_all();
    let expected: Vec<u64> = [first].into_iter().chain(array + 1..=array + 70).chain([last]).collect();
    // What fits into the table besides a full group may overtake it; nothing may overtake within the array.
    let members: Vec<u64> = order.iter().copied().filter(|seq| (array + 1..=array + 70).contains(seq)).collect();
    assert_eq!(members, expected[1..71]);
    assert_eq!((order.len(), order[0]), (72, first));
}

#[test]
fn a_full_group_is_not_read_and_never_exceeded() {
    let mut bench = Bench::new();
    let group = bench.many(Some(("a", 2)), 1_000);
    let plain = bench.many(None, 10);
    bench.fill();
    let on_desk = bench.desk.iter().filter(|active| active.group != 0).count();
    assert_eq!((on_desk, bench.desk.len()), (2, 12));
    let claimed: Vec<u64> = std::iter::from_fn(|| bench.claim()).collect();
    assert_eq!(claimed, [&group[..2], &plain[..]].concat());
    assert!(!bench.desk.is_open(LANE) && bench.desk.is_held_up());
    bench.end(group[1]);
    bench.fill();
    assert_eq!((bench.claim(), bench.claim()), (Some(group[2]), None));
}

#[test]
fn room_puts_the_oldest_before_what_is_published_and_sorting_is_rationed() {
    let mut bench = Bench::new();
    let group = bench.many(Some(("a", 1)), 3);
    let plain = bench.many(None, 300);
    bench.fill();
    assert_eq!(bench.claim(), Some(group[0]));
    bench.end(group[0]);
    bench.fill();
    assert_eq!(bench.claim(), Some(group[1]), "it comes before three hundred that were published");
    assert!(bench.desk.len() < 100, "a lane that was sorted is kept narrow");
    bench.end(group[1]);
    bench.fill();
    assert_eq!(bench.claim(), Some(plain[0]), "not again at once");
    let due = bench.desk.next_sort_ns().unwrap();
    bench.now_ns = due;
    bench.fill();
    assert_eq!(bench.claim(), Some(group[2]));
    assert_eq!(bench.claim(), Some(plain[1]));
}

#[test]
fn sorting_again_and_again_does_not_use_the_ring_up() {
    let mut bench = Bench::new();
    let gate = bench.many(None, 1)[0];
    let group = bench.many(Some(("a", 1)), 60);
    let plain = bench.many(None, 400);
    bench.fill();
    assert_eq!(bench.claim(), Some(gate));
    for seq in &group {
        bench.now_ns += 10_000_000_000;
        bench.fill();
        assert_eq!(bench.claim(), Some(*seq));
        bench.end(*seq);
    }
    bench.now_ns += 10_000_000_000;
    assert_eq!(bench.run_all(), plain);
}

#[test]
fn a_more_urgent_task_gets_the_room_of_one_that_nobody_has_claimed() {
    let mut bench = Bench::new();
    let normal = bench.many(Some(("a", 2)), 4);
    bench.fill();
    assert_eq!(bench.claim(), Some(normal[0]));
    let urgent = bench.submit(Priority::Critical, Some(("a", 2)), None);
    let second = bench.submit(Priority::High, Some(("a", 2)), None);
    bench.fill();
    assert_eq!(bench.desk.len(), 2);
    assert_eq!((bench.claim(), bench.claim()), (Some(urgent), None), "the claimed one keeps its place");
    bench.end(normal[0]);
    assert_eq!(bench.run_all(), [&[second], &normal[1..]].concat());
}

#[test]
fn a_limit_that_sinks_and_a_hold_take_back_what_is_unclaimed() {
    let mut bench = Bench::new();
    let group = bench.many(Some(("a", 4)), 4);
    bench.fill();
    assert_eq!(bench.claim(), Some(group[0]));
    let number = bench.desk.groups().next().unwrap();
    bench.desk.set_group(number, Some(2), false);
    bench.filling().hold_back(number);
    assert_eq!((bench.desk.len(), bench.desk.excess(number)), (2, 0));
    bench.desk.set_group(number, Some(2), true);
    bench.filling().hold_back(number);
    bench.fill();
    assert_eq!((bench.desk.len(), bench.claim()), (1, None));
    bench.desk.set_group(number, None, false);
    bench.end(group[0]);
    assert_eq!(bench.run_all(), group[1..]);
}

#[test]
fn short_tasks_are_published_further_ahead() {
    let mut bench = Bench::new();
    let all = bench.many(None, 2 * WIDE);
    bench.fill();
    assert_eq!(bench.desk.len(), WINDOW);
    bench.ahead = WIDE;
    bench.fill();
    assert_eq!(bench.desk.len(), WIDE);
    // When tasks get longer nothing is taken back; what there is runs out.
    bench.ahead = WINDOW;
    bench.fill();
    assert_eq!(bench.desk.len(), WIDE);
    assert_eq!(bench.run_all(), all);
}
