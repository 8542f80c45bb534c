//! Keeping what an attempt has left in its scratch directory, where its task or the pool wants that.
//!
//! Moved before the room is cleaned and told in the report of the end. Who is killed in between has kept a directory that
//! no attempt tells of; it goes with its task, by its age or by the number of them, like all others. Deliberately
//! absent: what git knows of a worktree, which is settled before; its files are the scratch directory's.

use super::process::Tools;
use crate::room;
use crate::task::{Cleanup, Verdict};
use crate::wire::Finished;

/// Keeps the scratch directory if it is to be kept after such an end. An attempt that was given back is not over, and
/// one that was never started has left nothing.
pub fn keep(tools: &mut Tools, cleanup: Option<Cleanup>, finished: &mut Finished) {
    let cleanup = cleanup.unwrap_or(tools.settings.cleanup);
    let removed = cleanup.removes_after(finished.verdict.is_success());
    let no_end = finished.given_back || matches!(finished.verdict, Verdict::NotStarted { .. });
    let place = &tools.settings.kept;
    if removed || no_end || place.max == 0 {
        return;
    }
    match tools.room.keep(&place.folder, &room::attempt_name(finished.id, finished.attempt)) {
        Ok(None) => {}
        Ok(Some(path)) => {
            finished.kept = Some(path);
            tools.chores.trim = true;
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            finished.error.get_or_insert_with(|| format!("the scratch directory could not be kept: {cause}"));
        }
    }
}
