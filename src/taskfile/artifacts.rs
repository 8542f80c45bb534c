//! The key `artifacts` of a task: one pattern, or a list of them.

use acode_worker::task::validate_patterns;

use crate::tree::{Fault, Node, Value};

/// Reads it; `none` takes a default back.
pub(super) fn read(node: &Node<'_>) -> Result<Vec<String>, Fault> {
    let one = |node: &Node<'_>| {
        let pattern = node.as_text("artifacts")?.to_owned();
        validate_patterns(std::slice::from_ref(&pattern)).map_err(|error| Fault::other(node.at, error.to_string()))?;
        Ok(pattern)
    };
    match &node.value {
        Value::List(items) => items.iter().map(one).collect(),
        Value::Scalar(_) if super::schema::is_none(node) => Ok(Vec::new()),
        Value::Scalar(_) => Ok(vec![one(node)?]),
        Value::Map(_) => Err(node.wrong_type("artifacts", "a pattern or a list of patterns")),
    }
}
