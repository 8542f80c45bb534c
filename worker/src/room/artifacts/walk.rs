//! The walk through what a task has left, and the copying of what its patterns mean.
//!
//! One directory descriptor for each level, a bounded number of levels, and names as they come: a task may have left
//! millions of them. Deliberately absent: processes that change the tree meanwhile, beyond that nothing outside of it is
//! read and nothing is kept that is not the whole of what was there; the tree's processes are dead by then.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::ArtifactBounds;
use super::draft::{Draft, make_file, make_folder};
use super::omitted::{Omitted, Reason};
use crate::failpoint;
use crate::room::tree::open_here;
use crate::sys::copy::{self, GoOn};
use crate::sys::entries::{self, Entry};
use crate::task::{Artifacts, Patterns, Reach};

/// The most directories below each other that are entered.
const DEPTH_MAX: usize = 64;
/// The longest path below the base that is kept, in bytes: whoever reads it puts the folder's own before it.
const PATH_MAX: usize = 2_048;
/// The most names that are looked at.
const NAMES_MAX: u32 = 2_000_000;
/// After how many names whoever waits for us is heard.
const NAMES_STEP: u32 = 256;
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const FILE: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// A directory that is being looked through.
struct Level {
    dir: OwnedFd,
    /// Its copy, once something in it is kept.
    copy: Option<OwnedFd>,
    reach: Reach,
    position: i64,
    /// Names that were read, the next one last.
    names: Vec<Entry>,
    /// How long the path to it is.
    path: usize,
}

impl Level {
    fn new(dir: OwnedFd, reach: Reach, path: usize) -> Self {
        Self { dir, copy: None, reach, position: 0, names: Vec::new(), path }
    }

    /// The next name, if there is one more.
    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.names.is_empty() {
            self.names = entries::list(&self.dir, self.position)?;
            self.position = self.names.last().map_or(self.position, |last| last.next);
            self.names.reverse();
        }
        Ok(self.names.pop())
    }
}

/// A walk.
pub(super) struct Walk<'w> {
    patterns: &'w Patterns,
    bounds: ArtifactBounds,
    draft: &'w mut Draft,
    go_on: GoOn<'w>,
    levels: Vec<Level>,
    /// The path of the present name below the base.
    path: Vec<u8>,
    looked_at: u32,
    files: u32,
    bytes: u64,
    omitted: Omitted,
}

/// Whoever was asked whether to go on has said no.
struct Interrupted;

impl<'w> Walk<'w> {
    /// A walk through the directory behind `base`.
    pub fn new(
        base: BorrowedFd<'_>,
        patterns: &'w Patterns,
        bounds: ArtifactBounds,
        draft: &'w mut Draft,
        go_on: GoOn<'w>,
    ) -> io::Result<Self> {
        let top = openat(base, c".", FOLDER, Mode::empty())?;
        let levels = vec![Level::new(top, patterns.begin(), 0)];
        let (path, omitted) = (Vec::new(), Omitted::default());
        Ok(Self { patterns, bounds, draft, go_on, levels, path, looked_at: 0, files: 0, bytes: 0, omitted })
    }

    /// Walks to the end.
    pub fn run(mut self) -> io::Result<Artifacts> {
        self.walk().map_err(|Interrupted| io::Error::from(io::ErrorKind::Interrupted))?;
        let omitted = self.omitted.words();
        Ok(Artifacts { files: self.files, bytes: self.bytes, omitted, ..Artifacts::default() })
    }

    fn walk(&mut self) -> Result<(), Interrupted> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path);
            match level.next() {
                Ok(Some(entry)) => {
                    self.looked_at += 1;
                    if self.looked_at.is_multiple_of(NAMES_STEP) && !(self.go_on)() {
                        return Err(Interrupted);
                    }
                    if level.path > 0 {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(entry.name.to_bytes());
                    if self.looked_at > NAMES_MAX {
                        self.omitted.add(Reason::Names, &self.path);
                        return Ok(());
                    }
                    self.visit(&entry.name)?;
                }
                Ok(None) => drop(self.levels.pop()),
                Err(error) => {
                    self.omitted.add(Reason::reading(&error), &self.path);
                    self.levels.pop();
                }
            }
        }
        Ok(())
    }

    /// Looks at one name of the deepest directory.
    fn visit(&mut self, name: &CStr) -> Result<(), Interrupted> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let step = self.patterns.step(&level.reach, OsStr::from_bytes(name.to_bytes()));
        if !step.is_meant && step.within.is_none() {
            return Ok(());
        }
        let stat = match fstatat(&level.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => {
                self.omitted.add(Reason::Unreadable(errno), &self.path);
                return Ok(());
            }
        };
        let left_out = match (stat.st_mode & libc::S_IFMT, step.within) {
            (libc::S_IFDIR, Some(reach)) => self.enter(name, reach).err(),
            (libc::S_IFDIR, None) => None,
            _ if !step.is_meant => None,
            (libc::S_IFREG, _) => self.keep_file(name, &stat)?.err(),
            (libc::S_IFLNK, _) => self.keep_link(name).err(),
            (_, _) => Some(Reason::Special),
        };
        if let Some(reason) = left_out {
            self.omitted.add(reason, &self.path);
        }
        Ok(())
    }

    fn enter(&mut self, name: &CStr, reach: Reach) -> Result<(), Reason> {
        if self.levels.len() >= DEPTH_MAX || self.path.len() > PATH_MAX {
            return Err(Reason::Deep);
        }
        let Some(level) = self.levels.last() else { return Ok(()) };
        let dir = open_here(&level.dir, name, FOLDER).map_err(|errno| Reason::reading(&errno.into()))?;
        self.levels.push(Level::new(dir, reach, self.path.len()));
        Ok(())
    }

    /// Whether there is room for one more file of so many bytes.
    fn admit(&self, bytes: u64) -> Result<(), Reason> {
        if self.path.len() > PATH_MAX {
            return Err(Reason::Deep);
        }
        if self.files >= self.bounds.files {
            return Err(Reason::Files);
        }
        if bytes > self.bounds.bytes.saturating_sub(self.bytes) { Err(Reason::Bytes) } else { Ok(()) }
    }

    /// The copy of the deepest directory, made with all above it if need be.
    fn copy_of_level(&mut self) -> io::Result<BorrowedFd<'_>> {
        let first = self.levels.iter().position(|level| level.copy.is_none()).unwrap_or(self.levels.len());
        for at in first..self.levels.len() {
            let made = match at.checked_sub(1).and_then(|above| self.levels.get(above)) {
                None => self.draft.files()?.try_clone_to_owned()?,
                Some(above) => {
                    let Some(parent) = &above.copy else { return Err(Errno::ENOENT.into()) };
                    let level = &self.levels[at];
                    let begin = if above.path > 0 { above.path + 1 } else { 0 };
                    let name = CString::new(&self.path[begin..level.path])?;
                    make_folder(parent.as_fd(), &name)?
                }
            };
            self.levels[at].copy = Some(made);
        }
        let copy = self.levels.last().and_then(|level| level.copy.as_ref());
        copy.map(AsFd::as_fd).ok_or_else(|| Errno::ENOENT.into())
    }

    /// Copies one file. Inside: why it was not kept.
    fn keep_file(&mut self, name: &CStr, stat: &FileStat) -> Result<Result<(), Reason>, Interrupted> {
        let opened = self.admit(u64::try_from(stat.st_size).unwrap_or(u64::MAX)).and_then(|()| self.open(name));
        let (from, before) = match opened {
            Ok(opened) => opened,
            Err(reason) => return Ok(Err(reason)),
        };
        let to = match self.copy_of_level().and_then(|folder| make_file(folder, name)) {
            Ok(to) => to,
            Err(error) => return Ok(Err(Reason::writing(&error))),
        };
        failpoint!("artifacts.before-copy");
        let copied = match copy::contents(&from, &to, before.len(), before.blocks(), &mut *self.go_on) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Interrupted),
            copied => copied.map_err(|error| Reason::writing(&error)),
        };
        let kept = copied.and_then(|copied| finish(&from, &to, &before, copied));
        failpoint!("artifacts.within-copy");
        if kept.is_ok() {
            self.files += 1;
            self.bytes += before.len();
        } else if let Ok(folder) = self.copy_of_level() {
            let _ = unlinkat(folder, name, UnlinkatFlags::NoRemoveDir);
        }
        Ok(kept)
    }

    /// Opens a file for which there is room.
    fn open(&self, name: &CStr) -> Result<(File, Metadata), Reason> {
        let Some(level) = self.levels.last() else { return Err(Reason::Changed) };
        let fd = open_here(&level.dir, name, FILE).map_err(|errno| Reason::reading(&errno.into()))?;
        let file = File::from(fd);
        let facts = file.metadata().map_err(|error| Reason::reading(&error))?;
        if !facts.is_file() {
            // Something else has come into its place.
            return Err(Reason::Changed);
        }
        self.admit(facts.len())?;
        Ok((file, facts))
    }

    fn keep_link(&mut self, name: &CStr) -> Result<(), Reason> {
        self.admit(0)?;
        let Some(level) = self.levels.last() else { return Ok(()) };
        let target = readlinkat(&level.dir, name).map_err(Reason::Unreadable)?;
        if !stays_within(&target, self.levels.len() - 1) {
            return Err(Reason::Link);
        }
        let folder = self.copy_of_level().map_err(|error| Reason::writing(&error))?;
        symlinkat(target.as_os_str(), folder, name).map_err(Reason::Unwritable)?;
        self.files += 1;
        Ok(())
    }
}

/// Gives a copy its mode and times, if it is the whole of a file that was not changed meanwhile.
fn finish(from: &File, to: &File, before: &Metadata, copied: u64) -> Result<(), Reason> {
    let after = from.metadata().map_err(|error| Reason::reading(&error))?;
    let key = |facts: &Metadata| (facts.len(), facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec());
    if key(before) != key(&after) || copied != before.len() {
        return Err(Reason::Changed);
    }
    // Whoever keeps it must be able to read it; and nobody becomes somebody else by it.
    let mode = Mode::from_bits_truncate(before.mode() & 0o777) | Mode::S_IRUSR;
    let time = TimeSpec::new(before.mtime(), before.mtime_nsec());
    fchmod(to, mode).and_then(|()| futimens(to, &time, &time)).map_err(Reason::Unwritable)
}

/// Whether a link that lies `depth` directories below the top stays below it, whatever is where it leads through: it
/// goes up at its beginning only, where all directories are real ones, and no further than the top.
fn stays_within(target: &OsStr, depth: usize) -> bool {
    let bytes = target.as_bytes();
    let parts = bytes.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let ups = parts.clone().take_while(|part| *part == b"..").count();
    !bytes.is_empty() && bytes[0] != b'/' && ups <= depth && !parts.skip(ups).any(|part| part == b"..")
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
