//! What a submitter hands over: a specification, and when and how often it shall run.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Action, TaskId, TaskSpec};

/// One entry of a submission: a task, or an array of tasks that differ in their item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Submission {
    /// What to do. In an array, `{item}`, `{name}`, `{stem}`, `{dir}` and `{index}` stand for the member's own.
    pub spec: TaskSpec,
    /// Makes this an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<Array>,
    /// Milliseconds from acceptance before which it does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// When it may start at the earliest, in microseconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_us: Option<u64>,
    /// When it must have started, in microseconds of Unix time: later it is cancelled instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_us: Option<u64>,
    /// It is held: not started before a person releases it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Its limit group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupWish>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// What it has in common with no other task that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

impl Submission {
    /// Its action; of an array that of the first member, which stands for all where parameters are checked.
    pub fn first_action(&self) -> Option<Cow<'_, Action>> {
        let action = self.spec.action.as_deref()?;
        let Some(item) = self.array.as_ref().and_then(Array::first_item) else { return Some(Cow::Borrowed(action)) };
        Some(Cow::Owned(action.member(&item, 0)))
    }
}

impl Action {
    /// The action of the array member with this item and place.
    #[must_use]
    pub fn member(&self, item: &str, index: u64) -> Self {
        Self { params: fill_json(&self.params, item, index), ..self.clone() }
    }
}

/// A text that among the tasks which have not ended stands for one; of an array, for the array.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Key {
    /// The text: 1 to [`Key::MAX_BYTES`] bytes.
    pub text: String,
    /// What becomes of a submission whose key is taken.
    #[serde(default)]
    pub if_exists: IfExists,
}

impl Key {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 256;
}

/// What becomes of a submission whose key is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IfExists {
    /// It is refused, with everything else in its request.
    #[default]
    Refuse,
    /// The task that has the key takes its place, and nothing is added.
    Existing,
}

impl IfExists {
    /// Both, in the order of the manual.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Existing];

    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Existing => "existing",
        }
    }
}

/// A limit group, of which so many tasks run at once at the most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupWish {
    /// Its name.
    pub name: String,
    /// Its limit from now on; as it is, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

impl GroupWish {
    /// The longest name, in bytes.
    pub const NAME_MAX: usize = 64;
    /// The largest limit.
    pub const LIMIT_MAX: u32 = 1_000_000;

    /// Checks name and limit.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=Self::NAME_MAX).contains(&self.name.len()) || !self.name.chars().all(fits) {
            let name = self.name.escape_debug();
            return Err(format!(
                "group '{name}': 1 to {} letters, digits, '-', '_' or '.' are expected",
                Self::NAME_MAX
            ));
        }
        match self.max {
            Some(max) if !(1..=Self::LIMIT_MAX).contains(&max) => {
                Err(format!("group {}: its limit is {max}: 1 to {} is expected", self.name, Self::LIMIT_MAX))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The members of an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Array {
    /// The numbers from `first`, `count` of them; a member's item is its number.
    Range {
        /// The first member's number.
        first: u64,
        /// How many members.
        count: u64,
    },
    /// One member for each text.
    Items(Vec<String>),
}

impl Array {
    /// The most members of one array.
    pub const MAX: u64 = 100_000_000;

    /// How many members the array has.
    pub fn len(&self) -> u64 {
        match self {
            Self::Range { count, .. } => *count,
            Self::Items(items) => items.len() as u64,
        }
    }

    /// The item of the first member, if there is one.
    pub fn first_item(&self) -> Option<String> {
        match self {
            Self::Range { count: 0, .. } => None,
            Self::Range { first, .. } => Some(first.to_string()),
            Self::Items(items) => items.first().cloned(),
        }
    }

    /// Whether the array has no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One task, or array, that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// What is waited for.
    pub on: Blocker,
    /// How it must end.
    #[serde(default)]
    pub when: DependencyKind,
}

/// How a submission names what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Blocker {
    /// A task or array that the queue has already.
    Id(TaskId),
    /// An earlier entry of the same request, by its place from 0.
    Entry(u32),
    /// A task that the queue has already, as people name it: `name:NAME`, a number, or the beginning of an id.
    Task(String),
}

/// How a blocker must end for its dependent to start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum DependencyKind {
    /// Completed; every member of an array.
    #[default]
    Succeeded = 0,
    /// Ended, in whatever way.
    Ended = 1,
    /// Ended without success; of an array, at least one member.
    Failed = 2,
}

impl DependencyKind {
    /// The kind with this stored number.
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::Succeeded, Self::Ended, Self::Failed].get(usize::from(value)).copied()
    }
}

/// Replaces the placeholders of an array member in `text`: `{item}` is the item, `{index}` its place from 0, and
/// `{name}`, `{stem}` and `{dir}` are file name, file name without its last extension, and directory of the item
/// taken as a path. `{{` and `}}` stand for the braces themselves; anything else in braces stays as it is.
pub fn fill_placeholders(text: &str, item: &str, index: u64) -> String {
    if !text.contains(['{', '}']) {
        return text.to_owned();
    }
    let path = std::path::Path::new(item);
    let lossy = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let mut filled = String::with_capacity(text.len() + item.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let known: [(&str, &dyn Fn() -> String); 7] = [
            ("{{", &|| "{".to_owned()),
            ("}}", &|| "}".to_owned()),
            ("{item}", &|| item.to_owned()),
            ("{index}", &|| index.to_string()),
            ("{name}", &|| lossy(path.file_name())),
            ("{stem}", &|| lossy(path.file_stem())),
            ("{dir}", &|| match path.parent().map(|p| p.to_string_lossy().into_owned()) {
                Some(dir) if !dir.is_empty() => dir,
                _ => ".".to_owned(),
            }),
        ];
        match known.iter().find(|(placeholder, _)| rest.starts_with(placeholder)) {
            Some((placeholder, value)) => {
                filled.push_str(&value());
                rest = &rest[placeholder.len()..];
            }
            None => {
                filled.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// The same in every text of a JSON value. A text that is `{#item}` or `{#index}` alone becomes that number, if it is one.
fn fill_json(value: &Value, item: &str, index: u64) -> Value {
    let number = |text: &str| text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
    match value {
        Value::String(text) if text == "{#index}" => index.into(),
        Value::String(text) if text == "{#item}" => number(item).unwrap_or_else(|_| item.into()),
        Value::String(text) => fill_placeholders(text, item, index).into(),
        Value::Array(items) => items.iter().map(|value| fill_json(value, item, index)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), fill_json(value, item, index))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

impl TaskSpec {
    /// The specification of the array member with this item and place: every text with its placeholders filled.
    #[must_use]
    pub fn member(&self, item: &str, index: u64) -> Self {
        let fill = |text: &String| fill_placeholders(text, item, index);
        let values = |map: &super::Env| map.iter().map(|(k, v)| (k.clone(), fill(v))).collect();
        Self {
            name: self.name.as_ref().map(fill),
            command: self.command.iter().map(fill).collect(),
            cwd: self.cwd.as_ref().map(fill),
            env: values(&self.env),
            meta: values(&self.meta),
            stdin: self.stdin.as_ref().map(fill),
            action: self.action.as_ref().map(|action| Box::new(action.member(item, index))),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_from_the_item() {
        let fill = |text| fill_placeholders(text, "/a/b/c.tar.gz", 7);
        assert_eq!(fill("{item}|{name}|{stem}|{dir}|{index}"), "/a/b/c.tar.gz|c.tar.gz|c.tar|/a/b|7");
        assert_eq!(fill("{{item}} {other} }"), "{item} {other} }");
        assert_eq!(fill_placeholders("{dir}", "plain", 0), ".");
    }

    #[test]
    fn parameters_are_filled_in_their_texts_and_with_numbers_where_asked_for() {
        let params = serde_json::json!({ "a": ["{name}", 1], "n": "{#item}", "i": "{#index}", "t": "{item}" });
        assert_eq!(fill_json(&params, "12", 3), serde_json::json!({ "a": ["12", 1], "n": 12, "i": 3, "t": "12" }));
        assert_eq!(fill_json(&"{#item}".into(), "/x", 0), "/x");
    }
}
