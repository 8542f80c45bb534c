//! The lock of the queue's one owner, and the lock by which workers show that they still live.
//!
//! Both are `flock` locks: they belong to an open file description and go when its last descriptor is closed, however
//! its holder died. The instance lock's descriptor must therefore never reach a worker, and the workers' lock must.
//! Deliberately absent: removing the lock files, because a removed file can be locked by two at once.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

/// How often a waiter looks whether the last worker has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long to go on looking for the words of a holder that has the lock and has not yet written them.
const HOLDER_WRITES: Duration = Duration::from_millis(100);
/// More than a lock file ever holds, in bytes.
const HOLDER_MAX: u64 = 128;

/// Who holds the instance lock: a process id is told apart from a later one of the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
}

/// Why a lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process owns the queue.
    #[error("the state directory {} is held by {}", path.display(), held_by(.holder))]
    Held {
        /// The state directory.
        path: PathBuf,
        /// Who holds it, if the holder could say so.
        holder: Option<Holder>,
    },
    /// The lock file cannot be opened or locked.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Workers of an earlier supervisor are still alive at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("workers of an earlier supervisor are still alive")]
pub struct StillHeld;

fn held_by(holder: &Option<Holder>) -> impl fmt::Display {
    holder.map_or_else(|| "another process".to_owned(), |holder| format!("process {}", holder.pid))
}

/// The right to write the queue. Released when dropped, or when the process dies.
#[derive(Debug)]
pub struct InstanceLock {
    // Held for its lock alone.
    _file: File,
}

impl InstanceLock {
    /// Takes the lock in the file `path`, which is made if it is missing, and writes down who holds it.
    ///
    /// # Errors
    /// Another process holds it, or the file cannot be used.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = wait_for_holder(&mut file);
                let path = path.parent().unwrap_or(path).to_owned();
                return Err(LockError::Held { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let pid = std::process::id();
        let start_time = procfs::process::Process::myself().and_then(|me| me.stat()).map_or(0, |stat| stat.starttime);
        // One write after the cut: a reader finds either nothing or all of it.
        file.set_len(0).map_err(failed)?;
        file.write_all(format!("{pid} {start_time}\n").as_bytes()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Reads who holds the lock. Between taking it and writing that down a holder needs a moment.
fn wait_for_holder(file: &mut File) -> Option<Holder> {
    let deadline = Instant::now() + HOLDER_WRITES;
    loop {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| Read::by_ref(file).take(HOLDER_MAX).read_to_string(&mut text));
        let holder = text.trim().split_once(' ').and_then(|(pid, start)| {
            let (pid, start_time) = (pid.parse().ok()?, start.parse().ok()?);
            Some(Holder { pid, start_time })
        });
        // What a dead holder left is still there until the new one has cut it off.
        let alive = holder.filter(|holder| runs(*holder));
        if alive.is_some() || read.is_err() || Instant::now() >= deadline {
            return alive;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether this very process runs. One that hides from us in another namespace is taken to be another.
fn runs(holder: Holder) -> bool {
    let Ok(pid) = i32::try_from(holder.pid) else { return false };
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.starttime == holder.start_time)
}

/// The lock that every worker of a pool shares, so that a new supervisor can tell whether old workers are alive.
#[derive(Debug)]
pub struct WorkersLock {
    path: PathBuf,
}

impl WorkersLock {
    /// The lock in the file `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Takes the lock as one of many. The descriptor is handed to workers; the lock is held until the last copy of it
    /// is closed.
    ///
    /// # Errors
    /// Somebody holds it alone, or the file cannot be used.
    pub fn shared(&self) -> Result<OwnedFd, LockError> {
        let file = open(&self.path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file.into()),
            Err(TryLockError::WouldBlock) => {
                Err(LockError::Held { path: self.path.parent().unwrap_or(&self.path).to_owned(), holder: None })
            }
            Err(TryLockError::Error(source)) => Err(LockError::Io { path: self.path.clone(), source }),
        }
    }

    /// Waits until nobody holds the lock, at most until `deadline`. It is free again on return: the caller has the
    /// instance lock, so nobody else can start workers meanwhile.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn wait_exclusive(&self, deadline: Instant) -> Result<Result<(), StillHeld>, LockError> {
        let file = open(&self.path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Ok(())),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(Err(StillHeld)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::Error(source)) => return Err(LockError::Io { path: self.path.clone(), source }),
            }
        }
    }
}

/// Opens a lock file, never through a symbolic link. The standard library sets close-on-exec.
fn open(path: &Path) -> Result<File, LockError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlag::O_NOFOLLOW.bits());
    options.open(path).map_err(|source| LockError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_owner_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "4000000 12345678901234567890\nwhat an earlier and longer holder left").unwrap();
        let lock = InstanceLock::take(&path).unwrap();
        let error = InstanceLock::take(&path).unwrap_err();
        let LockError::Held { holder: Some(holder), path: held } = &error else { panic!("{error}") };
        assert_eq!((holder.pid, held.as_path()), (std::process::id(), folder.path()));
        let words = error.to_string();
        assert!(words.ends_with(&format!("is held by process {}", std::process::id())), "{words}");
        drop(lock);
        InstanceLock::take(&path).unwrap();
    }

    #[test]
    fn a_holder_that_does_not_say_who_it_is_is_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let silent = open(&path).unwrap();
        silent.lock().unwrap();
        let words = InstanceLock::take(&path).unwrap_err().to_string();
        assert!(words.ends_with("is held by another process"), "{words}");
    }

    #[test]
    fn the_lock_does_not_survive_exec() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = InstanceLock::take(&path).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(lock);
        // The kernel lets the parent go on before it closes the child's descriptors, so the end of exec is waited for.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut taken = InstanceLock::take(&path);
        while taken.is_err() && Instant::now() < deadline {
            taken = InstanceLock::take(&path);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        taken.unwrap();
    }

    #[test]
    fn a_new_supervisor_waits_for_the_last_worker() {
        let folder = tempfile::tempdir().unwrap();
        let lock = WorkersLock::new(folder.path().join("workers.lock"));
        let (one, two) = (lock.shared().unwrap(), lock.shared().unwrap());
        let copy = one.try_clone().unwrap();
        drop(one);
        drop(two);
        assert_eq!(lock.wait_exclusive(Instant::now() + Duration::from_millis(20)).unwrap(), Err(StillHeld));
        let waiter = std::thread::spawn(move || lock.wait_exclusive(Instant::now() + Duration::from_secs(60)).unwrap());
        drop(copy);
        assert_eq!(waiter.join().unwrap(), Ok(()));
    }
}
