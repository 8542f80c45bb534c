//! The events of tasks that began and ended in company: claim, start and end of each, all of them in one row.
//!
//! Owner: the store. The row stands for three events a task, with consecutive numbers, in the order in which the ends were
//! reported; whoever reads events takes it apart and sees no difference. Deliberately absent: ends that are no plain
//! success; they have rows of their own.

use acode_worker::task::varint::{Reader, put, put_signed};
use acode_worker::task::{TaskId, WorkerId};
use rusqlite::params;

use super::apply::Writer;
use super::events::{Event, EventKind};
use super::statements::Sql;

/// The kind of such a row. No event has it.
pub(super) const RAN: u8 = 32;
/// Events of one task.
pub(super) const EACH: u64 = 3;

/// A row that is being put together.
#[derive(Debug, Default)]
pub(super) struct Ran {
    first: Option<TaskId>,
    count: u64,
    workers: Vec<WorkerId>,
    /// Of each task the place of its worker, and the differences to the task before it: number, time of submission, claim; and
    /// then from claim to start, and to the end.
    tasks: Vec<u8>,
    last: (u64, u64, u64),
    last_end_us: u64,
}

impl Ran {
    /// Adds a task, with the times of claim, start and end.
    pub(super) fn add(&mut self, id: TaskId, worker: WorkerId, [claimed_us, started_us, finished_us]: [u64; 3]) {
        let place = self.workers.iter().position(|known| *known == worker).unwrap_or_else(|| {
            self.workers.push(worker);
            self.workers.len() - 1
        });
        if self.first.is_none() {
            self.first = Some(id);
            self.last = (id.seq(), id.millis(), 0);
        }
        let (seq, millis, before_us) = self.last;
        put(&mut self.tasks, place as u64);
        for (now, before) in [
            (id.seq(), seq),
            (id.millis(), millis),
            (claimed_us, before_us),
            (started_us, claimed_us),
            (finished_us, started_us),
        ] {
            put_signed(&mut self.tasks, now.wrapping_sub(before) as i64);
        }
        self.last = (id.seq(), id.millis(), claimed_us);
        self.last_end_us = self.last_end_us.max(finished_us);
        self.count += 1;
    }

    /// The bytes of the row: the workers, and the tasks.
    fn data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(1 + 16 * self.workers.len() + self.tasks.len());
        put(&mut data, self.workers.len() as u64);
        self.workers.iter().for_each(|worker| data.extend_from_slice(&worker.to_u128().to_be_bytes()));
        data.extend_from_slice(&self.tasks);
        data
    }
}

impl Writer<'_> {
    /// Writes the row.
    pub(super) fn ran(&mut self, ran: &Ran) -> rusqlite::Result<()> {
        let Some(first) = ran.first else { return Ok(()) };
        self.flush_run()?;
        let seq = self.ledger.next_event;
        self.ledger.next_event += EACH * ran.count;
        let (attempt, worker): (Option<u32>, Option<&[u8]>) = (None, None);
        let row =
            params![seq, ran.last_end_us, RAN, first.seq(), first.millis(), ran.count, attempt, worker, ran.data()];
        self.sql.run(Sql::InsertEvent, row)?;
        Ok(())
    }
}

/// The events that a row stands for, from its columns; nothing if it is damaged.
pub(super) fn take_apart(seq: u64, first: TaskId, count: u64, data: &[u8]) -> Option<Vec<Event>> {
    let mut reader = Reader::new(data);
    let mut workers = Vec::new();
    for _ in 0..reader.take()? {
        workers.push(WorkerId::from_u128(u128::from_be_bytes(reader.take_bytes()?)));
    }
    let mut events = Vec::new();
    let (mut number, mut millis, mut claimed_us) = (first.seq(), first.millis(), 0_u64);
    for n in 0..count {
        let worker = *workers.get(usize::try_from(reader.take()?).ok()?)?;
        let mut moved = |from: u64| Some(from.wrapping_add(reader.take_signed()? as u64));
        number = moved(number)?;
        millis = moved(millis)?;
        claimed_us = moved(claimed_us)?;
        let started_us = moved(claimed_us)?;
        let finished_us = moved(started_us)?;
        let told = [
            (EventKind::TaskAssigned, claimed_us),
            (EventKind::TaskStarted, started_us),
            (EventKind::TaskCompleted, finished_us),
        ];
        events.extend(told.into_iter().zip(seq + EACH * n..).map(|((kind, at_us), seq)| Event {
            seq,
            at_us,
            kind,
            task: Some(TaskId::new(millis, first.queue(), number)),
            count: None,
            attempt: Some(1),
            worker: Some(worker),
            data: None,
        }));
    }
    Some(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_together_is_taken_apart(
            tasks in prop::collection::vec((1..1_u64 << 40, 1..1_u64 << 40, 0..3_u128, any::<[i64; 3]>()), 1..40),
        ) {
            let mut ran = Ran::default();
            let mut wanted = Vec::new();
            for (number, millis, worker, times) in tasks {
                let (id, worker) = (TaskId::new(millis, 5, number), WorkerId::from_u128(worker));
                let times = times.map(|time| time.unsigned_abs() >> 1);
                ran.add(id, worker, times);
                let kinds = [EventKind::TaskAssigned, EventKind::TaskStarted, EventKind::TaskCompleted];
                wanted.extend(kinds.into_iter().zip(times).map(|(kind, at_us)| (kind, at_us, Some(id), Some(worker))));
            }
            let events = take_apart(100, ran.first.unwrap(), ran.count, &ran.data()).unwrap();
            prop_assert!(events.iter().zip(100..).all(|(event, seq)| event.seq == seq));
            let told: Vec<_> = events.iter().map(|e| (e.kind, e.at_us, e.task, e.worker)).collect();
            prop_assert_eq!(told, wanted);
        }

        #[test]
        fn garbage_is_no_event_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0..9_u64) {
            let _ = take_apart(1, TaskId::new(1, 2, 3), count, &bytes);
        }
    }
}
