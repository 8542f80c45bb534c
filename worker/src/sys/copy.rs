//! The contents of one file into another, in the cheapest way that the kernel has: shared extents, else a copy within
//! the kernel, else through our memory; holes stay holes.
//!
//! Deliberately absent: names, modes and times.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// What is copied at once, in bytes; then the caller is heard.
const PIECE: u64 = 4 << 20;
/// What goes through our memory at once, in bytes.
const BUFFER: usize = 128 << 10;
/// Bytes of a block of `stat`.
const BLOCK: u64 = 512;

/// Whether to go on.
pub type GoOn<'g> = &'g mut dyn FnMut() -> bool;

/// Copies the first `size` bytes of `from` into the empty file `to`, which takes `blocks` blocks where it is; gives how
/// many there were. `go_on` is asked between two pieces.
///
/// # Errors
/// What the kernel says; `Interrupted` if `go_on` said no. What was copied until then is in `to`.
pub fn contents(from: &File, to: &File, size: u64, blocks: u64, go_on: GoOn<'_>) -> io::Result<u64> {
    if size > 0 && clone(from, to).is_ok() {
        return Ok(to.metadata()?.len());
    }
    let has_holes = blocks.saturating_mul(BLOCK) < size;
    let mut at = 0;
    while at < size {
        let (begin, end) = if has_holes { data_from(from, at, size)? } else { (at, size) };
        at = begin;
        while at < end {
            if !go_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let copied = piece(from, to, at, (end - at).min(PIECE))?;
            if copied == 0 {
                // It has become shorter meanwhile.
                return Ok(at);
            }
            at += copied;
        }
    }
    to.set_len(size)?;
    Ok(size)
}

/// Lets both files share what is on the disk, where the file system can do that.
fn clone(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: a plain system call on two open descriptors.
    match unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where data begins from `at` on, and where it ends; both are `size` if there is no more.
fn data_from(from: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let seek = |at: u64, whence| match lseek(from, i64::try_from(at).unwrap_or(i64::MAX), whence) {
        Ok(found) => Ok(u64::try_from(found).unwrap_or(size).min(size)),
        Err(Errno::ENXIO) => Ok(size),
        Err(errno) => Err(errno),
    };
    match seek(at, Whence::SeekData) {
        // A file system that knows of no holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok((at, size)),
        begin => {
            let begin = begin?;
            Ok((begin, if begin < size { seek(begin, Whence::SeekHole)? } else { size }))
        }
    }
}

/// Copies at most `length` bytes at this place of both files; gives how many. Nothing: the end of `from`.
fn piece(from: &File, to: &File, at: u64, length: u64) -> io::Result<u64> {
    let place = i64::try_from(at).map_err(io::Error::other)?;
    let (mut here, mut there) = (place, place);
    let (source, target, length) = (from.as_raw_fd(), to.as_raw_fd(), usize::try_from(length).unwrap_or(BUFFER));
    // SAFETY: a system call on two open descriptors, with two places of ours that it may change.
    let copied = unsafe { libc::copy_file_range(source, &raw mut here, target, &raw mut there, length, 0) };
    match Errno::result(copied) {
        // 'Nothing' is also what some file systems say of files that they make up as they are read.
        Ok(0) | Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EBADF) => {
            by_hand(from, to, at, length)
        }
        Ok(copied) => Ok(u64::try_from(copied).unwrap_or(0)),
        Err(errno) => Err(errno.into()),
    }
}

fn by_hand(from: &File, to: &File, at: u64, length: usize) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; BUFFER.min(length)];
    let count = from.read_at(&mut buffer, at)?;
    to.write_all_at(&buffer[..count], at)?;
    Ok(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn contents_are_the_same_and_holes_stay_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str| File::options().read(true).write(true).create(true).truncate(true).open(path(name));
        let from = make("from").unwrap();
        let pieces = [(0, &b"begin"[..]), (70 << 20, b"middle"), ((200 << 20) - 3, b"end")];
        for (at, text) in pieces {
            from.write_all_at(text, at).unwrap();
        }
        from.set_len(300 << 20).unwrap();
        let facts = from.metadata().unwrap();
        let to = make("to").unwrap();
        let copied = contents(&from, &to, facts.len(), facts.blocks(), &mut || true).unwrap();
        assert_eq!((copied, to.metadata().unwrap().len()), (300 << 20, 300 << 20));
        assert!(to.metadata().unwrap().blocks() < 1 << 12, "{}", to.metadata().unwrap().blocks());
        for (at, text) in pieces {
            let mut read = vec![0; text.len()];
            to.read_exact_at(&mut read, at).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn a_long_copy_can_be_broken_off_and_a_file_that_shrinks_ends_early() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("from"), vec![7; 9 << 20]).unwrap();
        let from = File::open(path("from")).unwrap();
        let to = File::create(path("to")).unwrap();
        if clone(&from, &to).is_ok() {
            return;
        }
        let mut left = 2;
        let broken = contents(&from, &to, 9 << 20, u64::MAX, &mut || {
            left -= 1;
            left > 0
        });
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(contents(&from, &to, 99 << 20, u64::MAX, &mut || true).unwrap(), 9 << 20);
    }
}
