//! From what was typed, a repository and a reference, to the commit that a task's worktree is made of.
//!
//! Settled at submission, by git: a branch may have moved by the time the task runs. Deliberately absent: everything that
//! changes a repository, and the worktree itself, which is a worker's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use acode_worker::room::worktree::{common_directory, explain};
use acode_worker::task::Worktree;

/// What a worktree is made of where nothing else is said.
const HEAD: &str = "HEAD";

/// Why there is no commit.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is no git.
    #[error("git is needed for a worktree, and cannot be run")]
    NoGit(#[source] io::Error),
    /// There is no such directory.
    #[error("there is no directory '{0}' for a worktree")]
    NoDirectory(String),
    /// Git does not take it for a repository, or refuses it.
    #[error("{0}")]
    Refused(String),
    /// The repository has no commit at all.
    #[error("the repository '{0}' has no commit yet")]
    Empty(String),
    /// The reference names none.
    #[error("'{reference}' names no commit of the repository '{repository}'")]
    NoCommit {
        /// The repository.
        repository: String,
        /// What was to name a commit.
        reference: String,
    },
    /// A reference that cannot be one.
    #[error("'{0}' is no reference: a branch, a tag or a commit is expected after the @")]
    BadReference(String),
    /// A path that JSON cannot hold.
    #[error("the path {0:?} is not UTF-8")]
    NotUtf8(PathBuf),
}

/// Finds commits, each once: a task file may name the same one in very many tasks.
#[derive(Debug, Default)]
pub struct Commits {
    known: RefCell<HashMap<(PathBuf, Option<String>), Worktree>>,
}

impl Commits {
    /// Splits `REPO[@REF]` and finds the commit. A relative path starts at `folder`.
    ///
    /// # Errors
    /// There is no such repository, or no such commit in it.
    pub fn parse(&self, text: &str, folder: &Path) -> Result<Worktree, RepositoryError> {
        let (repository, reference) = split(text, folder);
        self.find(&repository, reference)
    }

    /// The commit that `reference` is now in the repository at `path`: a checkout or a folder of one, another worktree, or
    /// a bare repository. Whatever it is, the repository itself is recorded, which may outlive it.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn find(&self, path: &Path, reference: Option<&str>) -> Result<Worktree, RepositoryError> {
        let key = (path.to_owned(), reference.map(str::to_owned));
        if let Some(known) = self.known.borrow().get(&key) {
            return Ok(known.clone());
        }
        let found = find(path, reference)?;
        self.known.borrow_mut().insert(key, found.clone());
        Ok(found)
    }
}

/// The path and the reference. A path may hold an `@`, and so may a reference: the longest beginning that is a directory is
/// the path.
fn split<'t>(text: &'t str, folder: &Path) -> (PathBuf, Option<&'t str>) {
    let mut ends: Vec<usize> = text.match_indices('@').map(|(at, _)| at).collect();
    ends.push(text.len());
    let whole = ends.iter().rev().find(|end| **end > 0 && folder.join(&text[..**end]).is_dir());
    // Where none is one, what is told is the path as it was most likely meant.
    let end = whole.or(ends.iter().find(|end| **end > 0)).copied().unwrap_or(text.len());
    (folder.join(&text[..end]), text.get(end + 1..))
}

fn find(path: &Path, reference: Option<&str>) -> Result<Worktree, RepositoryError> {
    let shown = path.display().to_string();
    let name = reference.unwrap_or(HEAD);
    if name.is_empty() || name.starts_with('-') || name.contains(['\0', '\n']) {
        return Err(RepositoryError::BadReference(name.escape_debug().to_string()));
    }
    if !path.is_dir() {
        return Err(RepositoryError::NoDirectory(shown));
    }
    let opened = git(path, &["rev-parse", "--absolute-git-dir"])?;
    if !opened.status.success() {
        return Err(RepositoryError::Refused(explain(&shown, &String::from_utf8_lossy(&opened.stderr))));
    }
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
    let refused =
        |error: io::Error| RepositoryError::Refused(format!("the repository '{shown}' cannot be read: {error}"));
    let common = common_directory(Path::new(&text(&opened))).map_err(refused)?;
    let commit = git(path, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")])?;
    if !commit.status.success() {
        let any = git(path, &["rev-list", "--max-count=1", "--all"])?;
        return Err(match any.status.success() && any.stdout.is_empty() {
            true => RepositoryError::Empty(shown),
            false => RepositoryError::NoCommit { repository: shown, reference: name.escape_debug().to_string() },
        });
    }
    let repository = match common.file_name().is_some_and(|name| name == ".git") {
        true => common.parent().unwrap_or(&common).to_owned(),
        false => common,
    };
    let repo = repository.into_os_string().into_string().map_err(|path| RepositoryError::NotUtf8(path.into()))?;
    Ok(Worktree { repo, reference: Some(name.to_owned()), commit: text(&commit), keep_changes: false })
}

fn git(folder: &Path, arguments: &[&str]) -> Result<Output, RepositoryError> {
    let mut command = Command::new("git");
    // Whoever submits from a hook of git is not to submit its repository instead of the one that was named.
    for (name, _) in std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("GIT_") && !name.starts_with("GIT_CONFIG")
    }) {
        command.env_remove(name);
    }
    // Its words are read, and a bare repository was named outright.
    command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").args([
        "-c",
        "safe.bareRepository=all",
        "-c",
        "core.fsmonitor=false",
    ]);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().map_err(RepositoryError::NoGit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_references_may_hold_the_sign_between_them() {
        let home = tempfile::tempdir().unwrap();
        for folder in ["plain", "at@home", "at@home@2"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        let parts = |text| {
            let (path, reference) = split(text, home.path());
            (path.strip_prefix(home.path()).unwrap().to_str().unwrap().to_owned(), reference)
        };
        assert_eq!(parts("plain"), ("plain".into(), None));
        assert_eq!(parts("plain@main"), ("plain".into(), Some("main")));
        assert_eq!(parts("plain@HEAD@{1}"), ("plain".into(), Some("HEAD@{1}")));
        assert_eq!(parts("plain@@"), ("plain".into(), Some("@")));
        assert_eq!(parts("plain@"), ("plain".into(), Some("")));
        assert_eq!(parts("at@home"), ("at@home".into(), None));
        assert_eq!(parts("at@home@v1"), ("at@home".into(), Some("v1")));
        assert_eq!(parts("at@home@2@v1"), ("at@home@2".into(), Some("v1")));
        assert_eq!(parts("missing@v1"), ("missing".into(), Some("v1")));
    }
}
