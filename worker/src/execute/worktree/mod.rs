//! The git worktree of an attempt: made before its process is, and taken from the repository when its processes are dead.
//!
//! | step | how |
//! |---|---|
//! | mark | `room::worktree`: by it whoever comes later removes what a killed worker has left |
//! | add | `git worktree add`, under the repository's lock, without files |
//! | check out | `git read-tree -u` in the worktree, without the lock: workers do this side by side |
//! | changes | what differs from the commit, by an index and an object store of our own (`patch`) |
//! | remove | the administrative directory, under the lock, without git; the files go, or are kept, with the room |
//!
//! The repository's own files, index, branches and objects are never touched. Deliberately absent: which commit, which was
//! settled at submission.

mod git;
mod make;
mod patch;

use std::path::{Path, PathBuf};

pub use make::make;

use super::orders::Stop;
use super::process::{Attempt, Tools};
use crate::room::worktree as room;
use crate::sys::clock;
use crate::task::{Artifacts, Cleanup, TaskSpec, Verdict};
use crate::wire::{Chore, Finished};

/// How long the repository's lock is waited for when a worktree is removed, in nanoseconds; then it is removed later.
const LOCK_NS: u64 = 30_000_000_000;
/// Milliseconds between two tries to get a lock.
const LOCK_LOOK_MS: u16 = 3;

/// What a worker knows of the running attempt's worktree.
#[derive(Debug, Default)]
pub struct Worktrees {
    made: Option<Made>,
    /// The attempt was taken back while its worktree was being made.
    given_back: bool,
}

/// A worktree that exists, or may.
#[derive(Debug)]
pub struct Made {
    /// Its mark in the folder of marks.
    mark: String,
    /// Where it is, as the task sees it.
    place: PathBuf,
    /// Which commit it was made of.
    commit: String,
    /// The repository: git's common directory.
    common: PathBuf,
    /// Its own directory in there, when it is complete.
    administration: Option<PathBuf>,
    /// Where else objects of the repository are.
    alternates: Vec<PathBuf>,
}

impl Worktrees {
    /// The complete worktree of the running attempt.
    pub fn current(&self) -> Option<&Made> {
        self.made.as_ref().filter(|made| made.administration.is_some())
    }
}

impl Made {
    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Which commit it was made of, in full.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The directories of the repository that git needs in the worktree, each with whether it writes there; to be shown
    /// at the same paths. An inner one comes after the one that it is in.
    pub fn directories(&self) -> Vec<(&Path, bool)> {
        let read = std::iter::once(&self.common).chain(&self.alternates).map(|path| (path.as_path(), false));
        read.chain(self.administration.iter().map(|path| (path.as_path(), true))).collect()
    }
}

/// When the scratch directory of such a task is removed; as the pool says if nothing.
pub fn cleanup(tools: &Tools, spec: &TaskSpec) -> Option<Cleanup> {
    let pool = || tools.settings.cleanup.and(tools.settings.worktrees.cleanup);
    spec.cleanup.or_else(|| spec.worktree.as_ref().map(|_| pool()))
}

/// Keeps what the attempt has changed, if that is to be kept, and takes its worktree from the repository. The files stay for
/// the room to remove or to keep.
pub fn settle(tools: &mut Tools, attempt: &Attempt, finished: &mut Finished) {
    let Worktrees { made, given_back } = std::mem::take(&mut tools.worktrees);
    finished.given_back |= given_back;
    let Some(made) = made else { return };
    let ran = !finished.given_back && !matches!(finished.verdict, Verdict::NotStarted { .. });
    if ran && made.administration.is_some() && is_wanted(tools, &attempt.task.spec, finished) {
        let artifacts = finished.artifacts.get_or_insert_with(Artifacts::default);
        patch::keep(tools, attempt, &made, artifacts);
    }
    let deadline_ns = clock::monotonic_ns().saturating_add(LOCK_NS);
    let ticket = attempt.ticket;
    let released = release(tools, &made.mark, |tools| {
        // Told to go, it leaves the rest to whoever finds the mark.
        tools.told_to_stop(ticket) != Some(Stop::GivenBack) && clock::monotonic_ns() < deadline_ns
    });
    if let Err(error) = released {
        finished.error.get_or_insert_with(|| format!("the worktree could not be removed from its repository: {error}"));
    }
}

/// Whether the attempt's changes are kept.
fn is_wanted(tools: &Tools, spec: &TaskSpec, finished: &Finished) -> bool {
    let cleanup = spec.cleanup.unwrap_or(tools.settings.worktrees.cleanup);
    let asked = spec.worktree.as_ref().is_some_and(|worktree| worktree.keep_changes);
    asked || !cleanup.removes_after(finished.verdict.is_success())
}

/// Removes what the mark tells of, between two tasks.
pub fn sweep(tools: &mut Tools, name: &str) {
    // What cannot be removed is found again by the next sweep of the queue's owner.
    let _ = release(tools, name, |_| false);
}

/// Has removed, before the first task, what the last worker in this row has left.
pub fn clear_row(tools: &mut Tools) {
    let row = tools.facts.slot;
    for (name, worker) in room::marks(&tools.settings.worktrees.folder) {
        if worker.is_some_and(|(_, maker_row)| maker_row == row) {
            tools.chores.add(Chore::Worktree { name });
        }
    }
}

/// Removes a worktree from its repository by its mark. False: the lock was not to be had, and it is tried again between two
/// tasks.
fn release(tools: &mut Tools, name: &str, mut goes_on: impl FnMut(&mut Tools) -> bool) -> std::io::Result<bool> {
    let settings = &tools.settings.worktrees;
    let (folder, locks) = (settings.folder.clone(), settings.locks.clone());
    let released = room::release(&folder, &locks, name, &mut || goes_on(tools) && rest(tools));
    if matches!(released, Ok(false)) {
        tools.chores.add(Chore::Worktree { name: name.to_owned() });
    }
    released
}

/// Rests between two tries to get a lock, with a sign of life; an order ends it.
fn rest(tools: &mut Tools) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    tools.claimer.beat(clock::monotonic_ns());
    let mut fds = [PollFd::new(tools.line.orders_fd(), PollFlags::POLLIN)];
    // An error is as good as the time being over.
    let _ = poll(&mut fds, PollTimeout::from(LOCK_LOOK_MS));
    true
}
