//! Accepting tasks and arrays, and giving rows to an array's members.
//!
//! Owner: the store. The hot path is one INSERT for a task and nothing else: dependencies, items and events cost only
//! where there are any. Deliberately absent: validation of the specification itself, which is the vocabulary's.

use std::collections::HashSet;

use acode_worker::task::{Array, Class, DependencyKind, Priority, TaskId, TaskState};
use rusqlite::{OptionalExtension, params};

use super::apply::{HAS_DEPENDENCIES, Row, RowKind, Writer, stored};
use super::bulk::{MEMBERS, flags_of};
use super::deps::{Condition, condition};
use super::events::Draft;
use super::op::{NewTask, check_size};
use super::statements::Sql;
use super::{EventKind, Store, StoreError, SubmitError};

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
        if let Some(why) = self.inadmissible(new)? {
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
                Condition::Impossible => doomed = doomed.or(Some((blocker, kind))),
            }
            edges.push((on.seq(), kind));
        }
        if !self.insert_task(new, unmet.len(), HAS_DEPENDENCIES)? {
            return Ok(());
        }
        for (blocker, kind) in edges {
            let open = unmet.contains(&(blocker, kind));
            self.sql.run(Sql::InsertDep, params![blocker, new.id.seq(), kind as u8, !open])?;
        }
        match doomed {
            Some((blocker, kind)) => self.cancel_dependent(new.id.seq(), &blocker, kind, new.at_us),
            None => Ok(()),
        }
    }

    /// Why a submission cannot be accepted, if so.
    fn inadmissible(&mut self, new: &NewTask) -> rusqlite::Result<Option<SubmitError>> {
        if new.id.queue() != self.tag {
            return Ok(Some(SubmitError::ForeignId(new.id)));
        }
        if let Some(key) = &new.key {
            let tag = self.tag;
            let holder = self.sql.one(Sql::KeyHolder, [key], |r| Ok(TaskId::new(r.get(1)?, tag, r.get(0)?)))?;
            // Its own, if it comes a second time.
            if let Some(holder) = holder.filter(|holder| *holder != new.id) {
                return Ok(Some(SubmitError::KeyExists(key.clone(), holder)));
            }
        }
        Ok(new.array.as_ref().and_then(|array| check_size(array).err()))
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
    pub(super) fn insert_task(&mut self, new: &NewTask, blockers: usize, flags: u8) -> rusqlite::Result<bool> {
        let (seq, ms) = (new.id.seq(), new.id.millis());
        let group = match &new.group {
            None => 0,
            Some(wish) => match self.group_of(wish)? {
                Ok(group) => group,
                Err(why) => {
                    self.applied.rejected.push((new.id, why));
                    return Ok(false);
                }
            },
        };
        let kind = if new.array.is_some() { RowKind::Header } else { RowKind::Task };
        let (priority, class) = (new.priority as u8, new.class as u8);
        let (spec, name, key) = (Some(new.spec_json.as_str()), new.name.as_deref(), new.key.as_deref());
        let flags = flags | flags_of(new);
        let (held, expires_us) = (new.held, new.expires_us);
        let (kind, delay) = (kind as u8, new.not_before_us);
        // What most tasks do not use costs them nothing.
        let plain = group == 0 && !held && expires_us == 0 && name.is_none() && key.is_none();
        let inserted = if plain {
            self.sql.run(Sql::InsertPlain, params![seq, kind, priority, class, blockers, delay, flags, ms, spec])?
        } else {
            #[rustfmt::skip]
            let row = params![
                seq, kind, priority, class, blockers, delay, flags, ms, spec, name, key, group, held, expires_us, 0
            ];
            self.sql.run(Sql::InsertTask, row)?
        };
        if inserted == 0 {
            return Ok(false);
        }
        self.ledger.blocked += u64::from(blockers > 0);
        self.ledger.next_seq = self.ledger.next_seq.max(seq + new.span());
        self.ledger.last_ms = self.ledger.last_ms.max(ms);
        self.count_open(group, i64::try_from(new.span()).map_or(0, |span| (span - 1).max(1)));
        if group != 0
            && let Some(row) = self.row(seq)?.filter(Row::is_ready)
        {
            // The supervisor cannot know the number of a group that has just come into being.
            self.now_ready(&row);
        }
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
        let mut next = array.cursor;
        while to - next >= MEMBERS {
            self.insert_members(&row, header + 1 + next)?;
            next += MEMBERS;
        }
        for index in next..to {
            self.insert_member(&row, header + 1 + index)?;
        }
        self.sql.run(Sql::ExpandTo, [header, to])?;
        if to == array.count {
            self.sql.run(Sql::Hold, params![header, 2])?;
        }
        Ok(())
    }

    /// Gives as many members their rows as one statement does; those that have one keep it.
    fn insert_members(&mut self, header: &Row, seq: u64) -> rusqlite::Result<()> {
        let &Row { id, priority, class, group, expires_us, aged, .. } = header;
        let rows = params![seq, priority as u8, class as u8, id.millis(), group, expires_us, aged];
        self.sql.run(Sql::MemberRows, rows)?;
        Ok(())
    }

    /// Gives one member its row, as pending. False if it has one.
    pub(super) fn insert_member(&mut self, header: &Row, seq: u64) -> rusqlite::Result<bool> {
        let (priority, class): (Priority, Class) = (header.priority, header.class);
        let ms = header.id.millis();
        let none: Option<&str> = None;
        let (group, expires_us, aged) = (header.group, header.expires_us, header.aged);
        let row = params![
            seq,
            RowKind::Member as u8,
            priority as u8,
            class as u8,
            0,
            0,
            0,
            ms,
            none,
            none,
            none,
            group,
            0,
            expires_us,
            aged
        ];
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
        // Not the whole record: a task may wait for a hundred thousand others.
        let kind = self.read(|conn| {
            let mut row = conn.prepare_cached("SELECT kind FROM task WHERE seq = ?1 AND submitted_ms = ?2")?;
            row.query_row([on.seq(), on.millis()], |r| stored(r, 0, RowKind::from_u8)).optional()
        })?;
        Ok(match kind.filter(|_| on.queue() == self.tag) {
            Some(RowKind::Task | RowKind::Header) => None,
            Some(RowKind::Member) => Some(SubmitError::MemberDependency(on)),
            None if self.get(on)?.is_some() => Some(SubmitError::MemberDependency(on)),
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
