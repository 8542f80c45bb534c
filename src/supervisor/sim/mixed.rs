//! The simulated supervisor's side of workers of several modes: the counterpart of `modes`, `engine` and part of `dispatch`.
//!
//! Deliberately absent: engines that cannot be used.

use super::pool::Pool;
use super::scene::Scene;
use crate::config::Modes;
use crate::supervisor::decide::Event;
use crate::supervisor::dispatch::{Bell, are_busy, ready};
use crate::supervisor::modes::{ByMode, Served, shares};

impl Pool {
    /// See `Supervisor::follow_config`.
    pub fn follow_modes(&mut self, scene: &mut Scene, modes: Modes) {
        if !self.is_stopping() {
            self.modes = modes.clone();
            self.serve_classes(scene.now_ns);
            self.decide(scene, Event::Modes(modes));
        }
    }

    /// See `engine::serve_classes`.
    pub fn serve_classes(&mut self, now_ns: u64) {
        let served = Served::by(&self.modes, self.fleet.target(), None);
        if served != self.desk.serves() {
            self.filling(now_ns).serve(served);
        }
    }

    /// Whether there are as many workers of each mode as there shall be.
    pub fn is_in_proportion(&self) -> bool {
        let have: ByMode = self.hands.values().map(|hand| hand.mode.isolation).collect();
        have == shares(&self.modes, self.fleet.target())
    }

    /// See `dispatch::bells`.
    pub fn bells(&self) -> impl Iterator<Item = Bell> + '_ {
        self.hands.iter().map(|(row, hand)| Bell { row: *row, rung_ns: hand.rung_ns, mode: hand.mode, down: None })
    }

    /// See `dispatch::workers_are_busy`.
    pub fn workers_are_busy(&mut self) -> bool {
        let ready = ready(&mut self.producer);
        self.fleet.is_open() && are_busy(ready, self.desk.is_held_up(), self.bells())
    }
}
