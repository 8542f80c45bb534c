//! Calls of the docker client that are waited for, each with a deadline of its own (`call`), and what makes one up: its file,
//! its arguments, its environment.
//!
//! No shell, and nothing of a task's in the client's environment. Deliberately absent: what an answer means, and calls
//! beside a running client (`errand`).

use std::ffi::CString;
use std::io;
use std::path::Path;

use super::super::call::{self, Call, Output, word};
use super::super::process::Tools;
use super::super::program;
use crate::sys::clock;
use crate::sys::spawn::CStringArray;
use crate::sys::tree::Ended;
use crate::task::Env;
use crate::wire::DockerSettings;

/// The most characters of the client's words that are told.
const WORDS_MAX: usize = 400;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such program.
    #[error("the docker client '{program}' cannot be run (docker.program names another): {source}")]
    NotRun {
        /// As it is configured.
        program: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// No answer came in time. Whether it was done all the same is not known.
    #[error("'docker {what}' gave no answer within {limit_ms} ms")]
    TimedOut {
        /// The command.
        what: String,
        /// Its deadline.
        limit_ms: u64,
    },
    /// The client, or the engine behind it, said no.
    #[error("'docker {what}' failed: {words}")]
    Refused {
        /// The command.
        what: String,
        /// The last of its words.
        words: String,
    },
}

impl CallError {
    /// Whether this says that the container is gone, or about to be.
    pub fn means_gone(&self) -> bool {
        const WORDS: [&str; 4] =
            ["no such container", "no such object", "no container with name or id", "already in progress"];
        self.says_one_of(&WORDS)
    }

    /// Whether this says that the container does not run, or is not there at all.
    pub fn means_not_running(&self) -> bool {
        const WORDS: [&str; 4] = ["is not running", "not running", "can only kill running containers", "is not paused"];
        self.means_gone() || self.says_one_of(&WORDS)
    }

    /// Whether podman waited in vain for a process to go that it had killed: one whose keeper is dead stays until somebody
    /// reaps it. The second time podman finds it dead.
    pub fn means_unreaped(&self) -> bool {
        self.says_one_of(&["did not die within timeout"])
    }

    fn says_one_of(&self, all: &[&str]) -> bool {
        match self {
            Self::Refused { words, .. } => {
                let words = words.to_lowercase();
                all.iter().any(|known| words.contains(known))
            }
            Self::NotRun { .. } | Self::TimedOut { .. } => false,
        }
    }
}

/// Calls the client with these arguments and gives what it writes to its standard output.
///
/// # Errors
/// It cannot be run, gives no answer within `limit_ms` milliseconds, or ends with another code than 0.
pub fn call(tools: &mut Tools, arguments: &[&str], limit_ms: u64) -> Result<String, CallError> {
    let what = arguments.first().copied().unwrap_or_default().to_owned();
    let DockerSettings { program, environment, .. } = &tools.settings.docker;
    let (program, environment) = (program.clone(), environment.clone());
    let call = Call {
        program: &program,
        arguments: arguments.iter().map(word).collect(),
        environment: &environment,
        directory: Path::new("/"),
        input: None,
        output: Output::Answer,
        file_bytes: None,
        umask: 0o077,
        deadline_ns: clock::monotonic_ns().saturating_add(limit_ms.saturating_mul(1_000_000)),
    };
    // No order cuts it short, not even that of a supervisor that is gone: what it is for has to be done.
    let answer = match call::call(tools, call, &mut |tools| tools.keep_orders().map(|()| true)) {
        Ok(answer) => answer,
        Err(call::CallError::Absent(_)) => {
            return Err(CallError::NotRun { program, source: io::Error::from_raw_os_error(libc::ENOENT) });
        }
        Err(call::CallError::Start { source, .. }) => return Err(CallError::NotRun { program, source }),
        Err(call::CallError::TooLong(_) | call::CallError::Ended(_)) => {
            return Err(CallError::TimedOut { what, limit_ms });
        }
    };
    let output = String::from_utf8_lossy(&answer.output).into_owned();
    let words = || last_words(&answer.words).or_else(|| last_words(&output));
    match answer.ended {
        Ended::Exited(0) => Ok(output),
        Ended::Exited(code) => {
            let words = words().unwrap_or_else(|| format!("it ended with code {code} and without a word"));
            Err(CallError::Refused { what, words })
        }
        Ended::Signalled { signal, .. } => {
            Err(CallError::Refused { what, words: format!("it was killed by signal {signal}") })
        }
    }
}

/// Arguments for exec: the program's name and those that follow.
pub fn argument_array<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> CStringArray {
    let mut argv = CStringArray::default();
    argv.push(&[program.as_bytes()]);
    for argument in arguments {
        argv.push(&[argument.as_bytes()]);
    }
    argv.seal();
    argv
}

/// The client's environment, with `more` of its own for this one call.
pub fn environment_array(settings: &DockerSettings, more: &Env) -> CStringArray {
    let mut envp = CStringArray::default();
    let base = settings.environment.iter().filter(|(name, _)| !more.contains_key(*name));
    for (name, value) in base.chain(more) {
        envp.push(&[name.as_bytes(), b"=", value.as_bytes()]);
    }
    envp.seal();
    envp
}

/// The files that may be the client, in order.
pub fn client_files(settings: &DockerSettings) -> Vec<CString> {
    match settings.program.is_empty() {
        true => Vec::new(),
        false => program::candidates(&settings.program, &settings.environment, &Env::new()),
    }
}

/// The last line that says something, cut to a bearable length, without the client's usual beginnings.
fn last_words(text: &str) -> Option<String> {
    let said = |line: &&str| !line.is_empty() && !line.starts_with("See 'docker") && !line.starts_with("Run 'docker");
    let line = text.lines().map(str::trim).rev().find(said)?;
    let line = ["docker: ", "Error response from daemon: ", "Error: "]
        .iter()
        .fold(line, |line, beginning| line.strip_prefix(beginning).unwrap_or(line));
    Some(line.chars().take(WORDS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> CallError {
        CallError::Refused { what: "rm".to_owned(), words: words.to_owned() }
    }

    #[test]
    fn what_means_that_it_is_gone_is_told_from_what_does_not() {
        for words in [
            "No such container: acode-01",
            "removal of container 12 is already in progress",
            "no container with name or ID \"x\" found: no such container",
        ] {
            assert!(refused(words).means_gone() && refused(words).means_not_running(), "{words}");
        }
        for words in ["Cannot kill container: 12: Container 12 is not running", "container 12 is not paused"] {
            assert!(!refused(words).means_gone() && refused(words).means_not_running(), "{words}");
        }
        assert!(!refused("Cannot connect to the Docker daemon").means_not_running());
        assert!(!CallError::TimedOut { what: "rm".to_owned(), limit_ms: 1 }.means_gone());
    }

    #[test]
    fn the_clients_last_words_are_plain() {
        let text = "docker: Error response from daemon: No such image: x.\nSee 'docker run --help'.\n\n";
        assert_eq!(last_words(text).as_deref(), Some("No such image: x."));
        assert_eq!(last_words(" \n"), None);
        assert_eq!(last_words(&"x".repeat(10_000)).map(|words| words.len()), Some(WORDS_MAX));
    }
}
