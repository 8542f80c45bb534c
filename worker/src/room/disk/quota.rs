//! Limits by project quota: which project numbers are ours, and one of them for each attempt.
//!
//! Numbers come from the upper half of what is possible below 2^31: 2^14 pools by a hash of their folder of rooms, 64
//! for each row. One is taken only if nothing has it, and looked at again when the scratch directory has it; so two
//! pools with the same hash, or what was kept of an earlier attempt, do no harm. Deliberately absent: enabling quotas,
//! which is the administrator's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Amount, Place, SLACK_BYTES, SLACK_FILES, Wish};
use crate::failpoint;
use crate::sys::{mount, quota};

/// The first number of any pool.
const FIRST: u32 = 0x4000_0000;
/// Numbers of one room.
const PER_ROOM: u32 = 64;
/// Numbers of one pool: 1,024 rooms.
const PER_POOL: u32 = PER_ROOM * 1_024;
/// Pools with numbers of their own.
const POOLS: u64 = 1 << 14;

/// Whether quotas hold projects in this folder, and we may set them.
pub(super) fn check(folder: impl AsFd) -> io::Result<()> {
    if !mount::is_privileged() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    match quota::is_held(folder)? {
        true => Ok(()),
        false => Err(io::Error::other("project quotas are not enforced there")),
    }
}

/// The first project number of the pool whose rooms are in this folder.
fn first_of(rooms: &Path) -> u32 {
    // FNV-1a: the same in every build, which the standard library's hash is not.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = rooms.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    FIRST + (hash % POOLS) as u32 * PER_POOL
}

/// The project numbers of the pool whose rooms are in this folder.
pub fn projects(rooms: &Path) -> std::ops::Range<u32> {
    let first = first_of(rooms);
    first..first + PER_POOL
}

/// Takes away the limits that a pool which was killed has left, for all rooms in this folder. What has no quota has
/// left none.
pub fn release_all(rooms: &Path) {
    if let Ok(folder) = std::fs::File::open(rooms)
        && check(&folder).is_ok()
    {
        release(folder.as_fd(), first_of(rooms), PER_POOL);
    }
}

/// Takes away the limits of `count` projects from `first` on.
fn release(folder: BorrowedFd<'_>, first: u32, count: u32) {
    let mut id = first;
    // What cannot be asked for or set now is tried again at the next start; a number that is in use is never taken.
    while let Ok(Some((found, project))) = quota::next(folder, id) {
        if found >= first + count {
            return;
        }
        if (project.max_bytes, project.max_files) != (0, 0) {
            let _ = quota::limit(folder, found, 0, 0);
        }
        id = found + 1;
    }
}

/// The project numbers of one room.
#[derive(Debug)]
pub(super) struct Quotas {
    first: u32,
    /// How many of them were taken already.
    taken: u32,
}

impl Quotas {
    /// Finds out whether there are quotas, and takes away limits that a predecessor in this room has left.
    pub fn find(place: Place<'_>) -> io::Result<Self> {
        check(place.fd)?;
        let rooms = place.room.parent().unwrap_or(place.room);
        let first = first_of(rooms) + place.slot % (PER_POOL / PER_ROOM) * PER_ROOM;
        release(place.fd, first, PER_ROOM);
        Ok(Self { first, taken: 0 })
    }

    /// Gives the scratch directory, which must be empty, a project of its own with the limit.
    pub fn take(&mut self, scratch: BorrowedFd<'_>, wish: &Wish) -> io::Result<Quota> {
        for _ in 0..PER_ROOM {
            let id = self.first + self.taken % PER_ROOM;
            self.taken = self.taken.wrapping_add(1);
            if quota::read(scratch, id)?.files != 0 {
                continue;
            }
            quota::assign(scratch, id)?;
            failpoint!("worker.after-project");
            // The directory itself is one, and nobody else may have come meanwhile.
            if quota::read(scratch, id)?.files != 1 {
                continue;
            }
            let taken = Quota { scratch: scratch.try_clone_to_owned()?, id, own: quota::read(scratch, id)?.bytes };
            if wish.wall {
                let wall = |limit: Option<u64>, more: u64| limit.map_or(0, |limit| limit.saturating_add(more));
                let bytes = wall(wish.limit.bytes, SLACK_BYTES + taken.own);
                quota::limit(scratch, id, bytes, wall(wish.limit.files, SLACK_FILES + 1))?;
            }
            failpoint!("worker.after-quota");
            return Ok(taken);
        }
        Err(io::Error::other("all of this room's project numbers are in use"))
    }
}

/// A project of one attempt. Its limit goes when it is dropped; its number is free when the directory is removed.
#[derive(Debug)]
pub(super) struct Quota {
    scratch: OwnedFd,
    id: u32,
    /// What the empty directory takes.
    own: u64,
}

impl Quota {
    /// What the project holds beside the directory itself; nothing if the kernel does not say.
    pub fn read(&self) -> Amount {
        let project = quota::read(&self.scratch, self.id).unwrap_or_default();
        Amount { bytes: project.bytes.saturating_sub(self.own), files: project.files.saturating_sub(1) }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // One that stays is taken away when the room's next worker, or the next pool, begins.
        let _ = quota::limit(&self.scratch, self.id, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pool_has_its_numbers_below_two_to_the_31st() {
        let all = (0..1_000).map(|number| first_of(Path::new(&format!("/var/lib/acode-{number}/rooms"))));
        let mut all: Vec<u32> = all.collect();
        assert!(all.iter().all(|first| *first >= FIRST && first + PER_POOL <= 1 << 31));
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 900, "only {} different numbers", all.len());
        assert_eq!(first_of(Path::new("/a")), first_of(Path::new("/a")));
    }
}
