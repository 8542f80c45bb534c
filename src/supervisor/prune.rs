//! Forgetting: finished tasks, events and journal segments beyond what is to be kept, a bounded bit at a time.

use acode_worker::output;
use acode_worker::wire::{Chore, Order};

use super::Supervisor;
use crate::store::Retention;
use crate::sweep;
use crate::wire::reply::Pruned;
use crate::wire::request::Prune;

/// The most rows that are removed in one pass, so that nobody waits for long.
const PASS: u32 = 1_000;
/// The most kept directories that are removed after one pass: an order each.
const ORDERS_MAX: usize = 1_000;
/// The time between two passes while there is more to remove, in nanoseconds.
const NEXT_PASS_NS: u64 = 20_000_000;

impl Supervisor {
    /// Removes a bit of what is beyond the configured bounds, if it is time.
    pub(super) fn prune_if_due(&mut self) {
        if self.now_ns < self.next_prune_ns || self.broken.is_some() || self.is_stopping() {
            return;
        }
        if self.artifact_sweep.goes_on() {
            self.next_prune_ns = self.now_ns.saturating_add(NEXT_PASS_NS);
            return self.sweep_artifacts().unwrap_or_else(|error| self.store_failed(&error));
        }
        let kept = &self.config.retention;
        let interval_ns = u64::try_from(kept.interval.as_nanos()).unwrap_or(u64::MAX);
        let policy = Retention {
            max_age_us: kept.max_age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
            max_count: Some(kept.max_finished_tasks),
            max_event_age_us: None,
            max_events: Some(kept.max_events),
        };
        let more = match self.prune_once(&policy) {
            Ok(more) => more,
            Err(error) => return self.store_failed(&error),
        };
        if !more {
            self.remove_segments();
            if let Err(error) = self.sweep() {
                return self.store_failed(&error);
            }
        }
        let soon = more || self.artifact_sweep.goes_on();
        self.next_prune_ns = self.now_ns.saturating_add(if soon { NEXT_PASS_NS } else { interval_ns });
    }

    fn prune_once(&mut self, policy: &Retention) -> Result<bool, crate::store::StoreError> {
        let now_us = crate::requests::now_us();
        let pruned = self.store.prune(policy, now_us, PASS)?;
        self.artifact_sweep.note(pruned.tasks);
        Ok(pruned.more)
    }

    /// Removes the journal segments that no kept attempt and no living worker needs; gives the bytes.
    fn remove_segments(&mut self) -> u64 {
        let used = match self.store.segments_in_use() {
            Ok(used) => used,
            Err(error) => {
                self.store_failed(&error);
                return 0;
            }
        };
        let crew = &self.crew;
        let keep = |worker, segment| {
            // Output that begins in one segment may go on in the worker's next ones.
            used.iter().any(|(user, first)| *user == worker && *first <= segment)
                || crew.iter().any(|(_, hand)| hand.id == worker)
        };
        output::remove_unused(&self.dirs.journal(), keep).unwrap_or_else(|error| {
            tracing::warn!(error = crate::error_chain(&error), "journal segments cannot be removed");
            0
        })
    }

    /// Has removed what lies about of tasks that are gone. A directory may be large, so that is a worker's.
    fn sweep(&mut self) -> Result<(), crate::store::StoreError> {
        let idle = sweep::idle_checkpoints(&*self.store, &self.dirs.checkpoints())?;
        let cleanup = &self.config.cleanup;
        let surplus = sweep::surplus_kept(&*self.store, &self.dirs.kept(), cleanup.max_kept, cleanup.max_kept_age)?;
        let worktrees =
            sweep::idle_worktrees(&self.dirs.worktrees(), |id| self.crew.iter().any(|(_, hand)| hand.id == id));
        let somebody = self.crew.iter().map(|(row, _)| row).next();
        if let Some(row) = somebody {
            for number in idle {
                self.crew.order(row, &Order::Chore(Chore::Checkpoint { number }));
            }
            for name in surplus.into_iter().take(ORDERS_MAX) {
                self.crew.order(row, &Order::Chore(Chore::Kept { name }));
            }
            for name in worktrees.into_iter().take(ORDERS_MAX) {
                self.crew.order(row, &Order::Chore(Chore::Worktree { name }));
            }
        }
        self.sweep_artifacts()?;
        sweep::remove_unread_copies(&*self.store, &self.dirs.stdin())
    }

    /// Prunes by hand.
    pub(super) fn prune_now(&mut self, request: &Prune) -> Result<Pruned, crate::store::StoreError> {
        let policy = crate::requests::retention(request);
        let now_us = crate::requests::now_us();
        let mut tasks = 0;
        loop {
            let pruned = self.store.prune(&policy, now_us, PASS)?;
            tasks += pruned.tasks;
            self.artifact_sweep.note(pruned.tasks);
            if !pruned.more {
                break;
            }
        }
        self.sweep()?;
        if self.artifact_sweep.goes_on() {
            self.next_prune_ns = self.now_ns;
        }
        Ok(Pruned { tasks, log_bytes: self.remove_segments() })
    }
}
