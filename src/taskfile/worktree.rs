//! The git worktree of a task in a task file: a text, or a mapping that is laid over that of `defaults`.
//!
//! Deliberately absent: git, which `repository` asks once for each repository and reference.

use std::path::PathBuf;

use acode_worker::task::Worktree;

use super::schema::Base;
use crate::tree::{Entry, Fault, Node, Value};

/// Reads `REPO[@REF]` or `{repo, ref, keepChanges}`; `none` takes the defaults' back.
pub(super) fn read(worktree: &mut Option<Worktree>, node: &Node<'_>, base: &Base) -> Result<(), Fault> {
    const KEYS: [&str; 3] = ["repo", "ref", "keepChanges"];
    if node.is_null() || node.as_text("worktree").is_ok_and(|text| text == "none") {
        *worktree = None;
        return Ok(());
    }
    let failed = |error: crate::repository::RepositoryError| {
        Fault::other(node.at, format!("worktree: {}", crate::error_chain(&error)))
    };
    let Value::Map(entries) = &node.value else {
        let found = base.commits.parse(node.as_text("worktree")?, &base.folder).map_err(failed)?;
        let keep_changes = worktree.as_ref().is_some_and(|before| before.keep_changes);
        *worktree = Some(Worktree { keep_changes, ..found });
        return Ok(());
    };
    let before = worktree.take();
    let mut keep_changes = before.as_ref().is_some_and(|before| before.keep_changes);
    let (mut repository, mut reference) = (None, None);
    for Entry { at, key, node } in entries {
        match key.as_ref() {
            "repo" => repository = Some(base.folder.join(node.as_text("worktree.repo")?)),
            "ref" => reference = Some(node.as_text("worktree.ref")?.to_owned()),
            "keepChanges" => keep_changes = node.as_bool("worktree.keepChanges")?,
            unknown => return Err(Fault::unknown_key(*at, unknown, "worktree", KEYS)),
        }
    }
    let found = match (before, repository, &reference) {
        (Some(before), None, None) => before,
        (Some(before), None, Some(name)) => {
            base.commits.find(&PathBuf::from(before.repo), Some(name)).map_err(failed)?
        }
        (_, Some(path), name) => base.commits.find(&path, name.as_deref()).map_err(failed)?,
        (None, None, _) => return Err(node.wrong_type("worktree", "REPO, REPO@REF or {repo: REPO, ref: REF}")),
    };
    *worktree = Some(Worktree { keep_changes, ..found });
    Ok(())
}
