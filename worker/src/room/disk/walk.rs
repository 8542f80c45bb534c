//! Limits by looking: what a scratch directory holds, counted step by step while its task goes on.
//!
//! Everything goes by descriptors. A symbolic link is counted and never followed, a mount is neither counted nor
//! entered, and the way back up is by `..` and believed only if it leads to where we came from; so a walk never leaves
//! the directory, whatever is moved meanwhile. It costs two descriptors however deep the tree is, and each step has a
//! bound. After the tree come files that were unlinked and are still open (`unlinked`). Deliberately absent: exactness
//! while things move; whoever acts on a finding looks twice.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::unlinked::Unlinked;
use super::{Amount, Seen};
use crate::sys::entries::{self, Facts};

/// The most inodes that are remembered, to count what has several names once. What is beyond counts by its share.
const SEEN_MAX: usize = 1 << 16;
/// How often a walk begins again because directories were moved under it; then it has seen enough.
const TORN_MAX: u32 = 3;

const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The watch over one scratch directory.
#[derive(Debug)]
pub(super) struct Walk {
    top: OwnedFd,
    path: PathBuf,
    device: (u32, u32),
    inode: u64,
    pass: Option<Pass>,
}

/// One way through all of it.
#[derive(Debug)]
struct Pass {
    /// The directory that is being read, which is that of the last level.
    current: OwnedFd,
    levels: Vec<Level>,
    count: Count,
    torn: u32,
    /// What is left to look at when the tree is done.
    unlinked: Option<Unlinked>,
}

/// A directory on the way down.
#[derive(Debug)]
struct Level {
    inode: u64,
    /// Where to go on reading.
    position: i64,
    /// Subdirectories that were read and not yet entered.
    pending: Vec<CString>,
}

impl Level {
    fn new(inode: u64) -> Self {
        Self { inode, position: 0, pending: Vec::new() }
    }
}

/// What was found until now.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub amount: Amount,
    seen: HashSet<u64>,
}

impl Count {
    /// Counts an entry, unless it was counted by another name.
    pub fn add(&mut self, facts: &Facts) {
        let mut bytes = facts.bytes;
        if facts.links != 1 && !facts.is_dir {
            if self.seen.len() < SEEN_MAX {
                if !self.seen.insert(facts.inode) {
                    return;
                }
            } else if self.seen.contains(&facts.inode) {
                return;
            } else {
                bytes /= u64::from(facts.links.max(1));
            }
        }
        self.amount.bytes = self.amount.bytes.saturating_add(bytes);
        self.amount.files += 1;
    }
}

impl Walk {
    /// The watch over the directory behind `scratch`, which is called `path`.
    pub fn new(scratch: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        let facts = entries::look(scratch, c"")?;
        let top = scratch.try_clone_to_owned()?;
        Ok(Self { top, path: path.to_owned(), device: facts.device, inode: facts.inode, pass: None })
    }

    /// Forgets what was counted until now.
    pub fn begin_again(&mut self) {
        self.pass = None;
    }

    /// Looks at about `budget` entries. `pids` gives the processes that may have unlinked files open.
    pub fn step(&mut self, budget: usize, pids: impl FnOnce() -> Vec<i32>) -> Seen {
        let pass = match self.pass.take() {
            Some(pass) => Ok(pass),
            None => self.begin(0),
        };
        // A directory that cannot be opened shows nothing.
        let Ok(mut pass) = pass else { return Seen::Whole(Amount::default()) };
        let mut budget = budget;
        while budget > 0 && !pass.levels.is_empty() {
            match self.advance(&mut pass) {
                Ok(looked_at) => budget = budget.saturating_sub(looked_at),
                Err(Torn) if pass.torn < TORN_MAX => match self.begin(pass.torn + 1) {
                    Ok(anew) => pass = anew,
                    Err(_) => pass.levels.clear(),
                },
                Err(Torn) => pass.levels.clear(),
            }
        }
        if pass.levels.is_empty() && budget > 0 {
            let unlinked = pass.unlinked.get_or_insert_with(|| Unlinked::new(pids(), self.path.clone(), self.device));
            if unlinked.step(budget, &mut pass.count) {
                return Seen::Whole(pass.count.amount);
            }
        }
        let seen = Seen::SoFar(pass.count.amount);
        self.pass = Some(pass);
        seen
    }

    fn begin(&self, torn: u32) -> io::Result<Pass> {
        let current = openat(&self.top, c".", FLAGS, Mode::empty())?;
        let levels = vec![Level::new(self.inode)];
        Ok(Pass { current, levels, count: Count::default(), torn, unlinked: None })
    }

    /// Enters the next directory, or reads on in this one, or goes back up; gives how many entries that took.
    fn advance(&self, pass: &mut Pass) -> Result<usize, Torn> {
        let Some(level) = pass.levels.last_mut() else { return Ok(0) };
        if let Some(name) = level.pending.pop() {
            // What cannot be entered is a mount, gone, or closed to us.
            if let Ok((child, inode)) = enter(pass.current.as_fd(), &name) {
                pass.current = child;
                pass.levels.push(Level::new(inode));
            }
            return Ok(1);
        }
        let read = entries::list(&pass.current, level.position).unwrap_or_default();
        if let Some(last) = read.last() {
            level.position = last.next;
            let length = read.len();
            for entry in read {
                let Ok(facts) = entries::look(&pass.current, &entry.name) else { continue };
                if facts.is_mount || facts.device != self.device {
                    continue;
                }
                pass.count.add(&facts);
                if facts.is_dir {
                    level.pending.push(entry.name);
                }
            }
            return Ok(length);
        }
        pass.levels.pop();
        if let Some(above) = pass.levels.last() {
            let up = openat(&pass.current, c"..", FLAGS, Mode::empty()).map_err(|_| Torn)?;
            let facts = entries::look(&up, c"").map_err(|_| Torn)?;
            if (facts.device, facts.inode) != (self.device, above.inode) {
                return Err(Torn);
            }
            pass.current = up;
        }
        Ok(1)
    }
}

/// The way back is not the way that led here: a directory was moved.
struct Torn;

/// Opens a subdirectory, unless that would lead into a mount.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<(OwnedFd, u64)> {
    let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let fd = match openat2(parent, name, OpenHow::new().flags(FLAGS).resolve(resolve)) {
        // An old kernel: the comparison of devices is what is left.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(parent, name, FLAGS, Mode::empty())?,
        opened => opened?,
    };
    let facts = entries::look(&fd, c"")?;
    if facts.device != entries::look(parent, c"")?.device {
        return Err(Errno::EXDEV.into());
    }
    Ok((fd, facts.inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    const MIB: u64 = 1 << 20;

    fn walk(folder: &Path) -> Walk {
        Walk::new(File::open(folder).unwrap().as_fd(), folder).unwrap()
    }

    fn whole(walk: &mut Walk, budget: usize) -> (Amount, usize) {
        for steps in 1.. {
            if let Seen::Whole(amount) = walk.step(budget, Vec::new) {
                return (amount, steps);
            }
        }
        unreachable!()
    }

    fn fill(path: &Path, bytes: u64) {
        fs::write(path, vec![1; bytes as usize]).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
    }

    #[test]
    fn everything_is_counted_once_in_whatever_steps() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        let mut deepest = inside.clone();
        for level in 0..50 {
            deepest.push("d");
            fs::create_dir_all(deepest.join("beside")).unwrap();
            fs::write(deepest.join(format!("file-{level}")), "x").unwrap();
        }
        fill(&deepest.join("large"), MIB);
        fs::hard_link(deepest.join("large"), inside.join("again")).unwrap();
        File::create(inside.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        fill(&folder.path().join("outside"), 8 * MIB);
        symlink(folder.path(), inside.join("up")).unwrap();
        symlink(folder.path().join("outside"), inside.join("out")).unwrap();
        let (amount, steps) = whole(&mut walk(&inside), 1_000_000);
        // Each level: itself, one beside it, a file. Then `large`, `sparse` and two links.
        assert_eq!((amount.files, steps), (50 * 3 + 4, 1));
        assert!((MIB..2 * MIB).contains(&amount.bytes), "{amount:?}");
        let (small, steps) = whole(&mut walk(&inside), 10);
        assert_eq!(small, amount);
        assert!(steps > 10, "{steps} steps");
    }

    #[test]
    fn a_directory_that_is_moved_under_the_walk_does_not_lead_it_out() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir_all(inside.join("a/b/c")).unwrap();
        fs::create_dir(&outside).unwrap();
        for number in 0..500 {
            fs::write(outside.join(number.to_string()), "x").unwrap();
        }
        let mut walk = walk(&inside);
        // As long as it takes to be below `a/b`.
        while walk.pass.as_ref().is_none_or(|pass| pass.levels.len() < 3) {
            assert!(matches!(walk.step(1, Vec::new), Seen::SoFar(_)));
        }
        fs::rename(inside.join("a/b"), outside.join("b")).unwrap();
        let (amount, _) = whole(&mut walk, 1);
        assert_eq!(amount.files, 1, "only `a` is left in it");
    }
}
