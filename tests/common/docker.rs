//! Pools of docker workers, and what must be left of them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::Duration;

use acode::wire::request::Stop;
use acode::wire::types::{StopMode, TaskRecord};
use acode_worker::task::{Isolation, TaskSpec};

use crate::common::engine::Engine;
use crate::common::place::scaled;
use crate::common::{Options, Pool, eventually};

/// A pool of docker workers on this engine, with further lines for the configuration's section `docker`.
pub fn options(engine: &Engine, workers: u32, config: &str) -> Options {
    let patience = patience(config);
    let yaml = format!("workers:\n  mode: docker\ndocker:\n  image: {}\n{patience}{config}", engine.image());
    engine.options(Options::workers(workers).config(&yaml))
}

/// What a slow machine needs more patience for, as lines of the section `docker`, unless these say it themselves.
pub fn patience(config: &str) -> String {
    let defaults = [("callTimeoutSeconds", 10), ("startTimeoutSeconds", 60)];
    let unsaid = defaults.into_iter().filter(|(key, _)| !config.contains(key));
    unsaid.map(|(key, seconds)| format!("  {key}: {}\n", scaled(Duration::from_secs(seconds)).as_secs())).collect()
}

/// So many milliseconds for a container to do something in, and more where everything is slower.
pub fn within_ms(ms: u64) -> u64 {
    scaled(Duration::from_millis(ms)).as_millis() as u64
}

/// The same, started.
#[track_caller]
pub fn pool(engine: &Engine, workers: u32, config: &str) -> Pool {
    Pool::start(options(engine, workers, config))
}

/// So many seconds, likewise, as a word for a script.
pub fn seconds(seconds: u64) -> String {
    scaled(Duration::from_secs(seconds)).as_secs().to_string()
}

/// The task in a container, whatever the engine is like.
pub fn in_container(spec: TaskSpec) -> TaskSpec {
    TaskSpec { isolation: Some(Isolation::Docker), ..spec }
}

/// Runs a task to its end.
#[track_caller]
pub fn ended(pool: &Pool, spec: TaskSpec) -> TaskRecord {
    let id = pool.submit_spec(in_container(spec));
    pool.wait(id)
}

/// The marks of containers in a pool's state directory.
pub fn marks(pool: &Pool) -> Vec<String> {
    let entries = std::fs::read_dir(pool.state_dir().join("containers")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Stops the pool, and looks whether the engine or the pool still holds something.
#[track_caller]
pub fn assert_nothing_left(engine: &Engine, mut pool: Pool) {
    // By force, workers have no time to remove what has ended: the next pool does it.
    assert!(
        pool.stop_as(Stop { mode: StopMode::Drain, timeout_ms: Some(within_ms(10_000)) }).success(),
        "{}",
        pool.log()
    );
    assert_eq!(engine.containers(), Vec::<String>::new(), "containers are left\n{}", pool.log());
    assert_eq!(marks(&pool), Vec::<String>::new(), "marks are left\n{}", pool.log());
}

/// Waits until the engine holds nothing of ours, which the next sweep sees to.
#[track_caller]
pub fn comes_clean(engine: &Engine, pool: &Pool) {
    let clean = eventually(crate::common::PATIENCE, || engine.containers().is_empty() && marks(pool).is_empty());
    assert!(clean, "{:?} {:?}\n{}", engine.containers(), marks(pool), pool.log());
}
