//! Files that tasks left to be kept: `<folder>/<task>-<attempt>/files/<path>`, copied before the scratch directory goes.
//!
//! They are gathered in `.<task>-<attempt>.tmp`, which takes its name when it is complete: who is killed meanwhile
//! leaves nothing that could be taken for the whole. What a task leaves is not trusted: `walk` goes by directory
//! descriptors, follows no link and enters no mount. Deliberately absent: which tasks are still known, which whoever owns
//! the queue knows; and fsync, as for the journal of output: after a power cut the youngest files may be missing.

mod draft;
mod omitted;
mod walk;

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{attempt_name, remove_tree};
use crate::failpoint;
use crate::sys::copy::GoOn;
use crate::task::{Artifacts, Patterns, TaskId};
use draft::Draft;
use walk::Walk;

/// The most entries of the folder that are looked at.
const LOOK_MAX: usize = 1_000_000;

/// How much is kept of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactBounds {
    /// The most bytes, as sizes of files tell them.
    pub bytes: u64,
    /// The most files.
    pub files: u32,
}

/// Copies the files below `base` that the patterns mean into `folder`, under the name of the attempt; says what that came
/// to. Nothing: none was meant. `go_on` is asked often, and ends it. Call it when the task's processes are dead.
///
/// # Errors
/// `base` cannot be read, the folder cannot be written to, or `go_on` said no (`Interrupted`). Nothing is kept then.
pub fn keep_artifacts(
    folder: &Path,
    (task, attempt): (TaskId, u32),
    base: BorrowedFd<'_>,
    patterns: &Patterns,
    bounds: ArtifactBounds,
    go_on: GoOn<'_>,
) -> io::Result<Option<Artifacts>> {
    let name = attempt_name(task, attempt);
    let mut draft = Draft::begin(folder, &name)?;
    let walked = Walk::new(base, patterns, bounds, &mut draft, go_on)?.run();
    let published = walked.and_then(|found| {
        if found.files > 0 {
            draft.publish()?;
        }
        Ok(found)
    });
    if !published.as_ref().is_ok_and(|found| found.files > 0) {
        draft.discard();
    }
    let found = Artifacts { folder: folder.join(name), ..published? };
    Ok(Some(found).filter(|found| found.files > 0 || found.omitted.is_some()))
}

/// One folder of artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredArtifacts {
    /// Whose they are.
    pub task: TaskId,
    /// Of which attempt.
    pub attempt: u32,
    /// Whether it is still being filled, or was when its worker was killed.
    pub is_draft: bool,
}

impl StoredArtifacts {
    fn read(name: &str) -> Option<Self> {
        let (name, is_draft) = match name.strip_prefix('.') {
            Some(rest) => (rest.strip_suffix(".tmp")?, true),
            None => (name, false),
        };
        let (task, attempt) = name.rsplit_once('-')?;
        Some(Self { task: task.parse().ok()?, attempt: attempt.parse().ok()?, is_draft })
    }

    /// Its name in the folder of all artefacts.
    pub fn name(&self) -> String {
        let name = attempt_name(self.task, self.attempt);
        if self.is_draft { draft::name_of(&name) } else { name }
    }
}

/// What is there, oldest task first; nothing where the folder cannot be read.
pub fn stored_artifacts(folder: &Path) -> Vec<StoredArtifacts> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(LOOK_MAX);
    let mut stored: Vec<_> = entries.filter_map(|entry| StoredArtifacts::read(entry.file_name().to_str()?)).collect();
    stored.sort_unstable();
    stored
}

/// Removes the folder of this name; that it is gone already is no error.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_artifacts(folder: &Path, name: &str) -> io::Result<()> {
    failpoint!("artifacts.before-removal");
    // A name that somebody made up must not lead elsewhere.
    let Some(stored) = StoredArtifacts::read(name) else { return Err(io::ErrorKind::InvalidInput.into()) };
    remove_tree(&folder.join(stored.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_task_attempt_and_whether_it_is_complete() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("artifacts");
        assert!(stored_artifacts(&folder).is_empty());
        let stored = |seq, attempt, is_draft| StoredArtifacts { task: TaskId::new(1, 2, seq), attempt, is_draft };
        let all = [stored(3, 1, false), stored(3, 2, true), stored(4, 10, false)];
        for one in all.iter().rev() {
            fs::create_dir_all(folder.join(one.name()).join("files/deep")).unwrap();
        }
        for stranger in ["notes", ".tmp", "x-1"] {
            fs::create_dir(folder.join(stranger)).unwrap();
        }
        assert_eq!(stored_artifacts(&folder), all);
        assert!(remove_artifacts(&folder, "../artifacts").is_err() && remove_artifacts(&folder, "notes").is_err());
        for one in all {
            remove_artifacts(&folder, &one.name()).unwrap();
            remove_artifacts(&folder, &one.name()).unwrap();
        }
        assert!(stored_artifacts(&folder).is_empty() && folder.join("notes").exists());
    }
}
