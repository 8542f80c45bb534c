//! A git worktree of a task's own, and the files that a task leaves to be kept.
//!
//! Pure data with its rules. Deliberately absent: git, and the copying of files (`room`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// A detached worktree of a repository, made for each attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Worktree {
    /// The repository: its checkout, or a bare one. Absolute.
    pub repo: String,
    /// What was asked for: a branch, a tag, a commit; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The commit that this was at submission, in full: 40 or 64 hexadecimal digits.
    pub commit: String,
    /// Whether the task's changes are kept as a patch, however it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_changes: bool,
}

impl Worktree {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !self.repo.starts_with('/') {
            return Err(SpecError::RelativePath { field: "worktree.repo", path: self.repo.clone() });
        }
        if self.repo.contains('\0') {
            return Err(SpecError::Nul("worktree.repo".to_owned()));
        }
        let is_hash = matches!(self.commit.len(), 40 | 64) && self.commit.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hash {
            return Ok(());
        }
        let value = format!("'{}'", self.commit.escape_debug());
        Err(SpecError::OutOfRange { field: "worktree.commit", value, expected: "a full commit id" })
    }
}

/// What was kept of the files that an attempt left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifacts {
    /// The folder that holds `files/` and `changes.patch`, as far as there are any.
    pub folder: PathBuf,
    /// How many files are in `files/`.
    pub files: u32,
    /// Their bytes together.
    pub bytes: u64,
    /// Bytes of the patch, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_bytes: Option<u64>,
    /// What was to be kept and is not, and why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<String>,
}

/// The most patterns of artefacts of one task.
pub const ARTIFACT_PATTERNS_MAX: usize = 64;

/// Checks patterns of artefacts: relative to the working directory, and without a way out of it.
///
/// # Errors
/// The first pattern that is none.
pub fn validate_patterns(patterns: &[String]) -> Result<(), SpecError> {
    let refuse = |value: String, expected| Err(SpecError::OutOfRange { field: "artifacts", value, expected });
    if patterns.len() > ARTIFACT_PATTERNS_MAX {
        return refuse(format!("a list of {}", patterns.len()), "at most 64 patterns");
    }
    match super::Patterns::read(patterns) {
        Ok(_) => Ok(()),
        Err((index, _)) => {
            let value = format!("'{}'", patterns[index].escape_debug());
            refuse(value, "a pattern below the working directory, such as out/**/*.png,")
        }
    }
}
