//! The memory of the table under loom: the same sections, on the heap of one process.
//!
//! Stands in for region.rs when the feature `loom` is on. Deliberately absent: everything but the memory; rows, lanes,
//! cells and slots, and all that is done with them, are the code that runs in production.

use std::io;

use super::atomic::AtomicU64;
use super::lane::{Ends, LANES};
use super::row::Row;
use super::slot::Slot;
use super::table::{Geometry, Header, Layout, Table};

/// A claim table on the heap, to be shared by loom's threads.
pub struct Region {
    geometry: Geometry,
    rows: Vec<Row>,
    ends: Vec<Ends>,
    cells: Vec<AtomicU64>,
    slots: Vec<Slot>,
}

impl Region {
    /// Makes an empty table.
    ///
    /// # Errors
    /// The geometry is impossible.
    pub fn create(geometry: Geometry) -> io::Result<Self> {
        let layout = Layout::of(geometry).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let header = Header::zeroed();
        header.write(layout.geometry);
        let geometry = header.read().map_err(io::Error::other)?;
        let cells = LANES * geometry.lane_capacity as usize;
        Ok(Self {
            geometry,
            rows: (0..geometry.workers).map(|_| Row::zeroed()).collect(),
            ends: (0..LANES).map(|_| Ends::zeroed()).collect(),
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            slots: (0..geometry.slots).map(|_| Slot::zeroed()).collect(),
        })
    }

    /// How large the table is.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(super) fn table(&self) -> Table<'_> {
        Table { rows: &self.rows, ends: &self.ends, cells: &self.cells, slots: &self.slots }
    }
}
