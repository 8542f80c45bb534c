//! The one write entry: a batch of operations becomes one transaction, or nothing.
//!
//! Owner: the store. Memory follows the disk, never the other way round: numbers and counts are worked out on a copy
//! that replaces the original only after the commit. A commit whose fate is unknown is remembered until `reopen` finds
//! out. Deliberately absent: the clock; every time comes with an operation.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use acode_worker::task::{Class, Priority, TaskId, TaskState};
use rusqlite::{Connection, params};

use super::deps::Todo;
use super::events::Run;
use super::op::{Applied, Counts, NowReady, Op};
use super::statements::{Sql, Statements};
use super::{Store, StoreError};

/// Rows that one transaction touches at most on behalf of one event (dependents told, members retried).
pub(super) const BUDGET: usize = 10_000;

/// The numbers of the queue, as the ledger row has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) batch: u64,
    pub(super) next_seq: u64,
    pub(super) next_event: u64,
    pub(super) last_ms: u64,
    pub(super) counts: Counts,
}

/// A batch whose commit failed: perhaps it is on disk, perhaps not.
#[derive(Debug)]
pub(super) struct InDoubt {
    pub(super) batch: u64,
    pub(super) print: u64,
    pub(super) applied: Applied,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Task,
    Header,
    Member,
}

impl RowKind {
    pub(super) fn from_u8(value: u8) -> Option<Self> {
        [Self::Task, Self::Header, Self::Member].get(usize::from(value)).copied()
    }
}

/// The facts of a task's row that decisions are made on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: TaskId,
    pub(super) kind: RowKind,
    pub(super) state: TaskState,
    pub(super) priority: Priority,
    pub(super) class: Class,
    pub(super) blockers: u32,
    pub(super) not_before_us: u64,
    pub(super) held: u8,
    pub(super) flags: u8,
}

/// Others wait for this one.
pub(super) const HAS_DEPENDENTS: u8 = 1;
/// This one waits, or waited, for others.
pub(super) const HAS_DEPENDENCIES: u8 = 2;

/// One transaction being written.
pub(super) struct Writer<'c> {
    pub(super) sql: Statements<'c>,
    pub(super) tag: u64,
    pub(super) ledger: Ledger,
    pub(super) applied: Applied,
    pub(super) run: Option<Run>,
    pub(super) todo: VecDeque<Todo>,
    pub(super) budget: usize,
    /// Tasks whose first attempt ends in this transaction.
    pub(super) ending: HashSet<u64>,
    /// Those of them that have started in it, and when: their rows are written once, at the end.
    pub(super) begun: HashMap<u64, u64>,
}

/// An error of ours in the middle of SQLite's.
pub(super) fn defect(what: &str) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(what.into())
}

/// The enum value that a stored number stands for.
pub(super) fn stored<T>(row: &rusqlite::Row<'_>, at: usize, read: fn(u8) -> Option<T>) -> rusqlite::Result<T> {
    let code: u8 = row.get(at)?;
    read(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, code.into()))
}

/// The class with this stored number.
pub(super) fn class_of(code: u8) -> Option<Class> {
    Class::ALL.get(usize::from(code)).copied()
}

impl<'c> Writer<'c> {
    fn new(conn: &'c Connection, tag: u64, ledger: Ledger) -> Self {
        Self {
            sql: Statements::new(conn),
            tag,
            ledger,
            applied: Applied::default(),
            run: None,
            todo: VecDeque::new(),
            budget: BUDGET,
            ending: HashSet::new(),
            begun: HashMap::new(),
        }
    }

    /// The row with this number.
    pub(super) fn row(&mut self, seq: u64) -> rusqlite::Result<Option<Row>> {
        let tag = self.tag;
        self.sql.one(Sql::Row, [seq], |r| {
            Ok(Row {
                id: TaskId::new(r.get(8)?, tag, seq),
                kind: stored(r, 0, RowKind::from_u8)?,
                state: stored(r, 1, TaskState::from_u8)?,
                priority: stored(r, 2, Priority::from_u8)?,
                class: stored(r, 3, class_of)?,
                blockers: r.get(4)?,
                not_before_us: r.get(5)?,
                held: r.get(6)?,
                flags: r.get(7)?,
            })
        })
    }

    /// Tells the supervisor that a task can be dispatched.
    pub(super) fn now_ready(&mut self, row: &Row) {
        self.applied.ready.push(NowReady { id: row.id, priority: row.priority, class: row.class });
    }

    /// Notes that `count` tasks, members of arrays among them, have gone from one state to another.
    pub(super) fn shift(&mut self, from: TaskState, to: TaskState, count: u64) {
        self.ledger.counts.shift(from, to, count);
        if to.is_final() {
            *self.applied.settled.of(to) += count;
        }
    }

    fn op(&mut self, op: &Op) -> rusqlite::Result<()> {
        match op {
            Op::Submit(new) => self.submit(new),
            Op::Expand { header, to } => self.expand(header.seq(), *to),
            Op::Started { id, attempt, worker, claimed_us, at_us } => {
                self.started(*id, *attempt, *worker, (*claimed_us, *at_us))
            }
            Op::Progress { id, percent, message, at_us } => self.progress(*id, *percent, message.as_deref(), *at_us),
            Op::Finished(end) => self.finished(end),
            Op::Cancel { id, keep, reason, at_us } => self.cancel(id.seq(), keep, reason, *at_us),
            Op::Retry { id, at_us } => self.retry(id.seq(), *at_us),
            Op::Wake { now_us, limit } => self.wake(*now_us, *limit),
            Op::WorkerStarted(worker) => self.worker_started(worker),
            Op::WorkerUnhealthy { id, at_us } => self.worker_unhealthy(*id, *at_us),
            Op::WorkerStopped { id, at_us, completed, failed, failure } => {
                self.worker_stopped(*id, *at_us, (*completed, *failed), failure.as_deref())
            }
            Op::PoolEvent { kind, at_us, data } => self.pool_event(*kind, *at_us, data.as_deref()),
            Op::Continue => self.load_todo(),
        }?;
        self.work_off()
    }

    /// Writes what was gathered on the way: the last submissions' event, work left over, the ledger.
    pub(super) fn close(&mut self) -> rusqlite::Result<()> {
        self.save_todo()?;
        self.flush_run()?;
        let Ledger { batch, next_seq, next_event, last_ms, counts } = self.ledger;
        let Counts { pending, completed, failed, cancelled, timeout } = counts;
        let numbers = params![batch, next_seq, next_event, last_ms, pending, completed, failed, cancelled, timeout];
        self.sql.run(Sql::SaveLedger, numbers)?;
        Ok(())
    }
}

impl Store {
    /// Applies `ops` in order, in one durable transaction: on return all of it is on disk, on an error nothing is,
    /// or its fate is unknown until `reopen`. After an error that asks for it, call `reopen` and apply the same
    /// operations again, alone and in the same order.
    ///
    /// # Errors
    /// See `StoreError`. A refused submission is no error: it is in `Applied::rejected`.
    pub fn apply(&mut self, ops: &[Op]) -> Result<Applied, StoreError> {
        let print = fingerprint(ops);
        if let Some(done) = self.settled.take_if(|done| done.print == print) {
            return Ok(done.applied);
        }
        self.transaction(print, |writer| {
            writer.ending = first_attempts_that_end(ops);
            ops.iter().try_for_each(|op| writer.op(op))
        })
    }

    /// Runs `work` in a transaction, with everything that belongs to one.
    pub(super) fn transaction(
        &mut self,
        print: u64,
        work: impl FnOnce(&mut Writer<'_>) -> rusqlite::Result<()>,
    ) -> Result<Applied, StoreError> {
        let Some(conn) = self.conn.as_ref().filter(|_| !self.broken) else {
            return Err(StoreError::Broken { path: self.path.clone() });
        };
        let mut ledger = self.ledger;
        ledger.batch += 1;
        let mut writer = Writer::new(conn, self.tag, ledger);
        let written = writer.sql.run(Sql::Begin, []).and_then(|_| work(&mut writer)).and_then(|()| writer.close());
        let committed = match written {
            Ok(()) => writer.sql.run(Sql::Commit, []).map_err(|e| (true, e)),
            Err(e) => Err((false, e)),
        };
        let Writer { sql, mut ledger, applied, .. } = writer;
        drop(sql);
        match committed {
            Ok(_) => {
                // Numbers given out meanwhile, but not used yet, stay given out.
                ledger.next_seq = ledger.next_seq.max(self.ledger.next_seq);
                ledger.last_ms = ledger.last_ms.max(self.ledger.last_ms);
                self.ledger = ledger;
                Ok(applied)
            }
            Err((in_doubt, error)) => {
                if !conn.is_autocommit() && conn.execute_batch("ROLLBACK").is_err() {
                    self.broken = true;
                }
                let error = StoreError::sort(&self.path, error);
                self.broken |= error.needs_reopen();
                if in_doubt {
                    self.in_doubt = Some(InDoubt { batch: ledger.batch, print, applied });
                }
                Err(error)
            }
        }
    }
}

fn first_attempts_that_end(ops: &[Op]) -> HashSet<u64> {
    let end = |op: &Op| if let Op::Finished(end) = op { (end.attempt == 1).then(|| end.id.seq()) } else { None };
    ops.iter().filter_map(end).collect()
}

/// Recognises a batch that comes again.
pub(super) fn fingerprint(ops: &[Op]) -> u64 {
    let mut hasher = DefaultHasher::new();
    ops.len().hash(&mut hasher);
    ops.iter().for_each(|op| op.mark().hash(&mut hasher));
    hasher.finish()
}
