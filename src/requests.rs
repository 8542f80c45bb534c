//! What a request means for the queue: shared by the supervisor, and by a client that holds the queue while no
//! supervisor runs.
//!
//! Deliberately absent: the live pool, connections, and commits; each caller has its own way with those.

use acode_worker::sys::clock;
use acode_worker::task::{Array, GroupWish, Submission, TaskId, TaskSpec, TaskState};

use crate::records;
use crate::store::{self, FindError, NewTask, Queue, Retention, StoreError, SubmitError};
use crate::wire::request::{LimitGroup, Prune};
use crate::wire::types::{GroupRecord, LogSource, TaskRecord, Waiting};
use crate::wire::{CallError, Stamp, TaskRef, reply};

/// The most attempts of one task that are shown.
const ATTEMPTS_MAX: usize = 1_000;

/// As far as the tasks ahead of one are counted.
pub const AHEAD_MAX: u64 = 1_000;
/// The most tasks of a group that are cancelled in one transaction. More than can run at once, so that there is always one
/// among them that still waits.
const CANCEL_MAX: usize = 2_000;

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

/// Whether a person may hold this task, as far as the queue knows.
///
/// # Errors
/// Why not.
pub fn may_hold(record: &store::TaskRecord) -> Result<(), String> {
    let member = matches!(record.kind, store::TaskKind::Member { .. });
    // What a member that has no row waits for is its array's.
    let waits = record.blockers > 0 || (record.not_before_us > 0 && record.attempts == 0);
    match record.state {
        TaskState::Completed | TaskState::Failed | TaskState::Cancelled | TaskState::Timeout => {
            Err("it has ended".to_owned())
        }
        TaskState::Pending | TaskState::Assigned | TaskState::Running if member && waits => {
            Err("its whole array waits: hold the array".to_owned())
        }
        TaskState::Pending | TaskState::Assigned | TaskState::Running => Ok(()),
    }
}

/// Whether there is anything to release.
///
/// # Errors
/// Why not.
pub fn may_release(record: &store::TaskRecord) -> Result<(), String> {
    if record.state.is_final() {
        return Err("it has ended".to_owned());
    }
    // Members of an array may be held although the array itself is not.
    match record.kind {
        store::TaskKind::Array(_) => Ok(()),
        store::TaskKind::Task | store::TaskKind::Member { .. } if record.held => Ok(()),
        store::TaskKind::Task | store::TaskKind::Member { .. } => Err("it is not held".to_owned()),
    }
}

/// The group with this name.
///
/// # Errors
/// There is none.
pub fn group(store: &dyn Queue, name: &str) -> Result<store::Group, RequestError> {
    let found = store.groups()?.into_iter().find(|group| group.name == name);
    found.ok_or_else(|| CallError::NoSuchGroup { group: name.to_owned() }.into())
}

/// The next tasks of a group to cancel, and whether there are more.
///
/// # Errors
/// There is no such group.
pub fn open_in_group(store: &dyn Queue, name: &str) -> Result<(Vec<TaskId>, bool), RequestError> {
    let group = group(store, name)?;
    let mut ids = store.open_in_group(group.id, CANCEL_MAX + 1)?;
    let more = ids.len() > CANCEL_MAX;
    ids.truncate(CANCEL_MAX);
    Ok((ids, more))
}

/// Checks the name and the limit of a group.
///
/// # Errors
/// What is wrong.
pub fn check_group(limit: &LimitGroup) -> Result<(), CallError> {
    let wish = GroupWish { name: limit.name.clone(), max: limit.max };
    wish.validate().map_err(|parameter| CallError::InvalidParameter { parameter })
}

/// Whether there may be another group besides so many.
///
/// # Errors
/// There may not.
pub fn may_add_group(groups: usize) -> Result<(), CallError> {
    if (groups as u64) < store::GROUPS_MAX {
        return Ok(());
    }
    Err(CallError::Refused { reason: format!("there are {groups} limit groups, and there may be no more") })
}

/// A group's record. `limit` is the one that holds, `running` how many of its tasks workers hold.
pub fn group_record(group: &store::Group, limit: Option<u32>, running: u64) -> GroupRecord {
    GroupRecord {
        name: group.name.clone(),
        limit,
        running,
        waiting: group.open.saturating_sub(running),
        held_since: Some(group.held_us).filter(|time| *time > 0).map(stamp),
    }
}

/// What a task waits for whose group is held.
pub fn held_group(group: &store::Group) -> Waiting {
    Waiting::Held { since: stamp(group.held_us), group: Some(group.name.clone()) }
}

fn stamp(us: u64) -> Stamp {
    Stamp::from_micros(i64::try_from(us).unwrap_or(i64::MAX))
}

/// Why a task stands where it does, from its record as it stands now.
pub fn why(record: TaskRecord, verdict: Option<&acode_worker::task::Verdict>) -> reply::WhyReply {
    let text = match (record.state, &record.waiting) {
        (TaskState::Pending, Some(Waiting::Queued { ahead: Some(ahead) })) => {
            let priority = record.present_priority.unwrap_or(record.priority);
            match ahead {
                0 => format!("queued: next in priority {priority}"),
                1 => format!("queued: 1 task ahead in priority {priority}"),
                2..=AHEAD_MAX => format!("queued: {ahead} tasks ahead in priority {priority}"),
                _ => format!("queued: more than {AHEAD_MAX} tasks ahead in priority {priority}"),
            }
        }
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
    if stored.held {
        // While it is held, the time of its readiness is that of the hold.
        let since = if stored.ready_us > 0 { stored.ready_us } else { stored.id.millis().saturating_mul(1_000) };
        return Ok(Some(Waiting::Held { since: stamp(since), group: None }));
    }
    if stored.blockers > 0 {
        let all = store.dependencies(stored.id, Waiting::MAX_NAMED)?;
        let on = all.into_iter().filter(|(_, _, settled)| !settled).map(|(id, _, _)| id).collect();
        return Ok(Some(Waiting::Dependencies { on, count: u64::from(stored.blockers) }));
    }
    if stored.not_before_us > 0 {
        let until = stamp(stored.not_before_us);
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
