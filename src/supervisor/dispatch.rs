//! The table's doorbells: the supervisor's side of filling the claim table.
//!
//! What is published, and in which order, is decided in `fill`. Deliberately absent: the claim itself, which is the
//! workers'.

use acode_worker::claim::{Lane, Producer, WorkerState};
use acode_worker::sys::clock;
use acode_worker::wire::{Order, WorkerMode};

use super::Supervisor;
use super::decide::{Fleet, Status};
use super::desk::WINDOW;
use super::fill::{self, Filling};
use super::modes::{Down, Ready};

/// A worker, as far as the doorbells need it.
#[derive(Debug, Clone, Copy)]
pub struct Bell {
    /// Its row.
    pub row: u16,
    /// When it was woken last, in nanoseconds of the monotonic clock.
    pub rung_ns: u64,
    /// Of which kind it is.
    pub mode: WorkerMode,
    /// What it does instead, if it cannot use the engine.
    pub down: Option<Down>,
}

impl Supervisor {
    /// Publishes what is ready and not published yet, as far as there is room, and wakes as many idle workers.
    pub(super) fn dispatch(&mut self) {
        if !self.fleet.is_open() || self.broken.is_some() || !self.pauses.is_open() {
            return;
        }
        match fill::fill(&mut self.filling()) {
            Ok(expansions) => expansions.into_iter().for_each(|op| self.record(op)),
            Err(error) => return self.store_failed(&error),
        }
        self.ring();
    }

    /// All that filling the table takes.
    pub(super) fn filling(&mut self) -> Filling<'_> {
        Filling {
            desk: &mut self.desk,
            queue: &*self.store,
            producer: &mut self.producer,
            spill: &self.spill,
            jobserver: Some(&mut self.jobserver),
            policy: &self.policy,
            workers: self.crew.iter().count(),
            ahead: self.ledger.pace.ahead(),
            now_ns: self.now_ns,
        }
    }

    /// Rings for as many idle workers as there are tasks without a worker on its way.
    fn ring(&mut self) {
        let ready = ready(&mut self.producer);
        for row in to_wake(ready, &self.producer, &self.fleet, self.bells()) {
            // Noted before it is done: the worker may wake up, look, and sleep again before we get the processor back, and
            // would pass for one that has not looked yet, for which nobody rings, until its next heartbeat.
            if let Some(hand) = self.crew.get_mut(row) {
                hand.rung_ns = clock::monotonic_ns();
            }
            self.crew.order(row, &Order::Wake);
        }
    }

    /// All workers.
    fn bells(&self) -> impl Iterator<Item = Bell> + '_ {
        let bell = |(row, hand): (u16, &super::crew::Hand)| Bell {
            row,
            rung_ns: hand.rung_ns,
            mode: hand.mode,
            down: self.down_in(row),
        };
        self.crew.iter().map(bell)
    }

    /// Whether the workers find something to claim without us, for as long as a batch is kept open at the most.
    pub(super) fn workers_are_busy(&mut self) -> bool {
        let ready = ready(&mut self.producer);
        self.fleet.is_open() && are_busy(ready, self.desk.is_held_up(), self.bells())
    }
}

/// How many tasks lie ready in the table.
pub fn ready(producer: &mut Producer) -> Ready {
    let mut ready = Ready::default();
    for lane in Lane::all() {
        ready.0[lane.class as usize] += producer.ready_in(lane);
    }
    ready
}

/// Whether there is something for each of these workers, but those of a kind for which there is nothing at all: they wait
/// for a submission, and not for what others report.
pub fn are_busy(ready: Ready, held_up: bool, mut bells: impl Iterator<Item = Bell>) -> bool {
    // The end of a task may be what the next one of its group waits for: then only a long supply is a reason to wait.
    let enough = if held_up { WINDOW / 4 } else { 1 };
    let mut left = ready;
    let for_nobody = |bell: &Bell| ready.for_worker(bell.mode, bell.down) == 0;
    ready.total() >= enough && bells.all(|bell| for_nobody(&bell) || left.take(bell.mode, bell.down))
}

/// The idle workers that are to be woken for what is ready. `bells` are all workers.
pub fn to_wake(mut ready: Ready, producer: &Producer, fleet: &Fleet, bells: impl Iterator<Item = Bell>) -> Vec<u16> {
    let mut idle = Vec::new();
    if ready.total() == 0 {
        return Vec::new();
    }
    for bell in bells {
        let Some(seen) = producer.row(bell.row) else { continue };
        let may_claim = matches!(fleet.status(bell.row), Some(Status::Idle | Status::Busy | Status::Starting));
        if seen.state != WorkerState::Idle || !may_claim {
            continue;
        }
        if bell.rung_ns > seen.heartbeat_ns {
            // It was rung and has not looked yet: one task is as good as taken.
            ready.take(bell.mode, bell.down);
        } else {
            idle.push(bell);
        }
    }
    idle.retain(|bell| ready.take(bell.mode, bell.down));
    idle.into_iter().map(|bell| bell.row).collect()
}
