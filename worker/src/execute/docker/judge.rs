//! From how the client ended, and what is known of the container, to the one word on the attempt.
//!
//! Pure. What the container's own state says goes before the client's exit code, because the client may be killed, and
//! the engine may fail under it. Deliberately absent: ends that acode itself has brought about, a timeout for one; the
//! caller knows of those.

use super::inspect::{ContainerState, Inspected};
use super::words::{Speaker, Words};
use crate::sys::tree::Ended;
use crate::task::Verdict;

/// The client's own exit codes: its or the engine's failure, a program that cannot be executed, one that is not there.
/// The task can have them too.
const REFUSED: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// What the client exits with when it loses the engine while it is attached. The most common code of failing tasks too.
const LOST: i32 = 1;
/// What podman's init (catatonit) exits with when it cannot execute the program.
const INIT_FAILED: i32 = 1;
/// A process ended by SIGKILL, as a shell, an init and an engine tell it.
const KILLED: i32 = 137;
/// What engines write down when nobody has seen the end.
const UNSEEN: i32 = 255;
/// What the client says when it was not the task's fault, in small letters.
const ENGINE_WORDS: [&str; 18] = [
    "cannot connect to the docker daemon",
    "cannot connect to podman",
    "unable to connect to podman",
    "is the docker daemon running",
    "error during connect",
    "unexpected eof",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "context deadline exceeded",
    "permission denied while trying to connect",
    "daemon is shutting down",
    "no space left on device",
    "is already in use by container",
    "cannot allocate memory",
    "containerd.sock",
    // Podman's init, which is a package of its own.
    "container-init binary not found",
    // And what it says without root where nobody may gain privileges.
    "cannot set up namespace",
];

/// What is known of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'e> {
    /// The engine's word on it.
    Container(&'e Inspected),
    /// The engine says that there is none.
    Absent,
    /// The engine gave no answer.
    Unknown,
}

/// All that there is to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence<'e> {
    /// How the client ended.
    pub client: Ended,
    /// What is known of the container.
    pub container: Known<'e>,
    /// Processes killed for want of memory that the container's cgroup was seen to have counted. The last reading may be
    /// older than the kill, so nothing follows from 0.
    pub oom_kills: Option<u64>,
    /// What was said at the end of standard error, and by whom.
    pub words: &'e Words,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is how it ended.
    Verdict(Verdict),
    /// The container still runs: it has lost its client.
    StillRunning,
    /// The container never ran.
    NeverStarted {
        /// Whose word that is.
        cause: Cause,
        /// Why, in words.
        why: String,
    },
    /// It ended by a fault that may be the engine's: if the engine cannot be asked for its version now, it is.
    EngineMaybeAtFault {
        /// What is known, in words.
        why: String,
    },
}

/// Why a container never ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The engine, which works, refused it.
    Refused,
    /// The program is there and cannot be executed.
    NotExecutable,
    /// There is no such program.
    NotFound,
}

impl Cause {
    /// The verdict on a task with which this happened.
    pub fn verdict(self, why: String) -> Verdict {
        let errno = match self {
            Self::Refused => None,
            Self::NotExecutable => Some(libc::EACCES),
            Self::NotFound => Some(libc::ENOENT),
        };
        Verdict::NotStarted { why, errno }
    }
}

impl Decision {
    /// The verdict, when it is known whether the engine answers a call for its version now. `None` for a container
    /// that still runs.
    pub fn verdict(self, engine_answers: bool) -> Option<Verdict> {
        match self {
            Self::Verdict(verdict) => Some(verdict),
            Self::StillRunning => None,
            Self::NeverStarted { cause, why } => Some(cause.verdict(why)),
            Self::EngineMaybeAtFault { why } if engine_answers => Some(Verdict::NotStarted { why, errno: None }),
            Self::EngineMaybeAtFault { why } => Some(Verdict::EngineFailed { why }),
        }
    }
}

/// Decides.
pub fn judge(evidence: &Evidence<'_>) -> Decision {
    match (evidence.container, evidence.client) {
        (Known::Container(container), _) if container.state.is_running() => Decision::StillRunning,
        (Known::Container(container), client) if container.state.has_started() => {
            of_finished(&container.state, client, evidence)
        }
        (_, Ended::Exited(0)) => Decision::Verdict(Verdict::Exited { code: 0 }),
        (Known::Container(container), client) => of_never_started(&container.state, client, &evidence.words.text),
        (Known::Absent | Known::Unknown, Ended::Signalled { signal, .. }) => engine_failed(format!(
            "the docker client was killed by {} before its container had ended",
            signal_name(signal)
        )),
        (Known::Absent | Known::Unknown, Ended::Exited(code)) => of_nothing(code, evidence),
    }
}

/// What follows from a container that ran and has ended.
fn of_finished(state: &ContainerState, client: Ended, evidence: &Evidence<'_>) -> Decision {
    // What is no exit code is what nobody has seen.
    let code = i32::try_from(state.exit_code).unwrap_or(UNSEEN);
    // The engine is told of want of memory anywhere above the container too, so its word needs a killed process with it.
    let by_engine = state.oom_killed && code == KILLED;
    if code != 0 && (by_engine || evidence.oom_kills.is_some_and(|kills| kills > 0)) {
        return Decision::Verdict(Verdict::OutOfMemory);
    }
    // An engine that comes back ends the containers that it finds, by SIGTERM: then even an exit code of 0 is not the end
    // that the task was going for, and its output since then is lost anyway.
    let is_lost = match client {
        Ended::Signalled { .. } => true,
        Ended::Exited(own) => own != code && matches!(own, LOST | REFUSED),
    };
    if is_lost {
        return engine_failed(format!("the container lost its client, and has ended with {code} since then"));
    }
    // The init in the container is what executes the program, and has started by then. Its words are the last.
    let why = || evidence.words.text.clone();
    match (evidence.words.speaker, code) {
        (Speaker::Init, NOT_EXECUTABLE) => Decision::NeverStarted { cause: Cause::NotExecutable, why: why() },
        (Speaker::Init, NOT_FOUND) => Decision::NeverStarted { cause: Cause::NotFound, why: why() },
        // Podman's init has one code for all, and ends its words with the kernel's.
        (Speaker::Init, INIT_FAILED) if why().ends_with("No such file or directory") => {
            Decision::NeverStarted { cause: Cause::NotFound, why: why() }
        }
        (Speaker::Init, INIT_FAILED) => Decision::NeverStarted { cause: Cause::NotExecutable, why: why() },
        (Speaker::Init | Speaker::Client | Speaker::Nobody, _) => Decision::Verdict(Verdict::Exited { code }),
    }
}

/// What follows from a container that was made and not started.
fn of_never_started(state: &ContainerState, client: Ended, words: &str) -> Decision {
    let words = if state.error.is_empty() { words } else { &state.error };
    let code = match client {
        Ended::Exited(code) => code,
        Ended::Signalled { signal, .. } => {
            let name = signal_name(signal);
            return engine_failed(format!("the docker client was killed by {name} before its container was started"));
        }
    };
    let why = or_else(words, || format!("the container was not started (the docker client exited with {code})"));
    match code {
        NOT_EXECUTABLE => Decision::NeverStarted { cause: Cause::NotExecutable, why },
        NOT_FOUND => Decision::NeverStarted { cause: Cause::NotFound, why },
        _ if blames_engine(&why) => engine_failed(why),
        _ => Decision::NeverStarted { cause: Cause::Refused, why },
    }
}

/// What follows from the client's exit code alone, which is not 0.
fn of_nothing(code: i32, evidence: &Evidence<'_>) -> Decision {
    let is_absent = evidence.container == Known::Absent;
    let why =
        || or_else(&evidence.words.text, || format!("the docker client exited with {code} and left no container"));
    match code {
        REFUSED | NOT_EXECUTABLE | NOT_FOUND if blames_engine(&evidence.words.text) => engine_failed(why()),
        REFUSED | NOT_EXECUTABLE | NOT_FOUND => Decision::EngineMaybeAtFault { why: why() },
        LOST if !is_absent => engine_failed(or_else(&evidence.words.text, || {
            "the docker client exited with 1, and the engine does not say why".to_owned()
        })),
        _ if evidence.oom_kills.is_some_and(|kills| kills > 0) => Decision::Verdict(Verdict::OutOfMemory),
        _ => Decision::Verdict(Verdict::Exited { code }),
    }
}

fn engine_failed(why: String) -> Decision {
    Decision::Verdict(Verdict::EngineFailed { why })
}

fn or_else(words: &str, other: impl FnOnce() -> String) -> String {
    if words.is_empty() { other() } else { words.to_owned() }
}

fn blames_engine(words: &str) -> bool {
    let words = words.to_lowercase();
    ENGINE_WORDS.iter().any(|known| words.contains(known))
}

fn signal_name(signal: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str())
}
