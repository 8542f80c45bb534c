//! The codec: a length in four bytes, little-endian, and that many bytes of JSON, or of a brief report (`brief`).

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Finished, Report, brief};

/// The largest frame, in bytes without its length. Room for a result and an error text of their largest sizes, with
/// every byte escaped.
pub const MAX_FRAME: usize = 512 * 1024;

/// Why a stream of frames cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame announces more than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is announced, at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// A frame does not hold what is expected.
    #[error("a frame does not hold a valid message")]
    Malformed(#[source] serde_json::Error),
    /// A brief report ends too early, or names what does not exist.
    #[error("a brief report cannot be read")]
    Garbled,
}

/// Appends `message` as one frame to `buffer`.
///
/// # Errors
/// The message cannot be written as JSON, or is too long; the buffer is as before.
pub fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    let written = serde_json::to_writer(&mut *buffer, message).map_err(FrameError::Malformed);
    let length = buffer.len() - start - 4;
    let checked = written.and(if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(()) });
    match checked {
        Ok(()) => buffer[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes()),
        Err(_) => buffer.truncate(start),
    }
    checked
}

/// Appends the end of an attempt as one frame to `buffer`: a brief one where there is little to tell, else JSON.
///
/// # Errors
/// As [`encode`].
pub fn encode_finished(finished: &Finished, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    if brief::write(finished, buffer) {
        let length = buffer.len() - start - 4;
        buffer[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        return Ok(());
    }
    buffer.truncate(start);
    encode(&ReportRef::Finished(finished), buffer)
}

/// [`Report::Finished`], borrowed.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum ReportRef<'a> {
    Finished(&'a Finished),
}

/// Bytes as they come, taken apart into frames.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    /// Adds bytes that were read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The stream is broken; nothing more can be read from it.
    pub fn pop<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(body) = self.next()? else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(FrameError::Malformed)?;
        self.start += 4 + body.len();
        Ok(Some(message))
    }

    /// The next report, in whichever form it comes.
    ///
    /// # Errors
    /// As [`Frames::pop`].
    pub fn pop_report(&mut self) -> Result<Option<Report>, FrameError> {
        let Some(body) = self.next()? else { return Ok(None) };
        let report = match brief::read(body) {
            None => serde_json::from_slice(body).map_err(FrameError::Malformed)?,
            Some(read) => Report::Finished(Box::new(read.ok_or(FrameError::Garbled)?)),
        };
        self.start += 4 + body.len();
        Ok(Some(report))
    }

    /// The body of the next whole frame.
    fn next(&self) -> Result<Option<&[u8]>, FrameError> {
        let Some((head, rest)) = self.buffer[self.start..].split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        Ok(rest.get(..length))
    }

    /// Bytes fed that do not make a whole frame yet.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(texts in prop::collection::vec(".*", 0..8), chunk in 1_usize..40) {
            let mut bytes = Vec::new();
            for text in &texts {
                encode(text, &mut bytes).unwrap();
            }
            let mut frames = Frames::default();
            let mut seen: Vec<String> = Vec::new();
            for part in bytes.chunks(chunk) {
                frames.feed(part);
                while let Some(text) = frames.pop().unwrap() {
                    seen.push(text);
                }
            }
            prop_assert_eq!(seen, texts);
            prop_assert_eq!(frames.pending(), 0);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.feed(&bytes);
            while let Ok(Some(_)) = frames.pop::<serde_json::Value>() {}
            while let Ok(Some(_)) = frames.pop_report() {}
        }
    }
}
