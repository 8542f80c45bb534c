//! Dependencies: what follows for others when a task or an array ends.
//!
//! Owner: the store. The graph is walked with a queue, never by recursion, and at most `BUDGET` edges per transaction;
//! what is left over is kept in the table `todo`, in the same transaction, so that a crash loses none of it. A task that
//! is cancelled because of a dependency remembers that one, and the end further up to which all of it goes back.
//! Deliberately absent: cycles. A submission can only name what is in the queue already.

use acode_worker::task::{DependencyKind, TaskId, TaskState};
use rusqlite::{OptionalExtension, params};

use super::apply::{Row, RowKind, Writer, stored};
use super::statements::Sql;
use super::{Store, StoreError};

/// Work that may take more than one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Todo {
    /// Count down, or cancel, those that wait for `blocker`, from behind number `after` on.
    TellDependents { blocker: u64, after: u64, at_us: u64 },
    /// Retry the members of `header` from number `from` on.
    RetryMembers { header: u64, from: u64, at_us: u64 },
    /// Release the members of `header` from number `from` on.
    ReleaseMembers { header: u64, from: u64, at_us: u64 },
}

/// The fewest edges that are looked at: more than the ways in which one task can wait for another.
const EDGES_MIN: usize = 4;

/// How a dependency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// The blocker has not ended.
    Open,
    /// It ended as wanted.
    Met,
    /// It ended otherwise.
    Impossible,
}

/// How a dependency of this kind stands on a blocker in this state.
pub(super) fn condition(kind: DependencyKind, state: TaskState) -> Condition {
    match (kind, state) {
        (_, TaskState::Pending | TaskState::Assigned | TaskState::Running) => Condition::Open,
        (DependencyKind::Ended, _) | (DependencyKind::Succeeded, TaskState::Completed) => Condition::Met,
        (DependencyKind::Failed, TaskState::Failed | TaskState::Timeout | TaskState::Cancelled) => Condition::Met,
        (DependencyKind::Succeeded, TaskState::Failed | TaskState::Timeout | TaskState::Cancelled)
        | (DependencyKind::Failed, TaskState::Completed) => Condition::Impossible,
    }
}

/// Why a task cannot start any more, in words.
fn broken(blocker: &Row, kind: DependencyKind, root: &Row) -> String {
    let wanted = match kind {
        DependencyKind::Succeeded => "it was to complete",
        DependencyKind::Ended => "it was to end",
        DependencyKind::Failed => "it was to fail",
    };
    let ended = |row: &Row| format!("{} {}", row.id, how(row.state));
    let origin = if root.id == blocker.id { String::new() } else { format!("; root cause: {}", ended(root)) };
    format!("dependency {}: {wanted}{origin}", ended(blocker))
}

/// How something ended, as the rest of a sentence about it.
pub fn how(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending | TaskState::Assigned | TaskState::Running => "has not ended",
        TaskState::Completed => "completed",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "was cancelled",
        TaskState::Timeout => "timed out",
    }
}

impl Writer<'_> {
    /// Works off what there is to do, as far as the budget goes.
    pub(super) fn work_off(&mut self) -> rusqlite::Result<()> {
        while self.budget > 0 {
            let Some(todo) = self.todo.pop_front() else { return Ok(()) };
            match todo {
                Todo::TellDependents { blocker, after, at_us } => self.tell_dependents(blocker, after, at_us)?,
                Todo::RetryMembers { header, from, at_us } => self.retry_members(header, from, at_us)?,
                Todo::ReleaseMembers { header, from, at_us } => self.release_members(header, from, at_us)?,
            }
        }
        Ok(())
    }

    fn tell_dependents(&mut self, blocker: u64, after: u64, at_us: u64) -> rusqlite::Result<()> {
        let most = self.budget.max(EDGES_MIN);
        let mut edges: Vec<(u64, DependencyKind)> = self.sql.all(Sql::Unmet, params![blocker, after, most], |r| {
            Ok((r.get(0)?, stored(r, 1, DependencyKind::from_u8)?))
        })?;
        let Some(&(last, _)) = edges.last() else { return Ok(()) };
        // A blocker that runs again by a person's wish tells its dependents when it ends the next time.
        let Some(row) = self.row(blocker)?.filter(|row| row.state.is_final()) else { return Ok(()) };
        let mut told = last;
        self.budget = self.budget.saturating_sub(edges.len());
        if edges.len() >= most {
            // There may be more of the last one, which waits in more than one way: it is told of all of them at once.
            edges.retain(|(dependent, _)| *dependent != last);
            told = last - 1;
            self.todo.push_front(Todo::TellDependents { blocker, after: told, at_us });
        }
        self.sql.run(Sql::Meet, [blocker, after, told])?;
        for (dependent, kind) in edges {
            match condition(kind, row.state) {
                Condition::Met => self.unblock(dependent, at_us)?,
                Condition::Impossible => self.cancel_dependent(dependent, &row, kind, at_us)?,
                Condition::Open => {}
            }
        }
        Ok(())
    }

    fn unblock(&mut self, dependent: u64, at_us: u64) -> rusqlite::Result<()> {
        let row = self.row_by(Sql::Unblock, dependent, params![dependent, at_us])?;
        let Some(row) = row.filter(|row| row.blockers == 0) else { return Ok(()) };
        self.ledger.blocked = self.ledger.blocked.saturating_sub(1);
        if row.is_ready() {
            self.now_ready(&row);
        }
        Ok(())
    }

    /// Cancels a task whose dependency can no longer be met, and says to which end that goes back.
    pub(super) fn cancel_dependent(
        &mut self,
        dependent: u64,
        blocker: &Row,
        kind: DependencyKind,
        at_us: u64,
    ) -> rusqlite::Result<()> {
        if self.row(dependent)?.is_none_or(|row| row.state.is_final()) {
            return Ok(());
        }
        let cause: Option<u64> = self.sql.one(Sql::Cause, [blocker.id.seq()], |r| r.get(0))?;
        // If the first of the chain is not kept any more, it begins with this one for all that can be told.
        let root = match cause {
            Some(seq) => self.row(seq)?.unwrap_or(*blocker),
            None => *blocker,
        };
        self.cancel(dependent, &[], &broken(blocker, kind, &root), at_us)?;
        self.sql.run(Sql::SetCause, params![dependent, blocker.id.seq(), root.id.seq()])?;
        Ok(())
    }

    fn retry_members(&mut self, header: u64, from: u64, at_us: u64) -> rusqlite::Result<()> {
        let Some(array) = self.array_of(header)? else { return Ok(()) };
        let range = params![from, header + array.count, self.budget];
        let ended: Vec<(u64, u8)> = self.sql.all(Sql::EndedBetween, range, |r| Ok((r.get(0)?, r.get(1)?)))?;
        if ended.len() >= self.budget {
            let next = ended.last().map_or(from, |(seq, _)| seq + 1);
            self.todo.push_back(Todo::RetryMembers { header, from: next, at_us });
        }
        self.budget = self.budget.saturating_sub(ended.len().max(1));
        for (seq, _) in ended.into_iter().filter(|(_, state)| *state != TaskState::Completed as u8) {
            if let Some(row) = self.row(seq)?.filter(|row| row.kind == RowKind::Member) {
                self.retry_row(&row, at_us)?;
            }
        }
        Ok(())
    }

    /// Takes up what an earlier transaction left.
    pub(super) fn load_todo(&mut self) -> rusqlite::Result<()> {
        const AT_ONCE: u32 = 1_000;
        let left: Vec<(u8, u64, u64, u64)> =
            self.sql.all(Sql::LoadTodo, [AT_ONCE], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        for (kind, seq, pos, at_us) in left {
            self.sql.run(Sql::DropTodo, params![kind, seq])?;
            self.todo.push_back(match kind {
                0 => Todo::TellDependents { blocker: seq, after: pos, at_us },
                2 => Todo::ReleaseMembers { header: seq, from: pos, at_us },
                _ => Todo::RetryMembers { header: seq, from: pos, at_us },
            });
        }
        Ok(())
    }

    /// Leaves to a later transaction what this one did not get to.
    pub(super) fn save_todo(&mut self) -> rusqlite::Result<()> {
        while let Some(todo) = self.todo.pop_front() {
            let row = match todo {
                Todo::TellDependents { blocker, after, at_us } => [0, blocker, after, at_us],
                Todo::RetryMembers { header, from, at_us } => [1, header, from, at_us],
                Todo::ReleaseMembers { header, from, at_us } => [2, header, from, at_us],
            };
            self.sql.run(Sql::SaveTodo, row)?;
        }
        self.applied.more = self.sql.one(Sql::AnyTodo, [], |_| Ok(()))?.is_some();
        Ok(())
    }
}

impl Store {
    /// Whether somebody waits for this task.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn has_dependents(&self, id: TaskId) -> Result<bool, StoreError> {
        self.read(|conn| {
            let mut edge = conn.prepare_cached("SELECT 1 FROM dep WHERE blocker = ?1 AND met = 0 LIMIT 1")?;
            Ok(edge.query_row([id.seq()], |_| Ok(())).optional()?.is_some())
        })
    }

    /// What a task waits, or waited, for: the blocker, how it was to end, and whether that is settled. At most `limit`.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn dependencies(&self, id: TaskId, limit: usize) -> Result<Vec<(TaskId, DependencyKind, bool)>, StoreError> {
        self.read(|conn| {
            let mut rows = conn.prepare_cached(
                "SELECT dep.blocker, dep.kind, dep.met, task.submitted_ms FROM dep JOIN task ON task.seq = dep.blocker
                 WHERE dep.dependent = ?1 ORDER BY dep.met, dep.blocker LIMIT ?2",
            )?;
            let found = rows.query_map(params![id.seq(), limit], |r| {
                let blocker = self.id(r.get(3)?, r.get(0)?);
                Ok((blocker, stored(r, 1, DependencyKind::from_u8)?, r.get(2)?))
            })?;
            found.collect()
        })
    }
}
