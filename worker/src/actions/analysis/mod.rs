//! `analysis`: a table in figures, in one pass.
//!
//! What is kept of a column does not grow with the rows: beyond some thousand values quantiles, distinct and most frequent values are
//! estimated, and the report says so. Deliberately absent: models, tests of hypotheses, charts.

mod column;
mod groups;
mod pairs;
mod params;
mod report;
mod sketch;
mod values;

use std::io::Write;

use super::context::Context;
use super::data::ReadyCondition;
use super::error::ActionError;
use super::output_file::OutputFile;
use super::places::{cannot, refuse_same};
use super::registry::WorkAction;
use super::table::{ColumnRef, Columns, Input, Row, Run, Source};
use crate::task::RESULT_MAX;

use column::Column;
use groups::Groups;
use pairs::Pairs;

pub use params::{AnalysisParams, HistogramAsked};
pub use report::{AnalysisReport, ColumnReport, Correlation, Group, Histogram, Numbers, TopValue};

/// The built-in action `analysis`.
#[derive(Debug)]
pub struct Analysis;

impl WorkAction for Analysis {
    const NAME: &'static str = "analysis";
    type Params = AnalysisParams;
    type Output = AnalysisReport;

    fn validate(params: &AnalysisParams) -> Result<(), String> {
        params.validate()
    }

    fn execute(params: AnalysisParams, context: &mut Context<'_>) -> Result<AnalysisReport, ActionError> {
        let mut files = Vec::new();
        for path in params.input_paths() {
            files.push(context.path(path)?);
        }
        // Refused now and not after the work.
        let output = match &params.output {
            Some(output) => {
                let path = context.path(output)?;
                files.iter().try_for_each(|input| refuse_same(input, &path))?;
                Some((OutputFile::create(&path, params.overwrite)?, path))
            }
            None => None,
        };
        let input = match &params.data {
            Some(values) => Input::Inline(values.clone()),
            None => Input::Files(files),
        };
        let mut run = Run::new(context);
        let mut source = Source::open(input, params.reading(), true, &mut run)?;
        let mut table = Table::new(&params, source.columns())?;
        let mut row = Row::default();
        while source.next(&mut row, &mut run)? {
            table.add(&row, source.columns(), &run)?;
        }
        run.context.check()?;
        let report = table.report(run.rows_in);
        let report = match output {
            Some((file, path)) => {
                let written = write(report, file, path.display().to_string());
                written.map_err(|why| cannot("write", &path, &why))?
            }
            None if serde_json::to_string(&report)?.len() > RESULT_MAX => {
                return Err(ActionError::new(format!(
                    "the report is larger than {RESULT_MAX} bytes, the most that a result may have: give an output file"
                )));
            }
            None => report,
        };
        run.context.progress(100.0, &format!("{} rows read", run.rows_in));
        Ok(report)
    }
}

/// Writes the report; what of it is the result.
fn write(mut report: AnalysisReport, mut file: OutputFile, path: String) -> Result<AnalysisReport, ActionError> {
    let mut text = serde_json::to_vec_pretty(&report)?;
    text.push(b'\n');
    file.write_all(&text)?;
    report.bytes = Some(file.finish()?);
    report.output = Some(path);
    if serde_json::to_string(&report)?.len() > RESULT_MAX {
        let (rows, output, bytes) = (report.rows, report.output, report.bytes);
        return Ok(AnalysisReport { rows, output, bytes, only_in_output: true, ..AnalysisReport::default() });
    }
    Ok(report)
}

/// All that is known of the rows so far.
struct Table<'p> {
    params: &'p AnalysisParams,
    condition: Option<ReadyCondition>,
    /// The columns that were asked for, if some were; else all, as they are met.
    asked: Option<Vec<ColumnRef>>,
    names: Vec<String>,
    columns: Vec<Column>,
    pairs: Pairs,
    paired: Vec<ColumnRef>,
    numbers: Vec<Option<f64>>,
    groups: Option<Groups>,
    rows: u64,
}

impl<'p> Table<'p> {
    fn new(params: &'p AnalysisParams, columns: &Columns) -> Result<Self, ActionError> {
        let references = |names: &[String]| {
            names.iter().map(|name| ColumnRef::new(name, columns)).collect::<Result<Vec<_>, ActionError>>()
        };
        for asked in &params.histograms {
            ColumnRef::new(&asked.column, columns)?;
        }
        let asked = params.columns.as_deref().map(references).transpose()?;
        let mut table = Self {
            condition: params
                .condition
                .as_ref()
                .map(|condition| ReadyCondition::new(condition, columns))
                .transpose()?,
            names: Vec::new(),
            columns: Vec::new(),
            pairs: Pairs::new(&params.correlations),
            paired: references(&params.correlations)?,
            numbers: Vec::new(),
            groups: params.group_by.as_ref().map(|name| Groups::new(name, params.max_groups, columns)).transpose()?,
            rows: 0,
            asked,
            params,
        };
        for name in params.columns.iter().flatten() {
            table.begin(name)?;
        }
        table.meet(columns)?;
        Ok(table)
    }

    /// Begins a column, which was not there before.
    fn begin(&mut self, name: &str) -> Result<(), ActionError> {
        if self.columns.len() >= AnalysisParams::COLUMNS_MAX {
            let most = AnalysisParams::COLUMNS_MAX;
            return Err(ActionError::new(format!("there are more than {most} columns: give those that are wanted")));
        }
        let histogram = self.params.histograms.iter().find(|asked| asked.column == name);
        self.names.push(name.to_owned());
        self.columns.push(Column::new(self.rows, histogram));
        Ok(())
    }

    fn meet(&mut self, columns: &Columns) -> Result<(), ActionError> {
        while self.asked.is_none() && self.columns.len() < columns.len() {
            self.begin(&columns.names()[self.columns.len()])?;
        }
        Ok(())
    }

    fn add(&mut self, row: &Row, columns: &Columns, run: &Run<'_, '_>) -> Result<(), ActionError> {
        if self.condition.as_mut().is_some_and(|condition| !condition.holds(columns, row)) {
            return Ok(());
        }
        self.meet(columns).map_err(|why| run.at(row, why))?;
        self.rows += 1;
        for (place, column) in self.columns.iter_mut().enumerate() {
            column.add(match &mut self.asked {
                Some(asked) => asked[place].get(columns, row),
                None => row.get(place),
            });
        }
        if self.paired.len() > 1 {
            let number = |column: &mut ColumnRef| column.get(columns, row).number().map(|number| number.real());
            self.numbers.clear();
            self.numbers.extend(self.paired.iter_mut().map(number));
            self.pairs.add(&self.numbers);
        }
        match &mut self.groups {
            Some(groups) => groups.add(row, columns).map_err(|why| run.at(row, why)),
            None => Ok(()),
        }
    }

    fn report(&self, rows: u64) -> AnalysisReport {
        let columns = self.columns.iter().zip(&self.names);
        AnalysisReport {
            rows,
            columns: columns.map(|(column, name)| column.report(name, self.params)).collect(),
            correlations: self.pairs.report(),
            groups: self.groups.as_ref().map(Groups::report),
            ..AnalysisReport::default()
        }
    }
}
