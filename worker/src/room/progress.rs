//! Lines of progress: `0..100 [message]`, as a task writes them to `$ACODE_PROGRESS`. Pure: bytes in, progress out.
//!
//! A task may write anything. Lines that say nothing are ignored, memory is bounded by one line, and a message comes
//! out without control characters, because it is shown on terminals. Deliberately absent: the FIFO itself.

use crate::task::PROGRESS_MESSAGE_MAX;

/// The longest line that is looked at, in bytes; a longer one is ignored.
const LINE_MAX: usize = 4 * 1024;

/// How far a task says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// From 0 to 100.
    pub percent: f32,
    /// What it says about it; at most [`PROGRESS_MESSAGE_MAX`] bytes, often empty.
    pub message: String,
}

/// Puts lines together from the pieces in which they arrive.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// Whether the line that is arriving is too long already.
    overlong: bool,
}

impl Lines {
    /// Takes the next bytes and returns the last progress among the lines that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<Progress> {
        let mut last = None;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (piece, complete) = match piece.split_last() {
                Some((b'\n', line)) => (line, true),
                Some(_) | None => (piece, false),
            };
            self.overlong |= self.partial.len() + piece.len() > LINE_MAX;
            if !self.overlong {
                self.partial.extend_from_slice(piece);
            }
            if complete {
                last = self.flush().or(last);
            }
        }
        last
    }

    /// Takes what has arrived for a whole line; for the end of a task that left its last line open.
    pub(super) fn flush(&mut self) -> Option<Progress> {
        let progress = if self.overlong { None } else { parse(&self.partial) };
        self.clear();
        progress
    }

    /// Forgets what has arrived.
    pub(super) fn clear(&mut self) {
        self.partial.clear();
        self.overlong = false;
    }
}

/// The progress in a line; `None` if there is none.
fn parse(line: &[u8]) -> Option<Progress> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let (number, message) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let percent: f32 = number.strip_suffix('%').unwrap_or(number).parse().ok()?;
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    let message: String = message.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(Progress { percent: percent.abs(), message: cut(message, PROGRESS_MESSAGE_MAX) })
}

/// The text, cut to at most `max` bytes between two characters.
pub(super) fn cut(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(percent: f32, message: &str) -> Option<Progress> {
        Some(Progress { percent, message: message.into() })
    }

    #[test]
    fn the_last_valid_line_wins_and_garbage_is_ignored() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"10 start\n20.5%\tmiddle\nwhat?\n101\n-1\nnan\n\n"), progress(20.5, "middle"));
        assert_eq!(lines.feed(b"garbage\n"), None);
        assert_eq!(lines.feed(b"0\n"), progress(0.0, ""));
    }

    #[test]
    fn a_line_may_come_in_pieces_and_stay_open() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"4"), None);
        assert_eq!(lines.feed(b"2 ha"), None);
        assert_eq!(lines.feed(b"lf\n7"), progress(42.0, "half"));
        assert_eq!(lines.flush(), progress(7.0, ""));
        assert_eq!(lines.flush(), None);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            assert_eq!(lines.feed(&[b'1'; 1000]), None);
        }
        assert!(lines.partial.capacity() <= 2 * LINE_MAX);
        assert_eq!(lines.feed(b"\n50\n"), progress(50.0, ""));
    }

    #[test]
    fn messages_are_short_and_harmless() {
        let line = format!("1 \u{1b}[2J{}\n", "ä".repeat(PROGRESS_MESSAGE_MAX));
        let message = Lines::default().feed(line.as_bytes()).unwrap().message;
        assert!(message.len() <= PROGRESS_MESSAGE_MAX && !message.contains('\u{1b}'));
        assert!(message.ends_with('ä'));
    }
}
