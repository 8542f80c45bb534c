//! A pool's process that lives as long as whoever started it.
//!
//! There are two births of it, and everything else is shared. A program, which may have threads, **executes** itself again in
//! the role `supervisor`: a fork without exec would copy the locks of threads that it does not copy. Over one socket the
//! child is told where its directories are and with what options it runs, and answers that it is up, or why it is not; the
//! same socket is the lifeline, whose closing ends the pool, so that no end of the program can leave one behind.
//!
//! The command line **forks** instead (`acode run`, and without a lifeline `acode worker start --detach`): it is
//! single-threaded, has the configuration in its hands, as changed by its flags, and its child may tell what is wrong on the
//! same terminal. An exec would load the program, the configuration and the directories a second time for each
//! `acode run -- true`, and would need a second form of everything that flags can say.
//!
//! Deliberately absent: what a supervisor does.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use acode_worker::actions::Registry;
use acode_worker::sys::{process, signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cancel::Patience;
use super::{ApiError, role};
use crate::config::{self, Config};
use crate::error_chain;
use crate::rundir::{Dirs, LockError};
use crate::supervisor::{self, Detached, Launch, PoolError, Reload, Started};

/// How long the pool is waited for at the end.
const FAREWELL: Duration = Duration::from_secs(30);
/// The largest message of either side, in bytes.
const LETTER_MAX: u64 = 4 << 20;
/// The program that this process runs.
const SELF: &str = "/proc/self/exe";

/// What the child is told: one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Letter {
    /// The state directory.
    pub state: PathBuf,
    /// The runtime directory.
    pub runtime: PathBuf,
    /// A configuration file under the options.
    pub file: Option<PathBuf>,
    /// Keys of the configuration with their values.
    pub options: Vec<(String, Value)>,
    /// Whether the state directory goes with the pool.
    pub doomed: bool,
}

/// What the child answers: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It accepts work.
    Up {
        /// Its process.
        pid: u32,
    },
    /// It does not.
    Failed {
        /// Why not.
        why: String,
        /// Whether it is because somebody else holds the queue.
        #[serde(default)]
        held: bool,
    },
}

/// A pool's process, which ends when this is dropped, and when this process ends in whatever way.
pub struct PoolProcess {
    // Closing it ends the pool, and so does our death.
    lifeline: Option<OwnedFd>,
    process: Detached,
    _folder: Option<tempfile::TempDir>,
}

impl std::fmt::Debug for PoolProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolProcess").field("pid", &self.process.pid).finish_non_exhaustive()
    }
}

impl PoolProcess {
    /// Forks off a pool. `folder` is its state directory, if that goes with it. `tell` prints why it did not start, and gives
    /// the exit code for that. The calling process must be single-threaded.
    ///
    /// # Errors
    /// The kernel refuses a process. The inner error is the exit code of a pool that did not come up.
    pub fn fork(
        dirs: Dirs,
        folder: Option<tempfile::TempDir>,
        config: Config,
        tell: fn(PoolError) -> u8,
    ) -> io::Result<Result<Self, u8>> {
        let (reader, lifeline) = supervisor::lifeline()?;
        let mut lifeline = Some(lifeline);
        let doomed = folder.as_ref().map(|folder| folder.path().to_owned());
        let started = supervisor::detach(|ready| {
            // Ours is the reading end alone: with a copy of the other one it would never see it close.
            lifeline = None;
            let reload: Reload = Box::new(|| Err("a private pool has no configuration to read again".into()));
            let (watch, actions) = (reader.try_clone(), role::registry());
            let launch = Launch { dirs, config, reload, lifeline: Some(reader), actions, log_to_file: true };
            let code = supervisor::serve(launch, |up| ready(up.pid)).map_or_else(tell, |()| 0);
            remove_doomed(doomed.as_deref(), watch.ok());
            code
        })?;
        Ok(match started {
            Started::Up(process) => Ok(Self { lifeline, process, _folder: folder }),
            Started::Ended(code) => Err(code),
        })
    }

    /// Executes `program`, this one again if none is named, as a pool, and waits until it accepts work. Threads do not mind.
    ///
    /// # Errors
    /// It did not come up, or the patience was over; then it ends.
    pub(super) fn execute(
        program: Option<&Path>,
        letter: &Letter,
        folder: Option<tempfile::TempDir>,
        patience: &Patience,
    ) -> Result<Self, ApiError> {
        let (own, theirs) = UnixStream::pair().map_err(ApiError::Process)?;
        let mut command = Command::new(program.unwrap_or(Path::new(SELF)));
        if let (None, Some(name)) = (program, std::env::args_os().next()) {
            command.arg0(name);
        }
        command.env(role::ROLE, role::SUPERVISOR).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().map_err(ApiError::Process)?;
        // Only the child has the other end now: if it ends, that closes.
        drop(command);
        let pidfd = i32::try_from(child.id()).map_err(io::Error::other).and_then(process::pidfd_open);
        let pidfd = pidfd.map_err(ApiError::Process)?;
        let process = Detached { pid: child.id(), pidfd };
        let mut pool = Self { lifeline: None, process, _folder: folder };
        let mut words = serde_json::to_vec(letter)?;
        words.push(b'\n');
        let answer = tell(&own, &words).and_then(|()| listen(&own, patience));
        pool.lifeline = Some(own.into());
        match answer {
            Ok(Some(Answer::Up { .. })) => Ok(pool),
            Ok(Some(Answer::Failed { why, held: false })) => Err(ApiError::NotStarted { why }),
            Ok(Some(Answer::Failed { why, held: true })) => Err(ApiError::Held { why }),
            Ok(None) => Err(ApiError::NotStarted { why: "its process ended without a word".to_owned() }),
            Err(error) => Err(error),
        }
    }

    /// The supervisor's pid.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Waits, for a bounded time, until the pool's process has ended. It was told to.
    pub fn wait(&self) {
        self.process.wait(FAREWELL);
    }

    /// Ends the pool, if it lives, and waits for it.
    fn end(&mut self) {
        self.lifeline = None;
        // The folder can only be removed when nobody writes there any more.
        self.process.wait(FAREWELL);
    }
}

impl Drop for PoolProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends the letter. The child reads it at once, so this takes no time.
fn tell(socket: &UnixStream, mut words: &[u8]) -> Result<(), ApiError> {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd;
    while !words.is_empty() {
        match send(socket.as_raw_fd(), words, MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => words = &words[sent..],
            Err(nix::errno::Errno::EINTR) => {}
            // What it died of, it may have told.
            Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => return Ok(()),
            Err(error) => return Err(ApiError::Process(error.into())),
        }
    }
    Ok(())
}

/// The child's answer; none if it has ended without one.
fn listen(mut socket: &UnixStream, patience: &Patience) -> Result<Option<Answer>, ApiError> {
    let mut heard = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        patience.wait(socket.as_fd(), false, None)?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(ApiError::Process(error)),
        }
        if let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            return serde_json::from_slice(&heard[..end]).map(Some).map_err(|error| ApiError::NotStarted {
                why: format!("its answer is not understood, being of another version perhaps: {error}"),
            });
        }
    }
}

/// The role `supervisor`: what the child does. Gives its exit code.
pub(super) fn play(registry: &'static Registry) -> i32 {
    process::close_inherited();
    // Masks and what is ignored are the program's, and would be every task's.
    let settled = signal::reset();
    let _ = nix::unistd::setsid();
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let (Ok(()), Ok(socket), Ok(null)) = (settled, socket, std::fs::File::open("/dev/null")) else {
        return 1;
    };
    // Nothing of the pool may read from the lifeline.
    let _ = nix::unistd::dup2_stdin(&null);
    drop(null);
    match serve(&socket, registry) {
        Ok(()) => 0,
        Err((why, held)) => {
            answer(&socket, &Answer::Failed { why, held });
            1
        }
    }
}

/// The error is why it did not come up, and whether somebody else holds the queue.
fn serve(socket: &UnixStream, registry: &'static Registry) -> Result<(), (String, bool)> {
    let letter = read_letter(socket).map_err(|why| (why, false))?;
    let Letter { state, runtime, file, options, doomed } = letter;
    let load = move || Ok(config::load_options(file.as_deref(), &options)?.config);
    let config = load().map_err(|error: Box<dyn std::error::Error>| (error_chain(&*error), false))?;
    let dirs = Dirs { state: state.clone(), runtime };
    let lifeline = socket.try_clone().map_err(|error| (error.to_string(), false))?;
    let launch = Launch {
        dirs,
        config,
        reload: Box::new(load),
        lifeline: Some(lifeline.into()),
        actions: registry,
        log_to_file: true,
    };
    let mut is_up = false;
    let served = supervisor::serve(launch, |up| {
        supervisor::leave_terminal();
        is_up = true;
        answer(socket, &Answer::Up { pid: up.pid });
    });
    remove_doomed(doomed.then_some(&*state), socket.try_clone().ok().map(OwnedFd::from));
    match served {
        // Its log has it, and nobody listens any more.
        Err(_) if is_up => Ok(()),
        Err(error) => {
            let held = matches!(error, PoolError::Lock(LockError::Held { .. }));
            Err((error_chain(&error), held))
        }
        Ok(()) => Ok(()),
    }
}

fn read_letter(socket: &UnixStream) -> Result<Letter, String> {
    let mut words = String::new();
    let mut reader = BufReader::new(socket.take(LETTER_MAX));
    reader.read_line(&mut words).map_err(|error| format!("it cannot read what it is told: {error}"))?;
    let misunderstood =
        |error| format!("it does not understand what it is told, being of another version perhaps: {error}");
    serde_json::from_str(&words).map_err(misunderstood)
}

fn answer(socket: &UnixStream, answer: &Answer) {
    let Ok(mut words) = serde_json::to_vec(answer) else { return };
    words.push(b'\n');
    // Who does not listen any more has ended, and so shall we.
    let _ = tell(socket, &words);
}

/// Removes the state directory of a private pool whose owner has ended; one that lives does it by itself, and may want to
/// read it before.
fn remove_doomed(folder: Option<&Path>, lifeline: Option<OwnedFd>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let (Some(folder), Some(lifeline)) = (folder, lifeline) else { return };
    let mut fds = [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        let _ = std::fs::remove_dir_all(folder);
    }
}
