//! Keys and names: what is unique among the tasks that have not ended, and what finds the youngest.

use super::*;

fn keyed(bed: &mut Bed, key: &str, array: Option<Array>) -> NewTask {
    NewTask { key: Some(key.into()), ..bed.new_task(array, &[]) }
}

fn submit(bed: &mut Bed, new: NewTask) -> Result<TaskId, SubmitError> {
    let id = new.id;
    let applied = bed.store.apply(&[Op::Submit(Arc::new(new))]).unwrap();
    applied.rejected.into_iter().next().map_or(Ok(id), |(_, why)| Err(why))
}

#[test]
fn a_key_is_free_again_when_its_task_has_ended() {
    let mut bed = Bed::new();
    let new = keyed(&mut bed, "k", None);
    let first = submit(&mut bed, new.clone()).unwrap();
    assert_eq!(submit(&mut bed, new), Ok(first), "the same operation again changes nothing");
    let again = keyed(&mut bed, "k", None);
    let (refused, other) = (again.id, keyed(&mut bed, "K", None));
    assert_eq!(submit(&mut bed, again), Err(SubmitError::KeyExists("k".into(), first)));
    assert_eq!(bed.store.get(refused).unwrap(), None);
    submit(&mut bed, other).unwrap();
    assert_eq!(bed.store.key_holder("k").unwrap(), Some(first));
    bed.finish(first, TaskState::Failed);
    assert_eq!(bed.store.key_holder("k").unwrap(), None);
    let again = keyed(&mut bed, "k", None);
    let second = submit(&mut bed, again).unwrap();
    assert_eq!(bed.get(second).key.as_deref(), Some("k"));
}

#[test]
fn whoever_has_lost_its_key_does_not_come_back() {
    let mut bed = Bed::new();
    let new = keyed(&mut bed, "k", None);
    let first = submit(&mut bed, new).unwrap();
    bed.finish(first, TaskState::Failed);
    let array = keyed(&mut bed, "k", Some(Array::Range { first: 0, count: 2 }));
    let array = submit(&mut bed, array).unwrap();
    bed.store.apply(&[Op::Retry { id: first, at_us: 9 }]).unwrap();
    assert_eq!(bed.state(first), TaskState::Failed);
    bed.store.apply(&[cancel(array), Op::Retry { id: first, at_us: 9 }]).unwrap();
    assert_eq!(bed.state(first), TaskState::Pending);
    // A member has its array's key.
    assert_eq!(bed.store.key_of(member(array, 1)).unwrap(), Some((array, "k".into())));
    bed.store.apply(&[Op::Retry { id: member(array, 1), at_us: 9 }, Op::Retry { id: array, at_us: 9 }]).unwrap();
    assert_eq!((bed.state(array), bed.state(member(array, 1))), (TaskState::Cancelled, TaskState::Cancelled));
}

#[test]
fn a_name_means_the_youngest_that_was_given_it() {
    let mut bed = Bed::new();
    let named = |bed: &mut Bed| {
        let new = NewTask { name: Some("encode".into()), ..bed.new_task(None, &[]) };
        submit(bed, new).unwrap()
    };
    let first = named(&mut bed);
    let second = named(&mut bed);
    bed.task();
    assert_eq!(bed.store.find_by_name("encode").unwrap(), second);
    bed.finish(second, TaskState::Completed);
    let keep_one = Retention { max_count: Some(0), ..Retention::default() };
    bed.store.prune(&keep_one, 1, 10).unwrap();
    assert_eq!(bed.store.find_by_name("encode").unwrap(), first);
    assert!(matches!(bed.store.find_by_name("echo"), Err(FindError::NotFound(_))), "the program's name is none");
}
