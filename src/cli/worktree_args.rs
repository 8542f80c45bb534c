//! The options that give a task a git worktree, and what they come to. Deliberately absent: git (`repository`).

use std::path::Path;

use acode_worker::task::Worktree;

use super::CliError;
use crate::repository::Commits;
use crate::wire::TaskRef;

/// A git worktree of the task's own.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct WorktreeOptions {
    /// Run it in a git worktree of its own of this repository's REF [default: HEAD], as that is now
    #[arg(long, value_name = "REPO[@REF]")]
    pub worktree: Option<String>,
    /// Keep what it changes there as a patch, however it ends; see `acode task diff`
    #[arg(long, requires = "worktree")]
    pub keep_changes: bool,
}

impl WorktreeOptions {
    /// The worktree, with its commit.
    ///
    /// # Errors
    /// There is no such repository, or no such commit in it.
    pub fn worktree(&self) -> Result<Option<Worktree>, CliError> {
        let Some(text) = &self.worktree else { return Ok(None) };
        let absolute = std::path::absolute(Path::new("."));
        let here =
            absolute.map_err(|source| CliError::File { doing: "tell what the directory here is".into(), source })?;
        let found = Commits::default().parse(text, &here)?;
        Ok(Some(Worktree { keep_changes: self.keep_changes, ..found }))
    }
}

/// `acode task diff`
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Of this attempt [default: the last one of which changes were kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Only which files, and how much of them
    #[arg(long)]
    pub stat: bool,
    /// Its id, a beginning of it, its number, or its name
    pub id: TaskRef,
}
