//! `acode run` through the real binary: the command's output and exit code, the verdict on a file, and that nothing is
//! left of the private pool however its client ends.
//!
//! Deliberately absent: the progress bar, which only a terminal gets to see.

#[path = "common/command.rs"]
mod command;
mod common;

use std::fs;

use command::{Acode, entries};
use common::{Options, Pool, leftovers, wait_until};
use nix::sys::signal::Signal;

/// A place for private pools: its temporary directory shows what they leave.
fn place() -> (Pool, Acode) {
    let home = Pool::prepare(Options::workers(1));
    fs::create_dir(home.file("tmp")).unwrap();
    let acode = Acode::without_state(&home).var("TMPDIR", home.path("tmp"));
    (home, acode)
}

/// Waits until neither a process nor a directory of a private pool is there.
#[track_caller]
fn assert_nothing_left(home: &Pool) {
    let temporary = home.file("tmp");
    wait_until("no process is left", || leftovers::processes_of(&temporary).is_empty());
    wait_until("no directory is left", || entries(&temporary).is_empty());
}

/// A shell script that says `ready`, and ends when the file `gate` exists.
fn waiting(home: &Pool) -> String {
    format!("echo ready; until test -e {}; do sleep 0.01; done; echo done", home.path("gate"))
}

#[test]
fn a_command_gives_its_output_and_its_exit_code() {
    let (home, acode) = place();
    let said = acode.says(&["run", "--count", "1", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).expect(7);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    assert_eq!(acode.ok(&["run", "--count", "1", "--", "printf", "no line end"]), "no line end");
    assert_nothing_left(&home);
}

#[test]
fn a_command_that_does_not_exit_gives_the_code_that_a_shell_would() {
    let (home, acode) = place();
    acode.says(&["run", "--count", "1", "--", "sh", "-c", "kill -9 $$"]).expect(137);
    let said = acode.says(&["run", "--count", "1", "--", "/no/such/program"]).expect(127);
    assert!(said.err.contains("/no/such/program"), "{said:?}");
    acode.says(&["run", "--count", "1", "--timeout", "200ms", "--", "sleep", "600"]).expect(124);
    assert_nothing_left(&home);
}

#[test]
fn a_file_succeeds_only_if_all_of_it_completed() {
    let (home, acode) = place();
    fs::write(
        home.file("good.yaml"),
        "tasks:\n  - {name: b, command: 'true', after: a}\n  - {name: a, command: 'true'}\n",
    )
    .unwrap();
    let said = acode.says(&["run", "--count", "2", "good.yaml"]).expect(0);
    assert!(said.err.contains("2 of 2 tasks completed"), "{said:?}");
    let lines =
        "{\"name\":\"a\",\"command\":\"false\"}\n{\"command\":\"true\",\"after\":\"a\"}\n{\"command\":\"true\"}\n";
    let said = acode.says_to(lines, &["run", "--count", "2", "-"]).expect(1);
    assert!(said.err.contains("1 of 3 tasks completed, 1 failed, 1 cancelled"), "{said:?}");
    let counts = acode.says_to(lines, &["run", "--json", "-"]).expect(1).out;
    let counts: serde_json::Value = serde_json::from_str(&counts).unwrap();
    assert_eq!((&counts["tasks"]["completed"], &counts["tasks"]["failed"]), (&1.into(), &1.into()));
    acode.says_to("tasks: [{comand: x}]\n", &["run", "-"]).expect(2);
    assert_nothing_left(&home);
}

#[test]
fn an_array_in_a_file_is_one_task_for_each_item() {
    let (home, acode) = place();
    let file = format!(
        "tasks:\n  - {{array: 1-50, command: [sh, -c, 'echo \"$1\" >>{}', sh, '{{item}}']}}\n",
        home.path("seen")
    );
    let said = acode.says_to(file, &["run", "-"]).expect(0);
    assert!(said.err.contains("50 of 50 tasks completed"), "{said:?}");
    let mut seen: Vec<u32> = home.lines("seen").iter().map(|line| line.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    assert_nothing_left(&home);
}

#[test]
fn an_action_gives_its_result_or_its_error() {
    let (home, acode) = place();
    let typed = ["run", "--count", "1", "--type", "computation", "--params"];
    let run = |params: &'static str| [&typed[..], &[params]].concat();
    let said = acode.says(&run(r#"{"operation": "primes", "to": 10}"#)).expect(0);
    let result: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&result["count"], said.err.as_str()), (&4.into(), ""));
    let task = acode.json(&run(r#"{"operation": "primes", "to": 10}"#));
    assert_eq!((&task["result"], &task["state"], &task["schema"]), (&result, &"completed".into(), &1.into()));
    let test = r#"{"operation": "test", "input": "/nope"}"#;
    let said = acode.says(&["run", "--count", "1", "--type", "compression", "--params", test]).expect(1);
    assert_eq!(said.out, "");
    assert!(said.err.starts_with("acode: compression: cannot read /nope"), "{said:?}");
    fs::write(home.file("rows.jsonl"), "{\"a\": 1}\n[1]\n").unwrap();
    let said = acode.says(&["run", "--type", "data_processing", "--params", r#"{"input": "rows.jsonl"}"#]).expect(1);
    assert!(said.err.contains("rows.jsonl:2: ") && said.err.contains("expected an object"), "{said:?}");
    assert!(!said.err.contains("column 0"), "{said:?}");
    // What it prints stands before the result; with --json the document is alone on standard output.
    fs::write(home.file("text"), "one\ntwo\n").unwrap();
    let search = r#"{"operation": "search", "input": "text", "pattern": "tw"}"#;
    let search = ["run", "--count", "1", "--type", "file_io", "--params", search];
    let said = acode.says(&search).expect(0);
    let (printed, result) = said.out.trim_end().rsplit_once('\n').unwrap();
    assert!(printed.contains("two") && result.starts_with('{'), "{said:?}");
    let said = acode.says(&[&["--json"], &search[..]].concat()).expect(0);
    let task: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(task["result"]["operation"] == "search" && said.err.contains("two"), "{said:?}");
    assert_nothing_left(&home);
}

#[test]
fn the_first_failures_of_a_file_are_named() {
    let (home, acode) = place();
    let file = "
tasks:
- {name: good, command: 'true'}
- {name: code, command: [sh, -c, 'exit 3']}
- {name: told, command: [sh, -c, 'printf \"disk gone\\nmore\" >$ACODE_ERROR; exit 1']}
- {type: compression, params: {operation: test, input: /nope}}
- {name: waits, command: 'true', after: code}
- {name: 'part {item}', array: 1-9, command: [sh, -c, 'kill -9 $$']}
";
    fs::write(home.file("t.yaml"), file).unwrap();
    let said = acode.says(&["run", "--count", "1", "t.yaml"]).expect(1);
    assert!(said.err.contains("acode: 1 of 14 tasks completed, 12 failed, 1 cancelled in "), "{said:?}");
    for line in [
        "acode: code (#2): exit 3\n",
        "acode: told (#3): exit 1: disk gone\n",
        "acode: compression (#4): exit 1: cannot read /nope",
        "acode: waits (#5): cancelled: dependency ",
        "acode: part 1 (#7): killed by SIGKILL\n",
        "acode: and 3 more without success\n",
    ] {
        assert!(said.err.contains(line), "{line}: {said:?}");
    }
    assert_eq!(said.err.lines().filter(|line| line.contains("(#")).count(), 10, "{said:?}");
    let said = acode.says(&["--json", "run", "--count", "1", "t.yaml"]).expect(1);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let failures = document["failures"].as_array().unwrap();
    let told = failures.iter().find(|task| task["name"] == "told").unwrap();
    assert_eq!((&told["verdict"], &told["exit_code"], failures.len()), (&"exited".into(), &1.into(), 10));
    assert_eq!((&told["number"], &told["error"]), (&3.into(), &"disk gone\nmore".into()));
    assert_nothing_left(&home);
}

#[test]
fn a_broken_file_runs_nothing() {
    let (home, acode) = place();
    let touch = format!("{{\"command\": \"touch {}\"}}\n", home.path("side"));
    let bad = "{\"type\": \"computation\", \"params\": {\"operation\": \"primes\", \"upto\": 9}}\n";
    let file = format!("{touch}{}{bad}", "{\"command\": \"true\"}\n".repeat(1_100));
    let said = acode.says_to(file, &["run", "--count", "1", "-"]).expect(2);
    assert!(said.err.starts_with("acode: standard input:1102:35: params of computation"), "{said:?}");
    assert!(!home.file("side").exists());
    assert_nothing_left(&home);
}

#[test]
fn an_interrupt_ends_the_command_and_leaves_nothing() {
    let (home, acode) = place();
    let running = acode.spawn(&["run", "--count", "1", "--", "sh", "-c", &waiting(&home)]);
    running.prints("ready\n");
    common::signal_when_heard(running.pid(), Signal::SIGINT);
    let said = running.finish().expect(130);
    assert_eq!(said.out, "ready\n");
    assert_nothing_left(&home);
}

#[test]
fn an_interrupt_lets_the_running_tasks_of_a_file_finish() {
    let (home, acode) = place();
    let script = waiting(&home).replace("echo ready", &format!("touch {}", home.path("ready")));
    fs::write(home.file("t.yaml"), format!("tasks:\n  - command: [sh, -c, '{script}']\n  - command: 'true'\n"))
        .unwrap();
    let running = acode.spawn(&["run", "--count", "1", "t.yaml"]);
    wait_until("the task runs", || home.file("ready").exists());
    common::signal_when_heard(running.pid(), Signal::SIGINT);
    wait_until("it says so", || running.err().contains("letting running tasks finish"));
    fs::write(home.file("gate"), "").unwrap();
    let said = running.finish().expect(130);
    assert!(said.err.contains("acode: "), "{said:?}");
    assert_nothing_left(&home);
}

#[test]
fn a_second_interrupt_kills_the_running_tasks() {
    let (home, acode) = place();
    let script = waiting(&home).replace("echo ready", &format!("touch {}", home.path("ready")));
    fs::write(home.file("t.yaml"), format!("tasks:\n  - command: [sh, -c, '{script}']\n")).unwrap();
    let running = acode.spawn(&["run", "--count", "1", "t.yaml"]);
    wait_until("the task runs", || home.file("ready").exists());
    common::signal_when_heard(running.pid(), Signal::SIGINT);
    wait_until("it says so", || running.err().contains("letting running tasks finish"));
    common::signal(running.pid(), Signal::SIGINT);
    running.finish().expect(130);
    assert_nothing_left(&home);
}

#[test]
fn a_killed_client_leaves_neither_process_nor_directory() {
    let (home, acode) = place();
    let running = acode.spawn(&["run", "--count", "2", "--", "sh", "-c", &waiting(&home)]);
    running.prints("ready\n");
    common::signal(running.pid(), Signal::SIGKILL);
    assert_nothing_left(&home);
}
