//! Births, reports and deaths of workers: carries out what the fleet decides, and tells it what happened.

use std::os::fd::{AsFd, AsRawFd};

use acode_worker::claim::Ticket;
use acode_worker::failpoint;
use acode_worker::sys::clock;
use acode_worker::task::{Isolation, TaskId, Verdict, WorkerId};
use acode_worker::wire::{EXIT_BOOT_FAILED, Finished, Order, Report};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::sys::wait::WaitStatus;
use serde_json::json;

use super::attempts::{self, Books, Reported};
use super::crew::{Cradle, Heard};
use super::decide::{Action, Event, KillReason, Wear};
use super::limits;
use super::modes;
use super::reactor::PIDFDS;
use super::{PoolError, Supervisor};
use crate::store::{EventKind, Op, WorkerRecord};

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
            Action::Bear { row, mode } => self.bear(row, mode),
            Action::Dismiss { row } => self.crew.order(row, &Order::Stop),
            Action::Recycle { row, wear } => self.recycle(row, wear),
            Action::TakeBack { row, now } => self.take_back(row, now),
            Action::Kill { row, why } => self.kill(row, why),
            Action::GiveUp => {
                let why = self.last_boot_failure.take().unwrap_or_else(|| "they died without a word".to_owned());
                self.failure = Some(PoolError::WorkersDie { why });
            }
        }
    }

    fn bear(&mut self, row: u16, isolation: Isolation) {
        let mode = modes::born_as(&self.config.workers.mode, isolation);
        let cradle = Cradle {
            nursery: &self.nursery,
            table: self.producer.region().fd(),
            lock: &self.workers_lock,
            holding: &self.holding,
            settings: &self.settings,
        };
        let (id, pid, start_time, born_us) = match self.crew.bear(row, mode, &cradle) {
            Ok(hand) => (hand.id, hand.pid, hand.start_time, hand.born_us),
            Err(error) => {
                tracing::error!(row, %error, "a worker could not be made");
                let error = error.to_string();
                self.record(Op::PoolEvent {
                    kind: EventKind::WorkerError,
                    at_us: crate::requests::now_us(),
                    data: Some(json!({ "why": "worker_creation_failed", "error": error, "row": row }).to_string()),
                });
                self.last_boot_failure = Some(error);
                return self.decide(Event::BirthFailed { row });
            }
        };
        failpoint!("supervisor.after-bear");
        let registered = self.producer.register(row, id, pid as u32, start_time).map_err(std::io::Error::other);
        if let Err(error) = registered.and_then(|()| self.watch(row)) {
            tracing::error!(row, %error, "a worker cannot be watched");
            self.crew.kill(row);
        }
        tracing::debug!(row, worker = %id, pid, "worker made");
        self.observer.registry.worker_made();
        self.record(Op::WorkerStarted(Box::new(WorkerRecord {
            id,
            slot: u32::from(row),
            pid: pid as u32,
            start_ticks: start_time,
            boot_id: self.boot_id.clone(),
            mode: isolation.name().to_owned(),
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

    fn take_back(&mut self, row: u16, now: bool) {
        for ticket in self.held_by(row) {
            self.crew.order(row, &Order::GiveBack { ticket, now });
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
                self.worker_error(id, "unhealthy", "it gave no sign of life");
                self.record(Op::WorkerUnhealthy { id, at_us: crate::requests::now_us() });
            }
            KillReason::NeverReady => {
                tracing::warn!(row, worker = %id, "worker never became ready: killed");
                self.worker_error(id, "boot_failed", "it did not become ready in time");
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
                    if let Some(id) = self.crew.get(row).map(|hand| hand.id) {
                        self.worker_error(id, "nonsense", &error.to_string());
                    }
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
            Report::Ready => self.ready(row),
            Report::Pong { nonce } => self.take_pong(row, nonce),
            Report::BootFailed { why } => {
                tracing::error!(row, why, "worker cannot begin");
                if let Some(id) = self.crew.get(row).map(|hand| hand.id) {
                    self.worker_error(id, "boot_failed", &why);
                }
                self.last_boot_failure = Some(why);
            }
            Report::Starting { ticket, id, limit_ms } => {
                self.starting.begin(row, id, ticket, limit_ms, self.now_ns);
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
                if let Some(worker) = self.crew.get(row).map(|hand| hand.id) {
                    self.books().started_unsaid((row, worker), &finished);
                }
                self.finished(row, *finished);
            }
            Report::Unreadable { ticket, why } => self.unreadable(row, ticket, why),
            Report::Engine { up, why } => self.take_engine_word(row, up, why),
            Report::Leaving => tracing::debug!(row, "worker leaves"),
        }
    }

    /// A worker can take tasks from now on.
    fn ready(&mut self, row: u16) {
        self.decide(Event::Ready { row });
        let Some(hand) = self.crew.get(row) else { return };
        let mode = hand.mode.isolation.name();
        let data = json!({ "slot": row, "pid": hand.pid, "mode": mode }).to_string();
        self.worker_event(EventKind::WorkerStarted, hand.id, Some(data));
    }

    /// Has a worker leave because a fresh one is to take its place.
    fn recycle(&mut self, row: u16, wear: Wear) {
        let Some(id) = self.crew.get(row).map(|hand| hand.id) else { return };
        let data = match wear {
            Wear::Tasks(tasks) => json!({ "why": "tasks", "value": tasks }),
            Wear::Memory(bytes) => json!({ "why": "memory", "value": bytes }),
            Wear::Mode(mode) => json!({ "why": "mode", "value": mode.name() }),
        };
        tracing::info!(row, worker = %id, %data, "worker is replaced by a fresh one");
        self.worker_event(EventKind::WorkerRecycled, id, Some(data.to_string()));
        self.crew.order(row, &Order::Stop);
    }

    fn worker_error(&mut self, worker: WorkerId, why: &str, error: &str) {
        self.worker_event(EventKind::WorkerError, worker, Some(json!({ "why": why, "error": error }).to_string()));
    }

    fn worker_event(&mut self, kind: EventKind, worker: WorkerId, data: Option<String>) {
        self.record(Op::WorkerEvent { kind, worker, at_us: crate::requests::now_us(), data });
    }

    /// The part of the supervisor that reports change.
    pub(super) fn books(&mut self) -> Books<'_> {
        let registry = &mut self.observer.registry;
        Books { desk: &mut self.desk, ledger: &mut self.ledger, registry, now_ns: self.now_ns }
    }

    fn started(&mut self, row: u16, ticket: Ticket, id: TaskId, times: (i64, i64)) {
        self.starting.done(row);
        let Some(worker) = self.crew.get(row).map(|hand| hand.id) else { return };
        match self.books().started((row, worker), ticket, id, times) {
            Reported::Stale => tracing::warn!(task = %id, %worker, row, "report of an older claim dropped"),
            Reported::Present { cancelled: true, .. } => {
                let now = self.desk.get(id.seq()).is_some_and(|active| active.cancel_now);
                self.crew.order(row, &Order::Cancel { ticket, now });
            }
            Reported::Present { cancelled: false, .. } | Reported::Known => {}
        }
    }

    /// Follows the end of an attempt: judges it, and has it committed.
    fn finished(&mut self, row: u16, finished: Finished) {
        let Some(worker) = self.crew.get(row).map(|hand| hand.id) else { return };
        let (id, succeeded) = (finished.id, finished.verdict.is_success());
        limits::tell_exceeded(id, &finished);
        let mut policy = self.policy;
        if !succeeded && let Some(own) = self.retries_of(id) {
            policy = policy.of_task(&own);
        }
        tracing::debug!(task = %id, %worker, row, verdict = %finished.verdict, "attempt ended");
        // Success needs no jitter.
        let random = if succeeded { 0.0 } else { self.random() };
        match self.books().finished((row, worker), finished, &policy, random) {
            Reported::Stale => tracing::warn!(task = %id, %worker, row, "report of an older claim dropped"),
            Reported::Known => {}
            Reported::Present { last, .. } => {
                self.starting.done(row);
                if let Some(hand) = self.crew.get_mut(row) {
                    *(if succeeded { &mut hand.completed } else { &mut hand.failed }) += 1;
                }
                // Those that wait for it can start with the commit, and are not to wait until the batch has grown.
                if last && self.store.blocked() > 0 && self.store.has_dependents(id).unwrap_or(true) {
                    self.ledger.hurry();
                }
                self.recycle_if_worn(row);
            }
        }
    }

    /// Tells the fleet of a worker that has done its share of tasks, once.
    fn recycle_if_worn(&mut self, row: u16) {
        let Some(max) = self.config.workers.recycle.max_tasks else { return };
        let Some(hand) = self.crew.get_mut(row) else { return };
        let tasks = hand.completed + hand.failed;
        if tasks >= max && !hand.worn && !hand.is_dead() {
            hand.worn = true;
            self.decide(Event::Worn { row, wear: Wear::Tasks(tasks) });
        }
    }

    /// What a task says about its retries; of an array's member the array.
    fn retries_of(&self, id: TaskId) -> Option<acode_worker::task::Retries> {
        let spec = self.store.get(id).ok().flatten()?.spec;
        let count = self.config.actions.retries.filter(|_| spec.action.is_some());
        match (spec.retry, count) {
            (own, None) => own,
            (own, Some(count)) => {
                let own = own.unwrap_or_default();
                Some(acode_worker::task::Retries { count: own.count.or(Some(count)), ..own })
            }
        }
    }

    fn unreadable(&mut self, row: u16, ticket: Ticket, why: String) {
        let Some(active) = self.desk.by_ticket(ticket) else { return };
        tracing::error!(task = %active.id, row, why, "an assignment cannot be read");
        let now_us = clock::unix_us();
        let finished = attempts::ended_without_worker(active.id, ticket, active.attempt, now_us);
        let finished = Finished { isolation: self.isolation_in(row), ..finished };
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
            self.starting.done(row);
            let Some(hand) = self.crew.bury(row) else { continue };
            let _ = self.polls.reports.registry().deregister(&mut SourceFd(&hand.reports.as_raw_fd()));
            let _ = self.producer.clear(row);
            if hand.mode.isolation == Isolation::Docker {
                // What it may have left belongs to nobody in the table from here on.
                self.engines.sweeps.hurry();
                self.forget_engine_word(row);
            }
            let status = self.death_of.remove(&row);
            let failure = match status {
                Some(WaitStatus::Exited(_, 0)) | None => None,
                Some(_) if ours => None,
                Some(other) => Some(describe(other)),
            };
            self.gone_from_checks(row, failure.as_deref());
            self.worker_event(EventKind::WorkerExited, hand.id, status.and_then(exit_data));
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
        let ended = attempts::lost(&self.desk, &mut self.producer, ticket, ours, clock::unix_us());
        let Some(finished) = ended else { return };
        let finished = Finished { isolation: self.isolation_in(row), ..finished };
        let worker = self.crew.get(row).map(|hand| hand.id.to_string());
        tracing::warn!(task = %finished.id, worker, attempt = finished.attempt, row, "task lost its worker");
        self.finished(row, finished);
    }

    /// How the worker in this row keeps its tasks apart.
    fn isolation_in(&self, row: u16) -> Isolation {
        self.crew.get(row).map_or(Isolation::Process, |hand| hand.mode.isolation)
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

/// How a process ended, as an event tells it.
fn exit_data(status: WaitStatus) -> Option<String> {
    match status {
        WaitStatus::Exited(_, code) => Some(json!({ "code": code }).to_string()),
        WaitStatus::Signaled(_, signal, _) => Some(json!({ "signal": signal as i32 }).to_string()),
        // A process that has ended is in no other state.
        _ => None,
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exited with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
