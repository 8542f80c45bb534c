//! Rows out of files, or out of a list in the parameters.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::error::ActionError;
use super::super::files::Input as RegularFile;
use super::super::places::cannot;
use super::records::{Record, Records};
use super::{Cell, Columns, Kind, ROW_MAX, Row, Run, TableFormat, Text};

const BUFFER: usize = 64 << 10;
/// What some programs put before text in UTF-8.
pub(super) const MARK: &[u8] = b"\xEF\xBB\xBF";
/// The column of plain values.
const VALUE: &str = "value";

/// How tables are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Absent: as each file's name says.
    pub(crate) format: Option<TableFormat>,
    pub(crate) delimiter: Option<char>,
    /// Whether the first row names the columns.
    pub(crate) header: bool,
    /// Whether rows may have fewer fields than there are columns, or more, which are left out.
    pub(crate) flexible: bool,
    /// Whether texts that look like numbers, truth values or nothing become that.
    pub(crate) infer: bool,
}

impl Reading {
    /// Checks it for a file of this name.
    pub(crate) fn check(&self, path: &str) -> Result<(), String> {
        TableFormat::of(self.format, path, "format")?.delimiter(self.delimiter).map(|_| ())
    }
}

/// Where rows come from.
pub(crate) enum Input {
    Files(Vec<PathBuf>),
    /// Objects, or plain values of a column `value`.
    Inline(Vec<Value>),
}

/// Rows, one after another.
pub(crate) struct Source {
    reading: Reading,
    /// Files not begun yet, the next one last.
    waiting: Vec<PathBuf>,
    inline: std::vec::IntoIter<Value>,
    inline_row: u64,
    /// The first row, which is read before it is asked for where it alone tells what columns there are.
    first: Option<Row>,
    current: Option<Open>,
    columns: Columns,
    /// Whether the first file's columns are known.
    begun: bool,
    /// Whether rows are counted as read: those of the main input are.
    counts: bool,
}

struct Open {
    path: PathBuf,
    number: u32,
    reader: Reader,
}

enum Reader {
    Csv { records: Box<Records>, record: Record, waiting: bool },
    Jsonl { reader: BufReader<Rationed>, buffer: Vec<u8>, line: u64 },
}

impl Source {
    /// Opens the first of the inputs, so that columns are known if they can be.
    pub(crate) fn open(
        input: Input,
        reading: Reading,
        counts: bool,
        run: &mut Run<'_, '_>,
    ) -> Result<Self, ActionError> {
        let (files, inline) = match input {
            Input::Files(files) => (files, Vec::new()),
            Input::Inline(values) => (Vec::new(), values),
        };
        for path in &files {
            run.bytes_total += std::fs::metadata(path).map_err(|error| cannot("read", path, &error))?.len();
        }
        let mut source = Self {
            reading,
            waiting: files.into_iter().rev().collect(),
            inline: inline.into_iter(),
            inline_row: 0,
            first: None,
            current: None,
            columns: Columns::open(),
            begun: false,
            counts,
        };
        source.begin_next(run)?;
        if source.columns.open {
            let mut row = Row::default();
            source.first = source.read(&mut row, run)?.then_some(row);
        }
        Ok(source)
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The next row into `row`; false at the end.
    pub(crate) fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        run.tick()?;
        let some = match self.first.take() {
            Some(first) => {
                *row = first;
                true
            }
            None => self.read(row, run)?,
        };
        if some && self.counts {
            run.rows_in += 1;
        }
        Ok(some)
    }

    fn read(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        loop {
            if self.next_here(row, run)? {
                return Ok(true);
            }
            if !self.begin_next(run)? {
                return Ok(false);
            }
        }
    }

    fn next_here(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        let Some(open) = &mut self.current else { return self.next_inline(row, run) };
        row.file = open.number;
        match &mut open.reader {
            Reader::Csv { records, record, waiting } => {
                if !std::mem::take(waiting) && !next_record(records, record, &open.path, run)? {
                    return Ok(false);
                }
                row.line = record.line;
                let expected = self.columns.len();
                if record.len() != expected && !self.reading.flexible {
                    let why = format!(
                        "the row has {} fields, and there are {expected} columns (flexible: true accepts that)",
                        record.len()
                    );
                    return Err(run.at(row, why));
                }
                row.cells.resize(expected, Cell::default());
                for (place, cell) in row.cells.iter_mut().enumerate() {
                    match record.get(place).map(std::str::from_utf8) {
                        Some(Ok(text)) => cell.set(Kind::Text, text),
                        None => cell.set(Kind::Absent, ""),
                        Some(Err(_)) => {
                            let why = format!("field {} is not UTF-8", place + 1);
                            return Err(run.at(&Row { file: open.number, line: row.line, cells: Vec::new() }, why));
                        }
                    }
                }
                if self.reading.infer {
                    row.cells.iter_mut().for_each(Cell::infer);
                }
                Ok(true)
            }
            Reader::Jsonl { reader, buffer, line } => loop {
                *line += 1;
                row.line = *line;
                if !next_line(reader, buffer, run).map_err(|error| run.at(row, error))? {
                    return Ok(false);
                }
                let bytes = if *line == 1 { buffer.strip_prefix(MARK).unwrap_or(buffer) } else { &buffer[..] };
                if !bytes.trim_ascii().is_empty() {
                    object_into(bytes, row, &mut self.columns).map_err(|why| run.at(row, why))?;
                    return Ok(true);
                }
            },
        }
    }

    fn next_inline(&mut self, row: &mut Row, run: &Run<'_, '_>) -> Result<bool, ActionError> {
        let Some(value) = self.inline.next() else { return Ok(false) };
        self.inline_row += 1;
        (row.file, row.line) = (u32::MAX, self.inline_row);
        row.cells.clear();
        match value {
            Value::Object(object) => {
                for (name, value) in &object {
                    let place = self.columns.find_or_add(name).map_err(|why| run.at(row, why))?;
                    *row.at(place) = Cell::from_json(value);
                }
            }
            value => {
                let place = self.columns.find_or_add(VALUE)?;
                *row.at(place) = Cell::from_json(&value);
            }
        }
        Ok(true)
    }

    /// Goes on to the next file; false if there is none.
    fn begin_next(&mut self, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        let Some(path) = self.waiting.pop() else { return Ok(false) };
        let format =
            TableFormat::of(self.reading.format, &path.to_string_lossy(), "format").map_err(ActionError::new)?;
        let file = Rationed::new(RegularFile::open(&path)?.file);
        let number = u32::try_from(run.files.len()).unwrap_or(u32::MAX);
        run.files.push(path.clone());
        let reader = match format {
            TableFormat::Jsonl => {
                if self.begun && !self.columns.open {
                    return Err(cannot("read", &path, &"CSV and JSON Lines cannot be inputs together"));
                }
                let reader = BufReader::with_capacity(BUFFER, file);
                Reader::Jsonl { reader, buffer: Vec::new(), line: 0 }
            }
            TableFormat::Csv | TableFormat::Tsv => {
                let delimiter = format.delimiter(self.reading.delimiter).map_err(ActionError::new)?;
                self.begin_csv(file, &path, delimiter, run)?
            }
        };
        self.begun = true;
        self.current = Some(Open { path, number, reader });
        Ok(true)
    }

    fn begin_csv(
        &mut self,
        file: Rationed,
        path: &Path,
        delimiter: u8,
        run: &mut Run<'_, '_>,
    ) -> Result<Reader, ActionError> {
        if self.begun && self.columns.open {
            return Err(cannot("read", path, &"CSV and JSON Lines cannot be inputs together"));
        }
        let (mut records, mut record) = (Box::new(Records::new(file, delimiter)), Record::default());
        let some = next_record(&mut records, &mut record, path, run)?;
        let names = if self.reading.header {
            let head = record.iter().map(|name| std::str::from_utf8(name).map(str::to_owned));
            head.collect::<Result<Vec<_>, _>>().map_err(|_| cannot("read", path, &"its first row is not UTF-8"))?
        } else {
            (1..=record.len()).map(|number| number.to_string()).collect()
        };
        if !self.begun {
            self.columns = Columns::closed(names).map_err(|why| cannot("read", path, &why))?;
        } else if some && names != self.columns.names() {
            let why = "its columns are not those of the first input: select those of both into files of their own";
            return Err(cannot("read", path, &why));
        }
        Ok(Reader::Csv { records, record, waiting: some && !self.reading.header })
    }
}

fn next_record(
    records: &mut Records,
    record: &mut Record,
    path: &Path,
    run: &mut Run<'_, '_>,
) -> Result<bool, ActionError> {
    let read = records.read(record);
    let some = read.map_err(|error| ActionError::new(format!("{}:{}: {error}", path.display(), record.line)))?;
    let file = records.file.get_mut();
    file.left = ROW_MAX;
    run.bytes_read += std::mem::take(&mut file.read);
    Ok(some)
}

fn next_line(reader: &mut BufReader<Rationed>, buffer: &mut Vec<u8>, run: &mut Run<'_, '_>) -> io::Result<bool> {
    buffer.clear();
    let count = reader.read_until(b'\n', buffer)?;
    let file = reader.get_mut();
    file.left = ROW_MAX;
    run.bytes_read += std::mem::take(&mut file.read);
    Ok(count > 0)
}

/// A file of which a row has only so much: one that does not end must not fill the memory.
pub(super) struct Rationed {
    file: File,
    left: usize,
    read: u64,
}

impl Rationed {
    pub(super) fn new(file: File) -> Self {
        Self { file, left: ROW_MAX, read: 0 }
    }
}

impl Read for Rationed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(format!("the row is longer than {ROW_MAX} bytes")));
        }
        let most = buffer.len().min(self.left);
        let count = self.file.read(&mut buffer[..most])?;
        self.left -= count;
        self.read += count as u64;
        Ok(count)
    }
}

/// The members of a JSON object, in order, their values as they are written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

fn object_into(line: &[u8], row: &mut Row, columns: &mut Columns) -> Result<(), String> {
    let Members(members) = serde_json::from_slice(line).map_err(|error| {
        // It is said already which line of the file it is.
        let words = error.to_string();
        let words = words.split(" at line ").next().unwrap_or_default();
        // What is no object at all has no column of its own.
        if error.column() == 0 { words.to_owned() } else { format!("{words} at column {}", error.column()) }
    })?;
    row.cells.iter_mut().for_each(|cell| cell.set(Kind::Absent, ""));
    for (name, value) in members {
        let place = columns.find_or_add(&name).map_err(|why| why.to_string())?;
        row.at(place).set_json(value).map_err(|error| error.to_string())?;
    }
    Ok(())
}
