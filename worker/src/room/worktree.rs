//! What a git worktree leaves beside its files: its place in the repository, the mark that tells of it, and the lock under
//! which repositories are changed.
//!
//! | what | where | from when to when |
//! |---|---|---|
//! | mark | `<marks>/<task>-<worker>/` | from before the worktree is added until all else is gone |
//! | administrative directory | `<repository>/worktrees/<name>/`, made by git | as long as the worktree is registered |
//! | lock | the repository's directory, or `<locks>/<device>-<inode>` | held while something is added or removed |
//!
//! A worker that is killed leaves the mark, and whoever finds it later removes the rest by it: an administrative directory
//! is known by the worktree's place that git has written into it, and by the reason for which it is locked, which names the
//! task. Deliberately absent: git, which `execute::worktree` calls, and the worktree's files, which are in a room.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::remove_tree;
use crate::failpoint;
use crate::task::{TaskId, WorkerId};

/// The most marks that are looked at.
const MARKS_MAX: usize = 100_000;
/// The file of a mark that says all; the mark is a directory, for what else is needed as long as it is.
const MARK: &str = "mark";
/// The file of a mark with the name of the administrative directory, once that is known.
const NAME: &str = "name";
/// What git notes as the reason of a worktree's lock before we do; the last is of a file that is not written yet.
const UNFINISHED: [&str; 3] = ["initializing", "added with --lock", ""];
/// Far longer than git takes from making an administrative directory to naming the worktree in it.
const INSTANT: Duration = Duration::from_millis(500);
/// More than a path takes, in bytes.
const TEXT_MAX: u64 = 8 * 1024;
/// The beginning of the reason for which our worktrees are locked.
const REASON: &str = "acode task ";

/// What is known of a worktree that may exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose it is.
    pub task: TaskId,
    /// Who made it.
    pub worker: WorkerId,
    /// That one's row.
    pub row: u16,
    /// The repository: git's common directory.
    pub common: PathBuf,
    /// Where the worktree is, without any link in its path.
    pub place: PathBuf,
}

impl Mark {
    /// What it is called in the folder of marks.
    pub fn name(&self) -> String {
        format!("{}-{}", self.task, self.worker)
    }

    /// Writes it down, safely on disk, and gives its directory.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        let directory = folder.join(self.name());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut file = File::create(directory.join(MARK))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        File::open(&directory)?.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(directory)
    }

    fn read(folder: &Path, name: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(name).join(MARK)).ok()?).ok()
    }

    /// Why the worktree is locked: nobody but us is to take it away, as `git worktree prune` does in a container that does
    /// not show it.
    pub fn reason(&self) -> String {
        format!("{REASON}{}", self.name())
    }

    /// The administrative directories that belong to the worktree: one, or none. To be called under the lock.
    pub fn administration(&self, directory: &Path) -> Vec<PathBuf> {
        let name = text(&directory.join(NAME));
        let folders = fs::read_dir(self.common.join("worktrees")).into_iter().flatten().flatten();
        let named = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|own| name.as_deref() == Some(own));
        let ours = |entry: &fs::DirEntry| self.owns(&entry.path(), named(entry));
        folders.filter(ours).map(|entry| entry.path()).collect()
    }

    /// What an earlier worker of this row has left: whatever is registered at the same place. To be called under the lock,
    /// before anything is made there.
    pub fn predecessors(&self) -> Vec<PathBuf> {
        let place = self.place.join(".git");
        let folders =
            fs::read_dir(self.common.join("worktrees")).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.filter(|folder| text(&folder.join("gitdir")).is_some_and(|other| Path::new(&other) == place)).collect()
    }

    fn owns(&self, administration: &Path, named: bool) -> bool {
        let reason = text(&administration.join("locked")).unwrap_or_default();
        if reason.starts_with(REASON) && reason != self.reason() {
            // A later worktree may be at the same place, or have the same name.
            return false;
        }
        match text(&administration.join("gitdir")).map(PathBuf::from) {
            // Any that has no reason of ours yet is no longer being made, for we have the lock.
            Some(place) if place == self.place.join(".git") => true,
            // What the task has moved or written over is ours by its name, but for somebody else's worktree of that name.
            Some(place) => named && (self.place.parent().is_some_and(|own| place.starts_with(own)) || !place.exists()),
            None => named,
        }
    }
}

/// Notes in the mark's directory what git has called the worktree, and its reason in the repository.
///
/// # Errors
/// One of them cannot be written.
pub fn name(mark: &Mark, directory: &Path, administration: &Path) -> io::Result<()> {
    fs::write(administration.join("locked"), mark.reason())?;
    let name = administration.file_name().unwrap_or_default();
    fs::write(directory.join(NAME), name.as_encoded_bytes())
}

/// What is in a small file, without the space at its end. A task may have put anything in its place, so that nothing else is
/// read, and nothing waited for.
pub fn text(path: &Path) -> Option<String> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().is_ok_and(|facts| facts.is_file()) {
        return None;
    }
    let mut text = String::new();
    file.take(TEXT_MAX).read_to_string(&mut text).ok()?;
    text.truncate(text.trim_end().len());
    Some(text)
}

/// The names of all marks, each with its worker and that one's row; nothing where the folder cannot be read. A mark that
/// says nothing, as of a worker that was killed while writing it, is nobody's.
pub fn marks(folder: &Path) -> Vec<(String, Option<(WorkerId, u16)>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MARKS_MAX);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .map(|name| {
            let worker = Mark::read(folder, &name).map(|mark| (mark.worker, mark.row));
            // One that is just being written tells who writes it by its name.
            let named = || Some((name.rsplit_once('-')?.1.parse().ok()?, u16::MAX));
            let worker = worker.or_else(named);
            (name, worker)
        })
        .collect()
}

/// Removes what a mark tells of, and the mark itself. False: `wait` has given up waiting for the lock, and nothing was done.
///
/// # Errors
/// Something cannot be removed; the mark stays.
pub fn release(folder: &Path, locks: &Path, name: &str, wait: &mut dyn FnMut() -> bool) -> io::Result<bool> {
    // A name that somebody made up must not lead elsewhere.
    if name.contains('/') || ["", ".", ".."].contains(&name) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    if let Some(mark) = Mark::read(folder, name)
        && mark.common.is_dir()
    {
        let Some(_lock) = lock(locks, &mark.common, wait)? else { return Ok(false) };
        for administration in mark.administration(&folder.join(name)) {
            unregister(&administration)?;
        }
        remove_unfinished(&mark.common)?;
    }
    failpoint!("worktree.after-remove");
    remove_tree(&folder.join(name))?;
    Ok(true)
}

/// Removes an administrative directory. What it is known by goes last, so that one that is half removed is found again.
///
/// # Errors
/// Something in it cannot be removed.
pub fn unregister(administration: &Path) -> io::Result<()> {
    const LAST: [&str; 2] = ["locked", "gitdir"];
    failpoint!("worktree.before-remove");
    for entry in fs::read_dir(administration)? {
        let entry = entry?;
        if !LAST.iter().any(|name| entry.file_name() == *name) {
            remove_tree(&entry.path())?;
        }
    }
    for name in LAST {
        remove_tree(&administration.join(name))?;
    }
    remove_tree(administration)
}

/// Removes what git and we have left half made or half removed that were killed, which makes git fail for others too. To be
/// called under the lock, so that no other worker is at that point; somebody else's git passes it in an instant.
///
/// # Errors
/// Something cannot be removed.
pub fn remove_unfinished(common: &Path) -> io::Result<()> {
    let folders = fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten();
    let unfinished: Vec<PathBuf> = folders.map(|entry| entry.path()).filter(|folder| is_unfinished(folder)).collect();
    if unfinished.is_empty() {
        return Ok(());
    }
    std::thread::sleep(INSTANT);
    for folder in unfinished.iter().filter(|folder| is_unfinished(folder)) {
        unregister(folder)?;
    }
    Ok(())
}

/// Whether something is missing in an administrative directory that may be ours.
fn is_unfinished(administration: &Path) -> bool {
    const NEEDED: [&str; 3] = ["gitdir", "commondir", "HEAD"];
    let is_there = |name: &str| text(&administration.join(name)).is_some_and(|text| !text.is_empty());
    if NEEDED.into_iter().all(is_there) {
        return false;
    }
    match text(&administration.join("locked")) {
        Some(reason) => UNFINISHED.contains(&reason.as_str()) || reason.starts_with(REASON),
        // Empty is how git begins, and how we end.
        None => fs::read_dir(administration).is_ok_and(|mut entries| entries.next().is_none()),
    }
}

/// The common directory of the repository with this git directory, without any link in its path.
///
/// # Errors
/// It cannot be read.
pub fn common_directory(git_dir: &Path) -> io::Result<PathBuf> {
    // Only a worktree's has this file.
    let common = text(&git_dir.join("commondir")).map_or(git_dir.to_owned(), |common| git_dir.join(common));
    fs::canonicalize(common)
}

/// Why git refuses a repository, from what it has said.
pub fn explain(repository: &str, words: &str) -> String {
    let foreign = words.contains("dubious ownership") || words.contains("unsafe repository");
    if foreign {
        return format!(
            "the repository '{repository}' belongs to another user, and git does not trust it: whoever does says so by \
             `git config --global --add safe.directory {repository}`, as the user of the pool"
        );
    }
    if words.contains("not a git repository") {
        return format!("'{repository}' is not a git repository");
    }
    let fatal = words.lines().find_map(|line| line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: ")));
    fatal.or(words.lines().last()).unwrap_or("git does not say why").to_owned()
}

/// The right to change the worktrees of a repository. Let go of when dropped, or when the process dies.
#[derive(Debug)]
pub struct Lock {
    // Held for its lock alone.
    _file: File,
}

/// Takes the lock of the repository whose common directory this is. `wait` is called between two tries, and says whether
/// to go on.
///
/// The directory itself is locked, which all pools have in common that use the repository; where its file system has no
/// locks on directories, a file in `locks`, called by what the directory is and not by its path.
///
/// # Errors
/// The repository is gone, or the folder of locks cannot be written.
pub fn lock(locks: &Path, common: &Path, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Lock>> {
    let directory = File::open(common)?;
    match take(directory, wait) {
        Err(_) => {
            let repository = fs::metadata(common)?;
            DirBuilder::new().recursive(true).mode(0o700).create(locks)?;
            let name = format!("{:x}-{:x}", repository.dev(), repository.ino());
            let file =
                OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(locks.join(name))?;
            take(file, wait)
        }
        taken => taken,
    }
}

fn take(file: File, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Lock>> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) if wait() => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(home: &Path, seq: u64) -> Mark {
        Mark {
            task: TaskId::new(1, 2, seq),
            worker: WorkerId::from_u128(7),
            row: 3,
            common: home.join("repo.git"),
            place: home.join("rooms/3/scratch/repo"),
        }
    }

    /// An administrative directory such as git makes.
    fn register(mark: &Mark, name: &str, locked: &str) -> PathBuf {
        let folder = mark.common.join("worktrees").join(name);
        fs::create_dir_all(folder.join("logs")).unwrap();
        fs::write(folder.join("gitdir"), format!("{}\n", mark.place.join(".git").display())).unwrap();
        fs::write(folder.join("locked"), locked).unwrap();
        fs::write(folder.join("HEAD"), "x").unwrap();
        fs::write(folder.join("commondir"), "../..\n").unwrap();
        folder
    }

    #[test]
    fn a_mark_leads_to_its_own_worktree_and_to_no_other() {
        let home = tempfile::tempdir().unwrap();
        let (marks_folder, locks) = (home.path().join("marks"), home.path().join("locks"));
        let (ours, later) = (mark(home.path(), 1), mark(home.path(), 2));
        let elsewhere = Mark { place: home.path().join("elsewhere"), ..ours.clone() };
        let own = register(&ours, "repo", &ours.reason());
        let unnamed = register(&ours, "repo1", "added with --lock\n");
        let kept = [register(&later, "repo2", &later.reason()), register(&elsewhere, "repo3", "")];
        ours.write(&marks_folder).unwrap();
        assert_eq!(marks(&marks_folder), [(ours.name(), Some((ours.worker, 3)))]);
        assert!(release(&marks_folder, &locks, &ours.name(), &mut || false).unwrap());
        assert!(!own.exists() && !unnamed.exists() && kept.iter().all(|folder| folder.join("HEAD").exists()));
        assert!(marks(&marks_folder).is_empty());
        // And once more, which finds nothing to do.
        assert!(release(&marks_folder, &locks, &ours.name(), &mut || false).unwrap());
    }

    #[test]
    fn whoever_does_not_get_the_lock_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (marks_folder, locks) = (home.path().join("marks"), home.path().join("locks"));
        let ours = mark(home.path(), 1);
        let own = register(&ours, "repo", &ours.reason());
        ours.write(&marks_folder).unwrap();
        let held = lock(&locks, &ours.common, &mut || false).unwrap().unwrap();
        let mut tries = 0;
        let mut wait = || {
            tries += 1;
            tries < 3
        };
        assert!(!release(&marks_folder, &locks, &ours.name(), &mut wait).unwrap());
        assert!(own.exists() && tries == 3);
        drop(held);
        assert!(release(&marks_folder, &locks, &ours.name(), &mut || false).unwrap());
    }

    #[test]
    fn a_repository_that_is_gone_and_a_mark_that_says_nothing_are_no_hindrance() {
        let home = tempfile::tempdir().unwrap();
        let (marks_folder, locks) = (home.path().join("marks"), home.path().join("locks"));
        let gone = mark(home.path(), 1);
        gone.write(&marks_folder).unwrap();
        assert!(release(&marks_folder, &locks, &gone.name(), &mut || false).unwrap());
        let torn = gone.name();
        fs::create_dir_all(marks_folder.join(&torn)).unwrap();
        fs::write(marks_folder.join(&torn).join(MARK), "{\"task").unwrap();
        assert_eq!(marks(&marks_folder), [(torn.clone(), Some((gone.worker, u16::MAX)))]);
        assert!(release(&marks_folder, &locks, &torn, &mut || false).unwrap());
        assert!(marks(&marks_folder).is_empty());
        assert!(release(&marks_folder, &locks, "../locks", &mut || false).is_err());
    }
}
