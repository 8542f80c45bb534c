//! Lines, words, characters and bytes, counted as `wc` does in a UTF-8 locale.
//!
//! Deliberately absent: other encodings. A byte that is no part of a UTF-8 character is a byte only.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Count;
use super::walk::{Problems, Tree};
use crate::actions::files::{Counted, FileError, Meter, PIECE};
use crate::actions::{ActionError, Context};

/// The longest character of UTF-8 that may have to wait for its last byte, in bytes.
const CARRY_MAX: usize = 3;

/// What was counted, in all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// How many files.
    pub files: u64,
    /// Of all files together.
    #[serde(flatten)]
    pub counts: Counts,
    /// How many could not be read.
    pub unreadable: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Line ends.
    pub lines: u64,
    /// Words.
    pub words: u64,
    /// Characters of UTF-8.
    pub chars: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Counts piece by piece.
#[derive(Default)]
struct Counter {
    counts: Counts,
    in_word: bool,
}

impl Counter {
    /// Counts a piece; gives how many bytes at its end are to come again before the next one: a character that is not
    /// complete, if there is to be more.
    fn take(&mut self, piece: &[u8], is_last: bool) -> usize {
        let mut rest = piece.len();
        for chunk in piece.utf8_chunks() {
            chunk.valid().chars().for_each(|letter| self.letter(letter));
            rest -= chunk.valid().len() + chunk.invalid().len();
            let cut_off = rest == 0 && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
            if cut_off && !is_last {
                self.counts.bytes += (piece.len() - chunk.invalid().len()) as u64;
                return chunk.invalid().len();
            }
        }
        self.counts.bytes += piece.len() as u64;
        0
    }

    fn letter(&mut self, letter: char) {
        self.counts.chars += 1;
        if letter.is_whitespace() {
            self.counts.lines += u64::from(letter == '\n');
            self.in_word = false;
        } else if !letter.is_control() && !self.in_word {
            self.counts.words += 1;
            self.in_word = true;
        }
    }
}

/// Counts all that is read.
///
/// # Errors
/// It cannot be read.
pub(super) fn counts(mut from: impl Read) -> io::Result<Counts> {
    let mut buffer = vec![0; PIECE + CARRY_MAX];
    let (mut counter, mut kept) = (Counter::default(), 0);
    loop {
        let count = match from.read(&mut buffer[kept..]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = kept + count;
        kept = counter.take(&buffer[..end], count == 0);
        buffer.copy_within(end - kept..end, 0);
        if count == 0 {
            return Ok(counter.counts);
        }
    }
}

pub(super) fn run(params: &Count, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let tree = Tree::find(&params.input, context)?.measured(context)?;
    let meter = Meter::of_bytes(context, tree.bytes);
    let (mut problems, mut files, mut total) = (Problems::default(), 0, Counts::default());
    tree.each_file(&meter, &mut problems, |path, problems| {
        let counted = tree
            .open(path)
            .and_then(|input| counts(Counted::new(&input.file, &meter)).map_err(FileError::of("read", path)));
        meter.check()?;
        let found = match counted {
            Ok(found) => found,
            Err(error) => {
                problems.note(&meter, error);
                return Ok(());
            }
        };
        files += 1;
        total.lines += found.lines;
        total.words += found.words;
        total.chars += found.chars;
        total.bytes += found.bytes;
        if params.per_file {
            tell(&meter, found, &tree.as_given(path));
        }
        Ok(())
    })?;
    let unreadable = problems.end(params.skip_unreadable)?;
    Ok(Done { files, counts: total, unreadable })
}

/// One line per file, in the order of `wc`.
fn tell(meter: &Meter<'_, '_>, counts: Counts, path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let Counts { lines, words, chars, bytes } = counts;
    let mut line = format!("{lines} {words} {chars} {bytes} ").into_bytes();
    line.extend(path.as_os_str().as_bytes());
    line.push(b'\n');
    meter.with(|context| drop(context.stdout().write_all(&line)));
}
