//! The walk after a glob: as in a shell a wildcard matches neither a slash nor the dot of a hidden file, and `**` means
//! folders of any depth, but not through links.
//!
//! Names need not be text: what matches is found, and whoever wants text sees what is none. Deliberately absent: an
//! order, and which kinds of files are wanted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// What cannot be read, and why not.
pub(super) type Unreadable = (PathBuf, io::Error);

/// What stands between two slashes.
#[derive(Debug)]
enum Part {
    /// This name.
    Name(String),
    /// Names like this, hidden ones if it begins with a dot.
    Like(Pattern),
    /// Any number of folders.
    Folders,
}

impl Part {
    fn read(text: &str) -> Result<Self, glob::PatternError> {
        match text {
            "**" => Ok(Self::Folders),
            _ if text.contains(['*', '?', '[']) => Pattern::new(text).map(Self::Like),
            _ => Ok(Self::Name(text.to_owned())),
        }
    }
}

/// The paths that match a pattern, in no order, and some perhaps more than once.
#[derive(Debug)]
pub(super) struct Walk {
    parts: Vec<Part>,
    /// Only folders: the pattern ends with a slash.
    folders: bool,
    /// Paths that are there, each with the number of parts that led to it.
    todo: Vec<(PathBuf, usize)>,
}

impl Walk {
    /// Begins it. A relative pattern starts at `folder`.
    ///
    /// # Errors
    /// It is no pattern.
    pub fn new(pattern: &str, folder: &Path) -> Result<Self, glob::PatternError> {
        // Brackets that hold a slash are found only in the whole.
        Pattern::new(pattern)?;
        let mut parts = Vec::new();
        for text in pattern.split('/').filter(|text| !text.is_empty() && *text != ".") {
            let part = Part::read(text)?;
            if !matches!((parts.last(), &part), (Some(Part::Folders), Part::Folders)) {
                parts.push(part);
            }
        }
        let start = if pattern.starts_with('/') { Path::new("/") } else { folder };
        Ok(Self { parts, folders: pattern.ends_with('/'), todo: vec![(start.to_owned(), 0)] })
    }

    /// Goes on from a path with the part number `at`.
    fn enter(&mut self, path: &Path, at: usize) -> io::Result<()> {
        let last = at + 1 == self.parts.len();
        match &self.parts[at] {
            Part::Name(name) => {
                let next = path.join(name);
                if next.symlink_metadata().is_ok() {
                    self.todo.push((next, at + 1));
                }
            }
            Part::Like(pattern) if path.is_dir() => {
                let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
                for entry in fs::read_dir(path)? {
                    let name = entry?.file_name();
                    if pattern.matches_with(&name.to_string_lossy(), options) {
                        self.todo.push((path.join(name), at + 1));
                    }
                }
            }
            Part::Folders if path.is_dir() => {
                if !last {
                    self.todo.push((path.to_owned(), at + 1));
                }
                for entry in fs::read_dir(path)? {
                    let entry = entry?;
                    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                    if !hidden && entry.file_type()?.is_dir() {
                        self.todo.push((entry.path(), at));
                        self.todo.extend(last.then(|| (entry.path(), at + 1)));
                    }
                }
            }
            Part::Like(_) | Part::Folders => {}
        }
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<PathBuf, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (path, at) = self.todo.pop()?;
            if at < self.parts.len() {
                if let Err(error) = self.enter(&path, at) {
                    return Some(Err((path, error)));
                }
            } else if !self.folders || path.is_dir() {
                return Some(Ok(path));
            }
        }
    }
}
