//! Lists of checksums, as sha256sum and b3sum write and check them.
//!
//! Deliberately absent: files.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::actions::files::{PIECE, in_hex};

/// Hexadecimal digits of a checksum, of either kind.
const DIGITS: usize = 64;

/// How checksums are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA-256, as of sha256sum.
    #[default]
    Sha256,
    /// BLAKE3, as of b3sum.
    Blake3,
}

impl Algorithm {
    /// The checksum of all that is read.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn sum(self, mut from: impl Read) -> io::Result<String> {
        let mut buffer = vec![0; PIECE];
        let (mut sha256, mut blake3) = (Sha256::new(), blake3::Hasher::new());
        loop {
            let count = match from.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let piece = &buffer[..count];
            match (self, count) {
                (Self::Sha256, 0) => return Ok(in_hex(&sha256.finalize())),
                (Self::Blake3, 0) => return Ok(blake3.finalize().to_hex().to_string()),
                (Self::Sha256, _) => sha256.update(piece),
                (Self::Blake3, _) => drop(blake3.update(piece)),
            }
        }
    }

    /// The line of a file, with its end. A name with a line end or a backslash in it is escaped, which a backslash before
    /// the line says.
    pub(super) fn line(self, sum: &str, name: &Path) -> Vec<u8> {
        // One dash alone would be standard input.
        let name = if name == Path::new("-") { Path::new("./-") } else { name };
        let (mut escaped, mut line) = (false, Vec::new());
        for byte in name.as_os_str().as_bytes() {
            let letter = match (byte, self) {
                (b'\\', _) => b'\\',
                (b'\n', _) => b'n',
                // b3sum knows no escape for it.
                (b'\r', Self::Sha256) => b'r',
                (byte, _) => {
                    line.push(*byte);
                    continue;
                }
            };
            escaped = true;
            line.extend([b'\\', letter]);
        }
        let head = if escaped { "\\" } else { "" };
        let mut whole = format!("{head}{sum}  ").into_bytes();
        whole.extend(line);
        whole.push(b'\n');
        whole
    }
}

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A checksum in lower case, and a name.
    Sum(String, PathBuf),
    /// Blank, or a remark.
    Nothing,
}

impl Algorithm {
    /// Reads a line, without its end, as the tools read one: with either mark, for text and for binary files, or in the form
    /// of BSD, as `--tag` has it. A name that ends in a carriage return is never written plainly for sha256sum.
    pub(super) fn read(self, line: &[u8]) -> Option<Line> {
        let without = line.strip_suffix(b"\r").unwrap_or(line);
        if without.is_empty() || line.starts_with(b"#") {
            return Some(Line::Nothing);
        }
        let line = match self {
            Self::Sha256 => without,
            Self::Blake3 => line,
        };
        let escaped = line.starts_with(b"\\");
        let line = &line[usize::from(escaped)..];
        let (sum, name) = plain(line).or_else(|| self.tagged(line))?;
        let (sum, name) = checked(sum, name, escaped)?;
        Some(Line::Sum(sum, name))
    }

    /// `SHA256 (NAME) = SUM`.
    fn tagged(self, line: &[u8]) -> Option<(&[u8], &[u8])> {
        let tag: &[u8] = match self {
            Self::Sha256 => b"SHA256 (",
            Self::Blake3 => b"BLAKE3 (",
        };
        let (head, sum) = line.split_at_checked(line.len().checked_sub(DIGITS)?)?;
        Some((sum, head.strip_prefix(tag)?.strip_suffix(b") = ")?))
    }
}

/// `SUM  NAME`.
fn plain(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sum, rest) = line.split_at_checked(DIGITS)?;
    Some((sum, rest.strip_prefix(b"  ").or_else(|| rest.strip_prefix(b" *"))?))
}

fn checked(sum: &[u8], name: &[u8], escaped: bool) -> Option<(String, PathBuf)> {
    if name.is_empty() || name.contains(&0) || !sum.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let sum = String::from_utf8_lossy(sum).to_ascii_lowercase();
    if !escaped {
        return Some((sum, OsStr::from_bytes(name).into()));
    }
    let (mut plain, mut letters) = (Vec::new(), name.iter());
    while let Some(letter) = letters.next() {
        plain.push(match (letter, letter == &b'\\') {
            (letter, false) => *letter,
            (_, true) => match letters.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
        });
    }
    Some((sum, std::ffi::OsString::from_vec(plain).into()))
}
