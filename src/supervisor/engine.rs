//! Whether the container engine can be used: what the docker workers say of it, and what follows for the pool.
//!
//! Each docker worker finds out for itself and says so when it changes. The pool takes the engine for unavailable as soon as
//! the last word of one of them is that it cannot be used, and for available again when none says so any more. What no
//! worker could claim then is not handed out, so that it takes nobody's room and rings for nobody. Deliberately absent: any
//! call of the engine, which only workers make.

use std::collections::BTreeMap;

use acode_worker::task::Isolation;
use serde_json::json;

use super::Supervisor;
use super::containers::Sweeps;
use super::modes::{Down, Served, asked_by, shares};
use crate::config::Fallback;
use crate::store::{EventKind, Op};
use crate::wire::types::Waiting;
use crate::wire::{EngineRecord, Stamp};

/// What is known of the engine.
#[derive(Debug, Default)]
pub struct Engines {
    /// Each docker worker's last word, by row.
    words: BTreeMap<u16, Word>,
    /// What follows from them, once one of them has said something.
    state: Option<State>,
    /// When somebody looks for containers that nobody owns.
    pub sweeps: Sweeps,
}

#[derive(Debug, Clone)]
struct Word {
    up: bool,
    why: String,
}

/// How it stands with the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether every docker worker that has said something can use it.
    pub available: bool,
    /// Since when, in microseconds of Unix time.
    pub since_us: u64,
    /// What it says of itself, or why it cannot be used.
    pub why: String,
}

impl Engines {
    /// A worker says whether it can use the engine, and why. True if the pool's state has changed by that.
    pub fn told(&mut self, row: u16, up: bool, why: String, now_us: u64) -> bool {
        self.words.insert(row, Word { up, why });
        self.settle(now_us)
    }

    /// A worker is gone: its word counts no more. True if the pool's state has changed by that.
    pub fn gone(&mut self, row: u16, now_us: u64) -> bool {
        self.words.remove(&row).is_some() && self.settle(now_us)
    }

    /// There are no docker workers any more.
    pub fn forget(&mut self) {
        (self.words, self.state) = (BTreeMap::new(), None);
    }

    /// How it stands, if anybody has said so yet.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Whether this worker cannot use it, by its own last word.
    pub fn is_down_for(&self, row: u16) -> bool {
        self.words.get(&row).is_some_and(|word| !word.up)
    }

    /// Whether no worker can use it.
    pub fn is_down_for_all(&self) -> bool {
        let unavailable = self.state.as_ref().is_some_and(|state| !state.available);
        unavailable && self.words.values().all(|word| !word.up)
    }

    /// Makes the state agree with the words. While there are none, the last state stands.
    fn settle(&mut self, now_us: u64) -> bool {
        let Some(word) = self.words.values().min_by_key(|word| word.up) else { return false };
        let state = State { available: word.up, since_us: now_us, why: word.why.clone() };
        match &mut self.state {
            Some(before) if before.available == state.available => {
                before.why = state.why;
                false
            }
            Some(_) | None => {
                self.state = Some(state);
                true
            }
        }
    }
}

impl Supervisor {
    /// A worker says whether it can use the engine.
    pub(super) fn take_engine_word(&mut self, row: u16, up: bool, why: String) {
        let Some(hand) = self.crew.get(row).filter(|hand| hand.mode.isolation == Isolation::Docker) else { return };
        tracing::debug!(row, worker = %hand.id, up, why, "a worker's word about the container engine");
        let first = self.engines.state().is_none();
        let changed = self.engines.told(row, up, why, crate::requests::now_us());
        self.follow_engine(changed, first);
    }

    /// A worker is gone, and with it what it said of the engine.
    pub(super) fn forget_engine_word(&mut self, row: u16) {
        let changed = self.engines.gone(row, crate::requests::now_us());
        self.follow_engine(changed, false);
    }

    fn follow_engine(&mut self, changed: bool, first: bool) {
        self.serve_classes();
        let Some(state) = self.engines.state().filter(|_| changed) else { return };
        let (available, why, fallback) = (state.available, state.why.clone(), self.fallback().name());
        let kind = match available {
            true => EventKind::DockerAvailable,
            false => EventKind::DockerUnavailable,
        };
        match (available, first) {
            // That it is there when the pool comes up is no news.
            (true, true) => return tracing::info!(why, "the container engine is available"),
            (true, false) => tracing::info!(why, "the container engine is available again"),
            (false, _) => tracing::warn!(why, fallback, "the container engine is unavailable"),
        }
        let data = Some(json!({ "why": why, "fallback": fallback }).to_string());
        self.record(Op::PoolEvent { kind, at_us: crate::requests::now_us(), data });
    }

    /// Hands out what some worker could claim, and nothing else.
    pub(super) fn serve_classes(&mut self) {
        let modes = &self.config.workers.mode;
        if !modes.has(Isolation::Docker) {
            self.engines.forget();
        }
        let down = self.engines.is_down_for_all().then(|| self.down());
        let served = Served::by(modes, self.fleet.target(), down);
        if served != self.desk.serves() {
            self.filling().serve(served);
        }
    }

    /// What becomes of tasks that do not ask for a container while the engine cannot be used.
    fn fallback(&self) -> Fallback {
        self.config.docker.fallback
    }

    fn down(&self) -> Down {
        match self.fallback() {
            Fallback::Process => Down::Process,
            Fallback::Refuse => Down::Refuse,
        }
    }

    /// What the worker in this row does instead, if it cannot use the engine.
    pub(super) fn down_in(&self, row: u16) -> Option<Down> {
        self.engines.is_down_for(row).then(|| self.down())
    }

    /// `Status`: how it stands with the engine, if there are docker workers.
    pub(super) fn engine_record(&self) -> Option<EngineRecord> {
        self.config.workers.mode.has(Isolation::Docker).then(|| {
            let state = self.engines.state();
            EngineRecord {
                available: state.map(|state| state.available),
                since: state.map(|state| Stamp::from_micros(i64::try_from(state.since_us).unwrap_or(i64::MAX))),
                why: state.map(|state| state.why.clone()),
                fallback: self.fallback().name().to_owned(),
            }
        })
    }

    /// Why no worker takes tasks of this class, if that is so.
    pub(super) fn waits_for_worker(&self, class: acode_worker::task::Class) -> Option<Waiting> {
        let there = shares(&self.config.workers.mode, self.fleet.target());
        match (asked_by(class), self.engines.state()) {
            _ if self.desk.serves().has(class) => None,
            (Some(asked), _) if there.of(asked) == 0 => Some(Waiting::NoWorker { class: asked.name().to_owned() }),
            (_, Some(down)) => Some(Waiting::Docker { why: down.why.clone() }),
            (_, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(engines: &Engines) -> Option<(bool, u64, &str)> {
        engines.state().map(|state| (state.available, state.since_us, state.why.as_str()))
    }

    #[test]
    fn one_that_cannot_use_it_is_enough_and_all_that_said_so_must_take_it_back() {
        let mut engines = Engines::default();
        assert!(state(&engines).is_none() && !engines.is_down_for_all());
        assert!(engines.told(0, true, "29".into(), 5));
        assert!(!engines.told(1, true, "29".into(), 6));
        assert_eq!(state(&engines), Some((true, 5, "29")));
        assert!(engines.told(1, false, "no answer".into(), 7));
        assert!(engines.is_down_for(1) && !engines.is_down_for(0) && !engines.is_down_for_all());
        assert!(!engines.told(0, false, "refused".into(), 8), "it was unavailable before");
        assert!(engines.is_down_for_all());
        assert!(!engines.told(1, true, "29".into(), 9));
        assert_eq!(state(&engines), Some((false, 7, "refused")));
        assert!(engines.told(0, true, "29".into(), 10));
        assert_eq!(state(&engines), Some((true, 10, "29")));
    }

    #[test]
    fn the_word_of_a_dead_worker_counts_no_more_unless_it_was_the_only_one() {
        let mut engines = Engines::default();
        engines.told(0, true, "29".into(), 1);
        engines.told(1, false, "hangs".into(), 2);
        assert!(engines.gone(1, 3));
        assert_eq!(state(&engines), Some((true, 3, "29")));
        engines.told(0, false, "hangs".into(), 4);
        assert!(!engines.gone(0, 5), "nobody knows better");
        assert!(engines.is_down_for_all() && !engines.is_down_for(0));
        assert!(!engines.gone(7, 6), "who has said nothing");
        assert!(engines.told(2, true, "29".into(), 7));
    }
}
