//! The table's geometry and layout: where header, rows, lanes, cells and slots lie, and the header that says so.
//!
//! Sizes only, so that the same arithmetic serves the one who makes the region and the one who opens it. Deliberately
//! absent: memory (region.rs), and any trust in a header: what it says is held against the size of the mapping.

use super::atomic::{AtomicU64, Ordering};
use super::lane::{Ends, LANES, Lane, Ring};
use super::row::Row;
use super::slot::Slot;
use super::word::{NOBODY, SLOT_LIMIT};

/// 'acodeclm' in ASCII. A region made on a machine of other endianness would not match.
const MAGIC: u64 = u64::from_be_bytes(*b"acodeclm");

/// Changed with every change of the layout or of the packing of words.
pub(super) const LAYOUT_VERSION: u64 = 2;

/// Sections begin on pages, so that each becomes resident by itself.
const SECTION_ALIGN: usize = 4096;

/// The largest lane capacity: cells of eight bytes, in twelve lanes.
const LANE_CAPACITY_MAX: u32 = 1 << 20;

/// How large a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Rows for workers, `1..65535`.
    pub workers: u16,
    /// Slots for published tasks, `1..=2^24`, 4 KiB each; memory is only used for those that are.
    pub slots: u32,
    /// Positions in each lane's ring, a power of two up to 2^20. Withdrawn tasks occupy theirs until the lane's head
    /// passes them.
    pub lane_capacity: u32,
}

/// Why a geometry or a region is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A table needs a worker's row, and one row number is reserved.
    #[error("{0} worker rows: between 1 and 65534 are possible")]
    Workers(u64),
    /// A ticket's slot number has 24 bits.
    #[error("{0} slots: between 1 and 16777216 are possible")]
    Slots(u64),
    /// A ring needs a power of two.
    #[error("lane capacity {0}: a power of two up to 1048576 is needed")]
    LaneCapacity(u64),
    /// The mapping does not begin with the table's mark.
    #[error("not a claim table: its first word is {0:#018x}")]
    Magic(u64),
    /// The region was made by another version of this program.
    #[error("claim table has layout {found}, this program speaks layout {LAYOUT_VERSION}")]
    Version {
        /// The layout version in the header.
        found: u64,
    },
    /// The mapping is too small for a header, or not as large as its header demands.
    #[error("claim table is {found} bytes large, {expected} are expected")]
    Size {
        /// Bytes that are mapped.
        found: usize,
        /// Bytes that the geometry needs.
        expected: usize,
    },
    /// The memory could be truncated by a peer, which would make every access a possible SIGBUS.
    #[error("claim table is not sealed against shrinking and growing")]
    NotSealed,
}

/// The first bytes of the region. Written once, before any other process can have the descriptor.
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    workers: AtomicU64,
    slots: AtomicU64,
    lane_capacity: AtomicU64,
}

impl Header {
    #[cfg(feature = "loom")]
    pub(super) fn zeroed() -> Self {
        let zero = || AtomicU64::new(0);
        Self { magic: zero(), version: zero(), workers: zero(), slots: zero(), lane_capacity: zero() }
    }

    /// Writes the header. Relaxed: the descriptor reaches other processes through the kernel, which orders it.
    pub(super) fn write(&self, geometry: Geometry) {
        self.workers.store(u64::from(geometry.workers), Ordering::Relaxed);
        self.slots.store(u64::from(geometry.slots), Ordering::Relaxed);
        self.lane_capacity.store(u64::from(geometry.lane_capacity), Ordering::Relaxed);
        self.version.store(LAYOUT_VERSION, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Relaxed);
    }

    /// Reads the geometry once; what a peer writes there later is never looked at.
    pub(super) fn read(&self) -> Result<Geometry, LayoutError> {
        let magic = self.magic.load(Ordering::Relaxed);
        if magic != MAGIC {
            return Err(LayoutError::Magic(magic));
        }
        let found = self.version.load(Ordering::Relaxed);
        if found != LAYOUT_VERSION {
            return Err(LayoutError::Version { found });
        }
        let (workers, slots) = (self.workers.load(Ordering::Relaxed), self.slots.load(Ordering::Relaxed));
        let capacity = self.lane_capacity.load(Ordering::Relaxed);
        Ok(Geometry {
            workers: u16::try_from(workers).map_err(|_| LayoutError::Workers(workers))?,
            slots: u32::try_from(slots).map_err(|_| LayoutError::Slots(slots))?,
            lane_capacity: u32::try_from(capacity).map_err(|_| LayoutError::LaneCapacity(capacity))?,
        })
    }
}

/// Where the sections of a region lie, in bytes from its start, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    pub(super) rows: usize,
    pub(super) ends: usize,
    pub(super) cells: usize,
    pub(super) slots: usize,
    pub(super) total: usize,
}

impl Layout {
    /// Lays a table out. With a checked geometry nothing here overflows: the largest is 64 GiB and a little.
    pub(super) fn of(geometry: Geometry) -> Result<Self, LayoutError> {
        let Geometry { workers, slots, lane_capacity } = geometry;
        if workers == 0 || workers == NOBODY {
            return Err(LayoutError::Workers(u64::from(workers)));
        }
        if slots == 0 || slots > SLOT_LIMIT {
            return Err(LayoutError::Slots(u64::from(slots)));
        }
        if !lane_capacity.is_power_of_two() || lane_capacity > LANE_CAPACITY_MAX {
            return Err(LayoutError::LaneCapacity(u64::from(lane_capacity)));
        }
        let after = |start: usize, bytes: usize| (start + bytes).next_multiple_of(SECTION_ALIGN);
        let rows = after(0, size_of::<Header>());
        let ends = after(rows, usize::from(workers) * size_of::<Row>());
        let cells = after(ends, LANES * size_of::<Ends>());
        let slots_at = after(cells, LANES * lane_capacity as usize * size_of::<AtomicU64>());
        let total = after(slots_at, slots as usize * size_of::<Slot>());
        Ok(Self { geometry, rows, ends, cells, slots: slots_at, total })
    }
}

/// The sections of a region as shared references to atomics; the only view that the algorithm has.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) rows: &'a [Row],
    pub(super) ends: &'a [Ends],
    pub(super) cells: &'a [AtomicU64],
    pub(super) slots: &'a [Slot],
}

impl<'a> Table<'a> {
    /// The ring of a lane. Every region has [`LANES`] lanes, and as many cells for each.
    pub(super) fn ring(&self, lane: Lane) -> Ring<'a> {
        let (index, capacity) = (lane.index(), self.cells.len() / LANES);
        Ring::new(&self.ends[index], &self.cells[index * capacity..][..capacity], self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Geometry = Geometry { workers: 3, slots: 5, lane_capacity: 8 };

    #[test]
    fn sections_do_not_overlap() {
        let layout = Layout::of(SMALL).unwrap();
        assert!(layout.rows >= size_of::<Header>());
        assert!(layout.ends >= layout.rows + 3 * size_of::<Row>());
        assert!(layout.cells >= layout.ends + LANES * size_of::<Ends>());
        assert!(layout.slots >= layout.cells + LANES * 8 * 8);
        assert!(layout.total >= layout.slots + 5 * size_of::<Slot>());
    }

    #[test]
    fn impossible_geometries_are_refused() {
        let refused = |geometry| Layout::of(geometry).unwrap_err();
        assert_eq!(refused(Geometry { workers: 0, ..SMALL }), LayoutError::Workers(0));
        assert_eq!(refused(Geometry { workers: u16::MAX, ..SMALL }), LayoutError::Workers(65535));
        assert_eq!(refused(Geometry { slots: 0, ..SMALL }), LayoutError::Slots(0));
        assert_eq!(refused(Geometry { slots: SLOT_LIMIT + 1, ..SMALL }), LayoutError::Slots(16_777_217));
        assert_eq!(refused(Geometry { lane_capacity: 0, ..SMALL }), LayoutError::LaneCapacity(0));
        assert_eq!(refused(Geometry { lane_capacity: 12, ..SMALL }), LayoutError::LaneCapacity(12));
        assert_eq!(refused(Geometry { lane_capacity: 1 << 21, ..SMALL }), LayoutError::LaneCapacity(1 << 21));
    }
}
