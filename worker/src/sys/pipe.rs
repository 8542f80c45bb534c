//! Pipes, and file descriptors sent over a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

/// The most descriptors that travel with one message.
pub const MAX_FDS: usize = 8;

/// A pipe, both ends close-on-exec: (read end, write end).
///
/// # Errors
/// What `pipe2` says, as a rule that there are too many open files.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Makes reads and writes on `fd` return at once instead of waiting.
///
/// # Errors
/// What `fcntl` says.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// How many bytes lie in this pipe unread, told from either end of it, also when the other one is closed.
pub fn unread(fd: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, to where there is one.
    let told = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if told == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether anybody has this pipe's read end, told from the write end.
pub fn has_reader(writer: impl AsFd) -> bool {
    let mut fds = [PollFd::new(writer.as_fd(), PollFlags::empty())];
    // An error of the call tells nothing; whoever writes next will see.
    let _ = poll(&mut fds, PollTimeout::ZERO);
    !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// A connected pair of sockets that keep message borders, close-on-exec.
///
/// # Errors
/// What `socketpair` says.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message with descriptors, at most [`MAX_FDS`] of them.
///
/// # Errors
/// What `sendmsg` says; `EPIPE` when the peer is gone.
pub fn send_with_fds(socket: BorrowedFd<'_>, message: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message into `buffer` with its descriptors; a length of 0 means that the peer is gone.
///
/// # Errors
/// What `recvmsg` says; `InvalidData` when the message did not fit.
pub fn receive_with_fds(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just installed these descriptors for us, and nobody else knows of them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message does not fit its buffer"));
    }
    Ok((received.bytes, fds))
}

/// Takes ownership of a descriptor that the kernel has just made for us.
pub fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the caller has the number fresh from the kernel, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
