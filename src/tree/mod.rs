//! A document as a tree that knows where every key and value stands.
//!
//! The configuration and the task files are read into this tree first and into types second, so that a mistake is
//! told with its line, its column and the nearest right key, in the same words for both. Scalars keep their text as
//! written: `1.50`, `077` and `yes` are what the person typed until a key says what it wants. Deliberately absent:
//! what any key means; that is known to the callers alone.

mod fault;
mod parse;

pub use fault::{At, Fault, FaultKind, nearest};
pub use parse::{NODES_MAX, from_json, from_yaml};

use std::borrow::Cow;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    /// Where it stands.
    pub at: At,
    /// What it is.
    pub value: Value<'a>,
    /// Where its text stands in the document: first byte and length in bytes. Only for the parser's own use.
    range: Option<(usize, usize)>,
}

/// What a document can hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A single value.
    Scalar(Scalar<'a>),
    /// A sequence.
    List(Vec<Node<'a>>),
    /// A mapping, in the order written.
    Map(Vec<Entry<'a>>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// Where the key stands.
    pub at: At,
    /// The key.
    pub key: Cow<'a, str>,
    /// The value.
    pub node: Node<'a>,
}

/// A single value: its text and what the format takes it for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar<'a> {
    /// The text as written, without quotes. Absent where the parser gave only a number and not how it was spelled.
    pub text: Option<Cow<'a, str>>,
    /// What the format takes it for.
    pub kind: ScalarKind,
}

/// What the format takes a scalar for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScalarKind {
    /// Nothing: `null`, `~` or an empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Whole(u64),
    /// Any other number.
    Real(f64),
    /// A text, quoted or not.
    Text,
}

impl<'a> Node<'a> {
    /// A value that does not come from a document.
    pub fn new(value: Value<'a>) -> Self {
        Self { at: At::NOWHERE, value, range: None }
    }

    /// A text that does not come from a document.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(Value::Scalar(Scalar { text: Some(text.into()), kind: ScalarKind::Text }))
    }

    /// A text that does not come from a document, taken for what it looks like: a number, a truth value or a text.
    pub fn plain(text: &'a str) -> Self {
        let kind = match (text, text.parse::<u64>(), text.parse::<f64>()) {
            ("", ..) => ScalarKind::Null,
            ("true" | "false", ..) => ScalarKind::Bool(text == "true"),
            (_, Ok(whole), _) => ScalarKind::Whole(whole),
            (_, _, Ok(real)) if real.is_finite() => ScalarKind::Real(real),
            (..) => ScalarKind::Text,
        };
        Self::new(Value::Scalar(Scalar { text: Some(Cow::Borrowed(text)), kind }))
    }

    /// Whether nothing was given: a key without a value.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(Scalar { kind: ScalarKind::Null, .. }))
    }

    /// The entries, if this is a mapping. A key without a value is an empty one: people comment entries out.
    ///
    /// # Errors
    /// It is something else.
    pub fn entries(&self, key: &str) -> Result<&[Entry<'a>], Fault> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            Value::Scalar(Scalar { kind: ScalarKind::Null, .. }) => Ok(&[]),
            Value::Scalar(_) | Value::List(_) => Err(self.wrong_type(key, "a mapping")),
        }
    }

    /// The items, if this is a list. A key without a value is an empty one.
    ///
    /// # Errors
    /// It is something else.
    pub fn items(&self, key: &str) -> Result<&[Node<'a>], Fault> {
        match &self.value {
            Value::List(items) => Ok(items),
            Value::Scalar(Scalar { kind: ScalarKind::Null, .. }) => Ok(&[]),
            Value::Scalar(_) | Value::Map(_) => Err(self.wrong_type(key, "a list")),
        }
    }

    /// The text of a scalar as it was written; of a number too, because `sleep 10` is meant as it looks.
    ///
    /// # Errors
    /// It is a list, a mapping, nothing, or a number whose spelling is not known.
    pub fn as_text(&self, key: &str) -> Result<&str, Fault> {
        match &self.value {
            Value::Scalar(Scalar { kind: ScalarKind::Null, .. }) | Value::List(_) | Value::Map(_) => {
                Err(self.wrong_type(key, "a text"))
            }
            Value::Scalar(Scalar { text: Some(text), .. }) => Ok(text),
            Value::Scalar(Scalar { text: None, .. }) => Err(self.wrong_type(key, "a text in quotes")),
        }
    }

    /// The whole number, from 0.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_whole(&self, key: &str) -> Result<u64, Fault> {
        match &self.value {
            Value::Scalar(Scalar { kind: ScalarKind::Whole(number), .. }) => Ok(*number),
            Value::Scalar(Scalar { kind: ScalarKind::Real(_), .. }) => {
                Err(self.wrong_type(key, "a whole number, 0 or more,"))
            }
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => Err(self.wrong_type(key, "a whole number")),
        }
    }

    /// The number.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_real(&self, key: &str) -> Result<f64, Fault> {
        match &self.value {
            Value::Scalar(Scalar { kind: ScalarKind::Whole(number), .. }) => Ok(*number as f64),
            Value::Scalar(Scalar { kind: ScalarKind::Real(number), .. }) => Ok(*number),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => Err(self.wrong_type(key, "a number")),
        }
    }

    /// The truth value.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_bool(&self, key: &str) -> Result<bool, Fault> {
        match &self.value {
            Value::Scalar(Scalar { kind: ScalarKind::Bool(truth), .. }) => Ok(*truth),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => Err(self.wrong_type(key, "true or false")),
        }
    }

    /// The fault that `key` holds this where `expected` should be.
    pub fn wrong_type(&self, key: &str, expected: &str) -> Fault {
        let found = self.describe();
        Fault::new(self.at, FaultKind::WrongType { key: key.to_owned(), found, expected: expected.to_owned() })
    }

    /// The fault that the value of `key`, of the right type, is not one of those allowed.
    pub fn refused(&self, key: &str, expected: &str) -> Fault {
        let value = self.shown();
        Fault::new(self.at, FaultKind::OutOfRange { key: key.to_owned(), value, expected: expected.to_owned() })
    }

    /// What this is, in words, for a message.
    fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
            Value::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => "empty".to_owned(),
                ScalarKind::Bool(truth) => truth.to_string(),
                ScalarKind::Whole(_) | ScalarKind::Real(_) => format!("the number {}", self.shown()),
                ScalarKind::Text => format!("the text '{}'", self.shown()),
            },
        }
    }

    /// The value as a message shows it: as written, but never longer than a line can bear.
    fn shown(&self) -> String {
        const SHOWN_CHARS: usize = 60;
        let whole = match &self.value {
            Value::List(_) | Value::Map(_) => return self.describe(),
            Value::Scalar(Scalar { text: Some(text), .. }) => text.as_ref(),
            Value::Scalar(Scalar { kind: ScalarKind::Real(number), .. }) => return number.to_string(),
            Value::Scalar(_) => "",
        };
        let mut shown: String = whole.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
        if whole.chars().nth(SHOWN_CHARS).is_some() {
            shown.push('…');
        }
        shown
    }
}
