//! A file that appears whole or not at all, whoever is killed when.
//!
//! It is written without a name in its own folder, so that it is on the same disk, or under a temporary one where the file
//! system cannot do that; when it is complete it is flushed, takes its name in one step, and the folder is flushed. This is
//! the one place that knows what an output may replace: a file or a link, and never what is read to make it. Deliberately
//! absent: folders that are missing; they are not made.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use super::files::odd_kind;

/// The most bytes of a file's name that its temporary name repeats: that one must not become too long.
const NAME_KEPT: usize = 200;
/// The permissions of a new file before the process's mask, and of one that nobody else may read while it is written.
const MODE: u32 = 0o666;
const MODE_PRIVATE: u32 = 0o600;

/// Why an output file cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct OutputFileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Where a file is to appear, and what it must not take the place of.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    overwrite: bool,
    /// Device and inode of each input.
    inputs: Vec<(u64, u64)>,
}

impl Place {
    /// Looks at what is there now. A link is a name like any other, which a rename replaces while what it leads to stays;
    /// but one that leads to something odd stands for it.
    fn check(&self) -> io::Result<()> {
        let Ok(there) = fs::symlink_metadata(&self.path) else { return Ok(()) };
        let behind = if there.is_symlink() { fs::metadata(&self.path).ok() } else { None };
        let is_input = |facts: &Metadata| self.inputs.contains(&(facts.dev(), facts.ino()));
        if is_input(&there) || behind.as_ref().is_some_and(is_input) {
            return Err(io::Error::other("input and output are the same file"));
        }
        // /dev/stdout is such a link, and may well lead to a regular file.
        if there.is_symlink() && fs::read_link(&self.path).is_ok_and(|to| to.starts_with("/proc")) {
            return Err(io::Error::other("it leads into /proc, and only a file can be replaced"));
        }
        let how = if behind.is_some() { "leads to" } else { "is" };
        if let Some(kind) = odd_kind(behind.as_ref().unwrap_or(&there).file_type()) {
            return Err(io::Error::other(format!("it {how} {kind}, and only a file can be replaced")));
        }
        if self.overwrite { Ok(()) } else { Err(exists()) }
    }
}

fn exists() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "it exists: overwrite: true replaces it")
}

/// A file being written. Dropped before [`OutputFile::finish`], nothing of it stays. Killed, neither; but on a file system
/// that has no nameless files a hidden file beside its place may, whose name begins with a dot and that of the file.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// Its temporary name, if it has one.
    temporary: Option<PathBuf>,
    place: Place,
}

impl OutputFile {
    /// Begins a file that is to appear at `place`, with the permissions that the process gives to new files. A file or a link
    /// that is there is replaced only with `overwrite`, by the file's name appearing: what a link leads to stays as it is. A
    /// folder, a device, a FIFO, a socket, or a link to one, is never replaced.
    ///
    /// # Errors
    /// There is something already, or no file can be made there.
    pub fn create(place: &Path, overwrite: bool) -> Result<Self, OutputFileError> {
        Self::begin(place, overwrite, &[], MODE)
    }

    /// The same for a file that must not be one of these, which it is made of, under whatever name.
    ///
    /// # Errors
    /// There is something already, or no file can be made there.
    pub fn create_beside(place: &Path, overwrite: bool, inputs: &[&Metadata]) -> Result<Self, OutputFileError> {
        Self::begin(place, overwrite, inputs, MODE)
    }

    /// The same for a file that nobody but its owner may read, until [`OutputFile::set_permissions`] says otherwise.
    ///
    /// # Errors
    /// There is something already, or no file can be made there.
    pub fn create_private(place: &Path, overwrite: bool, inputs: &[&Metadata]) -> Result<Self, OutputFileError> {
        Self::begin(place, overwrite, inputs, MODE_PRIVATE)
    }

    fn begin(path: &Path, overwrite: bool, inputs: &[&Metadata], mode: u32) -> Result<Self, OutputFileError> {
        let fail = |doing, source| OutputFileError { doing, path: path.to_owned(), source };
        if path.file_name().is_none() {
            return Err(fail("make", io::ErrorKind::IsADirectory.into()));
        }
        let inputs = inputs.iter().map(|facts| (facts.dev(), facts.ino())).collect();
        let place = Place { path: path.to_owned(), overwrite, inputs };
        // Better now than after hours.
        place.check().map_err(|source| fail("make", source))?;
        let (file, temporary) = match nameless(folder_of(path), mode) {
            Some(file) => (file, None),
            None => {
                let temporary = temporary_name(path).map_err(|source| fail("name", source))?;
                let file = File::options().write(true).read(true).create_new(true).mode(mode).open(&temporary);
                (file.map_err(|source| fail("write to", source))?, Some(temporary))
            }
        };
        Ok(Self { file, temporary, place })
    }

    /// The file, to be read back or measured.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether this is the file that is written, or the one whose place it is to take.
    pub(super) fn is(&self, facts: &Metadata) -> bool {
        let same = |own: Metadata| (own.dev(), own.ino()) == (facts.dev(), facts.ino());
        self.file.metadata().is_ok_and(same) || fs::symlink_metadata(&self.place.path).is_ok_and(same)
    }

    /// Gives it these permissions.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_permissions(&self, permissions: Permissions) -> Result<(), OutputFileError> {
        self.file.set_permissions(permissions).map_err(|source| self.fail("set the permissions of", source))
    }

    /// Makes it appear, and gives its size in bytes. Whoever is told this finds it there after any crash.
    ///
    /// # Errors
    /// It cannot be flushed or named; then there is nothing.
    pub fn finish(mut self) -> Result<u64, OutputFileError> {
        self.file.flush().map_err(|source| self.fail("write to", source))?;
        self.file.sync_all().map_err(|source| self.fail("flush", source))?;
        let size = self.file.metadata().map_err(|source| self.fail("measure", source))?.len();
        // Something else may have come there meanwhile.
        self.place.check().map_err(|source| self.fail("make", source))?;
        self.name().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => self.fail("make", exists()),
            _ => self.fail("name", source),
        })?;
        let flushed = File::open(folder_of(&self.place.path)).and_then(|folder| folder.sync_all());
        flushed.map_err(|source| self.fail("flush the folder of", source))?;
        Ok(size)
    }

    fn name(&mut self) -> io::Result<()> {
        let Place { path, overwrite, .. } = &self.place;
        if self.temporary.is_none() {
            // A name is given to what has none by the link that proc shows; only a rename replaces.
            let name = if *overwrite { temporary_name(path)? } else { path.clone() };
            linkat(AT_FDCWD, &link_of(&self.file), AT_FDCWD, &name, AtFlags::AT_SYMLINK_FOLLOW)?;
            if !overwrite {
                return Ok(());
            }
            self.temporary = Some(name);
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        if *overwrite {
            fs::rename(temporary, path)?;
        } else {
            // A link fails where a file has come in between; a rename would replace it.
            fs::hard_link(temporary, path)?;
            fs::remove_file(temporary)?;
        }
        self.temporary = None;
        Ok(())
    }

    fn fail(&self, doing: &'static str, source: io::Error) -> OutputFileError {
        OutputFileError { doing, path: self.place.path.clone(), source }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn folder_of(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name in the folder, if it can get one later.
fn nameless(folder: &Path, mode: u32) -> Option<File> {
    let file = File::options().write(true).read(true).mode(mode).custom_flags(libc::O_TMPFILE).open(folder).ok()?;
    fs::metadata(link_of(&file)).is_ok().then_some(file)
}

/// Where proc shows what is behind a descriptor.
fn link_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// A hidden name beside the place that nobody has.
fn temporary_name(place: &Path) -> io::Result<PathBuf> {
    let name = place.file_name().unwrap_or_default().as_bytes();
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut hidden = vec![b'.'];
    hidden.extend(&name[..name.len().min(NAME_KEPT)]);
    hidden.extend(format!(".{:016x}", u64::from_ne_bytes(random)).bytes());
    Ok(place.with_file_name(std::ffi::OsStr::from_bytes(&hidden)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let mut file = OutputFile::create(&place, false).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!place.exists());
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut file = OutputFile::create(&place, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(file.finish().unwrap(), 5);
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        assert!(OutputFile::create(&place, false).is_err());
        let mut file = OutputFile::create(&place, true).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(OutputFile::create(folder.path(), true).is_err());
    }

    #[test]
    fn without_nameless_files_it_is_the_same_and_names_may_be_long() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("n".repeat(255));
        for overwrite in [false, true] {
            let temporary = temporary_name(&place).unwrap();
            let file = File::options().write(true).create_new(true).open(&temporary).unwrap();
            let mut file = OutputFile {
                file,
                temporary: Some(temporary),
                place: Place { path: place.clone(), overwrite, inputs: Vec::new() },
            };
            file.write_all(b"x").unwrap();
            file.finish().unwrap();
            let mut file = OutputFile::create_private(&place, true, &[]).unwrap();
            file.write_all(b"whole").unwrap();
            file.finish().unwrap();
            assert_eq!(fs::read(&place).unwrap(), b"whole");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        // What has come in between stays.
        fs::remove_file(&place).unwrap();
        let late = OutputFile::create(&place, false).unwrap();
        fs::write(&place, "other").unwrap();
        assert!(late.finish().is_err());
        assert_eq!(fs::read(&place).unwrap(), b"other");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_has_come_in_between_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let (place, input) = (folder.path().join("out"), folder.path().join("in"));
        fs::write(&input, "x").unwrap();
        let facts = fs::metadata(&input).unwrap();
        let words = |late: OutputFile| io::Error::other(late.finish().unwrap_err().source).to_string();
        let late = OutputFile::create_beside(&place, true, &[&facts]).unwrap();
        fs::hard_link(&input, &place).unwrap();
        assert_eq!(words(late), "input and output are the same file");
        fs::remove_file(&place).unwrap();
        let late = OutputFile::create(&place, true).unwrap();
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(words(late).starts_with("it is a FIFO"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
