//! Rows that flow: each step takes them from the one before it, one at a time.
//!
//! Here are the steps that need no more than the row they have; sorting, joining and removing duplicates have files of
//! their own.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::super::error::ActionError;
use super::super::table::{Cell, ColumnRef, Columns, Kind, Number, Row, Run, Source};
use super::condition::Test;
use super::expression::{Expression, shown};
use super::params::{CellType, Select, Step};
use super::sorter::Sorted;
use super::{codec, distinct, join, sort};

/// Rows, one after another, with the columns that are known so far.
pub(super) trait Rows {
    fn columns(&self) -> &Columns;
    /// The next row in the place of what was in `row`; false at the end, and again if asked again.
    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError>;
}

pub(super) type BoxedRows = Box<dyn Rows>;

/// The next of sorted rows, if they have been sorted.
pub(super) fn next_sorted(
    sorted: &mut Option<Sorted>,
    row: &mut Row,
    run: &mut Run<'_, '_>,
) -> Result<bool, ActionError> {
    run.tick()?;
    let Some(sorted) = sorted else { return Ok(false) };
    if !sorted.advance()? {
        return Ok(false);
    }
    codec::decode(sorted.payload(), row).map(|()| true)
}

impl Rows for Source {
    fn columns(&self) -> &Columns {
        self.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        self.next(row, run)
    }
}

/// Puts a step behind those before it.
pub(super) fn after(
    rows: BoxedRows,
    step: &Step,
    memory: usize,
    run: &mut Run<'_, '_>,
) -> Result<BoxedRows, ActionError> {
    Ok(match step {
        Step::Select(select) => Box::new(Selected::new(rows, select)?),
        Step::Filter(filter) => {
            let test = filter.condition.ready(rows.columns())?;
            Box::new(Filtered { rows, test })
        }
        Step::Map(map) => {
            let expression = Expression::ready(&map.to, rows.columns())?;
            let mut columns = rows.columns().clone();
            let place = columns.find_or_add(&map.column)?;
            // A new column of an open table may turn up in it later: then it is that one.
            Box::new(Mapped { seen: rows.columns().len(), places: Vec::new(), rows, columns, place, expression })
        }
        Step::Types(types) => {
            let named = types.columns.iter().map(|(name, kind)| Ok((ColumnRef::new(name, rows.columns())?, *kind)));
            let types = named.collect::<Result<_, ActionError>>()?;
            Box::new(Typed { rows, types })
        }
        Step::Head(head) => Box::new(Head { rows, skip: head.skip, left: head.rows }),
        Step::Sample(sample) => match (sample.fraction, sample.rows) {
            (Some(fraction), _) => Box::new(Fraction { rows, fraction, dice: Dice(sample.seed) }),
            (None, count) => {
                let count = count.unwrap_or_default();
                Box::new(Reservoir { rows, count, memory, dice: Dice(sample.seed), drawn: None })
            }
        },
        Step::Sort(by) => Box::new(sort::Sort::new(rows, &by.by, memory)?),
        Step::Deduplicate(step) => Box::new(distinct::Distinct::new(rows, &step.by, memory)?),
        Step::Join(step) => join::join(rows, step, memory, run)?,
    })
}

/// Some of the columns, under other names.
struct Selected {
    rows: BoxedRows,
    columns: Columns,
    /// For each of ours the one it is made of; for `except`, filled as columns are met.
    from: Vec<ColumnRef>,
    except: Option<Vec<String>>,
    rename: BTreeMap<String, String>,
    seen: usize,
    source: Row,
}

impl Selected {
    fn new(rows: BoxedRows, select: &Select) -> Result<Self, ActionError> {
        for name in select.except.iter().flatten().chain(select.rename.keys()) {
            ColumnRef::new(name, rows.columns())?;
        }
        let (columns, from, rename) = (Columns::default(), Vec::new(), select.rename.clone());
        let mut selected = Self { rows, columns, from, except: None, rename, seen: 0, source: Row::default() };
        if let Some(names) = &select.columns {
            for name in names {
                selected.take(name)?;
            }
        } else {
            selected.columns.open = selected.rows.columns().open;
            selected.except = Some(select.except.clone().unwrap_or_default());
            selected.meet()?;
        }
        Ok(selected)
    }

    fn take(&mut self, name: &str) -> Result<(), ActionError> {
        self.from.push(ColumnRef::new(name, self.rows.columns())?);
        let name = self.rename.get(name).map_or(name, String::as_str).to_owned();
        self.columns.add(name)?;
        Ok(())
    }

    /// Takes the columns that were not there before.
    fn meet(&mut self) -> Result<(), ActionError> {
        while self.seen < self.rows.columns().len() {
            let name = self.rows.columns().names()[self.seen].clone();
            self.seen += 1;
            if self.except.as_ref().is_some_and(|except| !except.contains(&name)) {
                self.take(&name)?;
            }
        }
        Ok(())
    }
}

impl Rows for Selected {
    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        if !self.rows.next(&mut self.source, run)? {
            return Ok(false);
        }
        self.meet().map_err(|why| run.at(&self.source, why))?;
        (row.file, row.line) = (self.source.file, self.source.line);
        row.cells.resize(self.from.len(), Cell::default());
        for (cell, from) in row.cells.iter_mut().zip(&mut self.from) {
            let source = from.get(self.rows.columns(), &self.source);
            cell.set(source.kind, &source.text);
        }
        Ok(true)
    }
}

/// The rows of which a condition is true.
struct Filtered {
    rows: BoxedRows,
    test: Test,
}

impl Rows for Filtered {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        while self.rows.next(row, run)? {
            if self.test.holds(self.rows.columns(), row) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Rows with a column that is computed.
struct Mapped {
    rows: BoxedRows,
    columns: Columns,
    /// How many columns of those before it are among ours, and where those are that are not at their own place: they came
    /// after the computed one.
    seen: usize,
    places: Vec<(usize, usize)>,
    place: usize,
    expression: Expression,
}

impl Rows for Mapped {
    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        if !self.rows.next(row, run)? {
            return Ok(false);
        }
        while self.seen < self.rows.columns().len() {
            let ours = self.columns.find_or_add(&self.rows.columns().names()[self.seen]);
            let ours = ours.map_err(|why| run.at(row, why))?;
            if ours != self.seen {
                self.places.push((self.seen, ours));
            }
            self.seen += 1;
        }
        let value = self.expression.value(self.rows.columns(), row).map_err(|why| run.at(row, why))?;
        if !self.places.is_empty() {
            let moved: Vec<Cell> = self.places.iter().map(|(from, _)| row.get(*from).clone()).collect();
            for (from, _) in &self.places {
                row.at(*from).set(Kind::Absent, "");
            }
            for ((_, to), cell) in self.places.iter().zip(moved) {
                *row.at(*to) = cell;
            }
        }
        *row.at(self.place) = value;
        Ok(true)
    }
}

/// Rows whose texts have become what they say.
struct Typed {
    rows: BoxedRows,
    types: Vec<(ColumnRef, CellType)>,
}

impl Rows for Typed {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        if !self.rows.next(row, run)? {
            return Ok(false);
        }
        for (column, kind) in &mut self.types {
            let Some(place) = column.place(self.rows.columns()) else { continue };
            if row.get(place).kind == Kind::Absent {
                continue;
            }
            if typed(row.at(place), *kind).is_none() {
                let text = shown(&row.get(place).text);
                return Err(run.at(row, format!("column '{}' is no {}: '{text}'", column.name(), kind.name())));
            }
        }
        Ok(true)
    }
}

/// Makes it so, if it can be.
fn typed(cell: &mut Cell, kind: CellType) -> Option<()> {
    match (kind, cell.kind) {
        (CellType::Text, _) => {
            cell.kind = Kind::Text;
            return Some(());
        }
        _ if cell.is_missing() => *cell = Cell::NULL,
        (CellType::Number, _) => {
            let number = cell.number()?;
            // As it is written, as long as that is JSON: no digit is lost.
            cell.infer();
            if cell.kind != Kind::Number {
                *cell = Cell::new(Kind::Number, number.text());
            }
        }
        (CellType::Boolean, Kind::Bool) => {}
        (CellType::Boolean, _) => {
            let value = match cell.text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => "true",
                "false" | "no" | "0" => "false",
                _ => return None,
            };
            cell.set(Kind::Bool, value);
        }
        (CellType::Json, Kind::Text) => {
            let text = std::mem::take(&mut cell.text);
            let value = serde_json::from_str::<&RawValue>(&text);
            if value.and_then(|value| cell.set_json(value)).is_err() {
                // It is shown as what it is.
                cell.set(Kind::Text, &text);
                return None;
            }
        }
        (CellType::Json, _) => {}
    }
    Some(())
}

/// The first rows, or those after the first ones.
struct Head {
    rows: BoxedRows,
    skip: u64,
    left: u64,
}

impl Rows for Head {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        while self.skip > 0 {
            if !self.rows.next(row, run)? {
                return Ok(false);
            }
            self.skip -= 1;
        }
        // The rest is not even read.
        if self.left == 0 || !self.rows.next(row, run)? {
            return Ok(false);
        }
        self.left -= 1;
        Ok(true)
    }
}

/// Numbers by chance, the same ones for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of so many.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to 1, never 1.
    fn fraction(&mut self) -> f64 {
        Number::Whole((self.roll() >> 11) as i64).real() / (1u64 << 53) as f64
    }
}

/// Each row with the same chance.
struct Fraction {
    rows: BoxedRows,
    fraction: f64,
    dice: Dice,
}

impl Rows for Fraction {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        while self.rows.next(row, run)? {
            if self.dice.fraction() < self.fraction {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// So many rows, each set of which is as likely, in their order.
struct Reservoir {
    rows: BoxedRows,
    count: u64,
    memory: usize,
    dice: Dice,
    drawn: Option<std::vec::IntoIter<(u64, Vec<u8>)>>,
}

impl Reservoir {
    fn draw(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<Vec<(u64, Vec<u8>)>, ActionError> {
        let (mut held, mut seen, mut bytes) = (Vec::<(u64, Vec<u8>)>::new(), 0u64, 0usize);
        let mut encoded = Vec::new();
        while self.rows.next(row, run)? {
            seen += 1;
            let place = if seen <= self.count { held.len() as u64 } else { self.dice.below(seen) };
            if place >= self.count {
                continue;
            }
            codec::encode(row, &mut encoded);
            bytes += encoded.len() + size_of::<(u64, Vec<u8>)>();
            let entry = (seen, encoded.clone());
            match held.get_mut(place as usize) {
                Some(old) => {
                    bytes -= old.1.len() + size_of::<(u64, Vec<u8>)>();
                    *old = entry;
                }
                None => held.push(entry),
            }
            if bytes > self.memory {
                return Err(ActionError::new(
                    "a sample of so many rows is larger than memoryMb: raise it, or sample a fraction",
                ));
            }
        }
        held.sort_unstable_by_key(|(number, _)| *number);
        Ok(held)
    }
}

impl Rows for Reservoir {
    fn columns(&self) -> &Columns {
        self.rows.columns()
    }

    fn next(&mut self, row: &mut Row, run: &mut Run<'_, '_>) -> Result<bool, ActionError> {
        if self.drawn.is_none() {
            self.drawn = Some(self.draw(row, run)?.into_iter());
        }
        match self.drawn.as_mut().and_then(Iterator::next) {
            Some((_, bytes)) => codec::decode(&bytes, row).map(|()| true),
            None => Ok(false),
        }
    }
}
