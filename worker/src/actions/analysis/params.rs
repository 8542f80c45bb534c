//! What `analysis` is told.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::data::{Condition, check_condition};
use super::super::files::check_path;
use super::super::table::{Reading, TableFormat};

/// The parameters of `analysis`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnalysisParams {
    /// The table. This, `inputs` or `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Several, one after another, with the same columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// The rows themselves: objects, or values of a column `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<Value>>,
    /// Where the report is written, too, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The format of the inputs; absent: as their names end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TableFormat>,
    /// What stands between two fields of the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether the first row of a CSV input names the columns; else they are `1`, `2` and so on.
    #[serde(default = "yes")]
    pub header: bool,
    /// Whether rows may have too few fields, or too many, which are left out.
    #[serde(default)]
    pub flexible: bool,
    /// Rows that count; absent: all.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Columns that are described; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Which quantiles, each from 0 to 1.
    #[serde(default = "usual_quantiles")]
    pub quantiles: Vec<f64>,
    /// How many of the most frequent values.
    #[serde(default = "ten")]
    pub top: usize,
    /// Histograms of columns.
    #[serde(default)]
    pub histograms: Vec<HistogramAsked>,
    /// Columns each two of which are correlated.
    #[serde(default)]
    pub correlations: Vec<String>,
    /// A column by whose values rows are grouped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// The most groups.
    #[serde(default = "thousand")]
    pub max_groups: usize,
    /// Whether an output that is there already is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// A histogram that is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HistogramAsked {
    /// Of this column.
    pub column: String,
    /// In so many parts of equal width.
    #[serde(default = "ten")]
    pub bins: usize,
    /// From here; absent: from the smallest number. With both bounds all numbers are counted exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// To here; absent: to the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

fn yes() -> bool {
    true
}

fn ten() -> usize {
    10
}

fn thousand() -> usize {
    1000
}

fn usual_quantiles() -> Vec<f64> {
    vec![0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
}

fn within(name: &str, value: usize, most: usize) -> Result<(), String> {
    if value <= most { Ok(()) } else { Err(format!("{name} is {value}: expected at most {most}")) }
}

impl AnalysisParams {
    /// The most columns that are described.
    pub const COLUMNS_MAX: usize = 1000;
    /// The most columns each two of which are correlated.
    pub const CORRELATIONS_MAX: usize = 64;
    /// The most parts of a histogram.
    pub const BINS_MAX: usize = 1000;
    /// The most frequent values, at most.
    pub const TOP_MAX: usize = 1000;
    /// The most groups that can be asked for.
    pub const GROUPS_MAX: usize = 100_000;

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), String> {
        let given = [self.input.is_some(), self.inputs.is_some(), self.data.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err("give one of input, inputs and data".to_owned());
        }
        if self.inputs.as_ref().is_some_and(Vec::is_empty) {
            return Err("inputs is empty".to_owned());
        }
        for input in self.input_paths() {
            check_path("input", input)?;
            self.reading().check(input)?;
            if self.output.as_ref() == Some(input) {
                return Err(format!("input and output are the same file: {input}"));
            }
        }
        self.output.as_ref().map_or(Ok(()), |output| check_path("output", output))?;
        self.condition.as_ref().map_or(Ok(()), check_condition).map_err(|why| format!("where: {why}"))?;
        if let Some(fraction) = self.quantiles.iter().find(|fraction| !(0.0..=1.0).contains(*fraction)) {
            return Err(format!("quantile {fraction}: expected 0 to 1"));
        }
        within("the number of quantiles", self.quantiles.len(), Self::BINS_MAX)?;
        within("the number of columns", self.columns.as_ref().map_or(0, Vec::len), Self::COLUMNS_MAX)?;
        within("top", self.top, Self::TOP_MAX)?;
        within("maxGroups", self.max_groups, Self::GROUPS_MAX)?;
        within("the number of correlations", self.correlations.len(), Self::CORRELATIONS_MAX)?;
        if self.correlations.len() == 1 {
            return Err("correlations takes two columns or more".to_owned());
        }
        for asked in &self.histograms {
            if !(1..=Self::BINS_MAX).contains(&asked.bins) {
                return Err(format!("bins is {}: expected 1 to {}", asked.bins, Self::BINS_MAX));
            }
            if let (Some(min), Some(max)) = (asked.min, asked.max)
                && min >= max
            {
                return Err(format!("histogram of '{}': min must be less than max", asked.column));
            }
            if let Some(columns) = self.columns.as_ref().filter(|columns| !columns.contains(&asked.column)) {
                return Err(format!(
                    "histogram of '{}', which is not among columns: {}",
                    asked.column,
                    columns.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// The paths of the inputs, as they are given.
    pub(super) fn input_paths(&self) -> impl Iterator<Item = &String> {
        self.input.iter().chain(self.inputs.iter().flatten())
    }

    pub(super) fn reading(&self) -> Reading {
        let (format, delimiter, header, flexible) = (self.format, self.delimiter, self.header, self.flexible);
        Reading { format, delimiter, header, flexible, infer: false }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        for (params, words) in [
            (json!({}), "give one of"),
            (json!({"data": [1], "quantiles": [2]}), "expected 0 to 1"),
            (json!({"data": [1], "correlations": ["a"]}), "two columns"),
            (json!({"data": [1], "histograms": [{"column": "a", "bins": 0}]}), "bins is 0"),
            (json!({"data": [1], "histograms": [{"column": "a", "min": 1, "max": 1}]}), "less than max"),
            (json!({"data": [1], "where": {"column": "a"}}), "where: a condition is"),
            (json!({"input": "a.csv", "output": "a.csv"}), "same file"),
            (json!({"data": [1], "median": true}), "unknown field"),
        ] {
            let read = serde_json::from_value::<AnalysisParams>(params.clone()).map_err(|error| error.to_string());
            let error = read.and_then(|params| params.validate()).unwrap_err();
            assert!(error.contains(words), "{params}: {error}");
        }
    }
}
