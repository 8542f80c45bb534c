//! The output journal by its public face: what a writer wrote is what readers and followers see, whatever tears,
//! rolls over, fills up or is removed in between.

use std::path::Path;
use std::time::{Duration, Instant};

use acode_worker::output::{
    DATA_MAX, End, Filter, Follower, HEADER_LEN, Kind, OutputError, Reader, SEGMENT_MAX_DEFAULT, Since, Stream, Writer,
    remove_unused, segment_path, segments,
};
use acode_worker::task::{OutputCaps, OutputRef, TaskId, WorkerId};

const DEADLINE: Duration = Duration::from_secs(20);

fn task(seq: u64) -> TaskId {
    TaskId::new(1, 1, seq)
}

fn worker() -> WorkerId {
    WorkerId::generate(1).unwrap()
}

fn caps(per_attempt: u64) -> OutputCaps {
    OutputCaps { per_attempt }
}

/// A frame that owns its data.
#[derive(Debug, Clone, PartialEq)]
struct Owned(Kind, TaskId, u32, i64, Vec<u8>);

fn read_all(reader: &mut Reader) -> Vec<Owned> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(Owned(frame.kind, frame.task, frame.attempt, frame.time_us, frame.data.to_vec()));
    }
    frames
}

fn read(dir: &Path, worker: WorkerId, at: &OutputRef) -> Vec<Owned> {
    read_all(&mut Reader::new(dir, worker, at))
}

fn text(frames: &[Owned], kind: Kind) -> Vec<u8> {
    frames.iter().filter(|f| f.0 == kind).flat_map(|f| f.4.clone()).collect()
}

/// One attempt that writes `lines` to its standard output, a microsecond apart from `time_us` on.
fn run(writer: &mut Writer, seq: u64, lines: &[&[u8]], mut time_us: i64) -> OutputRef {
    writer.begin(task(seq), 1, OutputCaps::default());
    for line in lines {
        writer.append(Stream::Stdout, line, time_us);
        time_us += 1;
    }
    writer.finish(time_us)
}

fn follow(follower: &mut Follower) -> Vec<Owned> {
    let mut frames = Vec::new();
    while follower.poll(|f| frames.push(Owned(f.kind, f.task, f.attempt, f.time_us, f.data.to_vec()))).unwrap() > 0 {}
    frames
}

#[test]
fn streams_are_told_apart_and_attempts_do_not_mix() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, SEGMENT_MAX_DEFAULT);
    let before = run(&mut writer, 1, &[b"before"], 1);
    writer.begin(task(2), 3, OutputCaps::default());
    writer.append(Stream::Stdout, b"out", 10);
    writer.append(Stream::Stderr, b"err", 11);
    writer.append(Stream::Stdout, b"\n", 12);
    let out = writer.finish(13);
    let after = run(&mut writer, 3, &[b"after"], 20);

    let end = End { stdout_seen: 4, stderr_seen: 3 }.to_bytes().to_vec();
    let expected = [
        Owned(Kind::Stdout, task(2), 3, 10, b"out".to_vec()),
        Owned(Kind::Stderr, task(2), 3, 11, b"err".to_vec()),
        Owned(Kind::Stdout, task(2), 3, 12, b"\n".to_vec()),
        Owned(Kind::End, task(2), 3, 13, end),
    ];
    assert_eq!(read(dir.path(), worker, &out), expected);
    assert_eq!((out.stdout_bytes, out.stderr_bytes, out.truncated), (4, 3, false));
    assert_eq!(text(&read(dir.path(), worker, &before), Kind::Stdout), b"before");
    assert_eq!(text(&read(dir.path(), worker, &after), Kind::Stdout), b"after");
    assert!(read(dir.path(), worker, &OutputRef::default()).is_empty());

    let mut found = Reader::scan(dir.path(), worker, task(2), 3).unwrap().unwrap();
    assert_eq!(read_all(&mut found), expected);
    assert!(found.ended());
    assert!(Reader::scan(dir.path(), worker, task(2), 4).unwrap().is_none());
}

#[test]
fn the_cap_leaves_one_mark_and_counts_the_rest() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, SEGMENT_MAX_DEFAULT);
    writer.begin(task(1), 1, caps(10));
    writer.append(Stream::Stdout, b"1234567", 1);
    writer.append(Stream::Stderr, b"abcdefg", 2);
    let size = || std::fs::metadata(segment_path(dir.path(), worker, 0)).unwrap().len();
    let at_the_cap = size();
    for _ in 0..1000 {
        writer.append(Stream::Stdout, &[b'x'; 1000], 3);
    }
    assert_eq!(size(), at_the_cap, "nothing is written behind the cap");
    let out = writer.finish(4);
    assert_eq!((out.stdout_bytes, out.stderr_bytes, out.truncated), (7, 3, true));
    let frames = read(dir.path(), worker, &out);
    assert_eq!(
        frames.iter().map(|f| f.0).collect::<Vec<_>>(),
        [Kind::Stdout, Kind::Stderr, Kind::Truncated, Kind::End]
    );
    assert_eq!(text(&frames, Kind::Stderr), b"abc");
    assert_eq!(frames[3].4, End { stdout_seen: 1_000_007, stderr_seen: 7 }.to_bytes());
}

#[test]
fn output_of_exactly_the_cap_is_whole() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, SEGMENT_MAX_DEFAULT);
    writer.begin(task(1), 1, caps(4));
    writer.append(Stream::Stdout, b"1234", 1);
    assert!(!writer.finish(2).truncated);
    writer.begin(task(2), 1, caps(0));
    writer.append(Stream::Stdout, b"1", 3);
    let out = writer.finish(4);
    assert!(out.truncated);
    assert_eq!(read(dir.path(), worker, &out)[0].0, Kind::Truncated);
}

#[test]
fn an_attempt_spans_segments_and_large_chunks_are_split() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, 100_000);
    run(&mut writer, 1, &[b"first"], 1);
    let data: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    let out = run(&mut writer, 2, &[&data, b"tail"], 2);
    run(&mut writer, 3, &[b"last"], 3);
    assert!(segments(dir.path()).unwrap().len() > 5);

    let expected = [&data[..], b"tail"].concat();
    let frames = read(dir.path(), worker, &out);
    assert!(frames.iter().all(|f| f.4.len() <= DATA_MAX && f.1 == task(2)));
    assert_eq!(text(&frames, Kind::Stdout), expected);
    let mut found = Reader::scan(dir.path(), worker, task(2), 1).unwrap().unwrap();
    assert_eq!(read_all(&mut found), frames);

    remove_unused(dir.path(), |_, segment| segment > 0).unwrap();
    let error = Reader::new(dir.path(), worker, &out).next_frame().map(|_| ()).unwrap_err();
    assert!(matches!(error, OutputError::Gone { .. }), "{error}");
}

#[test]
fn a_tail_torn_at_any_byte_is_skipped_by_readers_and_followers() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, SEGMENT_MAX_DEFAULT);
    writer.begin(task(1), 1, OutputCaps::default());
    writer.append(Stream::Stdout, b"whole", 1);
    writer.append(Stream::Stdout, b"torn tail", 2);
    let path = segment_path(dir.path(), worker, 0);
    let bytes = std::fs::read(&path).unwrap();
    let last = HEADER_LEN + 5;
    assert_eq!(bytes.len(), last + HEADER_LEN + 9);
    for length in last..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut reader = Reader::scan(dir.path(), worker, task(1), 1).unwrap().unwrap();
        assert_eq!(text(&read_all(&mut reader), Kind::Stdout), b"whole", "cut at {length}");
        assert!(!reader.ended());
        let mut follower = Follower::new(dir.path(), Since::Beginning, None).unwrap();
        assert_eq!(text(&follow(&mut follower), Kind::Stdout), b"whole", "cut at {length}");
        // The rest arrives: it was only a write in progress.
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &bytes[length..]).unwrap();
        assert_eq!(text(&read_all(&mut reader), Kind::Stdout), b"torn tail");
        assert_eq!(text(&follow(&mut follower), Kind::Stdout), b"torn tail");
    }
}

#[test]
fn a_reader_goes_on_behind_a_torn_segment() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, 1);
    writer.begin(task(1), 1, OutputCaps::default());
    writer.append(Stream::Stdout, b"one ", 1);
    writer.append(Stream::Stdout, b"two", 2);
    let out = writer.finish(3);
    // What a disk that fills up in the middle of a write leaves behind.
    let mut file = std::fs::File::options().append(true).open(segment_path(dir.path(), worker, 0)).unwrap();
    std::io::Write::write_all(&mut file, b"ACJ1\x01\0\0\0half a header").unwrap();
    let frames = read(dir.path(), worker, &out);
    assert_eq!(text(&frames, Kind::Stdout), b"one two");
    assert_eq!(frames.last().unwrap().0, Kind::End);
    let mut follower = Follower::new(dir.path(), Since::Beginning, None).unwrap();
    assert_eq!(follow(&mut follower), frames);
}

/// A size limit of the process stands in for a disk that fills up in the middle of a frame. The limit is the whole
/// process's, so the test does it in a process of its own: itself, started again.
#[test]
fn a_write_torn_in_the_middle_rolls_over_and_loses_only_its_chunk() {
    const CHILD: &str = "ACODE_TEST_TORN_WRITE";
    if std::env::var_os(CHILD).is_none() {
        let name = "a_write_torn_in_the_middle_rolls_over_and_loses_only_its_chunk";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    // With SIGXFSZ blocked the kernel answers EFBIG and the signal stays pending.
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(nix::sys::signal::Signal::SIGXFSZ);
    blocked.thread_block().unwrap();
    let limit = |bytes| {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, bytes, libc::RLIM_INFINITY).unwrap();
    };
    let mut writer = Writer::new(dir.path(), worker, SEGMENT_MAX_DEFAULT);
    writer.begin(task(1), 1, OutputCaps::default());
    writer.append(Stream::Stdout, b"one ", 1);
    limit(200);
    writer.append(Stream::Stdout, &[b'x'; 500], 2);
    assert_eq!(writer.take_error().unwrap().raw_os_error(), Some(libc::EFBIG));
    limit(libc::RLIM_INFINITY);
    writer.append(Stream::Stdout, b"two", 3);
    let out = writer.finish(4);
    assert_eq!(segments(dir.path()).unwrap().len(), 2);
    assert_eq!((out.stdout_bytes, out.truncated), (7, true));
    let frames = read(dir.path(), worker, &out);
    let kinds: Vec<_> = frames.iter().map(|f| f.0).collect();
    assert_eq!(kinds, [Kind::Stdout, Kind::Truncated, Kind::Stdout, Kind::End]);
    assert_eq!(text(&frames, Kind::Stdout), b"one two");
}

#[test]
fn a_follower_neither_misses_nor_repeats_what_four_writers_write_meanwhile() {
    const TASKS: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let mut follower = Follower::new(dir.path(), Since::End, None).unwrap();
    let path = dir.path().to_owned();
    let writers: Vec<_> = (0..4_u64)
        .map(|number| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut writer = Writer::new(path, worker(), 20_000);
                for n in 0..TASKS {
                    let lines = [format!("{number} {n} a\n"), "x".repeat(n as usize * 7) + "\n"];
                    run(&mut writer, number * TASKS + n, &[lines[0].as_bytes(), lines[1].as_bytes()], n as i64);
                }
            })
        })
        .collect();
    let (mut frames, started) = (Vec::new(), Instant::now());
    while frames.len() < 4 * TASKS as usize * 3 {
        assert!(started.elapsed() < DEADLINE, "only {} frames came", frames.len());
        frames.extend(follow(&mut follower));
        follower.wait(Some(Duration::from_millis(50))).unwrap();
    }
    writers.into_iter().for_each(|w| w.join().unwrap());
    assert!(follow(&mut follower).is_empty(), "something was repeated");
    for seq in 0..4 * TASKS {
        let own: Vec<_> = frames.iter().filter(|f| f.1 == task(seq)).cloned().collect();
        let n = seq % TASKS;
        let expected = format!("{} {n} a\n{}\n", seq / TASKS, "x".repeat(n as usize * 7));
        assert_eq!(String::from_utf8(text(&own, Kind::Stdout)).unwrap(), expected);
        assert_eq!(own.iter().filter(|f| f.0 == Kind::End).count(), 1);
    }
}

#[test]
fn history_comes_in_order_of_time_from_more_segments_than_may_be_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for n in 0..700_i64 {
        let mut writer = Writer::new(dir.path(), worker(), SEGMENT_MAX_DEFAULT);
        run(&mut writer, n as u64, &[b"a", b"b"], n * 7919 % 700 * 10);
        expected.extend((0..3).map(|i| n * 7919 % 700 * 10 + i));
    }
    expected.sort_unstable();
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut follower = Follower::new(dir.path(), Since::Beginning, None).unwrap();
    let frames = follow(&mut follower);
    assert!(open_files() < 500, "{} files are open", open_files());
    assert_eq!(frames.iter().map(|f| f.3).collect::<Vec<_>>(), expected);

    let mut follower = Follower::new(dir.path(), Since::Time(6000), None).unwrap();
    expected.retain(|&time| time >= 6000);
    assert_eq!(follow(&mut follower).iter().map(|f| f.3).collect::<Vec<_>>(), expected);
    assert!(follow(&mut Follower::new(dir.path(), Since::End, None).unwrap()).is_empty());

    let filter = Filter { task: task(42), attempt: Some(1) };
    let mut follower = Follower::new(dir.path(), Since::Beginning, Some(filter)).unwrap();
    assert_eq!(text(&follow(&mut follower), Kind::Stdout), b"ab");
    assert!(!follower.pending());
}

#[test]
fn a_follower_that_starts_in_the_middle_of_a_frame_finds_the_next_one() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, SEGMENT_MAX_DEFAULT);
    writer.begin(task(1), 1, OutputCaps::default());
    writer.append(Stream::Stdout, b"old", 1);
    writer.append(Stream::Stdout, b"half seen", 2);
    writer.append(Stream::Stdout, b"new", 3);
    let path = segment_path(dir.path(), worker, 0);
    let bytes = std::fs::read(&path).unwrap();
    let half = HEADER_LEN + 3;
    for length in half..half + HEADER_LEN + 9 {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut follower = Follower::new(dir.path(), Since::End, None).unwrap();
        assert!(follow(&mut follower).is_empty());
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &bytes[length..]).unwrap();
        let expected: &[u8] = if length == half { b"half seennew" } else { b"new" };
        assert_eq!(text(&follow(&mut follower), Kind::Stdout), expected, "began at {length}");
    }
}

#[test]
fn a_follower_outlives_retention_and_gives_the_space_back() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut writer = Writer::new(dir.path(), worker, 1);
    let mut follower = Follower::new(dir.path(), Since::Beginning, None).unwrap();
    run(&mut writer, 1, &[b"one"], 1);
    assert_eq!(text(&follow(&mut follower), Kind::Stdout), b"one");
    let freed = remove_unused(dir.path(), |_, _| false).unwrap();
    assert_eq!(freed, 2 * HEADER_LEN as u64 + 3 + 16);
    assert!(follow(&mut follower).is_empty());
    let held = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let held: Vec<_> = held.filter(|path| path.starts_with(dir.path())).collect();
    assert_eq!(held.len(), 1, "only the writer has its segment open: {held:?}");
    run(&mut writer, 2, &[b"two"], 2);
    assert_eq!(text(&follow(&mut follower), Kind::Stdout), b"two");
}

#[test]
fn an_idle_follower_sleeps_and_wakes_for_output() {
    let (dir, worker) = (tempfile::tempdir().unwrap(), worker());
    let mut follower = Follower::new(dir.path(), Since::End, None).unwrap();
    assert!(!follower.wait(Some(Duration::ZERO)).unwrap());
    let path = dir.path().to_owned();
    let thread = std::thread::spawn(move || run(&mut Writer::new(path, worker, 1 << 20), 1, &[b"x"], 1));
    assert!(follower.wait(Some(DEADLINE)).unwrap());
    thread.join().unwrap();
    assert_eq!(follow(&mut follower).len(), 2);
}
