//! Small helpers that several behaviour tests share on top of the harness: tasks that wait for the test, their output,
//! their states.
//!
//! Deliberately absent: anything that starts or stops a pool, which is the harness's.

#![allow(dead_code, reason = "each test file uses a part of it")]

use acode::wire::TaskRef;
use acode::wire::request::{Cancel, Logs, Prune, Retry};
use acode::wire::types::{EventRecord, TaskRecord};
use acode_worker::output::{Kind, Reader};
use acode_worker::task::{OutputRef, Submission, TaskId, TaskSpec, TaskState};

use crate::common::{Pool, wait_until};

/// What an attempt has written, as the journal has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Whether there is a mark that something was dropped.
    pub truncated: bool,
}

impl Written {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// The output of a task's last attempt.
#[track_caller]
pub fn written(pool: &Pool, id: TaskId) -> Written {
    let places = pool.call(&Logs { ids: vec![TaskRef::Id(id)], attempt: None });
    let source = places.sources.first().expect("the task has an attempt");
    let length = source.length.expect("the attempt has ended");
    let at = OutputRef { segment: source.segment, offset: source.offset, length, ..OutputRef::default() };
    let mut reader = Reader::new(&places.directory, source.worker, &at);
    let mut written = Written::default();
    while let Some(frame) = reader.next_frame().unwrap() {
        assert_eq!((frame.task, frame.attempt), (id, source.attempt), "a frame of another attempt");
        match frame.kind {
            Kind::Stdout => written.stdout.extend_from_slice(frame.data),
            Kind::Stderr => written.stderr.extend_from_slice(frame.data),
            Kind::Truncated => written.truncated = true,
            Kind::End => {}
        }
    }
    written
}

/// Runs a shell script as a task, expects it to complete, and gives its standard output.
#[track_caller]
pub fn output_of(pool: &Pool, spec: TaskSpec) -> String {
    let id = pool.submit_spec(spec);
    let task = pool.wait(id);
    let written = written(pool, id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", written.err());
    written.out()
}

/// A task that runs until the file `gate` exists.
pub fn gated(pool: &Pool, gate: &str) -> TaskSpec {
    crate::common::shell(r#"while [ ! -e "$1" ]; do sleep 0.02; done"#, &[&pool.path(gate)])
}

/// Makes the file that gated tasks wait for.
pub fn open_gate(pool: &Pool, gate: &str) {
    std::fs::write(pool.file(gate), "").unwrap();
}

/// One entry of a submission.
pub fn entry(spec: TaskSpec) -> Submission {
    Submission { spec, ..Submission::default() }
}

/// The specification of a command.
pub fn command(parts: &[&str]) -> TaskSpec {
    TaskSpec { command: parts.iter().map(|part| (*part).to_owned()).collect(), ..TaskSpec::default() }
}

/// Waits until a task is in a state.
#[track_caller]
pub fn reaches(pool: &Pool, id: TaskId, state: TaskState) -> TaskRecord {
    wait_until(&format!("task {id} is {state}"), || pool.show(id).state == state);
    pool.show(id)
}

/// Cancels one task; says whether it could be done.
#[track_caller]
pub fn cancel(pool: &Pool, id: TaskId) -> bool {
    let reply = pool.call(&Cancel { ids: vec![TaskRef::Id(id)], ..Cancel::default() });
    assert_eq!(reply.cancelled.len() + reply.ended.len(), 1);
    reply.cancelled == [id]
}

/// Retries one task by hand; says whether it could be done.
#[track_caller]
pub fn retry(pool: &Pool, id: TaskId) -> bool {
    pool.call(&Retry { ids: vec![TaskRef::Id(id)] }).retried == [id]
}

/// Removes every ended task.
#[track_caller]
pub fn prune_everything(pool: &Pool) -> u64 {
    pool.call(&Prune::default()).tasks
}

/// The names of the events about a task, in their order.
pub fn events_of(events: &[EventRecord], id: TaskId) -> Vec<&str> {
    events.iter().filter(|event| event.task == Some(id)).map(|event| event.event.as_str()).collect()
}

/// The verdict of a task's last attempt, by name.
pub fn verdict(task: &TaskRecord) -> &str {
    task.verdict.as_deref().unwrap_or("none")
}

/// The only attempt of a task.
#[track_caller]
pub fn only_attempt(task: &TaskRecord) -> &acode::wire::types::AttemptRecord {
    match task.attempts.as_deref() {
        Some([only]) => only,
        other => panic!("one attempt is expected: {other:?}"),
    }
}
