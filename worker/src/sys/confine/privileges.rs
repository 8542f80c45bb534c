//! Who a confined process is, and what it may that users may not.
//!
//! By system calls and not by libc's functions: those tell all threads of a process, and between clone and exec that
//! would be the parent's. Deliberately absent: names of users and groups.

use nix::unistd::geteuid;

/// `struct __user_cap_header_struct`, and the version with two words of capabilities.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;
const SYS_ADMIN: u32 = 21;

/// What a confined root keeps: to be root over files, and to become somebody else.
const KEPT: u64 = (1 << CHOWN)
    | (1 << DAC_OVERRIDE)
    | (1 << FOWNER)
    | (1 << FSETID)
    | (1 << SETGID)
    | (1 << SETUID)
    | (1 << NET_BIND_SERVICE);
/// No kernel has so many capabilities.
const CAPABILITIES_MAX: u32 = 64;

/// Whether this process may make namespaces of its own kind: root's power, whole or within a container that gives it.
pub fn is_privileged() -> bool {
    geteuid().is_root() && capabilities().is_some_and(|sets| has(&sets, SYS_ADMIN) && has(&sets, SETUID))
}

fn has(sets: &[Sets; 2], capability: u32) -> bool {
    sets[(capability / 32) as usize].effective & (1 << (capability % 32)) != 0
}

fn capabilities() -> Option<[Sets; 2]> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both structures live during the call; this version fills two sets.
    let told = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    (told == 0).then_some(sets)
}

/// Keeps of all capabilities only [`KEPT`], for this process and whatever it executes. Async-signal-safe.
pub(super) fn drop_capabilities() -> bool {
    let Some(mut sets) = capabilities() else { return false };
    for capability in (0..CAPABILITIES_MAX).filter(|capability| KEPT & (1 << capability) == 0) {
        // SAFETY: a plain system call. One that is refused leaves the bounding set as it is, and then `no_new_privs` still
        // keeps the next program from getting back what is dropped below. The first that the kernel does not know ends it.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        // SAFETY: reads this thread's errno.
        if dropped != 0 && unsafe { *libc::__errno_location() } == libc::EINVAL {
            break;
        }
    }
    for (word, set) in sets.iter_mut().enumerate() {
        let kept = (KEPT >> (32 * word)) as u32;
        set.effective &= kept;
        set.permitted &= kept;
        set.inheritable = 0;
    }
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: as above; the sets are only read. The ambient set is emptied by itself, as it is bounded by these.
    unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) == 0 }
}

/// A user with its groups, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Its further groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Becomes this user, for good. Async-signal-safe.
    pub(super) fn assume(&self) -> bool {
        let (user, group) = (self.user, self.group);
        // SAFETY: plain system calls; the list of groups lives in the parent, which waits.
        unsafe {
            libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) == 0
                && libc::syscall(libc::SYS_setresgid, group, group, group) == 0
                && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
        }
    }
}
