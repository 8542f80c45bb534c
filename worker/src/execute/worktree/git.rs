//! How git is called: without hooks, prompts and background work, and with the user's configuration for the rest.
//!
//! The repository is named outright, never looked for from within a worktree: what a task has written there, such as a `.git`
//! that leads elsewhere, is not to decide what runs outside of its sandbox.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::super::call::{self, Answer, Call, CallError, Heed, Output, word};
use super::super::process::Tools;
use crate::task::Env;

/// What holds for every call.
const CONFIGURATION: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    // A bare repository was named by whoever submitted the task.
    "safe.bareRepository=all",
    "worktree.useRelativePaths=false",
    // Its contents are not to be missed where git-lfs is not installed.
    "filter.lfs.required=false",
];

/// One call of git.
#[derive(Debug)]
pub struct Git<'g> {
    /// Where it runs.
    pub directory: &'g Path,
    /// Further configuration.
    pub configuration: &'g [&'g str],
    /// Command and arguments.
    pub arguments: Vec<std::ffi::OsString>,
    /// Variables that say which repository, index and objects.
    pub places: Vec<(&'static str, String)>,
    /// What it reads.
    pub input: Option<OwnedFd>,
    /// The file that it writes, if it is not to answer.
    pub output: Option<OwnedFd>,
    /// The largest file that it may write, in bytes.
    pub file_bytes: Option<u64>,
}

impl<'g> Git<'g> {
    /// A call in this directory.
    pub fn new<W: AsRef<std::ffi::OsStr>>(directory: &'g Path, arguments: impl IntoIterator<Item = W>) -> Self {
        let arguments = arguments.into_iter().map(word).collect();
        let (places, configuration): (_, &[&str]) = (Vec::new(), &[]);
        Self { directory, configuration, arguments, places, input: None, output: None, file_bytes: None }
    }

    /// Runs it.
    ///
    /// # Errors
    /// As for [`call::call`].
    pub fn run(self, tools: &mut Tools, deadline_ns: u64, heed: Heed<'_>) -> Result<Answer, CallError> {
        let mut arguments = Vec::new();
        for setting in CONFIGURATION.iter().chain(self.configuration) {
            arguments.extend([word("-c"), word(setting)]);
        }
        arguments.extend(self.arguments);
        let mut environment = environment(tools);
        environment.extend(self.places.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let call = Call {
            program: "git",
            arguments,
            environment: &environment,
            directory: self.directory,
            input: self.input,
            output: self.output.map_or(Output::Answer, Output::File),
            file_bytes: self.file_bytes,
            umask: tools.settings.umask,
            deadline_ns,
        };
        call::call(tools, call, heed)
    }
}

/// The environment of tasks, without what would lead git elsewhere.
fn environment(tools: &Tools) -> Env {
    let base = tools.settings.environment.iter().filter(|(name, _)| !name.starts_with("GIT_"));
    let mut environment: Env = base.map(|(name, value)| (name.clone(), value.clone())).collect();
    let own = [
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_PAGER", "cat"),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
    ];
    environment.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // By this a supervisor finds what a killed worker has left running.
    environment.insert("ACODE_SCRATCH".to_owned(), tools.room.scratch().display().to_string());
    environment
}
