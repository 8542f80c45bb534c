//! What a container uses, and how its limits are held, where the engine puts its containers' cgroups below a parent of its
//! own: the engine of these tests does.
//!
//! Where there is no engine the test says why and passes. Deliberately absent: disk limits, which the host holds.

mod common;
#[path = "common/docker.rs"]
mod docker;
#[path = "common/more.rs"]
mod more;

use acode_worker::task::{Hold, Limits, TaskSpec, TaskState};
use common::engine::Engine;
use common::{shell, wait_until};
use docker::{assert_nothing_left, ended, in_container, pool};
use more::{cancel, only_attempt, verdict};

#[test]
fn usage_and_limits_are_told_wherever_the_engine_puts_its_cgroups() {
    let Some(engine) = Engine::start() else { return };
    let cli = engine.recording_cli();
    let pool = pool(&engine, 1, &format!("  program: {}\n", cli.program()));
    let limits = Limits { memory_mb: Some(64), pids: Some(40), ..Limits::default() };
    // 20 MiB held, and a second or so of work; then idle, with all of it still there.
    let script =
        "x=$(head -c 20000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1000";
    let id = pool.submit_spec(in_container(TaskSpec { limits, ..shell(script, &[]) }));
    let live = || pool.show(id).usage_now.is_some_and(|now| now.memory_bytes > 20_000_000 && now.cpu_us > 100_000);
    wait_until("it is seen while it runs", live);
    assert!(cancel(&pool, id));
    let task = pool.wait(id);
    let attempt = only_attempt(&task);
    let usage = attempt.usage.unwrap();
    assert!(usage.user_us + usage.system_us > 100_000, "{usage:?}");
    assert!(usage.peak_memory_bytes.is_some_and(|bytes| (20_000_000..67_108_865).contains(&bytes)), "{usage:?}");
    for (wanted, file) in [("memoryMb", "memory."), ("pids", "pids.max")] {
        let is_held = attempt
            .limits
            .iter()
            .any(|held| held.limit == wanted && held.hold == Hold::Enforced && held.by.starts_with(file));
        assert!(is_held, "{wanted}: {:?}", attempt.limits);
    }
    // From here on the worker knows the place, and asks no more.
    let asked = cli.calls_of("inspect").len();
    for _ in 0..3 {
        let task = ended(&pool, TaskSpec { limits, ..shell("sleep 0.7", &[]) });
        assert_eq!(task.state, TaskState::Completed, "{task:?}");
        assert!(only_attempt(&task).usage.is_some_and(|usage| usage.peak_memory_bytes.is_some()), "{task:?}");
    }
    assert_eq!(cli.calls_of("inspect").len(), asked, "{:?}", cli.calls());
    // A child that dies for want of memory is counted, though the task goes on.
    let script = "(head -c 200000000 /dev/zero | tail >/dev/null); sleep 1; exit 0";
    let task = ended(&pool, TaskSpec { limits, ..shell(script, &[]) });
    let attempt = only_attempt(&task);
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    assert!(attempt.usage.is_some_and(|usage| usage.oom_kills.is_some_and(|kills| kills > 0)), "{attempt:?}");
    let task = ended(&pool, TaskSpec { limits, ..shell("exec tail /dev/zero", &[]) });
    // It may come again with more memory, as the pool is configured.
    let attempt = task.attempts.iter().flatten().last().unwrap();
    assert_eq!(verdict(&task), "out-of-memory", "{task:?}");
    assert!(attempt.usage.is_some_and(|usage| usage.oom_kills.is_some_and(|kills| kills > 0)), "{attempt:?}");
    assert!(attempt.limits.iter().any(|held| held.limit == "memoryMb" && held.exceeded), "{:?}", attempt.limits);
    assert_nothing_left(&engine, pool);
}
