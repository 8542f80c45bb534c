//! The loop: waits for one of the sources, lets each have its say, commits, and fills the table.
//!
//! One thread owns everything. Sources are signals, the control socket, report pipes, pidfds and time. Under load the
//! report pipes are looked at only when a batch closes, so that the workers' reports do not wake the supervisor one by
//! one. Deliberately absent: decisions; they are in `decide`, `judge` and the queue.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use acode_worker::sys::clock;
use acode_worker::task::Isolation;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::Supervisor;
use super::clients::ClientId;
use super::decide::{Event, Mode};

/// Token of the signal source.
pub const SIGNALS: Token = Token(0);
/// Token of the listening socket.
const LISTENER: Token = Token(1);
/// Token of the nursery's pidfd.
const NURSERY: Token = Token(2);
/// Token of the pipe whose other end's closing ends the pool.
const LIFELINE: Token = Token(3);
/// Token of the inner poll, which holds the report pipes.
const REPORTS: Token = Token(4);
/// Token of the socket on which metrics are served.
pub const METRICS: Token = Token(5);
/// Tokens of who asks for metrics begin here.
pub const SCRAPES: usize = 1 << 10;
/// Tokens of workers' pidfds begin here.
pub const PIDFDS: usize = 1 << 16;
/// Tokens of connections begin here.
pub const CLIENTS: usize = 1 << 20;

/// How often the heartbeats are looked at, in nanoseconds, at the least and at the most.
const TICK_NS: std::ops::RangeInclusive<u64> = 5_000_000..=500_000_000;
/// How often a burial is tried again, in nanoseconds.
const BURIAL_NS: u64 = 2_000_000;
/// Calls handled for one client before others get their turn.
const CALLS_PER_TURN: usize = 64;

/// The two polls.
#[derive(Debug)]
pub struct Polls {
    /// Everything that must be seen to at once.
    pub urgent: Poll,
    /// The report pipes, by row; itself a source of `urgent` except while a batch is kept open.
    pub reports: Poll,
    /// Whether `urgent` listens to `reports`.
    listening: bool,
}

impl Polls {
    /// Two empty polls.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        let (urgent, reports) = (Poll::new()?, Poll::new()?);
        let polls = Self { urgent, reports, listening: true };
        let inner = polls.reports.as_raw_fd();
        polls.urgent.registry().register(&mut SourceFd(&inner), REPORTS, Interest::READABLE)?;
        Ok(polls)
    }

    /// Lets reports wake the loop, or not.
    fn listen_to_reports(&mut self, listen: bool) -> io::Result<()> {
        if self.listening == listen {
            return Ok(());
        }
        let inner = self.reports.as_raw_fd();
        let (registry, mut source) = (self.urgent.registry(), SourceFd(&inner));
        if listen {
            registry.register(&mut source, REPORTS, Interest::READABLE)?;
        } else {
            registry.deregister(&mut source)?;
        }
        self.listening = listen;
        Ok(())
    }
}

impl Supervisor {
    /// Registers the sources that are there from the start.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn register(&mut self) -> io::Result<()> {
        let registry = self.polls.urgent.registry();
        registry.register(&mut self.signals, SIGNALS, Interest::READABLE)?;
        registry.register(self.clients.listener(), LISTENER, Interest::READABLE)?;
        registry.register(&mut SourceFd(&self.nursery.pidfd.as_raw_fd()), NURSERY, Interest::READABLE)?;
        if let Some(lifeline) = &self.lifeline {
            registry.register(&mut SourceFd(&lifeline.as_raw_fd()), LIFELINE, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Runs until the pool has stopped.
    ///
    /// # Errors
    /// The poll itself fails, which no pool survives.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        self.tick();
        // What should have started while nobody was here is not to be started now.
        self.expire_overdue();
        self.commit();
        while !self.is_finished() {
            self.dispatch();
            self.share_jobs();
            let lingers = self.lingers();
            self.polls.listen_to_reports(!lingers)?;
            let timeout = self.timeout();
            match self.polls.urgent.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                polled => polled?,
            }
            self.now_ns = clock::monotonic_ns();
            for event in &events {
                self.take_event(event.token());
            }
            self.serve_clients();
            self.hear_reports()?;
            self.keep_time();
            self.tell_manager();
            self.commit_if_due();
            self.serve_waiting();
            self.feed_streams();
            self.flush_clients();
        }
        Ok(())
    }

    /// Whether the loop is keeping a batch open without listening. While tasks wait for others it listens, since the end
    /// of one of those must not wait for the batch.
    fn lingers(&mut self) -> bool {
        let supply = self.producer.total_ready();
        let more = self.desk.served().any(|lane| self.desk.is_open(lane));
        self.ledger.linger(self.ledger.pace.linger_ns(supply, more));
        !self.ledger.is_empty() && self.workers_are_busy() && self.broken.is_none() && self.store.blocked() == 0
    }

    fn take_event(&mut self, token: Token) {
        match token {
            SIGNALS => self.take_signals(),
            LISTENER => self.clients.accept(self.polls.urgent.registry()),
            NURSERY => self.nursery_died(),
            LIFELINE => self.decide(Event::Force),
            REPORTS => {}
            Token(number) if number >= CLIENTS => {
                if let Some(id) = self.clients.by_token(token) {
                    self.clients.wake(id);
                    self.clients.check_streaming(id);
                }
            }
            METRICS => self.observer.scrape.accept(self.polls.urgent.registry(), self.now_ns),
            Token(number) if number < PIDFDS => self.serve_scrape(token),
            Token(number) => self.worker_died(u16::try_from(number - PIDFDS).unwrap_or(u16::MAX)),
        }
    }

    /// Lets every client with something to say have its turn.
    fn serve_clients(&mut self) {
        for id in self.clients.take_hot() {
            self.serve_client(id);
        }
    }

    fn serve_client(&mut self, id: ClientId) {
        for _ in 0..CALLS_PER_TURN {
            let Some(call) = self.clients.next_call(id) else { return };
            self.answer(id, call);
        }
        self.clients.wake(id);
    }

    /// Sees to somebody who asks for metrics.
    fn serve_scrape(&mut self, token: Token) {
        let Some(place) = self.observer.scrape.place(token) else { return };
        if self.observer.scrape.wants_metrics(place) {
            let text = self.metrics_text().to_owned();
            self.observer.scrape.answer(place, &text);
        }
    }

    fn flush_clients(&mut self) {
        for id in self.clients.flush(self.polls.urgent.registry(), self.now_ns) {
            self.forget_client(id);
        }
    }

    /// Reads all reports that have come, and follows them.
    fn hear_reports(&mut self) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.report_events, Events::with_capacity(0));
        let polled = self.polls.reports.poll(&mut events, Some(Duration::ZERO));
        for event in &events {
            self.hear(u16::try_from(event.token().0).unwrap_or(u16::MAX));
        }
        self.report_events = events;
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// What time alone brings about.
    fn keep_time(&mut self) {
        if self.crew.has_unburied() {
            self.bury_the_dead();
        }
        let deadline = self.fleet.next_deadline_ms().is_some_and(|at| self.now_ns / 1_000_000 >= at);
        if deadline || self.now_ns >= self.next_tick_ns {
            self.tick();
        }
        if self.observer.scrape.has_more() {
            self.observer.scrape.accept(self.polls.urgent.registry(), self.now_ns);
        }
        self.observer.scrape.expire(self.now_ns);
        self.end_overdue_starts();
        self.sweep_containers();
        self.wake_delayed();
        self.tell_metrics();
        self.expire_overdue();
        self.prune_if_due();
        self.stop_if_empty();
    }

    /// Looks at the workers' rows.
    fn tick(&mut self) {
        // Often enough that our own pauses between two looks are never taken for sleep, in which silence is excused.
        let quarter_ns = u64::try_from(self.config.workers.heartbeat_timeout.as_nanos() / 4).unwrap_or(u64::MAX);
        self.next_tick_ns = self.now_ns + quarter_ns.clamp(*TICK_NS.start(), *TICK_NS.end());
        let rows = self.crew.iter().filter_map(|(row, _)| {
            let seen = self.producer.row(row)?;
            // Who starts a task that must run in time has a limit of its own.
            let beat_ns = if self.starting.excuses(row) { self.now_ns } else { seen.heartbeat_ns };
            Some((row, beat_ns / 1_000_000, seen.state))
        });
        let rows = rows.collect();
        self.decide(Event::Tick { rows });
        // What podman leaves behind of a dead worker falls to us, and cannot be removed as long as it is a zombie.
        if self.config.workers.mode.has(Isolation::Docker) {
            self.crew.reap_orphans();
        }
        self.follow_load();
        self.check_if_due();
        self.crew.flush();
        self.look_at_machine();
        self.let_age();
        self.heal();
    }

    /// How long to sleep at most.
    fn timeout(&mut self) -> Duration {
        if self.clients.any_hot() || self.observer.scrape.has_more() || self.streams.has_more() {
            return Duration::ZERO;
        }
        let now = clock::monotonic_ns();
        let mut until = self.next_tick_ns.saturating_sub(now);
        if let Some(at_ms) = self.fleet.next_deadline_ms() {
            until = until.min((at_ms * 1_000_000).saturating_sub(now));
        }
        if let Some(at_ns) = self.manager.next_ns() {
            until = until.min(at_ns.saturating_sub(now));
        }
        if let Some(due_ns) = self.starting.next_ns() {
            until = until.min(due_ns.saturating_sub(now));
        }
        if self.crew.has_unburied() {
            until = until.min(BURIAL_NS);
        }
        if self.broken.is_none()
            && let Some(due) = self.ledger.due_in(now)
        {
            until = until.min(due);
        }
        if let Some(at_ns) = self.backlog.next_deadline_ns() {
            until = until.min(at_ns.saturating_sub(now));
        }
        // What cannot be done now must not keep the loop from sleeping.
        let writable = self.broken.is_none();
        if let Some(at_ns) = self.desk.next_sort_ns().filter(|_| writable && self.fleet.is_open()) {
            until = until.min(at_ns.saturating_sub(now));
        }
        if let Some(at_us) = self.next_wake_us.into_iter().chain(self.next_expiry_us).min().filter(|_| writable) {
            let us = at_us.saturating_sub(crate::requests::now_us());
            until = until.min(us.saturating_mul(1_000));
        }
        // Rounded up, because a poll that wakes a moment too early would spin through the rest of its millisecond.
        Duration::from_nanos(until.next_multiple_of(1_000_000))
    }

    /// Whether the pool has stopped and everything about it is on disk, or can never be.
    fn is_finished(&self) -> bool {
        let stopped = self.fleet.is_done() && self.crew.is_empty();
        stopped && (self.ledger.is_empty() || self.broken.is_some())
    }

    /// Whether the pool is on its way to a stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.fleet.mode() != Mode::Running
    }
}
