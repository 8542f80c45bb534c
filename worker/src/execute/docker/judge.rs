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

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Ended = Ended::Exited(3);
    const KILLED_CLIENT: Ended = Ended::Signalled { signal: 9, core_dumped: false };

    fn state(status: &str, exit_code: i64) -> Inspected {
        let started = !matches!(status, "created" | "configured");
        let mut container = Inspected { id: "c".to_owned(), ..Inspected::default() };
        container.state = ContainerState {
            status: status.to_owned(),
            running: matches!(status, "running" | "paused"),
            paused: status == "paused",
            restarting: status == "restarting",
            exit_code,
            started_at: if started { "2026-11-21T18:25:01.2Z" } else { "0001-01-01T00:00:00Z" }.to_owned(),
            ..ContainerState::default()
        };
        container
    }

    fn said(speaker: Speaker, text: &str) -> Words {
        Words { speaker, text: text.to_owned() }
    }

    fn decide(client: Ended, container: Known<'_>, oom_kills: Option<u64>, words: &Words) -> Decision {
        judge(&Evidence { client, container, oom_kills, words })
    }

    fn silent(client: Ended, container: Known<'_>) -> Decision {
        decide(client, container, None, &Words::default())
    }

    fn exited(code: i32) -> Decision {
        Decision::Verdict(Verdict::Exited { code })
    }

    fn is_engine_failed(decision: &Decision) -> bool {
        matches!(decision, Decision::Verdict(Verdict::EngineFailed { .. }))
    }

    #[test]
    fn success_needs_no_word_of_the_engine() {
        for known in [Known::Unknown, Known::Absent, Known::Container(&state("exited", 0))] {
            assert_eq!(silent(Ended::Exited(0), known), exited(0));
        }
    }

    #[test]
    fn whatever_the_client_says_a_container_that_runs_still_runs() {
        for status in ["running", "paused", "restarting", "stopping"] {
            for client in [Ended::Exited(0), RUN, Ended::Exited(125), KILLED_CLIENT] {
                assert_eq!(silent(client, Known::Container(&state(status, 0))), Decision::StillRunning, "{status}");
            }
        }
    }

    #[test]
    fn the_code_of_a_container_that_ran_is_its_verdict_docker_s_own_codes_too() {
        for code in [1, 3, 125, 126, 127, 130, 137, 143, 255] {
            for status in ["exited", "stopped", "dead", "removing"] {
                let container = state(status, i64::from(code));
                let decision = silent(Ended::Exited(code), Known::Container(&container));
                assert_eq!(decision, exited(code), "{status}: 137 is an exit code, and nothing is guessed from it");
            }
        }
    }

    #[test]
    fn want_of_memory_needs_two_witnesses_or_the_kernel() {
        let oom = |code: i64, flag: bool, kills: Option<u64>| {
            let mut container = state("exited", code);
            container.state.oom_killed = flag;
            let client = Ended::Exited(i32::try_from(code).unwrap());
            decide(client, Known::Container(&container), kills, &Words::default())
        };
        let out_of_memory = Decision::Verdict(Verdict::OutOfMemory);
        let table = [
            // Exit code, the engine's word, the cgroup's count, and whether it is want of memory.
            (137, true, None, true),
            (137, true, Some(0), true),
            (137, true, Some(1), true),
            (137, false, Some(1), true),
            (137, false, Some(0), false),
            (137, false, None, false),
            (4, true, None, false),
            (4, true, Some(0), false),
            (4, true, Some(2), true),
            (4, false, Some(1), true),
            (0, true, None, false),
            (0, true, Some(1), false),
        ];
        for (code, flag, kills, is_oom) in table {
            let expected = if is_oom { out_of_memory.clone() } else { exited(i32::try_from(code).unwrap()) };
            assert_eq!(oom(code, flag, kills), expected, "{code} {flag} {kills:?}");
        }
        let gone = decide(Ended::Exited(137), Known::Unknown, Some(1), &Words::default());
        assert_eq!(gone, out_of_memory, "the kernel's count needs no engine");
    }

    #[test]
    fn a_container_that_lost_its_client_is_the_engines_fault_however_it_ended() {
        for client in [KILLED_CLIENT, Ended::Exited(125), Ended::Exited(1)] {
            for code in [0, 3, 137, 143, 255] {
                assert!(
                    is_engine_failed(&silent(client, Known::Container(&state("exited", code)))),
                    "{client:?} {code}"
                );
            }
        }
        assert_eq!(silent(Ended::Exited(1), Known::Container(&state("exited", 1))), exited(1));
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_told_from_one_that_is_not_there() {
        let words = said(Speaker::Init, "exec /bin/nope failed: No such file or directory");
        let table = [(126, Cause::NotExecutable), (127, Cause::NotFound)];
        for (code, cause) in table {
            let expected = Decision::NeverStarted { cause, why: words.text.clone() };
            let client = Ended::Exited(code);
            let ran = state("exited", i64::from(code));
            assert_eq!(decide(client, Known::Container(&ran), None, &words), expected, "the init has started");
            let created = state("created", i64::from(code));
            assert_eq!(decide(client, Known::Container(&created), None, &words), expected, "there is no init");
            assert_eq!(silent(client, Known::Container(&ran)), exited(code), "the task's own code");
        }
        let by_client = said(Speaker::Client, "anything");
        let ran = state("exited", 127);
        assert_eq!(decide(Ended::Exited(127), Known::Container(&ran), None, &by_client), exited(127));
        assert_eq!(
            Cause::NotFound.verdict("x".to_owned()),
            Verdict::NotStarted { why: "x".to_owned(), errno: Some(2) }
        );
    }

    #[test]
    fn the_engines_own_word_on_why_it_did_not_start_goes_first() {
        let mut container = state("created", 128);
        container.state.error = "unable to find user nobodyx".to_owned();
        let words = said(Speaker::Client, "something of the client's");
        let decision = decide(Ended::Exited(125), Known::Container(&container), None, &words);
        let expected = Decision::NeverStarted { cause: Cause::Refused, why: "unable to find user nobodyx".to_owned() };
        assert_eq!(decision, expected);
        container.state.error = "failed to create task: connection refused".to_owned();
        assert!(is_engine_failed(&decide(Ended::Exited(125), Known::Container(&container), None, &words)));
        assert!(is_engine_failed(&silent(KILLED_CLIENT, Known::Container(&state("created", 0)))));
    }

    #[test]
    fn without_a_container_125_is_asked_about_and_plain_codes_are_believed() {
        let missing = said(Speaker::Client, "No such image: nope:1");
        for known in [Known::Absent, Known::Unknown] {
            for code in [125, 126, 127] {
                let expected = Decision::EngineMaybeAtFault { why: missing.text.clone() };
                assert_eq!(decide(Ended::Exited(code), known, None, &missing), expected);
            }
            for code in [2, 3, 124, 137, 255] {
                assert_eq!(silent(Ended::Exited(code), known), exited(code));
            }
            assert!(is_engine_failed(&silent(KILLED_CLIENT, known)));
        }
        assert_eq!(silent(Ended::Exited(1), Known::Absent), exited(1));
        assert!(is_engine_failed(&silent(Ended::Exited(1), Known::Unknown)), "it may have lost the engine");
        assert!(
            matches!(silent(Ended::Exited(125), Known::Absent), Decision::EngineMaybeAtFault { why } if !why.is_empty())
        );
    }

    #[test]
    fn what_only_an_engine_can_be_blamed_for_is_not_asked_about() {
        let texts = [
            "Cannot connect to the Docker daemon at unix:///nope.sock. Is the docker daemon running?",
            "error waiting for container: unexpected EOF",
            "Conflict. The container name \"/acode-x\" is already in use by container \"0\".",
        ];
        for text in texts {
            let decision = decide(Ended::Exited(125), Known::Absent, None, &said(Speaker::Client, text));
            assert_eq!(decision, Decision::Verdict(Verdict::EngineFailed { why: text.to_owned() }));
        }
    }

    #[test]
    fn who_is_at_fault_shows_when_the_engine_is_asked() {
        let why = || "words".to_owned();
        let maybe = || Decision::EngineMaybeAtFault { why: why() };
        assert_eq!(maybe().verdict(true), Some(Verdict::NotStarted { why: why(), errno: None }));
        assert_eq!(maybe().verdict(false), Some(Verdict::EngineFailed { why: why() }));
        assert_eq!(Decision::StillRunning.verdict(true), None);
        assert_eq!(exited(3).verdict(false), Some(Verdict::Exited { code: 3 }));
    }
}
