//! What was to be kept and is not, and why, in a bounded number of words.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

/// The most reasons that are told apart.
const REASONS_MAX: usize = 8;
/// The longest path that is named, in characters.
const PATH_MAX: usize = 120;

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It would be more bytes than are kept.
    Bytes,
    /// It would be more files than are kept.
    Files,
    /// It is a socket, a pipe, a device.
    Special,
    /// It is a link that is absolute or may lead out of what is kept.
    Link,
    /// Something is mounted on it.
    Mount,
    /// It lies too deep, or its path is too long.
    Deep,
    /// It was changed while it was copied.
    Changed,
    /// There are too many names to look at all of them.
    Names,
    /// It cannot be read, for this reason.
    Unreadable(Errno),
    /// It cannot be copied, for this reason.
    Unwritable(Errno),
}

impl Reason {
    /// Of an error of reading.
    pub fn reading(error: &io::Error) -> Self {
        match errno(error) {
            Errno::EXDEV => Self::Mount,
            other => Self::Unreadable(other),
        }
    }

    /// Of an error of writing.
    pub fn writing(error: &io::Error) -> Self {
        Self::Unwritable(errno(error))
    }

    fn words(self) -> String {
        match self {
            Self::Bytes => "beyond artifacts.maxBytesPerTask".to_owned(),
            Self::Files => "beyond artifacts.maxFilesPerTask".to_owned(),
            Self::Special => "neither a file nor a link".to_owned(),
            Self::Link => "a link that leads elsewhere".to_owned(),
            Self::Mount => "something is mounted there".to_owned(),
            Self::Deep => "too deep, or its path is too long".to_owned(),
            Self::Changed => "changed while it was copied".to_owned(),
            Self::Names => "and what comes behind it: too many names to look through".to_owned(),
            Self::Unreadable(errno) => format!("cannot be read: {}", errno.desc()),
            Self::Unwritable(errno) => format!("cannot be copied: {}", errno.desc()),
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Everything that was left out.
#[derive(Debug, Default)]
pub(super) struct Omitted {
    reasons: Vec<(Reason, String, u64)>,
    others: u64,
}

impl Omitted {
    /// Notes one.
    pub fn add(&mut self, reason: Reason, path: &[u8]) {
        if let Some((_, _, count)) = self.reasons.iter_mut().find(|(known, _, _)| *known == reason) {
            *count += 1;
        } else if self.reasons.len() < REASONS_MAX {
            let path = OsStr::from_bytes(path).to_string_lossy();
            let mut short: String = path.chars().take(PATH_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
            if short.len() < path.len() {
                short.push('…');
            }
            self.reasons.push((reason, short, 1));
        } else {
            self.others += 1;
        }
    }

    /// All of it in words; nothing if there is nothing.
    pub fn words(self) -> Option<String> {
        let tell = |(reason, path, count): &(Reason, String, u64)| match count {
            1 => format!("{path}: {}", reason.words()),
            count => format!("{path} and {} more: {}", count - 1, reason.words()),
        };
        let mut parts: Vec<String> = self.reasons.iter().map(tell).collect();
        if self.others > 0 {
            parts.push(format!("{} for other reasons", self.others));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_with_its_first_path() {
        let mut omitted = Omitted::default();
        assert!(Omitted::default().words().is_none());
        for path in [&b"a/big"[..], b"b", b"c"] {
            omitted.add(Reason::Bytes, path);
        }
        omitted.add(Reason::Unreadable(Errno::EACCES), b"x\n\xff");
        let expected =
            "a/big and 2 more: beyond artifacts.maxBytesPerTask; x?\u{fffd}: cannot be read: Permission denied";
        assert_eq!(omitted.words().unwrap(), expected);
    }
}
