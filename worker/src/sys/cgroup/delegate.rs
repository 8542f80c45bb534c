//! Building the pool's own part of the hierarchy, and taking it down again.
//!
//! ```text
//! <home>                    the cgroup that was delegated to us
//!   acode-<tag>             one for each queue: several pools may share a home
//!     supervisor            the supervisor, the nursery, the workers, and whoever of ours lived in <home>
//!     tasks                 all tasks together: the limits of the pool
//!       w<row>/t<n>         one worker's tasks: the limits of a task
//!       w<row>/p<n>-0       one of its long-lived programs
//! ```
//!
//! Controllers are handed on from the home downwards, which the kernel allows only when no process lives in the home itself;
//! so our own are moved, and a stranger is left where it is and ends the climb. Nothing above the home is touched. Every
//! step can be done twice, since a supervisor may be killed after any of them. Deliberately absent: limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::{Place, is_ours, members};
use super::{Leaf, kill_and_remove};
use crate::failpoint;
use crate::sys::ladder::{Controllers, Ladder, Rung};

/// What the names of pools' cgroups begin with.
pub(super) const PREFIX: &str = "acode-";
/// The cgroup of what is no task.
pub(super) const SUPERVISOR: &str = "supervisor";
/// The cgroup of all tasks.
const TASKS: &str = "tasks";
/// How often the home is looked at for processes that were born while others were moved.
const MOVE_ROUNDS: u32 = 20;

/// A pool's part of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grounds {
    place: Place,
    base: PathBuf,
    controllers: Controllers,
}

/// Where a pool that were started here would stand. Changes nothing.
pub fn probe() -> Ladder {
    let Some(place) = Place::find() else { return none(None, "no cgroup v2 hierarchy is mounted".to_owned()) };
    let home = Some(place.home.clone());
    if !may_write(&place.home) {
        return none(home, unwritable(&place.home));
    }
    let controllers = offered(&place.home);
    match obstacle(&place, controllers) {
        Some(why) => Ladder { rung: Rung::Core, directory: home, why: Some(why), ..Ladder::default() },
        None => Ladder { rung: Rung::Delegated, controllers, directory: home, why: None },
    }
}

fn none(directory: Option<PathBuf>, why: String) -> Ladder {
    Ladder { rung: Rung::None, directory, why: Some(why), ..Ladder::default() }
}

fn unwritable(home: &Path) -> String {
    format!("the cgroup {} may not be written", home.display())
}

fn may_write(cgroup: &Path) -> bool {
    nix::unistd::access(cgroup, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// The controllers that a cgroup could hand on.
fn offered(cgroup: &Path) -> Controllers {
    let list = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    Controllers::from_names(|name| list.split_ascii_whitespace().any(|known| known == name))
}

/// Why controllers cannot be had here, if it shows beforehand.
fn obstacle(place: &Place, controllers: Controllers) -> Option<String> {
    if place.not_ours.is_some() {
        return place.not_ours.clone();
    }
    if controllers.is_empty() {
        return Some(format!("no controller is available to the cgroup {}", place.home.display()));
    }
    place.has_stranger().then(|| stranger(place))
}

fn stranger(place: &Place) -> String {
    let pids = members(&place.home).into_iter().filter(|pid| !is_ours(*pid));
    let names = pids.map(|pid| match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} ({pid})", name.trim_end()),
        Err(_) => pid.to_string(),
    });
    let names: Vec<String> = names.take(3).collect();
    let (home, names) = (place.home.display(), names.join(", "));
    format!("other processes live in the cgroup {home} ({names}): start acode alone in a cgroup of its own")
}

impl Grounds {
    /// Finds the place of the pool whose queue has this tag, and makes its cgroup; on the lowest step there is none.
    pub fn find(tag: u64) -> Result<Self, Ladder> {
        let ladder = probe();
        let Some(place) = Place::find().filter(|_| ladder.rung != Rung::None) else { return Err(ladder) };
        let base = place.home.join(format!("{PREFIX}{tag:010x}"));
        match Leaf::make(&base) {
            // Before Linux 5.14 a cgroup cannot be killed.
            Ok(_) if base.join("cgroup.kill").exists() => Ok(Self { place, base, controllers: Controllers::default() }),
            Ok(_) => Err(none(ladder.directory, "the kernel has no cgroup.kill (Linux 5.14)".to_owned())),
            Err(error) => Err(none(ladder.directory, format!("{}: {error}", unwritable(&place.home)))),
        }
    }

    /// The pool's own cgroup.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The cgroup of all tasks.
    pub fn tasks(&self) -> PathBuf {
        self.base.join(TASKS)
    }

    /// Builds it, and climbs as high as it goes. `nursery` is the pid of a process of ours that is to come along.
    ///
    /// # Errors
    /// No cgroup can be made.
    pub fn build(&mut self, nursery: i32) -> io::Result<Ladder> {
        Leaf::make(&self.base)?;
        Leaf::make(&self.tasks())?;
        failpoint!("cgroup.after-make");
        let directory = Some(self.place.home.clone());
        let why = match obstacle(&self.place, offered(&self.place.home)) {
            Some(why) => Some(why),
            None => self.climb(nursery).err(),
        };
        let rung = if self.controllers.is_empty() { Rung::Core } else { Rung::Delegated };
        Ok(Ladder { rung, controllers: self.controllers, directory, why })
    }

    /// Makes room in the home, and hands controllers on.
    fn climb(&mut self, nursery: i32) -> Result<(), String> {
        let kernel = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        let supervisor = self.base.join(SUPERVISOR);
        Leaf::make(&supervisor).map_err(kernel("no cgroup for the supervisor can be made"))?;
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        for pid in [own, nursery] {
            enter(&supervisor, pid).map_err(kernel("the supervisor cannot be moved to a cgroup of its own"))?;
        }
        failpoint!("cgroup.after-move");
        if !self.place.is_root() {
            self.empty_home(&supervisor)?;
        }
        let mut had = offered(&self.place.home);
        for cgroup in [&self.place.home, &self.base, &self.tasks()] {
            had = had.and(hand_on(cgroup, had));
            failpoint!("cgroup.after-enable");
        }
        self.controllers = had;
        if had.is_empty() {
            return Err(format!("the cgroup {} does not hand on its controllers", self.place.home.display()));
        }
        Ok(())
    }

    /// Moves what is ours out of the home.
    fn empty_home(&self, supervisor: &Path) -> Result<(), String> {
        for _ in 0..MOVE_ROUNDS {
            let (ours, strangers): (Vec<i32>, Vec<i32>) =
                members(&self.place.home).into_iter().partition(|pid| is_ours(*pid));
            if !strangers.is_empty() {
                return Err(stranger(&self.place));
            }
            if ours.is_empty() {
                return Ok(());
            }
            for pid in ours {
                // One that has ended meanwhile is not there at the next look.
                let _ = enter(supervisor, pid);
            }
        }
        Err(stranger(&self.place))
    }

    /// Makes the home of one worker's leaves, with the controllers that the leaves shall have.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_home(&self, row: u16) -> io::Result<(PathBuf, Leaf)> {
        let home = self.tasks().join(format!("w{row}"));
        // A predecessor's leaves may have been killed, and nobody could be born into them any more.
        let _ = super::remove_tree(&home);
        let leaf = Leaf::make(&home)?;
        // Controllers that are gone show when a limit is put in place.
        hand_on(&home, self.controllers);
        Ok((home, leaf))
    }

    /// Kills what lives in the pool's tasks, and takes everything down that is still empty then. Processes of the pool go
    /// back to where they came from.
    pub fn dissolve(&self, patience: Duration) {
        let _ = clear(&self.base, patience);
        if !self.controllers.is_empty() && !self.retreat() {
            return;
        }
        let _ = fs::remove_dir(self.base.join(SUPERVISOR));
        let _ = fs::remove_dir(&self.base);
    }

    /// Gives the home back as it was; false where another pool still needs it as it is.
    fn retreat(&self) -> bool {
        if !self.place.is_root() {
            let others = fs::read_dir(&self.place.home).into_iter().flatten().flatten();
            let mut others = others.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if others.any(|entry| entry.path() != self.base) {
                return false;
            }
            for cgroup in [&self.base, &self.place.home] {
                take_back(cgroup, self.controllers);
            }
        }
        members(&self.base.join(SUPERVISOR)).into_iter().all(|pid| enter(&self.place.home, pid).is_ok())
    }
}

/// Kills and removes what is left of tasks under the pool's cgroup `base`; the supervisor's part of it is spared, for the
/// calling process may live there. True when they are gone.
///
/// # Errors
/// What the kernel says on reading or killing.
pub fn clear(base: &Path, patience: Duration) -> io::Result<bool> {
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    let mut gone = true;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != SUPERVISOR {
            gone &= kill_and_remove(&entry.path(), patience)?;
        }
    }
    // What is in use stays.
    let _ = fs::remove_dir(base.join(SUPERVISOR));
    let _ = fs::remove_dir(base);
    Ok(gone)
}

fn enter(cgroup: &Path, pid: i32) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())
}

/// Hands controllers on to what is below a cgroup, one by one: what one does not get the others may.
fn hand_on(cgroup: &Path, wanted: Controllers) -> Controllers {
    let file = cgroup.join("cgroup.subtree_control");
    for (name, wanted) in wanted.named() {
        if wanted {
            let _ = fs::write(&file, format!("+{name}"));
        }
    }
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    Controllers::from_names(|name| enabled.split_ascii_whitespace().any(|known| known == name))
}

fn take_back(cgroup: &Path, held: Controllers) {
    for (name, held) in held.named() {
        if held {
            let _ = fs::write(cgroup.join("cgroup.subtree_control"), format!("-{name}"));
        }
    }
}
