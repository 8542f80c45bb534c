//! What attempts have beyond what every attempt has: kept exactly, absent where it is, and in old databases too.

use acode_worker::task::{HeldLimit, Hold, UsageSource};

use super::*;

fn told(limit: &str, exceeded: bool) -> HeldLimit {
    let by = "memory.max".to_owned();
    HeldLimit { limit: limit.to_owned(), value: 512, hold: Hold::Enforced, by, exceeded }
}

fn full_usage() -> Usage {
    Usage {
        wall_us: 1,
        user_us: 2,
        system_us: 3,
        max_rss_bytes: 4,
        read_bytes: 5,
        written_bytes: 6,
        peak_memory_bytes: Some(7),
        throttled_us: Some(8),
        oom_kills: Some(9),
        peak_pids: Some(10),
        peak_disk_bytes: Some(11),
        source: UsageSource::Cgroup,
    }
}

fn ended(id: TaskId, usage: Usage, notes: AttemptNotes) -> [Op; 2] {
    let [started, finished] = run(id, 1, Next::Final(TaskState::Completed));
    let Op::Finished(end) = finished else { panic!("an attempt ends") };
    [started, Op::Finished(Box::new(AttemptEnd { usage, notes, ..*end }))]
}

#[test]
fn everything_that_is_known_comes_back() {
    let mut bed = Bed::new();
    let (rich, plain) = (bed.task(), bed.task());
    let notes = AttemptNotes {
        limits: vec![told("memoryMb", true), told("cpuPercent", false)],
        kept: Some("/srv/kept/1".to_owned()),
        sandbox: Some(r#"["network"]"#.to_owned()),
        artifacts: Some(acode_worker::task::Artifacts { files: 2, bytes: 7, ..Default::default() }),
    };
    bed.store.apply(&ended(rich, full_usage(), notes.clone())).unwrap();
    bed.store.apply(&ended(plain, Usage { wall_us: 5, ..Usage::default() }, AttemptNotes::default())).unwrap();
    let bed = bed.reopen_file();
    let attempt = |id| bed.store.attempts(id, 9).unwrap().pop().unwrap();
    assert_eq!((attempt(rich).usage, attempt(rich).notes), (full_usage(), notes));
    assert_eq!(attempt(plain).usage, Usage { wall_us: 5, ..Usage::default() });
    assert_eq!(attempt(plain).notes, AttemptNotes::default());
}

#[test]
fn a_limit_that_was_exceeded_is_an_event_before_the_end_and_only_once() {
    let mut bed = Bed::new();
    let id = bed.task();
    let notes = AttemptNotes { limits: vec![told("memoryMb", true), told("pids", false)], ..AttemptNotes::default() };
    let ops = ended(id, Usage::default(), notes);
    bed.store.apply(&ops).unwrap();
    bed.store.apply(&ops).unwrap();
    assert_eq!(bed.kinds(), ["task-submitted", "task-started", "limit-exceeded", "task-completed"]);
    let events = bed.store.events(0, 100).unwrap();
    let told = events.iter().find(|event| event.kind == EventKind::LimitExceeded).unwrap();
    let data: serde_json::Value = serde_json::from_str(told.data.as_deref().unwrap()).unwrap();
    assert_eq!((&data["limit"], &data["value"]), (&"memoryMb".into(), &512.into()));
    assert_eq!((told.task, told.attempt, told.worker), (Some(id), Some(1), Some(worker())));
}

#[test]
fn a_database_of_version_two_keeps_its_attempts_and_takes_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(dir.path().join(FILE_NAME)).unwrap();
    old.execute_batch(include_str!("../schema.sql")).unwrap();
    old.execute_batch(include_str!("../schema2.sql")).unwrap();
    old.execute_batch(&format!(
        "INSERT INTO meta VALUES ('tag', 77);
         INSERT INTO ledger VALUES (1, 1, 3, 1, {T0}, 1, 1, 0, 0, 0, 0);
         INSERT INTO task(seq, kind, state, priority, class, attempts, submitted_ms, finished_us, spec)
         VALUES (1, 0, 3, 2, 0, 1, {T0}, {T0}000, '{{\"command\":[\"true\"]}}'),
                (2, 0, 0, 2, 0, 0, {T0}, NULL, '{{\"command\":[\"true\"]}}');
         INSERT INTO attempt VALUES (8388609, x'0000000000000000000000000000004d', 3, 4, NULL, 0, 0, 0, 11, 12, 13, 14,
           15, 16, 0, 0, 0, 0, 0, 0, 'said');
         PRAGMA application_id = 1633906532; PRAGMA user_version = 2"
    ))
    .unwrap();
    drop(old);
    let store = Store::open(dir.path()).unwrap();
    let mut bed = Bed { dir, store };
    let id = |seq| TaskId::new(T0, 77, seq);
    let before = bed.store.attempts(id(1), 9).unwrap().pop().unwrap();
    let usage = Usage {
        wall_us: 11,
        user_us: 12,
        system_us: 13,
        max_rss_bytes: 14,
        read_bytes: 15,
        written_bytes: 16,
        ..Usage::default()
    };
    assert_eq!((before.usage, before.notes, before.error.as_deref()), (usage, AttemptNotes::default(), Some("said")));
    bed.store.apply(&ended(id(2), full_usage(), AttemptNotes::default())).unwrap();
    assert_eq!(bed.store.attempts(id(2), 9).unwrap().pop().unwrap().usage, full_usage());
}
