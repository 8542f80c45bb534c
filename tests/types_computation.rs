//! Typed tasks of type `computation` through the real binary: Python computes the same.
//!
//! Deliberately absent: each single parameter, which the type's own tests have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use acode_worker::task::ActionType::Computation;
use acode_worker::task::{TaskSpec, TaskState};
use command::Acode;
use common::{Options, Pool};
use more::{cancel, verdict};
use serde_json::{Value, json};
use typed::{ISOLATIONS, have, is_under_way, result, says, typed};

/// The same in Python: what it prints is what the task answers, as JSON.
const PYTHON: &str = r#"
import hashlib, json, math, sys

def splitmix64(seed):
    state, mask = seed, (1 << 64) - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)

def primes(to, **more):
    first = more.get("from", 1)
    sieve = bytearray([1]) * (to + 1)
    sieve[0:2] = b"\0\0"
    for n in range(2, math.isqrt(to) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, to + 1, n)))
    found = [n for n in range(first, to + 1) if sieve[n]]
    return {"count": len(found), "sum": str(sum(found)), "last": found[-1] if found else None}

def matrixProduct(n, seed):
    random = splitmix64(seed)
    a, b = ([[next(random) % 100 for _ in range(n)] for _ in range(n)] for _ in range(2))
    columns = list(zip(*b))
    c = [[sum(x * y for x, y in zip(row, column)) for column in columns] for row in a]
    whole = b"".join(x.to_bytes(8, "little") for row in c for x in row)
    return {"n": n, "trace": sum(c[i][i] for i in range(n)), "sum": sum(map(sum, c)),
            "sha256": hashlib.sha256(whole).hexdigest()}

def monteCarloPi(samples, seed):
    random = splitmix64(seed)
    unit = lambda: (next(random) >> 11) / 2**53
    inside = 0
    for _ in range(samples):
        x, y = unit(), unit()
        inside += x * x + y * y <= 1.0
    return {"samples": samples, "inside": inside, "estimate": 4 * inside / samples}

def hashChain(seed, iterations):
    digest = seed.encode()
    for _ in range(iterations):
        digest = hashlib.sha256(digest).digest()
    return {"iterations": iterations, "sha256": digest.hex()}

def collatz(to, **more):
    best = (-1, 0, 0)
    for start in range(more.get("from", 1), to + 1):
        n, steps, peak = start, 0, start
        while n > 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps, peak = steps + 1, max(peak, n)
        if steps > best[0]:
            best = (steps, start, peak)
    return {"start": best[1], "steps": best[0], "peak": str(best[2])}

def fibonacci(n, modulus):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, (a + b) % modulus
    return {"n": n, "modulus": modulus, "value": a % modulus}

params = json.loads(sys.argv[1])
operation = params.pop("operation")
print(json.dumps({"operation": operation, **globals()[operation](**params)}))
"#;

#[test]
fn python_computes_the_same() {
    if !have(&["python3"]) {
        return;
    }
    let pool = Pool::start(Options::workers(2));
    for params in [
        json!({"operation": "primes", "to": 1_000_000}),
        json!({"operation": "primes", "from": 1_299_700, "to": 1_300_000}),
        json!({"operation": "primes", "from": 24, "to": 28}),
        json!({"operation": "matrixProduct", "n": 100, "seed": 2_026}),
        json!({"operation": "monteCarloPi", "samples": 100_000, "seed": 18_446_744_073_709_551_615_u64}),
        json!({"operation": "hashChain", "seed": "grüße", "iterations": 50_000}),
        json!({"operation": "collatz", "to": 20_000}),
        json!({"operation": "collatz", "from": 9_000, "to": 9_001}),
        json!({"operation": "fibonacci", "n": 100_000, "modulus": 1_000_000_007}),
    ] {
        let theirs = says(&pool.file(""), &["python3", "-c", PYTHON, &params.to_string()]);
        let theirs: Value = serde_json::from_str(&theirs).unwrap();
        for isolation in ISOLATIONS {
            let spec = TaskSpec { isolation: Some(isolation), ..typed(&pool, Computation, params.clone()) };
            assert_eq!(result(&pool, &pool.wait(pool.submit_spec(spec))), theirs, "{params}");
        }
    }
}

#[test]
fn it_can_be_cancelled_and_timed_out() {
    let pool = Pool::start(Options::workers(2));
    for isolation in ISOLATIONS {
        for params in [
            json!({"operation": "primes", "to": 1_000_000_000_000_u64}),
            json!({"operation": "matrixProduct", "n": 2_048}),
            json!({"operation": "hashChain", "seed": "", "iterations": 1_000_000_000_000_u64}),
        ] {
            let spec = TaskSpec { isolation: Some(isolation), ..typed(&pool, Computation, params) };
            let id = pool.submit_spec(spec);
            is_under_way(&pool, id);
            assert!(cancel(&pool, id));
            let task = pool.wait(id);
            assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"), "{task:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_at_once_with_the_words() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for (params, words) in [
        (r#"{"operation": "primes", "from": 2, "to": 1}"#, "from is 2, and to is 1"),
        (r#"{"operation": "matrixProduct", "n": 0}"#, "n is 0: give 1 to 4096"),
        (r#"{"operation": "hashChain", "iterations": 1}"#, "missing field `seed`"),
        (r#"{"operation": "divide"}"#, "unknown variant `divide`"),
    ] {
        let said = acode.says(&["task", "submit", "--type", "computation", "--params", params]).expect(2);
        assert!(said.err.contains("params of computation: ") && said.err.contains(words), "{said:?}");
    }
}
