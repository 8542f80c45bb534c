//! What `analysis` finds, as it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A table in figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisReport {
    /// Rows read.
    pub rows: u64,
    /// The columns, in order. None if the report is in `output` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnReport>,
    /// Of each two columns that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlations: Vec<Correlation>,
    /// One for each value of the column that was asked for, the most frequent first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// Where the report was written, too, as an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The size of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether the report is in that file alone, because a result cannot hold it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_in_output: bool,
}

/// One column in figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// `number`, `text`, `mixed` or `empty`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Rows in which there is something.
    pub count: u64,
    /// Rows in which there is nothing: no such column, `null`, or an empty text.
    pub missing: u64,
    /// Different values, as they are written.
    pub distinct: u64,
    /// Whether these were counted; else they are estimated, with a standard error of 0.8 %.
    pub distinct_exact: bool,
    /// The first of the texts in the order of their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
    /// The last of the texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greatest: Option<String>,
    /// The numbers among the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
    /// By their names: `p50` is the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<BTreeMap<String, f64>>,
    /// Whether these are exact; else their rank is off by less than half a percent of the count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantiles_exact: Option<bool>,
    /// If it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// The most frequent values first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopValue>,
}

/// Numbers in figures. A figure that is beyond floating point is left empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    /// How many there are.
    pub count: u64,
    /// All together.
    pub sum: Option<f64>,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: Option<f64>,
    /// The variance of a sample (divided by count - 1); of one number there is none.
    pub variance: Option<f64>,
    /// Its root.
    pub deviation: Option<f64>,
}

/// How numbers are spread over parts of equal width.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Histogram {
    /// Where the first part begins.
    pub min: f64,
    /// Where the last one ends; what is just there is in it.
    pub max: f64,
    /// In each part.
    pub counts: Vec<u64>,
    /// Below the first part.
    pub below: u64,
    /// Above the last one.
    pub above: u64,
    /// Whether all were counted; else the counts are estimated.
    pub exact: bool,
}

/// A frequent value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopValue {
    /// As it is written.
    pub value: String,
    /// How often.
    pub count: u64,
    /// By how much that may be too much.
    #[serde(default, skip_serializing_if = "is_none")]
    pub over: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// How two columns vary together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Correlation {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Rows in which both have a number.
    pub count: u64,
    /// Pearson's coefficient; none if one of them does not vary.
    pub r: Option<f64>,
}

/// The rows with one value of the column by which they are grouped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// That value; none where it is missing.
    pub value: Option<String>,
    /// How many rows.
    pub rows: u64,
    /// The numbers of each other column that has some.
    pub columns: BTreeMap<String, Numbers>,
}
