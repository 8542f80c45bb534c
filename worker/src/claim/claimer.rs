//! The worker's handle of the table: claims tasks and keeps the worker's own row.
//!
//! Deliberately absent: any way to free a slot or to give a task back. A worker reports, and the supervisor frees; so
//! a worker that dies at any instruction leaves nothing half done.

use std::cell::Cell;
use std::sync::Arc;

use super::Region;
use super::lane::Lane;
use super::producer::NoSuchRow;
use super::row::{Row, WorkerState};
use super::word::Ticket;
use crate::task::{Class, Priority, WorkerId};

/// A worker's handle of the table. One process has one; it can be moved between threads, not shared.
pub struct Claimer {
    region: Arc<Region>,
    row: u16,
    /// Which classes the worker may take, by class number.
    takes: [bool; Class::ALL.len()],
    /// The class to begin with, per priority.
    turns: [Cell<usize>; Priority::ALL.len()],
}

/// A worker's heartbeat in the hands of another thread.
pub struct Pulse {
    region: Arc<Region>,
    row: u16,
}

impl Pulse {
    /// Stamps the worker's heartbeat: nanoseconds of the monotonic clock.
    pub fn beat(&self, now_ns: u64) {
        // The claimer that it comes from has checked the row.
        self.region.table().rows[usize::from(self.row)].beat(now_ns);
    }
}

impl Claimer {
    /// The claimer of the worker with this row, for tasks of these classes.
    ///
    /// # Errors
    /// The table has no such row.
    pub fn new(region: Arc<Region>, row: u16, classes: &[Class]) -> Result<Self, NoSuchRow> {
        if row >= region.geometry().workers {
            return Err(NoSuchRow(row));
        }
        let takes = Class::ALL.map(|class| classes.contains(&class));
        Ok(Self { region, row, takes, turns: Default::default() })
    }

    /// Takes tasks of these classes only, from now on.
    pub fn take_only(&mut self, classes: &[Class]) {
        self.takes = Class::ALL.map(|class| classes.contains(&class));
    }

    /// The workers that there are now, by the rows of the table. One that is not among them is dead, with all of its
    /// processes.
    pub fn workers(&self) -> Vec<WorkerId> {
        self.region.table().rows.iter().filter_map(|row| Some(row.snapshot()?.id)).collect()
    }

    /// Whether the supervisor has written down who we are. Until then nobody can find us in the table.
    pub fn is_registered(&self) -> bool {
        self.shared().snapshot().is_some()
    }

    /// Claims the most urgent task that this worker may take and copies its payload. The order between lanes: all
    /// classes of a priority before any of the next; within a priority the classes take turns, beginning with the one
    /// that follows the class last claimed from, so none can starve another. Within a lane, first in, first out.
    ///
    /// `payload` is overwritten when a task is claimed and keeps its capacity, so that claims need no memory.
    pub fn claim(&self, payload: &mut Vec<u8>) -> Option<Ticket> {
        let ticket = self.first(|lane| self.region.table().ring(lane).claim(self.row))?;
        // The ticket came through a ring that has checked its slot's number.
        self.region.table().slots[ticket.slot as usize].read(payload);
        self.shared().count_claim();
        Some(ticket)
    }

    /// Claims as if killed by the instruction after the compare-and-swap: for the proof only.
    #[cfg(feature = "loom")]
    pub fn claim_and_vanish(&self) -> Option<Ticket> {
        self.first(|lane| self.region.table().ring(lane).claim_and_vanish(self.row))
    }

    /// Whether there is a task that this worker may take. To be asked after saying [`WorkerState::Idle`] and before
    /// sleeping: then either this sees a task, or the supervisor that published it sees an idle worker to wake.
    pub fn anything_ready(&self) -> bool {
        let ready = |lane| self.region.table().ring(lane).any_ready();
        Lane::all().any(|lane| self.takes[lane.class as usize] && ready(lane))
    }

    /// Says what the worker is doing.
    pub fn set_state(&self, state: WorkerState) {
        self.shared().set_state(state);
    }

    /// Says which task the worker holds. The truth is in the task's slot; this is for those who watch.
    pub fn holds(&self, ticket: Option<Ticket>) {
        self.shared().set_held(ticket);
    }

    /// Stamps the worker's heartbeat: nanoseconds of the monotonic clock.
    pub fn beat(&self, now_ns: u64) {
        self.shared().beat(now_ns);
    }

    /// The means to stamp the heartbeat elsewhere than here.
    pub fn pulse(&self) -> Pulse {
        Pulse { region: Arc::clone(&self.region), row: self.row }
    }

    /// Says what the running task uses: CPU time so far in microseconds, memory now in bytes, processes and threads now.
    /// All zero when none runs.
    pub fn uses(&self, cpu_us: u64, memory_bytes: u64, pids: u64) {
        self.shared().set_live(cpu_us, memory_bytes, pids);
    }

    /// Says how many bytes the running task's scratch directory takes; 0 when none runs.
    pub fn uses_disk(&self, bytes: u64) {
        self.shared().set_live_disk(bytes);
    }

    /// The worker's row number.
    pub fn row(&self) -> u16 {
        self.row
    }

    /// What `claim` finds in the first lane where it finds anything, in the order that [`Claimer::claim`] documents.
    fn first(&self, claim: impl Fn(Lane) -> Option<Ticket>) -> Option<Ticket> {
        for priority in Priority::ALL {
            let turn = &self.turns[priority as usize];
            for step in 0..Class::ALL.len() {
                let number = (turn.get() + step) % Class::ALL.len();
                if !self.takes[number] {
                    continue;
                }
                if let Some(ticket) = claim(Lane { priority, class: Class::ALL[number] }) {
                    turn.set(number + 1);
                    return Some(ticket);
                }
            }
        }
        None
    }

    fn shared(&self) -> &Row {
        // The constructor has checked the row.
        &self.region.table().rows[usize::from(self.row)]
    }
}
