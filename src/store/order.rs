//! What changes a task's turn: holding and releasing, start deadlines, ageing.
//!
//! Owner: the store. An array's untouched members are concerned through their header, the touched ones each for itself.
//! Deliberately absent: the clock, and what is published. The supervisor takes back what no worker has claimed before it
//! asks for a change here, and names in `keep` what workers hold.

use acode_worker::task::{Class, Priority, TaskState};
use rusqlite::{OptionalExtension, params};

use super::EventKind;
use super::apply::{Row, RowKind, Writer};
use super::deps::Todo;
use super::events::Draft;
use super::queue::Stream;
use super::statements::Sql;
use super::{Store, StoreError};

/// Ready tasks that are read at once in search for those that have waited for long.
const AGE_PAGE: u32 = 256;
/// A person holds the task.
pub(super) const BY_PERSON: u8 = 1;

/// Where a pass over the ready tasks stands that lets them age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgePlace {
    /// The stream that is being looked at.
    pub stream: Stream,
    /// Everything in it up to this number has been seen.
    pub seq: u64,
}

impl AgePlace {
    /// Where a pass begins: with the most urgent tasks that can become more urgent.
    pub const START: Self = Self { stream: Stream { priority: Priority::High, class: Class::Any, group: 0 }, seq: 0 };
}

/// A ready task, as ageing sees it.
struct Waiting {
    seq: u64,
    submitted_us: u64,
    ready_us: u64,
    aged: u64,
}

impl Writer<'_> {
    /// Holds a task, a member or an array, as far as it is pending and not in `keep`.
    pub(super) fn hold(&mut self, seq: u64, keep: &[u64], at_us: u64) -> rusqlite::Result<()> {
        let row = match self.row(seq)? {
            Some(row) => row,
            None => {
                let Some(row) = self.touch(seq)? else { return Ok(()) };
                row
            }
        };
        match row.kind {
            RowKind::Task | RowKind::Member if keep.contains(&seq) => Ok(()),
            RowKind::Task | RowKind::Member => self.hold_row(&row, at_us),
            RowKind::Header => {
                self.hold_row(&row, at_us)?;
                for member in self.touched_members(&row)?.into_iter().filter(|member| !keep.contains(member)) {
                    if let Some(member) = self.row(member)? {
                        self.hold_row(&member, at_us)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn hold_row(&mut self, row: &Row, at_us: u64) -> rusqlite::Result<()> {
        if self.sql.run(Sql::HoldByPerson, params![row.id.seq(), at_us])? == 0 {
            return Ok(());
        }
        self.event(EventKind::TaskHeld, at_us, &Draft { task: Some(row.id), ..Draft::default() })
    }

    /// Gives an untouched member its row, so that something can be noted about it alone.
    fn touch(&mut self, seq: u64) -> rusqlite::Result<Option<Row>> {
        let Some(array) = self.array_of(seq)?.filter(|a| !a.stopped && seq > a.seq + a.cursor) else {
            return Ok(None);
        };
        // What the array waits for as a whole its member would not know of any more.
        let waits = |header: &Row| header.blockers > 0 || header.not_before_us > 0;
        let Some(header) = self.row(array.seq)?.filter(|header| !waits(header)) else { return Ok(None) };
        self.insert_member(&header, seq)?;
        self.row(seq)
    }

    /// Takes back what `hold` did; of an array, for all of its members.
    pub(super) fn release(&mut self, seq: u64, at_us: u64) -> rusqlite::Result<()> {
        let Some(row) = self.row(seq)? else { return self.release_untouched(seq, at_us) };
        self.release_row(&row, at_us)?;
        if row.kind == RowKind::Header {
            self.todo.push_back(Todo::ReleaseMembers { header: seq, from: seq + 1, at_us });
        }
        Ok(())
    }

    /// One member of an array that is held as a whole may run; the others stay held.
    fn release_untouched(&mut self, seq: u64, at_us: u64) -> rusqlite::Result<()> {
        let Some(row) = self.touch(seq)? else { return Ok(()) };
        self.event(EventKind::TaskReleased, at_us, &Draft { task: Some(row.id), ..Draft::default() })?;
        self.now_ready(&row);
        Ok(())
    }

    fn release_row(&mut self, row: &Row, at_us: u64) -> rusqlite::Result<()> {
        if self.sql.run(Sql::ReleaseByPerson, params![row.id.seq(), at_us])? == 0 {
            return Ok(());
        }
        self.event(EventKind::TaskReleased, at_us, &Draft { task: Some(row.id), ..Draft::default() })?;
        if row.blockers == 0 && row.not_before_us == 0 && row.held & !BY_PERSON == 0 {
            self.now_ready(row);
        }
        Ok(())
    }

    pub(super) fn release_members(&mut self, header: u64, from: u64, at_us: u64) -> rusqlite::Result<()> {
        let Some(array) = self.array_of(header)? else { return Ok(()) };
        let range = params![from, header + array.count, self.budget];
        let held: Vec<u64> = self.sql.all(Sql::HeldBetween, range, |r| r.get(0))?;
        if held.len() >= self.budget {
            let next = held.last().map_or(from, |seq| seq + 1);
            self.todo.push_back(Todo::ReleaseMembers { header, from: next, at_us });
        }
        self.budget = self.budget.saturating_sub(held.len().max(1));
        for seq in held {
            if let Some(row) = self.row(seq)? {
                self.release_row(&row, at_us)?;
            }
        }
        Ok(())
    }

    /// Ends tasks whose start deadline has passed, but for those in `keep`, which have started.
    pub(super) fn expire(&mut self, due: &[u64], keep: &[u64], at_us: u64) -> rusqlite::Result<()> {
        for &seq in due {
            let Some(row) = self.row(seq)?.filter(|row| (1..=at_us).contains(&row.expires_us)) else { continue };
            if keep.contains(&seq) {
                self.sql.run(Sql::Unexpire, [seq])?;
                continue;
            }
            let reason = format!("not started by {}", moment(row.expires_us));
            match row.kind {
                RowKind::Task | RowKind::Member => self.cancel_row(&row, &reason, at_us)?,
                RowKind::Header => {
                    self.sql.run(Sql::Unexpire, [seq])?;
                    self.stop_array(&row, &reason, at_us)?;
                    self.end_array_if_done(seq, at_us)?;
                }
            }
        }
        Ok(())
    }

    /// Moves tasks up by one priority that have been ready for `after_us`, or for so long since they moved last, without
    /// being started. Looks at `limit` tasks at the most, and tells in `Applied::age_next` where to go on.
    pub(super) fn age(
        &mut self,
        now_us: u64,
        after_us: u64,
        from: AgePlace,
        keep: &[u64],
        limit: u32,
    ) -> rusqlite::Result<()> {
        let (mut place, mut left) = (from, limit);
        while left > 0 {
            let Stream { priority, class, group } = place.stream;
            let page = left.min(AGE_PAGE);
            let key = params![priority as u8, class as u8, group, place.seq, page];
            let found = self.sql.all(Sql::ReadyFrom, key, |r| {
                let submitted_us = r.get::<_, u64>(1)?.saturating_mul(1_000);
                let ready_us = r.get::<_, u64>(2)?;
                let ready_us = if ready_us == 0 { submitted_us } else { ready_us };
                Ok(Waiting { seq: r.get(0)?, submitted_us, ready_us, aged: r.get(3)? })
            })?;
            let whole = (found.len() as u32) < page;
            left = left.saturating_sub(found.len().max(1) as u32);
            let mut over = whole;
            for waiting in found {
                if waiting.submitted_us.saturating_add(after_us) > now_us {
                    // Whatever is behind it was submitted later, and cannot be due either.
                    over = true;
                    break;
                }
                place.seq = waiting.seq;
                let wait_us = after_us.saturating_mul(waiting.aged + 1);
                if waiting.ready_us.saturating_add(wait_us) <= now_us && !keep.contains(&waiting.seq) {
                    self.move_up(waiting.seq)?;
                }
            }
            if over {
                match self.next_stream(place.stream)? {
                    Some(stream) => place = AgePlace { stream, seq: 0 },
                    None => return Ok(()),
                }
            }
        }
        self.applied.age_next = Some(place);
        Ok(())
    }

    fn move_up(&mut self, seq: u64) -> rusqlite::Result<()> {
        if self.sql.run(Sql::MoveUp, [seq])? > 0
            && let Some(row) = self.row(seq)?
        {
            self.applied.aged.push(row.id);
            self.now_ready(&row);
        }
        Ok(())
    }

    /// The stream behind this one in which something is ready and may age.
    fn next_stream(&mut self, after: Stream) -> rusqlite::Result<Option<Stream>> {
        let lanes = Priority::ALL.into_iter().flat_map(|p| Class::ALL.into_iter().map(move |class| (p, class)));
        for (priority, class) in lanes.filter(|lane| *lane >= (after.priority, after.class)) {
            let from = if (priority, class) == (after.priority, after.class) { i64::from(after.group) } else { -1 };
            let found = self.sql.one(Sql::NextGroup, params![priority as u8, class as u8, from], |r| r.get(0))?;
            if let Some(group) = found {
                return Ok(Some(Stream { priority, class, group }));
            }
        }
        Ok(None)
    }
}

/// A moment for people, in UTC.
fn moment(us: u64) -> String {
    let stamp = jiff::Timestamp::from_microsecond(i64::try_from(us).unwrap_or(i64::MAX));
    stamp.map_or_else(|_| format!("{us} us"), |stamp| stamp.to_string())
}

impl Store {
    /// When the next start deadline passes, in microseconds of Unix time.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn next_expiry(&self) -> Result<Option<u64>, StoreError> {
        self.read(|conn| {
            conn.prepare_cached(
                "SELECT min(expires_us) FROM task INDEXED BY task_expires WHERE state = 0 AND expires_us > 0",
            )?
            .query_row([], |r| r.get(0))
        })
    }

    /// The numbers of tasks whose start deadline has passed, at most `limit`.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT seq FROM task INDEXED BY task_expires WHERE state = 0 AND expires_us > 0 AND expires_us <= ?1
                 ORDER BY expires_us LIMIT ?2",
            )?;
            statement.query_map(params![now_us, limit], |r| r.get(0))?.collect()
        })
    }

    /// How many tasks are ready in a task's lane and come before it by number, at most `limit`; those that run now are
    /// among them, and members of arrays count one by one.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn ahead(&self, stream: Stream, seq: u64, limit: u64) -> Result<u64, StoreError> {
        self.read(|conn| {
            let mut groups = conn.prepare_cached("SELECT id FROM grp WHERE open > 0")?;
            let groups = groups.query_map([], |r| r.get(0))?.collect::<Result<Vec<u32>, _>>()?;
            let mut count = conn.prepare_cached(
                "SELECT coalesce(sum(CASE kind WHEN 1 THEN (SELECT count - cursor FROM array WHERE array.seq = found.seq)
                 ELSE 1 END), 0) FROM (SELECT seq, kind FROM task INDEXED BY task_ready WHERE state = 0 AND blockers = 0
                 AND not_before_us = 0 AND held = 0 AND priority = ?1 AND class = ?2 AND grp = ?3 AND seq < ?4
                 LIMIT ?5) AS found",
            )?;
            let mut ahead = 0_u64;
            for group in std::iter::once(0).chain(groups) {
                let key = params![stream.priority as u8, stream.class as u8, group, seq, limit - ahead.min(limit)];
                ahead = ahead.saturating_add(count.query_row(key, |r| r.get(0)).optional()?.unwrap_or(0));
                if ahead >= limit {
                    break;
                }
            }
            Ok(ahead.min(limit))
        })
    }
}

impl Row {
    /// The row as it stands when it begins to wait anew: as urgent as it was asked for.
    pub(super) fn unaged(mut self) -> Self {
        let priority = (self.priority as u8).saturating_add(self.aged);
        self.priority = Priority::from_u8(priority).unwrap_or(Priority::Low);
        self.aged = 0;
        self
    }

    /// Whether only its turn is missing.
    pub(super) fn is_ready(&self) -> bool {
        self.state == TaskState::Pending && self.blockers == 0 && self.not_before_us == 0 && self.held == 0
    }
}
