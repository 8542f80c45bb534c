//! Scratch directories that were kept after their attempts: `<folder>/<task>-<attempt>`, moved there by a rename.
//!
//! The folder is the record of what is kept: an attempt whose worker was killed between the move and its report has its
//! directory there as well. Deliberately absent: which tasks are still known, which whoever owns the queue knows.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::remove_tree;
use crate::failpoint;
use crate::task::TaskId;

/// The most entries of the folder that are looked at.
const LOOK_MAX: usize = 100_000;

/// One kept directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name in the folder.
    pub name: String,
    /// The task whose attempt has left it.
    pub task: TaskId,
    /// When it was kept, in nanoseconds of Unix time.
    pub at_ns: i128,
}

/// What the directory of an attempt is called, of whatever it has left.
pub fn attempt_name(task: TaskId, attempt: u32) -> String {
    format!("{task}-{attempt}")
}

/// What is kept, the latest first; nothing where the folder cannot be read.
pub fn kept(folder: &Path) -> Vec<Kept> {
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let task = name.rsplit_once('-')?.0.parse().ok()?;
        // Renaming it was the last change to it.
        let facts = entry.metadata().ok()?;
        let at_ns = i128::from(facts.ctime()) * 1_000_000_000 + i128::from(facts.ctime_nsec());
        Some(Kept { name, task, at_ns })
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(LOOK_MAX);
    let mut kept: Vec<Kept> = entries.filter_map(read).collect();
    kept.sort_by_cached_key(|kept| (Reverse(kept.at_ns), kept.name.clone()));
    kept
}

/// Removes one of them; that it is gone already is no error.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_kept(folder: &Path, name: &str) -> io::Result<()> {
    failpoint!("worker.before-kept-removal");
    // A name that somebody made up must not lead elsewhere.
    if name.contains('/') || ["", ".", ".."].contains(&name) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    remove_tree(&folder.join(name))
}

/// Removes the oldest until no more than `max` are left. What cannot be removed stays.
pub fn trim_kept(folder: &Path, max: usize) {
    for surplus in kept(folder).into_iter().skip(max) {
        let _ = remove_kept(folder, &surplus.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_strangers_stay() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("kept");
        assert!(kept(&folder).is_empty());
        fs::create_dir_all(folder.join("somebody-else")).unwrap();
        let name = |seq| attempt_name(TaskId::new(1, 2, seq), 3);
        for seq in 0..5 {
            fs::create_dir_all(folder.join(name(seq)).join("deep/er")).unwrap();
            // The clock of files has steps.
            let next = folder.join(".clock");
            let first = fs::metadata(folder.join(name(seq))).unwrap();
            loop {
                fs::write(&next, "").unwrap();
                let now = fs::metadata(&next).unwrap();
                if (now.ctime(), now.ctime_nsec()) > (first.ctime(), first.ctime_nsec()) {
                    break;
                }
            }
        }
        trim_kept(&folder, 2);
        let names: Vec<String> = kept(&folder).into_iter().map(|kept| kept.name).collect();
        assert_eq!(names, [name(4), name(3)]);
        assert!(remove_kept(&folder, "../kept").is_err());
        remove_kept(&folder, &name(4)).unwrap();
        remove_kept(&folder, &name(4)).unwrap();
        assert!(folder.join("somebody-else").exists());
    }
}
