//! Limit groups: their names, limits, and how many of their tasks have not ended.
//!
//! Owner: the store. A group comes into being with the first submission that names it, or when its limit is set, and
//! stays. Deliberately absent: keeping the limit, which is the dispatcher's, and what the configuration says about it.

use acode_worker::task::{GroupWish, TaskId, TaskState};
use rusqlite::params;

use super::apply::Writer;
use super::statements::Sql;
use super::{Store, StoreError, SubmitError};

/// The most groups of one queue: all of them are held in memory.
pub const GROUPS_MAX: u64 = 10_000;

/// A limit group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number, from 1.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The most tasks of it at once, as submitters and persons said; `None` for as many as there are.
    pub max: Option<u32>,
    /// Since when nothing of it is started, by a person's wish, in microseconds of Unix time; 0 if it is.
    pub held_us: u64,
    /// Its tasks that have not ended, those that run included; members of arrays counted one by one.
    pub open: u64,
}

/// What is to become of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    /// Its name.
    pub name: String,
    /// Its limit from now on, `Some(None)` for none; `None` to leave it as it is.
    pub max: Option<Option<u32>>,
    /// Whether it is held from now on; `None` to leave it as it is.
    pub held: Option<bool>,
}

impl Writer<'_> {
    /// The number of a group that a submission names; its limit is what the submission says, if it says anything.
    pub(super) fn group_of(&mut self, wish: &GroupWish) -> rusqlite::Result<Result<u32, SubmitError>> {
        let change = GroupChange { name: wish.name.clone(), max: wish.max.map(Some), held: None };
        self.change_group(&change, 0)
    }

    /// Makes a group what it is to be, and makes it if there is none of this name.
    pub(super) fn change_group(
        &mut self,
        change: &GroupChange,
        at_us: u64,
    ) -> rusqlite::Result<Result<u32, SubmitError>> {
        let found = self.sql.one(Sql::GroupByName, [&change.name], |r| {
            Ok(Group { id: r.get(0)?, name: change.name.clone(), max: r.get(1)?, held_us: r.get(2)?, open: 0 })
        })?;
        let (old, mut group) = match found {
            Some(group) => (Some(group.clone()), group),
            None => {
                let count: u64 = self.sql.one(Sql::CountGroups, [], |r| r.get(0))?.unwrap_or(0);
                if count >= GROUPS_MAX {
                    return Ok(Err(SubmitError::TooManyGroups(change.name.clone())));
                }
                let id = self.sql.one(Sql::InsertGroup, [&change.name], |r| r.get(0))?.unwrap_or(0);
                (None, Group { id, name: change.name.clone(), max: None, held_us: 0, open: 0 })
            }
        };
        group.max = change.max.unwrap_or(group.max);
        group.held_us = match change.held {
            None => group.held_us,
            Some(false) => 0,
            Some(true) if group.held_us > 0 => group.held_us,
            Some(true) => at_us,
        };
        if old.as_ref() != Some(&group) {
            self.sql.run(Sql::SaveGroup, params![group.id, group.max, group.held_us])?;
            let id = group.id;
            self.applied.groups.retain(|known| known.id != id);
            self.applied.groups.push(group);
            return Ok(Ok(id));
        }
        Ok(Ok(group.id))
    }

    /// Moves `n` tasks of a group from one state to another.
    pub(super) fn shift(&mut self, group: u32, from: TaskState, to: TaskState, n: u64) {
        self.ledger.counts.shift(from, to, n);
        if to.is_final() {
            *self.applied.settled.of(to) += n;
        }
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        match (from.is_final(), to.is_final()) {
            (false, true) => self.count_open(group, -n),
            (true, false) => self.count_open(group, n),
            (false, false) | (true, true) => {}
        }
    }

    /// Notes that so many more tasks of a group have not ended.
    pub(super) fn count_open(&mut self, group: u32, more: i64) {
        if group != 0 {
            *self.group_counts.entry(group).or_insert(0) += more;
        }
    }

    /// Writes how many tasks of each group have not ended.
    pub(super) fn save_group_counts(&mut self) -> rusqlite::Result<()> {
        for (group, more) in std::mem::take(&mut self.group_counts) {
            self.sql.run(Sql::CountOpen, params![group, more])?;
        }
        Ok(())
    }
}

impl Store {
    /// All groups, by name.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn groups(&self) -> Result<Vec<Group>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached("SELECT id, name, max, held_us, open FROM grp ORDER BY name")?;
            let group = |r: &rusqlite::Row<'_>| {
                Ok(Group { id: r.get(0)?, name: r.get(1)?, max: r.get(2)?, held_us: r.get(3)?, open: r.get(4)? })
            };
            statement.query_map([], group)?.collect()
        })
    }

    /// The tasks and arrays of a group that have not ended, the youngest first, at most `limit`. An array stands for its
    /// members.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn open_in_group(&self, group: u32, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT submitted_ms, seq FROM task INDEXED BY task_group WHERE grp = ?1 AND grp > 0 AND state = 0
                 AND kind <> 2 ORDER BY seq DESC LIMIT ?2",
            )?;
            statement.query_map(params![group, limit], |r| Ok(self.id(r.get(0)?, r.get(1)?)))?.collect()
        })
    }
}
