//! The commit: one transaction for all that has come together, and what follows when it is on disk, or cannot be.
//!
//! After an error the batch stays in memory, the database is opened anew, and the same batch is applied again: an fsync
//! that failed is never repeated on the same file. What workers do meanwhile is bounded by the table's slots, which
//! stay taken until the disk has healed.

use acode_worker::failpoint;
use acode_worker::sys::clock;
use acode_worker::task::TaskId;
use acode_worker::wire::{Chore, Order};

use super::Supervisor;
use super::clients::ClientId;
use super::ledger::After;
use crate::store::{Applied, EventKind, Op, StoreError, SubmitError};
use crate::wire::{CallError, reply};

/// How long to wait between two attempts to open the database anew, in nanoseconds.
const HEAL_NS: u64 = 500_000_000;
/// Characters of a change that are shown in the log when it is given up.
const SHOWN_MAX: usize = 1_000;
/// The most delayed tasks that are woken in one transaction.
const WAKE_MAX: u32 = 1_000;

/// Why nothing can be committed at the moment.
#[derive(Debug)]
pub struct Broken {
    /// In words.
    pub why: String,
    /// Since when, in microseconds of Unix time.
    since_us: u64,
    /// When to try again, in nanoseconds of the monotonic clock.
    retry_ns: u64,
}

/// When to open the database anew after an error now. An attempt that is planned stays planned: questions that cannot be
/// answered meanwhile are errors too, and who asks often enough would keep the queue from healing.
pub fn next_try_ns(planned_ns: Option<u64>, now_ns: u64) -> u64 {
    planned_ns.unwrap_or(now_ns.saturating_add(HEAL_NS))
}

impl Supervisor {
    /// Adds a change to the batch.
    pub(super) fn record(&mut self, op: Op) {
        self.ledger.add(op, self.now_ns);
    }

    /// Commits if it is time.
    pub(super) fn commit_if_due(&mut self) {
        let busy = self.workers_are_busy();
        if self.broken.is_none() && self.ledger.is_due(clock::monotonic_ns(), busy) {
            self.commit();
        }
    }

    /// Commits the batch now.
    pub(super) fn commit(&mut self) {
        if self.broken.is_none() {
            self.write_batch();
        }
    }

    /// Writes the batch, if there is one; false if that failed.
    fn write_batch(&mut self) -> bool {
        if self.ledger.is_empty() {
            return true;
        }
        failpoint!("supervisor.before-commit");
        let began_ns = clock::monotonic_ns();
        match self.store.apply(self.ledger.ops()) {
            Ok(applied) => {
                failpoint!("supervisor.after-commit");
                self.observer.registry.commits.observe((clock::monotonic_ns() - began_ns) / 1_000);
                self.desk.has_expanded();
                let afters = self.ledger.committed();
                self.follow_commit(&applied, afters);
                true
            }
            Err(StoreError::Bug { what, .. }) => self.commit_one_by_one(&what),
            Err(error) => {
                self.store_failed(&error);
                false
            }
        }
    }

    /// After a batch that holds something which makes no sense: commits the rest of it, wish by wish, and leaves out
    /// what is refused. Otherwise that one thing would keep everything behind it from the disk for ever. False if the disk is in
    /// the way.
    fn commit_one_by_one(&mut self, why: &str) -> bool {
        tracing::error!(why, "a change of the queue is refused: the batch is committed one by one");
        let mut total = Applied::default();
        let mut expands = true;
        for wish in self.ledger.wishes() {
            match self.store.apply(&wish.ops) {
                Ok(applied) => total.absorb(applied),
                Err(StoreError::Bug { what, .. }) => {
                    let change: String = format!("{:?}", wish.ops).chars().take(SHOWN_MAX).collect();
                    tracing::error!(why = what, change, "a change of the queue is given up: this is a defect of acode");
                    // An array that cannot be expanded would be tried again at once, and for ever.
                    expands &= !wish.ops.iter().any(|op| matches!(op, Op::Expand { .. }));
                    wish.id.into_iter().for_each(|id| self.ledger.refuse(id, &what));
                }
                Err(error) => {
                    // What is on disk already does no harm there: operations can be applied again.
                    self.follow_commit(&total, Vec::new());
                    self.store_failed(&error);
                    return false;
                }
            }
        }
        if expands {
            self.desk.has_expanded();
        }
        let afters = self.ledger.committed();
        self.follow_commit(&total, afters);
        true
    }

    fn follow_commit(&mut self, applied: &Applied, afters: Vec<After>) {
        failpoint!("supervisor.before-release");
        for after in afters {
            match after {
                After::Release { seq } => self.release(seq),
                After::Accepted { client, ids } => self.accept(client, ids, applied),
                After::Cancelled { client, reply } => self.clients.reply(client, &reply, false),
                After::Retried { client, reply } => self.clients.reply(client, &reply, false),
                After::Paused { client, pause } => self.paused_by_hand(client, pause),
                After::Told { client, reply, .. } => self.clients.reply(client, &reply, false),
                After::Refused { client, why } => self.clients.error(client, &CallError::Internal { reason: why }),
            }
        }
        self.follow_order(applied);
        self.books().committed(applied);
        self.next_wake_us = self.store.next_delayed().unwrap_or(None);
        if self.has_deadlines {
            let next = self.store.next_expiry();
            self.has_deadlines = !matches!(next, Ok(None));
            self.next_expiry_us = next.unwrap_or(None);
        }
        self.ledger.pace.committed(clock::monotonic_ns(), applied.ended.len());
        self.note_ends(&applied.ended);
        self.observer.registry.settled(applied.settled, self.now_ns);
        self.streams_dirty = true;
    }

    fn release(&mut self, seq: u64) {
        if let Some(row) = self.desk.get(seq).and_then(|active| active.discard_by) {
            failpoint!("supervisor.before-discard");
            self.crew.order(row, &Order::Chore(Chore::Checkpoint { number: seq }));
        }
        if let Some(active) = self.filling().clear(seq) {
            self.producer.release(active.ticket);
        }
    }

    fn accept(&mut self, client: ClientId, ids: Vec<TaskId>, applied: &Applied) {
        let refused = ids.iter().enumerate().find_map(|(entry, id)| {
            let (_, why) = applied.rejected.iter().find(|(rejected, _)| rejected == id)?;
            Some((entry as u32, why))
        });
        match refused {
            None => self.clients.reply(client, &reply::Submitted { ids }, false),
            Some((entry, why)) => {
                let error = match why {
                    SubmitError::KeyExists(key, task) => {
                        CallError::KeyExists { key: key.clone(), task: task.to_string() }
                    }
                    _ => CallError::InvalidSubmission { entry: Some(entry), reason: why.to_string() },
                };
                self.clients.error(client, &error);
            }
        }
    }

    /// The disk is full, or worse: says so, answers who waits, and keeps the rest for later.
    pub(super) fn store_failed(&mut self, error: &StoreError) {
        let why = crate::error_chain(error);
        if self.broken.is_none() {
            tracing::error!(why, "the queue cannot be written: nothing is acknowledged until it can");
        }
        let now_us = crate::requests::now_us();
        let since_us = self.broken.as_ref().map_or(now_us, |broken| broken.since_us);
        let planned_ns = self.broken.as_ref().map(|broken| broken.retry_ns);
        let retry_ns = next_try_ns(planned_ns, clock::monotonic_ns());
        self.broken = Some(Broken { why: why.clone(), since_us, retry_ns });
        let refusal = CallError::QueueUnavailable { reason: why };
        for after in self.ledger.without_requests() {
            match after {
                After::Release { .. } => {}
                After::Accepted { client, .. }
                | After::Cancelled { client, .. }
                | After::Retried { client, .. }
                | After::Paused { client, .. }
                | After::Told { client, .. }
                | After::Refused { client, .. } => self.clients.error(client, &refusal),
            }
        }
        // What was taken out of the table for a cancellation that did not happen has to be found again.
        self.desk.expect_everything();
    }

    /// Tries to open the database anew, if it is broken and time for that.
    pub(super) fn heal(&mut self) {
        let Some(broken) = &mut self.broken else { return };
        let now_ns = clock::monotonic_ns();
        if now_ns < broken.retry_ns {
            return;
        }
        broken.retry_ns = next_try_ns(None, now_ns);
        let since_us = broken.since_us;
        let data = Some(serde_json::json!({ "why": broken.why }).to_string());
        if let Err(error) = self.store.reopen() {
            return self.store_failed(&error);
        }
        // First the batch that failed, alone, as the store wants it. The events behind it are a trial as well: without
        // anything to write, a disk that is still full would look healed.
        if !self.write_batch() {
            return;
        }
        let now_us = crate::requests::now_us();
        self.record(Op::PoolEvent { kind: EventKind::QueueBroken, at_us: since_us, data });
        self.record(Op::PoolEvent { kind: EventKind::QueueHealed, at_us: now_us, data: None });
        if self.write_batch() {
            self.broken = None;
            tracing::warn!("the queue can be written again");
        }
    }

    /// Makes delayed tasks ready whose time has come.
    pub(super) fn wake_delayed(&mut self) {
        let now_us = crate::requests::now_us();
        if self.next_wake_us.is_some_and(|at| at <= now_us) && self.broken.is_none() {
            self.next_wake_us = None;
            self.record(Op::Wake { now_us, limit: WAKE_MAX });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_is_planned_is_not_put_off_by_errors_that_come_before_it() {
        let planned = next_try_ns(None, 100);
        assert_eq!(planned, 100 + HEAL_NS);
        assert_eq!(next_try_ns(Some(planned), planned - 1), planned);
        assert_eq!(next_try_ns(Some(planned), planned + HEAL_NS), planned, "it is due, and stays due");
    }
}
