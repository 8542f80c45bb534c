//! The room of one worker slot: made once, given to task after task, and brought back to fresh in between.
//!
//! The common task touches nothing in its room, and finding that out costs a handful of system calls and no change
//! to the disk. Whatever else is found is removed or made anew. What cannot be removed, such as an immutable file of a
//! task run by root while we may not change that, is moved aside whole, so that the next task never sees it. Deliberately absent: any
//! further attempt on what was moved aside; the next start of the pool makes one.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::Mode;

use super::RoomError;
use super::collect::{self, Collected};
use super::disk::{Held, Keeper, Place, Wish};
use super::fixture::{Directory, Fifo, State};
use super::progress::{Lines, Progress};
use super::tree::remove_tree_at;
use crate::failpoint;
use crate::sys::{attributes, mount};

/// The most rooms of one slot that are moved aside before its worker gives up.
const ASIDE_MAX: u32 = 100;
const SCRATCH: &CStr = c"scratch";
const PROGRESS: &CStr = c"progress";
const RESULT: &CStr = c"result";
const ERROR: &CStr = c"error";
const PARAMS: &CStr = c"params";

/// Where things are, for the task's environment.
struct Paths {
    room: PathBuf,
    scratch: PathBuf,
    progress: PathBuf,
    result: PathBuf,
    error: PathBuf,
    params: PathBuf,
}

/// What was made, and is held open.
struct Fixtures {
    dir: Directory,
    scratch: Directory,
    progress: Fifo,
}

impl Fixtures {
    fn make(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        let dir = Directory::make(parent, name)?;
        let scratch = Directory::make(dir.as_fd(), SCRATCH)?;
        let progress = Fifo::make(dir.as_fd(), PROGRESS)?;
        Ok(Self { dir, scratch, progress })
    }
}

/// The room of one worker slot.
pub struct Room {
    paths: Paths,
    parent: OwnedFd,
    name: CString,
    slot: u32,
    fixtures: Fixtures,
    lines: Lines,
    keeper: Keeper,
}

impl Room {
    /// Makes the room of slot `slot` in the directory `parent`, which is made if need be and should be absolute: the
    /// room's paths are given to tasks. Whatever a predecessor left under that name is removed first.
    ///
    /// # Errors
    /// The remains cannot be removed, or the room cannot be made.
    pub fn open(parent: &Path, slot: u32) -> Result<Self, RoomError> {
        let name = CString::from_vec_with_nul(format!("{slot}\0").into_bytes()).unwrap_or_default();
        let room = parent.join(slot.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(RoomError::of("making", &room))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let parent = open(parent, flags, Mode::empty()).map_err(RoomError::of("making", &room))?;
        if let Err(error) = remove_tree_at(&parent, &name) {
            move_aside(parent.as_fd(), &name).map_err(|_| RoomError::of("removing what was left in", &room)(error))?;
        }
        let fixtures = Fixtures::make(parent.as_fd(), &name).map_err(RoomError::of("making", &room))?;
        let within = |name: &str| room.join(name);
        let (scratch, progress) = (within("scratch"), within("progress"));
        let (result, error, params) = (within("result"), within("error"), within("params"));
        let paths = Paths { scratch, progress, result, error, params, room };
        Ok(Self { paths, parent, name, slot, fixtures, lines: Lines::default(), keeper: Keeper::default() })
    }

    /// The room's own directory.
    pub fn path(&self) -> &Path {
        &self.paths.room
    }

    /// The task's private working directory.
    pub fn scratch(&self) -> &Path {
        &self.paths.scratch
    }

    /// The FIFO for lines of progress.
    pub fn progress(&self) -> &Path {
        &self.paths.progress
    }

    /// Where the task may leave its result.
    pub fn result(&self) -> &Path {
        &self.paths.result
    }

    /// Where the task may leave an error text.
    pub fn error(&self) -> &Path {
        &self.paths.error
    }

    /// Writes down what the task is to do, and says where. Whoever can reach the file can read it, and only we can write it.
    ///
    /// # Errors
    /// It cannot be written; then there is nothing.
    pub fn give_params(&self, text: &[u8]) -> io::Result<&Path> {
        let dir = &self.fixtures.dir;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let make = || openat(dir, PARAMS, flags, Mode::from_bits_truncate(0o600));
        let file = match make() {
            // An attempt that is begun a second time.
            Err(Errno::EEXIST) => remove_tree_at(dir.as_fd(), PARAMS).and_then(|()| Ok(make()?))?,
            made => made?,
        };
        let mut file = File::from(file);
        let written = file.write_all(text).and_then(|()| file.set_permissions(Permissions::from_mode(0o644)));
        if let Err(error) = written {
            let _ = remove_tree_at(dir.as_fd(), PARAMS);
            return Err(error);
        }
        Ok(&self.paths.params)
    }

    /// The reading end of the FIFO, to wait for. It may be another descriptor after [`Self::clean`].
    pub fn progress_fd(&self) -> BorrowedFd<'_> {
        self.fixtures.progress.as_fd()
    }

    /// Reads the lines of progress that are there, without blocking, and returns the last valid one.
    pub fn read_progress(&mut self) -> Option<Progress> {
        let mut last = None;
        let lines = &mut self.lines;
        // A FIFO that cannot be read tells nothing, and cleaning makes a new one if it was replaced.
        let _ = self.fixtures.progress.drain(|bytes| last = lines.feed(bytes).or(last.take()));
        last
    }

    /// Takes what the task left for its record. Call it when the task's processes are dead, before [`Self::clean`].
    pub fn collect(&mut self) -> Collected {
        let progress = self.read_progress();
        let progress = self.lines.flush().or(progress);
        let (result, result_error) = collect::result(&self.fixtures.dir, RESULT);
        Collected { result, result_error, error: collect::error(&self.fixtures.dir, ERROR), progress }
    }

    /// Holds the scratch directory to a limit, or counts what it holds, until what is returned is dropped. Call it before
    /// the task's first process is made.
    ///
    /// # Errors
    /// It cannot even be looked at.
    pub fn hold(&mut self, wish: &Wish) -> Result<Held, RoomError> {
        let fd = self.fixtures.scratch.as_fd();
        let place = Place { room: &self.paths.room, slot: self.slot, path: &self.paths.scratch, fd };
        self.keeper.hold(place, wish).map_err(RoomError::of("limiting", &self.paths.room))
    }

    /// Moves what the task has left in its scratch directory into `folder`, which is made if need be, and calls it
    /// `name`; says where that is. Nothing is moved if it has left nothing. Call it when the task's processes are dead,
    /// before [`Self::clean`].
    ///
    /// # Errors
    /// It cannot be moved: the folder is on another file system, or not writable.
    pub fn keep(&mut self, folder: &Path, name: &str) -> Result<Option<PathBuf>, RoomError> {
        let kept = keep(&mut self.fixtures, &self.paths.scratch, folder, name);
        kept.map_err(RoomError::of("keeping the scratch directory of", &self.paths.room))
    }

    /// The scratch directory, unless the task has put something else in its place: what is elsewhere is not looked into.
    ///
    /// # Errors
    /// It is gone, or cannot be looked at.
    pub fn scratch_fd(&self) -> io::Result<BorrowedFd<'_>> {
        let Fixtures { dir, scratch, .. } = &self.fixtures;
        if scratch.is_at(dir.as_fd(), SCRATCH)? { Ok(scratch.as_fd()) } else { Err(Errno::ENOENT.into()) }
    }

    /// Brings the room back to what a fresh one is. Call it when the task's whole process tree is dead. True: all of
    /// it was used again; false: some of it was made anew.
    ///
    /// # Errors
    /// Something cannot be removed or made. The room must not be given to a task then; to clean it again is allowed.
    pub fn clean(&mut self) -> Result<bool, RoomError> {
        self.lines.clear();
        self.restore().map_err(RoomError::of("cleaning", &self.paths.room))
    }

    /// Gives up a room that could not be cleaned: moves it aside, and makes a fresh one in its place.
    ///
    /// # Errors
    /// It cannot be moved, or a fresh one cannot be made. The room must not be given to a task then.
    pub fn replace(&mut self) -> Result<(), RoomError> {
        let replaced = move_aside(self.parent.as_fd(), &self.name).and_then(|()| {
            self.fixtures = Fixtures::make(self.parent.as_fd(), &self.name)?;
            Ok(())
        });
        replaced.map_err(RoomError::of("replacing", &self.paths.room))
    }

    /// Removes the room with all that is in it.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(self) -> Result<(), RoomError> {
        remove_tree_at(&self.parent, &self.name).map_err(RoomError::of("removing", &self.paths.room))
    }

    fn restore(&mut self) -> io::Result<bool> {
        let parent = self.parent.as_fd();
        let Fixtures { dir, scratch, progress } = &mut self.fixtures;
        let mut left = Left::default();
        let room = dir.state(parent, &self.name)?;
        match room {
            State::Untouched => {}
            State::Unsettled | State::Touched => dir.each_entry(|name| left.note(name))?,
            State::Replaced => left.foreign = true,
        }
        if left.foreign {
            remove_tree_at(parent, &self.name)?;
            self.fixtures = Fixtures::make(parent, &self.name)?;
            return Ok(false);
        }
        if left.result {
            remove_tree_at(dir.as_fd(), RESULT)?;
        }
        if left.error {
            remove_tree_at(dir.as_fd(), ERROR)?;
        }
        if left.params {
            remove_tree_at(dir.as_fd(), PARAMS)?;
        }
        let scratch_reused = restore_scratch(dir.as_fd(), scratch)?;
        let progress_reused = restore_progress(dir.as_fd(), progress)?;
        let reused = scratch_reused && progress_reused;
        if room != State::Untouched || !reused {
            dir.accept()?;
        }
        Ok(reused)
    }
}

fn keep(fixtures: &mut Fixtures, scratch: &Path, folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let room = fixtures.dir.as_fd();
    // Whatever else lies in its place is none of the task's work.
    let is_scratch = fixtures.scratch.is_at(room, SCRATCH)?;
    if !is_scratch || fixtures.scratch.is_empty()? {
        return Ok(None);
    }
    // A mount would go with it.
    mount::detach_below(scratch)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let target = open(folder, flags, Mode::empty())?;
    let c_name = CString::new(name)?;
    failpoint!("worker.before-keep");
    let rename = || renameat2(room, SCRATCH, &target, c_name.as_c_str(), RenameFlags::RENAME_NOREPLACE);
    match rename() {
        // Left by the same attempt, which was begun anew because its end was never told.
        Err(Errno::EEXIST) => remove_tree_at(&target, &c_name).and_then(|()| Ok(rename()?))?,
        Err(Errno::EPERM) if attributes::loosen(room, SCRATCH) => rename()?,
        renamed => renamed?,
    }
    failpoint!("worker.after-keep");
    Ok(Some(folder.join(name)))
}

/// Renames a room that cannot be removed, to a name that no room ever has.
fn move_aside(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    for number in 0..ASIDE_MAX {
        let aside = CString::new(format!("stuck-{}-{number}", name.to_string_lossy()))?;
        match renameat2(parent, name, parent, aside.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            moved => return Ok(moved?),
        }
    }
    Err(io::Error::other("too many rooms were moved aside"))
}

/// Sees to it that scratch is as it was made. Says whether it is the same one.
///
/// One that was merely touched is made anew as well: nothing else takes away extended attributes, access lists and
/// the size that a directory keeps after having had many entries.
fn restore_scratch(room: BorrowedFd<'_>, scratch: &mut Directory) -> io::Result<bool> {
    match scratch.state(room, SCRATCH)? {
        State::Untouched => return Ok(true),
        State::Unsettled => {
            if scratch.is_empty()? {
                scratch.accept()?;
                return Ok(true);
            }
        }
        State::Touched | State::Replaced => {}
    }
    remove_tree_at(room, SCRATCH)?;
    *scratch = Directory::make(room, SCRATCH)?;
    Ok(false)
}

/// Sees to it that the FIFO is as it was made, and empty. Says whether it is the same one.
fn restore_progress(room: BorrowedFd<'_>, progress: &mut Fifo) -> io::Result<bool> {
    if progress.is_at(room, PROGRESS)? && progress.drain(|_| ())? {
        return Ok(true);
    }
    remove_tree_at(room, PROGRESS)?;
    *progress = Fifo::make(room, PROGRESS)?;
    Ok(false)
}

/// What was found in the room's own directory.
#[derive(Default)]
struct Left {
    result: bool,
    error: bool,
    params: bool,
    /// Something that has no business there, or another directory in the room's place.
    foreign: bool,
}

impl Left {
    /// Notes an entry. False: no need to look further.
    fn note(&mut self, name: &CStr) -> bool {
        if name == RESULT {
            self.result = true;
        } else if name == ERROR {
            self.error = true;
        } else if name == PARAMS {
            self.params = true;
        } else if name != SCRATCH && name != PROGRESS {
            self.foreign = true;
        }
        !self.foreign
    }
}
