//! Limits of tasks and of the pool: refused, enforced by the kernel, or looked at where nothing else can be had.
//!
//! Where controllers were delegated (the QEMU machine) limits are enforced; elsewhere the same tests hold what is promised
//! there. Deliberately absent: bombs of all kinds, usage, and the scratch directory's limits.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::path::PathBuf;

use acode_worker::task::{Limits, OverLimitAction, TaskSpec};
use command::Acode;
use common::place::in_machine;
use common::{Options, Pool, cgroup_of, shell, wait_until};
use more::{output_of, verdict};
use nix::sys::signal::Signal;

/// Holds `$1` of zeroes in memory until it is killed. It grows no further, should nobody kill it.
const HOARD: &str = "(head -c \"$1\" /dev/zero; exec sleep 600) | tail -n 1";
/// The same for a moment, and ends well.
const HOARD_BRIEFLY: &str = "head -c \"$1\" /dev/zero | tail -n 1 | wc -c";

fn limits(action: OverLimitAction, memory_mb: u64) -> Limits {
    Limits { memory_mb: Some(memory_mb), action: Some(action), ..Limits::default() }
}

fn limited(spec: TaskSpec, limits: Limits) -> TaskSpec {
    TaskSpec { limits, ..spec }
}

/// A pool that takes no second try.
fn options() -> Options {
    Options::workers(1).config("workers: {maxWorkerLosses: 1, resources: {allowObserved: true}}")
}

/// The directory of the leaf of the pool's only worker.
fn leaf(pool: &Pool) -> PathBuf {
    let home = cgroup_of(&pool.state_dir()).unwrap().join("tasks/w0");
    let entries = std::fs::read_dir(&home).unwrap().flatten();
    let mut leaves = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    leaves.next().unwrap_or(home)
}

#[test]
fn a_submission_above_the_maxima_is_refused_with_exit_code_two() {
    let pool = Pool::start(Options::workers(1).config("workers: {maxLimits: {memoryMb: 512, pids: 10}}"));
    let acode = Acode::of(&pool);
    let said = acode.says(&["task", "submit", "--memory", "513M", "--", "true"]).expect(2);
    assert!(said.err.contains("limits.memoryMb is 513") && said.err.contains("at most 512"), "{said:?}");
    let said = acode.says(&["task", "submit", "--pids", "11", "--", "true"]).expect(2);
    assert!(said.err.contains("workers.maxLimits.pids"), "{said:?}");
    for wrong in [["--memory", "512"], ["--cpu-percent", "0"], ["--over-limit", "maim"], ["--disk", "no"]] {
        acode.says(&["task", "submit", wrong[0], wrong[1], "--", "true"]).expect(2);
    }
    std::fs::write(pool.file("t.yaml"), "tasks:\n- {command: 'true', limits: {memoryMb: 600}}\n").unwrap();
    let said = acode.says(&["task", "submit", "--file", "t.yaml"]).expect(2);
    assert!(said.err.contains("at most 512"), "{said:?}");
    assert!(acode.json(&["task", "list"]).as_array().unwrap().is_empty(), "nothing was queued");
    let id = acode.ok(&["task", "submit", "--memory", "512M", "--pids", "10", "--cpu-seconds", "60", "--", "true"]);
    acode.ok(&["task", "wait", &id]);
}

#[test]
fn a_task_file_says_limits_by_the_names_of_the_configuration() {
    let pool = Pool::start(options());
    let acode = Acode::of(&pool);
    let yaml = "defaults: {limits: {cpuPercent: 400, overLimitAction: warn}}\ntasks:\n\
                - {command: 'true', limits: {memoryMb: 256, pids: none}}\n";
    std::fs::write(pool.file("t.yaml"), yaml).unwrap();
    let id = acode.ok(&["task", "submit", "--file", "t.yaml"]);
    acode.ok(&["task", "wait", &id]);
    for (text, word) in [
        ("tasks: [{command: x, limits: {memory: 1}}]", "did you mean 'memoryMb'"),
        ("tasks: [{command: x, limits: {memoryMb: 0}}]", "limits.memoryMb is 0"),
        ("tasks: [{command: x, limits: {overLimitAction: no}}]", "warn, throttle or kill"),
    ] {
        std::fs::write(pool.file("t.yaml"), text).unwrap();
        let said = acode.says(&["task", "submit", "--file", "t.yaml"]).expect(2);
        assert!(said.err.contains(word), "{said:?}");
    }
}

#[test]
fn what_shall_be_killed_and_cannot_be_is_refused() {
    let enforced = std::env::var_os("ACODE_TEST_VM").is_some();
    let yaml = "workers: {limits: {memoryMb: 64}, resources: {overLimitAction: kill}}";
    let mut pool = Pool::prepare(Options::workers(1).config(yaml));
    if enforced {
        pool.restart();
    } else {
        pool.launch();
        assert!(!pool.wait_exit().success());
        let log = pool.log();
        assert!(log.contains("workers.limits (memoryMb) cannot be enforced") && log.contains("allowObserved"), "{log}");
    }
    let pool = Pool::start(Options::workers(1));
    let task = pool.wait(pool.submit_spec(limited(shell("exit 3", &[]), limits(OverLimitAction::Kill, 64))));
    assert_eq!(verdict(&task), if enforced { "exited" } else { "not-started" }, "{task:?}");
    // With another action it runs on every host.
    let task = pool.wait(pool.submit_spec(limited(shell("exit 3", &[]), limits(OverLimitAction::Warn, 64))));
    assert_eq!(task.exit_code, Some(3));
}

#[test]
fn memory_above_a_limit_that_kills_ends_out_of_memory_even_in_a_grandchild() {
    let pool = Pool::start(options());
    // The leader waits for nobody, so that by itself it would end with 0.
    let script = format!("({HOARD}) & until grep -q x \"$2\" 2>/dev/null; do sleep 0.01; done; exit 0");
    let spec = shell(&script, &["200M", &pool.path("never")]);
    let task = pool.wait(pool.submit_spec(limited(spec, limits(OverLimitAction::Kill, 48))));
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}\n{}", pool.log());
    wait_until("the log tells of it", || pool.log().contains("limit reached") && pool.log().contains("memoryMb"));
    // What comes next in the same worker is judged by itself.
    let task = pool.wait(pool.submit_spec(limited(shell("exit 137", &[]), limits(OverLimitAction::Kill, 48))));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(137)));
}

#[test]
fn memory_above_a_limit_that_warns_is_told_and_the_task_goes_on() {
    let pool = Pool::start(options());
    let gate = pool.path("gate");
    let hold = "(head -c 150M /dev/zero; until test -e \"$1\"; do sleep 0.02; done) | tail -n 1 | wc -c";
    let id = pool.submit_spec(limited(shell(hold, &[&gate]), limits(OverLimitAction::Warn, 40)));
    // It is held for long enough to be seen: what is looked at every 100 ms shows within two seconds on any machine.
    std::thread::sleep(common::place::scaled(std::time::Duration::from_secs(2)));
    std::fs::write(&gate, "").unwrap();
    let task = pool.wait(id);
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{}", pool.log());
    wait_until("the log tells of it", || pool.log().contains("limit reached"));
}

#[test]
fn memory_above_a_limit_that_throttles_ends_when_it_gets_nowhere() {
    if !in_machine("memory.high") {
        return;
    }
    let pool = Pool::start(options());
    let task = pool.wait(pool.submit_spec(limited(shell(HOARD, &["200M"]), limits(OverLimitAction::Throttle, 40))));
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}\n{}", pool.log());
    let fits = shell(HOARD_BRIEFLY, &["10M"]);
    let task = pool.wait(pool.submit_spec(limited(fits, limits(OverLimitAction::Throttle, 40))));
    assert_eq!(task.exit_code, Some(0));
}

#[test]
fn more_processes_than_allowed_are_refused_by_the_kernel_or_end_the_task() {
    let pool = Pool::start(options());
    let action = Some(OverLimitAction::Kill);
    let own = Limits { pids: Some(16), action, ..Limits::default() };
    let script = "for i in $(seq 60); do sleep 600 & done 2>/dev/null; wait";
    let task = pool.wait(pool.submit_spec(limited(shell(script, &[]), own)));
    let expected = if std::env::var_os("ACODE_TEST_VM").is_some() { "exited" } else { "over-limit" };
    assert_eq!(verdict(&task), expected, "{task:?}\n{}", pool.log());
    let few = shell("for i in 1 2 3 4; do sleep 0.01 & done; wait", &[]);
    assert_eq!(pool.wait(pool.submit_spec(limited(few, own))).exit_code, Some(0));
}

#[test]
fn a_busy_loop_gets_its_share_of_a_processor() {
    if !in_machine("cpu.max") {
        return;
    }
    let pool = Pool::start(options());
    let own = Limits { cpu_percent: Some(25), ..Limits::default() };
    let spec = TaskSpec { timeout_ms: Some(10_000), grace_ms: Some(0), ..shell("while :; do :; done", &[]) };
    let task = pool.wait(pool.submit_spec(limited(spec, own)));
    let usage = more::only_attempt(&task).usage.unwrap();
    let share = (usage.user_us + usage.system_us) as f64 / usage.wall_us as f64;
    assert!((0.2..=0.3).contains(&share), "{share}: {task:?}");
}

#[test]
fn a_leaf_holds_each_task_s_own_limits_and_nothing_of_the_one_before() {
    if !in_machine("a leaf's files") {
        return;
    }
    let pool = Pool::start(options().config("pool: {limits: {memoryMb: 700, cpuPercent: 180, pids: 300}}"));
    let show = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && \
                cat cpu.max cpu.weight memory.max memory.high memory.swap.max pids.max memory.oom.group | tr '\\n' ' '";
    let all = Limits {
        cpu_percent: Some(150),
        cpu_weight: Some(50),
        memory_mb: Some(64),
        pids: Some(40),
        action: Some(OverLimitAction::Kill),
        ..Limits::default()
    };
    let none = "max 100000 100 max max max max 1 ";
    let kill = format!("150000 100000 50 {} max 0 40 1 ", 64 << 20);
    let throttle = format!("max 100000 100 {} {} {} max 1 ", 40 << 20, 32 << 20, 8 << 20);
    let held = Limits { swap_mb: Some(8), ..limits(OverLimitAction::Throttle, 32) };
    for (own, expected) in [(Limits::default(), none), (all, &kill), (all, &kill), (held, &throttle)] {
        assert_eq!(output_of(&pool, limited(shell(show, &[]), own)), expected, "{own:?}");
    }
    let warned = limits(OverLimitAction::Warn, 64);
    assert_eq!(output_of(&pool, limited(shell(show, &[]), warned)), none);
    let tasks = cgroup_of(&pool.state_dir()).unwrap().join("tasks");
    let text = |file: &str| std::fs::read_to_string(tasks.join(file)).unwrap();
    assert_eq!(text("memory.max"), format!("{}\n", 700 << 20));
    assert_eq!((text("cpu.max"), text("pids.max")), ("180000 100000\n".into(), "300\n".into()));
}

#[test]
fn a_reload_changes_the_limits_of_the_pool_and_of_the_tasks_to_come() {
    let pool = Pool::start(options());
    let acode = Acode::of(&pool);
    acode.ok(&["task", "submit", "--memory", "900M", "--", "true"]);
    let yaml = "workers: {maxLimits: {memoryMb: 100}, resources: {allowObserved: true}}\npool: {limits: {pids: 123}}\n";
    std::fs::write(pool.file("acode.yaml"), yaml).unwrap();
    common::signal(pool.pid(), Signal::SIGHUP);
    wait_until("the maximum counts", || {
        acode.says(&["task", "submit", "--memory", "900M", "--", "true"]).code == Some(2)
    });
    if in_machine("pids.max of the pool") {
        let file = cgroup_of(&pool.state_dir()).unwrap().join("tasks/pids.max");
        wait_until("pids.max is written", || std::fs::read_to_string(&file).is_ok_and(|text| text == "123\n"));
        let show = "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max";
        let kill = Limits { action: Some(OverLimitAction::Kill), ..Limits::default() };
        assert_eq!(output_of(&pool, limited(shell(show, &[]), kill)), format!("{}\n", 100 << 20));
    }
}

#[test]
fn the_pool_s_own_limit_kills_a_task_that_has_none() {
    if !in_machine("memory.max of the pool") {
        return;
    }
    let pool = Pool::start(options().config("pool: {limits: {memoryMb: 64}}"));
    let task = pool.wait(pool.submit_spec(shell(HOARD, &["300M"])));
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}\n{}", pool.log());
    assert_eq!(pool.wait(pool.submit(&["true"])).exit_code, Some(0), "the pool goes on");
}

#[test]
fn a_leaf_that_was_removed_is_made_anew() {
    let pool = Pool::start(options());
    pool.wait(pool.submit(&["true"]));
    if cgroup_of(&pool.state_dir()).is_none() {
        eprintln!("skipped: there is no cgroup hierarchy here");
        return;
    }
    for limits in [Limits::default(), Limits { cpu_weight: Some(50), ..Limits::default() }] {
        std::fs::remove_dir(leaf(&pool)).unwrap();
        let task = pool.wait(pool.submit_spec(limited(shell("exit 0", &[]), limits)));
        assert_eq!(task.exit_code, Some(0), "{task:?}\n{}", pool.log());
        assert!(leaf(&pool).join("cgroup.procs").exists());
    }
    // And without any place for one, the tree is held together by the worker.
    std::fs::remove_dir(leaf(&pool)).unwrap();
    std::fs::remove_dir(cgroup_of(&pool.state_dir()).unwrap().join("tasks/w0")).unwrap();
    assert_eq!(pool.wait(pool.submit(&["true"])).exit_code, Some(0), "{}", pool.log());
}

#[test]
fn controllers_that_are_taken_away_are_missed_by_the_next_task_and_found_again_by_another() {
    if !in_machine("controllers") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let kill = limited(shell("exit 0", &[]), limits(OverLimitAction::Kill, 64));
    let warn = limited(shell("exit 0", &[]), limits(OverLimitAction::Throttle, 64));
    assert_eq!(pool.wait(pool.submit_spec(kill.clone())).exit_code, Some(0));
    let control = cgroup_of(&pool.state_dir()).unwrap().join("tasks/w0/cgroup.subtree_control");
    std::fs::write(&control, "-memory").unwrap();
    let task = pool.wait(pool.submit_spec(kill.clone()));
    assert_eq!(verdict(&task), "not-started", "{task:?}");
    assert_eq!(pool.wait(pool.submit_spec(warn)).exit_code, Some(0), "{}", pool.log());
    std::fs::write(&control, "+memory").unwrap();
    assert_eq!(pool.wait(pool.submit_spec(kill)).exit_code, Some(0), "{}", pool.log());
}

#[test]
fn a_supervisor_that_dies_while_it_climbs_is_followed_by_one_that_arrives() {
    if !in_machine("the climb") {
        return;
    }
    for point in ["cgroup.after-move", "cgroup.after-enable", "cgroup.after-enable@2", "cgroup.after-enable@3"] {
        let mut pool = Pool::prepare(options().dies_once_at(point));
        pool.revive();
        assert!(pool.has_struck(point), "nobody passed {point}\n{}", pool.log());
        let task = pool.wait(pool.submit_spec(limited(shell("exit 0", &[]), limits(OverLimitAction::Kill, 64))));
        assert_eq!(task.exit_code, Some(0), "{point}: {task:?}\n{}", pool.log());
    }
}
