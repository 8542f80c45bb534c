//! Task files: YAML or JSON Lines in, submissions out.
//!
//! The two are told apart by content, so that standard input needs no flag. A YAML file is read whole and put into an
//! order in which each task comes after those that it waits for; JSON Lines are one task a line and stream in bounded
//! memory. Whatever is wrong is told with file, line and column. Deliberately absent: submitting; a caller that
//! streams must take back what it has sent when a later line is broken.

mod action;
mod artifacts;
mod docker;
mod duration;
mod error;
mod expand;
mod limits;
mod lines;
mod moment;
mod order;
mod sandbox;
mod schema;
mod start;
mod walk;
mod worktree;

#[cfg(test)]
mod tests;

pub use docker::{MountTextError, parse_mount};
pub use duration::{DURATION_MAX, DurationError, parse_duration};
pub use error::TaskFileError;
pub use expand::{ITEMS_MAX, LINES_FILE_MAX, split_command};
pub use lines::LINE_MAX;
pub use moment::{MomentError, parse_moment};
pub use start::place_params;

use std::fs::File;
use std::io::{BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use acode_worker::actions::Registry;
use acode_worker::task::Submission;

use crate::tree::{At, Fault, FaultKind, Value, from_json, from_yaml};
use lines::Lines;
use schema::Base;

/// The largest YAML task file, in bytes. More than that is for JSON Lines, which stream.
pub const YAML_MAX: usize = 32 << 20;

/// How a task file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One document with the key `tasks`.
    Yaml,
    /// One task a line.
    JsonLines,
}

/// The submissions of a task file, each after those that it refers to.
pub struct Submissions<R> {
    source: Source<R>,
    at: At,
}

enum Source<R> {
    Whole(std::vec::IntoIter<(At, Submission)>),
    Lines(Box<Lines<Chain<Cursor<Vec<u8>>, R>>>),
}

impl<R> Submissions<R> {
    /// How the file is written.
    pub fn format(&self) -> Format {
        match &self.source {
            Source::Whole(_) => Format::Yaml,
            Source::Lines(_) => Format::JsonLines,
        }
    }

    /// Where in the file the submission stands that was given out last.
    pub fn at(&self) -> At {
        self.at
    }

    /// How many submissions are still to come, where that is known: a stream does not tell.
    pub fn remaining(&self) -> Option<usize> {
        match &self.source {
            Source::Whole(rest) => Some(rest.len()),
            Source::Lines(_) => None,
        }
    }
}

impl<R: BufRead> Iterator for Submissions<R> {
    type Item = Result<Submission, TaskFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (at, submission) = match &mut self.source {
            Source::Whole(rest) => rest.next()?,
            Source::Lines(lines) => match lines.next()? {
                Ok(submission) => (lines.at(), submission),
                Err(error) => return Some(Err(error)),
            },
        };
        self.at = at;
        Some(Ok(submission))
    }
}

/// Opens the task file `path`; `-` is standard input. A YAML file has been read and checked on return.
///
/// # Errors
/// It cannot be read, or is YAML and wrong.
pub fn open(path: &Path) -> Result<Submissions<Box<dyn BufRead + Send>>, TaskFileError> {
    let unreadable = |source| TaskFileError::Unreadable { name: path.display().to_string(), source };
    if path == Path::new("-") {
        let folder = std::env::current_dir().map_err(unreadable)?;
        return read(Box::new(BufReader::new(std::io::stdin())), "standard input", &folder);
    }
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let file = File::open(path).map_err(unreadable)?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    read(Box::new(BufReader::with_capacity(1 << 17, file)), &path.display().to_string(), folder)
}

/// Reads a task file from `reader`. `name` stands in messages; relative paths and globs start at `folder`, which must
/// be absolute.
///
/// # Errors
/// As for [`open`].
pub fn read<R: BufRead>(mut reader: R, name: &str, folder: &Path) -> Result<Submissions<R>, TaskFileError> {
    let actions = Rc::new(Registry::built_in());
    let base = Base { folder: folder.to_owned(), commits: Rc::default(), actions };
    let (head, format) = sniff(&mut reader, name)?;
    let source = match format {
        Format::JsonLines => Source::Lines(Box::new(Lines::new(Cursor::new(head).chain(reader), name, base))),
        Format::Yaml => Source::Whole(read_yaml(head, reader, name, &base)?.into_iter()),
    };
    Ok(Submissions { source, at: At::NOWHERE })
}

/// Reads up to the first line that says something, and tells the format from it: JSON Lines begin with an object that
/// ends on the same line. An object with `tasks` is a whole document, and YAML holds all of JSON.
fn sniff<R: BufRead>(reader: &mut R, name: &str) -> Result<(Vec<u8>, Format), TaskFileError> {
    let mut head = Vec::new();
    loop {
        let start = head.len();
        let room = (YAML_MAX.saturating_sub(start) as u64).min(LINE_MAX as u64) + 1;
        let read = Read::by_ref(reader).take(room).read_until(b'\n', &mut head);
        read.map_err(|source| TaskFileError::Unreadable { name: name.to_owned(), source })?;
        if head.len() == start {
            // Nothing but blank lines: a stream of no tasks.
            return Ok((head, Format::JsonLines));
        }
        if head.len() > YAML_MAX {
            return Err(TaskFileError::TooLarge { name: name.to_owned(), max: YAML_MAX });
        }
        let line = head[start..].strip_prefix(lines::BYTE_ORDER_MARK).unwrap_or(&head[start..]).trim_ascii();
        if line.is_empty() {
            continue;
        }
        let format = if line.starts_with(b"{") { format_of_object(line) } else { Format::Yaml };
        return Ok((head, format));
    }
}

fn format_of_object(line: &[u8]) -> Format {
    let Ok(text) = std::str::from_utf8(line) else { return Format::JsonLines };
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => match from_json(text).map(|node| node.value) {
            Ok(Value::Map(entries)) if entries.iter().any(|entry| entry.key == "tasks") => Format::Yaml,
            Ok(_) | Err(_) => Format::JsonLines,
        },
        // It goes on in the next line.
        Err(error) if error.is_eof() && text.len() < LINE_MAX => Format::Yaml,
        // A quoted key is JSON's way, a bare one YAML's.
        Err(_) if text[1..].trim_start().starts_with('"') => Format::JsonLines,
        Err(_) => Format::Yaml,
    }
}

fn read_yaml<R: BufRead>(
    mut bytes: Vec<u8>,
    reader: R,
    name: &str,
    base: &Base,
) -> Result<Vec<(At, Submission)>, TaskFileError> {
    let room = (YAML_MAX - bytes.len()) as u64 + 1;
    let read = reader.take(room).read_to_end(&mut bytes);
    read.map_err(|source| TaskFileError::Unreadable { name: name.to_owned(), source })?;
    if bytes.len() > YAML_MAX {
        return Err(TaskFileError::TooLarge { name: name.to_owned(), max: YAML_MAX });
    }
    let text =
        std::str::from_utf8(&bytes).map_err(|error| TaskFileError::at(name, lines::not_utf8(&bytes, error, 1)))?;
    parse(text, base).map_err(|fault| TaskFileError::at(name, fault))
}

/// A whole document: `tasks`, and `defaults` that lie under each of them.
fn parse(text: &str, base: &Base) -> Result<Vec<(At, Submission)>, Fault> {
    const KEYS: [&str; 2] = ["tasks", "defaults"];
    let root = from_yaml(text)?;
    let entries = root.entries("the task file")?;
    if let Some(entry) = entries.iter().find(|entry| !KEYS.contains(&entry.key.as_ref())) {
        return Err(Fault::unknown_key(entry.at, &entry.key, "", KEYS));
    }
    let find = |key: &str| entries.iter().find(|entry| entry.key == key);
    let Some(tasks) = find("tasks") else {
        let at = At { line: 1, column: 1 };
        return Err(Fault::new(at, FaultKind::Missing { what: "tasks".into(), expected: "a list of tasks".into() }));
    };
    let defaults = match find("defaults") {
        Some(entry) => schema::defaults(&entry.node, base)?,
        None => schema::Draft::default(),
    };
    let items = tasks.node.items("tasks")?;
    let drafts = items.iter().map(|node| schema::task(node, &defaults, base)).collect::<Result<Vec<_>, _>>()?;
    order::resolve(drafts)
}
