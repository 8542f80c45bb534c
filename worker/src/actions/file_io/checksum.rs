//! The checksums of a file, or of all files of a tree.
//!
//! Deliberately absent: the form of the list, which is `list`'s.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::list::Algorithm;
use super::walk::{Problems, Tree};
use super::{Checksum, Names};
use crate::actions::files::{Counted, FileError, Input, Meter};
use crate::actions::{ActionError, Context, OutputFile};

/// The longest list that becomes part of the result, in bytes; as JSON it may be twice as long.
const LIST_MAX: usize = 24 << 10;

/// What was summed up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// How checksums are made.
    pub algorithm: Algorithm,
    /// How many files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// How many could not be read.
    pub unreadable: u64,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The list itself if it went nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
}

/// Where the list goes.
enum Sink {
    File(std::io::BufWriter<OutputFile>, PathBuf),
    Result(String),
}

impl Sink {
    fn add(&mut self, line: Vec<u8>) -> Result<(), ActionError> {
        match self {
            Self::File(file, place) => Ok(file.write_all(&line).map_err(FileError::of("write to", place))?),
            Self::Result(list) => {
                let line = String::from_utf8(line).map_err(|_| {
                    ActionError::new("a name is not valid UTF-8, as a result has to be: give an output")
                })?;
                list.push_str(&line);
                if list.len() > LIST_MAX {
                    return Err(ActionError::new(format!(
                        "the list is longer than the {LIST_MAX} bytes that fit into a result: give an output"
                    )));
                }
                Ok(())
            }
        }
    }

    /// Whether this is the file that it writes, or is to replace.
    fn is(&self, input: &Input) -> bool {
        match self {
            Self::File(file, _) => file.get_ref().is(&input.facts),
            Self::Result(_) => false,
        }
    }
}

pub(super) fn run(params: &Checksum, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let tree = Tree::find(&params.input, context)?;
    let mut sink = match &params.output {
        Some(output) => {
            let place = context.path(output)?;
            let file = OutputFile::create_beside(&place, params.overwrite, &tree.inputs())?;
            Sink::File(std::io::BufWriter::new(file), place)
        }
        None => Sink::Result(String::new()),
    };
    let tree = tree.measured(context)?;
    let meter = Meter::of_bytes(context, tree.bytes);
    let (mut problems, mut files, mut bytes) = (Problems::default(), 0, 0);
    tree.each_file(&meter, &mut problems, |path, problems| {
        let input = match tree.open(path) {
            // A list that lies in the tree is not of it.
            Ok(input) if sink.is(&input) => return Ok(()),
            Ok(input) => input,
            Err(error) => {
                problems.note(&meter, error);
                return Ok(());
            }
        };
        let sum = match params.algorithm.sum(Counted::new(&input.file, &meter)) {
            Ok(sum) => sum,
            Err(error) => {
                meter.check()?;
                problems.note(&meter, FileError::of("read", path)(error));
                return Ok(());
            }
        };
        (files, bytes) = (files + 1, bytes + input.size());
        sink.add(params.algorithm.line(&sum, &name_of(&tree, path, params.names)))
    })?;
    let unreadable = problems.end(params.skip_unreadable)?;
    let (output, list) = match sink {
        Sink::Result(list) => (None, Some(list)),
        Sink::File(file, place) => {
            let file = file.into_inner().map_err(|error| FileError::of("write to", &place)(error.into_error()))?;
            file.finish()?;
            (Some(place.display().to_string()), None)
        }
    };
    Ok(Done { algorithm: params.algorithm, files, bytes, unreadable, output, list })
}

fn name_of(tree: &Tree, path: &Path, names: Names) -> PathBuf {
    match (names, tree.is_dir) {
        (Names::Full, _) => tree.as_given(path),
        (Names::Relative, true) => tree.below(path).to_owned(),
        (Names::Relative, false) => path.file_name().map(PathBuf::from).unwrap_or_default(),
    }
}
