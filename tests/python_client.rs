//! The client in Python that the documentation shows, against a live pool: what it says it does, it does.
//!
//! Deliberately absent: a package; the client needs none, and whoever has Python can run it.

#[path = "common/command.rs"]
mod command;
mod common;

use std::process::{Command, Stdio};

use command::{Running, Said};
use common::{Options, Pool};
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
