//! What a worker and a long-lived program say to each other: one JSON object on each line, in UTF-8.
//!
//! Pure data, for both sides; docs/protocol.md describes it for people. Deliberately absent: pipes, and what is done about
//! what was said.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::Why;
use crate::task::{Env, RESULT_MAX};

/// The version, which every task is handed over with.
pub const PROTOCOL: u32 = 1;
/// The variable that tells a program which version it is spoken to in.
pub const PROTOCOL_VARIABLE: &str = "ACODE_PROTOCOL";
/// The longest line that is taken from a program, in bytes: a result, each byte of which may be escaped, with all about it.
pub const LINE_MAX: usize = 6 * RESULT_MAX + 64 * 1024;

/// What a program is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToProgram {
    /// To do this.
    Task(Box<Work>),
    /// That its task's time is almost over.
    Warn {
        /// The task.
        id: String,
        /// Milliseconds until then.
        left: u64,
    },
    /// To end its task.
    Cancel {
        /// The task.
        id: String,
        /// Why.
        why: CancelReason,
    },
    /// To leave.
    Shutdown {},
    /// What a later version may say; to be passed over.
    #[serde(other)]
    Other,
}

/// A task, as its program sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The version.
    pub protocol: u32,
    /// The task's id, which every answer repeats.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The type of the action.
    pub action: String,
    /// Which custom action, if the task says.
    #[serde(default)]
    pub name: Option<String>,
    /// Its parameters.
    #[serde(default)]
    pub payload: Value,
    /// The submitter's own facts.
    #[serde(default)]
    pub meta: Env,
    /// The number of the worker's slot.
    pub slot: u32,
    /// Its private directory, empty at first and gone when it has ended.
    pub scratch: String,
    /// Where relative paths start.
    pub cwd: String,
    /// The directory that outlives its attempts, if it has one.
    #[serde(default)]
    pub checkpoint: Option<String>,
    /// When its time is over, in milliseconds of Unix time, if it has any such.
    #[serde(default)]
    pub deadline: Option<u64>,
}

/// Why a task is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CancelReason {
    /// Its time is over.
    Timeout,
    /// Somebody cancelled it, or it exceeded a limit.
    Cancel,
    /// The pool takes it back, and will do it again.
    GiveBack,
}

impl From<CancelReason> for Why {
    fn from(reason: CancelReason) -> Self {
        match reason {
            CancelReason::Timeout => Self::Timeout,
            CancelReason::Cancel => Self::Cancel,
            CancelReason::GiveBack => Self::GiveBack,
        }
    }
}

/// What a program says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FromProgram {
    /// It can be handed tasks.
    Ready {},
    /// How far a task is.
    Progress {
        /// The task.
        id: String,
        /// 0 to 100.
        percent: f64,
        /// A few words.
        #[serde(default)]
        message: String,
    },
    /// Some of a task's output, as it is to be written.
    Log {
        /// The task.
        id: String,
        /// The text, with its line ends.
        text: String,
        /// Where to.
        #[serde(default)]
        stream: LogStream,
    },
    /// The end of a task that went well.
    Result {
        /// The task.
        id: String,
        /// Its result; null is none.
        #[serde(default)]
        payload: Value,
    },
    /// The end of one that did not.
    Error {
        /// The task.
        id: String,
        /// Why, in words.
        error: String,
        /// The exit code that stands for it, 1 to 255; 1 if absent.
        #[serde(default)]
        code: Option<u8>,
    },
}

/// One of a task's outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// One message as a line.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Nothing here can fail to be written as JSON: all keys are texts.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_as_the_page_says() {
        let text = |message: &ToProgram| String::from_utf8(line(message)).unwrap();
        let cancel = ToProgram::Cancel { id: "T".into(), why: CancelReason::GiveBack };
        assert_eq!(text(&cancel), "{\"type\":\"cancel\",\"id\":\"T\",\"why\":\"give-back\"}\n");
        assert_eq!(text(&ToProgram::Shutdown {}), "{\"type\":\"shutdown\"}\n");
        let work = Work { protocol: PROTOCOL, id: "T".into(), ..Work::default() };
        assert!(text(&ToProgram::Task(Box::new(work))).starts_with("{\"type\":\"task\",\"protocol\":1,\"id\":\"T\""));
        let read = |text: &str| serde_json::from_str::<FromProgram>(text);
        assert_eq!(read(r#"{"type":"ready","pid":7}"#).unwrap(), FromProgram::Ready {});
        let result = FromProgram::Result { id: "T".into(), payload: Value::Null };
        assert_eq!(read(r#"{"type":"result","id":"T"}"#).unwrap(), result);
        assert!(read(r#"{"type":"result","id":7}"#).is_err() && read(r#"{"type":"reslut","id":"T"}"#).is_err());
    }

    #[test]
    fn what_a_later_version_says_is_passed_over() {
        let later = serde_json::from_str::<ToProgram>(r#"{"type":"pause","id":"T"}"#).unwrap();
        assert_eq!(later, ToProgram::Other);
    }
}
