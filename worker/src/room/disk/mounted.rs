//! Limits by a file system of their size, mounted over the scratch directory: in memory, or in a file by a loop device.
//!
//! The mount is made in a view of the file system that is the worker's own, so the host never sees it, and it goes with
//! the last process in it, however that dies. The loop device goes with the mount, and the file has lost its name before
//! it is mounted. So whoever is killed here leaves at most a file in the room, which goes with the room.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Gid, Uid, fchown};

use super::{Amount, Means, Place, SLACK_BYTES, SLACK_FILES};
use crate::failpoint;
use crate::sys::{loopback, mount};

/// The image's name in the room.
const IMAGE: &str = "image";
/// Where the program is that makes an ext4 file system.
const MAKERS: [&str; 4] = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/bin/mke2fs", "/bin/mke2fs"];
/// Inodes that ext4 keeps for itself, `lost+found` included.
const OWN_INODES: u64 = 11;
/// Bytes of an inode in the image.
const INODE: u64 = 256;
/// Bytes for the bookkeeping of an image beside inodes; and one more for so many bytes of it.
const BOOKKEEPING: u64 = 128 << 10;
const BYTES_PER_BOOKKEEPING: u64 = 1 << 11;
/// The most bytes that ext4 holds back, which is a fiftieth up to there.
const HELD_BACK_MAX: u64 = 17 << 20;

/// Whether a tmpfs can be mounted.
pub(super) fn check() -> io::Result<()> {
    if mount::is_privileged() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Whether an image can be made and mounted.
pub(super) fn check_image() -> io::Result<()> {
    check()?;
    loopback::check()?;
    maker().map(drop)
}

fn maker() -> io::Result<&'static str> {
    let missing = || io::Error::other("there is no mke2fs");
    MAKERS.into_iter().find(|path| Path::new(path).exists()).ok_or_else(missing)
}

/// A scratch directory with a file system of its own. It goes when this is dropped.
#[derive(Debug)]
pub(super) struct Mounted {
    root: OwnedFd,
    means: Means,
    /// What was free when nobody had used any of it, in bytes and files.
    free: Amount,
}

impl Mounted {
    /// In memory.
    pub fn tmpfs(place: Place<'_>, bytes: u64, files: Option<u64>) -> io::Result<Self> {
        let size = bytes.saturating_add(SLACK_BYTES);
        // The root is one of its inodes; 0 is as many as one likes.
        let inodes = files.map_or(0, |files| files.saturating_add(SLACK_FILES + 1));
        mount::mount(c"tmpfs", place.path, c"tmpfs", &format!("size={size},nr_inodes={inodes},mode=0700"))?;
        failpoint!("worker.after-mount");
        Self::settle(place, Means::Tmpfs)
    }

    /// In a file.
    pub fn image(place: Place<'_>, bytes: u64, files: Option<u64>) -> io::Result<Self> {
        let path = place.room.join(IMAGE);
        let made = make_image(&path, bytes.saturating_add(SLACK_BYTES), files);
        failpoint!("worker.after-image");
        // It needs its name no longer than mke2fs does.
        let removed = match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let file = made?;
        removed?;
        let (device, handle) = loopback::attach(&file)?;
        failpoint!("worker.after-loop");
        let device = CString::new(device.as_os_str().as_bytes())?;
        // Its inode tables are empty, and no background thread of the kernel has to write that down.
        mount::mount(&device, place.path, c"ext4", "noinit_itable,discard")?;
        drop(handle);
        failpoint!("worker.after-mount");
        let _ = std::fs::remove_dir(place.path.join("lost+found"));
        Self::settle(place, Means::Loop)
    }

    /// Gives the new root the owner and mode of what it covers.
    fn settle(place: Place<'_>, means: Means) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open(place.path, flags, Mode::empty())?;
        let mut mounted = Self { root, means, free: Amount::default() };
        let below = fstat(place.fd)?;
        fchown(&mounted.root, Some(Uid::from_raw(below.st_uid)), Some(Gid::from_raw(below.st_gid)))?;
        fchmod(&mounted.root, Mode::from_bits_truncate(below.st_mode & 0o7777))?;
        mounted.free = mounted.free_now()?;
        Ok(mounted)
    }

    pub fn means(&self) -> Means {
        self.means
    }

    /// What was used of it.
    pub fn read(&self) -> Amount {
        let free = self.free_now().unwrap_or(self.free);
        Amount { bytes: self.free.bytes.saturating_sub(free.bytes), files: self.free.files.saturating_sub(free.files) }
    }

    fn free_now(&self) -> io::Result<Amount> {
        let facts = fstatvfs(&self.root)?;
        Ok(Amount { bytes: facts.blocks_free() * facts.fragment_size(), files: facts.files_free() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Cleaning finds whatever stays.
        let _ = mount::detach(self.root.as_fd());
    }
}

/// Makes a file with an empty ext4 file system in which so much fits.
fn make_image(path: &PathBuf, bytes: u64, files: Option<u64>) -> io::Result<File> {
    let maker = maker()?;
    // Without a limit as many inodes as there are blocks of 4 KiB, within what mke2fs takes.
    let inodes = files.map_or((bytes >> 12).clamp(1_024, 1 << 28), |files| files.saturating_add(SLACK_FILES));
    let inodes = inodes.saturating_add(OWN_INODES);
    let more = (bytes / 45).min(HELD_BACK_MAX) + bytes / BYTES_PER_BOOKKEEPING + BOOKKEEPING;
    let size = bytes.saturating_add(inodes.saturating_mul(INODE)).saturating_add(more);
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(size.next_multiple_of(4_096))?;
    // No journal: what is in it is gone after the task anyway. No blocks for root: it is the task's alone.
    let features = "^has_journal,^resize_inode";
    let inodes = inodes.to_string();
    let arguments = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256", "-O", features, "-N", &inodes];
    let options = ["-E", "nodiscard,lazy_itable_init=1"];
    let mut command = Command::new(maker);
    command.args(arguments).args(options).arg(path).env_clear().stdin(Stdio::null());
    let said = command.output()?;
    if said.status.success() {
        return Ok(file);
    }
    let words = String::from_utf8_lossy(&said.stderr);
    Err(io::Error::other(format!("mke2fs: {}", words.lines().next_back().unwrap_or("failed"))))
}
