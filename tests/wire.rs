//! The two ends of the control protocol against each other, without a supervisor.

#[path = "common/mock_pool.rs"]
mod mock_pool;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use acode::wire::request::{Ping, Resolve, Show, Submit, Wait};
use acode::wire::{Bulk, CallError, Client, ClientError, TaskRef};
use acode_worker::task::{Blocker, Dependency, DependencyKind, Submission, TaskSpec};

fn pool() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    mock_pool::serve(&path).unwrap();
    (folder, path)
}

fn task(name: &str) -> Submission {
    let spec = TaskSpec { name: Some(name.into()), command: vec!["/bin/true".into()], ..TaskSpec::default() };
    Submission { spec, ..Submission::default() }
}

#[test]
fn nobody_there_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    assert!(matches!(Client::connect(&path), Err(ClientError::NotRunning { .. })));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(Client::connect(&path), Err(ClientError::NotRunning { .. })), "a socket that nobody listens on");
}

#[test]
fn calls_follow_each_other_on_one_connection() {
    let (_folder, path) = pool();
    let mut client = Client::connect(&path).unwrap();
    let ids = client.call(&Submit::new(vec![task("a"), task("b")])).unwrap().ids;
    let shown = client.call(&Show { id: ids[1].into() }).unwrap().task;
    assert_eq!((shown.name.as_str(), shown.number), ("b", 2));
    let error = client.call(&Show { id: TaskRef::Number(9) }).unwrap_err();
    assert!(matches!(error, ClientError::Call(CallError::NoSuchTask { task }) if task == "9"));
    let prefix: TaskRef = ids[0].to_string()[..20].parse().unwrap();
    let error = client.call(&Resolve { ids: vec![prefix] }).unwrap_err();
    assert!(matches!(error, ClientError::Call(CallError::AmbiguousTask { matches, .. }) if matches == ids));
    client.call(&Ping {}).unwrap();
}

#[test]
fn a_stream_has_its_end_and_must_be_taken_whole() {
    let (_folder, path) = pool();
    let mut client = Client::connect(&path).unwrap();
    client.call(&Submit::new(vec![task("a")])).unwrap();
    let wait = Wait { ids: Vec::new(), all: true };
    let counts: Vec<_> = client.call_more(&wait).unwrap().map(|reply| reply.unwrap().counts.ended()).collect();
    assert_eq!(counts, [0, 1]);
    client.call(&Ping {}).unwrap();
    assert!(client.call_more(&wait).unwrap().next().is_some());
    assert!(matches!(client.call_more(&wait).map(drop), Err(ClientError::Unfinished)));
}

#[test]
fn bulk_keeps_the_order_and_turns_places_into_ids() {
    const COUNT: usize = 12_345;
    let (_folder, path) = pool();
    let mut client = Client::connect(&path).unwrap();
    let mut ids = Vec::new();
    let mut bulk = Bulk::new(&mut client, true, |accepted| ids.extend_from_slice(accepted));
    for n in 0..COUNT {
        let mut entry = task(&n.to_string());
        if n > 0 {
            let on = Blocker::Entry(u32::try_from(n - 1).unwrap());
            entry.dependencies.push(Dependency { on, when: DependencyKind::Ended });
        }
        bulk.push(&entry).unwrap();
    }
    assert_eq!(bulk.finish().unwrap(), COUNT);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]) && ids.len() == COUNT);
    let last = client.call(&Show { id: ids[COUNT - 1].into() }).unwrap().task;
    assert_eq!(last.name, (COUNT - 1).to_string());
}

#[test]
fn a_refused_entry_of_a_bulk_is_told_and_what_was_accepted_too() {
    let (_folder, path) = pool();
    let mut client = Client::connect(&path).unwrap();
    let mut accepted = 0;
    let mut bulk = Bulk::new(&mut client, false, |ids| accepted += ids.len());
    for n in 0..2_500 {
        let mut entry = task("x");
        if n == 1_500 {
            entry.spec.command.clear();
        }
        bulk.push(&entry).unwrap();
    }
    let error = bulk.finish().unwrap_err();
    assert!(matches!(error, ClientError::Call(CallError::InvalidSubmission { entry: Some(1_500), .. })), "{error}");
    assert_eq!(accepted, 1_500, "every call is all or nothing");
}

#[test]
fn what_is_no_call_is_answered_and_hung_up_on() {
    let (_folder, path) = pool();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n\0").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with(r#"{"error":"org.varlink.service.InvalidParameter""#), "{answer}");
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(br#"{"method":"io.acode.Ping"#).unwrap();
    drop(half);
    Client::connect(&path).unwrap().call(&Ping {}).unwrap();
}
