//! The number of a range from which the longest Collatz chain goes: half of an even number, three times an odd one and
//! one, until 1.
//!
//! Deliberately absent: a table of chains known already; memory stays as it is.

use crate::actions::ActionError;
use crate::actions::files::Meter;

/// How many steps are made between two questions whether to go on.
const ASK_EVERY: u64 = 1 << 18;

/// The longest chain: of several the one with the smallest start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Longest {
    pub start: u64,
    /// From the start to 1.
    pub steps: u64,
    /// The largest number of the chain.
    pub peak: u128,
}

/// The longest chain that starts from `from` to `to`, both within.
///
/// # Errors
/// The action is to end, or a chain leaves the numbers of 128 bits, which none is known to do.
pub(super) fn longest(from: u64, to: u64, meter: &Meter<'_, '_>) -> Result<Longest, ActionError> {
    let mut longest = Longest { start: from, steps: 0, peak: u128::from(from) };
    let (mut since, mut asked_at) = (0, from);
    for start in from..=to {
        let (mut number, mut steps, mut peak) = (u128::from(start), 0, u128::from(start));
        while number > 1 {
            number = match number % 2 {
                0 => number / 2,
                _ => number.checked_mul(3).and_then(|n| n.checked_add(1)).ok_or_else(|| too_large(start))?,
            };
            peak = peak.max(number);
            steps += 1;
        }
        if steps > longest.steps {
            longest = Longest { start, steps, peak };
        }
        since += steps;
        if since >= ASK_EVERY {
            meter.add(start - asked_at)?;
            (since, asked_at) = (0, start);
        }
    }
    Ok(longest)
}

fn too_large(start: u64) -> ActionError {
    ActionError::new(format!("the chain of {start} leaves the numbers of 128 bits"))
}
