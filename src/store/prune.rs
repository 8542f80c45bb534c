//! Retention: what has ended is removed by age and by number, oldest first, a bounded number of rows per pass.
//!
//! Owner: the supervisor calls it now and then; the store does it in one transaction per pass. Deliberately absent: the
//! journal's segments. The store only counts who still needs one (`segments_in_use`).

use acode_worker::task::TaskState;
use rusqlite::params;

use super::apply::{HAS_DEPENDENCIES, RowKind, Writer, stored};
use super::events::{Draft, width};
use super::life::attempt_key;
use super::statements::Sql;
use super::{EventKind, Store, StoreError};

/// What is kept. `None` keeps without a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Ended tasks are kept for so long, in microseconds; stopped workers as well.
    pub max_age_us: Option<u64>,
    /// So many ended tasks are kept at most.
    pub max_count: Option<u64>,
    /// Events are kept for so long, in microseconds.
    pub max_event_age_us: Option<u64>,
    /// So many events are kept at most.
    pub max_events: Option<u64>,
}

/// What a pass removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Tasks, with their attempts.
    pub tasks: u64,
    /// Rows of events.
    pub events: u64,
    /// Whether the pass ended because of its bound: call again soon.
    pub more: bool,
}

/// One row that may go.
struct Old {
    seq: u64,
    kind: RowKind,
    state: u8,
    flags: u8,
    attempts: u32,
    finished_us: u64,
}

impl Store {
    /// Removes what `policy` does not keep at time `now_us`, at most about `limit` rows, and gives pages back to the
    /// file system when many are free.
    ///
    /// # Errors
    /// See `StoreError`; nothing is removed then.
    pub fn prune(&mut self, policy: &Retention, now_us: u64, limit: u32) -> Result<Pruned, StoreError> {
        if !self.worth_pruning(policy, now_us)? {
            return Ok(Pruned::default());
        }
        let mut pruned = Pruned::default();
        self.transaction(0, |writer| {
            pruned = writer.prune(policy, now_us, limit)?;
            Ok(())
        })?;
        self.shrink()?;
        Ok(pruned)
    }

    /// Whether a pass would find anything: a transaction for nothing would cost a flush.
    fn worth_pruning(&self, policy: &Retention, now_us: u64) -> Result<bool, StoreError> {
        if policy.max_count.is_some_and(|max| self.ledger.counts.finished() > max) {
            return Ok(true);
        }
        self.read(|conn| {
            let oldest = |sql: &str| conn.prepare_cached(sql)?.query_row([], |r| r.get::<_, Option<u64>>(0));
            let before = |age: Option<u64>| age.map(|age| now_us.saturating_sub(age));
            let older = |bound: Option<u64>, at: Option<u64>| bound.zip(at).is_some_and(|(bound, at)| at < bound);
            let task = oldest("SELECT min(finished_us) FROM task INDEXED BY task_finished WHERE state >= 3")?;
            let worker = oldest("SELECT min(stopped_us) FROM worker")?;
            let event =
                oldest("SELECT at_us FROM event WHERE seq = (SELECT min(seq) FROM event) UNION ALL SELECT NULL")?;
            let first = oldest(concat!(
                "SELECT min(seq + ",
                width!(),
                ") FROM event WHERE seq = (SELECT min(seq) FROM event)"
            ))?;
            let surplus = policy.max_events.map(|max| self.ledger.next_event.saturating_sub(max));
            Ok(older(before(policy.max_age_us), task)
                || older(before(policy.max_age_us), worker)
                || older(before(policy.max_event_age_us), event)
                || surplus.zip(first).is_some_and(|(surplus, end)| end <= surplus))
        })
    }

    /// Gives free pages back, a bounded number, once they are many.
    fn shrink(&mut self) -> Result<(), StoreError> {
        const MANY: i64 = 4_096;
        self.read(|conn| {
            let free: i64 = conn.query_row("PRAGMA freelist_count", [], |r| r.get(0))?;
            let all: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0))?;
            if free > MANY && free > all / 2 {
                // Each step gives back one page.
                let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({MANY})"))?;
                let mut steps = vacuum.query([])?;
                while steps.next()?.is_some() {}
            }
            Ok(())
        })
    }
}

impl Writer<'_> {
    fn prune(&mut self, policy: &Retention, now_us: u64, limit: u32) -> rusqlite::Result<Pruned> {
        let mut pruned = Pruned::default();
        let aged = |age: Option<u64>| age.map_or(0, |age| now_us.saturating_sub(age));
        let waiting = self.sql.one(Sql::AnyTodo, [], |_| Ok(()))?.is_some();
        // Who still has to be told of an end must find the one that ended.
        if !waiting {
            self.prune_tasks(aged(policy.max_age_us), policy.max_count, limit, &mut pruned)?;
        }
        if policy.max_event_age_us.is_some() {
            let gone = self.sql.run(Sql::DropEvents, params![aged(policy.max_event_age_us), limit])?;
            pruned.events += gone as u64;
        }
        if let Some(max) = policy.max_events {
            let bound = self.ledger.next_event.saturating_sub(max);
            pruned.events += self.sql.run(Sql::DropSurplusEvents, params![bound, limit])? as u64;
        }
        if policy.max_age_us.is_some() {
            self.sql.run(Sql::DropWorkers, params![aged(policy.max_age_us), limit])?;
        }
        pruned.more |= waiting || pruned.events >= u64::from(limit);
        if pruned.tasks > 0 {
            let draft = Draft { count: Some(pruned.tasks), ..Draft::default() };
            self.event(EventKind::QueuePruned, now_us, &draft)?;
        }
        Ok(pruned)
    }

    fn prune_tasks(
        &mut self,
        older_than_us: u64,
        max_count: Option<u64>,
        limit: u32,
        pruned: &mut Pruned,
    ) -> rusqlite::Result<()> {
        let old = self.sql.all(Sql::OldTasks, [limit], read_old)?;
        let mut room = u64::from(limit);
        for task in old {
            let surplus = max_count.is_some_and(|max| self.ledger.counts.finished() > max);
            if task.finished_us >= older_than_us && !surplus {
                return Ok(());
            }
            if room == 0 {
                break;
            }
            match task.kind {
                RowKind::Task => self.drop_task(&task, &mut room, pruned)?,
                RowKind::Member => {
                    // One that was cancelled ahead of the cursor stays as a mark: the array must pass over it.
                    if self.array_of(task.seq)?.is_none_or(|array| task.seq <= array.seq + array.cursor) {
                        self.drop_task(&task, &mut room, pruned)?;
                    }
                }
                RowKind::Header => {
                    if !self.drop_array(&task, &mut room, pruned)? {
                        break;
                    }
                }
            }
        }
        pruned.more |= room == 0;
        Ok(())
    }

    fn drop_task(&mut self, task: &Old, room: &mut u64, pruned: &mut Pruned) -> rusqlite::Result<()> {
        let seq = task.seq;
        if self.sql.run(Sql::DropTask, [seq])? == 0 {
            return Ok(());
        }
        if task.attempts > 0 {
            let keys = [attempt_key(seq, 0), attempt_key(seq, u32::MAX)];
            let used: Vec<([u8; 16], u64)> = self.sql.all(Sql::Outputs, keys, |r| Ok((r.get(0)?, r.get(1)?)))?;
            for (worker, segment) in used {
                self.sql.run(Sql::FreeSegment, params![worker.as_slice(), segment])?;
                self.sql.run(Sql::DropSegment, params![worker.as_slice(), segment])?;
            }
            self.sql.run(Sql::DropAttempts, keys)?;
        }
        if task.flags & HAS_DEPENDENCIES != 0 {
            self.sql.run(Sql::DropDeps, [seq])?;
        }
        if task.kind != RowKind::Header {
            if let Some(state) = TaskState::from_u8(task.state) {
                let left = self.ledger.counts.of(state);
                *left = left.saturating_sub(1);
            }
            pruned.tasks += 1;
        }
        *room = room.saturating_sub(1);
        Ok(())
    }

    /// Removes an array that has ended: what is left of its members first. False if that took all the room.
    fn drop_array(&mut self, header: &Old, room: &mut u64, pruned: &mut Pruned) -> rusqlite::Result<bool> {
        let Some(array) = self.array_of(header.seq)? else { return Ok(true) };
        let range = params![header.seq + 1, header.seq + array.count, *room];
        for member in self.sql.all(Sql::RowsOf, range, read_old)? {
            self.drop_task(&member, room, pruned)?;
        }
        let items = self.sql.run(Sql::DropItems, params![header.seq, *room])?;
        *room = room.saturating_sub(items as u64);
        if *room == 0 {
            return Ok(false);
        }
        if array.stopped {
            let left = &mut self.ledger.counts.cancelled;
            *left = left.saturating_sub(array.unborn);
            pruned.tasks += array.unborn;
        }
        self.sql.run(Sql::DropArray, [header.seq])?;
        self.drop_task(header, room, pruned)?;
        Ok(true)
    }
}

fn read_old(r: &rusqlite::Row<'_>) -> rusqlite::Result<Old> {
    Ok(Old {
        seq: r.get(0)?,
        kind: stored(r, 1, RowKind::from_u8)?,
        state: r.get(2)?,
        flags: r.get(3)?,
        attempts: r.get(4)?,
        finished_us: r.get::<_, Option<u64>>(5)?.unwrap_or(0),
    })
}
