//! A file or a tree copied, and read again to see that the copy is the same.
//!
//! A tree grows in a folder beside its place, which nobody else may enter, and takes its name when it is complete. Modes
//! and times are kept, links are links. Deliberately absent: owners, access lists, attributes, hard links, and merging
//! into a tree that is there already.

use std::fs::{self, DirBuilder, File, FileTimes, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, PosixFadviseAdvice, RenameFlags, posix_fadvise, renameat2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

use super::Copy;
use super::walk::{Problems, Tree, unlisted};
use crate::actions::files::{FileError, Input, Meter, PIECE, odd_kind};
use crate::actions::{ActionError, Context, OutputFile};
use crate::sys::copy::contents;

/// What of a mode is kept: no set-user-ID, which would be somebody else's.
const MODE_KEPT: u32 = 0o777;
/// The mode of a folder while it grows.
const MODE_GROWING: u32 = 0o700;

/// What was copied.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Where the result goes.
    pub output: String,
    /// How many files.
    pub files: u64,
    /// How many folders.
    pub folders: u64,
    /// How many links.
    pub links: u64,
    /// How many that are neither: FIFOs, sockets, devices.
    #[serde(default)]
    pub left_out: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether all of it was read again.
    pub verified: bool,
    /// How many could not be read.
    pub unreadable: u64,
}

/// A tree that grows beside its place; dropped before it has its name, nothing of it stays.
struct Growing {
    path: PathBuf,
    place: PathBuf,
}

impl Growing {
    /// Begins one. What an attempt of the same task has left that was killed is removed.
    fn begin(place: &Path, context: &Context<'_>) -> Result<Self, ActionError> {
        let fail = FileError::of("make", place);
        if fs::symlink_metadata(place).is_ok() {
            return Err(fail(exists()).into());
        }
        let path = place.with_file_name(format!(".acode-copy-{}", context.task_id()));
        remove(&path).map_err(&fail)?;
        DirBuilder::new().mode(MODE_GROWING).create(&path).map_err(&fail)?;
        Ok(Self { path, place: place.to_owned() })
    }

    /// Gives it its name, which nothing may have got meanwhile.
    fn finish(self) -> Result<(), FileError> {
        let fail = FileError::of("make", &self.place);
        let named = renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.place, RenameFlags::RENAME_NOREPLACE);
        match named.map_err(io::Error::from) {
            // A file system that cannot refuse: a folder replaces an empty folder at most.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => fs::rename(&self.path, &self.place),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
            named => named,
        }
        .map_err(&fail)?;
        flush_folder(self.place.parent().unwrap_or(Path::new("/"))).map_err(&fail)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = remove(&self.path);
    }
}

fn exists() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "it exists, and a folder replaces nothing")
}

/// Removes a tree of ours if there is one, folders too that may not be written.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    for entry in WalkDir::new(path).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
        let _ = fs::set_permissions(entry.path(), Permissions::from_mode(MODE_GROWING));
    }
    fs::remove_dir_all(path)
}

fn flush_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn run(params: &Copy, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let tree = Tree::find(&params.input, context)?.measured(context)?;
    let place = context.path(&params.output)?;
    let growing = match tree.is_dir {
        true if params.overwrite => {
            return Err(ActionError::new("overwrite is for files alone: a folder that exists is not replaced"));
        }
        true => {
            refuse_within(&tree, &place)?;
            Some(Growing::begin(&place, context)?)
        }
        false => None,
    };
    // Each byte is read again.
    let total = if params.verify { tree.bytes.saturating_mul(2) } else { tree.bytes };
    let meter = Meter::of_bytes(context, total);
    let mut done = Done { output: place.display().to_string(), verified: params.verify, ..Done::default() };
    match growing {
        None => {
            done.files = 1;
            done.bytes = copy_file(&Input::open(&tree.root)?, &place, params.overwrite, params.verify, &meter)?;
        }
        Some(growing) => {
            let mut problems = Problems::default();
            copy_tree(&tree, &growing.path, params.verify, &mut done, &mut problems, &meter)?;
            done.unreadable = problems.end(params.skip_unreadable)?;
            growing.finish()?;
        }
    }
    Ok(done)
}

/// A tree within itself would grow for ever.
fn refuse_within(tree: &Tree, place: &Path) -> Result<(), ActionError> {
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    let parent = parent.canonicalize().map_err(FileError::of("make", place))?;
    let root = tree.root.canonicalize().map_err(FileError::of("read", &tree.root))?;
    if parent.starts_with(root) {
        return Err(ActionError::new(format!("{} is within the tree that is copied", place.display())));
    }
    Ok(())
}

fn copy_tree(
    tree: &Tree,
    target: &Path,
    verify: bool,
    done: &mut Done,
    problems: &mut Problems,
    meter: &Meter<'_, '_>,
) -> Result<(), ActionError> {
    for entry in tree.entries(false) {
        meter.check()?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                problems.note(meter, unlisted(&error));
                continue;
            }
        };
        let to = target.join(tree.below(entry.path()));
        let kind = entry.file_type();
        if entry.depth() == 0 {
            done.folders += 1;
        } else if kind.is_dir() {
            DirBuilder::new().mode(MODE_GROWING).create(&to).map_err(FileError::of("make", &to))?;
            done.folders += 1;
        } else if kind.is_symlink() {
            copy_link(&entry, &to)?;
            done.links += 1;
        } else if kind.is_file() {
            match Input::open_entry(entry.path()) {
                Ok(input) => {
                    done.bytes += copy_file(&input, &to, false, verify, meter)?;
                    done.files += 1;
                }
                Err(error) => problems.note(meter, error),
            }
        } else {
            let kind = odd_kind(kind).unwrap_or("something else");
            let words = ActionError::new(format!("{} is left out: it is {kind}", entry.path().display()));
            meter.with(|context| drop(writeln!(context.stderr(), "{}", words.in_one_line())));
            done.left_out += 1;
        }
    }
    seal(tree, target, meter)
}

/// Gives the folders their modes and times, which would not outlive what is put into them, and flushes them.
fn seal(tree: &Tree, target: &Path, meter: &Meter<'_, '_>) -> Result<(), ActionError> {
    for entry in tree.entries(true).flatten() {
        meter.check()?;
        let is_dir = entry.file_type().is_dir() || entry.depth() == 0;
        let (Ok(facts), true) = (fs::metadata(entry.path()), is_dir) else { continue };
        let to = target.join(tree.below(entry.path()));
        // One that has come since then is not in the copy.
        let Ok(folder) = File::open(&to) else { continue };
        keep(&folder, &facts).and_then(|()| folder.sync_all()).map_err(FileError::of("finish", &to))?;
    }
    Ok(())
}

fn copy_link(entry: &DirEntry, to: &Path) -> Result<(), FileError> {
    let facts = entry.metadata().map_err(io::Error::from);
    let facts = facts.map_err(FileError::of("read", entry.path()))?;
    let leads_to = fs::read_link(entry.path()).map_err(FileError::of("read", entry.path()))?;
    let fail = FileError::of("make", to);
    symlink(leads_to, to).map_err(&fail)?;
    let time = TimeSpec::new(facts.mtime(), facts.mtime_nsec());
    utimensat(AT_FDCWD, to, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(|errno| fail(errno.into()))
}

/// Copies one file; gives its size in bytes.
fn copy_file(
    input: &Input,
    to: &Path,
    overwrite: bool,
    verify: bool,
    meter: &Meter<'_, '_>,
) -> Result<u64, ActionError> {
    let output = OutputFile::create_private(to, overwrite, &[&input.facts])?;
    let mut so_far = 0;
    let mut go_on = || {
        let now = output.file().metadata().map_or(so_far, |facts| facts.len());
        let more = now.saturating_sub(so_far);
        so_far = now;
        meter.add(more).is_ok()
    };
    let copied = contents(&input.file, output.file(), input.size(), input.facts.blocks(), &mut go_on);
    let copied = copied.map_err(|error| meter.error(FileError::of("copy", &input.path)(error)))?;
    if copied < input.size() {
        return Err(ActionError::new(format!("{} became shorter while it was read", input.path.display())));
    }
    meter.add(copied.saturating_sub(so_far))?;
    if verify {
        compare(input, output.file(), to, meter)?;
    }
    keep(output.file(), &input.facts).map_err(FileError::of("finish", to))?;
    Ok(output.finish()?)
}

/// Mode and time of last change.
fn keep(file: &File, facts: &Metadata) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(facts.permissions().mode() & MODE_KEPT))?;
    file.set_times(FileTimes::new().set_modified(facts.modified()?))
}

/// Reads both again, the copy from the disk and not out of memory, as far as the kernel can be told so.
fn compare(input: &Input, copy: &File, to: &Path, meter: &Meter<'_, '_>) -> Result<(), ActionError> {
    copy.sync_data().map_err(FileError::of("flush", to))?;
    let _ = posix_fadvise(copy, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < input.size() {
        let count = (input.size() - at).min(PIECE as u64) as usize;
        read_at(&input.file, &mut one[..count], at).map_err(FileError::of("read", &input.path))?;
        read_at(copy, &mut other[..count], at).map_err(FileError::of("read", to))?;
        if one[..count] != other[..count] {
            let (from, to) = (input.path.display(), to.display());
            return Err(ActionError::new(format!(
                "{to} is not the same as {from}, which may have been changed meanwhile"
            )));
        }
        at += count as u64;
        meter.add(count as u64)?;
    }
    Ok(())
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}
