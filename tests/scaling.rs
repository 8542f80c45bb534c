//! The number of workers while a pool runs: by hand and by load, up, down, its bounds, and who goes first.
//!
//! Deliberately absent: when exactly the load scales a pool, which the simulation in `src/supervisor/scaling_tests.rs` proves;
//! SIGTTIN and SIGTTOU on a pool that does not scale by load (`signals.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::collections::BTreeSet;

use acode::wire::request::{Scale, Stop};
use acode::wire::types::{ScalingMode, StopMode, WorkerStatus};
use acode::wire::{CallError, ClientError};
use acode_worker::task::TaskState;
use command::Acode;
use common::{Options, Pool, is_alive, wait_until};
use more::{gated, only_attempt, open_gate, reaches};

fn scale(pool: &Pool, count: u32) -> (u32, u32) {
    let scaled = pool.call(&Scale { count });
    (scaled.before, scaled.target)
}

#[track_caller]
fn becomes(pool: &Pool, count: usize) {
    wait_until(&format!("{count} workers are idle and no other is there"), || {
        let workers = pool.workers();
        workers.len() == count && workers.iter().all(|worker| worker.status == WorkerStatus::Idle)
    });
}

#[test]
fn scaling_up_adds_workers() {
    let pool = Pool::start(Options::workers(2));
    let before: BTreeSet<_> = pool.idle_workers().into_iter().map(|worker| worker.id).collect();
    assert_eq!(scale(&pool, 6), (2, 6));
    becomes(&pool, 6);
    let after: BTreeSet<_> = pool.workers().into_iter().map(|worker| worker.id).collect();
    assert!(before.is_subset(&after), "those that were there stay");
    let ids = pool.submit_all((0..6).map(|_| more::entry(gated(&pool, "gate"))).collect());
    wait_until("all six work", || pool.status().tasks.running == 6);
    open_gate(&pool, "gate");
    let workers: BTreeSet<_> = ids.iter().map(|id| only_attempt(&pool.wait(*id)).worker).collect();
    assert_eq!(workers.len(), 6);
    let scaled = pool.events().into_iter().find(|event| event.event == "pool-scaled-up").unwrap();
    assert_eq!(scaled.data.unwrap().get(), r#"{"from":2,"to":6,"cause":"request"}"#);
}

#[test]
fn new_workers_take_tasks_that_wait_already() {
    let pool = Pool::start(Options::workers(1));
    pool.submit_all((0..3).map(|_| more::entry(gated(&pool, "gate"))).collect());
    wait_until("one runs", || pool.status().tasks.running == 1);
    scale(&pool, 3);
    wait_until("three run", || pool.status().tasks.running == 3);
    open_gate(&pool, "gate");
}

#[test]
fn scaling_down_stops_idle_workers_first() {
    let pool = Pool::start(Options::workers(4));
    let all = pool.idle_workers();
    let ids = pool.submit_all((0..2).map(|_| more::entry(gated(&pool, "gate"))).collect());
    let busy: BTreeSet<_> = ids.iter().map(|id| pool.worker_of(*id).id).collect();
    assert_eq!(scale(&pool, 2), (4, 2));
    wait_until("the idle ones have left", || pool.workers().len() == 2);
    let left: BTreeSet<_> = pool.workers().iter().map(|worker| worker.id).collect();
    assert_eq!(left, busy);
    for gone in all.iter().filter(|worker| !busy.contains(&worker.id)) {
        wait_until("its process is gone", || !is_alive(gone.pid));
    }
    open_gate(&pool, "gate");
    ids.iter().for_each(|id| assert_eq!(pool.wait(*id).attempt_count, 1));
    becomes(&pool, 2);
}

#[test]
fn a_busy_worker_finishes_before_it_is_scaled_away() {
    let pool = Pool::start(Options::workers(2));
    let ids = pool.submit_all((0..2).map(|_| more::entry(gated(&pool, "gate"))).collect());
    ids.iter().for_each(|id| drop(reaches(&pool, *id, TaskState::Running)));
    let queued = pool.submit(&["true"]);
    scale(&pool, 1);
    wait_until("one is leaving", || pool.status().workers.stopping == 1);
    assert_eq!(pool.status().tasks.running, 2, "its task runs on");
    open_gate(&pool, "gate");
    for id in ids {
        let task = pool.wait(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1));
    }
    assert_eq!(pool.wait(queued).state, TaskState::Completed);
    becomes(&pool, 1);
}

#[test]
fn scaling_beyond_the_maximum_is_refused() {
    let pool = Pool::start(Options::workers(2).config("workers:\n  maxCount: 3"));
    let refused = pool.try_call(&Scale { count: 4 });
    assert!(matches!(refused, Err(ClientError::Call(CallError::InvalidParameter { .. }))), "{refused:?}");
    assert_eq!(pool.status().workers.max, 3);
    assert_eq!(scale(&pool, 3), (2, 3));
    becomes(&pool, 3);
}

#[test]
fn scaling_below_one_is_refused() {
    let pool = Pool::start(Options::workers(1));
    let refused = pool.try_call(&Scale { count: 0 });
    assert!(matches!(refused, Err(ClientError::Call(CallError::InvalidParameter { .. }))), "{refused:?}");
    assert_eq!(pool.status().workers.target, 1);
}

#[test]
fn a_pool_that_stops_is_not_scaled() {
    let mut pool = Pool::start(Options::workers(1));
    let id = pool.submit_spec(gated(&pool, "gate"));
    reaches(&pool, id, TaskState::Running);
    pool.call(&Stop { mode: StopMode::Drain, timeout_ms: None });
    let refused = pool.try_call(&Scale { count: 2 });
    assert!(matches!(refused, Err(ClientError::Call(CallError::Draining))), "{refused:?}");
    open_gate(&pool, "gate");
    pool.wait_exit();
}

#[test]
fn scaling_to_and_fro_ends_at_the_last_number() {
    let pool = Pool::start(Options::workers(1));
    for count in [16, 2, 9, 1, 5] {
        scale(&pool, count);
    }
    becomes(&pool, 5);
    let id = pool.submit(&["true"]);
    assert_eq!(pool.wait(id).state, TaskState::Completed);
}

/// A pool that scales by load, with waits as short as they can be.
fn by_load(min: u32, max: u32) -> Options {
    let yaml = format!(
        "workers:\n  heartbeatIntervalMs: 50\n  heartbeatTimeoutMs: 1000\n  scaling: {{enabled: true, minCount: {min}, \
         maxCount: {max}, scaleUpCooldownSeconds: 0, scaleDownCooldownSeconds: 0, idleTimeoutSeconds: 1}}"
    );
    Options::workers(min).config(&yaml)
}

/// Every scaling so far: up or down, and what the event says.
fn scalings(pool: &Pool) -> Vec<(bool, serde_json::Value)> {
    let scaled = |event: acode::wire::types::EventRecord| match event.event.as_str() {
        name @ ("pool-scaled-up" | "pool-scaled-down") => {
            Some((name == "pool-scaled-up", serde_json::from_str(event.data.unwrap().get()).unwrap()))
        }
        _ => None,
    };
    pool.events().into_iter().filter_map(scaled).collect()
}

#[test]
fn load_makes_workers_and_quiet_lets_them_go() {
    let pool = Pool::start(by_load(2, 6));
    let counts = pool.status().workers;
    assert_eq!((counts.target, counts.min, counts.max, counts.scaling), (2, 2, 6, ScalingMode::Auto));
    let ids = pool.submit_all((0..20).map(|_| more::entry(gated(&pool, "gate"))).collect());
    wait_until("as many run as there may be", || pool.status().tasks.running == 6);
    assert_eq!(pool.status().workers.target, 6);
    open_gate(&pool, "gate");
    ids.iter().for_each(|id| assert_eq!(pool.wait(*id).attempt_count, 1));
    becomes(&pool, 2);
    let scalings = scalings(&pool);
    assert!(
        scalings
            .iter()
            .all(|(up, data)| data["cause"] == "load" && (data["to"].as_u64() > data["from"].as_u64()) == *up)
    );
    // One step up, since the demand was there at once, and one down after a second without any.
    assert_eq!(scalings.iter().filter(|(up, _)| *up).map(|(_, data)| &data["to"]).collect::<Vec<_>>(), [6]);
    assert_eq!(scalings.last().unwrap().1["to"], 2);
}

#[test]
fn a_growth_is_as_large_as_the_load_and_no_larger() {
    let pool = Pool::start(by_load(2, 50));
    pool.submit_all((0..7).map(|_| more::entry(gated(&pool, "gate"))).collect());
    // Seven at 0.7.
    wait_until("it has grown", || pool.status().workers.target == 10);
    wait_until("seven run", || pool.status().tasks.running == 7);
    assert_eq!(pool.status().workers.target, 10);
    open_gate(&pool, "gate");
}

#[test]
fn a_number_set_by_hand_is_held_until_it_is_handed_back() {
    let pool = Pool::start(by_load(2, 4));
    let acode = Acode::of(&pool);
    assert_eq!(acode.ok(&["worker", "scale", "3"]), "workers: 2 -> 3");
    assert_eq!(pool.status().workers.scaling, ScalingMode::Manual);
    assert!(acode.ok(&["worker", "status"]).contains("Scaling: held at 3"));
    assert_eq!(acode.json(&["worker", "status"])["workers"]["scaling"], "manual");
    pool.submit_all((0..20).map(|_| more::entry(gated(&pool, "gate"))).collect());
    wait_until("three run", || pool.status().tasks.running == 3);
    assert_eq!(acode.json(&["worker", "scale", "--auto"])["before"], 3);
    wait_until("the load decides again", || pool.status().tasks.running == 4);
    assert_eq!(pool.status().workers.scaling, ScalingMode::Auto);
    assert!(acode.ok(&["worker", "status"]).contains("Scaling: by load, 2 to 4, now 4"));
    common::signal(pool.pid(), nix::sys::signal::Signal::SIGTTIN);
    wait_until("one more", || pool.status().workers.target == 5);
    assert_eq!(pool.status().workers.scaling, ScalingMode::Manual, "signals hold as well");
    open_gate(&pool, "gate");
}

#[test]
fn a_number_given_at_the_start_switches_scaling_by_load_off() {
    let pool = Pool::start(Options::workers(2));
    assert_eq!(pool.status().workers.scaling, ScalingMode::Off);
    let refused = Acode::of(&pool).says(&["worker", "scale", "--auto"]).expect(1);
    assert!(refused.err.contains("workers.scaling.enabled"), "{refused:?}");
    assert_eq!(scale(&pool, 3), (2, 3));
    assert_eq!(pool.status().workers.scaling, ScalingMode::Off);
}

#[test]
fn the_flags_of_start_switch_scaling_by_load_on_and_its_bounds_are_checked() {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    let refused = acode.says(&["worker", "start", "--min", "5", "--max", "4"]).expect(2);
    assert!(
        refused.err.contains("--min: workers.scaling.minCount is 5: at most workers.scaling.maxCount, 4,"),
        "{refused:?}"
    );
    acode.ok(&["worker", "start", "--detach", "--min", "3", "--max", "4"]);
    let workers = &acode.json(&["worker", "status"])["workers"];
    let told = ["target", "min", "max", "scaling"].map(|key| workers[key].clone());
    assert_eq!(serde_json::json!(told[1..]), serde_json::json!([3, 4, "auto"]));
    assert!((3..=4).contains(&told[0].as_u64().unwrap()), "it begins with the processors, within the bounds");
    acode.ok(&["worker", "stop"]);
}

#[test]
fn a_configuration_that_is_read_again_moves_the_bounds() {
    let pool = Pool::start(by_load(2, 4));
    let yaml = std::fs::read_to_string(pool.file("acode.yaml")).unwrap();
    let hup = |yaml: &str| {
        std::fs::write(pool.file("acode.yaml"), yaml).unwrap();
        common::signal(pool.pid(), nix::sys::signal::Signal::SIGHUP);
    };
    hup(&yaml.replace("minCount: 2", "minCount: 3"));
    becomes(&pool, 3);
    let (up, data) = scalings(&pool).remove(0);
    assert_eq!((up, data), (true, serde_json::json!({ "from": 2, "to": 3, "cause": "reload" })));
    hup(&yaml.replace("enabled: true", "enabled: false"));
    // Then the number is the one that was given at the start.
    becomes(&pool, 2);
    assert_eq!(pool.status().workers.scaling, ScalingMode::Off);
    hup(&yaml);
    wait_until("it scales by load again", || pool.status().workers.scaling == ScalingMode::Auto);
}
