//! The folder of an attempt's artefacts while it is being filled.
//!
//! Made with its first file, so that tasks that leave none cost no directory.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::{Mode, mkdirat};

use crate::failpoint;
use crate::room::tree::remove_tree_at;

const FILES: &CStr = c"files";
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What the folder is called until it is complete.
pub(super) fn name_of(name: &str) -> String {
    format!(".{name}.tmp")
}

/// A folder that is being filled.
pub(super) struct Draft {
    path: PathBuf,
    name: CString,
    own: CString,
    /// The folder of all artefacts, if it exists.
    all: Option<OwnedFd>,
    /// `files` in ours, once it is made.
    files: Option<OwnedFd>,
}

impl Draft {
    /// Begins, and removes what the same attempt has left whose end was never told.
    pub fn begin(folder: &Path, name: &str) -> io::Result<Self> {
        // The folder itself may be a link of the administrator's to a larger disk.
        let all = match open(folder, FOLDER.difference(OFlag::O_NOFOLLOW), Mode::empty()) {
            Err(Errno::ENOENT) => None,
            opened => Some(opened?),
        };
        let (own, name) = (CString::new(name_of(name))?, CString::new(name)?);
        if let Some(all) = &all {
            remove_tree_at(all, &own)?;
            remove_tree_at(all, &name)?;
        }
        Ok(Self { path: folder.to_owned(), name, own, all, files: None })
    }

    /// The directory of files.
    pub fn files(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.files.is_none() {
            if self.all.is_none() {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
                self.all = Some(open(&self.path, FOLDER.difference(OFlag::O_NOFOLLOW), Mode::empty())?);
            }
            let Some(all) = &self.all else { return Err(Errno::ENOENT.into()) };
            let own = make_folder(all.as_fd(), &self.own)?;
            self.files = Some(make_folder(own.as_fd(), FILES)?);
        }
        self.files.as_ref().map(AsFd::as_fd).ok_or_else(|| Errno::ENOENT.into())
    }

    /// Gives the folder its name: from now on it is there, whole.
    pub fn publish(&mut self) -> io::Result<()> {
        let Some(all) = &self.all else { return Ok(()) };
        failpoint!("artifacts.before-rename");
        renameat2(all, self.own.as_c_str(), all, self.name.as_c_str(), RenameFlags::RENAME_NOREPLACE)?;
        failpoint!("artifacts.after-rename");
        Ok(())
    }

    /// Removes what was gathered. What cannot be removed is found by a sweep.
    pub fn discard(&mut self) {
        if let Some(all) = &self.all {
            let _ = remove_tree_at(all, &self.own);
        }
    }
}

/// Makes a directory that must not exist, and opens it.
pub(super) fn make_folder(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::S_IRWXU)?;
    Ok(openat(parent, name, FOLDER, Mode::empty())?)
}

/// Makes a file that must not exist.
pub(super) fn make_file(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
}
