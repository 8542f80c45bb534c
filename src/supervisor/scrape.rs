//! `GET /metrics` over HTTP/1.1, on the supervisor's own loop, for loopback addresses only.
//!
//! Everything is bounded: connections, the size of a request, the time that each may take. A client that is slow, silent
//! or talks nonsense costs its own connection and nothing else; each connection serves one request and is closed.
//! Deliberately absent: what the metrics are, every other method or path, TLS, and authentication: whoever may connect
//! to a loopback address of this machine may read them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

/// The most connections at a time; what comes beyond is closed at once.
pub const CONNECTIONS_MAX: usize = 16;
/// The most that a request may be long, in bytes.
const REQUEST_MAX: usize = 8 << 10;
/// The most header lines of a request.
const HEADERS_MAX: usize = 48;
/// How long a connection may last, from its beginning to the last byte of the answer, in nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Connections that are taken in one turn of the loop.
const ACCEPTS_PER_TURN: usize = 64;
/// The most that is read and thrown away after the answer, so that closing does not destroy it on its way.
const DREGS_MAX: usize = 64 << 10;
/// The content type of Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where one connection stands.
#[derive(Debug)]
enum Stage {
    /// The request comes in.
    Request(Vec<u8>),
    /// The answer goes out; so much of it is sent.
    Answer(Vec<u8>, usize),
    /// All is said; the other end shall hang up. So much was thrown away.
    Farewell(usize),
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    stage: Stage,
    until_ns: u64,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// More has to come first.
    Unfinished,
    /// The metrics.
    Metrics,
    /// Something else; the status with which it is refused.
    Refused(&'static str),
}

/// The listening socket and its connections, or nothing.
#[derive(Debug)]
pub struct Scrape {
    listener: Option<(TcpListener, SocketAddr)>,
    connections: [Option<Connection>; CONNECTIONS_MAX],
    token: Token,
    /// Token of the first connection's place.
    base: usize,
    /// There may be more to accept, of which nobody tells again.
    more: bool,
}

impl Scrape {
    /// Listens nowhere yet. The listening socket gets `token`, connections the [`CONNECTIONS_MAX`] from `base` on.
    pub fn new(token: Token, base: usize) -> Self {
        Self { listener: None, connections: Default::default(), token, base, more: false }
    }

    /// Listens on this address from now on, or nowhere. What was listened on before is closed first, if it is another.
    ///
    /// # Errors
    /// What the kernel says; then nothing is listened on.
    pub fn listen(&mut self, address: Option<SocketAddr>, registry: &Registry) -> io::Result<()> {
        self.close(registry);
        let Some(address) = address else { return Ok(()) };
        let mut listener = TcpListener::bind(address)?;
        let bound = listener.local_addr()?;
        registry.register(&mut listener, self.token, Interest::READABLE)?;
        self.listener = Some((listener, bound));
        Ok(())
    }

    fn close(&mut self, registry: &Registry) {
        if let Some((mut listener, _)) = self.listener.take() {
            let _ = registry.deregister(&mut listener);
        }
    }

    /// The address that is listened on, with the port that the kernel gave.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(|(_, address)| *address)
    }

    /// Whether the loop has to come back at once.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Accepts who waits, up to a bound.
    pub fn accept(&mut self, registry: &Registry, now_ns: u64) {
        self.more = false;
        let Some((listener, _)) = &self.listener else { return };
        for _ in 0..ACCEPTS_PER_TURN {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // No more, or no descriptor for one: the rest waits in the kernel for the next time.
                Err(_) => return,
            };
            let free = self.connections.iter().position(Option::is_none);
            let Some(place) = free else { continue };
            let both = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut stream, Token(self.base + place), both).is_ok() {
                let stage = Stage::Request(Vec::new());
                self.connections[place] = Some(Connection { stream, stage, until_ns: now_ns + PATIENCE_NS });
            }
        }
        self.more = true;
    }

    /// The place of the connection with this token, if tokens of that number are ours.
    pub fn place(&self, token: Token) -> Option<usize> {
        token.0.checked_sub(self.base).filter(|place| *place < CONNECTIONS_MAX)
    }

    /// Whether the connection in this place has a request that the metrics answer; all others are seen to here.
    pub fn wants_metrics(&mut self, place: usize) -> bool {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return false };
        match connection.read() {
            Ok(Asked::Metrics) => return true,
            Ok(Asked::Unfinished) => {}
            Ok(Asked::Refused(status)) => connection.stage = Stage::Answer(refusal(status), 0),
            Err(_) => self.connections[place] = None,
        }
        self.advance(place);
        false
    }

    /// Answers the connection in this place.
    pub fn answer(&mut self, place: usize, body: &str) {
        let head = head("200 OK", TEXT, body.len());
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return };
        connection.stage = Stage::Answer([head.as_bytes(), body.as_bytes()].concat(), 0);
        self.advance(place);
    }

    fn advance(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return };
        // A dropped stream is closed, and the kernel takes it out of the poll by itself.
        if !connection.write().is_ok_and(|lives| lives) {
            self.connections[place] = None;
        }
    }

    /// Closes connections whose time is over.
    pub fn expire(&mut self, now_ns: u64) {
        for place in &mut self.connections {
            if place.as_ref().is_some_and(|connection| now_ns >= connection.until_ns) {
                *place = None;
            }
        }
    }
}

impl Connection {
    /// Reads what has come of the request.
    fn read(&mut self) -> io::Result<Asked> {
        let Stage::Request(bytes) = &mut self.stage else { return Ok(Asked::Unfinished) };
        let mut buffer = [0; 2 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    bytes.extend_from_slice(&buffer[..count]);
                    let asked = understand(bytes);
                    if asked != Asked::Unfinished {
                        return Ok(asked);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Asked::Unfinished),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what the other end takes; false if all is said and it has hung up.
    fn write(&mut self) -> io::Result<bool> {
        loop {
            let again = |error: &io::Error| error.kind() == ErrorKind::Interrupted;
            match &mut self.stage {
                Stage::Request(_) => return Ok(true),
                Stage::Answer(bytes, sent) if *sent < bytes.len() => match self.stream.write(&bytes[*sent..]) {
                    Ok(count) => *sent += count,
                    Err(error) if again(&error) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                },
                Stage::Answer(..) => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.stage = Stage::Farewell(0);
                }
                Stage::Farewell(dregs) => match self.stream.read(&mut [0; 2 << 10]) {
                    Ok(0) => return Ok(false),
                    Ok(count) => {
                        *dregs += count;
                        if *dregs > DREGS_MAX {
                            return Ok(false);
                        }
                    }
                    Err(error) if again(&error) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                },
            }
        }
    }
}

/// What these bytes ask for. Pure.
fn understand(bytes: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_MAX => Asked::Unfinished,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Asked::Refused("431 Request Header Fields Too Large")
        }
        Err(_) => Asked::Refused("400 Bad Request"),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            match (request.method, path.split('?').next()) {
                (Some("GET"), Some("/metrics")) => Asked::Metrics,
                (Some(_), Some("/metrics")) => Asked::Refused("405 Method Not Allowed"),
                (_, _) => Asked::Refused("404 Not Found"),
            }
        }
    }
}

fn head(status: &str, kind: &str, length: usize) -> String {
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n"
    )
}

fn refusal(status: &str) -> Vec<u8> {
    let body = format!("{status}: there is only GET /metrics here\n");
    let head = head(status, "text/plain; charset=utf-8", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_get_of_the_metrics_is_one() {
        let asked = |text: &str| understand(text.as_bytes());
        assert_eq!(asked("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Asked::Metrics);
        assert_eq!(asked("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Asked::Metrics);
        for part in ["", "GET", "GET /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nHost: x\r\n"] {
            assert_eq!(asked(part), Asked::Unfinished, "{part:?}");
        }
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metricsx HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\n", "405"),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "405"),
            ("\0\0\0", "400"),
            ("GET /metrics HTTP/9.9\r\n\r\n", "400"),
            ("{\"method\":\"io.acode.Ping\"}\0", "400"),
        ] {
            let Asked::Refused(refused) = asked(text) else { panic!("{text:?}") };
            assert!(refused.starts_with(status), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_request_without_end_is_refused() {
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_MAX));
        assert!(matches!(understand(long.as_bytes()), Asked::Refused(status) if status.starts_with("431")));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert!(matches!(understand(many.as_bytes()), Asked::Refused(status) if status.starts_with("431")));
    }
}
