//! The batch: changes of the queue that wait for the next commit, and what is to happen when they are on disk.
//!
//! Group commit comes by itself: whatever is ready when the supervisor looks goes into one transaction. Nothing is
//! acknowledged, and no slot is freed, before its commit. Deliberately absent: the commit itself.

use std::collections::HashMap;
use std::sync::Arc;

use acode_worker::task::{Array, TaskId};

use super::clients::ClientId;
use super::pace::Pace;
use crate::store::{EventKind, NewTask, Op, Pause};
use crate::wire::reply;

/// The longest that a batch is kept open for more, in nanoseconds, while workers have enough to do.
pub const LINGER_NS: u64 = 20_000_000;
/// A batch of so many changes is committed at once.
pub const BATCH_MAX: usize = 20_000;

/// What follows a commit.
#[derive(Debug)]
pub enum After {
    /// A slot is free again, and the task off the desk.
    Release {
        /// The task's number.
        seq: u64,
    },
    /// A submission is acknowledged.
    Accepted {
        /// To whom.
        client: ClientId,
        /// The ids of its entries.
        ids: Vec<TaskId>,
    },
    /// A cancellation is acknowledged.
    Cancelled {
        /// To whom.
        client: ClientId,
        /// What was done.
        reply: reply::Cancelled,
    },
    /// A retry by a person is acknowledged.
    Retried {
        /// To whom.
        client: ClientId,
        /// What was done.
        reply: reply::Retried,
    },
    /// A pause by hand, or its end, takes effect and is acknowledged.
    Paused {
        /// To whom.
        client: ClientId,
        /// Why it pauses; none if it goes on.
        pause: Option<Pause>,
    },
    /// Another wish of a person is acknowledged.
    Told {
        /// To whom.
        client: ClientId,
        /// The tasks that it is about.
        ids: Vec<TaskId>,
        /// What is answered.
        reply: serde_json::Value,
    },
    /// A wish that makes no sense to the queue is answered with an error.
    Refused {
        /// To whom.
        client: ClientId,
        /// Why.
        why: String,
    },
}

/// Changes that belong together: all of them, or none.
#[derive(Debug)]
pub struct Wish {
    /// The task that they are about, of a submission the first one; none if nobody waits for them.
    pub id: Option<TaskId>,
    /// The changes.
    pub ops: Vec<Op>,
}

/// The batch.
#[derive(Debug, Default)]
pub struct Ledger {
    ops: Vec<Op>,
    afters: Vec<After>,
    opened_ns: u64,
    /// Tasks in the submissions of the batch, members of arrays counted one by one.
    submitted: u64,
    /// Somebody waits for this batch, or workers will soon.
    urgent: bool,
    /// How fast batches come.
    pub pace: Pace,
    /// By how much less than [`LINGER_NS`] batches are kept open.
    hasty_ns: u64,
}

impl Ledger {
    /// Adds a change.
    pub fn add(&mut self, op: Op, now_ns: u64) {
        if self.is_empty() {
            self.opened_ns = now_ns;
        }
        // Until its members are there, the lane behind an array is not filled; and what was taken back from the table is not
        // to be read again before the queue says why.
        self.urgent |= matches!(op, Op::Expand { .. } | Op::Expire { .. } | Op::Age { .. });
        self.ops.push(op);
    }

    /// Asks for the commit of what was added: tasks wait for it.
    pub fn hurry(&mut self) {
        self.urgent = !self.is_empty();
    }

    /// Keeps batches open for so long from now on, but for [`LINGER_NS`] at the most.
    pub fn linger(&mut self, linger_ns: u64) {
        self.hasty_ns = LINGER_NS.saturating_sub(linger_ns);
    }

    /// Adds a submission; whoever sent it waits.
    pub fn submit(&mut self, task: NewTask, now_ns: u64) {
        self.submitted = self.submitted.saturating_add(task.array.as_ref().map_or(1, Array::len));
        self.add(Op::Submit(Arc::new(task)), now_ns);
        self.urgent = true;
    }

    /// Says what is to happen after the commit.
    pub fn then(&mut self, after: After) {
        self.urgent |= match &after {
            After::Release { .. } => false,
            After::Accepted { .. }
            | After::Cancelled { .. }
            | After::Retried { .. }
            | After::Paused { .. }
            | After::Told { .. }
            | After::Refused { .. } => true,
        };
        self.afters.push(after);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.afters.is_empty()
    }

    /// Whether it is time to commit. `busy` says that the workers have enough to do, so that nothing is lost by waiting
    /// a little for more.
    pub fn is_due(&self, now_ns: u64, busy: bool) -> bool {
        let waited = now_ns.saturating_sub(self.opened_ns) >= LINGER_NS - self.hasty_ns;
        !self.is_empty() && (self.urgent || !busy || waited || self.ops.len() >= BATCH_MAX)
    }

    /// Nanoseconds until the batch is due in any case.
    pub fn due_in(&self, now_ns: u64) -> Option<u64> {
        let linger_ns = if self.urgent { 0 } else { LINGER_NS - self.hasty_ns };
        (!self.is_empty()).then(|| (self.opened_ns + linger_ns).saturating_sub(now_ns))
    }

    /// How many tasks the batch adds to the queue.
    pub fn submitted(&self) -> u64 {
        self.submitted
    }

    /// The changes.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Closes the batch after its commit, and gives what is to happen now.
    pub fn committed(&mut self) -> Vec<After> {
        self.ops.clear();
        self.urgent = false;
        self.submitted = 0;
        std::mem::take(&mut self.afters)
    }

    /// The changes by who wished for them: the tasks of one submission together, and everything else by itself.
    pub fn wishes(&self) -> Vec<Wish> {
        let mut request_of: HashMap<TaskId, TaskId> = HashMap::new();
        for after in &self.afters {
            if let After::Accepted { ids, .. } = after {
                request_of.extend(ids.iter().map(|id| (*id, ids[0])));
            }
        }
        let mut wishes: Vec<Wish> = Vec::new();
        for op in &self.ops {
            let (id, together) = match op {
                Op::Submit(task) => (request_of.get(&task.id).copied(), true),
                Op::Finished(end) => (Some(end.id), false),
                Op::Cancel { id, .. } | Op::Retry { id, .. } | Op::Hold { id, .. } | Op::Release { id, .. } => {
                    (Some(*id), false)
                }
                Op::Expand { .. }
                | Op::Suspended { .. }
                | Op::Started { .. }
                | Op::Progress { .. }
                | Op::Wake { .. }
                | Op::Group { .. }
                | Op::Expire { .. }
                | Op::Age { .. }
                | Op::WorkerStarted(_)
                | Op::WorkerUnhealthy { .. }
                | Op::WorkerEvent { .. }
                | Op::WorkerStopped { .. }
                | Op::PoolEvent { .. }
                | Op::Pause { .. }
                | Op::Continue => (None, false),
            };
            match wishes.last_mut().filter(|last| together && id.is_some() && last.id == id) {
                Some(last) => last.ops.push(op.clone()),
                None => wishes.push(Wish { id, ops: vec![op.clone()] }),
            }
        }
        wishes
    }

    /// Puts a refusal in the place of what was to follow the wish with this id, so that a client's answers keep their
    /// order. The slot of an attempt whose end cannot be stored is not released: its task must not run again now.
    pub fn refuse(&mut self, wish: TaskId, why: &str) {
        self.afters.retain_mut(|after| {
            let refused = match after {
                After::Release { seq } => return *seq != wish.seq(),
                After::Accepted { client, ids } => (ids.first() == Some(&wish)).then_some(*client),
                After::Cancelled { client, reply } => reply.cancelled.contains(&wish).then_some(*client),
                After::Retried { client, reply } => reply.retried.contains(&wish).then_some(*client),
                After::Told { client, ids, .. } => ids.contains(&wish).then_some(*client),
                After::Paused { .. } | After::Refused { .. } => None,
            };
            if let Some(client) = refused {
                *after = After::Refused { client, why: why.to_owned() };
            }
            true
        });
    }

    /// After a commit that failed: takes out what was asked by clients, who get an error instead. What workers did
    /// stays, and is committed when the disk has healed.
    pub fn without_requests(&mut self) -> Vec<After> {
        self.ops.retain(|op| match op {
            Op::Submit(_)
            | Op::Cancel { .. }
            | Op::Retry { .. }
            | Op::Hold { .. }
            | Op::Release { .. }
            | Op::Group { .. }
            | Op::Pause { .. }
            | Op::Progress { .. } => false,
            // They are told again when the queue is healed in earnest.
            Op::PoolEvent { kind: EventKind::QueueBroken | EventKind::QueueHealed, .. } => false,
            Op::Expand { .. }
            | Op::Suspended { .. }
            | Op::Started { .. }
            | Op::Finished(_)
            | Op::Wake { .. }
            | Op::Expire { .. }
            | Op::Age { .. }
            | Op::WorkerStarted(_)
            | Op::WorkerUnhealthy { .. }
            | Op::WorkerEvent { .. }
            | Op::WorkerStopped { .. }
            | Op::PoolEvent { .. }
            | Op::Continue => true,
        });
        self.urgent = false;
        self.submitted = 0;
        let (kept, asked) = std::mem::take(&mut self.afters).into_iter().partition(|after| match after {
            After::Release { .. } => true,
            After::Accepted { .. }
            | After::Cancelled { .. }
            | After::Retried { .. }
            | After::Paused { .. }
            | After::Told { .. }
            | After::Refused { .. } => false,
        });
        self.afters = kept;
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lingers_beside_busy_workers_unless_somebody_waits_for_it() {
        let mut ledger = Ledger::default();
        ledger.hurry();
        assert!(!ledger.is_due(0, false) && ledger.due_in(0).is_none(), "there is nothing to commit");
        ledger.add(Op::Continue, 100);
        assert!(!ledger.is_due(100, true) && ledger.is_due(100, false));
        assert_eq!(ledger.due_in(100), Some(LINGER_NS));
        assert!(ledger.is_due(100 + LINGER_NS, true));
        // The end of a task that others wait for.
        ledger.hurry();
        assert!(ledger.is_due(100, true));
        assert_eq!(ledger.due_in(100), Some(0));
        ledger.committed();
        ledger.add(Op::Continue, 200);
        assert!(!ledger.is_due(200, true), "and the next batch lingers again");
        ledger.linger(50);
        assert!(!ledger.is_due(249, true) && ledger.is_due(250, true));
        assert_eq!(ledger.due_in(210), Some(40));
        ledger.linger(u64::MAX);
        assert_eq!(ledger.due_in(200), Some(LINGER_NS), "never longer than that");
    }
}
