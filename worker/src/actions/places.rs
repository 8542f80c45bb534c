//! Two files of an action that must not be one, and the words for what cannot be done to one.
//!
//! Deliberately absent: what a relative path starts at, which is the context's to know.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::ActionError;

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
