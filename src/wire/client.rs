//! The blocking client: one connection, calls one after the other or pipelined.
//!
//! A single call costs a connect, a write and a read. Deliberately absent: timeouts, reconnecting and threads; whoever
//! needs them sets them around it. Bulk submission is in `bulk.rs`.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use super::bulk::{Bulk, Slowness};
use super::{CallError, Inbox, Method, TooLarge};

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no pool is running: nobody listens on {}", path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// The connection cannot be made.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the pool broke")]
    Io(#[from] io::Error),
    /// The pool hung up, most likely because it has stopped.
    #[error("the pool hung up before it had answered")]
    HungUp,
    /// The pool did not do it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The pool sent something that is too large.
    #[error("the pool's answer makes no sense")]
    TooLarge(#[from] TooLarge),
    /// The pool sent something that is not a reply.
    #[error("the pool's answer makes no sense")]
    NotAReply(#[from] serde_json::Error),
    /// A stream of replies was dropped before its end, so the next reply would be mistaken for another.
    #[error("an earlier call on this connection has not ended")]
    Unfinished,
}

#[derive(Serialize)]
struct CallEnvelope<'a, M> {
    method: &'static str,
    parameters: &'a M,
    #[serde(skip_serializing_if = "is_false")]
    more: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Deserialize)]
struct ReplyEnvelope<'a> {
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    continues: Option<bool>,
}

/// A connection to a pool.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    inbox: Inbox,
    out: Vec<u8>,
    /// Calls sent whose last reply has not come.
    unanswered: usize,
}

impl Client {
    /// Connects to the pool that listens on this socket.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if nobody does; [`ClientError::Connect`] if it cannot be found out.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Self::new(stream)),
            Err(source) => {
                let path = socket.to_owned();
                Err(match source.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning { path, source },
                    _ => ClientError::Connect { path, source },
                })
            }
        }
    }

    /// A client on a connection that is there already.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Inbox::new(), out: Vec::new(), unanswered: 0 }
    }

    /// Sets after which time without progress a read or write gives up, with an error of kind `WouldBlock`. The call
    /// goes on: [`Client::flush`] and [`Client::receive`] may be repeated.
    ///
    /// # Errors
    /// The time is zero.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)?;
        self.stream.set_write_timeout(patience)
    }

    /// With `true`, whatever would have to wait fails with an error of kind `WouldBlock` instead, and may be repeated when
    /// the connection is ready for it.
    ///
    /// # Errors
    /// What `fcntl` says.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    /// Whether there is something that could not be sent yet.
    pub fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether something was received that nobody has taken, or the other end has hung up: then this connection is of no
    /// use for a call of its own any more.
    pub fn is_stale(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        self.unanswered > 0 || self.has_unsent() || poll(&mut fds, PollTimeout::ZERO) != Ok(0)
    }

    /// The pool's socket.
    pub fn socket(&self) -> Option<PathBuf> {
        Some(self.stream.peer_addr().ok()?.as_pathname()?.to_owned())
    }

    /// Calls and waits for the one reply.
    ///
    /// # Errors
    /// The connection broke, or the pool did not do it.
    pub fn call<M: Method>(&mut self, request: &M) -> Result<M::Reply, ClientError> {
        self.queue(request)?;
        self.receive::<M>()
    }

    /// Calls with `more` and gives the replies as they come. Take all of them, or drop the client as well.
    ///
    /// # Errors
    /// The connection broke.
    pub fn call_more<M: Method>(&mut self, request: &M) -> Result<Replies<'_, M>, ClientError> {
        if self.unanswered > 0 {
            return Err(ClientError::Unfinished);
        }
        self.encode(request, true)?;
        self.flush()?;
        Ok(Replies { client: self, done: false, method: PhantomData })
    }

    /// Pipelining, first half: adds a call to those that the next [`Client::flush`] or [`Client::receive`] sends.
    /// Never let more than some 100 KiB of replies go uncollected, or both ends may wait
    /// for each other.
    ///
    /// # Errors
    /// The request has no JSON form.
    pub fn queue<M: Method>(&mut self, request: &M) -> Result<(), ClientError> {
        self.encode(request, false)
    }

    /// Sends what was queued.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let mut sent = 0;
        let outcome = loop {
            if sent == self.out.len() {
                break Ok(());
            }
            match self.stream.write(&self.out[sent..]) {
                Ok(0) => break Err(ClientError::HungUp),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // What is left goes out with the next flush.
                    self.out.drain(..sent);
                    return Err(error.into());
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break Err(ClientError::HungUp),
                Err(error) => break Err(error.into()),
            }
        };
        self.out.clear();
        outcome
    }

    /// Pipelining, second half: the reply to the oldest call that has none yet. Sends what was queued.
    ///
    /// # Errors
    /// The connection broke, or the pool did not do it; after the latter the calls behind it go on.
    pub fn receive<M: Method>(&mut self) -> Result<M::Reply, ClientError> {
        self.flush()?;
        let (reply, _) = self.read_reply::<M>()?;
        reply
    }

    /// As [`Client::queue`], with `more`: [`Client::receive_more`] gives the replies.
    ///
    /// # Errors
    /// The request has no JSON form.
    pub fn queue_more<M: Method>(&mut self, request: &M) -> Result<(), ClientError> {
        self.encode(request, true)
    }

    /// The next reply to a call of [`Client::queue_more`], and whether another one follows. Sends what was queued.
    ///
    /// # Errors
    /// The connection broke, or the pool did not do it.
    pub fn receive_more<M: Method>(&mut self) -> Result<(M::Reply, bool), ClientError> {
        self.flush()?;
        let (reply, continues) = self.read_reply::<M>()?;
        Ok((reply?, continues))
    }

    fn encode<M: Method>(&mut self, request: &M, more: bool) -> Result<(), ClientError> {
        let envelope = CallEnvelope { method: M::NAME, parameters: request, more };
        let before = self.out.len();
        if let Err(error) = serde_json::to_writer(&mut self.out, &envelope) {
            self.out.truncate(before);
            return Err(error.into());
        }
        self.out.push(0);
        self.unanswered += 1;
        Ok(())
    }

    /// Adds one call whose parameters are JSON already; for [`Bulk`], which writes them entry by entry.
    pub(super) fn queue_encoded(&mut self, call: &[u8]) {
        self.out.extend_from_slice(call);
        self.unanswered += 1;
    }

    /// Reads one reply; tells whether another one to the same call follows. The outer error is the connection's, the
    /// inner one the call's.
    fn read_reply<M: Method>(&mut self) -> Result<(Result<M::Reply, ClientError>, bool), ClientError> {
        loop {
            // Looked up twice, since a borrow that is returned from inside a loop would hold the inbox for good.
            if let Some(message) = self.inbox.next_message()? {
                let envelope: ReplyEnvelope<'_> = serde_json::from_slice(message)?;
                let continues = envelope.continues.unwrap_or(false);
                if !continues {
                    self.unanswered = self.unanswered.saturating_sub(1);
                }
                let reply = match envelope.error {
                    Some(name) => Err(CallError::from_wire(&name, envelope.parameters).into()),
                    None => {
                        let parameters = envelope.parameters.map_or("{}", |raw| raw.get());
                        serde_json::from_str::<M::Reply>(parameters).map_err(ClientError::from)
                    }
                };
                return Ok((reply, continues));
            }
            match self.inbox.read_from(&mut self.stream) {
                Ok(0) => return Err(ClientError::HungUp),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(ClientError::HungUp),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The replies to a call with `more`, as they come. Ends after the last one, and after an error.
#[derive(Debug)]
pub struct Replies<'c, M> {
    client: &'c mut Client,
    done: bool,
    method: PhantomData<M>,
}

impl<M: Method> Iterator for Replies<'_, M> {
    type Item = Result<M::Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.client.read_reply::<M>() {
            Ok((reply, continues)) => {
                self.done = !continues || reply.is_err();
                Some(reply)
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}
