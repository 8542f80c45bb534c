//! Children that are set aside: they live on from attempt to attempt, and none of what is done to an attempt's tree reaches
//! them.
//!
//! The kernel has one list of our children, and so there is one list here of those that are not to be waited for. All below
//! such a child is set aside with it. What its processes have orphaned falls to us like any orphan, and is known by the
//! leaf that they were born into; where there is no leaf, it counts as the attempt's. Deliberately absent: why a child is
//! kept, and what it does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cgroup::Leaf;
use super::tree::Ended;

struct Aside {
    pid: i32,
    /// The directory of its leaf.
    leaf: Option<OwnedFd>,
    /// How it ended, once it was reaped.
    end: Option<Ended>,
}

static LIST: Mutex<Vec<Aside>> = Mutex::new(Vec::new());

fn list() -> MutexGuard<'static, Vec<Aside>> {
    // No holder can panic between two states of the list.
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets a child aside that was born into this leaf.
pub fn set(pid: i32, leaf: Option<&Leaf>) {
    // Without a descriptor its orphans are not told from others; that is all.
    let leaf = leaf.and_then(|leaf| leaf.as_fd().try_clone_to_owned().ok());
    list().push(Aside { pid, leaf, end: None });
}

/// Takes it back: from here on it is a child like any other. Its end, if that was reaped meanwhile: then its number means
/// nothing any more.
pub fn take_back(pid: i32) -> Option<Ended> {
    let mut list = list();
    let at = list.iter().position(|aside| aside.pid == pid)?;
    list.swap_remove(at).end
}

/// Notes the end of a child; false if it is not one of these.
pub(super) fn note_end(pid: i32, end: Ended) -> bool {
    let mut list = list();
    let known = list.iter_mut().find(|aside| aside.pid == pid && aside.end.is_none());
    known.map(|aside| aside.end = Some(end)).is_some()
}

/// Whether nothing is set aside. One that has ended may have left something.
pub(super) fn is_empty() -> bool {
    list().is_empty()
}

/// Those of these children that are neither set aside nor left behind by one that is.
pub(super) fn others(mut children: Vec<i32>) -> Vec<i32> {
    let list = list();
    children.retain(|pid| !list.iter().any(|aside| aside.pid == *pid && aside.end.is_none()));
    for aside in list.iter() {
        if children.is_empty() {
            break;
        }
        let leaf = aside.leaf.as_ref().and_then(|leaf| leaf.try_clone().ok()).map(Leaf::from_fd);
        if let Some(Ok(members)) = leaf.map(|leaf| leaf.pids()) {
            children.retain(|pid| !members.contains(pid));
        }
    }
    children
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Reaper, Remains};
    use super::*;
    use std::process::{Command, Stdio};

    /// The list and the children are the process', so all of it is one test.
    #[test]
    fn what_is_set_aside_is_nobodys_tree_and_its_end_is_noted() {
        let sleep = || Command::new("sleep").arg("300").stdin(Stdio::null()).spawn().unwrap().id() as i32;
        let kept = sleep();
        set(kept, None);
        assert!(others(vec![kept]).is_empty() && others(vec![kept, 7]) == [7]);
        let leader = sleep();
        let mut reaper = Reaper::new(leader);
        assert!(!super::super::tree::descendants().contains(&kept));
        assert_eq!(reaper.reap(), Remains::Something);
        let kill = |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        kill(leader).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while reaper.leader_end.is_none() {
            assert!(std::time::Instant::now() < deadline);
            reaper.reap();
        }
        kill(kept).unwrap();
        while list().iter().any(|aside| aside.pid == kept && aside.end.is_none()) {
            assert!(std::time::Instant::now() < deadline);
            reaper.reap();
        }
        let used = reaper.used;
        assert_eq!(take_back(kept), Some(Ended::Signalled { signal: 9, core_dumped: false }));
        assert_eq!((take_back(kept), reaper.used), (None, used));
    }
}
