//! The GNU make jobserver: a fifo of tokens that the nested makes, cargos and ninjas of all tasks share.
//!
//! It is made when the first task that wants it is about to be published, and kept in step in the loop's own wake-ups
//! while there is such a task. Tokens that die with a killed job are made good when no task that wants them is held by
//! a worker. Deliberately absent: the sums (`jobs`).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::libc;
use nix::sys::stat::Mode;

use super::Supervisor;
use super::jobs::{Step, Tokens};
use super::settings::job_slots;
use crate::config::Config;

/// What a token is: make does not mind, and gives back what it took.
const TOKEN: u8 = b'+';
/// By which a specification says, in its canonical JSON, that the task wants the jobserver.
const WANTED: &str = r#""jobserver":true"#;

/// The fifo, and who wants it.
#[derive(Debug)]
pub struct Jobserver {
    path: PathBuf,
    fifo: Option<File>,
    tokens: Tokens,
    /// The published and running tasks that want it, by number.
    wanting: BTreeSet<u64>,
    /// Such a task has ended, so tokens may have been lost with it.
    doubtful: bool,
}

impl Jobserver {
    /// With the configured slots, and its fifo at `path`: made at once if somebody has thought of it.
    pub fn new(path: PathBuf, config: &Config) -> Self {
        let tokens = Tokens::new(job_slots(config));
        let mut jobserver = Self { path, fifo: None, tokens, wanting: BTreeSet::new(), doubtful: false };
        if config.jobserver.slots.is_some() {
            jobserver.open();
        }
        jobserver
    }

    /// Follows a changed configuration.
    pub fn set_slots(&mut self, slots: u32) {
        self.tokens.set_slots(slots);
    }

    /// Makes the fifo, if it is not there yet.
    pub fn open(&mut self) {
        if self.fifo.is_some() {
            return;
        }
        match make(&self.path) {
            Ok(fifo) => self.fifo = Some(fifo),
            // Make says so, too, and goes on with one job at a time.
            Err(error) => tracing::error!(%error, fifo = %self.path.display(), "the jobserver cannot be made"),
        }
        if self.path.as_os_str().as_encoded_bytes().iter().any(u8::is_ascii_whitespace) {
            tracing::warn!(fifo = %self.path.display(), "make cannot read a path with blanks: the jobserver has no effect");
        }
    }

    /// Takes note of a task that is about to be published, if it wants the jobserver.
    pub fn expect(&mut self, seq: u64, spec_json: &str) {
        if spec_json.contains(WANTED) {
            self.open();
            self.wanting.insert(seq);
        }
    }

    /// Takes note that a task is neither published nor running any more.
    pub fn forget(&mut self, seq: u64) {
        self.doubtful |= self.wanting.remove(&seq);
    }

    /// Removes the fifo.
    pub fn close(&mut self) {
        if self.fifo.take().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn put(&mut self, count: u32) -> u32 {
        let Some(fifo) = &mut self.fifo else { return 0 };
        // A fifo takes more than there can be slots, so this is written whole or, should it ever be full, not at all.
        let bytes = vec![TOKEN; count as usize];
        fifo.write(&bytes).map_or(0, |written| u32::try_from(written).unwrap_or(0))
    }

    /// Takes out so many, or as many as there are.
    fn take(&mut self, count: u32) -> u32 {
        let Some(fifo) = &mut self.fifo else { return 0 };
        let mut bytes = vec![0; count as usize];
        fifo.read(&mut bytes).map_or(0, |read| u32::try_from(read).unwrap_or(0))
    }

    fn keep_in_step(&mut self, busy: u32) {
        match self.tokens.step(busy) {
            Step::Put(count) => {
                let count = self.put(count);
                self.tokens.put(count);
            }
            Step::Take(count) => {
                let count = self.take(count);
                self.tokens.took(count);
            }
            Step::Rest => {}
        }
    }

    /// Makes lost tokens good. `held` says whether a worker holds a task that wants them: asked before and afterwards,
    /// because a worker may have claimed one meanwhile, whose jobs may hold what we did not find.
    fn make_good(&mut self, held: impl Fn(&BTreeSet<u64>) -> bool) {
        /// More than there can be slots.
        const ALL: u32 = 1 << 13;
        if held(&self.wanting) {
            return;
        }
        let found = self.take(ALL);
        if held(&self.wanting) {
            self.put(found);
            return;
        }
        self.tokens.forget_all();
        self.doubtful = false;
    }
}

/// Makes the fifo anew, and opens both of its ends, so that it is never closed while we live.
fn make(path: &PathBuf) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

impl Supervisor {
    /// Keeps the jobserver in step with what runs, if anybody wants it.
    pub(super) fn share_jobs(&mut self) {
        if self.jobserver.wanting.is_empty() && !self.jobserver.doubtful {
            return;
        }
        if self.jobserver.doubtful {
            let (desk, producer) = (&self.desk, &self.producer);
            let held = |seq: &u64| desk.get(*seq).is_some_and(|active| producer.holder(active.ticket).is_some());
            self.jobserver.make_good(|wanting| wanting.iter().any(held));
        }
        // A published task counts as soon as a worker could claim it: its slot is taken out of the fifo before it starts.
        let busy = self.desk.len().min(self.crew.iter().count());
        self.jobserver.keep_in_step(u32::try_from(busy).unwrap_or(u32::MAX));
    }
}
