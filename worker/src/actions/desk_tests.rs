//! How the built-in types are tested: run in a folder, by a host that can be told to end.
//!
//! Deliberately absent: any test.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Context, Facts, Host, Outcome, ParamsError, Registry, Why};
use crate::task::{Action, ActionType, TaskId};

/// A host for tests: it can be told to end after so many questions, and keeps what was written.
#[derive(Default)]
pub(super) struct Desk {
    pub ends_after: Cell<Option<u32>>,
    pub percents: Vec<f64>,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

impl Host for Desk {
    fn told_to_end(&self) -> Option<Why> {
        let left = self.ends_after.get()?;
        self.ends_after.set(Some(left.saturating_sub(1)));
        (left == 0).then_some(Why::Cancel)
    }
    fn progress(&mut self, percent: f64, _: &str) {
        self.percents.push(percent);
    }
    fn write(&mut self, is_error: bool, bytes: &[u8]) {
        if is_error { self.err.extend(bytes) } else { self.out.extend(bytes) }
    }
    fn scratch(&mut self) -> io::Result<PathBuf> {
        Err(io::Error::other("there is none"))
    }
}

/// Runs a built-in action in this folder.
pub(super) fn run_at(
    desk: &mut Desk,
    folder: &Path,
    kind: ActionType,
    params: serde_json::Value,
) -> Result<Outcome, ParamsError> {
    let facts = Facts {
        id: TaskId::new(1, 1, 1),
        attempt: 1,
        slot: 0,
        meta: Default::default(),
        cwd: Some(folder.to_owned()),
        checkpoint: None,
    };
    let action = Action { kind, params, ..Action::default() };
    Registry::built_in().run(&action, &mut Context::new(&facts, desk))
}

/// The same with a host of no interest: its result, or the words of its failure.
pub(super) fn run(folder: &Path, kind: ActionType, params: serde_json::Value) -> Result<serde_json::Value, String> {
    match run_at(&mut Desk::default(), folder, kind, params) {
        Ok(Outcome::Done(result)) => Ok(serde_json::from_str(&result.unwrap_or("null".to_owned())).unwrap()),
        Ok(outcome) => Err(outcome.error().unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

/// The names in a folder, sorted.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
