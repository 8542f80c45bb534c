//! What is ready, in which order, and with which specification.
//!
//! Owner: the dispatcher, which asks stream by stream and remembers how far it got. An array's place in its stream is that of
//! its next untouched member: the touched ones come before it, in order. Deliberately absent: what is handed out at the
//! moment. For the store a running task is pending, and so ready.

use std::collections::HashMap;

use acode_worker::task::{Class, Priority, TaskId, TaskSpec, WorkerId};
use rusqlite::{Connection, OptionalExtension, params};

use super::apply::{RowKind, stored};
use super::op::WorkerRecord;
use super::{Store, StoreError};

/// What stands at one place of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A task of its own.
    Task {
        /// What to do, a `TaskSpec` as JSON.
        spec_json: String,
    },
    /// A touched member of an array.
    Member {
        /// The array.
        array: TaskId,
        /// Its place, from 0.
        index: u64,
        /// What to do, placeholders filled, a `TaskSpec` as JSON.
        spec_json: String,
    },
    /// The untouched members of an array: `Op::Expand` makes tasks of them.
    Array {
        /// The first untouched member.
        cursor: u64,
        /// How many members the array has.
        count: u64,
    },
}

/// The part of a lane that belongs to one limit group. Within it the order is that of submission; who wants the order of
/// the whole lane merges its streams by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// Urgency.
    pub priority: Priority,
    /// Which workers may take it.
    pub class: Class,
    /// The group's number; 0 for the tasks of no group.
    pub group: u32,
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyTask {
    /// Its id.
    pub id: TaskId,
    /// Its place: what to pass as `after` to go on behind it.
    pub place: u64,
    /// Number of the last attempt; the next one is one more.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that ended with their worker.
    pub losses: u32,
    /// Since when only its turn is missing, in microseconds of Unix time.
    pub ready_us: u64,
    /// Attempts that ran out of memory.
    pub ooms: u32,
    /// What it is.
    pub entry: Entry,
}

/// A row of a lane before its specification is made.
struct Raw {
    seq: u64,
    kind: RowKind,
    ms: u64,
    attempts: u32,
    failures: u32,
    losses: u32,
    ready_us: u64,
    spec: Option<String>,
    ooms: u32,
}

/// An array that members are rendered from.
pub(super) struct Template {
    pub(super) id: TaskId,
    pub(super) count: u64,
    pub(super) cursor: u64,
    pub(super) stopped: bool,
    first: Option<u64>,
    spec: TaskSpec,
}

const COLUMNS: &str = "seq, kind, submitted_ms, attempts, failures, losses, spec, ready_us, ooms";
const IS_READY: &str = "state = 0 AND blockers = 0 AND not_before_us = 0 AND held = 0";

impl Store {
    /// The ready entries of a stream behind place `after` (0: from the front), in order, at most `limit`. They end at an
    /// array: nothing behind it may overtake its untouched members. `Op::Expand` it, and go on from its place.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn ready(&self, stream: Stream, after: u64, limit: usize) -> Result<Vec<ReadyTask>, StoreError> {
        let (priority, class, group) = (stream.priority as u8, stream.class as u8, stream.group);
        self.read(|conn| {
            let mut templates = HashMap::new();
            // The array in whose numbers `after` lies comes before it by number, but perhaps not by place.
            let sql = format!(
                "SELECT {COLUMNS} FROM task WHERE seq = (SELECT seq FROM array WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
                 AND priority = ?2 AND class = ?3 AND grp = ?4 AND {IS_READY}"
            );
            let start = conn.prepare_cached(&sql)?.query_row(params![after, priority, class, group], raw).optional()?;
            let mut waiting = match start {
                Some(raw) => Some(self.ready_task(conn, raw, &mut templates)?).filter(|array| array.place >= after),
                None => None,
            };
            let sql = format!(
                "SELECT {COLUMNS} FROM task INDEXED BY task_ready WHERE {IS_READY} AND priority = ?1 AND class = ?2 AND grp = ?3
                 AND seq > ?4 ORDER BY seq LIMIT ?5"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            // One more row than asked for: an array is read before the members that come before it.
            let mut rows = statement.query(params![priority, class, group, after, limit.saturating_add(1)])?;
            let mut found = Vec::new();
            while found.len() < limit {
                let Some(row) = rows.next()? else { break };
                let task = self.ready_task(conn, raw(row)?, &mut templates)?;
                if waiting.as_ref().is_some_and(|array| array.place < task.id.seq()) {
                    break;
                }
                match task.entry {
                    Entry::Array { .. } => waiting = Some(task),
                    Entry::Task { .. } | Entry::Member { .. } => found.push(task),
                }
            }
            found.extend(waiting.filter(|_| found.len() < limit));
            Ok(found)
        })
    }

    /// The tasks with a started attempt whose end is not recorded: asked once, by the supervisor that takes over. As
    /// many as an earlier pool had slots.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn interrupted(&self) -> Result<Vec<ReadyTask>, StoreError> {
        self.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM task INDEXED BY task_running WHERE running = 1 ORDER BY seq");
            let raws: Vec<Raw> = conn.prepare_cached(&sql)?.query_map([], raw)?.collect::<Result<_, _>>()?;
            let mut templates = HashMap::new();
            raws.into_iter().map(|raw| self.ready_task(conn, raw, &mut templates)).collect()
        })
    }

    /// When the next delayed task wants to be woken, in microseconds of Unix time.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn next_delayed(&self) -> Result<Option<u64>, StoreError> {
        self.read(|conn| {
            conn.prepare_cached(
                "SELECT min(not_before_us) FROM task INDEXED BY task_delayed WHERE state = 0 AND not_before_us > 0",
            )?
            .query_row([], |r| r.get(0))
        })
    }

    /// The workers that registered and never deregistered: perhaps they still live.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT id, slot, pid, start_ticks, boot_id, mode, started_us, stopped_us, completed, failed
                 FROM worker INDEXED BY worker_live WHERE stopped_us IS NULL ORDER BY slot",
            )?;
            let found = statement.query_map([], |r| {
                Ok(WorkerRecord {
                    id: WorkerId::from_u128(u128::from_be_bytes(r.get(0)?)),
                    slot: r.get(1)?,
                    pid: r.get(2)?,
                    start_ticks: r.get(3)?,
                    boot_id: r.get(4)?,
                    mode: r.get(5)?,
                    started_us: r.get(6)?,
                    stopped_us: r.get(7)?,
                    completed: r.get(8)?,
                    failed: r.get(9)?,
                })
            })?;
            found.collect()
        })
    }

    fn ready_task(
        &self,
        conn: &Connection,
        raw: Raw,
        templates: &mut HashMap<u64, Template>,
    ) -> rusqlite::Result<ReadyTask> {
        let Raw { seq, kind, ms, attempts, failures, losses, ready_us, ooms, spec } = raw;
        let (entry, place) = match kind {
            RowKind::Task => (Entry::Task { spec_json: spec.unwrap_or_default() }, seq),
            RowKind::Header => {
                let (cursor, count) = conn
                    .prepare_cached("SELECT cursor, count FROM array WHERE seq = ?1")?
                    .query_row([seq], |r| Ok((r.get::<_, u64>(0)?, r.get(1)?)))?;
                // That of the last touched member: whoever goes on from here gets the next ones.
                (Entry::Array { cursor, count }, seq + cursor)
            }
            RowKind::Member => {
                let cached = templates.values().find(|t| seq > t.id.seq() && seq <= t.id.seq() + t.count);
                let header = match cached {
                    Some(template) => template.id.seq(),
                    None => {
                        let template = self.template(conn, seq)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                        let header = template.id.seq();
                        templates.insert(header, template);
                        header
                    }
                };
                let template = templates.get(&header).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                let index = seq - header - 1;
                let spec = template.member(&template.item(conn, index)?, index);
                let spec_json =
                    serde_json::to_string(&spec).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                (Entry::Member { array: template.id, index, spec_json }, seq)
            }
        };
        let ready_us = if ready_us == 0 { ms.saturating_mul(1_000) } else { ready_us };
        Ok(ReadyTask { id: self.id(ms, seq), place, attempts, failures, losses, ready_us, ooms, entry })
    }

    /// The array whose numbers cover `seq`.
    pub(super) fn template(&self, conn: &Connection, seq: u64) -> rusqlite::Result<Option<Template>> {
        let found = conn
            .prepare_cached(
                "SELECT array.seq, count, first, cursor, stopped, submitted_ms, spec FROM array JOIN task USING (seq)
                 WHERE array.seq = (SELECT max(seq) FROM array WHERE seq <= ?1)",
            )?
            .query_row([seq], |r| {
                let spec: String = r.get(6)?;
                let spec = serde_json::from_str(&spec).map_err(|e| {
                    rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(e))
                })?;
                Ok(Template {
                    id: self.id(r.get(5)?, r.get(0)?),
                    count: r.get(1)?,
                    first: r.get(2)?,
                    cursor: r.get(3)?,
                    stopped: r.get(4)?,
                    spec,
                })
            })
            .optional()?;
        Ok(found.filter(|array| seq <= array.id.seq() + array.count))
    }
}

impl Template {
    /// The item of the member at place `index`.
    pub(super) fn item(&self, conn: &Connection, index: u64) -> rusqlite::Result<String> {
        match self.first {
            Some(first) => Ok(first.saturating_add(index).to_string()),
            None => conn
                .prepare_cached("SELECT text FROM array_item WHERE header = ?1 AND idx = ?2")?
                .query_row([self.id.seq(), index], |r| r.get(0)),
        }
    }

    /// The specification of the member at place `index`, which has this item.
    pub(super) fn member(&self, item: &str, index: u64) -> TaskSpec {
        self.spec.member(item, index)
    }
}

fn raw(r: &rusqlite::Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        seq: r.get(0)?,
        kind: stored(r, 1, RowKind::from_u8)?,
        ms: r.get(2)?,
        attempts: r.get(3)?,
        failures: r.get(4)?,
        losses: r.get(5)?,
        spec: r.get(6)?,
        ready_us: r.get(7)?,
        ooms: r.get(8)?,
    })
}
