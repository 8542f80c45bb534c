//! Files summed up, verified, copied, counted and searched: one file, or all of a tree in a fixed order.
//!
//! Contents go by in pieces, and a tree entry by entry: memory does not go with either. What is no regular file is left
//! out, and no link below the path that was given is followed. Deliberately absent: whatever removes files.

mod checksum;
mod copy;
mod count;
mod list;
mod search;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::checksum::Done as Summed;
pub use self::copy::Done as Copied;
pub use self::count::{Counts, Done as Counted};
pub use self::list::Algorithm;
pub use self::search::Done as Found;
pub use self::verify::Done as Verified;
use super::files::{check_path, check_paths};
use super::{ActionError, Context, WorkAction};

/// The built-in action.
pub struct FileIo;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Params {
    /// Sums up.
    Checksum(Checksum),
    /// Verifies a list.
    Verify(Verify),
    /// Copies.
    Copy(Copy),
    /// Counts.
    Count(Count),
    /// Searches.
    Search(Search),
}

/// Files to be summed up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checksum {
    /// The file to be read.
    pub input: PathBuf,
    /// How checksums are made.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// How the list names files.
    #[serde(default)]
    pub names: Names,
    /// Whether what cannot be read is no failure.
    #[serde(default)]
    pub skip_unreadable: bool,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// How a list names files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// From the folder that was given, or the folder of the file that was given.
    #[default]
    Relative,
    /// With the path that was given before it.
    Full,
}

/// Files to be verified.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// The list of checksums.
    pub list: PathBuf,
    /// How checksums are made.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Where relative names start; else the folder of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
}

/// Files to be copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Copy {
    /// The file to be read.
    pub input: PathBuf,
    /// Where the result goes.
    pub output: PathBuf,
    /// Whether the copy is read again and compared.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Whether what cannot be read is no failure.
    #[serde(default)]
    pub skip_unreadable: bool,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

fn yes() -> bool {
    true
}

/// Files to be counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Count {
    /// The file to be read.
    pub input: PathBuf,
    /// Whether the counts of each file are printed.
    #[serde(default)]
    pub per_file: bool,
    /// Whether what cannot be read is no failure.
    #[serde(default)]
    pub skip_unreadable: bool,
}

/// Files to be searched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Search {
    /// The file to be read.
    pub input: PathBuf,
    /// What is looked for.
    pub pattern: String,
    /// Whether the pattern means itself.
    #[serde(default)]
    pub literal: bool,
    /// Whether capital letters are as small ones.
    #[serde(default)]
    pub ignore_case: bool,
    /// The most lines; 10,000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_matches: Option<u64>,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Whether what cannot be read is no failure.
    #[serde(default)]
    pub skip_unreadable: bool,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Done {
    /// Sums.
    Checksum(Summed),
    /// All as in the list.
    Verify(Verified),
    /// A copy.
    Copy(Copied),
    /// Counts.
    Count(Counted),
    /// Lines.
    Search(Found),
}

impl WorkAction for FileIo {
    const NAME: &'static str = "file_io";
    type Params = Params;
    type Output = Done;

    fn validate(params: &Params) -> Result<(), String> {
        match params {
            Params::Checksum(params) => check_paths(&params.input, params.output.as_deref()),
            Params::Verify(params) => {
                check_path("list", &params.list)?;
                params.root.as_deref().map_or(Ok(()), |root| check_path("root", root))
            }
            Params::Copy(params) => check_paths(&params.input, Some(&params.output)),
            Params::Count(params) => check_path("input", &params.input),
            Params::Search(params) => {
                check_paths(&params.input, params.output.as_deref())?;
                search::pattern(params).map(drop)
            }
        }
    }

    fn execute(params: Params, context: &mut Context<'_>) -> Result<Done, ActionError> {
        Ok(match params {
            Params::Checksum(params) => Done::Checksum(checksum::run(&params, context)?),
            Params::Verify(params) => Done::Verify(verify::run(&params, context)?),
            Params::Copy(params) => Done::Copy(copy::run(&params, context)?),
            Params::Count(params) => Done::Count(count::run(&params, context)?),
            Params::Search(params) => Done::Search(search::run(&params, context)?),
        })
    }
}
