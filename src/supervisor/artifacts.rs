//! Artefacts whose tasks are gone: found a bounded bit at a time, and removed by a worker.
//!
//! There may be as many folders as tasks are kept, and each is looked up in the queue. So they are looked through only
//! after tasks were removed, and once when the pool starts. A sweep that found something is done once more, since an
//! order that a full pipe does not take is not repeated.

use acode_worker::room::{self, StoredArtifacts};
use acode_worker::wire::{Chore, Order};

use super::Supervisor;
use crate::store::StoreError;
use crate::sweep;

/// The most folders that are looked up in one pass. So many orders fit into what is kept for a worker.
const PASS: usize = 500;

/// Where a sweep stands.
#[derive(Debug)]
pub(super) struct ArtifactSweep {
    /// One is to begin.
    is_due: bool,
    /// What the present one has still to look up.
    waiting: Vec<StoredArtifacts>,
}

impl Default for ArtifactSweep {
    fn default() -> Self {
        Self { is_due: true, waiting: Vec::new() }
    }
}

impl ArtifactSweep {
    /// Notes that so many tasks were removed.
    pub fn note(&mut self, tasks: u64) {
        self.is_due |= tasks > 0;
    }

    /// Whether one has begun and is not at its end.
    pub fn goes_on(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Supervisor {
    /// Does a bit of the sweep that is due, if one is.
    pub(super) fn sweep_artifacts(&mut self) -> Result<(), StoreError> {
        let Some(row) = self.crew.iter().map(|(row, _)| row).next() else { return Ok(()) };
        let sweep = &mut self.artifact_sweep;
        if sweep.waiting.is_empty() && std::mem::take(&mut sweep.is_due) {
            sweep.waiting = room::stored_artifacts(&self.dirs.artifacts());
        }
        let part = sweep.waiting.split_off(sweep.waiting.len().saturating_sub(PASS));
        let surplus = sweep::surplus_artifacts(&*self.store, &part, true)?;
        self.artifact_sweep.is_due |= !surplus.is_empty();
        for one in surplus {
            self.crew.order(row, &Order::Chore(Chore::Artifacts { name: one.name() }));
        }
        Ok(())
    }
}
