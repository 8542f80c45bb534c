//! Confinement: what a child is shut off from between clone and exec.
//!
//! Everything is prepared in the worker (namespaces by descriptor, mounts as a list of steps, rule sets, filters), and
//! the child, which borrows the worker's memory, only makes the system calls. Each means is a file of its own. What a
//! task may reach, and which means that takes, is `execute`'s to decide; this part knows no tasks.

pub mod filter;
pub mod landlock;
pub mod mounts;
mod privileges;
mod probe;
mod userns;

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use filter::Filter;
use landlock::Ruleset;
pub use privileges::{Identity, is_privileged};
pub use probe::{Abilities, probe, survey};
pub use userns::user_namespace;

/// What a child does to itself before it executes. Entered in the order of the fields.
#[derive(Debug, Clone, Default)]
pub struct Confinement {
    /// The user namespace in which it may make the others; none where the worker itself may make them.
    pub user_namespace: Option<Rc<OwnedFd>>,
    /// Whether it gets a network of its own, with nothing but a loopback in it.
    pub own_network: bool,
    /// Its view of the file system; none leaves it the worker's.
    pub mounts: Option<Vec<mounts::Step>>,
    /// Who it becomes.
    pub identity: Option<Identity>,
    /// Whether it gives up the capabilities that would undo the rest.
    pub drop_capabilities: bool,
    /// The rules that it comes under.
    pub rules: Option<Rc<Ruleset>>,
    /// The filter that it comes under.
    pub filter: Option<Rc<Filter>>,
}

/// What of a confinement failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Part {
    /// Entering the user namespace.
    UserNamespace = 0,
    /// Making the other namespaces.
    Namespaces = 1,
    /// Bringing up the loopback.
    Loopback = 2,
    /// Changing user and groups.
    Identity = 3,
    /// Giving up capabilities.
    Capabilities = 4,
    /// Coming under the rules.
    Rules = 5,
    /// Coming under the filter.
    Filter = 6,
    /// Laying out the file system. The step's number is added to this one's.
    Mounts = 7,
}

impl Part {
    /// The part that a child told of by its number.
    pub fn of(number: i32) -> Self {
        let all = [
            Self::UserNamespace,
            Self::Namespaces,
            Self::Loopback,
            Self::Identity,
            Self::Capabilities,
            Self::Rules,
            Self::Filter,
        ];
        all.into_iter().find(|part| *part as i32 == number).unwrap_or(Self::Mounts)
    }
}

impl Confinement {
    /// Enters namespaces and lays out the file system: before limits are set and the working directory is entered.
    /// The number of the part that failed, with errno saying why. Async-signal-safe.
    pub(super) fn enter_spaces(&self) -> Result<(), i32> {
        let check = |done: bool, part: Part| if done { Ok(()) } else { Err(part as i32) };
        if let Some(space) = &self.user_namespace {
            // SAFETY: a plain system call on a descriptor of ours.
            let entered = unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWUSER) == 0 };
            check(entered, Part::UserNamespace)?;
        }
        let network = if self.own_network { libc::CLONE_NEWNET } else { 0 };
        let spaces = network | if self.mounts.is_some() { libc::CLONE_NEWNS } else { 0 };
        if spaces != 0 {
            // SAFETY: a plain system call; it changes this process alone.
            check(unsafe { libc::unshare(spaces) == 0 }, Part::Namespaces)?;
        }
        if self.own_network {
            check(raise_loopback(), Part::Loopback)?;
        }
        match &self.mounts {
            Some(steps) => mounts::walk(steps).map_err(|step| Part::Mounts as i32 + step as i32),
            None => Ok(()),
        }
    }

    /// Becomes another user, if that is wanted: after limits are set, and before the working directory is entered.
    /// As for [`Self::enter_spaces`].
    pub(super) fn become_user(&self) -> Result<(), i32> {
        match &self.identity {
            Some(identity) if !identity.assume() => Err(Part::Identity as i32),
            Some(_) | None => Ok(()),
        }
    }

    /// Gives up what is left: as the last thing before the program is executed. As for [`Self::enter_spaces`].
    pub(super) fn give_up(&self) -> Result<(), i32> {
        let check = |done: bool, part: Part| if done { Ok(()) } else { Err(part as i32) };
        if self.drop_capabilities {
            check(privileges::drop_capabilities(), Part::Capabilities)?;
        }
        if let Some(rules) = &self.rules {
            check(rules.enter(), Part::Rules)?;
        }
        if let Some(filter) = &self.filter {
            check(filter.enter(), Part::Filter)?;
        }
        Ok(())
    }
}

/// Switches on the loopback of the calling process' network. Async-signal-safe.
fn raise_loopback() -> bool {
    // SAFETY: a structure of plain numbers for which zero is a value; `ioctl` reads it during the call; the socket is
    // closed here.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return false;
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        (request.ifr_name[0], request.ifr_name[1]) = (b'l' as libc::c_char, b'o' as libc::c_char);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        let raised = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) == 0;
        libc::close(socket);
        raised
    }
}
