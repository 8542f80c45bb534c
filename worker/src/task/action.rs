//! Typed tasks: an action by its type and parameters, in the place of a command.
//!
//! Pure data. Deliberately absent: what the parameters of a type mean, which is `actions`' to know, and how an action is
//! run, which is `execute`'s.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::SpecError;

/// What kind of work an action is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionType {
    /// Tables in CSV and JSON Lines: selected, filtered, converted, sorted, joined.
    DataProcessing,
    /// Pictures: resized, cropped, rotated, converted.
    ImageManipulation,
    /// Files compressed and decompressed.
    Compression,
    /// Files encrypted and decrypted.
    Encryption,
    /// Tables described in figures.
    Analysis,
    /// Numbers computed.
    Computation,
    /// Files summed up, verified, copied, counted, searched.
    FileIo,
    /// The user's own work, by its name.
    #[default]
    Custom,
}

impl ActionType {
    /// All of them, as the manual lists them.
    pub const ALL: [Self; 8] = [
        Self::DataProcessing,
        Self::ImageManipulation,
        Self::Compression,
        Self::Encryption,
        Self::Analysis,
        Self::Computation,
        Self::FileIo,
        Self::Custom,
    ];

    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataProcessing => "data_processing",
            Self::ImageManipulation => "image_manipulation",
            Self::Compression => "compression",
            Self::Encryption => "encryption",
            Self::Analysis => "analysis",
            Self::Computation => "computation",
            Self::FileIo => "file_io",
            Self::Custom => "custom",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Display for ActionType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One action with its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Action {
    /// What kind of work it is.
    #[serde(rename = "type")]
    pub kind: ActionType,
    /// Which of the user's own actions; for `custom` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is to do: a JSON value whose form its type knows.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// The shared object that has it; for `custom` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<Library>,
    /// Program and arguments of the worker program that does it; for `custom` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "not_empty")]
    pub program: Vec<String>,
    /// Whether the process that runs it may have run others before it, and will run others after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse: bool,
}

/// A command line that is there. Whoever means none leaves it out; an empty one is a mistake of whoever puts it together.
fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Vec::deserialize(deserializer)? {
        words if words.is_empty() => Err(D::Error::custom("program is empty: name a program to run, or leave it out")),
        words => Ok(words),
    }
}

/// A shared object with actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Library {
    /// Its file: an absolute path.
    pub path: String,
    /// Folders in which the libraries that it needs are looked for first: absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search_path: Vec<String>,
}

impl Action {
    /// The longest name of an action, in bytes.
    pub const NAME_MAX: usize = 256;
    /// The most folders of a library's search path.
    pub const SEARCH_PATH_MAX: usize = 32;

    /// What people call it: its own name, else its type's.
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }

    /// What it is told: whoever is told nothing is told an empty object.
    pub fn told(&self) -> Cow<'_, Value> {
        match &self.params {
            Value::Null => Cow::Owned(Value::Object(serde_json::Map::new())),
            params => Cow::Borrowed(params),
        }
    }

    /// Checks what the types cannot. `has_command` says whether a command is beside it.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self, has_command: bool) -> Result<(), SpecError> {
        let own = self.name.is_some() || self.library.is_some() || !self.program.is_empty() || has_command;
        if self.kind != ActionType::Custom && own {
            let other = match (&self.name, &self.library, has_command) {
                (Some(_), _, _) => "action.name",
                (None, Some(_), _) => "action.library",
                (None, None, true) => "command",
                (None, None, false) => "action.program",
            };
            return Err(SpecError::Exclusive { one: "a built-in action type", other });
        }
        if self.library.is_some() && !self.program.is_empty() {
            return Err(SpecError::Exclusive { one: "action.library", other: "action.program" });
        }
        if has_command && (self.library.is_some() || !self.program.is_empty() || self.name.is_some() || self.reuse) {
            return Err(SpecError::Exclusive { one: "command", other: "an action's name, library, program or reuse" });
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > Self::NAME_MAX) {
            let value = format!("'{}'", self.name.as_deref().unwrap_or_default());
            return Err(SpecError::OutOfRange { field: "action.name", value, expected: "a name of 1 to 256 bytes" });
        }
        self.library.as_ref().map_or(Ok(()), Library::validate)?;
        if self.program.first().is_some_and(String::is_empty) {
            let value = "''".to_owned();
            return Err(SpecError::OutOfRange { field: "action.program", value, expected: "a program's name or path" });
        }
        let texts = self.program.iter().map(|word| ("action.program", word));
        match texts.chain(self.name.iter().map(|name| ("action.name", name))).find(|(_, text)| text.contains('\0')) {
            Some((field, _)) => Err(SpecError::Nul(field.to_owned())),
            None => Ok(()),
        }
    }
}

impl Library {
    fn validate(&self) -> Result<(), SpecError> {
        let paths = std::iter::once(("action.library.path", &self.path))
            .chain(self.search_path.iter().map(|path| ("action.library.searchPath", path)));
        for (field, path) in paths {
            if !path.starts_with('/') {
                return Err(SpecError::RelativePath { field, path: path.clone() });
            }
            if path.contains('\0') {
                return Err(SpecError::Nul(field.to_owned()));
            }
        }
        if self.search_path.len() > Action::SEARCH_PATH_MAX {
            let value = format!("{} folders", self.search_path.len());
            return Err(SpecError::OutOfRange { field: "action.library.searchPath", value, expected: "at most 32" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_what_its_name_says() {
        for kind in ActionType::ALL {
            assert_eq!(ActionType::from_name(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn what_belongs_to_custom_actions_is_refused_for_others() {
        let action = |json: &str| serde_json::from_str::<Action>(json).unwrap();
        assert!(action(r#"{"type":"compression","params":{}}"#).validate(false).is_ok());
        assert!(action(r#"{"type":"compression","name":"x"}"#).validate(false).is_err());
        assert!(action(r#"{"type":"compression"}"#).validate(true).is_err());
        assert!(action(r#"{"type":"custom","params":[1]}"#).validate(true).is_ok());
        assert!(action(r#"{"type":"custom","library":{"path":"x.so"}}"#).validate(false).is_err());
        assert!(serde_json::from_str::<Action>(r#"{"type":"custom","nmae":"x"}"#).is_err());
        assert!(serde_json::from_str::<Action>(r#"{"type":"custom","program":[]}"#).is_err());
    }
}
