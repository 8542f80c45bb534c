//! The jobserver: tasks with nested parallelism share the pool's slots, and what dies with a killed one comes back.
//!
//! Jobs leave a mark when they begin and one when they end, so the order of the marks says how many ran at once.
//! Deliberately absent: the sums (`supervisor::jobs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use acode_worker::task::{Submission, TaskId, TaskSpec, TaskState};
use command::Acode;
use common::{Options, Pool, shell, signal, wait_until};
use more::{cancel, entry, gated, open_gate, output_of};
use nix::sys::signal::Signal;

/// The protocol in a few lines of shell: `$fifo`, and `take` and `give` for one token.
const PROTOCOL: &str = r#"
fifo=${MAKEFLAGS##*--jobserver-auth=fifo:}; fifo=${fifo%% *}
take() { dd if="$fifo" of=/dev/null bs=1 count=1 2>/dev/null; }
give() { printf + >"$fifo"; }
"#;

/// A task that runs `$2` jobs: one by its own slot, the others as it gets tokens.
const JOBS: &str = r#"
job() { echo + >>"$1"; sleep 0.05; echo - >>"$1"; }
job "$1" &
n=1
while [ "$n" -lt "$2" ]; do take; { job "$1"; give; } & n=$((n+1)); done
wait
"#;

fn wanting(script: &str, arguments: &[&str]) -> TaskSpec {
    TaskSpec { jobserver: true, ..shell(&format!("{PROTOCOL}{script}"), arguments) }
}

fn slots(workers: u32, slots: u32) -> Options {
    Options::workers(workers).config(&format!("jobserver:\n  slots: {slots}\nworkers:\n  killGraceMs: 100"))
}

fn fifo(pool: &Pool) -> PathBuf {
    pool.state_dir().join("run/jobserver")
}

/// How many jobs ran at once at the most, and how many there were.
fn jobs(pool: &Pool) -> (usize, usize) {
    let (mut now, mut most, mut all) = (0, 0, 0);
    for line in pool.lines("marks") {
        match line.as_str() {
            "+" => (now, all) = (now + 1, all + 1),
            "-" => now -= 1,
            other => panic!("not a mark: '{other}'"),
        }
        most = most.max(now);
    }
    (most, all)
}

fn completes(pool: &Pool, id: TaskId) {
    let task = pool.wait(id);
    assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
}

#[test]
fn two_tasks_with_nested_jobs_never_exceed_the_slots_together() {
    let pool = Pool::start(slots(2, 4));
    let tasks: Vec<Submission> = (0..2).map(|_| entry(wanting(JOBS, &[&pool.path("marks"), "12"]))).collect();
    for id in pool.submit_all(tasks) {
        completes(&pool, id);
    }
    let (most, all) = jobs(&pool);
    assert_eq!(all, 24);
    assert!((2..=4).contains(&most), "{most} jobs at once");
}

#[test]
fn one_task_alone_has_all_slots_and_gives_one_up_for_each_busy_worker() {
    let pool = Pool::start(slots(3, 4));
    let id = pool.submit_spec(wanting("take && take && take && echo all; give; give; give", &[]));
    completes(&pool, id);
    // Two workers are busy with something else, so one token is left.
    let others: Vec<TaskId> = (0..2).map(|_| pool.submit_spec(gated(&pool, "gate"))).collect();
    others.iter().for_each(|id| drop(pool.worker_of(*id)));
    let id = pool.submit_spec(wanting(
        r#"take; touch "$1"; take; touch "$2"; give; give"#,
        &[&pool.path("first"), &pool.path("second")],
    ));
    wait_until("it has a token", || pool.file("first").exists());
    assert!(!pool.file("second").exists(), "there is no second one");
    open_gate(&pool, "gate");
    completes(&pool, id);
    assert!(pool.file("second").exists());
}

#[test]
fn tokens_that_died_with_a_task_come_back() {
    let pool = Pool::start(slots(1, 4));
    for round in 0..3 {
        let mark = pool.path(&format!("held-{round}"));
        let script = r#"take; take; take; touch "$1"; exec sleep 600"#;
        let id = pool.submit_spec(wanting(script, &[&mark]));
        wait_until("it holds all tokens", || PathBuf::from(&mark).exists());
        if round == 1 {
            // With its worker; the task runs again, and then it is cancelled like the others.
            let worker = pool.worker_of(id);
            std::fs::remove_file(&mark).unwrap();
            signal(worker.pid, Signal::SIGKILL);
            wait_until("its second attempt holds all tokens", || PathBuf::from(&mark).exists());
        }
        cancel(&pool, id);
        assert_eq!(pool.wait(id).state, TaskState::Cancelled);
    }
    completes(&pool, pool.submit_spec(wanting("take; take; take; give; give; give", &[])));
}

#[test]
fn only_who_wants_it_gets_it_and_only_then_is_it_there() {
    let mut pool = Pool::start(Options::workers(1));
    let say = r#"printf '%s|%s' "${MAKEFLAGS-none}" "${CARGO_MAKEFLAGS-none}""#;
    assert_eq!(output_of(&pool, shell(say, &[])), "none|none");
    assert!(!fifo(&pool).exists());
    let mut spec = TaskSpec { jobserver: true, ..shell(say, &[]) };
    spec.env.insert("MAKEFLAGS".to_owned(), "k".to_owned());
    let said = output_of(&pool, spec);
    let (make, cargo) = said.split_once('|').unwrap();
    assert_eq!(make, format!("k {cargo}"));
    let (jobs, auth) = cargo.split_once(' ').unwrap();
    assert!(jobs.strip_prefix("-j").unwrap().parse::<u32>().unwrap() >= 1, "{jobs}");
    assert_eq!(auth, format!("--jobserver-auth=fifo:{}", fifo(&pool).display()));
    let meta = std::fs::metadata(fifo(&pool)).unwrap();
    assert!(meta.file_type().is_fifo() && meta.permissions().mode() & 0o777 == 0o600);
    pool.stop();
    assert!(!fifo(&pool).exists());
    let other = Pool::start(slots(1, 7));
    assert!(fifo(&other).exists(), "it is there from the start where its slots are configured");
}

#[test]
fn a_pool_that_was_killed_makes_its_jobserver_anew() {
    let mut pool = Pool::start(slots(1, 3));
    let held = pool.path("held");
    let id =
        pool.submit_spec(wanting(r#"take; take; [ -e "$1" ] || { touch "$1"; sleep 600; }; give; give"#, &[&held]));
    wait_until("it holds the tokens", || PathBuf::from(&held).exists());
    pool.kill9();
    pool.restart();
    completes(&pool, id);
}

#[test]
fn the_command_line_and_task_files_ask_for_it() {
    let pool = Pool::start(slots(1, 5));
    let acode = Acode::of(&pool);
    let say = ["sh", "-c", "echo $MAKEFLAGS"];
    let id = acode.ok(&[&["task", "submit", "--jobserver", "--"][..], &say].concat());
    acode.ok(&["task", "wait", &id]);
    let expected = format!("-j5 --jobserver-auth=fifo:{}", fifo(&pool).display());
    assert_eq!(acode.ok(&["task", "logs", &id]), expected);
    let file = "defaults: {jobserver: true}\ntasks:\n  - command: [sh, -c, echo $MAKEFLAGS]\n  - {command: [sh, -c, 'echo ${MAKEFLAGS-none}'], jobserver: false}\n";
    let said = acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0);
    acode.ok(&["task", "wait", "--all"]);
    let logs: Vec<String> = said.out.lines().map(|id| acode.ok(&["task", "logs", id])).collect();
    assert_eq!(logs, [expected.as_str(), "none"]);
    // A pool for just one command has one, too.
    let private = Acode::without_state(&pool);
    let said = private.says(&[&["run", "--jobserver", "--"][..], &say].concat()).expect(0);
    assert!(said.out.contains(" --jobserver-auth=fifo:/"), "{said:?}");
}

/// Marks itself, as the jobs of the shell do.
const BUILD_SCRIPT: &str = r#"
use std::io::Write;
fn main() {
    let mark = |mark: &[u8]| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(env!("MARKS")).unwrap();
        file.write_all(mark).unwrap();
    };
    mark(b"+\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    mark(b"-\n");
}
"#;

#[test]
fn two_builds_by_cargo_share_the_slots() {
    let pool = Pool::start(slots(2, 2));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut tasks = Vec::new();
    for build in ["a", "b"] {
        let home = pool.file(build);
        for part in ["x", "y", "z"] {
            std::fs::create_dir_all(home.join(part)).unwrap();
            let name = format!("[package]\nname = \"{part}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n");
            std::fs::write(home.join(part).join("Cargo.toml"), format!("{name}[lib]\npath = \"lib.rs\"\n")).unwrap();
            std::fs::write(home.join(part).join("lib.rs"), "").unwrap();
            std::fs::write(home.join(part).join("build.rs"), BUILD_SCRIPT).unwrap();
        }
        std::fs::write(home.join("Cargo.toml"), "[workspace]\nmembers = [\"x\", \"y\", \"z\"]\nresolver = \"2\"\n")
            .unwrap();
        let mut spec = TaskSpec { jobserver: true, cwd: Some(pool.path(build)), ..TaskSpec::default() };
        spec.command = [cargo.as_str(), "build", "--offline", "--quiet"].map(str::to_owned).to_vec();
        spec.env.insert("MARKS".to_owned(), pool.path("marks"));
        for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            if let Ok(value) = std::env::var(name) {
                spec.env.insert(name.to_owned(), value);
            }
        }
        tasks.push(entry(spec));
    }
    for id in pool.submit_all(tasks) {
        completes(&pool, id);
    }
    // Each cargo would run as many at once as there are processors, were it by itself.
    let (most, all) = jobs(&pool);
    assert_eq!(all, 6);
    assert!(most <= 2, "{most} jobs at once");
}

/// Whether this program says that it has at least this version.
fn has(program: &str, least: (u32, u32)) -> bool {
    let Ok(said) = Command::new(program).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = version.unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= least
}

/// Runs two builds at once in one pool, each with 8 jobs, and asserts that they share four slots.
fn two_builds(command: &[&str], file: &str, rules: impl Fn(&str) -> String) {
    let pool = Pool::start(slots(2, 4));
    let job = format!("echo + >>{0}; sleep 0.1; echo - >>{0}", pool.path("marks"));
    let mut tasks = Vec::new();
    for build in ["a", "b"] {
        std::fs::create_dir(pool.file(build)).unwrap();
        std::fs::write(pool.file(build).join(file), rules(&job)).unwrap();
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        tasks.push(entry(TaskSpec { jobserver: true, command, cwd: Some(pool.path(build)), ..TaskSpec::default() }));
    }
    for id in pool.submit_all(tasks) {
        completes(&pool, id);
    }
    let (most, all) = jobs(&pool);
    assert_eq!(all, 16);
    assert!((2..=4).contains(&most), "{most} jobs at once");
}

#[test]
fn two_builds_by_ninja_share_the_slots() {
    if !has("ninja", (1, 13)) {
        return eprintln!("not run: there is no ninja 1.13 or newer here, which understands a fifo");
    }
    two_builds(&["ninja"], "build.ninja", |job| {
        let mut text = format!("rule job\n  command = {job}; touch $out\n");
        (0..8).for_each(|n| text += &format!("build out{n}: job\n"));
        text
    });
}

#[test]
fn two_builds_by_make_share_the_slots() {
    if !has("make", (4, 4)) {
        return eprintln!("not run: there is no GNU make 4.4 or newer here, which understands a fifo");
    }
    two_builds(&["make"], "Makefile", |job| {
        let all: Vec<String> = (0..8).map(|n| format!("out{n}")).collect();
        format!("all: {0}\n{0}:\n\t{job}\n.PHONY: all {0}\n", all.join(" "))
    });
}
