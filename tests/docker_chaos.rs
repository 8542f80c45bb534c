//! Many containers while clients, workers, supervisors and the engine are killed at random.
//!
//! In the end every task has completed, the engine holds nothing of ours, and no mark is left. `ACODE_CHAOS_CONTAINERS` says
//! how many, `ACODE_CHAOS_SEED` makes the same choices again. Deliberately absent: one fault at a time (`docker_faults.rs`).

mod common;
#[path = "common/docker.rs"]
mod docker;

use std::time::{Duration, Instant};

use acode::wire::request::Status;
use acode_worker::task::{TaskId, TaskState};
use common::engine::Engine;
use common::{Pool, shell, signal};
use docker::{assert_nothing_left, comes_clean, in_container, options};
use nix::sys::signal::Signal;

/// How long the disturbance may go on until everything has ended.
const DISTURBED: Duration = Duration::from_secs(400);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The next of a row of numbers that looks like chance (xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The clients of this pool's containers.
fn clients(pool: &Pool) -> Vec<u32> {
    let state = format!("--cidfile={}/", pool.state_dir().display());
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word.starts_with(state.as_bytes()))
    })
    .collect()
}

fn disturb(engine: &mut Engine, pool: &mut Pool, chance: u64) {
    let pick = |pids: &[u32]| pids.get(chance as usize / 100 % pids.len().max(1)).copied();
    match chance % 100 {
        0..40 => pick(&clients(pool)).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL)),
        40..80 => {
            let workers: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
            pick(&workers).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
        }
        80..92 => {
            pool.kill9();
            pool.restart();
        }
        _ => {
            engine.kill_daemon();
            engine.restart();
        }
    }
}

#[test]
fn whoever_is_killed_every_task_ends_once_and_nothing_is_left() {
    let Some(mut engine) = Engine::start() else { return };
    let config = "  sweepIntervalSeconds: 2\n  callTimeoutSeconds: 5\n  fallback: refuse\n";
    let mut pool = Pool::start(options(&engine, 8, config).var("ACODE_WORKERS_MAX_WORKER_LOSSES", "100"));
    let spec = in_container(shell("sleep 0.3; echo done", &[]));
    let ids: Vec<TaskId> = (0..number("ACODE_CHAOS_CONTAINERS", 40)).map(|_| pool.submit_spec(spec.clone())).collect();
    let seed = number("ACODE_CHAOS_SEED", u64::from(std::process::id()) << 20 | 1);
    eprintln!("ACODE_CHAOS_SEED={seed}");
    let (mut state, began) = (seed, Instant::now());
    loop {
        let tasks = pool.call(&Status {}).status.tasks;
        if tasks.ended() == ids.len() as u64 {
            break;
        }
        assert!(began.elapsed() < DISTURBED, "{tasks:?}\n{}", pool.log());
        std::thread::sleep(Duration::from_millis(300 + next(&mut state) % 1_200));
        disturb(&mut engine, &mut pool, next(&mut state));
    }
    for id in ids {
        let task = pool.show(id);
        assert_eq!(task.state, TaskState::Completed, "{task:?}\n{}", pool.log());
        let exits = task.attempts.iter().flatten().filter(|one| one.verdict.as_deref() == Some("exited")).count();
        assert_eq!(exits, 1, "{task:?}");
    }
    comes_clean(&engine, &pool);
    assert_nothing_left(&engine, pool);
}
