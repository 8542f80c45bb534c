//! Rows into a file, or into the task's result.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::error::ActionError;
use super::super::output_file::OutputFile;
use super::super::places::cannot;
use super::{Columns, Kind, Row, Run, TableFormat, write_json_text};

const BUFFER: usize = 64 << 10;

/// How a table is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing {
    pub(crate) format: TableFormat,
    pub(crate) delimiter: u8,
    /// Whether the first row names the columns.
    pub(crate) header: bool,
    /// Whether columns that are met after the first row are left out of CSV instead of failing.
    pub(crate) flexible: bool,
    pub(crate) overwrite: bool,
}

/// A table being written; dropped, nothing of it stays.
pub(crate) struct Sink {
    path: PathBuf,
    writing: Writing,
    writer: Writer,
    /// The columns of a CSV file, once its first row is there.
    width: Option<usize>,
    keys: Keys,
    line: Vec<u8>,
    /// Rows written.
    pub(crate) rows: u64,
}

enum Writer {
    Csv(Box<csv::Writer<BufWriter<OutputFile>>>),
    Jsonl(BufWriter<OutputFile>),
}

impl Sink {
    pub(crate) fn create(path: &Path, writing: Writing) -> Result<Self, ActionError> {
        let file = BufWriter::with_capacity(BUFFER, OutputFile::create(path, writing.overwrite)?);
        let writer = match writing.format {
            TableFormat::Jsonl => Writer::Jsonl(file),
            TableFormat::Csv | TableFormat::Tsv => {
                let mut builder = csv::WriterBuilder::new();
                builder.delimiter(writing.delimiter).terminator(csv::Terminator::Any(b'\n')).buffer_capacity(8 << 10);
                // Whether rows are alike is seen to here.
                Writer::Csv(Box::new(builder.flexible(true).has_headers(false).from_writer(file)))
            }
        };
        let path = path.to_owned();
        Ok(Self { path, writing, writer, width: None, keys: Keys::default(), line: Vec::new(), rows: 0 })
    }

    /// Writes one row.
    pub(crate) fn write(&mut self, row: &Row, columns: &Columns, run: &Run<'_, '_>) -> Result<(), ActionError> {
        self.rows += 1;
        if self.width.is_none() {
            self.head(columns)?;
        }
        let width = self.width.unwrap_or_default();
        let written = match &mut self.writer {
            Writer::Jsonl(file) => {
                self.line.clear();
                self.keys.object(row, columns, &mut self.line);
                self.line.push(b'\n');
                file.write_all(&self.line)
            }
            Writer::Csv(writer) => {
                let beyond = || (width..row.cells.len()).find(|place| row.get(*place).kind != Kind::Absent);
                if let (false, Some(place)) = (self.writing.flexible, beyond()) {
                    let name = columns.names().get(place).map(String::as_str).unwrap_or_default();
                    let remedy = "select columns, or leave it out with flexible: true";
                    return Err(
                        run.at(row, format!("column '{name}' is not in the first row of the CSV output: {remedy}"))
                    );
                }
                let fields = (0..width).map(|place| row.get(place).text.as_bytes());
                writer.write_record(fields).map_err(Into::into)
            }
        };
        written.map_err(|error| cannot("write", &self.path, &error))
    }

    fn head(&mut self, columns: &Columns) -> Result<(), ActionError> {
        self.width = Some(columns.len());
        if let (Writer::Csv(writer), true) = (&mut self.writer, self.writing.header && columns.len() > 0) {
            writer.write_record(columns.names()).map_err(|error| cannot("write", &self.path, &error))?;
        }
        Ok(())
    }

    /// Writes out all that is held back; its size in bytes. Nothing of it is there yet.
    pub(crate) fn complete(&mut self, columns: &Columns) -> Result<u64, ActionError> {
        if self.width.is_none() {
            self.head(columns)?;
        }
        let (flushed, file) = match &mut self.writer {
            Writer::Jsonl(file) => (file.flush(), file.get_ref()),
            Writer::Csv(writer) => (writer.flush(), writer.get_ref().get_ref()),
        };
        let size = flushed.and_then(|()| Ok(file.file().metadata()?.len()));
        size.map_err(|error| cannot("write", &self.path, &error))
    }

    /// Makes it appear when it is complete.
    pub(crate) fn appear(self) -> Result<(), ActionError> {
        let file = match self.writer {
            Writer::Jsonl(file) => file,
            Writer::Csv(writer) => writer.into_inner().map_err(|error| cannot("write", &self.path, error.error()))?,
        };
        let file = file.into_inner().map_err(|error| cannot("write", &self.path, error.error()))?;
        file.finish()?;
        Ok(())
    }

    /// Where it is to be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The names of columns as JSON has them, with the colon.
#[derive(Default)]
struct Keys(Vec<Vec<u8>>);

impl Keys {
    /// A row as a JSON object; columns that it does not have are left out.
    fn object(&mut self, row: &Row, columns: &Columns, into: &mut Vec<u8>) {
        for name in &columns.names()[self.0.len().min(columns.len())..] {
            let mut key = Vec::new();
            write_json_text(name, &mut key);
            key.push(b':');
            self.0.push(key);
        }
        into.push(b'{');
        let mut first = true;
        for (cell, key) in row.cells.iter().zip(&self.0).filter(|(cell, _)| cell.kind != Kind::Absent) {
            if !std::mem::take(&mut first) {
                into.push(b',');
            }
            into.extend_from_slice(key);
            cell.write_json(into);
        }
        into.push(b'}');
    }
}

/// Rows for the result: only so many bytes of them.
pub(crate) struct Rows {
    keys: Keys,
    made: Vec<Box<RawValue>>,
    left: usize,
    /// Whether rows of one column are plain values.
    plain: bool,
}

impl Rows {
    /// At most so many bytes.
    pub(crate) fn new(most: usize, plain: bool) -> Self {
        Self { keys: Keys::default(), made: Vec::new(), left: most, plain }
    }

    pub(crate) fn write(&mut self, row: &Row, columns: &Columns, run: &Run<'_, '_>) -> Result<(), ActionError> {
        let mut text = Vec::new();
        if self.plain && columns.len() == 1 {
            row.get(0).write_json(&mut text);
        } else {
            self.keys.object(row, columns, &mut text);
        }
        // Whoever reads the result must be able to: numbers beyond all bounds, texts of half characters and lists within lists
        // within lists can be written down, but not read.
        if let Err(error) = serde_json::from_slice::<Value>(&text) {
            return Err(run.at(row, format!("the row cannot be in a result ({error}): give an output file")));
        }
        // The comma after it.
        let Some(left) = self.left.checked_sub(text.len() + 1) else {
            return Err(ActionError::new("the rows are more than a result can hold: give an output file"));
        };
        self.left = left;
        let text = String::from_utf8_lossy(&text).into_owned();
        self.made.push(RawValue::from_string(text)?);
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.made.len() as u64
    }

    /// Each as it is written.
    pub(crate) fn values(self) -> Vec<Box<RawValue>> {
        self.made
    }
}
