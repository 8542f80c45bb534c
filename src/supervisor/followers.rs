//! Calls of `Events` that go on: each gets what was committed, from where it is, as fast as it takes it and no faster.
//!
//! Followers at the same place share the reading and the writing down of what comes next, so ten of them cost hardly more
//! than one. One that takes nothing for too long is cut off; the pool waits for none of them. Deliberately absent: the
//! numbers themselves, which are the store's.

use super::Supervisor;
use super::clients::ClientId;
use crate::requests;
use crate::store::StoreError;
use crate::wire::{CallError, Outbox};

/// The most events of one reply.
const EVENTS_PAGE: usize = 500;
/// The most replies for one follower before everything else gets its turn.
const PAGES_PER_TURN: usize = 8;
/// How long a client that is cut off has to take the error that says so, in nanoseconds.
const FAREWELL_NS: u64 = 1_000_000_000;

/// One call of `Events`.
#[derive(Debug)]
pub struct Follower {
    /// Who follows.
    pub client: ClientId,
    /// The last event that was sent.
    pub after: u64,
    /// Whether it goes on when all are sent.
    pub follow: bool,
}

/// What comes after a place, written down for all who are there.
struct Page {
    after: u64,
    /// The place behind it.
    next: u64,
    /// Whether there is nothing to tell.
    empty: bool,
    /// Whether nothing is behind it.
    last: bool,
    /// As a reply after which another one follows.
    message: Outbox,
}

/// What feeding one follower has come to.
enum Fed {
    /// It has had all that it wanted, or is cut off.
    Over,
    /// It has what there is.
    UpToDate,
    /// There is more, and it would take it.
    Hungry,
    /// There is more, and it takes nothing at present.
    Full,
}

impl Supervisor {
    /// Begins to follow events.
    pub(super) fn begin_following(&mut self, follower: Follower) {
        self.clients.hold(follower.client);
        self.streams.followers.push(follower);
        self.streams_dirty = true;
    }

    pub(super) fn feed_followers(&mut self) -> Result<(), StoreError> {
        let mut followers = std::mem::take(&mut self.streams.followers);
        let mut pages = Vec::new();
        let mut failed = None;
        self.streams.hungry = false;
        followers.retain_mut(|follower| {
            if failed.is_some() {
                return true;
            }
            match self.feed_follower(follower, &mut pages) {
                Ok(Fed::Over) => false,
                Ok(Fed::UpToDate) => true,
                Ok(Fed::Hungry) => {
                    self.streams.hungry = true;
                    true
                }
                Ok(Fed::Full) => {
                    // The rest when the client has read something, which the look that time brings about finds out.
                    self.streams_dirty = true;
                    true
                }
                // It is fed when the queue can be read again, if that helps.
                Err(error) => {
                    failed = self.end_call(follower.client, error).err();
                    failed.is_some()
                }
            }
        });
        self.streams.followers = followers;
        failed.map_or(Ok(()), Err)
    }

    /// Sends one follower what is new.
    fn feed_follower(&mut self, follower: &mut Follower, pages: &mut Vec<Page>) -> Result<Fed, StoreError> {
        for _ in 0..PAGES_PER_TURN {
            if !self.clients.has_room(follower.client) {
                return Ok(if self.cut_off_if_slow(follower) { Fed::Over } else { Fed::Full });
            }
            let at = match pages.iter().position(|page| page.after == follower.after) {
                Some(at) => at,
                None => {
                    pages.push(self.page(follower.after)?);
                    pages.len() - 1
                }
            };
            let page = &pages[at];
            if !page.empty {
                self.clients.reply_encoded(follower.client, &page.message);
            }
            follower.after = page.next;
            if page.last {
                if follower.follow {
                    return Ok(Fed::UpToDate);
                }
                if !self.clients.has_room(follower.client) {
                    // What fills its outbox has no last word behind it yet: that comes when there is room for it.
                    return Ok(Fed::Full);
                }
                self.clients.reply(follower.client, &crate::wire::reply::EventBatch::default(), false);
                return Ok(Fed::Over);
            }
        }
        Ok(Fed::Hungry)
    }

    fn page(&self, after: u64) -> Result<Page, StoreError> {
        let (batch, next) = requests::events_page(&*self.store, after, EVENTS_PAGE)?;
        let mut message = Outbox::new();
        // An empty outbox takes one message of any size.
        let _ = message.reply(&batch, true);
        let empty = batch.events.is_empty() && batch.missed == 0;
        Ok(Page { after, next, empty, last: batch.events.len() < EVENTS_PAGE, message })
    }

    /// Cuts off a follower that has taken nothing for too long although more than enough waits for it.
    fn cut_off_if_slow(&mut self, follower: &Follower) -> bool {
        let patience_ns = u64::try_from(self.config.control.slow_reader.as_nanos()).unwrap_or(u64::MAX);
        let stuck = self.clients.stuck_since_ns(follower.client).map(|since| self.now_ns.saturating_sub(since));
        if !follower.follow || stuck.is_none_or(|stuck_ns| stuck_ns < patience_ns) {
            return false;
        }
        let (after, missed) = (follower.after, self.store.last_event().saturating_sub(follower.after));
        tracing::warn!(after, missed, "a follower of events takes nothing: cut off");
        let error = CallError::SlowReader { after, missed };
        self.clients.cut_off(follower.client, &error, self.now_ns.saturating_add(FAREWELL_NS));
        true
    }
}
