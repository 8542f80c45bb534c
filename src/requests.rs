//! What a request means for the queue: shared by the supervisor, and by a client that holds the queue while no
//! supervisor runs.
//!
//! Deliberately absent: the live pool, connections, and commits; each caller has its own way with those.

use std::collections::HashMap;

use acode_worker::actions::Registry;
use acode_worker::sys::clock;
use acode_worker::task::{Array, Blocker, GroupWish, IfExists, Key, Limits, Submission, TaskId, TaskSpec, TaskState};

use crate::records;
use crate::store::{self, FindError, NewTask, Queue, Retention, StoreError, SubmitError};
use crate::wire::reply::EventBatch;
use crate::wire::request::{Events, LimitGroup, Prune};
use crate::wire::types::{Awaited, CauseRecord, GroupRecord, LogSource, TaskRecord, Waiting};
use crate::wire::{CallError, Stamp, TaskRef, reply};

/// The most attempts of one task that are shown.
const ATTEMPTS_MAX: usize = 1_000;
/// The most finish hooks of one task that are shown; it has more than two if it was retried.
const HOOKS_MAX: usize = 100;

/// As far as the tasks ahead of one are counted.
pub const AHEAD_MAX: u64 = 1_000;
/// The most tasks of a group that are cancelled in one transaction. More than can run at once, so that there is always one
/// among them that still waits.
const CANCEL_MAX: usize = 2_000;
/// The largest number that an event can ever have: the queue's are signed.
const EVENT_MAX: u64 = i64::MAX as u64;

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

/// What a submission comes to.
#[derive(Debug, Default)]
pub struct Admitted {
    /// What is to be added to the queue.
    pub tasks: Vec<NewTask>,
    /// The ids of all entries, in their order: of those that are to be added, and of those that stand for others.
    pub ids: Vec<TaskId>,
}

/// What an entry stands for whose key is taken.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// A task of the queue.
    Queued(TaskId),
    /// An earlier entry of the same request.
    Entry(usize),
}

/// Whether a submission is about what may still be in the batch: other tasks of the queue, or their keys.
pub fn looks_up(submissions: &[Submission]) -> bool {
    submissions.iter().any(|entry| !entry.dependencies.is_empty() || entry.key.is_some())
}

/// What submissions are held against.
#[derive(Clone, Copy)]
pub struct Bounds<'b> {
    /// How many unfinished tasks the queue may hold.
    pub limit: u64,
    /// The largest limits that a task may have.
    pub max: &'b Limits,
    /// The actions that are known here.
    pub actions: &'b Registry,
}

/// Checks the entries of a submission, and gives them their ids.
///
/// # Errors
/// The first entry that is refused; no number is lost but those of the entries before it.
pub fn admit(
    store: &mut dyn Queue,
    mut submissions: Vec<Submission>,
    bounds: Bounds<'_>,
    queued: u64,
) -> Result<Admitted, RequestError> {
    let Bounds { limit, max, actions } = bounds;
    let taken = check_keys(store, &submissions)?;
    // The sizes are the client's word, so their sum may be more than a number holds.
    let new = submissions.iter().enumerate().filter(|(entry, _)| !taken.contains_key(entry));
    let sizes = new.map(|(_, submission)| submission.array.as_ref().map_or(1, Array::len));
    let wanted = sizes.fold(0, u64::saturating_add);
    if queued.saturating_add(wanted) > limit {
        return Err(CallError::QueueFull { queued, limit }.into());
    }
    for (entry, submission) in submissions.iter_mut().enumerate() {
        submission.spec.validate().map_err(|error| refused(entry, error))?;
        if let Some(action) = submission.first_action() {
            actions.check(&action).map_err(|error| refused(entry, error))?;
        }
        if let Some((key, own, most)) = submission.spec.limits.above(max) {
            let why = format!("limits.{key} is {own}: at most {most} is allowed (workers.maxLimits.{key})");
            return Err(refused(entry, why).into());
        }
        // Before numbers are given out: as many as such an array asks for there may not be.
        if let Some(size) = submission.array.as_ref().map(Array::len).filter(|size| *size > Array::MAX) {
            return Err(refused(entry, SubmitError::LargeArray(size)).into());
        }
        find_named(store, submission)?;
    }
    let now_us = now_us();
    let mut admitted = Admitted { ids: Vec::with_capacity(submissions.len()), ..Admitted::default() };
    for (entry, submission) in submissions.into_iter().enumerate() {
        match taken.get(&entry) {
            Some(Taken::Queued(id)) => {
                admitted.ids.push(*id);
                continue;
            }
            Some(Taken::Entry(earlier)) => {
                admitted.ids.extend(admitted.ids.get(*earlier).copied());
                continue;
            }
            None => {}
        }
        let span = 1 + submission.array.as_ref().map_or(0, |array| array.len());
        let id = store.allocate(now_us / 1_000, span);
        let task = NewTask::new(id, now_us, submission, &admitted.ids).map_err(|error| refused(entry, error))?;
        let (size, max) = (task.spec_json.len(), TaskSpec::MAX_BYTES);
        if size > max {
            return Err(refused(entry, acode_worker::task::SpecError::TooLarge { size, max }).into());
        }
        admitted.ids.push(id);
        admitted.tasks.push(task);
    }
    Ok(admitted)
}

fn refused(entry: usize, why: impl std::fmt::Display) -> CallError {
    CallError::InvalidSubmission { entry: Some(entry as u32), reason: why.to_string() }
}

/// The entries whose keys are taken and that want what has them instead.
fn check_keys(store: &dyn Queue, submissions: &[Submission]) -> Result<HashMap<usize, Taken>, RequestError> {
    let (mut taken, mut own): (HashMap<usize, Taken>, HashMap<&str, usize>) = Default::default();
    for (entry, submission) in submissions.iter().enumerate() {
        let Some(Key { text, if_exists }) = &submission.key else { continue };
        if !(1..=Key::MAX_BYTES).contains(&text.len()) {
            let size = text.len();
            return Err(refused(entry, format!("the key has {size} bytes: 1 to {} are allowed", Key::MAX_BYTES)).into());
        }
        match (store.key_holder(text)?, own.get(text.as_str()).copied(), *if_exists) {
            (None, None, _) => {
                own.insert(text, entry);
            }
            (Some(id), _, IfExists::Existing) => {
                taken.insert(entry, Taken::Queued(id));
            }
            (None, Some(earlier), IfExists::Existing) => {
                taken.insert(entry, Taken::Entry(earlier));
            }
            (Some(id), _, IfExists::Refuse) => {
                return Err(CallError::KeyExists { key: text.clone(), task: id.to_string() }.into());
            }
            (None, Some(_), IfExists::Refuse) => {
                let why = format!("its key '{text}' is that of an earlier entry of the same request");
                return Err(refused(entry, why).into());
            }
        }
    }
    Ok(taken)
}

/// Puts ids in the place of what a submission waits for by name.
fn find_named(store: &dyn Queue, submission: &mut Submission) -> Result<(), RequestError> {
    for dependency in &mut submission.dependencies {
        if let Blocker::Task(text) = &dependency.on {
            let name: TaskRef = text.parse().map_err(|_| CallError::NoSuchTask { task: text.clone() })?;
            dependency.on = Blocker::Id(resolve(store, &name)?);
        }
    }
    Ok(())
}

/// Checks that tasks may be queued again as far as their keys go.
///
/// # Errors
/// Another task has the key of one of them and has not ended, or two of them have the same.
pub fn check_revival(store: &dyn Queue, ids: &[TaskId]) -> Result<(), RequestError> {
    let mut own: HashMap<String, TaskId> = HashMap::new();
    for id in ids {
        let Some((owner, key)) = store.key_of(*id)? else { continue };
        let holder = store.key_holder(&key)?.or(own.get(&key).copied());
        if let Some(holder) = holder.filter(|holder| *holder != owner) {
            return Err(CallError::KeyExists { key, task: holder.to_string() }.into());
        }
        own.insert(key, owner);
    }
    Ok(())
}

/// Checks the dependencies of admitted entries against the queue. `ids` are those of all entries.
///
/// # Errors
/// The first entry that depends on something the queue does not have.
pub fn check_dependencies(store: &dyn Queue, tasks: &[NewTask], ids: &[TaskId]) -> Result<(), RequestError> {
    match store.check(tasks)? {
        Ok(()) => Ok(()),
        Err((id, why)) => {
            let entry = ids.iter().position(|entry| *entry == id).map(|place| place as u32);
            Err(CallError::InvalidSubmission { entry, reason: why.to_string() }.into())
        }
    }
}

/// The one task that a text names: by id, number or prefix, else by name, and then the youngest that has it.
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
        TaskRef::Name(name) => store.find_by_name(name),
    };
    // What looks like an id and is none may still be somebody's name.
    let found = match (found, name) {
        (Err(FindError::NotFound(text) | FindError::NotAnId(text)), TaskRef::Number(_) | TaskRef::Prefix(_)) => {
            store.find_by_name(&text)
        }
        (found, _) => found,
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

/// A task's record with its attempts and finish hooks.
///
/// # Errors
/// The queue cannot be read.
pub fn with_attempts(store: &dyn Queue, record: TaskRecord) -> Result<TaskRecord, StoreError> {
    let attempts = store.attempts(record.id, ATTEMPTS_MAX)?;
    let hooks = store.hooks_of(record.id, HOOKS_MAX)?;
    Ok(TaskRecord { hooks: Some(hooks), ..records::with_attempts(record, attempts) })
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

/// Why a task stands where it does. `look` makes a record as it stands now of what is stored.
///
/// # Errors
/// The queue cannot be read.
pub fn why(
    store: &dyn Queue,
    stored: store::TaskRecord,
    look: impl Fn(store::TaskRecord) -> Result<TaskRecord, StoreError>,
) -> Result<reply::WhyReply, StoreError> {
    let spec = stored.spec.clone();
    let mut record = look(stored)?;
    if let Some(Waiting::Dependencies { on, tasks, .. }) = &mut record.waiting {
        for id in on {
            let Some(stored) = store.get(*id)? else { continue };
            let name = stored.spec.name.clone();
            tasks.push(Awaited { id: *id, name, state: look(stored)?.state });
        }
    }
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
        (TaskState::Running, _) => match record.suspended_at {
            Some(since) => format!("suspended since {since}, attempt {}", record.attempt_count),
            None => format!("running, attempt {}", record.attempt_count),
        },
        (TaskState::Completed | TaskState::Failed | TaskState::Cancelled | TaskState::Timeout, _) => {
            let last = store.attempts(record.id, 1)?.pop();
            records::ending(&record, last.as_ref(), &spec) + &chain(store, &record)?
        }
    };
    Ok(reply::WhyReply { id: record.id, state: record.state, waiting: record.waiting, text })
}

/// The ends that brought a dependency's dependent down, from the nearest to the first of all, with its evidence.
fn chain(store: &dyn Queue, record: &TaskRecord) -> Result<String, StoreError> {
    let (mut text, mut cause, mut steps) = (String::new(), record.cause, 0);
    while let Some(CauseRecord { dependency, root }) = cause {
        // A long chain is told by its beginning and its end.
        let skip = steps == Waiting::MAX_NAMED && dependency != root;
        let id = if skip { root } else { dependency };
        let Some(stored) = store.get(id)? else { break };
        let spec = stored.spec.clone();
        let last = records::task(stored, None);
        let ended = match &last.cause {
            Some(_) => last.state.to_string(),
            None => records::ending(&last, store.attempts(id, 1)?.last(), &spec),
        };
        let dots = if skip { "… " } else { "" };
        text.push_str(&format!("\n  <- {dots}{id} ({}): {ended}", last.name));
        cause = last.cause;
        steps += 1;
    }
    Ok(text)
}

/// Fills in what a retry follows, and how many attempts there may be. `pool` is the pool's number of retries, if known.
pub fn explain_retry(waiting: &mut Waiting, stored: &store::TaskRecord, pool: Option<u32>) {
    use acode_worker::task::Verdict;
    let Waiting::RetryAt { attempt, of, after, .. } = waiting else { return };
    *after = stored.verdict.as_ref().map(records::verdict);
    let crashed = matches!(stored.verdict, Some(Verdict::WorkerLost | Verdict::OutOfMemory));
    let retries = stored.spec.retry.and_then(|own| own.count).or(pool).filter(|_| !crashed);
    *of = retries.map(|retries| attempt.saturating_add(retries.saturating_sub(stored.failures)));
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
        return Ok(Some(Waiting::Dependencies { on, count: u64::from(stored.blockers), tasks: Vec::new() }));
    }
    if stored.not_before_us > 0 {
        let until = stamp(stored.not_before_us);
        return Ok(Some(match stored.attempts {
            0 => Waiting::Delayed { until },
            attempts => Waiting::RetryAt { until, attempt: attempts + 1, of: None, after: None },
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
        // Behind the last that there can be, there is nothing either.
        (Some(after), _) => Ok(after.min(EVENT_MAX)),
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
    let missed = first.saturating_sub(after.saturating_add(1));
    Ok((EventBatch { events: found.into_iter().map(records::event).collect(), missed }, next))
}
