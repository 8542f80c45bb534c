//! Tables: rows out of CSV, TSV and JSON Lines and into them, for `data_processing` and `analysis`.
//!
//! A cell is its text and what kind of thing that is, so that a number goes from file to file with all of its digits. Columns
//! of a CSV file are known from its head; those of JSON Lines are known as they are met. One row is in memory at a
//! time. Deliberately absent: what is done with rows.

mod number;
mod records;
mod run;
mod sink;
mod source;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ActionError;

pub(super) use number::Number;
pub(super) use run::Run;
pub(super) use sink::{Rows as InlineRows, Sink, Writing};
pub(super) use source::{Input, Reading, Source};

/// The longest row, in bytes.
pub(super) const ROW_MAX: usize = 16 << 20;
/// The most columns.
pub(super) const COLUMNS_MAX: usize = 10_000;

/// How a table is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableFormat {
    /// Fields between commas (RFC 4180).
    Csv,
    /// The same with tabs.
    Tsv,
    /// One JSON object per line.
    Jsonl,
}

impl TableFormat {
    /// What a file's name says.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        let extension = Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    /// The one that was asked for, else the one that the name says.
    pub(super) fn of(asked: Option<Self>, path: &str, parameter: &str) -> Result<Self, String> {
        asked.or_else(|| Self::from_path(path)).ok_or_else(|| {
            format!(
                "the format of {path} is not known: end its name in .csv, .tsv, .jsonl or .ndjson, or give {parameter}"
            )
        })
    }

    /// What stands between two fields: as asked, else as the format has it.
    pub(super) fn delimiter(self, asked: Option<char>) -> Result<u8, String> {
        match asked {
            None if self == Self::Tsv => Ok(b'\t'),
            None => Ok(b','),
            Some(_) if self == Self::Jsonl => Err("a delimiter is for CSV only".to_owned()),
            Some('"' | '\n' | '\r') => Err("the delimiter cannot be a quote or the end of a line".to_owned()),
            Some(delimiter) if delimiter.is_ascii() => Ok(delimiter as u8),
            Some(delimiter) => Err(format!("the delimiter is '{delimiter}': expected one ASCII character")),
        }
    }
}

/// What kind of thing a cell is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// The row has no such column.
    #[default]
    Absent,
    /// JSON's `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number as JSON writes it.
    Number,
    /// Text; whatever is in a CSV file.
    Text,
    /// A list or an object, as JSON text.
    Nested,
}

/// One value of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) text: String,
}

static ABSENT: Cell = Cell { kind: Kind::Absent, text: String::new() };

impl Cell {
    pub(super) const NULL: Self = Self { kind: Kind::Null, text: String::new() };

    pub(super) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Becomes this, and keeps its memory.
    pub(super) fn set(&mut self, kind: Kind, text: &str) {
        self.kind = kind;
        self.text.clear();
        self.text.push_str(text);
    }

    /// Whether there is nothing in it: no such column, `null`, or an empty text.
    pub(super) fn is_missing(&self) -> bool {
        self.text.is_empty()
    }

    /// The number it is, or whose digits it is.
    pub(super) fn number(&self) -> Option<Number> {
        match self.kind {
            Kind::Number | Kind::Text => Number::parse(&self.text),
            Kind::Absent | Kind::Null | Kind::Bool | Kind::Nested => None,
        }
    }

    /// A JSON value as a cell.
    pub(super) fn from_json(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(value) => Self::new(Kind::Bool, value.to_string()),
            Value::Number(value) => Self::new(Kind::Number, value.to_string()),
            Value::String(text) => Self::new(Kind::Text, text.clone()),
            Value::Array(_) | Value::Object(_) => Self::new(Kind::Nested, value.to_string()),
        }
    }

    /// Becomes a JSON value as it is written: no digit is lost, and members stay in their order.
    ///
    /// # Errors
    /// A text in it has an escape that stands for nothing.
    pub(super) fn set_json(&mut self, value: &RawValue) -> Result<(), serde_json::Error> {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'"') => self.set(Kind::Text, &serde_json::from_str::<Text<'_>>(text)?.0),
            Some(b'n') => self.set(Kind::Null, ""),
            Some(b't' | b'f') => self.set(Kind::Bool, text),
            Some(b'[' | b'{') => {
                self.set(Kind::Nested, text);
                // Between members there may be line ends, which JSON Lines cannot have; within texts there are none.
                if text.contains(['\n', '\r']) {
                    self.text = text.replace(['\n', '\r'], " ");
                }
            }
            _ => self.set(Kind::Number, text),
        }
        Ok(())
    }

    /// It in the form of JSON, appended to `into`.
    pub(super) fn write_json(&self, into: &mut Vec<u8>) {
        match self.kind {
            Kind::Absent | Kind::Null => into.extend_from_slice(b"null"),
            Kind::Bool | Kind::Number | Kind::Nested => into.extend_from_slice(self.text.as_bytes()),
            Kind::Text => write_json_text(&self.text, into),
        }
    }

    /// What a text is if it looks like something else: a number or truth value of JSON, or nothing.
    pub(super) fn infer(&mut self) {
        if self.kind == Kind::Text {
            self.kind = match self.text.as_str() {
                "" => Kind::Null,
                "true" | "false" => Kind::Bool,
                text if number::is_json(text) => Kind::Number,
                _ => Kind::Text,
            };
        }
    }
}

/// A text of JSON, borrowed if it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text as JSON has it, appended to `into`.
pub(super) fn write_json_text(text: &str, into: &mut Vec<u8>) {
    // Writing text into memory does not fail.
    let _ = serde_json::to_writer(into, text);
}

/// One row.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// Which of the inputs it is from.
    pub(super) file: u32,
    /// The number of its first line there, from 1.
    pub(super) line: u64,
}

impl Row {
    /// A cell; one that nothing is in if the row has not so many.
    pub(super) fn get(&self, column: usize) -> &Cell {
        self.cells.get(column).unwrap_or(&ABSENT)
    }

    /// A cell to be changed; the row becomes as long as it takes.
    pub(super) fn at(&mut self, column: usize) -> &mut Cell {
        if self.cells.len() <= column {
            self.cells.resize(column + 1, Cell::default());
        }
        &mut self.cells[column]
    }
}

/// The columns of a table, in order. They are never taken away, but more may be met if they are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    names: Vec<String>,
    index: HashMap<String, usize>,
    /// Whether later rows may have more.
    pub(super) open: bool,
}

impl Columns {
    /// No columns yet.
    pub(super) fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// These columns and no others.
    pub(super) fn closed(names: impl IntoIterator<Item = String>) -> Result<Self, ActionError> {
        let mut columns = Self::default();
        for name in names {
            columns.add(name)?;
        }
        Ok(columns)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// One more, which must not be there.
    pub(super) fn add(&mut self, name: String) -> Result<usize, ActionError> {
        let place = self.names.len();
        if place >= COLUMNS_MAX {
            return Err(ActionError::new(format!("there are more than {COLUMNS_MAX} columns")));
        }
        if self.index.insert(name.clone(), place).is_some() {
            return Err(ActionError::new(format!("there are two columns '{name}'")));
        }
        self.names.push(name);
        Ok(place)
    }

    /// The one of this name, added if it is not there.
    pub(super) fn find_or_add(&mut self, name: &str) -> Result<usize, ActionError> {
        match self.find(name) {
            Some(place) => Ok(place),
            None => self.add(name.to_owned()),
        }
    }

    /// Why there is no such column, for people.
    pub(super) fn unknown(&self, name: &str) -> ActionError {
        const SHOWN: usize = 30;
        let known: Vec<&str> = self.names.iter().take(SHOWN).map(String::as_str).collect();
        let more = if self.names.len() > SHOWN { ", ..." } else { "" };
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ActionError::new(format!("there is no column '{name}': there are {known}{more}"))
    }
}

/// A column by its name, whose place is looked for until it is there.
#[derive(Debug, Clone)]
pub(super) struct ColumnRef {
    name: String,
    place: Option<usize>,
    searched: usize,
}

impl ColumnRef {
    /// The column of this name, which must be there unless more may come.
    pub(super) fn new(name: &str, columns: &Columns) -> Result<Self, ActionError> {
        let place = columns.find(name);
        if place.is_none() && !columns.open {
            return Err(columns.unknown(name));
        }
        Ok(Self { name: name.to_owned(), place, searched: columns.len() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn place(&mut self, columns: &Columns) -> Option<usize> {
        if self.place.is_none() && self.searched != columns.len() {
            self.place = columns.find(&self.name);
            self.searched = columns.len();
        }
        self.place
    }

    /// Its cell in a row.
    pub(super) fn get<'r>(&mut self, columns: &Columns, row: &'r Row) -> &'r Cell {
        self.place(columns).map_or(&ABSENT, |place| row.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_looks_like() {
        for (text, kind) in [
            ("", Kind::Null),
            ("true", Kind::Bool),
            ("True", Kind::Text),
            ("-1.50e3", Kind::Number),
            ("007", Kind::Text),
            ("1.", Kind::Text),
            ("NaN", Kind::Text),
            ("12345678901234567890123", Kind::Number),
        ] {
            let mut cell = Cell::new(Kind::Text, text);
            cell.infer();
            assert_eq!(cell.kind, kind, "{text}");
        }
    }
}
