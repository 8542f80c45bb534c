//! Calls of the docker client that are waited for: each with a deadline of its own, its output captured and bounded, and
//! the worker alive meanwhile for its supervisor.
//!
//! Only for moments in which no task's tree lives: whatever is a child of the worker during a call belongs to it, and is
//! dead and reaped when it returns. No shell, and nothing of a task's in the client's environment. Deliberately absent:
//! what an answer means, and calls beside a running client (`errand`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::process::Tools;
use super::super::program;
use crate::sys::spawn::{self, CStringArray, Child, Spawn, Step};
use crate::sys::tree::{self, Ended, Reaper, Remains};
use crate::sys::{clock, pipe, process};
use crate::task::Env;
use crate::wire::{DockerSettings, LineClosed, Order, Report};

/// The most bytes kept of each of a call's two outputs.
const KEPT_BYTES: usize = 64 << 10;
/// How often a client that is being killed is looked at, in milliseconds.
const REAP_INTERVAL_MS: u64 = 2;
/// How long a killed client may take to be gone, in nanoseconds. One that the kernel holds longer is left to it.
const KILL_PATIENCE_NS: u64 = 2_000_000_000;
/// The most characters of the client's words that are told.
const WORDS_MAX: usize = 400;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such program.
    #[error("the docker client '{program}' cannot be run (docker.program names another): {source}")]
    NotRun {
        /// As it is configured.
        program: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// No answer came in time. Whether it was done all the same is not known.
    #[error("'docker {what}' gave no answer within {limit_ms} ms")]
    TimedOut {
        /// The command.
        what: String,
        /// Its deadline.
        limit_ms: u64,
    },
    /// The client, or the engine behind it, said no.
    #[error("'docker {what}' failed: {words}")]
    Refused {
        /// The command.
        what: String,
        /// The last of its words.
        words: String,
    },
}

impl CallError {
    /// Whether this says that the container is gone, or about to be.
    pub fn means_gone(&self) -> bool {
        const WORDS: [&str; 4] =
            ["no such container", "no such object", "no container with name or id", "already in progress"];
        self.says_one_of(&WORDS)
    }

    /// Whether this says that the container does not run, or is not there at all.
    pub fn means_not_running(&self) -> bool {
        const WORDS: [&str; 4] = ["is not running", "not running", "can only kill running containers", "is not paused"];
        self.means_gone() || self.says_one_of(&WORDS)
    }

    /// Whether podman waited in vain for a process to go that it had killed: one whose keeper is dead stays until somebody
    /// reaps it. The second time podman finds it dead.
    pub fn means_unreaped(&self) -> bool {
        self.says_one_of(&["did not die within timeout"])
    }

    fn says_one_of(&self, all: &[&str]) -> bool {
        match self {
            Self::Refused { words, .. } => {
                let words = words.to_lowercase();
                all.iter().any(|known| words.contains(known))
            }
            Self::NotRun { .. } | Self::TimedOut { .. } => false,
        }
    }
}

/// Calls the client with these arguments and gives what it writes to its standard output.
///
/// # Errors
/// It cannot be run, gives no answer within `limit_ms` milliseconds, or ends with another code than 0.
pub fn call(tools: &mut Tools, arguments: &[&str], limit_ms: u64) -> Result<String, CallError> {
    let what = arguments.first().copied().unwrap_or_default();
    let (child, outputs) = start(&tools.settings.docker, arguments)
        .map_err(|source| CallError::NotRun { program: tools.settings.docker.program.clone(), source })?;
    let limit_ns = limit_ms.saturating_mul(1_000_000);
    let mut waiting = Waiting::new(child, outputs, clock::monotonic_ns().saturating_add(limit_ns));
    let ended = waiting.wait(tools);
    let [out, err] = waiting.end();
    let words = || last_words(&err.text).or_else(|| last_words(&out.text));
    match ended {
        Some(Ended::Exited(0)) => Ok(String::from_utf8_lossy(&out.text).into_owned()),
        Some(Ended::Exited(code)) => {
            let words = words().unwrap_or_else(|| format!("it ended with code {code} and without a word"));
            Err(CallError::Refused { what: what.to_owned(), words })
        }
        Some(Ended::Signalled { signal, .. }) => {
            Err(CallError::Refused { what: what.to_owned(), words: format!("it was killed by signal {signal}") })
        }
        None => Err(CallError::TimedOut { what: what.to_owned(), limit_ms }),
    }
}

/// Arguments for exec: the program's name and those that follow.
pub fn argument_array<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> CStringArray {
    let mut argv = CStringArray::default();
    argv.push(&[program.as_bytes()]);
    for argument in arguments {
        argv.push(&[argument.as_bytes()]);
    }
    argv.seal();
    argv
}

/// The client's environment, with `more` of its own for this one call.
pub fn environment_array(settings: &DockerSettings, more: &Env) -> CStringArray {
    let mut envp = CStringArray::default();
    let base = settings.environment.iter().filter(|(name, _)| !more.contains_key(*name));
    for (name, value) in base.chain(more) {
        envp.push(&[name.as_bytes(), b"=", value.as_bytes()]);
    }
    envp.seal();
    envp
}

/// The files that may be the client, in order.
pub fn client_files(settings: &DockerSettings) -> Vec<CString> {
    match settings.program.is_empty() {
        true => Vec::new(),
        false => program::candidates(&settings.program, &settings.environment, &Env::new()),
    }
}

/// Without a cgroup of its own: the worker's leaf may have been killed just now, and who is born into such a one may die.
fn start(settings: &DockerSettings, arguments: &[&str]) -> io::Result<(Child, [OwnedFd; 2])> {
    let null = std::fs::File::open("/dev/null")?;
    let ((out, out_writer), (err, err_writer)) = (pipe::pipe()?, pipe::pipe()?);
    pipe::set_nonblocking(&out)?;
    pipe::set_nonblocking(&err)?;
    let programs = client_files(settings);
    let programs: Vec<_> = programs.iter().map(CString::as_c_str).collect();
    if programs.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let spawn = Spawn {
        programs: &programs,
        argv: &argument_array(&settings.program, arguments.iter().copied()),
        envp: &environment_array(settings, &Env::new()),
        cwd: c"/",
        stdio: [null.as_fd(), out_writer.as_fd(), err_writer.as_fd()],
        cgroup: None,
        rlimits: &[],
        umask: 0o077,
        confinement: None,
        heeds_quota: false,
    };
    match spawn::spawn(&spawn) {
        Ok(child) => Ok((child, [out, err])),
        Err(error) => {
            debug_assert!(error.step != Step::Confine, "nothing confines the client");
            Err(error.source)
        }
    }
}

/// What is read of one output.
#[derive(Debug)]
struct Capture {
    fd: OwnedFd,
    text: Vec<u8>,
    over: bool,
}

impl Capture {
    /// Reads all that is there; what does not fit is dropped.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) => self.over = true,
                Ok(length) => {
                    let room = KEPT_BYTES - self.text.len();
                    self.text.extend_from_slice(&buffer[..length.min(room)]);
                    continue;
                }
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EAGAIN) => {}
                Err(_) => self.over = true,
            }
            return;
        }
    }
}

/// A call under way.
struct Waiting {
    child: Child,
    reaper: Reaper,
    outputs: [Capture; 2],
    deadline_ns: u64,
    /// The supervisor is gone; there are no more orders.
    orphaned: bool,
}

impl Waiting {
    fn new(child: Child, outputs: [OwnedFd; 2], deadline_ns: u64) -> Self {
        let outputs = outputs.map(|fd| Capture { fd, text: Vec::new(), over: false });
        Self { reaper: Reaper::new(child.pid), child, outputs, deadline_ns, orphaned: false }
    }

    /// Waits for the client's end, or for the deadline: then `None`.
    fn wait(&mut self, tools: &mut Tools) -> Option<Ended> {
        loop {
            let now = clock::monotonic_ns();
            tools.claimer.beat(now);
            if self.reaper.leader_end.is_some() || now >= self.deadline_ns {
                return self.reaper.leader_end;
            }
            let left_ms = (self.deadline_ns - now).div_ceil(1_000_000);
            let has_ended = self.wait_once(tools, left_ms.min(tools.settings.heartbeat_interval_ms.max(1)));
            for output in &mut self.outputs {
                output.read();
            }
            if has_ended {
                self.reaper.reap();
            }
            if !self.orphaned {
                self.orphaned = tools.take_orders_for_later().is_err();
            }
        }
    }

    /// Waits for something to happen; true if the client has ended.
    fn wait_once(&self, tools: &Tools, timeout_ms: u64) -> bool {
        let timeout = PollTimeout::try_from(timeout_ms).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        // An output at its end would be ready for ever, and so would the orders of a supervisor that is gone.
        let open = self.outputs.iter().filter(|output| !output.over);
        fds.extend(open.map(|output| PollFd::new(output.fd.as_fd(), PollFlags::POLLIN)));
        if !self.orphaned {
            fds.push(PollFd::new(tools.line.orders_fd(), PollFlags::POLLIN));
        }
        let ready = poll(&mut fds, timeout).is_ok_and(|count| count > 0);
        ready && fds[0].revents().is_some_and(|events| !events.is_empty())
    }

    /// Kills what is left of it, and gives what was read.
    fn end(mut self) -> [Capture; 2] {
        let give_up_ns = clock::monotonic_ns().saturating_add(KILL_PATIENCE_NS);
        while self.reaper.reap() == Remains::Something && clock::monotonic_ns() < give_up_ns {
            if self.reaper.leader_end.is_none() {
                process::signal_group(self.child.pid, libc::SIGKILL);
            }
            tree::kill_all(None);
            std::thread::sleep(std::time::Duration::from_millis(REAP_INTERVAL_MS));
        }
        for output in &mut self.outputs {
            output.read();
        }
        self.outputs
    }
}

impl Tools {
    /// Takes what orders have come, without waiting. Those for the attempt at hand are kept until it looks.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub(super) fn take_orders_for_later(&mut self) -> Result<(), LineClosed> {
        while let Some(order) = self.line.next_order()? {
            match order {
                // Whoever waits here looks at the table when the wait is over.
                Order::Wake => {}
                Order::Stop => self.stopping = true,
                Order::Ping { nonce } => self.line.report(&Report::Pong { nonce })?,
                Order::Configure(settings) => self.next_settings = Some(settings),
                Order::Chore(chore) => self.chores.add(chore),
                Order::Cancel { .. } | Order::GiveBack { .. } | Order::Suspend { .. } | Order::Resume { .. } => {
                    self.orders_kept.push(order);
                }
            }
        }
        Ok(())
    }
}

/// The last line that says something, cut to a bearable length, without the client's usual beginnings.
pub fn last_words(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let said = |line: &&str| !line.is_empty() && !line.starts_with("See 'docker") && !line.starts_with("Run 'docker");
    let line = text.lines().map(str::trim).rev().find(said)?;
    let line = ["docker: ", "Error response from daemon: ", "Error: "]
        .iter()
        .fold(line, |line, beginning| line.strip_prefix(beginning).unwrap_or(line));
    Some(line.chars().take(WORDS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> CallError {
        CallError::Refused { what: "rm".to_owned(), words: words.to_owned() }
    }

    #[test]
    fn what_means_that_it_is_gone_is_told_from_what_does_not() {
        for words in [
            "No such container: acode-01",
            "removal of container 12 is already in progress",
            "no container with name or ID \"x\" found: no such container",
        ] {
            assert!(refused(words).means_gone() && refused(words).means_not_running(), "{words}");
        }
        for words in ["Cannot kill container: 12: Container 12 is not running", "container 12 is not paused"] {
            assert!(!refused(words).means_gone() && refused(words).means_not_running(), "{words}");
        }
        assert!(!refused("Cannot connect to the Docker daemon").means_not_running());
        assert!(!CallError::TimedOut { what: "rm".to_owned(), limit_ms: 1 }.means_gone());
    }

    #[test]
    fn the_clients_last_words_are_plain() {
        let text = b"docker: Error response from daemon: No such image: x.\nSee 'docker run --help'.\n\n";
        assert_eq!(last_words(text).as_deref(), Some("No such image: x."));
        assert_eq!(last_words(b" \n"), None);
        assert_eq!(last_words(&b"x".repeat(10_000)).map(|words| words.len()), Some(WORDS_MAX));
    }
}
