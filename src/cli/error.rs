//! Everything that can go wrong with a command, what helps against it, and the exit code it ends with.
//!
//! This is the edge where errors are printed: once, with their causes, on standard error.

use std::io;

use crate::api::ApiError;
use crate::artifacts::ArtifactError;
use crate::config::ConfigError;
use crate::local::LocalError;
use crate::rundir::{DirError, LockError};
use crate::supervisor::PoolError;
use crate::taskfile::TaskFileError;
use crate::wire::{CallError, ClientError};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The library could not do it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The task file is wrong.
    #[error(transparent)]
    TaskFile(#[from] TaskFileError),
    /// There is no such repository, or no such commit.
    #[error(transparent)]
    Repository(#[from] crate::repository::RepositoryError),
    /// What was asked for is not there.
    #[error("{0}")]
    Absent(String),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file that was named cannot be used.
    #[error("cannot {doing}")]
    File {
        /// What was tried, with the path.
        doing: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Output(#[from] acode_worker::output::OutputError),
    /// Artefacts cannot be had.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The pool did not start, or ended other than by being told to.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A process of ours has ended with this code, and has said why.
    #[error("the pool did not start")]
    Told(u8),
    /// Standard output does not take what is printed.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// What the library's error can be made of, a command's can.
macro_rules! by_way_of_the_library {
    ($($error:ty),*) => { $(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Api(error.into())
            }
        }
    )* };
}

by_way_of_the_library!(ClientError, CallError, LocalError, DirError, ConfigError, serde_json::Error);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// What was asked for failed.
    Failed,
    /// The exit code of the command that was run.
    Code(u8),
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Code(code) => code,
        }
    }
}

impl CliError {
    /// Prints the error, and gives the exit code that goes with it.
    pub fn tell(&self) -> u8 {
        self.report();
        self.code()
    }

    /// The process's exit code: 1 failed, 2 usage or bad input, 3 no pool, 4 no such task, 5 queue full, 6 held.
    pub fn code(&self) -> u8 {
        match self {
            Self::Api(error) => api_code(error),
            Self::Pool(PoolError::Lock(LockError::Held { .. })) => 6,
            Self::TaskFile(_) | Self::Usage(_) | Self::File { .. } | Self::Repository(_) => 2,
            Self::Told(code) => *code,
            // A reader that has seen enough is no failure.
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Absent(_) | Self::Output(_) | Self::Artifact(_) | Self::Pool(_) | Self::Stdout(_) => 1,
        }
    }

    /// What helps, if something does.
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Api(error) => api_remedy(error),
            Self::Pool(PoolError::Lock(LockError::Held { .. })) => Some(HELD),
            Self::Artifact(error) => artifact_remedy(error),
            Self::TaskFile(_)
            | Self::Usage(_)
            | Self::Repository(_)
            | Self::Absent(_)
            | Self::File { .. }
            | Self::Output(_)
            | Self::Pool(_)
            | Self::Told(_)
            | Self::Stdout(_) => None,
        }
    }

    /// Says it on standard error, unless it was said already or is nobody's concern.
    pub fn report(&self) {
        match self {
            Self::Told(_) => return,
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            _ => {}
        }
        eprintln!("acode: {}", crate::error_chain(self));
        if let Some(remedy) = self.remedy() {
            eprintln!("       {remedy}");
        }
    }
}

/// What helps when somebody else has the queue.
const HELD: &str = "use that pool, or stop it with: acode worker stop";

fn api_code(error: &ApiError) -> u8 {
    match error {
        ApiError::Client(ClientError::NotRunning { .. }) | ApiError::NoQueue(_) | ApiError::NotRunning => 3,
        ApiError::Client(ClientError::Call(error)) | ApiError::Call(error) => call_code(error),
        ApiError::Local(LocalError::Lock(LockError::Held { .. })) => 6,
        ApiError::Config(_) => 2,
        ApiError::Client(
            ClientError::Connect { .. }
            | ClientError::Io(_)
            | ClientError::HungUp
            | ClientError::TooLarge(_)
            | ClientError::NotAReply(_)
            | ClientError::Unfinished,
        )
        | ApiError::Local(LocalError::Dirs(_) | LocalError::Lock(LockError::Io { .. }) | LocalError::Store(_))
        | ApiError::Dirs(_)
        | ApiError::Process(_)
        | ApiError::Json(_) => 1,
        // What only programs with a pool of their own meet.
        ApiError::NotInitialised
        | ApiError::Folder(_)
        | ApiError::NotStarted { .. }
        | ApiError::Held { .. }
        | ApiError::System { .. }
        | ApiError::Usage(_)
        | ApiError::Task(_)
        | ApiError::Failures(_)
        | ApiError::Cancelled
        | ApiError::DeadlineExceeded => 1,
    }
}

fn api_remedy(error: &ApiError) -> Option<&'static str> {
    match error {
        ApiError::Client(ClientError::NotRunning { .. }) | ApiError::NotRunning | ApiError::NoQueue(_) => {
            Some("start one with: acode worker start --detach")
        }
        ApiError::Client(ClientError::Call(error)) | ApiError::Call(error) => call_remedy(error),
        ApiError::Local(LocalError::Lock(LockError::Held { .. })) => Some(HELD),
        _ => None,
    }
}

fn call_code(error: &CallError) -> u8 {
    match error {
        CallError::InvalidParameter { .. } | CallError::InvalidSubmission { .. } | CallError::AmbiguousTask { .. } => 2,
        CallError::NoSuchTask { .. } | CallError::NoSuchGroup { .. } => 4,
        CallError::QueueFull { .. } => 5,
        CallError::InterfaceNotFound { .. }
        | CallError::MethodNotFound { .. }
        | CallError::MethodNotImplemented { .. }
        | CallError::KeyExists { .. }
        | CallError::QueueUnavailable { .. }
        | CallError::Draining
        | CallError::PermissionDenied { .. }
        | CallError::Refused { .. }
        | CallError::Busy { .. }
        | CallError::SlowReader { .. }
        | CallError::Internal { .. }
        | CallError::Unknown { .. } => 1,
    }
}

fn artifact_remedy(error: &ArtifactError) -> Option<&'static str> {
    match error {
        ArtifactError::None { .. } => Some("files are kept of tasks that are submitted with --artifact GLOB"),
        ArtifactError::NoMatch { .. } => Some("see them with: acode task artifacts"),
        ArtifactError::Exists { .. } => Some("--force overwrites"),
        ArtifactError::Gone { .. } | ArtifactError::Blocked { .. } | ArtifactError::Io { .. } => None,
    }
}

fn call_remedy(error: &CallError) -> Option<&'static str> {
    match error {
        CallError::NoSuchGroup { .. } => Some("see them with: acode task group"),
        CallError::NoSuchTask { .. } => Some("see them with: acode task list"),
        CallError::AmbiguousTask { .. } => Some("give more of the id, or the task's number (acode task list)"),
        CallError::KeyExists { .. } => Some("wait for it, or say --if-exists existing to get its id instead"),
        CallError::QueueFull { .. } => {
            Some("wait until tasks have ended (--wait-for-room DURATION), or raise queue.maxTasks")
        }
        CallError::MethodNotFound { .. } | CallError::MethodNotImplemented { .. } => {
            Some("the pool runs another version of acode: restart it")
        }
        CallError::InterfaceNotFound { .. }
        | CallError::InvalidParameter { .. }
        | CallError::InvalidSubmission { .. }
        | CallError::QueueUnavailable { .. }
        | CallError::Draining
        | CallError::PermissionDenied { .. }
        | CallError::Refused { .. }
        | CallError::Busy { .. }
        | CallError::SlowReader { .. }
        | CallError::Internal { .. }
        | CallError::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_documented_exit_code_has_its_error() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let cases: [(CliError, u8); 9] = [
            (CallError::KeyExists { key: "k".into(), task: "x".into() }.into(), 1),
            (CallError::Draining.into(), 1),
            (CliError::Usage("x".into()), 2),
            (CallError::InvalidSubmission { entry: None, reason: "x".into() }.into(), 2),
            (ClientError::NotRunning { path: "x".into(), source: refused() }.into(), 3),
            (CallError::NoSuchTask { task: "x".into() }.into(), 4),
            (ClientError::Call(CallError::QueueFull { queued: 1, limit: 1 }).into(), 5),
            (LocalError::Lock(LockError::Held { path: "x".into(), holder: None }).into(), 6),
            (CliError::Stdout(io::ErrorKind::BrokenPipe.into()), 0),
        ];
        for (error, code) in cases {
            assert_eq!(error.code(), code, "{error}");
        }
    }
}
