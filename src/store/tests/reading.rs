//! Lookups, listings, events and retention.

use super::*;

#[test]
fn lanes_are_first_in_first_out_and_priorities_apart() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..5).map(|_| bed.task()).collect();
    let mut urgent = bed.new_task(None, &[]);
    urgent.priority = Priority::Critical;
    let urgent_id = urgent.id;
    bed.store.apply(&[Op::Submit(Arc::new(urgent))]).unwrap();
    let page = bed.store.ready(LANE, 0, 3).unwrap();
    assert_eq!(page.iter().map(|r| r.id).collect::<Vec<_>>(), ids[..3]);
    let page = bed.store.ready(LANE, page[2].place, 9).unwrap();
    assert_eq!(page.iter().map(|r| r.id).collect::<Vec<_>>(), ids[3..]);
    let page = bed.store.ready(Stream { priority: Priority::Critical, ..LANE }, 0, 9).unwrap();
    assert_eq!((page.len(), page[0].id), (1, urgent_id));
}

#[test]
fn a_prefix_finds_one_task_or_says_why_not() {
    let mut bed = Bed::new();
    let a = bed.task();
    let later = |bed: &mut Bed, ms| {
        let id = bed.store.allocate(ms, 1);
        let new = NewTask::new(id, ms * 1_000, Submission::default(), &[]).unwrap();
        bed.store.apply(&[Op::Submit(Arc::new(new))]).unwrap();
        id
    };
    let b = later(&mut bed, T0 + 1_000_000);
    let array = bed.range(1_000);
    let text = |id: TaskId| id.to_string();
    for id in [a, b, array, member(array, 0), member(array, 999)] {
        assert_eq!(bed.store.find_by_prefix(&text(id)).unwrap(), id);
        assert_eq!(bed.store.find_by_prefix(&text(id).to_lowercase()).unwrap(), id);
    }
    let common = text(a).chars().zip(text(b).chars()).take_while(|(x, y)| x == y).count();
    assert!(matches!(bed.store.find_by_prefix(&text(a)[..common]), Err(FindError::Ambiguous { .. })));
    assert_eq!(bed.store.find_by_prefix(&text(a)[..common + 1]).unwrap(), a);
    assert!(matches!(bed.store.find_by_prefix(&text(array)[..25]), Err(FindError::Ambiguous { .. })));
    assert!(matches!(bed.store.find_by_prefix(&text(member(array, 1_000))), Err(FindError::NotFound(_))));
    assert!(matches!(bed.store.find_by_prefix("01"), Err(FindError::Ambiguous { .. } | FindError::NotFound(_))));
    for bad in ["", "!", "Z", "hello world", "000000000000000000000000000"] {
        assert!(matches!(bed.store.find_by_prefix(bad), Err(FindError::NotAnId(_))), "{bad}");
    }
}

#[test]
fn ids_never_go_back_in_time() {
    let mut bed = Bed::new();
    let first = bed.store.allocate(T0 + 50, 1);
    let second = bed.store.allocate(T0, 1);
    assert!(second > first && second.millis() == T0 + 50);
}

#[test]
fn listings_page_in_both_directions_and_by_state() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..10).map(|_| bed.task()).collect();
    for id in &ids[..4] {
        bed.finish(*id, TaskState::Failed);
    }
    let list = |filter: ListFilter, limit| {
        let page = bed.store.list(&filter, limit).unwrap();
        (page.tasks.iter().map(|t| t.id).collect::<Vec<_>>(), page.next)
    };
    let newest = ListFilter { newest_first: true, ..ListFilter::default() };
    assert_eq!(list(newest, 2), (vec![ids[9], ids[8]], Some(ids[8].seq())));
    let next = ListFilter { after: Some(ids[8].seq()), ..newest };
    assert_eq!(list(next, 2).0, [ids[7], ids[6]]);
    let failed = ListFilter { state: Some(TaskState::Failed), ..ListFilter::default() };
    assert_eq!(list(failed, 99), (ids[..4].to_vec(), None));
    let pending = ListFilter { state: Some(TaskState::Pending), ..ListFilter::default() };
    assert_eq!(list(pending, 99).0, ids[4..]);
}

#[test]
fn runs_of_submissions_are_one_row_and_many_events() {
    let mut bed = Bed::new();
    let news: Vec<Op> = (0..1_000).map(|_| Op::Submit(Arc::new(bed.new_task(None, &[])))).collect();
    bed.store.apply(&news).unwrap();
    let id = bed.task();
    bed.finish(id, TaskState::Completed);
    let rows: u64 = bed.store.read(|c| c.query_row("SELECT count(*) FROM event", [], |r| r.get(0))).unwrap();
    assert_eq!(rows, 4);
    let mut seen = Vec::new();
    loop {
        let page = bed.store.events(seen.len() as u64, 77).unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 77);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 1_003);
    assert!(seen.iter().zip(1..).all(|(e, n)| e.seq == n));
    assert!(seen[..1_001].iter().zip(1..).all(|(e, n)| e.task.unwrap().seq() == n));
    assert!(seen[..1_001].iter().all(|e| bed.store.get(e.task.unwrap()).unwrap().is_some()));
    assert_eq!(seen[1_002].kind, EventKind::TaskCompleted);
}

#[test]
fn pruning_is_bounded_takes_the_oldest_and_frees_their_segments() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..30).map(|_| bed.task()).collect();
    for id in &ids[..20] {
        bed.finish(*id, TaskState::Completed);
    }
    let policy = Retention { max_count: Some(5), ..Retention::default() };
    let pruned = bed.store.prune(&policy, T0 * 1_000, 10).unwrap();
    assert_eq!((pruned.tasks, pruned.more), (10, true));
    let pruned = bed.store.prune(&policy, T0 * 1_000, 10).unwrap();
    assert_eq!((pruned.tasks, pruned.more), (5, false));
    assert_eq!(bed.store.get(ids[14]).unwrap(), None);
    assert_eq!(bed.store.attempts(ids[14], 9).unwrap(), []);
    assert_eq!(bed.state(ids[15]), TaskState::Completed);
    assert_eq!(bed.store.segments_in_use().unwrap().len(), 1);
    let by_age = Retention { max_age_us: Some(1), max_events: Some(3), ..Retention::default() };
    bed.store.prune(&by_age, T0 * 1_000 + 1_000_000, 1_000).unwrap();
    assert_eq!(bed.store.counts(), Counts { pending: 10, ..Counts::default() });
    assert_eq!(bed.store.segments_in_use().unwrap(), []);
    let last = bed.store.last_event();
    let events = bed.store.events(0, 1_000).unwrap();
    assert!(events.len() <= 5 && events.last().unwrap().seq == last, "{events:?}");
    // The event of the last pass is one too many; after that there is nothing to do, and nothing is written.
    bed.store.prune(&by_age, T0 * 1_000, 10).unwrap();
    let before = bed.store.ledger.batch;
    assert_eq!(bed.store.prune(&by_age, T0 * 1_000, 10).unwrap(), Pruned::default());
    assert_eq!(bed.store.ledger.batch, before);
}

#[test]
fn an_ended_array_is_pruned_with_all_that_belongs_to_it_in_bounded_passes() {
    let mut bed = Bed::new();
    let items: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let array = bed.submit(Some(Array::Items(items)), &[]);
    bed.store.apply(&[Op::Expand { header: array, to: 20 }]).unwrap();
    for n in 0..20 {
        bed.finish(member(array, n), TaskState::Completed);
    }
    bed.store.apply(&[cancel(array)]).unwrap();
    assert_eq!(bed.store.counts(), Counts { completed: 20, cancelled: 30, ..Counts::default() });
    let everything = Retention { max_count: Some(0), ..Retention::default() };
    let mut passes = 0;
    while bed.store.counts() != Counts::default() {
        bed.store.prune(&everything, u64::MAX >> 2, 7).unwrap();
        passes += 1;
        assert!(passes < 40);
    }
    assert!(passes > 5);
    let left: u64 = bed
        .store
        .read(|c| {
            c.query_row(
                "SELECT (SELECT count(*) FROM task) + (SELECT count(*) FROM array) + (SELECT count(*) FROM array_item)
                 + (SELECT count(*) FROM attempt) + (SELECT count(*) FROM segment)",
                [],
                |r| r.get(0),
            )
        })
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn the_file_shrinks_again_after_a_burst() {
    let mut bed = Bed::new();
    let pages = |bed: &Bed| -> u64 { bed.store.read(|c| c.query_row("PRAGMA page_count", [], |r| r.get(0))).unwrap() };
    let news: Vec<NewTask> = (0..30_000).map(|_| bed.new_task(None, &[])).collect();
    let ids: Vec<TaskId> = news.iter().map(|n| n.id).collect();
    let padded = |n: NewTask| NewTask { spec_json: format!("{{\"command\":[\"{}\"]}}", "x".repeat(900)), ..n };
    let ops: Vec<Op> = news.into_iter().map(|n| Op::Submit(Arc::new(padded(n)))).collect();
    bed.store.apply(&ops).unwrap();
    let ops: Vec<Op> = ids.into_iter().map(cancel).collect();
    bed.store.apply(&ops).unwrap();
    let full = pages(&bed);
    let none = Retention { max_count: Some(0), max_events: Some(10), ..Retention::default() };
    while bed.store.prune(&none, 1, 2_000).unwrap().more {}
    assert!(pages(&bed) * 4 < full * 3, "{} of {full} pages", pages(&bed));
}

/// Starts a task that was claimed so many microseconds before.
fn start(bed: &mut Bed, id: TaskId, at_us: u64, waited_us: Option<u64>) {
    let claimed_us = waited_us.map(|waited| at_us - waited);
    bed.store.apply(&[Op::Started { id, attempt: 1, worker: worker(), claimed_us, at_us }]).unwrap();
}

#[test]
fn a_start_that_knows_its_claim_is_one_row_and_two_events() {
    let mut bed = Bed::new();
    let (old, new) = (bed.task(), bed.task());
    start(&mut bed, old, 5_000, None);
    start(&mut bed, new, 9_000, Some(300));
    bed.task();
    let told: Vec<_> = bed.store.events(0, 99).unwrap().iter().map(|e| (e.seq, e.kind, e.at_us, e.count)).collect();
    assert_eq!(told[2], (3, EventKind::TaskStarted, 5_000, None), "an older acode's start is one event");
    assert_eq!(told[3], (4, EventKind::TaskAssigned, 8_700, None));
    assert_eq!(told[4], (5, EventKind::TaskStarted, 9_000, None));
    assert_eq!((told[5].0, bed.store.last_event()), (6, 6));
    let from =
        |since, limit| -> Vec<u64> { bed.store.events(since, limit).unwrap().iter().map(|event| event.seq).collect() };
    assert_eq!(from(4, 99), [5, 6], "from the middle of the pair");
    assert_eq!((from(3, 1), from(5, 99)), (vec![4], vec![6]));
    assert!(bed.store.events(0, 99).unwrap()[3..5].iter().all(|e| e.task == Some(new) && e.attempt == Some(1)));
}

#[test]
fn a_moment_may_lie_between_a_claim_and_its_start() {
    let mut bed = Bed::new();
    let us = T0 * 1_000 + 1_000_000;
    let (first, second) = (bed.task(), bed.task());
    start(&mut bed, first, us, Some(300));
    start(&mut bed, second, us + 1_000, Some(400));
    let before = |at_us| bed.store.last_event_before(at_us).unwrap();
    assert_eq!([before(us - 300), before(us - 299), before(us), before(us + 1)], [2, 3, 3, 4]);
    assert_eq!([before(us + 600), before(us + 601), before(u64::MAX >> 1)], [4, 5, 6]);
}

#[test]
fn what_counts_members_is_one_event_for_a_moment_too() {
    let mut bed = Bed::new();
    bed.submit(Some(Array::Range { first: 0, count: 1_000 }), &[]);
    assert_eq!(bed.store.last_event_before(u64::MAX >> 1).unwrap(), bed.store.last_event());
}

#[test]
fn pruning_takes_a_pair_as_a_whole() {
    let mut bed = Bed::new();
    let id = bed.task();
    start(&mut bed, id, T0 * 1_000, Some(1));
    let keep = |count| Retention { max_events: Some(count), ..Retention::default() };
    let left = |bed: &Bed| bed.store.events(0, 99).unwrap().iter().map(|event| event.seq).collect::<Vec<_>>();
    bed.store.prune(&keep(1), 0, 99).unwrap();
    assert_eq!(left(&bed), [2, 3], "half of it is to be kept");
    bed.store.prune(&keep(0), 0, 99).unwrap();
    assert_eq!((left(&bed), bed.store.last_event()), (vec![], 3));
}

#[test]
fn a_page_says_how_many_events_before_it_are_gone() {
    use crate::requests::{events_from, events_page};
    use crate::wire::request::Events;
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..6).map(|_| bed.task()).collect();
    ids.iter().for_each(|id| start(&mut bed, *id, T0 * 1_000, Some(1)));
    let page = |bed: &Bed, after| {
        let (batch, next) = events_page(&bed.store, after, 4).unwrap();
        (batch.events.iter().map(|event| event.seq).collect::<Vec<_>>(), batch.missed, next)
    };
    assert_eq!(page(&bed, 0), (vec![1, 2, 3, 4], 0, 4));
    bed.store.prune(&Retention { max_events: Some(8), ..Retention::default() }, 0, 99).unwrap();
    assert_eq!(page(&bed, 2), (vec![11, 12, 13, 14], 8, 14));
    assert_eq!(page(&bed, 10), (vec![11, 12, 13, 14], 0, 14));
    let all = events_from(&bed.store, &Events::default()).unwrap();
    assert_eq!(page(&bed, all).1, 0, "who asks for all that are kept misses nothing");
    bed.store.prune(&Retention { max_events: Some(0), ..Retention::default() }, 0, 99).unwrap();
    assert_eq!(page(&bed, 12), (vec![], 6, 18));
    assert_eq!(page(&bed, 18), (vec![], 0, 18));
}

#[test]
fn every_end_is_counted_by_its_state_and_arrays_by_their_members() {
    let mut bed = Bed::new();
    let (one, array) = (bed.task(), bed.submit(Some(Array::Range { first: 0, count: 50 }), &[]));
    let end = run(one, 1, Next::Final(TaskState::Failed));
    let settled = bed.store.apply(&end).unwrap().settled;
    assert_eq!(settled, Counts { failed: 1, ..Counts::default() });
    let cancel = Op::Cancel { id: array, keep: Arc::from([]), reason: "x".into(), at_us: 1 };
    assert_eq!(bed.store.apply(&[cancel]).unwrap().settled, Counts { cancelled: 50, ..Counts::default() });
    let again = Op::Retry { id: array, at_us: 2 };
    assert_eq!(bed.store.apply(&[again]).unwrap().settled, Counts::default());
}
