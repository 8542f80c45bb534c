//! The libraries that a worker has loaded, each in a link namespace of its own, and which of them a task means.
//!
//! A library stays loaded from task to task. What was loaded is what lies on the disk, or it is loaded anew: everything that
//! came into the namespace, and every place at which something was looked for in vain, is looked at before each use.
//! Nothing is closed while an action runs. Deliberately absent: the loading itself (`sys::dl`), the calls (`sys::plugin`).

use std::collections::{HashSet, VecDeque};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::elf::{self, ElfError};
use super::stub::stub;
use crate::sys::describe;
use crate::sys::dl::{DlError, Object};
use crate::sys::plugin::{Entry, EntryError};
use crate::task::Library;

/// The most libraries that stay loaded in one worker. Of the sixteen namespaces that the GNU C library has, its room for
/// thread-local data lets some eleven be used.
const LOADED_MAX: usize = 8;
/// The most libraries that are looked for in a search path.
const NEEDED_MAX: usize = 256;

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LibraryError {
    /// It, or one that it needs, is not what it should be.
    #[error("{why}", why = about(.path, .own, &.source.to_string()))]
    Elf {
        /// Which file.
        path: PathBuf,
        /// Whether that is the library itself.
        own: bool,
        /// What is wrong.
        source: ElfError,
    },
    /// The search path cannot be used.
    #[error("search path '{folder}': {why}")]
    Folder {
        /// Which folder of it.
        folder: String,
        /// Why.
        why: &'static str,
    },
    /// It needs more than can be looked for.
    #[error("it needs more than {NEEDED_MAX} libraries of its search path")]
    TooMany,
    /// The linker does not load it.
    #[error("it cannot be loaded: {0}")]
    Load(#[source] DlError),
    /// It is not one with actions.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The way to the linker is barred.
    #[error("its search path cannot be handed to the linker: {}", describe(.0))]
    Stub(#[source] io::Error),
    /// This process has no room for another library, since it cannot get rid of earlier ones. A new worker has.
    #[error("this worker has no room for another library: {0}")]
    WornOut(#[source] DlError),
}

fn about(path: &Path, own: &bool, why: &str) -> String {
    if *own { why.to_owned() } else { format!("it needs '{}': {why}", path.display()) }
}

/// What tells a file from the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn now(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|meta| Self::of(&meta))
    }
}

/// Files, and places where there was none.
type Seen = Vec<(PathBuf, Option<Stamp>)>;

/// A library that is loaded.
#[derive(Debug)]
struct Loaded {
    library: Library,
    seen: Seen,
    entry: Entry,
}

/// The loaded libraries of a worker.
#[derive(Debug, Default)]
pub struct Libraries {
    /// The one used last stands last.
    loaded: Vec<Loaded>,
    /// Whether there ever was one: then what fills the process may be what could not be closed.
    any: bool,
}

impl Libraries {
    /// The library as it is now, loaded.
    pub(super) fn get(&mut self, library: &Library) -> Result<&Entry, LibraryError> {
        let at = self.loaded.iter().position(|loaded| loaded.library == *library);
        let known = at.map(|at| self.loaded.remove(at));
        let fresh = known.filter(|known| known.seen.iter().all(|(path, stamp)| Stamp::now(path) == *stamp));
        let loaded = match fresh {
            Some(loaded) => loaded,
            None => self.load(library)?,
        };
        self.loaded.push(loaded);
        self.loaded.last().map(|loaded| &loaded.entry).ok_or(LibraryError::TooMany)
    }

    fn load(&mut self, library: &Library) -> Result<Loaded, LibraryError> {
        let (found, mut seen) = look(library)?;
        if self.loaded.len() >= LOADED_MAX {
            self.loaded.remove(0);
        }
        let object = match open(library, &found) {
            Err(LibraryError::Load(DlError::Full(_))) if self.any => {
                // What the linker has promised to others beside libraries cannot be known; so all make room.
                self.loaded.clear();
                open(library, &found).map_err(|error| match error {
                    LibraryError::Load(full @ DlError::Full(_)) => LibraryError::WornOut(full),
                    error => error,
                })?
            }
            opened => opened?,
        };
        self.any = true;
        // What was found beyond the search path, the system's own libraries among it.
        let rest = object.files().into_iter().filter(|file| file.is_absolute() && !file.starts_with("/proc/self/fd"));
        for file in rest {
            if !seen.iter().any(|(known, _)| *known == file) {
                let stamp = Stamp::now(&file);
                seen.push((file, stamp));
            }
        }
        Ok(Loaded { library: library.clone(), seen, entry: Entry::of(object)? })
    }
}

/// Which libraries of the search path the library needs, and those that these need; and all that was looked at for that.
fn look(library: &Library) -> Result<(Vec<OsString>, Seen), LibraryError> {
    let path = PathBuf::from(&library.path);
    let wrong = |path: &Path, own, source| LibraryError::Elf { path: path.to_owned(), own, source };
    let (needed, stamp) = read(&path).map_err(|source| wrong(&path, true, source))?;
    let mut seen = vec![(path, Some(stamp))];
    let mut found = Vec::new();
    if library.search_path.is_empty() {
        return Ok((found, seen));
    }
    for folder in &library.search_path {
        let refuse = |why| Err(LibraryError::Folder { folder: folder.clone(), why });
        if folder.contains([':', ';', '$']) {
            return refuse("the linker gives a meaning of its own to ':', ';' and '$'");
        }
        if !Path::new(folder).is_dir() {
            return refuse("it is no folder");
        }
    }
    let mut names: HashSet<OsString> = needed.iter().cloned().collect();
    let mut queue = VecDeque::from(needed);
    while let Some(name) = queue.pop_front() {
        // One with a slash is not looked for.
        if name.is_empty() || name.as_bytes().contains(&b'/') {
            continue;
        }
        for folder in &library.search_path {
            let candidate = Path::new(folder).join(&name);
            match read(&candidate) {
                Ok((needed, stamp)) => {
                    seen.push((candidate, Some(stamp)));
                    queue.extend(needed.into_iter().filter(|name| names.insert(name.clone())));
                    found.push(name);
                    break;
                }
                Err(ElfError::Io(error)) if is_absence(&error) => seen.push((candidate, None)),
                // The linker passes these over, too.
                Err(ElfError::OtherClass | ElfError::OtherMachine(_)) => {
                    let stamp = Stamp::now(&candidate);
                    seen.push((candidate, stamp));
                }
                Err(source) => return Err(wrong(&candidate, false, source)),
            }
        }
        if names.len() > NEEDED_MAX {
            return Err(LibraryError::TooMany);
        }
    }
    Ok((found, seen))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What a library needs, and what it looks like on the disk.
fn read(path: &Path) -> Result<(Vec<OsString>, Stamp), ElfError> {
    // Opening a FIFO would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(ElfError::NotElf);
    }
    Ok((elf::needed(&file)?, Stamp::of(&meta)))
}

/// Loads the library into a namespace of its own; before all others these, which are in its search path.
fn open(library: &Library, found: &[OsString]) -> Result<Object, LibraryError> {
    let load = |path: &str| {
        let path = CString::new(path).map_err(|error| LibraryError::Stub(error.into()))?;
        Object::load(&path).map_err(LibraryError::Load)
    };
    if library.search_path.is_empty() {
        return load(&library.path);
    }
    let needed = std::iter::once(OsStr::new(&library.path)).chain(found.iter().map(OsString::as_os_str));
    let bytes = stub(&library.search_path, needed)
        .ok_or_else(|| LibraryError::Stub(io::Error::new(io::ErrorKind::Unsupported, "not on this kind of machine")))?;
    let file = memory_file(&bytes).map_err(LibraryError::Stub)?;
    load(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A file in memory with these bytes; not executable where the kernel knows of that.
fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let name = c"acode-search-path";
    let made = match memfd_create(name, MFdFlags::MFD_CLOEXEC | no_exec) {
        Err(Errno::EINVAL) => memfd_create(name, MFdFlags::MFD_CLOEXEC),
        made => made,
    };
    let mut file = File::from(made?);
    file.write_all(bytes)?;
    Ok(file)
}
