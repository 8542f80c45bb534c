//! The disk that a task's scratch directory takes: counted, and held to a limit by the best means that there are.
//!
//! | means | who holds it | file |
//! |---|---|---|
//! | project quota | the kernel, on the file system where the scratch directory is | `quota` |
//! | loop image, tmpfs | the kernel, as a file system of that size mounted over it | `mounted` |
//! | sampling | nobody: it is looked at from time to time | `walk`, `unlinked` |
//!
//! The kernel's wall stands a little behind the limit ([`SLACK_BYTES`], [`SLACK_FILES`]). So a task that keeps within its
//! limit is never stopped, and one that wants more is known by having more. Deliberately absent: what follows from an
//! excess, which is `execute::watch`'s.

mod mounted;
mod quota;
mod unlinked;
mod walk;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::sys::describe;
use crate::task::DiskMethod;
use mounted::Mounted;
use quota::{Quota, Quotas};
use walk::Walk;

pub use quota::{projects, release_all};

/// How far behind a limit the kernel's wall stands, in bytes. Less than what a file system may hold back.
pub const SLACK_BYTES: u64 = 64 << 10;
/// The same in files.
pub const SLACK_FILES: u64 = 1;
/// The most entries that one step of a walk looks at.
const STEP_ENTRIES: usize = 2_000;
/// The most entries that the last look at a scratch directory takes in.
const LAST_ENTRIES: usize = 100_000;

/// What a scratch directory may hold, or holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files, directories and links in it.
    pub files: u64,
}

impl Amount {
    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), files: self.files.max(other.files) }
    }
}

/// What a scratch directory may hold; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskLimit {
    /// Bytes on the disk.
    pub bytes: Option<u64>,
    /// Files, directories and links in it.
    pub files: Option<u64>,
}

/// How a limit is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// By what means.
    pub method: DiskMethod,
    /// What it may hold.
    pub limit: DiskLimit,
    /// Whether writing beyond the limit shall fail, rather than be told of.
    pub wall: bool,
    /// Whether the directory may have to be kept, for which it must not be a mount.
    pub keeps: bool,
}

/// By what means a limit is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// A project quota.
    Quota,
    /// A loop image.
    Loop,
    /// A tmpfs.
    Tmpfs,
    /// Looking.
    Sampling,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quota => "project quota",
            Self::Loop => "loop image",
            Self::Tmpfs => "tmpfs",
            Self::Sampling => "sampling",
        })
    }
}

/// What a host offers for a folder; where it does not, why not.
#[derive(Debug)]
pub struct Offers {
    /// Project quotas.
    pub quota: Result<(), String>,
    /// Loop images.
    pub image: Result<(), String>,
    /// A tmpfs.
    pub tmpfs: Result<(), String>,
}

impl Offers {
    /// By what means a limit would be held that this method is configured for.
    pub fn means(&self, method: DiskMethod) -> Means {
        match method {
            DiskMethod::Auto | DiskMethod::Quota if self.quota.is_ok() => Means::Quota,
            DiskMethod::Loop if self.image.is_ok() => Means::Loop,
            DiskMethod::Tmpfs if self.tmpfs.is_ok() => Means::Tmpfs,
            DiskMethod::Auto | DiskMethod::Quota | DiskMethod::Loop | DiskMethod::Tmpfs | DiskMethod::Sampling => {
                Means::Sampling
            }
        }
    }
}

/// What the host offers for scratch directories in `folder`, which must exist. Changes nothing.
pub fn probe(folder: &Path) -> Offers {
    let words = |error: io::Error| describe(&error);
    let quota = std::fs::File::open(folder).and_then(|folder| quota::check(&folder));
    Offers {
        quota: quota.map_err(words),
        image: mounted::check_image().map_err(words),
        tmpfs: mounted::check().map_err(words),
    }
}

/// What a worker knows of the means for its scratch directories. Nothing is found out before the first task with a
/// limit.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    quotas: Option<Result<Quotas, String>>,
    private_view: bool,
}

/// Where a scratch directory is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    /// The room.
    pub room: &'p Path,
    /// The room's number.
    pub slot: u32,
    /// The scratch directory.
    pub path: &'p Path,
    /// The same, open.
    pub fd: BorrowedFd<'p>,
}

impl Keeper {
    /// Holds the scratch directory as wished, or by looking where that cannot be.
    ///
    /// # Errors
    /// Not even looking is possible.
    pub fn hold(&mut self, place: Place<'_>, wish: &Wish) -> io::Result<Held> {
        let held = match wish.method {
            DiskMethod::Sampling => Err(None),
            DiskMethod::Auto => self.by_quota(place, wish).map_err(|_| None),
            DiskMethod::Quota => self.by_quota(place, wish).map_err(Some),
            DiskMethod::Loop | DiskMethod::Tmpfs => self.by_mount(place, wish).map_err(Some),
        };
        match held {
            Ok(holder) => Ok(Held { holder, why_not: None }),
            Err(why_not) => {
                let walk = Walk::new(place.fd, place.path)?;
                Ok(Held { holder: Holder::Walk(Box::new(walk)), why_not })
            }
        }
    }

    fn by_quota(&mut self, place: Place<'_>, wish: &Wish) -> Result<Holder, String> {
        let quotas = self.quotas.get_or_insert_with(|| Quotas::find(place).map_err(|error| error.to_string()));
        let quotas = quotas.as_mut().map_err(|why| why.clone())?;
        quotas.take(place.fd, wish).map(Holder::Quota).map_err(|error| error.to_string())
    }

    fn by_mount(&mut self, place: Place<'_>, wish: &Wish) -> Result<Holder, String> {
        let Some(bytes) = wish.limit.bytes.filter(|_| wish.wall) else {
            return Err("it would have no size".to_owned());
        };
        if wish.keeps {
            return Err("what is in a mount cannot be kept".to_owned());
        }
        if !self.private_view {
            crate::sys::mount::enter_private_view().map_err(|error| format!("no view of its own: {error}"))?;
            self.private_view = true;
        }
        let made = match wish.method {
            DiskMethod::Tmpfs => Mounted::tmpfs(place, bytes, wish.limit.files),
            DiskMethod::Loop | DiskMethod::Auto | DiskMethod::Quota | DiskMethod::Sampling => {
                Mounted::image(place, bytes, wish.limit.files)
            }
        };
        made.map(Holder::Mounted).map_err(|error| error.to_string())
    }
}

#[derive(Debug)]
enum Holder {
    Quota(Quota),
    Mounted(Mounted),
    Walk(Box<Walk>),
}

/// A scratch directory that is held to a limit, or counted, until this is dropped.
#[derive(Debug)]
pub struct Held {
    holder: Holder,
    why_not: Option<String>,
}

impl Held {
    /// By what means.
    pub fn means(&self) -> Means {
        match &self.holder {
            Holder::Quota(_) => Means::Quota,
            Holder::Mounted(mounted) => mounted.means(),
            Holder::Walk(_) => Means::Sampling,
        }
    }

    /// Why it is not held by the means that were asked for by name.
    pub fn why_not(&self) -> Option<&str> {
        self.why_not.as_deref()
    }

    /// Looks at what the directory holds, by a bounded step. `pids` gives the processes that may have files open in it.
    /// What is said is complete, or so far counted.
    pub fn look(&mut self, pids: impl FnOnce() -> Vec<i32>) -> Seen {
        match &mut self.holder {
            Holder::Quota(quota) => Seen::Whole(quota.read()),
            Holder::Mounted(mounted) => Seen::Whole(mounted.read()),
            Holder::Walk(walk) => walk.step(STEP_ENTRIES, pids),
        }
    }

    /// Forgets what was counted until now: the next look begins anew.
    pub fn begin_again(&mut self) {
        match &mut self.holder {
            Holder::Walk(walk) => walk.begin_again(),
            Holder::Quota(_) | Holder::Mounted(_) => {}
        }
    }

    /// What the directory holds when all that used it is dead.
    pub fn last(mut self) -> Amount {
        match &mut self.holder {
            Holder::Quota(quota) => quota.read(),
            Holder::Mounted(mounted) => mounted.read(),
            Holder::Walk(walk) => {
                walk.begin_again();
                walk.step(LAST_ENTRIES, Vec::new).amount()
            }
        }
    }
}

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// All that there is.
    Whole(Amount),
    /// What was counted until now: the next look goes on.
    SoFar(Amount),
}

impl Seen {
    /// What was found.
    pub fn amount(self) -> Amount {
        match self {
            Self::Whole(amount) | Self::SoFar(amount) => amount,
        }
    }
}
