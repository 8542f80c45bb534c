//! Varlink's framing over byte buffers: messages in, messages out, each ended by a NUL byte.
//!
//! Neither buffer does more than one read or write at a time, so they serve a non-blocking event loop and a blocking
//! client alike. Both are bounded. Deliberately absent: sockets, and what the messages mean.

use std::ffi::CStr;
use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;

use super::{CallError, MAX_MESSAGE, OUTBOX_BOUND};

/// Where a buffer begins to grow from; most messages fit.
const SMALL: usize = 4 << 10;
/// The most that is asked of one read.
const LARGE: usize = 256 << 10;
/// An empty buffer larger than this is given back.
const KEEP: usize = 1 << 20;

/// A peer sent a message larger than [`MAX_MESSAGE`]. Where the next one begins cannot be known: hang up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is larger than {MAX_MESSAGE} bytes")]
pub struct TooLarge;

/// What a peer has sent and nobody has looked at yet.
///
/// Call [`Inbox::next_message`] until it has none before reading again: then the buffer holds at most one message and
/// one read more.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    /// Where the next message begins.
    start: usize,
    /// Up to where there is no NUL, so that a message which comes in many pieces is searched once.
    searched: usize,
    /// Where what was read ends.
    end: usize,
}

impl Inbox {
    /// An empty inbox; it takes memory with the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads once. 0 means that the peer has closed its end.
    ///
    /// # Errors
    /// Whatever the reader says, `WouldBlock` and `Interrupted` included; `OutOfMemory` if whole messages were left
    /// lying until the bound.
    pub fn read_from(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        self.make_room()?;
        let count = reader.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Takes bytes that were read elsewhere.
    ///
    /// # Errors
    /// `OutOfMemory` if whole messages were left lying until the bound.
    pub fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.read_from(&mut bytes)?;
        }
        Ok(())
    }

    /// The next whole message, without its NUL, or none until more has been read.
    ///
    /// # Errors
    /// The peer's message is larger than is allowed.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, TooLarge> {
        // CStr's search looks at a word at a time, which a loop over bytes does not.
        let Ok(rest) = CStr::from_bytes_until_nul(&self.buffer[self.searched..self.end]) else {
            self.searched = self.end;
            return if self.end - self.start > MAX_MESSAGE { Err(TooLarge) } else { Ok(None) };
        };
        let (from, to) = (self.start, self.searched + rest.count_bytes());
        if to - from > MAX_MESSAGE {
            return Err(TooLarge);
        }
        self.start = to + 1;
        self.searched = self.start;
        Ok(Some(&self.buffer[from..to]))
    }

    /// Whether a message has begun and not ended: a peer that hangs up now was cut off.
    pub fn has_partial(&self) -> bool {
        self.end > self.start
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.searched, self.end) = (0, 0, 0);
            if self.buffer.len() > KEEP {
                self.buffer = Vec::new();
            }
        }
        if self.end < self.buffer.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.searched -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        // Growing only when it is at least half full keeps the copying above to once per byte on average.
        if self.end * 2 >= self.buffer.len() {
            let larger = self.buffer.len() + self.buffer.len().clamp(SMALL, LARGE.max(self.end / 2));
            self.buffer.resize(larger.min(MAX_MESSAGE + LARGE), 0);
        }
        if self.end == self.buffer.len() {
            return Err(io::Error::new(ErrorKind::OutOfMemory, "messages were left lying unread"));
        }
        Ok(())
    }
}

/// A peer does not read what it asked for, and [`OUTBOX_BOUND`] bytes wait for it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client does not read its replies")]
pub struct OutboxFull;

/// What a peer is to be sent and has not taken yet.
///
/// The bound is on what waits before a message is added, so one message of any size always has a place: a server that
/// reads no further request from a peer whose outbox [is full](Outbox::is_full) never loses a reply. A stream, which
/// nobody can hold back, is told by [`OutboxFull`] to skip a message or to hang up.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

#[derive(Serialize)]
struct ReplyEnvelope<'a, R> {
    parameters: &'a R,
    #[serde(skip_serializing_if = "is_false")]
    continues: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Outbox {
    /// An empty outbox; it takes memory with the first message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a reply; with `continues` another one will follow it. A reply that is too large for a message is replaced
    /// by an error that says so.
    ///
    /// # Errors
    /// Too much waits already; nothing was added.
    pub fn reply<R: Serialize>(&mut self, reply: &R, continues: bool) -> Result<(), OutboxFull> {
        if self.is_full() {
            return Err(OutboxFull);
        }
        let before = self.bytes.len();
        let written = serde_json::to_writer(&mut self.bytes, &ReplyEnvelope { parameters: reply, continues });
        let problem = match written {
            Err(error) => error.to_string(),
            Ok(()) if self.bytes.len() - before > MAX_MESSAGE => {
                "the reply is too large: ask for less at a time".to_owned()
            }
            Ok(()) => {
                self.bytes.push(0);
                return Ok(());
            }
        };
        self.bytes.truncate(before);
        self.error(&CallError::Internal { reason: problem })
    }

    /// Adds an error, as the last reply to its call.
    ///
    /// # Errors
    /// Too much waits already; nothing was added.
    pub fn error(&mut self, error: &CallError) -> Result<(), OutboxFull> {
        if self.is_full() {
            return Err(OutboxFull);
        }
        self.write_error(error);
        Ok(())
    }

    fn write_error(&mut self, error: &CallError) {
        self.bytes.extend_from_slice(b"{\"error\":");
        // A name of ours needs no escaping, but one that is passed on might; Value's text form cannot fail.
        self.bytes.extend_from_slice(serde_json::Value::from(error.name()).to_string().as_bytes());
        self.bytes.extend_from_slice(b",\"parameters\":");
        self.bytes.extend_from_slice(error.parameters().as_bytes());
        self.bytes.extend_from_slice(b"}\0");
    }

    /// Adds the messages of another outbox, of which nothing was sent.
    ///
    /// # Errors
    /// Too much waits already; nothing was added.
    pub fn append(&mut self, other: &Self) -> Result<(), OutboxFull> {
        if self.is_full() {
            return Err(OutboxFull);
        }
        self.bytes.extend_from_slice(&other.bytes[other.sent..]);
        Ok(())
    }

    /// Adds an error even behind a full outbox: the last message of a connection that is given up.
    pub fn last_word(&mut self, error: &CallError) {
        self.write_error(error);
    }

    /// Bytes that wait.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending() == 0
    }

    /// Whether so much waits that the peer deserves no further reply for now.
    pub fn is_full(&self) -> bool {
        self.pending() >= OUTBOX_BOUND
    }

    /// Writes until all is written or the writer takes no more. Tells whether all is written.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write_to(&mut self, writer: &mut impl Write) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            match writer.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        Ok(true)
    }

    /// Drops what was sent once it is the greater part, so that a slow reader's outbox does not grow with time.
    fn compact(&mut self) {
        if self.sent * 2 > self.bytes.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(inbox: &mut Inbox) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(message) = inbox.next_message().unwrap() {
            messages.push(message.to_vec());
        }
        messages
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            messages in prop::collection::vec(prop::collection::vec(1_u8..=255, 0..9_000), 0..8),
            cuts in prop::collection::vec(1_usize..6_000, 1..20),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|m| m.iter().copied().chain([0])).collect();
            let (mut inbox, mut got, mut rest) = (Inbox::new(), Vec::new(), bytes.as_slice());
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                inbox.feed(piece).unwrap();
                got.extend(drain(&mut inbox));
                rest = tail;
            }
            prop_assert_eq!(got, messages);
            prop_assert!(!inbox.has_partial());
        }

        #[test]
        fn a_writer_that_takes_little_gets_all(
            texts in prop::collection::vec(".{0,300}", 1..20), sizes in prop::collection::vec(0_usize..90, 1..20),
        ) {
            struct Sluggish<'a>(Vec<u8>, std::iter::Cycle<std::slice::Iter<'a, usize>>);
            impl Write for Sluggish<'_> {
                fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                    match self.1.next() {
                        Some(0) | None => Err(ErrorKind::WouldBlock.into()),
                        Some(size) => {
                            let count = bytes.len().min(*size);
                            self.0.extend_from_slice(&bytes[..count]);
                            Ok(count)
                        }
                    }
                }
                fn flush(&mut self) -> io::Result<()> { Ok(()) }
            }
            prop_assume!(sizes.iter().any(|s| *s > 0));
            let (mut outbox, mut slow) = (Outbox::new(), Sluggish(Vec::new(), sizes.iter().cycle()));
            for text in &texts {
                outbox.reply(&[text], true).unwrap();
                outbox.write_to(&mut slow).unwrap();
            }
            while !outbox.write_to(&mut slow).unwrap() {}
            let mut inbox = Inbox::new();
            inbox.feed(&slow.0).unwrap();
            let want: Vec<Vec<u8>> = texts.iter()
                .map(|t| serde_json::to_vec(&serde_json::json!({"parameters": [t], "continues": true})).unwrap())
                .map(|v| serde_json::from_slice::<serde_json::Value>(&v).unwrap().to_string().into_bytes())
                .collect();
            let got: Vec<Vec<u8>> = drain(&mut inbox).iter()
                .map(|v| serde_json::from_slice::<serde_json::Value>(v).unwrap().to_string().into_bytes())
                .collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn a_message_of_the_bound_passes_and_one_more_byte_does_not() {
        let mut bytes = vec![b'x'; MAX_MESSAGE];
        bytes.push(0);
        let mut inbox = Inbox::new();
        inbox.feed(&bytes).unwrap();
        assert_eq!(inbox.next_message().map(|m| m.map(<[u8]>::len)), Ok(Some(MAX_MESSAGE)));
        inbox.feed(b"y\0").unwrap();
        assert_eq!(inbox.next_message(), Ok(Some(&b"y"[..])));
        assert!(inbox.buffer.len() <= SMALL, "a large buffer is given back");

        bytes[MAX_MESSAGE] = b'x';
        inbox.feed(&bytes).unwrap();
        assert_eq!(inbox.next_message(), Err(TooLarge));
    }

    #[test]
    fn an_inbox_that_nobody_empties_stays_bounded() {
        let mut inbox = Inbox::new();
        let mut zeroes = io::repeat(0);
        let error = loop {
            if let Err(error) = inbox.read_from(&mut zeroes) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        assert_eq!(inbox.buffer.len(), MAX_MESSAGE + LARGE);
    }

    #[test]
    fn a_full_outbox_refuses_and_keeps_what_it_has() {
        let mut outbox = Outbox::new();
        outbox.reply(&"x".repeat(OUTBOX_BOUND), false).unwrap();
        let before = outbox.pending();
        assert_eq!(outbox.reply(&"y", false), Err(OutboxFull));
        assert_eq!(outbox.error(&CallError::Draining), Err(OutboxFull));
        assert_eq!(outbox.pending(), before);
        let mut sink = Vec::new();
        assert!(outbox.write_to(&mut sink).unwrap());
        assert!(outbox.is_empty() && sink.len() == before);
    }

    #[test]
    fn a_reply_too_large_becomes_an_error() {
        let mut outbox = Outbox::new();
        outbox.reply(&"x".repeat(MAX_MESSAGE), false).unwrap();
        let mut sink = Vec::new();
        outbox.write_to(&mut sink).unwrap();
        assert!(sink.starts_with(br#"{"error":"io.acode.Internal""#));
    }
}
