//! One worker's segments as the follower sees them: a position that moves from frame to frame and file to file.
//!
//! Deliberately absent: other workers, and the order among them.

use std::path::Path;

use super::OutputError;
use super::frame::{Decoded, Frame};
use super::segment::{Window, segment_path, segments_of};
use crate::task::WorkerId;

/// Where in one worker's output the follower is.
pub(super) struct Lane {
    worker: WorkerId,
    segment: u64,
    /// The highest segment that is known to exist.
    newest: u64,
    /// Where the next frame begins, while no window is open.
    offset: u64,
    /// Whether a frame really begins at `offset`. Not known when it was taken from the file's length: the writer may
    /// have been in the middle of a frame.
    synced: bool,
    window: Option<Window>,
    /// Whether the lane waits in the follower's queue with a frame at hand.
    pub(super) queued: bool,
    /// Whether retention removed the segment that the lane stands in.
    removed: bool,
}

impl Lane {
    /// A lane that begins with the first frame of `segment`.
    pub(super) fn from_start(worker: WorkerId, segment: u64, newest: u64) -> Self {
        let (offset, synced, window) = (0, true, None);
        Self { worker, segment, newest, offset, synced, window, queued: false, removed: false }
    }

    /// A lane that begins behind what `segment` holds now, which is `length` bytes.
    pub(super) fn from_end(worker: WorkerId, segment: u64, length: u64) -> Self {
        Self { offset: length, synced: length == 0, ..Self::from_start(worker, segment, segment) }
    }

    /// Notes that a segment with this number exists.
    pub(super) fn created(&mut self, segment: u64) {
        self.newest = self.newest.max(segment);
    }

    /// Notes that the segment with this number was removed.
    pub(super) fn removed(&mut self, segment: u64) {
        self.removed |= segment == self.segment;
    }

    /// Whether a file is open.
    pub(super) fn is_open(&self) -> bool {
        self.window.is_some()
    }

    /// Whether nothing can come here any more: the last segment was removed.
    pub(super) fn is_over(&self) -> bool {
        self.removed && self.newest == self.segment
    }

    /// Closes the file and remembers the place.
    pub(super) fn park(&mut self) {
        if let Some(window) = self.window.take() {
            self.offset = window.position();
        }
    }

    /// When the next whole frame was written; `None` if there is none yet. Moves on to the next segment behind the
    /// last frame of this one.
    pub(super) fn peek(&mut self, dir: &Path) -> Result<Option<i64>, OutputError> {
        loop {
            if let Some(time_us) = self.fill(dir)? {
                return Ok(Some(time_us));
            }
            // That a newer segment exists was known before the look at this one's end, and a writer never returns to
            // an older segment: the look was final.
            if self.newest == self.segment {
                break;
            }
            match segments_of(dir, self.worker)?.into_iter().find(|&n| n > self.segment) {
                Some(next) => {
                    *self = Self { queued: self.queued, ..Self::from_start(self.worker, next, self.newest.max(next)) };
                }
                None => {
                    self.newest = self.segment;
                    break;
                }
            }
        }
        if self.removed {
            // An open file would keep its space on the disk.
            self.park();
        }
        Ok(None)
    }

    /// The frame that [`Self::peek`] found; the lane goes past it.
    pub(super) fn take(&mut self) -> Option<Frame<'_>> {
        self.window.as_mut().and_then(Window::take)
    }

    fn fill(&mut self, dir: &Path) -> Result<Option<i64>, OutputError> {
        let path = segment_path(dir, self.worker, self.segment);
        let window = match &mut self.window {
            Some(window) => window,
            empty => match Window::open(&path, self.offset)? {
                Some(window) => empty.insert(window),
                None => {
                    self.removed = true;
                    return Ok(None);
                }
            },
        };
        let failed = OutputError::io("reading", &path);
        let mut seen = match window.fill() {
            Ok(seen) => seen,
            Err(error) => return Err(failed(error)),
        };
        if seen == Decoded::Broken && !self.synced {
            self.synced = true;
            match synchronise(window, self.offset).and_then(|()| window.fill()) {
                Ok(again) => seen = again,
                Err(error) => return Err(failed(error)),
            }
        }
        match seen {
            Decoded::Frame(frame, _) => {
                self.synced = true;
                Ok(Some(frame.time_us))
            }
            Decoded::Incomplete { .. } | Decoded::Broken => Ok(None),
        }
    }
}

/// Brings the window to the first beginning of a frame at or behind `offset`. Walks from the segment's beginning over
/// the headers: a search for something that looks like a header could find one in a task's output.
fn synchronise(window: &mut Window, offset: u64) -> std::io::Result<()> {
    window.seek(0);
    while window.position() < offset {
        let Some((_, size)) = window.header()? else { break };
        window.skip(size);
    }
    Ok(())
}
