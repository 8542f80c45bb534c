//! The life of single tasks and workers, and the harmlessness of repetition.

use super::*;

#[test]
fn a_task_goes_from_pending_to_completed_with_its_attempt_and_events() {
    let mut bed = Bed::new();
    let id = bed.task();
    assert_eq!((bed.state(id), bed.ready_ids()), (TaskState::Pending, vec![id.seq()]));
    let applied = bed.finish(id, TaskState::Completed);
    assert_eq!(applied.ended, [(id, TaskState::Completed)]);
    let record = bed.get(id);
    assert_eq!((record.state, record.attempts, record.running), (TaskState::Completed, 1, false));
    assert_eq!(record.verdict, Some(Verdict::Exited { code: 0 }));
    assert_eq!(record.result.as_deref(), Some("{\"n\":1}"));
    let attempts = bed.store.attempts(id, 10).unwrap();
    assert_eq!((attempts[0].number, attempts[0].worker, attempts[0].usage.wall_us), (1, worker(), 5));
    assert_eq!(bed.store.segments_in_use().unwrap(), [(worker(), 4)]);
    assert_eq!(bed.kinds(), ["task-submitted", "task-started", "task-completed"]);
    assert_eq!(bed.store.counts(), Counts { completed: 1, ..Counts::default() });
}

#[test]
fn a_retry_waits_for_its_time_and_counts_as_a_failure_but_a_requeue_does_not() {
    let mut bed = Bed::new();
    let id = bed.task();
    bed.store.apply(&run(id, 1, Next::RetryAt(5_000))).unwrap();
    assert_eq!((bed.ready_ids(), bed.store.next_delayed().unwrap()), (vec![], Some(5_000)));
    assert_eq!(bed.store.apply(&[Op::Wake { now_us: 4_999, limit: 10 }]).unwrap().ready, []);
    let ready = bed.store.apply(&[Op::Wake { now_us: 5_000, limit: 10 }]).unwrap().ready;
    assert_eq!(ready, [NowReady { id, priority: LANE.priority, class: LANE.class, group: 0 }]);
    bed.store.apply(&run(id, 2, Next::Requeue)).unwrap();
    let applied = bed.store.apply(&run(id, 3, Next::CrashedAt { at_us: 0, oom: false })).unwrap();
    assert_eq!(applied.ready.len(), 1);
    let record = bed.get(id);
    assert_eq!((record.attempts, record.failures, record.losses, record.ooms), (3, 1, 1, 0));
    assert_eq!(bed.store.attempts(id, 2).unwrap().iter().map(|a| a.number).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn attempts_out_of_memory_are_counted_apart_wait_for_their_time_and_are_forgotten_by_a_retry() {
    let mut bed = Bed::new();
    let id = bed.task();
    bed.store.apply(&run(id, 1, Next::CrashedAt { at_us: 7_000, oom: true })).unwrap();
    assert_eq!((bed.ready_ids(), bed.store.next_delayed().unwrap()), (vec![], Some(7_000)));
    bed.store.apply(&[Op::Wake { now_us: 7_000, limit: 10 }]).unwrap();
    assert_eq!(bed.store.ready(LANE, 0, 10).unwrap()[0].ooms, 1);
    let mut last = run(id, 2, Next::Final(TaskState::Failed));
    if let Some(Op::Finished(end)) = last.last_mut() {
        end.verdict = acode_worker::task::Verdict::OutOfMemory;
    }
    bed.store.apply(&last).unwrap();
    let record = bed.get(id);
    assert_eq!((record.failures, record.losses, record.ooms), (0, 0, 2), "a crash is no failure");
    bed.store.apply(&[Op::Retry { id, at_us: 9_000 }]).unwrap();
    assert_eq!(bed.get(id).ooms, 0);
}

#[test]
fn what_was_started_and_never_ended_is_found_by_the_next_owner() {
    let mut bed = Bed::new();
    let (a, b) = (bed.task(), bed.task());
    for id in [a, b] {
        bed.store.apply(&run(id, 1, Next::Requeue)[..1]).unwrap();
    }
    bed.store.apply(&run(a, 1, Next::Final(TaskState::Failed))[1..]).unwrap();
    let bed = bed.reopen_file();
    let left = bed.store.interrupted().unwrap();
    assert_eq!(left.iter().map(|r| (r.id, r.attempts)).collect::<Vec<_>>(), [(b, 1)]);
    assert_eq!(bed.ready_ids(), [b.seq()]);
}

#[test]
fn every_operation_applied_again_changes_nothing() {
    let mut bed = Bed::new();
    let new = bed.new_task(None, &[]);
    let array =
        bed.new_task(Some(Array::Items(vec!["a".into(), "b".into(), "c".into()])), &[(new.id, DependencyKind::Ended)]);
    let (id, header) = (new.id, array.id);
    let record = WorkerRecord {
        id: worker(),
        slot: 1,
        pid: 2,
        start_ticks: 3,
        boot_id: "b".into(),
        mode: "process".into(),
        started_us: 4,
        stopped_us: None,
        completed: 0,
        failed: 0,
    };
    let [started, finished] = run(id, 1, Next::Final(TaskState::Failed));
    let [member_started, member_again] = run(member(header, 0), 1, Next::RetryAt(50));
    let ops = [
        Op::WorkerStarted(Box::new(record)),
        Op::PoolEvent { kind: EventKind::PoolStarted, at_us: 5, data: None },
        Op::Submit(Arc::new(new)),
        Op::Submit(Arc::new(array)),
        started,
        Op::Progress { id, percent: Some(50.0), message: Some("half".into()), at_us: 6 },
        finished,
        Op::Expand { header, to: 2 },
        member_started,
        member_again,
        Op::Wake { now_us: 60, limit: 9 },
        cancel(member(header, 1)),
        cancel(member(header, 2)),
        Op::WorkerEvent { kind: EventKind::WorkerHeartbeat, worker: worker(), at_us: 8, data: None },
        Op::WorkerEvent { kind: EventKind::WorkerHeartbeat, worker: WorkerId::from_u128(7), at_us: 8, data: None },
        Op::WorkerStopped { id: worker(), at_us: 9, completed: 1, failed: 2, failure: Some("killed".into()) },
    ];
    for op in &ops {
        bed.store.apply(std::slice::from_ref(op)).unwrap();
        let before = (bed.store.counts(), bed.kinds(), bed.store.get(id).unwrap());
        let again = bed.store.apply(std::slice::from_ref(op)).unwrap();
        assert_eq!((again.ended, again.ready), (vec![], vec![]), "{op:?}");
        assert_eq!((bed.store.counts(), bed.kinds(), bed.store.get(id).unwrap()), before, "{op:?}");
    }
    // Progress belongs to what runs, so the replay of the whole batch leaves it alone as well.
    let before = (bed.store.counts(), bed.kinds());
    bed.store.apply(&ops).unwrap();
    assert_eq!((bed.store.counts(), bed.kinds()), before);
    let beats = bed.kinds().iter().filter(|kind| **kind == "worker-heartbeat").count();
    assert_eq!(beats, 2, "two workers at the same moment are two events");
    assert_eq!(bed.store.live_workers().unwrap(), []);
}

#[test]
fn a_person_may_retry_what_has_ended_and_attempts_keep_counting() {
    let mut bed = Bed::new();
    let id = bed.task();
    bed.finish(id, TaskState::Failed);
    let retry = Op::Retry { id, at_us: 99 };
    assert_eq!(bed.store.apply(std::slice::from_ref(&retry)).unwrap().ready.len(), 1);
    assert_eq!(bed.store.apply(&[retry]).unwrap().ready, []);
    let record = bed.get(id);
    assert_eq!((record.state, record.attempts, record.failures), (TaskState::Pending, 1, 0));
    bed.finish(id, TaskState::Completed);
    assert_eq!((bed.state(id), bed.get(id).attempts), (TaskState::Completed, 2));
}

#[test]
fn cancelling_spares_what_has_ended_and_names_the_reason() {
    let mut bed = Bed::new();
    let (a, b) = (bed.task(), bed.task());
    bed.finish(a, TaskState::Completed);
    let applied = bed.store.apply(&[cancel(a), cancel(b)]).unwrap();
    assert_eq!(applied.ended, [(b, TaskState::Cancelled)]);
    assert_eq!(bed.get(b).reason.as_deref(), Some("no longer wanted"));
    assert_eq!(bed.get(b).verdict, None);
}

#[test]
fn an_end_in_a_state_that_is_not_final_is_a_defect_and_writes_nothing() {
    let mut bed = Bed::new();
    let id = bed.task();
    let error = bed.store.apply(&run(id, 1, Next::Final(TaskState::Running))).unwrap_err();
    assert!(matches!(error, StoreError::Bug { .. }), "{error}");
    assert_eq!(bed.get(id).attempts, 0);
    bed.finish(id, TaskState::Completed);
}

#[test]
fn workers_that_never_deregistered_are_listed() {
    let mut bed = Bed::new();
    let record = |n: u32| WorkerRecord {
        id: WorkerId::from_u128(n.into()),
        slot: n,
        pid: 100 + n,
        start_ticks: 7,
        boot_id: "boot".into(),
        mode: "process".into(),
        started_us: 1,
        stopped_us: None,
        completed: 0,
        failed: 0,
    };
    let ops: Vec<Op> = (0..3).map(|n| Op::WorkerStarted(Box::new(record(n)))).collect();
    bed.store.apply(&ops).unwrap();
    let stop = Op::WorkerStopped { id: WorkerId::from_u128(1), at_us: 9, completed: 1, failed: 0, failure: None };
    bed.store.apply(&[stop]).unwrap();
    let bed = bed.reopen_file();
    assert_eq!(bed.store.live_workers().unwrap(), [record(0), record(2)]);
}

#[test]
fn a_pause_by_hand_outlives_the_owner_and_is_told_once() {
    let mut bed = Bed::new();
    let pause = |reason: &str| Some(Pause { reason: Some(reason.to_owned()), since_us: 7 });
    let begin = Op::Pause { pause: pause("full moon"), at_us: 7 };
    bed.store.apply(std::slice::from_ref(&begin)).unwrap();
    bed.store.apply(&[begin]).unwrap();
    bed = bed.reopen_file();
    assert_eq!(bed.store.pause().unwrap(), pause("full moon"));
    bed.store.apply(&[Op::Pause { pause: pause("new moon"), at_us: 8 }]).unwrap();
    assert_eq!(bed.store.pause().unwrap(), pause("new moon"));
    for at_us in [9, 10] {
        bed.store.apply(&[Op::Pause { pause: None, at_us }]).unwrap();
    }
    assert_eq!(bed.store.pause().unwrap(), None);
    assert_eq!(bed.kinds(), ["pool-paused", "pool-paused", "pool-resumed"]);
}
