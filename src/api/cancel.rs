//! Ending a call from outside, and the time that a call may take.
//!
//! A call that waits does so in one `poll` over its connection and its token. Deliberately absent: taking back what the
//! call has asked of the pool; that is done, or not, by itself.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ApiError;

/// Ends calls that wait, from any thread, once and for good. Its clones are the same token.
///
/// Calls made with a token that is cancelled already end at once.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cancelled: AtomicBool,
    event: EventFd,
}

impl CancelToken {
    /// A token that is not cancelled.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn new() -> Result<Self, ApiError> {
        let event = bell()?;
        Ok(Self(Arc::new(Shared { cancelled: AtomicBool::new(false), event })))
    }

    /// Ends all calls that wait with this token, with [`ApiError::Cancelled`].
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        // It stays readable for good, since nobody reads it. A counter that is full is readable as well.
        let _ = self.0.event.write(1);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }
}

/// A descriptor that becomes readable when somebody rings it.
pub(super) fn bell() -> Result<EventFd, ApiError> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    event.map_err(|error| ApiError::System { doing: "make an event", source: error.into() })
}

/// How long a call may wait, and who may end it.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience {
    pub token: Option<CancelToken>,
    pub deadline: Option<Instant>,
}

impl Patience {
    /// Bounded by this time from now.
    pub fn of(token: Option<CancelToken>, timeout: Option<Duration>) -> Self {
        Self { token, deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    /// Whether nobody and nothing ends a call.
    pub fn is_endless(&self) -> bool {
        self.token.is_none() && self.deadline.is_none()
    }

    /// Waits until `fd` is readable, or writable if that is wanted as well, or `bell` has been rung.
    ///
    /// # Errors
    /// The token was cancelled, or the time is over.
    pub fn wait(&self, fd: BorrowedFd<'_>, write: bool, bell: Option<BorrowedFd<'_>>) -> Result<(), ApiError> {
        let wanted = if write { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut fds = vec![PollFd::new(fd, wanted)];
        fds.extend(bell.map(|bell| PollFd::new(bell, PollFlags::POLLIN)));
        fds.extend(self.token.iter().map(|token| PollFd::new(token.0.event.as_fd(), PollFlags::POLLIN)));
        loop {
            self.check()?;
            let timeout = match self.deadline {
                // One more than what is left, so that it is over when the poll ends.
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.check(),
                Err(error) => return Err(ApiError::System { doing: "wait for the pool", source: error.into() }),
            }
        }
    }

    /// Whether the call may go on.
    ///
    /// # Errors
    /// The token was cancelled, or the time is over.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.token.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Err(ApiError::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(ApiError::DeadlineExceeded),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_by_its_token_its_time_or_what_it_waits_for() {
        let (quiet, token) = (bell().unwrap(), CancelToken::new().unwrap());
        let short = Patience::of(Some(token.clone()), Some(Duration::from_millis(5)));
        assert!(matches!(short.wait(quiet.as_fd(), false, None), Err(ApiError::DeadlineExceeded)));
        let long = Patience::of(Some(token.clone()), None);
        let rung = bell().unwrap();
        rung.write(1).unwrap();
        assert!(long.wait(quiet.as_fd(), false, Some(rung.as_fd())).is_ok());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| long.wait(quiet.as_fd(), false, None));
            token.cancel();
            assert!(matches!(waiting.join().unwrap(), Err(ApiError::Cancelled)));
        });
        assert!(matches!(long.wait(rung.as_fd(), false, None), Err(ApiError::Cancelled)));
    }
}
