//! Changing how many workers there shall be: by hand, by the load, by a configuration that was read again.
//!
//! Deliberately absent: the number that the load asks for (`scaling`), and who becomes or leaves as a worker (`decide`).

use super::Supervisor;
use super::decide::Event;
use crate::store::{EventKind, Op};
use crate::wire::CallError;
use crate::wire::types::ScalingMode;

/// Why the pool is to have another number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The load asks for it.
    Load,
    /// Somebody asks for it.
    Request,
    /// The configuration was read again.
    Reload,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Request => "request",
            Self::Reload => "reload",
        }
    }
}

impl Supervisor {
    /// Sets by hand how many workers there shall be, within the bounds, and holds that; gives what it was, and what it is.
    pub(super) fn scale_by_hand(&mut self, count: u32) -> (u32, u32) {
        self.scaler.hold();
        self.scale_to(count, Cause::Request)
    }

    /// The same, for so many more or fewer.
    pub(super) fn scale_by(&mut self, step: i64) {
        let wanted = i64::from(self.fleet.target()) + step;
        self.scale_by_hand(u32::try_from(wanted).unwrap_or(0));
    }

    /// Hands the number back to the load; gives what it was, and what it is for now.
    pub(super) fn scale_by_load(&mut self) -> Result<(u32, u32), CallError> {
        if self.scaler.mode() == ScalingMode::Off {
            let reason =
                "scaling by load is switched off: set workers.scaling.enabled to true, and send HUP to the pool";
            return Err(CallError::Refused { reason: reason.to_owned() });
        }
        self.scaler.let_go();
        tracing::info!("scaling by load");
        let count = self.scaler.rules().bound(self.fleet.target());
        Ok(self.scale_to(u32::from(count), Cause::Request))
    }

    /// Looks at the load, and follows it.
    pub(super) fn follow_load(&mut self) {
        // What ends while the queue cannot be written is not freed, and what waits while the pool is paused is not started
        // by more workers: the load says nothing then.
        if !self.fleet.is_open() || self.broken.is_some() || !self.pauses.is_open() {
            return;
        }
        // What nobody can take for want of the engine is not handed out, and so not counted.
        let demand = self.fleet.busy() + self.producer.total_ready();
        if let Some(target) = self.scaler.look(self.now_ns / 1_000_000, demand, self.fleet.target()) {
            self.scale_to(u32::from(target), Cause::Load);
        }
    }

    /// Follows the numbers of a configuration that was just read: `before` is who decided on them until now, `counted`
    /// whether `workers.count` has changed.
    pub(super) fn follow_counts(&mut self, before: ScalingMode, counted: bool) {
        match self.scaler.mode() {
            ScalingMode::Auto => {
                let count = self.scaler.rules().bound(self.fleet.target());
                self.scale_to(u32::from(count), Cause::Reload);
            }
            ScalingMode::Off if counted || before != ScalingMode::Off => {
                self.scale_to(self.config.workers.count, Cause::Reload);
            }
            // What was set by hand stays; and so does the rest, since nothing about it has changed.
            ScalingMode::Manual | ScalingMode::Off => {}
        }
    }

    /// Sets how many workers there shall be, within the bounds; gives what it was, and what it is.
    fn scale_to(&mut self, count: u32, cause: Cause) -> (u32, u32) {
        let before = u32::from(self.fleet.target());
        let target = count.clamp(1, self.config.workers.max_count.min(self.max_rows()));
        if target != before {
            let cause = cause.name();
            tracing::info!(before, target, cause, "scaling");
            let kind = if target > before { EventKind::PoolScaledUp } else { EventKind::PoolScaledDown };
            let data = Some(format!(r#"{{"from":{before},"to":{target},"cause":"{cause}"}}"#));
            self.record(Op::PoolEvent { kind, at_us: crate::requests::now_us(), data });
        }
        self.decide(Event::Scale { target: u16::try_from(target).unwrap_or(u16::MAX) });
        self.serve_classes();
        (before, target)
    }
}
