//! What a task left for its caller: the result and the error text.
//!
//! A task may plant anything under these names. Only a regular file is opened, a symbolic link is never followed, and
//! nothing here blocks. Deliberately absent: removing them; that is cleaning.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use serde_json::Value;

use super::progress::{Progress, cut};
use crate::task::{ERROR_MAX, RESULT_MAX};

/// What was left behind for the task's record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// The JSON in the result file, in one line, its numbers as they were written.
    pub result: Option<String>,
    /// Why there is no result although there is something under its name.
    pub result_error: Option<String>,
    /// The text in the error file, at most [`ERROR_MAX`] bytes, trimmed, never empty.
    pub error: Option<String>,
    /// Progress that was not read before, its last line possibly without an end.
    pub progress: Option<Progress>,
}

/// Why a file is not taken.
enum Refused {
    /// There is none.
    Absent,
    /// It is something else than a regular file.
    NotRegular,
    /// The kernel refused.
    Io(io::Error),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT => Self::Absent,
            Errno::ELOOP => Self::NotRegular,
            other => Self::Io(other.into()),
        }
    }
}

/// Whether this is a regular file.
fn is_regular(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
}

/// The first `max` bytes of the regular file `name`.
fn read(room: impl AsFd, name: &CStr, max: usize) -> Result<Vec<u8>, Refused> {
    // Opening a device has effects of its own, so look first. The look after it is the one that counts.
    if !is_regular(&fstatat(room.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?) {
        return Err(Refused::NotRegular);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = openat(room.as_fd(), name, flags, Mode::empty())?;
    if !is_regular(&fstat(&file)?) {
        return Err(Refused::NotRegular);
    }
    let mut bytes = Vec::new();
    File::from(file).take(max as u64).read_to_end(&mut bytes).map_err(Refused::Io)?;
    Ok(bytes)
}

/// The result, or why there is none; neither if the task left nothing.
pub(super) fn result(room: impl AsFd, name: &CStr) -> (Option<String>, Option<String>) {
    let refused = |why: String| (None, Some(why));
    let bytes = match read(room, name, RESULT_MAX + 1) {
        Ok(bytes) => bytes,
        Err(Refused::Absent) => return (None, None),
        Err(Refused::NotRegular) => return refused("the result is not a regular file".into()),
        Err(Refused::Io(error)) => return refused(format!("the result cannot be read: {error}")),
    };
    if bytes.len() > RESULT_MAX {
        return refused(format!("the result is larger than {RESULT_MAX} bytes"));
    }
    match serde_json::from_slice::<Value>(&bytes) {
        // The value itself would cut the digits of numbers. What is JSON is UTF-8.
        Ok(_) => (Some(String::from_utf8_lossy(&in_one_line(bytes)).into_owned()), None),
        Err(error) => refused(format!("the result is not JSON: {error}")),
    }
}

/// JSON without what stands between its parts for people.
fn in_one_line(mut json: Vec<u8>) -> Vec<u8> {
    let (mut in_text, mut escaped) = (false, false);
    json.retain(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b' ' | b'\t' | b'\r' | b'\n' if !in_text => return false,
            _ => {}
        }
        true
    });
    json
}

/// The error text, if the task left one.
pub(super) fn error(room: impl AsFd, name: &CStr) -> Option<String> {
    // An error text is told as far as possible; what is not a readable regular file tells nothing.
    let mut bytes = read(room, name, ERROR_MAX).ok()?;
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        // The cut went through a character.
        bytes.truncate(error.valid_up_to());
    }
    let text = cut(String::from_utf8_lossy(&bytes).trim().to_owned(), ERROR_MAX);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::in_one_line;

    #[test]
    fn only_what_is_between_parts_is_left_out() {
        let json = "{ \"a b\" :\t[1.50,\r\n 1e3 ],\n\"\\\\\": \"x \\\" y\" }\n";
        let line = in_one_line(json.as_bytes().to_vec());
        assert_eq!(String::from_utf8(line).unwrap(), r#"{"a b":[1.50,1e3],"\\":"x \" y"}"#);
    }
}
