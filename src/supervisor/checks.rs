//! Health checks: asks every worker, looks at its process, and has those that do not answer killed and replaced.
//!
//! A check is one round of pings that carry its number; the answers come on the report pipes like everything else, so
//! nothing ever waits for a worker. It is over when all have answered, or at the tick after the heartbeat timeout.
//! Deliberately absent: what a check has found out so far (`checkup`), and who is killed (`decide`).

use acode_worker::sys::clock;
use acode_worker::wire::Order;
use procfs::process::Process;

use super::Supervisor;
use super::checkup::{Checkup, Finding, Patient};
use super::clients::ClientId;
use super::decide::{Event, Status, Wear};
use crate::store::{EventKind, Op};
use crate::wire::reply::Checked;
use crate::wire::types::{CheckRecord, WorkerStatus};
use crate::wire::{CallError, SCHEMA};

/// The most checks at a time. Each is a ping to every worker.
const CHECKS_MAX: usize = 16;

/// The checks that go on.
#[derive(Debug, Default)]
pub struct Checks {
    running: Vec<Check>,
    last_nonce: u64,
    next_ns: u64,
}

/// One of them.
#[derive(Debug)]
struct Check {
    checkup: Checkup,
    /// Who has asked for it; nobody for one that is done from time to time.
    client: Option<ClientId>,
}

impl Supervisor {
    /// Begins a check for a client, who is answered when it is over.
    pub(super) fn check(&mut self, client: ClientId) -> Result<(), CallError> {
        if self.checks.running.len() >= CHECKS_MAX {
            return Err(CallError::Busy { reason: format!("{CHECKS_MAX} health checks are going on already") });
        }
        self.clients.hold(client);
        self.begin_check(Some(client));
        self.finish_checks();
        Ok(())
    }

    /// Begins a check when it is time for one, and ends those whose time is up.
    pub(super) fn check_if_due(&mut self) {
        let wanted = self.config.workers.health_check;
        let interval_ns = u64::try_from(wanted.interval.as_nanos()).unwrap_or(u64::MAX);
        if self.checks.next_ns == 0 {
            self.checks.next_ns = self.now_ns.saturating_add(interval_ns);
        }
        // A shorter interval from a configuration that was read again counts at once.
        self.checks.next_ns = self.checks.next_ns.min(self.now_ns.saturating_add(interval_ns));
        if self.now_ns >= self.checks.next_ns {
            self.checks.next_ns = self.now_ns.saturating_add(interval_ns);
            let room = self.checks.running.len() < CHECKS_MAX;
            if wanted.enabled && room && !self.is_stopping() {
                self.begin_check(None);
            }
        }
        self.end_overdue_checks();
        self.finish_checks();
    }

    fn begin_check(&mut self, client: Option<ClientId>) {
        self.checks.last_nonce += 1;
        let nonce = self.checks.last_nonce;
        let patients = self.crew.iter().map(|(row, hand)| (row, Patient::asked(hand.id, hand.pid))).collect();
        let patience_ns = u64::try_from(self.config.workers.heartbeat_timeout.as_nanos()).unwrap_or(u64::MAX);
        let mut checkup = Checkup::new(nonce, clock::monotonic_ns(), patience_ns, patients);
        for row in checkup.open() {
            match self.crew.get(row) {
                Some(hand) if hand.is_dead() => checkup.unwell(row, "its process has ended".to_owned()),
                Some(_) if self.fleet.status(row) == Some(Status::Unhealthy) => checkup.unwell(row, SILENT.to_owned()),
                Some(_) | None => self.crew.order(row, &Order::Ping { nonce }),
            }
        }
        self.checks.running.push(Check { checkup, client });
    }

    /// Takes a worker's answer.
    pub(super) fn take_pong(&mut self, row: u16, nonce: u64) {
        let Some(hand) = self.crew.get(row) else { return };
        let (id, pid) = (hand.id, hand.pid);
        let now_ns = clock::monotonic_ns();
        let Some(check) = self.checks.running.iter_mut().find(|check| check.checkup.nonce() == nonce) else { return };
        let memory_bytes = memory_of(pid);
        if !check.checkup.answered(row, now_ns, memory_bytes) {
            return;
        }
        if check.client.is_some() {
            let at_us = crate::requests::now_us();
            self.record(Op::WorkerEvent { kind: EventKind::WorkerHeartbeat, worker: id, at_us, data: None });
        }
        let most = self.config.workers.recycle.max_memory_mb.map(|mb| mb.saturating_mul(1 << 20));
        if let Some(bytes) = memory_bytes
            && most.is_some_and(|most| bytes > most)
        {
            self.decide(Event::Worn { row, wear: Wear::Memory(bytes) });
        }
        self.finish_checks();
    }

    /// Notes in all checks that a worker is gone; `why` unless it left as it should.
    pub(super) fn gone_from_checks(&mut self, row: u16, why: Option<&str>) {
        let silent = self.fleet.status(row) == Some(Status::Unhealthy);
        let why = if silent { Some(SILENT) } else { why };
        self.checks.running.iter_mut().for_each(|check| check.checkup.gone(row, why.map(str::to_owned)));
        self.finish_checks();
    }

    /// Has those killed that did not answer in time.
    fn end_overdue_checks(&mut self) {
        let now_ns = self.now_ns;
        let mut overdue = Vec::new();
        for check in self.checks.running.iter_mut().filter_map(|check| {
            let late = check.checkup.is_overdue(now_ns);
            late.then_some(&mut check.checkup)
        }) {
            for row in check.open() {
                let state = self.crew.get(row).map_or("gone", |hand| state_of(hand.pid));
                let starting = self.fleet.status(row) == Some(Status::Starting);
                let what = if starting { "it is not ready yet" } else { "it did not answer" };
                check.unwell(row, format!("{what}; its process is {state}"));
                overdue.push(row);
            }
        }
        for row in overdue {
            self.decide(Event::Unanswered { row });
        }
    }

    /// Answers the clients whose checks are over.
    fn finish_checks(&mut self) {
        let running = std::mem::take(&mut self.checks.running);
        let (over, running) = running.into_iter().partition(|check: &Check| check.checkup.open().is_empty());
        self.checks.running = running;
        for Check { checkup, client } in over {
            if let Some(client) = client {
                let workers = self.check_records(&checkup);
                self.clients.reply(client, &Checked { workers }, false);
            }
        }
    }

    fn check_records(&self, checkup: &Checkup) -> Vec<CheckRecord> {
        let holding = self.holding();
        let record = |(row, patient): (u16, &Patient)| {
            // Somebody else may live in its row by now.
            let here = self.crew.get(row).is_some_and(|hand| hand.id == patient.id);
            let status = if here { self.worker_status(row, &holding) } else { WorkerStatus::Stopped };
            let (answered_in_us, problem) = match &patient.finding {
                Finding::Answered { in_us } => (Some(*in_us), None),
                Finding::Unwell { why } => (None, Some(why.clone())),
                Finding::Asked => (None, Some("it did not answer".to_owned())),
            };
            CheckRecord {
                schema: SCHEMA,
                id: patient.id,
                pid: patient.pid as u32,
                status,
                healthy: problem.is_none(),
                answered_in_us,
                memory_bytes: patient.memory_bytes,
                current_task: holding.get(&row).copied().filter(|_| here),
                problem,
            }
        };
        checkup.patients().map(record).collect()
    }
}

/// Why a worker is not well whose heartbeat has stopped.
const SILENT: &str = "it gave no sign of life and was killed";

/// The memory of this process alone that is in use, in bytes; none if it is gone.
fn memory_of(pid: i32) -> Option<u64> {
    let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
    Some(stat.rss * procfs::page_size())
}

/// What this process does, in a word.
fn state_of(pid: i32) -> &'static str {
    match Process::new(pid).and_then(|process| process.stat()).map(|stat| stat.state) {
        Ok('R') => "running",
        Ok('S') => "sleeping",
        Ok('D') => "waiting for a device",
        Ok('T' | 't') => "stopped",
        Ok('Z' | 'X') => "dead",
        Ok(_) => "in a state without a name",
        Err(_) => "gone",
    }
}
