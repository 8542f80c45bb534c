//! What a program was started with. Two tasks share one only where all of this is the same.
//!
//! Deliberately absent: the pool's settings. When those change, no program stays.

use std::path::PathBuf;

use super::super::process::{Attempt, Tools};
use super::super::program;
use super::super::route;
use super::super::variables::Own;
use super::super::watch::Watch;
use super::super::worktree::Made;
use crate::actions::daemon;
use crate::actions::protocol::PROTOCOL;
use crate::sys::image;
use crate::sys::spawn::CStringArray;
use crate::task::{Action, Env, Limits, Rlimits, Sandbox};

/// What it is called in the role of a program.
const OWN_NAME: &str = "acode-actions";
/// Where a program works whose task names no directory: none that a task leaves or that anybody may want to unmount.
const DEFAULT_CWD: &str = "/";

/// What a program was started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// What is executed: a name or a path.
    pub file: String,
    /// Program and arguments, as it sees them.
    pub argv: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Its own variables, which lie over the pool's.
    pub env: Env,
    /// Whether it shares the pool's job slots.
    pub jobserver: bool,
    /// Limits of its tree.
    pub limits: Limits,
    /// Limits of each process.
    pub rlimits: Rlimits,
    /// What it may reach, where that differs from the pool's.
    pub sandbox: Option<Sandbox>,
    /// Directories of its first task that its sandbox shows.
    pub shown: Vec<PathBuf>,
    /// Whether it is this program in the role `daemon`.
    pub is_own: bool,
}

impl Key {
    /// What this attempt's program is started with. `checkpoint` is its checkpoint directory; `is_closed` says whether it has a
    /// sandbox.
    pub fn of(tools: &Tools, attempt: &Attempt, checkpoint: Option<&PathBuf>, is_closed: bool) -> Self {
        let spec = &attempt.task.spec;
        let own = spec.action.as_ref().map_or(&[][..], |action| &action.program);
        let reuse = spec.action.as_ref().is_some_and(|action| action.reuse);
        let has_program = !tools.settings.actions.program.is_empty();
        let falls = |action: &Action| route::falls_to_program(action, tools.actions, has_program);
        let is_own = own.is_empty() && reuse && !spec.action.as_deref().is_some_and(falls);
        let argv = match (is_own, own.is_empty()) {
            (true, _) => vec![OWN_NAME.to_owned()],
            (false, false) => own.to_vec(),
            (false, true) => tools.settings.actions.program.clone(),
        };
        let mut shown = Vec::new();
        if is_closed {
            // What is shown in a sandbox is settled at its birth.
            let worktree = tools.worktrees.current().map(Made::directories).unwrap_or_default();
            shown.extend(worktree.into_iter().map(|(path, _)| path.to_owned()));
            shown.extend(checkpoint.cloned());
        }
        Self {
            file: if is_own {
                image::SELF.to_string_lossy().into_owned()
            } else {
                argv.first().cloned().unwrap_or_default()
            },
            argv,
            cwd: spec.cwd.clone().unwrap_or_else(|| DEFAULT_CWD.to_owned()),
            env: spec.env.clone(),
            jobserver: spec.jobserver,
            limits: Watch::limits(tools, attempt),
            rlimits: spec.rlimits.or(tools.settings.rlimits).scaled(attempt.task.memory_scale),
            sandbox: spec.sandbox.clone(),
            shown,
            is_own,
        }
    }

    /// Fills `envp`. What changes from task to task stands in no variable, but in the message.
    pub fn environment(&self, tools: &Tools, temporary: Option<&std::path::Path>, envp: &mut CStringArray) {
        use std::os::unix::ffi::OsStrExt;
        envp.clear();
        let settings = &tools.settings;
        let common =
            program::Common { base: &settings.environment, own: &self.env, jobserver: self.jobserver, temporary };
        program::common_environment(&common, settings, &tools.facts, envp);
        // The same for all tasks of this worker; a pool that died finds what it has left by it.
        Own::Scratch.give(tools.room.scratch().as_os_str().as_bytes(), envp);
        Own::Protocol.give(PROTOCOL.to_string().as_bytes(), envp);
        if self.is_own {
            Own::Role.give(daemon::ROLE.as_bytes(), envp);
        }
        envp.seal();
    }
}
