//! What the built-in actions need of files: inputs that are regular files, progress by bytes, and copying that listens.
//!
//! Deliberately absent: outputs, which are [`OutputFile`](super::OutputFile)'s.

use std::cell::{Cell, RefCell};
use std::fs::{File, FileType, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{ActionError, Cancelled, Context};

/// What is read or written at once, in bytes: a few milliseconds of the slowest work on it.
pub(super) const PIECE: usize = 64 << 10;
/// How often progress is told at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What could not be done with a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub(super) struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// The error's maker, for `map_err`.
    pub(super) fn of(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { doing, path: path.to_owned(), source }
    }
}

/// Checks a path of the parameters as far as it can be without looking.
///
/// # Errors
/// It can be no path.
pub(super) fn check_path(key: &str, path: impl AsRef<Path>) -> Result<(), String> {
    let bytes = path.as_ref().as_os_str().as_bytes();
    match bytes {
        b"" => Err(format!("{key} is empty: give a path")),
        _ if bytes.contains(&0) => Err(format!("{key} holds a NUL byte")),
        _ => Ok(()),
    }
}

/// Checks the paths of an input and of an output beside it.
///
/// # Errors
/// One can be no path, or they are the same.
pub(super) fn check_paths(input: &Path, output: Option<&Path>) -> Result<(), String> {
    check_path("input", input)?;
    let Some(output) = output else { return Ok(()) };
    check_path("output", output)?;
    if input == output { Err("input and output are the same file".to_owned()) } else { Ok(()) }
}

/// What something is that is neither a regular file nor a link.
pub(super) fn odd_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        _ if kind.is_file() || kind.is_symlink() => None,
        _ if kind.is_dir() => Some("a folder"),
        _ if kind.is_fifo() => Some("a FIFO"),
        _ if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

/// A regular file to be read.
#[derive(Debug)]
pub(super) struct Input {
    pub path: PathBuf,
    pub file: File,
    pub facts: Metadata,
}

impl Input {
    /// Opens it. What is no regular file is refused: a pipe might keep us waiting for ever.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        Self::open_as(path, 0)
    }

    /// The same for an entry of a tree: a link that has come in its place meanwhile is not followed.
    ///
    /// # Errors
    /// The same, or it is a link.
    pub(super) fn open_entry(path: &Path) -> Result<Self, FileError> {
        Self::open_as(path, libc::O_NOFOLLOW)
    }

    fn open_as(path: &Path, flags: i32) -> Result<Self, FileError> {
        let fail = FileError::of("read", path);
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags).open(path);
        let file = file.map_err(&fail)?;
        let facts = file.metadata().map_err(&fail)?;
        if facts.is_dir() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        if !facts.is_file() {
            return Err(fail(io::Error::other("it is no regular file")));
        }
        Ok(Self { path: path.to_owned(), file, facts })
    }

    /// Its size when it was opened, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.facts.len()
    }
}

/// How far the work is, by bytes or whatever it counts. Shared by all that read and write for it.
pub(super) struct Meter<'c, 'h> {
    context: RefCell<&'c mut Context<'h>>,
    total: u64,
    done: Cell<u64>,
    told: Cell<Option<Instant>>,
    words: fn(u64, u64) -> String,
}

impl<'c, 'h> Meter<'c, 'h> {
    /// Of so many bytes to do.
    pub(super) fn of_bytes(context: &'c mut Context<'h>, total: u64) -> Self {
        Self::new(context, total, |done, total| format!("{} of {}", in_units(done), in_units(total)))
    }

    /// Of so many of something, with the words for it.
    pub(super) fn new(context: &'c mut Context<'h>, total: u64, words: fn(u64, u64) -> String) -> Self {
        Self { context: RefCell::new(context), total, done: Cell::new(0), told: Cell::new(None), words }
    }

    /// So much more is done; goes on only if the action is not to end.
    ///
    /// # Errors
    /// It is to end.
    pub(super) fn add(&self, more: u64) -> Result<(), Cancelled> {
        self.done.set(self.done.get().saturating_add(more));
        self.check()?;
        if self.told.get().is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told.set(Some(Instant::now()));
            let (done, total) = (self.done.get(), self.total.max(1));
            let percent = (done as f64 / total as f64 * 100.0).min(100.0);
            self.context.borrow_mut().progress(percent, &(self.words)(done.min(total), total));
        }
        Ok(())
    }

    /// Goes on only if the action is not to end.
    ///
    /// # Errors
    /// It is to end.
    pub(super) fn check(&self) -> Result<(), Cancelled> {
        self.context.borrow().check()
    }

    /// Uses the context.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Context<'h>) -> T) -> T {
        work(&mut self.context.borrow_mut())
    }

    /// The error of something that reads or writes for this work: that it was told to end, if it was.
    pub(super) fn error(&self, error: impl Into<ActionError>) -> ActionError {
        self.check().map_or_else(ActionError::from, |()| error.into())
    }
}

/// A number of bytes as people say it.
pub(super) fn in_units(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut size, mut name) = (bytes as f64, "B");
    for unit in UNITS {
        if size < 1_024.0 {
            break;
        }
        (size, name) = (size / 1_024.0, unit);
    }
    if name == "B" { format!("{bytes} B") } else { format!("{size:.1} {name}") }
}

/// Bytes in lower-case hexadecimal digits.
pub(super) fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A reader whose every read counts and may end the action.
pub(super) struct Counted<'m, 'c, 'h, R> {
    inner: R,
    meter: &'m Meter<'c, 'h>,
    counts: bool,
}

impl<'m, 'c, 'h, R: Read> Counted<'m, 'c, 'h, R> {
    pub(super) fn new(inner: R, meter: &'m Meter<'c, 'h>) -> Self {
        Self { inner, meter, counts: true }
    }

    /// The same that does not count, since something else is what is counted.
    pub(super) fn checking(inner: R, meter: &'m Meter<'c, 'h>) -> Self {
        Self { inner, meter, counts: false }
    }
}

impl<R: Read> Read for Counted<'_, '_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = buffer.len().min(PIECE);
        let count = self.inner.read(&mut buffer[..end])?;
        self.meter.add(if self.counts { count as u64 } else { 0 }).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Takes all of `from` to `to`, at most `most` bytes; gives how many. The two functions make the errors of reading and
/// of writing.
///
/// # Errors
/// What either says, or that the action is to end, or that there are more bytes.
#[cfg(any(feature = "compression", feature = "encryption"))]
pub(super) fn pump(
    from: &mut dyn Read,
    to: &mut dyn io::Write,
    most: u64,
    meter: &Meter<'_, '_>,
    read_error: &dyn Fn(io::Error) -> ActionError,
    write_error: &dyn Fn(io::Error) -> ActionError,
) -> Result<u64, ActionError> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0_u64;
    loop {
        meter.check()?;
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(meter.error(read_error(error))),
        };
        total += count as u64;
        if total > most {
            let words = format!("more comes out than the {most} bytes of maxOutputBytes");
            return Err(read_error(io::Error::other(words)));
        }
        to.write_all(&buffer[..count]).map_err(|error| meter.error(write_error(error)))?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sizes_are_told_in_units() {
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(in_units), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }

    #[test]
    fn an_input_is_a_regular_file_and_nothing_waits_for_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(ActionError::from(Input::open(&pipe).unwrap_err()).to_string().ends_with("it is no regular file"));
        assert!(Input::open(folder.path()).is_err());
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, folder.path().join("link")).unwrap();
        assert!(Input::open(&folder.path().join("link")).is_ok());
        assert!(Input::open_entry(&folder.path().join("link")).is_err());
    }
}
