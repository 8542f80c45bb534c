//! Calls of the docker client beside the one that runs a container: stop, kill, pause, resume, a signal.
//!
//! They are children of the attempt, born into its leaf, one after the other in the order in which they were asked for. What
//! comes of one shows in the container, and nobody waits for it; one that hangs is killed at its deadline. A short answer can
//! be asked for. Deliberately absent: calls that nothing goes on without (`engine`).

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::process::Tools;
use super::engine::{argument_array, client_files, environment_array};
use crate::sys::spawn::{self, Child, Spawn};
use crate::sys::{clock, pipe, process};
use crate::task::Env;

/// How often a call under way is looked at when another one waits for its end, in nanoseconds.
const LOOK_NS: u64 = 5_000_000;
/// The most calls that wait. Somebody who suspends and resumes faster than the engine can follow is not waited for.
const WAITING_MAX: usize = 64;

/// The longest answer, in bytes.
const ANSWER_MAX: usize = 256;

/// The calls of one attempt.
#[derive(Debug, Default)]
pub struct Errands {
    waiting: VecDeque<Errand>,
    under_way: Option<UnderWay>,
    answer: Option<String>,
}

#[derive(Debug)]
struct Errand {
    arguments: Vec<String>,
    limit_ns: u64,
    /// Whether what it says is of interest.
    asks: bool,
}

#[derive(Debug)]
struct UnderWay {
    child: Child,
    deadline_ns: u64,
    answer: Option<OwnedFd>,
}

impl Errands {
    /// Asks for one more call, that may take `limit_ms` milliseconds.
    pub fn send<const N: usize>(&mut self, tools: &Tools, arguments: [&str; N], limit_ms: u64) {
        self.add(tools, arguments, limit_ms, false);
    }

    /// The same, and its answer can be taken when it has ended.
    pub fn ask<const N: usize>(&mut self, tools: &Tools, arguments: [&str; N], limit_ms: u64) {
        self.add(tools, arguments, limit_ms, true);
    }

    /// The last answer, once.
    pub fn take_answer(&mut self) -> Option<String> {
        self.answer.take()
    }

    fn add<const N: usize>(&mut self, tools: &Tools, arguments: [&str; N], limit_ms: u64, asks: bool) {
        if self.waiting.len() < WAITING_MAX {
            let arguments = arguments.map(str::to_owned).to_vec();
            self.waiting.push_back(Errand { arguments, limit_ns: limit_ms.saturating_mul(1_000_000), asks });
        }
        self.tend(tools, clock::monotonic_ns());
    }

    /// Gives up what waits and what is under way: something more urgent comes.
    pub fn give_up(&mut self) {
        self.waiting.clear();
        if let Some(under_way) = &self.under_way {
            kill(&under_way.child);
        }
    }

    /// Whether nothing waits and nothing is under way.
    pub fn are_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// Sees to them: kills the one that takes too long, and begins the next when it has ended.
    pub fn tend(&mut self, tools: &Tools, now_ns: u64) {
        if let Some(under_way) = &self.under_way {
            if !has_ended(&under_way.child.pidfd) {
                if now_ns >= under_way.deadline_ns {
                    kill(&under_way.child);
                }
                return;
            }
            self.answer = under_way.answer.as_ref().and_then(read_answer).or(self.answer.take());
            self.under_way = None;
        }
        while let Some(errand) = self.waiting.pop_front() {
            // A client that cannot be run does not run the next time either; the deadlines of the attempt see to that.
            if let Ok((child, answer)) = start(tools, &errand) {
                let deadline_ns = now_ns.saturating_add(errand.limit_ns);
                self.under_way = Some(UnderWay { child, deadline_ns, answer });
                return;
            }
        }
    }

    /// When they want to be seen to next.
    pub fn next_ns(&self, now_ns: u64) -> Option<u64> {
        let under_way = self.under_way.as_ref()?;
        let soon = now_ns.saturating_add(LOOK_NS);
        let is_awaited = !self.waiting.is_empty() || under_way.answer.is_some();
        Some(if is_awaited { soon } else { under_way.deadline_ns.max(soon) })
    }
}

/// Whether the process behind a pidfd has ended, be it reaped or not.
fn has_ended(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn kill(child: &Child) {
    // It is its own session's leader. One that has ended meanwhile is not reaped before the attempt ends.
    if !has_ended(&child.pidfd) {
        process::signal_group(child.pid, libc::SIGKILL);
    }
}

/// What has come through the pipe of a call that has ended.
fn read_answer(fd: &OwnedFd) -> Option<String> {
    let mut buffer = [0; ANSWER_MAX];
    let length = nix::unistd::read(fd, &mut buffer).ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn start(tools: &Tools, errand: &Errand) -> io::Result<(Child, Option<OwnedFd>)> {
    let (reader, writer) = if errand.asks { Some(pipe::pipe()?) } else { None }.unzip();
    if let Some(reader) = &reader {
        pipe::set_nonblocking(reader)?;
    }
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    let out = writer.as_ref().map_or(null.as_fd(), |writer| writer.as_fd());
    let settings = &tools.settings.docker;
    let programs = client_files(settings);
    let programs: Vec<_> = programs.iter().map(CString::as_c_str).collect();
    let spawn = Spawn {
        programs: &programs,
        argv: &argument_array(&settings.program, errand.arguments.iter().map(String::as_str)),
        envp: &environment_array(settings, &Env::new()),
        cwd: c"/",
        stdio: [tools.null.as_fd(), out, null.as_fd()],
        cgroup: tools.leaf().map(AsFd::as_fd),
        rlimits: &[],
        umask: 0o077,
        confinement: None,
        heeds_quota: false,
    };
    spawn::spawn(&spawn).map(|child| (child, reader)).map_err(|error| error.source)
}
