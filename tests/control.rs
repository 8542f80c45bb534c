//! The control socket: what it speaks, and that no client, however it behaves, is in anybody's way; and the events.
//!
//! Deliberately absent: Python's `varlink` package as a client (`interop.rs`), and the codec by itself (`src/wire`).

mod common;
#[path = "common/more.rs"]
mod more;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use acode::wire::reply::EventBatch;
use acode::wire::request::{Events, GetInfo, GetInterfaceDescription, List, Ping, Scale, Show, Submit, Wait};
use acode::wire::{CallError, ClientError, DESCRIPTION, INTERFACE, MAX_MESSAGE, Request, TaskRef};
use acode_worker::task::{TaskSpec, TaskState};
use common::{Options, PATIENCE, Pool, shell, signal, wait_until};
use more::{cancel, command, entry, events_of, gated, open_gate, reaches};
use nix::sys::signal::Signal;

fn raw(pool: &Pool) -> UnixStream {
    let stream = UnixStream::connect(pool.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads to the end of one message.
fn message(stream: &mut UnixStream) -> serde_json::Value {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != [0] {
        bytes.push(byte[0]);
    }
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)))
}

/// Sends one message and gives the answer.
fn ask(pool: &Pool, text: &str) -> serde_json::Value {
    let mut stream = raw(pool);
    stream.write_all(format!("{text}\0").as_bytes()).unwrap();
    message(&mut stream)
}

/// The pool answers and works, each within a second.
#[track_caller]
fn is_lively(pool: &Pool) {
    let began = Instant::now();
    pool.call(&Ping {});
    assert!(began.elapsed() < Duration::from_secs(1), "a ping took {:?}", began.elapsed());
    let began = Instant::now();
    let id = pool.submit(&["true"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
    assert!(began.elapsed() < Duration::from_secs(2), "a task took {:?}", began.elapsed());
}

#[test]
fn the_service_describes_itself() {
    let pool = Pool::start(Options::workers(1));
    let info = pool.call(&GetInfo {});
    assert_eq!(info.interfaces, ["org.varlink.service", INTERFACE]);
    let described = pool.call(&GetInterfaceDescription { interface: INTERFACE.to_owned() });
    assert_eq!(described.description, DESCRIPTION);
    for name in Request::NAMES.iter().filter_map(|name| name.strip_prefix("io.acode.")) {
        assert!(described.description.contains(&format!("method {name}(")), "{name} is not described");
    }
    let unknown = pool.try_call(&GetInterfaceDescription { interface: "no.such".to_owned() });
    assert!(matches!(unknown, Err(ClientError::Call(CallError::InterfaceNotFound { .. }))), "{unknown:?}");
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let pool = Pool::start(Options::workers(1));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&pool.socket()), 0o600);
    assert_eq!((mode(&pool.state_dir()), mode(pool.socket().parent().unwrap())), (0o700, 0o700));
}

#[test]
fn wrong_calls_have_typed_errors_and_the_connection_goes_on() {
    let pool = Pool::start(Options::workers(1));
    let mut stream = raw(&pool);
    for (call, error) in [
        (r#"{"method":"io.acode.Nonsense"}"#, "org.varlink.service.MethodNotFound"),
        (r#"{"method":"no.such.Thing"}"#, "org.varlink.service.InterfaceNotFound"),
        (r#"{"method":"io.acode.Scale","parameters":{"count":"x"}}"#, "org.varlink.service.InvalidParameter"),
        (r#"{"method":"io.acode.Ping","parameters":{"typo":1}}"#, "org.varlink.service.InvalidParameter"),
        (r#"{"method":"io.acode.Show","parameters":{"id":"7"}}"#, "io.acode.NoSuchTask"),
        (r#"{"method":"io.acode.Show","parameters":{"id":"99999999"}}"#, "io.acode.NoSuchTask"),
        (r#"{"method":"io.acode.Submit","parameters":{"tasks":[]}}"#, "io.acode.InvalidSubmission"),
        (
            r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":[]}}]}}"#,
            "io.acode.InvalidSubmission",
        ),
        (
            r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":["a\u0000b"]}}]}}"#,
            "io.acode.InvalidSubmission",
        ),
        (
            r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":["a"],"cwd":"x"}}]}}"#,
            "io.acode.InvalidSubmission",
        ),
        (r#"{"method":"io.acode.Wait","parameters":{}}"#, "org.varlink.service.InvalidParameter"),
        (r#"{"method":"io.acode.Events","parameters":{"follow":true}}"#, "org.varlink.service.InvalidParameter"),
    ] {
        stream.write_all(format!("{call}\0").as_bytes()).unwrap();
        let answer = message(&mut stream);
        assert_eq!(answer["error"], error, "{call}: {answer}");
    }
    stream.write_all(b"{\"method\":\"io.acode.Ping\"}\0").unwrap();
    assert_eq!(message(&mut stream)["parameters"]["pid"], pool.pid());
    assert_eq!(pool.status().tasks.total(), 0);
    assert!(pool.status().queue.accepting);
}

/// Numbers that no signed one can hold, wherever a call takes a number.
#[test]
fn the_largest_numbers_trouble_nobody() {
    let pool = Pool::start(Options::workers(1));
    let ended = pool.submit(&["true"]);
    pool.wait(ended);
    // Each goes on for as long as its client is there.
    let followers: Vec<UnixStream> = [i64::MAX as u64, 1 << 63, u64::MAX]
        .into_iter()
        .map(|after| {
            let mut stream = raw(&pool);
            let call = format!(
                "{{\"method\":\"io.acode.Events\",\"more\":true,\"parameters\":{{\"follow\":true,\"after\":{after}}}}}\0"
            );
            stream.write_all(call.as_bytes()).unwrap();
            stream
        })
        .collect();
    let submit = |keys: &str| {
        format!(r#"{{"method":"io.acode.Submit","parameters":{{"tasks":[{{"spec":{{"command":["true"]}},{keys}}}]}}}}"#)
    };
    for call in [
        r#"{"method":"io.acode.Events","parameters":{"after":MAX}}"#,
        r#"{"method":"io.acode.Events","parameters":{"after":MAX,"limit":4294967295}}"#,
        r#"{"method":"io.acode.Show","parameters":{"id":"MAX"}}"#,
        r#"{"method":"io.acode.Logs","parameters":{"ids":["MAX"]}}"#,
        r#"{"method":"io.acode.Cancel","parameters":{"ids":["MAX"]}}"#,
        r#"{"method":"io.acode.Wait","parameters":{"ids":["MAX"]}}"#,
        r#"{"method":"io.acode.List","parameters":{"limit":4294967295}}"#,
        r#"{"method":"io.acode.Prune","parameters":{"older_than_ms":MAX}}"#,
        r#"{"method":"io.acode.Prune","parameters":{"keep":MAX}}"#,
        r#"{"method":"io.acode.Prune","parameters":{"older_than_ms":MAX,"keep":MAX}}"#,
        &submit(r#""delayMs":MAX"#),
        &submit(r#""notBeforeUs":MAX"#),
        &submit(r#""expiresUs":MAX"#),
        &submit(r#""delayMs":MAX,"notBeforeUs":MAX,"expiresUs":MAX"#),
        &submit(r#""array":{"range":{"first":MAX,"count":3}}"#),
        &submit(r#""array":{"range":{"first":1,"count":MAX}}"#),
        &submit(r#""dependencies":[{"on":{"task":"MAX"}}]"#),
        &submit(r#""group":{"name":"g","max":4294967295}"#),
    ] {
        for max in [i64::MAX as u64, 1 << 63, u64::MAX] {
            let call = call.replace("MAX", &max.to_string());
            let answer = ask(&pool, &call);
            let error = answer["error"].as_str().unwrap_or_default();
            assert!(!answer.to_string().contains("unknown field"), "{call}: {answer}");
            assert!(!matches!(error, "io.acode.QueueUnavailable" | "io.acode.Internal"), "{call}: {answer}");
        }
    }
    assert!(pool.status().queue.accepting);
    is_lively(&pool);
    assert!(!pool.events().iter().any(|event| event.event.starts_with("queue-")));
    assert!(!pool.log().contains("defect"), "{}", pool.log());
    drop(followers);
}

#[test]
fn a_call_without_a_wish_for_a_reply_gets_none() {
    let pool = Pool::start(Options::workers(1));
    let mut stream = raw(&pool);
    stream
        .write_all(
            b"{\"method\":\"io.acode.Nonsense\",\"oneway\":true}\0{\"method\":\"io.acode.Status\",\"oneway\":true}\0",
        )
        .unwrap();
    stream.write_all(b"{\"method\":\"io.acode.Ping\"}\0").unwrap();
    assert_eq!(message(&mut stream)["parameters"]["pid"], pool.pid(), "the first answer is the third call's");
}

#[test]
fn garbage_and_half_messages_cost_their_own_connection_only() {
    let pool = Pool::start(Options::workers(1));
    let answer = ask(&pool, "\u{1}\u{2}garbage");
    assert_eq!(answer["error"], "org.varlink.service.InvalidParameter");
    for bytes in [&b"\0\0\0"[..], b"[]\0", b"\xff\xfe\0", b"{\"method\":1}\0", b"nul", b"{\"method\":\"io.acode.Ping\""]
    {
        let mut stream = raw(&pool);
        stream.write_all(bytes).unwrap();
    }
    let deep = "[".repeat(100_000);
    assert!(ask(&pool, &format!(r#"{{"method":"io.acode.Ping","parameters":{deep}"#))["error"].is_string());
    is_lively(&pool);
}

#[test]
fn a_message_that_comes_byte_by_byte_is_understood() {
    let pool = Pool::start(Options::workers(1));
    let mut stream = raw(&pool);
    for byte in b"{\"method\":\"io.acode.Ping\"}\0" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(message(&mut stream)["parameters"]["pid"], pool.pid());
}

#[test]
fn a_client_that_has_said_all_is_answered_all_the_same() {
    let pool = Pool::start(Options::workers(1));
    let mut stream = raw(&pool);
    let submit = r#"{"method":"io.acode.Submit","parameters":{"tasks":[{"spec":{"command":["true"]}}]}}"#;
    stream.write_all(format!("{submit}\0{submit}\0").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..2 {
        assert!(message(&mut stream)["parameters"]["ids"][0].is_string());
    }
    pool.wait_all();
    assert_eq!(pool.status().tasks.completed, 2);
}

#[test]
fn an_oversized_message_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let mut stream = raw(&pool);
    let piece = vec![b'x'; 1 << 20];
    let sent = (0..=(MAX_MESSAGE >> 20) + 4).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(sent <= (MAX_MESSAGE >> 20) + 4, "nobody stopped it");
    assert_eq!(message(&mut stream)["error"], "org.varlink.service.InvalidParameter");
    is_lively(&pool);
}

#[test]
fn two_hundred_connections_are_served() {
    let pool = Pool::start(Options::workers(2));
    let mut clients: Vec<_> = (0..200).map(|_| pool.client()).collect();
    let tasks = || Submit::new(vec![entry(command(&["true"]))]);
    clients.iter_mut().for_each(|client| client.queue(&tasks()).unwrap());
    clients.iter_mut().for_each(|client| client.flush().unwrap());
    let ids: std::collections::BTreeSet<_> =
        clients.iter_mut().map(|client| client.receive::<Submit>().unwrap().ids[0]).collect();
    assert_eq!(ids.len(), 200);
    is_lively(&pool);
    drop(clients);
    assert_eq!(pool.wait_all().counts.unsuccessful(), 0);
}

#[test]
fn more_connections_than_there_may_be_are_refused_and_do_no_harm() {
    let pool = Pool::start(Options::workers(1).config("control:\n  maxConnections: 20"));
    let mut kept = pool.client();
    kept.call(&Ping {}).unwrap();
    let mut crowd: Vec<_> = (0..60).map(|_| raw(&pool)).collect();
    let refused = message(crowd.last_mut().unwrap());
    assert_eq!(refused["error"], "io.acode.Busy");
    let id = kept.call(&Submit::new(vec![entry(command(&["true"]))])).unwrap().ids[0];
    kept.call(&Wait { ids: vec![TaskRef::Id(id)], all: false }).unwrap();
    drop(crowd);
    wait_until("there is room again", || pool.try_call(&Ping {}).is_ok());
    is_lively(&pool);
}

#[test]
fn pipelined_calls_are_answered_in_their_order() {
    let pool = Pool::start(Options::workers(2));
    let mut client = pool.client();
    for _ in 0..300 {
        client.queue(&Submit::new(vec![entry(command(&["true"]))])).unwrap();
        client.queue(&Ping {}).unwrap();
    }
    let mut last = None;
    for _ in 0..300 {
        let ids = client.receive::<Submit>().unwrap().ids;
        assert!(last < Some(ids[0]), "ids grow in the order of submission");
        last = Some(ids[0]);
        client.receive::<Ping>().unwrap();
    }
    pool.wait_all();
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let pool = Pool::start(Options::workers(1));
    pool.submit_all((0..500).map(|_| entry(command(&["true"]))).collect());
    pool.wait_all();
    let mut deaf = raw(&pool);
    // Padded, so that few calls fill the way there and many bytes come back.
    let call = format!("{{\"method\":\"io.acode.List\",{}\"parameters\":{{\"limit\":10000}}}}\0", " ".repeat(16_000));
    let call = call.as_bytes();
    deaf.set_nonblocking(true).unwrap();
    // Until neither the socket nor the pool takes any more of it.
    let mut asked = 0_usize;
    wait_until("it is not read from any more", || {
        let before = asked;
        for _ in 0..10_000 {
            match deaf.write(call) {
                Ok(length) => asked += length,
                Err(_) => break,
            }
        }
        asked > 0 && asked == before
    });
    is_lively(&pool);
    // When it reads at last, every whole call has its answer.
    deaf.set_nonblocking(false).unwrap();
    let whole = asked / call.len();
    let mut buffer = vec![0; 1 << 20];
    let mut answers = 0;
    while answers < whole {
        let length = deaf.read(&mut buffer).unwrap();
        assert!(length > 0, "hung up on after {answers} of {whole} answers");
        answers += buffer[..length].iter().filter(|byte| **byte == 0).count();
    }
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_stream_is_forgotten() {
    let pool = Pool::start(Options::workers(1));
    let running = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, running, TaskState::Running);
    for method in [
        "Events\",\"more\":true,\"parameters\":{\"follow\":true}",
        "Wait\",\"more\":true,\"parameters\":{\"all\":true}",
    ] {
        let mut streams: Vec<_> = (0..20).map(|_| raw(&pool)).collect();
        for stream in &mut streams {
            stream.write_all(format!("{{\"method\":\"io.acode.{method}}}\0").as_bytes()).unwrap();
            message(stream);
        }
    }
    wait_until("their descriptors are closed", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", pool.pid())).unwrap();
        let sockets = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        sockets.filter(|target| target.to_string_lossy().starts_with("socket:")).count() < 10
    });
    is_lively_while_busy(&pool);
    open_gate(&pool, "gate");
}

#[track_caller]
fn is_lively_while_busy(pool: &Pool) {
    let began = Instant::now();
    pool.call(&Ping {});
    pool.status();
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// All events from the beginning on, gathered while they come, up to the first of this name.
fn follow(pool: &Pool, last: &str) -> Vec<(u64, String)> {
    let mut client = pool.client();
    let mut seen = Vec::new();
    for batch in client.call_more(&Events { follow: true, ..Events::default() }).unwrap() {
        let EventBatch { events, .. } = batch.unwrap();
        for event in events {
            let over = event.event == last;
            seen.push((event.seq, event.event));
            if over {
                return seen;
            }
        }
    }
    panic!("the stream has ended");
}

#[test]
fn every_kind_of_event_is_told() {
    let pool =
        Pool::start(Options::workers(1).config("tasks:\n  retries:\n    delayMs: 1\nworkers:\n  killGraceMs: 100"));
    let done = pool.submit(&["true"]);
    pool.wait(done);
    let retry = Some(acode_worker::task::Retries { count: Some(1), delay_ms: Some(1), ..Default::default() });
    let failed = pool.submit_spec(TaskSpec { retry, ..shell("echo 50 half >$ACODE_PROGRESS; exit 1", &[]) });
    pool.wait(failed);
    let late = pool.submit_spec(TaskSpec { timeout_ms: Some(50), ..command(&["sleep", "1000"]) });
    pool.wait(late);
    let lost = pool.submit_spec(shell("[ $ACODE_ATTEMPT = 2 ] || exec sleep 1000", &[]));
    reaches(&pool, lost, TaskState::Running);
    signal(pool.worker_of(lost).pid, Signal::SIGKILL);
    pool.wait(lost);
    let gone = pool.submit_spec(gated(&pool, "never"));
    assert!(cancel(&pool, gone));
    pool.wait(gone);
    let array = Some(acode_worker::task::Array::Range { first: 0, count: 2 });
    let array =
        pool.submit_all(vec![acode_worker::task::Submission { spec: command(&["true"]), array, ..Default::default() }])
            [0];
    pool.wait(array);
    pool.call(&Scale { count: 2 });
    pool.call(&Scale { count: 1 });
    wait_until("one has left", || pool.workers().len() == 1);
    signal(pool.pid(), Signal::SIGHUP);
    wait_until("it is reloaded", || pool.events().iter().any(|event| event.event == "pool-reloaded"));
    let events = pool.events();
    let told: std::collections::BTreeSet<&str> = events.iter().map(|event| event.event.as_str()).collect();
    for kind in [
        "pool-started",
        "worker-started",
        "task-submitted",
        "task-assigned",
        "task-started",
        "task-completed",
        "task-progress",
        "task-retried",
        "task-failed",
        "task-timeout",
        "worker-failed",
        "task-requeued",
        "task-cancelled",
        "array-submitted",
        "worker-created",
        "worker-exited",
        "pool-scaled-up",
        "pool-scaled-down",
        "worker-stopped",
        "pool-reloaded",
    ] {
        assert!(told.contains(kind), "{kind} was not told: {told:?}");
    }
    assert_eq!(events_of(&events, late), ["task-submitted", "task-assigned", "task-started", "task-timeout"]);
    assert!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "numbers grow strictly");
    more::prune_everything(&pool);
    assert!(pool.events().iter().any(|event| event.event == "queue-pruned"));
}

#[test]
fn who_follows_misses_nothing_and_hears_nothing_twice() {
    let pool = Pool::start(Options::workers(4));
    let (first, second) = std::thread::scope(|scope| {
        let one = scope.spawn(|| follow(&pool, "pool-scaled-up"));
        let two = scope.spawn(|| follow(&pool, "pool-scaled-up"));
        for _ in 0..20 {
            pool.submit_all((0..50).map(|_| entry(command(&["true"]))).collect());
        }
        pool.wait_all();
        pool.call(&Scale { count: 5 });
        (one.join().unwrap(), two.join().unwrap())
    });
    assert!(first.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(first, second);
    let kept: Vec<_> = pool.events().into_iter().map(|event| (event.seq, event.event)).collect();
    assert_eq!(first[..], kept[..first.len()]);
    assert_eq!(first.iter().filter(|(_, name)| name == "task-completed").count(), 1_000);
    let numbers: Vec<u64> = first.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (numbers[0]..numbers[0] + numbers.len() as u64).collect::<Vec<_>>(), "without a gap");
}

#[test]
fn events_can_be_asked_for_from_a_place_or_a_moment() {
    let pool = Pool::start(Options::workers(1));
    let first = pool.submit(&["true"]);
    pool.wait(first);
    let last = pool.events().last().unwrap().clone();
    let second = pool.submit(&["true"]);
    pool.wait(second);
    let after = pool.call(&Events { after: Some(last.seq), ..Events::default() }).events;
    assert!(after.iter().all(|event| event.seq > last.seq));
    assert_eq!(events_of(&after, second), ["task-submitted", "task-assigned", "task-started", "task-completed"]);
    assert_eq!(pool.call(&Events { after: Some(last.seq), limit: Some(2), ..Events::default() }).events.len(), 2);
    let since = pool.call(&Events { since: Some(after[0].at), ..Events::default() }).events;
    assert_eq!(events_of(&since, second).len(), 4);
}

#[test]
fn a_wait_with_more_tells_how_it_goes() {
    let pool = Pool::start(Options::workers(1));
    let ids = pool.submit_all(vec![entry(gated(&pool, "gate")), entry(command(&["false"]))]);
    let mut client = pool.client();
    let wait = Wait { ids: ids.iter().copied().map(TaskRef::Id).collect(), all: false };
    let mut replies = client.call_more(&wait).unwrap();
    let counts = replies.next().unwrap().unwrap().counts;
    assert_eq!(counts.total(), 2);
    open_gate(&pool, "gate");
    let last = replies.last().unwrap().unwrap();
    assert_eq!((last.counts.completed, last.counts.failed, last.unsuccessful), (1, 1, vec![ids[1]]));
    assert_eq!(
        client.call(&Show { id: TaskRef::Id(ids[1]) }).unwrap().task.state,
        TaskState::Failed,
        "the connection goes on"
    );
}

#[test]
fn lists_come_in_pages_and_by_state() {
    let pool = Pool::start(Options::workers(1));
    let ids = pool.submit_all((0..25).map(|n| entry(command(&["sh", "-c", &format!("exit {}", n % 5)]))).collect());
    pool.wait_all();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = pool.call(&List { limit: Some(10), after, ..List::default() });
        seen.extend(page.tasks.iter().map(|task| task.id));
        after = page.next;
        if after.is_none() || seen.len() > 100 {
            break;
        }
    }
    assert_eq!(seen, ids);
    let failed = pool.call(&List { states: vec![TaskState::Failed], newest_first: true, ..List::default() }).tasks;
    assert_eq!(failed.len(), 20);
    assert!(failed.windows(2).all(|pair| pair[0].id > pair[1].id));
}
