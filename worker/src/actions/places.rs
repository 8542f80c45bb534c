//! What the parameters of built-in actions say of files: paths that can be one, and two that are not the same.
//!
//! Deliberately absent: what a relative path starts at, which is the context's to know.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::ActionError;

/// Checks that this can be a path at all.
///
/// # Errors
/// The words for what is wrong with the parameter of this name.
pub(super) fn check_path(field: &str, path: &str) -> Result<(), String> {
    match path {
        "" => Err(format!("{field} is empty: give a path")),
        path if path.contains('\0') => Err(format!("{field} has a NUL byte")),
        _ => Ok(()),
    }
}

/// Refuses an output that is the input itself, by whatever name.
///
/// # Errors
/// They are one file, or the input cannot be looked at.
pub(super) fn refuse_same(input: &Path, output: &Path) -> Result<(), ActionError> {
    let found = fs::metadata(input).map_err(|error| cannot("read", input, &error))?;
    // A FIFO could be waited for without end.
    if !found.is_file() {
        return Err(cannot("read", input, &"it is no regular file"));
    }
    match fs::metadata(output) {
        Ok(other) if (other.dev(), other.ino()) == (found.dev(), found.ino()) => {
            let words = format!("input and output are the same file: {}", output.display());
            Err(ActionError::new(words))
        }
        _ => Ok(()),
    }
}

/// What could not be done to a file, and why.
pub(super) fn cannot(doing: &str, path: &Path, why: &dyn std::fmt::Display) -> ActionError {
    ActionError::new(format!("cannot {doing} {}: {why}", path.display()))
}
