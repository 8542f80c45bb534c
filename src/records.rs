//! What the queue has stored, as the records that people and scripts read. Pure.
//!
//! Used by the supervisor, which lays the live pool over it, and by clients that read the queue of a pool that is not
//! running. Deliberately absent: anything that only a live pool knows.

use acode_worker::task::{TaskId, TaskSpec, Verdict};
use serde_json::value::RawValue;

use crate::store::{self, Queue, StoreError};
use crate::wire::reply::Listed;
use crate::wire::request::List;
use crate::wire::types::{
    ArrayRecord, AttemptRecord, CauseRecord, EventRecord, LogSource, MemberRecord, OutputSizes, Progress, TaskCounts,
    TaskRecord, Waiting,
};
use crate::wire::{SCHEMA, Stamp};

fn stamp(micros: u64) -> Stamp {
    Stamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// A task's own word on how far it is.
pub fn progress(percent: f64, message: Option<String>) -> Progress {
    let message = message.filter(|text| !text.is_empty());
    Progress { percent: percent.clamp(0.0, 100.0).round() as u8, message }
}

/// A task's record.
pub fn task(stored: store::TaskRecord, waiting: Option<Waiting>) -> TaskRecord {
    let spec = stored.spec;
    let (array, member) = match stored.kind {
        store::TaskKind::Task => (None, None),
        store::TaskKind::Array(array) => {
            (Some(ArrayRecord { count: array.count, members: array_counts(&array) }), None)
        }
        store::TaskKind::Member { array, index, item } => (None, Some(MemberRecord { of: array, index, item })),
    };
    let mut record = TaskRecord {
        schema: SCHEMA,
        id: stored.id,
        number: stored.id.seq(),
        name: spec.display_name().to_owned(),
        state: stored.state,
        verdict: None,
        exit_code: None,
        signal: None,
        error: stored.error.or(stored.reason),
        result: stored.result.and_then(|text| RawValue::from_string(text).ok()),
        priority: spec.priority,
        present_priority: Some(stored.priority).filter(|present| *present != spec.priority),
        group: stored.group,
        expires_at: Some(stored.expires_us).filter(|time| *time > 0).map(stamp),
        progress: stored.progress_percent.map(|percent| progress(percent, stored.progress_message)),
        waiting,
        isolation: spec.own_isolation(),
        action: spec.action.map(|action| *action),
        docker: spec.docker,
        command: spec.command,
        cwd: spec.cwd,
        worktree: spec.worktree,
        meta: spec.meta,
        key: stored.key,
        cause: stored.cause.map(|(dependency, root)| CauseRecord { dependency, root }),
        hook_of: stored.hook_of,
        array,
        member,
        submitted_at: stamp(stored.id.millis().saturating_mul(1_000)),
        started_at: stored.started_us.map(stamp),
        finished_at: stored.finished_us.map(stamp),
        suspended: false,
        suspended_at: None,
        usage_now: None,
        output: OutputSizes::default(),
        attempt_count: stored.attempts,
        crash_count: stored.losses.saturating_add(stored.ooms),
        oom_count: stored.ooms,
        attempts: None,
        hooks: None,
    };
    if let Some(verdict) = &stored.verdict {
        record.set_verdict(verdict);
    }
    record
}

/// An array's members by state, as far as the queue knows.
pub fn array_counts(array: &store::ArrayRecord) -> TaskCounts {
    TaskCounts {
        pending: array.open,
        failed: array.failed,
        cancelled: array.cancelled,
        completed: array.count.saturating_sub(array.open + array.failed + array.cancelled),
        ..TaskCounts::default()
    }
}

/// An attempt's record.
pub fn attempt(stored: store::AttemptRecord) -> AttemptRecord {
    let mut record = AttemptRecord {
        number: stored.number,
        worker: stored.worker,
        verdict: None,
        exit_code: None,
        signal: None,
        reason: None,
        isolation: Some(stored.isolation),
        tree_guard: Some(stored.guard),
        usage: Some(stored.usage.into()),
        started_at: Some(stamp(stored.started_us)),
        finished_at: Some(stamp(stored.finished_us)),
        leaked: stored.leaked,
        output: Some(stored.output),
        limits: stored.notes.limits,
        kept: stored.notes.kept,
        artifacts: stored.notes.artifacts,
        sandbox: stored.notes.sandbox.and_then(|text| serde_json::from_str(&text).ok()),
    };
    record.set_verdict(&stored.verdict);
    record.reason = record.reason.or(stored.error);
    record
}

/// A task's record with its attempts, and what it says about its last one.
pub fn with_attempts(mut record: TaskRecord, attempts: Vec<store::AttemptRecord>) -> TaskRecord {
    let attempts: Vec<_> = attempts.into_iter().map(attempt).collect();
    if let Some(output) = attempts.last().and_then(|last| last.output) {
        record.output = OutputSizes::from(output);
    }
    record.attempts = Some(attempts);
    record
}

/// An event's record.
pub fn event(stored: store::Event) -> EventRecord {
    let mut record = EventRecord::new(stored.seq, stamp(stored.at_us), stored.kind.name());
    record.task = stored.task;
    record.attempt = stored.attempt;
    record.worker = stored.worker;
    record.data = match (stored.data, stored.count) {
        (Some(data), Some(count)) if data.ends_with('}') => {
            RawValue::from_string(format!(r#"{},"count":{count}}}"#, &data[..data.len() - 1])).ok()
        }
        (Some(data), _) => RawValue::from_string(data).ok(),
        (None, Some(count)) => RawValue::from_string(format!(r#"{{"count":{count}}}"#)).ok(),
        (None, None) => None,
    };
    record
}

/// Why a task ended as it did, in one sentence with its evidence; `last` is its last attempt.
pub fn ending(record: &TaskRecord, last: Option<&store::AttemptRecord>, spec: &TaskSpec) -> String {
    let mut text = record.state.to_string();
    match record.attempt_count {
        0 | 1 => {}
        count => text.push_str(&format!(" after {count} attempts")),
    }
    if let Some(last) = last {
        text.push_str(&format!(", {}", verdict(&last.verdict)));
        let limit = match last.verdict {
            Verdict::TimedOut => spec.timeout_ms.map(|ms| format!(" (timeout {} s)", ms as f64 / 1e3)),
            Verdict::OutOfMemory => out_of_memory(last, spec),
            Verdict::OverLimit { ref limit } => over_limit(last, limit),
            Verdict::Exited { .. }
            | Verdict::Signalled { .. }
            | Verdict::Cancelled
            | Verdict::WorkerLost
            | Verdict::EngineFailed { .. }
            | Verdict::NotStarted { .. } => None,
        };
        text.push_str(&limit.unwrap_or_default());
        let ran = last.usage.wall_us as f64 / 1e6;
        let memory = last.usage.peak_memory_bytes.unwrap_or(last.usage.max_rss_bytes);
        if memory > 0 {
            text.push_str(&format!(", ran {ran:.1} s, peak memory {} MiB", mib(memory)));
        }
        let beyond = last.notes.limits.iter().filter(|held| held.exceeded).map(|held| held.limit.as_str());
        let beyond: Vec<&str> = beyond.collect();
        if !beyond.is_empty() {
            text.push_str(&format!(", above {}", beyond.join(", ")));
        }
    }
    if let Some(error) = &record.error {
        text.push_str(&format!(": {}", error.trim_end().replace('\n', " ")));
    }
    text
}

/// What there is to show for it: the most memory, the limit, who was killed.
fn out_of_memory(last: &store::AttemptRecord, spec: &TaskSpec) -> Option<String> {
    let Some(held) = last.notes.limits.iter().find(|held| held.limit == "memoryMb") else {
        return spec.rlimits.address_space_bytes.map(|bytes| format!(" (address space {} MiB)", mib(bytes)));
    };
    let peak = last.usage.peak_memory_bytes.unwrap_or(last.usage.max_rss_bytes);
    let kills = last.usage.oom_kills.filter(|kills| *kills > 0);
    let kills = kills.map(|kills| format!(", {kills} killed by the kernel")).unwrap_or_default();
    Some(format!(" (peak {} MiB of {} MiB{kills})", mib(peak), held.value))
}

/// How much of the limit was used.
fn over_limit(last: &store::AttemptRecord, limit: &str) -> Option<String> {
    let held = last.notes.limits.iter().find(|held| held.limit == limit)?;
    let peak = last.usage.peak_disk_bytes.filter(|_| limit == "diskMb");
    let peak = peak.map(|bytes| format!("peak {} MiB of ", mib(bytes))).unwrap_or_default();
    Some(format!(" ({peak}{}, by {})", held.value, held.by))
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// How an attempt ended, in words.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Exited { code } => format!("exit code {code}"),
        Verdict::Signalled { signal, core_dumped } => {
            let name = nix::sys::signal::Signal::try_from(*signal).map_or("unknown", |signal| signal.as_str());
            format!("killed by {name} ({signal}){}", if *core_dumped { ", core dumped" } else { "" })
        }
        Verdict::TimedOut => "timed out".to_owned(),
        Verdict::OutOfMemory => "out of memory".to_owned(),
        Verdict::OverLimit { limit } => format!("exceeded {limit}"),
        Verdict::Cancelled => "cancelled".to_owned(),
        Verdict::WorkerLost => "worker lost".to_owned(),
        Verdict::NotStarted { why, .. } => format!("not started: {why}"),
        Verdict::EngineFailed { why } => format!("the container engine failed: {why}"),
    }
}

/// Where the output of an ended attempt lies.
pub fn log_source(task: TaskId, name: String, attempt: &store::AttemptRecord) -> LogSource {
    LogSource {
        task,
        name,
        attempt: attempt.number,
        worker: attempt.worker,
        segment: attempt.output.segment,
        offset: attempt.output.offset,
        length: Some(attempt.output.length),
    }
}

/// The most pages of the store that one list looks through for tasks of the states asked for.
const PAGES_MAX: usize = 10;

/// A page of the list of tasks. `overlay` makes a record of what is stored, and may change its state.
///
/// # Errors
/// The queue cannot be read.
pub fn list(
    store: &dyn Queue,
    list: &List,
    array: Option<TaskId>,
    limit: usize,
    overlay: impl Fn(store::TaskRecord) -> Result<TaskRecord, StoreError>,
) -> Result<Listed, StoreError> {
    let state = match list.states.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    let mut after = list.after.map(TaskId::seq);
    if let (Some(array), None, false) = (array, after, list.newest_first) {
        after = Some(array.seq());
    }
    let mut listed = Listed::default();
    for _ in 0..PAGES_MAX {
        let filter = store::ListFilter { state, after, newest_first: list.newest_first, members: true };
        let page = store.list(&filter, limit)?;
        for stored in page.tasks {
            let member = match &stored.kind {
                store::TaskKind::Member { array, .. } => Some(*array),
                store::TaskKind::Task | store::TaskKind::Array(_) => None,
            };
            if array.is_some() && member != array {
                continue;
            }
            let record = overlay(stored)?;
            if list.states.is_empty() || list.states.contains(&record.state) {
                listed.next = Some(record.id);
                listed.tasks.push(record);
            }
            if listed.tasks.len() == limit {
                return Ok(listed);
            }
        }
        after = page.next;
        if after.is_none() {
            listed.next = None;
            return Ok(listed);
        }
    }
    Ok(listed)
}
