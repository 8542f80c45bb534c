//! The primes of a range, by a sieve of segments: memory goes with the square root of its end.
//!
//! Deliberately absent: lists of primes; there may be very many.

use crate::actions::Cancelled;
use crate::actions::files::Meter;

/// How many odd numbers are sieved at once: a cache's worth.
const SEGMENT: u64 = 1 << 18;
/// How many primes are sieved with between two questions whether to go on.
const ASK_EVERY: usize = 1 << 14;

/// What there is in a range.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Primes {
    pub count: u64,
    pub sum: u128,
    /// The largest.
    pub last: Option<u64>,
}

impl Primes {
    fn take(&mut self, prime: u64) {
        self.count += 1;
        self.sum += u128::from(prime);
        self.last = Some(prime);
    }
}

/// The primes from `from` to `to`, both within.
///
/// # Errors
/// The action is to end.
pub(super) fn in_range(from: u64, to: u64, meter: &Meter<'_, '_>) -> Result<Primes, Cancelled> {
    let base = odd_primes_to(to.isqrt(), meter)?;
    let mut found = Primes::default();
    if from <= 2 && to >= 2 {
        found.take(2);
    }
    let mut composite = vec![false; SEGMENT as usize];
    // The first odd number of a segment; 1 is no prime.
    let mut low = from.max(3) | 1;
    while low <= to {
        let high = low.saturating_add(2 * (SEGMENT - 1)).min(to);
        let count = ((high - low) / 2 + 1) as usize;
        composite[..count].fill(false);
        for primes in base.chunks(ASK_EVERY) {
            meter.check()?;
            primes.iter().for_each(|prime| strike(&mut composite[..count], low, u64::from(*prime)));
        }
        for (at, _) in composite[..count].iter().enumerate().filter(|(_, composite)| !**composite) {
            found.take(low + 2 * at as u64);
        }
        meter.add(2 * count as u64)?;
        low += 2 * SEGMENT;
    }
    Ok(found)
}

/// Strikes the odd multiples of a prime, from its square on, in a segment that begins with the odd number `low`.
fn strike(composite: &mut [bool], low: u64, prime: u64) {
    let square = prime * prime;
    let first = if square >= low {
        square
    } else {
        let multiple = low.div_ceil(prime) * prime;
        if multiple.is_multiple_of(2) { multiple + prime } else { multiple }
    };
    let mut at = usize::try_from((first - low) / 2).unwrap_or(usize::MAX);
    let step = prime as usize;
    while let Some(number) = composite.get_mut(at) {
        *number = true;
        at += step;
    }
}

/// The odd primes up to a number that is small enough for one sieve.
fn odd_primes_to(limit: u64, meter: &Meter<'_, '_>) -> Result<Vec<u32>, Cancelled> {
    // The number at place n is 2n + 3.
    let mut composite = vec![false; usize::try_from(limit.saturating_sub(1) / 2).unwrap_or(0)];
    let mut primes = Vec::new();
    for at in 0..composite.len() {
        if at.is_multiple_of(ASK_EVERY) {
            meter.check()?;
        }
        if !composite[at] {
            let prime = 2 * at as u64 + 3;
            primes.push(prime as u32);
            strike(&mut composite, 3, prime);
        }
    }
    Ok(primes)
}
