//! What lies in the state directory beside the queue and belongs to tasks: checkpoint directories, scratch directories
//! that were kept, artefacts, marks of git worktrees, and copies of what submitters had on standard input. Finds those
//! that no task needs any more.
//!
//! Asked by whoever owns the queue: after pruning, and when a pool starts. Deliberately absent: removing
//! directories, which may take long and so is a worker's where there is one.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use acode_worker::failpoint;
use acode_worker::room::{self, Kept, StoredArtifacts};
use acode_worker::task::{TaskId, TaskState, WorkerId};

use crate::store::{FindError, Queue, StoreError};

/// The most checkpoint directories that are looked at in one sweep.
const CHECKPOINTS_MAX: usize = 10_000;
/// A copy of standard input as young as this may belong to a submission that is on its way.
const COPY_AGE_MIN: Duration = Duration::from_secs(3_600);

/// The numbers of tasks that are gone or have completed, and whose checkpoint directories are still there.
///
/// # Errors
/// The queue cannot be read.
pub fn idle_checkpoints(store: &dyn Queue, folder: &Path) -> Result<Vec<u64>, StoreError> {
    let mut idle = Vec::new();
    for number in room::checkpoints(folder, CHECKPOINTS_MAX) {
        let needed = match store.find_by_number(number) {
            Ok(id) => store.get(id)?.is_some_and(|task| task.state != TaskState::Completed),
            Err(FindError::NotFound(_) | FindError::NotAnId(_)) => false,
            Err(FindError::Ambiguous { .. }) => true,
            Err(FindError::Store(error)) => return Err(error),
        };
        if !needed {
            idle.push(number);
        }
    }
    Ok(idle)
}

/// The names of kept scratch directories whose tasks are gone, or that are older than `max_age`, or one too many.
///
/// # Errors
/// The queue cannot be read.
pub fn surplus_kept(
    store: &dyn Queue,
    folder: &Path,
    max: u32,
    max_age: Option<Duration>,
) -> Result<Vec<String>, StoreError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let oldest_ns = max_age.map(|age| i128::try_from(now.saturating_sub(age).as_nanos()).unwrap_or(0));
    surplus_of(room::kept(folder), max, oldest_ns, |task| Ok(store.get(task)?.is_some()))
}

fn surplus_of(
    kept: Vec<Kept>,
    max: u32,
    oldest_ns: Option<i128>,
    is_known: impl Fn(TaskId) -> Result<bool, StoreError>,
) -> Result<Vec<String>, StoreError> {
    let mut surplus = Vec::new();
    let mut left = max;
    for kept in kept {
        let is_young = oldest_ns.is_none_or(|oldest_ns| kept.at_ns >= oldest_ns);
        if left > 0 && is_young && is_known(kept.task)? {
            left -= 1;
        } else {
            surplus.push(kept.name);
        }
    }
    Ok(surplus)
}

/// Those of these artefacts whose tasks are gone, and what was gathered by workers that died meanwhile. `stored` is in the
/// order of tasks; `is_live` says whether there may be workers that gather.
///
/// # Errors
/// The queue cannot be read.
pub fn surplus_artifacts(
    store: &dyn Queue,
    stored: &[StoredArtifacts],
    is_live: bool,
) -> Result<Vec<StoredArtifacts>, StoreError> {
    surplus_drafts(stored, is_live, |id| {
        let task = store.get(id)?;
        Ok(task.map(|task| if task.state.is_final() { u32::MAX } else { task.attempts }))
    })
}

/// `attempts` gives how many attempts of a task are known of, all if it has ended, and nothing if it is gone.
fn surplus_drafts(
    stored: &[StoredArtifacts],
    is_live: bool,
    attempts: impl Fn(TaskId) -> Result<Option<u32>, StoreError>,
) -> Result<Vec<StoredArtifacts>, StoreError> {
    let mut surplus = Vec::new();
    let mut last: Option<(TaskId, Option<u32>)> = None;
    for one in stored {
        let known = match last {
            Some((task, known)) if task == one.task => known,
            Some(_) | None => attempts(one.task)?,
        };
        last = Some((one.task, known));
        let is_needed = match known {
            None => false,
            // The attempt that runs may be one that the queue does not know of yet, but no earlier one.
            Some(known) => !one.is_draft || (is_live && one.attempt >= known),
        };
        if !is_needed {
            surplus.push(*one);
        }
    }
    Ok(surplus)
}

/// The names of marks of git worktrees whose workers are no more.
pub fn idle_worktrees(folder: &Path, lives: impl Fn(WorkerId) -> bool) -> Vec<String> {
    let marks = room::worktree::marks(folder).into_iter();
    marks.filter(|(_, worker)| !worker.is_some_and(|(id, _)| lives(id))).map(|(name, _)| name).collect()
}

/// Removes the copies of standard input that no task reads, and that are too old for their task to be on its way.
///
/// # Errors
/// The queue cannot be read.
pub fn remove_unread_copies(store: &dyn Queue, folder: &Path) -> Result<(), StoreError> {
    let now = SystemTime::now();
    let is_old = |entry: &fs::DirEntry| {
        let changed = entry.metadata().and_then(|facts| facts.modified());
        changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= COPY_AGE_MIN))
    };
    let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("stdin-");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let old: Vec<_> = entries.filter(|entry| ours(entry) && is_old(entry)).collect();
    if old.is_empty() {
        return Ok(());
    }
    // By name alone: the folder may have been given by another path, and the names are unique.
    let used = store.copies_in_use()?;
    let used: std::collections::HashSet<&OsStr> = used.iter().filter_map(|path| Path::new(path).file_name()).collect();
    for entry in old.iter().filter(|entry| !used.contains(entry.file_name().as_os_str())) {
        failpoint!("sweep.before-copy");
        // What cannot be removed now is found again by the next sweep.
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_unknown_or_one_too_many_is_not_kept() {
        let kept = |seq: u64, at_ns| Kept { name: seq.to_string(), task: TaskId::new(1, 1, seq), at_ns };
        let all = || vec![kept(1, 90), kept(2, 80), kept(3, 70), kept(4, 60), kept(5, 50)];
        let surplus = |max, oldest_ns| surplus_of(all(), max, oldest_ns, |task| Ok(task.seq() != 2)).unwrap();
        assert_eq!(surplus(10, None), ["2"]);
        assert_eq!(surplus(10, Some(60)), ["2", "5"]);
        assert_eq!(surplus(2, None), ["2", "4", "5"]);
        assert_eq!(surplus(0, Some(0)), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn artefacts_go_with_their_task_and_drafts_with_their_attempt() {
        let stored = |seq, attempt, is_draft| StoredArtifacts { task: TaskId::new(1, 1, seq), attempt, is_draft };
        let (gone, running, ended) = (1, 2, 3);
        let all = [
            stored(gone, 1, false),
            stored(gone, 2, true),
            stored(running, 1, false),
            stored(running, 1, true),
            stored(running, 2, true),
            stored(running, 3, true),
            stored(ended, 1, false),
            stored(ended, 1, true),
        ];
        let attempts = |id: TaskId| Ok([None, Some(2), Some(u32::MAX)][id.seq() as usize - 1]);
        let live = surplus_drafts(&all, true, attempts).unwrap();
        assert_eq!(live, [all[0], all[1], all[3], all[7]]);
        let still = surplus_drafts(&all, false, attempts).unwrap();
        assert_eq!(still, [all[0], all[1], all[3], all[4], all[5], all[7]]);
    }
}
