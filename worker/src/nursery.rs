//! The nursery: a small single-threaded process that forks workers on request and knows nothing else.
//!
//! The supervisor forks it first of all, before it opens the queue, the poll or a signal handler, so a worker is born
//! from clean pages and inherits nothing that it must not have. A worker is made as the nursery's sibling, that is as
//! the supervisor's own child, and its descriptors travel with the request. Deliberately absent: restarts, counting,
//! and every decision; those are the supervisor's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use crate::actions::Registry;
use crate::claim_loop;
use crate::failpoint;
use crate::sys::{confine, image, pipe, process, signal};
use crate::wire::{Birth, Inherited};

/// The largest request, in bytes: settings hold an environment.
const REQUEST_MAX: usize = 128 * 1024;

/// The nursery's answer: the pid of the newborn, or the error number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Answer {
    Born(i32),
    Failed(i32),
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Nursery {
    socket: OwnedFd,
    /// The nursery's pid.
    pub pid: i32,
    /// Tells of the nursery's own death.
    pub pidfd: OwnedFd,
}

impl Nursery {
    /// Forks the nursery off the calling process, which must have one thread. `begin` is what the nursery does first, and
    /// `actions` what its workers can do by themselves.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(begin: fn(), actions: &'static Registry) -> io::Result<Self> {
        let (ours, theirs) = pipe::message_pair()?;
        match process::fork()? {
            process::Forked::Child => {
                drop(ours);
                begin();
                process::exit_now(serve(&theirs, actions))
            }
            process::Forked::Parent(pid, pidfd) => Ok(Self { socket: ours, pid, pidfd }),
        }
    }

    /// Has a worker made. It is the calling process' child.
    ///
    /// # Errors
    /// The nursery is gone or does not answer, or the kernel refuses another process.
    pub fn bear(&self, birth: &Birth, fds: &[RawFd]) -> io::Result<(i32, OwnedFd)> {
        let request = serde_json::to_vec(birth)?;
        if request.len() > REQUEST_MAX {
            return Err(io::Error::other("the environment allowed to tasks is too large"));
        }
        pipe::send_with_fds(self.socket.as_fd(), &request, fds)?;
        let mut buffer = [0_u8; 64];
        let (length, mut fds) = pipe::receive_with_fds(self.socket.as_fd(), &mut buffer)?;
        match serde_json::from_slice(&buffer[..length])? {
            Answer::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            Answer::Born(pid) => {
                let pidfd = fds.pop().ok_or_else(|| io::Error::other("the nursery sent no pidfd"))?;
                Ok((pid, pidfd))
            }
        }
    }
}

impl Drop for Nursery {
    /// Ends the nursery, so that a supervisor that has ended has left no process. It holds nothing that could be lost.
    fn drop(&mut self) {
        let _ = process::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(self.pidfd.as_fd());
    }
}

/// The nursery's life: until the supervisor closes its end, or dies.
fn serve(socket: &OwnedFd, actions: &'static Registry) -> i32 {
    process::set_name(c"acode-nursery");
    // A session of its own keeps the terminal's signals away from workers: only the supervisor decides on those.
    let _ = nix::unistd::setsid();
    if signal::reset().is_err() {
        return 1;
    }
    // While nothing is loaded for any task; the workers have it by being forked.
    image::own();
    // For sandboxes, while there is no task yet that could look into the process that it takes to make one.
    let user_namespace = if confine::is_privileged() { None } else { confine::user_namespace().ok() };
    if process::forbid_looks_inside().is_err() {
        return 1;
    }
    // One for all requests: an allocation of its own for each would leave its pages, dirty, in every worker.
    let mut buffer = vec![0; REQUEST_MAX];
    loop {
        let (length, fds) = match pipe::receive_with_fds(socket.as_fd(), &mut buffer) {
            Ok((0, _)) => return 0,
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return 1,
        };
        let Some(inherited) = read_request(&buffer[..length], fds) else { return 1 };
        failpoint!("nursery.before-birth");
        match process::fork_sibling() {
            Ok(process::Forked::Child) => {
                close(socket.as_fd());
                process::exit_now(claim_loop::live(inherited, user_namespace, actions))
            }
            Ok(process::Forked::Parent(pid, pidfd)) => {
                failpoint!("nursery.after-birth");
                answer(socket, Answer::Born(pid), Some(pidfd));
            }
            Err(error) => answer(socket, Answer::Failed(error.raw_os_error().unwrap_or(libc::EAGAIN)), None),
        }
    }
}

/// Closes a descriptor that this process owns a borrowed copy of only by inheritance.
fn close(fd: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    let _ = nix::unistd::close(fd.as_raw_fd());
}

fn read_request(request: &[u8], fds: Vec<OwnedFd>) -> Option<Inherited> {
    let birth = serde_json::from_slice(request).ok()?;
    let mut fds = fds.into_iter();
    Some(Inherited {
        birth,
        orders: fds.next()?,
        reports: fds.next()?,
        table: fds.next()?,
        lock: fds.next()?,
        leaf: fds.next(),
    })
}

fn answer(socket: &OwnedFd, answer: Answer, pidfd: Option<OwnedFd>) {
    use std::os::fd::AsRawFd;
    let Ok(text) = serde_json::to_vec(&answer) else { return };
    let fds: Vec<RawFd> = pidfd.iter().map(AsRawFd::as_raw_fd).collect();
    // A supervisor that is gone is noticed at the next receive.
    let _ = pipe::send_with_fds(socket.as_fd(), &text, &fds);
}
