//! Orders that reach a worker while it is busy: whatever it waits for, it takes them here.
//!
//! What is for the worker is seen to at once. What is for an attempt is handed out, kept for later or dropped, as fits what
//! the worker is at. Deliberately absent: what an attempt does when it is told.

use super::chores::Chores;
use super::process::Tools;
use crate::claim::Ticket;
use crate::wire::{Line, LineClosed, Order, Report, WorkerSettings};

/// What an attempt is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// To end, as cancelled.
    Cancel {
        /// Without any grace.
        now: bool,
    },
    /// To end, and to be given back.
    GiveBack {
        /// Without any grace.
        now: bool,
    },
    /// To stop where it is.
    Suspend,
    /// To go on.
    Resume,
}

/// Why a worker ends what it does for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The attempt is cancelled.
    Cancelled,
    /// The pool takes it back, or has gone.
    GivenBack,
}

/// Where orders come from, and where those for the worker itself go until it looks.
pub(super) struct Inbox<'i> {
    pub line: &'i mut Line,
    pub stopping: &'i mut bool,
    pub next_settings: &'i mut Option<Box<WorkerSettings>>,
    pub chores: &'i mut Chores,
}

impl Inbox<'_> {
    /// Sees to the orders that have come, without waiting, up to one that is for an attempt.
    pub fn take_next(&mut self) -> Result<Option<(Ticket, Told)>, LineClosed> {
        while let Some(order) = self.line.next_order()? {
            match order {
                // It had its effect by waking; whoever is busy looks at the table afterwards.
                Order::Wake => {}
                Order::Stop => *self.stopping = true,
                Order::Ping { nonce } => self.line.report(&Report::Pong { nonce })?,
                Order::Configure(settings) => *self.next_settings = Some(settings),
                Order::Chore(chore) => self.chores.add(chore),
                Order::Cancel { ticket, now } => return Ok(Some((ticket, Told::Cancel { now }))),
                Order::GiveBack { ticket, now } => return Ok(Some((ticket, Told::GiveBack { now }))),
                Order::Suspend { ticket } => return Ok(Some((ticket, Told::Suspend))),
                Order::Resume { ticket } => return Ok(Some((ticket, Told::Resume))),
            }
        }
        Ok(None)
    }
}

impl Tools {
    fn take_next(&mut self) -> Result<Option<(Ticket, Told)>, LineClosed> {
        let Self { line, stopping, next_settings, chores, .. } = self;
        Inbox { line, stopping, next_settings, chores }.take_next()
    }

    /// Takes what orders have come. What is for an attempt means nothing, because none is held or its end is settled.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn take_orders(&mut self) -> Result<(), LineClosed> {
        while self.take_next()?.is_some() {}
        Ok(())
    }

    /// Takes what orders have come. What is for the attempt at hand is kept until it looks.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub(super) fn keep_orders(&mut self) -> Result<(), LineClosed> {
        while let Some(told) = self.take_next()? {
            self.orders_kept.push(told);
        }
        Ok(())
    }

    /// The next thing that this attempt is told. What another one was told came too late for it.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub(super) fn next_told(&mut self, ticket: Ticket) -> Result<Option<Told>, LineClosed> {
        loop {
            let next = match self.orders_kept.is_empty() {
                true => self.take_next()?,
                false => Some(self.orders_kept.remove(0)),
            };
            match next {
                Some((own, told)) if own == ticket => return Ok(Some(told)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Takes what orders have come; says, once for each, whether one of them ends this attempt. The others are kept until
    /// it looks.
    pub(super) fn told_to_stop(&mut self, ticket: Ticket) -> Option<Stop> {
        let is_closed = self.keep_orders().is_err();
        let stop = self.orders_kept.iter().enumerate().find_map(|(at, (own, told))| match told {
            Told::Cancel { .. } if *own == ticket => Some((at, Stop::Cancelled)),
            Told::GiveBack { .. } if *own == ticket => Some((at, Stop::GivenBack)),
            Told::Cancel { .. } | Told::GiveBack { .. } | Told::Suspend | Told::Resume => None,
        });
        match stop {
            Some((at, stop)) => {
                self.orders_kept.remove(at);
                Some(stop)
            }
            None => is_closed.then_some(Stop::GivenBack),
        }
    }
}
