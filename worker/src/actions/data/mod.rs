//! `data_processing`: rows go from a table through steps into another.
//!
//! Each step takes rows from the one before it, so one row is in memory at a time; a step that must see all of them before it
//! gives the first holds as many as the memory takes and has the others on disk. Deliberately absent: grouping, which is
//! `analysis`', and tables in databases or compressed files.

mod codec;
mod condition;
mod distinct;
mod expression;
mod join;
mod output;
mod params;
mod sort;
mod sorter;
mod steps;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::context::Context;
use super::error::ActionError;
use super::registry::WorkAction;
use super::table::{Columns, Input, Row, Run, Source};

pub use condition::{Comparison, Condition};
pub use output::WrittenFile;
pub use params::{
    CellType, DataParams, Deduplicate, Direction, Filter, Head, Join, JoinKind, Map, Sample, Select, Sort, SortBy,
    SortKind, Split, Step, Types,
};

/// Checks a condition as far as it can be without a table.
pub(super) fn check_condition(condition: &Condition) -> Result<(), String> {
    condition.validate()
}

/// A condition that can be asked of rows.
pub(super) struct ReadyCondition(condition::Test);

impl ReadyCondition {
    pub(super) fn new(condition: &Condition, columns: &Columns) -> Result<Self, ActionError> {
        condition.ready(columns).map(Self)
    }

    pub(super) fn holds(&mut self, columns: &Columns, row: &Row) -> bool {
        self.0.holds(columns, row)
    }
}

/// The built-in action `data_processing`.
#[derive(Debug)]
pub struct DataProcessing;

/// What has become of the rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataResult {
    /// Rows read.
    pub rows_in: u64,
    /// Rows that came out of the last step.
    pub rows_out: u64,
    /// The files with them.
    pub files: Vec<WrittenFile>,
    /// The rows themselves, if no output was asked for: JSON as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<Box<RawValue>>>,
}

impl WorkAction for DataProcessing {
    const NAME: &'static str = "data_processing";
    type Params = DataParams;
    type Output = DataResult;

    fn validate(params: &DataParams) -> Result<(), String> {
        params.validate()
    }

    fn execute(params: DataParams, context: &mut Context<'_>) -> Result<DataResult, ActionError> {
        let mut files = Vec::new();
        for path in params.input_paths() {
            files.push(context.path(path)?);
        }
        let input = match &params.data {
            Some(values) => Input::Inline(values.clone()),
            None => Input::Files(files),
        };
        let memory = usize::try_from(params.memory_mb << 20).unwrap_or(usize::MAX);
        let mut run = Run::new(context);
        let source = Source::open(input, params.reading(), true, &mut run)?;
        let mut rows: steps::BoxedRows = Box::new(source);
        for (index, step) in params.steps.iter().enumerate() {
            let after = steps::after(rows, step, memory, &mut run);
            rows = after.map_err(|why| ActionError::new(format!("step {} ({}): {why}", index + 1, step.name())))?;
        }
        let mut output = output::Output::begin(&params, rows.columns(), run.context)?;
        let mut row = Row::default();
        while rows.next(&mut row, &mut run)? {
            output.write(&row, rows.columns(), &mut run)?;
        }
        run.context.check()?;
        let rows_in = run.rows_in;
        let written = output.finish(rows.columns())?;
        run.context.progress(100.0, &format!("{rows_in} rows read, {} written", written.rows));
        Ok(DataResult { rows_in, rows_out: written.rows, files: written.files, data: written.data })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_read_out_of_text_and_out_of_a_value() {
        let value = json!({"rowsIn": 1, "rowsOut": 1, "files": [], "data": [{"a": 1.5}]});
        let from_value: DataResult = serde_json::from_value(value.clone()).unwrap();
        let from_text: DataResult = serde_json::from_str(&value.to_string()).unwrap();
        for result in [from_value, from_text] {
            assert_eq!(serde_json::to_value(result).unwrap(), value);
        }
    }
}
