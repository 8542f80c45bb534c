//! The one write entry: a batch of operations becomes one transaction, or nothing.
//!
//! Owner: the store. Memory follows the disk, never the other way round: numbers and counts are worked out on a copy
//! that replaces the original only after the commit. A commit whose fate is unknown is remembered until `reopen` finds
//! out. Deliberately absent: the clock; every time comes with an operation.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use acode_worker::task::{Class, Priority, TaskId, TaskState};
use rusqlite::{Connection, Params, params};

use super::deps::Todo;
use super::ends::Share;
use super::events::{Draft, Run};
use super::hooks::Hooks;
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
    /// Tasks and arrays that have not ended and wait for others.
    pub(super) blocked: u64,
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
    pub(super) group: u32,
    pub(super) expires_us: u64,
    pub(super) aged: u8,
    /// What is known of its first attempt stands in it.
    pub(super) has_brief: bool,
}

/// This one waits, or waited, for others.
pub(super) const HAS_DEPENDENCIES: u8 = 2;
/// Its specification names a finish hook.
pub(super) const HAS_HOOK: u8 = 4;
/// It is a finish hook itself.
pub(super) const IS_HOOK: u8 = 8;
/// This one reads a copy of its submitter's standard input.
pub(super) const READS_COPY: u8 = 16;

/// One transaction being written.
pub(super) struct Writer<'c> {
    pub(super) sql: Statements<'c>,
    pub(super) tag: u64,
    pub(super) ledger: Ledger,
    pub(super) applied: Applied,
    pub(super) run: Option<Run>,
    pub(super) todo: VecDeque<Todo>,
    pub(super) budget: usize,
    /// What runs when a task has ended.
    pub(super) hooks: &'c Hooks,
    /// Tasks whose first attempt ends in this transaction.
    pub(super) ending: HashSet<u64>,
    /// The rows that are being ended together.
    pub(super) shares: Vec<Share>,
    /// So many operations are not even looked at for ends in company.
    pub(super) long_way: usize,
    /// Those of them that have started in it, and when: their rows are written once, at the end.
    pub(super) begun: HashMap<u64, u64>,
    /// By how many the open tasks of groups have changed.
    pub(super) group_counts: BTreeMap<u32, i64>,
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
    fn new(conn: &'c Connection, tag: u64, ledger: Ledger, hooks: &'c Hooks) -> Self {
        Self {
            sql: Statements::new(conn),
            tag,
            ledger,
            applied: Applied::default(),
            run: None,
            todo: VecDeque::new(),
            budget: BUDGET,
            hooks,
            ending: HashSet::new(),
            shares: Vec::new(),
            long_way: 0,
            begun: HashMap::new(),
            group_counts: BTreeMap::new(),
        }
    }

    /// The row with this number.
    pub(super) fn row(&mut self, seq: u64) -> rusqlite::Result<Option<Row>> {
        self.row_by(Sql::Row, seq, [seq])
    }

    /// The row that a statement about the one with this number answers with.
    pub(super) fn row_by(&mut self, sql: Sql, seq: u64, params: impl Params) -> rusqlite::Result<Option<Row>> {
        let tag = self.tag;
        self.sql.one(sql, params, |r| {
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
                group: r.get(9)?,
                expires_us: r.get(10)?,
                aged: r.get(11)?,
                has_brief: r.get(12)?,
            })
        })
    }

    /// Tells the supervisor that a task can be dispatched.
    pub(super) fn now_ready(&mut self, row: &Row) {
        self.applied.ready.push(NowReady { id: row.id, priority: row.priority, class: row.class, group: row.group });
    }

    fn op(&mut self, op: &Op) -> rusqlite::Result<()> {
        match op {
            Op::Submit(new) => self.submit(new),
            Op::Expand { header, to } => self.expand(header.seq(), *to),
            Op::Started { id, attempt, worker, claimed_us, at_us } => {
                self.started(*id, *attempt, *worker, (*claimed_us, *at_us))
            }
            Op::Progress { id, percent, message, at_us } => self.progress(*id, *percent, message.as_deref(), *at_us),
            Op::Suspended { id, attempt, on, at_us } => self.suspended(*id, *attempt, *on, *at_us),
            Op::Finished(end) => self.finished(end),
            Op::Cancel { id, keep, reason, at_us } => self.cancel(id.seq(), keep, reason, *at_us),
            Op::Retry { id, at_us } => self.retry(id.seq(), *at_us),
            Op::Wake { now_us, limit } => self.wake(*now_us, *limit),
            Op::Hold { id, keep, at_us } => self.hold(id.seq(), keep, *at_us),
            Op::Release { id, at_us } => self.release(id.seq(), *at_us),
            // That there are too many groups was found out before; nothing is changed then.
            Op::Group { change, at_us } => self.change_group(change, *at_us).map(drop),
            Op::Expire { due, keep, at_us } => self.expire(due, keep, *at_us),
            Op::Age { now_us, after_us, from, keep, limit } => self.age(*now_us, *after_us, *from, keep, *limit),
            Op::WorkerStarted(worker) => self.worker_started(worker),
            Op::WorkerUnhealthy { id, at_us } => self.worker_unhealthy(*id, *at_us),
            Op::WorkerStopped { id, at_us, completed, failed, failure } => {
                self.worker_stopped(*id, *at_us, (*completed, *failed), failure.as_deref())
            }
            Op::WorkerEvent { kind, worker, at_us, data } => {
                let draft = Draft { worker: Some(*worker), data: data.as_deref(), ..Draft::default() };
                self.event_once(*kind, *at_us, &draft)
            }
            Op::PoolEvent { kind, at_us, data } => {
                self.event_once(*kind, *at_us, &Draft { data: data.as_deref(), ..Draft::default() })
            }
            Op::Pause { pause, at_us } => self.pause(pause.as_ref(), *at_us),
            Op::Continue => self.load_todo(),
        }?;
        self.work_off()
    }

    /// Writes what was gathered on the way: the last submissions' event, work left over, the ledger.
    pub(super) fn close(&mut self) -> rusqlite::Result<()> {
        self.save_todo()?;
        self.save_group_counts()?;
        self.flush_run()?;
        let Ledger { batch, next_seq, next_event, last_ms, counts, blocked } = self.ledger;
        let Counts { pending, completed, failed, cancelled, timeout } = counts;
        let numbers =
            params![batch, next_seq, next_event, last_ms, pending, completed, failed, cancelled, timeout, blocked];
        self.sql.run(Sql::SaveLedger, numbers)?;
        Ok(())
    }
}

impl Store {
    /// Applies `ops` in order, in one durable transaction: on return all of it is on disk, on an error nothing is,
    /// or its fate is unknown until `reopen`. After an error that asks for it, call `reopen` and apply the same
    /// operations again, alone and in the same order; whoever asked for some of them and was refused meanwhile may be left
    /// out. The first answer after `reopen` has in it what the failed batch did, if that was found on disk.
    ///
    /// # Errors
    /// See `StoreError`. A refused submission is no error: it is in `Applied::rejected`.
    pub fn apply(&mut self, ops: &[Op]) -> Result<Applied, StoreError> {
        let print = fingerprint(ops);
        if let Some(done) = self.settled.take_if(|done| done.print == print) {
            return Ok(done.applied);
        }
        let applied = self.transaction(print, |writer| {
            let mut rest = ops;
            let mut knows_ends = false;
            while let Some(op) = rest.first() {
                let many = match writer.submit_many(rest)? {
                    0 => writer.end_many(rest)?,
                    many => many,
                };
                if many == 0 {
                    if !knows_ends && matches!(op, Op::Started { .. }) {
                        writer.ending = first_attempts_that_end(ops);
                        knows_ends = true;
                    }
                    writer.op(op)?;
                }
                rest = &rest[many.max(1)..];
            }
            Ok(())
        })?;
        // The batch was found on disk, and comes again without what clients had asked in it. Applied again it does nothing,
        // so what it did the first time is answered now: somebody may wait for an end in it.
        Ok(match self.settled.take() {
            None => applied,
            Some(mut done) => {
                done.applied.absorb(applied);
                done.applied
            }
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
        let mut writer = Writer::new(conn, self.tag, ledger, &self.hooks);
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
