//! The output of one attempt, frame by frame, in bounded memory.
//!
//! A reader starts at an [`OutputRef`], or searches a worker's segments for an attempt that has none yet because it
//! still runs, or because its worker died. Deliberately absent: waiting for more; whoever follows one attempt calls
//! [`Reader::next_frame`] again when the directory changes.

use std::io;
use std::path::{Path, PathBuf};

use super::OutputError;
use super::frame::{Decoded, Frame, HEADER_LEN, Kind};
use super::segment::{Window, segment_path, segments_of};
use crate::task::{OutputRef, TaskId, WorkerId};

/// Reads the frames of one attempt in the order in which they were written.
pub struct Reader {
    dir: PathBuf,
    worker: WorkerId,
    segment: u64,
    /// Where to open the segment at.
    offset: u64,
    window: Option<Window>,
    /// Whose frames these are; learnt from the first one.
    attempt: Option<(TaskId, u32)>,
    /// Bytes of frames still to come; `None` while the attempt may still be writing.
    left: Option<u64>,
    ended: bool,
}

impl Reader {
    /// Reads the output at `at` in the segments of `worker` in `dir`. No file is opened yet.
    pub fn new(dir: impl Into<PathBuf>, worker: WorkerId, at: &OutputRef) -> Self {
        let (dir, segment, offset) = (dir.into(), at.segment, at.offset);
        let (window, attempt, left) = (None, None, Some(at.length));
        Self { dir, worker, segment, offset, window, attempt, left, ended: at.length == 0 }
    }

    /// Searches `worker`'s segments, newest first, for the output of an attempt whose [`OutputRef`] is not known.
    /// `None` if there is none so far.
    ///
    /// # Errors
    /// The directory or a segment cannot be read.
    pub fn scan(dir: &Path, worker: WorkerId, task: TaskId, attempt: u32) -> Result<Option<Self>, OutputError> {
        let mut start = None;
        for segment in segments_of(dir, worker)?.into_iter().rev() {
            match find(dir, worker, segment, (task, attempt))? {
                // At the very beginning of a segment: it may have begun in an earlier one.
                Some(0) => start = Some((segment, 0)),
                Some(offset) => {
                    start = Some((segment, offset));
                    break;
                }
                // An attempt's frames are contiguous, so an earlier segment has none either.
                None if start.is_some() => break,
                None => {}
            }
        }
        Ok(start.map(|(segment, offset)| {
            let at = OutputRef { segment, offset, ..OutputRef::default() };
            Self { attempt: Some((task, attempt)), left: None, ended: false, ..Self::new(dir, worker, &at) }
        }))
    }

    /// The next frame. `None` when the output is complete, or, of an attempt found by [`Self::scan`], when there is
    /// no more so far: ask again later unless [`Self::ended`].
    ///
    /// # Errors
    /// A segment cannot be read, or is no longer there.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, OutputError> {
        if self.ended {
            return Ok(None);
        }
        if !self.step()? {
            return Ok(None);
        }
        let Some(frame) = self.window.as_mut().and_then(Window::take) else { return Ok(None) };
        let owner = (frame.task, frame.attempt);
        if *self.attempt.get_or_insert(owner) != owner {
            self.ended = true;
            return Ok(None);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub((HEADER_LEN + frame.data.len()) as u64);
        }
        self.ended = frame.kind == Kind::End || self.left == Some(0);
        Ok(Some(frame))
    }

    /// Whether every frame of the attempt was given out. Stays false after the worker's death in mid-attempt.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Brings the next whole frame into the window, over the end of the segment if need be. Says whether there is one.
    fn step(&mut self) -> Result<bool, OutputError> {
        while !self.fill()? {
            // Where not even the first frame is, the reference is wrong, and what follows is another attempt's.
            if self.attempt.is_none() {
                return Ok(false);
            }
            let Some(next) = segments_of(&self.dir, self.worker)?.into_iter().find(|&n| n > self.segment) else {
                return Ok(false);
            };
            // The next segment was created after the last write to this one. Something may have been written here
            // between our look at its end and that moment, so it needs a second look, which is final.
            if self.fill()? {
                return Ok(true);
            }
            (self.segment, self.offset, self.window) = (next, 0, None);
        }
        Ok(true)
    }

    /// Whether the window stands at a whole frame, and not at a torn, broken or regular end.
    fn fill(&mut self) -> Result<bool, OutputError> {
        let path = segment_path(&self.dir, self.worker, self.segment);
        let window = match &mut self.window {
            Some(window) => window,
            empty => match Window::open(&path, self.offset)? {
                Some(window) => empty.insert(window.read_ahead()),
                None => return Err(OutputError::Gone { path }),
            },
        };
        match window.fill().map_err(OutputError::io("reading", &path))? {
            Decoded::Frame(..) => Ok(true),
            Decoded::Incomplete { .. } | Decoded::Broken => Ok(false),
        }
    }
}

/// The offset of the first frame of `wanted` in a segment; `None` if it has none or is gone.
fn find(dir: &Path, worker: WorkerId, segment: u64, wanted: (TaskId, u32)) -> Result<Option<u64>, OutputError> {
    let path = segment_path(dir, worker, segment);
    let Some(mut window) = Window::open(&path, 0)? else { return Ok(None) };
    window = window.read_ahead();
    let look = |window: &mut Window| -> io::Result<Option<u64>> {
        while let Some((frame, size)) = window.header()? {
            if (frame.task, frame.attempt) == wanted {
                return Ok(Some(window.position()));
            }
            window.skip(size);
        }
        Ok(None)
    };
    look(&mut window).map_err(OutputError::io("reading", &path))
}
