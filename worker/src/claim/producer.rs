//! The supervisor's handle of the table: publishes tasks, takes them back, frees their slots, reads the rows.
//!
//! There is one per table, and it is the only one to make slots ready or free. What it has published it knows from
//! ordinary memory, so nothing that a worker writes can make it free a slot twice, and no scan touches pages that
//! were never used. Deliberately absent: what to do with a dead worker's task; that is the supervisor's decision.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::Region;
use super::lane::{LANES, Lane};
use super::row::{Row, RowSnapshot};
use super::slot::PAYLOAD_MAX;
use super::word::{NOBODY, Ticket, next_generation};
use crate::task::WorkerId;

/// Why a task cannot be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Every slot holds a task that is ready or running.
    #[error("all slots are taken")]
    Slots,
    /// The lane's ring has no position left between its oldest ready task and its end. Claiming or retracting that
    /// oldest task makes room; [`Producer::retract_lane`] always does.
    #[error("the lane is full")]
    Lane,
    /// The payload is longer than [`PAYLOAD_MAX`]; it belongs into a file.
    #[error("payload of {0} bytes is too long for a slot")]
    Payload(usize),
}

/// The table has no such worker row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the claim table has no row {0}")]
pub struct NoSuchRow(pub u16);

/// What the producer knows of a slot.
#[derive(Clone, Copy, Default)]
struct Record {
    /// The slot's latest generation; zero before its first.
    generation: u64,
    /// Where it was published, until it is freed.
    place: Option<(Lane, u64)>,
}

/// The producer's own end of a lane.
#[derive(Default)]
struct Own {
    /// The next position to fill. The shared tail is only ever written from this.
    tail: u64,
    /// Retracted positions that the head has not passed, the oldest on top; so never more than the ring has.
    retracted: BinaryHeap<Reverse<u64>>,
}

/// The supervisor's handle of the table.
pub struct Producer {
    region: Arc<Region>,
    /// Slots that were ever used; those after them have never been touched.
    records: Vec<Record>,
    /// Slots that were used and are free. The last one freed is taken first: its page is warm.
    free: Vec<u32>,
    lanes: [Own; LANES],
}

impl Producer {
    /// The producer of a table that is still empty. There must be only one for each table.
    pub fn new(region: Arc<Region>) -> Self {
        Self { region, records: Vec::new(), free: Vec::new(), lanes: std::array::from_fn(|_| Own::default()) }
    }

    /// Makes a task ready at the end of a lane. The cost is bounded by the payload, whatever the table's size.
    ///
    /// # Errors
    /// There is no room; nothing was changed.
    pub fn publish(&mut self, lane: Lane, payload: &[u8]) -> Result<Ticket, Full> {
        if payload.len() > PAYLOAD_MAX {
            return Err(Full::Payload(payload.len()));
        }
        let table = self.region.table();
        let (ring, own) = (table.ring(lane), &mut self.lanes[lane.index()]);
        if !ring.has_room(own.tail) {
            return Err(Full::Lane);
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.records.len() < table.slots.len() => {
                self.records.push(Record::default());
                (self.records.len() - 1) as u32
            }
            None => return Err(Full::Slots),
        };
        let record = &mut self.records[index as usize];
        let ticket = Ticket { slot: index, generation: next_generation(record.generation) };
        *record = Record { generation: ticket.generation, place: Some((lane, own.tail)) };
        table.slots[index as usize].fill(ticket.generation, payload);
        ring.append(own.tail, ticket);
        own.tail += 1;
        Ok(ticket)
    }

    /// Takes a published task back and frees its slot. False if a worker has claimed it, or the ticket is stale.
    pub fn retract(&mut self, ticket: Ticket) -> bool {
        let Some((lane, position)) = self.place(ticket) else { return false };
        if !self.region.table().slots[ticket.slot as usize].retract(ticket.generation) {
            return false;
        }
        self.forget(ticket);
        self.lanes[lane.index()].retracted.push(Reverse(position));
        self.prune(lane);
        true
    }

    /// Takes back all that is ready in a lane, and makes its whole ring available. The tickets, no longer valid, are
    /// returned in the order of publication. It works from the newest to the oldest, so that workers which claim
    /// meanwhile still get the oldest first. The cost is the lane's capacity.
    pub fn retract_lane(&mut self, lane: Lane) -> Vec<Ticket> {
        let tail = self.lanes[lane.index()].tail;
        let head = self.region.table().ring(lane).head(tail);
        let mut taken = Vec::new();
        for position in (head..tail).rev() {
            if let Some(ticket) = self.region.table().ring(lane).ticket(position)
                && self.place(ticket) == Some((lane, position))
                && self.retract(ticket)
            {
                taken.push(ticket);
            }
        }
        // All of it is dead now, so the look for a ready task moves the head to the tail.
        self.region.table().ring(lane).any_ready();
        self.prune(lane);
        taken.reverse();
        taken
    }

    /// Frees the slot of a claimed task, once its verdict is committed or its worker's death dealt with. False if the
    /// ticket is stale or the task is not claimed.
    pub fn release(&mut self, ticket: Ticket) -> bool {
        let released =
            self.place(ticket).is_some() && self.region.table().slots[ticket.slot as usize].release(ticket.generation);
        if released {
            self.forget(ticket);
        }
        released
    }

    /// All tasks that the worker with this row has claimed. The worker must be dead and reaped, and its reports read.
    /// The slots stay claimed, by nobody, until they are released; so the row may be cleared and used again at once,
    /// and a second call finds nothing. The cost is the number of slots ever used at once.
    pub fn reclaim(&mut self, row: u16) -> Vec<Ticket> {
        let slots = self.region.table().slots;
        let published = self.records.iter().zip(slots).enumerate().filter(|(_, (record, _))| record.place.is_some());
        published
            .filter(|(_, (record, slot))| slot.orphan(record.generation, row))
            .map(|(index, (record, _))| Ticket { slot: index as u32, generation: record.generation })
            .collect()
    }

    /// Who has claimed the task: a worker's row, or [`NOBODY`] after [`Producer::reclaim`]. Nothing if it is
    /// still ready or the ticket is stale.
    pub fn holder(&self, ticket: Ticket) -> Option<u16> {
        self.place(ticket)?;
        self.region.table().slots[ticket.slot as usize].claimed_by(ticket.generation)
    }

    /// How many tasks wait in a lane: exact when no claim is under way, otherwise a little too high at most.
    pub fn ready_in(&mut self, lane: Lane) -> usize {
        // The hint may lag; the look for a ready task moves it. Claims come in order, so behind the oldest ready task only
        // retracted ones are dead.
        self.region.table().ring(lane).any_ready();
        let head = self.prune(lane);
        let own = &self.lanes[lane.index()];
        ((own.tail - head) as usize).saturating_sub(own.retracted.len())
    }

    /// How many tasks wait in all lanes, as [`Producer::ready_in`] counts.
    pub fn total_ready(&mut self) -> usize {
        Lane::all().map(|lane| self.ready_in(lane)).sum()
    }

    /// How many slots are free.
    pub fn free_slots(&self) -> usize {
        self.region.geometry().slots as usize - self.records.len() + self.free.len()
    }

    /// Enters a worker into an empty row: its id, process id, and process start time in clock ticks since boot. The
    /// worker may be running already; a state that it has set is kept.
    ///
    /// # Errors
    /// The table has no such row.
    pub fn register(&mut self, row: u16, id: WorkerId, pid: u32, start: u64) -> Result<(), NoSuchRow> {
        self.shared(row)?.register(id, pid, start);
        Ok(())
    }

    /// Empties the row of a worker that is gone, after [`Producer::reclaim`].
    ///
    /// # Errors
    /// The table has no such row.
    pub fn clear(&mut self, row: u16) -> Result<(), NoSuchRow> {
        self.shared(row)?.clear();
        Ok(())
    }

    /// What a row says; nothing if nobody is registered in it. If it says that the worker was not idle when a task had
    /// been published, the worker sees that task before it sleeps.
    pub fn row(&self, row: u16) -> Option<RowSnapshot> {
        self.shared(row).ok()?.snapshot()
    }

    /// All rows in which somebody is registered, with their numbers.
    pub fn rows(&self) -> impl Iterator<Item = (u16, RowSnapshot)> + '_ {
        (0..self.region.geometry().workers).filter_map(|row| Some((row, self.row(row)?)))
    }

    /// The table's memory, for its descriptor.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    fn shared(&self, row: u16) -> Result<&Row, NoSuchRow> {
        debug_assert_ne!(self.region.table().rows.len(), usize::from(NOBODY));
        self.region.table().rows.get(usize::from(row)).ok_or(NoSuchRow(row))
    }

    /// Where a ticket's task was published, unless it is stale. Tickets come from peers: the slot may be any number.
    fn place(&self, ticket: Ticket) -> Option<(Lane, u64)> {
        let record = self.records.get(ticket.slot as usize)?;
        if record.generation == ticket.generation { record.place } else { None }
    }

    fn forget(&mut self, ticket: Ticket) {
        self.records[ticket.slot as usize].place = None;
        self.free.push(ticket.slot);
    }

    /// Forgets retracted positions that the head has passed; returns the head.
    fn prune(&mut self, lane: Lane) -> u64 {
        let own = &mut self.lanes[lane.index()];
        let head = self.region.table().ring(lane).head(own.tail);
        while own.retracted.peek().is_some_and(|Reverse(position)| *position < head) {
            own.retracted.pop();
        }
        head
    }
}
