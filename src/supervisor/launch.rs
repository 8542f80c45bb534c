//! Bringing a supervisor into the world: in this process or in one of its own, and its nursery before everything.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use acode_worker::sys::{pipe, process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A supervisor in a process of its own, up and accepting work.
#[derive(Debug)]
pub struct Detached {
    /// Its pid.
    pub pid: u32,
    /// Holds it.
    pub pidfd: OwnedFd,
}

/// How starting a supervisor in a process of its own came out.
#[derive(Debug)]
pub enum Started {
    /// It accepts work.
    Up(Detached),
    /// It ended before that, with this exit code; it has said why on standard error.
    Ended(u8),
}

impl Detached {
    /// Waits until it has ended, and reaps it; false if it has not at the end of the patience.
    pub fn wait(&self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let ended = poll(&mut fds, timeout).is_ok_and(|ready| ready > 0);
        ended && process::try_wait(self.pidfd.as_fd()).is_ok()
    }
}

/// A lifeline: the end that a supervisor watches, and the end whose closing ends it.
///
/// # Errors
/// What the kernel says.
pub fn lifeline() -> io::Result<(OwnedFd, OwnedFd)> {
    pipe::pipe()
}

/// Runs `serve` in a process of its own, and returns when that accepts work or has ended. `serve` gets what to call
/// when it is ready, and gives its exit code. The calling process must be single-threaded.
///
/// # Errors
/// The kernel refuses a process or a pipe.
pub fn detach(serve: impl FnOnce(Box<dyn FnOnce(u32)>) -> u8) -> io::Result<Started> {
    let (reader, writer) = pipe::pipe()?;
    match process::fork()? {
        process::Forked::Child => {
            drop(reader);
            // A session of its own: the terminal's signals are not for it.
            let _ = nix::unistd::setsid();
            let mut writer = std::fs::File::from(writer);
            let code = serve(Box::new(move |pid| {
                leave_terminal();
                let _ = writer.write_all(&pid.to_le_bytes());
            }));
            process::exit_now(i32::from(code))
        }
        process::Forked::Parent(pid, pidfd) => {
            drop(writer);
            let mut told = [0_u8; 4];
            if std::fs::File::from(reader).read_exact(&mut told).is_ok() {
                return Ok(Started::Up(Detached { pid: pid as u32, pidfd }));
            }
            let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
            match status {
                nix::sys::wait::WaitStatus::Exited(_, code) => Ok(Started::Ended(u8::try_from(code).unwrap_or(1))),
                _ => Ok(Started::Ended(1)),
            }
        }
    }
}

/// Standard input, output and error go nowhere from now on: the log has a file, and the terminal belongs to others.
pub fn leave_terminal() {
    let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
    let _ = nix::unistd::dup2_stdin(&null);
    let _ = nix::unistd::dup2_stdout(&null);
    let _ = nix::unistd::dup2_stderr(&null);
}
