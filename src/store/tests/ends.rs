//! Plain successes that end in company are what they are alone: the same records, attempts, events and counts.

use acode_worker::task::GroupWish;

use super::*;

/// A plain success at the first attempt, as the supervisor records it.
fn plain(id: TaskId, n: u64) -> [Op; 2] {
    let started_us = T0 * 1_000 + 50 * n;
    let worker = WorkerId::from_u128(77 + u128::from(n % 3));
    let [_, finished] = run(id, 1, Next::Final(TaskState::Completed));
    let Op::Finished(end) = finished else { panic!("an attempt ends") };
    let end = AttemptEnd {
        worker,
        started_us,
        finished_us: started_us + 3 + n,
        usage: Usage { wall_us: 3 + n, user_us: n, max_rss_bytes: n << 20, ..Usage::default() },
        output: OutputRef { segment: 4, offset: 8 * n, ..OutputRef::default() },
        result: n.is_multiple_of(2).then(|| format!("{{\"n\":{n}}}")),
        ..*end
    };
    let claimed_us = Some(started_us - n % 7);
    [Op::Started { id, attempt: 1, worker, claimed_us, at_us: started_us }, Op::Finished(Box::new(end))]
}

/// Forty tasks, forty of all kinds, and an array of sixty: its end is told behind those that end together with its last member.
fn crowd(bed: &mut Bed) -> Vec<TaskId> {
    let mut ids: Vec<TaskId> = (0..40).map(|_| bed.task()).collect();
    for n in 0..40 {
        let mut new = bed.new_task(None, &[]);
        new.hooked = n == 20;
        new.group = (n % 4 == 1).then(|| GroupWish { name: format!("g{}", n % 8), max: None });
        ids.push(new.id);
        bed.store.apply(&[Op::Submit(Arc::new(new))]).unwrap();
    }
    let array = bed.range(60);
    bed.store.apply(&[Op::Expand { header: array, to: 60 }]).unwrap();
    ids.extend((1..=60).map(|n| TaskId::new(array.millis(), bed.store.tag(), array.seq() + n)));
    ids
}

fn ends(ids: &[TaskId]) -> Vec<Op> {
    ids.iter().zip(0..).flat_map(|(id, n)| plain(*id, n)).collect()
}

/// All that can be asked about a queue.
fn told(bed: &Bed) -> Vec<String> {
    let filter = ListFilter { members: true, ..ListFilter::default() };
    let mut told = vec![format!("{:?} {:?}", bed.store.counts(), bed.store.groups().unwrap())];
    for task in bed.store.list(&filter, 1_000).unwrap().tasks {
        told.push(format!("{task:?} {:?}", bed.store.attempts(task.id, 9).unwrap()));
    }
    told.extend(bed.store.events(0, 10_000).unwrap().iter().map(|event| format!("{event:?}")));
    told
}

fn rows(bed: &Bed, sql: &str) -> u64 {
    bed.store.read(|conn| conn.query_row(sql, [], |r| r.get(0))).unwrap()
}

#[test]
fn a_crowd_of_ends_is_what_they_are_one_by_one() {
    let (mut together, mut alone) = (Bed::new(), Bed::new());
    // What tells queues apart is random; here it must not.
    (together.store.tag, alone.store.tag) = (77, 77);
    let ids = crowd(&mut together);
    let applied = together.store.apply(&ends(&ids)).unwrap();
    assert_eq!((applied.settled.completed, applied.ended.len()), (140, 141), "and the array");
    assert!(rows(&together, "SELECT count(*) FROM attempt") < 40, "most have no row of their own");
    let ids = crowd(&mut alone);
    for pair in ends(&ids).chunks(2) {
        alone.store.apply(pair).unwrap();
    }
    assert_eq!(rows(&alone, "SELECT count(*) FROM attempt"), 140);
    let (together, alone) = (told(&together), told(&alone));
    assert_eq!(together.len(), alone.len());
    together.iter().zip(&alone).for_each(|(together, alone)| assert_eq!(together, alone));
}

#[test]
fn a_crowd_that_comes_again_whole_or_in_part_changes_nothing() {
    let mut bed = Bed::new();
    let ids = crowd(&mut bed);
    let ops = ends(&ids);
    bed.store.apply(&ops[..130]).unwrap();
    bed.store.apply(&ops).unwrap();
    let before = told(&bed);
    bed.store.apply(&ops).unwrap();
    bed.store.apply(&ops[6..]).unwrap();
    ops.chunks(2).for_each(|pair| drop(bed.store.apply(pair).unwrap()));
    let twice: Vec<Op> = ops[..20].iter().chain(&ops[..20]).cloned().collect();
    bed.store.apply(&twice).unwrap();
    assert_eq!(told(&bed), before);
    let bed = bed.reopen_file();
    assert_eq!(told(&bed), before);
}

#[test]
fn what_stands_between_the_ends_keeps_none_of_them_from_company() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..80).map(|_| bed.task()).collect();
    let mut ops = ends(&ids);
    for place in [120, 60, 8, 0] {
        ops.insert(place, Op::Continue);
    }
    // One that failed in the middle of them.
    let failed = ids[50];
    let place = ops.iter().position(|op| matches!(op, Op::Started { id, .. } if *id == failed)).unwrap();
    ops.splice(place..place + 2, run(failed, 1, Next::Final(TaskState::Failed)));
    bed.store.apply(&ops).unwrap();
    assert_eq!((bed.store.counts().completed, bed.store.counts().failed), (79, 1));
    let alone = rows(&bed, "SELECT count(*) FROM attempt");
    assert!(alone < 8, "{alone} went the long way");
}

#[test]
fn whoever_waits_for_an_end_in_a_crowd_is_told_of_it() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..8).map(|_| bed.task()).collect();
    let waiting = bed.submit(None, &[(ids[7], DependencyKind::Succeeded)]);
    assert_eq!(bed.store.blocked(), 1);
    let applied = bed.store.apply(&ends(&ids)).unwrap();
    assert_eq!(applied.ready.iter().map(|ready| ready.id).collect::<Vec<_>>(), [waiting]);
}

#[test]
fn an_attempt_without_a_row_stays_the_first_when_a_person_asks_for_another() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..8).map(|_| bed.task()).collect();
    bed.store.apply(&ends(&ids)).unwrap();
    let first = bed.store.attempts(ids[3], 9).unwrap();
    bed.store.apply(&[Op::Retry { id: ids[3], at_us: T0 * 1_000 + 9_000 }]).unwrap();
    assert_eq!((bed.state(ids[3]), bed.get(ids[3]).attempts), (TaskState::Pending, 1));
    bed.store.apply(&ends(&ids)).unwrap();
    assert_eq!(bed.state(ids[3]), TaskState::Pending, "the old end is no end of the new attempt");
    bed.store.apply(&run(ids[3], 2, Next::Final(TaskState::Failed))).unwrap();
    let attempts = bed.store.attempts(ids[3], 9).unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(attempts[0], first[0]);
    assert_eq!(bed.store.attempts(ids[3], 1).unwrap()[0].number, 2, "the last one first");
    assert_eq!(bed.get(ids[3]).verdict, Some(Verdict::Exited { code: 3 }));
}

#[test]
fn the_events_of_a_crowd_can_be_read_from_anywhere_and_go_as_a_whole() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..8).map(|_| bed.task()).collect();
    bed.store.apply(&ends(&ids)).unwrap();
    let all = bed.store.events(0, 99).unwrap();
    assert_eq!((all.len(), bed.store.last_event()), (8 + 24, 32));
    assert!(all.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    for since in 8..=32_u64 {
        assert_eq!(
            bed.store.events(since, 2).unwrap(),
            all[since as usize..].iter().take(2).cloned().collect::<Vec<_>>()
        );
    }
    assert_eq!(bed.kinds()[8..11], ["task-assigned", "task-started", "task-completed"]);
    let end_us = all.iter().map(|event| event.at_us).max().unwrap();
    assert_eq!(bed.store.last_event_before(end_us + 1).unwrap(), 32);
    let start = all.iter().rfind(|event| event.kind == EventKind::TaskStarted).unwrap();
    assert_eq!(bed.store.last_event_before(start.at_us + 1).unwrap(), start.seq);
    assert_eq!(bed.store.last_event_before(T0 * 1_000 + 1).unwrap(), 10);
    // Of the row that the bound lies in, everything stays.
    let bound = |max| Retention { max_events: Some(max), ..Retention::default() };
    bed.store.prune(&bound(10), 1, 100).unwrap();
    assert_eq!(bed.store.events(0, 1).unwrap()[0].seq, 9);
    bed.task();
    bed.store.prune(&bound(1), 1, 100).unwrap();
    assert_eq!(bed.store.events(0, 1).unwrap()[0].seq, 33);
}

#[test]
fn forgetting_a_crowd_forgets_its_attempts() {
    let mut bed = Bed::new();
    let ids: Vec<TaskId> = (0..8).map(|_| bed.task()).collect();
    bed.store.apply(&ends(&ids)).unwrap();
    let none = Retention { max_count: Some(0), ..Retention::default() };
    assert_eq!(bed.store.prune(&none, 1, 100).unwrap().tasks, 8);
    assert!(ids.iter().all(|id| bed.store.attempts(*id, 9).unwrap().is_empty()));
}

#[test]
fn a_database_of_version_four_keeps_its_attempts_and_takes_crowds() {
    let dir = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(dir.path().join(FILE_NAME)).unwrap();
    for step in [
        include_str!("../schema.sql"),
        include_str!("../schema2.sql"),
        include_str!("../schema3.sql"),
        include_str!("../schema4.sql"),
    ] {
        old.execute_batch(step).unwrap();
    }
    old.execute_batch(&format!(
        "INSERT INTO meta VALUES ('tag', 77);
         INSERT INTO ledger VALUES (1, 1, 6, 3, {T0}, 4, 1, 0, 0, 0, 0);
         INSERT INTO task(seq, kind, state, priority, class, attempts, submitted_ms, finished_us, spec)
         VALUES (1, 0, 3, 2, 0, 1, {T0}, {T0}000, '{{\"command\":[\"true\"]}}');
         INSERT INTO task(seq, kind, state, priority, class, submitted_ms, spec)
         SELECT value, 0, 0, 2, 0, {T0}, '{{\"command\":[\"true\"]}}' FROM json_each('[2,3,4,5]');
         INSERT INTO attempt(key, worker, started_us, finished_us, isolation, guard, leaked, wall_us, user_us, system_us,
           max_rss_bytes, read_bytes, written_bytes, segment, offset, length, stdout_bytes, stderr_bytes, truncated, error)
         VALUES (8388609, x'0000000000000000000000000000004d', 3, 4, 0, 0, 0, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 'x');
         INSERT INTO event(seq, at_us, kind, task, task_ms, count, attempt) VALUES (1, 5, 3, 1, {T0}, 2, 1);
         PRAGMA application_id = 1633906532; PRAGMA user_version = 4"
    ))
    .unwrap();
    drop(old);
    let store = Store::open(dir.path()).unwrap();
    let mut bed = Bed { dir, store };
    let ids: Vec<TaskId> = (1..=5).map(|seq| TaskId::new(T0, 77, seq)).collect();
    bed.store.apply(&ends(&ids[1..])).unwrap();
    let attempt = |id| bed.store.attempts(id, 9).unwrap().pop().unwrap();
    assert_eq!((attempt(ids[0]).error.as_deref(), attempt(ids[0]).usage.wall_us), (Some("x"), 11));
    assert_eq!((attempt(ids[2]).number, attempt(ids[2]).usage.wall_us), (1, 4));
    assert_eq!(rows(&bed, "SELECT count(*) FROM attempt"), 1);
    let kinds = bed.kinds();
    assert_eq!((&kinds[..3], kinds.len()), (&["task-assigned", "task-started", "task-assigned"][..], 14));
}
