//! Plain successes many at a time: tasks that began and ended in one batch at their first attempt, without a word.
//!
//! Owner: the store. A statement opens the table and every index of it anew each time it runs, which costs as much as a
//! row; so the ends of such tasks share one, their events share a row (`ran`), and what is known of their attempts goes
//! into the tasks' own rows, as a *brief*. Everything else, and every end that is met a second time, goes the long way.
//! Deliberately absent: whatever follows from an end but counts: hooks, and tasks that wait.

use acode_worker::task::varint::{Reader, put};
use acode_worker::task::{Isolation, OutputRef, TaskState, TreeGuard, Usage, Verdict, WorkerId};
use rusqlite::params;

use super::apply::{HAS_HOOK, RowKind, Writer, stored};
use super::history::AttemptRecord;
use super::notes::AttemptNotes;
use super::op::{AttemptEnd, Next, Op};
use super::ran::Ran;
use super::statements::Sql;

/// Ends of one statement.
pub(super) const ROWS: usize = 32;
/// Fewer are not worth it.
const FEW: usize = 4;
/// Parameters of each in that statement.
const COLUMNS: usize = 5;

/// Sixteen rows of that statement.
macro_rules! sixteen {
    ($row:literal) => {
        concat!(
            $row, ",", $row, ",", $row, ",", $row, ",", $row, ",", $row, ",", $row, ",", $row, ",", $row, ",", $row,
            ",", $row, ",", $row, ",", $row, ",", $row, ",", $row, ",", $row
        )
    };
}

/// The text of the statement that looks at as many rows.
macro_rules! plain_rows {
    () => {
        concat!(
            "SELECT seq, kind, grp FROM task WHERE state = 0 AND attempts = 0 AND blockers = 0 AND flags & 4 = 0
             AND brief IS NULL AND seq IN (",
            sixteen!("?"),
            ",",
            sixteen!("?"),
            ")"
        )
    };
}
/// The text of the statement that ends them. An update that ABORTs keeps a copy of each page that it changes; this one
/// touches nothing that a condition could refuse, and the transaction is given up if it fails anyhow.
macro_rules! end_rows {
    () => {
        concat!(
            "UPDATE OR FAIL task SET state = 3, attempts = 1, started_us = ended.column2, finished_us = ended.column3,
             result = ended.column4, brief = ended.column5 FROM (VALUES ",
            sixteen!("(?,?,?,?,?)"),
            ",",
            sixteen!("(?,?,?,?,?)"),
            ") AS ended WHERE task.seq = ended.column1"
        )
    };
}
pub(super) use {end_rows, plain_rows, sixteen};

const _: () = assert!(TaskState::Completed as u8 == 3 && HAS_HOOK == 4);

/// The start and the end of a task, as two operations say it.
#[derive(Debug, Clone, Copy)]
struct Short<'o> {
    end: &'o AttemptEnd,
    claimed_us: u64,
}

impl<'o> Short<'o> {
    /// Reads the two operations that `ops` begin with, if they are a plain success.
    fn read(ops: &'o [Op]) -> Option<Self> {
        let [Op::Started { id, attempt: 1, worker, claimed_us: Some(claimed_us), at_us }, Op::Finished(end), ..] = ops
        else {
            return None;
        };
        let fits = end.id == *id && end.worker == *worker && end.started_us == *at_us && is_plain(end);
        fits.then_some(Self { end, claimed_us: *claimed_us })
    }
}

/// Whether a brief has room for all that is known of an attempt.
fn is_plain(end: &AttemptEnd) -> bool {
    // All fields are named, so that a new one has to be thought of here.
    let AttemptEnd {
        id: _,
        attempt: 1,
        worker: _,
        verdict: Verdict::Exited { code: 0 },
        isolation: _,
        guard: _,
        usage,
        output: OutputRef { segment: _, offset: _, length: 0, stdout_bytes: 0, stderr_bytes: 0, truncated: false },
        started_us: _,
        finished_us: _,
        leaked: false,
        error: None,
        result: _,
        reason: None,
        notes,
        next: Next::Final(TaskState::Completed),
    } = end
    else {
        return false;
    };
    let AttemptNotes { limits, kept: None, sandbox: None, artifacts: None } = notes else { return false };
    limits.is_empty() && usage.plain().is_some()
}

/// What is known of a plain first attempt.
fn write_brief(end: &AttemptEnd, brief: &mut Vec<u8>) {
    brief.clear();
    brief.extend_from_slice(&end.worker.to_u128().to_be_bytes());
    brief.extend_from_slice(&[end.isolation as u8, end.guard as u8]);
    let OutputRef { segment, offset, .. } = end.output;
    put(brief, end.started_us);
    put(brief, end.finished_us.wrapping_sub(end.started_us));
    for number in end.usage.plain().unwrap_or_default().into_iter().chain([segment, offset]) {
        put(brief, number);
    }
}

/// Reads what [`write_brief`] wrote; nothing if it is damaged.
pub(super) fn read_brief(brief: &[u8]) -> Option<AttemptRecord> {
    let (worker, rest) = brief.split_first_chunk::<16>()?;
    let (&[isolation, guard], rest) = rest.split_first_chunk::<2>()?;
    let mut reader = Reader::new(rest);
    let started_us = reader.take()?;
    let finished_us = started_us.wrapping_add(reader.take()?);
    let usage = Usage::from_plain(reader.take_all()?);
    let output = OutputRef { segment: reader.take()?, offset: reader.take()?, ..OutputRef::default() };
    Some(AttemptRecord {
        number: 1,
        worker: WorkerId::from_u128(u128::from_be_bytes(*worker)),
        verdict: Verdict::Exited { code: 0 },
        isolation: Isolation::from_u8(isolation)?,
        guard: TreeGuard::from_u8(guard)?,
        usage,
        output,
        started_us,
        finished_us,
        leaked: false,
        error: None,
        notes: AttemptNotes::default(),
    })
}

impl Writer<'_> {
    /// Ends the tasks that `ops` begin with, as long as they are plain successes and nothing follows from their ends;
    /// answers how many operations that was.
    pub(super) fn end_many(&mut self, ops: &[Op]) -> rusqlite::Result<usize> {
        if self.long_way > 0 {
            self.long_way -= 1;
            return Ok(0);
        }
        if self.ledger.blocked > 0 || !self.hooks.pool.is_empty() {
            return Ok(0);
        }
        let mut ends = [None; ROWS];
        let mut count = 0;
        for (place, pair) in ends.iter_mut().zip(ops.chunks_exact(2)) {
            let Some(short) = Short::read(pair).filter(|short| short.end.id.queue() == self.tag) else { break };
            *place = Some(short);
            count += 1;
        }
        let plain = if count < FEW { 0 } else { self.plain_among(&ends[..count])? };
        if plain < FEW {
            // Looking again at each step would cost more than it can save.
            self.long_way = (2 * count).saturating_sub(1);
            return Ok(0);
        }
        let ends = &ends[..plain];
        self.end_rows(ends)?;
        let mut ran = Ran::default();
        for short in ends.iter().flatten() {
            let AttemptEnd { id, worker, started_us, finished_us, .. } = *short.end;
            ran.add(id, worker, [short.claimed_us, started_us, finished_us]);
            self.applied.ended.push((id, TaskState::Completed));
        }
        self.ran(&ran)?;
        self.count_ends(ends)?;
        Ok(2 * plain)
    }

    /// How many of them, from the first on, wait for nothing but this end, and for the first time. Puts those, by number, into
    /// `shares`.
    fn plain_among(&mut self, ends: &[Option<Short<'_>>]) -> rusqlite::Result<usize> {
        let mut shares = std::mem::take(&mut self.shares);
        shares.clear();
        self.sql.query_bound(
            Sql::PlainRows,
            |statement| {
                for at in 0..ROWS {
                    statement.raw_bind_parameter(at + 1, ends.get(at).copied().flatten().map(|s| s.end.id.seq()))?;
                }
                Ok(())
            },
            |row| {
                let (seq, kind, group): (u64, RowKind, u32) =
                    (row.get(0)?, stored(row, 1, RowKind::from_u8)?, row.get(2)?);
                shares.push((seq, kind, group));
                Ok(())
            },
        )?;
        let (mut seqs, mut plain) = ([0; ROWS], 0);
        for seq in ends.iter().flatten().map(|short| short.end.id.seq()) {
            // One that is named twice ends once.
            let found = shares.binary_search_by_key(&seq, |share| share.0).is_ok();
            if !found || seqs[..plain].contains(&seq) {
                break;
            }
            seqs[plain] = seq;
            plain += 1;
        }
        shares.retain(|share| seqs[..plain].contains(&share.0));
        self.shares = shares;
        Ok(plain)
    }

    fn end_rows(&mut self, ends: &[Option<Short<'_>>]) -> rusqlite::Result<()> {
        let mut brief = Vec::with_capacity(64);
        self.sql.run_bound(Sql::EndRows, |statement| {
            for at in 0..ROWS {
                let first = at * COLUMNS;
                let Some(Short { end, .. }) = ends.get(at).copied().flatten() else {
                    // A row that was bound at the last run names a task no more.
                    statement.raw_bind_parameter(first + 1, None::<u64>)?;
                    continue;
                };
                write_brief(end, &mut brief);
                statement.raw_bind_parameter(first + 1, end.id.seq())?;
                statement.raw_bind_parameter(first + 2, end.started_us)?;
                statement.raw_bind_parameter(first + 3, end.finished_us)?;
                statement.raw_bind_parameter(first + 4, end.result.as_deref())?;
                statement.raw_bind_parameter(first + 5, brief.as_slice())?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Counts the ends, and ends the arrays whose last members they were.
    fn count_ends(&mut self, ends: &[Option<Short<'_>>]) -> rusqlite::Result<()> {
        let mut shares = std::mem::take(&mut self.shares);
        let at_us = ends.iter().flatten().map(|short| short.end.finished_us).max().unwrap_or(0);
        for same in shares.chunk_by(|a, b| a.2 == b.2) {
            self.shift(same[0].2, TaskState::Pending, TaskState::Completed, same.len() as u64);
        }
        let mut members = shares.iter().filter(|share| share.1 == RowKind::Member).map(|share| share.0).peekable();
        while let Some(first) = members.next() {
            let Some(array) = self.array_of(first)? else { continue };
            let mut count = 1;
            while members.next_if(|seq| (array.seq..=array.seq + array.count).contains(seq)).is_some() {
                count += 1;
            }
            self.sql.run(Sql::MembersEnded, params![array.seq, count])?;
            if array.open <= count {
                self.end_array_if_done(array.seq, at_us)?;
            }
        }
        shares.clear();
        self.shares = shares;
        Ok(())
    }
}

/// What tells a member of the queue's tasks apart when it is counted: its number, what it is, and its limit group.
pub(super) type Share = (u64, RowKind, u32);
