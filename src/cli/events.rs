//! `acode events`: what happened, as JSON Lines.

use super::args::EventsArgs;
use super::door::{Door, Need};
use super::render::Out;
use super::{CliError, Context, Exit};
use crate::wire::request::Events;

/// Prints events, and goes on if asked to until it is interrupted or the pool stops.
///
/// # Errors
/// There is no queue to ask, or the connection broke.
pub fn run(context: &Context, args: &EventsArgs) -> Result<Exit, CliError> {
    let mut door = Door::open(context, if args.follow { Need::Pool } else { Need::Queue })?;
    let mut out = Out::new();
    let request = Events { since: args.since, after: None, follow: args.follow, limit: None };
    let mut next = Some(request);
    while let Some(request) = next.take() {
        let mut last = None;
        door.stream(&request, |batch| {
            last = batch.events.last().map(|event| event.seq).or(last);
            batch.events.iter().try_for_each(|event| out.json_line(event))?;
            out.flush()
        })?;
        // Without a pool there is one page at a time.
        if matches!(door, Door::Queue(_)) {
            next = last.map(|last| Events { after: Some(last), ..request });
        }
    }
    out.finish()?;
    Ok(Exit::Done)
}
