//! Tasks, arrays and attempts as people and programs ask for them.
//!
//! Owner: the control socket's read requests. Every answer is bounded, in rows given and in rows looked at: a long
//! listing is a series of pages. Deliberately absent: the live pool. `running` says that a start was recorded; who runs
//! what right now, the claim table knows.

use acode_worker::task::{
    Class, Isolation, OutputRef, Priority, TaskId, TaskSpec, TaskState, TreeGuard, Usage, Verdict, WorkerId,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::apply::{RowKind, class_of, stored};
use super::ends::read_brief;
use super::life::{ATTEMPT_BITS, attempt_key};
use super::notes::{AttemptNotes, read_usage};
use super::order::BY_PERSON;
use super::{Store, StoreError};

/// Rows that one page looks at, so that a rare state does not hold up the supervisor.
const LOOK_AT: u64 = 20_000;

/// An array's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayRecord {
    /// Its members.
    pub count: u64,
    /// The first member that was never touched.
    pub cursor: u64,
    /// Members that have not ended.
    pub open: u64,
    /// Members that failed or timed out.
    pub failed: u64,
    /// Members that were cancelled.
    pub cancelled: u64,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskKind {
    /// A task of its own.
    Task,
    /// An array.
    Array(ArrayRecord),
    /// A member of an array.
    Member {
        /// The array.
        array: TaskId,
        /// Its place, from 0.
        index: u64,
        /// Its item.
        item: String,
    },
}

/// All that is stored about a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// What it is.
    pub kind: TaskKind,
    /// Pending, or a final state.
    pub state: TaskState,
    /// What to do; of a member with its placeholders filled.
    pub spec: TaskSpec,
    /// Urgency.
    pub priority: Priority,
    /// Which workers may take it.
    pub class: Class,
    /// Dependencies that are not met yet.
    pub blockers: u32,
    /// When it may start, in microseconds of Unix time; 0 for now.
    pub not_before_us: u64,
    /// Whether a person holds it.
    pub held: bool,
    /// Since when it has been ready, or held, in microseconds of Unix time; 0 for since its submission.
    pub ready_us: u64,
    /// When it must have started, in microseconds of Unix time; 0 for whenever.
    pub expires_us: u64,
    /// The number of its limit group; 0 for none.
    pub group_id: u32,
    /// The name of that group.
    pub group: Option<String>,
    /// Whether an attempt was started whose end is not recorded.
    pub running: bool,
    /// Number of the last attempt.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that ended with their worker.
    pub losses: u32,
    /// Attempts that ran out of memory.
    pub ooms: u32,
    /// When the last attempt was started, in microseconds of Unix time.
    pub started_us: Option<u64>,
    /// When it ended for good.
    pub finished_us: Option<u64>,
    /// How the last attempt ended, if it has.
    pub verdict: Option<Verdict>,
    /// What the last attempt said about its failure.
    pub error: Option<String>,
    /// Its result, as JSON.
    pub result: Option<String>,
    /// Why it was cancelled.
    pub reason: Option<String>,
    /// How far it says it is, 0 to 100.
    pub progress_percent: Option<f64>,
    /// And in words.
    pub progress_message: Option<String>,
    /// What no other task that has not ended may have.
    pub key: Option<String>,
    /// If a dependency cancelled it: that one, and the end that this goes back to; while they are kept.
    pub cause: Option<(TaskId, TaskId)>,
    /// If it is a finish hook: the task that had ended, while that is kept.
    pub hook_of: Option<TaskId>,
}

/// One attempt, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    /// Its number, from 1.
    pub number: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// How it ended.
    pub verdict: Verdict,
    /// How it was kept apart.
    pub isolation: Isolation,
    /// What held its processes together.
    pub guard: TreeGuard,
    /// What it used.
    pub usage: Usage,
    /// Where its output lies.
    pub output: OutputRef,
    /// When it was started, in microseconds of Unix time.
    pub started_us: u64,
    /// When it ended.
    pub finished_us: u64,
    /// Whether something was left running.
    pub leaked: bool,
    /// What the task said about its failure.
    pub error: Option<String>,
    /// How its limits were held, and what is left of it.
    pub notes: AttemptNotes,
}

/// Which tasks a listing is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only those in this stored state.
    pub state: Option<TaskState>,
    /// Only those behind this number (`seq`), in the direction of the listing.
    pub after: Option<u64>,
    /// Youngest first.
    pub newest_first: bool,
    /// Arrays and touched members instead of arrays alone.
    pub members: bool,
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The tasks, possibly none although there are more pages.
    pub tasks: Vec<TaskRecord>,
    /// What to pass as `after` for the next page; `None` if this was the last.
    pub next: Option<u64>,
}

const COLUMNS: &str = "task.seq, kind, state, task.spec, priority, class, blockers, not_before_us, running, attempts,
    failures, losses, task.started_us, task.finished_us, result, reason, progress_percent, progress_message,
    submitted_ms, attempt.key, attempt.verdict, attempt.error, task.key, broke, root, hook_of,
    task.held, task.ready_us, task.expires_us, task.grp,
    ooms, attempts = 1 AND brief IS NOT NULL AS is_brief, (SELECT name FROM grp WHERE id = task.grp) AS group_name";

impl Store {
    /// The record of a task, an array or a member, touched or not.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        if id.queue() != self.tag {
            return Ok(None);
        }
        let seq = id.seq();
        let found = self.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM task LEFT JOIN attempt ON attempt.key = (task.seq << {ATTEMPT_BITS}) | attempts
                 WHERE task.seq = ?1"
            );
            let row = conn.prepare_cached(&sql)?.query_row([seq], |r| self.record(conn, r)).optional()?;
            match row {
                Some(record) => Ok(Some(record)),
                None => self.untouched(conn, seq),
            }
        })?;
        Ok(found.filter(|record| record.id == id))
    }

    /// One page of the tasks, by submission.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn list(&self, filter: &ListFilter, limit: usize) -> Result<Page, StoreError> {
        let state = filter.state.map(|s| match s {
            TaskState::Pending | TaskState::Assigned | TaskState::Running => TaskState::Pending as u8,
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled | TaskState::Timeout => s as u8,
        });
        let (beyond, order) = if filter.newest_first { ("<", "DESC") } else { (">", "ASC") };
        let after = filter.after.unwrap_or(if filter.newest_first { TaskId::SEQ_MAX + 1 } else { 0 });
        self.read(|conn| {
            let sql = format!("SELECT seq, kind, state FROM task WHERE seq {beyond} ?1 ORDER BY seq {order} LIMIT ?2");
            let mut scan = conn.prepare_cached(&sql)?;
            let mut rows = scan.query([after, LOOK_AT])?;
            let mut page = Page::default();
            let (mut seen, mut last) = (0, after);
            while let Some(row) = rows.next()? {
                last = row.get(0)?;
                seen += 1;
                let member = stored(row, 1, RowKind::from_u8)? == RowKind::Member;
                let wanted = state.is_none_or(|s| row.get(2) == Ok(s)) && (filter.members || !member);
                if wanted {
                    page.tasks.extend(self.by_seq(conn, last)?);
                }
                if page.tasks.len() >= limit {
                    break;
                }
            }
            page.next = (page.tasks.len() >= limit || seen == LOOK_AT).then_some(last);
            Ok(page)
        })
    }

    fn by_seq(&self, conn: &Connection, seq: u64) -> rusqlite::Result<Option<TaskRecord>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM task LEFT JOIN attempt ON attempt.key = (task.seq << {ATTEMPT_BITS}) | attempts
             WHERE task.seq = ?1"
        );
        conn.prepare_cached(&sql)?.query_row([seq], |r| self.record(conn, r)).optional()
    }

    /// The last attempts of a task, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn attempts(&self, id: TaskId, limit: usize) -> Result<Vec<AttemptRecord>, StoreError> {
        let keys = (attempt_key(id.seq(), 0), attempt_key(id.seq(), u32::MAX));
        self.read(|conn| {
            let mut statement =
                conn.prepare_cached("SELECT * FROM attempt WHERE key >= ?1 AND key <= ?2 ORDER BY key DESC LIMIT ?3")?;
            let found = statement.query_map(params![keys.0, keys.1, limit], read_attempt)?;
            let mut found: Vec<_> = found.collect::<Result<_, _>>()?;
            if found.len() < limit {
                found.extend(first_attempt(conn, id.seq())?);
            }
            found.reverse();
            Ok(found)
        })
    }

    /// The journal segments in which output of a kept attempt begins. It may go on in later segments of the same
    /// worker.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn segments_in_use(&self) -> Result<Vec<(WorkerId, u64)>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached("SELECT worker, segment FROM segment ORDER BY worker, segment")?;
            let found =
                statement.query_map([], |r| Ok((WorkerId::from_u128(u128::from_be_bytes(r.get(0)?)), r.get(1)?)))?;
            found.collect()
        })
    }

    /// The files that tasks read which keep a copy of their submitter's standard input; each only once the queue is
    /// asked, and never of a task that was forgotten.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn copies_in_use(&self) -> Result<Vec<String>, StoreError> {
        self.read(|conn| {
            let mut statement = conn
                .prepare_cached("SELECT spec FROM task INDEXED BY task_copy WHERE flags & 16 AND spec IS NOT NULL")?;
            let specs = statement.query_map([], |r| {
                let text: String = r.get(0)?;
                serde_json::from_str::<TaskSpec>(&text).map_err(|e| bad_json(0, e))
            })?;
            specs.filter_map(|spec| spec.map(|spec| spec.stdin).transpose()).collect()
        })
    }

    fn record(&self, conn: &Connection, r: &Row<'_>) -> rusqlite::Result<TaskRecord> {
        let seq: u64 = r.get(0)?;
        let spec: Option<String> = r.get(3)?;
        let parsed = |text: &str| serde_json::from_str(text).map_err(|e| bad_json(3, e));
        let (kind, spec) = match stored(r, 1, RowKind::from_u8)? {
            RowKind::Task => (TaskKind::Task, parsed(spec.as_deref().unwrap_or_default())?),
            RowKind::Header => (TaskKind::Array(read_array(conn, seq)?), parsed(spec.as_deref().unwrap_or_default())?),
            RowKind::Member => {
                let array = self.template(conn, seq)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                let index = seq - array.id.seq() - 1;
                let item = array.item(conn, index)?;
                let spec = array.member(&item, index);
                (TaskKind::Member { array: array.id, index, item }, spec)
            }
        };
        // No verdict text means success, but only where there is an attempt at all.
        let ended: Option<u64> = r.get(19)?;
        let verdict = match (ended, r.get("is_brief")?) {
            (Some(_), _) => Some(read_verdict(r, 20)?),
            (None, true) => Some(Verdict::Exited { code: 0 }),
            (None, false) => None,
        };
        Ok(TaskRecord {
            id: self.id(r.get(18)?, seq),
            kind,
            state: stored(r, 2, TaskState::from_u8)?,
            spec,
            priority: stored(r, 4, Priority::from_u8)?,
            class: stored(r, 5, class_of)?,
            blockers: r.get(6)?,
            not_before_us: r.get(7)?,
            running: r.get(8)?,
            attempts: r.get(9)?,
            failures: r.get(10)?,
            losses: r.get(11)?,
            ooms: r.get("ooms")?,
            started_us: r.get(12)?,
            finished_us: r.get(13)?,
            verdict,
            error: r.get(21)?,
            result: r.get(14)?,
            reason: r.get(15)?,
            progress_percent: r.get(16)?,
            progress_message: r.get(17)?,
            key: r.get(22)?,
            cause: match (r.get(23)?, r.get(24)?) {
                (Some(broke), Some(root)) => id_of(self, conn, broke)?.zip(id_of(self, conn, root)?),
                (Some(_) | None, _) => None,
            },
            hook_of: match r.get(25)? {
                Some(seq) => id_of(self, conn, seq)?,
                None => None,
            },
            held: r.get::<_, u8>("held")? & BY_PERSON != 0,
            ready_us: r.get("ready_us")?,
            expires_us: r.get("expires_us")?,
            group_id: r.get("grp")?,
            group: r.get("group_name")?,
        })
    }

    /// The record of a member without a row: what its array says about it. A member before the cursor had a row, so
    /// it was pruned.
    fn untouched(&self, conn: &Connection, seq: u64) -> rusqlite::Result<Option<TaskRecord>> {
        let Some(array) = self.template(conn, seq)?.filter(|array| seq > array.id.seq() + array.cursor) else {
            return Ok(None);
        };
        let (id, stopped) = (array.id, array.stopped);
        let Some(header) = self.by_seq(conn, id.seq())? else { return Ok(None) };
        let index = seq - id.seq() - 1;
        let item = array.item(conn, index)?;
        Ok(Some(TaskRecord {
            id: self.id(id.millis(), seq),
            spec: array.member(&item, index),
            kind: TaskKind::Member { array: id, index, item },
            state: if stopped { TaskState::Cancelled } else { TaskState::Pending },
            finished_us: header.finished_us.filter(|_| stopped),
            reason: header.reason.filter(|_| stopped),
            ..header
        }))
    }
}

/// The id of the task with this number, if it is kept.
pub(super) fn id_of(store: &Store, conn: &Connection, seq: u64) -> rusqlite::Result<Option<TaskId>> {
    let mut row = conn.prepare_cached("SELECT submitted_ms FROM task WHERE seq = ?1")?;
    row.query_row([seq], |r| Ok(store.id(r.get(0)?, seq))).optional()
}

/// The first attempt of a task, if it stands in the task's own row.
fn first_attempt(conn: &Connection, seq: u64) -> rusqlite::Result<Option<AttemptRecord>> {
    let mut row = conn.prepare_cached("SELECT brief FROM task WHERE seq = ?1 AND brief IS NOT NULL")?;
    let Some(brief) = row.query_row([seq], |r| r.get::<_, Vec<u8>>(0)).optional()? else { return Ok(None) };
    read_brief(&brief).map(Some).ok_or(rusqlite::Error::InvalidColumnType(0, "brief".to_owned(), Type::Blob))
}

fn bad_json(at: usize, e: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(e))
}

fn read_verdict(r: &Row<'_>, at: usize) -> rusqlite::Result<Verdict> {
    let text: Option<String> = r.get(at)?;
    text.map_or(Ok(Verdict::Exited { code: 0 }), |t| serde_json::from_str(&t).map_err(|e| bad_json(at, e)))
}

fn read_array(conn: &Connection, seq: u64) -> rusqlite::Result<ArrayRecord> {
    conn.prepare_cached("SELECT count, cursor, open, failed, cancelled FROM array WHERE seq = ?1")?.query_row(
        [seq],
        |r| {
            Ok(ArrayRecord {
                count: r.get(0)?,
                cursor: r.get(1)?,
                open: r.get(2)?,
                failed: r.get(3)?,
                cancelled: r.get(4)?,
            })
        },
    )
}

fn read_attempt(r: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    let key: u64 = r.get(0)?;
    Ok(AttemptRecord {
        number: (key & ((1 << ATTEMPT_BITS) - 1)) as u32,
        worker: WorkerId::from_u128(u128::from_be_bytes(r.get(1)?)),
        started_us: r.get(2)?,
        finished_us: r.get(3)?,
        verdict: read_verdict(r, 4)?,
        isolation: stored(r, 5, Isolation::from_u8)?,
        guard: stored(r, 6, TreeGuard::from_u8)?,
        leaked: r.get(7)?,
        usage: read_usage(
            r,
            Usage {
                wall_us: r.get(8)?,
                user_us: r.get(9)?,
                system_us: r.get(10)?,
                max_rss_bytes: r.get(11)?,
                read_bytes: r.get(12)?,
                written_bytes: r.get(13)?,
                ..Usage::default()
            },
        )?,
        output: OutputRef {
            segment: r.get(14)?,
            offset: r.get(15)?,
            length: r.get(16)?,
            stdout_bytes: r.get(17)?,
            stderr_bytes: r.get(18)?,
            truncated: r.get(19)?,
        },
        error: r.get(20)?,
        notes: AttemptNotes::read(r)?,
    })
}
