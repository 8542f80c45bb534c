//! The things that a room consists of: its directory, the scratch directory, the FIFO; and whether each of them is
//! still the one that was made, as it was made.
//!
//! Deliberately absent: what to do about it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, mkdirat};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{mkfifoat, read};

/// What is read from the FIFO at once, in bytes.
const READ_SIZE: usize = 4 * 1024;
/// The most reads that draining takes. More would mean that somebody still writes.
const READS_MAX: usize = 256;

/// The coarsest clock of a file system that is reckoned with, in seconds.
const CLOCK_STEP_S: i64 = 2;

/// What tells a file from one that was put in its place, or was changed in its permissions.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    mode: u32,
    owner: (u32, u32),
}

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino, mode: stat.st_mode, owner: (stat.st_uid, stat.st_gid) }
    }
}

/// What is called `name` in `parent` now; `None` if nothing is.
fn look(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The entries of a directory other than itself and its parent.
fn each_entry(dir: &mut Dir, mut f: impl FnMut(&CStr) -> bool) -> io::Result<()> {
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." && !f(name) {
            break;
        }
    }
    Ok(())
}

/// What has become of a directory since it was last accepted as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was changed in it.
    Untouched,
    /// It looks untouched, but so recently accepted that the file system's clock may not show a change.
    Unsettled,
    /// Entries came or went, or its attributes were changed.
    Touched,
    /// It is gone, or something else is in its place, or its permissions or owner are others.
    Replaced,
}

/// A directory of mode 0700, held open. The descriptor also keeps its inode number from being given to another.
pub(super) struct Directory {
    dir: Dir,
    identity: Identity,
    /// The time of the last change to the directory or its attributes, in seconds and nanoseconds. Nobody can set it.
    changed: (i64, i64),
    /// Whether every later change shows in that time.
    settled: bool,
}

impl Directory {
    /// Makes the directory `name`, which must not exist.
    pub(super) fn make(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        mkdirat(parent, name, Mode::S_IRWXU)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = Dir::from_fd(openat(parent, name, flags, Mode::empty())?)?;
        let mut stat = fstat(&dir)?;
        if stat.st_mode & 0o777 != 0o700 {
            fchmod(&dir, Mode::S_IRWXU)?;
            stat = fstat(&dir)?;
        }
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        Ok(Self { dir, identity: Identity::from(&stat), changed, settled: false })
    }

    /// What has become of the directory that was made under `name`.
    pub(super) fn state(&self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<State> {
        let Some(stat) = look(parent, name)? else { return Ok(State::Replaced) };
        Ok(if Identity::from(&stat) != self.identity {
            State::Replaced
        } else if (stat.st_ctime, stat.st_ctime_nsec) != self.changed {
            State::Touched
        } else if self.settled {
            State::Untouched
        } else {
            State::Unsettled
        })
    }

    /// Whether the directory that was made is still what is called `name`, whatever was done to it.
    pub(super) fn is_at(&self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        let same = |stat: FileStat| (stat.st_dev, stat.st_ino) == (self.identity.device, self.identity.inode);
        Ok(look(parent, name)?.is_some_and(same))
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&mut self) -> io::Result<bool> {
        let mut empty = true;
        each_entry(&mut self.dir, |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Takes the directory as it is now for untouched.
    pub(super) fn accept(&mut self) -> io::Result<()> {
        let stat = fstat(&self.dir)?;
        self.changed = (stat.st_ctime, stat.st_ctime_nsec);
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?;
        self.settled = now.tv_sec() > stat.st_ctime.saturating_add(CLOCK_STEP_S);
        Ok(())
    }

    /// Calls `f` with the name of each entry until it says false.
    pub(super) fn each_entry(&mut self, f: impl FnMut(&CStr) -> bool) -> io::Result<()> {
        each_entry(&mut self.dir, f)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// A FIFO of mode 0600, held open for reading and writing: it never reports an end, and a task that opens it to write
/// never waits for a reader.
pub(super) struct Fifo {
    fd: OwnedFd,
    identity: Identity,
    /// How many bytes it holds. A task could shrink that, and the next task would block.
    capacity: i32,
}

impl Fifo {
    /// Makes the FIFO `name`, which must not exist.
    pub(super) fn make(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mkfifoat(parent, name, mode)?;
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        fchmod(&fd, mode)?;
        let identity = Identity::from(&fstat(&fd)?);
        let capacity = fcntl(&fd, FcntlArg::F_GETPIPE_SZ)?;
        Ok(Self { fd, identity, capacity })
    }

    /// Whether `name` is still this FIFO as it was made.
    pub(super) fn is_at(&self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        let same = look(parent, name)?.is_some_and(|stat| Identity::from(&stat) == self.identity);
        Ok(same && fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ)? == self.capacity)
    }

    /// Reads what is there, never blocks, and gives it to `f` piece by piece. False: there is still more.
    pub(super) fn drain(&self, mut f: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut buffer = [0; READ_SIZE];
        for _ in 0..READS_MAX {
            match read(&self.fd, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(true),
                Ok(count) => f(&buffer[..count]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
    }
}

impl AsFd for Fifo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    /// A directory that was made two file system clock steps ago, as far as it knows.
    fn settled() -> (tempfile::TempDir, std::fs::File, Directory) {
        let parent = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(parent.path()).unwrap();
        let mut directory = Directory::make(fd.as_fd(), c"it").unwrap();
        assert!(!directory.settled, "a directory made just now");
        directory.settled = true;
        // From here on the clock of files has moved on, so every change shows.
        let probe = parent.path().join("probe");
        let time = || {
            std::fs::write(&probe, b"").unwrap();
            let meta = std::fs::metadata(&probe).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        while time() <= directory.changed {}
        (parent, fd, directory)
    }

    #[test]
    fn a_settled_directory_shows_every_change_without_a_look_inside() {
        let (parent, fd, mut directory) = settled();
        let path = parent.path().join("it");
        let state = |directory: &Directory| directory.state(fd.as_fd(), c"it").unwrap();
        assert_eq!(state(&directory), State::Untouched);
        std::fs::write(path.join("x"), b"").unwrap();
        assert_eq!(state(&directory), State::Touched);
        std::fs::remove_file(path.join("x")).unwrap();
        assert_eq!(state(&directory), State::Touched, "what came is gone, but not what it left");
        directory.accept().unwrap();
        assert_eq!(state(&directory), State::Unsettled);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(state(&directory), State::Replaced);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(state(&directory), State::Replaced);
    }
}
