//! A typed task: `type`, `params` and what belongs to them, from the tree to an action.
//!
//! Deliberately absent: what the parameters of a type mean. The built-in types know, and are asked; of others it is known
//! where the task is submitted, or run.

use std::path::Path;

use acode_worker::task::{Action, ActionType, Array, Library, Submission, TaskSpec};
use serde_json::{Map, Number, Value as Json};

use super::schema::Base;
use super::{expand, schema, start};
use crate::tree::{Entry, Fault, Node, Scalar, ScalarKind, Value};

/// The keys of a typed task.
pub(super) const KEYS: [&str; 7] = ["type", "params", "action", "library", "libraryPath", "program", "reuse"];

/// Takes one of [`KEYS`] into the specification. The paths are made absolute by [`finish`].
pub(super) fn read(spec: &mut TaskSpec, entry: &Entry<'_>) -> Result<(), Fault> {
    let node = &entry.node;
    let action = spec.action.get_or_insert_default();
    match entry.key.as_ref() {
        "type" => action.kind = kind(node)?,
        "params" => action.params = json(node)?,
        "action" => action.name = Some(node.as_text("action")?.to_owned()),
        "library" => library(action).path = node.as_text("library")?.to_owned(),
        "libraryPath" => library(action).search_path = folders(node)?,
        "program" => {
            action.program = schema::command(node, "program")?;
            if action.program.is_empty() {
                return Err(Fault::other(node.at, "program is empty: name a program to run"));
            }
        }
        "reuse" => action.reuse = node.as_bool("reuse")?,
        // Whoever calls this has looked at the keys.
        _ => {}
    }
    Ok(())
}

/// Checks what needs all of its keys, and makes its paths absolute. `entries` are the task's.
pub(super) fn finish(spec: &mut TaskSpec, entries: &[Entry<'_>], folder: &Path) -> Result<(), Fault> {
    let Some(action) = &mut spec.action else { return Ok(()) };
    let first = entries.iter().find(|entry| KEYS.contains(&entry.key.as_ref()));
    if let Some(first) = first.filter(|_| !entries.iter().any(|entry| entry.key == "type")) {
        let words = format!("{} belongs to a typed task, and there is no type", first.key);
        return Err(Fault::other(first.at, words));
    }
    let at =
        |key: &str| entries.iter().find(|entry| entry.key == key).map_or(Default::default(), |entry| entry.node.at);
    if let Some(library) = &mut action.library {
        if library.path.is_empty() {
            return Err(Fault::other(at("libraryPath"), "libraryPath belongs to a library, and there is none"));
        }
        for (key, path) in std::iter::once(("library", &mut library.path))
            .chain(library.search_path.iter_mut().map(|path| ("libraryPath", path)))
        {
            let absolute = expand::absolute(path, folder, &[]);
            *path = absolute.map_err(|words| Fault::other(at(key), words))?;
        }
    }
    if let Some(program) = action.program.first_mut().filter(|program| program.contains('/')) {
        *program = expand::absolute(program, folder, &[]).map_err(|words| Fault::other(at("program"), words))?;
    }
    Ok(())
}

/// Checks the parameters of a task that is right otherwise, and settles where their relative paths start. `entries` are the
/// task's.
pub(super) fn settle(submission: &mut Submission, entries: &[Entry<'_>], base: &Base) -> Result<(), Fault> {
    let find = |key: &str| entries.iter().find(|entry| entry.key == key);
    let at = || find("params").map(|entry| entry.node.at).or(find("type").map(|entry| entry.at)).unwrap_or_default();
    // An array without members has none whose parameters could be looked at.
    let is_empty = submission.array.as_ref().is_some_and(Array::is_empty);
    if let Some(action) = submission.first_action().filter(|action| !is_empty && action.kind != ActionType::Custom) {
        base.actions.check(&action).map_err(|error| Fault::other(at(), error.to_string()))?;
    }
    start::place_params(submission, &base.folder).map_err(|words| Fault::other(at(), words))
}

fn library(action: &mut Action) -> &mut Library {
    action.library.get_or_insert_default()
}

fn kind(node: &Node<'_>) -> Result<ActionType, Fault> {
    let found = ActionType::from_name(node.as_text("type")?);
    found.ok_or_else(|| node.refused("type", &ActionType::ALL.map(ActionType::name).join(", ")))
}

fn folders(node: &Node<'_>) -> Result<Vec<String>, Fault> {
    match &node.value {
        Value::Scalar(_) => Ok(vec![node.as_text("libraryPath")?.to_owned()]),
        Value::List(_) | Value::Map(_) => {
            node.items("libraryPath")?.iter().map(|item| item.as_text("libraryPath").map(str::to_owned)).collect()
        }
    }
}

/// Any value as JSON.
fn json(node: &Node<'_>) -> Result<Json, Fault> {
    Ok(match &node.value {
        Value::Scalar(scalar) => one(scalar).ok_or_else(|| node.wrong_type("params", "a number that JSON can have"))?,
        Value::List(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Map(entries) => {
            let pair = |entry: &Entry<'_>| Ok((entry.key.clone().into_owned(), json(&entry.node)?));
            Json::Object(entries.iter().map(pair).collect::<Result<Map<_, _>, Fault>>()?)
        }
    })
}

fn one(scalar: &Scalar<'_>) -> Option<Json> {
    let text = || scalar.text.as_deref();
    Some(match scalar.kind {
        ScalarKind::Null => Json::Null,
        ScalarKind::Bool(truth) => truth.into(),
        ScalarKind::Whole(whole) => whole.into(),
        // A negative whole number is a real one here, and would become one that no integer is read from.
        ScalarKind::Real(real) => match text().and_then(|text| text.parse::<i64>().ok()) {
            Some(whole) => whole.into(),
            None => Json::Number(Number::from_f64(real)?),
        },
        ScalarKind::Text => text()?.into(),
    })
}
