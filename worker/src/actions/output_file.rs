//! A file that appears whole or not at all, whoever is killed when.
//!
//! It is written without a name in its own folder, so that it is on the same disk, or under a temporary one where the file
//! system cannot do that; when it is complete it is flushed, takes its name in one step, and the folder is flushed.
//! Deliberately absent: folders that are missing; they are not made.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

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

/// A file being written. Dropped before [`OutputFile::finish`], nothing of it stays. Killed, neither; but on a file system
/// that has no nameless files a hidden file beside its place may, whose name begins with a dot and that of the file.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// Its temporary name, if it has one.
    temporary: Option<PathBuf>,
    place: PathBuf,
    overwrite: bool,
}

impl OutputFile {
    /// Begins a file that is to appear at `place`. If there is one already, it is replaced only with `overwrite`.
    ///
    /// # Errors
    /// There is one already, or none can be made there.
    pub fn create(place: &Path, overwrite: bool) -> Result<Self, OutputFileError> {
        Self::begin(place, overwrite, MODE)
    }

    /// The same for a file that nobody but its owner may read, until [`OutputFile::set_permissions`] says otherwise.
    ///
    /// # Errors
    /// There is one already, or none can be made there.
    pub fn create_private(place: &Path, overwrite: bool) -> Result<Self, OutputFileError> {
        Self::begin(place, overwrite, MODE_PRIVATE)
    }

    fn begin(place: &Path, overwrite: bool, mode: u32) -> Result<Self, OutputFileError> {
        let fail = |doing, source| OutputFileError { doing, path: place.to_owned(), source };
        if place.file_name().is_none() {
            return Err(fail("make", io::ErrorKind::IsADirectory.into()));
        }
        match fs::symlink_metadata(place) {
            Ok(_) if !overwrite => return Err(fail("make", io::ErrorKind::AlreadyExists.into())),
            // Better now than after hours.
            Ok(facts) if facts.is_dir() => return Err(fail("replace", io::ErrorKind::IsADirectory.into())),
            Ok(_) | Err(_) => {}
        }
        let (file, temporary) = match nameless(folder_of(place), mode) {
            Some(file) => (file, None),
            None => {
                let temporary = temporary_name(place).map_err(|source| fail("name", source))?;
                let file = File::options().write(true).read(true).create_new(true).mode(mode).open(&temporary);
                (file.map_err(|source| fail("write to", source))?, Some(temporary))
            }
        };
        Ok(Self { file, temporary, place: place.to_owned(), overwrite })
    }

    /// The file, to be read back or measured.
    pub fn file(&self) -> &File {
        &self.file
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
        self.name().map_err(|source| self.fail("name", source))?;
        let flushed = File::open(folder_of(&self.place)).and_then(|folder| folder.sync_all());
        flushed.map_err(|source| self.fail("flush the folder of", source))?;
        Ok(size)
    }

    fn name(&mut self) -> io::Result<()> {
        if self.temporary.is_none() {
            // A name is given to what has none by the link that proc shows; only a rename replaces.
            let place = if self.overwrite { temporary_name(&self.place)? } else { self.place.clone() };
            linkat(AT_FDCWD, &link_of(&self.file), AT_FDCWD, &place, AtFlags::AT_SYMLINK_FOLLOW)?;
            if !self.overwrite {
                return Ok(());
            }
            self.temporary = Some(place);
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        if self.overwrite {
            fs::rename(temporary, &self.place)?;
        } else {
            // A link fails where a file has come in between; a rename would replace it.
            fs::hard_link(temporary, &self.place)?;
            fs::remove_file(temporary)?;
        }
        self.temporary = None;
        Ok(())
    }

    fn fail(&self, doing: &'static str, source: io::Error) -> OutputFileError {
        OutputFileError { doing, path: self.place.clone(), source }
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
            let mut file = OutputFile { file, temporary: Some(temporary), place: place.clone(), overwrite };
            file.write_all(b"x").unwrap();
            file.finish().unwrap();
            let mut file = OutputFile::create_private(&place, true).unwrap();
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
}
