//! What a task is asked to do, and the form in which a worker gets it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Action, Cleanup, Docker, Isolation, Limits, Retries, Rlimits, Sandbox, SoftTimeout, TaskId, Worktree};

/// Environment variables or metadata: names with values, in the order given.
pub type Env = std::collections::BTreeMap<String, String>;

/// How urgent a task is. Within a priority the queue is first in, first out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Priority {
    /// Before everything else.
    Critical = 0,
    /// Before normal.
    High = 1,
    /// The default.
    #[default]
    Normal = 2,
    /// When nothing else waits.
    Low = 3,
}

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The priority with this stored number.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// The priority's name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which workers may take a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Class {
    /// Workers of the pool's default mode.
    #[default]
    Any = 0,
    /// Workers of process mode.
    Process = 1,
    /// Workers of docker mode.
    Docker = 2,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Any, Self::Process, Self::Docker];
}

/// Why a task specification is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is no command, and no action either.
    #[error("command is empty: name a program to run")]
    EmptyCommand,
    /// A command asks for what only an action can have.
    #[error("isolation {0} is for actions: a command runs in a process or in a container")]
    InlineCommand(Isolation),
    /// The isolation does not fit to what the action comes from.
    #[error("isolation {isolation} {why}")]
    Unfit {
        /// Which isolation.
        isolation: Isolation,
        /// Why it does not fit.
        why: &'static str,
    },
    /// There is a finish hook without a program.
    #[error("onFinish is empty: name a program to run")]
    EmptyHook,
    /// A text that goes to the kernel holds a NUL byte.
    #[error("{0} holds a NUL byte")]
    Nul(String),
    /// A path must be absolute.
    #[error("{field} '{path}' is not an absolute path")]
    RelativePath {
        /// Which field.
        field: &'static str,
        /// The path given.
        path: String,
    },
    /// A variable's name is not one.
    #[error("'{0}' is not a name of an environment variable")]
    BadEnvName(String),
    /// A number is out of its range.
    #[error("{field} is {value}: {expected} is expected")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Two things were said that exclude each other.
    #[error("{one} and {other} exclude each other: give one of them")]
    Exclusive {
        /// The one.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// The whole specification is too large.
    #[error("the specification takes {size} bytes: at most {max} are allowed (pass large input by --stdin)")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The most allowed.
        max: usize,
    },
}

/// What a task is asked to do: the part of a submission that the worker needs. Stored as JSON, camelCase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// A name for people; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Program and arguments. Never given to a shell. Empty for an action.
    #[serde(default)]
    pub command: Vec<String>,
    /// An action in the place of a command; beside one, its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Box<Action>>,
    /// Working directory; the scratch directory if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables on top of the allow-listed environment.
    #[serde(default, skip_serializing_if = "Env::is_empty")]
    pub env: Env,
    /// Facts for the submitter's own use; the task sees them as `ACODE_META_<KEY>`.
    #[serde(default, skip_serializing_if = "Env::is_empty")]
    pub meta: Env,
    /// A file that becomes the task's standard input; `/dev/null` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Milliseconds after which an attempt is ended; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// A warning before the timeout; without a timeout, its own or the pool's, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_timeout: Option<SoftTimeout>,
    /// Milliseconds from the claim within which its process must run; the pool's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
    /// Milliseconds between SIGTERM and SIGKILL when an attempt is ended; the pool's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Urgency.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// How it is kept apart; as the pool says if absent, unless it says something about a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Its container, where it differs from the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// A git worktree of its own, which becomes its working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree: Option<Worktree>,
    /// Patterns of the files that are kept when an attempt has ended, below its working directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Retries, as far as they differ from the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retries>,
    /// Whether it gets a directory that outlives its attempts: `ACODE_CHECKPOINT`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoint: bool,
    /// Limits of the task as a whole, where they differ from the pool's.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What it may reach, where that differs from the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// When its scratch directory is removed; as the pool says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
    /// Limits of each process on top of the pool's.
    #[serde(default, skip_serializing_if = "Rlimits::is_empty")]
    pub rlimits: Rlimits,
    /// Program and arguments that run as a task of their own when this one has ended; of an array, when all of it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_finish: Vec<String>,
    /// Whether its processes share the pool's job slots, by the protocol of GNU make.
    #[serde(default, skip_serializing_if = "is_default")]
    pub jobserver: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TaskSpec {
    /// The largest specification, as JSON, in bytes.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_work()?;
        if self.on_finish.first().is_some_and(String::is_empty) {
            return Err(SpecError::EmptyHook);
        }
        let words = self.command.iter().map(|a| ("command", a)).chain(self.on_finish.iter().map(|a| ("onFinish", a)));
        let texts = words.chain(
            [("name", &self.name), ("cwd", &self.cwd), ("stdin", &self.stdin)]
                .into_iter()
                .filter_map(|(field, value)| value.as_ref().map(|v| (field, v))),
        );
        for (field, text) in texts {
            if text.contains('\0') {
                return Err(SpecError::Nul(field.to_owned()));
            }
        }
        for (field, path) in [("cwd", &self.cwd), ("stdin", &self.stdin)] {
            if let Some(path) = path.as_ref().filter(|p| !p.starts_with('/')) {
                return Err(SpecError::RelativePath { field, path: path.clone() });
            }
        }
        self.validate_programs()?;
        for (key, value) in self.env.iter().chain(&self.meta) {
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(SpecError::BadEnvName(key.clone()));
            }
            if value.contains('\0') {
                return Err(SpecError::Nul(format!("the value of {key}")));
            }
        }
        self.validate_times()?;
        self.limits.validate()?;
        self.docker.as_ref().map_or(Ok(()), Docker::validate)?;
        self.worktree.as_ref().map_or(Ok(()), Worktree::validate)?;
        super::validate_patterns(&self.artifacts)?;
        let not_contained = match self.isolation.filter(|_| self.docker.is_some()) {
            Some(Isolation::Process) => Some("isolation process"),
            Some(Isolation::None) => Some("isolation none"),
            Some(Isolation::Library) => Some("isolation library"),
            Some(Isolation::Docker) | None => None,
        };
        if let Some(one) = not_contained {
            return Err(SpecError::Exclusive { one, other: "docker" });
        }
        if self.sandbox.is_some() && self.class() == Class::Docker {
            return Err(SpecError::Exclusive { one: "sandbox", other: "isolation docker" });
        }
        self.retry.as_ref().map_or(Ok(()), Retries::validate)
    }

    /// Which workers may take it. What runs in a worker itself does so in any.
    pub fn class(&self) -> Class {
        match self.own_isolation() {
            Some(Isolation::Process) => Class::Process,
            Some(Isolation::Docker) => Class::Docker,
            Some(Isolation::None | Isolation::Library) | None => Class::Any,
        }
    }

    /// How it is to be kept apart, if it says so in any way.
    pub fn own_isolation(&self) -> Option<Isolation> {
        let by_docker = self.docker.as_ref().map(|_| Isolation::Docker);
        let library = self.action.as_ref().and_then(|action| action.library.as_ref());
        self.isolation.or(by_docker).or(library.map(|_| Isolation::Library))
    }

    /// Checks that there is something to do, and that it can be done in the isolation that is asked for.
    fn validate_work(&self) -> Result<(), SpecError> {
        let has_command = !self.command.is_empty();
        if self.command.first().is_some_and(String::is_empty) {
            return Err(SpecError::EmptyCommand);
        }
        let isolation = self.own_isolation();
        let Some(action) = &self.action else {
            return match isolation.filter(|isolation| isolation.is_inline()) {
                _ if !has_command => Err(SpecError::EmptyCommand),
                Some(inline) => Err(SpecError::InlineCommand(inline)),
                None => Ok(()),
            };
        };
        action.validate(has_command)?;
        let is_program = !action.program.is_empty();
        if self.stdin.is_some() && !has_command && (is_program || action.reuse) {
            let other = "a worker program, or reuse, whose standard input has the messages,";
            return Err(SpecError::Exclusive { one: "stdin", other });
        }
        let unfit = |isolation, why| Err(SpecError::Unfit { isolation, why });
        match isolation {
            Some(inline) if inline.is_inline() && has_command => Err(SpecError::InlineCommand(inline)),
            Some(inline) if inline.is_inline() && is_program => unfit(inline, "is not for worker programs"),
            Some(Isolation::Docker) if is_program => unfit(Isolation::Docker, "is not for worker programs"),
            Some(Isolation::Docker) if action.reuse => unfit(Isolation::Docker, "makes a container for each action"),
            Some(inline) if inline.is_inline() && action.reuse => unfit(inline, "has no process to be reused"),
            Some(Isolation::Library) if action.library.is_none() => unfit(Isolation::Library, "needs a library"),
            Some(other) if other != Isolation::Library && action.library.is_some() => {
                unfit(other, "is not for libraries: those are loaded by the worker")
            }
            Some(inline) if inline.is_inline() => self.unfit_for_worker().map_or(Ok(()), |why| unfit(inline, why)),
            _ => Ok(()),
        }
    }

    /// What it asks for that only a process can have, as the end of a sentence about its isolation.
    fn unfit_for_worker(&self) -> Option<&'static str> {
        let wishes = [
            (self.sandbox.is_some(), "has no sandbox: the action runs in the worker; isolation process has one"),
            (!self.limits.is_empty(), "has no limits: the action runs in the worker; isolation process has them"),
            (!self.rlimits.is_empty(), "has no rlimits: the action runs in the worker; isolation process has them"),
            (!self.env.is_empty(), "has no environment of its own: the action runs in the worker; give it params"),
            (self.stdin.is_some(), "has no standard input: the action runs in the worker; give it params"),
            (self.jobserver, "has no jobserver: the action runs in the worker; isolation process has one"),
        ];
        wishes.into_iter().find_map(|(is_asked, why)| is_asked.then_some(why))
    }

    fn validate_times(&self) -> Result<(), SpecError> {
        let zero = |value: Option<u64>| value == Some(0);
        if zero(self.start_timeout_ms) {
            let value = "0".to_owned();
            return Err(SpecError::OutOfRange { field: "startTimeoutMs", value, expected: "1 or more" });
        }
        if let (Some(soft), Some(timeout_ms)) = (self.soft_timeout, self.timeout_ms)
            && soft.before_ms >= timeout_ms
        {
            let (field, value) = ("softTimeout.beforeMs", soft.before_ms.to_string());
            return Err(SpecError::OutOfRange { field, value, expected: "less than the timeout" });
        }
        Ok(())
    }

    /// The name that people see: the one given, else the program's file name, else the action's.
    pub fn display_name(&self) -> &str {
        match (&self.name, self.command.first(), &self.action) {
            (Some(name), _, _) => name,
            (None, Some(program), _) => program.rsplit('/').next().unwrap_or(program),
            (None, None, Some(action)) => action.display_name(),
            (None, None, None) => "",
        }
    }
}

/// What the supervisor writes into a slot of the claim table: one attempt of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub id: TaskId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// What its memory limit is multiplied by, after attempts that ran out of memory.
    #[serde(default = "unscaled", skip_serializing_if = "is_unscaled")]
    pub memory_scale: f64,
    /// What to do.
    pub spec: TaskSpec,
}

fn unscaled() -> f64 {
    1.0
}

fn is_unscaled(scale: &f64) -> bool {
    *scale <= 1.0
}

/// How much of an attempt's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputCaps {
    /// Bytes of standard output and error together that are kept for one attempt; the rest is read and dropped.
    pub per_attempt: u64,
}

impl Default for OutputCaps {
    fn default() -> Self {
        Self { per_attempt: 64 << 20 }
    }
}
