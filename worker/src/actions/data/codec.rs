//! Rows as bytes, for sorting and joining; and the keys by which they are sorted and joined.

use super::super::error::ActionError;
use super::super::table::{Cell, Kind, Row};

/// A row as bytes, in the place of what was in `into`.
pub(super) fn encode(row: &Row, into: &mut Vec<u8>) {
    into.clear();
    number_into(u64::from(row.file), into);
    number_into(row.line, into);
    number_into(row.cells.len() as u64, into);
    for cell in &row.cells {
        into.push(match cell.kind {
            Kind::Absent => 0,
            Kind::Null => 1,
            Kind::Bool => 2,
            Kind::Number => 3,
            Kind::Text => 4,
            Kind::Nested => 5,
        });
        number_into(cell.text.len() as u64, into);
        into.extend_from_slice(cell.text.as_bytes());
    }
}

/// The row that bytes are.
///
/// # Errors
/// They are none: somebody changed them on disk.
pub(super) fn decode(bytes: &[u8], row: &mut Row) -> Result<(), ActionError> {
    read(bytes, row).ok_or_else(|| ActionError::new("a temporary file was changed by somebody else"))
}

fn read(mut bytes: &[u8], row: &mut Row) -> Option<()> {
    row.file = u32::try_from(number(&mut bytes)?).ok()?;
    row.line = number(&mut bytes)?;
    let count = usize::try_from(number(&mut bytes)?).ok().filter(|count| *count <= bytes.len())?;
    row.cells.resize(count, Cell::default());
    for cell in &mut row.cells {
        let (kind, rest) = bytes.split_first()?;
        bytes = rest;
        let kind = match kind {
            0 => Kind::Absent,
            1 => Kind::Null,
            2 => Kind::Bool,
            3 => Kind::Number,
            4 => Kind::Text,
            5 => Kind::Nested,
            _ => return None,
        };
        let length = usize::try_from(number(&mut bytes)?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        cell.set(kind, std::str::from_utf8(text).ok()?);
    }
    Some(())
}

/// Seven bits a byte, the lowest first.
pub(super) fn number_into(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A text appended to a key so that keys are ordered as their texts are, whatever comes after them.
pub(super) fn text_into(text: &str, key: &mut Vec<u8>) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xFF);
        }
    }
    key.extend_from_slice(&[0, 1]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_comes_back_as_it_was(
            texts in proptest::collection::vec(".{0,200}", 0..9), file: u32, line: u64,
        ) {
            let cells = texts.iter().map(|text| Cell::new(Kind::Text, text.as_str())).collect();
            let row = Row { cells, file, line };
            let (mut bytes, mut back) = (Vec::new(), Row::default());
            encode(&row, &mut bytes);
            decode(&bytes, &mut back).unwrap();
            prop_assert_eq!((row.cells, row.file, row.line), (back.cells, back.file, back.line));
        }

        #[test]
        fn bytes_that_are_no_row_are_an_error(bytes: Vec<u8>) {
            let _ = decode(&bytes, &mut Row::default());
        }

        #[test]
        fn keys_are_ordered_as_texts_are(both: Vec<(String, String)>) {
            let (one, two): (Vec<String>, Vec<String>) = both.into_iter().unzip();
            let key = |texts: &[String]| {
                let mut key = Vec::new();
                texts.iter().for_each(|text| text_into(text, &mut key));
                key
            };
            prop_assert_eq!(key(&one).cmp(&key(&two)), one.cmp(&two));
        }
    }
}
