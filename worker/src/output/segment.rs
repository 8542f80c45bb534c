//! The segment files: their names, what is in the directory, and a window through which frames are read.
//!
//! Deliberately absent: what the frames mean, and writing.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::OutputError;
use super::frame::{DATA_MAX, Decoded, Frame, HEADER_LEN, decode, decode_header};
use crate::task::WorkerId;

/// How many bytes are read at once where frames are small.
const READ_SIZE: usize = 8 * 1024;
/// Window that a sequential reader may use: one call fetches many frames.
pub(super) const READ_AHEAD: usize = HEADER_LEN + DATA_MAX;

/// The path of a worker's segment with number `segment`.
pub fn segment_path(dir: &Path, worker: WorkerId, segment: u64) -> PathBuf {
    dir.join(format!("{worker}.{segment}"))
}

/// The worker and the number in a segment's file name; `None` for any other file.
///
/// Only the exact form that [`segment_path`] writes is accepted, so that two names never mean the same segment.
pub(super) fn parse_name(name: &OsStr) -> Option<(WorkerId, u64)> {
    let name = name.to_str()?;
    let (worker, segment) = name.split_once('.')?;
    let (worker, segment) = (worker.parse::<WorkerId>().ok()?, segment.parse::<u64>().ok()?);
    (format!("{worker}.{segment}") == name).then_some((worker, segment))
}

/// Every segment in `dir`, in no order. A directory that is not there has none.
///
/// # Errors
/// The directory cannot be read.
pub fn segments(dir: &Path) -> Result<Vec<(WorkerId, u64)>, OutputError> {
    let failed = || OutputError::io("listing", dir);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        found.extend(parse_name(&entry.file_name()));
    }
    Ok(found)
}

/// The numbers of one worker's segments, ascending.
pub(super) fn segments_of(dir: &Path, worker: WorkerId) -> Result<Vec<u64>, OutputError> {
    let mut numbers: Vec<u64> = segments(dir)?.into_iter().filter(|s| s.0 == worker).map(|s| s.1).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// An open segment and the part of it that was read ahead. Memory is bounded by one frame and the read size.
pub(super) struct Window {
    file: File,
    /// Offset in the file of the first byte of `bytes`: where the next frame begins.
    offset: u64,
    /// What was read from there.
    bytes: Vec<u8>,
    /// Where in `bytes` the next frame begins.
    at: usize,
    read_size: usize,
}

impl Window {
    /// Opens the segment at `path` to read frames from `offset`; `None` if it is not there.
    pub(super) fn open(path: &Path, offset: u64) -> Result<Option<Self>, OutputError> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => Ok(Some(Self { file, offset, bytes: Vec::new(), at: 0, read_size: READ_SIZE })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OutputError::io("opening", path)(error)),
        }
    }

    /// The same window, but reading far ahead.
    pub(super) fn read_ahead(mut self) -> Self {
        self.read_size = READ_AHEAD;
        self
    }

    /// Where the next frame begins.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// Goes to `offset`, which should be a frame's beginning.
    pub(super) fn seek(&mut self, offset: u64) {
        self.bytes.clear();
        (self.offset, self.at) = (offset, 0);
    }

    /// Sees to it that a whole frame is in the window, if the file has one by now. `Incomplete` is said only after a
    /// fresh read, so it is true of the file and not merely of the window.
    pub(super) fn fill(&mut self) -> io::Result<Decoded<'_>> {
        if let Decoded::Incomplete { wanted } = decode(&self.bytes[self.at..]) {
            self.read(wanted)?;
            // The first read may have brought just the header; only now the length of the data is known.
            if let Decoded::Incomplete { wanted } = decode(&self.bytes)
                && wanted > self.read_size
                && self.bytes.len() >= HEADER_LEN
            {
                self.read(wanted)?;
            }
        }
        Ok(decode(&self.bytes[self.at..]))
    }

    /// The frame that the window stands at, if it was filled; the window goes past it.
    pub(super) fn take(&mut self) -> Option<Frame<'_>> {
        match decode(&self.bytes[self.at..]) {
            Decoded::Frame(frame, size) => {
                self.at += size;
                Some(frame)
            }
            Decoded::Incomplete { .. } | Decoded::Broken => None,
        }
    }

    /// The header that the window stands at and the size of its frame, whether its data are there or not. Steps over
    /// data without reading them, which is what makes a search through a segment of large frames cheap.
    pub(super) fn header(&mut self) -> io::Result<Option<(Frame<'static>, usize)>> {
        if self.bytes.len() - self.at < HEADER_LEN {
            self.read(HEADER_LEN)?;
        }
        Ok(decode_header(&self.bytes[self.at..]).map(|(frame, length)| (frame, HEADER_LEN + length)))
    }

    /// Goes past a frame of `size` bytes that need not be in the window.
    pub(super) fn skip(&mut self, size: usize) {
        if self.at + size <= self.bytes.len() {
            self.at += size;
        } else {
            self.seek(self.position() + size as u64);
        }
    }

    /// Reads at least `wanted` bytes from the current position, as far as the file has them.
    fn read(&mut self, wanted: usize) -> io::Result<()> {
        self.offset += self.at as u64;
        self.at = 0;
        let size = wanted.max(self.read_size);
        self.bytes.resize(size, 0);
        let mut length = 0;
        let outcome = loop {
            match self.file.read_at(&mut self.bytes[length..], self.offset + length as u64) {
                Ok(0) => break Ok(()),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if length >= wanted {
                break Ok(());
            }
        };
        self.bytes.truncate(length);
        // A window grown for one large frame gives the memory back: a follower holds hundreds of them.
        if size == self.read_size {
            self.bytes.shrink_to(self.read_size);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_is_a_segment() {
        let worker = WorkerId::generate(1).unwrap();
        assert_eq!(parse_name(OsStr::new(&format!("{worker}.12"))), Some((worker, 12)));
        for name in [format!("{worker}.012"), format!("{worker}.+1"), format!("{worker}"), format!("{worker}.1.2")] {
            assert_eq!(parse_name(OsStr::new(&name)), None, "{name}");
        }
        assert_eq!(parse_name(OsStr::new(&format!("{worker}.1").to_lowercase())), None);
    }

    #[test]
    fn a_missing_directory_has_no_segments() {
        assert!(segments(Path::new("/nonexistent/journal")).unwrap().is_empty());
    }
}
