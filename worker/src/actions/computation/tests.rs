//! Known numbers; tests/types_computation.rs has Python compute the same.

use serde_json::{Value, json};

use crate::actions::desk_tests::{Desk, run as run_type, run_at};
use crate::task::ActionType;

fn run(params: Value) -> Result<Value, String> {
    run_type(std::path::Path::new("/nowhere"), ActionType::Computation, params)
}

#[test]
fn primes_are_counted_and_summed() {
    for (from, to, count, sum, last) in [
        (0_u64, 1_u64, 0, "0", None),
        (2, 2, 1, "2", Some(2)),
        (0, 10, 4, "17", Some(7)),
        (8, 10, 0, "0", None),
        (9, 9, 0, "0", None),
        (1, 1_000_000, 78_498, "37550402023", Some(999_983)),
        (999_983, 999_983, 1, "999983", Some(999_983)),
        (1_000_000_000_000, 1_000_000_000_100, 4, "4000000000254", Some(1_000_000_000_091_u64)),
    ] {
        let found = run(json!({"operation": "primes", "from": from, "to": to})).unwrap();
        assert_eq!(
            (&found["count"], &found["sum"], &found["last"]),
            (&json!(count), &json!(sum), &json!(last)),
            "{to}"
        );
    }
    // Ranges put together are the whole.
    let count = |from: u64, to: u64| {
        run(json!({"operation": "primes", "from": from, "to": to})).unwrap()["count"].as_u64().unwrap()
    };
    assert_eq!(count(0, 777_776) + count(777_777, 1_555_555), count(0, 1_555_555));
}

#[test]
fn matrices_are_multiplied_in_blocks_as_by_hand() {
    for n in [1_usize, 3, 64, 65, 130] {
        let mut random = super::random::SplitMix64::new(7);
        let mut fill = || (0..n * n).map(|_| random.next() % 100).collect::<Vec<_>>();
        let (a, b) = (fill(), fill());
        let element = |i: usize, j: usize| (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum::<u64>();
        let done = run(json!({"operation": "matrixProduct", "n": n, "seed": 7})).unwrap();
        assert_eq!(done["trace"], (0..n).map(|i| element(i, i)).sum::<u64>());
        assert_eq!(done["sum"], (0..n * n).map(|at| element(at / n, at % n)).sum::<u64>());
    }
}

#[test]
fn points_hashes_chains_and_rabbits() {
    let pi = run(json!({"operation": "monteCarloPi", "samples": 200_000, "seed": 42})).unwrap();
    assert!((pi["estimate"].as_f64().unwrap() - std::f64::consts::PI).abs() < 0.02, "{pi}");
    let one = run(json!({"operation": "hashChain", "seed": "abc", "iterations": 1})).unwrap();
    assert_eq!(one["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let collatz = run(json!({"operation": "collatz", "to": 100_000})).unwrap();
    assert_eq!(collatz, json!({"operation": "collatz", "start": 77_031, "steps": 350, "peak": "21933016"}));
    for (n, modulus, value) in
        [(0_u64, 10_u64, 0_u64), (1, 1, 0), (90, u64::MAX, 2_880_067_194_370_816_120), (10, 7, 6)]
    {
        let done = run(json!({"operation": "fibonacci", "n": n, "modulus": modulus})).unwrap();
        assert_eq!(done["value"], value, "{n}");
    }
}

#[test]
fn every_kernel_can_be_ended_and_tells_how_far_it_is() {
    for params in [
        json!({"operation": "primes", "to": 1_000_000_000_000_000_u64}),
        json!({"operation": "matrixProduct", "n": 512}),
        json!({"operation": "monteCarloPi", "samples": u64::MAX}),
        json!({"operation": "hashChain", "seed": "", "iterations": u64::MAX}),
        json!({"operation": "collatz", "to": 1_000_000_000_000_u64}),
    ] {
        let mut desk = Desk::default();
        desk.ends_after.set(Some(3));
        let outcome = run_at(&mut desk, std::path::Path::new("/"), ActionType::Computation, params).unwrap();
        assert_eq!(outcome.error().as_deref(), Some("it was told to end"));
    }
    let mut desk = Desk::default();
    let params = json!({"operation": "primes", "to": 1_000_000});
    run_at(&mut desk, std::path::Path::new("/"), ActionType::Computation, params).unwrap();
    assert!(!desk.percents.is_empty());
}

#[test]
fn parameters_are_checked_in_words() {
    for (params, words) in [
        (json!({"operation": "primes", "to": 1_000_000_000_000_001_u64}), "give 0 to 1000000000000000"),
        (json!({"operation": "primes", "from": 9, "to": 8}), "from is 9, and to is 8"),
        (json!({"operation": "primes", "to": -1}), "-1"),
        (json!({"operation": "collatz", "from": 0, "to": 8}), "from is 0: give 1 to"),
        (json!({"operation": "matrixProduct", "n": 5_000}), "n is 5000: give 1 to 4096"),
        (json!({"operation": "monteCarloPi", "samples": 0}), "samples is 0: give at least 1"),
        (json!({"operation": "hashChain", "seed": "x", "iterations": 0}), "iterations is 0"),
        (json!({"operation": "fibonacci", "n": 1, "modulus": 0}), "modulus is 0"),
        (json!({"operation": "fibonacci", "n": 1, "modulus": 2, "m": 3}), "unknown field `m`"),
    ] {
        let error = run(params).unwrap_err();
        assert!(error.starts_with("params of computation: ") && error.contains(words), "{error}");
    }
}
