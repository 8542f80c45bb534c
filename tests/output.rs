//! What tasks write: told apart, capped and marked, kept whatever it is and however the task ended, in flat memory.
//!
//! Deliberately absent: the journal by itself (`worker/tests/output_journal.rs`) and `acode logs` (`cli.rs`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;

use acode::wire::TaskRef;
use acode::wire::request::Logs;
use acode_worker::output::Reader;
use acode_worker::task::TaskState;
use common::{Options, Pool, shell, wait_until};
use more::{command, only_attempt, open_gate, reaches, written};

#[test]
fn stdout_and_stderr_are_told_apart() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(shell("echo o1; echo e1 >&2; echo o2; echo e2 >&2; printf o3", &[]));
    let task = pool.wait(id);
    let all = written(&pool, id);
    assert_eq!((all.out().as_str(), all.err().as_str()), ("o1\no2\no3", "e1\ne2\n"));
    assert!(!all.truncated);
    assert_eq!((task.output.stdout_bytes, task.output.stderr_bytes, task.output.truncated), (8, 6, false));
}

#[test]
fn every_byte_comes_back_as_it_was_written() {
    let pool = Pool::start(Options::workers(1));
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(pool.file("bytes"), &bytes).unwrap();
    let id = pool.submit(&["cat", &pool.path("bytes")]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert!(written(&pool, id).stdout == bytes, "binary output was changed");
}

#[test]
fn what_is_beyond_the_cap_is_dropped_and_marked() {
    let pool = Pool::start(Options::workers(1).config("output:\n  maxBytesPerTask: 1000"));
    let id = pool.submit_spec(shell("yes | head -c 900; yes e | head -c 900 >&2; yes | head -c 200000; exit 7", &[]));
    let task = pool.wait(id);
    assert_eq!((task.state, task.exit_code), (TaskState::Failed, Some(7)), "the task neither blocks nor dies from it");
    let all = written(&pool, id);
    assert!(all.truncated && task.output.truncated);
    assert_eq!(all.stdout.len() + all.stderr.len(), 1_000);
    let next = pool.submit(&["echo", "next"]);
    pool.wait(next);
    assert_eq!(written(&pool, next).out(), "next\n");
    assert!(!written(&pool, next).truncated);
}

#[test]
fn memory_stays_flat_under_three_hundred_megabytes_without_a_newline() {
    let pool = Pool::start(Options::workers(1).config("output:\n  maxBytesPerTask: 1048576"));
    let worker = pool.idle_workers().remove(0);
    let id = pool.submit(&["head", "-c", "300000000", "/dev/zero"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    for pid in [worker.pid, pool.pid()] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        // A debug build of the whole binary takes some 20 MB of code and data by itself.
        assert!(kib < 64 * 1024, "process {pid} has taken {kib} KiB at its peak");
    }
}

#[test]
fn output_goes_on_over_several_segments() {
    let pool = Pool::start(Options::workers(1).config("output:\n  segmentBytes: 65536"));
    let id = pool.submit(&["seq", "1", "100000"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(written(&pool, id).out() == expected);
    let segments = fs::read_dir(pool.state_dir().join("journal")).unwrap().count();
    assert!(segments > 5, "{segments} segments");
}

#[test]
fn the_output_of_a_killed_task_is_kept() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(shell("echo before; echo why >&2; kill -KILL $$", &[]));
    assert_eq!(pool.wait(id).signal, Some(9));
    let all = written(&pool, id);
    assert_eq!((all.out().as_str(), all.err().as_str()), ("before\n", "why\n"));
}

#[test]
fn the_output_of_a_running_task_can_be_read() {
    let pool = Pool::start(Options::workers(1));
    let script = r#"echo early; while [ ! -e "$1" ]; do sleep 0.02; done; echo late"#;
    let id = pool.submit_spec(shell(script, &[&pool.path("gate")]));
    reaches(&pool, id, TaskState::Running);
    let places = pool.call(&Logs::default());
    let source = &places.sources[0];
    assert_eq!((source.task, source.length), (id, None));
    let mut reader = None;
    wait_until("the journal has it", || {
        reader = Reader::scan(places.directory.as_ref(), source.worker, id, 1).unwrap();
        reader.is_some()
    });
    let mut reader = reader.unwrap();
    let mut text = Vec::new();
    let mut read = |text: &mut Vec<u8>| {
        while let Some(frame) = reader.next_frame().unwrap() {
            if frame.kind.stream().is_some() {
                text.extend_from_slice(frame.data);
            }
        }
        reader.ended()
    };
    wait_until("the first line is there", || {
        read(&mut text);
        text == b"early\n"
    });
    open_gate(&pool, "gate");
    wait_until("the output is complete", || read(&mut text));
    assert_eq!(text, b"early\nlate\n");
}

#[test]
fn each_attempt_has_its_own_output() {
    let pool = Pool::start(Options::workers(1).config("tasks:\n  retries:\n    count: 1\n    delayMs: 1"));
    let id = pool.submit_spec(shell("echo attempt $ACODE_ATTEMPT; [ $ACODE_ATTEMPT = 2 ]", &[]));
    assert_eq!(pool.wait(id).attempt_count, 2);
    assert_eq!(written(&pool, id).out(), "attempt 2\n");
    let first = pool.call(&Logs { ids: vec![TaskRef::Id(id)], attempt: Some(1) });
    assert_eq!((first.sources.len(), first.sources[0].attempt), (1, 1));
}

#[test]
fn a_task_that_closes_its_output_is_not_over_by_that() {
    let pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(shell("echo said; exec >&- 2>&- <&-; sleep 0.3; exit 4", &[]));
    let task = pool.wait(id);
    assert_eq!((task.exit_code, written(&pool, id).out().as_str()), (Some(4), "said\n"));
    assert!(only_attempt(&task).usage.unwrap().wall_us >= 300_000);
}

#[test]
fn silence_writes_nothing() {
    let pool = Pool::start(Options::workers(1));
    for _ in 0..10 {
        let id = pool.submit_spec(command(&["true"]));
        assert_eq!(pool.wait(id).output, acode::wire::types::OutputSizes::default());
    }
    assert_eq!(fs::read_dir(pool.state_dir().join("journal")).unwrap().count(), 0, "not even a file");
}
