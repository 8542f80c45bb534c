//! The client in Python that the documentation shows, against a live pool: what it says it does, it does.
//!
//! Deliberately absent: a package; the client needs none, and whoever has Python can run it.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::process::{Command, Stdio};

use acode_worker::task::TaskState;
use command::{Running, Said};
use common::{Options, Pool, wait_until};
use serde_json::Value;

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/acode_client.py");

fn has_python() -> bool {
    let mut check = Command::new("python3");
    check.args(["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]);
    let found = check.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("not run: there is no python3 of version 3.8 or later");
    }
    found
}

fn client(pool: &Pool, args: &[&str]) -> Said {
    let mut command = Command::new("python3");
    command.arg(CLIENT).arg("--socket").arg(pool.socket()).args(args);
    Running::new(command, None).finish()
}

#[test]
fn it_runs_a_command_shows_its_output_and_ends_as_it_did() {
    if !has_python() {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let said = client(&pool, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).expect(3);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    // More than one frame, and more than one task in a journal.
    let said = client(&pool, &["run", "--", "sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; echo"]);
    assert_eq!(said.expect(0).out.len(), 200_001);
    let said = client(&pool, &["run", "--", "sh", "-c", "kill -9 $$"]);
    said.expect(137);
    // What never ran, or ran for too long, has no exit code of its own; the words are those of `acode run`.
    let said = client(&pool, &["run", "--", "no-such-program-anywhere"]).expect(127);
    assert!(said.err.contains("no-such-program-anywhere"), "{said:?}");
    let pool = Pool::start(Options::workers(1).config("tasks: {timeoutSeconds: 1}"));
    let said = client(&pool, &["run", "--", "sleep", "60"]).expect(124);
    assert!(said.err.contains("timed"), "{said:?}");
}

#[test]
fn it_follows_what_has_a_name_has_ended_or_is_not_there() {
    if !has_python() {
        return;
    }
    let pool = Pool::start(Options::workers(1).config("retention: {maxEvents: 0, intervalSeconds: 1}"));
    let ended = client(&pool, &["submit", "--", "true"]).expect(0).out.trim().to_owned();
    pool.wait(ended.parse().unwrap());
    wait_until("its events are removed", || !pool.events().iter().any(|event| event.event == "task-completed"));
    client(&pool, &["follow", &ended]).expect(0);
    let pool = Pool::start(Options::workers(1));
    let events = |name: &str| {
        let said = client(&pool, &["follow", name]).expect(0);
        let names = said.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone());
        names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let id = client(&pool, &["submit", "--", "false"]).expect(0).out.trim().to_owned();
    pool.wait(id.parse().unwrap());
    for name in ["1", &id[..20], &id] {
        assert_eq!(events(name).last().unwrap(), "task-failed", "{name}");
    }
    let said = client(&pool, &["follow", "42"]).expect(1);
    assert!(said.err.contains("NoSuchTask"), "{said:?}");
    // One that has failed before and waits anew has not ended.
    let gate = pool.submit_spec(more::gated(&pool, "gate"));
    more::reaches(&pool, gate, TaskState::Running);
    assert!(more::retry(&pool, id.parse().unwrap()));
    let mut command = Command::new("python3");
    command.arg(CLIENT).arg("--socket").arg(pool.socket()).args(["follow", &id]);
    let follower = Running::new(command, None);
    more::open_gate(&pool, "gate");
    let said = follower.finish().expect(0);
    assert_eq!(said.out.matches("task-failed").count(), 2, "{said:?}");
}

#[test]
fn it_submits_follows_and_collects() {
    if !has_python() {
        return;
    }
    let pool = Pool::start(Options::workers(2));
    let said = client(&pool, &["submit", "--", "sh", "-c", "echo '{\"n\": 1}' > $ACODE_RESULT"]);
    let id = said.expect(0).out.trim().to_owned();
    let said = client(&pool, &["follow", &id]);
    let events: Vec<Value> = said.expect(0).out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"task-submitted"), Some(&"task-completed")));
    assert!(events.iter().all(|event| event["task"] == id.as_str()), "{events:?}");

    let script = "
import sys
sys.path.insert(0, sys.argv[1])
from acode_client import CallError, Pool
with Pool(sys.argv[2]) as pool:
    ids = pool.submit([{'command': ['sh', '-c', 'echo %d > $ACODE_RESULT; exit %d' % (n, n % 2)]} for n in range(4)])
    for task in pool.collect(ids):
        print(task['state'], task['result'])
    print(pool.wait(ids)['failed'])
    try:
        pool.submit([{'command': []}])
    except CallError as error:
        print(error.name)
    print(pool.call('Status')['status']['pool']['state'])
";
    let mut command = Command::new("python3");
    let folder = std::path::Path::new(CLIENT).parent().unwrap();
    command.env("PYTHONDONTWRITEBYTECODE", "1").args(["-c", script]).arg(folder).arg(pool.socket());
    let said = Running::new(command, None).finish();
    let lines = ["completed 0", "failed 1", "completed 2", "failed 3", "2", "io.acode.InvalidSubmission", "running"];
    assert_eq!(said.expect(0).out.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn without_a_pool_it_says_so() {
    if !has_python() {
        return;
    }
    let mut command = Command::new("python3");
    command.args([CLIENT, "--socket", "/nonexistent/control.sock", "submit", "--", "true"]);
    let said = Running::new(command, None).finish().expect(1);
    assert!(said.err.starts_with("acode_client: "), "{said:?}");
}
