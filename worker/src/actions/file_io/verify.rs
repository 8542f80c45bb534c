//! Files held against a list of their checksums.
//!
//! Deliberately absent: files that are not in the list.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Verify;
use super::list::{Algorithm, Line};
use crate::actions::files::{Counted, FileError, Input, Meter, PIECE};
use crate::actions::{ActionError, Context};

/// The longest line of a list, in bytes: the longest path, every byte of it escaped, and its checksum.
const LINE_MAX: u64 = 16 << 10;
/// How many files are repeated in the error; each is told on standard error.
const REPEATED_MAX: usize = 5;

/// What was verified.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// How checksums are made.
    pub algorithm: Algorithm,
    /// How many files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// The files that are not as the list has them.
#[derive(Default)]
struct Wrong {
    changed: u64,
    unreadable: u64,
    first: Vec<String>,
}

impl Wrong {
    fn note(&mut self, meter: &Meter<'_, '_>, error: impl Into<ActionError>) {
        let words = error.into().in_one_line();
        meter.with(|context| drop(writeln!(context.stderr(), "{words}")));
        if self.first.len() < REPEATED_MAX {
            self.first.push(words);
        }
    }
}

pub(super) fn run(params: &Verify, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let list = Input::open(&context.path(&params.list)?)?;
    let root = match &params.root {
        Some(root) => context.path(root)?,
        None => list.path.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let meter = Meter::of_bytes(context, list.size());
    let mut lines = BufReader::with_capacity(PIECE, &list.file);
    let (mut wrong, mut files, mut bytes, mut number) = (Wrong::default(), 0_u64, 0, 0_u64);
    loop {
        let mut line = Vec::new();
        let read = lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        let length = read.map_err(FileError::of("read", &list.path))? as u64;
        if length == 0 {
            break;
        }
        number += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let (sum, name) = match params.algorithm.read(text) {
            Some(Line::Sum(sum, name)) => (sum, name),
            Some(Line::Nothing) => {
                meter.add(length)?;
                continue;
            }
            None => {
                let place = list.path.display();
                return Err(ActionError::new(format!("line {number} of {place} is no checksum with a name")));
            }
        };
        files += 1;
        match check(&root.join(&name), params.algorithm, &meter)? {
            Ok((found, size)) => {
                bytes += size;
                if found != sum {
                    wrong.changed += 1;
                    wrong.note(&meter, ActionError::new(format!("{} differs", name.display())));
                }
            }
            Err(error) => {
                wrong.unreadable += 1;
                wrong.note(&meter, error);
            }
        }
        meter.add(length)?;
    }
    if files == 0 {
        return Err(ActionError::new(format!("{} names no file: it verifies nothing", list.path.display())));
    }
    if wrong.changed + wrong.unreadable > 0 {
        let more = wrong.changed + wrong.unreadable - wrong.first.len() as u64;
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        return Err(ActionError::new(format!(
            "of {files} files {} differ and {} could not be read: {}{more}",
            wrong.changed,
            wrong.unreadable,
            wrong.first.join("; ")
        )));
    }
    Ok(Done { algorithm: params.algorithm, files, bytes })
}

/// The checksum and size of a file, or why it cannot be read.
fn check(
    path: &Path,
    algorithm: Algorithm,
    meter: &Meter<'_, '_>,
) -> Result<Result<(String, u64), FileError>, ActionError> {
    let input = match Input::open(path) {
        Ok(input) => input,
        Err(error) => return Ok(Err(error)),
    };
    let reader = Counted::checking(&input.file, meter);
    match algorithm.sum(reader) {
        Ok(sum) => Ok(Ok((sum, input.size()))),
        Err(error) => {
            meter.check()?;
            Ok(Err(FileError::of("read", path)(error)))
        }
    }
}
