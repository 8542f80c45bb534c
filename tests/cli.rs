//! The command line through the real binary: exit codes, what is printed, and what the queue holds afterwards.
//!
//! Deliberately absent: `acode run`, which has `run.rs`, and what single options do to a task, which the tests of the
//! pool show.

#[path = "common/command.rs"]
mod command;
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use acode_worker::task::TaskId;
use command::Acode;
use common::{Options, PATIENCE, Pool, eventually, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A command that runs until the file `$1` exists.
const UNTIL: [&str; 5] = ["--", "sh", "-c", "until test -e \"$1\"; do sleep 0.01; done; echo two", "sh"];

/// A task that ends when the pool's file `gate` exists.
fn submit_waiting(pool: &Pool, acode: &Acode) -> String {
    let gate = pool.path("gate");
    acode.ok(&[&["task", "submit"], &UNTIL[..], &[&gate]].concat())
}

fn open_gate(pool: &Pool) {
    fs::write(pool.file("gate"), "").unwrap();
}

fn states(acode: &Acode) -> Vec<String> {
    let list = acode.json(&["task", "list"]);
    list.as_array().unwrap().iter().map(|task| task["state"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_has(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no '{key}' in {value:#}");
    }
}

// Exit codes.

#[test]
fn success_is_zero_and_a_task_that_failed_is_one() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let (good, bad) = (acode.ok(&["task", "submit", "--", "true"]), acode.ok(&["task", "submit", "--", "false"]));
    acode.says(&["task", "wait", &good]).expect(0);
    let said = acode.says(&["task", "wait", &good, &bad]).expect(1);
    assert!(said.err.contains(&bad) && !said.err.contains(&good), "{said:?}");
}

#[test]
fn wrong_usage_is_two() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    for arguments in [&["task", "list", "--nonsense"][..], &["nonsense"], &[], &["task", "show", "name:"]] {
        let said = acode.says(arguments).expect(2);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{said:?}");
    }
    acode.says(&["task", "submit", "--file", "/no/such/file"]).expect(2);
    acode.says(&["task", "submit", "--stdin", "/no/such/file", "--", "cat"]).expect(2);
}

#[test]
fn a_broken_task_file_names_line_and_column_and_submits_nothing() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    acode.ok(&["task", "submit", "--", "true"]);
    fs::write(pool.file("t.yaml"), "tasks:\n  - command: 'true'\n  - comand: 'true'\n").unwrap();
    let said = acode.says(&["task", "submit", "--file", "t.yaml"]).expect(2);
    assert!(said.err.contains("t.yaml:3:5") && said.err.contains("'command'"), "{said:?}");
    let lines = "{\"command\":\"true\"}\n{\"command\":\"true\"}\n{\"command\": 5, }\n";
    let said = acode.says_to(lines, &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains("standard input:3:"), "{said:?}");
    fs::write(pool.file("c.yaml"), "tasks:\n- {name: a, command: x, after: b}\n- {name: b, command: x, after: a}\n")
        .unwrap();
    acode.says(&["task", "submit", "--file", "c.yaml"]).expect(2);
    assert_eq!(states(&acode), ["pending"]);
}

#[test]
fn a_wrong_configuration_names_file_line_column_and_the_nearest_key() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    fs::write(pool.file("bad.yaml"), "workers:\n  cuont: 2\n").unwrap();
    let said = acode.says(&["worker", "start", "--config", "bad.yaml"]).expect(2);
    assert!(said.err.contains("bad.yaml:2:3") && said.err.contains("count"), "{said:?}");
    fs::write(pool.file("bad.yaml"), "workers:\n  count: many\n").unwrap();
    let said = acode.says(&["worker", "start", "--config", "bad.yaml"]).expect(2);
    assert!(said.err.contains("bad.yaml:2:10"), "{said:?}");
}

#[test]
fn without_a_pool_what_needs_one_is_three() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--", "true"]);
    for arguments in [
        &["worker", "status"][..],
        &["worker", "list"],
        &["worker", "scale", "2"],
        &["worker", "stop"],
        &["task", "wait", &id],
        &["task", "wait", "--all"],
        &["events", "--follow"],
    ] {
        let said = acode.says(arguments).expect(3);
        assert!(said.err.contains("acode worker start"), "{said:?}");
    }
    let empty = Pool::prepare(Options::workers(1));
    Acode::of(&empty).says(&["task", "list"]).expect(3);
}

#[test]
fn an_unknown_task_is_four() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for id in ["999", "01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        for command in ["show", "logs", "why", "cancel", "retry", "wait"] {
            acode.says(&["task", command, id]).expect(4);
        }
        acode.says(&["task", "submit", "--after", id, "--", "true"]).expect(4);
    }
}

#[test]
fn a_full_queue_has_its_own_exit_code() {
    let mut pool = Pool::prepare(Options::workers(1).config("queue:\n  maxTasks: 2"));
    let acode = Acode::of(&pool);
    let submit = ["task", "submit", "--", "sleep", "600"];
    acode.ok(&submit);
    acode.ok(&submit);
    let said = acode.says(&submit).expect(5);
    assert!(said.out.is_empty() && said.err.contains("queue.maxTasks"), "{said:?}");
    pool.restart();
    acode.says(&["task", "submit", "--no-wait", "--", "sleep", "600"]).expect(5);
    assert_eq!(states(&acode).len(), 2);
}

#[test]
fn a_held_state_directory_is_six_and_names_the_holder() {
    let pool = Pool::start(Options::workers(1));
    for more in [&["worker", "start"][..], &["worker", "start", "--detach"]] {
        let said = Acode::of(&pool).says(more).expect(6);
        assert!(said.err.contains(&pool.pid().to_string()), "{said:?}");
    }
}

// Submitting.

#[test]
fn submit_prints_the_id_alone() {
    let mut pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let said = acode.says(&["task", "submit", "--name", "early", "--", "echo", "hello"]).expect(0);
    assert!(said.err.is_empty() && said.out.ends_with('\n'), "{said:?}");
    let id = said.out.trim_end().to_owned();
    id.parse::<TaskId>().unwrap();
    assert!(acode.ok(&["task", "list"]).contains(&id), "it is in the queue without a pool");
    pool.restart();
    acode.ok(&["task", "wait", &id]);
    assert_eq!(acode.ok(&["task", "logs", &id]), "hello");
    assert_eq!(acode.json(&["task", "submit", "--", "true"])["ids"].as_array().unwrap().len(), 1);
}

#[test]
fn tasks_are_named_by_id_prefix_and_number() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let ids: Vec<String> = (0..2).map(|_| acode.ok(&["task", "submit", "--", "true"])).collect();
    let shown = |name: &str| acode.json(&["task", "show", name])["id"].as_str().unwrap().to_owned();
    assert_eq!((shown(&ids[0]), shown("1"), shown("2")), (ids[0].clone(), ids[0].clone(), ids[1].clone()));
    let shared = ids[0].chars().zip(ids[1].chars()).take_while(|(a, b)| a == b).count();
    assert_eq!(shown(&ids[1][..=shared]), ids[1]);
    if shared > 0 {
        acode.says(&["task", "show", &ids[0][..shared]]).expect(2);
    }
}

#[test]
fn files_are_yaml_or_json_lines_from_a_path_or_standard_input() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let yaml = "tasks:\n  - {name: last, command: 'true', after: first}\n  - {name: first, command: [echo, x]}\n";
    let lines = "{\"name\":\"a\",\"command\":\"true\"}\n\n{\"name\":\"b\",\"command\":[\"true\"],\"after\":\"a\"}\n";
    for (name, text) in [("t.yaml", yaml), ("t.jsonl", lines)] {
        fs::write(pool.file(name), text).unwrap();
        assert_eq!(acode.ok(&["task", "submit", "--file", name]).lines().count(), 2);
        let said = acode.says_to(text, &["task", "submit", "--file", "-"]).expect(0);
        assert_eq!(said.out.lines().count(), 2);
    }
    assert_eq!(states(&acode).len(), 8);
}

#[test]
fn a_hundred_thousand_json_lines_are_accepted_in_bounded_memory() {
    const TASKS: usize = 100_000;
    const MEMORY_KB: u64 = 64 << 10;
    let pool = Pool::start(Options::workers(1));
    let line =
        "{\"name\":\"bulk\",\"command\":[\"true\"],\"delay\":\"1h\",\"meta\":{\"note\":\"a line like others\"}}\n";
    let command = Acode::of(&pool).command(&["task", "submit", "--file", "-"]);
    let mut running = command::Running::new(command, Some(line.repeat(TASKS).into_bytes()));
    let mut peak = 0;
    wait_until("all are submitted", || {
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|high| high.trim().trim_end_matches(" kB").parse().ok());
        peak = high.unwrap_or(0).max(peak);
        running.has_ended()
    });
    let said = running.finish();
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.out.lines().collect::<BTreeSet<_>>().len(), TASKS);
    assert_eq!(pool.status().tasks.pending, TASKS as u64);
    assert!((1..MEMORY_KB).contains(&peak), "it took {peak} KiB");
}

#[test]
fn an_array_is_one_record() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--array", "1-1000000", "--delay", "1h", "--", "echo", "{item}"]);
    let list = acode.json(&["task", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((list[0]["id"].as_str(), list[0]["array"]["count"].as_u64()), (Some(id.as_str()), Some(1_000_000)));
    let said = acode.says(&["task", "cancel", &id]).expect(0);
    assert_eq!(said.out.trim_end(), id);
    assert_eq!(states(&acode), ["cancelled"]);
}

// Looking.

#[test]
fn worker_status_has_the_form_of_the_specification() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    pool.idle_workers();
    let id = submit_waiting(&pool, &acode);
    pool.worker_of(id.parse().unwrap());
    let text = acode.ok(&["worker", "status"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["Worker Pool Status", "==================", "Mode: process", "Active: 2"], "{text}");
    let workers: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("  - worker-")).collect();
    assert_eq!(workers.len(), 2, "{text}");
    assert_eq!(workers.iter().filter(|line| line.ends_with(&format!(": busy (task {id})"))).count(), 1, "{text}");
    assert_eq!(workers.iter().filter(|line| line.ends_with(": idle")).count(), 1, "{text}");
    assert!(lines.contains(&"Queue: 0 pending, 1 running"), "{text}");
    let resources = lines.last().unwrap();
    assert!(resources.starts_with("Resources: CPU ") && resources.contains("%, Memory "), "{text}");
    open_gate(&pool);
    acode.ok(&["task", "wait", &id]);
}

#[test]
fn worker_status_as_json_has_every_field() {
    let pool = Pool::start(Options::workers(2));
    let status = Acode::of(&pool).json(&["worker", "status"]);
    assert_has(&status, &["schema", "pool", "workers", "tasks", "resources"]);
    assert_has(&status["pool"], &["name", "id", "pid", "state", "mode", "started_at"]);
    let workers = ["active", "starting", "idle", "busy", "unhealthy", "stopping", "target", "min", "max", "scaling"];
    assert_has(&status["workers"], &workers);
    let states = ["pending", "assigned", "running", "completed", "failed", "cancelled", "timeout"];
    assert_has(&status["tasks"], &states);
    assert_has(&status["resources"], &["cpu_percent", "memory_bytes"]);
    assert_eq!(status["pool"]["pid"], pool.pid());
}

#[test]
fn worker_list_names_every_worker() {
    let pool = Pool::start(Options::workers(3));
    let workers = pool.idle_workers();
    let text = Acode::of(&pool).ok(&["worker", "list"]);
    assert_eq!(text.lines().count(), 1 + workers.len());
    for worker in workers {
        let line = text.lines().find(|line| line.contains(&worker.id.to_string())).unwrap();
        assert!(line.contains(&worker.pid.to_string()) && line.contains("idle"), "{line}");
    }
}

#[test]
fn worker_list_as_json_has_every_field() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let bad = acode.ok(&["task", "submit", "--", "false"]);
    acode.says(&["task", "wait", &bad]).expect(1);
    pool.idle_workers();
    let list = acode.json(&["worker", "list"]);
    let keys = ["id", "pid", "status", "mode", "current_task", "started_at", "last_heartbeat_at", "tasks_completed"];
    assert_has(&list[0], &keys);
    assert_has(&list[0], &["tasks_failed", "healthy", "schema"]);
    assert_eq!((list[0]["tasks_failed"].as_u64(), list[0]["healthy"].as_bool()), (Some(1), Some(true)));
}

#[test]
fn task_show_as_json_has_every_field() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--", "sh", "-c", "echo '{\"n\": 1}' >\"$ACODE_RESULT\""]);
    acode.ok(&["task", "wait", &id]);
    let task = acode.json(&["task", "show", &id]);
    assert_has(&task, &["schema", "id", "name", "state", "verdict", "exit_code", "signal", "error", "result"]);
    assert_has(&task, &["priority", "progress", "submitted_at", "started_at", "finished_at", "attempts"]);
    let attempt = ["number", "worker", "verdict", "isolation", "usage", "started_at", "finished_at", "leaked"];
    assert_has(&task["attempts"][0], &attempt);
    assert_eq!((&task["result"]["n"], &task["state"]), (&Value::from(1), &Value::from("completed")));
    assert!(acode.ok(&["task", "show", &id]).contains("completed"));
}

#[test]
fn every_document_has_its_schema() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for arguments in [
        &["task", "submit", "--", "echo", "x"][..],
        &["task", "wait", "1"],
        &["task", "why", "1"],
        &["task", "show", "1"],
        &["logs"],
        &["worker", "status"],
        &["worker", "scale", "2"],
        &["task", "submit", "--delay", "1h", "--", "true"],
        &["task", "cancel", "2"],
        &["task", "retry", "2"],
        &["task", "prune", "--older-than", "1h"],
    ] {
        let document = acode.json(arguments);
        assert!(document.is_object() && document["schema"] == 1, "{arguments:?}: {document:#}");
    }
    for list in [&["task", "list"], &["worker", "list"]] {
        assert_eq!(acode.json(list)[0]["schema"], 1);
    }
}

#[test]
fn every_help_goes_to_standard_output_and_says_something() {
    let pool = Pool::prepare(Options::workers(1));
    for command in COMMANDS {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let said = Acode::of(&pool).says(&words).expect(0);
        assert!(said.err.is_empty() && said.out.contains("Usage: acode"), "{command}: {said:?}");
    }
}

/// Every command there is.
const COMMANDS: [&str; 28] = [
    "",
    "worker",
    "worker start",
    "worker status",
    "worker list",
    "worker metrics",
    "worker scale",
    "worker reload",
    "worker check",
    "worker stop",
    "task",
    "task submit",
    "task list",
    "task show",
    "task logs",
    "task artifacts",
    "task fetch",
    "task why",
    "task cancel",
    "task retry",
    "task wait",
    "task prune",
    "run",
    "logs",
    "events",
    "completions",
    "man",
    "doctor",
];

// Output.

#[test]
fn logs_are_what_the_task_wrote_and_standard_error_can_be_had_alone() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--name", "talk", "--", "sh", "-c", "printf 'a\\nb'; echo oops >&2"]);
    acode.ok(&["task", "wait", &id]);
    let said = acode.says(&["task", "logs", &id]).expect(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("a\nb", "oops\n"));
    let said = acode.says(&["task", "logs", "--stderr", &id]).expect(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("oops\n", ""));
}

#[test]
fn the_pools_logs_show_each_line_with_its_tasks_name() {
    let mut pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    acode.ok(&["task", "submit", "--name", "left", "--", "sh", "-c", "echo one; echo two"]);
    acode.ok(&["task", "submit", "--name", "right", "--", "sh", "-c", "echo oops >&2"]);
    acode.ok(&["task", "wait", "--all"]);
    let expected = BTreeSet::from(["left#1 | one", "left#1 | two", "right#2 ! oops"]);
    assert_eq!(acode.ok(&["logs"]).lines().collect::<BTreeSet<_>>(), expected);
    assert_eq!(acode.ok(&["logs", "--stderr"]), "right#2 ! oops");
    pool.stop();
    assert_eq!(acode.ok(&["logs"]).lines().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn following_a_task_shows_what_comes_and_ends_with_it() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let script = "echo one; until test -e \"$1\"; do sleep 0.01; done; echo two";
    let id = acode.ok(&["task", "submit", "--", "sh", "-c", script, "sh", &pool.path("gate")]);
    let mut follower = acode.spawn(&["task", "logs", "-f", &id]);
    let pooled = acode.spawn(&["logs", "-f", "--since", "1h"]);
    follower.prints("one\n");
    assert!(!follower.has_ended(), "the task has not ended");
    open_gate(&pool);
    assert_eq!(follower.finish().expect(0).out, "one\ntwo\n");
    pooled.prints("| two\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = acode.ok(&["task", "submit", "--", "seq", "1", "200000"]);
    acode.ok(&["task", "wait", &id]);
    let mut command = acode.command(&["task", "logs", &id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = eventually(PATIENCE, || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(ended && output.status.success(), "{output:?}");
    assert_eq!((line.as_str(), output.stderr.as_slice()), ("1\n", &b""[..]));
}

#[test]
fn events_follow_what_happens() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let follower = acode.spawn(&["events", "--follow"]);
    let id = acode.ok(&["task", "submit", "--", "true"]);
    follower.prints("\"task-completed\"");
    common::signal(follower.pid(), Signal::SIGTERM);
    let said = follower.finish();
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_task = events.iter().filter(|event| event["task"] == id.as_str()).map(|event| event["event"].clone());
    assert_eq!(of_task.collect::<Vec<_>>(), ["task-submitted", "task-assigned", "task-started", "task-completed"]);
    assert_has(&events[0], &["schema", "seq", "at", "event"]);
    assert!(acode.ok(&["events", "--since", "1h"]).contains("task-completed"));
}

// Changing.

#[test]
fn cancel_why_retry_and_prune_do_what_they_say() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let running = submit_waiting(&pool, &acode);
    pool.worker_of(running.parse().unwrap());
    let waiting = acode.ok(&["task", "submit", "--after", &running, "--", "true"]);
    let behind = acode.ok(&["task", "submit", "--", "true"]);
    let why = acode.json(&["task", "why", &waiting]);
    assert_eq!((&why["state"], &why["waiting"]["kind"]), (&Value::from("pending"), &Value::from("dependencies")));
    assert!(acode.ok(&["task", "why", &waiting]).contains('1'), "the task that it waits for is named");
    assert_eq!(acode.ok(&["task", "cancel", &behind]), behind);
    let said = acode.says(&["task", "cancel", &behind]).expect(1);
    assert!(said.out.is_empty() && said.err.contains("has ended already"), "{said:?}");
    assert_eq!(acode.ok(&["task", "retry", &behind]), behind);
    acode.says(&["task", "retry", &running]).expect(1);
    open_gate(&pool);
    acode.ok(&["task", "wait", "--all"]);
    assert!(acode.ok(&["task", "prune", "--keep", "1"]).starts_with("2 tasks removed"));
    assert_eq!(acode.json(&["task", "prune"])["tasks"], 1);
    assert_eq!(acode.json(&["task", "list"]), Value::Array(Vec::new()));
}

#[test]
fn wait_all_tells_whether_every_task_completed() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    acode.ok(&["task", "wait", "--all"]);
    let id = submit_waiting(&pool, &acode);
    let mut wait = acode.spawn(&["task", "wait", "--all"]);
    pool.worker_of(id.parse().unwrap());
    assert!(!wait.has_ended(), "a task runs");
    open_gate(&pool);
    wait.finish().expect(0);
    // It cannot have ended before it is waited for.
    acode.ok(&["task", "submit", "--delay", "3s", "--", "false"]);
    acode.says(&["task", "wait", "--all"]).expect(1);
}

#[test]
fn every_command_of_the_specification_works() {
    let mut pool = Pool::prepare(Options::workers(2));
    let acode = Acode::of(&pool);
    let said = acode.says(&["worker", "start", "--detach", "--count", "2", "--mode", "process"]).expect(0);
    assert!(said.out.is_empty() && said.err.contains("is up"), "{said:?}");
    assert!(acode.ok(&["worker", "status"]).contains("Active: "));
    assert_eq!(acode.ok(&["worker", "scale", "3"]), "workers: 2 -> 3");
    wait_until("there are three", || acode.json(&["worker", "list"]).as_array().unwrap().len() == 3);
    assert_eq!(acode.json(&["worker", "stop"])["stopped"], true);
    acode.says(&["worker", "status"]).expect(3);
    assert_eq!(pool.leftovers(), Vec::<String>::new());
    pool.restart();
}

#[test]
fn a_forced_stop_and_one_whose_time_is_up_put_running_tasks_back() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = submit_waiting(&pool, &acode);
    for how in [&["worker", "stop", "--force"][..], &["worker", "stop", "--timeout", "200ms"]] {
        pool.worker_of(id.parse().unwrap());
        acode.says(how).expect(0);
        assert!(pool.wait_exit().success());
        assert_eq!(states(&acode), ["pending"]);
        pool.restart();
    }
    open_gate(&pool);
    acode.ok(&["task", "wait", &id]);
}

#[test]
fn a_stop_when_empty_runs_the_queue_first() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    submit_waiting(&pool, &acode);
    acode.ok(&["task", "submit", "--", "true"]);
    let stop = acode.spawn(&["worker", "stop", "--when-empty"]);
    open_gate(&pool);
    stop.finish().expect(0);
    assert!(pool.wait_exit().success());
    assert_eq!(states(&acode), ["completed", "completed"]);
}

// The manual.

#[test]
fn the_manual_has_every_command_option_and_key() {
    let pool = Pool::prepare(Options::workers(1));
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manual.md")).unwrap();
    let mut missing = Vec::new();
    for key in acode::config::reference() {
        let allowed = key.allowed.trim_end_matches(',');
        let row = format!("| `{}` | `{}` | {allowed} | `{}` | {} |", key.path, key.default, key.variable, key.meaning);
        if !manual.contains(&row) {
            missing.push(row);
        }
    }
    for command in COMMANDS {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = Acode::of(&pool).ok(&words);
        // The lines of the options; an example may show some of the task's own.
        let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_lowercase() && c != '-'));
        let options = words.filter(|word| word.len() > 2 && word.starts_with("--"));
        missing.extend(options.filter(|option| !manual.contains(&format!("`{option}"))).map(str::to_owned));
        if !manual.contains(&format!("acode {command}")) {
            missing.push(command.to_owned());
        }
    }
    missing.sort_unstable();
    missing.dedup();
    assert!(missing.is_empty(), "not in the manual:\n{}", missing.join("\n"));
}
