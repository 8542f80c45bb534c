//! Records of CSV out of a file, with the lines at which they begin.
//!
//! Fields are what `csv-core` takes them for (RFC 4180, and what is near it: rows may end in CR alone, blank lines are no
//! rows, and a quote within a field that does not begin with one is a quote). What lies between rows is passed over here, so
//! that lines are counted where rows begin. Deliberately absent: columns, and what fields mean.

use std::io::{self, BufRead, BufReader};

use super::source::{MARK, Rationed};

const BUFFER: usize = 64 << 10;

/// One record: its fields, and where it is.
#[derive(Default)]
pub(super) struct Record {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
    /// The number of its first line, from 1.
    pub(super) line: u64,
}

impl Record {
    /// How many fields it has.
    pub(super) fn len(&self) -> usize {
        self.fields
    }

    /// A field; none if it has not so many.
    pub(super) fn get(&self, place: usize) -> Option<&[u8]> {
        let ends = &self.ends[..self.fields];
        let end = *ends.get(place)?;
        let start = place.checked_sub(1).map_or(0, |before| ends[before]);
        Some(&self.bytes[start..end])
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.fields).filter_map(|place| self.get(place))
    }
}

/// A file of records.
pub(super) struct Records {
    pub(super) file: BufReader<Rationed>,
    core: csv_core::Reader,
    begun: bool,
}

impl Records {
    pub(super) fn new(file: Rationed, delimiter: u8) -> Self {
        let core = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Self { file: BufReader::with_capacity(BUFFER, file), core, begun: false }
    }

    /// The next record in the place of what was in `record`; false at the end. After an error its line is where the record
    /// began.
    ///
    /// # Errors
    /// The file cannot be read, or ends within quotes: what was left out of it then, or never closed, nobody knows.
    pub(super) fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        record.fields = 0;
        if !std::mem::replace(&mut self.begun, true) && self.file.fill_buf()?.starts_with(MARK) {
            self.file.consume(MARK.len());
        }
        let some = self.pass_line_ends()?;
        record.line = self.core.line();
        if !some {
            return Ok(false);
        }
        let mut written = 0;
        loop {
            let input = self.file.fill_buf()?;
            let at_end = input.is_empty();
            // One more line end ends the last record, unless it is within quotes.
            let input = if at_end { b"\n" } else { input };
            let (result, read, wrote, ended) =
                self.core.read_record(input, &mut record.bytes[written..], &mut record.ends[record.fields..]);
            if !at_end {
                self.file.consume(read);
            }
            written += wrote;
            record.fields += ended;
            match result {
                csv_core::ReadRecordResult::Record => return Ok(true),
                csv_core::ReadRecordResult::InputEmpty if at_end => {
                    return Err(io::Error::other("the file ends within quotes that were opened in this row"));
                }
                csv_core::ReadRecordResult::InputEmpty => {}
                csv_core::ReadRecordResult::OutputFull => record.bytes.resize(grown(record.bytes.len()), 0),
                csv_core::ReadRecordResult::OutputEndsFull => record.ends.resize(grown(record.ends.len()), 0),
                // It has had something to read.
                csv_core::ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Goes on to what is no line end; false if there is nothing.
    fn pass_line_ends(&mut self) -> io::Result<bool> {
        loop {
            let input = self.file.fill_buf()?;
            if input.is_empty() {
                return Ok(false);
            }
            let passed = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let lines = input[..passed].iter().filter(|byte| **byte == b'\n').count();
            let rest = passed < input.len();
            self.core.set_line(self.core.line() + lines as u64);
            self.file.consume(passed);
            if rest {
                return Ok(true);
            }
        }
    }
}

/// The next length of a buffer that is full.
fn grown(length: usize) -> usize {
    (2 * length).max(64)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use proptest::prelude::*;

    use super::*;

    /// All records of a text, and the lines at which they begin.
    fn records(text: &[u8]) -> io::Result<Vec<(u64, Vec<Vec<u8>>)>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        let (mut records, mut record, mut all) =
            (Records::new(Rationed::new(file), b','), Record::default(), Vec::new());
        while records.read(&mut record)? {
            all.push((record.line, record.iter().map(<[u8]>::to_vec).collect()));
        }
        Ok(all)
    }

    #[test]
    fn records_are_where_they_begin() {
        let lines = |text: &str| {
            let all = records(text.as_bytes()).unwrap();
            all.into_iter().map(|(line, fields)| (line, fields.len())).collect::<Vec<_>>()
        };
        assert_eq!(lines(""), []);
        assert_eq!(lines("\u{feff}\n"), []);
        assert_eq!(lines("\u{feff}\r\na,b\r\n\r\n\"1\r\n\",\r\nx"), [(2, 2), (4, 2), (6, 1)]);
        let long = format!("a\n{}\nb", "x".repeat(3 * BUFFER));
        assert_eq!(lines(&long), [(1, 1), (2, 1), (3, 1)]);
        assert!(records(b"a\n\"b\n").unwrap_err().to_string().contains("within quotes"));
        assert_eq!(lines("a\n\"b\"\n"), [(1, 1), (2, 1)]);
    }

    proptest! {
        #[test]
        fn fields_are_those_of_the_csv_crate(text in "(\u{feff})?[ab,\"\r\n]{0,40}") {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let theirs = reader.byte_records().map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
            // An error is the only difference: of quotes that do not end.
            if let Ok(ours) = records(text.as_bytes()) {
                let ours: Vec<Vec<Vec<u8>>> = ours.into_iter().map(|(_, fields)| fields).collect();
                prop_assert_eq!(ours, theirs.collect::<Vec<_>>());
            } else {
                prop_assert!(text.contains('"'));
            }
        }
    }
}
