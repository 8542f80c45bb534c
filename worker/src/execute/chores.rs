//! What a worker does between two tasks besides claiming the next: removing what tasks have left, because that may take
//! long and the supervisor does not wait.
//!
//! Whatever cannot be removed now is found again by the next sweep of the queue's owner.

use super::docker;
use super::process::Tools;
use crate::room;
use crate::sys::clock;
use crate::wire::Chore;

/// What is to be done between two tasks.
#[derive(Debug, Default)]
pub struct Chores {
    waiting: Vec<Chore>,
    /// One more scratch directory was kept, and so there may be too many.
    pub(super) trim: bool,
}

impl Chores {
    /// Notes what is to be done.
    pub fn add(&mut self, chore: Chore) {
        // One look for what nobody owns is as good as several.
        if chore != Chore::Containers || !self.waiting.contains(&chore) {
            self.waiting.push(chore);
        }
    }

    /// Notes all that others have noted.
    pub(super) fn append(&mut self, others: Self) {
        self.trim |= others.trim;
        others.waiting.into_iter().for_each(|chore| self.add(chore));
    }

    /// Does what is to be done, with a sign of life after each piece of it.
    pub fn work(tools: &mut Tools) {
        let Self { waiting, trim } = std::mem::take(&mut tools.chores);
        for chore in waiting {
            match chore {
                Chore::Checkpoint { number } => {
                    let _ = room::remove_checkpoint(&tools.settings.checkpoints, number);
                }
                Chore::Kept { name } => {
                    let _ = room::remove_kept(&tools.settings.kept.folder, &name);
                }
                Chore::Artifacts { name } => {
                    let _ = room::remove_artifacts(&tools.settings.artifacts.folder, &name);
                }
                Chore::Containers => docker::sweep(tools),
                Chore::Worktree { name } => super::worktree::sweep(tools, &name),
            }
            tools.claimer.beat(clock::monotonic_ns());
        }
        if trim {
            room::trim_kept(&tools.settings.kept.folder, tools.settings.kept.max as usize);
            tools.claimer.beat(clock::monotonic_ns());
        }
    }
}
