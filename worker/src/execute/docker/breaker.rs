//! Whether the container engine is to be trusted with tasks: a circuit breaker.
//!
//! Pure: events and times go in, decisions come out. Times are milliseconds of any clock that does not go back. A failed
//! probe opens it at once. An engine that answers probes and fails all the same opens it after some calls in a row; then a
//! good probe is not enough, and one real call has to succeed. Deliberately absent: the probe itself, and the calls.

/// Real calls that fail in a row before the engine is given up although it answers probes.
const FAILURES_MAX: u32 = 3;
/// The first time that it is left alone, in milliseconds. It doubles with each further one.
const COOLDOWN_MS: u64 = 1_000;
/// The longest time that it is left alone.
const COOLDOWN_MAX_MS: u64 = 60_000;

/// What is thought of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked it yet.
    Unknown,
    /// It works.
    Closed,
    /// It does not work, and is left alone.
    Open {
        /// Since when it does not.
        since_ms: u64,
        /// Why, in words.
        why: String,
        /// When it is asked again.
        retry_at_ms: u64,
    },
    /// It answers probes again, and has failed real calls before: one call is tried.
    HalfOpen {
        /// Since when it does not work.
        since_ms: u64,
        /// Why it did not, in words.
        why: String,
    },
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'e> {
    /// It answered a probe, with its version.
    ProbeOk(&'e str),
    /// It did not answer a probe.
    ProbeFailed(&'e str),
    /// A real call did what it should, or failed by the task's own fault.
    CallOk,
    /// A real call failed by the engine's fault.
    CallFailed(&'e str),
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The engine can be used from now on; with what it says of itself.
    Up(String),
    /// It cannot; with why.
    Down(String),
}

/// The breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    /// What the engine said of itself at its last good probe.
    version: String,
    failures: u32,
    cooldown_ms: u64,
    closed_at_ms: u64,
    /// Whether a real call has failed since the last probe.
    doubted: bool,
    /// Whether good probes are not believed before a real call has succeeded.
    needs_trial: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Unknown,
            version: String::new(),
            failures: 0,
            cooldown_ms: COOLDOWN_MS,
            closed_at_ms: 0,
            doubted: false,
            needs_trial: false,
        }
    }
}

impl Breaker {
    /// What is thought of the engine.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a task may be given to the engine now.
    pub fn lets_through(&self) -> bool {
        match self.state {
            State::Closed | State::HalfOpen { .. } => true,
            State::Unknown | State::Open { .. } => false,
        }
    }

    /// When the engine is to be asked by a probe; 0 is at once, and `None` is not before something happens.
    pub fn next_probe_ms(&self) -> Option<u64> {
        match self.state {
            State::Unknown => Some(0),
            State::Closed | State::HalfOpen { .. } => self.doubted.then_some(0),
            State::Open { retry_at_ms, .. } => Some(retry_at_ms),
        }
    }

    /// Whether it is time for a probe.
    pub fn wants_probe(&self, now_ms: u64) -> bool {
        self.next_probe_ms().is_some_and(|at| now_ms >= at)
    }

    /// Takes note of what has happened; says what is to be told, if anything is.
    pub fn take(&mut self, event: Event<'_>, now_ms: u64) -> Option<Change> {
        match event {
            Event::ProbeOk(version) => self.probe_ok(version, now_ms),
            Event::ProbeFailed(why) => {
                self.doubted = false;
                self.open(why, now_ms)
            }
            Event::CallOk => self.call_ok(now_ms),
            Event::CallFailed(why) => self.call_failed(why, now_ms),
        }
    }

    fn probe_ok(&mut self, version: &str, now_ms: u64) -> Option<Change> {
        version.clone_into(&mut self.version);
        self.doubted = false;
        match &self.state {
            State::Unknown => self.close(now_ms),
            State::Open { since_ms, why, .. } if self.needs_trial => {
                self.state = State::HalfOpen { since_ms: *since_ms, why: why.clone() };
                None
            }
            State::Open { .. } => self.close(now_ms),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    fn call_ok(&mut self, now_ms: u64) -> Option<Change> {
        match self.state {
            State::Closed => {
                (self.failures, self.cooldown_ms) = (0, COOLDOWN_MS);
                None
            }
            State::HalfOpen { .. } => {
                self.cooldown_ms = COOLDOWN_MS;
                self.close(now_ms)
            }
            // The removal of an old container says little about new ones.
            State::Unknown | State::Open { .. } => None,
        }
    }

    fn call_failed(&mut self, why: &str, now_ms: u64) -> Option<Change> {
        match self.state {
            State::Closed => {
                self.failures += 1;
                self.doubted = true;
                if self.failures < FAILURES_MAX {
                    return None;
                }
                self.needs_trial = true;
                self.open(why, now_ms)
            }
            State::HalfOpen { .. } => self.open(why, now_ms),
            State::Unknown | State::Open { .. } => None,
        }
    }

    fn close(&mut self, now_ms: u64) -> Option<Change> {
        self.state = State::Closed;
        (self.failures, self.needs_trial, self.closed_at_ms) = (0, false, now_ms);
        Some(Change::Up(self.version.clone()))
    }

    /// Leaves the engine alone for a while. The first time is the shortest, and again so when it had worked for long.
    fn open(&mut self, why: &str, now_ms: u64) -> Option<Change> {
        let (since_ms, was_up) = match self.state {
            State::Open { since_ms, .. } | State::HalfOpen { since_ms, .. } => (since_ms, false),
            State::Unknown | State::Closed => (now_ms, true),
        };
        if self.state == State::Closed && now_ms.saturating_sub(self.closed_at_ms) > COOLDOWN_MAX_MS {
            self.cooldown_ms = COOLDOWN_MS;
        }
        self.doubted = false;
        self.state =
            State::Open { since_ms, why: why.to_owned(), retry_at_ms: now_ms.saturating_add(self.cooldown_ms) };
        self.cooldown_ms = self.cooldown_ms.saturating_mul(2).min(COOLDOWN_MAX_MS);
        was_up.then(|| Change::Down(why.to_owned()))
    }
}
