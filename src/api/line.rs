//! A connection to a pool on which every wait can be ended.
//!
//! Owner: the call that uses it; between calls the pool's handle, which keeps a few. Deliberately absent: knowledge of any
//! method.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::ApiError;
use super::cancel::Patience;
use crate::wire::{Client, ClientError, Method};

/// A connection that waits by `poll` alone.
#[derive(Debug)]
pub(super) struct Line(Client);

impl Line {
    /// Connects to the pool that listens there.
    ///
    /// # Errors
    /// Nobody does, or it cannot be found out.
    pub fn connect(socket: &Path) -> Result<Self, ApiError> {
        let client = Client::connect(socket)?;
        client.set_nonblocking(true).map_err(ClientError::Io)?;
        Ok(Self(client))
    }

    /// Whether it can be used for a further call.
    pub fn is_fresh(&self) -> bool {
        !self.0.is_stale()
    }

    /// Calls and waits for the one reply.
    ///
    /// # Errors
    /// The connection broke, the pool did not do it, or the patience is over; then the line is to be dropped unless the
    /// pool has answered.
    pub fn call<M: Method>(&mut self, request: &M, patience: &Patience) -> Result<M::Reply, ApiError> {
        self.0.queue(request)?;
        self.patiently(patience, Client::receive::<M>)
    }

    /// Calls with all of these, one behind the other, and gives the replies in their order. Few and small requests only: all
    /// are sent before the first reply is read.
    ///
    /// # Errors
    /// The connection broke, or the patience is over.
    pub fn call_each<M: Method>(
        &mut self,
        requests: &[M],
        patience: &Patience,
    ) -> Result<Vec<Result<M::Reply, ApiError>>, ApiError> {
        for request in requests {
            self.0.queue(request)?;
        }
        let receive = |_: &M| match self.patiently(patience, Client::receive::<M>) {
            Err(ApiError::Client(ClientError::Call(error))) => Ok(Err(ApiError::from(ClientError::Call(error)))),
            Err(error) => Err(error),
            Ok(reply) => Ok(Ok(reply)),
        };
        requests.iter().map(receive).collect()
    }

    /// Calls with `more`; [`Line::next`] gives the replies.
    ///
    /// # Errors
    /// The connection broke.
    pub fn begin<M: Method>(&mut self, request: &M) -> Result<(), ApiError> {
        self.0.queue_more(request)?;
        match self.0.flush() {
            // What is left goes out with the next call.
            Err(ClientError::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// The next reply to [`Line::begin`], and whether another one follows.
    ///
    /// # Errors
    /// As for [`Line::call`].
    pub fn next<M: Method>(&mut self, patience: &Patience) -> Result<(M::Reply, bool), ApiError> {
        self.patiently(patience, Client::receive_more::<M>)
    }

    /// The same; none if the bell was rung before there was one.
    ///
    /// # Errors
    /// As for [`Line::call`].
    pub fn next_or_bell<M: Method>(&mut self, bell: BorrowedFd<'_>) -> Result<Option<(M::Reply, bool)>, ApiError> {
        match self.0.receive_more::<M>() {
            Ok(reply) => Ok(Some(reply)),
            Err(ClientError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                Patience::default().wait(self.0.as_fd(), self.0.has_unsent(), Some(bell))?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Repeats what would have to wait until it goes well.
    fn patiently<T>(
        &mut self,
        patience: &Patience,
        act: fn(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ApiError> {
        patience.check()?;
        loop {
            match act(&mut self.0) {
                Err(ClientError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    patience.wait(self.0.as_fd(), self.0.has_unsent(), None)?;
                }
                done => return Ok(done?),
            }
        }
    }
}
