//! Marks: for each container that may exist, two files in one folder, from before it does until it is known to be gone.
//!
//! `<task>.env` is written first and removed last; it holds the container's environment, and whoever runs the attempt holds
//! its lock. `<task>.cid` is made by the client and gets the container's id as soon as there is one. So whoever is killed
//! at any moment leaves at least one of them, and the next attempt of the task, or a sweep, knows that there is something
//! to look for. Deliberately absent: the looking, which is `removal`'s.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::failpoint;
use crate::task::TaskId;

/// What the client writes its container's id to.
const ID_END: &str = "cid";
/// The container's environment, and the lock.
const ENV_END: &str = "env";
/// The longest id that is believed.
const ID_MAX: usize = 128;

/// The mark of a container that this worker runs.
#[derive(Debug)]
pub struct Mark {
    folder: PathBuf,
    task: TaskId,
    _lock: Flock<File>,
}

impl Mark {
    /// Makes the mark, with `environment` in its file; to be called when there is none.
    ///
    /// # Errors
    /// It cannot be written, or somebody else has one for this task.
    pub fn make(folder: &Path, task: TaskId, environment: &[u8]) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = env_file(folder, task);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        // Held before anything is in it: a sweep that gets the lock may take it for a dead worker's.
        let written = file.write_all(environment);
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into());
        let made = written.and(locked).map(|lock| Self { folder: folder.to_owned(), task, _lock: lock });
        if made.is_err() {
            let _ = fs::remove_file(path);
        }
        failpoint!("docker.after-mark");
        made
    }

    /// The file for the container's id, which the client makes.
    pub fn id_file(&self) -> PathBuf {
        id_file(&self.folder, self.task)
    }

    /// The file with the environment.
    pub fn env_file(&self) -> PathBuf {
        env_file(&self.folder, self.task)
    }

    /// The container's id, as soon as it has one.
    pub fn container(&self) -> Option<String> {
        container(&self.folder, self.task)
    }

    /// Removes it, because there is no container.
    pub fn remove(self) {
        unlink(&self.folder, self.task);
    }
}

/// Whether there is a mark for a task.
pub fn exists(folder: &Path, task: TaskId) -> bool {
    id_file(folder, task).exists() || env_file(folder, task).exists()
}

/// Removes a task's mark, for its container is gone: the one with this id, or whichever there was. Nothing is done if the
/// mark is by now that of another attempt.
pub fn remove(folder: &Path, task: TaskId, gone: Option<&str>) {
    let is_another = gone.is_some_and(|gone| container(folder, task).is_some_and(|marked| marked != gone));
    if !is_another && !is_held(folder, task) {
        failpoint!("docker.before-unmark");
        unlink(folder, task);
    }
}

/// Whether a living worker runs an attempt with this mark.
pub fn is_held(folder: &Path, task: TaskId) -> bool {
    let Ok(file) = File::open(env_file(folder, task)) else { return false };
    matches!(Flock::lock(file, FlockArg::LockExclusiveNonblock), Err((_, nix::errno::Errno::EWOULDBLOCK)))
}

/// The tasks that have a mark, at most `limit`.
pub fn tasks(folder: &Path, limit: usize) -> Vec<TaskId> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut tasks: Vec<TaskId> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let (task, end) = name.to_str()?.rsplit_once('.')?;
            [ID_END, ENV_END].contains(&end).then(|| task.parse().ok())?
        })
        .take(limit.saturating_mul(2))
        .collect();
    tasks.sort_unstable();
    tasks.dedup();
    tasks.truncate(limit);
    tasks
}

fn unlink(folder: &Path, task: TaskId) {
    // One that was removed meanwhile by somebody else is as good.
    let _ = fs::remove_file(id_file(folder, task));
    let _ = fs::remove_file(env_file(folder, task));
}

fn container(folder: &Path, task: TaskId) -> Option<String> {
    let id = fs::read_to_string(id_file(folder, task)).ok()?;
    let id = id.trim();
    // It becomes an argument and part of a path.
    (!id.is_empty() && id.len() <= ID_MAX && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| id.to_owned())
}

fn id_file(folder: &Path, task: TaskId) -> PathBuf {
    folder.join(format!("{task}.{ID_END}"))
}

fn env_file(folder: &Path, task: TaskId) -> PathBuf {
    folder.join(format!("{task}.{ENV_END}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_until_its_own_container_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("containers");
        let task = TaskId::new(1, 2, 3);
        assert!(!exists(&folder, task) && tasks(&folder, 10).is_empty());
        let mark = Mark::make(&folder, task, b"A=1\n").unwrap();
        assert!(exists(&folder, task) && is_held(&folder, task) && mark.container().is_none());
        assert_eq!(fs::read(mark.env_file()).unwrap(), b"A=1\n");
        assert!(Mark::make(&folder, task, b"").is_err(), "two attempts of one task");
        fs::write(mark.id_file(), "abc\n").unwrap();
        assert_eq!((mark.container().as_deref(), tasks(&folder, 10)), (Some("abc"), vec![task]));
        remove(&folder, task, Some("abc"));
        assert!(exists(&folder, task), "the attempt is not over");
        drop(mark);
        remove(&folder, task, Some("def"));
        assert!(exists(&folder, task), "another attempt's");
        remove(&folder, task, Some("abc"));
        assert!(!exists(&folder, task));
    }

    #[test]
    fn an_id_is_not_believed_that_is_none() {
        let home = tempfile::tempdir().unwrap();
        let task = TaskId::new(1, 2, 3);
        for text in ["", "../x", "a b", &"a".repeat(200)] {
            fs::write(id_file(home.path(), task), text).unwrap();
            assert_eq!(container(home.path(), task), None, "{text}");
        }
        fs::write(home.path().join("README.cid"), "").unwrap();
        assert_eq!(tasks(home.path(), 10), [task], "what is not a task's is left alone");
    }
}
