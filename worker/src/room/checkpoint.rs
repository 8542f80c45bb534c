//! Checkpoint directories: what a task keeps from attempt to attempt, one directory for each task that asked for one.
//!
//! They lie side by side under their tasks' numbers, which are never used twice. A worker makes one before each
//! attempt and may remove one between two; whoever owns the queue knows which are still needed. Deliberately absent:
//! that knowledge.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::remove_tree;
use crate::failpoint;

/// Makes the checkpoint directory of the task with this number, with mode 0700, or finds the one of an earlier attempt.
///
/// # Errors
/// It cannot be made, or something else is in its place.
pub fn make_checkpoint(folder: &Path, number: u64) -> io::Result<PathBuf> {
    let path = folder.join(number.to_string());
    failpoint!("worker.before-checkpoint");
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match DirBuilder::new().mode(0o700).create(&path) {
        // What a link points to is not ours to give.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(&path)?.is_dir() => {}
        made => made?,
    }
    failpoint!("worker.after-checkpoint");
    Ok(path)
}

/// Removes the checkpoint directory of the task with this number; that there is none is no error.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_checkpoint(folder: &Path, number: u64) -> io::Result<()> {
    failpoint!("worker.before-discard");
    remove_tree(&folder.join(number.to_string()))?;
    failpoint!("worker.after-discard");
    Ok(())
}

/// The numbers of the tasks that have a checkpoint directory, at most `limit`; none where the folder cannot be read.
pub fn checkpoints(folder: &Path, limit: usize) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_directory_is_found_again_and_a_link_in_its_place_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("checkpoints");
        let path = make_checkpoint(&folder, 7).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("step"), "3").unwrap();
        assert_eq!(make_checkpoint(&folder, 7).unwrap(), path);
        assert_eq!(fs::read_to_string(path.join("step")).unwrap(), "3");
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, folder.join("8")).unwrap();
        assert!(make_checkpoint(&folder, 8).is_err());
        let mut numbers = checkpoints(&folder, 10);
        numbers.sort_unstable();
        assert_eq!(numbers, [7, 8]);
        for number in [7, 8, 9] {
            remove_checkpoint(&folder, number).unwrap();
        }
        assert!(checkpoints(&folder, 10).is_empty() && outside.join("kept").exists());
    }
}
