//! Who is at the other end of a control connection: the kernel's word, not the peer's.
//!
//! The socket's mode of 0600 keeps others out already; this is the second lock on the same door. Deliberately absent:
//! users, groups and roles. The pool belongs to one user.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel does not say who it is.
    #[error("cannot tell who is at the other end of a control connection")]
    Unknown(#[source] nix::Error),
    /// It is somebody else.
    #[error("user {uid} (process {pid}) may not control this pool")]
    Refused {
        /// The peer's user.
        uid: u32,
        /// The peer's process, as it was when it connected.
        pid: i32,
    },
}

/// Checks that the peer of this connection is the pool's own user or root, and gives its process id.
///
/// # Errors
/// It is somebody else, or the kernel does not say.
pub fn check_peer(stream: &impl AsFd) -> Result<i32, PeerError> {
    let peer = getsockopt(&stream.as_fd(), sockopt::PeerCredentials).map_err(PeerError::Unknown)?;
    if peer.uid() == 0 || peer.uid() == Uid::effective().as_raw() {
        Ok(peer.pid())
    } else {
        Err(PeerError::Refused { uid: peer.uid(), pid: peer.pid() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn oneself_may_come_in() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(check_peer(&near).unwrap(), i32::try_from(std::process::id()).unwrap());
    }
}
