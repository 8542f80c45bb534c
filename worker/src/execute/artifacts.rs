//! Keeping the files that a task was to leave, where it was submitted with patterns for them.
//!
//! Copied after the attempt's processes are dead and before its scratch directory is kept or removed. That may take a
//! while, so signs of life go on and orders are heard between two pieces. Deliberately absent: how they are found and
//! copied (`room`), and a worktree's changes, which come into the same folder afterwards.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::process::Tools;
use crate::room::{self, ArtifactBounds};
use crate::sys::{clock, describe};
use crate::task::{Artifacts, Patterns, TaskId, TaskSpec, Verdict};
use crate::wire::{ArtifactSettings, Finished};

/// The folder of what is kept of an attempt.
pub fn folder_of(settings: &ArtifactSettings, task: TaskId, attempt: u32) -> PathBuf {
    settings.folder.join(room::attempt_name(task, attempt))
}

/// Keeps what the task's patterns mean below its worktree, if it has one, else below its scratch directory. An attempt that
/// was given back is not over, and one that was never started has left nothing.
pub fn keep(tools: &mut Tools, spec: &TaskSpec, finished: &mut Finished) {
    let no_end = matches!(finished.verdict, Verdict::NotStarted { .. } | Verdict::EngineFailed { .. });
    if spec.artifacts.is_empty() || no_end || finished.given_back {
        return;
    }
    let kept = match Patterns::read(&spec.artifacts) {
        Ok(patterns) => {
            let worktree =
                tools.worktrees.current().and_then(|made| made.place().strip_prefix(tools.room.scratch()).ok());
            let base = worktree.unwrap_or(Path::new("")).to_owned();
            copy(tools, &patterns, &base, (finished.id, finished.attempt))
        }
        // Checked at submission.
        Err(_) => Err(io::ErrorKind::InvalidInput.into()),
    };
    finished.artifacts = kept.unwrap_or_else(|error| {
        let folder = folder_of(&tools.settings.artifacts, finished.id, finished.attempt);
        let omitted = Some(format!("nothing could be kept: {}", describe(&error)));
        Some(Artifacts { folder, omitted, ..Artifacts::default() })
    });
}

fn copy(tools: &mut Tools, patterns: &Patterns, base: &Path, id: (TaskId, u32)) -> io::Result<Option<Artifacts>> {
    let top = open_base(tools.room.scratch_fd()?, base)?;
    let settings = tools.settings.artifacts.clone();
    let bounds = ArtifactBounds { bytes: settings.max_bytes, files: settings.max_files };
    let mut attend = || {
        tools.claimer.beat(clock::monotonic_ns());
        // The attempt is over already, and if the supervisor is gone, nobody will ever know of it.
        tools.take_orders().is_ok()
    };
    room::keep_artifacts(&settings.folder, id, top.as_fd(), patterns, bounds, &mut attend)
}

/// Opens a directory of the scratch directory without following links or entering mounts.
fn open_base(scratch: impl AsFd, base: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if base.as_os_str().is_empty() {
        return Ok(openat(scratch, c".", flags, Mode::empty())?);
    }
    let path = CString::new(base.as_os_str().as_bytes())?;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    Ok(openat2(scratch, path.as_c_str(), OpenHow::new().flags(flags).resolve(resolve))?)
}
