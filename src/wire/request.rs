//! What a client may ask: one type per method, and the parser that makes a [`Request`] of a message.
//!
//! Unknown parameters are refused, so that a typing error is not taken for a default. Deliberately absent: doing any
//! of it, and looking up tasks by name.

use std::borrow::Cow;

use acode_worker::task::{Submission, TaskId, TaskState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::reply;
use super::types::StopMode;
use super::{CallError, INTERFACE, MAX_ENTRIES, MAX_IDS, Stamp, TaskRef};

/// The longest reason of a pause, in bytes.
const MAX_REASON: usize = 4_096;

/// A method of the interface: its parameters are `Self`.
pub trait Method: Serialize {
    /// The method's whole name.
    const NAME: &'static str;
    /// What it is answered with.
    type Reply: Serialize + DeserializeOwned;
}

/// Puts tasks into the queue; all of them or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// At most [`MAX_ENTRIES`].
    pub tasks: Vec<Submission>,
    /// Milliseconds to wait while the queue is nearly full; 0 to be refused at once; the configured bound, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

impl Submit {
    /// Of these tasks, waiting as long as the pool is configured to.
    pub fn new(tasks: Vec<Submission>) -> Self {
        Self { tasks, wait_ms: None }
    }
}

/// Finds the ids of tasks named by prefix or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// The names.
    pub ids: Vec<TaskRef>,
}

/// Cancels tasks; a running one is ended. An array's id stands for all of its members that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Which.
    #[serde(default)]
    pub ids: Vec<TaskRef>,
    /// Or those of this limit group, the youngest first, as many as go into one transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Without any grace for those that run, also if they are being ended already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub now: bool,
}

/// Stops running tasks where they are. An array's id stands for all of its members that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspend {
    /// Which.
    pub ids: Vec<TaskRef>,
}

/// Lets suspended tasks go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continue {
    /// Which.
    pub ids: Vec<TaskRef>,
}

/// Holds pending tasks: they are not started before they are released. An array's id stands for all of its members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hold {
    /// These.
    pub ids: Vec<TaskRef>,
    /// Or a limit group: nothing of it is started, also what comes later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Lets tasks start that were held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Release {
    /// These.
    pub ids: Vec<TaskRef>,
    /// Or a limit group that was held as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Sets the limit of a limit group, and makes the group if there is none of this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitGroup {
    /// Which.
    pub name: String,
    /// The most tasks of it at once; as many as there are, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// Makes tasks that ended without success pending again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Which.
    pub ids: Vec<TaskRef>,
}

/// Everything about one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Show {
    /// Which.
    pub id: TaskRef,
}

/// A page of the list of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// Only these states; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<TaskState>,
    /// At most so many; the server's default, and never more than [`super::MAX_LIST`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only those that come after this one in the order asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<TaskId>,
    /// The newest first, instead of the oldest.
    #[serde(skip_serializing_if = "is_false")]
    pub newest_first: bool,
    /// Only the members of this array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<TaskRef>,
}

/// Why a task stands where it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// Which.
    pub id: TaskRef,
}

/// Waits until tasks have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wait {
    /// These.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskRef>,
    /// Or all that are in the queue, and all that come while waiting.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// From this moment on; all that are kept, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Stamp>,
    /// After the event with this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Go on with those to come; needs `more`.
    #[serde(skip_serializing_if = "is_false")]
    pub follow: bool,
    /// At most so many in one reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Where output lies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Of these tasks; of all that run now, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskRef>,
    /// Of this attempt only; of the last one, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// The pool's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Give them in Prometheus' text format, too.
    #[serde(skip_serializing_if = "is_false")]
    pub text: bool,
}

macro_rules! without_parameters {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}
    )*};
}

/// Has the pool start no further tasks, also after a restart, until it is resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pause {
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

without_parameters! {
    /// Ends the pause that was asked for.
    Resume
    /// The pool in figures.
    Status
    /// The list of workers.
    Workers
    /// Hands the number of workers back to the load, after it was set by hand.
    Autoscale
    /// Has the pool read its configuration again, as SIGHUP does.
    Reload
    /// Checks the health of all workers; answered when all have answered, or their time is up.
    Check
    /// The limit groups.
    Groups
    /// Whether anybody is there.
    Ping
    /// About the service (`org.varlink.service`).
    GetInfo
}

/// Changes the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many there shall be.
    pub count: u32,
}

/// Stops the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// How.
    pub mode: StopMode,
    /// Milliseconds after which the running tasks are killed and requeued; the configured drain timeout, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Removes ended tasks with their logs and events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prune {
    /// Only those that ended at least so many milliseconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<u64>,
    /// Keep so many of the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
}

/// The text of an interface (`org.varlink.service`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetInterfaceDescription {
    /// Which.
    pub interface: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

macro_rules! methods {
    ($($interface:literal $method:ident -> $reply:ty;)*) => {
        /// What a client asks for.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request {
            $(#[doc = concat!("`", $interface, ".", stringify!($method), "`")] $method($method),)*
        }

        $(impl Method for $method {
            const NAME: &'static str = concat!($interface, ".", stringify!($method));
            type Reply = $reply;
        }

        impl From<$method> for Request {
            fn from(request: $method) -> Self {
                Self::$method(request)
            }
        })*

        impl Request {
            /// The whole names of all methods.
            pub const NAMES: &[&str] = &[$($method::NAME),*];

            fn decode(method: &str, parameters: &str) -> Result<Self, CallError> {
                match method {
                    $($method::NAME => {
                        serde_json::from_str::<$method>(parameters).map(Self::$method).map_err(|e| refused(method, &e))
                    })*
                    _ => Err(unknown_method(method)),
                }
            }
        }
    };
}

methods! {
    "io.acode" Submit -> reply::Submitted;
    "io.acode" Resolve -> reply::Resolved;
    "io.acode" Cancel -> reply::Cancelled;
    "io.acode" Suspend -> reply::Suspended;
    "io.acode" Continue -> reply::Resumed;
    "io.acode" Retry -> reply::Retried;
    "io.acode" Hold -> reply::Held;
    "io.acode" Release -> reply::Released;
    "io.acode" Groups -> reply::Groups;
    "io.acode" LimitGroup -> reply::GroupLimited;
    "io.acode" Show -> reply::Shown;
    "io.acode" List -> reply::Listed;
    "io.acode" Why -> reply::WhyReply;
    "io.acode" Wait -> reply::Waited;
    "io.acode" Events -> reply::EventBatch;
    "io.acode" Logs -> reply::LogPlaces;
    "io.acode" Status -> reply::StatusReply;
    "io.acode" Workers -> reply::WorkersReply;
    "io.acode" Metrics -> reply::MetricsReply;
    "io.acode" Scale -> reply::Scaled;
    "io.acode" Autoscale -> reply::Scaled;
    "io.acode" Reload -> reply::Reloaded;
    "io.acode" Check -> reply::Checked;
    "io.acode" Stop -> reply::Stopping;
    "io.acode" Pause -> reply::Pausing;
    "io.acode" Resume -> reply::Pausing;
    "io.acode" Prune -> reply::Pruned;
    "io.acode" Ping -> reply::Pong;
    "org.varlink.service" GetInfo -> reply::ServiceInfo;
    "org.varlink.service" GetInterfaceDescription -> reply::InterfaceDescription;
}

/// A message of a client, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Several replies are welcome.
    pub more: bool,
    /// No reply is wanted, not even an error.
    pub oneway: bool,
}

/// A message that asks for nothing we can do, with what is needed to answer it.
#[derive(Debug)]
pub struct BadCall {
    /// What to answer.
    pub error: CallError,
    /// No reply is wanted.
    pub oneway: bool,
    /// It was no Varlink call at all: answer, then hang up, since nothing that follows can be trusted.
    pub hang_up: bool,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
    #[serde(default)]
    more: Option<bool>,
    #[serde(default)]
    oneway: Option<bool>,
    #[serde(default)]
    upgrade: Option<bool>,
}

impl Request {
    /// Takes a message (without its NUL) apart and checks the bounds of what it asks.
    ///
    /// # Errors
    /// What to answer instead: the message is not a call, or of an unknown method, or has wrong parameters.
    pub fn parse(message: &[u8]) -> Result<Call, BadCall> {
        let envelope: Envelope<'_> = serde_json::from_slice(message).map_err(|error| BadCall {
            error: CallError::InvalidParameter { parameter: format!("message: {error}") },
            oneway: false,
            hang_up: true,
        })?;
        let oneway = envelope.oneway.unwrap_or(false);
        let bad = |error| BadCall { error, oneway, hang_up: false };
        if envelope.upgrade.unwrap_or(false) {
            return Err(bad(CallError::MethodNotImplemented { method: envelope.method.into_owned() }));
        }
        let parameters = envelope.parameters.map_or("{}", |raw| raw.get());
        let parameters = if parameters == "null" { "{}" } else { parameters };
        let request = Self::decode(&envelope.method, parameters).map_err(bad)?;
        request.check_bounds().map_err(bad)?;
        Ok(Call { request, more: envelope.more.unwrap_or(false), oneway })
    }

    fn check_bounds(&self) -> Result<(), CallError> {
        let ids = match self {
            Self::Submit(submit) => {
                return match submit.tasks.len() {
                    0 => Err(CallError::InvalidSubmission { entry: None, reason: "there is no task in it".to_owned() }),
                    count if count > MAX_ENTRIES => Err(CallError::InvalidSubmission {
                        entry: None,
                        reason: format!("{count} tasks in one call: at most {MAX_ENTRIES} are allowed, send several"),
                    }),
                    _ => Ok(()),
                };
            }
            Self::Wait(wait) if wait.all != wait.ids.is_empty() => {
                return Err(CallError::InvalidParameter { parameter: "ids: either these or all".to_owned() });
            }
            Self::Cancel(Cancel { ids, group, .. })
            | Self::Hold(Hold { ids, group })
            | Self::Release(Release { ids, group })
                if group.is_some() != ids.is_empty() =>
            {
                return Err(CallError::InvalidParameter { parameter: "ids: either these or group".to_owned() });
            }
            Self::Resolve(Resolve { ids })
            | Self::Hold(Hold { ids, .. })
            | Self::Release(Release { ids, .. })
            | Self::Cancel(Cancel { ids, .. })
            | Self::Suspend(Suspend { ids })
            | Self::Continue(Continue { ids })
            | Self::Retry(Retry { ids })
            | Self::Wait(Wait { ids, .. })
            | Self::Logs(Logs { ids, .. }) => ids.len(),
            Self::Pause(Pause { reason: Some(reason) }) if reason.len() > MAX_REASON => {
                let parameter = format!("reason: {} bytes, at most {MAX_REASON} are allowed", reason.len());
                return Err(CallError::InvalidParameter { parameter });
            }
            Self::Show(_)
            | Self::List(_)
            | Self::Why(_)
            | Self::Events(_)
            | Self::Status(_)
            | Self::Workers(_)
            | Self::Metrics(_)
            | Self::Groups(_)
            | Self::LimitGroup(_)
            | Self::Scale(_)
            | Self::Autoscale(_)
            | Self::Reload(_)
            | Self::Check(_)
            | Self::Stop(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Prune(_)
            | Self::Ping(_)
            | Self::GetInfo(_)
            | Self::GetInterfaceDescription(_) => 0,
        };
        if ids > MAX_IDS {
            return Err(CallError::InvalidParameter {
                parameter: format!("ids: {ids}, at most {MAX_IDS} are allowed"),
            });
        }
        Ok(())
    }
}

fn unknown_method(method: &str) -> CallError {
    match method.rsplit_once('.') {
        Some((INTERFACE | "org.varlink.service", _)) => CallError::MethodNotFound { method: method.to_owned() },
        Some((interface, _)) => CallError::InterfaceNotFound { interface: interface.to_owned() },
        None => CallError::InterfaceNotFound { interface: method.to_owned() },
    }
}

/// Wrong parameters. Those of a submission are the user's own words, and get an error of their own.
fn refused(method: &str, error: &serde_json::Error) -> CallError {
    if method == Submit::NAME {
        CallError::InvalidSubmission { entry: None, reason: error.to_string() }
    } else {
        CallError::InvalidParameter { parameter: error.to_string() }
    }
}

#[cfg(test)]
#[path = "tests/request.rs"]
mod tests;
