//! The control socket's connections: bytes in, bytes out, bounded, and never in anybody's way.
//!
//! A client that is slow, silent, gone, or talks nonsense costs its own connection and nothing else. Deliberately
//! absent: the meaning of any request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::wire::{Call, CallError, Inbox, Outbox, Request, check_peer};

/// The most reads from one client before others get their turn.
const READS_PER_TURN: usize = 16;

/// A connection's name for as long as it lasts; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

impl ClientId {
    /// No connection: what is sent there is dropped.
    pub const NOBODY: Self = Self(usize::MAX);
}

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    /// A call with several replies is going on: what follows it has to wait.
    streaming: bool,
    /// A call waits for room in the queue: what follows it has to wait.
    waiting: bool,
    /// It was not read from because it did not take its replies; what it has sent meanwhile is announced no more.
    stalled: bool,
    /// Nothing more is read; it is closed when its replies are out.
    closing: bool,
    /// Whether the poll tells when it can be written to. Only while replies wait: else every reply that is taken would
    /// wake the loop once more.
    awaits_room: bool,
    /// Since when it has taken nothing although its outbox is full, in nanoseconds of the monotonic clock.
    stuck_ns: Option<u64>,
    /// When it is closed even if it has not taken its last reply.
    until_ns: Option<u64>,
}

/// All connections.
#[derive(Debug)]
pub struct Clients {
    listener: UnixListener,
    all: BTreeMap<ClientId, Client>,
    next: usize,
    /// Those with bytes or messages that have not been looked at.
    hot: BTreeSet<ClientId>,
    base: usize,
    max: usize,
}

impl Clients {
    /// Takes the listening socket, for at most `max` connections at once. They get the tokens from `base` on.
    pub fn new(listener: UnixListener, base: usize, max: usize) -> Self {
        Self { listener, all: BTreeMap::new(), next: 0, hot: BTreeSet::new(), base, max }
    }

    /// Follows a changed configuration.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// The listening socket.
    pub fn listener(&mut self) -> &mut UnixListener {
        &mut self.listener
    }

    /// The connection with this token.
    pub fn by_token(&self, token: Token) -> Option<ClientId> {
        let id = ClientId(token.0.checked_sub(self.base)?);
        self.all.contains_key(&id).then_some(id)
    }

    /// Takes all connections that wait to be accepted. Those of strangers are refused.
    pub fn accept(&mut self, registry: &Registry) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, registry),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // No more, or no descriptor for one: the rest waits in the kernel for the next time.
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, registry: &Registry) {
        let id = ClientId(self.next);
        self.next += 1;
        let refusal = if self.all.len() >= self.max {
            Some(CallError::Busy { reason: format!("{} clients are connected already", self.max) })
        } else {
            check_peer(&stream).err().map(|error| CallError::PermissionDenied { reason: error.to_string() })
        };
        let (inbox, outbox) = (Inbox::new(), Outbox::new());
        let mut client = Client {
            stream,
            inbox,
            outbox,
            streaming: false,
            waiting: false,
            stalled: false,
            closing: false,
            awaits_room: false,
            stuck_ns: None,
            until_ns: None,
        };
        if let Some(refusal) = refusal {
            // Its buffer is empty, so this fits; if not, the closed connection says enough.
            let _ = client.outbox.error(&refusal);
            let _ = client.outbox.write_to(&mut client.stream);
            return;
        }
        if registry.register(&mut client.stream, Token(self.base + id.0), Interest::READABLE).is_ok() {
            self.all.insert(id, client);
            self.hot.insert(id);
        }
    }

    /// Notes that a connection has become readable or writable.
    pub fn wake(&mut self, id: ClientId) {
        self.hot.insert(id);
    }

    /// Whether a connection has something that was not looked at yet.
    pub fn any_hot(&self) -> bool {
        !self.hot.is_empty()
    }

    /// The connections to look at in this turn.
    pub fn take_hot(&mut self) -> BTreeSet<ClientId> {
        std::mem::take(&mut self.hot)
    }

    /// The next call of a client, if there is a whole one and the client is not waiting for another's end. A message
    /// that is no call is answered here.
    pub fn next_call(&mut self, id: ClientId) -> Option<Call> {
        let client = self.all.get_mut(&id)?;
        let mut reads = 0;
        loop {
            if client.streaming || client.waiting || client.closing {
                return None;
            }
            client.stalled = client.outbox.is_full();
            if client.stalled {
                return None;
            }
            match client.inbox.next_message() {
                Ok(Some(message)) => match Request::parse(message) {
                    Ok(call) => return Some(call),
                    Err(bad) => {
                        client.closing = bad.hang_up;
                        if !bad.oneway && client.outbox.error(&bad.error).is_err() {
                            client.closing = true;
                        }
                    }
                },
                Ok(None) if reads == READS_PER_TURN => {
                    self.hot.insert(id);
                    return None;
                }
                Ok(None) => {
                    reads += 1;
                    match client.inbox.read_from(&mut client.stream) {
                        Ok(0) => client.closing = true,
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                        Err(_) => client.closing = true,
                    }
                }
                Err(_) => {
                    let parameter = "message: too large".to_owned();
                    let _ = client.outbox.error(&CallError::InvalidParameter { parameter });
                    client.closing = true;
                }
            }
        }
    }

    /// Answers a call. One that goes on with further replies keeps the client's next calls waiting.
    pub fn reply<R: Serialize>(&mut self, id: ClientId, reply: &R, continues: bool) {
        let Some(client) = self.all.get_mut(&id) else { return };
        if client.streaming && !continues {
            self.hot.insert(id);
        }
        client.streaming = continues;
        if client.outbox.reply(reply, continues).is_err() {
            client.closing = true;
        }
    }

    /// Answers a call with an error.
    pub fn error(&mut self, id: ClientId, error: &CallError) {
        let Some(client) = self.all.get_mut(&id) else { return };
        if client.streaming {
            self.hot.insert(id);
        }
        client.streaming = false;
        if client.outbox.error(error).is_err() {
            client.closing = true;
        }
    }

    /// Sends a reply of a stream that was written down before, after which another one follows.
    pub fn reply_encoded(&mut self, id: ClientId, message: &Outbox) {
        let Some(client) = self.all.get_mut(&id) else { return };
        client.streaming = true;
        if client.outbox.append(message).is_err() {
            client.closing = true;
        }
    }

    /// Since when a client has taken nothing of a full outbox, if so.
    pub fn stuck_since_ns(&self, id: ClientId) -> Option<u64> {
        self.all.get(&id)?.stuck_ns
    }

    /// Ends a client's connection with this error behind all that waits for it, at the latest at this time.
    pub fn cut_off(&mut self, id: ClientId, error: &CallError, until_ns: u64) {
        let Some(client) = self.all.get_mut(&id) else { return };
        client.outbox.last_word(error);
        client.streaming = false;
        client.closing = true;
        client.until_ns = Some(until_ns);
    }

    /// Keeps a client's next calls waiting although it has had no reply yet.
    pub fn hold(&mut self, id: ClientId) {
        if let Some(client) = self.all.get_mut(&id) {
            client.streaming = true;
        }
    }

    /// Keeps a client's next calls waiting until `let_go`, whatever it is answered meanwhile to earlier ones.
    pub fn keep_waiting(&mut self, id: ClientId) {
        if let Some(client) = self.all.get_mut(&id) {
            client.waiting = true;
        }
    }

    /// Ends that.
    pub fn let_go(&mut self, id: ClientId) {
        if let Some(client) = self.all.get_mut(&id) {
            client.waiting = false;
            self.hot.insert(id);
        }
    }

    /// Whether nobody is there any more to be told how a call came out.
    pub fn is_gone(&self, id: ClientId) -> bool {
        self.all.get(&id).is_none_or(|client| client.closing || has_hung_up(&client.stream))
    }

    /// Whether the client takes another reply of a stream now.
    pub fn has_room(&self, id: ClientId) -> bool {
        self.all.get(&id).is_some_and(|client| !client.outbox.is_full())
    }

    /// Sends what can be sent, and closes what is to be closed. Gives the connections that are gone.
    pub fn flush(&mut self, registry: &Registry, now_ns: u64) -> Vec<ClientId> {
        let mut gone = Vec::new();
        for (id, client) in &mut self.all {
            let waiting = client.outbox.pending();
            let written = client.outbox.write_to(&mut client.stream);
            let stuck = client.outbox.is_full() && client.outbox.pending() == waiting;
            client.stuck_ns = if stuck { client.stuck_ns.or(Some(now_ns)) } else { None };
            match &written {
                Ok(_) if client.until_ns.is_some_and(|until| now_ns >= until) => gone.push(*id),
                Ok(true) if client.closing => gone.push(*id),
                // What was not read because the replies piled up may be read now.
                Ok(true) if client.stalled => drop(self.hot.insert(*id)),
                Ok(_) => {}
                Err(_) => gone.push(*id),
            }
            if let Ok(all) = written
                && client.awaits_room == all
            {
                let interest = if all { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
                // Registering anew also tells of what has happened meanwhile, so no edge is missed.
                match registry.reregister(&mut client.stream, Token(self.base + id.0), interest) {
                    Ok(()) => client.awaits_room = !all,
                    Err(_) => client.closing = true,
                }
            }
        }
        for id in &gone {
            if let Some(mut client) = self.all.remove(id) {
                let _ = registry.deregister(&mut client.stream);
            }
            self.hot.remove(id);
        }
        gone
    }

    /// Notices clients that have hung up in the middle of a stream, or while they wait: nobody reads from them otherwise.
    pub fn check_streaming(&mut self, id: ClientId) {
        if let Some(client) = self.all.get_mut(&id).filter(|client| client.waiting) {
            // What it has sent meanwhile stays in the kernel, so that it is slowed, too.
            client.closing |= has_hung_up(&client.stream);
            return;
        }
        let Some(client) = self.all.get_mut(&id).filter(|client| client.streaming) else { return };
        match client.inbox.read_from(&mut client.stream) {
            Ok(0) => client.closing = true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => client.closing = true,
        }
    }
}

/// Whether the peer has closed its whole end, with or without having been read to the end.
fn has_hung_up(stream: &UnixStream) -> bool {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    polled && fds[0].revents().is_some_and(|seen| seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

/// Makes the listening socket at `path`, open to its owner only. One that a dead supervisor left is replaced; the
/// caller holds the instance lock, so no living one is there.
///
/// # Errors
/// What the kernel says.
pub fn listen(path: &std::path::Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder is 0700 already; the mask closes the gap between bind and chmod for one that is not.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    bound
}
