//! What `data_processing` is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::files::check_path;
use super::super::table::{Reading, TableFormat, Writing};
use super::condition::Condition;
use super::expression::Expression;

/// The parameters of `data_processing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataParams {
    /// The table. This, `inputs` or `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Several, one after another, with the same columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// The rows themselves: objects, or values of a column `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<Value>>,
    /// Where the rows go; absent: into the result, if they fit. With `split` it has `{}` in it.
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
    /// Whether fields of CSV that look like numbers, truth values or nothing become that in JSON.
    #[serde(default)]
    pub infer: bool,
    /// The format of the output; absent: as its name ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<TableFormat>,
    /// What stands between two fields of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_delimiter: Option<char>,
    /// Whether the first row of a CSV output names the columns.
    #[serde(default = "yes")]
    pub output_header: bool,
    /// What is done with the rows, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Whether the rows go to several files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// What one step may hold in memory, in MiB; the rest is on disk.
    #[serde(default = "memory")]
    pub memory_mb: u64,
    /// Whether a file that is there already is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

fn yes() -> bool {
    true
}

fn memory() -> u64 {
    64
}

/// To which file a row goes: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Split {
    /// So many rows to each; `{}` is the file's number, from 00001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// One for each value of this column; `{}` is the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The most files.
    #[serde(default = "files")]
    pub max_files: usize,
}

fn files() -> usize {
    100
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Step {
    /// Some of the columns, or others' names.
    Select(Select),
    /// The rows of which a condition is true.
    Filter(Filter),
    /// A column is computed.
    Map(Map),
    /// Texts become numbers, truth values, JSON, or texts again.
    Types(Types),
    /// The first of rows with the same key.
    Deduplicate(Deduplicate),
    /// In the order of some columns.
    Sort(Sort),
    /// With the rows of another table that have the same key.
    Join(Join),
    /// The first rows.
    Head(Head),
    /// Some rows by chance.
    Sample(Sample),
}

/// Which columns, and under which names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Select {
    /// These, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// All but these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Vec<String>>,
    /// Old names and new ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
}

/// Which rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// What is true of them.
    #[serde(rename = "where")]
    pub condition: Condition,
}

/// A column and what it becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Map {
    /// The column; a new one comes last.
    pub column: String,
    /// An expression.
    pub to: Value,
}

/// What columns are to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Types {
    /// Columns and what they are.
    pub columns: BTreeMap<String, CellType>,
}

/// What a cell is to be. An empty text becomes `null`, but where it is to be a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CellType {
    /// A number.
    Number,
    /// `true`, `yes` or `1`; `false`, `no` or `0`.
    Boolean,
    /// A text.
    Text,
    /// A JSON value written in a text.
    Json,
}

impl CellType {
    /// Its name, as in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Json => "JSON",
        }
    }
}

/// What makes rows the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deduplicate {
    /// These columns; none: all.
    #[serde(default)]
    pub by: Vec<String>,
}

/// In which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sort {
    /// The first one counts most.
    pub by: Vec<SortBy>,
}

/// One column by which rows are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SortBy {
    /// The column.
    pub column: String,
    /// As what it is compared.
    #[serde(rename = "as", default)]
    pub kind: SortKind,
    /// Which way.
    #[serde(default)]
    pub order: Direction,
}

/// As what cells are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SortKind {
    /// Byte by byte.
    #[default]
    Text,
    /// By value; what is no number comes last.
    Number,
}

/// Which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// The smallest first.
    #[default]
    Asc,
    /// The largest first.
    Desc,
}

/// With which table, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Join {
    /// The other table.
    pub with: String,
    /// The columns that must be the same in both.
    pub on: Vec<String>,
    /// What these are called in the other table, if not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_other: Option<Vec<String>>,
    /// What becomes of rows that have no partner.
    #[serde(rename = "type", default)]
    pub kind: JoinKind,
    /// The columns of the other table that are taken; absent: all but its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// What their names begin with from then on.
    #[serde(default)]
    pub prefix: String,
    /// The format of the other table; absent: as its name ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TableFormat>,
    /// What stands between two of its fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether its first row names its columns.
    #[serde(default = "yes")]
    pub header: bool,
    /// Whether its rows may have too few fields, or too many.
    #[serde(default)]
    pub flexible: bool,
}

impl Join {
    pub(super) fn reading(&self) -> Reading {
        Reading {
            format: self.format,
            delimiter: self.delimiter,
            header: self.header,
            flexible: self.flexible,
            infer: false,
        }
    }
}

/// What becomes of rows that have no partner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JoinKind {
    /// They are left out.
    #[default]
    Inner,
    /// They stay, with nothing in the other's columns.
    Left,
}

/// How many rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// So many.
    pub rows: u64,
    /// After so many.
    #[serde(default)]
    pub skip: u64,
}

/// How many rows by chance: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sample {
    /// So many; they must fit into memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Each with this chance, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// The same rows for the same seed.
    #[serde(default)]
    pub seed: u64,
}

impl Step {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Select(_) => "select",
            Self::Filter(_) => "filter",
            Self::Map(_) => "map",
            Self::Types(_) => "types",
            Self::Deduplicate(_) => "deduplicate",
            Self::Sort(_) => "sort",
            Self::Join(_) => "join",
            Self::Head(_) => "head",
            Self::Sample(_) => "sample",
        }
    }

    fn validate(&self) -> Result<(), String> {
        match self {
            Self::Select(select) => match (&select.columns, &select.except) {
                (Some(_), Some(_)) => Err("give columns or except, not both".to_owned()),
                (Some(columns), None) if columns.is_empty() => Err("columns is empty".to_owned()),
                _ => Ok(()),
            },
            Self::Filter(filter) => filter.condition.validate(),
            Self::Map(map) => Expression::validate(&map.to),
            Self::Sort(sort) if sort.by.is_empty() => Err("by is empty: give a column".to_owned()),
            Self::Join(join) => {
                check_path("with", &join.with)?;
                join.reading().check(&join.with)?;
                if join.on.is_empty() {
                    return Err("on is empty: give a column".to_owned());
                }
                match &join.on_other {
                    Some(other) if other.len() != join.on.len() => {
                        Err("on and onOther have not the same length".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            Self::Sample(sample) => match (sample.rows, sample.fraction) {
                (Some(_), None) => Ok(()),
                (None, Some(fraction)) if (0.0..=1.0).contains(&fraction) => Ok(()),
                (None, Some(fraction)) => Err(format!("fraction is {fraction}: expected 0 to 1")),
                _ => Err("give rows or fraction".to_owned()),
            },
            Self::Types(_) | Self::Deduplicate(_) | Self::Sort(_) | Self::Head(_) => Ok(()),
        }
    }
}

impl DataParams {
    /// The most memory that can be asked for, in MiB.
    pub const MEMORY_MAX_MB: u64 = 1 << 20;
    /// The most steps.
    pub const STEPS_MAX: usize = 100;
    /// The most files of a split.
    pub const FILES_MAX: usize = 500;

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
        let reading = self.reading();
        for input in self.input_paths() {
            check_path("input", input)?;
            reading.check(input)?;
        }
        if let Some(table) = self.tables().find(|table| self.output.as_ref() == Some(table)) {
            return Err(format!("input and output are the same file: {table}"));
        }
        if let Some(output) = &self.output {
            check_path("output", output)?;
            self.writing(output)?;
        }
        self.check_split()?;
        if !(1..=Self::MEMORY_MAX_MB).contains(&self.memory_mb) {
            return Err(format!("memoryMb is {}: expected 1 to {}", self.memory_mb, Self::MEMORY_MAX_MB));
        }
        if self.steps.len() > Self::STEPS_MAX {
            return Err(format!("{} steps: expected at most {}", self.steps.len(), Self::STEPS_MAX));
        }
        for (index, step) in self.steps.iter().enumerate() {
            step.validate().map_err(|why| format!("step {} ({}): {why}", index + 1, step.name()))?;
        }
        Ok(())
    }

    fn check_split(&self) -> Result<(), String> {
        let Some(split) = &self.split else { return Ok(()) };
        let Some(output) = &self.output else { return Err("split takes an output".to_owned()) };
        if output.matches("{}").count() != 1 || output.rsplit('/').next().is_none_or(|name| !name.contains("{}")) {
            return Err("with split the name of the output has {} in it, once".to_owned());
        }
        if !(1..=Self::FILES_MAX).contains(&split.max_files) {
            return Err(format!("maxFiles is {}: expected 1 to {}", split.max_files, Self::FILES_MAX));
        }
        match (split.rows, &split.column) {
            (Some(1..), None) | (None, Some(_)) => Ok(()),
            _ => Err("split takes rows, at least 1, or a column".to_owned()),
        }
    }

    /// The paths of the inputs, as they are given.
    pub(super) fn input_paths(&self) -> impl Iterator<Item = &String> {
        self.input.iter().chain(self.inputs.iter().flatten())
    }

    /// The paths of all tables that are read, joined ones too, as they are given.
    pub(super) fn tables(&self) -> impl Iterator<Item = &String> {
        self.input_paths().chain(self.steps.iter().filter_map(|step| match step {
            Step::Join(join) => Some(&join.with),
            Step::Select(_)
            | Step::Filter(_)
            | Step::Map(_)
            | Step::Types(_)
            | Step::Deduplicate(_)
            | Step::Sort(_)
            | Step::Head(_)
            | Step::Sample(_) => None,
        }))
    }

    pub(super) fn reading(&self) -> Reading {
        Reading {
            format: self.format,
            delimiter: self.delimiter,
            header: self.header,
            flexible: self.flexible,
            infer: self.infer,
        }
    }

    pub(super) fn writing(&self, output: &str) -> Result<Writing, String> {
        let format = TableFormat::of(self.output_format, output, "outputFormat")?;
        let delimiter = format.delimiter(self.output_delimiter)?;
        Ok(Writing {
            format,
            delimiter,
            header: self.output_header,
            flexible: self.flexible,
            overwrite: self.overwrite,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(params: Value) -> Result<(), String> {
        let params: DataParams = serde_json::from_value(params).map_err(|error| error.to_string())?;
        let again = serde_json::from_value::<DataParams>(serde_json::to_value(&params).unwrap()).unwrap();
        assert_eq!(again, params);
        params.validate()
    }

    #[test]
    fn what_cannot_be_is_refused() {
        check(json!({"data": [1]})).unwrap();
        check(json!({"input": "a.csv", "output": "part-{}.csv", "split": {"rows": 5}})).unwrap();
        let step = |step: Value| json!({"input": "a.csv", "output": "b.csv", "steps": [step]});
        for (params, words) in [
            (json!({}), "give one of"),
            (json!({"input": "a.csv", "data": []}), "give one of"),
            (json!({"input": "a.txt"}), "format of a.txt is not known"),
            (json!({"input": "a.csv", "output": "a.csv"}), "same file"),
            (
                json!({"data": [1], "output": "a.csv", "steps": [{"operation": "join", "with": "a.csv", "on": ["a"]}]}),
                "same file",
            ),
            (json!({"input": "a.csv", "outptu": "a.csv"}), "unknown field"),
            (json!({"input": "a.csv", "delimiter": "ab"}), "a character"),
            (json!({"input": "a.jsonl", "delimiter": ";"}), "for CSV only"),
            (json!({"input": "a.csv", "output": "b.csv", "split": {"rows": 5}}), "{} in it"),
            (json!({"input": "a.csv", "output": "{}/b.csv", "split": {"rows": 5}}), "{} in it"),
            (json!({"input": "a.csv", "output": "{}.csv", "split": {"rows": 0}}), "split takes rows"),
            (json!({"input": "a.csv", "memoryMb": 0}), "memoryMb is 0"),
            (step(json!({"operation": "explode"})), "unknown variant"),
            (step(json!({"operation": "sort", "by": []})), "by is empty"),
            (step(json!({"operation": "sort", "by": [{"column": "a", "as": "date"}]})), "unknown variant"),
            (step(json!({"operation": "head", "rows": 1, "row": 2})), "unknown field"),
            (step(json!({"operation": "sample", "fraction": 2})), "expected 0 to 1"),
            (step(json!({"operation": "filter", "where": {"column": "a"}})), "a condition is"),
            (step(json!({"operation": "join", "with": "c.csv", "on": ["a"], "onOther": []})), "same length"),
        ] {
            let error = check(params.clone()).unwrap_err();
            assert!(error.contains(words), "{params}: {error}");
        }
    }
}
