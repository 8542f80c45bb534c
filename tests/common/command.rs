//! The command line as a person uses it: the real binary with a state directory, its output and its exit code.
//!
//! Every child has a deadline, after which it is killed and the test fails. Deliberately absent: any knowledge of what
//! a command does.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::common::{PATIENCE, Pool, eventually};

/// The binary, for one state directory.
#[derive(Debug, Clone)]
pub struct Acode {
    state: Option<PathBuf>,
    cwd: PathBuf,
    vars: Vec<(String, String)>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Expects this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl Acode {
    /// For the queue of this pool, which need not run.
    pub fn of(pool: &Pool) -> Self {
        Self { state: Some(pool.state_dir()), ..Self::without_state(pool) }
    }

    /// In the pool's directory, without saying where the state directory is.
    pub fn without_state(pool: &Pool) -> Self {
        let cwd = pool.state_dir().parent().unwrap().to_owned();
        Self { state: None, cwd, vars: Vec::new() }
    }

    /// With this variable.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// The command, with nothing of the caller's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acode"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACODE_")) {
            command.env_remove(name);
        }
        if let Some(state) = &self.state {
            command.arg("--state-dir").arg(state);
        }
        command.args(arguments).current_dir(&self.cwd).env("XDG_CONFIG_HOME", &self.cwd);
        command.envs(self.vars.iter().cloned());
        command
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments), None)
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn says(&self, arguments: &[&str]) -> Said {
        self.spawn(arguments).finish()
    }

    /// Runs it to its end with this on standard input.
    #[track_caller]
    pub fn says_to(&self, input: impl Into<Vec<u8>>, arguments: &[&str]) -> Said {
        Running::new(self.command(arguments), Some(input.into())).finish()
    }

    /// Runs it, expects success, and gives its output without the last line end.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.says(arguments).expect(0).out.trim_end().to_owned()
    }

    /// Runs it with `--json`, expects success, and gives the document.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.says(&[&["--json"], arguments].concat()).expect(0);
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }
}

/// A command that runs. It is killed when it goes out of scope.
pub struct Running {
    child: Child,
    out: Stream,
    err: Stream,
}

impl Running {
    /// Starts it, with this on standard input.
    #[track_caller]
    pub fn new(mut command: Command, input: Option<Vec<u8>>) -> Self {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // Who refuses what comes need not read it to its end.
            std::thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let (out, err) = (Stream::read(child.stdout.take().unwrap()), Stream::read(child.stderr.take().unwrap()));
        Self { child, out, err }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// What it has said on standard error so far.
    pub fn err(&self) -> String {
        self.err.text()
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn prints(&self, text: &str) {
        let printed = eventually(PATIENCE, || self.out().contains(text));
        assert!(printed, "no '{text}' in:\n{}\n{}", self.out(), self.err());
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended and nobody holds its output open any more.
    #[track_caller]
    pub fn finish(mut self) -> Said {
        let mut status: Option<ExitStatus> = None;
        let over = eventually(PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some() && self.out.has_ended() && self.err.has_ended()
        });
        assert!(over, "it does not end ({status:?}):\n{}\n{}", self.out(), self.err());
        Said { code: status.and_then(|status| status.code()), out: self.out(), err: self.err() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An output that is read as it comes.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 1 << 14];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }
}

/// The names in a folder.
pub fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
