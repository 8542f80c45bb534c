//! The table's doorbells: the supervisor's side of filling the claim table.
//!
//! What is published, and in which order, is decided in `fill`. Deliberately absent: the claim itself, which is the
//! workers'.

use acode_worker::claim::{Producer, WorkerState};
use acode_worker::sys::clock;
use acode_worker::wire::Order;

use super::Supervisor;
use super::decide::{Fleet, Status};
use super::desk::WINDOW;
use super::fill::{self, Filling};

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
            now_ns: self.now_ns,
        }
    }

    /// Rings for as many idle workers as there are tasks without a worker on its way.
    fn ring(&mut self) {
        let hands = self.crew.iter().map(|(row, hand)| (row, hand.rung_ns));
        for row in to_wake(&mut self.producer, &self.fleet, hands) {
            // Noted before it is done: the worker may wake up, look, and sleep again before we get the processor back, and
            // would pass for one that has not looked yet, for which nobody rings, until its next heartbeat.
            if let Some(hand) = self.crew.get_mut(row) {
                hand.rung_ns = clock::monotonic_ns();
            }
            self.crew.order(row, &Order::Wake);
        }
    }

    /// Whether the workers find something to claim without us, for as long as a batch is kept open at the most.
    pub(super) fn workers_are_busy(&mut self) -> bool {
        // The end of a task may be what the next one of its group waits for: then only a long supply is a reason to wait.
        let enough = if self.desk.is_held_up() { WINDOW / 4 } else { self.crew_size() };
        self.fleet.is_open() && self.producer.total_ready() >= enough.max(self.crew_size())
    }

    fn crew_size(&self) -> usize {
        self.crew.iter().count()
    }
}

/// The idle workers that are to be woken for what is published. `hands` are all workers, each with when it was woken last.
pub fn to_wake(producer: &mut Producer, fleet: &Fleet, hands: impl Iterator<Item = (u16, u64)>) -> Vec<u16> {
    let mut wanted = producer.total_ready();
    let mut idle = Vec::new();
    if wanted == 0 {
        return idle;
    }
    for (row, rung_ns) in hands {
        let Some(seen) = producer.row(row) else { continue };
        let may_claim = matches!(fleet.status(row), Some(Status::Idle | Status::Busy | Status::Starting));
        if seen.state != WorkerState::Idle || !may_claim {
            continue;
        }
        if rung_ns > seen.heartbeat_ns {
            // It was rung and has not looked yet: one task is as good as taken.
            wanted = wanted.saturating_sub(1);
        } else {
            idle.push(row);
        }
    }
    idle.truncate(wanted);
    idle
}
