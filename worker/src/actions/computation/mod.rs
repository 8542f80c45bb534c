//! Numbers that anybody can check: primes, matrices, random points, hash chains, Collatz chains, Fibonacci numbers.
//!
//! Each kernel gives the same result on every machine, to the last digit. Deliberately absent: more than one thread; a pool
//! has as many workers as it is to use processors.

mod collatz;
mod matrix;
mod primes;
mod random;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::random::SplitMix64;
use super::files::Meter;
use super::{ActionError, Context, WorkAction};

/// The largest number of a range of primes: its square root's primes are kept in memory.
const PRIMES_TO_MAX: u64 = 1_000_000_000_000_000;
/// The largest matrix: three of 128 MiB.
const MATRIX_N_MAX: u32 = 4_096;
/// The largest number of a range of Collatz chains.
const COLLATZ_TO_MAX: u64 = 1_000_000_000_000;
/// How many points, or hashes, are done between two questions whether to go on.
const BATCH: u64 = 1 << 14;
/// Two to the 53rd: what a double can count to.
const DOUBLE_STEPS: f64 = 9_007_199_254_740_992.0;

/// The built-in action.
pub struct Computation;

/// What is to be computed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Params {
    /// How many primes, their sum, and the last.
    Primes(Range),
    /// The product of two matrices.
    MatrixProduct(Matrix),
    /// Pi by random points.
    MonteCarloPi(Points),
    /// A hash of a hash of a hash.
    HashChain(Chain),
    /// The longest Collatz chain.
    Collatz(Range),
    /// A Fibonacci number.
    Fibonacci(Fibonacci),
}

/// From one number to another, both within.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first number.
    #[serde(default = "one")]
    pub from: u64,
    /// The last number.
    pub to: u64,
}

fn one() -> u64 {
    1
}

/// Two matrices to be multiplied.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Rows and columns, or which number.
    pub n: u32,
    /// What the numbers are made from.
    #[serde(default)]
    pub seed: u64,
}

/// Points to be thrown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Points {
    /// How many points.
    pub samples: u64,
    /// What the numbers are made from.
    #[serde(default)]
    pub seed: u64,
}

/// A chain of hashes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// What the numbers are made from.
    pub seed: String,
    /// How many hashes.
    pub iterations: u64,
}

/// A Fibonacci number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fibonacci {
    /// Rows and columns, or which number.
    pub n: u64,
    /// The number is taken modulo this.
    pub modulus: u64,
}

/// What was computed. Sums that may not fit into the integers of every reader of JSON are decimal text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Computed {
    /// Primes.
    Primes {
        /// How many.
        count: u64,
        /// Their sum.
        sum: String,
        /// The largest; none if there is none.
        last: Option<u64>,
    },
    /// A product of matrices.
    MatrixProduct {
        /// Rows and columns.
        n: u32,
        /// The sum of the diagonal.
        trace: u64,
        /// The sum of all elements.
        sum: u64,
        /// Of its elements row by row, each as eight bytes, the lowest first.
        sha256: String,
    },
    /// Pi.
    MonteCarloPi {
        /// How many points.
        samples: u64,
        /// How many of them in the circle.
        inside: u64,
        /// Four times the part of them.
        estimate: f64,
    },
    /// The last hash.
    HashChain {
        /// How many hashes.
        iterations: u64,
        /// The last one, in hexadecimal digits.
        sha256: String,
    },
    /// The longest chain.
    Collatz {
        /// Where it starts; of several the smallest.
        start: u64,
        /// How long it is.
        steps: u64,
        /// Its largest number.
        peak: String,
    },
    /// A Fibonacci number.
    Fibonacci {
        /// Which.
        n: u64,
        /// Modulo this.
        modulus: u64,
        /// The number.
        value: u64,
    },
}

impl WorkAction for Computation {
    const NAME: &'static str = "computation";
    type Params = Params;
    type Output = Computed;

    fn validate(params: &Params) -> Result<(), String> {
        match params {
            Params::Primes(range) => range.check(0, PRIMES_TO_MAX),
            Params::Collatz(range) => range.check(1, COLLATZ_TO_MAX),
            Params::MatrixProduct(matrix) => check("n", u64::from(matrix.n), 1, u64::from(MATRIX_N_MAX)),
            Params::MonteCarloPi(points) => check("samples", points.samples, 1, u64::MAX),
            Params::HashChain(chain) => check("iterations", chain.iterations, 1, u64::MAX),
            Params::Fibonacci(fibonacci) => check("modulus", fibonacci.modulus, 1, u64::MAX),
        }
    }

    fn execute(params: Params, context: &mut Context<'_>) -> Result<Computed, ActionError> {
        match params {
            Params::Primes(Range { from, to }) => {
                let found = primes::in_range(from, to, &meter(context, to - from + 1))?;
                Ok(Computed::Primes { count: found.count, sum: found.sum.to_string(), last: found.last })
            }
            Params::MatrixProduct(Matrix { n, seed }) => {
                let product = matrix::product(n as usize, seed, &meter(context, matrix::steps(n as usize)))?;
                Ok(Computed::MatrixProduct { n, trace: product.trace, sum: product.sum, sha256: product.sha256 })
            }
            Params::MonteCarloPi(points) => points.throw(context),
            Params::HashChain(chain) => chain.run(context),
            Params::Collatz(Range { from, to }) => {
                let longest = collatz::longest(from, to, &meter(context, to - from + 1))?;
                Ok(Computed::Collatz { start: longest.start, steps: longest.steps, peak: longest.peak.to_string() })
            }
            Params::Fibonacci(Fibonacci { n, modulus }) => {
                Ok(Computed::Fibonacci { n, modulus, value: fibonacci(n, modulus) })
            }
        }
    }
}

fn meter<'c, 'h>(context: &'c mut Context<'h>, total: u64) -> Meter<'c, 'h> {
    Meter::new(context, total, |done, total| format!("{done} of {total}"))
}

fn check(key: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false if most == u64::MAX => Err(format!("{key} is {value}: give at least {least}")),
        false => Err(format!("{key} is {value}: give {least} to {most}")),
    }
}

impl Range {
    fn check(&self, least: u64, most: u64) -> Result<(), String> {
        check("from", self.from, least, most)?;
        check("to", self.to, least, most)?;
        if self.from > self.to { Err(format!("from is {}, and to is {}", self.from, self.to)) } else { Ok(()) }
    }
}

impl Points {
    /// Points of the unit square, each of two numbers, and how many of them are in the quarter of the circle.
    fn throw(&self, context: &mut Context<'_>) -> Result<Computed, ActionError> {
        let meter = meter(context, self.samples);
        let mut random = SplitMix64::new(self.seed);
        let mut unit = || (random.next() >> 11) as f64 / DOUBLE_STEPS;
        let (mut inside, mut left) = (0_u64, self.samples);
        while left > 0 {
            let batch = left.min(BATCH);
            for _ in 0..batch {
                let (x, y) = (unit(), unit());
                inside += u64::from(x * x + y * y <= 1.0);
            }
            left -= batch;
            meter.add(batch)?;
        }
        let estimate = 4.0 * inside as f64 / self.samples as f64;
        Ok(Computed::MonteCarloPi { samples: self.samples, inside, estimate })
    }
}

impl Chain {
    /// The hash of the text, the hash of that hash, and so on.
    fn run(&self, context: &mut Context<'_>) -> Result<Computed, ActionError> {
        let meter = meter(context, self.iterations);
        let mut hash = Sha256::digest(self.seed.as_bytes());
        meter.add(1)?;
        let mut left = self.iterations - 1;
        while left > 0 {
            let batch = left.min(BATCH);
            for _ in 0..batch {
                hash = Sha256::digest(hash);
            }
            left -= batch;
            meter.add(batch)?;
        }
        Ok(Computed::HashChain { iterations: self.iterations, sha256: super::files::in_hex(&hash) })
    }
}

/// The nth Fibonacci number (the first two, of 0 and 1, are 0 and 1) modulo `modulus`, by doubling.
fn fibonacci(n: u64, modulus: u64) -> u64 {
    let modulus = u128::from(modulus);
    // Two neighbours, the first of which is that of the bits of n seen so far.
    let (mut this, mut next) = (0_u128, 1 % modulus);
    for bit in (0..u64::BITS).rev() {
        let double = this * ((2 * next + modulus - this) % modulus) % modulus;
        let after = (this * this % modulus + next * next % modulus) % modulus;
        (this, next) = match n >> bit & 1 {
            0 => (double, after),
            _ => (after, (double + after) % modulus),
        };
    }
    u64::try_from(this).unwrap_or(0)
}
