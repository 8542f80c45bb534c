//! The queue's events: their kinds, how they are written inside a transaction, and how they are read back.
//!
//! Owner: the store, which alone gives out their numbers: strictly increasing, never used twice, also after pruning.
//! A run of submissions is one row that stands for as many events, the row of a start stands for the claim before it as
//! well, and one of `ran` for all that happened to tasks which ended at once; the reader takes them apart. Deliberately absent: following. Whoever follows asks again from the last number
//! seen.

use acode_worker::task::{TaskId, WorkerId};
use rusqlite::params;

use super::apply::Writer;
use super::ran::{self, RAN};
use super::statements::Sql;
use super::{Store, StoreError};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// What an event is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EventKind { $($(#[$doc])* $variant = $code,)* }

        impl EventKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The kind's name, as people and JSON see it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    /// A task was accepted.
    TaskSubmitted = 1, "task-submitted";
    /// An array was accepted; `count` is the number of its members.
    ArraySubmitted = 2, "array-submitted";
    /// An attempt was started.
    TaskStarted = 3, "task-started";
    /// A task said how far it is.
    TaskProgress = 4, "task-progress";
    /// An attempt failed and another one follows, or a person asked for one.
    TaskRetried = 5, "task-retried";
    /// An attempt was lost with its worker or pool, and the task is queued again.
    TaskRequeued = 6, "task-requeued";
    /// A task, or all of an array, completed.
    TaskCompleted = 7, "task-completed";
    /// A task failed for good, or a member of an array did and all have ended.
    TaskFailed = 8, "task-failed";
    /// A task ran longer than its timeout, for good.
    TaskTimeout = 9, "task-timeout";
    /// A task was cancelled; with a `count`, so many untouched members of an array.
    TaskCancelled = 10, "task-cancelled";
    /// A worker is ready to work.
    WorkerStarted = 11, "worker-started";
    /// A worker deregistered.
    WorkerStopped = 12, "worker-stopped";
    /// A worker died or was killed.
    WorkerFailed = 13, "worker-failed";
    /// A worker's heartbeat stopped.
    WorkerUnhealthy = 14, "worker-unhealthy";
    /// A supervisor took the queue over.
    PoolStarted = 15, "pool-started";
    /// A supervisor let go of the queue.
    PoolStopped = 16, "pool-stopped";
    /// The pool was told to have another number of workers. Written by older versions only.
    PoolScaled = 17, "pool-scaled";
    /// A person has the pool start no further tasks.
    PoolPaused = 18, "pool-paused";
    /// A person lets it start tasks again.
    PoolResumed = 19, "pool-resumed";
    /// The configuration was read again.
    PoolReloaded = 20, "pool-reloaded";
    /// The queue could not be written.
    QueueBroken = 21, "queue-broken";
    /// The queue can be written again.
    QueueHealed = 22, "queue-healed";
    /// Old tasks were removed; `count` says how many.
    QueuePruned = 23, "queue-pruned";
    /// A worker has answered a health check that somebody asked for.
    WorkerHeartbeat = 24, "worker-heartbeat";
    /// A worker was made.
    WorkerCreated = 25, "worker-created";
    /// A worker's process has ended.
    WorkerExited = 26, "worker-exited";
    /// Something went wrong with a worker, or with the making of one.
    WorkerError = 27, "worker-error";
    /// A worker is being replaced by a fresh one.
    WorkerRecycled = 28, "worker-recycled";
    /// The pool is to have more workers.
    PoolScaledUp = 29, "pool-scaled-up";
    /// The pool is to have fewer workers.
    PoolScaledDown = 128, "pool-scaled-down";
    /// The queue is nearly full, so submitters wait; or the machine lacks something, so no task is started.
    BackpressureOn = 40, "backpressure-on";
    /// That is over.
    BackpressureOff = 41, "backpressure-off";
    /// A worker claimed a task. Never stored by itself: the row of the start stands for both.
    TaskAssigned = 30, "task-assigned";
    /// The pool's metrics, now and then, while tasks run.
    MetricsUpdated = 31, "metrics-updated";
    /// A person holds a task, or all of an array: it is not started.
    TaskHeld = 50, "task-held";
    /// It may be started again.
    TaskReleased = 51, "task-released";
    /// A running task's processes were stopped where they are.
    TaskSuspended = 60, "task-suspended";
    /// They go on.
    TaskResumed = 61, "task-resumed";
    /// An attempt has exceeded one of its limits; told with its end.
    LimitExceeded = 70, "limit-exceeded";
    /// A docker worker cannot use the container engine.
    DockerUnavailable = 80, "docker-unavailable";
    /// All docker workers can use it again.
    DockerAvailable = 81, "docker-available";
}

/// For how many events, with consecutive numbers, a row stands: `width` in SQL.
macro_rules! width {
    () => {
        "CASE kind WHEN 1 THEN coalesce(count, 1) WHEN 3 THEN 1 + (count IS NOT NULL) WHEN 32 THEN 3 * count ELSE 1 END"
    };
}
pub(super) use width;

/// For how many events a row of this kind and count stands.
fn width_of(kind: EventKind, count: Option<u64>) -> u64 {
    match (kind, count) {
        (EventKind::TaskSubmitted, Some(count)) => count.max(1),
        (EventKind::TaskStarted, Some(_)) => 2,
        _ => 1,
    }
}

impl EventKind {
    /// The stored number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this stored number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.code() == code)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// When, in microseconds of Unix time.
    pub at_us: u64,
    /// What.
    pub kind: EventKind,
    /// Which task or array.
    pub task: Option<TaskId>,
    /// How many tasks, where it is about more than one.
    pub count: Option<u64>,
    /// Which attempt.
    pub attempt: Option<u32>,
    /// Which worker.
    pub worker: Option<WorkerId>,
    /// More about it, as JSON.
    pub data: Option<String>,
}

/// Submissions with consecutive numbers and the same times, waiting to be written as one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    first: TaskId,
    count: u64,
    at_us: u64,
}

/// An event about to be written. What is not known stays empty.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    pub(super) task: Option<TaskId>,
    pub(super) count: Option<u64>,
    pub(super) attempt: Option<u32>,
    pub(super) worker: Option<WorkerId>,
    pub(super) data: Option<&'a str>,
}

impl Writer<'_> {
    /// Writes one event, after the run of submissions that came before it.
    pub(super) fn event(&mut self, kind: EventKind, at_us: u64, draft: &Draft<'_>) -> rusqlite::Result<()> {
        self.flush_run()?;
        let seq = self.ledger.next_event;
        self.ledger.next_event += width_of(kind, draft.count);
        self.insert_event(seq, kind, at_us, draft)
    }

    /// Notes the submission of one task: part of the current run, or the first of a new one.
    pub(super) fn submitted(&mut self, id: TaskId, at_us: u64) -> rusqlite::Result<()> {
        if let Some(run) = &mut self.run {
            let follows = id.to_u128() == run.first.to_u128() + u128::from(run.count);
            if follows && run.at_us == at_us {
                run.count += 1;
                return Ok(());
            }
        }
        self.flush_run()?;
        self.run = Some(Run { first: id, count: 1, at_us });
        Ok(())
    }

    /// Writes the run of submissions, if there is one.
    pub(super) fn flush_run(&mut self) -> rusqlite::Result<()> {
        let Some(Run { first, count, at_us }) = self.run.take() else { return Ok(()) };
        let seq = self.ledger.next_event;
        self.ledger.next_event += count;
        let draft = Draft { task: Some(first), count: Some(count), ..Draft::default() };
        self.insert_event(seq, EventKind::TaskSubmitted, at_us, &draft)
    }

    fn insert_event(&mut self, seq: u64, kind: EventKind, at_us: u64, draft: &Draft<'_>) -> rusqlite::Result<()> {
        let worker = draft.worker.map(|w| w.to_u128().to_be_bytes());
        self.sql.run(
            Sql::InsertEvent,
            params![
                seq,
                at_us,
                kind.code(),
                draft.task.map(TaskId::seq),
                draft.task.map(TaskId::millis),
                draft.count,
                draft.attempt,
                worker.as_ref().map(<[u8; 16]>::as_slice),
                draft.data
            ],
        )?;
        Ok(())
    }

    /// Writes an event of the pool or of one of its workers, unless the youngest events have it already.
    pub(super) fn event_once(&mut self, kind: EventKind, at_us: u64, draft: &Draft<'_>) -> rusqlite::Result<()> {
        if self.was_told(kind, at_us, draft)? { Ok(()) } else { self.event(kind, at_us, draft) }
    }

    /// Whether the same event was written a short while ago, by a batch that is applied again.
    fn was_told(&mut self, kind: EventKind, at_us: u64, draft: &Draft<'_>) -> rusqlite::Result<bool> {
        const LOOK_BACK: u64 = 4_096;
        let since = self.ledger.next_event.saturating_sub(LOOK_BACK);
        let worker = draft.worker.map(|w| w.to_u128().to_be_bytes());
        let worker = worker.as_ref().map(<[u8; 16]>::as_slice);
        let same = params![since, at_us, kind.code(), draft.data, worker];
        Ok(self.sql.one(Sql::SameEvent, same, |_| Ok(()))?.is_some())
    }
}

impl Store {
    /// The events with numbers above `since`, oldest first, at most `limit`. Ask again from the last one's number.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn events(&self, since: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|conn| {
            let mut found = Vec::new();
            // The row that `since` lies in may stand for later events as well.
            let mut rows = conn.prepare_cached(
                "SELECT seq, at_us, kind, task, task_ms, count, attempt, worker, data FROM event
                 WHERE seq >= coalesce((SELECT seq FROM event WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1), 0) ORDER BY seq",
            )?;
            let mut rows = rows.query([since])?;
            while found.len() < limit {
                let Some(row) = rows.next()? else { break };
                if row.get::<_, u8>(2)? == RAN {
                    let room = limit - found.len();
                    found.extend(self.ran(row)?.into_iter().filter(|event| event.seq > since).take(room));
                    continue;
                }
                let event = self.event_of(row)?;
                self.take_apart(event, since, limit, &mut found);
            }
            Ok(found)
        })
    }

    /// The number of the youngest event; 0 if there was none yet.
    pub fn last_event(&self) -> u64 {
        self.ledger.next_event - 1
    }

    /// The number of the last event before this moment, in microseconds of Unix time; 0 if there is none.
    ///
    /// # Errors
    /// The queue could not be read.
    pub fn last_event_before(&self, at_us: u64) -> Result<u64, StoreError> {
        self.read(|conn| {
            // Times hardly ever go back with the numbers, and there is no index on them: from the youngest back.
            let sql = concat!(
                "SELECT seq, at_us, kind, task, task_ms, count, attempt, worker, data, ",
                width!(),
                " FROM event ORDER BY seq DESC"
            );
            let mut rows = conn.prepare_cached(sql)?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let (seq, then_us, kind, width): (u64, u64, u8, u64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(9)?);
                if then_us < at_us {
                    return Ok(seq + width - 1);
                }
                if kind == RAN {
                    match self.ran(row)?.iter().rfind(|event| event.at_us < at_us) {
                        Some(last) => return Ok(last.seq),
                        None => continue,
                    }
                }
                let waited: Option<u64> = row.get(5)?;
                let claimed_before = waited.is_some_and(|waited| then_us.saturating_sub(waited) < at_us);
                if kind == EventKind::TaskStarted.code() && claimed_before {
                    return Ok(seq);
                }
            }
            Ok(0)
        })
    }

    /// The events of a row of `ran`.
    fn ran(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Vec<Event>> {
        let (seq, first, count) = (row.get(0)?, self.id(row.get(4)?, row.get(3)?), row.get(5)?);
        let data = row.get_ref(8)?.as_blob()?;
        ran::take_apart(seq, first, count, data).ok_or(rusqlite::Error::InvalidColumnType(
            8,
            "data".to_owned(),
            rusqlite::types::Type::Blob,
        ))
    }

    fn event_of(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
        let code: u8 = row.get(2)?;
        let kind = EventKind::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(2, code.into()))?;
        let task: Option<u64> = row.get(3)?;
        let millis: Option<u64> = row.get(4)?;
        let worker: Option<[u8; 16]> = row.get(7)?;
        Ok(Event {
            seq: row.get(0)?,
            at_us: row.get(1)?,
            kind,
            task: task.zip(millis).map(|(seq, ms)| self.id(ms, seq)),
            count: row.get(5)?,
            attempt: row.get(6)?,
            worker: worker.map(|w| WorkerId::from_u128(u128::from_be_bytes(w))),
            data: row.get(8)?,
        })
    }

    /// Adds what lies above `since`: the event itself, or those that a run of submissions or a start stands for.
    fn take_apart(&self, event: Event, since: u64, limit: usize, found: &mut Vec<Event>) {
        match (event.kind, event.task, event.count) {
            (EventKind::TaskSubmitted, Some(first), Some(count)) => {
                let skip = (since + 1).saturating_sub(event.seq);
                let room = (limit - found.len()) as u64;
                for n in skip..count.min(skip.saturating_add(room)) {
                    let task = Some(TaskId::from_u128(first.to_u128() + u128::from(n)));
                    found.push(Event { seq: event.seq + n, task, count: None, ..event.clone() });
                }
            }
            (EventKind::TaskStarted, _, Some(waited)) => {
                let claimed_us = event.at_us.saturating_sub(waited);
                let assigned = Event { kind: EventKind::TaskAssigned, at_us: claimed_us, count: None, ..event.clone() };
                let started = Event { seq: event.seq + 1, count: None, ..event };
                let room = limit - found.len();
                found.extend([assigned, started].into_iter().filter(|event| event.seq > since).take(room));
            }
            _ if event.seq > since => found.push(event),
            _ => {}
        }
    }
}
