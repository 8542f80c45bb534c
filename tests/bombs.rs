//! Bombs of memory and of processes: real ones, set off under limits.
//!
//! Where the kernel holds the limits, they are held; elsewhere what is asserted is that the bomb is told of for what it
//! was, and gone as fast. Deliberately absent: processor time (`cpu_limit.rs`) and disk space (`disk.rs`).

mod common;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/more.rs"]
mod more;

use std::time::{Duration, Instant};

use acode::wire::types::TaskRecord;
use acode_worker::task::{Hold, Limits, OverLimitAction, TaskSpec, TaskState};
use common::{Options, Pool, eventually, is_alive, shell, wait_until};
use limits::{
    assert_held_as_here, at_most, enforces, held, hostile, limited, memory_mb, misbehave, quick, said, usage, watchful,
};
use more::{cancel, command, entry, open_gate, verdict};

const MIB: u64 = 1 << 20;

#[track_caller]
fn run(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    pool.wait(pool.submit_spec(spec))
}

/// Asserts that the pool takes and runs a task, with as many idle workers as it should have.
#[track_caller]
fn assert_healthy(pool: &Pool) {
    let next = run(pool, command(&["true"]));
    assert_eq!(next.state, TaskState::Completed, "{next:?}");
    let idle = pool.idle_workers();
    assert!(idle.iter().all(|worker| worker.healthy), "{idle:?}");
}

#[test]
fn a_memory_bomb_in_a_grandchild_ends_the_task_that_would_exit_0() {
    let pool = watchful(1);
    // The leader neither dies of it nor hears of it, if the kernel does not take all of the tree.
    let script = r#"( ( "$1" memory 512 30 ); exit 0 ); exit 0"#;
    let task = run(&pool, limited(shell(script, &[&hostile()]), memory_mb(64, OverLimitAction::Kill)));
    assert_eq!((verdict(&task), task.state), ("out-of-memory", TaskState::Failed), "{task:?}");
    let memory = assert_held_as_here(&pool, &task, "memoryMb");
    assert!(memory.exceeded && memory.value == 64, "{memory:?}");
    assert!(!said(&pool, &task).contains("held"), "it got all that it wanted");
    let used = usage(&task);
    if enforces(&pool) {
        assert!(used.oom_kills.unwrap() >= 1, "{used:?}");
        let peak = used.peak_memory_bytes.unwrap();
        // The pages of programs and libraries are resident too, and may be charged to somebody else.
        assert!((32 * MIB..=80 * MIB).contains(&peak), "{used:?}");
    } else {
        assert_eq!(used.oom_kills.unwrap_or(0), 0, "the kernel killed nobody");
    }
    assert_healthy(&pool);
}

#[test]
fn a_task_within_its_memory_is_left_alone() {
    let pool = watchful(1);
    for action in [OverLimitAction::Warn, OverLimitAction::Throttle, OverLimitAction::Kill] {
        let task = run(&pool, limited(misbehave(&["memory", "24", "0.5"]), memory_mb(96, action)));
        assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
        let memory = match action {
            // Nobody acts, so it is looked at everywhere.
            OverLimitAction::Warn => held(&task, "memoryMb"),
            OverLimitAction::Throttle | OverLimitAction::Kill => assert_held_as_here(&pool, &task, "memoryMb"),
        };
        assert!(!memory.exceeded, "{memory:?}");
        let peak = usage(&task).peak_memory_bytes.expect("somebody has looked at it for half a second");
        assert!((24 * MIB..=96 * MIB).contains(&peak), "{peak}");
    }
}

#[test]
fn a_memory_bomb_under_warn_is_told_of_and_left_to_go_on() {
    let pool = watchful(1);
    let task = run(&pool, limited(misbehave(&["memory", "160", "1"]), memory_mb(32, OverLimitAction::Warn)));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    assert_eq!(said(&pool, &task), "held 160\n");
    let memory = held(&task, "memoryMb");
    assert!(memory.exceeded && memory.hold == Hold::Observed, "{memory:?}");
    assert!(usage(&task).peak_memory_bytes.unwrap() >= 160 * MIB, "{task:?}");
    assert!(pool.log().contains("memoryMb"), "nothing in the log:\n{}", pool.log());
    assert_healthy(&pool);
}

#[test]
fn a_memory_bomb_under_throttle_is_slowed_and_ended_where_that_does_not_help() {
    let pool = watchful(1);
    let began = Instant::now();
    let spec = limited(misbehave(&["memory", "512", "5"]), memory_mb(32, OverLimitAction::Throttle));
    let task = run(&pool, TaskSpec { timeout_ms: Some(600_000), ..spec });
    println!("throttled bomb: {} after {:?}", verdict(&task), began.elapsed());
    let memory = assert_held_as_here(&pool, &task, "memoryMb");
    assert!(memory.exceeded, "{memory:?}");
    if enforces(&pool) {
        // Without swap there is nowhere to go: it makes no progress, and whoever watches it ends it.
        assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
        assert!(memory.by.contains("memory.high"), "{memory:?}");
    } else {
        assert!(["exited", "out-of-memory"].contains(&verdict(&task)), "{task:?}");
    }
    assert_healthy(&pool);
}

#[test]
fn a_hundred_bombs_at_once_have_each_its_own_verdict() {
    const BOMBS: usize = 100;
    let pool = watchful(BOMBS as u32 / 2);
    let script = r#"while [ ! -e "$1" ]; do sleep 0.1; done; "$2" memory 48 20; exit 0"#;
    let bomb = || limited(shell(script, &[&pool.path("gate"), &hostile()]), memory_mb(12, OverLimitAction::Kill));
    let mut tasks: Vec<_> = (0..BOMBS).map(|_| entry(bomb())).collect();
    // Among them as many that only look like it.
    tasks.extend((0..10).map(|_| entry(limited(shell("exit 137", &[]), memory_mb(12, OverLimitAction::Kill)))));
    let ids = pool.submit_all(tasks);
    wait_until("as many as can have started", || pool.status().tasks.running >= BOMBS as u64 / 2);
    let began = Instant::now();
    open_gate(&pool, "gate");
    pool.wait_all();
    println!("{BOMBS} bombs: {:?}", began.elapsed());
    for (number, id) in ids.iter().enumerate() {
        let task = pool.show(*id);
        match number < BOMBS {
            true => assert_eq!((verdict(&task), task.attempt_count), ("out-of-memory", 1), "{task:?}"),
            false => assert_eq!((verdict(&task), task.exit_code), ("exited", Some(137)), "{task:?}"),
        }
    }
    assert_eq!(pool.status().tasks.failed, ids.len() as u64);
    assert_healthy(&pool);
}

#[test]
fn what_only_looks_like_a_memory_kill_is_none() {
    let pool = watchful(1);
    let limits = || memory_mb(64, OverLimitAction::Kill);
    let task = run(&pool, limited(shell("exit 137", &[]), limits()));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(137)), "{task:?}");
    let task = run(&pool, limited(shell("kill -KILL $$", &[]), limits()));
    assert_eq!((verdict(&task), task.signal), ("signalled", Some(9)), "{task:?}");
    // It frees what it took before anybody minds.
    let task = run(&pool, limited(misbehave(&["memory", "8"]), limits()));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    assert!(!held(&task, "memoryMb").exceeded);
}

/// How long it takes until every process of a cancelled task is gone, and how long the pool's slowest answer took.
fn end_of_forks(pool: &Pool, spec: TaskSpec, made: &str) -> (Duration, Duration, TaskRecord) {
    let id = pool.submit_spec(spec);
    pool.worker_of(id);
    wait_until("the children are made", || {
        let task = pool.show(id);
        assert!(task.state != TaskState::Failed, "{task:?}");
        std::fs::read_to_string(pool.file(made)).is_ok_and(|text| text.ends_with('\n'))
    });
    let acode = more_than_pool(pool);
    let began = Instant::now();
    assert!(cancel(pool, id));
    let mut slowest = Duration::ZERO;
    let gone = eventually(common::PATIENCE, || {
        let asked = Instant::now();
        let ended = pool.show(id).state == TaskState::Cancelled;
        if !ended {
            acode();
            slowest = slowest.max(asked.elapsed());
        }
        ended
    });
    assert!(gone, "it does not end:\n{}", pool.log());
    (began.elapsed(), slowest, pool.show(id))
}

/// `acode worker status` as anybody calls it, which must succeed.
fn more_than_pool(pool: &Pool) -> impl Fn() + use<> {
    let state = pool.state_dir();
    move || {
        let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_acode"));
        status.arg("--state-dir").arg(&state).args(["worker", "status"]).stdout(std::process::Stdio::null());
        assert!(status.status().unwrap().success());
    }
}

#[test]
fn a_fork_bomb_is_capped_and_gone_in_under_a_second() {
    const WANTED: u64 = 2_000;
    const CAP: u64 = 128;
    let pool = Pool::start(Options::workers(2).config("workers:\n  killGraceMs: 0"));
    // The machine may be busy with something else for a while, so one good try of some is enough.
    let mut tries = Vec::new();
    let good = (0..5).any(|round| {
        let said = format!("made{round}");
        let script = r#"exec "$1" forks "$2" >"$3""#;
        let limits = Limits { pids: Some(CAP as u32), ..Limits::default() };
        let spec = limited(shell(script, &[&hostile(), &WANTED.to_string(), &pool.path(&said)]), limits);
        let (took, slowest, task) = end_of_forks(&pool, spec, &said);
        let made: u64 = pool.lines(&said)[0].split([' ', ':']).nth(1).unwrap().parse().unwrap();
        println!("{made} processes gone after {took:?}, slowest answer meanwhile {slowest:?}");
        let pids = held(&task, "pids");
        assert_eq!(pids.hold == Hold::Enforced, enforces(&pool), "{pids:?}");
        if enforces(&pool) {
            assert_eq!(made, CAP - 1, "the first is one of them");
            assert!(pids.exceeded, "{pids:?}");
            assert_eq!(usage(&task).peak_pids, Some(CAP), "{task:?}");
        } else {
            assert_eq!(made, WANTED);
        }
        tries.push((took, slowest));
        took < at_most(Duration::from_secs(1)) && slowest < quick(Duration::from_millis(200))
    });
    assert!(good, "{tries:?}");
    assert_healthy(&pool);
}

#[test]
fn a_bomb_that_never_stops_forking_is_ended_all_the_same() {
    let pool = Pool::start(Options::workers(2).config("workers:\n  killGraceMs: 0"));
    if !enforces(&pool) {
        return limits::skip("a bomb without a limit of processes would be one for this computer");
    }
    let limits = Limits { pids: Some(200), cpu_percent: Some(100), ..Limits::default() };
    let id = pool.submit_spec(limited(misbehave(&["bomb"]), limits));
    wait_until("it is at its limit", || {
        let base = common::cgroup_of(&pool.state_dir()).unwrap();
        acode_worker::sys::cgroup::pids_below(&base).len() >= 200
    });
    // Everybody else's tasks run meanwhile.
    assert_eq!(run(&pool, command(&["true"])).state, TaskState::Completed);
    let began = Instant::now();
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    println!("endless bomb of 200: gone after {:?}", began.elapsed());
    assert_eq!(task.state, TaskState::Cancelled);
    assert!(held(&task, "pids").exceeded, "{task:?}");
    // Its leader ends at once, and the bomb goes on without it.
    let limits = Limits { pids: Some(200), ..Limits::default() };
    let task = run(&pool, limited(shell(r#""$1" bomb >/dev/null 2>&1 & sleep 0.5; exit 0"#, &[&hostile()]), limits));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    assert_healthy(&pool);
}

#[test]
fn a_daemon_that_forked_twice_is_killed_with_its_task() {
    let pool = watchful(1);
    let script = r#"(setsid sh -c '(setsid sh -c "$2" sh "$1" &) ; exit 0' sh "$1" "$2" &) </dev/null >/dev/null 2>&1
        while [ ! -s "$1" ]; do sleep 0.01; done"#;
    let daemon = r#"echo $$ >"$1"; exec sleep 1000"#;
    let limits = Limits { pids: Some(64), cpu_percent: Some(100), ..memory_mb(64, OverLimitAction::Kill) };
    let task = run(&pool, limited(shell(script, &[&pool.path("pid"), daemon]), limits));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    assert!(more::only_attempt(&task).leaked, "{task:?}");
    assert!(!is_alive(pool.lines("pid")[0].parse().unwrap()));
    assert_healthy(&pool);
}
