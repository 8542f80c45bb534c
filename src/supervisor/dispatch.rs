//! The table's doorbells: the supervisor's side of filling the claim table.
//!
//! What is published, and in which order, is decided in `fill`. Deliberately absent: the claim itself, which is the
//! workers'.

use acode_worker::sys::clock;
use acode_worker::wire::Order;

use super::Supervisor;
use super::decide::Status;
use super::desk::WINDOW;
use super::fill::{self, Filling};

impl Supervisor {
    /// Publishes what is ready and not published yet, as far as there is room, and wakes as many idle workers.
    pub(super) fn dispatch(&mut self) {
        if !self.fleet.is_open() || self.broken.is_some() {
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
            workers: self.crew.iter().count(),
            now_ns: self.now_ns,
        }
    }

    /// Rings for as many idle workers as there are tasks without a worker on its way.
    fn ring(&mut self) {
        let mut wanted = self.producer.total_ready();
        if wanted == 0 {
            return;
        }
        let mut idle = Vec::new();
        for (row, hand) in self.crew.iter() {
            let Some(seen) = self.producer.row(row) else { continue };
            let may_claim = matches!(self.fleet.status(row), Some(Status::Idle | Status::Busy | Status::Starting));
            if seen.state != acode_worker::claim::WorkerState::Idle || !may_claim {
                continue;
            }
            if hand.rung_ns > seen.heartbeat_ns {
                // It was rung and has not looked yet: one task is as good as taken.
                wanted = wanted.saturating_sub(1);
            } else {
                idle.push(row);
            }
        }
        for row in idle.into_iter().take(wanted) {
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
