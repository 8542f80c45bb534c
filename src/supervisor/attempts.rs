//! What the reports and the deaths of workers, and commits, do to desk and batch.
//!
//! Works on a [`Books`], without a supervisor, so that a simulator drives the same code. Deliberately absent: I/O, the
//! clock, and the verdict about what comes next, which is `judge`'s.

use acode_worker::claim::{Producer, Ticket};
use acode_worker::task::{TaskId, TaskState, Verdict, WorkerId};
use acode_worker::wire::Finished;

use super::desk::{Active, Desk, Phase};
use super::judge::{Crash, Next, Policy, Standing, judge, quarantined};
use super::ledger::{After, Ledger};
use super::metrics::Registry;
use crate::store::{self, Applied, AttemptEnd, AttemptNotes, NowReady, Op};

/// The desk, and the batch in which its changes go to the queue.
pub struct Books<'a> {
    /// What is handed out.
    pub desk: &'a mut Desk,
    /// What will be committed.
    pub ledger: &'a mut Ledger,
    /// What is counted.
    pub registry: &'a mut Registry,
    /// Now, in nanoseconds of the monotonic clock.
    pub now_ns: u64,
}

/// What a report was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// A claim that is not the task's present one: nothing follows.
    Stale,
    /// Something that was known already.
    Known,
    /// The present attempt.
    Present {
        /// Somebody has cancelled it; of a start: its worker has yet to be told to end it.
        cancelled: bool,
        /// The task has ended with it.
        last: bool,
    },
}

impl Books<'_> {
    fn record(&mut self, op: Op) {
        self.ledger.add(op, self.now_ns);
    }

    /// An attempt has been started by the worker in this row; the times are those of its claim and its start.
    pub fn started(
        &mut self,
        (row, worker): (u16, WorkerId),
        ticket: Ticket,
        id: TaskId,
        (claimed_us, at_us): (i64, i64),
    ) -> Reported {
        let Some(active) = self.desk.current(id, ticket) else { return Reported::Stale };
        active.phase = Phase::Running { row, started_us: at_us as u64 };
        let (attempt, cancelled) = (active.attempt, active.cancelled.is_some());
        self.registry.started((at_us as u64).saturating_sub(active.ready_us));
        self.record(Op::Started { id, attempt, worker, claimed_us: Some(claimed_us as u64), at_us: at_us as u64 });
        Reported::Present { cancelled, last: false }
    }

    /// A worker reports the start of a task only if it runs for more than a moment; its end tells of both.
    pub fn started_unsaid(&mut self, worker: (u16, WorkerId), finished: &Finished) {
        let ran = !matches!(finished.verdict, Verdict::NotStarted { .. });
        let unsaid = |active: &mut Active| active.phase == Phase::Published;
        if ran && self.desk.current(finished.id, finished.ticket).is_some_and(unsaid) {
            self.started(worker, finished.ticket, finished.id, (finished.claimed_us, finished.started_us));
        }
    }

    /// Follows the end of an attempt: judges it, and has it committed. `random` as for [`judge`].
    pub fn finished(
        &mut self,
        (row, worker): (u16, WorkerId),
        finished: Finished,
        policy: &Policy,
        random: f64,
    ) -> Reported {
        let Some(active) = self.desk.current(finished.id, finished.ticket) else { return Reported::Stale };
        if active.phase == Phase::Ended {
            return Reported::Known;
        }
        let phase = std::mem::replace(&mut active.phase, Phase::Ended);
        active.suspended_us = None;
        let standing = Standing {
            failures: active.failures,
            losses: active.losses,
            ooms: active.ooms,
            cancelled: active.cancelled.is_some(),
            given_back: finished.given_back,
            uncounted: finished.attempt.saturating_sub(1 + active.failures + active.losses + active.ooms),
        };
        let cancel_reason = active.cancelled.clone();
        // Workers pass progress on now and then only, so the last of it may come with the end.
        let last_word = finished.progress.clone().filter(|progress| active.progress.as_ref() != Some(progress));
        let next = judge(&finished.verdict, standing, policy, random);
        if finished.checkpoint && next == Next::Final(TaskState::Completed) {
            active.discard_by = Some(row);
        }
        self.registry.ended(phase, finished.finished_us as u64, next);
        self.registry.used(&finished.usage, &finished.verdict);
        if let Some(progress) = last_word {
            let (percent, message) = (Some(progress.percent), Some(progress.message));
            self.record(Op::Progress { id: finished.id, percent, message, at_us: finished.finished_us as u64 });
        }
        let reason = match next {
            Next::Final(TaskState::Cancelled) => cancel_reason,
            Next::Quarantine => Some(quarantined(&finished.verdict, standing)),
            Next::Final(_) | Next::RetryAfter(_) | Next::Requeue | Next::PostponedAfter(_) | Next::CrashedAfter(..) => {
                None
            }
        };
        let end = AttemptEnd {
            id: finished.id,
            attempt: finished.attempt,
            worker,
            verdict: finished.verdict,
            isolation: finished.isolation,
            guard: finished.guard,
            usage: finished.usage,
            output: finished.output,
            started_us: finished.started_us as u64,
            finished_us: finished.finished_us as u64,
            leaked: finished.leaked,
            error: finished.error,
            result: finished.result,
            reason,
            notes: AttemptNotes {
                limits: finished.limits,
                artifacts: finished.artifacts,
                kept: finished.kept.map(|path| path.to_string_lossy().into_owned()),
                sandbox: (!finished.sandbox.is_empty()).then(|| serde_json::Value::from(finished.sandbox).to_string()),
            },
            next: stored(next, finished.finished_us as u64),
        };
        self.record(Op::Finished(Box::new(end)));
        self.ledger.then(After::Release { seq: finished.id.seq() });
        Reported::Present { cancelled: standing.cancelled, last: matches!(next, Next::Final(_) | Next::Quarantine) }
    }

    /// Follows what a commit did beyond what was asked of it: what became ready is read, what is left is gone on with.
    pub fn committed(&mut self, applied: &Applied) {
        for NowReady { id, priority, class, group } in &applied.ready {
            let lane = acode_worker::claim::Lane { priority: *priority, class: *class };
            self.desk.expect(lane, *group, id.seq());
        }
        if applied.more {
            self.record(Op::Continue);
        }
    }
}

/// The end of the attempt in a slot whose worker is dead and has not reported it; `ours` if the pool itself ended that
/// worker. `None` if its end is known.
pub fn lost(desk: &Desk, producer: &mut Producer, ticket: Ticket, ours: bool, now_us: i64) -> Option<Finished> {
    let Some(active) = desk.by_ticket(ticket) else {
        producer.release(ticket);
        return None;
    };
    let started_us = match active.phase {
        Phase::Running { started_us, .. } => started_us as i64,
        Phase::Published => now_us,
        Phase::Ended => return None,
    };
    let lost = ended_without_worker(active.id, ticket, active.attempt, started_us);
    Some(match active.overdue_ms {
        None => Finished { given_back: ours, finished_us: now_us, ..lost },
        // The worker was killed for the start that it hung in, which is the task's failure and no crash.
        Some(limit_ms) => {
            let error = Some(format!("did not start within {}s", limit_ms as f64 / 1e3));
            Finished { verdict: Verdict::TimedOut, error, finished_us: now_us, ..lost }
        }
    })
}

/// The end of an attempt whose worker cannot tell it.
pub fn ended_without_worker(id: TaskId, ticket: Ticket, attempt: u32, started_us: i64) -> Finished {
    Finished::blank(ticket, (id, attempt), Verdict::WorkerLost, started_us)
}

fn stored(next: Next, finished_us: u64) -> store::Next {
    match next {
        Next::Final(state) => store::Next::Final(state),
        Next::RetryAfter(ms) => store::Next::RetryAt(store::later(finished_us, ms)),
        Next::Requeue => store::Next::Requeue,
        Next::PostponedAfter(ms) => store::Next::RequeueAt(store::later(finished_us, ms)),
        Next::CrashedAfter(crash, ms) => {
            let at_us = store::later(finished_us, ms);
            store::Next::CrashedAt { at_us, oom: crash == Crash::Oom }
        }
        Next::Quarantine => store::Next::Final(TaskState::Failed),
    }
}
