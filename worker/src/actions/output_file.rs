//! A file that appears whole or not at all, whoever is killed when.
//!
//! It is written under a temporary name in its own folder, so that it is on the same disk; when it is complete it is
//! flushed, takes its name in one step, and the folder is flushed. Deliberately absent: folders that are missing; they are
//! not made.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why an output file cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct OutputFileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A file being written. Dropped before [`OutputFile::finish`], nothing of it stays; killed, a hidden file beside its
/// place may, whose name begins with a dot and that of the file.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    temporary: PathBuf,
    place: PathBuf,
    overwrite: bool,
    finished: bool,
}

impl OutputFile {
    /// Begins a file that is to appear at `place`. If there is one already, it is replaced only with `overwrite`.
    ///
    /// # Errors
    /// There is one already, or none can be made there.
    pub fn create(place: &Path, overwrite: bool) -> Result<Self, OutputFileError> {
        let fail = |doing, source| OutputFileError { doing, path: place.to_owned(), source };
        if !overwrite && fs::symlink_metadata(place).is_ok() {
            return Err(fail("make", io::ErrorKind::AlreadyExists.into()));
        }
        let name = place.file_name().ok_or_else(|| fail("make", io::ErrorKind::IsADirectory.into()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| fail("name", io::Error::other(error)))?;
        hidden.push(format!(".{:016x}", u64::from_ne_bytes(random)));
        let temporary = place.with_file_name(hidden);
        let file = File::options().write(true).read(true).create_new(true).open(&temporary);
        let file = file.map_err(|source| fail("write to", source))?;
        Ok(Self { file, temporary, place: place.to_owned(), overwrite, finished: false })
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
        let named = match self.overwrite {
            true => fs::rename(&self.temporary, &self.place),
            // A link fails where a file has come in between; a rename would replace it.
            false => fs::hard_link(&self.temporary, &self.place).and_then(|()| fs::remove_file(&self.temporary)),
        };
        named.map_err(|source| self.fail("name", source))?;
        self.finished = true;
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flushed = File::open(folder).and_then(|folder| folder.sync_all());
        flushed.map_err(|source| self.fail("flush the folder of", source))?;
        Ok(size)
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
        if !self.finished {
            let _ = fs::remove_file(&self.temporary);
        }
    }
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
    }
}
