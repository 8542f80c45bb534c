//! `deduplicate`: of rows with the same key the first one, in the order in which they came.
//!
//! Keys are known by 128 bits of their BLAKE3 sum. As many as the memory takes are remembered; a row with another key goes to
//! disk from then on, where sorting brings equal keys together, and another sorting brings the first ones back into order.

use std::collections::HashSet;

use super::super::error::ActionError;
use super::super::table::{ColumnRef, Columns, Row, Run};
use super::codec;
use super::sorter::{Sorted, Sorter};
use super::steps::{BoxedRows, Rows, next_sorted};

/// What one remembered key takes at most, in bytes: a table is half empty after it has grown, and grows beside its old self.
const KEY_COST: usize = 56;
const SUM: usize = 16;

pub(super) struct Distinct {
    rows: BoxedRows,
    /// None: all of them.
    by: Vec<ColumnRef>,
    memory: usize,
    known: HashSet<[u8; SUM]>,
    beyond: Option<Sorter>,
    number: u64,
    rest: Option<Sorted>,
    bytes: Vec<u8>,
}

impl Distinct {
    pub(super) fn new(rows: BoxedRows, by: &[String], memory: usize) -> Result<Self, ActionError> {
        let by = by.iter().map(|name| ColumnRef::new(name, rows.columns())).collect::<Result<_, _>>()?;
        // Half for what is known, half for sorting.
        let memory = memory / 2;
        let (known, bytes) = (HashSet::new(), Vec::new());
        Ok(Self { rows, by, memory, known, beyond: None, number: 0, rest: None, bytes })
    }

    fn sum(&mut self, row: &Row) -> [u8; SUM] {
        self.bytes.clear();
        let columns = self.rows.columns();
        if self.by.is_empty() {
            // Columns that a row does not have do not set it apart from one that has nothing in them.
            let used = row.cells.iter().rposition(|cell| !cell.is_missing()).map_or(0, |last| last + 1);
            row.cells[..used].iter().for_each(|cell| codec::text_into(&cell.text, &mut self.bytes));
        } else {
            for column in &mut self.by {
                codec::text_into(&column.get(columns, row).text, &mut self.bytes);
            }
        }
        let mut sum = [0; SUM];
        sum.copy_from_slice(&blake3::hash(&self.bytes).as_bytes()[..SUM]);
        sum
    }

    /// The first rows of keys that were not remembered, in order.
    fn sort_rest(&mut self, beyond: Sorter, run: &mut Run<'_, '_>) -> Result<Sorted, ActionError> {
        self.known = HashSet::new();
        let mut by_key = beyond.finish(run)?;
        let mut firsts = Sorter::new(self.memory, "first");
        let mut last = None;
        while by_key.advance()? {
            run.tick()?;
            let (sum, number) = by_key.key().split_at(SUM);
            if last.as_deref() != Some(sum) {
                last = Some(sum.to_vec());
                let number = number.to_vec();
                firsts.push(&number, by_key.payload(), run)?;
            }
        }
        firsts.finish(run)
    }
}

impl Rows for Distinct {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        while self.rest.is_none() && self.rows.next(row, run)? {
            self.number += 1;
            let sum = self.sum(row);
            if self.known.contains(&sum) {
                continue;
            }
            if self.beyond.is_none() && self.known.len() < self.memory / KEY_COST {
                self.known.insert(sum);
                return Ok(true);
            }
            let mut key = sum.to_vec();
            key.extend_from_slice(&self.number.to_be_bytes());
            codec::encode(row, &mut self.bytes);
            let memory = self.memory;
            self.beyond.get_or_insert_with(|| Sorter::new(memory, "distinct")).push(&key, &self.bytes, run)?;
        }
        if let Some(beyond) = self.beyond.take() {
            self.rest = Some(self.sort_rest(beyond, run)?);
        }
        next_sorted(&mut self.rest, row, run)
    }
}
