//! Groups, holding, start deadlines, ageing, and since when a task has been ready.

use acode_worker::task::GroupWish;

use super::*;

const AFTER_US: u64 = 60_000_000;

fn stream(group: u32) -> Stream {
    Stream { group, ..LANE }
}

impl Bed {
    fn submit_with(&mut self, change: impl FnOnce(&mut NewTask)) -> (TaskId, Applied) {
        let mut new = self.new_task(None, &[]);
        change(&mut new);
        let id = new.id;
        (id, self.store.apply(&[Op::Submit(Arc::new(new))]).unwrap())
    }

    fn grouped(&mut self, name: &str, max: Option<u32>) -> (TaskId, Applied) {
        self.submit_with(|new| new.group = Some(GroupWish { name: name.to_owned(), max }))
    }

    fn ready_in(&self, stream: Stream) -> Vec<u64> {
        self.store.ready(stream, 0, 100).unwrap().iter().map(|ready| ready.id.seq()).collect()
    }

    fn ready_us(&self, id: TaskId) -> u64 {
        let ready = self.store.ready(LANE, 0, 100).unwrap();
        ready.iter().find(|ready| ready.id == id).unwrap().ready_us
    }

    fn apply(&mut self, op: Op) -> Applied {
        self.store.apply(&[op]).unwrap()
    }
}

fn at(seconds: u64) -> u64 {
    T0 * 1_000 + seconds * 1_000_000
}

fn none() -> Arc<[u64]> {
    Arc::from([])
}

#[test]
fn a_group_has_a_stream_of_its_own_and_counts_what_is_open() {
    let mut bed = Bed::new();
    let (first, applied) = bed.grouped("encode", Some(2));
    let group = applied.groups[0].id;
    assert_eq!((applied.groups[0].max, applied.ready[0].group), (Some(2), group));
    let plain = bed.task();
    let (second, applied) = bed.grouped("encode", None);
    assert_eq!(applied.groups, [], "its limit stays as it is");
    assert_eq!(
        (bed.ready_in(stream(0)), bed.ready_in(stream(group))),
        (vec![plain.seq()], vec![first.seq(), second.seq()])
    );
    let (_, applied) = bed.grouped("encode", Some(7));
    assert_eq!(applied.groups[0].max, Some(7));
    let mut new = bed.new_task(Some(Array::Range { first: 0, count: 10 }), &[]);
    new.group = Some(GroupWish { name: "encode".to_owned(), max: None });
    let array = new.id;
    bed.apply(Op::Submit(Arc::new(new)));
    bed.apply(Op::Expand { header: array, to: 2 });
    let open = |bed: &Bed| bed.store.groups().unwrap()[0].open;
    assert_eq!((open(&bed), bed.ready_in(stream(group)).len()), (13, 6));
    bed.finish(first, TaskState::Failed);
    bed.apply(Op::Cancel { id: array, keep: none(), reason: "r".into(), at_us: at(1) });
    assert_eq!(open(&bed), 2);
    bed.apply(Op::Retry { id: array, at_us: at(2) });
    bed.apply(Op::Retry { id: first, at_us: at(2) });
    assert_eq!(open(&bed), 13);
    assert_eq!(bed.get(first).group.as_deref(), Some("encode"));
    let bed = bed.reopen_file();
    assert_eq!((open(&bed), bed.store.groups().unwrap()[0].max), (13, Some(7)));
    let youngest = bed.store.open_in_group(group, 2).unwrap();
    assert_eq!(youngest[0], array, "the youngest first, and an array once");
    bed.audit();
}

#[test]
fn a_group_is_changed_by_name_and_repeating_changes_nothing() {
    let mut bed = Bed::new();
    let change = |max, held| Op::Group { change: GroupChange { name: "g".to_owned(), max, held }, at_us: at(3) };
    let made = bed.apply(change(Some(Some(4)), None)).groups;
    assert_eq!((made[0].max, made[0].held_us), (Some(4), 0));
    assert_eq!(bed.apply(change(Some(Some(4)), None)).groups, []);
    assert_eq!(bed.apply(change(None, Some(true))).groups[0].held_us, at(3));
    assert_eq!(
        bed.apply(change(Some(None), Some(false))).groups[0],
        Group { max: None, held_us: 0, ..made[0].clone() }
    );
    assert_eq!(bed.store.groups().unwrap().len(), 1);
}

#[test]
fn a_held_task_is_not_ready_until_it_is_released() {
    let mut bed = Bed::new();
    let (asked, _) = bed.submit_with(|new| new.held = true);
    let plain = bed.task();
    bed.apply(Op::Hold { id: plain, keep: none(), at_us: at(1) });
    let running = bed.task();
    bed.apply(Op::Hold { id: running, keep: Arc::from([running.seq()]), at_us: at(1) });
    assert_eq!(bed.ready_ids(), [running.seq()]);
    assert!(bed.get(plain).held && bed.get(asked).held && !bed.get(running).held);
    assert_eq!(bed.get(plain).ready_us, at(1), "since when it is held");
    let applied = bed.apply(Op::Release { id: plain, at_us: at(5) });
    assert_eq!(applied.ready.len(), 1);
    assert_eq!(bed.apply(Op::Release { id: plain, at_us: at(6) }), Applied::default());
    assert_eq!(bed.ready_us(plain), at(5));
    bed.apply(Op::Hold { id: asked, keep: none(), at_us: at(7) });
    bed.apply(Op::Cancel { id: asked, keep: none(), reason: "r".into(), at_us: at(8) });
    bed.apply(Op::Retry { id: asked, at_us: at(9) });
    assert_eq!(bed.ready_us(asked), at(9), "who wants it to run wants it to run");
    bed.audit();
}

#[test]
fn a_held_array_is_not_expanded_and_its_members_are_released_with_it() {
    let mut bed = Bed::new();
    let array = bed.range(6);
    bed.apply(Op::Expand { header: array, to: 3 });
    bed.finish(member(array, 0), TaskState::Failed);
    bed.apply(Op::Hold { id: member(array, 5), keep: none(), at_us: at(1) });
    bed.apply(Op::Hold { id: array, keep: none(), at_us: at(1) });
    assert!(bed.ready_ids().is_empty());
    bed.apply(Op::Retry { id: member(array, 0), at_us: at(2) });
    assert_eq!(bed.ready_ids(), [member(array, 0).seq()], "a member that is retried does not release the rest");
    bed.apply(Op::Release { id: member(array, 4), at_us: at(3) });
    assert_eq!(bed.ready_ids(), [member(array, 0).seq(), member(array, 4).seq()]);
    bed.apply(Op::Release { id: array, at_us: at(4) });
    let ready: Vec<u64> = [0, 1, 2].into_iter().map(|index| member(array, index).seq()).chain([array.seq()]).collect();
    assert_eq!(bed.ready_ids(), ready, "those behind the untouched ones wait for them");
    bed.apply(Op::Expand { header: array, to: 6 });
    assert_eq!(bed.ready_ids(), (0..6).map(|index| member(array, index).seq()).collect::<Vec<_>>());
    bed.audit();
}

#[test]
fn a_deadline_ends_what_has_not_started_and_no_other() {
    let mut bed = Bed::new();
    let due = |new: &mut NewTask| new.expires_us = at(10);
    let (late, _) = bed.submit_with(due);
    let (held, _) = bed.submit_with(due);
    let (started, _) = bed.submit_with(due);
    bed.apply(Op::Started { id: started, attempt: 1, worker: worker(), claimed_us: None, at_us: at(1) });
    let dependent = bed.submit(None, &[(late, DependencyKind::Succeeded)]);
    let mut array = bed.new_task(Some(Array::Range { first: 0, count: 9 }), &[]);
    due(&mut array);
    let header = array.id;
    bed.apply(Op::Submit(Arc::new(array)));
    bed.apply(Op::Expand { header, to: 2 });
    bed.apply(Op::Started { id: member(header, 0), attempt: 1, worker: worker(), claimed_us: None, at_us: at(1) });
    assert_eq!(bed.store.next_expiry().unwrap(), Some(at(10)));
    assert!(bed.store.expired(at(9), 99).unwrap().is_empty());
    let found = bed.store.expired(at(10), 99).unwrap();
    assert_eq!(found, [late.seq(), held.seq(), header.seq(), member(header, 1).seq()]);
    bed.apply(Op::Expire { due: found.into(), keep: Arc::from([held.seq()]), at_us: at(10) });
    assert_eq!(bed.store.next_expiry().unwrap(), None);
    let reason = bed.get(late).reason.unwrap();
    assert!(reason.starts_with("not started by 20") && reason.ends_with('Z'), "{reason}");
    assert_eq!((bed.state(late), bed.state(dependent)), (TaskState::Cancelled, TaskState::Cancelled));
    assert_eq!((bed.state(held), bed.state(started)), (TaskState::Pending, TaskState::Pending));
    assert_eq!(
        (bed.state(member(header, 0)), bed.state(member(header, 8))),
        (TaskState::Pending, TaskState::Cancelled)
    );
    assert_eq!(bed.state(member(header, 1)), TaskState::Cancelled);
    bed.finish(member(header, 0), TaskState::Completed);
    assert_eq!(bed.state(header), TaskState::Cancelled);
    bed.audit();
}

#[test]
fn waiting_moves_a_task_up_step_by_step_and_an_attempt_brings_it_back() {
    let mut bed = Bed::new();
    let low = |new: &mut NewTask| new.priority = Priority::Low;
    let ids: Vec<TaskId> = (0..5).map(|_| bed.submit_with(low).0).collect();
    let (grouped, _) = bed.submit_with(|new| {
        low(new);
        new.group = Some(GroupWish { name: "g".to_owned(), max: None });
    });
    let keep: Arc<[u64]> = Arc::from([ids[4].seq()]);
    let age = |bed: &mut Bed, now_us, from, limit| {
        bed.apply(Op::Age { now_us, after_us: AFTER_US, from, keep: Arc::clone(&keep), limit })
    };
    assert_eq!(age(&mut bed, at(59), AgePlace::START, 100), Applied::default());
    let first = age(&mut bed, at(60), AgePlace::START, 2);
    assert_eq!(first.aged.len(), 1, "a step is bounded: one look at an empty stream, one task");
    let second = age(&mut bed, at(60), first.age_next.unwrap(), 100);
    assert_eq!((second.aged.len(), second.age_next), (4, None));
    assert_eq!(bed.ready_ids(), ids[..4].iter().map(|id| id.seq()).collect::<Vec<_>>());
    assert_eq!(age(&mut bed, at(119), AgePlace::START, 100).aged, [], "once for each time");
    for now in [120, 180, 240, 300] {
        age(&mut bed, at(now), AgePlace::START, 100);
    }
    assert_eq!((bed.get(ids[0]).priority, bed.get(grouped).priority), (Priority::Critical, Priority::Critical));
    assert_eq!(bed.get(ids[4]).priority, Priority::Low, "what a worker holds does not wait");
    let applied = bed.store.apply(&run(ids[0], 1, Next::Requeue)).unwrap();
    assert_eq!((bed.get(ids[0]).priority, applied.ready[0].priority), (Priority::Low, Priority::Low));
    bed.audit();
}

#[test]
fn the_time_of_readiness_is_that_of_the_last_obstacle() {
    let mut bed = Bed::new();
    let plain = bed.task();
    assert_eq!(bed.ready_us(plain), T0 * 1_000, "at first that of its submission");
    let (delayed, _) = bed.submit_with(|new| new.not_before_us = at(5));
    bed.apply(Op::Wake { now_us: at(6), limit: 9 });
    assert_eq!(bed.ready_us(delayed), at(6));
    let dependent = bed.submit(None, &[(plain, DependencyKind::Ended), (delayed, DependencyKind::Ended)]);
    bed.finish(delayed, TaskState::Completed);
    let ended = bed.finish(plain, TaskState::Failed);
    assert_eq!(ended.ready.len(), 1);
    assert_eq!(bed.ready_us(dependent), bed.get(plain).finished_us.unwrap());
    bed.apply(Op::Retry { id: plain, at_us: at(50) });
    assert_eq!(bed.ready_us(plain), at(50));
    let again = run(plain, 2, Next::CrashedAt { at_us: 0, oom: false });
    bed.store.apply(&again).unwrap();
    assert!(bed.ready_us(plain) != at(50));
}

#[test]
fn those_ahead_are_counted_over_all_groups_as_far_as_asked() {
    let mut bed = Bed::new();
    bed.task();
    bed.grouped("a", None);
    bed.range(10);
    let (last, applied) = bed.grouped("b", None);
    let stream = stream(applied.ready[0].group);
    assert_eq!(bed.store.ahead(stream, last.seq(), 100).unwrap(), 12);
    assert_eq!(bed.store.ahead(stream, last.seq(), 7).unwrap(), 7);
    assert_eq!(bed.store.ahead(stream, 1, 7).unwrap(), 0);
}
