//! Retries with exponential backoff and jitter: what a pool does by default, and what a task says about its own.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SpecError;

/// A set of exit codes, 0 to 255. Written as a list of numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCodes([u64; 4]);

impl ExitCodes {
    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this code is in it.
    pub fn contains(&self, code: i32) -> bool {
        u8::try_from(code).is_ok_and(|code| self.0[usize::from(code >> 6)] >> (code & 63) & 1 == 1)
    }

    /// All codes in it, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        let codes = *self;
        (0..=u8::MAX).filter(move |code| codes.contains(i32::from(*code)))
    }
}

impl FromIterator<u8> for ExitCodes {
    fn from_iter<I: IntoIterator<Item = u8>>(codes: I) -> Self {
        let mut set = Self::default();
        for code in codes {
            set.0[usize::from(code >> 6)] |= 1 << (code & 63);
        }
        set
    }
}

impl Serialize for ExitCodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ExitCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<u8>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// How often, and after which delays, a task is tried again that failed. Commands are not retried unless asked.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// If there is any: only these exit codes are retried, and nothing but an exit code.
    pub on_codes: ExitCodes,
    /// These exit codes are never retried.
    pub except_codes: ExitCodes,
    /// By how much the memory limit is multiplied for each attempt that ran out of memory; 1 leaves it.
    pub memory_factor: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            count: 0,
            delay_ms: 1_000,
            factor: 2.0,
            max_delay_ms: 300_000,
            jitter: 0.1,
            on_codes: ExitCodes::default(),
            except_codes: ExitCodes::default(),
            memory_factor: 1.0,
        }
    }
}

impl Retry {
    /// The delay in milliseconds before the retry that follows failure number `failures` (from 1). `random` is a
    /// number from 0 to 1 that places it inside the jitter.
    pub fn delay(&self, failures: u32, random: f64) -> u64 {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.delay_ms as f64 * self.factor.max(1.0).powi(exponent);
        let capped = grown.min(self.max_delay_ms as f64);
        let spread = self.jitter.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        (capped * (1.0 + spread)).max(0.0) as u64
    }

    /// Whether an attempt that ended without success is worth another one: `code` is its exit code, or none if it
    /// ended in another way.
    pub fn covers(&self, code: Option<i32>) -> bool {
        let listed = self.on_codes.is_empty() || code.is_some_and(|code| self.on_codes.contains(code));
        listed && !code.is_some_and(|code| self.except_codes.contains(code))
    }

    /// By how much the memory limit is multiplied after so many attempts that ran out of memory.
    pub fn memory_scale(&self, ooms: u32) -> f64 {
        self.memory_factor.max(1.0).powi(i32::try_from(ooms).unwrap_or(i32::MAX))
    }
}

/// What a task says about its retries. Whatever it leaves open is as the pool has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retries {
    /// See [`Retry::count`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// See [`Retry::delay_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// See [`Retry::factor`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// See [`Retry::max_delay_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay_ms: Option<u64>,
    /// See [`Retry::jitter`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// See [`Retry::on_codes`].
    #[serde(skip_serializing_if = "ExitCodes::is_empty")]
    pub on_codes: ExitCodes,
    /// See [`Retry::except_codes`].
    #[serde(skip_serializing_if = "ExitCodes::is_empty")]
    pub except_codes: ExitCodes,
    /// See [`Retry::memory_factor`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_factor: Option<f64>,
    /// With so many crashes (workers lost, attempts out of memory) it is quarantined: it ends as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_crashes: Option<u32>,
}

impl From<Retry> for Retries {
    fn from(retry: Retry) -> Self {
        Self {
            count: Some(retry.count),
            delay_ms: Some(retry.delay_ms),
            factor: Some(retry.factor),
            max_delay_ms: Some(retry.max_delay_ms),
            jitter: Some(retry.jitter),
            on_codes: retry.on_codes,
            except_codes: retry.except_codes,
            memory_factor: Some(retry.memory_factor),
            max_crashes: None,
        }
    }
}

impl Retries {
    /// The largest factor of a delay or of memory.
    pub const FACTOR_MAX: f64 = 1_000.0;

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, with the pool's where these are silent. A list of codes of either kind replaces both of the pool's.
    pub fn over(&self, pool: &Retry) -> Retry {
        let silent = self.on_codes.is_empty() && self.except_codes.is_empty();
        let (on_codes, except_codes) =
            if silent { (pool.on_codes, pool.except_codes) } else { (self.on_codes, self.except_codes) };
        Retry {
            count: self.count.unwrap_or(pool.count),
            delay_ms: self.delay_ms.unwrap_or(pool.delay_ms),
            factor: self.factor.unwrap_or(pool.factor),
            max_delay_ms: self.max_delay_ms.unwrap_or(pool.max_delay_ms),
            jitter: self.jitter.unwrap_or(pool.jitter),
            on_codes,
            except_codes,
            memory_factor: self.memory_factor.unwrap_or(pool.memory_factor),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        let at_least_one = |value: f64| value.is_finite() && value >= 1.0;
        let refused = |field, value: String, expected| Err(SpecError::OutOfRange { field, value, expected });
        if let Some(factor) = self.factor.filter(|factor| !at_least_one(*factor)) {
            return refused("retry.factor", factor.to_string(), "1 or more");
        }
        if let Some(jitter) = self.jitter.filter(|jitter| !(0.0..=1.0).contains(jitter)) {
            return refused("retry.jitter", jitter.to_string(), "0 to 1");
        }
        let fits = |factor: f64| at_least_one(factor) && factor <= Self::FACTOR_MAX;
        if let Some(factor) = self.memory_factor.filter(|factor| !fits(*factor)) {
            return refused("retry.memoryFactor", factor.to_string(), "1 to 1000");
        }
        if self.max_crashes == Some(0) {
            return refused("retry.maxCrashes", "0".to_owned(), "1 or more");
        }
        if !self.on_codes.is_empty() && !self.except_codes.is_empty() {
            return Err(SpecError::Exclusive { one: "retry.onCodes", other: "retry.exceptCodes" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap() {
        let retry =
            Retry { count: 9, delay_ms: 100, factor: 3.0, max_delay_ms: 1_000, jitter: 0.0, ..Retry::default() };
        let delays: Vec<u64> = (1..=4).map(|n| retry.delay(n, 0.3)).collect();
        assert_eq!(delays, [100, 300, 900, 1_000]);
        assert_eq!(retry.delay(u32::MAX, 0.3), 1_000);
    }

    #[test]
    fn jitter_stays_inside_its_share() {
        let retry = Retry { delay_ms: 1_000, jitter: 0.1, ..Retry::default() };
        assert_eq!((retry.delay(1, 0.0), retry.delay(1, 1.0)), (900, 1_100));
    }

    #[test]
    fn codes_select_what_is_tried_again() {
        let codes = |list: &[u8]| list.iter().copied().collect::<ExitCodes>();
        let only = Retry { on_codes: codes(&[0, 7, 64, 255]), ..Retry::default() };
        assert!(only.covers(Some(7)) && only.covers(Some(64)) && only.covers(Some(255)) && !only.covers(Some(8)));
        assert!(!only.covers(None), "a signal is no exit code");
        let except = Retry { except_codes: codes(&[7]), ..Retry::default() };
        assert!(!except.covers(Some(7)) && except.covers(Some(8)) && except.covers(None));
        assert!(!only.covers(Some(-1)) && !only.covers(Some(256 + 7)), "no code is cut to fit");
    }

    #[test]
    fn a_task_says_only_what_differs_from_the_pool() {
        let pool = Retry { count: 3, except_codes: [2].into_iter().collect(), ..Retry::default() };
        let own: Retries = serde_json::from_str(r#"{"delayMs":5,"onCodes":[7,1]}"#).unwrap();
        let both = own.over(&pool);
        assert_eq!((both.count, both.delay_ms), (3, 5));
        assert_eq!((both.on_codes.iter().collect::<Vec<_>>(), both.except_codes.is_empty()), (vec![1, 7], true));
        assert_eq!(serde_json::to_string(&own).unwrap(), r#"{"delayMs":5,"onCodes":[1,7]}"#);
        assert_eq!(Retries::default().over(&pool), pool);
    }

    #[test]
    fn the_memory_limit_grows_with_each_attempt_that_ran_out_of_it() {
        let retry = Retry { memory_factor: 1.5, ..Retry::default() };
        assert_eq!([0, 1, 2].map(|ooms| retry.memory_scale(ooms)), [1.0, 1.5, 2.25]);
        assert_eq!(Retry::default().memory_scale(u32::MAX), 1.0);
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = [
            Retries { factor: Some(0.5), ..Retries::default() },
            Retries { jitter: Some(2.0), ..Retries::default() },
            Retries { memory_factor: Some(f64::NAN), ..Retries::default() },
            Retries { max_crashes: Some(0), ..Retries::default() },
            Retries {
                on_codes: [1].into_iter().collect(),
                except_codes: [2].into_iter().collect(),
                ..Retries::default()
            },
        ];
        assert!(wrong.iter().all(|retries| retries.validate().is_err()));
        assert_eq!(Retries::from(Retry::default()).validate(), Ok(()));
    }
}
