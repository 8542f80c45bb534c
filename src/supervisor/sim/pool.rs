//! The simulated supervisor: the real desk, filling, fleet, judge, ledger and producer, with simulated hands.
//!
//! It has the turns of `reactor`, in their order, and calls the same functions; what is written here a second time is
//! only what holds them together, and each function names the one that it stands for. Deliberately absent: sockets,
//! pipes, processes, streams, and pruning.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use acode_worker::claim::{Geometry, Lane, Producer, Region, Ticket};
use acode_worker::task::{Class, WorkerId};
use acode_worker::wire::{Order, Report, WorkerMode};

use super::Mutation;
use super::disk::Handle;
use super::rng::Rng;
use super::scene::{MS, Scene};
use super::script::CrashPoint;
use crate::config::{Config, Modes};
use crate::store::{Applied, Group, Op, Queue, StoreError, WorkerRecord};
use crate::supervisor::attempts::{self, Books, Reported};
use crate::supervisor::commit::next_try_ns;
use crate::supervisor::decide::{Action, Event, Fleet, Mode, Status};
use crate::supervisor::desk::{Desk, WINDOW};
use crate::supervisor::dispatch::{ready, to_wake};
use crate::supervisor::fill::{self, Filling};
use crate::supervisor::judge::Policy;
use crate::supervisor::ledger::{After, Ledger};
use crate::supervisor::metrics::Registry;
use crate::supervisor::modes::born_as;
use crate::supervisor::settings;

/// How many rows the table has, and so the most workers.
pub const ROWS: u16 = 16;
/// See `commit::WAKE_MAX`.
const WAKE_MAX: u32 = 1_000;
/// See `order::EXPIRE_MAX`.
const EXPIRE_MAX: usize = 1_000;
/// The longest between two looks at the heartbeats.
const TICK_NS: u64 = 500 * MS;

/// What the supervisor knows of a worker process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hand {
    id: WorkerId,
    pub(super) mode: WorkerMode,
    pub(super) rung_ns: u64,
    dead: bool,
    left: bool,
    tree_gone_ns: u64,
}

/// One supervisor's life.
pub struct Pool {
    pub(super) seed: u64,
    pub(super) store: Handle,
    pub(super) desk: Desk,
    pub(super) ledger: Ledger,
    pub(super) fleet: Fleet,
    pub(super) producer: Producer,
    pub(super) mutation: Mutation,
    pub(super) modes: Modes,
    policy: Policy,
    registry: Registry,
    pub(super) hands: BTreeMap<u16, Hand>,
    deaths: Vec<u16>,
    /// When to try the disk again, while it cannot be written.
    pub(super) broken: Option<u64>,
    next_wake_us: Option<u64>,
    next_expiry_us: Option<u64>,
    next_tick_ns: u64,
    pub(super) crash: Option<CrashPoint>,
    /// It was killed in the middle of a turn.
    pub crashed: bool,
    announced_stop: bool,
    /// Workers kept dying before they were ready.
    pub gave_up: bool,
    /// Whether reports wake it.
    pub lingers: bool,
}

/// The pool's configuration: the defaults, with losses that are soon too many.
fn config() -> Config {
    let mut config = Config::default();
    config.workers.count = 4;
    config.tasks.retry.count = 1;
    config.tasks.retry.delay_ms = 100;
    config
}

impl Pool {
    /// A supervisor starts: see `recover::build`.
    ///
    /// # Errors
    /// The queue cannot be read or written yet.
    pub fn start(
        seed: u64,
        mut store: Handle,
        mutation: Mutation,
        modes: Modes,
        scene: &Scene,
    ) -> Result<Self, StoreError> {
        let config = config();
        crate::supervisor::recover::put_back_interrupted(&mut store, modes.default_mode(), scene.now_us())?;
        let slots = (acode_worker::claim::LANES * WINDOW + 4 * usize::from(ROWS)) as u32;
        let geometry = Geometry { workers: ROWS, slots, lane_capacity: (4 * WINDOW) as u32 };
        let region =
            Region::create(geometry).map_err(|source| StoreError::Open { path: "the claim table".into(), source })?;
        let target = config.workers.count as u16;
        let groups = store.groups()?;
        let mut pool = Self {
            seed,
            next_wake_us: store.next_delayed()?,
            next_expiry_us: store.next_expiry()?,
            store,
            desk: Desk::default(),
            ledger: Ledger::default(),
            fleet: Fleet::new(settings::rules(&config, ROWS), target, modes.clone(), scene.now_ns / MS),
            producer: Producer::new(Arc::new(region)),
            mutation,
            modes,
            policy: settings::policy(&config),
            registry: Registry::new(scene.now_ns),
            hands: BTreeMap::new(),
            deaths: Vec::new(),
            broken: None,
            next_tick_ns: 0,
            crash: None,
            crashed: false,
            announced_stop: false,
            gave_up: false,
            lingers: false,
        };
        pool.serve_classes(scene.now_ns);
        pool.follow_groups(&groups, scene.now_ns);
        pool.desk.expect_everything();
        Ok(pool)
    }

    /// See `order::follow_limits` and `order::follow_order`.
    fn follow_groups(&mut self, groups: &[Group], now_ns: u64) {
        for group in groups {
            let limit = group.max.filter(|_| self.mutation != Mutation::NoGroupLimits);
            self.desk.set_group(group.id, limit, group.held_us > 0);
            self.filling(now_ns).hold_back(group.id);
        }
    }

    /// See `order::expire_overdue`.
    fn expire_overdue(&mut self, scene: &mut Scene) {
        let now_us = scene.now_us();
        if self.broken.is_some() || self.next_expiry_us.is_none_or(|at| at > now_us) {
            return;
        }
        self.next_expiry_us = None;
        let Ok(due) = self.store.expired(now_us, EXPIRE_MAX) else { return self.store_failed(scene) };
        let keep = self.filling(scene.now_ns).take_back_all(due.iter().copied());
        if !due.is_empty() {
            self.record(scene, Op::Expire { due: due.into(), keep: keep.into_iter().collect(), at_us: now_us });
        }
    }

    /// One turn of `reactor::run`, from the poll's return to the next poll.
    pub fn turn(&mut self, scene: &mut Scene) {
        for row in std::mem::take(&mut self.deaths) {
            self.worker_died(scene, row);
        }
        for row in self.hands.keys().copied().collect::<Vec<_>>() {
            self.hear(scene, row);
        }
        self.keep_time(scene);
        let busy = self.workers_are_busy();
        if self.broken.is_none() && self.ledger.is_due(scene.now_ns, busy) {
            self.commit(scene);
        }
        if self.crashed {
            return;
        }
        self.dispatch(scene);
        self.lingers = !self.ledger.is_empty() && self.workers_are_busy() && self.broken.is_none();
    }

    /// See `reactor::timeout`.
    pub fn timeout_ns(&self, scene: &Scene) -> u64 {
        let now = scene.now_ns;
        let mut until = self.next_tick_ns.saturating_sub(now);
        if let Some(at_ms) = self.fleet.next_deadline_ms() {
            until = until.min((at_ms * MS).saturating_sub(now));
        }
        if self.hands.values().any(|hand| hand.dead) {
            until = until.min(2 * MS);
        }
        if self.broken.is_none()
            && let Some(due) = self.ledger.due_in(now)
        {
            until = until.min(due);
        }
        let writable = self.broken.is_none();
        if let Some(at_ns) = self.desk.next_sort_ns().filter(|_| writable && self.fleet.is_open()) {
            until = until.min(at_ns.saturating_sub(now));
        }
        if let Some(at_us) = self.next_wake_us.into_iter().chain(self.next_expiry_us).min().filter(|_| writable) {
            until = until.min(at_us.saturating_sub(scene.now_us()) * 1_000);
        }
        until.max(MS / 10)
    }

    /// Whether it has stopped, as `reactor::is_finished` has it.
    pub fn is_finished(&self) -> bool {
        let stopped = self.fleet.is_done() && self.hands.is_empty();
        stopped && (self.ledger.is_empty() || self.broken.is_some())
    }

    /// Whether it is on its way to a stop.
    pub fn is_stopping(&self) -> bool {
        self.fleet.mode() != Mode::Running
    }

    /// The pidfd of this row's worker has woken it.
    pub fn notices_death(&mut self, row: u16) {
        self.deaths.push(row);
    }

    /// Adds a change to the batch.
    pub(super) fn record(&mut self, scene: &Scene, op: Op) {
        self.ledger.add(op, scene.now_ns);
    }

    /// See `workers::decide`.
    pub fn decide(&mut self, scene: &mut Scene, event: Event) {
        let mut actions = Vec::new();
        self.fleet.decide(scene.now_ns / MS, event, &mut actions);
        for action in actions {
            match action {
                Action::Bear { row, mode } => self.bear(scene, row, born_as(&self.modes, mode)),
                Action::Dismiss { row } => scene.order(row, Order::Stop),
                Action::TakeBack { row, now } => {
                    for ticket in self.held_by(row) {
                        scene.order(row, Order::GiveBack { ticket, now });
                    }
                }
                Action::Kill { row, why } => {
                    let healthy = scene.workers.get(&row).is_some_and(|worker| !worker.hung);
                    if why == crate::supervisor::decide::KillReason::Silent && healthy && self.hands[&row].alive() {
                        scene.check(Err(format!("worker {row} is killed for its silence and was not silent")));
                    }
                    scene.die(row);
                }
                Action::Recycle { row, .. } => scene.order(row, Order::Stop),
                Action::GiveUp => self.gave_up = true,
            }
        }
        if self.is_stopping() && !self.announced_stop {
            self.begin_stop();
        }
    }

    fn bear(&mut self, scene: &mut Scene, row: u16, mode: WorkerMode) {
        let takes = |class: &Class| mode.takes(*class) || self.mutation == Mutation::AnyClass;
        let classes: Vec<Class> = Class::ALL.into_iter().filter(takes).collect();
        match scene.bear(row, mode, &classes, self.producer.region()) {
            Ok(id) => {
                let hand = Hand { id, mode, rung_ns: 0, dead: false, left: false, tree_gone_ns: 0 };
                if self.hands.insert(row, hand).is_some() {
                    scene.check(Err(format!("a worker is made in row {row}, where one is")));
                }
                let _ = self.producer.register(row, id, 1, 1);
                let record = WorkerRecord {
                    id,
                    slot: u32::from(row),
                    pid: 1,
                    start_ticks: 1,
                    boot_id: "simulated".to_owned(),
                    mode: mode.isolation.name().to_owned(),
                    started_us: scene.now_us(),
                    stopped_us: None,
                    completed: 0,
                    failed: 0,
                };
                self.record(scene, Op::WorkerStarted(Box::new(record)));
            }
            Err(why) => scene.check(Err(why)),
        }
    }

    /// See `workers::held_by`.
    fn held_by(&self, row: u16) -> Vec<Ticket> {
        let tickets = self.desk.iter().map(|active| active.ticket);
        let mut held: Vec<Ticket> = tickets.filter(|ticket| self.producer.holder(*ticket) == Some(row)).collect();
        held.sort_unstable_by_key(|ticket| ticket.slot);
        held
    }

    fn books(&mut self, scene: &Scene) -> Books<'_> {
        let registry = &mut self.registry;
        Books { desk: &mut self.desk, ledger: &mut self.ledger, registry, now_ns: scene.now_ns }
    }

    /// See `workers::hear` and `workers::follow`.
    fn hear(&mut self, scene: &mut Scene, row: u16) {
        let Some(id) = self.hands.get(&row).map(|hand| hand.id) else { return };
        for report in scene.hear(row) {
            match report {
                Report::Ready => self.decide(scene, Event::Ready { row }),
                Report::Started { ticket, id: task, claimed_us, at_us, .. } => {
                    let reported = self.books(scene).started((row, id), ticket, task, (claimed_us, at_us));
                    if matches!(reported, Reported::Present { cancelled: true, .. }) {
                        scene.order(row, Order::Cancel { ticket, now: false });
                    }
                }
                Report::Finished(finished) => {
                    self.books(scene).started_unsaid((row, id), &finished);
                    self.finished(scene, (row, id), *finished);
                }
                Report::BootFailed { .. }
                | Report::Starting { .. }
                | Report::Engine { .. }
                | Report::Pong { .. }
                | Report::Progress { .. }
                | Report::Unreadable { .. }
                | Report::Leaving => {}
            }
        }
    }

    /// See `workers::finished`.
    fn finished(&mut self, scene: &mut Scene, worker: (u16, WorkerId), finished: acode_worker::wire::Finished) {
        let (seq, attempt) = (finished.id.seq(), finished.attempt);
        let mut policy = self.policy;
        if !finished.verdict.is_success()
            && let Some(own) = self.store.get(finished.id).ok().flatten().and_then(|record| record.spec.retry)
        {
            policy = policy.of_task(&own);
        }
        let random = Rng::of(&[self.seed, 7, seq, u64::from(attempt)]).fraction();
        let reported = self.books(scene).finished(worker, finished, &policy, random);
        if self.mutation == Mutation::ReleaseBeforeCommit && matches!(reported, Reported::Present { .. }) {
            self.release(seq);
        }
    }

    /// See `workers::worker_died`.
    fn worker_died(&mut self, scene: &mut Scene, row: u16) {
        let left = scene.workers.get(&row).is_some_and(|worker| worker.left);
        let dies_ns = scene.rng.below(5 * MS);
        if let Some(hand) = self.hands.get_mut(&row) {
            (hand.dead, hand.left) = (true, left);
            hand.tree_gone_ns = scene.now_ns + if left { 0 } else { dies_ns };
        }
        self.bury_the_dead(scene);
    }

    /// See `workers::bury_the_dead`.
    fn bury_the_dead(&mut self, scene: &mut Scene) {
        let early = self.mutation == Mutation::BuryTheLiving;
        let ready = |hand: &Hand| hand.dead && (early || hand.tree_gone_ns <= scene.now_ns);
        let rows: Vec<u16> = self.hands.iter().filter(|(_, hand)| ready(hand)).map(|(row, _)| *row).collect();
        for row in rows {
            if !early {
                scene.tree_is_gone(row);
            }
            if self.mutation != Mutation::NoLastWords {
                self.hear(scene, row);
            }
            let ours = self.fleet.was_ours(row) || self.is_stopping();
            for ticket in self.producer.reclaim(row) {
                let now_us = scene.now_us() as i64;
                let lost = attempts::lost(&self.desk, &mut self.producer, ticket, ours, now_us);
                if let (Some(finished), Some(hand)) = (lost, self.hands.get(&row)) {
                    self.finished(scene, (row, hand.id), finished);
                }
            }
            let Some(hand) = self.hands.remove(&row) else { continue };
            scene.workers.remove(&row);
            let _ = self.producer.clear(row);
            let failure = (!hand.left && !ours).then(|| "killed".to_owned());
            let at_us = scene.now_us();
            self.record(scene, Op::WorkerStopped { id: hand.id, at_us, completed: 0, failed: 0, failure });
            self.decide(scene, Event::Gone { row });
        }
    }

    /// See `reactor::keep_time`.
    fn keep_time(&mut self, scene: &mut Scene) {
        if self.hands.values().any(|hand| hand.dead) {
            self.bury_the_dead(scene);
        }
        let deadline = self.fleet.next_deadline_ms().is_some_and(|at| scene.now_ns / MS >= at);
        if deadline || scene.now_ns >= self.next_tick_ns {
            self.tick(scene);
        }
        let now_us = scene.now_us();
        if self.next_wake_us.is_some_and(|at| at <= now_us) && self.broken.is_none() {
            self.next_wake_us = None;
            self.record(scene, Op::Wake { now_us, limit: WAKE_MAX });
        }
        self.expire_overdue(scene);
    }

    /// See `reactor::tick`.
    fn tick(&mut self, scene: &mut Scene) {
        self.next_tick_ns = scene.now_ns + TICK_NS;
        scene.beat();
        let rows = self.hands.keys().filter_map(|row| {
            let seen = self.producer.row(*row)?;
            Some((*row, seen.heartbeat_ns / MS, seen.state))
        });
        let rows = rows.collect();
        self.decide(scene, Event::Tick { rows });
        self.heal(scene);
    }

    /// See `dispatch::dispatch`.
    fn dispatch(&mut self, scene: &mut Scene) {
        if !self.fleet.is_open() || self.broken.is_some() {
            return;
        }
        match fill::fill(&mut self.filling(scene.now_ns)) {
            Ok(expansions) => expansions.into_iter().for_each(|op| self.record(scene, op)),
            Err(_) => return self.store_failed(scene),
        }
        self.check_filled(scene);
        let ready = ready(&mut self.producer);
        for row in to_wake(ready, &self.producer, &self.fleet, self.bells()) {
            if let Some(hand) = self.hands.get_mut(&row) {
                hand.rung_ns = scene.now_ns;
            }
            scene.order(row, Order::Wake);
        }
    }

    /// After a filling, the first task of each lane is published, unless it waits for its row, or behind others of its lane.
    fn check_filled(&mut self, scene: &mut Scene) {
        for lane in self.desk.served() {
            let first = scene.witness.first_in(lane);
            let visible = first.is_some_and(|seq| self.desk.get(seq).is_some());
            let room = self.producer.ready_in(lane) == 0;
            if first.is_some() && !visible && room && !self.desk.is_expanding(lane) {
                scene.check(Err(format!("task {first:?} of {lane:?} is first and is not published")));
            }
            scene.witness.filled(lane, visible);
        }
        let unserved = Lane::all().filter(|lane| !self.desk.serves().has(lane.class));
        unserved.for_each(|lane| scene.witness.filled(lane, false));
    }

    pub(super) fn filling(&mut self, now_ns: u64) -> Filling<'_> {
        Filling {
            desk: &mut self.desk,
            queue: &self.store,
            producer: &mut self.producer,
            spill: Path::new("/nonexistent"),
            jobserver: None,
            policy: &self.policy,
            workers: self.hands.len(),
            ahead: WINDOW,
            now_ns,
        }
    }

    /// See `commit::commit`.
    pub(super) fn commit(&mut self, scene: &mut Scene) {
        if self.broken.is_none() {
            self.write_batch(scene);
        }
    }

    /// See `commit::write_batch`.
    fn write_batch(&mut self, scene: &mut Scene) -> bool {
        if self.ledger.is_empty() || self.crashed {
            return true;
        }
        if self.crash == Some(CrashPoint::BeforeCommit) {
            self.crashed = true;
            return true;
        }
        match self.store.apply(self.ledger.ops()) {
            Ok(applied) => {
                if self.crash == Some(CrashPoint::AfterCommit) {
                    self.crashed = true;
                    return true;
                }
                self.desk.has_expanded();
                let afters = self.ledger.committed();
                self.follow_commit(scene, &applied, afters);
                true
            }
            Err(_) => {
                self.store_failed(scene);
                false
            }
        }
    }

    /// See `commit::follow_commit`.
    fn follow_commit(&mut self, scene: &mut Scene, applied: &Applied, afters: Vec<After>) {
        for after in afters {
            match after {
                After::Release { seq } => self.release(seq),
                After::Accepted { ids, .. } => {
                    let accepted = |id: &&_| !applied.rejected.iter().any(|(rejected, _)| rejected == *id);
                    for id in ids.iter().filter(accepted) {
                        let told = scene.witness.accepted(*id);
                        scene.check(told);
                    }
                }
                After::Cancelled { .. }
                | After::Retried { .. }
                | After::Paused { .. }
                | After::Told { .. }
                | After::Refused { .. } => {}
            }
        }
        self.follow_groups(&applied.groups, scene.now_ns);
        self.books(scene).committed(applied);
        self.next_wake_us = self.store.next_delayed().unwrap_or(None);
        self.next_expiry_us = self.store.next_expiry().unwrap_or(None);
        scene.witness.tells(&applied.ended);
    }

    /// See `commit::release`.
    fn release(&mut self, seq: u64) {
        if let Some(active) = self.desk.take(seq) {
            self.producer.release(active.ticket);
        }
    }

    /// See `commit::store_failed`.
    pub(super) fn store_failed(&mut self, scene: &Scene) {
        self.broken = Some(next_try_ns(self.broken, scene.now_ns));
        self.ledger.without_requests();
        self.desk.expect_everything();
    }

    /// See `commit::heal`.
    fn heal(&mut self, scene: &mut Scene) {
        if self.broken.is_none_or(|retry_ns| scene.now_ns < retry_ns) {
            return;
        }
        self.broken = Some(next_try_ns(None, scene.now_ns));
        if self.store.reopen().is_err() {
            return self.store_failed(scene);
        }
        if !self.write_batch(scene) {
            return;
        }
        let data = None;
        let kind = crate::store::EventKind::QueueHealed;
        self.record(scene, Op::PoolEvent { kind, at_us: scene.now_us(), data });
        if self.write_batch(scene) {
            self.broken = None;
        }
    }

    /// See `stop::begin_stop`.
    fn begin_stop(&mut self) {
        self.announced_stop = true;
        for lane in self.desk.served() {
            for ticket in self.producer.retract_lane(lane) {
                if let Some(seq) = self.desk.by_ticket(ticket).map(|active| active.id.seq()) {
                    self.desk.take(seq);
                }
            }
        }
    }

    /// What must hold after each turn, whatever happened.
    pub fn check(&self, scene: &mut Scene) {
        for (seq, attempt) in &scene.witness.unsettled {
            let held = self.desk.get(*seq).filter(|active| active.attempt == *attempt);
            if held.is_none_or(|active| self.producer.holder(active.ticket).is_none()) {
                let why = format!("the slot of attempt {attempt} of task {seq} was freed before its end was on disk");
                return scene.check(Err(why));
            }
        }
        let staying =
            |row: &u16| matches!(self.fleet.status(*row), Some(Status::Starting | Status::Idle | Status::Busy));
        let workers = self.hands.keys().filter(|row| staying(row)).count();
        if !self.is_stopping() && workers > usize::from(self.fleet.target()) {
            let why = format!("{workers} workers stay, {} are wanted", self.fleet.target());
            scene.check(Err(why));
        }
    }

    /// How it stands, for people.
    pub fn describe(&self) -> String {
        let (mode, target, workers) = (self.fleet.mode(), self.fleet.target(), self.hands.len());
        let (desk, batch, broken) = (self.desk.len(), self.ledger.ops().len(), self.broken);
        format!("{mode:?}, {workers} of {target} workers, {desk} tasks handed out, batch of {batch}, broken {broken:?}")
    }
}

impl Hand {
    fn alive(self) -> bool {
        !self.dead
    }
}
