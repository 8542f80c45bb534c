//! What an action sees of the world it runs in.
//!
//! Deliberately absent: the means. A [`Host`] is the worker itself, a child process, or a library's caller.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::Cancelled;
use crate::task::{Env, TaskId};

/// Why an action is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its time is over.
    Timeout,
    /// Somebody cancelled it.
    Cancel,
    /// The pool takes it back, or has gone.
    GiveBack,
}

/// Which task this is.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The task.
    pub id: TaskId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The number of the worker's slot, from 0: no two tasks of a pool run in one at a time.
    pub slot: u32,
    /// The submitter's own facts.
    pub meta: Env,
    /// Where relative paths start: the working directory that was asked for; the scratch directory if none was.
    pub cwd: Option<PathBuf>,
    /// The directory that outlives its attempts, if one was asked for.
    pub checkpoint: Option<PathBuf>,
}

/// Where an action runs: what its context speaks to.
pub trait Host {
    /// Whether the action is to end, and why. Costs next to nothing.
    fn told_to_end(&self) -> Option<Why>;
    /// Whether it has been warned that its time is almost over. Costs next to nothing.
    fn is_warned(&self) -> bool {
        false
    }
    /// Takes note of how far it is: 0 to 100, and a few words.
    fn progress(&mut self, percent: f64, message: &str);
    /// Takes some of its output: standard output, or standard error if `is_error`.
    fn write(&mut self, is_error: bool, bytes: &[u8]);
    /// Its private directory, empty at first and gone when it has ended.
    ///
    /// # Errors
    /// It cannot be made.
    fn scratch(&mut self) -> io::Result<PathBuf>;
}

/// What an action may ask for while it runs.
pub struct Context<'h> {
    facts: &'h Facts,
    host: &'h mut dyn Host,
    /// How far it said that it was, in percent, if it has said so.
    said: Option<f64>,
}

impl<'h> Context<'h> {
    /// The context of one attempt.
    pub fn new(facts: &'h Facts, host: &'h mut dyn Host) -> Self {
        Self { facts, host, said: None }
    }

    /// The task's id.
    pub fn task_id(&self) -> TaskId {
        self.facts.id
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    /// The number of the worker's slot, from 0: no two tasks of a pool run in one at a time.
    pub fn worker_slot(&self) -> u32 {
        self.facts.slot
    }

    /// The submitter's own facts about the task.
    pub fn meta(&self) -> &Env {
        &self.facts.meta
    }

    /// The directory that outlives the attempts of this task, if one was asked for.
    pub fn checkpoint(&self) -> Option<&Path> {
        self.facts.checkpoint.as_deref()
    }

    /// A private directory, empty at first and gone when the attempt has ended.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&mut self) -> io::Result<PathBuf> {
        self.host.scratch()
    }

    /// What a path of the parameters means: itself if it is absolute, else one in the working directory.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn path(&mut self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = path.as_ref();
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        match &self.facts.cwd {
            Some(cwd) => Ok(cwd.join(path)),
            None => Ok(self.host.scratch()?.join(path)),
        }
    }

    /// Tells how far the action is: 0 to 100, and a few words. As often as it likes: what is told too often is left out.
    pub fn progress(&mut self, percent: f64, message: &str) {
        // What is no number says nothing about how far it is.
        let percent = if percent.is_nan() { 0.0 } else { percent.clamp(0.0, 100.0) };
        self.said = Some(percent);
        self.host.progress(percent, message);
    }

    /// The action has done its work: who has told of a part tells of the whole.
    pub(super) fn complete(&mut self) {
        if self.said.is_some_and(|percent| percent < 100.0) {
            self.progress(100.0, "");
        }
    }

    /// Whether the action is to end, because it was cancelled, its time is over, or the pool stops.
    pub fn is_cancelled(&self) -> bool {
        self.host.told_to_end().is_some()
    }

    /// Whether its time is almost over, as its soft timeout says: the moment to save what it has. True from then on.
    pub fn is_warned(&self) -> bool {
        self.host.is_warned()
    }

    /// Why the action is to end, if it is.
    pub fn told_to_end(&self) -> Option<Why> {
        self.host.told_to_end()
    }

    /// Goes on only if the action is not to end: `context.check()?`, some ten times a second or more.
    ///
    /// # Errors
    /// It is to end.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// The task's standard output.
    pub fn stdout(&mut self) -> impl Write {
        Output { host: self.host, is_error: false }
    }

    /// The task's standard error.
    pub fn stderr(&mut self) -> impl Write {
        Output { host: self.host, is_error: true }
    }
}

struct Output<'o> {
    host: &'o mut dyn Host,
    is_error: bool,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.host.write(self.is_error, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
