//! Where rows go in the end: one file, several, or the result.
//!
//! Files that belong together appear one after another when all of them are complete; before that there is none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::context::Context;
use super::super::error::ActionError;
use super::super::places::refuse_same;
use super::super::table::{ColumnRef, Columns, InlineRows, Row, Run, Sink, Writing};
use super::params::{DataParams, Split};
use crate::task::RESULT_MAX;

/// What a result has beside its rows, at most.
const RESERVED: usize = 1024;

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenFile {
    /// Where it is: as it was asked for.
    pub path: String,
    /// Its rows, the head aside.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// What the rows have become.
#[derive(Default)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) files: Vec<WrittenFile>,
    pub(super) data: Option<Vec<Value>>,
}

pub(super) enum Output {
    One(String, Sink),
    Many(Many),
    Inline(InlineRows),
}

pub(super) struct Many {
    pattern: String,
    writing: Writing,
    split: Split,
    column: Option<ColumnRef>,
    /// By what stands for `{}`.
    files: BTreeMap<String, Sink>,
    rows: u64,
}

impl Output {
    /// Begins the output, before anything is read.
    pub(super) fn begin(
        params: &DataParams,
        columns: &Columns,
        context: &mut Context<'_>,
    ) -> Result<Self, ActionError> {
        let Some(output) = &params.output else {
            let plain = params.data.iter().flatten().all(|value| !value.is_object());
            return Ok(Self::Inline(InlineRows::new(RESULT_MAX - RESERVED, plain && params.data.is_some())));
        };
        let writing = params.writing(output).map_err(ActionError::new)?;
        if let Some(split) = &params.split {
            let column = split.column.as_ref().map(|name| ColumnRef::new(name, columns)).transpose()?;
            let (pattern, split, files) = (output.clone(), split.clone(), BTreeMap::new());
            return Ok(Self::Many(Many { pattern, writing, split, column, files, rows: 0 }));
        }
        let path = context.path(output)?;
        for input in params.input_paths() {
            refuse_same(&context.path(input)?, &path)?;
        }
        Ok(Self::One(output.clone(), Sink::create(&path, writing)?))
    }

    pub(super) fn write(&mut self, row: &Row, columns: &Columns, run: &mut Run<'_, '_>) -> Result<(), ActionError> {
        match self {
            Self::One(_, sink) => sink.write(row, columns, run),
            Self::Many(many) => many.write(row, columns, run),
            Self::Inline(rows) => rows.write(row, columns),
        }
    }

    pub(super) fn finish(self, columns: &Columns) -> Result<Written, ActionError> {
        match self {
            Self::One(path, sink) => {
                let rows = sink.rows;
                let bytes = sink.finish(columns)?;
                Ok(Written { rows, files: vec![WrittenFile { path, rows, bytes }], data: None })
            }
            Self::Many(many) => {
                let mut written = Written { rows: many.rows, ..Written::default() };
                for (name, sink) in many.files {
                    let rows = sink.rows;
                    let bytes = sink.finish(columns)?;
                    written.files.push(WrittenFile { path: many.pattern.replace("{}", &name), rows, bytes });
                }
                Ok(written)
            }
            Self::Inline(rows) => Ok(Written { rows: rows.count(), files: Vec::new(), data: Some(rows.values()?) }),
        }
    }
}

impl Many {
    fn write(&mut self, row: &Row, columns: &Columns, run: &mut Run<'_, '_>) -> Result<(), ActionError> {
        let name = match (&mut self.column, self.split.rows) {
            (Some(column), _) => file_name(&column.get(columns, row).text),
            (None, rows) => format!("{:05}", self.rows / rows.unwrap_or(1).max(1) + 1),
        };
        self.rows += 1;
        if !self.files.contains_key(&name) {
            let most = self.split.max_files;
            if self.files.len() >= most {
                let why =
                    format!("there would be more than {most} files (maxFiles, at most {})", DataParams::FILES_MAX);
                return Err(run.at(row, why));
            }
            let path = run.context.path(self.pattern.replace("{}", &name))?;
            if let Some(input) = run.files.iter().find(|input| **input == path) {
                return Err(ActionError::new(format!("input and output are the same file: {}", input.display())));
            }
            self.files.insert(name.clone(), Sink::create(&path, self.writing)?);
        }
        match self.files.get_mut(&name) {
            Some(sink) => sink.write(row, columns, run),
            None => Ok(()),
        }
    }
}

/// A value as a part of a file's name: what could be more than that is written as `%` and two hexadecimal digits.
fn file_name(value: &str) -> String {
    if value.is_empty() {
        // No other value is written so.
        return "%".to_owned();
    }
    let mut name = String::new();
    for (place, byte) in value.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if place > 0 => name.push('.'),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_more_than_a_name() {
        for (value, name) in
            [("a-1", "a-1"), ("../x", "%2E.%2Fx"), ("", "%"), ("%", "%25"), ("v1.2", "v1.2"), ("é", "%C3%A9")]
        {
            assert_eq!(file_name(value), name);
        }
    }
}
