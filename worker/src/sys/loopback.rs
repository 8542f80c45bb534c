//! Loop devices: a file that can be mounted.
//!
//! A device is made with `LO_FLAGS_AUTOCLEAR`: the kernel takes it back when its last user is gone, be that the mount
//! or, when nobody mounts it, the descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

const GET_FREE: libc::Ioctl = 0x4C82;
const CONFIGURE: libc::Ioctl = 0x4C0A;
const AUTOCLEAR: u32 = 4;
/// How often another device is taken because somebody was faster.
const TRIES: u32 = 64;

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// Whether this process may have loop devices.
///
/// # Errors
/// What the kernel says.
pub fn check() -> io::Result<()> {
    control().map(drop)
}

/// Makes a loop device of `file`. It is there as long as it is mounted or the descriptor is open.
///
/// # Errors
/// What the kernel says: no privilege, no free device, a kernel before 5.8.
pub fn attach(file: &File) -> io::Result<(PathBuf, File)> {
    let control = control()?;
    for _ in 0..TRIES {
        // SAFETY: the call takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        // SAFETY: all zeroes is a valid `Config`.
        let mut config: Config = unsafe { std::mem::zeroed() };
        config.fd = file.as_fd().as_raw_fd().cast_unsigned();
        config.info.flags = AUTOCLEAR;
        // SAFETY: the kernel reads one `Config` from it.
        if unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) } == 0 {
            return Ok((path, device));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn control() -> io::Result<File> {
    open("/dev/loop-control".as_ref())
}

fn open(path: &std::path::Path) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
