//! `sort`: rows in the order of some of their columns.
//!
//! Texts are ordered byte by byte, numbers by their value; what is no number comes last, whichever way. Rows that are alike stay
//! as they came.

use super::super::error::ActionError;
use super::super::table::{Cell, ColumnRef, Columns, Row, Run};
use super::codec;
use super::params::{Direction, SortBy, SortKind};
use super::sorter::{Sorted, Sorter};
use super::steps::{BoxedRows, Rows, next_sorted};

pub(super) struct Sort {
    rows: BoxedRows,
    by: Vec<(ColumnRef, SortKind, Direction)>,
    memory: usize,
    sorted: Option<Sorted>,
}

impl Sort {
    pub(super) fn new(rows: BoxedRows, by: &[SortBy], memory: usize) -> Result<Self, ActionError> {
        let by = by.iter().map(|by| Ok((ColumnRef::new(&by.column, rows.columns())?, by.kind, by.order)));
        let by = by.collect::<Result<_, ActionError>>()?;
        Ok(Self { rows, by, memory, sorted: None })
    }

    fn sort(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<Sorted, ActionError> {
        let mut sorter = Sorter::new(self.memory, "sort");
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        while self.rows.next(row, run)? {
            key.clear();
            for (column, kind, direction) in &mut self.by {
                key_into(column.get(self.rows.columns(), row), *kind, *direction, &mut key);
            }
            codec::encode(row, &mut payload);
            sorter.push(&key, &payload, run)?;
        }
        sorter.finish(run)
    }
}

fn key_into(cell: &Cell, kind: SortKind, direction: Direction, key: &mut Vec<u8>) {
    let start = match kind {
        SortKind::Text => {
            let start = key.len();
            codec::text_into(&cell.text, key);
            start
        }
        SortKind::Number => {
            let number = cell.number();
            key.push(u8::from(number.is_none()));
            let start = key.len();
            key.extend_from_slice(&number.map_or([0; 16], |number| number.sort_key()));
            start
        }
    };
    if direction == Direction::Desc {
        key[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

impl Rows for Sort {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        if self.sorted.is_none() {
            self.sorted = Some(self.sort(row, run)?);
        }
        next_sorted(&mut self.sorted, row, run)
    }
}
