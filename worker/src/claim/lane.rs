//! Lanes: which tasks wait together, and the ring in which a lane keeps their order.
//!
//! A lane is a class and a priority. Its ring has one producer, the supervisor, and any number of claimers; inside a
//! lane claims are strictly first in, first out. Owned by the claim table. Deliberately absent: any step after the
//! compare-and-swap on the slot's word that a killed claimer could leave undone. `head` is a hint that says 'all
//! before this are gone'; it may lag, and whoever comes next helps it forward.
//!
//! Why the order is strict although nothing is locked. A claimer walks from `head` and passes a position only when
//! its publication is gone, so every position before the one that it claims is gone. The cell may have been
//! overwritten for a later lap while the claimer slept; the producer does that only after it has seen `head` beyond
//! the position, so a claimer that looks at `head` again after reading the cell finds out. What it read is then a
//! ticket, and a ticket names one publication for ever: if the ring laps the claimer after that look, the
//! compare-and-swap fails on the generation.

use super::atomic::{AtomicU64, Ordering};
use super::slot::Slot;
use super::word::Ticket;
use crate::task::{Class, Priority};

/// How many lanes there are: every class in every priority.
pub const LANES: usize = Class::ALL.len() * Priority::ALL.len();

/// How many dead positions the producer passes at most for one publication. One would do to make room; a few more
/// let it catch up with claimers that died before they helped.
const HELP_STEPS: u64 = 4;

/// Which tasks wait together in one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// How urgent they are.
    pub priority: Priority,
    /// Which workers may take them.
    pub class: Class,
}

impl Lane {
    /// The lane's index, `0..LANES`, most urgent first.
    pub fn index(self) -> usize {
        self.priority as usize * Class::ALL.len() + self.class as usize
    }

    /// All lanes by index.
    pub fn all() -> impl Iterator<Item = Self> {
        Priority::ALL.into_iter().flat_map(|priority| Class::ALL.into_iter().map(move |class| Self { priority, class }))
    }
}

/// A counter with two cache lines to itself: processors fetch lines in pairs.
#[repr(C, align(128))]
pub(super) struct Padded(AtomicU64);

/// The two ends of a lane in shared memory. Positions count for ever; 2^64 of them are not used up.
#[repr(C)]
pub(super) struct Ends {
    /// All positions before this one are claimed or withdrawn.
    head: Padded,
    /// The next position that the producer will fill.
    tail: Padded,
}

impl Ends {
    #[cfg(feature = "loom")]
    pub(super) fn zeroed() -> Self {
        Self { head: Padded(AtomicU64::new(0)), tail: Padded(AtomicU64::new(0)) }
    }
}

/// One lane with its cells, as a view of shared memory.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    ends: &'a Ends,
    /// One packed ticket per position; the length is a power of two.
    cells: &'a [AtomicU64],
    slots: &'a [Slot],
}

impl<'a> Ring<'a> {
    pub(super) fn new(ends: &'a Ends, cells: &'a [AtomicU64], slots: &'a [Slot]) -> Self {
        Self { ends, cells, slots }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.cells.len() as u64
    }

    fn cell(&self, position: u64) -> &'a AtomicU64 {
        &self.cells[(position & (self.capacity() - 1)) as usize]
    }

    /// Worker: claims the oldest ready task of the lane for `row`.
    pub(super) fn claim(&self, row: u16) -> Option<Ticket> {
        let mut walk = Walk::start(*self);
        while let Some((ticket, slot)) = walk.next_ready() {
            let won = slot.claim(ticket.generation, row);
            // Won or lost, the position is gone now, and the walk may pass it.
            walk.position += 1;
            if won {
                walk.help();
                return Some(ticket);
            }
        }
        None
    }

    /// Worker: the claim alone, as if the claimer were killed by the instruction after its compare-and-swap.
    #[cfg(feature = "loom")]
    pub(super) fn claim_and_vanish(&self, row: u16) -> Option<Ticket> {
        let mut walk = Walk::start(*self);
        while let Some((ticket, slot)) = walk.next_ready() {
            if slot.claim(ticket.generation, row) {
                return Some(ticket);
            }
            walk.position += 1;
        }
        None
    }

    /// Anybody: whether a task is ready, passing what is gone.
    pub(super) fn any_ready(&self) -> bool {
        Walk::start(*self).next_ready().is_some()
    }

    /// Supervisor: where the hint stands. A hint that a peer has spoilt, outside of what `tail` allows, is read as the
    /// oldest position possible, which makes the lane look full instead of being overwritten.
    pub(super) fn head(&self, tail: u64) -> u64 {
        // Acquire: partner is the Release in `Walk::help`.
        let head = self.ends.head.0.load(Ordering::Acquire);
        if tail.wrapping_sub(head) > self.capacity() { tail.saturating_sub(self.capacity()) } else { head }
    }

    /// Supervisor: whether position `tail` may be filled; passes a bounded number of dead positions to make room.
    pub(super) fn has_room(&self, tail: u64) -> bool {
        if tail - self.head(tail) < self.capacity() {
            return true;
        }
        let mut walk = Walk::start(*self);
        for _ in 0..HELP_STEPS {
            if !walk.pass_dead() {
                break;
            }
        }
        walk.help();
        tail - self.head(tail) < self.capacity()
    }

    /// Supervisor: appends a ticket whose slot is filled, at `tail`, which must have room.
    pub(super) fn append(&self, tail: u64, ticket: Ticket) {
        // Release: partner is the Acquire of the cell in `Walk`. Who reads the ticket sees its slot ready or later, and
        // sees `head` as far on as the producer saw it when it decided to overwrite the cell.
        self.cell(tail).store(ticket.pack(), Ordering::Release);
        // Release: partner is the Acquire of the tail in `Walk`. Who sees the position sees its cell.
        self.ends.tail.0.store(tail.wrapping_add(1), Ordering::Release);
    }

    /// Supervisor: the ticket that it stored at this position.
    pub(super) fn ticket(&self, position: u64) -> Option<Ticket> {
        Ticket::unpack(self.cell(position).load(Ordering::Relaxed))
    }
}

/// A walk from the head of a lane over publications that are gone, to the first that is ready.
struct Walk<'a> {
    ring: Ring<'a>,
    /// Where `head` stood when it was last read.
    seen: u64,
    /// All positions before this one are gone.
    position: u64,
    /// Steps left. Every step passes a dead position or follows a head that others moved, so this only runs out when a
    /// peer has spoilt the ends; the walk then finds nothing instead of going on for ever.
    budget: u64,
}

impl<'a> Walk<'a> {
    fn start(ring: Ring<'a>) -> Self {
        // Acquire: partner is the Release in `help`. Who advanced the head had seen a tail at least as far, so the tail
        // read after this is never behind it.
        let seen = ring.ends.head.0.load(Ordering::Acquire);
        Self { ring, seen, position: seen, budget: ring.capacity() * 4 + 64 }
    }

    /// The first ready publication at or after the walk's position. At the end of the lane the head is helped.
    fn next_ready(&mut self) -> Option<(Ticket, &'a Slot)> {
        while self.budget > 0 {
            self.budget -= 1;
            let Some(cell) = self.look() else { break };
            match cell {
                Cell::Ready(ticket, slot) => return Some((ticket, slot)),
                Cell::Dead => self.position += 1,
                Cell::Lapped(head) => (self.seen, self.position) = (head, head),
            }
        }
        self.help();
        None
    }

    /// Supervisor: passes the walk's position if it is dead.
    fn pass_dead(&mut self) -> bool {
        match self.look() {
            Some(Cell::Dead) => self.position += 1,
            Some(Cell::Lapped(head)) => (self.seen, self.position) = (head, head),
            Some(Cell::Ready(..)) | None => return false,
        }
        true
    }

    /// What stands at the walk's position; nothing at the tail.
    fn look(&self) -> Option<Cell<'a>> {
        let ring = &self.ring;
        // Acquire: partner is the Release of the tail in `append`.
        if ring.ends.tail.0.load(Ordering::Acquire) <= self.position {
            return None;
        }
        // Acquire: partner is the Release of the cell in `append`.
        let bits = ring.cell(self.position).load(Ordering::Acquire);
        // The second look. If the cell was overwritten, the Acquire above makes the head that allowed it visible here.
        // Acquire: partner is the Release in `help`, as in `start`, because the walk may go on from this head.
        let head = ring.ends.head.0.load(Ordering::Acquire);
        if head > self.position {
            return Some(Cell::Lapped(head));
        }
        let found = Ticket::unpack(bits).and_then(|t| Some((t, ring.slots.get(t.slot as usize)?)));
        Some(match found {
            Some((ticket, slot)) if slot.is_ready(ticket.generation) => Cell::Ready(ticket, slot),
            // A cell that a peer has spoilt names no slot; it can only be passed.
            Some(_) | None => Cell::Dead,
        })
    }

    /// Moves the head to the walk's position if nobody has moved it since. One attempt: losing it leaves the hint
    /// somewhere true, and the next walk tries again.
    fn help(&self) {
        if self.position != self.seen {
            let head = &self.ring.ends.head.0;
            // Release: partners are the Acquires of the head in `start`, `look` and `Ring::head`.
            let _ = head.compare_exchange(self.seen, self.position, Ordering::Release, Ordering::Relaxed);
        }
    }
}

/// What a walk finds at a position.
enum Cell<'a> {
    /// A task that can be claimed.
    Ready(Ticket, &'a Slot),
    /// A task that was claimed or withdrawn.
    Dead,
    /// The head has passed the position meanwhile, and stands here now.
    Lapped(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_numbered_in_order() {
        assert!(Lane::all().enumerate().all(|(index, lane)| lane.index() == index));
        assert_eq!(Lane::all().count(), LANES);
    }
}
