//! Cancelling what is pending, and bringing whole arrays back.
//!
//! Owner: the store. An array's untouched members are cancelled by one mark on the array, not by a row each.
//! Deliberately absent: killing. What runs is the supervisor's; its end comes as `Finished`.

use acode_worker::task::{Priority, TaskId, TaskState};
use rusqlite::params;

use super::EventKind;
use super::apply::{Row, RowKind, Writer};
use super::deps::Todo;
use super::events::Draft;
use super::statements::Sql;
use super::submit::ArrayRow;

impl Writer<'_> {
    /// Cancels a task, a member or an array, as far as it is pending.
    pub(super) fn cancel(&mut self, seq: u64, keep: &[u64], reason: &str, at_us: u64) -> rusqlite::Result<()> {
        let Some(row) = self.row(seq)? else { return self.cancel_untouched(seq, reason, at_us) };
        if row.state.is_final() {
            return Ok(());
        }
        match row.kind {
            RowKind::Header => self.cancel_array(&row, keep, reason, at_us),
            RowKind::Task | RowKind::Member => self.cancel_row(&row, reason, at_us),
        }
    }

    pub(super) fn cancel_row(&mut self, row: &Row, reason: &str, at_us: u64) -> rusqlite::Result<()> {
        let none: Option<&str> = None;
        let change = params![row.id.seq(), TaskState::Cancelled as u8, at_us, 0, 0, none, reason, none, 0, 0];
        if self.sql.run(Sql::End, change)? == 0 {
            return Ok(());
        }
        self.cancel_event(row.id, None, reason, at_us)?;
        self.ended(row, TaskState::Cancelled, at_us)
    }

    fn cancel_event(&mut self, id: TaskId, count: Option<u64>, reason: &str, at_us: u64) -> rusqlite::Result<()> {
        let data = serde_json::json!({ "reason": reason }).to_string();
        let draft = Draft { task: Some(id), count, data: Some(&data), ..Draft::default() };
        self.event(EventKind::TaskCancelled, at_us, &draft)
    }

    /// A member that has no row gets one, as a cancelled one; the array passes over it later.
    fn cancel_untouched(&mut self, seq: u64, reason: &str, at_us: u64) -> rusqlite::Result<()> {
        let Some(array) = self.array_of(seq)?.filter(|a| !a.stopped && seq > a.seq + a.cursor) else { return Ok(()) };
        let Some(header) = self.row(array.seq)? else { return Ok(()) };
        self.insert_member(&header, seq)?;
        match self.row(seq)? {
            Some(row) => self.cancel_row(&row, reason, at_us),
            None => Ok(()),
        }
    }

    /// How many members have no row and never had one.
    fn untouched(&mut self, array: &ArrayRow) -> rusqlite::Result<u64> {
        let (from, to) = (array.seq + 1 + array.cursor, array.seq + array.count);
        let early: u64 = self.sql.one(Sql::RowsBetween, [from, to], |r| r.get(0))?.unwrap_or(0);
        Ok((array.count - array.cursor).saturating_sub(early))
    }

    fn cancel_array(&mut self, row: &Row, keep: &[u64], reason: &str, at_us: u64) -> rusqlite::Result<()> {
        let header = row.id.seq();
        self.stop_array(row, reason, at_us)?;
        for seq in self.touched_members(row)?.into_iter().filter(|seq| !keep.contains(seq)) {
            if let Some(member) = self.row(seq)? {
                self.cancel_row(&member, reason, at_us)?;
            }
        }
        self.end_array_if_done(header, at_us)
    }

    /// Cancels the untouched members of an array, by one mark on it.
    pub(super) fn stop_array(&mut self, row: &Row, reason: &str, at_us: u64) -> rusqlite::Result<()> {
        let header = row.id.seq();
        let Some(array) = self.array_of(header)?.filter(|a| a.seq == header && !a.stopped) else { return Ok(()) };
        let untouched = self.untouched(&array)?;
        self.sql.run(Sql::StopArray, [header, untouched])?;
        self.sql.run(Sql::StopHeader, params![header, reason])?;
        self.shift(row.group, TaskState::Pending, TaskState::Cancelled, untouched);
        if untouched > 0 {
            self.cancel_event(row.id, Some(untouched), reason, at_us)?;
        }
        Ok(())
    }

    /// The touched members of an array that have not ended: ready, delayed or held.
    pub(super) fn touched_members(&mut self, row: &Row) -> rusqlite::Result<Vec<u64>> {
        let header = row.id.seq();
        let Some(array) = self.array_of(header)?.filter(|a| a.seq == header) else { return Ok(Vec::new()) };
        let (from, to) = (header + 1, header + array.count);
        let mut touched: Vec<u64> = Vec::new();
        // Members may have aged, so they may be in any lane of their class.
        for priority in Priority::ALL {
            let stream = params![priority as u8, row.class as u8, row.group, from, to];
            touched.extend(self.sql.all(Sql::ReadyBetween, stream, |r| r.get::<_, u64>(0))?);
        }
        touched.extend(self.sql.all(Sql::DelayedBetween, [from, to], |r| r.get::<_, u64>(0))?);
        let held = params![from, to, array.count];
        touched.extend(self.sql.all(Sql::HeldBetween, held, |r| r.get::<_, u64>(0))?);
        Ok(touched)
    }

    /// Brings back every member of an array that did not complete.
    pub(super) fn retry_array(&mut self, row: &Row, at_us: u64) -> rusqlite::Result<()> {
        let header = row.id.seq();
        let Some(array) = self.array_of(header)? else { return Ok(()) };
        if array.failed + array.cancelled == 0 {
            return Ok(());
        }
        let mut blockers = row.blockers;
        if array.stopped {
            self.sql.run(Sql::UnstopArray, [header])?;
            self.shift(row.group, TaskState::Cancelled, TaskState::Pending, array.unborn);
            blockers = self.open_blockers(row)?;
            self.sql.run(Sql::SetBlockers, params![header, blockers])?;
            // One that has ended is counted when it is opened again.
            if !row.state.is_final() {
                self.ledger.blocked = self.ledger.blocked.saturating_sub(u64::from(row.blockers > 0));
                self.ledger.blocked += u64::from(blockers > 0);
            }
        }
        self.reopen_array(header)?;
        self.event(EventKind::TaskRetried, at_us, &Draft { task: Some(row.id), ..Draft::default() })?;
        if array.stopped && array.cursor < array.count && blockers == 0 {
            self.now_ready(row);
        }
        self.todo.push_back(Todo::RetryMembers { header, from: header + 1, at_us });
        Ok(())
    }

    /// A member of a stopped array that has no row: it gets one and runs, the others stay cancelled.
    pub(super) fn retry_untouched(&mut self, seq: u64, at_us: u64) -> rusqlite::Result<()> {
        let Some(array) = self.array_of(seq)?.filter(|a| a.stopped && seq > a.seq + a.cursor) else { return Ok(()) };
        let Some(header) = self.row(array.seq)? else { return Ok(()) };
        if !self.insert_member(&header, seq)? {
            return Ok(());
        }
        self.sql.run(Sql::Born, [array.seq])?;
        self.shift(header.group, TaskState::Cancelled, TaskState::Pending, 1);
        self.reopen_array(array.seq)?;
        if let Some(row) = self.row(seq)? {
            self.event(EventKind::TaskRetried, at_us, &Draft { task: Some(row.id), ..Draft::default() })?;
            self.now_ready(&row);
        }
        Ok(())
    }

    /// Makes an array's own row agree with having open members again.
    pub(super) fn reopen_array(&mut self, header: u64) -> rusqlite::Result<()> {
        let (Some(row), Some(array)) = (self.row(header)?, self.array_of(header)?) else { return Ok(()) };
        self.ledger.blocked += u64::from(row.state.is_final() && row.blockers > 0);
        let held = if array.stopped || array.cursor == array.count { 2 } else { 0 };
        self.sql.run(Sql::ReviveArray, params![header, held])?;
        Ok(())
    }
}
