//! What is on the desk: the tasks that are published in the claim table or held by a worker, and how far the queue has
//! been read.
//!
//! A cache over the queue, bounded by the table's slots: whatever is lost with it is pending in the queue. Deliberately
//! absent: I/O.

use std::collections::HashMap;
use std::path::PathBuf;

use acode_worker::claim::{LANES, Lane, Ticket};
use acode_worker::task::{Class, TaskId};
use acode_worker::wire::Progress;

/// How many tasks are published ahead in one lane. Half of them keep the workers busy while the supervisor waits for a
/// slow disk, or for a processor: 60 ms at 4,000 tasks a second.
pub const WINDOW: usize = 512;
/// The most tasks that are read from the queue at once.
pub const FETCH: usize = 256;

/// Where a task on the desk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In a lane, or claimed by a worker that has not said so yet.
    Published,
    /// Its process runs.
    Running {
        /// In which worker.
        row: u16,
        /// Since when, in microseconds of Unix time.
        started_us: u64,
    },
    /// It has ended, and the end is not committed yet.
    Ended,
}

/// One task on the desk.
#[derive(Debug, Clone)]
pub struct Active {
    /// Which.
    pub id: TaskId,
    /// Its slot.
    pub ticket: Ticket,
    /// The number of this attempt.
    pub attempt: u32,
    /// Attempts that failed before.
    pub failures: u32,
    /// Workers lost before.
    pub losses: u32,
    /// Attempts before that ran out of memory.
    pub ooms: u32,
    /// Since when it is suspended, in microseconds of Unix time.
    pub suspended_us: Option<u64>,
    /// It did not start within so many milliseconds, and is being ended for that.
    pub overdue_ms: Option<u64>,
    /// Whether whoever cancelled it left it no grace.
    pub cancel_now: bool,
    /// The row of the worker that is to remove its checkpoint directory when its end is on disk.
    pub discard_by: Option<u16>,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// What it says about itself.
    pub progress: Option<Progress>,
    /// The file that holds its assignment, if the slot was too small.
    pub spilled: Option<PathBuf>,
}

/// How far a lane's part of the queue has been read.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Everything up to this number has been seen.
    read_to: u64,
    /// Nothing was found beyond.
    exhausted: bool,
}

/// The desk.
#[derive(Debug, Default)]
pub struct Desk {
    active: HashMap<u64, Active>,
    marks: [Mark; LANES],
}

impl Desk {
    /// The task with this number, if it is on the desk.
    pub fn get(&self, seq: u64) -> Option<&Active> {
        self.active.get(&seq)
    }

    /// The task with this number, if it is on the desk.
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Active> {
        self.active.get_mut(&seq)
    }

    /// The task of this report, unless the report is about an older claim.
    pub fn current(&mut self, id: TaskId, ticket: Ticket) -> Option<&mut Active> {
        self.active.get_mut(&id.seq()).filter(|active| active.id == id && active.ticket == ticket)
    }

    /// The task in this slot.
    pub fn by_ticket(&self, ticket: Ticket) -> Option<&Active> {
        self.active.values().find(|active| active.ticket == ticket)
    }

    /// All tasks on the desk.
    pub fn iter(&self) -> impl Iterator<Item = &Active> {
        self.active.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Puts a task on the desk.
    pub fn put(&mut self, active: Active) {
        self.active.insert(active.id.seq(), active);
    }

    /// Takes a task off the desk.
    pub fn take(&mut self, seq: u64) -> Option<Active> {
        self.active.remove(&seq)
    }

    /// Where to go on reading a lane's part of the queue; `None` if there is nothing more.
    pub fn read_from(&self, lane: Lane) -> Option<u64> {
        let mark = self.marks[lane.index()];
        (!mark.exhausted).then_some(mark.read_to)
    }

    /// Notes how far a lane's part has been read, and whether that was all.
    pub fn has_read(&mut self, lane: Lane, to: u64, exhausted: bool) {
        self.marks[lane.index()] = Mark { read_to: to, exhausted };
    }

    /// Notes that a task has become ready in this lane, so that it will be read.
    pub fn expect(&mut self, lane: Lane, seq: u64) {
        let mark = &mut self.marks[lane.index()];
        mark.exhausted = false;
        mark.read_to = mark.read_to.min(seq.saturating_sub(1));
    }
}

/// The lanes that workers of process mode serve, most urgent first.
pub fn served() -> impl Iterator<Item = Lane> {
    Lane::all().filter(|lane| match lane.class {
        Class::Any | Class::Process => true,
        Class::Docker => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use acode_worker::task::Priority;

    #[test]
    fn a_lane_is_read_on_from_where_something_became_ready() {
        let lane = Lane { class: Class::Any, priority: Priority::Normal };
        let mut desk = Desk::default();
        desk.has_read(lane, 90, true);
        assert_eq!(desk.read_from(lane), None);
        desk.expect(lane, 100);
        assert_eq!(desk.read_from(lane), Some(90));
        desk.expect(lane, 20);
        assert_eq!(desk.read_from(lane), Some(19));
    }
}
