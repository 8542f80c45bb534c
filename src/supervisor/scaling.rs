//! How many workers the load asks for: pure, with the time as an argument, in milliseconds of the monotonic clock.
//!
//! The load is looked at from time to time, and each look may change the target. The pool grows at once, to the number
//! that brings the share of workers in demand under the upper threshold. It shrinks only when that share has stayed
//! below the lower threshold for the whole idle timeout, and then to what the highest demand of that time needs; so a
//! load that comes back within the idle timeout finds its workers, and none is made twice for it. Deliberately absent:
//! who becomes or leaves as a worker, which `decide` says, and any measuring.

use std::collections::VecDeque;

use crate::config::{Switch, Workers};
use crate::wire::types::ScalingMode;

/// Thresholds are counted in so many parts, for sums that are exact.
const PARTS: u64 = 10_000;
/// Two looks further apart than this, in milliseconds, have not seen what was between them.
const BLIND_MS: u64 = 10_000;

/// What scaling goes by; from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether the load decides at all.
    pub enabled: bool,
    /// The fewest workers.
    pub min: u16,
    /// The most workers.
    pub max: u16,
    /// The share in demand above which the pool grows, in parts of [`PARTS`].
    pub up_parts: u64,
    /// The share in demand below which it shrinks.
    pub down_parts: u64,
    /// Milliseconds from one growth to the next.
    pub up_cooldown_ms: u64,
    /// Milliseconds from any change to a shrinking.
    pub down_cooldown_ms: u64,
    /// Milliseconds for which demand must have been low.
    pub idle_timeout_ms: u64,
}

impl Rules {
    /// What the configuration asks for, in a pool that has room for `rows` workers.
    pub fn of(workers: &Workers, rows: u16) -> Self {
        let scaling = &workers.scaling;
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Thresholds lie between 0 and 1; the upper one is never 0, by which nothing could be divided.
        let parts = |share: f64| (share * PARTS as f64).round() as u64;
        let count = |count: u32| u16::try_from(count).unwrap_or(u16::MAX).clamp(1, rows);
        Self {
            enabled: scaling.enabled == Switch::On,
            // A mode without a worker could not even show that it is in demand.
            min: count(scaling.min_count.max(workers.mode.weights().count() as u32)).min(count(scaling.max_count)),
            max: count(scaling.max_count),
            up_parts: parts(scaling.up_threshold).max(1),
            down_parts: parts(scaling.down_threshold),
            up_cooldown_ms: millis(scaling.up_cooldown),
            down_cooldown_ms: millis(scaling.down_cooldown),
            idle_timeout_ms: millis(scaling.idle_timeout),
        }
    }

    /// The target nearest to this number that the bounds allow.
    pub fn bound(&self, count: u16) -> u16 {
        count.clamp(self.min, self.max)
    }

    /// With how many workers a pool begins that was given this number.
    pub fn begin_with(&self, count: u16) -> u16 {
        if self.enabled { self.bound(count) } else { count }
    }

    /// How many workers keep this demand at or under the upper threshold, within the bounds.
    fn needed(&self, demand: u16) -> u16 {
        let count = (u64::from(demand) * PARTS).div_ceil(self.up_parts);
        self.bound(u16::try_from(count).unwrap_or(u16::MAX))
    }
}

/// Decides on the target.
#[derive(Debug)]
pub struct Scaler {
    rules: Rules,
    /// Somebody has set the target by hand.
    held: bool,
    /// The last growth; none since the start or the last shrinking, after which the next one need not wait.
    grown_ms: Option<u64>,
    /// The last change, of either kind.
    changed_ms: Option<u64>,
    /// Since when the load has been looked at without a gap.
    since_ms: u64,
    looked_ms: u64,
    /// The demands of the idle timeout that were higher than all later ones, oldest first: the first is the highest.
    /// Each is less than the one before and none is above the rules' most workers, which bounds how many there are.
    peaks: VecDeque<(u64, u16)>,
}

impl Scaler {
    /// A scaler that has seen nothing yet.
    pub fn new(rules: Rules, now_ms: u64) -> Self {
        let peaks = VecDeque::new();
        Self { rules, held: false, grown_ms: None, changed_ms: None, since_ms: now_ms, looked_ms: now_ms, peaks }
    }

    /// Who decides on the target.
    pub fn mode(&self) -> ScalingMode {
        match (self.rules.enabled, self.held) {
            (false, _) => ScalingMode::Off,
            (true, true) => ScalingMode::Manual,
            (true, false) => ScalingMode::Auto,
        }
    }

    /// What it goes by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Follows a changed configuration. A target that was set by hand stays held, unless scaling was switched on or off.
    pub fn set_rules(&mut self, rules: Rules) {
        self.held &= rules.enabled == self.rules.enabled;
        self.rules = rules;
    }

    /// Leaves the target alone from now on.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Decides on the target again.
    pub fn let_go(&mut self) {
        self.held = false;
    }

    /// Looks at the load: `demand` is how many workers could be busy now. Gives another target, if there is to be one.
    pub fn look(&mut self, now_ms: u64, demand: usize, target: u16) -> Option<u16> {
        // No more than the most workers can be given, however many are asked for.
        let demand = u16::try_from(demand).unwrap_or(u16::MAX).min(self.rules.max);
        self.remember(now_ms, demand);
        if self.mode() != ScalingMode::Auto {
            return None;
        }
        // More are needed exactly when the share in demand is above the upper threshold.
        let grown = self.rules.needed(demand);
        if grown > target {
            let cold = self.grown_ms.is_none_or(|at| now_ms.saturating_sub(at) >= self.rules.up_cooldown_ms);
            return cold.then(|| self.grow(now_ms, grown));
        }
        let peak = self.peaks.front().map_or(demand, |(_, demand)| *demand);
        let shrunk = self.rules.needed(peak);
        let low = u64::from(peak) * PARTS < self.rules.down_parts * u64::from(target);
        let long = now_ms.saturating_sub(self.since_ms) >= self.rules.idle_timeout_ms;
        let cold = self.changed_ms.is_none_or(|at| now_ms.saturating_sub(at) >= self.rules.down_cooldown_ms);
        (low && long && cold && shrunk < target).then(|| self.shrink(now_ms, shrunk))
    }

    fn grow(&mut self, now_ms: u64, target: u16) -> u16 {
        self.grown_ms = Some(now_ms);
        self.changed_ms = Some(now_ms);
        target
    }

    fn shrink(&mut self, now_ms: u64, target: u16) -> u16 {
        // The load was low for long, so whatever comes next is a new one, and need not wait for the cooldown of the last.
        self.grown_ms = None;
        self.changed_ms = Some(now_ms);
        target
    }

    /// Keeps the highest demand of the idle timeout.
    fn remember(&mut self, now_ms: u64, demand: u16) {
        if now_ms.saturating_sub(self.looked_ms) > BLIND_MS {
            self.since_ms = now_ms;
        }
        self.looked_ms = now_ms;
        while self.peaks.back().is_some_and(|(_, earlier)| *earlier <= demand) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now_ms, demand));
        let horizon_ms = now_ms.saturating_sub(self.rules.idle_timeout_ms);
        while self.peaks.front().is_some_and(|(at_ms, _)| *at_ms < horizon_ms) {
            self.peaks.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "scaling_tests.rs"]
mod tests;
