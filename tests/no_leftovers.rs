//! Thousands of short tasks with limits, after which the world is as it was: no cgroup, mount, loop device, process,
//! descriptor or file more than before.
//!
//! Deliberately absent: what one task leaves behind (`verdicts.rs`) and what an end of the pool leaves (the harness asks
//! that of every test).

mod common;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use acode_worker::task::{Limits, OverLimitAction, TaskSpec};
use common::{Pool, eventually, shell, wait_until};
use limits::{hierarchy, in_machine, limited, memory_mb};
use more::{command, entry};

/// What is counted before and after.
#[derive(Debug, PartialEq, Eq)]
struct World {
    mounts: BTreeSet<String>,
    loops: BTreeSet<String>,
    /// The pool's processes, each with how many descriptors it has open.
    descriptors: Vec<(String, usize)>,
    rooms: usize,
    cgroups: usize,
}

impl World {
    fn of(pool: &Pool) -> Self {
        // Only what is ours: other tests mount and unmount at the same time.
        let state = pool.state_dir();
        let state = state.to_str().unwrap();
        let ours = |text: String| -> BTreeSet<String> {
            text.lines().filter(|line| line.contains(state)).map(str::to_owned).collect()
        };
        let mut descriptors: Vec<_> = pool.processes().into_iter().filter_map(descriptors_of).collect();
        descriptors.sort();
        Self {
            mounts: ours(fs::read_to_string("/proc/self/mountinfo").unwrap()),
            loops: ours(loop_files()),
            descriptors,
            rooms: count_below(&state_rooms(pool)),
            cgroups: common::cgroup_of(&pool.state_dir()).map_or(0, |base| count_directories(&base)),
        }
    }
}

fn state_rooms(pool: &Pool) -> std::path::PathBuf {
    pool.state_dir().join("rooms")
}

fn descriptors_of(pid: u32) -> Option<(String, usize)> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((name.trim().to_owned(), fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
}

/// The files behind all loop devices, one a line.
fn loop_files() -> String {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.collect()
}

fn count_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| 1 + if entry.file_type().is_ok_and(|kind| kind.is_dir()) { count_below(&entry.path()) } else { 0 })
        .sum()
}

fn count_directories(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| 1 + count_directories(&entry.path())).sum()
}

/// Cgroups that are removed and not yet forgotten by the kernel.
fn dying_cgroups() -> u64 {
    let Some(stat) = hierarchy().and_then(|top| fs::read_to_string(top.join("cgroup.stat")).ok()) else { return 0 };
    let line = stat.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn are_over(pool: &Pool) -> bool {
    let counts = pool.status().tasks;
    counts.ended() == counts.total()
}

/// Many at once, so that a request is no larger than it may be.
fn submit_many(pool: &Pool, count: usize, spec: impl Fn(usize) -> TaskSpec) {
    const AT_ONCE: usize = 2_000;
    for first in (0..count).step_by(AT_ONCE) {
        pool.submit_all((first..count.min(first + AT_ONCE)).map(|n| entry(spec(n))).collect());
    }
}

#[test]
fn after_twenty_thousand_tasks_with_limits_the_world_is_as_it_was() {
    // Under software emulation each takes twenty times as long.
    let count = if in_machine() { 2_000 } else { 20_000 };
    const WORKERS: u32 = 4;
    let pool = Pool::start(limits::watchful_options(WORKERS).config("retention:\n  maxFinishedTasks: 100000"));
    let limits = || Limits {
        cpu_percent: Some(100),
        pids: Some(50),
        disk_mb: Some(64),
        disk_files: Some(1_000),
        ..memory_mb(64, OverLimitAction::Kill)
    };
    // One of each kind first, so that what is made once and kept is there before we count.
    let spec = |n: usize| match n % 50 {
        0 => limited(shell("mkdir -p a/b; echo x >a/b/c; sleep 1000 >/dev/null 2>&1 & exit 0", &[]), limits()),
        1 => limited(shell("exit 3", &[]), limits()),
        _ => limited(command(&["true"]), limits()),
    };
    submit_many(&pool, 200, spec);
    wait_until("the first have ended", || are_over(&pool));
    pool.idle_workers();
    let before = World::of(&pool);
    let dying_before = dying_cgroups();
    let began = Instant::now();
    submit_many(&pool, count, spec);
    let ended = eventually(common::PATIENCE * 9, || are_over(&pool));
    let took = began.elapsed();
    assert!(ended, "{:?}\n{}", pool.status().tasks, pool.log());
    println!("{count} tasks with limits: {took:?}, {:.0} a second", count as f64 / took.as_secs_f64());
    let counts = pool.status().tasks;
    assert_eq!(counts.failed as usize, (count + 200) / 50, "{counts:?}");
    pool.idle_workers();
    // What is on its way out may take a moment to be gone.
    let mut after = World::of(&pool);
    eventually(common::PATIENCE, || {
        after = World::of(&pool);
        after == before
    });
    assert_eq!(after, before);
    let dying = dying_cgroups();
    println!("dying cgroups: {dying_before} before, {dying} after");
    assert!(dying <= dying_before + 1_000, "{dying} cgroups are dying, {dying_before} before");
}
