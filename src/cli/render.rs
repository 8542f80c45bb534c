//! Putting things on standard output: lines, tables and JSON.
//!
//! Names come from users, so control characters are shown as marks and never reach the terminal. Deliberately absent:
//! colours and any look at how wide the terminal is; output is the same in a pipe.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use super::CliError;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// Standard output, buffered. What was printed is only out after [`Out::finish`].
#[derive(Debug)]
pub struct Out(BufWriter<Stdout>);

impl Out {
    /// Takes standard output.
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(BUFFER, io::stdout()))
    }

    /// Prints a text as it is, with a line end.
    ///
    /// # Errors
    /// Standard output does not take it.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.0, "{text}").map_err(CliError::Stdout)
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// Standard output does not take them.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.0.write_all(bytes).map_err(CliError::Stdout)
    }

    /// Prints JSON over several lines, for one document.
    ///
    /// # Errors
    /// It has no JSON form, or standard output does not take it.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// Prints the answer of a command as JSON, with the schema that records have in themselves.
    ///
    /// # Errors
    /// It has no JSON form, or standard output does not take it.
    pub fn answer(&mut self, body: &impl Serialize) -> Result<(), CliError> {
        self.json(&Answer { schema: crate::wire::SCHEMA, body })
    }

    /// Prints JSON in one line, for one of many.
    ///
    /// # Errors
    /// It has no JSON form, or standard output does not take it.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.line(serde_json::to_string(value)?)
    }

    /// Writes out what was printed so far.
    ///
    /// # Errors
    /// Standard output does not take it.
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.0.flush().map_err(CliError::Stdout)
    }

    /// Writes out what is left.
    ///
    /// # Errors
    /// Standard output does not take it.
    pub fn finish(mut self) -> Result<(), CliError> {
        self.flush()
    }
}

/// An answer that is no record.
#[derive(Serialize)]
struct Answer<'b, B> {
    schema: u32,
    #[serde(flatten)]
    body: &'b B,
}

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells that stand below each other.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [(&str, Align); N]) -> Self {
        let (rows, columns) = (vec![headings.map(|(text, _)| text.to_owned()).to_vec()], headings.map(|(_, a)| a));
        Self { columns: columns.to_vec(), rows }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| plain(&cell)).to_vec());
    }

    /// Takes the column with this heading away, which has nothing to say in this table.
    pub fn leave_out(&mut self, heading: &str) {
        let Some(place) = self.rows.first().and_then(|row| row.iter().position(|cell| cell == heading)) else { return };
        self.columns.remove(place);
        self.rows.iter_mut().for_each(|row| drop(row.remove(place)));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            f.write_str(if at == 0 { "" } else { "\n" })?;
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// The text with a mark for each control character but a line end.
pub fn marked(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

/// The text with a mark for each control character, and no longer than a table can bear.
pub fn plain(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    match text.char_indices().nth(LONGEST) {
        None => text.chars().map(shown).collect(),
        Some(_) => text.chars().map(shown).take(LONGEST - 1).chain(['…']).collect(),
    }
}

/// The whole text, over as many lines as it has, with a mark for each other control character.
pub fn legible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// How long something took or is ago, in microseconds, in at most four characters and a unit.
pub fn span(micros: i64) -> String {
    let micros = micros.max(0);
    let seconds = micros / 1_000_000;
    match seconds {
        0 => format!("{}ms", micros / 1_000),
        1..=9 => format!("{:.1}s", micros as f64 / 1e6),
        10..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes, as in 512MB or 1.2GB.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if count < 1_000 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1_000.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // 999.5 would be printed as 1000.
        if value < 999.5 {
            break;
        }
        value /= 1_000.0;
        unit = larger;
    }
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other_and_lines_end_with_text() {
        let mut table = Table::new([("#", Align::Right), ("NAME", Align::Left), ("STATE", Align::Left)]);
        table.row(["1".into(), "größer".into(), "completed".into()]);
        table.row(["142".into(), "a\x1b[31m".into(), String::new()]);
        insta::assert_snapshot!(table, @r"
          #  NAME    STATE
          1  größer  completed
        142  a�[31m
        ");
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(plain(&"x".repeat(60)).chars().count(), 60);
        assert!(plain(&"x".repeat(61)).ends_with("x…"));
    }

    #[test]
    fn amounts_are_short() {
        let spans = [0, 12_345, 1_500_000, 59_000_000, 600_000_000, 90_000_000_000, 900_000_000_000];
        assert_eq!(spans.map(span), ["0ms", "12ms", "1.5s", "59s", "10m", "25h", "10d"]);
        let sizes = [0, 999, 1_000, 1_200_000_000, 512_000_000, 999_999_999, u64::MAX];
        assert_eq!(sizes.map(bytes), ["0B", "999B", "1.0KB", "1.2GB", "512MB", "1.0GB", "18447PB"]);
    }
}
