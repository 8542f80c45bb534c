//! Where relative paths in the parameters of a typed task start, if nothing says so: where it was typed, or at the task
//! file's folder, as all other paths do.
//!
//! Without a working directory a task works in its scratch directory, where no input can be and from which no output
//! comes back. Only tasks of built-in types are looked at, because only of those it is known what is a path. Deliberately
//! absent: a change to any other task.

use std::path::Path;

use acode_worker::actions::relative_paths;
use acode_worker::task::{Array, Class, Submission};

/// Gives the task the working directory `folder` if relative paths in its parameters would lead nowhere.
///
/// # Errors
/// They would, and `folder` is no help. The error is the sentence for it.
pub fn place_params(submission: &mut Submission, folder: &Path) -> Result<(), String> {
    let Submission { spec, array, .. } = submission;
    let mut relative = spec.action.as_deref().into_iter().flat_map(relative_paths);
    let Some(path) = relative.find(|path| !is_rooted(path, array.as_ref())) else { return Ok(()) };
    // What becomes an artefact is meant in the scratch directory, and a worktree is worked in.
    if spec.cwd.is_some() || spec.worktree.is_some() || !spec.artifacts.is_empty() {
        return Ok(());
    }
    if spec.class() == Class::Docker {
        let words = "is relative, and nothing says where in the container: give an absolute one, or cwd";
        return Err(format!("the path '{path}' in the params {words}"));
    }
    let folder = folder.to_str().ok_or_else(|| format!("the folder {} is not UTF-8 text", folder.display()))?;
    // In an array a working directory has placeholders.
    let is_array = array.is_some();
    spec.cwd = Some(if is_array { folder.replace('{', "{{").replace('}', "}}") } else { folder.to_owned() });
    Ok(())
}

/// Whether a path begins with an array's item, or its folder, and all of those are absolute.
fn is_rooted(path: &str, array: Option<&Array>) -> bool {
    let begins = path.starts_with("{item}") || path.starts_with("{dir}");
    let rooted = |items: &[String]| items.iter().all(|item| item.starts_with('/'));
    begins && matches!(array, Some(Array::Items(items)) if rooted(items))
}
