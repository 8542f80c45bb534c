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
fn an_interrupt_ends_the_command_and_leaves_nothing() {
    let (home, acode) = place();
    let running = acode.spawn(&["run", "--count", "1", "--", "sh", "-c", &waiting(&home)]);
    running.prints("ready\n");
    common::signal(running.pid(), Signal::SIGINT);
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
    common::signal(running.pid(), Signal::SIGINT);
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
    common::signal(running.pid(), Signal::SIGINT);
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
