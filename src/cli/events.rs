//! `acode events`: what happened, as JSON Lines.
//!
//! Whoever follows is told every event once, however often the connection breaks or the pool is started anew: it asks on
//! from the last number that it has printed. Events that were removed meanwhile are told as a gap. Deliberately absent:
//! any choice among events; that is what `jq` is for.

use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;

use super::args::EventsArgs;
use super::render::Out;
use super::values::Place;
use super::{CliError, Context, Exit};
use crate::api::{ApiError, Door, Need};
use crate::wire::reply::EventBatch;
use crate::wire::request::Events;
use crate::wire::{CallError, ClientError, SCHEMA};

/// The first pause before the socket is looked for again, and the longest; each is twice the one before.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// Events that are told no more: their number stands for them.
#[derive(Debug, Serialize)]
struct Gap {
    schema: u32,
    event: &'static str,
    /// How many there are.
    missed: u64,
    /// The number of the event before them; none if it was not seen.
    after: Option<u64>,
}

/// What was printed, and where.
struct Printer {
    out: Out,
    last: Option<u64>,
}

impl Printer {
    fn print(&mut self, batch: &EventBatch) -> Result<(), CliError> {
        if batch.missed > 0 {
            self.out.json_line(&Gap { schema: SCHEMA, event: "gap", missed: batch.missed, after: self.last })?;
        }
        batch.events.iter().try_for_each(|event| self.out.json_line(event))?;
        self.out.flush()?;
        self.last = batch.events.last().map(|event| event.seq).or(self.last.map(|last| last + batch.missed));
        Ok(())
    }

    /// What to ask for after what was printed.
    fn behind(&self, request: &Events) -> Events {
        match self.last {
            Some(last) => Events { since: None, after: Some(last), ..*request },
            None => *request,
        }
    }
}

/// Prints events, and goes on if asked to until it is interrupted.
///
/// # Errors
/// There is no queue to ask, or the connection broke and is not to be made anew.
pub fn run(context: &Context, args: &EventsArgs) -> Result<Exit, CliError> {
    let (after, since) = match args.since {
        Some(Place::After(number)) => (Some(number), None),
        Some(Place::From(moment)) => (None, Some(moment)),
        None => (None, None),
    };
    let request = Events { since, after, follow: args.follow, limit: None };
    let mut printer = Printer { out: Out::new(), last: after };
    if args.follow {
        follow(context, &request, &mut printer, !args.no_reconnect)?;
    } else {
        page_by_page(context, &request, &mut printer)?;
    }
    printer.out.finish()?;
    Ok(Exit::Done)
}

fn page_by_page(context: &Context, request: &Events, printer: &mut Printer) -> Result<(), CliError> {
    let mut door = context.door(Need::Queue)?;
    let mut next = Some(*request);
    while let Some(request) = next.take() {
        let mut any = false;
        door.stream(&request, |batch| {
            any |= !batch.events.is_empty();
            printer.print(&batch)
        })?;
        // Without a pool there is one page at a time.
        if any && matches!(door, Door::Queue(_)) {
            next = Some(printer.behind(&request));
        }
    }
    Ok(())
}

fn follow(context: &Context, request: &Events, printer: &mut Printer, reconnect: bool) -> Result<(), CliError> {
    let [shortest, longest] = PAUSES;
    let (mut pause, mut told) = (shortest, false);
    let mut door = context.door(Need::Pool)?;
    loop {
        let mut heard = false;
        let request = printer.behind(request);
        let streamed = door.stream(&request, |batch| {
            if told {
                eprintln!("acode: connected again");
            }
            (told, heard) = (false, true);
            printer.print(&batch)
        });
        match streamed {
            Ok(()) => return Ok(()),
            Err(error) if !(reconnect && comes_back(&error)) => return Err(error),
            Err(error) if heard || !told => eprintln!("acode: {error}: waiting for the pool, to go on from there"),
            // A pool that is there and cannot answer yet is not complained about at every try.
            Err(_) => {}
        }
        told = true;
        if heard {
            pause = shortest;
        }
        door = loop {
            sleep(pause);
            pause = (pause * 2).min(longest);
            match context.door(Need::Pool) {
                Err(error) if comes_back(&error) => {}
                opened => break opened?,
            }
        };
    }
}

/// Whether the same may go well a little later.
fn comes_back(error: &CliError) -> bool {
    let CliError::Api(ApiError::Client(error)) = error else {
        return matches!(error, CliError::Api(ApiError::NotRunning));
    };
    match error {
        ClientError::NotRunning { .. } | ClientError::Io(_) | ClientError::HungUp => true,
        ClientError::Call(error) => matches!(
            error,
            CallError::SlowReader { .. }
                | CallError::Busy { .. }
                | CallError::Draining
                | CallError::QueueUnavailable { .. }
        ),
        ClientError::Connect { .. }
        | ClientError::TooLarge(_)
        | ClientError::NotAReply(_)
        | ClientError::Unfinished => false,
    }
}
