//! What the kernel says of a container: its cgroup, found by its id without asking the engine.
//!
//! The engine may hang, and then this is all that there is. It may also say what is not so: a limit counts as held only
//! when it was read back here. Both hierarchies and both drivers, docker's and podman's, with root and without.
//! Deliberately absent: making and removing cgroups, which the engine does.

mod find;
mod reading;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use find::Hint;
pub use reading::Reading;

use self::v1::Groups;
use self::v2::Group;
use super::limits;
use super::name::ContainerId;
use crate::sys::cgroup::device_of;
use crate::task::{HeldLimit, Limits};

/// The pause between two looks at what is being killed.
const LOOK: Duration = Duration::from_millis(2);

/// The cgroup of one container.
#[derive(Debug)]
pub struct ContainerCgroup {
    hierarchy: Hierarchy,
}

#[derive(Debug)]
enum Hierarchy {
    V2(Group),
    V1(Groups),
}

impl ContainerCgroup {
    /// Finds it. `None` when it is not there (any more), or not where engines put it.
    pub fn find(id: &ContainerId, hint: Hint<'_>) -> Option<Self> {
        let mounts = find::Mounts::of_this_host()?;
        Self::find_in(&mounts, id, hint)
    }

    fn find_in(mounts: &find::Mounts, id: &ContainerId, hint: Hint<'_>) -> Option<Self> {
        // On a hybrid host containers have their controllers in v1, and may be in v2 first.
        let hierarchy = match mounts.v1.is_empty() {
            false => Hierarchy::V1(mounts.v1_of(id, hint)?),
            true => Hierarchy::V2(Group::new(mounts.v2_of(id, hint)?)),
        };
        Some(Self { hierarchy })
    }

    /// What it has counted so far.
    pub fn reading(&self) -> Reading {
        match &self.hierarchy {
            Hierarchy::V2(group) => group.reading(),
            Hierarchy::V1(groups) => groups.reading(),
        }
    }

    /// How each limit is held, by reading it back; disk limits are held elsewhere. `rooms` is the folder whose disk's
    /// bandwidth is limited.
    pub fn held(&self, wanted: &Limits, rooms: &Path) -> Vec<HeldLimit> {
        let device = device_of(rooms);
        let unheld = limits::unheld(wanted, device.as_deref());
        match &self.hierarchy {
            Hierarchy::V2(group) => reading::held(wanted, &unheld, |key| group.limit(key, wanted, device.as_deref())),
            Hierarchy::V1(groups) => reading::held(wanted, &unheld, |key| groups.limit(key, wanted, device.as_deref())),
        }
    }

    /// Whether anything lives in it.
    pub fn is_populated(&self) -> bool {
        match &self.hierarchy {
            Hierarchy::V2(group) => group.is_populated(),
            Hierarchy::V1(groups) => groups.is_populated(),
        }
    }

    /// Kills all that lives in it, once: what is born meanwhile may live on.
    ///
    /// # Errors
    /// What the kernel says; without root a container of root's is not ours to kill.
    pub fn kill(&self) -> io::Result<()> {
        match &self.hierarchy {
            Hierarchy::V2(group) => group.kill(),
            Hierarchy::V1(groups) => groups.kill(),
        }
    }

    /// Kills all that lives in it until nothing does; false when something is left after `patience`.
    ///
    /// # Errors
    /// As for [`Self::kill`].
    pub fn kill_all(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        while self.is_populated() {
            self.kill()?;
            if Instant::now() >= deadline {
                return Ok(!self.is_populated());
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }
}

/// Whether the v2 hierarchy is all that there is.
pub fn is_unified() -> bool {
    cgroups_rs::hierarchies::is_cgroup2_unified_mode()
}

/// The file of the device, the whole disk, on which a directory lies: `/dev/sda`.
pub fn device_path(folder: &Path) -> Option<String> {
    let entry = PathBuf::from("/sys/dev/block").join(device_of(folder)?).join("uevent");
    let text = std::fs::read_to_string(entry).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(format!("/dev/{name}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// A container in v1, by a folder that names one process.
    fn container(pid: u32) -> (tempfile::TempDir, ContainerCgroup) {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(folder.path().join("cgroup.procs"), "").unwrap();
        std::fs::write(below.join("cgroup.procs"), format!("{pid}\n")).unwrap();
        let mut groups = Groups::default();
        groups.put("pids", folder.path().to_owned());
        (folder, ContainerCgroup { hierarchy: Hierarchy::V1(groups) })
    }

    #[test]
    fn what_lives_in_it_and_below_is_killed_and_what_does_not_go_is_told() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (folder, cgroup) = container(child.id());
        assert!(cgroup.is_populated());
        // The folder's list does not change, so what it names seems to stay.
        assert!(!cgroup.kill_all(Duration::from_millis(1)).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(cgroup.kill().is_ok(), "a process that has ended is none that could not be killed");
        std::fs::write(folder.path().join("below/cgroup.procs"), "").unwrap();
        assert!(cgroup.kill_all(Duration::ZERO).unwrap());
    }

    #[test]
    fn who_cannot_be_seen_cannot_be_killed() {
        let (_folder, cgroup) = container(0);
        assert!(cgroup.kill_all(Duration::ZERO).is_err());
    }

    #[test]
    fn a_disk_is_told_by_its_file() {
        // Whether there is one depends on the host.
        if let Some(path) = device_path(Path::new("/")) {
            assert!(Path::new(&path).exists(), "{path}");
        }
        assert_eq!(device_path(Path::new("/proc")), None);
    }
}
