//! Pauses: why no task is started, and what follows when that begins or ends.
//!
//! There are two reasons, and tasks are started again when neither is left: a person wants it so, which is kept in the
//! queue, or the machine lacks something, which is measured ever anew. Running tasks go on. Deliberately absent: the
//! decision about the machine (`pressure`), and submitters that wait for room (`backlog`).

use std::path::Path;

use super::Supervisor;
use super::clients::ClientId;
use super::gauge::Gauge;
use super::ledger::After;
use super::pressure::{Change, Finding, Pressure};
use crate::config::Backpressure;
use crate::requests::{self, RequestError};
use crate::store::{EventKind, Op, Pause};
use crate::wire::reply::Pausing;
use crate::wire::types::PauseRecord;
use crate::wire::{Stamp, request};

/// Time between two measurements while there is something to run, in nanoseconds.
const SAMPLE_NS: u64 = 1_000_000_000;
/// The same while there is nothing.
const IDLE_SAMPLE_NS: u64 = 10_000_000_000;

/// Everything about pauses.
#[derive(Debug)]
pub struct Pauses {
    by_hand: Option<Pause>,
    gauge: Gauge,
    pressure: Pressure,
    /// Since when the machine lacks something, in microseconds of Unix time.
    lacking_since_us: u64,
    sampled_ns: Option<u64>,
}

impl Pauses {
    /// With the pause by hand that the queue remembers.
    pub fn new(by_hand: Option<Pause>, limits: Backpressure) -> Self {
        let (gauge, pressure) = (Gauge::default(), Pressure::new(limits));
        Self { by_hand, gauge, pressure, lacking_since_us: 0, sampled_ns: None }
    }

    /// Follows a changed configuration.
    pub fn set_limits(&mut self, limits: Backpressure) {
        self.gauge = Gauge::default();
        self.pressure.set_limits(limits);
        self.sampled_ns = None;
    }

    /// Whether a person wants it so.
    pub fn by_hand(&self) -> Option<&Pause> {
        self.by_hand.as_ref()
    }

    /// Whether tasks may be started.
    pub fn is_open(&self) -> bool {
        self.by_hand.is_none() && self.pressure.active().is_none()
    }

    /// Why they may not, and since when.
    pub fn record(&self) -> Option<PauseRecord> {
        let lack = self.pressure.active();
        let by_hand = self.by_hand.as_ref().map(|pause| (words(pause), pause.since_us));
        let lack = lack.map(|finding| (finding.to_string(), self.lacking_since_us));
        let all: Vec<(String, u64)> = by_hand.into_iter().chain(lack).collect();
        let since_us = all.iter().map(|(_, since_us)| *since_us).min()?;
        let why: Vec<String> = all.into_iter().map(|(why, _)| why).collect();
        let since = Stamp::from_micros(i64::try_from(since_us).unwrap_or(i64::MAX));
        Some(PauseRecord { why: why.join("; "), since })
    }
}

/// A pause by hand in words.
pub fn words(pause: &Pause) -> String {
    match &pause.reason {
        Some(reason) => format!("by hand: {reason}"),
        None => "by hand".to_owned(),
    }
}

impl Supervisor {
    /// `Pause`: takes effect, and is answered, when it is on disk.
    pub(super) fn pause(&mut self, client: ClientId, asked: &request::Pause) -> Result<(), RequestError> {
        self.writable()?;
        let at_us = requests::now_us();
        let pause = match self.pauses.by_hand() {
            // Asked for again without another reason, it is what it was.
            Some(now) if asked.reason.is_none() || asked.reason == now.reason => now.clone(),
            Some(now) => Pause { reason: asked.reason.clone(), since_us: now.since_us },
            None => Pause { reason: asked.reason.clone(), since_us: at_us },
        };
        self.record(Op::Pause { pause: Some(pause.clone()), at_us });
        self.ledger.then(After::Paused { client, pause: Some(pause) });
        Ok(())
    }

    /// `Resume`: likewise.
    pub(super) fn resume(&mut self, client: ClientId) -> Result<(), RequestError> {
        self.writable()?;
        self.record(Op::Pause { pause: None, at_us: requests::now_us() });
        self.ledger.then(After::Paused { client, pause: None });
        Ok(())
    }

    /// What a person wants is on disk now.
    pub(super) fn paused_by_hand(&mut self, client: ClientId, pause: Option<Pause>) {
        match (self.pauses.by_hand(), &pause) {
            (before, Some(pause)) if before != Some(pause) => tracing::info!("paused {}", words(pause)),
            (Some(_), None) => tracing::info!("resumed by hand"),
            _ => {}
        }
        self.pauses.by_hand = pause;
        self.follow_pauses();
        self.clients.reply(client, &Pausing { paused: self.pauses.record() }, false);
    }

    /// Measures what the machine has left, if it is time for that.
    pub(super) fn look_at_machine(&mut self) {
        let idle = self.desk.len() == 0 && self.store.counts().pending == 0 && self.pauses.is_open();
        let interval_ns = if idle { IDLE_SAMPLE_NS } else { SAMPLE_NS };
        let now_ns = self.now_ns;
        if self.pauses.sampled_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < interval_ns) {
            return;
        }
        self.pauses.sampled_ns = Some(now_ns);
        // Rooms may be on a disk of their own, which tasks fill while the queue's has enough.
        let folders: [&Path; 2] = [&self.dirs.state, &self.dirs.rooms()];
        let sample = self.pauses.gauge.look(&self.config.backpressure, &folders);
        let Some(change) = self.pauses.pressure.decide(now_ns / 1_000_000, &sample) else { return };
        let at_us = requests::now_us();
        let (kind, finding) = match change {
            Change::Pause(finding) => {
                tracing::warn!("no further task is started: {finding}");
                self.pauses.lacking_since_us = at_us;
                (EventKind::BackpressureOn, finding)
            }
            Change::Resume(finding) => {
                tracing::info!("tasks are started again: {finding}");
                (EventKind::BackpressureOff, finding)
            }
        };
        let Finding { cause, figure, limit } = finding;
        self.tell_backpressure(kind, cause.name(), figure, limit);
        self.follow_pauses();
    }

    /// Records the event that backpressure has begun or ended.
    pub(super) fn tell_backpressure(&mut self, kind: EventKind, cause: &str, figure: f64, limit: f64) {
        let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
        let data = serde_json::json!({ "cause": cause, "figure": rounded(figure), "limit": rounded(limit) });
        self.record(Op::PoolEvent { kind, at_us: requests::now_us(), data: Some(data.to_string()) });
    }

    /// Takes back what is published while the pool is paused; it is found again when tasks are started again.
    fn follow_pauses(&mut self) {
        if self.pauses.is_open() {
            return;
        }
        self.filling().retract_all();
        self.streams_dirty = true;
    }
}
