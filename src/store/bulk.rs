//! Accepting tasks many at a time: what most of a large submission are, rows and nothing else.
//!
//! Owner: the store. A statement opens the table and every index of it anew each time it runs, which costs as much as a
//! row; so a run of such tasks shares one. Deliberately absent: whatever needs a look at something else than its own row.

use super::COPY_MARK;
use super::apply::{HAS_HOOK, READS_COPY, Writer};
use super::op::{NewTask, Op};
use super::statements::Sql;

/// Rows of one statement.
const ROWS: usize = 16;

/// The text of that statement.
macro_rules! insert_rows {
    () => {
        concat!(
            "INSERT INTO task(seq, kind, state, priority, class, blockers, not_before_us, flags, submitted_ms, spec, name)
             VALUES(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),",
            "(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),",
            "(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),",
            "(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?),(?,0,0,?,?,0,?,?,?,?,?)"
        )
    };
}
pub(super) use insert_rows;

/// Members of an array that one statement gives their rows.
pub(super) const MEMBERS: u64 = 32;

/// The text of that statement: the first number, priority, class, time of submission, group, start deadline, age.
macro_rules! member_rows {
    () => {
        member_rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    ($first:literal $($next:literal)*) => {
        concat!(
            "INSERT OR IGNORE INTO task(seq, kind, state, priority, class, submitted_ms, grp, expires_us, aged) VALUES
             (?1 + ", $first, ", 2, 0, ?2, ?3, ?4, ?5, ?6, ?7)",
            $(",(?1 + ", $next, ", 2, 0, ?2, ?3, ?4, ?5, ?6, ?7)"),*
        )
    };
}
pub(super) use member_rows;

impl Writer<'_> {
    /// Accepts the tasks that `ops` begin with, if they are enough for one statement and need nothing but their rows;
    /// answers how many operations that was.
    pub(super) fn submit_many(&mut self, ops: &[Op]) -> rusqlite::Result<usize> {
        let Some(ops) = ops.get(..ROWS) else { return Ok(0) };
        let mut tasks = [None; ROWS];
        let mut after = 0;
        for (place, op) in tasks.iter_mut().zip(ops) {
            let Some(task) = self.plain(op).filter(|task| task.id.seq() > after) else { return Ok(0) };
            after = task.id.seq();
            *place = Some(task);
        }
        let first = tasks[0].map_or(after, |task| task.id.seq());
        // A batch that comes again finds its rows: they are looked at one by one.
        if self.sql.one(Sql::AnyBetween, [first, after], |_| Ok(()))?.is_some() {
            return Ok(0);
        }
        self.sql.run_bound(Sql::InsertRows, |statement| {
            for (row, task) in tasks.iter().flatten().enumerate() {
                let at = row * 8;
                statement.raw_bind_parameter(at + 1, task.id.seq())?;
                statement.raw_bind_parameter(at + 2, task.priority as u8)?;
                statement.raw_bind_parameter(at + 3, task.class as u8)?;
                statement.raw_bind_parameter(at + 4, task.not_before_us)?;
                statement.raw_bind_parameter(at + 5, flags_of(task))?;
                statement.raw_bind_parameter(at + 6, task.id.millis())?;
                statement.raw_bind_parameter(at + 7, task.spec_json.as_str())?;
                statement.raw_bind_parameter(at + 8, task.name.as_deref())?;
            }
            Ok(())
        })?;
        for task in tasks.iter().flatten() {
            self.ledger.last_ms = self.ledger.last_ms.max(task.id.millis());
            self.submitted(task.id, task.at_us)?;
        }
        self.ledger.next_seq = self.ledger.next_seq.max(after + 1);
        self.ledger.counts.pending += ROWS as u64;
        Ok(ROWS)
    }

    /// The task of an operation that accepts one and touches nothing but its row.
    fn plain<'o>(&self, op: &'o Op) -> Option<&'o NewTask> {
        let Op::Submit(task) = op else { return None };
        let alone = task.array.is_none() && task.dependencies.is_empty() && task.group.is_none() && task.key.is_none();
        let plain = alone && !task.held && task.expires_us == 0 && task.id.queue() == self.tag;
        plain.then_some(&**task)
    }
}

/// What is noted of a task as it is accepted, without dependencies.
pub(super) fn flags_of(task: &NewTask) -> u8 {
    // A mark in something else than the file's path does no harm: the sweep reads the path.
    let reads_copy = if task.spec_json.contains(COPY_MARK) { READS_COPY } else { 0 };
    reads_copy | if task.hooked { HAS_HOOK } else { 0 }
}
