//! `join`: each row with those of another table that have the same key.
//!
//! The other table is held in memory if it fits; else both are sorted by their keys, merged, and what comes of it is brought back
//! into the order of the rows that came. So memory does not change what comes out. A key that is missing is like no
//! other. Deliberately absent: right and full joins, which would have to remember who was met.

use std::collections::HashMap;

use super::super::error::ActionError;
use super::super::places::cannot;
use super::super::table::{ColumnRef, Columns, Input, Row, Run, Source};
use super::codec;
use super::params::{Join, JoinKind};
use super::sorter::{Sorted, Sorter};
use super::steps::{BoxedRows, Rows, next_sorted};

/// What one key takes in the table of those in memory, beside its bytes.
const KEY_COST: usize = 160;

/// Joins what comes with the table of the step.
pub(super) fn join(
    rows: BoxedRows,
    step: &Join,
    memory: usize,
    run: &mut Run<'_, '_>,
) -> Result<BoxedRows, ActionError> {
    let path = run.context.path(&step.with)?;
    let source = Source::open(Input::Files(vec![path.clone()]), step.reading(), false, run)?;
    let left_keys = references(&step.on, rows.columns())?;
    let right_keys = references(step.on_other.as_ref().unwrap_or(&step.on), source.columns());
    let right_keys = right_keys.map_err(|why| cannot("join", &path, &why))?;
    let mut other = Other { source, keys: right_keys };
    let mut held = Held::default();
    let (mut row, mut key, mut bytes) = (Row::default(), Vec::new(), Vec::new());
    let mut beyond = None;
    while other.source.next(&mut row, run)? {
        if !key_of(&mut other.keys, other.source.columns(), &row, &mut key) {
            continue;
        }
        codec::encode(&row, &mut bytes);
        match &mut beyond {
            None if held.fits(&key, &bytes, memory / 2) => held.add(&key, &bytes),
            None => {
                let mut sorter = Sorter::new(memory / 4, "right");
                std::mem::take(&mut held).pour(&mut sorter, run)?;
                sorter.push(&key, &bytes, run)?;
                beyond = Some(sorter);
            }
            Some(sorter) => sorter.push(&key, &bytes, run)?,
        }
    }
    let pairing = Pairing::new(rows.columns(), other.source.columns(), step)?;
    let keeps = step.kind == JoinKind::Left;
    Ok(match beyond {
        None => {
            Box::new(Hashed { rows, keys: left_keys, pairing, held, keeps, left: Row::default(), group: None, key })
        }
        Some(right) => {
            let sorted = right.finish(run)?;
            Box::new(Merged { rows, keys: left_keys, pairing, right: Some(sorted), keeps, memory, out: None })
        }
    })
}

fn references(names: &[String], columns: &Columns) -> Result<Vec<ColumnRef>, ActionError> {
    names.iter().map(|name| ColumnRef::new(name, columns)).collect()
}

struct Other {
    source: Source,
    keys: Vec<ColumnRef>,
}

/// The key of a row; false if some of it is missing.
fn key_of(keys: &mut [ColumnRef], columns: &Columns, row: &Row, into: &mut Vec<u8>) -> bool {
    into.clear();
    for column in keys {
        let cell = column.get(columns, row);
        if cell.is_missing() {
            return false;
        }
        codec::text_into(&cell.text, into);
    }
    true
}

/// The other table in memory.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Where the rows of each key begin and end.
    places: HashMap<Vec<u8>, Vec<(usize, usize)>>,
    cost: usize,
}

impl Held {
    fn fits(&self, key: &[u8], row: &[u8], memory: usize) -> bool {
        // Bytes double when they grow.
        self.cost + KEY_COST + key.len() + 2 * row.len() <= memory
    }

    fn add(&mut self, key: &[u8], row: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(row);
        let place = (start, self.bytes.len());
        self.cost += 2 * row.len();
        match self.places.get_mut(key) {
            Some(places) => {
                places.push(place);
                self.cost += 2 * size_of::<(usize, usize)>();
            }
            None => {
                self.places.insert(key.to_vec(), vec![place]);
                self.cost += KEY_COST + key.len();
            }
        }
    }

    /// Into a sorter; rows of one key in their order.
    fn pour(self, sorter: &mut Sorter, run: &mut Run<'_, '_>) -> Result<(), ActionError> {
        for (key, places) in &self.places {
            for (start, end) in places {
                run.tick()?;
                sorter.push(key, &self.bytes[*start..*end], run)?;
            }
        }
        Ok(())
    }
}

/// How two rows become one.
struct Pairing {
    columns: Columns,
    /// The place of each column of the left table, as far as they are known.
    left: Vec<usize>,
    /// Columns of the right table, and their places.
    right: Vec<(usize, usize)>,
    right_names: Vec<String>,
}

impl Pairing {
    fn new(left: &Columns, right: &Columns, step: &Join) -> Result<Self, ActionError> {
        let mut columns = left.clone();
        columns.open = left.open;
        let keys = step.on_other.as_ref().unwrap_or(&step.on);
        let taken: Vec<&String> = match &step.columns {
            Some(names) => names.iter().collect(),
            None => right.names().iter().filter(|name| !keys.contains(name)).collect(),
        };
        let (mut places, mut right_names) = (Vec::new(), Vec::new());
        for name in taken {
            let Some(from) = right.find(name) else {
                if right.open {
                    continue;
                }
                return Err(right.unknown(name));
            };
            let ours = format!("{}{name}", step.prefix);
            let place = columns.add(ours.clone()).map_err(|_| both(&ours))?;
            places.push((from, place));
            right_names.push(ours);
        }
        Ok(Self { columns, left: (0..left.len()).collect(), right: places, right_names })
    }

    /// Takes up the columns that the left table did not have before.
    fn meet(&mut self, left: &Columns) -> Result<(), ActionError> {
        while self.left.len() < left.len() {
            let name = &left.names()[self.left.len()];
            if self.right_names.contains(name) {
                return Err(both(name));
            }
            self.left.push(self.columns.add(name.clone())?);
        }
        Ok(())
    }

    fn pair(&self, left: &Row, right: Option<&Row>, into: &mut Row) {
        (into.file, into.line) = (left.file, left.line);
        into.cells.clear();
        for (cell, place) in left.cells.iter().zip(&self.left) {
            into.at(*place).set(cell.kind, &cell.text);
        }
        for (from, place) in right.iter().flat_map(|_| &self.right) {
            let cell = right.map_or_else(Default::default, |right| right.get(*from).clone());
            *into.at(*place) = cell;
        }
    }
}

fn both(name: &str) -> ActionError {
    ActionError::new(format!("column '{name}' is in both tables: give a prefix, or the columns that are to be taken"))
}

/// A join with a table in memory.
struct Hashed {
    rows: BoxedRows,
    keys: Vec<ColumnRef>,
    pairing: Pairing,
    held: Held,
    keeps: bool,
    left: Row,
    /// The rows that go with the current one, and how many of them are done.
    group: Option<(Vec<(usize, usize)>, usize)>,
    key: Vec<u8>,
}

impl Rows for Hashed {
    fn columns(&self) -> &Columns {
        &self.pairing.columns
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        loop {
            run.tick()?;
            if let Some((places, done)) = &mut self.group {
                if let Some((start, end)) = places.get(*done) {
                    *done += 1;
                    let mut right = Row::default();
                    codec::decode(&self.held.bytes[*start..*end], &mut right)?;
                    self.pairing.pair(&self.left, Some(&right), row);
                    return Ok(true);
                }
                self.group = None;
            }
            if !self.rows.next(&mut self.left, run)? {
                return Ok(false);
            }
            self.pairing.meet(self.rows.columns()).map_err(|why| run.at(&self.left, why))?;
            let known = key_of(&mut self.keys, self.rows.columns(), &self.left, &mut self.key);
            match self.held.places.get(&self.key).filter(|_| known) {
                Some(places) => self.group = Some((places.clone(), 0)),
                None if self.keeps => {
                    self.pairing.pair(&self.left, None, row);
                    return Ok(true);
                }
                None => {}
            }
        }
    }
}

/// A join with a table that is larger than memory.
struct Merged {
    rows: BoxedRows,
    keys: Vec<ColumnRef>,
    pairing: Pairing,
    right: Option<Sorted>,
    keeps: bool,
    memory: usize,
    out: Option<Sorted>,
}

impl Merged {
    fn merge(&mut self, mut right: Sorted, row: &mut Row, run: &mut Run<'_, '_>) -> Result<Sorted, ActionError> {
        let mut out = Sorter::new(self.memory / 4, "joined");
        let mut sorter = Sorter::new(self.memory / 4, "left");
        let (mut key, mut bytes, mut number) = (Vec::new(), Vec::new(), 0u64);
        let mut pair = Row::default();
        while self.rows.next(row, run)? {
            number += 1;
            self.pairing.meet(self.rows.columns()).map_err(|why| run.at(row, why))?;
            if key_of(&mut self.keys, self.rows.columns(), row, &mut key) {
                codec::encode(row, &mut bytes);
                // The number goes before the row, and brings it back to its place.
                let mut payload = number.to_be_bytes().to_vec();
                payload.extend_from_slice(&bytes);
                sorter.push(&key, &payload, run)?;
            } else if self.keeps {
                self.pairing.pair(row, None, &mut pair);
                codec::encode(&pair, &mut bytes);
                out.push(&number.to_be_bytes(), &bytes, run)?;
            }
        }
        let mut left = sorter.finish(run)?;
        let mut group = Group { key: Vec::new(), rows: Vec::new(), bytes: 0 };
        let mut more = right.advance()?;
        while left.advance()? {
            run.tick()?;
            if left.key() != group.key || group.key.is_empty() {
                more = group.fill(left.key(), &mut right, more, self.memory / 4, run)?;
            }
            let (number, bytes_of) = left.payload().split_at(size_of::<u64>());
            codec::decode(bytes_of, row)?;
            for other in &group.rows {
                run.tick()?;
                self.pairing.pair(row, Some(other), &mut pair);
                codec::encode(&pair, &mut bytes);
                out.push(number, &bytes, run)?;
            }
            if group.rows.is_empty() && self.keeps {
                self.pairing.pair(row, None, &mut pair);
                codec::encode(&pair, &mut bytes);
                out.push(number, &bytes, run)?;
            }
        }
        out.finish(run)
    }
}

/// The rows of the right table that have one key.
struct Group {
    key: Vec<u8>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Group {
    /// Goes on to the rows of this key, if there are any; whether the right table has more.
    fn fill(
        &mut self,
        key: &[u8],
        right: &mut Sorted,
        mut more: bool,
        memory: usize,
        run: &mut Run<'_, '_>,
    ) -> Result<bool, ActionError> {
        self.key = key.to_vec();
        self.rows.clear();
        self.bytes = 0;
        while more && right.key() <= key {
            run.tick()?;
            if right.key() == key {
                let mut row = Row::default();
                codec::decode(right.payload(), &mut row)?;
                // What a row takes in memory is somewhat more than what it takes in bytes.
                self.bytes += 2 * right.payload().len() + size_of::<Row>();
                if self.bytes > memory {
                    let why = "too many rows of the joined table have one key: raise memoryMb, or deduplicate it first";
                    return Err(run.at(&row, why));
                }
                self.rows.push(row);
            }
            more = right.advance()?;
        }
        Ok(more)
    }
}

impl Rows for Merged {
    fn columns(&self) -> &Columns {
        &self.pairing.columns
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        if let Some(right) = self.right.take() {
            self.out = Some(self.merge(right, row, run)?);
        }
        next_sorted(&mut self.out, row, run)
    }
}
