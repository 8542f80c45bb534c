//! Every way in which a call can fail, on both sides of the socket: the server writes it, the client reads it back.
//!
//! Deliberately absent: failures of the connection itself (`ClientError`), and exit codes (`cli/mod.rs`).

use acode_worker::task::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The answer to a call that was not done. Nothing has changed then, unless the variant says otherwise.
///
/// On the wire the variant's name, behind that of its interface, is the error's name, and its fields are the
/// parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// `org.varlink.service.InterfaceNotFound`
    #[error("the pool does not speak '{interface}'")]
    InterfaceNotFound {
        /// Which.
        interface: String,
    },
    /// `org.varlink.service.MethodNotFound`
    #[error("the pool does not know the method '{method}'")]
    MethodNotFound {
        /// Which.
        method: String,
    },
    /// `org.varlink.service.MethodNotImplemented`
    #[error("the pool cannot do '{method}' that way")]
    MethodNotImplemented {
        /// Which.
        method: String,
    },
    /// `org.varlink.service.InvalidParameter`
    #[error("wrong parameter: {parameter}")]
    InvalidParameter {
        /// Which, and what is wrong with it.
        parameter: String,
    },
    /// No task has this id, prefix, number or name.
    #[error("no such task: {task}")]
    NoSuchTask {
        /// As it was named.
        task: String,
    },
    /// No limit group has this name.
    #[error("there is no limit group '{group}'")]
    NoSuchGroup {
        /// As it was named.
        group: String,
    },
    /// Several tasks have ids that begin so.
    #[error("'{task}' is the beginning of several ids, such as {}", list(.matches))]
    AmbiguousTask {
        /// As it was named.
        task: String,
        /// Some of those that fit; at most [`CallError::MAX_MATCHES`].
        matches: Vec<TaskId>,
    },
    /// An entry of a submission is wrong; none was accepted.
    #[error("{}{reason}", place(.entry))]
    InvalidSubmission {
        /// Its place in the call, from 0, where it is known.
        entry: Option<u32>,
        /// What is wrong.
        reason: String,
    },
    /// Another task that has not ended has the key; nothing of the request was done.
    #[error("task {task} has the key '{key}' and has not ended")]
    KeyExists {
        /// The key.
        key: String,
        /// Who has it.
        task: String,
    },
    /// The queue holds as many tasks as it may.
    #[error("the queue is full: it holds {queued} of at most {limit} tasks")]
    QueueFull {
        /// How many it holds.
        queued: u64,
        /// How many it may hold.
        limit: u64,
    },
    /// The queue cannot be written at present; nothing is acknowledged until it can.
    #[error("the queue cannot be written: {reason}")]
    QueueUnavailable {
        /// Why.
        reason: String,
    },
    /// The pool is stopping and takes no more of this.
    #[error("the pool is stopping")]
    Draining,
    /// The peer may not do this.
    #[error("not permitted: {reason}")]
    PermissionDenied {
        /// Why.
        reason: String,
    },
    /// The pool cannot do this in its present state, or with this configuration.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// There are as many connections, or waiting calls, as there may be.
    #[error("the pool is busy: {reason}")]
    Busy {
        /// Of what there are too many.
        reason: String,
    },
    /// A follower of events took nothing of what waited for it for too long, and is cut off.
    #[error("the events were not taken fast enough: cut off after number {after}, with {missed} more behind it")]
    SlowReader {
        /// The number of the last event that was sent.
        after: u64,
        /// How many there were behind it at that moment.
        missed: u64,
    },
    /// Something went wrong that is not the caller's fault.
    #[error("the pool failed: {reason}")]
    Internal {
        /// What.
        reason: String,
    },
    /// An error that this client does not know, from a newer pool.
    #[error("the pool answered {name} {parameters}")]
    Unknown {
        /// Its whole name.
        name: String,
        /// Its parameters, as JSON.
        parameters: String,
    },
}

fn list(ids: &[TaskId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn place(entry: &Option<u32>) -> String {
    entry.map(|entry| format!("entry {}: ", u64::from(entry) + 1)).unwrap_or_default()
}

/// The fields of all errors; each has some of them.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<Vec<TaskId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

impl CallError {
    /// The most ids that an [`CallError::AmbiguousTask`] names.
    pub const MAX_MATCHES: usize = 5;

    /// The error's whole name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::InterfaceNotFound { .. } => "org.varlink.service.InterfaceNotFound",
            Self::MethodNotFound { .. } => "org.varlink.service.MethodNotFound",
            Self::MethodNotImplemented { .. } => "org.varlink.service.MethodNotImplemented",
            Self::InvalidParameter { .. } => "org.varlink.service.InvalidParameter",
            Self::NoSuchTask { .. } => "io.acode.NoSuchTask",
            Self::NoSuchGroup { .. } => "io.acode.NoSuchGroup",
            Self::AmbiguousTask { .. } => "io.acode.AmbiguousTask",
            Self::InvalidSubmission { .. } => "io.acode.InvalidSubmission",
            Self::KeyExists { .. } => "io.acode.KeyExists",
            Self::QueueFull { .. } => "io.acode.QueueFull",
            Self::QueueUnavailable { .. } => "io.acode.QueueUnavailable",
            Self::Draining => "io.acode.Draining",
            Self::PermissionDenied { .. } => "io.acode.PermissionDenied",
            Self::Refused { .. } => "io.acode.Refused",
            Self::Busy { .. } => "io.acode.Busy",
            Self::SlowReader { .. } => "io.acode.SlowReader",
            Self::Internal { .. } => "io.acode.Internal",
            Self::Unknown { name, .. } => name,
        }
    }

    fn fields(&self) -> Fields {
        let none = Fields::default();
        match self.clone() {
            Self::InterfaceNotFound { interface } => Fields { interface: Some(interface), ..none },
            Self::MethodNotFound { method } | Self::MethodNotImplemented { method } => {
                Fields { method: Some(method), ..none }
            }
            Self::InvalidParameter { parameter } => Fields { parameter: Some(parameter), ..none },
            Self::NoSuchTask { task } => Fields { task: Some(task), ..none },
            Self::NoSuchGroup { group } => Fields { group: Some(group), ..none },
            Self::AmbiguousTask { task, matches } => Fields { task: Some(task), matches: Some(matches), ..none },
            Self::InvalidSubmission { entry, reason } => Fields { entry, reason: Some(reason), ..none },
            Self::KeyExists { key, task } => Fields { key: Some(key), task: Some(task), ..none },
            Self::QueueFull { queued, limit } => Fields { queued: Some(queued), limit: Some(limit), ..none },
            Self::SlowReader { after, missed } => Fields { after: Some(after), missed: Some(missed), ..none },
            Self::QueueUnavailable { reason }
            | Self::PermissionDenied { reason }
            | Self::Refused { reason }
            | Self::Busy { reason }
            | Self::Internal { reason } => Fields { reason: Some(reason), ..none },
            Self::Draining | Self::Unknown { .. } => none,
        }
    }

    /// The same in a larger whole: an entry is so many places further on.
    #[must_use]
    pub fn behind(self, entries: usize) -> Self {
        match self {
            Self::InvalidSubmission { entry: Some(entry), reason } => {
                let entry = usize::try_from(entry).ok().and_then(|entry| u32::try_from(entry + entries).ok());
                Self::InvalidSubmission { entry, reason }
            }
            other => other,
        }
    }

    /// The parameters on the wire: a JSON object.
    pub fn parameters(&self) -> String {
        match self {
            Self::Unknown { parameters, .. } => parameters.clone(),
            // These fields are texts and numbers: they have a JSON form in any case.
            _ => serde_json::to_string(&self.fields()).unwrap_or_else(|_| "{}".to_owned()),
        }
    }

    /// The error with this name and these parameters, as a server sent them.
    pub fn from_wire(name: &str, parameters: Option<&RawValue>) -> Self {
        let raw = parameters.map_or("{}", |raw| raw.get());
        let unknown = || Self::Unknown { name: name.to_owned(), parameters: raw.to_owned() };
        let Ok(fields) = serde_json::from_str::<Option<Fields>>(raw) else { return unknown() };
        let Fields {
            interface,
            method,
            parameter,
            task,
            key,
            group,
            matches,
            entry,
            reason,
            queued,
            limit,
            after,
            missed,
        } = fields.unwrap_or_default();
        let (method, task, reason) = (method.unwrap_or_default(), task.unwrap_or_default(), reason.unwrap_or_default());
        match name {
            "org.varlink.service.InterfaceNotFound" => {
                Self::InterfaceNotFound { interface: interface.unwrap_or_default() }
            }
            "org.varlink.service.MethodNotFound" => Self::MethodNotFound { method },
            "org.varlink.service.MethodNotImplemented" => Self::MethodNotImplemented { method },
            "org.varlink.service.InvalidParameter" => {
                Self::InvalidParameter { parameter: parameter.unwrap_or_default() }
            }
            "io.acode.NoSuchTask" => Self::NoSuchTask { task },
            "io.acode.NoSuchGroup" => Self::NoSuchGroup { group: group.unwrap_or_default() },
            "io.acode.AmbiguousTask" => Self::AmbiguousTask { task, matches: matches.unwrap_or_default() },
            "io.acode.InvalidSubmission" => Self::InvalidSubmission { entry, reason },
            "io.acode.KeyExists" => Self::KeyExists { key: key.unwrap_or_default(), task },
            "io.acode.QueueFull" => {
                Self::QueueFull { queued: queued.unwrap_or_default(), limit: limit.unwrap_or_default() }
            }
            "io.acode.QueueUnavailable" => Self::QueueUnavailable { reason },
            "io.acode.Draining" => Self::Draining,
            "io.acode.PermissionDenied" => Self::PermissionDenied { reason },
            "io.acode.Refused" => Self::Refused { reason },
            "io.acode.Busy" => Self::Busy { reason },
            "io.acode.SlowReader" => {
                Self::SlowReader { after: after.unwrap_or_default(), missed: missed.unwrap_or_default() }
            }
            "io.acode.Internal" => Self::Internal { reason },
            _ => unknown(),
        }
    }

    /// One of each, for tests that must see all.
    #[cfg(test)]
    pub(crate) fn samples() -> Vec<Self> {
        let reason = || "r\"\\\n".to_owned();
        vec![
            Self::InterfaceNotFound { interface: "a.b".into() },
            Self::MethodNotFound { method: "a.b.C".into() },
            Self::MethodNotImplemented { method: "a.b.C".into() },
            Self::InvalidParameter { parameter: "p".into() },
            Self::NoSuchTask { task: "01K".into() },
            Self::NoSuchGroup { group: "encode".into() },
            Self::AmbiguousTask { task: "0".into(), matches: vec![TaskId::new(1, 2, 3)] },
            Self::InvalidSubmission { entry: Some(3), reason: reason() },
            Self::InvalidSubmission { entry: None, reason: reason() },
            Self::KeyExists { key: "k".into(), task: TaskId::new(1, 2, 3).to_string() },
            Self::QueueFull { queued: 7, limit: 6 },
            Self::QueueUnavailable { reason: reason() },
            Self::Draining,
            Self::PermissionDenied { reason: reason() },
            Self::Refused { reason: reason() },
            Self::Busy { reason: reason() },
            Self::SlowReader { after: 9, missed: 8 },
            Self::Internal { reason: reason() },
            Self::Unknown { name: "x.y.Z".into(), parameters: r#"{"a":1}"#.into() },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        for error in CallError::samples() {
            let raw = RawValue::from_string(error.parameters()).unwrap();
            assert_eq!(CallError::from_wire(error.name(), Some(&raw)), error);
        }
        assert_eq!(CallError::from_wire("io.acode.Draining", None), CallError::Draining);
    }

    #[test]
    fn odd_parameters_are_kept_and_not_fatal() {
        let raw = RawValue::from_string("[1]".into()).unwrap();
        let error = CallError::from_wire("io.acode.NoSuchTask", Some(&raw));
        assert_eq!(error, CallError::Unknown { name: "io.acode.NoSuchTask".into(), parameters: "[1]".into() });
    }

    #[test]
    fn an_entry_is_counted_from_one_for_people() {
        let error = CallError::InvalidSubmission { entry: Some(0), reason: "command is empty".into() };
        assert_eq!(error.to_string(), "entry 1: command is empty");
        assert_eq!(error.behind(2_000).to_string(), "entry 2001: command is empty");
        assert_eq!(CallError::Draining.behind(1), CallError::Draining);
    }
}
