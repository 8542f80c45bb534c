//! How a task ended, as a program sees it.
//!
//! Deliberately absent: asking for it.

use std::fmt;
use std::time::Duration;

use acode_worker::task::{TaskId, TaskState};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ApiError;
use crate::wire::types::TaskRecord;

/// The end of a task, of whatever kind.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskOutcome {
    /// The task.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// How it ended: completed, failed, cancelled or timeout.
    pub state: TaskState,
    /// The last attempt's verdict, by name: `exited`, `timed-out`, `worker-lost`, ...; none if there was no attempt.
    pub verdict: Option<String>,
    /// The last attempt's exit code, if it exited. Of an action 0, 1 if it failed, 101 if it panicked.
    pub exit_code: Option<i32>,
    /// The signal that killed the last attempt, if one did.
    pub signal: Option<i32>,
    /// What it said of its failure, or why it could not run.
    pub error: Option<String>,
    /// Its result; null if it has left none.
    pub result: Value,
    /// How many attempts there were.
    pub attempts: u32,
    /// From the start of its last attempt to its end.
    pub duration: Option<Duration>,
    /// From its submission to the start of its last attempt.
    pub queued: Option<Duration>,
}

impl TaskOutcome {
    /// The end that the record tells of; none if the task has not ended.
    pub(super) fn of(record: TaskRecord) -> Option<Self> {
        if !record.state.is_final() {
            return None;
        }
        let between = |from: Option<i64>, to: Option<i64>| {
            let micros = to?.saturating_sub(from?);
            Some(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
        };
        let (submitted, started, finished) = (
            record.submitted_at.micros(),
            record.started_at.map(|at| at.micros()),
            record.finished_at.map(|at| at.micros()),
        );
        // The pool has checked it; what is no JSON cannot have come this far.
        let result = record.result.as_ref().and_then(|result| serde_json::from_str(result.get()).ok());
        Some(Self {
            id: record.id,
            name: record.name,
            state: record.state,
            verdict: record.verdict,
            exit_code: record.exit_code,
            signal: record.signal,
            error: record.error,
            result: result.unwrap_or_default(),
            attempts: record.attempt_count,
            duration: between(started, finished),
            queued: between(Some(submitted), started),
        })
    }

    /// Whether it completed.
    pub fn is_success(&self) -> bool {
        self.state == TaskState::Completed
    }

    /// Its result as the type that it has.
    ///
    /// # Errors
    /// It did not complete, or its result is of another form.
    pub fn output<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        Ok(serde_json::from_value(self.success()?.result)?)
    }

    /// Itself if it completed, and the failure otherwise.
    ///
    /// # Errors
    /// It did not complete: [`ApiError::Task`].
    pub fn success(self) -> Result<Self, ApiError> {
        match self.failure() {
            None => Ok(self),
            Some(failure) => Err(Box::new(failure).into()),
        }
    }

    /// What went wrong, if it did not complete.
    pub fn failure(&self) -> Option<TaskFailure> {
        (!self.is_success()).then(|| TaskFailure {
            id: self.id,
            name: self.name.clone(),
            state: self.state,
            words: self.words(),
        })
    }

    fn words(&self) -> String {
        let error = self.error.clone().filter(|error| !error.is_empty());
        let how = match (self.exit_code, self.signal, &self.verdict) {
            (Some(code), _, _) => Some(format!("exit code {code}")),
            (None, Some(signal), _) => Some(format!("signal {signal}")),
            (None, None, verdict) => verdict.clone(),
        };
        error.or(how).unwrap_or_else(|| "it was never started".to_owned())
    }
}

/// A task that did not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskFailure {
    /// The task.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// How it ended: failed, cancelled or timeout.
    pub state: TaskState,
    /// What it said, else how its last attempt ended.
    pub words: String,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.state {
            TaskState::Timeout => "ran out of time",
            TaskState::Cancelled => "was cancelled",
            TaskState::Failed
            | TaskState::Pending
            | TaskState::Assigned
            | TaskState::Running
            | TaskState::Completed => "failed",
        };
        write!(f, "task {} ({}) {how}: {}", self.id, self.name, self.words)
    }
}

impl std::error::Error for TaskFailure {}
