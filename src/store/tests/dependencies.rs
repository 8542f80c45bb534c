//! Dependencies and what follows from an end.

use super::*;

use DependencyKind::{Ended, Failed, Succeeded};

#[test]
fn a_dependent_becomes_ready_when_its_last_blocker_has_ended_as_wanted() {
    let mut bed = Bed::new();
    let (a, b) = (bed.task(), bed.task());
    let c = bed.submit(None, &[(a, Succeeded), (b, Ended)]);
    assert_eq!(bed.get(c).blockers, 2);
    assert_eq!(bed.finish(a, TaskState::Completed).ready, []);
    let applied = bed.finish(b, TaskState::Failed);
    assert_eq!(applied.ready.iter().map(|r| r.id).collect::<Vec<_>>(), [c]);
    assert_eq!(bed.ready_ids(), [c.seq()]);
    assert_eq!(bed.store.dependencies(c, 9).unwrap(), [(a, Succeeded, true), (b, Ended, true)]);
}

#[test]
fn a_condition_that_cannot_hold_any_more_cancels_and_names_the_blocker() {
    let mut bed = Bed::new();
    let a = bed.task();
    let wants_success = bed.submit(None, &[(a, Succeeded)]);
    let wants_failure = bed.submit(None, &[(a, Failed)]);
    let applied = bed.finish(a, TaskState::Timeout);
    assert_eq!(applied.ended, [(a, TaskState::Timeout), (wants_success, TaskState::Cancelled)]);
    assert_eq!(applied.ready[0].id, wants_failure);
    assert!(bed.get(wants_success).reason.unwrap().contains(&a.to_string()));
}

#[test]
fn dependencies_on_what_has_ended_are_settled_at_once() {
    let mut bed = Bed::new();
    let a = bed.task();
    bed.finish(a, TaskState::Completed);
    let met = bed.submit(None, &[(a, Succeeded)]);
    let doomed = bed.submit(None, &[(a, Failed)]);
    assert_eq!(bed.ready_ids(), [met.seq()]);
    assert_eq!(bed.state(doomed), TaskState::Cancelled);
}

#[test]
fn a_chain_of_a_thousand_falls_without_recursion() {
    let mut bed = Bed::new();
    let first = bed.task();
    let mut last = first;
    for _ in 0..1_000 {
        last = bed.submit(None, &[(last, Succeeded)]);
    }
    let applied = bed.finish(first, TaskState::Failed);
    assert_eq!((applied.ended.len(), applied.more), (1_001, false));
    assert_eq!(bed.state(last), TaskState::Cancelled);
}

#[test]
fn whatever_falls_knows_what_it_waited_for_and_where_it_began() {
    let mut bed = Bed::new();
    let first = bed.task();
    let second = bed.submit(None, &[(first, Succeeded)]);
    let third = bed.submit(None, &[(second, Succeeded)]);
    let array = bed.submit(Some(Array::Range { first: 0, count: 5 }), &[(third, Succeeded)]);
    bed.finish(first, TaskState::Timeout);
    let late = bed.submit(None, &[(array, Succeeded)]);
    let expected = [(second, first), (third, second), (array, third), (late, array)];
    for (id, dependency) in expected {
        let task = bed.get(id);
        assert_eq!((task.state, task.cause), (TaskState::Cancelled, Some((dependency, first))));
        let reason = task.reason.unwrap();
        assert!(reason.contains(&dependency.to_string()), "{reason}");
        assert!(reason.contains(&format!("{first} timed out")), "{reason}");
    }
    // Whoever runs again has no cause any more.
    bed.store.apply(&[Op::Retry { id: first, at_us: 9 }, Op::Retry { id: second, at_us: 9 }]).unwrap();
    assert_eq!((bed.get(second).cause, bed.get(second).reason), (None, None));
}

#[test]
fn what_waits_is_counted_until_it_waits_no_more() {
    let mut bed = Bed::new();
    let (a, b) = (bed.task(), bed.task());
    let both = bed.submit(None, &[(a, Ended), (b, Succeeded)]);
    let array = bed.submit(Some(Array::Range { first: 0, count: 3 }), &[(b, Succeeded)]);
    assert_eq!(bed.store.blocked(), 2);
    bed.finish(a, TaskState::Completed);
    assert_eq!(bed.store.blocked(), 2);
    bed.finish(b, TaskState::Failed);
    assert_eq!(
        (bed.store.blocked(), bed.state(both), bed.state(array)),
        (0, TaskState::Cancelled, TaskState::Cancelled)
    );
    // A member of the array alone, and then all of it, while what it waits for runs again.
    let retry = |id| Op::Retry { id, at_us: 9 };
    bed.store.apply(&[retry(member(array, 1))]).unwrap();
    bed.audit();
    bed.store.apply(&[retry(b), retry(both), retry(array)]).unwrap();
    bed.audit();
    assert_eq!(bed.store.blocked(), 2);
    let bed = bed.reopen_file();
    assert_eq!(bed.store.blocked(), 2);
}

#[test]
fn a_wide_fan_out_is_told_in_bounded_steps_and_survives_a_crash_between_them() {
    let mut bed = Bed::new();
    let wide = apply::BUDGET + 500;
    let a = bed.task();
    let news: Vec<Op> = (0..wide).map(|_| Op::Submit(Arc::new(bed.new_task(None, &[(a, Succeeded)])))).collect();
    bed.store.apply(&news).unwrap();
    let applied = bed.finish(a, TaskState::Completed);
    assert_eq!((applied.ready.len(), applied.more), (apply::BUDGET - 1, true));
    let keep_nothing = Retention { max_count: Some(0), ..Retention::default() };
    assert_eq!(bed.store.prune(&keep_nothing, 1, 10).unwrap().tasks, 0, "the blocker is still needed");
    let mut bed = bed.reopen_file();
    let applied = bed.store.apply(&[Op::Continue]).unwrap();
    assert_eq!((applied.ready.len(), applied.more), (501, false));
    assert_eq!(bed.store.ready(LANE, 0, 100_000).unwrap().len(), wide);
}

#[test]
fn whoever_waits_in_two_ways_is_told_of_both_wherever_a_step_ends() {
    let mut bed = Bed::new();
    let a = bed.task();
    let count = 2 * apply::BUDGET / 3;
    let news: Vec<Op> = (0..count)
        .map(|n| {
            let twice: &[_] = &[(a, Succeeded), (a, Ended)];
            Op::Submit(Arc::new(bed.new_task(None, if n % 2 == 0 { twice } else { &twice[..1] })))
        })
        .collect();
    bed.store.apply(&news).unwrap();
    let mut applied = bed.finish(a, TaskState::Completed);
    let mut ready = applied.ready.len();
    while applied.more {
        applied = bed.store.apply(&[Op::Continue]).unwrap();
        ready += applied.ready.len();
    }
    assert_eq!((ready, bed.store.blocked()), (count, 0));
}

#[test]
fn an_array_blocks_as_a_whole() {
    let mut bed = Bed::new();
    let array = bed.range(2);
    let after = bed.submit(None, &[(array, Succeeded)]);
    let any = bed.submit(Some(Array::Range { first: 0, count: 3 }), &[(array, Ended)]);
    bed.store.apply(&[Op::Expand { header: array, to: 2 }]).unwrap();
    assert_eq!(bed.finish(member(array, 0), TaskState::Failed).ready, []);
    let applied = bed.finish(member(array, 1), TaskState::Completed);
    assert_eq!(applied.ready.iter().map(|r| r.id).collect::<Vec<_>>(), [any]);
    assert_eq!(bed.state(after), TaskState::Cancelled);
}

#[test]
fn an_array_whose_dependency_fails_is_cancelled_with_all_its_members() {
    let mut bed = Bed::new();
    let a = bed.task();
    let array = bed.submit(Some(Array::Range { first: 0, count: 100 }), &[(a, Succeeded)]);
    let after = bed.submit(None, &[(array, Ended)]);
    let applied = bed.finish(a, TaskState::Failed);
    assert_eq!(applied.ended, [(a, TaskState::Failed), (array, TaskState::Cancelled)]);
    assert_eq!(applied.ready[0].id, after);
    assert_eq!(bed.store.counts().cancelled, 100);
}

#[test]
fn a_bad_dependency_is_refused_and_does_not_spoil_its_batch() {
    let mut bed = Bed::new();
    let array = bed.range(3);
    let unknown = TaskId::new(T0, bed.store.tag(), 999_999);
    let foreign = TaskId::new(T0, bed.store.tag() ^ 1, array.seq());
    let cases = [
        (unknown, SubmitError::UnknownDependency(unknown)),
        (foreign, SubmitError::UnknownDependency(foreign)),
        (member(array, 1), SubmitError::MemberDependency(member(array, 1))),
    ];
    for (on, why) in cases {
        let (bad, good) = (bed.new_task(None, &[(on, Succeeded)]), bed.new_task(None, &[]));
        let (bad_id, good_id) = (bad.id, good.id);
        let expected = Err((bad_id, why.clone()));
        assert_eq!(bed.store.check(&[good.clone(), bad.clone()]).unwrap(), expected);
        let applied = bed.store.apply(&[Op::Submit(Arc::new(bad)), Op::Submit(Arc::new(good))]).unwrap();
        assert_eq!(applied.rejected, [(bad_id, why)]);
        assert_eq!(bed.store.get(bad_id).unwrap(), None);
        assert_eq!(bed.state(good_id), TaskState::Pending);
    }
    let first = bed.new_task(None, &[]);
    let second = bed.new_task(None, &[(first.id, Succeeded)]);
    assert_eq!(bed.store.check(&[first, second]).unwrap(), Ok(()));
}

#[test]
fn a_retried_dependent_waits_for_a_blocker_that_is_retried_too() {
    let mut bed = Bed::new();
    let a = bed.task();
    let b = bed.submit(None, &[(a, Succeeded)]);
    bed.finish(a, TaskState::Failed);
    assert_eq!(bed.state(b), TaskState::Cancelled);
    bed.store.apply(&[Op::Retry { id: a, at_us: 9 }, Op::Retry { id: b, at_us: 9 }]).unwrap();
    assert_eq!((bed.get(b).blockers, bed.ready_ids()), (1, vec![a.seq()]));
    assert_eq!(bed.finish(a, TaskState::Completed).ready[0].id, b);
}
