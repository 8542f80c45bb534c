//! Where rows go in the end: one file, several, or the result.
//!
//! Files that belong together appear one after another when all of them are complete; before that there is none. None of them
//! is a table that is read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::context::Context;
use super::super::error::ActionError;
use super::super::places::{cannot, refuse_same};
use super::super::table::{ColumnRef, Columns, InlineRows, Row, Run, Sink, Writing};
use super::params::{DataParams, Split};
use crate::task::RESULT_MAX;

/// What a result has beside its rows or its files, at most.
const RESERVED: usize = 1024;

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenFile {
    /// Where it is, as an absolute path.
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
    pub(super) data: Option<Vec<Box<RawValue>>>,
}

pub(super) enum Output {
    One(Sink),
    Many(Many),
    Inline(InlineRows),
}

pub(super) struct Many {
    pattern: String,
    writing: Writing,
    split: Split,
    column: Option<ColumnRef>,
    /// The tables that are read.
    tables: Vec<PathBuf>,
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
        let tables = params.tables().map(|table| context.path(table)).collect::<io::Result<Vec<_>>>()?;
        if let Some(split) = &params.split {
            let column = split.column.as_ref().map(|name| ColumnRef::new(name, columns)).transpose()?;
            let (pattern, split, files) = (output.clone(), split.clone(), BTreeMap::new());
            return Ok(Self::Many(Many { pattern, writing, split, column, tables, files, rows: 0 }));
        }
        create(&context.path(output)?, writing, &tables).map(Self::One)
    }

    pub(super) fn write(&mut self, row: &Row, columns: &Columns, run: &mut Run<'_, '_>) -> Result<(), ActionError> {
        match self {
            Self::One(sink) => sink.write(row, columns, run),
            Self::Many(many) => many.write(row, columns, run),
            Self::Inline(rows) => rows.write(row, columns, run),
        }
    }

    pub(super) fn finish(self, columns: &Columns) -> Result<Written, ActionError> {
        match self {
            Self::One(sink) => {
                let rows = sink.rows;
                Ok(Written { rows, files: appear(vec![sink], columns, false)?, data: None })
            }
            Self::Many(many) => {
                // What replaced another file is not taken back: neither would be there then.
                let takes_back = !many.writing.overwrite;
                let files = appear(many.files.into_values().collect(), columns, takes_back)?;
                Ok(Written { rows: many.rows, files, data: None })
            }
            Self::Inline(rows) => Ok(Written { rows: rows.count(), files: Vec::new(), data: Some(rows.values()) }),
        }
    }
}

/// Begins a file that is none of the tables that are read.
fn create(path: &Path, writing: Writing, tables: &[PathBuf]) -> Result<Sink, ActionError> {
    tables.iter().try_for_each(|table| refuse_same(table, path))?;
    // A name that no file can have is found now, and not after the work.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("make", path, &error)),
        Ok(_) | Err(_) => Sink::create(path, writing),
    }
}

/// Has files appear that belong together, when all of them are complete and the result can name them. If one of them cannot,
/// those before it are taken back, if they may be: a retry would find them in its way.
fn appear(mut sinks: Vec<Sink>, columns: &Columns, takes_back: bool) -> Result<Vec<WrittenFile>, ActionError> {
    let mut files = Vec::new();
    for sink in &mut sinks {
        let bytes = sink.complete(columns)?;
        files.push(WrittenFile { path: sink.path().display().to_string(), rows: sink.rows, bytes });
    }
    let most = RESULT_MAX - RESERVED;
    if serde_json::to_string(&files)?.len() > most {
        let words = "the list of files is larger than a result can be: give shorter names, or let there be fewer files";
        return Err(ActionError::new(words));
    }
    let mut made = Vec::new();
    for sink in sinks {
        let path = sink.path().to_owned();
        if let Err(error) = sink.appear() {
            for path in made.iter().filter(|_| takes_back) {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        made.push(path);
    }
    Ok(files)
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
            let sink = create(&path, self.writing, &self.tables).map_err(|why| run.at(row, why))?;
            self.files.insert(name.clone(), sink);
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
    use serde_json::{Value, json};

    use super::super::super::context::{Facts, Host, Why};
    use super::super::super::table::{Cell, Kind};
    use super::*;
    use crate::task::TaskId;

    struct Nowhere;
    impl Host for Nowhere {
        fn told_to_end(&self) -> Option<Why> {
            None
        }
        fn progress(&mut self, _: f64, _: &str) {}
        fn write(&mut self, _: bool, _: &[u8]) {}
        fn scratch(&mut self) -> io::Result<PathBuf> {
            Err(io::Error::other("there is none"))
        }
    }

    /// Splits three rows in the folder while somebody else makes the second of the files; what is there in the end.
    fn splits_beside_another(folder: &Path, overwrite: bool) -> (Result<Written, ActionError>, Vec<String>) {
        let (id, cwd) = (TaskId::new(1, 1, 1), Some(folder.to_owned()));
        let facts = Facts { id, attempt: 1, slot: 0, meta: Default::default(), cwd, checkpoint: None };
        let mut host = Nowhere;
        let mut context = Context::new(&facts, &mut host);
        let params: Value = json!({"data": [], "output": "{}.csv", "split": {"column": "k"}, "overwrite": overwrite});
        let params: DataParams = serde_json::from_value(params).unwrap();
        let columns = Columns::closed(["k".to_owned()]).unwrap();
        let mut output = Output::begin(&params, &columns, &mut context).unwrap();
        let mut run = Run::new(&mut context);
        for value in ["a", "b", "c"] {
            let row = Row { cells: vec![Cell::new(Kind::Text, value)], ..Row::default() };
            output.write(&row, &columns, &mut run).unwrap();
        }
        fs::write(folder.join("b.csv"), "another's").unwrap();
        let finished = output.finish(&columns);
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut entries: Vec<String> = entries.collect();
        entries.sort();
        (finished, entries)
    }

    #[test]
    fn files_that_have_appeared_are_taken_back_if_one_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let (finished, entries) = splits_beside_another(folder.path(), false);
        assert!(finished.is_err());
        assert_eq!(entries, ["b.csv"]);
        assert_eq!(fs::read(folder.path().join("b.csv")).unwrap(), b"another's");
        let (finished, entries) = splits_beside_another(folder.path(), true);
        let files = finished.unwrap().files;
        assert_eq!(entries, ["a.csv", "b.csv", "c.csv"]);
        assert_eq!(files[1].path, folder.path().join("b.csv").display().to_string());
        assert_eq!((fs::read(&files[1].path).unwrap(), files[1].bytes), (b"k\nb\n".to_vec(), 4));
    }

    #[test]
    fn a_value_is_never_more_than_a_name() {
        for (value, name) in
            [("a-1", "a-1"), ("../x", "%2E.%2Fx"), ("", "%"), ("%", "%25"), ("v1.2", "v1.2"), ("é", "%C3%A9")]
        {
            assert_eq!(file_name(value), name);
        }
    }
}
