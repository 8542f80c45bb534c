//! Retries with exponential backoff and jitter.

use serde::{Deserialize, Serialize};

/// How often, and after which delays, a failed task is tried again. Commands are not retried unless asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// Further attempts after the first one.
    pub count: u32,
    /// Delay before the first retry, in milliseconds.
    pub delay_ms: u64,
    /// By how much each further delay is longer than the one before; at least 1.
    pub factor: f64,
    /// The longest delay, in milliseconds, before jitter.
    pub max_delay_ms: u64,
    /// How much of the delay is random, 0 to 1: 0.1 spreads it over 90 % to 110 %.
    pub jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { count: 0, delay_ms: 1_000, factor: 2.0, max_delay_ms: 300_000, jitter: 0.1 }
    }
}

impl Retry {
    /// Whether this is the default, that is: nothing worth storing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The delay in milliseconds before the retry that follows failure number `failures` (from 1). `random` is a
    /// number from 0 to 1 that places it inside the jitter.
    pub fn delay(&self, failures: u32, random: f64) -> u64 {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.delay_ms as f64 * self.factor.max(1.0).powi(exponent);
        let capped = grown.min(self.max_delay_ms as f64);
        let spread = self.jitter.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        (capped * (1.0 + spread)).max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap() {
        let retry = Retry { count: 9, delay_ms: 100, factor: 3.0, max_delay_ms: 1_000, jitter: 0.0 };
        let delays: Vec<u64> = (1..=4).map(|n| retry.delay(n, 0.3)).collect();
        assert_eq!(delays, [100, 300, 900, 1_000]);
        assert_eq!(retry.delay(u32::MAX, 0.3), 1_000);
    }

    #[test]
    fn jitter_stays_inside_its_share() {
        let retry = Retry { delay_ms: 1_000, jitter: 0.1, ..Retry::default() };
        assert_eq!((retry.delay(1, 0.0), retry.delay(1, 1.0)), (900, 1_100));
    }
}
