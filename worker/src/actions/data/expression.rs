//! The values that `map` gives a column: constants, other columns, arithmetic, and a little text.
//!
//! A number or a text stands for itself, and an object of one key for an operation: `{"add": [{"column": "a"}, 1]}`. What is computed
//! with something missing is missing, as is what is divided by nothing. Deliberately absent: loops, functions of one's
//! own, dates.

use serde_json::{Map, Value};

use super::super::error::ActionError;
use super::super::table::{Cell, ColumnRef, Columns, Kind, Number, Row};
use super::condition::{Condition, Test};

const DEPTH_MAX: usize = 32;
const DIGITS_MAX: i64 = 15;

/// An expression made ready for the columns of one table.
pub(super) enum Expression {
    Constant(Cell),
    Column(ColumnRef),
    Arithmetic(Operator, Vec<Expression>),
    Round(Box<Expression>, i32),
    Text(TextOperator, Box<Expression>),
    Concat(Vec<Expression>),
    Coalesce(Vec<Expression>),
    If(Box<(Test, Expression, Expression)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextOperator {
    Upper,
    Lower,
    Trim,
    Length,
}

fn wrong(words: impl Into<String>) -> ActionError {
    ActionError::new(words)
}

impl Expression {
    /// Checks what can be without a table.
    pub(super) fn validate(value: &Value) -> Result<(), String> {
        Self::ready(value, &Columns::open()).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Makes it ready.
    pub(super) fn ready(value: &Value, columns: &Columns) -> Result<Self, ActionError> {
        Self::read(value, columns, DEPTH_MAX)
    }

    fn read(value: &Value, columns: &Columns, depth: usize) -> Result<Self, ActionError> {
        let deeper = depth.checked_sub(1).ok_or_else(|| wrong("expressions go too deep"))?;
        let object = match value {
            Value::Object(object) => object,
            Value::Array(_) => return Err(wrong("a list is no expression: {\"value\": [..]} is the list itself")),
            constant => return Ok(Self::Constant(Cell::from_json(constant))),
        };
        if object.contains_key("if") {
            return Self::read_if(object, columns, deeper);
        }
        let (Some((name, inner)), 1) = (object.iter().next(), object.len()) else {
            return Err(wrong("an expression that is an object has one key, its operation"));
        };
        let one = || Self::read(inner, columns, deeper).map(Box::new);
        let list = |least: usize, most: usize| {
            let list = inner.as_array().filter(|list| (least..=most).contains(&list.len()));
            let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
            let list = list.ok_or_else(|| wrong(format!("{name} takes a list of {count} expressions")))?;
            list.iter().map(|each| Self::read(each, columns, deeper)).collect::<Result<Vec<_>, _>>()
        };
        match name.as_str() {
            "value" => Ok(Self::Constant(Cell::from_json(inner))),
            "column" => {
                let column = inner.as_str().ok_or_else(|| wrong("column takes a name"))?;
                Ok(Self::Column(ColumnRef::new(column, columns)?))
            }
            "add" => Ok(Self::Arithmetic(Operator::Add, list(2, 100)?)),
            "subtract" => Ok(Self::Arithmetic(Operator::Subtract, list(2, 2)?)),
            "multiply" => Ok(Self::Arithmetic(Operator::Multiply, list(2, 100)?)),
            "divide" => Ok(Self::Arithmetic(Operator::Divide, list(2, 2)?)),
            "remainder" => Ok(Self::Arithmetic(Operator::Remainder, list(2, 2)?)),
            "round" => match inner.as_array().map(Vec::as_slice) {
                Some([inner, digits]) => {
                    let digits = digits.as_i64().filter(|digits| (0..=DIGITS_MAX).contains(digits));
                    let digits = digits.ok_or_else(|| wrong("round takes 0 to 15 digits"))?;
                    Ok(Self::Round(Box::new(Self::read(inner, columns, deeper)?), digits as i32))
                }
                Some(_) => Err(wrong("round takes an expression, or a list of one and a number of digits")),
                None => Ok(Self::Round(one()?, 0)),
            },
            "upper" => Ok(Self::Text(TextOperator::Upper, one()?)),
            "lower" => Ok(Self::Text(TextOperator::Lower, one()?)),
            "trim" => Ok(Self::Text(TextOperator::Trim, one()?)),
            "length" => Ok(Self::Text(TextOperator::Length, one()?)),
            "concat" => Ok(Self::Concat(list(1, 100)?)),
            "coalesce" => Ok(Self::Coalesce(list(1, 100)?)),
            other => Err(wrong(format!(
                "there is no operation '{other}': there are value, column, add, subtract, multiply, divide, remainder, \
                 round, upper, lower, trim, length, concat, coalesce, if"
            ))),
        }
    }

    fn read_if(object: &Map<String, Value>, columns: &Columns, depth: usize) -> Result<Self, ActionError> {
        let known = |key: &String| matches!(key.as_str(), "if" | "then" | "else");
        let (Some(condition), Some(then), true) = (object.get("if"), object.get("then"), object.keys().all(known))
        else {
            return Err(wrong("an if takes then, and may take else"));
        };
        let condition: Condition = serde::Deserialize::deserialize(condition)?;
        let test = condition.ready(columns)?;
        let then = Self::read(then, columns, depth)?;
        let other =
            object.get("else").map_or(Ok(Self::Constant(Cell::NULL)), |other| Self::read(other, columns, depth));
        Ok(Self::If(Box::new((test, then, other?))))
    }

    /// Its value in this row.
    ///
    /// # Errors
    /// Something in arithmetic is no number: the words for it.
    pub(super) fn value(&mut self, columns: &Columns, row: &Row) -> Result<Cell, String> {
        match self {
            Self::Constant(cell) => Ok(cell.clone()),
            Self::Column(column) => Ok(column.get(columns, row).clone()),
            Self::Arithmetic(operator, operands) => {
                let mut so_far: Option<Number> = None;
                for operand in operands {
                    let Some(number) = number(operand, columns, row)? else { return Ok(Cell::NULL) };
                    so_far = match so_far {
                        None => Some(number),
                        Some(left) => match operator.apply(left, number) {
                            None => return Ok(Cell::NULL),
                            result => result,
                        },
                    };
                }
                Ok(so_far.map_or(Cell::NULL, |number| Cell::new(Kind::Number, number.text())))
            }
            Self::Round(inner, digits) => Ok(match number(inner, columns, row)? {
                None => Cell::NULL,
                Some(Number::Real(real)) => {
                    let scale = 10f64.powi(*digits);
                    let scaled = real * scale;
                    // Of a number so large no digit is left to be cut.
                    let rounded = if scaled.abs() < 1e15 { scaled.round() / scale } else { real };
                    Cell::new(Kind::Number, Number::Real(rounded).text())
                }
                Some(whole) => Cell::new(Kind::Number, whole.text()),
            }),
            Self::Text(operator, inner) => {
                let cell = inner.value(columns, row)?;
                if cell.is_missing() && *operator != TextOperator::Length {
                    return Ok(cell);
                }
                Ok(match operator {
                    TextOperator::Upper => Cell::new(Kind::Text, cell.text.to_uppercase()),
                    TextOperator::Lower => Cell::new(Kind::Text, cell.text.to_lowercase()),
                    TextOperator::Trim => Cell::new(Kind::Text, cell.text.trim()),
                    TextOperator::Length => Cell::new(Kind::Number, cell.text.chars().count().to_string()),
                })
            }
            Self::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    text.push_str(&part.value(columns, row)?.text);
                }
                Ok(Cell::new(Kind::Text, text))
            }
            Self::Coalesce(parts) => {
                for part in parts {
                    let cell = part.value(columns, row)?;
                    if !cell.is_missing() {
                        return Ok(cell);
                    }
                }
                Ok(Cell::NULL)
            }
            Self::If(parts) => {
                let (test, then, other) = &mut **parts;
                if test.holds(columns, row) { then.value(columns, row) } else { other.value(columns, row) }
            }
        }
    }
}

/// The number that an expression is; none if it is missing.
fn number(expression: &mut Expression, columns: &Columns, row: &Row) -> Result<Option<Number>, String> {
    let cell = match expression {
        Expression::Column(column) => {
            let cell = column.get(columns, row);
            let number = cell.number();
            if number.is_none() && !cell.is_missing() {
                return Err(format!("column '{}' is no number: '{}'", column.name(), shown(&cell.text)));
            }
            return Ok(number);
        }
        expression => expression.value(columns, row)?,
    };
    match cell.number() {
        None if !cell.is_missing() => Err(format!("'{}' is no number", shown(&cell.text))),
        number => Ok(number),
    }
}

/// As much of a text as an error should show.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl Operator {
    /// Exact for whole numbers as long as 64 bits hold the result; floating point else.
    fn apply(self, left: Number, right: Number) -> Option<Number> {
        if let (Number::Whole(left), Number::Whole(right)) = (left, right) {
            let exact = match self {
                Self::Add => left.checked_add(right),
                Self::Subtract => left.checked_sub(right),
                Self::Multiply => left.checked_mul(right),
                Self::Divide => left.checked_div(right).filter(|result| result.checked_mul(right) == Some(left)),
                Self::Remainder => left.checked_rem(right),
            };
            if let Some(exact) = exact {
                return Some(Number::Whole(exact));
            }
        }
        let (left, right) = (left.real(), right.real());
        Number::from_real(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(expression: Value) -> Result<Cell, String> {
        let columns = Columns::closed(["a", "b", "none", "word"].map(str::to_owned)).unwrap();
        let cells = ["7", "2.5", "", "Öl"].iter().map(|text| Cell::new(Kind::Text, *text)).collect();
        Expression::validate(&expression)?;
        let mut ready = Expression::ready(&expression, &columns).map_err(|error| error.to_string())?;
        ready.value(&columns, &Row { cells, ..Row::default() })
    }

    #[test]
    fn values_are_computed() {
        let a = json!({"column": "a"});
        for (expression, text) in [
            (json!({"add": [a, 1, {"column": "b"}]}), "10.5"),
            (json!({"subtract": [a, 10]}), "-3"),
            (json!({"multiply": [a, 9_000_000_000_000_000_000_i64]}), "6.3e+19"),
            (json!({"divide": [a, 2]}), "3.5"),
            (json!({"divide": [a, 7]}), "1"),
            (json!({"divide": [a, 0]}), ""),
            (json!({"remainder": [a, 4]}), "3"),
            (json!({"round": {"divide": [a, 3]}}), "2"),
            (json!({"round": [{"divide": [a, 3]}, 2]}), "2.33"),
            (json!({"add": [a, {"column": "none"}]}), ""),
            (json!({"coalesce": [{"column": "none"}, "x"]}), "x"),
            (json!({"concat": [{"upper": {"column": "word"}}, "-", a]}), "ÖL-7"),
            (json!({"length": {"column": "word"}}), "2"),
            (json!({"if": {"column": "a", "op": ">", "value": 5}, "then": "big", "else": "small"}), "big"),
            (json!({"value": [1, 2]}), "[1,2]"),
        ] {
            assert_eq!(of(expression.clone()).unwrap().text, text, "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_computed_says_why() {
        assert_eq!(of(json!({"add": [{"column": "word"}, 1]})).unwrap_err(), "column 'word' is no number: 'Öl'");
        for (expression, words) in [
            (json!({"power": [1, 2]}), "no operation 'power'"),
            (json!({"column": "x"}), "no column 'x'"),
            (json!({"add": [1]}), "add takes a list of 2 to 100 expressions"),
            (json!({"subtract": [3, 2, 1]}), "subtract takes a list of 2 expressions"),
            (json!({"concat": "a"}), "concat takes a list of 1 to 100 expressions"),
            (json!({"add": [1, 2], "subtract": [1, 2]}), "one key"),
            (json!([1]), "no expression"),
            (json!({"if": {"column": "a", "op": "missing"}}), "then"),
        ] {
            assert!(of(expression.clone()).unwrap_err().contains(words), "{expression}");
        }
    }
}
