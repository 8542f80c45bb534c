//! Landlock: rules for a process that it and its children can never shed, without any privilege.
//!
//! Rule sets are made here, in the worker, at leisure; the child between clone and exec only enters one by its
//! descriptor. Deliberately absent: which paths and which rights, which the caller knows.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Executing a file.
pub const EXECUTE: u64 = 1 << 0;
/// Opening a file for writing.
pub const WRITE_FILE: u64 = 1 << 1;
/// Opening a file for reading.
pub const READ_FILE: u64 = 1 << 2;
/// Listing a directory.
pub const READ_DIR: u64 = 1 << 3;
/// Making block devices: handled where a rule set must handle something and should forbid nothing.
pub const MAKE_BLOCK: u64 = 1 << 11;
/// Everything that changes the file system and is known since ABI 3: writing, truncating, making, removing, renaming.
pub const CHANGES: u64 = WRITE_FILE | (0x7ff << 4);
/// What is meaningful for a file that is no directory.
pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

const TRUNCATE: u64 = 1 << 14;
const NET_BIND_TCP: u64 = 1;
const NET_CONNECT_TCP: u64 = 2;
const SCOPE_ABSTRACT_SOCKETS: u64 = 1;
const SCOPE_SIGNALS: u64 = 2;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: i32 = 1;

/// The ABI from which on truncation is covered, without which a file tree is not read-only.
pub const ABI_FILES: u32 = 3;
/// The ABI from which on TCP is covered.
pub const ABI_TCP: u32 = 4;
/// The ABI from which on signals and abstract sockets are covered.
pub const ABI_SCOPES: u32 = 6;

/// The kernel's `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    files: u64,
    net: u64,
    scopes: u64,
}

/// The kernel's `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// What a rule set restricts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handled {
    /// The rights to files that are refused where no rule grants them.
    pub files: u64,
    /// Whether TCP is refused; left out before [`ABI_TCP`].
    pub tcp: bool,
    /// Whether signals may only go to processes under the same rule set; left out before [`ABI_SCOPES`].
    pub signals: bool,
    /// The same for abstract Unix sockets.
    pub abstract_sockets: bool,
}

/// The version of the kernel's Landlock: 0 where it is absent or switched off.
pub fn abi() -> u32 {
    // SAFETY: with this flag the kernel reads nothing and answers a number.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Attributes>(), 0, CREATE_RULESET_VERSION)
    };
    u32::try_from(answer).unwrap_or(0)
}

/// A rule set. A process under any of them can neither trace nor look into processes that are not.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    files: u64,
}

impl Ruleset {
    /// Makes one for a kernel of this ABI.
    ///
    /// # Errors
    /// The kernel has no Landlock, or nothing is handled.
    pub fn new(abi: u32, handled: Handled) -> io::Result<Self> {
        let net = if handled.tcp && abi >= ABI_TCP { NET_BIND_TCP | NET_CONNECT_TCP } else { 0 };
        let mut scopes = 0;
        if abi >= ABI_SCOPES {
            scopes |= if handled.signals { SCOPE_SIGNALS } else { 0 };
            scopes |= if handled.abstract_sockets { SCOPE_ABSTRACT_SOCKETS } else { 0 };
        }
        let attributes = Attributes { files: handled.files, net, scopes };
        // A kernel that knows less refuses a longer structure only if what it does not know is not zero.
        // SAFETY: the structure lives during the call and has the size that is told.
        let fd = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<Attributes>(), 0)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours; the kernel has made it close-on-exec.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, files: handled.files })
    }

    /// Grants rights to what is at `path`, and below it. What does not exist needs no rule.
    ///
    /// # Errors
    /// The path cannot be opened, or the kernel refuses.
    pub fn allow(&self, path: &CStr, rights: u64) -> io::Result<()> {
        use nix::fcntl::{OFlag, open};
        use nix::sys::stat::{Mode, SFlag, fstat};
        let place = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(()),
            opened => opened?,
        };
        let is_directory = fstat(&place)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let allowed = self.files & if is_directory { rights } else { rights & OF_FILES };
        if allowed == 0 {
            return Ok(());
        }
        let rule = PathBeneath { allowed, parent: place.as_raw_fd() };
        // SAFETY: the structure lives during the call and is of the kind that is told.
        let added = unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.fd.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
        };
        if added == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Puts the calling process under the rules, for good. Async-signal-safe.
    pub(super) fn enter(&self) -> bool {
        // SAFETY: a plain system call; only the calling process is restricted.
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0) == 0 }
    }
}
