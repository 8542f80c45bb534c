//! A call of a program that is to end soon, such as git or the docker client: bounded in time, with its output in hand, and
//! with signs of life and an ear for orders meanwhile.
//!
//! It runs outside of the task's cgroup, and so outside of its limits, and also where the worker's leaf was killed just now.
//! Only for moments in which no task's tree lives: whatever is a child of the worker during a call belongs to it. All of it
//! is dead on return, but for what the kernel holds longer than it may after a kill, which is left to it. Deliberately
//! absent: what the output means.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::process::Tools;
use super::program;
use crate::sys::rlimit::{RawLimit, Resource};
use crate::sys::spawn::{self, CStringArray, Child, Spawn, Step};
use crate::sys::tree::{self, Ended, Reaper, Remains};
use crate::sys::{clock, pipe, process};
use crate::task::Env;
use crate::wire::LineClosed;

/// The most that is kept of each output, in bytes: the beginning of the answer, and the end of the words, which says why.
const KEPT_BYTES: usize = 64 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// How often a tree that is being killed is looked at.
const REAP_INTERVAL: std::time::Duration = std::time::Duration::from_millis(1);
/// How long a tree may take to be gone when it is killed, in nanoseconds.
const KILL_PATIENCE_NS: u64 = 2_000_000_000;

/// Asked at every turn whether a call goes on; takes the orders that have come. An error: there are no more, and the call
/// goes on without.
pub type Heed<'h> = &'h mut dyn FnMut(&mut Tools) -> Result<bool, LineClosed>;

/// What is called, and how.
#[derive(Debug)]
pub struct Call<'c> {
    /// The program's name, looked for in the environment's `PATH`.
    pub program: &'c str,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: &'c Env,
    /// Its working directory.
    pub directory: &'c Path,
    /// What it reads; nothing if absent.
    pub input: Option<OwnedFd>,
    /// Where its output goes.
    pub output: Output,
    /// The largest file that it may write, in bytes.
    pub file_bytes: Option<u64>,
    /// Its file mode creation mask.
    pub umask: u32,
    /// When it is killed, in nanoseconds of the monotonic clock.
    pub deadline_ns: u64,
}

/// Where a call's standard output goes.
#[derive(Debug)]
pub enum Output {
    /// Into the answer, as far as that is kept.
    Answer,
    /// Into this file.
    File(OwnedFd),
}

/// How a call ended.
#[derive(Debug)]
pub struct Answer {
    /// How its process did.
    pub ended: Ended,
    /// Its standard output, if that was wanted.
    pub output: Vec<u8>,
    /// The end of what it said on standard error.
    pub words: String,
}

impl Answer {
    /// Whether it did what it was asked.
    pub fn is_success(&self) -> bool {
        self.ended == Ended::Exited(0)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such program.
    #[error("'{0}' is not found in the PATH of tasks (tasks.environment)")]
    Absent(String),
    /// It cannot be started.
    #[error("'{program}' cannot be started")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It was killed at its deadline.
    #[error("'{0}' did not end in time")]
    TooLong(String),
    /// Whoever was asked meanwhile wanted it ended.
    #[error("'{0}' was ended")]
    Ended(String),
}

/// Calls a program and waits for its end.
///
/// # Errors
/// It was not started, or did not end by itself.
pub fn call(tools: &mut Tools, call: Call<'_>, heed: Heed<'_>) -> Result<Answer, CallError> {
    let (name, deadline_ns) = (call.program.to_owned(), call.deadline_ns);
    let failed = |source| CallError::Start { program: name.clone(), source };
    let (words, words_writer) = pipe::pipe().map_err(failed)?;
    let (answer, child) = match &call.output {
        Output::Answer => {
            let (reader, writer) = pipe::pipe().map_err(failed)?;
            (Some(reader), start(tools, &call, [writer.as_fd(), words_writer.as_fd()])?)
        }
        Output::File(file) => (None, start(tools, &call, [file.as_fd(), words_writer.as_fd()])?),
    };
    // From here on a pipe's end is that of all who write to it.
    drop((call, words_writer));
    let (pipes, texts) = ([answer, Some(words)], [Vec::new(), Vec::new()]);
    let mut running = Running { reaper: Reaper::new(child.pid), child, pipes, texts, is_deaf: false };
    let why = loop {
        running.wait(tools, deadline_ns);
        if running.reaper.reap() == Remains::Nothing || running.reaper.leader_end.is_some() {
            break None;
        }
        if clock::monotonic_ns() >= deadline_ns {
            break Some(CallError::TooLong(name.clone()));
        }
        let goes_on = if running.is_deaf { Ok(true) } else { heed(tools) };
        match goes_on {
            Ok(true) => {}
            Ok(false) => break Some(CallError::Ended(name.clone())),
            Err(LineClosed) => running.is_deaf = true,
        }
    };
    running.finish(tools);
    match (why, running.reaper.leader_end) {
        (Some(why), _) => Err(why),
        // Our only child cannot vanish unreaped.
        (None, None) => Err(failed(io::Error::other("nobody knows how it ended"))),
        (None, Some(ended)) => {
            let [output, words] = running.texts;
            Ok(Answer { ended, output, words: String::from_utf8_lossy(&words).trim().to_owned() })
        }
    }
}

/// Starts the program with these as its standard output and error.
fn start(tools: &Tools, call: &Call<'_>, writers: [BorrowedFd<'_>; 2]) -> Result<Child, CallError> {
    let failed = |source| CallError::Start { program: call.program.to_owned(), source };
    let cwd = CString::new(call.directory.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    if call.program.is_empty() {
        return Err(CallError::Absent(String::new()));
    }
    let programs = program::candidates(call.program, call.environment, &Env::new());
    let programs: Vec<_> = programs.iter().map(CString::as_c_str).collect();
    let (mut argv, mut envp) = (CStringArray::default(), CStringArray::default());
    argv.push(&[call.program.as_bytes()]);
    for argument in &call.arguments {
        argv.push(&[argument.as_bytes()]);
    }
    argv.seal();
    for (name, value) in call.environment {
        envp.push(&[name.as_bytes(), b"=", value.as_bytes()]);
    }
    envp.seal();
    let rlimits: Vec<_> = call.file_bytes.map(|bytes| RawLimit::new(Resource::FileSize, bytes)).into_iter().collect();
    let input = call.input.as_ref().map_or(tools.null.as_fd(), AsFd::as_fd);
    let born = spawn::spawn(&Spawn {
        programs: &programs,
        argv: &argv,
        envp: &envp,
        cwd: &cwd,
        stdio: [input, writers[0], writers[1]],
        cgroup: None,
        rlimits: &rlimits,
        umask: call.umask,
        confinement: None,
        heeds_quota: false,
    });
    born.map_err(|error| match error.step {
        Step::Exec if error.source.kind() == io::ErrorKind::NotFound => CallError::Absent(call.program.to_owned()),
        Step::Clone | Step::Stdio | Step::Limit | Step::Cwd | Step::Exec | Step::Confine => failed(error.source),
    })
}

/// A program that was started, and what it has said: output and words.
struct Running {
    reaper: Reaper,
    child: Child,
    /// Nothing where an end was reached, which would be ready for ever.
    pipes: [Option<OwnedFd>; 2],
    texts: [Vec<u8>; 2],
    /// The supervisor is gone, and its pipe would be ready for ever too.
    is_deaf: bool,
}

impl Running {
    /// Waits for output, an order, the end or the next sign of life, and gives that.
    fn wait(&mut self, tools: &Tools, deadline_ns: u64) {
        let now = clock::monotonic_ns();
        tools.claimer.beat(now);
        let until_ms = deadline_ns.saturating_sub(now).div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(until_ms.min(tools.settings.heartbeat_interval_ms.max(1)));
        let orders = (!self.is_deaf).then(|| tools.line.orders_fd());
        let fds = [self.child.pidfd.as_fd()].into_iter().chain(orders);
        let fds = fds.chain(self.pipes.iter().flatten().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An error is as good as nothing ready.
        let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX));
        drop(fds);
        self.read();
    }

    /// Reads some of what is there, without waiting; whether there was anything.
    fn read(&mut self) -> bool {
        let mut any = false;
        for (index, pipe) in self.pipes.iter_mut().enumerate() {
            let Some(fd) = pipe else { continue };
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                continue;
            }
            let mut bytes = [0_u8; READ_BYTES];
            let length = match nix::unistd::read(&*fd, &mut bytes) {
                Err(Errno::EINTR) => continue,
                read => read.unwrap_or(0),
            };
            any |= length > 0;
            if length == 0 {
                *pipe = None;
            }
            let text = &mut self.texts[index];
            text.extend_from_slice(&bytes[..length]);
            let excess = text.len().saturating_sub(KEPT_BYTES);
            match index {
                0 => text.truncate(KEPT_BYTES),
                _ => drop(text.drain(..excess)),
            }
        }
        any
    }

    /// Ends all that is left, and takes the last words.
    fn finish(&mut self, tools: &Tools) {
        let give_up_ns = clock::monotonic_ns().saturating_add(KILL_PATIENCE_NS);
        // What a program leaves running in the background is not wanted.
        while self.reaper.reap() == Remains::Something && clock::monotonic_ns() < give_up_ns {
            if self.reaper.leader_end.is_none() {
                process::signal_group(self.child.pid, libc::SIGKILL);
            }
            tree::kill_all(None);
            tools.claimer.beat(clock::monotonic_ns());
            std::thread::sleep(REAP_INTERVAL);
        }
        while self.read() {}
    }
}

/// A word as an argument.
pub fn word(text: impl AsRef<OsStr>) -> OsString {
    text.as_ref().to_owned()
}
