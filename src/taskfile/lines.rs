//! JSON Lines: one task a line, read as it comes.
//!
//! Lines are read by the quick JSON parser. Only a line with a fault is read a second time, as YAML, which holds all
//! of JSON and knows every place. Deliberately absent: `defaults`, and names of later lines.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use acode_worker::task::{Blocker, Submission, TaskSpec};

use super::TaskFileError;
use super::order::{self, Named, Target};
use super::schema::{self, Base, Draft};
use crate::tree::{At, Fault, FaultKind, from_json, from_yaml};

/// The longest line, in bytes: the largest specification, with everything in it escaped, and an array's items.
pub const LINE_MAX: usize = 8 * TaskSpec::MAX_BYTES;
/// The most names that are remembered for later lines to refer to.
const NAMES_MAX: usize = 1_000_000;
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The submissions of a stream of lines.
pub(super) struct Lines<R> {
    reader: R,
    name: String,
    base: Base,
    defaults: Draft,
    names: HashMap<Box<str>, Named>,
    buffer: Vec<u8>,
    /// The number of the line in the buffer, from 1.
    line: u64,
    /// How many submissions have been given out.
    given: u32,
    /// After an error nothing more comes: what follows could refer to the broken line.
    broken: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R, name: &str, base: Base) -> Self {
        Self {
            reader,
            name: name.to_owned(),
            base,
            defaults: Draft::default(),
            names: HashMap::new(),
            buffer: Vec::new(),
            line: 0,
            given: 0,
            broken: false,
        }
    }

    /// Where the submission begins that was given out last.
    pub fn at(&self) -> At {
        At { line: self.line, column: 1 }
    }

    fn advance(&mut self) -> Result<Option<Submission>, TaskFileError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let read = Read::by_ref(&mut self.reader).take(LINE_MAX as u64 + 1).read_until(b'\n', &mut self.buffer);
            read.map_err(|source| TaskFileError::Unreadable { name: self.name.clone(), source })?;
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let submission = self.parse_line().map_err(|fault| TaskFileError::at(&self.name, fault))?;
            if submission.is_some() {
                return Ok(submission);
            }
        }
    }

    /// The submission of the line in the buffer, if it holds one.
    fn parse_line(&mut self) -> Result<Option<Submission>, Fault> {
        let at = At { line: self.line, column: 1 };
        if self.buffer.len() > LINE_MAX {
            return Err(Fault::other(at, format!("the line is longer than {LINE_MAX} bytes")));
        }
        let bytes = match self.line {
            1 => self.buffer.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.buffer),
            _ => &self.buffer,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error, self.line))?;
        let text = text.trim_end();
        if text.is_empty() {
            return Ok(None);
        }
        let read = from_json(text).and_then(|node| schema::task(&node, &self.defaults, &self.base));
        let draft = match read.and_then(|draft| self.resolve(draft)) {
            Ok(draft) => draft,
            Err(fault) => self.parse_again(text, fault)?,
        };
        if self.names.len() < NAMES_MAX {
            order::enter(&mut self.names, &draft, self.given);
        }
        if draft.is_empty() {
            return Ok(None);
        }
        self.given += 1;
        Ok(Some(draft.submission))
    }

    /// Reads a line again that the JSON parser found a fault in, to learn where the fault is. A line of which only the
    /// spelling of a number was missing turns out to be right.
    fn parse_again(&self, text: &str, first: Fault) -> Result<Draft, Fault> {
        let whole_line = At { line: self.line, column: first.at.column.max(1) };
        if matches!(first.kind, FaultKind::Syntax(_)) {
            return Err(Fault { at: whole_line, ..first });
        }
        let again = from_yaml(text)
            .and_then(|node| schema::task(&node, &self.defaults, &self.base))
            .and_then(|draft| self.resolve(draft));
        again.map_err(|fault| match fault.kind {
            // What JSON accepts and YAML does not is told in the words of JSON.
            FaultKind::Syntax(_) => Fault { at: whole_line, ..first },
            _ => Fault { at: At { line: self.line, column: fault.at.column.max(1) }, kind: fault.kind },
        })
    }

    fn resolve(&self, mut draft: Draft) -> Result<Draft, Fault> {
        let mut on = Vec::with_capacity(draft.waits.len());
        for wait in std::mem::take(&mut draft.waits) {
            match order::target(&wait, &self.names, "earlier line")? {
                Target::Place(place) => on.push((Blocker::Entry(place), wait.kind)),
                Target::Queued(blocker) => on.push((blocker, wait.kind)),
                Target::Nothing => {}
            }
        }
        if !on.is_empty() {
            order::depend(&mut draft.submission, on);
        }
        Ok(draft)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Submission, TaskFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let next = self.advance().transpose();
        self.broken = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The fault of a byte that is not UTF-8, in text that begins at line `first`.
pub(super) fn not_utf8(bytes: &[u8], error: std::str::Utf8Error, first: u64) -> Fault {
    let good = &bytes[..error.valid_up_to()];
    let line = good.iter().filter(|byte| **byte == b'\n').count() as u64;
    let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&good[start..]).chars().count() as u64 + 1;
    Fault::other(At { line: first + line, column }, "not UTF-8 text")
}
