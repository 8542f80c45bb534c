//! Seeds: fixed ones, a fresh one, one from outside, and mutations that have to be caught.
//!
//! `ACODE_SIM_SEED=7 ACODE_SIM_STEPS=120 cargo test --lib sim::` replays one run; `ACODE_SIM_SEEDS=500` runs so many.

use nix::time::{ClockId, clock_gettime};

use super::Mutation;
use super::witness::Tally;
use super::world::{Failure, World};
use crate::store::Store;

/// Inputs of one run.
const STEPS: u64 = 250;
/// Seeds that every test run runs.
const FIXED: u64 = 24;
/// Those that have the real store beside the oracle, too.
const IN_LOCKSTEP: u64 = 6;
/// And how many inputs they have: a disk takes its time.
const LOCKSTEP_STEPS: u64 = 60;

/// The processor time of this thread: what other tests do beside us does not count.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, steps: u64, mutation: Mutation) -> Result<Tally, Failure> {
    World::new(seed, steps, mutation, None).run()
}

fn run_in_lockstep(seed: u64, steps: u64) -> Result<Tally, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    World::new(seed, steps, Mutation::None, Some(store)).run()
}

/// The fewest inputs after which the run still fails, found by halving; and how it fails then.
fn shortest(failure: Failure, again: impl Fn(u64) -> Result<Tally, Failure>) -> (u64, Failure) {
    let (mut good, mut bad, mut last) = (0, failure.steps, failure);
    while good + 1 < bad {
        let middle = good.midpoint(bad);
        match again(middle) {
            Err(failure) => (bad, last) = (middle, failure),
            Ok(_) => good = middle,
        }
    }
    (bad, last)
}

/// Fails with the seed, and with the shortest prefix of its inputs that fails.
fn must_hold(seed: u64, steps: u64, again: impl Fn(u64) -> Result<Tally, Failure>) -> Tally {
    again(steps).unwrap_or_else(|failure| {
        let (steps, failure) = shortest(failure, again);
        panic!("{}\nreplay with ACODE_SIM_SEED={seed} ACODE_SIM_STEPS={steps} cargo test --lib sim::", failure.why)
    })
}

fn add(total: &mut Tally, more: Tally) {
    total.lives += more.lives;
    total.attempts += more.attempts;
    total.births += more.births;
    total.supervisors += more.supervisors;
}

#[test]
fn every_promise_holds_in_every_seed() {
    let (begun_s, mut total) = (cpu_seconds(), Tally::default());
    let steps = number("ACODE_SIM_STEPS").unwrap_or(STEPS);
    let seeds: Vec<u64> = match number("ACODE_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("ACODE_SIM_SEEDS").unwrap_or(FIXED)).collect(),
    };
    for seed in &seeds {
        add(&mut total, must_hold(*seed, steps, |steps| run(*seed, steps, Mutation::None)));
    }
    let rate = total.lives as f64 / (cpu_seconds() - begun_s);
    println!("{} seeds: {total:?}, {rate:.0} task lives per second", seeds.len());
    assert!(rate > 1_000.0, "{rate:.0} task lives per second: at least 10,000 are aimed at");
}

#[test]
fn the_store_agrees_with_the_oracle_in_every_step() {
    for seed in 0..IN_LOCKSTEP {
        must_hold(seed, LOCKSTEP_STEPS, |steps| run_in_lockstep(seed, steps));
    }
}

#[test]
fn a_seed_that_nobody_has_seen_before_holds_too() {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    let first = u64::from(u32::from_le_bytes(bytes));
    for seed in first..first + 3 {
        println!("fresh seed {seed}: replay with ACODE_SIM_SEED={seed}");
        must_hold(seed, STEPS, |steps| run(seed, steps, Mutation::None));
    }
}

#[test]
fn a_seed_repeats_itself_and_a_shorter_run_is_its_beginning() {
    let first = run(5, 60, Mutation::None);
    assert_eq!(first, run(5, 60, Mutation::None));
    let shorter = run(5, 30, Mutation::None).unwrap();
    assert!(shorter.attempts < first.unwrap().attempts, "more inputs, more work");
}

/// Breaks one rule, and gives what the witness says in the first seed that shows it, shortened.
fn caught(mutation: Mutation) -> Failure {
    let failed = (0..12).find_map(|seed| Some((seed, run(seed, STEPS, mutation).err()?)));
    let (seed, failure) = failed.unwrap_or_else(|| panic!("{mutation:?} is not seen in any seed"));
    let (steps, shortened) = shortest(failure.clone(), |steps| run(seed, steps, mutation));
    assert!(steps <= failure.steps);
    shortened
}

#[test]
fn a_slot_that_is_freed_before_its_commit_is_seen() {
    let why = caught(Mutation::ReleaseBeforeCommit).why;
    assert!(why.contains("was freed before its end was on disk"), "{why}");
}

#[test]
fn a_task_that_is_given_away_while_its_processes_live_is_seen() {
    let why = caught(Mutation::BuryTheLiving).why;
    assert!(why.contains("is given to"), "{why}");
}

#[test]
fn last_words_that_nobody_reads_are_seen() {
    let why = caught(Mutation::NoLastWords).why;
    assert!(why.contains("was reported done"), "{why}");
}

#[test]
fn a_group_that_is_given_more_than_its_limit_is_seen() {
    let why = caught(Mutation::NoGroupLimits).why;
    assert!(why.contains("of group"), "{why}");
}

#[test]
fn a_task_that_is_given_to_a_worker_of_another_mode_is_seen() {
    let why = caught(Mutation::AnyClass).why;
    assert!(why.contains("is given to a worker of"), "{why}");
}
