//! The whole programs of `docs/examples` that embed a pool do what they say.
//!
//! They are built with the tests, as all examples are, and are their own pools. Deliberately absent: the worker programs and
//! the libraries of that folder, which have tests of their own.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    Command::new(path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The processes of which a variable or an argument names the folder.
fn processes_about(folder: &Path) -> Vec<u32> {
    let named = |pid: &u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let read = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            text(&read).contains(&*folder.to_string_lossy())
        })
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(named).collect()
}

/// Runs it with a folder for temporary files of its own, in which nothing may be left.
fn run(mut command: Command) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = command.env("TMPDIR", folder.path()).stdin(Stdio::null()).output().unwrap();
    wait_until("no process of it is left", || processes_about(folder.path()).is_empty());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left: {left:?}");
    output
}

#[test]
fn the_file_processor_processes_files_and_tells_of_every_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (sources, output) = (folder.path().join("sources"), folder.path().join("output"));
    fs::create_dir_all(&sources).unwrap();
    let mut files: Vec<PathBuf> = (0..10).map(|n| sources.join(format!("{n}.txt"))).collect();
    files.iter().enumerate().for_each(|(n, file)| fs::write(file, format!("a{n}\nb\n")).unwrap());
    files.extend([sources.join("absent-1"), sources.join("absent-2")]);
    for flags in [&["--process"][..], &[]] {
        let _ = fs::remove_dir_all(&output);
        fs::create_dir(&output).unwrap();
        let mut command = example("file_processor");
        command.args(flags).arg(&output).args(&files);
        let said = run(command);
        let (out, err) = (text(&said.stdout), text(&said.stderr));
        assert_eq!((said.status.code(), out.lines().count()), (Some(1), 10), "{out}{err}");
        assert!(out.lines().all(|line| line.starts_with("2 lines in ")), "{out}");
        assert!(err.contains("2 of 12 tasks did not complete") && err.matches("No such file").count() == 2, "{err}");
        for n in 0..10 {
            assert_eq!(fs::read_to_string(output.join(format!("{n}.txt"))).unwrap(), format!("1\ta{n}\n2\tb\n"));
        }
        assert_eq!(fs::read_dir(&output).unwrap().count(), 10);
    }
    let nothing = run(example("file_processor"));
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text(&nothing.stderr).contains("usage: "));
}

#[test]
fn the_worker_manager_runs_its_twenty_tasks_and_the_aggregate_and_shuts_down() {
    let said = run(example("worker_manager"));
    let (out, err) = (text(&said.stdout), text(&said.stderr));
    assert!(said.status.success(), "{out}{err}");
    assert_eq!(err, "");
    let count = |what: &dyn Fn(&str) -> bool| out.lines().filter(|line| what(line)).count();
    assert_eq!(count(&|line| line.ends_with(" processed 1000 items")), 20, "{out}");
    assert_eq!(count(&|line| line.starts_with("Task ") && line.ends_with(" completed")), 21, "{out}");
    assert_eq!(count(&|line| line.starts_with("Aggregate result: 10000 rows, mean value 499.5")), 1, "{out}");
    for line in ["Submitted 20 tasks", "Total tasks: 21", "Completed: 21", "Failed: 0", "Worker manager shut down"] {
        assert_eq!(count(&|other| other == line), 1, "{line}: {out}");
    }
}

/// The service at work, and what goes in and out.
struct Service {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Service {
    fn start(folder: &Path) -> Self {
        let mut command = example("service");
        // By which processes of it are known.
        command.env("EXAMPLE_FOLDER", folder);
        let mut child = command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Gives it work, and waits until it has accepted it.
    fn give(&mut self, work: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{work}").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), format!("accepted {work}"));
    }

    fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

fn results(folder: &Path) -> Vec<String> {
    let mut lines: Vec<String> =
        fs::read_to_string(folder.join("results")).unwrap_or_default().lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn wait_for_all(folder: &Path, count: usize) {
    let expected: Vec<String> = (0..count).map(|n| format!("{n:03}").chars().rev().collect()).collect();
    wait_until("every result is there", || {
        let found = results(folder);
        expected.iter().all(|line| found.contains(line))
    });
    assert_eq!(results(folder).len(), count);
}

#[test]
fn the_service_loses_nothing_when_it_is_killed_and_stops_in_peace() {
    let folder = tempfile::tempdir().unwrap();
    let mut given = 0;
    let mut give = |service: &mut Service, count: usize| {
        for _ in 0..count {
            service.give(&format!("{given:03}"));
            given += 1;
        }
    };
    for _ in 0..3 {
        let mut service = Service::start(folder.path());
        give(&mut service, 20);
        service.end(Signal::SIGKILL);
        // Its pool ends with it, and lets go of the queue; the next start waits for that.
    }
    let mut service = Service::start(folder.path());
    give(&mut service, 5);
    wait_for_all(folder.path(), 65);
    give(&mut service, 10);
    assert!(service.end(Signal::SIGTERM).success());
    assert!(processes_about(folder.path()).is_empty());
    let after_stop = results(folder.path()).len();
    let service = Service::start(folder.path());
    wait_for_all(folder.path(), 75);
    assert!(service.end(Signal::SIGINT).success());
    assert!((65..=75).contains(&after_stop), "{after_stop}");
    assert!(processes_about(folder.path()).is_empty());
}
