//! `acode task diff`: what an attempt has changed in its git worktree, as it was kept.
//!
//! The patch is read from the state directory itself, as output is. Deliberately absent: making it, which is a worker's.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use acode_worker::task::Artifacts;

use super::render::Out;
use super::worktree_args::DiffArgs;
use super::{CliError, Context, Exit};
use crate::api::Need;
use crate::wire::request::Show;
use crate::wire::types::TaskRecord;

/// The patch's name in the folder of an attempt's artefacts.
const PATCH: &str = "changes.patch";

/// Prints the patch of an attempt, the last one of which one was kept unless another is named.
///
/// # Errors
/// There is no such task, or no patch of it.
pub fn run(context: &Context, args: &DiffArgs) -> Result<Exit, CliError> {
    let task = context.door(Need::Queue)?.call(&Show { id: args.id.clone() })?.task;
    let (attempt, artifacts) = choose(&task, args.attempt)?;
    let path: PathBuf = artifacts.folder.join(PATCH);
    let doing = || format!("read the patch {}", path.display());
    let mut patch = File::open(&path).map_err(|source| CliError::File { doing: doing(), source })?;
    let mut out = Out::new();
    if context.json {
        out.answer(&serde_json::json!({
            "task": task.id, "attempt": attempt, "commit": task.worktree.as_ref().map(|worktree| &worktree.commit),
            "path": path, "bytes": artifacts.patch_bytes,
        }))?;
        out.finish()?;
    } else if args.stat {
        return stat(patch);
    } else {
        out.finish()?;
        io::copy(&mut patch, &mut io::stdout().lock()).map_err(CliError::Stdout)?;
    }
    Ok(Exit::Done)
}

/// The attempt of which there is a patch.
fn choose(task: &TaskRecord, number: Option<u32>) -> Result<(u32, &Artifacts), CliError> {
    let attempts = task.attempts.as_deref().unwrap_or_default();
    let mut wanted =
        attempts.iter().rev().filter(|attempt| number.is_none_or(|number| attempt.number == number)).peekable();
    if let (Some(number), None) = (number, wanted.peek()) {
        return Err(CliError::Absent(format!("task {} has no ended attempt {number}", task.id)));
    }
    let kept = wanted.clone().find_map(|attempt| {
        let artifacts = attempt.artifacts.as_ref().filter(|artifacts| artifacts.patch_bytes.is_some())?;
        Some((attempt.number, artifacts))
    });
    kept.ok_or_else(|| {
        let omitted = wanted.find_map(|attempt| attempt.artifacts.as_ref()?.omitted.clone());
        CliError::Absent(match (omitted, &task.worktree) {
            (Some(why), _) => format!("no changes of task {} were kept: {why}", task.id),
            (None, None) => format!("task {} has no git worktree", task.id),
            (None, Some(_)) => format!(
                "no changes of task {} are kept: cleanup.worktrees says after which ends they are, and --keep-changes \
                 keeps them after every end",
                task.id
            ),
        })
    })
}

/// Has git count what is in the patch.
fn stat(patch: File) -> Result<Exit, CliError> {
    let mut command = Command::new("git");
    // From where no repository can narrow it down to a folder of its own.
    command.args(["apply", "--stat", "--summary", "--allow-empty"]).current_dir("/").stdin(Stdio::from(patch));
    let failed = |source| CliError::File { doing: "run git".to_owned(), source };
    let ended = command.status().map_err(failed)?;
    Ok(if ended.success() { Exit::Done } else { Exit::Failed })
}
