//! Drops whole segments that nobody refers to any longer.
//!
//! Deliberately absent: which those are. The store knows the attempts, so the caller decides, and it must keep every
//! segment of a living worker: a worker's newest segment is open in that worker.

use std::io;
use std::path::Path;

use super::OutputError;
use super::segment::{segment_path, segments};
use crate::task::WorkerId;

/// Removes the segments in `dir` that `keep` does not want, and returns the bytes they held. Other files are left
/// alone. A segment that is gone already is no error.
///
/// # Errors
/// The directory cannot be listed, or a segment cannot be removed; the segments before it are gone by then.
pub fn remove_unused(dir: &Path, keep: impl Fn(WorkerId, u64) -> bool) -> Result<u64, OutputError> {
    let mut freed = 0;
    for (worker, segment) in segments(dir)? {
        if keep(worker, segment) {
            continue;
        }
        let path = segment_path(dir, worker, segment);
        let length = std::fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
        match std::fs::remove_file(&path) {
            Ok(()) => freed += length,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OutputError::io("removing", &path)(error)),
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unwanted_segments_go_and_their_size_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let worker = WorkerId::generate(1).unwrap();
        for (segment, length) in [(0, 10), (1, 20), (2, 30)] {
            std::fs::write(segment_path(dir.path(), worker, segment), vec![0; length]).unwrap();
        }
        std::fs::write(dir.path().join("notes"), b"mine").unwrap();
        assert_eq!(remove_unused(dir.path(), |w, n| w == worker && n == 2).unwrap(), 30);
        assert_eq!(segments(dir.path()).unwrap(), [(worker, 2)]);
        assert!(dir.path().join("notes").exists());
    }
}
