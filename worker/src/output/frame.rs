//! The frames of the output journal: a fixed header, then at most [`DATA_MAX`] bytes. Pure: bytes in, bytes out.
//!
//! The header carries a checksum of itself, so a torn or foreign tail is recognised and never misread. The data have
//! none: a frame's data are complete as soon as the file is long enough, because one write puts header and data there
//! in order. Deliberately absent: files, offsets, and whose segment it is.

use crate::task::TaskId;

/// Length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 48;
/// The largest data of one frame, in bytes.
pub const DATA_MAX: usize = 64 * 1024;

/// Tells a frame of this version from anything else.
const MAGIC: [u8; 4] = *b"ACJ1";
/// Length of what the checksum covers: all of the header before it.
const SUMMED_LEN: usize = 40;
/// Length of an end frame's data.
const END_LEN: usize = 16;

/// Which of a task's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A piece of standard output.
    Stdout,
    /// A piece of standard error.
    Stderr,
    /// From here on, or in this place, output was dropped. Has no data; comes at most once in an attempt.
    Truncated,
    /// The attempt's output is complete. Its data are an [`End`].
    End,
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Truncated => 3,
            Self::End => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Truncated),
            4 => Some(Self::End),
            _ => None,
        }
    }

    /// The stream that the frame's data belong to, if it has any.
    pub fn stream(self) -> Option<Stream> {
        match self {
            Self::Stdout => Some(Stream::Stdout),
            Self::Stderr => Some(Stream::Stderr),
            Self::Truncated | Self::End => None,
        }
    }
}

impl From<Stream> for Kind {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// Whose output.
    pub task: TaskId,
    /// Which attempt of the task, from 1.
    pub attempt: u32,
    /// When it was written, in microseconds of Unix time.
    pub time_us: i64,
    /// The bytes that the task wrote; for [`Kind::End`] an encoded [`End`].
    pub data: &'a [u8],
}

impl Frame<'_> {
    /// The totals in an end frame; `None` for any other frame.
    pub fn end(&self) -> Option<End> {
        match self.kind {
            Kind::End => End::from_bytes(self.data),
            Kind::Stdout | Kind::Stderr | Kind::Truncated => None,
        }
    }
}

/// What the attempt wrote in all, whether it was kept or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct End {
    /// Bytes of standard output.
    pub stdout_seen: u64,
    /// Bytes of standard error.
    pub stderr_seen: u64,
}

impl End {
    /// The end frame's data.
    pub fn to_bytes(self) -> [u8; END_LEN] {
        let mut bytes = [0; END_LEN];
        bytes[..8].copy_from_slice(&self.stdout_seen.to_le_bytes());
        bytes[8..].copy_from_slice(&self.stderr_seen.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            stdout_seen: u64::from_le_bytes(field(bytes, 0)?),
            stderr_seen: u64::from_le_bytes(field(bytes, 8)?),
        })
    }
}

/// What lies at the beginning of some bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame, and its length in bytes with its header.
    Frame(Frame<'a>, usize),
    /// The beginning of a frame, or nothing: more bytes are needed, `wanted` in all.
    Incomplete {
        /// Length that the bytes must have before it makes sense to look again.
        wanted: usize,
    },
    /// Not a frame.
    Broken,
}

/// Encodes the header of `frame`; its data follow it in the file.
///
/// Data longer than [`DATA_MAX`] are the caller's mistake: the frame would be refused by [`decode`].
pub fn encode_header(frame: &Frame<'_>) -> [u8; HEADER_LEN] {
    debug_assert!(frame.data.len() <= DATA_MAX, "a frame's data are bounded");
    let length = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = frame.kind.to_byte();
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..16].copy_from_slice(&frame.attempt.to_le_bytes());
    header[16..32].copy_from_slice(&frame.task.to_u128().to_le_bytes());
    header[32..40].copy_from_slice(&frame.time_us.to_le_bytes());
    let sum = checksum(&header[..SUMMED_LEN]);
    header[SUMMED_LEN..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Looks at the beginning of `bytes`.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Decoded::Broken;
    }
    if bytes.len() < HEADER_LEN {
        return Decoded::Incomplete { wanted: HEADER_LEN };
    }
    let Some((mut frame, length)) = decode_header(bytes) else { return Decoded::Broken };
    let size = HEADER_LEN + length;
    match bytes.get(HEADER_LEN..size) {
        Some(data) => {
            frame.data = data;
            Decoded::Frame(frame, size)
        }
        None => Decoded::Incomplete { wanted: size },
    }
}

/// The frame without its data, and the length of the data; `None` if this is not a header.
pub(super) fn decode_header(bytes: &[u8]) -> Option<(Frame<'static>, usize)> {
    let summed = bytes.get(..SUMMED_LEN)?;
    if summed[..4] != MAGIC || checksum(summed) != u64::from_le_bytes(field(bytes, SUMMED_LEN)?) {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(field(bytes, 8)?)).ok().filter(|&n| n <= DATA_MAX)?;
    let frame = Frame {
        kind: Kind::from_byte(bytes[4])?,
        task: TaskId::from_u128(u128::from_le_bytes(field(bytes, 16)?)),
        attempt: u32::from_le_bytes(field(bytes, 12)?),
        time_us: i64::from_le_bytes(field(bytes, 32)?),
        data: &[],
    };
    Some((frame, length))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Five rounds of multiply and shift. It has to tell a header from chance, not from malice: nobody but the worker can
/// write to a segment.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum: u64 = 0x9E37_79B9_7F4A_7C15;
    for word in bytes.chunks_exact(8) {
        let word = word.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        sum = (sum ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        sum ^= sum >> 32;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(data: &[u8]) -> Frame<'_> {
        Frame { kind: Kind::Stderr, task: TaskId::new(1, 2, 3), attempt: 7, time_us: -5, data }
    }

    fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = encode_header(frame).to_vec();
        bytes.extend_from_slice(frame.data);
        bytes
    }

    #[test]
    fn a_frame_survives_the_way_through_bytes() {
        let frame = sample(b"hello");
        let mut bytes = bytes_of(&frame);
        bytes.extend_from_slice(b"more");
        assert_eq!(decode(&bytes), Decoded::Frame(frame, HEADER_LEN + 5));
    }

    #[test]
    fn every_prefix_is_incomplete_and_says_how_much_is_wanted() {
        let bytes = bytes_of(&sample(b"hello"));
        for length in 0..bytes.len() {
            let wanted = if length < HEADER_LEN { HEADER_LEN } else { bytes.len() };
            assert_eq!(decode(&bytes[..length]), Decoded::Incomplete { wanted }, "{length}");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_header_breaks_it() {
        let bytes = bytes_of(&sample(b"hello"));
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), Decoded::Broken, "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_lengths_out_of_range_are_broken() {
        assert_eq!(decode(&[0; 200]), Decoded::Broken);
        let mut header = encode_header(&sample(b""));
        header[8..12].copy_from_slice(&(DATA_MAX as u32 + 1).to_le_bytes());
        let sum = checksum(&header[..SUMMED_LEN]);
        header[SUMMED_LEN..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&header), Decoded::Broken);
    }

    #[test]
    fn an_end_carries_its_totals() {
        let end = End { stdout_seen: 1 << 40, stderr_seen: 3 };
        let data = end.to_bytes();
        let frame = Frame { kind: Kind::End, ..sample(&data) };
        assert_eq!(frame.end(), Some(end));
        assert_eq!(Frame { data: &data[..9], ..frame }.end(), None);
        assert_eq!(sample(&data).end(), None);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode(&bytes);
            let mut prefixed = MAGIC.to_vec();
            prefixed.extend_from_slice(&bytes);
            let _ = decode(&prefixed);
        }
    }
}
