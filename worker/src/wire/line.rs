//! A worker's end of its two pipes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Frames, Order, Report, encode, encode_finished};
use crate::sys::failpoint;

/// The supervisor is gone, or talks nonsense, which comes to the same: there is nobody left to work for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor is gone")]
pub struct LineClosed;

/// Orders in, reports out.
#[derive(Debug)]
pub struct Line {
    orders: OwnedFd,
    reports: OwnedFd,
    frames: Frames,
    buffer: Vec<u8>,
}

impl Line {
    /// Takes the two pipe ends; `orders` must be non-blocking.
    pub fn new(orders: OwnedFd, reports: OwnedFd) -> Self {
        Self { orders, reports, frames: Frames::default(), buffer: Vec::new() }
    }

    /// Another end of the same two pipes. Orders that have come in part are this one's alone, so only one of both may be
    /// in use.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn twin(&self) -> std::io::Result<Self> {
        Ok(Self::new(self.orders.try_clone()?, self.reports.try_clone()?))
    }

    /// What to poll for orders.
    pub fn orders_fd(&self) -> BorrowedFd<'_> {
        self.orders.as_fd()
    }

    /// The next order that has arrived, if any.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn next_order(&mut self) -> Result<Option<Order>, LineClosed> {
        loop {
            if let Some(order) = self.frames.pop().map_err(|_| LineClosed)? {
                return Ok(Some(order));
            }
            // Small, for it is a page of stack in every idle worker otherwise; longer orders come in pieces.
            let mut bytes = [0_u8; 512];
            match nix::unistd::read(&self.orders, &mut bytes) {
                Ok(0) => return Err(LineClosed),
                Ok(length) => self.frames.feed(&bytes[..length]),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(LineClosed),
            }
        }
    }

    /// Sends a report; waits while the pipe is full.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn report(&mut self, report: &Report) -> Result<(), LineClosed> {
        self.buffer.clear();
        let encoded = match report {
            Report::Finished(finished) => encode_finished(finished, &mut self.buffer),
            other => encode(other, &mut self.buffer),
        };
        encoded.map_err(|_| LineClosed)?;
        if matches!(report, Report::Finished(_))
            && let Some(bytes) = failpoint::cut("worker.report-byte")
        {
            let _ = nix::unistd::write(&self.reports, &self.buffer[..bytes.min(self.buffer.len())]);
            failpoint::die();
        }
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match nix::unistd::write(&self.reports, rest) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::EINTR) => {}
                Err(_) => return Err(LineClosed),
            }
        }
        Ok(())
    }
}
