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
    #[cfg(test)]
    fn state(&self) -> &State {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn up(version: &str) -> Option<Change> {
        Some(Change::Up(version.to_owned()))
    }

    fn down(why: &str) -> Option<Change> {
        Some(Change::Down(why.to_owned()))
    }

    fn closed() -> Breaker {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.take(Event::ProbeOk("20.10"), 0), up("20.10"));
        breaker
    }

    #[test]
    fn nothing_is_given_to_an_engine_that_nobody_has_asked() {
        let mut breaker = Breaker::default();
        assert!(!breaker.lets_through() && breaker.wants_probe(0));
        assert_eq!(breaker.take(Event::ProbeOk("20.10"), 5), up("20.10"));
        assert!(breaker.lets_through());
        assert_eq!(breaker.next_probe_ms(), None, "an engine that works is not asked for nothing");
        assert_eq!(breaker.take(Event::ProbeOk("20.10"), 6), None, "nothing has changed");
    }

    #[test]
    fn a_failed_probe_opens_it_and_the_pauses_double_up_to_a_minute() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.take(Event::ProbeFailed("no socket"), 0), down("no socket"), "the first word on it is told");
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let at = breaker.next_probe_ms().unwrap();
            assert!(!breaker.lets_through() && !breaker.wants_probe(at - 1) && breaker.wants_probe(at));
            pauses.push(at - now);
            now = at;
            assert_eq!(breaker.take(Event::ProbeFailed("still none"), now), None, "told once");
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let State::Open { since_ms, why, .. } = breaker.state() else { panic!("{breaker:?}") };
        assert_eq!((*since_ms, why.as_str()), (0, "still none"));
        assert_eq!(breaker.take(Event::ProbeOk("20.10"), now + 60_000), up("20.10"));
        assert!(breaker.lets_through());
    }

    #[test]
    fn three_failed_calls_in_a_row_open_it_although_probes_succeed() {
        let mut breaker = closed();
        for now in [10, 20] {
            assert_eq!(breaker.take(Event::CallFailed("EOF"), now), None);
            assert!(breaker.wants_probe(now), "who has failed once is asked at once");
            assert_eq!(breaker.take(Event::ProbeOk("20.10"), now + 1), None);
            assert!(breaker.lets_through() && !breaker.wants_probe(now + 2));
        }
        assert_eq!(breaker.take(Event::CallFailed("EOF"), 30), down("EOF"));
        assert!(!breaker.lets_through());
    }

    #[test]
    fn a_good_call_begins_the_count_anew() {
        let mut breaker = closed();
        for round in 0..5 {
            assert_eq!(breaker.take(Event::CallFailed("EOF"), round * 10), None);
            assert_eq!(breaker.take(Event::CallFailed("EOF"), round * 10 + 1), None);
            assert_eq!(breaker.take(Event::CallOk, round * 10 + 2), None);
        }
        assert!(breaker.lets_through());
    }

    #[test]
    fn after_failed_calls_one_call_is_tried_and_decides() {
        let mut breaker = closed();
        for now in 0..3 {
            breaker.take(Event::CallFailed("EOF"), now);
        }
        assert_eq!(breaker.take(Event::CallOk, 500), None, "the removal of an old container decides nothing");
        assert_eq!(breaker.next_probe_ms(), Some(1_002));
        assert_eq!(breaker.take(Event::ProbeOk("20.10"), 1_002), None, "a probe alone is not believed any more");
        assert!(breaker.lets_through() && breaker.next_probe_ms().is_none());
        assert_eq!(breaker.take(Event::CallFailed("hangs"), 1_100), None, "it was down all the time");
        assert!(!breaker.lets_through());
        assert_eq!(breaker.next_probe_ms(), Some(3_100), "and is left alone for longer");
        assert_eq!(breaker.take(Event::ProbeOk("20.11"), 3_100), None);
        assert!(matches!(breaker.state(), State::HalfOpen { since_ms: 2, .. }));
        assert_eq!(breaker.take(Event::CallOk, 3_200), up("20.11"));
        assert_eq!(breaker.state(), &State::Closed);
    }

    #[test]
    fn a_failed_probe_while_one_call_is_tried_opens_it_again() {
        let mut breaker = closed();
        for now in 0..3 {
            breaker.take(Event::CallFailed("EOF"), now);
        }
        breaker.take(Event::ProbeOk("20.10"), 2_000);
        assert_eq!(breaker.take(Event::ProbeFailed("gone"), 2_001), None);
        assert!(!breaker.lets_through());
        breaker.take(Event::ProbeOk("20.10"), 9_000);
        assert!(matches!(breaker.state(), State::HalfOpen { .. }), "the trial is still owed");
    }

    #[test]
    fn an_engine_that_comes_and_goes_is_left_alone_for_longer_and_one_that_had_worked_for_long_is_not() {
        let mut breaker = closed();
        breaker.take(Event::ProbeFailed("gone"), 10);
        breaker.take(Event::ProbeOk("20.10"), 1_010);
        breaker.take(Event::ProbeFailed("gone"), 1_020);
        assert_eq!(breaker.next_probe_ms(), Some(3_020));
        breaker.take(Event::ProbeOk("20.10"), 3_020);
        breaker.take(Event::ProbeFailed("gone"), 3_020 + COOLDOWN_MAX_MS + 1);
        assert_eq!(breaker.next_probe_ms(), Some(3_020 + COOLDOWN_MAX_MS + 1 + COOLDOWN_MS));
    }
}
