//! Events as they are followed: every task event of the worker manager, each once, over breaks and restarts; gaps and slow
//! readers; and that followers cost the pool nothing that matters.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use acode::wire::request::{Events, Ping, Scale};
use acode::wire::types::EventRecord;
use acode::wire::{CallError, Client, ClientError};
use acode_worker::task::{Array, Submission, TaskSpec, TaskState};
use command::{Acode, Running};
use common::{Options, PATIENCE, Pool, shell, signal, wait_until};
use more::{cancel, entry, events_of, gated, open_gate, reaches, retry};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The lines that a follower has printed in full.
fn lines(out: &str) -> Vec<Value> {
    let whole = out.rfind('\n').map_or("", |end| &out[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap_or_else(|| panic!("no number: {event}"))).collect()
}

/// Without a gap and without a repetition.
#[track_caller]
fn is_gapless(numbers: &[u64]) {
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(gap, None, "of {} numbers", numbers.len());
}

/// So many tasks that do nothing, as one array.
fn crowd(count: u64, delay_ms: Option<u64>) -> Submission {
    let spec = TaskSpec { command: vec!["true".into()], ..TaskSpec::default() };
    Submission { spec, array: Some(Array::Range { first: 0, count }), delay_ms, ..Submission::default() }
}

/// Writes so many events without running anything: tasks that are to wait for a year.
fn fill(pool: &Pool, count: usize) {
    const YEAR_MS: u64 = 31_536_000_000;
    let spec = TaskSpec { command: vec!["true".into()], ..TaskSpec::default() };
    let entry = Submission { spec, delay_ms: Some(YEAR_MS), ..Submission::default() };
    for _ in 0..count.div_ceil(5_000) {
        pool.submit_all(vec![entry.clone(); 5_000]);
    }
}

// The kinds.

#[test]
fn every_event_of_a_tasks_life_is_told_in_its_order() {
    let pool =
        Pool::start(Options::workers(1).config("workers:\n  killGraceMs: 100\ntasks:\n  retries:\n    delayMs: 1"));
    let done = pool.submit_spec(shell("echo 50 half >$ACODE_PROGRESS; sleep 0.3", &[]));
    pool.wait(done);
    let again = Some(acode_worker::task::Retries { count: Some(1), delay_ms: Some(1), ..Default::default() });
    let failed = pool.submit_spec(TaskSpec { retry: again, ..shell("exit 3", &[]) });
    pool.wait(failed);
    let late = pool.submit_spec(TaskSpec { timeout_ms: Some(50), ..shell("sleep 1000", &[]) });
    pool.wait(late);
    let gone = pool.submit_spec(gated(&pool, "never"));
    reaches(&pool, gone, TaskState::Running);
    assert!(cancel(&pool, gone));
    pool.wait(gone);
    assert!(retry(&pool, late));
    pool.wait(late);
    let events = pool.events();
    let begun = ["task-submitted", "task-assigned", "task-started"];
    let life = |end: &[&'static str]| [&begun[..], end].concat();
    assert_eq!(events_of(&events, done), life(&["task-progress", "task-completed"]));
    assert_eq!(events_of(&events, failed), life(&["task-retried", "task-assigned", "task-started", "task-failed"]));
    let twice = life(&["task-timeout", "task-retried", "task-assigned", "task-started", "task-timeout"]);
    assert_eq!(events_of(&events, late), twice);
    assert_eq!(events_of(&events, gone), life(&["task-cancelled"]));
    is_gapless(&events.iter().map(|event| event.seq).collect::<Vec<_>>());
}

#[test]
fn an_assignment_names_the_worker_and_comes_before_the_start() {
    let pool = Pool::start(Options::workers(1));
    let worker = pool.idle_workers()[0].id;
    let id = pool.submit(&["true"]);
    pool.wait(id);
    let events = pool.events();
    let of = |kind: &str| -> EventRecord {
        events.iter().find(|event| event.task == Some(id) && event.event == kind).unwrap().clone()
    };
    let (submitted, assigned, started) = (of("task-submitted"), of("task-assigned"), of("task-started"));
    assert_eq!((assigned.worker, assigned.attempt, started.worker), (Some(worker), Some(1), Some(worker)));
    assert!(assigned.data.is_none() && started.data.is_none());
    // The submission's time is a millisecond of the id.
    assert!(submitted.at.micros() <= assigned.at.micros() + 1_000 && assigned.at <= started.at);
    assert_eq!(started.seq, assigned.seq + 1);
    let after = pool.call(&Events { after: Some(assigned.seq), limit: Some(1), ..Events::default() });
    assert_eq!((after.events[0].event.as_str(), after.missed), ("task-started", 0), "from the middle of the pair");
    let since = pool.call(&Events { since: Some(started.at), limit: Some(1), ..Events::default() });
    assert!(since.events[0].at >= started.at);
}

// Following.

#[test]
fn since_takes_a_number_as_well_as_a_time() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for _ in 0..5 {
        pool.submit(&["true"]);
    }
    pool.wait_all();
    let all = numbers(&lines(&(acode.ok(&["events"]) + "\n")));
    is_gapless(&all);
    let last = *all.last().unwrap();
    let from = |number: u64| numbers(&lines(&(acode.ok(&["events", "--since", &number.to_string()]) + "\n")));
    assert_eq!(from(all[3]), all[4..]);
    assert_eq!(from(last), Vec::<u64>::new());
    assert_eq!(numbers(&lines(&(acode.ok(&["events", "--since", "1h"]) + "\n"))), all);
    assert!(acode.says(&["events", "--since", "soon"]).expect(2).err.contains("number of an event"));
    let follower = acode.spawn(&["events", "--follow", "--since", &all[3].to_string()]);
    follower.prints(&format!("\"seq\":{last},"));
    assert_eq!(numbers(&lines(&follower.out())), all[4..]);
    pool.stop();
    assert_eq!(from(all[3])[..all.len() - 4], all[4..], "without a pool as well");
}

/// Waits until a follower has printed everything that the pool has.
#[track_caller]
fn catches_up(follower: &Running, pool: &Pool) -> Vec<Value> {
    let last = pool.events().last().unwrap().seq;
    wait_until("the follower has all", || numbers(&lines(&follower.out())).last() == Some(&last));
    lines(&follower.out())
}

#[test]
fn a_follower_misses_nothing_and_repeats_nothing_over_a_pool_that_is_killed() {
    let mut pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let follower = acode.spawn(&["events", "--follow"]);
    for round in 0..3 {
        pool.submit_all((0..60).map(|_| entry(shell("true", &[]))).collect());
        if round == 0 {
            follower.prints("task-completed");
        }
        // In the middle of the work.
        pool.kill9();
        pool.restart();
    }
    pool.wait_all();
    let seen = catches_up(&follower, &pool);
    is_gapless(&numbers(&seen));
    assert_eq!(numbers(&seen)[0], 1);
    let kept: Vec<u64> = pool.events().iter().map(|event| event.seq).collect();
    assert_eq!(numbers(&seen), kept);
    assert_eq!(seen.iter().filter(|event| event["event"] == "task-completed").count(), 180);
    assert!(follower.err().contains("waiting for the pool") && follower.err().contains("connected again"));
}

#[test]
fn a_follower_waits_through_a_stop_and_a_start() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let mut follower = acode.spawn(&["events", "--follow"]);
    follower.prints("pool-started");
    pool.stop();
    follower.prints("pool-stopped");
    wait_until("it says that it waits", || follower.err().contains("waiting for the pool"));
    // What is submitted meanwhile is written to the queue itself.
    let id = acode.ok(&["task", "submit", "--", "true"]);
    assert!(!follower.has_ended());
    pool.restart();
    pool.wait_all();
    let seen = catches_up(&follower, &pool);
    is_gapless(&numbers(&seen));
    let of_task: Vec<_> =
        seen.iter().filter(|event| event["task"] == id.as_str()).map(|event| &event["event"]).collect();
    assert_eq!(of_task, ["task-submitted", "task-assigned", "task-started", "task-completed"]);
}

#[test]
fn without_reconnect_a_follower_ends_with_the_pool() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let follower = acode.spawn(&["events", "--follow", "--no-reconnect"]);
    follower.prints("pool-started");
    pool.stop();
    let said = follower.finish().expect(1);
    assert!(said.out.contains("pool-stopped") && said.err.contains("hung up"), "{said:?}");
    assert_eq!(acode.says(&["events", "--follow"]).code, Some(3), "to begin with there must be a pool");
}

// Gaps.

#[test]
fn events_that_were_removed_are_told_as_a_counted_gap() {
    let mut pool = Pool::start(Options::workers(1).config("retention:\n  maxEvents: 20\n  intervalSeconds: 1"));
    let acode = Acode::of(&pool);
    pool.submit_all(vec![crowd(100, None)]);
    pool.wait_all();
    wait_until("the oldest are gone", || pool.events().first().is_some_and(|event| event.seq > 100));
    let reply = pool.call(&Events { after: Some(7), ..Events::default() });
    assert_eq!(reply.events[0].seq, 8 + reply.missed);
    let follower = acode.spawn(&["events", "--follow", "--since", "7"]);
    follower.prints("\"seq\"");
    let seen = lines(&follower.out());
    assert_eq!((&seen[0]["event"], &seen[0]["after"]), (&Value::from("gap"), &Value::from(7)));
    assert_eq!(seen[0]["missed"].as_u64().unwrap() + 8, seen[1]["seq"].as_u64().unwrap());
    is_gapless(&numbers(&seen[1..]));
    // Who asks for all that are kept misses nothing.
    assert!(!acode.ok(&["events"]).contains("\"gap\""));
    pool.stop();
    assert!(acode.ok(&["events", "--since", "7"]).starts_with("{\"schema\":1,\"event\":\"gap\",\"missed\":"));
}

// Slow readers.

/// A connection that follows from the beginning, and has not read anything yet.
fn follow_raw(pool: &Pool) -> UnixStream {
    let mut stream = UnixStream::connect(pool.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let call = "{\"method\":\"io.acode.Events\",\"more\":true,\"parameters\":{\"follow\":true,\"after\":0}}\0";
    stream.write_all(call.as_bytes()).unwrap();
    stream
}

#[track_caller]
fn is_lively(pool: &Pool) {
    let began = Instant::now();
    pool.call(&Ping {});
    let id = pool.submit(&["true"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert!(began.elapsed() < Duration::from_secs(2), "a task took {:?}", began.elapsed());
}

#[test]
fn a_reader_that_never_reads_is_cut_off_and_slows_nobody() {
    let pool = Pool::start(Options::workers(1).config("control:\n  slowReaderSeconds: 1"));
    fill(&pool, 20_000);
    let mut stuck = follow_raw(&pool);
    is_lively(&pool);
    wait_until("it is cut off", || pool.log().contains("a follower of events takes nothing: cut off"));
    is_lively(&pool);
    // What the kernel holds for it can still be read, and then the connection ends.
    let mut got = Vec::new();
    stuck.read_to_end(&mut got).unwrap();
    assert!(!got.is_empty() && got.len() < 3 << 20, "{} bytes", got.len());
    let mut client = pool.client();
    let rest = client.call_more(&Events { after: Some(0), ..Events::default() }).unwrap();
    assert!(rest.map(|batch| batch.unwrap().events.len()).sum::<usize>() > 20_000, "nothing is lost by that");
}

#[test]
fn a_reader_that_wakes_up_in_time_for_it_is_told_why_it_is_cut_off() {
    let pool = Pool::start(Options::workers(1).config("control:\n  slowReaderSeconds: 1"));
    fill(&pool, 20_000);
    let stuck = follow_raw(&pool);
    wait_until("it is cut off", || pool.log().contains("cut off"));
    // It has a second from then on.
    let mut client = Client::new(stuck);
    let mut last = 0;
    let error = loop {
        match client.receive::<Events>() {
            Ok(batch) => last = batch.events.last().map_or(last, |event| event.seq),
            Err(error) => break error,
        }
    };
    match error {
        ClientError::Call(CallError::SlowReader { after, missed }) => {
            assert_eq!(after, last);
            assert!(missed > 0);
        }
        // A busy machine may have let the second pass.
        other => assert!(matches!(other, ClientError::HungUp), "{other}"),
    }
}

#[test]
fn a_slow_reader_that_reads_is_not_cut_off() {
    let pool = Pool::start(Options::workers(1).config("control:\n  slowReaderSeconds: 2"));
    fill(&pool, 20_000);
    let mut slow = follow_raw(&pool);
    let mut buffer = vec![0; 64 << 10];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        slow.read_exact(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!pool.log().contains("cut off"), "{}", pool.log());
}

#[test]
fn the_command_line_goes_on_after_it_was_cut_off() {
    let pool = Pool::start(Options::workers(1).config("control:\n  slowReaderSeconds: 1"));
    fill(&pool, 20_000);
    let acode = Acode::of(&pool);
    let follower = acode.spawn(&["events", "--follow"]);
    follower.prints("pool-started");
    signal(follower.pid(), Signal::SIGSTOP);
    fill(&pool, 20_000);
    wait_until("it is cut off", || pool.log().contains("cut off"));
    signal(follower.pid(), Signal::SIGCONT);
    is_gapless(&numbers(&catches_up(&follower, &pool)));
}

// Many.

#[test]
fn ten_followers_hear_the_same_and_the_pool_works_on() {
    let pool = Pool::start(Options::workers(2));
    let follow = || -> Vec<u64> {
        let mut client = pool.client();
        let mut seen = Vec::new();
        for batch in client.call_more(&Events { follow: true, ..Events::default() }).unwrap() {
            for event in batch.unwrap().events {
                seen.push(event.seq);
                if event.event == "pool-scaled-up" {
                    return seen;
                }
            }
        }
        panic!("the stream has ended")
    };
    std::thread::scope(|scope| {
        let followers: Vec<_> = (0..10).map(|_| scope.spawn(follow)).collect();
        pool.submit_all(vec![crowd(1_000, None)]);
        is_lively(&pool);
        pool.wait_all();
        pool.call(&Scale { count: 3 });
        let seen: Vec<Vec<u64>> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
        is_gapless(&seen[0]);
        assert!(seen[0].len() > 3_000);
        assert!(seen.iter().all(|others| *others == seen[0]));
    });
}

#[test]
fn a_follower_from_far_behind_is_fed_while_others_are_served() {
    let pool = Pool::start(Options::workers(1));
    fill(&pool, 60_000);
    open_gate(&pool, "unused");
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| {
            let mut client = pool.client();
            let batches = client.call_more(&Events { after: Some(0), ..Events::default() }).unwrap();
            batches.map(|batch| batch.unwrap().events.len()).sum::<usize>()
        });
        is_lively(&pool);
        assert!(behind.join().unwrap() >= 60_000);
    });
}
