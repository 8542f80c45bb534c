//! Sweeps of containers that nobody owns any more: when a worker looks for them, and which one.
//!
//! At the start, after the death of a docker worker, and from time to time. A pool without docker workers looks only while
//! marks tell of containers that may be left. Deliberately absent: the looking and removing itself, which is a chore of
//! workers, and the next attempt's own look at its task's mark, which does not wait for any sweep.

use acode_worker::claim::WorkerState;
use acode_worker::task::Isolation;
use acode_worker::wire::{Chore, Order};

use super::Supervisor;
use super::decide::Status;

/// When the next one is.
#[derive(Debug, Default)]
pub struct Sweeps {
    /// One is to be ordered as soon as somebody can do it.
    due: bool,
    next_ns: u64,
    /// Who was asked last.
    last: Option<u16>,
}

impl Sweeps {
    /// One is wanted at once.
    pub fn hurry(&mut self) {
        self.due = true;
    }
}

impl Supervisor {
    /// Has a worker look for containers that nobody owns, if it is time.
    pub(super) fn sweep_containers(&mut self) {
        if self.now_ns >= self.engines.sweeps.next_ns {
            let interval_ns = u64::try_from(self.config.docker.sweep_interval.as_nanos()).unwrap_or(u64::MAX);
            self.engines.sweeps.next_ns = self.now_ns.saturating_add(interval_ns);
            self.engines.sweeps.due |= self.has_docker_workers() || self.has_container_marks();
        }
        if !self.engines.sweeps.due || self.is_stopping() {
            return;
        }
        if let Some(row) = self.sweeper() {
            tracing::debug!(row, "worker looks for containers that nobody owns");
            self.engines.sweeps.due = false;
            self.engines.sweeps.last = Some(row);
            self.crew.order(row, &Order::Chore(Chore::Containers));
        }
    }

    fn has_docker_workers(&self) -> bool {
        self.config.workers.mode.has(Isolation::Docker)
    }

    fn has_container_marks(&self) -> bool {
        std::fs::read_dir(self.dirs.containers()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// An idle worker if there is one, and not always the same: the one asked last may have much to do. In a pool with
    /// docker workers one of them, who can use the engine.
    fn sweeper(&mut self) -> Option<u16> {
        let docker = self.has_docker_workers();
        let after = self.engines.sweeps.last.map_or(0, |row| row.wrapping_add(1));
        let able = self.crew.iter().filter(|(row, hand)| {
            let lives = matches!(self.fleet.status(*row), Some(Status::Idle | Status::Busy));
            let knows = hand.mode.isolation == Isolation::Docker && !self.engines.is_down_for(*row);
            lives && (knows || !docker)
        });
        let idle = |row| self.producer.row(row).is_some_and(|seen| seen.state == WorkerState::Idle);
        able.map(|(row, _)| row).min_by_key(|row| (!idle(*row), row.wrapping_sub(after)))
    }
}
