//! What a request means for the queue: shared by the supervisor, and by a client that holds the queue while no
//! supervisor runs.
//!
//! Deliberately absent: the live pool, connections, and commits; each caller has its own way with those.

use acode_worker::sys::clock;
use acode_worker::task::{Array, Submission, TaskId, TaskSpec, TaskState};

use crate::records;
use crate::store::{self, FindError, NewTask, Queue, Retention, StoreError, SubmitError};
use crate::wire::reply::EventBatch;
use crate::wire::request::{Events, Prune};
use crate::wire::types::{LogSource, TaskRecord, Waiting};
use crate::wire::{CallError, TaskRef, reply};

/// The most attempts of one task that are shown.
const ATTEMPTS_MAX: usize = 1_000;

/// Why a request cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request is at fault.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The queue is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Now, in microseconds of Unix time.
pub fn now_us() -> u64 {
    u64::try_from(clock::unix_us()).unwrap_or(0)
}

/// Checks the entries of a submission, and gives them their ids.
///
/// # Errors
/// The first entry that is refused; no number is lost but those of the entries before it.
pub fn admit(
    store: &mut dyn Queue,
    submissions: Vec<Submission>,
    limit: u64,
    queued: u64,
) -> Result<Vec<NewTask>, RequestError> {
    // The sizes are the client's word, so their sum may be more than a number holds.
    let sizes = submissions.iter().map(|entry| entry.array.as_ref().map_or(1, Array::len));
    let wanted = sizes.fold(0, u64::saturating_add);
    if queued.saturating_add(wanted) > limit {
        return Err(CallError::QueueFull { queued, limit }.into());
    }
    let refused = |entry: usize, reason: String| CallError::InvalidSubmission { entry: Some(entry as u32), reason };
    for (entry, submission) in submissions.iter().enumerate() {
        submission.spec.validate().map_err(|error| refused(entry, error.to_string()))?;
        // Before numbers are given out: as many as such an array asks for there may not be.
        if let Some(size) = submission.array.as_ref().map(Array::len).filter(|size| *size > Array::MAX) {
            return Err(refused(entry, SubmitError::LargeArray(size).to_string()).into());
        }
    }
    let now_us = now_us();
    let mut ids: Vec<TaskId> = Vec::with_capacity(submissions.len());
    let mut tasks = Vec::with_capacity(submissions.len());
    for (entry, submission) in submissions.into_iter().enumerate() {
        let span = 1 + submission.array.as_ref().map_or(0, |array| array.len());
        let id = store.allocate(now_us / 1_000, span);
        let task: Result<NewTask, SubmitError> = NewTask::new(id, now_us, submission, &ids);
        let task = task.map_err(|error| refused(entry, error.to_string()))?;
        let (size, max) = (task.spec_json.len(), TaskSpec::MAX_BYTES);
        if size > max {
            let error = acode_worker::task::SpecError::TooLarge { size, max };
            return Err(refused(entry, error.to_string()).into());
        }
        ids.push(id);
        tasks.push(task);
    }
    Ok(tasks)
}

/// Checks the dependencies of admitted entries against the queue.
///
/// # Errors
/// The first entry that depends on something the queue does not have.
pub fn check_dependencies(store: &dyn Queue, tasks: &[NewTask]) -> Result<(), RequestError> {
    match store.check(tasks)? {
        Ok(()) => Ok(()),
        Err((id, why)) => {
            let entry = tasks.iter().position(|task| task.id == id).map(|place| place as u32);
            Err(CallError::InvalidSubmission { entry, reason: why.to_string() }.into())
        }
    }
}

/// The one task that a text names.
///
/// # Errors
/// There is none, or more than one.
pub fn resolve(store: &dyn Queue, name: &TaskRef) -> Result<TaskId, RequestError> {
    let found = match name {
        TaskRef::Id(id) => match store.get(*id)? {
            Some(record) => Ok(record.id),
            None => Err(FindError::NotFound(id.to_string())),
        },
        TaskRef::Number(number) => store.find_by_number(*number),
        TaskRef::Prefix(prefix) => store.find_by_prefix(prefix),
    };
    found.map_err(|error| match error {
        FindError::NotFound(task) | FindError::NotAnId(task) => CallError::NoSuchTask { task }.into(),
        FindError::Ambiguous { prefix, first } => {
            CallError::AmbiguousTask { task: prefix, matches: vec![first] }.into()
        }
        FindError::Store(error) => error.into(),
    })
}

/// The tasks that the texts name.
///
/// # Errors
/// As for [`resolve`].
pub fn resolve_all(store: &dyn Queue, names: &[TaskRef]) -> Result<Vec<TaskId>, RequestError> {
    names.iter().map(|name| resolve(store, name)).collect()
}

/// What is stored about a task.
///
/// # Errors
/// There is none with this id.
pub fn stored(store: &dyn Queue, id: TaskId) -> Result<store::TaskRecord, RequestError> {
    store.get(id)?.ok_or_else(|| CallError::NoSuchTask { task: id.to_string() }.into())
}

/// A task's record with its attempts.
///
/// # Errors
/// The queue cannot be read.
pub fn with_attempts(store: &dyn Queue, record: TaskRecord) -> Result<TaskRecord, StoreError> {
    let attempts = store.attempts(record.id, ATTEMPTS_MAX)?;
    Ok(records::with_attempts(record, attempts))
}

/// Whether a person may have this task run again.
pub fn may_retry(state: TaskState) -> bool {
    match state {
        TaskState::Failed | TaskState::Cancelled | TaskState::Timeout => true,
        TaskState::Pending | TaskState::Assigned | TaskState::Running | TaskState::Completed => false,
    }
}

/// Why a task stands where it does, from its record as it stands now.
pub fn why(record: TaskRecord, verdict: Option<&acode_worker::task::Verdict>) -> reply::WhyReply {
    let text = match (record.state, &record.waiting) {
        (TaskState::Pending, Some(waiting)) => waiting.to_string(),
        (TaskState::Pending, None) => Waiting::Queued { ahead: None }.to_string(),
        (TaskState::Assigned, _) => "a worker has claimed it and is starting it".to_owned(),
        (TaskState::Running, _) => format!("running, attempt {}", record.attempt_count),
        (TaskState::Completed | TaskState::Failed | TaskState::Cancelled | TaskState::Timeout, _) => {
            records::ending(&record, verdict)
        }
    };
    reply::WhyReply { id: record.id, state: record.state, waiting: record.waiting, text }
}

/// Why a task that is pending on disk waits, as far as the queue knows; `None` if it could run.
///
/// # Errors
/// The queue cannot be read.
pub fn waiting(store: &dyn Queue, stored: &store::TaskRecord) -> Result<Option<Waiting>, StoreError> {
    use crate::wire::Stamp;
    if stored.blockers > 0 {
        let all = store.dependencies(stored.id, Waiting::MAX_NAMED)?;
        let on = all.into_iter().filter(|(_, _, settled)| !settled).map(|(id, _, _)| id).collect();
        return Ok(Some(Waiting::Dependencies { on, count: u64::from(stored.blockers) }));
    }
    if stored.not_before_us > 0 {
        let until = Stamp::from_micros(i64::try_from(stored.not_before_us).unwrap_or(i64::MAX));
        return Ok(Some(match stored.attempts {
            0 => Waiting::Delayed { until },
            attempts => Waiting::RetryAt { until, attempt: attempts + 1 },
        }));
    }
    Ok(None)
}

/// Where the output of a task's last ended attempt lies, or of the one asked for; `None` if there is no such attempt.
///
/// # Errors
/// The queue cannot be read.
pub fn log_source(
    store: &dyn Queue,
    task: &store::TaskRecord,
    only: Option<u32>,
) -> Result<Option<LogSource>, StoreError> {
    let attempts = store.attempts(task.id, ATTEMPTS_MAX)?;
    let found = attempts.into_iter().rev().find(|attempt| only.is_none_or(|only| only == attempt.number));
    Ok(found.map(|attempt| records::log_source(task.id, task.spec.display_name().to_owned(), &attempt)))
}

/// What a request to prune keeps: all that it does not name.
pub fn retention(prune: &Prune) -> Retention {
    Retention {
        max_age_us: prune.older_than_ms.map(|ms| ms.saturating_mul(1_000)),
        max_count: prune.keep.or(prune.older_than_ms.is_none().then_some(0)),
        max_event_age_us: None,
        max_events: None,
    }
}

/// The number behind which events are asked for. Without a word it is the oldest that is kept: what was removed before
/// anybody asked is not missed.
///
/// # Errors
/// The queue cannot be read.
pub fn events_from(store: &dyn Queue, events: &Events) -> Result<u64, StoreError> {
    match (events.after, events.since) {
        (Some(after), _) => Ok(after),
        (None, Some(since)) => store.last_event_before(u64::try_from(since.micros()).unwrap_or(0)),
        (None, None) => Ok(store.events(0, 1)?.first().map_or(0, |first| first.seq.saturating_sub(1))),
    }
}

/// At most `limit` events behind the number `after`, with how many that came before them are gone, and the number to go
/// on from. Numbers have no gaps but those that pruning makes.
///
/// # Errors
/// The queue cannot be read.
pub fn events_page(store: &dyn Queue, after: u64, limit: usize) -> Result<(EventBatch, u64), StoreError> {
    let found = store.events(after, limit)?;
    let last = store.last_event();
    let first = found.first().map_or(last + 1, |event| event.seq);
    let next = found.last().map_or(last.max(after), |event| event.seq);
    let missed = first.saturating_sub(after + 1);
    Ok((EventBatch { events: found.into_iter().map(records::event).collect(), missed }, next))
}
