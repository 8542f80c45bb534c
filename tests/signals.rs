//! What the supervisor does when it is sent a signal.
//!
//! Deliberately absent: SIGKILL, after which recovery begins (`recovery.rs`), and signals to workers.

mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use acode_worker::task::{TaskSpec, TaskState};
use common::{Options, Pool, shell, signal, wait_until};
use more::{command, gated, open_gate, output_of, reaches};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A pool with one task that ends when the gate is opened, and does not care for SIGTERM.
fn working() -> (Pool, acode_worker::task::TaskId) {
    let pool = Pool::start(Options::workers(1));
    let script = r#"trap "" TERM INT; while [ ! -e "$1" ]; do sleep 0.02; done"#;
    let id = pool.submit_spec(shell(script, &[&pool.path("gate")]));
    reaches(&pool, id, TaskState::Running);
    (pool, id)
}

fn drains_on(which: impl Fn(&Pool)) {
    let (mut pool, id) = working();
    which(&pool);
    wait_until("it drains", || pool.status().pool.state == acode::wire::types::PoolState::Draining);
    assert_eq!(pool.show(id).state, TaskState::Running);
    open_gate(&pool, "gate");
    assert!(pool.wait_exit().success());
    pool.restart();
    assert_eq!((pool.wait(id).state, pool.show(id).attempt_count), (TaskState::Completed, 1));
}

#[test]
fn term_drains() {
    drains_on(|pool| signal(pool.pid(), Signal::SIGTERM));
}

#[test]
fn int_drains() {
    drains_on(|pool| signal(pool.pid(), Signal::SIGINT));
}

#[test]
fn int_from_a_terminal_reaches_the_supervisor_alone() {
    // A terminal sends it to the whole foreground group.
    drains_on(|pool| killpg(Pid::from_raw(pool.pid() as i32), Signal::SIGINT).unwrap());
}

fn forces_on(which: &[Signal]) {
    let (mut pool, id) = working();
    for (index, each) in which.iter().enumerate() {
        if index > 0 {
            wait_until("the first has had its effect", || pool.log().contains("running tasks may finish"));
        }
        signal(pool.pid(), *each);
    }
    let began = Instant::now();
    assert!(pool.wait_exit().success());
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for a task that never ends");
    open_gate(&pool, "gate");
    pool.restart();
    let task = pool.wait(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "put back, and run again");
}

#[test]
fn a_second_int_forces() {
    forces_on(&[Signal::SIGINT, Signal::SIGINT]);
}

#[test]
fn quit_forces() {
    forces_on(&[Signal::SIGQUIT]);
}

#[test]
fn a_second_term_is_not_force() {
    drains_on(|pool| {
        signal(pool.pid(), Signal::SIGTERM);
        wait_until("the first has had its effect", || pool.log().contains("running tasks may finish"));
        signal(pool.pid(), Signal::SIGTERM);
    });
}

#[test]
fn ttin_and_ttou_add_and_remove_a_worker() {
    let pool = Pool::start(Options::workers(1).config("workers:\n  maxCount: 2"));
    let becomes = |count: usize| wait_until("the number of workers follows", || pool.workers().len() == count);
    pool.idle_workers();
    signal(pool.pid(), Signal::SIGTTIN);
    becomes(2);
    signal(pool.pid(), Signal::SIGTTIN);
    signal(pool.pid(), Signal::SIGTTOU);
    becomes(1);
    signal(pool.pid(), Signal::SIGTTOU);
    let id = pool.submit(&["true"]);
    pool.wait(id);
    assert_eq!((pool.status().workers.target, pool.workers().len()), (1, 1), "never fewer than one");
}

/// The pool's own command, without `--count`: a flag outweighs the file for ever.
fn start_by_file(pool: &Pool) -> Child {
    let usual = pool.command();
    let mut arguments: Vec<_> = usual.get_args().map(ToOwned::to_owned).collect();
    let at = arguments.iter().position(|argument| argument == "--count").unwrap();
    arguments.drain(at..at + 2);
    let log = fs::OpenOptions::new().create(true).append(true).open(pool.file("stderr")).unwrap();
    let mut command = Command::new(usual.get_program());
    command.args(arguments).stdin(std::process::Stdio::null()).stderr(log);
    let child = command.spawn().unwrap();
    wait_until("the pool listens", || acode::wire::Client::connect(&pool.socket()).is_ok());
    child
}

fn configure(pool: &Pool, yaml: &str) {
    fs::write(pool.file("acode.yaml"), yaml).unwrap();
}

#[test]
fn hup_reloads_the_configuration() {
    let mut pool = Pool::prepare(Options::workers(1));
    configure(&pool, "workers:\n  count: 1\n");
    let mut child = start_by_file(&pool);
    assert_eq!(pool.status().workers.target, 1);
    let busy = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, busy, TaskState::Running);

    configure(&pool, "workers:\n  count: 3\n  umask: '022'\ntasks:\n  environment:\n    set: { NEW: value }\n");
    signal(child.id(), Signal::SIGHUP);
    wait_until("the number of workers follows", || pool.workers().len() == 3);
    open_gate(&pool, "gate");
    assert_eq!(pool.wait(busy).attempt_count, 1, "running tasks are left alone");
    for _ in 0..10 {
        let text = output_of(&pool, shell("echo $NEW; umask", &[]));
        assert_eq!(
            text.trim_start_matches("value\n").trim().trim_start_matches('0'),
            "22",
            "old workers follow as well"
        );
    }
    assert!(pool.events().iter().any(|event| event.event == "pool-reloaded"));

    configure(&pool, "workers:\n  count: many\n");
    signal(child.id(), Signal::SIGHUP);
    wait_until("it says so", || pool.log().contains("the old one stays"));
    assert!(pool.log().contains("workers.count"), "and names the key:\n{}", pool.log());
    assert_eq!(pool.status().workers.target, 3);
    assert_eq!(output_of(&pool, shell("echo $NEW", &[])), "value\n");

    signal(child.id(), Signal::SIGTERM);
    assert!(child.wait().unwrap().success());
    configure(&pool, "log:\n  level: debug\n");
    pool.restart();
}

#[test]
fn hup_follows_the_level_of_the_log() {
    let mut pool = Pool::prepare(Options::workers(1));
    configure(&pool, "log:\n  level: warn\n");
    let mut child = start_by_file(&pool);
    assert!(!pool.log().contains("pool started"), "nothing is told at warn:\n{}", pool.log());
    configure(&pool, "log:\n  level: debug\n");
    signal(child.id(), Signal::SIGHUP);
    wait_until("it says so", || pool.log().contains("configuration read again"));
    signal(child.id(), Signal::SIGTERM);
    assert!(child.wait().unwrap().success());
    wait_until("debug lines are told", || pool.log().contains("worker has left"));
    pool.restart();
}

#[test]
fn hup_does_not_undo_what_was_scaled_by_hand() {
    let mut pool = Pool::prepare(Options::workers(1));
    configure(&pool, "workers:\n  count: 1\n");
    let mut child = start_by_file(&pool);
    pool.call(&acode::wire::request::Scale { count: 2 });
    signal(child.id(), Signal::SIGHUP);
    wait_until("it is read", || pool.events().iter().any(|event| event.event == "pool-reloaded"));
    assert_eq!(pool.status().workers.target, 2);
    signal(child.id(), Signal::SIGTERM);
    assert!(child.wait().unwrap().success());
    pool.restart();
}

#[test]
fn usr1_opens_the_log_anew() {
    let pool = Pool::start(Options::workers(1).config("  file: acode.log"));
    wait_until("there is a log", || !pool.lines("acode.log").is_empty());
    fs::rename(pool.file("acode.log"), pool.file("acode.log.1")).unwrap();
    signal(pool.pid(), Signal::SIGUSR1);
    wait_until("there is a new one", || pool.file("acode.log").exists());
    let old = pool.lines("acode.log.1").len();
    pool.call(&acode::wire::request::Scale { count: 2 });
    wait_until("the new one is written to", || pool.lines("acode.log").iter().any(|line| line.contains("scaling")));
    assert_eq!(pool.lines("acode.log.1").len(), old);
}

#[test]
fn other_signals_and_a_storm_of_them_do_no_harm() {
    let pool = Pool::start(Options::workers(2));
    let all = [Signal::SIGCHLD, Signal::SIGPIPE, Signal::SIGWINCH, Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGCONT];
    let ids: Vec<_> = (0..20)
        .map(|n| {
            all.iter().cycle().take(30).for_each(|each| signal(pool.pid(), *each));
            pool.submit_spec(TaskSpec { name: Some(format!("t{n}")), ..command(&["true"]) })
        })
        .collect();
    ids.iter().for_each(|id| assert_eq!(pool.wait(*id).state, TaskState::Completed));
}
