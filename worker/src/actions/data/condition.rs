//! Which rows are meant: a comparison of a column with a value, or several of them together.
//!
//! A number as the value compares numbers, of which texts may be the digits; a text compares texts, byte by byte; a truth value
//! is equal to itself. What cannot be compared is not so: `!=` alone is true of it. Nothing is true of a missing cell but
//! `missing`.

use std::cmp::Ordering;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::error::ActionError;
use super::super::table::{Cell, ColumnRef, Columns, Kind, Number, Row};

/// The largest regular expression once it is compiled, in bytes.
const REGEX_MAX: usize = 4 << 20;
/// How deep conditions go.
const DEPTH_MAX: usize = 32;

/// A condition, as it is written: a comparison, or exactly one of `all`, `any` and `not`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// All of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<Condition>>,
    /// One of these at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<Condition>>,
    /// Not this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Condition>>,
    /// The column that is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Comparison>,
    /// With what: a number, a text, a truth value, or `{"column": name}`; a list for `in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// How a column and a value are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Comparison {
    /// Equal.
    #[serde(rename = "==", alias = "=")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    Unequal,
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or equal.
    #[serde(rename = "<=")]
    AtMost,
    /// More.
    #[serde(rename = ">")]
    More,
    /// More or equal.
    #[serde(rename = ">=")]
    AtLeast,
    /// Equal to one of a list.
    In,
    /// Has this text in it.
    Contains,
    /// Begins with this text.
    StartsWith,
    /// Ends with this text.
    EndsWith,
    /// A regular expression is found in it.
    Matches,
    /// There is nothing in it.
    Missing,
    /// There is something in it.
    Present,
}

/// A condition made ready for the columns of one table.
pub(super) enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    Compare(ColumnRef, Comparison, Operand),
    In(ColumnRef, Vec<Operand>),
    Matches(ColumnRef, Regex),
}

pub(super) enum Operand {
    Number(Number),
    Text(String),
    Bool(&'static str),
    Column(ColumnRef),
    Nothing,
}

impl Condition {
    /// Checks what can be without a table.
    pub(super) fn validate(&self) -> Result<(), String> {
        let open = Columns::open();
        self.ready(&open).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Makes it ready.
    pub(super) fn ready(&self, columns: &Columns) -> Result<Test, ActionError> {
        self.ready_at(columns, DEPTH_MAX)
    }

    fn ready_at(&self, columns: &Columns, depth: usize) -> Result<Test, ActionError> {
        let deeper = depth.checked_sub(1).ok_or_else(|| ActionError::new("conditions go too deep"))?;
        let list = |list: &[Self]| list.iter().map(|one| one.ready_at(columns, deeper)).collect::<Result<Vec<_>, _>>();
        match (self, &self.column, self.op) {
            (Self { all: Some(all), any: None, not: None, value: None, .. }, None, None) => Ok(Test::All(list(all)?)),
            (Self { all: None, any: Some(any), not: None, value: None, .. }, None, None) => Ok(Test::Any(list(any)?)),
            (Self { all: None, any: None, not: Some(not), value: None, .. }, None, None) => {
                Ok(Test::Not(Box::new(not.ready_at(columns, deeper)?)))
            }
            (Self { all: None, any: None, not: None, .. }, Some(column), Some(op)) => {
                compare(ColumnRef::new(column, columns)?, op, self.value.as_ref(), columns)
            }
            _ => Err(ActionError::new("a condition is {column, op, value}, or one of all, any and not")),
        }
    }
}

fn compare(column: ColumnRef, op: Comparison, value: Option<&Value>, columns: &Columns) -> Result<Test, ActionError> {
    let wrong = |expected: &str| ActionError::new(format!("condition on '{}': expected {expected}", column.name()));
    match (op, value) {
        (Comparison::Missing | Comparison::Present, None) => Ok(Test::Compare(column, op, Operand::Nothing)),
        (Comparison::Missing | Comparison::Present, Some(_)) => Err(wrong("no value beside missing and present")),
        (Comparison::In, Some(Value::Array(values))) => {
            let operands = values.iter().map(|value| Operand::of(value, columns)).collect::<Result<_, _>>()?;
            Ok(Test::In(column, operands))
        }
        (Comparison::In, _) => Err(wrong("a list as the value of in")),
        (Comparison::Matches, Some(Value::String(pattern))) => {
            let regex = regex::RegexBuilder::new(pattern).size_limit(REGEX_MAX).build();
            let regex = regex.map_err(|error| wrong(&format!("a regular expression: {error}")))?;
            Ok(Test::Matches(column, regex))
        }
        (Comparison::Matches, _) => Err(wrong("a regular expression as the value of matches")),
        (Comparison::Contains | Comparison::StartsWith | Comparison::EndsWith, Some(Value::String(text))) => {
            Ok(Test::Compare(column, op, Operand::Text(text.clone())))
        }
        (Comparison::Contains | Comparison::StartsWith | Comparison::EndsWith, _) => Err(wrong("a text as the value")),
        (_, Some(value)) => {
            let operand = Operand::of(value, columns)?;
            Ok(Test::Compare(column, op, operand))
        }
        (_, None) => Err(wrong("a value")),
    }
}

impl Operand {
    fn of(value: &Value, columns: &Columns) -> Result<Self, ActionError> {
        match value {
            Value::Number(number) => Number::parse(&number.to_string())
                .map(Self::Number)
                .ok_or_else(|| ActionError::new(format!("{number} is out of range"))),
            Value::String(text) => Ok(Self::Text(text.clone())),
            Value::Bool(value) => Ok(Self::Bool(if *value { "true" } else { "false" })),
            Value::Object(object) => match (object.len(), object.get("column")) {
                (1, Some(Value::String(name))) => Ok(Self::Column(ColumnRef::new(name, columns)?)),
                _ => Err(ActionError::new("a value that is an object is {\"column\": name}")),
            },
            Value::Null => Err(ActionError::new("a value cannot be null: use missing or present")),
            Value::Array(_) => Err(ActionError::new("a list is for in only")),
        }
    }

    fn order(&mut self, cell: &Cell, columns: &Columns, row: &Row) -> Option<Ordering> {
        match self {
            Self::Number(number) => cell.number().map(|own| own.compare(*number)),
            Self::Text(text) => Some(cell.text.as_str().cmp(text)),
            Self::Bool(text) => {
                let is_bool =
                    matches!(cell.kind, Kind::Bool | Kind::Text) && matches!(cell.text.as_str(), "true" | "false");
                is_bool.then(|| cell.text.as_str().cmp(text))
            }
            Self::Column(other) => {
                let other = other.get(columns, row);
                if other.is_missing() {
                    return None;
                }
                match (cell.number(), other.number()) {
                    (Some(one), Some(two)) => Some(one.compare(two)),
                    _ => Some(cell.text.cmp(&other.text)),
                }
            }
            Self::Nothing => None,
        }
    }
}

impl Test {
    /// Whether it is true of this row.
    pub(super) fn holds(&mut self, columns: &Columns, row: &Row) -> bool {
        match self {
            Self::All(tests) => tests.iter_mut().all(|test| test.holds(columns, row)),
            Self::Any(tests) => tests.iter_mut().any(|test| test.holds(columns, row)),
            Self::Not(test) => !test.holds(columns, row),
            Self::Matches(column, regex) => {
                let cell = column.get(columns, row);
                !cell.is_missing() && regex.is_match(&cell.text)
            }
            Self::In(column, operands) => {
                let cell = column.get(columns, row);
                let equal = |operand: &mut Operand| operand.order(cell, columns, row) == Some(Ordering::Equal);
                !cell.is_missing() && operands.iter_mut().any(equal)
            }
            Self::Compare(column, op, operand) => {
                let cell = column.get(columns, row);
                holds(*op, cell, operand, columns, row)
            }
        }
    }
}

fn holds(op: Comparison, cell: &Cell, operand: &mut Operand, columns: &Columns, row: &Row) -> bool {
    match op {
        Comparison::Missing => return cell.is_missing(),
        Comparison::Present => return !cell.is_missing(),
        _ if cell.is_missing() => return false,
        _ => {}
    }
    if let Operand::Text(text) = &operand {
        match op {
            Comparison::Contains => return cell.text.contains(text.as_str()),
            Comparison::StartsWith => return cell.text.starts_with(text.as_str()),
            Comparison::EndsWith => return cell.text.ends_with(text.as_str()),
            _ => {}
        }
    }
    let order = operand.order(cell, columns, row);
    match op {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::Unequal => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::More => order == Some(Ordering::Greater),
        Comparison::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        // Made into tests of their own, or done above.
        Comparison::In
        | Comparison::Matches
        | Comparison::Contains
        | Comparison::StartsWith
        | Comparison::EndsWith
        | Comparison::Missing
        | Comparison::Present => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds_of(condition: Value, cells: &[(Kind, &str)]) -> bool {
        let condition: Condition = serde_json::from_value(condition).unwrap();
        condition.validate().unwrap();
        let columns = Columns::closed((0..cells.len()).map(|place| format!("c{place}"))).unwrap();
        let cells = cells.iter().map(|(kind, text)| Cell::new(*kind, *text)).collect();
        condition.ready(&columns).unwrap().holds(&columns, &Row { cells, ..Row::default() })
    }

    #[test]
    fn a_comparison_is_typed_by_its_value() {
        let text = |text: &'static str| [(Kind::Text, text)];
        for (op, value, cell, expected) in [
            ("<", json!(10), "9", true),
            ("<", json!("10"), "9", false),
            ("==", json!(1), "1.0", true),
            ("==", json!("1"), "1.0", false),
            ("!=", json!(1), "x", true),
            (">", json!(1), "x", false),
            ("!=", json!(1), "", false),
            ("==", json!(true), "true", true),
            ("in", json!([1, "b"]), "b", true),
            ("in", json!([1, "b"]), "c", false),
            ("matches", json!("^a.c$"), "abc", true),
            ("startsWith", json!("ab"), "abc", true),
            ("endsWith", json!("ab"), "abc", false),
            ("contains", json!("b"), "abc", true),
        ] {
            let condition = json!({"column": "c0", "op": op, "value": value});
            assert_eq!(holds_of(condition.clone(), &text(cell)), expected, "{condition} of {cell}");
        }
        assert!(holds_of(json!({"column": "c0", "op": "missing"}), &text("")));
        let larger = json!({"column": "c0", "op": ">", "value": {"column": "c1"}});
        assert!(holds_of(larger.clone(), &[(Kind::Text, "10"), (Kind::Number, "9")]));
        assert!(!holds_of(larger, &[(Kind::Text, "10"), (Kind::Null, "")]));
    }

    #[test]
    fn conditions_are_put_together() {
        let cells = [(Kind::Text, "5")];
        let more = |value: i32| json!({"column": "c0", "op": ">", "value": value});
        assert!(holds_of(json!({"all": [more(1), {"not": more(7)}]}), &cells));
        assert!(!holds_of(json!({"any": [more(7), more(8)]}), &cells));
        for wrong in [
            json!({}),
            json!({"all": [], "any": []}),
            json!({"column": "a"}),
            json!({"column": "a", "op": "=="}),
            json!({"column": "a", "op": "==", "value": null}),
            json!({"column": "a", "op": "matches", "value": "("}),
            json!({"column": "a", "op": "in", "value": 1}),
            json!({"column": "a", "op": "missing", "value": 1}),
        ] {
            let condition: Condition = serde_json::from_value(wrong.clone()).unwrap();
            assert!(condition.validate().is_err(), "{wrong}");
        }
    }
}
