//! Signals, and the ways to a stop.

use nix::libc;

use super::Supervisor;
use super::decide::Event;
use crate::store::{EventKind, Op};

impl Supervisor {
    /// Follows the signals that have come.
    pub(super) fn take_signals(&mut self) {
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                libc::SIGTERM => self.drain(None),
                libc::SIGINT if self.interrupted => self.force(),
                libc::SIGINT => {
                    self.interrupted = true;
                    self.drain(None);
                }
                libc::SIGQUIT => self.force(),
                // Whoever sends a signal reads the log.
                libc::SIGHUP => drop(self.reload()),
                libc::SIGUSR1 => self.reopen_log(),
                libc::SIGTTIN => self.scale_by(1),
                libc::SIGTTOU => self.scale_by(-1),
                // SIGCHLD and whatever else was registered only wakes the loop.
                _ => {}
            }
        }
    }

    /// Begins a graceful stop, with this patience in milliseconds or the configured one.
    pub(super) fn drain(&mut self, patience_ms: Option<u64>) {
        let configured = u64::try_from(self.config.workers.drain_timeout.as_millis()).unwrap_or(u64::MAX);
        tracing::info!("stopping: running tasks may finish");
        self.decide(Event::Drain { patience_ms: patience_ms.unwrap_or(configured) });
    }

    /// Begins a stop by force.
    pub(super) fn force(&mut self) {
        tracing::info!("stopping by force: running tasks are put back");
        self.decide(Event::Force);
    }

    /// What is done once, when the way to a stop begins: nothing that is published shall be claimed any more.
    pub(super) fn begin_stop(&mut self) {
        self.announced_stop = true;
        self.manager.stopping();
        self.filling().retract_all();
        self.refuse_waiting();
        self.streams_dirty = true;
    }

    /// With `--when-empty`: begins the stop when nothing is queued and nothing runs.
    pub(super) fn stop_if_empty(&mut self) {
        let empty = self.store.counts().pending == 0 && self.desk.len() == 0 && self.ledger.is_empty();
        if self.stop_when_empty && empty && !self.is_stopping() {
            self.drain(None);
        }
    }

    /// Reads the configuration again, and follows what can be followed without a restart. If it cannot be read, the old one
    /// stays, and why it cannot is logged and given.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        self.manager.reloading();
        let reloaded = self.try_reload();
        self.manager.ready();
        if let Err(why) = &reloaded {
            tracing::error!(why, "the configuration cannot be read: the old one stays");
        }
        reloaded
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let config = (self.reload)().map_err(|error| crate::error_chain(&*error))?;
        let counted = config.workers.count != self.config.workers.count;
        let before = self.scaler.mode();
        self.follow_config(config);
        self.follow_counts(before, counted);
        self.record(Op::PoolEvent { kind: EventKind::PoolReloaded, at_us: crate::requests::now_us(), data: None });
        tracing::info!("configuration read again");
        Ok(())
    }

    fn reopen_log(&self) {
        if let Err(error) = self.log.reopen() {
            tracing::error!(%error, "the log file cannot be opened again");
        }
    }
}
