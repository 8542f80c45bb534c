//! The life of a task after submission: started, progressing, ended, tried again, cancelled, retried by a person.
//!
//! Owner: the store. Each change and its event are one; the guards in the statements make a repetition harmless.
//! Deliberately absent: policy. Whether a failure is retried, and when, the supervisor has decided already.

use acode_worker::task::{TaskId, TaskState, Verdict, WorkerId};
use rusqlite::params;

use super::EventKind;
use super::apply::{HAS_DEPENDENCIES, Row, RowKind, Writer, defect};
use super::deps::Todo;
use super::events::Draft;
use super::notes::source_code;
use super::op::{AttemptEnd, Next, WorkerRecord};
use super::order::BY_PERSON;
use super::statements::Sql;
use super::submit::outcome;

/// Numbers of attempts per task that a key has room for.
pub(super) const ATTEMPT_BITS: u32 = 23;

/// The key of an attempt's record.
pub(super) fn attempt_key(seq: u64, attempt: u32) -> u64 {
    seq << ATTEMPT_BITS | u64::from(attempt.min((1 << ATTEMPT_BITS) - 1))
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The event that goes with a final state.
fn event_of(state: TaskState) -> Option<EventKind> {
    match state {
        TaskState::Pending | TaskState::Assigned | TaskState::Running => None,
        TaskState::Completed => Some(EventKind::TaskCompleted),
        TaskState::Failed => Some(EventKind::TaskFailed),
        TaskState::Cancelled => Some(EventKind::TaskCancelled),
        TaskState::Timeout => Some(EventKind::TaskTimeout),
    }
}

impl Writer<'_> {
    pub(super) fn started(
        &mut self,
        id: TaskId,
        attempt: u32,
        worker: WorkerId,
        (claimed_us, at_us): (Option<u64>, u64),
    ) -> rusqlite::Result<()> {
        let seq = id.seq();
        let new = if attempt == 1 && self.ending.contains(&seq) {
            // A short task's row is written once, with its end, and enters no index in between.
            let new = self.sql.one(Sql::NeverStarted, [seq], |_| Ok(()))?.is_some();
            new && self.begun.insert(seq, at_us).is_none()
        } else {
            self.sql.run(Sql::Start, params![seq, attempt, at_us])? > 0
        };
        if !new {
            return Ok(());
        }
        // How long ago the claim was makes two events of the row: see `take_apart`.
        let count = claimed_us.map(|claimed_us| at_us.saturating_sub(claimed_us));
        let draft = Draft { task: Some(id), count, attempt: Some(attempt), worker: Some(worker), data: None };
        self.event(EventKind::TaskStarted, at_us, &draft)
    }

    pub(super) fn progress(
        &mut self,
        id: TaskId,
        percent: Option<f64>,
        message: Option<&str>,
        at_us: u64,
    ) -> rusqlite::Result<()> {
        if self.sql.run(Sql::Progress, params![id.seq(), percent, message])? == 0 {
            return Ok(());
        }
        let data = serde_json::json!({ "percent": percent, "message": message }).to_string();
        self.event(EventKind::TaskProgress, at_us, &Draft { task: Some(id), data: Some(&data), ..Draft::default() })
    }

    /// Tells that a running attempt was suspended or goes on; a fact of the live pool that only its events outlive.
    pub(super) fn suspended(&mut self, id: TaskId, attempt: u32, on: bool, at_us: u64) -> rusqlite::Result<()> {
        let kind = if on { EventKind::TaskSuspended } else { EventKind::TaskResumed };
        // Two tasks may be suspended at the same moment, so the event says which by itself.
        let data = format!(r#"{{"number":{}}}"#, id.seq());
        let draft = Draft { task: Some(id), attempt: Some(attempt), data: Some(&data), ..Draft::default() };
        self.event_once(kind, at_us, &draft)
    }

    /// Records the end of an attempt, once, and moves the task on if it still waits for that.
    pub(super) fn finished(&mut self, end: &AttemptEnd) -> rusqlite::Result<()> {
        let Some(row) = self.row(end.id.seq())? else { return Ok(()) };
        // Recorded already, in company: the batch comes again.
        if end.attempt == 1 && row.has_brief {
            return Ok(());
        }
        let verdict = match &end.verdict {
            Verdict::Exited { code: 0 } => None,
            other => Some(serde_json::to_string(other).map_err(|e| defect(&e.to_string()))?),
        };
        if !self.insert_attempt(end, verdict.as_deref())? || row.state.is_final() {
            return Ok(());
        }
        let begun = self.begun.remove(&end.id.seq());
        self.limits_exceeded(end)?;
        let data = verdict.map(|v| format!("{{\"verdict\":{v}}}"));
        let draft = Draft {
            task: Some(end.id),
            count: None,
            attempt: Some(end.attempt),
            worker: Some(end.worker),
            data: data.as_deref(),
        };
        let (kind, not_before_us, failures, losses, ooms) = match end.next {
            Next::Final(state) => {
                let kind = event_of(state).ok_or_else(|| defect("an end in a state that is not final"))?;
                let failed = matches!(state, TaskState::Failed | TaskState::Timeout);
                let (result, reason) = (&end.result, &end.reason);
                let (seq, state_code) = (row.id.seq(), state as u8);
                let (lost, oom) = match end.verdict {
                    Verdict::WorkerLost => (1, 0),
                    Verdict::OutOfMemory => (0, 1),
                    Verdict::Exited { .. }
                    | Verdict::Signalled { .. }
                    | Verdict::TimedOut
                    | Verdict::OverLimit { .. }
                    | Verdict::Cancelled
                    | Verdict::EngineFailed { .. }
                    | Verdict::NotStarted { .. } => (0, 0),
                };
                let failed = failed && lost + oom == 0;
                let change =
                    params![seq, state_code, end.finished_us, end.attempt, failed, result, reason, begun, lost, oom];
                self.sql.run(Sql::End, change)?;
                self.event(kind, end.finished_us, &draft)?;
                return self.ended(&row, state, end.finished_us);
            }
            Next::RetryAt(at) => (EventKind::TaskRetried, at, 1, 0, 0),
            Next::Requeue => (EventKind::TaskRequeued, 0, 0, 0, 0),
            Next::RequeueAt(at) => (EventKind::TaskRequeued, at, 0, 0, 0),
            Next::CrashedAt { at_us, oom } => (EventKind::TaskRequeued, at_us, 0, u8::from(!oom), u8::from(oom)),
        };
        let (seq, now_us) = (row.id.seq(), end.finished_us);
        self.sql.run(Sql::Again, params![seq, not_before_us, end.attempt, failures, losses, begun, now_us, ooms])?;
        self.event(kind, end.finished_us, &draft)?;
        if not_before_us == 0 {
            self.now_ready(&row.unaged());
        }
        Ok(())
    }

    /// Tells which limits the attempt exceeded; what became of it, its end tells.
    fn limits_exceeded(&mut self, end: &AttemptEnd) -> rusqlite::Result<()> {
        for held in end.notes.limits.iter().filter(|held| held.exceeded) {
            let data = serde_json::to_string(held).map_err(|e| defect(&e.to_string()))?;
            let (task, attempt, worker) = (Some(end.id), Some(end.attempt), Some(end.worker));
            let draft = Draft { task, attempt, worker, data: Some(&data), ..Draft::default() };
            self.event(EventKind::LimitExceeded, end.finished_us, &draft)?;
        }
        Ok(())
    }

    fn insert_attempt(&mut self, end: &AttemptEnd, verdict: Option<&str>) -> rusqlite::Result<bool> {
        let worker = end.worker.to_u128().to_be_bytes();
        let guard = end.guard as u8;
        let (usage, output) = (&end.usage, &end.output);
        let record = params![
            attempt_key(end.id.seq(), end.attempt),
            worker.as_slice(),
            end.started_us,
            end.finished_us,
            verdict,
            end.isolation as u8,
            guard,
            end.leaked,
            clamp(usage.wall_us),
            clamp(usage.user_us),
            clamp(usage.system_us),
            clamp(usage.max_rss_bytes),
            clamp(usage.read_bytes),
            clamp(usage.written_bytes),
            clamp(output.segment),
            clamp(output.offset),
            clamp(output.length),
            clamp(output.stdout_bytes),
            clamp(output.stderr_bytes),
            output.truncated,
            end.error,
            usage.peak_memory_bytes.map(clamp),
            usage.throttled_us.map(clamp),
            usage.oom_kills.map(clamp),
            usage.peak_pids.map(clamp),
            usage.peak_disk_bytes.map(clamp),
            source_code(usage.source),
            end.notes.limits_text(),
            end.notes.kept,
            end.notes.sandbox,
            end.notes.artifacts_text()
        ];
        let new = self.sql.run(Sql::InsertAttempt, record)? > 0;
        if new && output.length > 0 {
            self.sql.run(Sql::UseSegment, params![worker.as_slice(), clamp(output.segment)])?;
        }
        Ok(new)
    }

    /// What follows from the end of a task, whatever ended it: counts, dependents, its array.
    pub(super) fn ended(&mut self, row: &Row, state: TaskState, at_us: u64) -> rusqlite::Result<()> {
        self.applied.ended.push((row.id, state));
        self.ledger.blocked = self.ledger.blocked.saturating_sub(u64::from(row.blockers > 0));
        self.hook(row, state, at_us)?;
        // Who waits for it is looked up only while anybody waits at all: being waited for leaves no mark in a row.
        if self.ledger.blocked > 0 {
            self.todo.push_back(Todo::TellDependents { blocker: row.id.seq(), after: 0, at_us });
        }
        match row.kind {
            RowKind::Task => self.shift(row.group, TaskState::Pending, state, 1),
            RowKind::Member => {
                self.shift(row.group, TaskState::Pending, state, 1);
                let Some(array) = self.array_of(row.id.seq())? else { return Ok(()) };
                let (failed, cancelled) = member_shares(state);
                self.sql.run(Sql::MemberEnded, params![array.seq, failed, cancelled])?;
                if array.open <= 1 {
                    self.end_array_if_done(array.seq, at_us)?;
                }
            }
            RowKind::Header => {}
        }
        Ok(())
    }

    /// Ends an array whose last member has ended.
    pub(super) fn end_array_if_done(&mut self, header: u64, at_us: u64) -> rusqlite::Result<()> {
        let (Some(row), Some(array)) = (self.row(header)?, self.array_of(header)?) else { return Ok(()) };
        let state = outcome(&array);
        if array.open > 0 || self.sql.run(Sql::EndArray, params![header, state as u8, at_us])? == 0 {
            return Ok(());
        }
        if let Some(kind) = event_of(state) {
            self.event(kind, at_us, &Draft { task: Some(row.id), ..Draft::default() })?;
        }
        self.ended(&row, state, at_us)
    }

    /// Lets a person's wish bring back what has ended.
    pub(super) fn retry(&mut self, seq: u64, at_us: u64) -> rusqlite::Result<()> {
        // A key may have been given to another task meanwhile; that of an array is its members' as well.
        let array = self.array_of(seq)?.map(|array| array.seq);
        for keyed in array.into_iter().chain([seq]) {
            if self.sql.one(Sql::KeyRival, [keyed], |_| Ok(()))?.is_some() {
                return Ok(());
            }
        }
        match self.row(seq)? {
            Some(row) => match row.kind {
                RowKind::Header => self.retry_array(&row, at_us),
                RowKind::Task | RowKind::Member => self.retry_row(&row, at_us),
            },
            None => self.retry_untouched(seq, at_us),
        }
    }

    pub(super) fn retry_row(&mut self, row: &Row, at_us: u64) -> rusqlite::Result<()> {
        let seq = row.id.seq();
        let unmet = if row.state.is_final() { self.open_blockers(row)? } else { row.blockers };
        if self.sql.run(Sql::Revive, params![seq, unmet, at_us])? == 0 {
            return Ok(());
        }
        self.ledger.blocked += u64::from(unmet > 0);
        self.event(EventKind::TaskRetried, at_us, &Draft { task: Some(row.id), ..Draft::default() })?;
        match row.kind {
            RowKind::Header => {}
            RowKind::Task => self.shift(row.group, row.state, TaskState::Pending, 1),
            RowKind::Member => {
                self.shift(row.group, row.state, TaskState::Pending, 1);
                if let Some(array) = self.array_of(seq)? {
                    let (failed, cancelled) = member_shares(row.state);
                    self.sql.run(Sql::MemberRevived, params![array.seq, failed, cancelled])?;
                    self.reopen_array(array.seq)?;
                }
            }
        }
        if unmet == 0 && row.held & !BY_PERSON == 0 {
            self.now_ready(&row.unaged());
        }
        Ok(())
    }

    /// What a retried task waits for: blockers that are retried as well. Those that have ended are not asked again.
    pub(super) fn open_blockers(&mut self, row: &Row) -> rusqlite::Result<u32> {
        if row.flags & HAS_DEPENDENCIES == 0 {
            return Ok(0);
        }
        let seq = row.id.seq();
        self.sql.run(Sql::Block, [seq])?;
        self.sql.run(Sql::Settle, [seq])?;
        Ok(self.sql.one(Sql::CountUnmet, [seq], |r| r.get(0))?.unwrap_or(0))
    }

    pub(super) fn worker_started(&mut self, worker: &WorkerRecord) -> rusqlite::Result<()> {
        let id = worker.id.to_u128().to_be_bytes();
        let WorkerRecord { slot, pid, start_ticks, boot_id, mode, started_us, .. } = worker;
        let row = params![id.as_slice(), slot, pid, start_ticks, boot_id, mode, started_us];
        if self.sql.run(Sql::WorkerStarted, row)? == 0 {
            return Ok(());
        }
        let data = serde_json::json!({ "slot": slot, "pid": pid, "mode": mode }).to_string();
        let draft = Draft { worker: Some(worker.id), data: Some(&data), ..Draft::default() };
        self.event(EventKind::WorkerCreated, *started_us, &draft)
    }

    pub(super) fn worker_unhealthy(&mut self, id: WorkerId, at_us: u64) -> rusqlite::Result<()> {
        self.event_once(EventKind::WorkerUnhealthy, at_us, &Draft { worker: Some(id), ..Draft::default() })
    }

    pub(super) fn worker_stopped(
        &mut self,
        id: WorkerId,
        at_us: u64,
        (completed, failed): (u64, u64),
        failure: Option<&str>,
    ) -> rusqlite::Result<()> {
        let key = id.to_u128().to_be_bytes();
        if self.sql.run(Sql::WorkerStopped, params![key.as_slice(), at_us, completed, failed])? == 0 {
            return Ok(());
        }
        let data = failure.map(|why| serde_json::json!({ "why": why }).to_string());
        let kind = if failure.is_some() { EventKind::WorkerFailed } else { EventKind::WorkerStopped };
        self.event(kind, at_us, &Draft { worker: Some(id), data: data.as_deref(), ..Draft::default() })
    }

    /// Lets delayed tasks go whose time has come.
    pub(super) fn wake(&mut self, now_us: u64, limit: u32) -> rusqlite::Result<()> {
        let due: Vec<u64> = self.sql.all(Sql::Due, params![now_us, limit], |r| r.get(0))?;
        for seq in due {
            self.sql.run(Sql::Undelay, params![seq, now_us])?;
            if let Some(row) = self.row(seq)?.filter(Row::is_ready) {
                self.now_ready(&row);
            }
        }
        Ok(())
    }
}

/// What a member in this state adds to its array's counts of failed and cancelled ones.
pub(super) fn member_shares(state: TaskState) -> (u8, u8) {
    match state {
        TaskState::Pending | TaskState::Assigned | TaskState::Running | TaskState::Completed => (0, 0),
        TaskState::Failed | TaskState::Timeout => (1, 0),
        TaskState::Cancelled => (0, 1),
    }
}
