//! Arrays: one record until their members are touched.

use super::*;

#[test]
fn an_array_expands_step_by_step_also_over_a_reopening_and_keeps_its_order() {
    let mut bed = Bed::new();
    let items: Vec<String> = ["/a/x.png", "/b/y.png", "/c/z.png"].map(Into::into).into();
    let array = bed.submit(Some(Array::Items(items)), &[]);
    let behind = bed.task();
    assert_eq!(behind.seq(), array.seq() + 4);
    let ready = bed.store.ready(LANE, 0, 10).unwrap();
    assert_eq!(ready.len(), 1, "nothing overtakes the array");
    assert_eq!(ready[0].entry, Entry::Array { cursor: 0, count: 3 });
    bed.store.apply(&[Op::Expand { header: array, to: 2 }]).unwrap();
    let mut bed = bed.reopen_file();
    assert_eq!(bed.ready_ids(), [member(array, 0).seq(), member(array, 1).seq(), array.seq()]);
    let from_place = bed.store.ready(LANE, ready[0].place, 10).unwrap();
    assert_eq!(from_place.len(), 3);
    let spec_json = "{\"command\":[\"/bin/echo\",\"/b/y.png\"]}".to_owned();
    assert_eq!(from_place[1].entry, Entry::Member { array, index: 1, spec_json });
    let place = from_place[2].place;
    bed.store.apply(&[Op::Expand { header: array, to: 99 }]).unwrap();
    let rest: Vec<u64> = bed.store.ready(LANE, place, 10).unwrap().iter().map(|r| r.id.seq()).collect();
    assert_eq!(rest, [member(array, 2).seq(), behind.seq()]);
    assert_eq!(bed.store.counts().pending, 4);
}

#[test]
fn a_page_that_ends_before_the_array_does_not_lose_it() {
    let mut bed = Bed::new();
    let array = bed.range(5);
    bed.store.apply(&[Op::Expand { header: array, to: 2 }]).unwrap();
    let first = bed.store.ready(LANE, 0, 2).unwrap();
    assert_eq!(first.iter().map(|r| r.id).collect::<Vec<_>>(), [member(array, 0), member(array, 1)]);
    let second = bed.store.ready(LANE, first[1].place, 2).unwrap();
    assert_eq!(second[0].entry, Entry::Array { cursor: 2, count: 5 });
}

#[test]
fn untouched_members_are_found_by_id_and_a_number_beyond_is_not() {
    let mut bed = Bed::new();
    let array = bed.range(1_000_000);
    let record = bed.get(member(array, 999_999));
    assert_eq!(record.kind, TaskKind::Member { array, index: 999_999, item: "999999".to_owned() });
    assert_eq!(record.spec.command, ["/bin/echo", "999999"]);
    assert_eq!(bed.store.get(member(array, 1_000_000)).unwrap(), None);
    assert_eq!(bed.store.counts().pending, 1_000_000);
    let next = bed.task();
    assert_eq!(next.seq(), array.seq() + 1_000_001);
    assert_eq!(bed.kinds(), ["array-submitted", "task-submitted"]);
}

#[test]
fn an_array_ends_with_its_last_member_and_says_how() {
    let mut bed = Bed::new();
    for (last, outcome) in [
        (TaskState::Completed, TaskState::Completed),
        (TaskState::Timeout, TaskState::Failed),
        (TaskState::Cancelled, TaskState::Cancelled),
    ] {
        let array = bed.range(2);
        bed.store.apply(&[Op::Expand { header: array, to: 2 }]).unwrap();
        bed.finish(member(array, 1), TaskState::Completed);
        assert_eq!(bed.state(array), TaskState::Pending);
        let applied = bed.finish(member(array, 0), last);
        assert_eq!(applied.ended, [(member(array, 0), last), (array, outcome)]);
        assert_eq!(bed.state(array), outcome);
    }
}

#[test]
fn cancelling_an_array_spares_what_a_worker_holds() {
    let mut bed = Bed::new();
    let array = bed.range(1_000_000);
    bed.store.apply(&[Op::Expand { header: array, to: 3 }]).unwrap();
    bed.store.apply(&run(member(array, 2), 1, Next::RetryAt(u64::MAX >> 1))).unwrap();
    let keep = Arc::new([member(array, 0).seq()]);
    let op = Op::Cancel { id: array, keep, reason: "stop".into(), at_us: 5 };
    let applied = bed.store.apply(&[op]).unwrap();
    assert_eq!(applied.ended.len(), 2);
    assert_eq!((bed.state(array), bed.state(member(array, 0))), (TaskState::Pending, TaskState::Pending));
    let untouched = bed.get(member(array, 500_000));
    assert_eq!((untouched.state, untouched.reason.as_deref()), (TaskState::Cancelled, Some("stop")));
    assert_eq!(bed.store.counts(), Counts { pending: 1, cancelled: 999_999, ..Counts::default() });
    assert_eq!(bed.ready_ids(), [member(array, 0).seq()]);
    let applied = bed.finish(member(array, 0), TaskState::Completed);
    assert_eq!(applied.ended[1], (array, TaskState::Cancelled));
}

#[test]
fn a_member_cancelled_ahead_of_its_turn_never_runs() {
    let mut bed = Bed::new();
    let array = bed.range(4);
    bed.store.apply(&[cancel(member(array, 2))]).unwrap();
    let keep_nothing = Retention { max_count: Some(0), ..Retention::default() };
    bed.store.prune(&keep_nothing, u64::MAX >> 2, 100).unwrap();
    bed.store.apply(&[Op::Expand { header: array, to: 4 }]).unwrap();
    let expected: Vec<u64> = [0, 1, 3].map(|n| member(array, n).seq()).into();
    assert_eq!(bed.ready_ids(), expected);
    assert_eq!(bed.state(member(array, 2)), TaskState::Cancelled);
}

#[test]
fn retrying_an_array_brings_back_all_that_did_not_complete() {
    let mut bed = Bed::new();
    let array = bed.range(5);
    bed.store.apply(&[Op::Expand { header: array, to: 2 }, cancel(member(array, 4))]).unwrap();
    bed.finish(member(array, 0), TaskState::Completed);
    bed.finish(member(array, 1), TaskState::Failed);
    bed.store.apply(&[cancel(array)]).unwrap();
    assert_eq!(bed.state(array), TaskState::Failed);
    let applied = bed.store.apply(&[Op::Retry { id: array, at_us: 9 }]).unwrap();
    assert_eq!(applied.ready.iter().map(|r| r.id).collect::<Vec<_>>(), [array, member(array, 1), member(array, 4)]);
    assert_eq!(bed.store.counts(), Counts { pending: 4, completed: 1, ..Counts::default() });
    bed.store.apply(&[Op::Expand { header: array, to: 5 }]).unwrap();
    for n in 1..5 {
        bed.finish(member(array, n), TaskState::Completed);
    }
    assert_eq!(bed.state(array), TaskState::Completed);
}

#[test]
fn one_untouched_member_of_a_cancelled_array_may_run_alone() {
    let mut bed = Bed::new();
    let array = bed.range(5);
    bed.store.apply(&[cancel(array)]).unwrap();
    assert_eq!(bed.state(array), TaskState::Cancelled);
    let applied = bed.store.apply(&[Op::Retry { id: member(array, 3), at_us: 9 }]).unwrap();
    assert_eq!(applied.ready[0].id, member(array, 3));
    assert_eq!(bed.ready_ids(), [member(array, 3).seq()]);
    bed.finish(member(array, 3), TaskState::Completed);
    assert_eq!(bed.state(array), TaskState::Cancelled);
    let everything = Retention { max_count: Some(0), ..Retention::default() };
    bed.store.prune(&everything, u64::MAX >> 2, 1_000).unwrap();
    assert_eq!(bed.store.counts(), Counts::default());
    assert_eq!(bed.store.get(array).unwrap(), None);
}

#[test]
fn an_array_without_members_is_refused() {
    let mut bed = Bed::new();
    let id = bed.store.allocate(T0, 1);
    let empty = Submission { array: Some(Array::Items(vec![])), ..Submission::default() };
    assert_eq!(NewTask::new(id, 0, empty, &[]), Err(SubmitError::EmptyArray));
}
