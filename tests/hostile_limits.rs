//! Tasks that fight their limits, or whoever holds them: they end all the same, and the pool is as it was.
//!
//! Most of these need nothing but the core of cgroup v2, and run everywhere. Deliberately absent: bombs (`bombs.rs`) and
//! what a sandbox keeps a task from (`sandbox.rs`); these tasks may do whatever their user may.

mod common;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::process::Command;
use std::time::Duration;

use acode::wire::types::TaskRecord;
use acode_worker::task::{Limits, OverLimitAction, TaskSpec, TaskState};
use common::{Pool, eventually, is_alive, shell, wait_until};
use limits::{
    FIND_LEAF, assert_held_as_here, enforces, hostile, limited, memory_mb, skip, usage, watchful, watchful_options,
};
use more::{command, entry, only_attempt, verdict};

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

#[track_caller]
fn assert_healthy(pool: &Pool) {
    for _ in 0..3 {
        let limits = Limits { pids: Some(50), ..memory_mb(64, OverLimitAction::Kill) };
        let spec = TaskSpec { timeout_ms: Some(30_000), ..limited(command(&["true"]), limits) };
        let next = run(pool, spec);
        assert_eq!(next.state, TaskState::Completed, "{next:?}");
    }
    let idle = pool.idle_workers();
    assert!(idle.iter().all(|worker| worker.healthy), "{idle:?}");
}

/// A script that knows the directory of its leaf, as `$leaf`, and of the hierarchy, as `$top`.
fn knowing(script: &str, arguments: &[&str]) -> TaskSpec {
    let found = r#"[ -w "$leaf/cgroup.procs" ] || exit 77"#;
    shell(&format!("{FIND_LEAF}\n{found}\n{script}"), arguments)
}

/// Whether the task found its leaf and could write to it, which a user without delegation cannot.
#[track_caller]
fn found_its_leaf(task: &TaskRecord) -> bool {
    if task.exit_code == Some(77) {
        skip("a task's cgroup cannot be written to");
        return false;
    }
    true
}

#[test]
fn one_that_ignores_sigterm_and_closes_its_output_is_ended_for_its_limit() {
    let pool = watchful(1);
    let script = r#"trap '' TERM HUP INT; exec >&- 2>&-; "$1" memory 512 60; sleep 60"#;
    let task = run(&pool, limited(shell(script, &[&hostile()]), memory_mb(48, OverLimitAction::Kill)));
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    let spec = TaskSpec {
        timeout_ms: Some(500),
        grace_ms: Some(200),
        ..limited(
            shell("trap '' TERM; exec >&- 2>&- <&-; while :; do sleep 1; done", &[]),
            Limits { cpu_percent: Some(50), pids: Some(20), ..Limits::default() },
        )
    };
    assert_eq!(run(&pool, spec).state, TaskState::Timeout);
    assert_healthy(&pool);
}

#[test]
fn one_that_freezes_itself_is_ended_by_its_timeout() {
    let pool = watchful(1);
    let script = r#"sleep 1000 & echo 1 >"$leaf/cgroup.freeze"; sleep 1000"#;
    let spec = TaskSpec { timeout_ms: Some(1_000), grace_ms: Some(500), ..knowing(script, &[]) };
    let task = run(&pool, limited(spec, Limits { pids: Some(20), ..Limits::default() }));
    if found_its_leaf(&task) {
        assert_eq!(task.state, TaskState::Timeout, "{task:?}");
    }
    assert_healthy(&pool);
}

#[test]
fn a_leaf_that_was_left_frozen_holds_no_later_task() {
    let pool = watchful(1);
    // The last process goes elsewhere first, so nothing of the task has to be killed.
    let script = r#"echo $$ >"$top/cgroup.procs" || exit 77; echo 1 >"$leaf/cgroup.freeze"; exit 0"#;
    for limits in [Limits::default(), Limits { pids: Some(20), ..Limits::default() }] {
        let task = run(&pool, limited(knowing(script, &[]), limits));
        if !found_its_leaf(&task) {
            return;
        }
        assert_eq!(verdict(&task), "exited", "{task:?}");
        let next = run(&pool, TaskSpec { timeout_ms: Some(60_000), ..command(&["true"]) });
        assert_eq!((next.state, next.attempt_count), (TaskState::Completed, 1), "the next is frozen in: {next:?}");
        assert_healthy(&pool);
    }
}

#[test]
fn limits_that_a_task_has_tampered_with_are_the_next_ones_again() {
    let pool = watchful(1);
    if !enforces(&pool) {
        return skip("a leaf has no limits here");
    }
    let limits = || Limits { cpu_percent: Some(90), pids: Some(20), ..memory_mb(64, OverLimitAction::Kill) };
    let tighten = r#"echo 1 >"$leaf/pids.max"; echo 1000 100000 >"$leaf/cpu.max"; exit 0"#;
    let loosen = r#"for file in pids.max cpu.max memory.max; do echo max >"$leaf/$file" || exit 1; done; exit 0"#;
    for script in [tighten, loosen] {
        assert_eq!(run(&pool, limited(knowing(script, &[]), limits())).exit_code, Some(0));
        let looks = r#"cat "$leaf/pids.max" "$leaf/cpu.max" "$leaf/memory.max""#;
        let next = run(&pool, limited(knowing(looks, &[]), limits()));
        assert_eq!(limits::said(&pool, &next), format!("20\n90000 100000\n{}\n", 64 << 20), "{next:?}");
    }
}

#[test]
fn a_leaf_that_hands_on_its_controllers_holds_no_later_task() {
    let pool = watchful(1);
    if !enforces(&pool) {
        return skip("there are no controllers to hand on here");
    }
    // As a container engine does it that runs inside of a task: a cgroup below for itself, then controllers for others.
    let script =
        r#"mkdir "$leaf/own" && echo $$ >"$leaf/own/cgroup.procs" && echo +pids >"$leaf/cgroup.subtree_control""#;
    for limits in [Limits::default(), Limits { pids: Some(20), ..Limits::default() }] {
        assert_eq!(run(&pool, limited(knowing(script, &[]), limits)).exit_code, Some(0));
        let next = run(&pool, command(&["true"]));
        assert_eq!((next.state, next.attempt_count), (TaskState::Completed, 1), "{next:?}");
    }
    assert_healthy(&pool);
}

#[test]
fn one_that_moves_elsewhere_is_found_and_killed() {
    let pool = watchful(1);
    let script = r#"sh -c 'echo $$ >"$1/cgroup.procs" || exit 1; echo $$ >"$2"; exec sleep 1000' sh "$top" "$1" \
        </dev/null >/dev/null 2>&1 &
        while [ ! -s "$1" ]; do kill -0 $! || exit 77; sleep 0.01; done; exit 0"#;
    let spec = limited(knowing(script, &[&pool.path("pid")]), Limits { pids: Some(20), ..Limits::default() });
    let task = run(&pool, TaskSpec { timeout_ms: Some(30_000), ..spec });
    if !found_its_leaf(&task) {
        return;
    }
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    assert!(only_attempt(&task).leaked, "{task:?}");
    assert!(!is_alive(pool.lines("pid")[0].parse().unwrap()));
    assert_healthy(&pool);
}

#[test]
fn one_that_moves_elsewhere_as_a_whole_is_ended_by_its_timeout() {
    let pool = watchful(1);
    let script = r#"echo $$ >"$top/cgroup.procs" || exit 77; trap '' TERM; sleep 1000 & echo $! >"$1"; wait; wait"#;
    let spec = limited(knowing(script, &[&pool.path("pid")]), Limits { pids: Some(20), ..Limits::default() });
    let task = run(&pool, TaskSpec { timeout_ms: Some(1_000), grace_ms: Some(200), ..spec });
    if !found_its_leaf(&task) {
        return;
    }
    assert_eq!(task.state, TaskState::Timeout, "{task:?}");
    assert!(!is_alive(pool.lines("pid")[0].parse().unwrap()));
    assert_healthy(&pool);
}

#[test]
fn cgroups_that_a_task_makes_in_its_leaf_go_with_it() {
    let pool = watchful(1);
    let script = r#"mkdir -p "$leaf/a/b/c" "$leaf/d" || exit 77; echo "$leaf" >"$1"
        [ "$2" = stay ] && exit 0
        sh -c 'echo $$ >"$1/a/b/c/cgroup.procs"; trap "" TERM; echo $$ >"$2"; while :; do sleep 1; done' \
            sh "$leaf" "$3" </dev/null >/dev/null 2>&1 &
        while [ ! -s "$3" ]; do sleep 0.01; done; exit 0"#;
    for (how, leaked) in [("stay", false), ("leave", true)] {
        for limits in [Limits::default(), Limits { pids: Some(50), ..Limits::default() }] {
            let spec = knowing(script, &[&pool.path("leaf"), how, &pool.path("pid")]);
            let task = run(&pool, TaskSpec { timeout_ms: Some(30_000), ..limited(spec, limits) });
            if !found_its_leaf(&task) {
                return;
            }
            assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
            assert_eq!(only_attempt(&task).leaked, leaked, "{task:?}");
            let made = std::path::PathBuf::from(&pool.lines("leaf")[0]).join("a");
            assert!(eventually(Duration::from_secs(10), || !made.exists()), "{} is left", made.display());
            let _ = fs::remove_file(pool.file("pid"));
        }
    }
    assert_healthy(&pool);
}

#[test]
fn one_that_takes_its_memory_in_a_cgroup_of_its_own_making_is_counted_all_the_same() {
    let pool = watchful(1);
    let script = r#"mkdir "$leaf/sub" || exit 77; sh -c 'echo $$ >"$1/sub/cgroup.procs"; exec "$2" memory 512 30' sh "$leaf" "$1"
        exit 0"#;
    let task = run(&pool, limited(knowing(script, &[&hostile()]), memory_mb(48, OverLimitAction::Kill)));
    if found_its_leaf(&task) {
        assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
        assert_held_as_here(&pool, &task, "memoryMb");
    }
    assert_healthy(&pool);
}

#[test]
fn directories_without_any_right_are_removed_all_the_same() {
    let pool = watchful(1);
    let script = r#"mkdir -p a/b/c d/e; echo x >a/b/c/f; echo x >d/e/f; chmod 0 a/b/c d/e; chmod 0 a/b d; chmod 0 a
        pwd >"$1"; chmod 0 ."#;
    let task = run(&pool, limited(shell(script, &[&pool.path("where")]), memory_mb(64, OverLimitAction::Kill)));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    let left = fs::read_dir(&pool.lines("where")[0]).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something is left");
    assert_eq!(run(&pool, shell(r#"[ -z "$(ls -A)" ] && touch fine"#, &[])).exit_code, Some(0));
    assert_healthy(&pool);
}

/// Whether `stress-ng` is there.
fn has_stress_ng() -> bool {
    let there = Command::new("stress-ng").arg("--version").output().is_ok();
    if !there {
        skip("stress-ng is not installed");
    }
    there
}

#[test]
fn stress_under_limits_ends_as_it_should() {
    if !has_stress_ng() {
        return;
    }
    let pool = watchful(2);
    let modes: [(&str, &[&str]); 7] = [
        ("cpu", &["--cpu", "2"]),
        ("matrix", &["--matrix", "2"]),
        ("fork", &["--fork", "2"]),
        ("io", &["--io", "2"]),
        ("hdd", &["--hdd", "1", "--hdd-bytes", "8m"]),
        ("vm", &["--vm", "1", "--vm-bytes", "24m"]),
        ("pipe", &["--pipe", "2"]),
    ];
    let limits = || Limits {
        cpu_percent: Some(60),
        pids: Some(100),
        disk_mb: Some(200),
        ..memory_mb(256, OverLimitAction::Kill)
    };
    let seconds = if limits::in_machine() { "6" } else { "2" };
    let stress =
        |mode: &[&str]| command(&[&["stress-ng", "--quiet", "--temp-path", ".", "--timeout", seconds], mode].concat());
    let ids = pool.submit_all(modes.iter().map(|(_, mode)| entry(limited(stress(mode), limits()))).collect());
    for ((name, _), id) in modes.iter().zip(ids) {
        let task = pool.wait(id);
        println!("stress-ng {name}: {} {:?}", verdict(&task), usage(&task));
        assert_eq!(
            (verdict(&task), task.exit_code),
            ("exited", Some(0)),
            "{name}: {task:?}\n{}",
            limits::said(&pool, &task)
        );
        let used = usage(&task);
        assert!(used.peak_pids.is_none_or(|most| (1..=100).contains(&most)), "{name}: {used:?}");
        assert!(used.peak_memory_bytes.is_some_and(|most| most > 1 << 20 && most <= 256 << 20), "{name}: {used:?}");
        if enforces(&pool) {
            let share = (used.user_us + used.system_us) as f64 / used.wall_us as f64;
            assert!(share < 0.8, "{name}: {share}");
        }
    }
    assert_healthy(&pool);
}

#[test]
fn stress_beyond_its_limits_or_its_time_is_ended_for_that() {
    if !has_stress_ng() {
        return;
    }
    let pool = watchful(2);
    let stress = |mode: &[&str]| command(&[&["stress-ng", "--quiet", "--temp-path", "."], mode].concat());
    // It restarts what is killed for memory, for ever: only the end of all of it ends it.
    let greedy = limited(
        stress(&["--vm", "2", "--vm-bytes", "300m", "--vm-keep", "--oomable"]),
        memory_mb(64, OverLimitAction::Kill),
    );
    let endless = |mode: &[&str]| TaskSpec {
        timeout_ms: Some(3_000),
        grace_ms: Some(2_000),
        ..limited(stress(mode), Limits { cpu_percent: Some(80), pids: Some(80), ..Limits::default() })
    };
    let greedy = pool.submit_spec(TaskSpec { timeout_ms: Some(300_000), ..greedy });
    let endless = [endless(&["--fork", "4"]), endless(&["--cpu", "4"]), endless(&["--switch", "2"])];
    for id in pool.submit_all(endless.into_iter().map(entry).collect()) {
        assert_eq!(pool.wait(id).state, TaskState::Timeout);
    }
    let task = pool.wait(greedy);
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    assert_healthy(&pool);
}

#[test]
fn many_that_fill_their_scratch_at_once_end_each_for_itself() {
    const TASKS: usize = 24;
    let pool = watchful(6);
    // They do not take an error for an answer, and so are there when somebody looks.
    let fill = [
        "while :; do head -c 1048576 /dev/zero >>one; done",
        "i=0; while :; do i=$((i+1)); head -c 262144 /dev/zero >f$i; done",
        r#"exec 3>gone; rm gone; while :; do head -c 1048576 /dev/zero >&3; done"#,
        "i=0; while :; do i=$((i+1)); : >e$i; done",
    ];
    let limits =
        || Limits { disk_mb: Some(8), disk_files: Some(200), action: Some(OverLimitAction::Kill), ..Limits::default() };
    let filler = |n: usize| TaskSpec { timeout_ms: Some(300_000), ..limited(shell(fill[n % 4], &[]), limits()) };
    // Between them are such as keep to what they may have.
    let modest =
        || limited(shell("head -c 3000000 /dev/zero >mine; sleep 0.2; [ $(wc -c <mine) = 3000000 ]", &[]), limits());
    let ids = pool.submit_all((0..TASKS).flat_map(|n| [entry(filler(n)), entry(modest())]).collect());
    for (number, id) in ids.into_iter().enumerate() {
        let task = pool.wait(id);
        if number % 2 == 1 {
            assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
            continue;
        }
        assert_eq!(verdict(&task), "over-limit", "{task:?}");
        let which = only_attempt(&task).reason.clone().unwrap_or_default();
        let wanted = if (number / 2) % 4 == 3 { "diskFiles" } else { "diskMb" };
        assert!(which.contains(wanted), "'{which}' for {}", fill[(number / 2) % 4]);
    }
    assert_healthy(&pool);
}

#[test]
fn a_pool_with_limits_of_its_own_takes_nobody_down_with_it() {
    let pool = Pool::start(watchful_options(4).config("pool:\n  limits:\n    memoryMb: 400"));
    if !enforces(&pool) {
        return skip("a pool has no limits here");
    }
    // Each of them is within what it may have, and all of them together are not.
    let greedy = || limited(limits::misbehave(&["memory", "200", "3"]), memory_mb(300, OverLimitAction::Kill));
    let ids = pool.submit_all((0..4).map(|_| entry(greedy())).collect());
    let ends: Vec<_> = ids.into_iter().map(|id| pool.wait(id)).collect();
    let verdicts: Vec<&str> = ends.iter().map(verdict).collect();
    println!("four of 200 MiB in a pool of 400: {verdicts:?}");
    assert!(verdicts.contains(&"out-of-memory"), "{ends:?}");
    // The workers and the supervisor are not what is sacrificed.
    assert!(ends.iter().all(|task| task.attempt_count == 1), "{ends:?}");
    assert!(ends.iter().all(|task| ["out-of-memory", "exited"].contains(&verdict(task))), "{ends:?}");
    wait_until("the workers are idle", || pool.workers().iter().all(|worker| worker.current_task.is_none()));
    assert_healthy(&pool);
}
