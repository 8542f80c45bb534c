//! The writing end of the journal: one per worker, one system call per chunk of output.
//!
//! A write that fails never reaches the task: what cannot be written is dropped, counted, and said in a truncation
//! mark, and the next chunk tries again. Deliberately absent: buffering (a killed worker would take the buffer with
//! it, and memory would follow the output) and fsync (see the module's head).

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::frame::{DATA_MAX, End, Frame, HEADER_LEN, Kind, Stream, encode_header};
use super::segment::segment_path;
use crate::task::{OutputCaps, OutputRef, TaskId, WorkerId};

/// Size in bytes at which a segment is rolled over, unless configured otherwise.
pub const SEGMENT_MAX_DEFAULT: u64 = 64 << 20;

/// How many taken segment numbers are stepped over before giving up. A worker's id is its own, so none is expected.
const TAKEN_MAX: usize = 64;

/// Whether the attempt's one truncation mark is still to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Nothing was dropped yet.
    No,
    /// Something was dropped, and the segment does not say so yet.
    Due,
    /// The segment says so.
    Written,
}

/// What is known of the attempt that is running.
#[derive(Debug)]
struct Attempt {
    task: TaskId,
    attempt: u32,
    caps: OutputCaps,
    mark: Mark,
    seen: End,
    out: OutputRef,
}

impl Attempt {
    fn frame<'a>(&self, kind: Kind, time_us: i64, data: &'a [u8]) -> Frame<'a> {
        Frame { kind, task: self.task, attempt: self.attempt, time_us, data }
    }

    /// Bytes that the cap still allows.
    fn room(&self) -> u64 {
        self.caps.per_attempt.saturating_sub(self.out.stdout_bytes + self.out.stderr_bytes)
    }

    /// Counts a frame that is in the segment now.
    fn wrote(&mut self, frame: &Frame<'_>, segment: u64, offset: u64) {
        let out = &mut self.out;
        if out.length == 0 {
            (out.segment, out.offset) = (segment, offset);
        }
        out.length += frame_len(frame);
        match frame.kind {
            Kind::Stdout => out.stdout_bytes += frame.data.len() as u64,
            Kind::Stderr => out.stderr_bytes += frame.data.len() as u64,
            Kind::Truncated => self.mark = Mark::Written,
            Kind::End => {}
        }
    }

    /// Notes that something was dropped.
    fn dropped(&mut self) {
        self.out.truncated = true;
        self.mark = match self.mark {
            Mark::No | Mark::Due => Mark::Due,
            Mark::Written => Mark::Written,
        };
    }
}

/// The writer of one worker's segments. It uses no file and makes no system call until the first output.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    worker: WorkerId,
    segment_max: u64,
    /// The open segment; created at the first output and after each roll-over.
    file: Option<File>,
    /// The number of the open segment, or of the next one.
    segment: u64,
    /// The open segment's length in bytes.
    offset: u64,
    attempt: Option<Attempt>,
    error: Option<io::Error>,
}

impl Writer {
    /// A writer for `worker`'s segments in the existing directory `dir`, each rolled over at the first chunk after it
    /// has reached `segment_max` bytes.
    pub fn new(dir: impl Into<PathBuf>, worker: WorkerId, segment_max: u64) -> Self {
        let (dir, file, attempt, error) = (dir.into(), None, None, None);
        Self { dir, worker, segment_max, file, segment: 0, offset: 0, attempt, error }
    }

    /// From now on output belongs to this attempt. An attempt that was not finished is left without an end.
    pub fn begin(&mut self, task: TaskId, attempt: u32, caps: OutputCaps) {
        let (seen, out) = (End::default(), OutputRef::default());
        self.attempt = Some(Attempt { task, attempt, caps, mark: Mark::No, seen, out });
    }

    /// Appends what the task wrote to `stream`, at `now_us` microseconds of Unix time. Outside an attempt, nothing
    /// happens.
    pub fn append(&mut self, stream: Stream, data: &[u8], now_us: i64) {
        let Some(mut attempt) = self.attempt.take() else { return };
        match stream {
            Stream::Stdout => attempt.seen.stdout_seen += data.len() as u64,
            Stream::Stderr => attempt.seen.stderr_seen += data.len() as u64,
        }
        let room = usize::try_from(attempt.room()).unwrap_or(usize::MAX);
        let (kept, cut) = data.split_at(data.len().min(room));
        for chunk in kept.chunks(DATA_MAX) {
            self.put_chunk(&mut attempt, stream, chunk, now_us);
        }
        if !cut.is_empty() {
            attempt.dropped();
            if attempt.mark == Mark::Due {
                let mark = attempt.frame(Kind::Truncated, now_us, &[]);
                self.put(&mut attempt, &[mark]);
            }
        }
        self.attempt = Some(attempt);
    }

    /// Ends the attempt at `now_us` microseconds of Unix time and says where its output is. For an attempt without
    /// output, or outside an attempt, this is `OutputRef::default()`, and nothing is written.
    pub fn finish(&mut self, now_us: i64) -> OutputRef {
        let Some(mut attempt) = self.attempt.take() else { return OutputRef::default() };
        if attempt.out.length > 0 || attempt.out.truncated {
            let totals = attempt.seen.to_bytes();
            let end = attempt.frame(Kind::End, now_us, &totals);
            self.put_with_mark(&mut attempt, end, now_us);
        }
        attempt.out
    }

    /// Where the running attempt's output is so far.
    pub fn so_far(&self) -> OutputRef {
        self.attempt.as_ref().map_or_else(OutputRef::default, |attempt| attempt.out)
    }

    /// What the running attempt has written so far, kept or not.
    pub fn seen(&self) -> End {
        self.attempt.as_ref().map_or_else(End::default, |attempt| attempt.seen)
    }

    /// The last error that made output be dropped, once; for the worker's own log.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn put_chunk(&mut self, attempt: &mut Attempt, stream: Stream, chunk: &[u8], now_us: i64) {
        let frame = attempt.frame(stream.into(), now_us, chunk);
        if !self.put_with_mark(attempt, frame, now_us) {
            attempt.dropped();
        }
    }

    /// Writes `frame`, behind the truncation mark if that is due, in one call. Says whether `frame` is there.
    fn put_with_mark(&mut self, attempt: &mut Attempt, frame: Frame<'_>, now_us: i64) -> bool {
        if attempt.mark == Mark::Due {
            let mark = attempt.frame(Kind::Truncated, now_us, &[]);
            self.put(attempt, &[mark, frame]) == 2
        } else {
            self.put(attempt, &[frame]) == 1
        }
    }

    /// Writes one or two frames and counts those that are wholly in the segment. A torn one is left behind at the
    /// end of its segment, and the next frame begins a new one.
    fn put(&mut self, attempt: &mut Attempt, frames: &[Frame<'_>]) -> usize {
        let written = match self.write(frames) {
            Ok(written) => written,
            Err((written, error)) => {
                self.error = Some(error);
                written
            }
        };
        let mut whole = 0;
        let mut left = written;
        for frame in frames {
            let length = frame_len(frame);
            if left < length {
                break;
            }
            attempt.wrote(frame, self.segment, self.offset);
            self.offset += length;
            left -= length;
            whole += 1;
        }
        if left > 0 {
            self.roll();
        }
        whole
    }

    /// Writes the frames with as few calls as the kernel allows, which is one. An error comes with the number of
    /// bytes that were written before it.
    fn write(&mut self, frames: &[Frame<'_>]) -> Result<u64, (u64, io::Error)> {
        if self.offset >= self.segment_max {
            self.roll();
        }
        let file = self.open().map_err(|error| (0, error))?;
        let mut headers = [[0; HEADER_LEN]; 2];
        let mut slices = [IoSlice::new(&[]); 4];
        let mut total = 0;
        for (at, (frame, header)) in frames.iter().zip(&mut headers).enumerate() {
            *header = encode_header(frame);
            slices[2 * at] = IoSlice::new(header);
            slices[2 * at + 1] = IoSlice::new(frame.data);
            total += frame_len(frame);
        }
        let mut left = &mut slices[..2 * frames.len().min(2)];
        let mut written = 0;
        while written < total {
            match file.write_vectored(left) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count as u64;
                    IoSlice::advance_slices(&mut left, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(written)
    }

    /// The open segment, created if need be.
    fn open(&mut self) -> io::Result<&mut File> {
        let mut taken = 0;
        while self.file.is_none() {
            let path = segment_path(&self.dir, self.worker, self.segment);
            // O_CLOEXEC is what the standard library always sets.
            let opened = File::options().append(true).create_new(true).mode(0o600).open(path);
            match opened {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && taken < TAKEN_MAX => {
                    taken += 1;
                    self.roll();
                }
                Err(error) => return Err(error),
            }
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn roll(&mut self) {
        self.file = None;
        self.segment += 1;
        self.offset = 0;
    }
}

/// A frame's length in the segment, in bytes.
fn frame_len(frame: &Frame<'_>) -> u64 {
    (HEADER_LEN + frame.data.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(dir: &tempfile::TempDir) -> Writer {
        Writer::new(dir.path(), WorkerId::generate(1).unwrap(), SEGMENT_MAX_DEFAULT)
    }

    #[test]
    fn no_output_means_no_file_even_where_none_could_be() {
        let mut writer = Writer::new("/nonexistent", WorkerId::generate(1).unwrap(), 1);
        writer.begin(TaskId::new(1, 1, 1), 1, OutputCaps::default());
        writer.append(Stream::Stdout, b"", 1);
        assert_eq!(writer.finish(2), OutputRef::default());
        assert!(writer.take_error().is_none());
    }

    #[test]
    fn output_that_cannot_be_written_is_counted_and_marked() {
        let mut writer = Writer::new("/nonexistent", WorkerId::generate(1).unwrap(), 1);
        writer.begin(TaskId::new(1, 1, 1), 1, OutputCaps::default());
        writer.append(Stream::Stdout, b"hello", 1);
        assert_eq!(writer.seen(), End { stdout_seen: 5, stderr_seen: 0 });
        assert_eq!(writer.finish(2), OutputRef { truncated: true, ..OutputRef::default() });
        assert_eq!(writer.take_error().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_full_device_drops_and_the_next_chunk_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        writer.file = Some(File::options().append(true).open("/dev/full").unwrap());
        writer.begin(TaskId::new(1, 1, 1), 1, OutputCaps::default());
        writer.append(Stream::Stdout, b"lost", 1);
        assert_eq!(writer.take_error().unwrap().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!((writer.segment, writer.offset), (0, 0), "nothing is torn, so nothing is rolled over");
        writer.file = None;
        writer.append(Stream::Stderr, b"kept", 2);
        let out = writer.finish(3);
        assert_eq!((out.stdout_bytes, out.stderr_bytes, out.truncated), (0, 4, true));
        assert_eq!(out.length, 3 * HEADER_LEN as u64 + 4 + 16, "mark, chunk and end");
    }

    #[test]
    fn a_segment_number_that_is_taken_is_stepped_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        std::fs::write(segment_path(dir.path(), writer.worker, 0), b"other").unwrap();
        writer.begin(TaskId::new(1, 1, 1), 1, OutputCaps::default());
        writer.append(Stream::Stdout, b"x", 1);
        assert_eq!(writer.finish(1).segment, 1);
    }
}
