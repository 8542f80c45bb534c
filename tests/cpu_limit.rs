//! Processor time: a task gets its share and no more, and its record says how it was held back.
//!
//! Where the kernel has no such limit for us, the record says so and the task runs as fast as it can. Deliberately
//! absent: how shares are divided among tasks that compete (`cpuWeight`), which is the kernel's.

mod common;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/more.rs"]
mod more;

use std::time::Duration;

use acode_worker::task::{Hold, Limits, TaskSpec};
use common::{Options, Pool};
use limits::{assert_held_as_here, cpu_time, enforces, limited, misbehave, usage};
use more::verdict;

/// How often a share is measured at most.
const TRIES: u32 = 4;

/// Burns as it is told to. Gives the processor time used for each second that passed, as the program itself saw it, and
/// whether the limit held it back: where others want the processors too, they may be what does.
#[track_caller]
fn share_of(pool: &Pool, spec: TaskSpec) -> (f64, bool) {
    let task = pool.wait(pool.submit_spec(spec));
    assert_eq!((verdict(&task), task.exit_code), ("exited", Some(0)), "{task:?}");
    let burned = limits::said(pool, &task);
    let figures: Vec<f64> = burned.split_whitespace().skip(1).map(|figure| figure.parse().unwrap()).collect();
    let [used, wall] = figures[..] else { panic!("{burned}") };
    let share = used / wall;
    assert!(cpu_time(&task).as_secs_f64() >= used * 0.99, "the record has less: {task:?}");
    let throttled = usage(&task).throttled_us;
    println!("{used:.3} s in {wall:.3} s: {:.1} %, throttled {throttled:?} us", share * 100.0);
    let cpu = assert_held_as_here(pool, &task, "cpuPercent");
    let held_back = throttled.is_some_and(|us| us > 0);
    if enforces(pool) {
        assert!(throttled.is_some() && cpu.exceeded == held_back, "{task:?}");
        assert!(cpu.by.contains("cpu.max"), "{cpu:?}");
    } else {
        // Nothing that looks at a task from time to time could hold it back, and nobody counted that it was.
        assert_eq!((cpu.hold, throttled), (Hold::None, None), "{cpu:?}");
    }
    (share, held_back)
}

/// Asserts that the limit was met within a tenth, where there is one.
#[track_caller]
fn assert_share(threads: &str, percent: u32) {
    let pool = Pool::start(Options::workers(1));
    // What is not held need not be measured for long.
    let seconds = if enforces(&pool) { "10" } else { "1" };
    let limits = Limits { cpu_percent: Some(percent), ..Limits::default() };
    let wanted = f64::from(percent) / 100.0;
    let mut tries = Vec::new();
    // It never gets more. It gets less while others want the processors too, so one good try of some is enough.
    let good = (0..TRIES).any(|_| {
        let (share, held_back) = share_of(&pool, limited(misbehave(&["burn", threads, seconds]), limits));
        // Where nothing holds it, it gets what the others leave, which is for nobody to say.
        assert!(!enforces(&pool) || share <= wanted * 1.1, "{share} instead of {wanted}");
        tries.push(share);
        !enforces(&pool) || (share >= wanted * 0.9 && held_back)
    });
    assert!(good, "{tries:?} instead of {wanted}");
}

#[test]
fn a_busy_loop_gets_a_quarter_of_a_processor() {
    assert_share("1", 25);
}

#[test]
fn four_busy_threads_get_it_together() {
    assert_share("4", 25);
}

#[test]
fn a_limit_above_one_processor_is_one_of_several() {
    // The other half of the second processor is everybody else's.
    let pool = Pool::start(Options::workers(1));
    if !enforces(&pool) {
        return limits::skip("nothing holds processor time here");
    }
    let limits = Limits { cpu_percent: Some(150), ..Limits::default() };
    let mut tries = Vec::new();
    let good = (0..TRIES).any(|_| {
        let (share, held_back) = share_of(&pool, limited(misbehave(&["burn", "4", "10"]), limits));
        assert!(share <= 1.65, "{share}");
        tries.push((share, held_back));
        share > 1.0
    });
    // Where it never got a whole processor without having been held back, others had them.
    assert!(good || tries.iter().all(|(_, held_back)| !held_back), "{tries:?}: never more than one processor");
}

#[test]
fn what_a_task_leaves_running_counts_too() {
    let pool = Pool::start(Options::workers(1));
    // The leader waits for none of them, and uses next to nothing itself.
    let script = r#""$1" burn 1 2 & "$1" burn 1 2 & sleep 3"#;
    let limits = Limits { cpu_percent: Some(25), ..Limits::default() };
    let spec = limited(common::shell(script, &[&limits::hostile()]), limits);
    let task = pool.wait(pool.submit_spec(spec));
    let used = cpu_time(&task);
    println!("two children of one that sleeps: {used:?}");
    if enforces(&pool) {
        assert!(used <= Duration::from_millis(3_000 / 4 * 12 / 10 * u64::from(limits::slowness())), "{used:?}");
    }
    assert!(used >= Duration::from_millis(50), "{used:?}");
}
