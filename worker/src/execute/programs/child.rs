//! One long-lived program: its birth, the lines to it and from it, and what it said on standard error.
//!
//! Nothing here waits: pipes are read and written as far as they go, and nothing is kept beyond its bound. Deliberately
//! absent: what the lines mean for an attempt (`turn`), and when a program goes (`keeper`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::super::sandbox::{self, Plan};
use super::super::{birth, process::Tools, program};
use super::key::Key;
use crate::actions::protocol::LINE_MAX;
use crate::sys::cgroup::{Leaf, Leaves};
use crate::sys::spawn::{self, Child, Spawn};
use crate::sys::{describe, pipe};
use crate::task::{Rlimits, Verdict};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Lines, or pieces of what is too long for one, that are dropped at once.
const DISCARD_MAX: usize = 16;
/// The end of standard error that is kept for a failure's words, in bytes.
const WORDS_MAX: usize = 2 * 1024;
/// The most lines of it that are told.
const WORDS_LINES: usize = 10;

/// A program that was started.
#[derive(Debug)]
pub struct Program {
    /// What it was started with.
    pub key: Key,
    /// Its process.
    pub child: Child,
    /// The leaf in which it lives, if it was born into one. Elsewhere while a task has it in use.
    pub leaves: Option<Leaves>,
    /// Whether it has said that it is ready.
    pub is_ready: bool,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    /// What it is still to be told.
    unsent: Vec<u8>,
    /// Bytes of its task, and of what followed, that were written to it.
    told: usize,
    /// Its input is closed, and it had read none of these.
    lost_unread: bool,
    /// What it has said, up to the line that is not complete yet.
    heard: Vec<u8>,
    /// Where in that the next line begins.
    next: usize,
    words: Vec<u8>,
}

/// A line, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// One line, without its end.
    Line(Vec<u8>),
    /// A line that is longer than any may be, or has not ended by then: its beginning.
    TooLong(Vec<u8>),
    /// No complete line is there.
    Nothing,
}

/// The far ends of a program's pipes: input, output, errors.
pub type FarEnds = (OwnedFd, [OwnedFd; 2]);
/// Our ends of them, in the same order.
pub type NearEnds = [OwnedFd; 3];

/// The pipes of a program.
///
/// # Errors
/// What the kernel says.
pub fn pipes() -> io::Result<(NearEnds, FarEnds)> {
    let (input, input_writer) = pipe::pipe()?;
    let (output, output_writer) = pipe::pipe()?;
    let (errors, errors_writer) = pipe::pipe()?;
    for fd in [&input_writer, &output, &errors] {
        pipe::set_nonblocking(fd)?;
    }
    Ok(([input_writer, output, errors], (input, [output_writer, errors_writer])))
}

/// How a program is born, beside its key.
#[derive(Debug)]
pub struct Birth<'b> {
    /// The pipes.
    pub near: NearEnds,
    /// Their other ends.
    pub far: FarEnds,
    /// Its sandbox.
    pub plan: &'b Plan,
    /// Limits of each process.
    pub rlimits: Rlimits,
    /// Whether it must not pass over disk quotas.
    pub needs_quota: bool,
}

impl Program {
    /// Starts one, into the leaf that the worker has at hand.
    ///
    /// # Errors
    /// The verdict of an attempt whose program cannot be started.
    pub fn start(tools: &mut Tools, key: Key, birth: Birth<'_>) -> Result<Self, Verdict> {
        let Birth { near, far: (stdin, writers), plan, rlimits, needs_quota } = birth;
        let programs = program::candidates(&key.file, &tools.settings.environment, &key.env);
        let programs: Vec<_> = programs.iter().map(CString::as_c_str).collect();
        program::arguments(&key.argv, &mut tools.argv);
        let mut envp = std::mem::take(&mut tools.envp);
        key.environment(tools, plan.temporary(tools.room.scratch()), &mut envp);
        tools.envp = envp;
        let refuse = |what: &str, error: &io::Error| Verdict::NotStarted {
            why: format!("{what}: {}", describe(error)),
            errno: error.raw_os_error(),
        };
        let cwd = CString::new(key.cwd.as_bytes()).map_err(|error| refuse("working directory", &error.into()))?;
        let rlimits = program::raw_limits(&rlimits);
        let give_birth = |leaf: Option<&Leaf>| {
            spawn::spawn(&Spawn {
                programs: &programs,
                argv: &tools.argv,
                envp: &tools.envp,
                cwd: &cwd,
                stdio: [stdin.as_fd(), writers[0].as_fd(), writers[1].as_fd()],
                cgroup: leaf.map(AsFd::as_fd),
                rlimits: &rlimits,
                umask: tools.settings.umask,
                heeds_quota: needs_quota,
                confinement: plan.confinement(),
            })
        };
        let child = birth::into_leaf(&mut tools.leaves, give_birth)
            .map_err(|error| refuse(&sandbox::failed_step(&error, &key.cwd, &key.argv[0]), &error.source))?;
        let [input, output, errors] = near;
        Ok(Self {
            key,
            child,
            leaves: None,
            is_ready: false,
            input: Some(input),
            output: Some(output),
            errors: Some(errors),
            unsent: Vec::new(),
            told: 0,
            lost_unread: false,
            heard: Vec::new(),
            next: 0,
            words: Vec::new(),
        })
    }

    /// What it writes lines to, until it has closed that.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Its standard error, until it has closed that.
    pub fn errors(&self) -> Option<BorrowedFd<'_>> {
        self.errors.as_ref().map(AsFd::as_fd)
    }

    /// Its standard input, until that is closed.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is something to be written to it.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Forgets what was told before: what is told from here on is its task.
    pub fn begin_task(&mut self) {
        (self.told, self.lost_unread) = (0, false);
    }

    /// Whether it has read nothing of its task. That stays so once it is dead, or deaf.
    pub fn has_read_nothing(&self) -> bool {
        self.input.as_ref().map_or(self.lost_unread, |input| pipe::unread(input) >= self.told)
    }

    /// Has it told this, as soon as it reads.
    pub fn tell(&mut self, line: &[u8]) {
        self.unsent.extend_from_slice(line);
        self.send();
    }

    /// Writes what it takes. What it will never read is dropped: its end, or its silence, shows.
    pub fn send(&mut self) {
        while !self.unsent.is_empty() {
            let Some(input) = &self.input else { return self.unsent.clear() };
            match nix::unistd::write(input, &self.unsent) {
                Ok(length) => {
                    self.told += length;
                    self.unsent.drain(..length);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.lose_input(),
            }
        }
    }

    /// Notices that nobody can read its standard input any more.
    pub fn check_input(&mut self) {
        if self.input.as_ref().is_some_and(|input| !pipe::has_reader(input)) {
            self.lose_input();
        }
    }

    fn lose_input(&mut self) {
        self.lost_unread = self.has_read_nothing();
        self.close_input();
    }

    /// Lets it see the end of its input, once it has read what is written already.
    pub fn close_input(&mut self) {
        self.input = None;
        self.unsent.clear();
    }

    /// Whether its standard input is closed: nothing reaches it any more.
    pub fn is_deaf(&self) -> bool {
        self.input.is_none()
    }

    /// Whether its standard output is closed: nothing comes from it any more.
    pub fn is_mute(&self) -> bool {
        self.output.is_none()
    }

    /// The next line that it has said; reads at most once.
    pub fn hear(&mut self) -> Heard {
        loop {
            if let Some(length) = self.heard[self.next..].iter().position(|byte| *byte == b'\n') {
                let line = self.heard[self.next..self.next + length].to_vec();
                self.next += length + 1;
                return if line.len() > LINE_MAX { Heard::TooLong(line) } else { Heard::Line(line) };
            }
            self.heard.drain(..self.next);
            self.next = 0;
            if self.heard.len() > LINE_MAX {
                return Heard::TooLong(self.heard.clone());
            }
            let Some(output) = &self.output else { return Heard::Nothing };
            let before = self.heard.len();
            self.heard.resize(before + READ_BYTES, 0);
            let read = nix::unistd::read(output, &mut self.heard[before..]);
            self.heard.truncate(before + read.unwrap_or(0));
            match read {
                Err(Errno::EAGAIN) => return Heard::Nothing,
                Err(Errno::EINTR) | Ok(1..) => {}
                Ok(0) | Err(_) => self.output = None,
            }
        }
    }

    /// Bytes that it has said and nobody has taken, as far as they are there now.
    pub fn untaken(&self) -> usize {
        self.heard.len() - self.next + self.output.as_ref().map_or(0, pipe::unread)
    }

    /// Whether something is there that it has said and nobody has taken: the beginning of it.
    pub fn unheard(&mut self) -> Option<Vec<u8>> {
        match self.hear() {
            Heard::Line(line) | Heard::TooLong(line) => Some(line),
            Heard::Nothing => (!self.heard.is_empty()).then(|| self.heard.clone()),
        }
    }

    /// Drops what it has said, as far as that is there.
    pub fn discard(&mut self) {
        for _ in 0..DISCARD_MAX {
            self.heard.clear();
            self.next = 0;
            if self.is_mute() || self.hear() == Heard::Nothing {
                return;
            }
        }
    }

    /// Reads once from its standard error into `buffer`, and keeps the end of it as its last words.
    pub fn read_errors<'b>(&mut self, buffer: &'b mut Vec<u8>) -> &'b [u8] {
        buffer.resize(READ_BYTES, 0);
        let Some(errors) = &self.errors else { return &[] };
        let length = match nix::unistd::read(errors, buffer) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return &[],
            Err(_) => 0,
        };
        if length == 0 {
            self.errors = None;
        }
        self.words.extend_from_slice(&buffer[..length]);
        let excess = self.words.len().saturating_sub(WORDS_MAX);
        self.words.drain(..excess);
        &buffer[..length]
    }

    /// Forgets its last words.
    pub fn forget_words(&mut self) {
        self.words.clear();
    }

    /// Its last words, as the end of a sentence.
    pub fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.words);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(WORDS_LINES)..];
        if last.is_empty() { String::new() } else { format!("; its standard error ends: {}", last.join("\n")) }
    }
}
