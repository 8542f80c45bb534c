//! What is said of a program that did not do what it should, and the reading of what it says. Pure.

use super::super::phase::End;
use crate::actions::protocol::{CancelReason, FromProgram, LINE_MAX};
use crate::sys::tree::Ended;
use crate::task::{ERROR_MAX, RESULT_MAX, Verdict};

/// So much of what a program has said is shown, in bytes.
const SHOWN_BYTES: usize = 120;
/// So much of a program's own command line is shown, in bytes.
const NAME_BYTES: usize = 120;

/// How a program has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With this result, if any.
    Done(Option<String>),
    /// With an error, and the exit code that stands for it.
    Failed(String, i32),
}

/// What a line is, for the task with this id. `None` of the id: it has been handed none yet.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the program.
pub fn understand(line: &[u8], id: Option<&str>) -> Result<FromProgram, String> {
    let said: FromProgram = serde_json::from_slice(line)
        .map_err(|error| format!("has written what is no message ({error}): {}", beginning(line)))?;
    let its = match &said {
        FromProgram::Ready {} => None,
        FromProgram::Progress { id, .. }
        | FromProgram::Log { id, .. }
        | FromProgram::Result { id, .. }
        | FromProgram::Error { id, .. } => Some(id.as_str()),
    };
    match (its, id) {
        (None, None) => Ok(said),
        (Some(its), Some(id)) if its == id => Ok(said),
        (None, Some(_)) => Err("has said that it is ready while it had a task".to_owned()),
        (Some(_), None) => Err(format!("has spoken of a task before it was ready: {}", beginning(line))),
        (Some(_), Some(_)) => Err(format!("has spoken of a task that it does not have: {}", beginning(line))),
    }
}

/// What is said of a line that is too long.
pub fn too_long(line: &[u8]) -> String {
    format!("has written a line of more than {LINE_MAX} bytes: {}", beginning(line))
}

/// What is said of one that goes on after its answer.
pub fn more(line: &[u8]) -> String {
    format!("has gone on after its answer: {}", beginning(line))
}

/// The answer in what a program says, if it is one.
pub fn answer(said: FromProgram) -> Option<Answer> {
    match said {
        FromProgram::Ready {} | FromProgram::Progress { .. } | FromProgram::Log { .. } => None,
        FromProgram::Result { payload, .. } if payload.is_null() => Some(Answer::Done(None)),
        FromProgram::Result { payload, .. } => Some(match payload.to_string() {
            text if text.len() <= RESULT_MAX => Answer::Done(Some(text)),
            _ => Answer::Failed(format!("the result is larger than {RESULT_MAX} bytes"), 1),
        }),
        FromProgram::Error { error, code, .. } => {
            Some(Answer::Failed(cut(error, ERROR_MAX), code.filter(|code| *code > 0).map_or(1, i32::from)))
        }
    }
}

/// A program as people are told of it.
pub fn name(argv: &[String]) -> String {
    format!("the worker program '{}'", cut(argv.join(" "), NAME_BYTES))
}

/// How a program ended, as the middle of a sentence.
pub fn ended(end: Option<Ended>) -> String {
    end.map_or_else(|| "was lost".to_owned(), |end| format!("ended as {}", verdict(end)))
}

/// An end as a verdict.
pub fn verdict(end: Ended) -> Verdict {
    match end {
        Ended::Exited(code) => Verdict::Exited { code },
        Ended::Signalled { signal, core_dumped } => Verdict::Signalled { signal, core_dumped },
    }
}

/// Why a task is to end, as its program is told.
pub fn reason(why: End) -> CancelReason {
    match why {
        End::Timeout => CancelReason::Timeout,
        End::Cancel | End::OverLimit(_) | End::NotBegun => CancelReason::Cancel,
        End::GiveBack | End::Orphaned => CancelReason::GiveBack,
    }
}

/// A text of at most so many bytes.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn beginning(line: &[u8]) -> String {
    let shown = &line[..line.len().min(SHOWN_BYTES)];
    let dots = if shown.len() < line.len() { "..." } else { "" };
    format!("{:?}{dots}", String::from_utf8_lossy(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_for_the_task_at_hand_or_wrong() {
        let understood = |line: &str, id| understand(line.as_bytes(), id).is_ok();
        assert!(understood(r#"{"type":"ready"}"#, None) && !understood(r#"{"type":"ready"}"#, Some("T")));
        let result = r#"{"type":"result","id":"T","payload":1}"#;
        assert!(understood(result, Some("T")) && !understood(result, Some("U")) && !understood(result, None));
        let error = understand(b"Traceback (most recent call last):", Some("T")).unwrap_err();
        assert!(error.contains("no message") && error.contains("\"Traceback"), "{error}");
        assert!(understand(&[0xff, b'x'], Some("T")).is_err());
    }

    #[test]
    fn answers_are_bounded_and_errors_are_never_a_success() {
        let result = |text: String| answer(FromProgram::Result { id: "T".into(), payload: text.into() });
        assert_eq!(result("x".into()), Some(Answer::Done(Some("\"x\"".into()))));
        assert!(matches!(result("x".repeat(RESULT_MAX)), Some(Answer::Failed(_, 1))));
        let error = |code| answer(FromProgram::Error { id: "T".into(), error: "ä".repeat(ERROR_MAX), code });
        let Some(Answer::Failed(words, 1)) = error(Some(0)) else { panic!("it has failed") };
        assert!(words.len() <= ERROR_MAX);
        assert!(matches!(error(Some(101)), Some(Answer::Failed(_, 101))));
    }
}
