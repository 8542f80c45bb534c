//! Accepting tasks and arrays, and giving rows to an array's members.
//!
//! Owner: the store. The hot path is one INSERT for a task and nothing else: dependencies, items and events cost only
//! where there are any. Deliberately absent: validation of the specification itself, which is the vocabulary's.

use std::collections::HashSet;

use acode_worker::task::{Array, Class, DependencyKind, Priority, TaskId, TaskState};
use rusqlite::params;

use super::apply::{HAS_DEPENDENCIES, READS_COPY, Row, RowKind, Writer};
use super::deps::{Condition, condition};
use super::events::Draft;
use super::op::{NewTask, check_size};
use super::statements::Sql;
use super::{COPY_MARK, EventKind, Store, StoreError, SubmitError};

/// The changing part of an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArrayRow {
    pub(super) seq: u64,
    pub(super) count: u64,
    pub(super) cursor: u64,
    pub(super) stopped: bool,
    pub(super) open: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) unborn: u64,
}

impl Writer<'_> {
    /// The array whose numbers cover `seq`, its own or a member's.
    pub(super) fn array_of(&mut self, seq: u64) -> rusqlite::Result<Option<ArrayRow>> {
        let found = self.sql.one(Sql::ArrayOf, [seq], |r| {
            Ok(ArrayRow {
                seq: r.get(0)?,
                count: r.get(1)?,
                cursor: r.get(2)?,
                stopped: r.get(3)?,
                open: r.get(4)?,
                failed: r.get(5)?,
                cancelled: r.get(6)?,
                unborn: r.get(7)?,
            })
        })?;
        Ok(found.filter(|array| seq <= array.seq + array.count))
    }

    /// Accepts one task or array, or notes why not.
    pub(super) fn submit(&mut self, new: &NewTask) -> rusqlite::Result<()> {
        if let Err(why) = self.admissible(new) {
            self.applied.rejected.push((new.id, why));
            return Ok(());
        }
        if new.dependencies.is_empty() {
            self.insert_task(new, 0, 0)?;
            return Ok(());
        }
        let mut edges = Vec::with_capacity(new.dependencies.len());
        let mut unmet: HashSet<(u64, DependencyKind)> = HashSet::new();
        let mut doomed = None;
        for &(on, kind) in &new.dependencies {
            let blocker = match self.blocker(on)? {
                Ok(blocker) => blocker,
                Err(why) => {
                    self.applied.rejected.push((new.id, why));
                    return Ok(());
                }
            };
            match condition(kind, blocker.state) {
                Condition::Open => {
                    unmet.insert((on.seq(), kind));
                }
                Condition::Met => {}
                Condition::Impossible => doomed = doomed.or(Some((on, kind, blocker.state))),
            }
            edges.push((on.seq(), kind));
        }
        if !self.insert_task(new, unmet.len(), HAS_DEPENDENCIES)? {
            return Ok(());
        }
        for (blocker, kind) in edges {
            let open = unmet.contains(&(blocker, kind));
            self.sql.run(Sql::InsertDep, params![blocker, new.id.seq(), kind as u8, !open])?;
            if open {
                self.sql.run(Sql::MarkBlocker, [blocker])?;
            }
        }
        match doomed {
            Some((on, kind, state)) => self.cancel_dependent(new.id.seq(), on, kind, state, new.at_us),
            None => Ok(()),
        }
    }

    fn admissible(&self, new: &NewTask) -> Result<(), SubmitError> {
        if new.id.queue() != self.tag {
            return Err(SubmitError::ForeignId(new.id));
        }
        new.array.as_ref().map_or(Ok(()), check_size)
    }

    /// What a dependency is on, if it can be depended on.
    fn blocker(&mut self, on: TaskId) -> rusqlite::Result<Result<Row, SubmitError>> {
        let found = if on.queue() == self.tag { self.row(on.seq())?.filter(|row| row.id == on) } else { None };
        Ok(match found {
            Some(row) => match row.kind {
                RowKind::Task | RowKind::Header => Ok(row),
                RowKind::Member => Err(SubmitError::MemberDependency(on)),
            },
            None => match self.array_of(on.seq())? {
                Some(_) if on.queue() == self.tag => Err(SubmitError::MemberDependency(on)),
                Some(_) | None => Err(SubmitError::UnknownDependency(on)),
            },
        })
    }

    /// Writes the rows of a task or array; false if they were there already.
    fn insert_task(&mut self, new: &NewTask, blockers: usize, flags: u8) -> rusqlite::Result<bool> {
        let (seq, ms) = (new.id.seq(), new.id.millis());
        let kind = if new.array.is_some() { RowKind::Header } else { RowKind::Task };
        let (priority, class) = (new.priority as u8, new.class as u8);
        let spec = Some(new.spec_json.as_str());
        // A mark in something else than the file's path does no harm: the sweep reads the path.
        let flags = if new.spec_json.contains(COPY_MARK) { flags | READS_COPY } else { flags };
        let row = params![seq, kind as u8, priority, class, blockers, new.not_before_us, flags, ms, spec];
        if self.sql.run(Sql::InsertTask, row)? == 0 {
            return Ok(false);
        }
        self.ledger.next_seq = self.ledger.next_seq.max(seq + new.span());
        self.ledger.last_ms = self.ledger.last_ms.max(ms);
        let Some(array) = &new.array else {
            self.ledger.counts.pending += 1;
            self.submitted(new.id, new.at_us)?;
            return Ok(true);
        };
        let first = match array {
            Array::Range { first, .. } => Some(*first),
            Array::Items(items) => {
                for (idx, text) in items.iter().enumerate() {
                    self.sql.run(Sql::InsertItem, params![seq, idx, text])?;
                }
                None
            }
        };
        self.sql.run(Sql::InsertArray, params![seq, array.len(), first])?;
        self.ledger.counts.pending += array.len();
        let draft = Draft { task: Some(new.id), count: Some(array.len()), ..Draft::default() };
        self.event(EventKind::ArraySubmitted, new.at_us, &draft)?;
        Ok(true)
    }

    /// Gives rows to the members before index `to` that have none yet.
    pub(super) fn expand(&mut self, header: u64, to: u64) -> rusqlite::Result<()> {
        let (Some(row), Some(array)) = (self.row(header)?, self.array_of(header)?.filter(|a| a.seq == header)) else {
            return Ok(());
        };
        let to = to.min(array.count);
        if to <= array.cursor || array.stopped || row.state.is_final() {
            return Ok(());
        }
        for index in array.cursor..to {
            self.insert_member(&row, header + 1 + index)?;
        }
        self.sql.run(Sql::ExpandTo, [header, to])?;
        if to == array.count {
            self.sql.run(Sql::Hold, params![header, 2])?;
        }
        Ok(())
    }

    /// Gives one member its row, as pending. False if it has one.
    pub(super) fn insert_member(&mut self, header: &Row, seq: u64) -> rusqlite::Result<bool> {
        let (priority, class): (Priority, Class) = (header.priority, header.class);
        let ms = header.id.millis();
        let none: Option<&str> = None;
        let row = params![seq, RowKind::Member as u8, priority as u8, class as u8, 0, 0, 0, ms, none];
        Ok(self.sql.run(Sql::InsertTask, row)? > 0)
    }
}

impl Store {
    /// Whether every entry of a request would be accepted; what it depends on may be in the queue, or come earlier in
    /// the request. Writes nothing.
    ///
    /// # Errors
    /// The queue could not be read. The inner error is the first entry's that would be refused.
    pub fn check(&self, entries: &[NewTask]) -> Result<Result<(), (TaskId, SubmitError)>, StoreError> {
        let mut earlier = HashSet::new();
        for new in entries {
            let refused = if new.id.queue() != self.tag {
                Some(SubmitError::ForeignId(new.id))
            } else {
                new.array.as_ref().and_then(|a| check_size(a).err())
            };
            if let Some(why) = refused {
                return Ok(Err((new.id, why)));
            }
            for &(on, _) in new.dependencies.iter().filter(|(on, _)| !earlier.contains(on)) {
                if let Some(why) = self.refuses(on)? {
                    return Ok(Err((new.id, why)));
                }
            }
            earlier.insert(new.id);
        }
        Ok(Ok(()))
    }

    /// Why nothing can depend on this id, if so.
    fn refuses(&self, on: TaskId) -> Result<Option<SubmitError>, StoreError> {
        Ok(match self.get(on)? {
            Some(found) => match found.kind {
                super::TaskKind::Task | super::TaskKind::Array(_) => None,
                super::TaskKind::Member { .. } => Some(SubmitError::MemberDependency(on)),
            },
            None => Some(SubmitError::UnknownDependency(on)),
        })
    }
}

/// The state of an array all of whose members have ended.
pub(super) fn outcome(array: &ArrayRow) -> TaskState {
    match (array.failed, array.cancelled) {
        (0, 0) => TaskState::Completed,
        (0, _) => TaskState::Cancelled,
        (_, _) => TaskState::Failed,
    }
}
