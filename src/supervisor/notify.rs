//! The service manager that started the pool, if one did: what it handed to us, and what it is told.
//!
//! This is systemd's notification protocol: datagrams of `KEY=VALUE` lines to the socket that `NOTIFY_SOCKET` names. Only a
//! supervisor in the foreground speaks, for it is the service's main process; whatever is handed to us is taken out of
//! the environment first of all, so that no worker and no task inherits it. Nothing here waits: what the socket does not
//! take now is told a moment later. Signs of life come from the loop itself and from nowhere else, so a loop that hangs is
//! silent. Deliberately absent: what the signals of the manager mean (`stop`), and descriptors or credentials of its.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use acode_worker::sys::{clock, environ};

use super::Supervisor;
use super::decide::Mode;

/// What a service manager hands to its service alone. Directories (`STATE_DIRECTORY`) and credentials are no secret
/// between it and us, and `tasks.environment.allow` decides about them.
const HANDED: [&str; 12] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "FDSTORE",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
];

/// The least time between two lines of status, in nanoseconds.
const STATUS_NS: u64 = 1_000_000_000;
/// When the socket is looked at again that did not take something, in nanoseconds.
const RETRY_NS: u64 = 100_000_000;
/// The same, when there is no such socket any more.
const LOST_RETRY_NS: u64 = 5_000_000_000;
/// For how much longer a stop asks at a time, at the most, in nanoseconds.
const EXTENSION_NS: u64 = 30_000_000_000;
/// How often it asks, in nanoseconds.
const EXTEND_EVERY_NS: u64 = EXTENSION_NS / 3;
/// What a stop takes beyond the tasks' time, in nanoseconds: the last commit, and removing what is left.
const CLOSING_NS: u64 = 10_000_000_000;
/// What a start may take beyond the time that workers of an earlier pool have to leave.
const RECOVERY: Duration = Duration::from_secs(120);
/// The most messages that wait for the socket; of more the oldest go.
const UNSENT_MAX: usize = 16;

/// Everything about the service manager.
#[derive(Debug, Default)]
pub struct Manager {
    line: Option<Line>,
    /// Time between two signs of life, in nanoseconds: half of what is allowed.
    beat_every_ns: Option<u64>,
    next_beat_ns: u64,
    /// The status that was told last, and when it was looked at.
    status: String,
    status_ns: u64,
    /// When a stop asks for more time again.
    next_extension_ns: u64,
    journal_stream: Option<OsString>,
}

impl Manager {
    /// Takes what was handed to this process out of its environment. With `speaks` the manager is told how the pool is,
    /// if it wants to know.
    ///
    /// The calling process must have one thread.
    pub fn take(speaks: bool) -> Self {
        let [socket, allowed_us, whom, journal_stream, ..] = HANDED.map(environ::take);
        let Some(address) = socket.filter(|_| speaks) else {
            return Self { journal_stream, ..Self::default() };
        };
        let line = Line::to(&address).inspect_err(|error| {
            // The log is not there yet, and whoever set the variable reads this.
            eprintln!("acode: the service manager cannot be told anything at {}: {error}", address.display());
        });
        let beat_every_ns = beat_every_ns(allowed_us.as_deref(), whom.as_deref(), std::process::id());
        Self { line: line.ok(), beat_every_ns, journal_stream, ..Self::default() }
    }

    /// Whether standard error goes to the system's journal. A redirection in between is seen by the file behind it.
    pub fn stderr_is_journal(&self) -> bool {
        let Ok(facts) = nix::sys::stat::fstat(io::stderr()) else { return false };
        let ours = format!("{}:{}", facts.st_dev, facts.st_ino);
        self.journal_stream.as_deref() == Some(OsStr::new(&ours))
    }

    /// Asks for the time that a start may take if workers of an earlier pool have to be waited for.
    pub fn starting(&mut self, kill_grace: Duration) {
        let micros = kill_grace.saturating_add(RECOVERY).as_micros();
        self.tell(format!("EXTEND_TIMEOUT_USEC={micros}"));
    }

    /// The pool accepts work.
    pub fn ready(&mut self) {
        self.tell("READY=1".to_owned());
    }

    /// The configuration is being read again; [`Manager::ready`] ends that.
    pub fn reloading(&mut self) {
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_ns() / 1_000));
    }

    /// The pool has begun to stop.
    pub fn stopping(&mut self) {
        self.tell("STOPPING=1".to_owned());
    }

    /// When to look in at the latest, in nanoseconds of the monotonic clock.
    pub fn next_ns(&self) -> Option<u64> {
        let line = self.line.as_ref()?;
        let retry = (!line.unsent.is_empty()).then_some(line.retry_ns);
        retry.into_iter().chain(self.beat_every_ns.map(|_| self.next_beat_ns)).min()
    }

    fn tell(&mut self, message: String) {
        if let Some(line) = &mut self.line {
            line.say(message, clock::monotonic_ns());
        }
    }

    /// Tells that the loop goes round, if it is time for that.
    fn beat(&mut self, now_ns: u64) {
        let (Some(line), Some(every_ns)) = (&mut self.line, self.beat_every_ns) else { return };
        if now_ns < self.next_beat_ns {
            return;
        }
        // One that the socket does not take is not kept: the next is as good.
        let again_ns = if line.try_say("WATCHDOG=1") { every_ns } else { line.pause_ns() };
        self.next_beat_ns = now_ns + again_ns.min(every_ns);
    }

    /// Whether it is time to look whether the status has changed: a busy loop goes round thousands of times a second.
    fn wants_status(&self, now_ns: u64) -> bool {
        self.line.is_some() && now_ns.saturating_sub(self.status_ns) >= STATUS_NS
    }

    fn tell_status(&mut self, status: String, now_ns: u64) {
        self.status_ns = now_ns;
        let Some(line) = self.line.as_mut().filter(|_| status != self.status) else { return };
        if line.try_say(&format!("STATUS={status}")) {
            self.status = status;
        }
    }

    /// While the pool stops: asks for more time as long as there is a reason for it.
    fn extend(&mut self, mode: Mode, leave_ms: u64, now_ns: u64) {
        if self.line.is_none() || now_ns < self.next_extension_ns {
            return;
        }
        if let Some(span_ns) = extension_ns(mode, leave_ms, now_ns) {
            self.next_extension_ns = now_ns + EXTEND_EVERY_NS;
            self.tell(format!("EXTEND_TIMEOUT_USEC={}", span_ns / 1_000));
        }
    }
}

/// How much longer a stop may take from `now_ns` on, in nanoseconds; `leave_ms` is what workers have to give their tasks
/// back when patience is over. A stop by force asks for nothing.
fn extension_ns(mode: Mode, leave_ms: u64, now_ns: u64) -> Option<u64> {
    let end_ms = match mode {
        Mode::Draining { deadline_ms } => deadline_ms.saturating_add(leave_ms),
        Mode::TakingBack { kill_ms } => kill_ms,
        Mode::Running | Mode::Killing => return None,
    };
    let left_ns = end_ms.saturating_mul(1_000_000).saturating_sub(now_ns);
    Some(left_ns.saturating_add(CLOSING_NS).min(EXTENSION_NS))
}

/// Half of the time that a watchdog allows between two signs of life, if it is this process that it watches.
fn beat_every_ns(allowed_us: Option<&OsStr>, whom: Option<&OsStr>, own_pid: u32) -> Option<u64> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    let for_us = whom.is_none_or(|pid| number(pid) == Some(u64::from(own_pid)));
    let allowed_us = allowed_us.and_then(number).filter(|us| *us > 0 && for_us)?;
    Some(allowed_us.saturating_mul(1_000 / 2))
}

/// The way to the manager.
#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
    /// What the socket did not take yet, in its order.
    unsent: VecDeque<String>,
    retry_ns: u64,
    /// The manager cannot be reached, and that was said.
    lost: bool,
}

impl Line {
    /// To the socket with this name: a path, or `@` and the name of an abstract one.
    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address, unsent: VecDeque::new(), retry_ns: 0, lost: false })
    }

    /// Says this now, or behind what waits already.
    fn say(&mut self, message: String, now_ns: u64) {
        self.unsent.push_back(message);
        if self.unsent.len() > UNSENT_MAX {
            self.unsent.pop_front();
        }
        self.catch_up(now_ns);
    }

    /// Says what waits, as far as the socket takes it.
    fn catch_up(&mut self, now_ns: u64) {
        while let Some(message) = self.unsent.front() {
            match self.send(message) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) => {
                    self.note(&error);
                    self.retry_ns = now_ns + self.pause_ns();
                    return;
                }
            }
        }
    }

    /// How long to leave a socket alone that has not taken something, in nanoseconds.
    fn pause_ns(&self) -> u64 {
        if self.lost { LOST_RETRY_NS } else { RETRY_NS }
    }

    /// Says this if the socket takes it; not before what waits.
    fn try_say(&mut self, message: &str) -> bool {
        if !self.unsent.is_empty() {
            return false;
        }
        let sent = self.send(message);
        if let Err(error) = &sent {
            self.note(error);
        }
        sent.is_ok()
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }

    /// Says once in the log that the manager cannot be reached; a socket that is full for a moment is no reason.
    fn note(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::WouldBlock && !std::mem::replace(&mut self.lost, true) {
            tracing::warn!(%error, "the service manager cannot be told how the pool is");
        }
    }
}

impl Supervisor {
    /// Tells the service manager what it is time to tell. Called in every round of the loop.
    pub(super) fn tell_manager(&mut self) {
        let now_ns = self.now_ns;
        self.manager.beat(now_ns);
        if let Some(line) = &mut self.manager.line
            && !line.unsent.is_empty()
            && now_ns >= line.retry_ns
        {
            line.catch_up(now_ns);
        }
        if self.manager.wants_status(now_ns) {
            let status = self.status_line();
            self.manager.tell_status(status, now_ns);
        }
        if self.is_stopping() {
            let leave_ms = super::settings::rules(&self.config, 0).leave_timeout_ms;
            self.manager.extend(self.fleet.mode(), leave_ms, now_ns);
        }
    }

    /// The pool in one line, in figures that cost nothing.
    fn status_line(&self) -> String {
        let (workers, busy) = (self.crew.iter().count(), self.holding().len());
        let queued = self.store.counts().pending.saturating_sub(busy as u64);
        let what = match self.fleet.mode() {
            Mode::Running if !self.pauses.is_open() => "paused: ",
            Mode::Running => "",
            Mode::Draining { .. } | Mode::TakingBack { .. } | Mode::Killing => "stopping: ",
        };
        let trouble = if self.broken.is_some() { "; the queue cannot be written" } else { "" };
        format!("{what}{workers} workers, {busy} busy, {queued} queued{trouble}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_watchdogs_time_is_kept_and_only_ours() {
        let every = |allowed: &str, whom: Option<&str>| beat_every_ns(Some(allowed.as_ref()), whom.map(OsStr::new), 7);
        assert_eq!(every("3000000", Some("7")), Some(1_500_000_000));
        assert_eq!(every("3000000", None), Some(1_500_000_000));
        assert_eq!(every("3000000", Some("8")), None);
        assert_eq!((every("0", None), every("soon", None), beat_every_ns(None, None, 7)), (None, None, None));
    }

    #[test]
    fn a_stop_asks_for_bounded_spans_up_to_its_own_end() {
        const SECOND: u64 = 1_000_000_000;
        let draining = |deadline_ms| extension_ns(Mode::Draining { deadline_ms }, 7_000, 1_000 * SECOND);
        assert_eq!(draining(1_600_000), Some(EXTENSION_NS));
        assert_eq!(draining(1_001_000), Some(18 * SECOND));
        assert_eq!(draining(0), Some(CLOSING_NS));
        assert_eq!(draining(u64::MAX), Some(EXTENSION_NS));
        assert_eq!(extension_ns(Mode::TakingBack { kill_ms: 1_002_000 }, 7_000, 1_000 * SECOND), Some(12 * SECOND));
        assert_eq!(extension_ns(Mode::Killing, 7_000, 0), None);
    }

    #[test]
    fn what_the_socket_does_not_take_is_kept_in_its_order_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let mut line = Line::to(path.as_os_str()).unwrap();
        for number in 0..UNSENT_MAX + 4 {
            line.say(number.to_string(), 0);
        }
        assert!(!line.try_say("WATCHDOG=1") && line.unsent.len() == UNSENT_MAX);
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        let mut texts = Vec::new();
        // The kernel keeps few datagrams for a reader that is slow.
        while !line.unsent.is_empty() || texts.len() < UNSENT_MAX {
            line.catch_up(0);
            while let Ok(length) = heard.recv(&mut buffer) {
                texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
        assert_eq!(texts, (4..UNSENT_MAX + 4).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        assert!(Line::to(OsStr::new("vsock:2:1")).is_err() && Line::to(OsStr::new("")).is_err());
        assert!(Line::to(OsStr::new("@abstract")).is_ok());
    }
}
