//! What happens in a pool, as a program sees it.
//!
//! Deliberately absent: following, which `pool` and `hub` do.

use std::str::FromStr;

use acode_worker::task::{TaskId, WorkerId};
use serde_json::Value;

use super::ApiError;
use super::cancel::Patience;
use super::line::Line;
use crate::store::EventKind;
use crate::wire::types::EventRecord;
use crate::wire::{MetricsRecord, Stamp, reply, request};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Its place in the order of all events of the queue: one more than that of the event before it.
    pub seq: u64,
    /// When it was recorded.
    pub at: Stamp,
    /// What happened; none if the pool is of a newer version, and only the name is known.
    pub kind: Option<EventKind>,
    /// What happened, by name: `task-completed`.
    pub name: String,
    /// To which task.
    pub task: Option<TaskId>,
    /// In which attempt.
    pub attempt: Option<u32>,
    /// By which worker.
    pub worker: Option<WorkerId>,
    /// What else there is to say: an object, or null.
    pub data: Value,
}

impl From<EventRecord> for Event {
    fn from(record: EventRecord) -> Self {
        let EventRecord { schema: _, seq, at, event, task, attempt, worker, data } = record;
        let kind = event.parse().ok();
        let data = data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        Self { seq, at, kind, name: event, task, attempt, worker, data }
    }
}

impl Event {
    /// The metrics of a [`EventKind::MetricsUpdated`].
    pub fn metrics(&self) -> Option<MetricsRecord> {
        let told = self.kind == Some(EventKind::MetricsUpdated);
        told.then(|| serde_json::from_value(self.data.clone()).ok())?
    }

    /// How far a task is, of a [`EventKind::TaskProgress`]: 0 to 100.
    pub fn percent(&self) -> Option<u64> {
        self.data.get("percent")?.as_u64()
    }

    /// How many workers there shall be, of a [`EventKind::PoolScaledUp`] or [`EventKind::PoolScaledDown`].
    pub fn worker_count(&self) -> Option<u64> {
        self.data.get("to")?.as_u64()
    }
}

/// No event has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no event '{0}'")]
pub struct NoSuchEvent(String);

/// By its name, `task-completed`, or as listeners name it: `taskCompleted`, `scaledUp`, `workerTerminated`, `error`.
impl FromStr for EventKind {
    type Err = NoSuchEvent;

    fn from_str(text: &str) -> Result<Self, NoSuchEvent> {
        let alias = match text {
            "scaledUp" => Some(Self::PoolScaledUp),
            "scaledDown" => Some(Self::PoolScaledDown),
            "workerTerminated" => Some(Self::WorkerStopped),
            "error" => Some(Self::WorkerError),
            _ => None,
        };
        let camel = |kind: &Self| {
            let mut parts = kind.name().split('-');
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |name, part| {
                let (head, tail) = part.split_at(part.len().min(1));
                name + &head.to_ascii_uppercase() + tail
            })
        };
        let named = |kind: &Self| kind.name() == text || camel(kind) == text;
        alias.or_else(|| Self::ALL.iter().copied().find(named)).ok_or_else(|| NoSuchEvent(text.to_owned()))
    }
}

/// The events of a pool as they happen; made by [`WorkerPool::events`](super::WorkerPool::events). It ends with the pool,
/// and after an error.
#[derive(Debug)]
pub struct Events {
    line: Line,
    patience: Patience,
    batch: std::collections::VecDeque<Event>,
    ended: bool,
}

impl Events {
    pub(super) fn new(mut line: Line, after: u64, patience: Patience) -> Result<Self, ApiError> {
        line.begin(&follow(after))?;
        Ok(Self { line, patience, batch: Default::default(), ended: false })
    }
}

/// The request to follow what comes behind this number.
pub(super) fn follow(after: u64) -> request::Events {
    request::Events { after: Some(after), follow: true, ..request::Events::default() }
}

impl Iterator for Events {
    type Item = Result<Event, ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.batch.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            match self.line.next::<request::Events>(&self.patience) {
                Ok((reply::EventBatch { events, missed: _ }, continues)) => {
                    self.ended = !continues;
                    self.batch.extend(events.into_iter().map(Event::from));
                }
                Err(error) => {
                    self.ended = true;
                    // Hanging up is how a pool ends.
                    return if error.is_pool_gone() { None } else { Some(Err(error)) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_either_of_its_names() {
        for kind in EventKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        let listeners = [
            ("taskSubmitted", EventKind::TaskSubmitted),
            ("taskTimeout", EventKind::TaskTimeout),
            ("workerTerminated", EventKind::WorkerStopped),
            ("scaledUp", EventKind::PoolScaledUp),
            ("scaledDown", EventKind::PoolScaledDown),
            ("metricsUpdated", EventKind::MetricsUpdated),
            ("error", EventKind::WorkerError),
        ];
        for (name, kind) in listeners {
            assert_eq!(name.parse(), Ok(kind));
        }
        assert!("taskExploded".parse::<EventKind>().is_err());
    }
}
