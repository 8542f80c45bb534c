//! Filling the claim table from the queue, and ringing the doorbells.
//!
//! A lane is refilled when it is half empty, so the queue is read once for many tasks, and however many tasks wait, the
//! supervisor holds a bounded number of them. Deliberately absent: the claim itself, which is the workers'.

use std::io;
use std::path::PathBuf;

use acode_worker::claim::{Lane, PAYLOAD_MAX};
use acode_worker::failpoint;
use acode_worker::sys::clock;
use acode_worker::task::TaskId;
use acode_worker::wire::{Order, SPILLED};

use super::Supervisor;
use super::decide::Status;
use super::desk::{Active, FETCH, Phase, WINDOW, served};
use crate::store::{Entry, Op, StoreError};

impl Supervisor {
    /// Publishes what is ready and not published yet, as far as there is room, and wakes as many idle workers.
    pub(super) fn dispatch(&mut self) {
        if !self.fleet.is_open() || self.broken.is_some() || !self.pauses.is_open() {
            return;
        }
        for lane in served() {
            if self.desk.read_from(lane).is_none() || self.expanding[lane.index()] {
                continue;
            }
            let ready = self.producer.ready_in(lane);
            if ready < WINDOW / 2
                && let Err(error) = self.fill(lane, WINDOW - ready)
            {
                return self.store_failed(&error);
            }
        }
        self.ring();
    }

    /// Reads on in a lane's part of the queue, and publishes up to `room` tasks.
    fn fill(&mut self, lane: Lane, mut room: usize) -> Result<(), StoreError> {
        while room > 0 {
            let Some(from) = self.desk.read_from(lane) else { break };
            let found = self.store.ready((lane.priority, lane.class), from, FETCH)?;
            let exhausted = found.len() < FETCH;
            let mut read_to = from;
            for ready in found {
                if room == 0 {
                    self.desk.has_read(lane, read_to, false);
                    return Ok(());
                }
                let spec_json = match ready.entry {
                    Entry::Task { spec_json } | Entry::Member { spec_json, .. } => spec_json,
                    Entry::Array { cursor, count } => {
                        // Its next members are ready when this is committed; whatever stands behind has to wait.
                        let to = (cursor + room as u64).min(count);
                        self.desk.has_read(lane, ready.place, false);
                        self.expanding[lane.index()] = true;
                        self.record(Op::Expand { header: ready.id, to });
                        return Ok(());
                    }
                };
                if self.desk.get(ready.id.seq()).is_none() {
                    let begun = Begun { attempts: ready.attempts, failures: ready.failures, losses: ready.losses };
                    if !self.publish(lane, ready.id, begun, &spec_json) {
                        self.desk.has_read(lane, read_to, false);
                        return Ok(());
                    }
                    room -= 1;
                }
                read_to = ready.place;
            }
            self.desk.has_read(lane, read_to, exhausted);
        }
        Ok(())
    }

    /// Publishes one task. False if the table is full.
    fn publish(&mut self, lane: Lane, id: TaskId, begun: Begun, spec_json: &str) -> bool {
        let attempt = begun.attempts + 1;
        // By hand, because the specification is JSON already and most of the whole.
        let mut payload = Vec::with_capacity(spec_json.len() + 80);
        payload.extend_from_slice(br#"{"id":""#);
        payload.extend_from_slice(id.to_string().as_bytes());
        payload.extend_from_slice(br#"","attempt":"#);
        payload.extend_from_slice(attempt.to_string().as_bytes());
        payload.extend_from_slice(br#","spec":"#);
        payload.extend_from_slice(spec_json.as_bytes());
        payload.push(b'}');
        let mut spilled = None;
        if payload.len() > PAYLOAD_MAX {
            match self.spill(id.seq(), attempt, &payload) {
                Ok(path) => {
                    use std::os::unix::ffi::OsStrExt;
                    payload.clear();
                    payload.push(SPILLED);
                    payload.extend_from_slice(path.as_os_str().as_bytes());
                    spilled = Some(path);
                }
                Err(error) => {
                    tracing::error!(%id, %error, "a large task cannot be handed over for now");
                    return false;
                }
            }
        }
        self.jobserver.expect(id.seq(), spec_json);
        failpoint!("supervisor.before-publish");
        let ticket = match self.producer.publish(lane, &payload) {
            Ok(ticket) => ticket,
            Err(_) => {
                self.jobserver.forget(id.seq());
                return false;
            }
        };
        self.desk.put(Active {
            id,
            ticket,
            attempt,
            failures: begun.failures,
            losses: begun.losses,
            cancelled: None,
            phase: Phase::Published,
            progress: None,
            spilled,
        });
        failpoint!("supervisor.after-publish");
        true
    }

    /// Writes an assignment that is too large for a slot to a file of its own.
    fn spill(&self, seq: u64, attempt: u32, payload: &[u8]) -> io::Result<PathBuf> {
        let path = self.dirs.spill().join(format!("{seq}-{attempt}"));
        std::fs::write(&path, payload)?;
        Ok(path)
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

    /// Whether the workers find something to claim without us.
    pub(super) fn workers_are_busy(&mut self) -> bool {
        self.fleet.is_open() && self.producer.total_ready() >= self.crew_size()
    }

    fn crew_size(&self) -> usize {
        self.crew.iter().count()
    }
}

/// What a task has behind it.
#[derive(Debug, Clone, Copy)]
struct Begun {
    attempts: u32,
    failures: u32,
    losses: u32,
}
