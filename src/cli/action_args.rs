//! The options about a typed task, and the action that they come to.
//!
//! Deliberately absent: what the parameters of a type mean.

use std::io::Read;
use std::path::{Path, PathBuf};

use acode_worker::task::{Action, ActionType, Library, TaskSpec};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

use super::{CliError, values};

/// A typed task, in the place of a command or beside one.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ActionOptions {
    /// A type of action instead of a command; beside one, custom: the command finds the parameters in $ACODE_PARAMS
    #[arg(long = "type", value_name = "T", value_parser = type_parser())]
    pub kind: Option<ActionType>,
    /// Its parameters as JSON, or @FILE, or @- for standard input
    #[arg(long, value_name = "JSON", requires = "kind")]
    pub params: Option<String>,
    /// Which custom action, by its name
    #[arg(long, value_name = "NAME", requires = "kind")]
    pub action: Option<String>,
    /// The shared object that has it
    #[arg(long, value_name = "FILE", requires = "kind")]
    pub library: Option<PathBuf>,
    /// Look here first for what the library needs; may be given several times
    #[arg(long, value_name = "DIR", requires = "library")]
    pub library_path: Vec<PathBuf>,
    /// The worker program that does it; split like a shell would, without running one
    #[arg(long, value_name = "CMD", requires = "kind", value_parser = values::command)]
    pub program: Option<values::CommandLine>,
    /// Let its process run other actions too, before and after it
    #[arg(long, requires = "kind")]
    pub reuse: bool,
}

impl ActionOptions {
    /// The action, if one was asked for.
    ///
    /// # Errors
    /// The parameters cannot be read, or are no JSON.
    pub fn action(&self) -> Result<Option<Box<Action>>, CliError> {
        let Some(kind) = self.kind else { return Ok(None) };
        let library = match &self.library {
            None => None,
            Some(path) => Some(Library {
                path: super::submission::absolute(path)?,
                search_path: self
                    .library_path
                    .iter()
                    .map(|folder| super::submission::absolute(folder))
                    .collect::<Result<_, _>>()?,
            }),
        };
        let program = match &self.program {
            None => Vec::new(),
            Some(line) => super::submission::program(line.0.clone())?,
        };
        let params = self.params.as_deref().map(params).transpose()?.unwrap_or_default();
        Ok(Some(Box::new(Action { kind, name: self.action.clone(), params, library, program, reuse: self.reuse })))
    }
}

/// The parameters: JSON itself, or where it stands.
fn params(text: &str) -> Result<Value, CliError> {
    let file = |name: &str| CliError::Usage(format!("--params {text}: {name}"));
    let json = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some("-") => read(std::io::stdin().lock()).map_err(|why| file(&why))?,
        Some(path) => {
            let opened = std::fs::File::open(Path::new(path));
            let source = opened.map_err(|source| CliError::File { doing: format!("read {path}"), source })?;
            read(source).map_err(|why| file(&why))?
        }
    };
    serde_json::from_str(&json).map_err(|error| CliError::Usage(format!("--params: it is not JSON: {error}")))
}

fn read(source: impl Read) -> Result<String, String> {
    let mut text = String::new();
    let limit = TaskSpec::MAX_BYTES as u64;
    source.take(limit + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit { Err(format!("it is larger than {limit} bytes")) } else { Ok(text) }
}

fn type_parser() -> impl TypedValueParser<Value = ActionType> {
    PossibleValuesParser::new(ActionType::ALL.map(ActionType::name))
        .map(|name| ActionType::from_name(&name).unwrap_or_default())
}
