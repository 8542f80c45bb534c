//! Rows by the value of one column, and the numbers of the others in each group.

use std::collections::{BTreeMap, HashMap};

use super::super::error::ActionError;
use super::super::table::{ColumnRef, Columns, Row};
use super::column::Moments;
use super::report::Group;

/// Figures held for all groups together.
const CELLS_MAX: usize = 2_000_000;

pub(super) struct Groups {
    by: ColumnRef,
    most: usize,
    names: Vec<String>,
    groups: HashMap<String, State>,
    cells: usize,
}

#[derive(Default)]
struct State {
    rows: u64,
    columns: Vec<Moments>,
}

impl Groups {
    pub(super) fn new(by: &str, most: usize, columns: &Columns) -> Result<Self, ActionError> {
        let by = ColumnRef::new(by, columns)?;
        Ok(Self { by, most, names: Vec::new(), groups: HashMap::new(), cells: 0 })
    }

    pub(super) fn add(&mut self, row: &Row, columns: &Columns) -> Result<(), ActionError> {
        for name in &columns.names()[self.names.len()..] {
            self.names.push(name.clone());
        }
        let own = self.by.place(columns);
        let value = self.by.get(columns, row).text.as_str();
        if !self.groups.contains_key(value) {
            if self.groups.len() >= self.most {
                let words = format!("more than {} values of '{}' to group by (maxGroups)", self.most, self.by.name());
                return Err(ActionError::new(words));
            }
            self.groups.insert(value.to_owned(), State::default());
        }
        let Some(group) = self.groups.get_mut(value) else { return Ok(()) };
        group.rows += 1;
        for (place, cell) in row.cells.iter().enumerate().filter(|(place, _)| Some(*place) != own) {
            let Some(number) = cell.number() else { continue };
            if group.columns.len() <= place {
                self.cells += place + 1 - group.columns.len();
                if self.cells > CELLS_MAX {
                    return Err(ActionError::new("too many groups of too many columns: select columns first"));
                }
                group.columns.resize(place + 1, Moments::default());
            }
            group.columns[place].add(number.real());
        }
        Ok(())
    }

    pub(super) fn report(&self) -> Vec<Group> {
        let of = |(value, state): (&String, &State)| {
            let columns = self.names.iter().zip(&state.columns);
            let numbers = columns.filter_map(|(name, moments)| Some((name.clone(), moments.report()?)));
            let value = (!value.is_empty()).then(|| value.clone());
            Group { value, rows: state.rows, columns: numbers.collect::<BTreeMap<_, _>>() }
        };
        let mut groups: Vec<Group> = self.groups.iter().map(of).collect();
        groups.sort_unstable_by(|one, two| two.rows.cmp(&one.rows).then_with(|| one.value.cmp(&two.value)));
        groups
    }
}
