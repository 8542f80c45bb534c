//! How far limits are held: the ladder of cgroups that the pool has climbed, and the limits of all its tasks together.
//!
//! Deliberately absent: the limits of one task, which its worker puts in place.

use std::path::PathBuf;
use std::time::Duration;

use acode_worker::sys::cgroup::{self, Grounds, PoolCaps, PoolHeld};
use acode_worker::sys::ladder::Ladder;
use acode_worker::task::{HeldLimit, Hold, Limits, TaskId};
use acode_worker::wire::Finished;

use super::{PoolError, Supervisor};
use crate::config::{Config, OverLimitAction, PoolLimits};

/// What a pool leaves to the rest of the host at least, in MiB, beside a tenth of the memory.
const RESERVE_MB: u64 = 256;
/// The part of the host's processes that a pool's tasks may be.
const PIDS_PART: u64 = 2;

/// The pool's place in the hierarchy.
#[derive(Debug)]
pub struct Holding {
    /// Its cgroups, if it can make any.
    pub grounds: Option<Grounds>,
    /// The step that it stands on.
    pub ladder: Ladder,
    /// The limits of all tasks together, and how well each is held.
    pub pool: Vec<HeldLimit>,
}

impl Holding {
    /// Finds the place of the pool whose queue has this tag.
    pub fn find(tag: u64) -> Self {
        let (grounds, ladder) = match Grounds::find(tag) {
            Ok(grounds) => (Some(grounds), Ladder::default()),
            Err(ladder) => (None, ladder),
        };
        Self { grounds, ladder, pool: Vec::new() }
    }

    /// The cgroup of the pool.
    pub fn base(&self) -> Option<PathBuf> {
        self.grounds.as_ref().map(|grounds| grounds.base().to_owned())
    }

    /// Builds the pool's cgroups, and has them hold its limits. `nursery` is the pid of the nursery.
    pub fn build(&mut self, nursery: i32, config: &Config) -> Result<(), PoolError> {
        if let Some(grounds) = &mut self.grounds {
            self.ladder = grounds.build(nursery).map_err(PoolError::system("the cgroup for tasks cannot be made"))?;
        }
        let Ladder { rung, why, .. } = &self.ladder;
        let why = why.as_deref().unwrap_or_default();
        tracing::info!(?rung, why, "how far limits are held");
        if let Err(error) = check(config, &self.ladder) {
            self.dissolve(Duration::ZERO);
            return Err(error);
        }
        self.hold(&config.pool.limits);
        Ok(())
    }

    /// Puts the limits of all tasks together in place.
    fn hold(&mut self, limits: &PoolLimits) {
        let tasks = self.grounds.as_ref().map(Grounds::tasks);
        let is_told = |held: &PoolHeld| match held.limit {
            "memoryMb" => limits.memory_mb.is_some(),
            "pids" => limits.pids.is_some(),
            _ => true,
        };
        let held = cgroup::hold_pool(tasks.as_deref(), &caps(limits));
        for PoolHeld { limit, value, by } in &held {
            if let (Err(why), true) = (by, held.iter().any(|held| held.limit == *limit && is_told(held))) {
                tracing::warn!(value, why, "pool.limits.{limit} is not held");
            }
        }
        self.pool = held.into_iter().map(told).collect();
    }

    /// Takes everything down.
    pub fn dissolve(&self, patience: Duration) {
        if let Some(grounds) = &self.grounds {
            grounds.dissolve(patience);
        }
    }
}

fn told(held: PoolHeld) -> HeldLimit {
    let (hold, by) = match held.by {
        Ok(file) => (Hold::Enforced, file.to_owned()),
        Err(why) => (Hold::None, why),
    };
    HeldLimit { limit: held.limit.to_owned(), value: held.value, hold, by, exceeded: false }
}

/// Says in the log which limits an attempt has exceeded, or run into. That its CPU time was held back is no news.
pub(super) fn tell_exceeded(id: TaskId, finished: &Finished) {
    for held in finished.limits.iter().filter(|held| held.exceeded && held.limit != "cpuPercent") {
        let HeldLimit { limit, value, hold, by, .. } = held;
        tracing::warn!(%id, attempt = finished.attempt, limit, value, ?hold, by, "limit reached");
    }
}

/// The limits of all tasks together. What nobody said leaves a reserve to the rest of the host: a pool that takes the last
/// page or the last process takes the supervisor and everybody's shell with it.
fn caps(limits: &PoolLimits) -> PoolCaps {
    PoolCaps {
        cpu_percent: limits.cpu_percent,
        memory_mb: limits.memory_mb.or_else(|| cgroup::usable_memory().map(|bytes| most_memory_mb(bytes >> 20))),
        pids: limits.pids.or_else(|| cgroup::most_pids().map(most_pids)),
    }
}

fn most_memory_mb(total_mb: u64) -> u64 {
    let reserve = (total_mb / 10).max(RESERVE_MB).min(total_mb / 2);
    (total_mb - reserve).max(1)
}

fn most_pids(most: u64) -> u32 {
    u32::try_from(most / PIDS_PART).unwrap_or(u32::MAX).max(1)
}

/// Says which configured limits nothing holds here, and refuses to start if one of them was to be held by killing.
fn check(config: &Config, ladder: &Ladder) -> Result<(), PoolError> {
    let workers = &config.workers;
    let (own, max) = (workers.limits, workers.max_limits);
    let limits = own.within(&max);
    let has = ladder.controllers;
    let Limits { cpu_percent, cpu_weight, memory_mb, pids, io_read_bytes, io_write_bytes, .. } = limits;
    let asked = [
        ("cpuPercent", cpu_percent.is_some() && !has.cpu),
        ("cpuWeight", cpu_weight.is_some() && !has.cpu),
        ("memoryMb", memory_mb.is_some() && !has.memory),
        ("pids", pids.is_some() && !has.pids),
        ("ioReadBytes", io_read_bytes.is_some() && !has.io),
        ("ioWriteBytes", io_write_bytes.is_some() && !has.io),
    ];
    let unheld: Vec<&str> = asked.into_iter().filter(|(_, unheld)| *unheld).map(|(name, _)| name).collect();
    if unheld.is_empty() {
        return Ok(());
    }
    let why = ladder.why.clone().unwrap_or_else(|| "a controller is missing".to_owned());
    // CPU and I/O are never held by killing.
    let fatal: Vec<&str> = unheld.iter().copied().filter(|name| matches!(*name, "memoryMb" | "pids")).collect();
    let kills = workers.over_limit_action == OverLimitAction::Kill && !workers.allow_observed;
    if kills && !fatal.is_empty() {
        return Err(PoolError::LimitsNotHeld { names: fatal.join(", "), why });
    }
    tracing::warn!(limits = unheld.join(", "), why, "workers.limits are not enforced by the kernel here");
    Ok(())
}

impl Supervisor {
    /// Has the pool hold the limits of another configuration.
    pub(super) fn follow_pool_limits(&mut self) {
        let limits = self.config.pool.limits;
        self.holding.hold(&limits);
        if let Err(error) = check(&self.config, &self.holding.ladder) {
            // It runs already; each task that shall be killed and cannot be is refused by itself.
            tracing::error!(why = crate::error_chain(&error), "limits of the new configuration cannot be held");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acode_worker::sys::ladder::{Controllers, Rung};

    #[test]
    fn a_pool_leaves_a_tenth_and_on_a_small_host_at_most_half() {
        assert_eq!((most_memory_mb(100_000), most_memory_mb(1_000), most_memory_mb(300)), (90_000, 744, 150));
        assert_eq!((most_pids(32_768), most_pids(1)), (16_384, 1));
    }

    #[test]
    fn only_a_limit_that_is_held_by_killing_keeps_a_pool_from_starting() {
        let mut config = Config::default();
        config.workers.limits.cpu_percent = Some(50);
        config.workers.over_limit_action = OverLimitAction::Kill;
        let core = Ladder { rung: Rung::Core, why: Some("no controllers".to_owned()), ..Ladder::default() };
        assert!(check(&config, &core).is_ok(), "CPU is held by slowing down");
        config.workers.max_limits.memory_mb = Some(100);
        let refused = check(&config, &core).unwrap_err();
        assert!(matches!(&refused, PoolError::LimitsNotHeld { names, .. } if names == "memoryMb"), "{refused}");
        let controllers = Controllers { memory: true, ..Controllers::default() };
        assert!(check(&config, &Ladder { controllers, ..core.clone() }).is_ok());
        config.workers.allow_observed = true;
        assert!(check(&config, &core).is_ok());
    }
}
