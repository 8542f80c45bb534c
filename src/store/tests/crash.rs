//! Crashes, full disks and files that are not ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_any_moment() {
    let mut bed = Bed::new();
    let copy = tempfile::tempdir().unwrap();
    for round in 1..=20_u64 {
        let news: Vec<Op> = (0..100).map(|_| Op::Submit(Arc::new(bed.new_task(None, &[])))).collect();
        bed.store.apply(&news).unwrap();
        // The files as a crash would leave them: the log not checkpointed, its index lost.
        for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")] {
            fs::copy(bed.dir.path().join(&name), copy.path().join(&name)).unwrap();
        }
        let after = Store::open(copy.path()).unwrap();
        assert_eq!(after.counts().pending, round * 100);
        assert_eq!(after.next_seq(), bed.store.next_seq());
        assert_eq!(after.events(0, 10_000).unwrap().len() as u64, round * 100);
    }
}

#[test]
fn a_torn_log_loses_only_what_was_not_committed() {
    let mut bed = Bed::new();
    bed.task();
    let wal = bed.dir.path().join(format!("{FILE_NAME}-wal"));
    let committed = fs::metadata(&wal).unwrap().len();
    bed.task();
    let copy = tempfile::tempdir().unwrap();
    fs::copy(bed.store.path(), copy.path().join(FILE_NAME)).unwrap();
    let torn = &fs::read(&wal).unwrap()[..committed as usize + 5_000];
    fs::write(copy.path().join(format!("{FILE_NAME}-wal")), torn).unwrap();
    let after = Store::open(copy.path()).unwrap();
    assert_eq!((after.counts().pending, after.last_event()), (1, 1));
}

#[test]
fn the_file_is_for_its_owner_only_and_a_second_owner_is_refused() {
    let bed = Bed::new();
    for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")] {
        let mode = fs::metadata(bed.dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!bed.dir.path().join(format!("{FILE_NAME}-shm")).exists());
    let error = Store::open(bed.dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
}

#[test]
fn a_database_of_a_newer_acode_is_refused_and_left_alone() {
    let bed = Bed::new();
    let path = bed.store.path().to_owned();
    let Bed { dir, store } = &bed;
    store.read(|conn| conn.execute_batch("PRAGMA user_version = 99")).unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&path, copy.path().join(FILE_NAME)).unwrap();
    let wal = format!("{FILE_NAME}-wal");
    fs::copy(dir.path().join(&wal), copy.path().join(&wal)).unwrap();
    match Store::open(copy.path()) {
        Err(StoreError::NewerSchema { found: 99, known, .. }) => assert_eq!(known, migrate::CURRENT),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_queue_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fs::write(&path, vec![b'x'; 8_192]).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NotADatabase { .. })));
    fs::remove_file(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Foreign { .. })));
    assert!(matches!(Store::open(&dir.path().join("missing")), Err(StoreError::Open { .. })));
}

#[test]
fn a_full_disk_stops_writing_and_after_healing_the_same_batch_is_applied_once() {
    let mut bed = Bed::new();
    let first = bed.task();
    let pages: i64 = bed.store.read(|c| c.query_row("PRAGMA page_count", [], |r| r.get(0))).unwrap();
    bed.store.read(|c| c.query_row(&format!("PRAGMA max_page_count={}", pages + 4), [], |_| Ok(()))).unwrap();
    let mut news: Vec<Op> = (0..5_000).map(|_| Op::Submit(Arc::new(bed.new_task(None, &[])))).collect();
    news.extend(run(first, 1, Next::Final(TaskState::Completed)));
    let error = bed.store.apply(&news).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(error.needs_reopen());
    assert_eq!(bed.store.counts().pending, 1);
    assert!(matches!(bed.store.apply(&news), Err(StoreError::Broken { .. })));
    assert_eq!(bed.state(first), TaskState::Pending, "reading goes on");
    bed.store.reopen().unwrap();
    let applied = bed.store.apply(&news).unwrap();
    assert_eq!(applied.ended, [(first, TaskState::Completed)]);
    assert_eq!(bed.store.counts(), Counts { pending: 5_000, completed: 1, ..Counts::default() });
}

#[test]
fn a_batch_that_was_on_disk_after_all_is_answered_and_not_applied_twice() {
    let mut bed = Bed::new();
    let id = bed.task();
    // As if the flush had failed after the pages were written: the commit is there, its fate was unknown.
    let ops = run(id, 1, Next::Final(TaskState::Failed));
    let retried = [&[Op::Retry { id, at_us: 9 }], &ops[..]].concat();
    let applied = bed.store.apply(&retried).unwrap();
    let doubt =
        InDoubt { batch: bed.store.ledger.batch, print: apply::fingerprint(&retried), applied: applied.clone() };
    bed.store.in_doubt = Some(doubt);
    bed.store.reopen().unwrap();
    let events = bed.kinds();
    assert_eq!(bed.store.apply(&retried).unwrap(), applied);
    assert_eq!((bed.state(id), bed.kinds()), (TaskState::Failed, events));
}

#[test]
fn a_batch_that_was_on_disk_after_all_is_answered_although_only_a_part_of_it_comes_again() {
    let mut bed = Bed::new();
    let (first, second) = (bed.task(), bed.task());
    let doubt = |bed: &mut Bed, ops: &[Op]| {
        let applied = bed.store.apply(ops).unwrap();
        let (batch, print) = (bed.store.ledger.batch, apply::fingerprint(ops));
        bed.store.in_doubt = Some(InDoubt { batch, print, applied });
        bed.store.reopen().unwrap();
    };
    // With the end of an attempt a client's wish was committed; the client got an error, and its wish is dropped.
    let end = run(first, 1, Next::Final(TaskState::Completed));
    let wish = Op::Submit(Arc::new(bed.new_task(None, &[])));
    doubt(&mut bed, &[&end[..], &[wish]].concat());
    let applied = bed.store.apply(&end).unwrap();
    assert_eq!(applied.ended, [(first, TaskState::Completed)], "somebody waits for that");
    assert_eq!(bed.store.apply(&end).unwrap().ended, [], "it is told once");
    // The same disk fails the second time, too.
    let both = [run(second, 1, Next::RetryAt(0)), run(second, 2, Next::Final(TaskState::Failed))].concat();
    doubt(&mut bed, &both);
    doubt(&mut bed, &end);
    let applied = bed.store.apply(&run(second, 2, Next::Requeue)).unwrap();
    assert_eq!(applied.ended, [(second, TaskState::Failed)]);
}

#[test]
fn a_really_full_file_system_heals() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(mount.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let dir = mount.path().join("state");
    fs::create_dir(&dir).unwrap();
    let mut store = Store::open(&dir).unwrap();
    let ballast = mount.path().join("ballast");
    let free = nix::sys::statvfs::statvfs(mount.path()).unwrap();
    fs::write(&ballast, vec![0; (free.blocks_available() * free.fragment_size()) as usize - 64 * 1024]).unwrap();
    let batch = |store: &mut Store| -> Vec<Op> {
        let spec_json = format!("{{\"command\":[\"{}\"]}}", "x".repeat(10_000));
        let make = |store: &mut Store| {
            let new = NewTask::new(store.allocate(T0, 1), T0, Submission::default(), &[]).unwrap();
            Op::Submit(Arc::new(NewTask { spec_json: spec_json.clone(), ..new }))
        };
        (0..20).map(|_| make(store)).collect()
    };
    let ops = batch(&mut store);
    let error = store.apply(&ops).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. } | StoreError::Io { .. }), "{error:?}");
    fs::remove_file(&ballast).unwrap();
    store.reopen().unwrap();
    store.apply(&ops).unwrap();
    assert_eq!(store.counts().pending, 20);
    drop(store);
    assert_eq!(Store::open(&dir).unwrap().counts().pending, 20);
    assert!(Command::new("umount").arg(mount.path()).status().unwrap().success());
}
