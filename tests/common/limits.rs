//! What the tests of limits share: whether the kernel holds limits here, how an attempt's limits were held, and programs
//! that exceed them.
//!
//! In the machine of `scripts/vm` every controller is there, so nothing may be skipped and everything must be held by
//! the kernel; elsewhere the same tests run, and what is asserted is that nobody claims more than is true. Deliberately
//! absent: what a pool says about the host, as a source of what to expect of the host.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use acode::wire::UsageRecord;
use acode::wire::types::TaskRecord;
use acode_worker::task::{HeldLimit, Hold, Limits, OverLimitAction, TaskSpec};

use crate::common::{self, Options, Pool};
use crate::more::{command, only_attempt, written};

/// A pool with so many workers that kills by looking where the kernel does not hold a limit, and runs nothing again.
pub fn watchful(workers: u32) -> Pool {
    Pool::start(watchful_options(workers))
}

/// How such a pool is started.
pub fn watchful_options(workers: u32) -> Options {
    Options::workers(workers).config("workers:\n  maxWorkerLosses: 1\n  resources:\n    allowObserved: true")
}

/// Whether this is the machine in which nothing may be skipped.
pub fn in_machine() -> bool {
    std::env::var_os("ACODE_TEST_VM").is_some()
}

/// Says in one line why a test cannot run here; in the machine there is no such reason.
#[track_caller]
pub fn skip(why: &str) {
    assert!(!in_machine(), "skipped in the machine: {why}");
    eprintln!("skipped: {why}");
}

/// How much longer everything may take here than on a computer of its own.
pub fn slowness() -> u32 {
    let said = std::env::var("ACODE_TEST_SLOWNESS").ok().and_then(|times| times.parse().ok());
    said.unwrap_or(1)
}

/// So long, or as much longer as this computer is slower.
pub fn at_most(long: Duration) -> Duration {
    long * slowness()
}

/// How long a command may take that is quick: where everything is emulated, the start of a program alone is far from it.
pub fn quick(long: Duration) -> Duration {
    if in_machine() { long * 20 } else { long }
}

/// Whether the pool lies where the kernel limits memory, processor time and processes.
pub fn enforces(pool: &Pool) -> bool {
    let there = common::cgroup_of(&pool.state_dir()).is_some_and(|base| {
        let text = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        ["cpu", "memory", "pids"].iter().all(|name| text.split_ascii_whitespace().any(|word| word == *name))
    });
    assert!(there || !in_machine(), "no controllers in the machine:\n{}", pool.log());
    there
}

/// How a limit of a task's only attempt was held.
#[track_caller]
pub fn held(task: &TaskRecord, limit: &str) -> HeldLimit {
    let attempt = only_attempt(task);
    let found = attempt.limits.iter().find(|held| held.limit == limit);
    found.unwrap_or_else(|| panic!("no word on {limit} in {attempt:?}")).clone()
}

/// Asserts that a limit was held by the kernel if it can be here, and that it was not said to be where it cannot.
#[track_caller]
pub fn assert_held_as_here(pool: &Pool, task: &TaskRecord, limit: &str) -> HeldLimit {
    let held = held(task, limit);
    assert_eq!(held.hold == Hold::Enforced, enforces(pool), "{held:?}");
    assert!(!held.by.is_empty(), "{held:?}");
    held
}

/// What a task's only attempt used.
#[track_caller]
pub fn usage(task: &TaskRecord) -> UsageRecord {
    only_attempt(task).usage.unwrap_or_else(|| panic!("nobody counted: {task:?}"))
}

/// The processor time of a task's only attempt.
#[track_caller]
pub fn cpu_time(task: &TaskRecord) -> Duration {
    Duration::from_micros(usage(task).cpu_us())
}

/// This task with these limits.
pub fn limited(spec: TaskSpec, limits: Limits) -> TaskSpec {
    TaskSpec { limits, ..spec }
}

/// So much memory, and what happens above.
pub fn memory_mb(mb: u64, action: OverLimitAction) -> Limits {
    Limits { memory_mb: Some(mb), action: Some(action), ..Limits::default() }
}

/// The path of the program that misbehaves on command, which is an example of the workspace.
#[track_caller]
pub fn hostile() -> String {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/hostile");
    assert!(path.exists(), "{} is missing: cargo build --example hostile", path.display());
    path.to_str().unwrap().to_owned()
}

/// A task of it.
#[track_caller]
pub fn misbehave(words: &[&str]) -> TaskSpec {
    let program = hostile();
    command(&[&[program.as_str()], words].concat())
}

/// What a task has said on its standard output, or the reason for which nothing of it is known.
pub fn said(pool: &Pool, task: &TaskRecord) -> String {
    let written = written(pool, task.id);
    format!("{}{}", written.out(), written.err())
}

/// The directory of the v2 hierarchy, wherever it was mounted.
pub fn hierarchy() -> Option<PathBuf> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    places.iter().map(Path::new).find(|place| place.join("cgroup.procs").exists()).map(Path::to_owned)
}

/// Shell: `leaf` becomes the directory of the cgroup that the script runs in.
pub const FIND_LEAF: &str = r#"top=/sys/fs/cgroup; [ -e $top/cgroup.procs ] || top=/sys/fs/cgroup/unified
    leaf=$top$(sed -n 's/^0:://p' /proc/self/cgroup)"#;
