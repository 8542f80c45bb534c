//! Births, reports and deaths of workers: carries out what the fleet decides, and tells it what happened.

use std::os::fd::{AsFd, AsRawFd};

use acode_worker::claim::Ticket;
use acode_worker::failpoint;
use acode_worker::sys::clock;
use acode_worker::task::{Isolation, OutputRef, TaskId, TaskState, TreeGuard, Usage, Verdict};
use acode_worker::wire::{EXIT_BOOT_FAILED, Finished, Order, Report};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::sys::wait::WaitStatus;

use super::crew::{Cradle, Heard};
use super::decide::{Action, Event, KillReason};
use super::desk::Phase;
use super::judge::{Next, Standing, judge};
use super::ledger::After;
use super::observe::ready_since;
use super::reactor::PIDFDS;
use super::{PoolError, Supervisor};
use crate::store::{self, AttemptEnd, Op, WorkerRecord};

impl Supervisor {
    /// Tells the fleet what happened, and does what it says.
    pub(super) fn decide(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.fleet.decide(self.now_ns / 1_000_000, event, &mut actions);
        for action in actions {
            self.act(action);
        }
        if self.is_stopping() && !self.announced_stop {
            self.begin_stop();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Bear { row } => self.bear(row),
            Action::Dismiss { row } => self.crew.order(row, &Order::Stop),
            Action::TakeBack { row } => self.take_back(row),
            Action::Kill { row, why } => self.kill(row, why),
            Action::GiveUp => {
                let why = self.last_boot_failure.take().unwrap_or_else(|| "they died without a word".to_owned());
                self.failure = Some(PoolError::WorkersDie { why });
            }
        }
    }

    fn bear(&mut self, row: u16) {
        let cradle = Cradle {
            nursery: &self.nursery,
            table: self.producer.region().fd(),
            lock: &self.workers_lock,
            cgroup: self.cgroup.as_ref(),
            settings: &self.settings,
        };
        let (id, pid, start_time, born_us) = match self.crew.bear(row, &cradle) {
            Ok(hand) => (hand.id, hand.pid, hand.start_time, hand.born_us),
            Err(error) => {
                tracing::error!(row, %error, "a worker could not be made");
                self.last_boot_failure = Some(error.to_string());
                return self.decide(Event::BirthFailed { row });
            }
        };
        failpoint!("supervisor.after-bear");
        let registered = self.producer.register(row, id, pid as u32, start_time).map_err(std::io::Error::other);
        if let Err(error) = registered.and_then(|()| self.watch(row)) {
            tracing::error!(row, %error, "a worker cannot be watched");
            self.crew.kill(row);
        }
        tracing::debug!(row, %id, pid, "worker made");
        self.observer.registry.worker_made();
        self.record(Op::WorkerStarted(Box::new(WorkerRecord {
            id,
            slot: u32::from(row),
            pid: pid as u32,
            start_ticks: start_time,
            boot_id: self.boot_id.clone(),
            mode: "process".to_owned(),
            started_us: born_us as u64,
            stopped_us: None,
            completed: 0,
            failed: 0,
        })));
    }

    fn watch(&mut self, row: u16) -> std::io::Result<()> {
        let Some(hand) = self.crew.get(row) else { return Ok(()) };
        let (pidfd, reports) = (hand.pidfd.as_raw_fd(), hand.reports.as_raw_fd());
        let token = Token(PIDFDS + usize::from(row));
        self.polls.urgent.registry().register(&mut SourceFd(&pidfd), token, Interest::READABLE)?;
        let token = Token(usize::from(row));
        self.polls.reports.registry().register(&mut SourceFd(&reports), token, Interest::READABLE)
    }

    fn take_back(&mut self, row: u16) {
        for ticket in self.held_by(row) {
            self.crew.order(row, &Order::GiveBack { ticket });
        }
    }

    /// The slots that a worker has claimed: one, as a rule.
    pub(super) fn held_by(&self, row: u16) -> Vec<Ticket> {
        let tickets = self.desk.iter().map(|active| active.ticket);
        tickets.filter(|ticket| self.producer.holder(*ticket) == Some(row)).collect()
    }

    fn kill(&mut self, row: u16, why: KillReason) {
        let Some(hand) = self.crew.get(row) else { return };
        let id = hand.id;
        match why {
            KillReason::Silent => {
                tracing::warn!(row, worker = %id, "worker gives no sign of life: killed");
                self.record(Op::WorkerUnhealthy { id, at_us: crate::requests::now_us() });
            }
            KillReason::NeverReady => {
                tracing::warn!(row, worker = %id, "worker never became ready: killed");
                self.last_boot_failure = Some("they did not become ready in time".to_owned());
            }
            KillReason::Lingering => tracing::warn!(row, worker = %id, "worker does not leave: killed"),
            KillReason::Forced => tracing::debug!(row, worker = %id, "worker killed"),
        }
        self.crew.kill(row);
    }

    /// Reads and follows a worker's reports.
    pub(super) fn hear(&mut self, row: u16) {
        let mut reports = std::mem::take(&mut self.heard);
        let heard = self.crew.hear(row, |report| reports.push(report));
        for report in reports.drain(..) {
            self.follow(row, report);
        }
        self.heard = reports;
        match heard {
            Heard::All => {}
            Heard::Broken(error) => {
                // Its end is near, and the pidfd tells of it; one that talks nonsense is not to be trusted any more.
                if let Some(error) = error {
                    tracing::error!(row, %error, "worker talks nonsense: killed");
                    self.crew.kill(row);
                }
                if let Some(hand) = self.crew.get(row) {
                    let reports = hand.reports.as_raw_fd();
                    let _ = self.polls.reports.registry().deregister(&mut SourceFd(&reports));
                }
            }
        }
    }

    fn follow(&mut self, row: u16, report: Report) {
        match report {
            Report::Ready => self.decide(Event::Ready { row }),
            Report::BootFailed { why } => {
                tracing::error!(row, why, "worker cannot begin");
                self.last_boot_failure = Some(why);
            }
            Report::Started { ticket, id, pid: _, claimed_us, at_us } => {
                self.started(row, ticket, id, (claimed_us, at_us));
            }
            Report::Progress { ticket, id, progress } => {
                if let Some(active) = self.desk.current(id, ticket) {
                    active.progress = Some(progress.clone());
                    let (percent, message) = (Some(progress.percent), Some(progress.message));
                    self.record(Op::Progress { id, percent, message, at_us: crate::requests::now_us() });
                }
            }
            Report::Finished(finished) => {
                self.started_unsaid(row, &finished);
                self.finished(row, *finished);
            }
            Report::Unreadable { ticket, why } => self.unreadable(row, ticket, why),
            Report::Leaving => tracing::debug!(row, "worker leaves"),
        }
    }

    fn started(&mut self, row: u16, ticket: Ticket, id: TaskId, (claimed_us, at_us): (i64, i64)) {
        let Some(worker) = self.crew.get(row).map(|hand| hand.id) else { return };
        let Some(active) = self.desk.current(id, ticket) else {
            tracing::warn!(%id, row, "report of an older claim dropped");
            return;
        };
        active.phase = Phase::Running { row, started_us: at_us as u64 };
        let waited_us = ready_since(active).map(|ready_us| (at_us as u64).saturating_sub(ready_us));
        let (attempt, cancelled) = (active.attempt, active.cancelled.is_some());
        self.observer.registry.started(waited_us);
        self.record(Op::Started { id, attempt, worker, claimed_us: Some(claimed_us as u64), at_us: at_us as u64 });
        if cancelled {
            self.crew.order(row, &Order::Cancel { ticket });
        }
    }

    /// A worker reports the start of a task only if it runs for more than a moment.
    fn started_unsaid(&mut self, row: u16, finished: &Finished) {
        let ran = !matches!(finished.verdict, Verdict::NotStarted { .. });
        let unsaid = |active: &mut super::desk::Active| active.phase == Phase::Published;
        if ran && self.desk.current(finished.id, finished.ticket).is_some_and(unsaid) {
            self.started(row, finished.ticket, finished.id, (finished.claimed_us, finished.started_us));
        }
    }

    /// Follows the end of an attempt: judges it, and has it committed.
    fn finished(&mut self, row: u16, finished: Finished) {
        let Some(active) = self.desk.current(finished.id, finished.ticket) else {
            tracing::warn!(id = %finished.id, row, "report of an older claim dropped");
            return;
        };
        if active.phase == Phase::Ended {
            return;
        }
        let phase = std::mem::replace(&mut active.phase, Phase::Ended);
        let standing = Standing {
            failures: active.failures,
            losses: active.losses,
            cancelled: active.cancelled.is_some(),
            given_back: finished.given_back,
        };
        let cancel_reason = active.cancelled.clone();
        // Workers pass progress on now and then only, so the last of it may come with the end.
        let last_word = finished.progress.clone().filter(|progress| active.progress.as_ref() != Some(progress));
        let succeeded = finished.verdict.is_success();
        let mut policy = self.policy;
        if !succeeded && let Some(retry) = self.retry_of(finished.id) {
            policy.retry = retry;
        }
        // Success needs no jitter.
        let random = if succeeded { 0.0 } else { self.random() };
        let next = judge(&finished.verdict, standing, &policy, random);
        self.observe_end(phase, &finished, next);
        if let Some(progress) = last_word {
            let (percent, message) = (Some(progress.percent), Some(progress.message));
            self.record(Op::Progress { id: finished.id, percent, message, at_us: finished.finished_us as u64 });
        }
        let Some(hand) = self.crew.get_mut(row) else { return };
        *(if succeeded { &mut hand.completed } else { &mut hand.failed }) += 1;
        let worker = hand.id;
        let reason = cancel_reason.filter(|_| next == Next::Final(TaskState::Cancelled));
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
            next: stored(next, finished.finished_us as u64),
        };
        self.record(Op::Finished(Box::new(end)));
        self.ledger.then(After::Release { seq: finished.id.seq() });
    }

    /// The retries that a task asks for itself.
    fn retry_of(&self, id: TaskId) -> Option<acode_worker::task::Retry> {
        self.store.get(id).ok().flatten()?.spec.retry
    }

    fn unreadable(&mut self, row: u16, ticket: Ticket, why: String) {
        let Some(active) = self.desk.by_ticket(ticket) else { return };
        tracing::error!(id = %active.id, why, "an assignment cannot be read");
        let now_us = clock::unix_us();
        let finished = ended_without_worker(active.id, ticket, active.attempt, now_us);
        self.finished(row, Finished { verdict: Verdict::NotStarted { why, errno: None }, ..finished });
    }

    /// A pidfd tells that a worker has ended.
    pub(super) fn worker_died(&mut self, row: u16) {
        let Some(status) = self.crew.died(row) else { return };
        if let Some(hand) = self.crew.get(row) {
            let pidfd = hand.pidfd.as_raw_fd();
            let _ = self.polls.urgent.registry().deregister(&mut SourceFd(&pidfd));
            match status {
                WaitStatus::Exited(_, 0) => tracing::debug!(row, worker = %hand.id, "worker has left"),
                WaitStatus::Exited(_, EXIT_BOOT_FAILED) => {}
                other => {
                    tracing::warn!(row, worker = %hand.id, "worker died: {}", describe(other));
                    self.last_boot_failure.get_or_insert_with(|| describe(other));
                }
            }
        }
        self.death_of.insert(row, status);
        self.bury_the_dead();
    }

    /// Buries the workers whose tasks' trees are dead too: first their last words count, then their claims are free.
    pub(super) fn bury_the_dead(&mut self) {
        for row in self.crew.ready_for_burial() {
            self.hear(row);
            failpoint!("supervisor.before-reclaim");
            let ours = self.fleet.was_ours(row) || self.is_stopping();
            for ticket in self.producer.reclaim(row) {
                self.lost(row, ticket, ours);
            }
            failpoint!("supervisor.after-reclaim");
            let Some(hand) = self.crew.bury(row) else { continue };
            let _ = self.polls.reports.registry().deregister(&mut SourceFd(&hand.reports.as_raw_fd()));
            let _ = self.producer.clear(row);
            let status = self.death_of.remove(&row);
            let failure = match status {
                Some(WaitStatus::Exited(_, 0)) | None => None,
                Some(_) if ours => None,
                Some(other) => Some(describe(other)),
            };
            if failure.is_some() {
                self.observer.registry.worker_died();
            }
            self.record(Op::WorkerStopped {
                id: hand.id,
                at_us: crate::requests::now_us(),
                completed: hand.completed,
                failed: hand.failed,
                failure,
            });
            // The next worker in this row makes its room anew; until then nothing of the dead one's lies about.
            let room = self.settings.rooms.join(row.to_string());
            if let Err(error) = acode_worker::room::remove_tree(&room)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, room = %room.display(), "a dead worker's room cannot be removed");
            }
            self.decide(Event::Gone { row });
        }
        self.crew.reap_orphans();
    }

    /// A claim whose worker is dead and has not reported its end.
    fn lost(&mut self, row: u16, ticket: Ticket, ours: bool) {
        let Some(active) = self.desk.by_ticket(ticket) else {
            self.producer.release(ticket);
            return;
        };
        if active.phase == Phase::Ended {
            return;
        }
        let (id, attempt) = (active.id, active.attempt);
        let started_us = match active.phase {
            Phase::Running { started_us, .. } => started_us,
            Phase::Published | Phase::Ended => crate::requests::now_us(),
        };
        tracing::warn!(%id, attempt, row, "task lost its worker");
        let finished = ended_without_worker(id, ticket, attempt, started_us as i64);
        self.finished(row, Finished { given_back: ours, finished_us: clock::unix_us(), ..finished });
    }

    /// The nursery has died: without it no worker can be made, so the pool finishes what runs and ends.
    pub(super) fn nursery_died(&mut self) {
        use std::os::fd::AsRawFd;
        let pidfd = self.nursery.pidfd.as_raw_fd();
        let _ = self.polls.urgent.registry().deregister(&mut SourceFd(&pidfd));
        let _ = acode_worker::sys::process::try_wait(self.nursery.pidfd.as_fd());
        tracing::error!("the nursery died: the pool finishes what runs, and stops");
        self.failure = Some(PoolError::NurseryDied);
        let patience_ms = u64::try_from(self.config.workers.drain_timeout.as_millis()).unwrap_or(u64::MAX);
        self.decide(Event::Drain { patience_ms });
    }
}

/// The end of an attempt whose worker cannot tell it.
fn ended_without_worker(id: TaskId, ticket: Ticket, attempt: u32, started_us: i64) -> Finished {
    Finished {
        ticket,
        id,
        attempt,
        verdict: Verdict::WorkerLost,
        given_back: false,
        isolation: Isolation::Process,
        guard: TreeGuard::Subreaper,
        usage: Usage::default(),
        output: OutputRef::default(),
        claimed_us: started_us,
        started_us,
        finished_us: started_us,
        leaked: false,
        result: None,
        error: None,
        progress: None,
    }
}

fn stored(next: Next, finished_us: u64) -> store::Next {
    match next {
        Next::Final(state) => store::Next::Final(state),
        Next::RetryAfter(ms) => store::Next::RetryAt(store::later(finished_us, ms)),
        Next::Requeue => store::Next::Requeue,
        Next::RequeueLost => store::Next::RequeueLost,
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exited with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
