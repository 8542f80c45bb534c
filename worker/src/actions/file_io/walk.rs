//! The files below a path, in the order of their names, and what of them cannot be read.
//!
//! The path itself may be a link; no link below it is followed. Hidden files are files like any other, and no ignore file
//! is heeded. Deliberately absent: what is done with the files.

use std::fs::{self, Metadata};
use std::io::Write;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::actions::files::{FileError, Input, Meter};
use crate::actions::{ActionError, Cancelled, Context};

/// How many problems are repeated in the error at the end; each is told on standard error.
const REPEATED_MAX: usize = 5;

/// A file, or a folder with all that is in it.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where it is.
    pub root: PathBuf,
    /// As it was given.
    given: PathBuf,
    pub is_dir: bool,
    /// The bytes of all its regular files when it was measured.
    pub bytes: u64,
    facts: Metadata,
}

impl Tree {
    /// Looks at what there is.
    ///
    /// # Errors
    /// There is nothing, or it is neither a regular file nor a folder.
    pub(super) fn find(given: &Path, context: &mut Context<'_>) -> Result<Self, ActionError> {
        let root = context.path(given)?;
        let fail = FileError::of("read", &root);
        let facts = fs::metadata(&root).map_err(&fail)?;
        if !facts.is_dir() && !facts.is_file() {
            return Err(fail(std::io::Error::other("it is neither a regular file nor a folder")).into());
        }
        Ok(Self { given: given.to_owned(), is_dir: facts.is_dir(), bytes: facts.len(), root: root.clone(), facts })
    }

    /// Measures it: a tree entry by entry.
    ///
    /// # Errors
    /// The action is to end.
    pub(super) fn measured(mut self, context: &Context<'_>) -> Result<Self, Cancelled> {
        if self.is_dir {
            self.bytes = 0;
            for entry in self.entries(false) {
                context.check()?;
                // What cannot be read is told when it is its turn.
                let facts = entry.ok().and_then(|entry| entry.metadata().ok()).filter(Metadata::is_file);
                self.bytes = self.bytes.saturating_add(facts.map_or(0, |facts| facts.len()));
            }
        }
        Ok(self)
    }

    /// The one file that an output must not replace, if it is one and no tree.
    pub(super) fn inputs(&self) -> Vec<&Metadata> {
        if self.is_dir { Vec::new() } else { vec![&self.facts] }
    }

    /// Opens a file of it.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file any more.
    pub(super) fn open(&self, path: &Path) -> Result<Input, FileError> {
        if self.is_dir { Input::open_entry(path) } else { Input::open(path) }
    }

    /// All entries, itself too: folders before what is in them, or after it.
    pub(super) fn entries(&self, contents_first: bool) -> walkdir::IntoIter {
        WalkDir::new(&self.root).contents_first(contents_first).sort_by_file_name().into_iter()
    }

    /// Whether an entry is a regular file; the path that was given may lead to one.
    pub(super) fn is_file(&self, entry: &DirEntry) -> bool {
        entry.file_type().is_file() || (entry.depth() == 0 && !self.is_dir)
    }

    /// The path below the root; empty for the root.
    pub(super) fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The path as it begins with what was given.
    pub(super) fn as_given(&self, path: &Path) -> PathBuf {
        let below = self.below(path);
        if below.as_os_str().is_empty() { self.given.clone() } else { self.given.join(below) }
    }

    /// Its regular files one after the other; what cannot be read is noted.
    ///
    /// # Errors
    /// What `work` fails with, which is not noted, or the action is to end.
    pub(super) fn each_file(
        &self,
        meter: &Meter<'_, '_>,
        problems: &mut Problems,
        mut work: impl FnMut(&Path, &mut Problems) -> Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        for entry in self.entries(false) {
            meter.check()?;
            match entry {
                Ok(entry) if self.is_file(&entry) => work(entry.path(), problems)?,
                Ok(_) => {}
                Err(error) => problems.note(meter, unlisted(&error)),
            }
        }
        Ok(())
    }
}

/// The words for an entry that cannot be looked at.
pub(super) fn unlisted(error: &walkdir::Error) -> ActionError {
    let path = error.path().unwrap_or(Path::new(""));
    let source = error.io_error().and_then(std::io::Error::raw_os_error).map(std::io::Error::from_raw_os_error);
    FileError::of("read", path)(source.unwrap_or_else(|| std::io::Error::other("it cannot be listed"))).into()
}

/// What could not be read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub count: u64,
    first: Vec<String>,
}

impl Problems {
    /// Tells of one, and goes on.
    pub(super) fn note(&mut self, meter: &Meter<'_, '_>, error: impl Into<ActionError>) {
        let words = error.into().in_one_line();
        meter.with(|context| drop(writeln!(context.stderr(), "{words}")));
        self.count += 1;
        if self.first.len() < REPEATED_MAX {
            self.first.push(words);
        }
    }

    /// How many there were, if that is no failure.
    ///
    /// # Errors
    /// There were some, and they are not to be skipped.
    pub(super) fn end(self, skip: bool) -> Result<u64, ActionError> {
        if self.count == 0 || skip {
            return Ok(self.count);
        }
        let more = self.count - self.first.len() as u64;
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(ActionError::new(format!("{} could not be read: {}{more}", self.count, self.first.join("; "))))
    }
}
