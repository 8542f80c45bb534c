//! The scene: the time, what will happen when, the workers, and the witness.
//!
//! A simulated worker claims through a real `Claimer` and says what a real one says on its pipes; only its task is made
//! up. Each of its steps is an event of its own, so that it can die between any two of them. Deliberately absent: the
//! supervisor, which is in `pool`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use acode_worker::claim::{Claimer, Region, Ticket, WorkerState};
use acode_worker::task::{Class, TaskId, Verdict, WorkerId};
use acode_worker::wire::{Finished, Order, Report, WorkerMode};

use super::rng::Rng;
use super::script::Temper;
use super::witness::{self, Witness};
use crate::supervisor::attempts::ended_without_worker;

/// When the simulation begins, in microseconds of Unix time.
pub const EPOCH_US: u64 = 1_700_000_000_000_000;
/// And in nanoseconds of its monotonic clock.
pub const BOOT_NS: u64 = 1_000_000_000_000;
/// A microsecond.
pub const US: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A task that runs longer has its start reported.
const MOMENT_NS: u64 = 20 * MS;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// The next input of the script.
    Input,
    /// The supervisor's loop turns.
    Turn,
    /// A worker goes on.
    Step {
        /// Where.
        row: u16,
        /// Which.
        birth: u64,
        /// Steps that were planned before another one was are void.
        plan: u64,
    },
    /// The supervisor is told of a worker's death.
    Death {
        /// Where.
        row: u16,
        /// Which.
        birth: u64,
    },
    /// A supervisor is started.
    Start,
    /// The disk heals.
    Heal,
}

/// What a worker is at.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Booting,
    /// Between tasks.
    Looking,
    Resting,
    Claimed,
    Running,
    /// The task has ended, and nobody was told.
    Ended(Box<Finished>),
    Dead,
}

/// One worker process.
pub struct Worker {
    birth: u64,
    mode: WorkerMode,
    claimer: Claimer,
    phase: Phase,
    /// What it has in hand.
    task: Option<(TaskId, Ticket, u32)>,
    started_ns: u64,
    /// How its task is to be ended, if somebody wants that.
    ended_by: Option<Order>,
    orders: VecDeque<Order>,
    reports: Vec<Report>,
    stopping: bool,
    /// It does nothing any more, and is not dead.
    pub hung: bool,
    backoff_ms: u64,
    plan: u64,
    /// Whether its end was its own wish.
    pub left: bool,
    stillborn: bool,
}

/// The scene.
pub struct Scene {
    seed: u64,
    /// Now, in nanoseconds of the monotonic clock.
    pub now_ns: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    planned: u64,
    /// The workers that live, or are dead and not buried.
    pub workers: BTreeMap<u16, Worker>,
    /// Who watches.
    pub witness: Witness,
    /// Chance, as far as it is not the script's.
    pub rng: Rng,
    temper: Temper,
    payload: Vec<u8>,
    /// So many of the next workers die before they are ready.
    pub stillborn: u32,
    /// Bad luck still happens.
    pub unlucky: bool,
    /// The first promise that was broken.
    pub broken_promise: Option<String>,
}

impl Scene {
    /// An empty scene.
    pub fn new(seed: u64, temper: Temper) -> Self {
        Self {
            seed,
            now_ns: BOOT_NS,
            agenda: BinaryHeap::new(),
            planned: 0,
            workers: BTreeMap::new(),
            witness: Witness::default(),
            rng: Rng::of(&[seed, 2]),
            temper,
            payload: Vec::new(),
            stillborn: 0,
            unlucky: true,
            broken_promise: None,
        }
    }

    /// Now, in microseconds of Unix time.
    pub fn now_us(&self) -> u64 {
        EPOCH_US + (self.now_ns - BOOT_NS) / US
    }

    /// Plans something for so many nanoseconds from now.
    pub fn plan(&mut self, in_ns: u64, what: Happening) {
        self.planned += 1;
        self.agenda.push(Reverse((self.now_ns + in_ns, self.planned, what)));
    }

    /// Goes on to what happens next.
    pub fn next(&mut self) -> Option<Happening> {
        let Reverse((at_ns, _, what)) = self.agenda.pop()?;
        self.now_ns = at_ns;
        Some(what)
    }

    /// Keeps the first broken promise.
    pub fn check(&mut self, verdict: witness::Verdict) {
        if let Err(why) = verdict {
            self.broken_promise.get_or_insert(why);
        }
    }

    /// A little while, in nanoseconds: mostly some microseconds, now and then milliseconds.
    pub fn while_ns(&mut self) -> u64 {
        match self.rng.below(20) {
            0 => self.rng.between(MS, 10 * MS),
            _ => self.rng.between(2 * US, 200 * US),
        }
    }

    fn plan_step(&mut self, row: u16, in_ns: u64) {
        let Some(worker) = self.workers.get_mut(&row) else { return };
        worker.plan += 1;
        let step = Happening::Step { row, birth: worker.birth, plan: worker.plan };
        self.plan(in_ns, step);
    }

    /// A worker is made.
    ///
    /// # Errors
    /// The table has no such row.
    pub fn bear(
        &mut self,
        row: u16,
        mode: WorkerMode,
        classes: &[Class],
        region: &Arc<Region>,
    ) -> Result<WorkerId, String> {
        let claimer = Claimer::new(Arc::clone(region), row, classes).map_err(|e| e.to_string())?;
        self.witness.tally.births += 1;
        let birth = self.witness.tally.births;
        let id = WorkerId::from_u128(u128::from(birth));
        let stillborn = self.stillborn > 0;
        self.stillborn = self.stillborn.saturating_sub(1);
        let worker = Worker {
            birth,
            mode,
            claimer,
            phase: Phase::Booting,
            task: None,
            started_ns: 0,
            ended_by: None,
            orders: VecDeque::new(),
            reports: Vec::new(),
            stopping: false,
            hung: false,
            backoff_ms: 0,
            plan: 0,
            left: false,
            stillborn,
        };
        if self.workers.insert(row, worker).is_some() {
            self.check(Err(format!("two workers in row {row}")));
        }
        let boot_ns = self.rng.between(MS, 20 * MS);
        self.plan_step(row, boot_ns);
        Ok(id)
    }

    /// A worker dies where it is. Its task lives on until its tree is killed.
    pub fn die(&mut self, row: u16) {
        let Some(worker) = self.workers.get_mut(&row).filter(|worker| worker.phase != Phase::Dead) else { return };
        worker.phase = Phase::Dead;
        worker.plan += 1;
        let birth = worker.birth;
        let seen_ns = self.while_ns();
        self.plan(seen_ns, Happening::Death { row, birth });
    }

    /// Whether the worker of this birth is the one in this row, and dead.
    pub fn is_dead(&self, row: u16, birth: u64) -> bool {
        self.workers.get(&row).is_some_and(|worker| worker.birth == birth && worker.phase == Phase::Dead)
    }

    /// All processes of a dead worker's task are gone.
    pub fn tree_is_gone(&mut self, row: u16) {
        let Some(worker) = self.workers.get(&row) else { return };
        if let Some((id, _, _)) = worker.task {
            self.witness.let_go(id.seq(), (row, worker.birth));
        }
    }

    /// Everybody is gone, with all of their tasks.
    pub fn sweep(&mut self) {
        for row in self.workers.keys().copied().collect::<Vec<_>>() {
            self.tree_is_gone(row);
        }
        self.workers.clear();
    }

    /// What a worker has said since it was heard last.
    pub fn hear(&mut self, row: u16) -> Vec<Report> {
        self.workers.get_mut(&row).map(|worker| std::mem::take(&mut worker.reports)).unwrap_or_default()
    }

    /// Whether a worker has said something that nobody has heard.
    pub fn anything_said(&self) -> bool {
        self.workers.values().any(|worker| !worker.reports.is_empty())
    }

    /// The supervisor writes an order into a worker's pipe.
    pub fn order(&mut self, row: u16, order: Order) {
        let Some(worker) = self.workers.get_mut(&row) else { return };
        worker.orders.push_back(order);
        match worker.phase {
            Phase::Resting => {
                let wake_ns = self.while_ns();
                self.plan_step(row, wake_ns);
            }
            Phase::Running if !worker.hung => self.heed(row),
            Phase::Booting | Phase::Looking | Phase::Claimed | Phase::Running | Phase::Ended(_) | Phase::Dead => {}
        }
    }

    /// Workers that wait or run beat all the time; here they do when somebody looks.
    pub fn beat(&mut self) {
        for worker in self.workers.values().filter(|worker| !worker.hung) {
            match worker.phase {
                Phase::Running => worker.claimer.beat(self.now_ns - MS),
                // Who was rung and has not looked yet has not beaten since.
                Phase::Resting if worker.orders.is_empty() => worker.claimer.beat(self.now_ns - MS),
                Phase::Resting | Phase::Booting | Phase::Looking | Phase::Claimed | Phase::Ended(_) | Phase::Dead => {}
            }
        }
    }

    /// A worker goes on with its life; true if it has said something.
    pub fn step(&mut self, row: u16, birth: u64, plan: u64) -> bool {
        let sudden = self.unlucky && self.temper.sudden > 0 && self.rng.below(100_000) < self.temper.sudden;
        let now_ns = self.now_ns;
        let Some(worker) = self.workers.get_mut(&row).filter(|w| w.birth == birth && w.plan == plan && !w.hung) else {
            return false;
        };
        if sudden {
            self.die(row);
            return false;
        }
        match std::mem::replace(&mut worker.phase, Phase::Looking) {
            Phase::Dead => {
                worker.phase = Phase::Dead;
                false
            }
            Phase::Booting if worker.stillborn => {
                worker.reports.push(Report::BootFailed { why: "stillborn".to_owned() });
                self.die(row);
                true
            }
            Phase::Booting => {
                worker.claimer.beat(now_ns);
                worker.reports.push(Report::Ready);
                let next_ns = self.while_ns();
                self.plan_step(row, next_ns);
                true
            }
            Phase::Looking | Phase::Resting => self.look(row),
            Phase::Claimed => {
                worker.phase = Phase::Running;
                self.run(row)
            }
            Phase::Running => {
                self.end(row);
                false
            }
            Phase::Ended(finished) => {
                if finished.verdict.is_success() {
                    self.witness.succeeded(finished.id.seq(), finished.attempt);
                }
                worker.reports.push(Report::Finished(finished));
                worker.claimer.holds(None);
                worker.task = None;
                let next_ns = self.rng.between(US, 30 * US);
                self.plan_step(row, next_ns);
                true
            }
        }
    }

    /// Between tasks: takes orders, then a task, or a rest.
    fn look(&mut self, row: u16) -> bool {
        let now_ns = self.now_ns;
        let Some(worker) = self.workers.get_mut(&row) else { return false };
        // Whatever else was ordered came too late.
        worker.stopping |= worker.orders.drain(..).any(|order| order == Order::Stop);
        if worker.stopping {
            worker.claimer.set_state(WorkerState::Stopping);
            worker.reports.push(Report::Leaving);
            worker.left = true;
            self.die(row);
            return true;
        }
        let Some(ticket) = worker.claimer.claim(&mut self.payload) else {
            self.rest(row);
            return false;
        };
        worker.claimer.set_state(WorkerState::Busy);
        worker.claimer.beat(now_ns);
        worker.backoff_ms = 0;
        worker.phase = Phase::Claimed;
        match read_assignment(&self.payload) {
            Some((id, attempt)) => {
                worker.task = Some((id, ticket, attempt));
                let (hands, mode) = ((row, worker.birth), worker.mode);
                let now_us = self.now_us();
                let claimed = self.witness.claimed(id, attempt, (hands, mode), now_us);
                self.check(claimed);
            }
            None => self.check(Err("an assignment cannot be read".to_owned())),
        }
        let next_ns = self.rng.between(US, 50 * US);
        self.plan_step(row, next_ns);
        false
    }

    fn rest(&mut self, row: u16) {
        let now_ns = self.now_ns;
        let Some(worker) = self.workers.get_mut(&row) else { return };
        worker.claimer.set_state(WorkerState::Idle);
        if worker.claimer.anything_ready() {
            return self.plan_step(row, US);
        }
        worker.phase = Phase::Resting;
        worker.backoff_ms = if worker.backoff_ms == 0 { 1_000 } else { (worker.backoff_ms * 2).min(30_000) };
        worker.claimer.beat(now_ns);
        let nap_ns = worker.backoff_ms * MS;
        self.plan_step(row, nap_ns);
    }

    /// Starts its task, which does what the seed says.
    fn run(&mut self, row: u16) -> bool {
        let (seed, poison, now_us) = (self.seed, self.temper.poison, self.now_us());
        let now_ns = self.now_ns;
        let Some(worker) = self.workers.get_mut(&row) else { return false };
        let Some((id, ticket, attempt)) = worker.task else { return false };
        worker.started_ns = now_ns;
        worker.ended_by = None;
        let mut fate = Rng::of(&[seed, 3, id.seq(), u64::from(attempt)]);
        let last_ns = match fate.below(100) {
            0..=69 => fate.below(3 * MS),
            70..=94 => fate.below(60 * MS),
            _ => fate.below(2_000 * MS),
        };
        let long = last_ns > MOMENT_NS;
        if long {
            let at_us = now_us as i64;
            worker.reports.push(Report::Started { ticket, id, pid: 1, claimed_us: at_us, at_us });
        }
        // Some tasks always take their worker with them, and some only now and then.
        let mut kind = Rng::of(&[seed, 4, id.seq()]);
        if kind.per_mille(poison) && (kind.per_mille(500) || fate.per_mille(400)) {
            self.die(row);
            return long;
        }
        self.plan_step(row, last_ns);
        self.heed(row);
        long
    }

    /// A running task's worker reads its orders.
    fn heed(&mut self, row: u16) {
        let Some(worker) = self.workers.get_mut(&row) else { return };
        let Some((_, ticket, _)) = worker.task else { return };
        let mut ends = false;
        for order in worker.orders.drain(..) {
            match &order {
                Order::Stop => worker.stopping = true,
                Order::Cancel { ticket: of, .. } | Order::GiveBack { ticket: of, .. } if *of == ticket => {
                    ends |= worker.ended_by.is_none();
                    worker.ended_by.get_or_insert(order);
                }
                // What is not simulated: suspension, pings, checkpoints.
                Order::Wake
                | Order::Configure(_)
                | Order::Cancel { .. }
                | Order::GiveBack { .. }
                | Order::Suspend { .. }
                | Order::Resume { .. }
                | Order::Ping { .. }
                | Order::Chore(_) => {}
            }
        }
        if ends {
            let grace_ns = self.rng.below(100 * MS);
            self.plan_step(row, grace_ns);
        }
    }

    /// The task is over, and all of its processes are gone.
    fn end(&mut self, row: u16) {
        let now_us = self.now_us() as i64;
        let seed = self.seed;
        let Some(worker) = self.workers.get_mut(&row) else { return };
        let Some((id, ticket, attempt)) = worker.task else { return };
        let (verdict, given_back) = match worker.ended_by.take() {
            Some(Order::GiveBack { .. }) => (Verdict::Cancelled, true),
            Some(_) => (Verdict::Cancelled, false),
            None => (fated(seed, id.seq(), attempt), false),
        };
        let started_us = (EPOCH_US + (worker.started_ns - BOOT_NS) / US) as i64;
        let blank = ended_without_worker(id, ticket, attempt, started_us);
        let finished = Finished { verdict, given_back, finished_us: now_us, ..blank };
        worker.phase = Phase::Ended(Box::new(finished));
        let hands = (row, worker.birth);
        self.witness.let_go(id.seq(), hands);
        let next_ns = self.rng.between(US, 50 * US);
        self.plan_step(row, next_ns);
    }
}

/// How an attempt ends that is left to itself.
fn fated(seed: u64, seq: u64, attempt: u32) -> Verdict {
    let mut kind = Rng::of(&[seed, 5, seq]);
    let mut fate = Rng::of(&[seed, 6, seq, u64::from(attempt)]);
    match kind.below(100) {
        0..=4 => Verdict::Exited { code: 1 },
        5..=12 if fate.per_mille(500) => Verdict::Exited { code: 2 },
        13 | 14 => Verdict::TimedOut,
        15 => Verdict::Signalled { signal: 11, core_dumped: false },
        16 => Verdict::OutOfMemory,
        17 => Verdict::NotStarted { why: "no such program".to_owned(), errno: Some(2) },
        18 if fate.per_mille(500) => Verdict::EngineFailed { why: "no engine".to_owned() },
        _ => Verdict::Exited { code: 0 },
    }
}

/// Task and attempt of an assignment. The form is what `fill` writes; a real worker's JSON parser is not what is tested.
fn read_assignment(payload: &[u8]) -> Option<(TaskId, u32)> {
    let text = std::str::from_utf8(payload).ok()?;
    let id = text.get(7..33)?.parse().ok()?;
    let rest = text.get(33..)?.strip_prefix(r#"","attempt":"#)?;
    let attempt = rest.split(',').next()?.parse().ok()?;
    Some((id, attempt))
}
