//! A user namespace in which an unprivileged worker's children may make the other namespaces.
//!
//! Made once, before the first task runs, by a child that does nothing but stay until its ids are mapped; the namespace
//! is then held by a descriptor. Its one user is our own, under its own number, so that tasks see the ids they always
//! saw. Deliberately absent: ranges of ids from /etc/subuid, which a task of one user has no use for.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::{getegid, geteuid};

use crate::sys::{pipe, process};

/// Makes a user namespace. The calling process must be single-threaded.
///
/// # Errors
/// The kernel, or how it is set up, does not give one to this user.
pub fn user_namespace() -> io::Result<OwnedFd> {
    let (user, group) = (geteuid(), getegid());
    let (stay, leave) = pipe::pipe()?;
    match process::fork_into_user_namespace()? {
        process::Forked::Child => {
            drop(leave);
            // Its files in /proc are ours only if it may be looked into; it holds nothing worth a look.
            let _ = nix::sys::prctl::set_dumpable(true);
            // Ends when the parent closes its end, or dies.
            let _ = fs::File::from(stay).read(&mut [0]);
            process::exit_now(0)
        }
        process::Forked::Parent(pid, pidfd) => {
            drop(stay);
            let made = map(pid, user.as_raw(), group.as_raw());
            drop(leave);
            process::wait(pidfd.as_fd())?;
            made
        }
    }
}

fn map(pid: i32, user: u32, group: u32) -> io::Result<OwnedFd> {
    let place = |name: &str| format!("/proc/{pid}/{name}");
    // The child says that it may be looked into in its own time.
    let mut tries = 0;
    while let Err(error) = fs::write(place("setgroups"), "deny") {
        tries += 1;
        if error.kind() != io::ErrorKind::PermissionDenied || tries > TRIES_MAX {
            return Err(error);
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    fs::write(place("uid_map"), format!("{user} {user} 1"))?;
    fs::write(place("gid_map"), format!("{group} {group} 1"))?;
    Ok(fs::File::open(place("ns/user"))?.into())
}

/// How often the child is looked for before it is taken for out of reach.
const TRIES_MAX: u32 = 500;
