//! Submitters that wait for room in the queue.
//!
//! From a share of the queue's limit on, the supervisor keeps `Submit` calls until the queue is below that share again
//! or the call's time is over. They are let in by their order of arrival; a client's later calls wait behind the one
//! that waits, so there are never more than connections. [`Fullness`] is the decision, pure; the rest are its hands.
//! Deliberately absent: what the machine lacks (`pressure`): that holds up tasks, not submitters.

use std::collections::VecDeque;

use acode_worker::task::{Array, Submission};

use super::Supervisor;
use super::clients::ClientId;
use crate::config;
use crate::requests::{self, RequestError};
use crate::store::EventKind;
use crate::wire::types::PauseRecord;
use crate::wire::{CallError, Stamp, request};

/// How far the queue is filled, and what that means for a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fullness {
    /// How many unfinished tasks it holds.
    pub queued: u64,
    /// From how many on submitters wait; never if that is `limit`.
    pub threshold: u64,
    /// How many it may hold.
    pub limit: u64,
}

/// What becomes of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is let in.
    LetIn,
    /// It may wait.
    Wait,
    /// It can never be let in, or nobody waits here.
    Refuse,
}

impl Fullness {
    /// Of a queue that is configured so and holds so many tasks.
    pub fn new(config: &config::Queue, queued: u64) -> Self {
        let limit = config.max_tasks;
        // Limits lie far below 2^53, so nothing is lost. At least one task can always be let in.
        let threshold = ((limit as f64 * config.backpressure_threshold).ceil() as u64).clamp(1, limit);
        // A limit so small that its share is all of it would switch the waiting off, which was not asked for.
        let threshold = if config.backpressure_threshold < 1.0 { threshold } else { u64::MAX };
        Self { queued, threshold, limit }
    }

    fn fits(&self, wanted: u64) -> bool {
        self.queued.saturating_add(wanted) <= self.limit
    }

    /// What becomes of a submission of so many tasks, in front of which nobody waits.
    pub fn fate(&self, wanted: u64) -> Fate {
        if wanted > self.limit {
            Fate::Refuse
        } else if self.queued < self.threshold && self.fits(wanted) {
            Fate::LetIn
        } else if self.threshold == u64::MAX {
            Fate::Refuse
        } else {
            Fate::Wait
        }
    }

    /// Whether there is backpressure now, if there was `before`. It ends a tenth below the threshold, so that a queue
    /// which is kept at the threshold is one episode.
    pub fn presses(&self, before: bool, anybody_waits: bool) -> bool {
        let ends_at = if self.threshold == u64::MAX { u64::MAX } else { self.threshold - self.threshold.div_ceil(10) };
        anybody_waits || self.queued >= self.threshold || (before && self.queued > ends_at)
    }

    fn refusal(&self, wanted: u64) -> CallError {
        // The limit that was met: of a submission that would have fitted that is the threshold.
        let limit = if self.fits(wanted) { self.threshold } else { self.limit };
        CallError::QueueFull { queued: self.queued, limit }
    }
}

/// A call that waits.
#[derive(Debug)]
struct Waiting {
    /// Whom to answer; nobody, for a call without an answer.
    client: ClientId,
    /// Whose later calls wait.
    connection: ClientId,
    tasks: Vec<Submission>,
    wanted: u64,
    /// When it has waited long enough, in nanoseconds of the monotonic clock.
    until_ns: u64,
}

/// All calls that wait, in their order of arrival, and since when there has been backpressure.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: VecDeque<Waiting>,
    episode: Option<Episode>,
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    since_us: u64,
    fullness: Fullness,
}

impl Backlog {
    /// When the first of the calls has waited long enough, in nanoseconds of the monotonic clock.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.until_ns).min()
    }

    /// Forgets the calls of a connection that is gone: it has submitted nothing.
    pub fn forget(&mut self, connection: ClientId) {
        self.waiting.retain(|waiting| waiting.connection != connection);
    }

    /// Why submitters wait, and since when.
    pub fn record(&self) -> Option<PauseRecord> {
        let Episode { since_us, fullness: Fullness { queued, limit, .. } } = self.episode?;
        let waiting = match self.waiting.len() {
            0 => String::new(),
            1 => ", and 1 submitter waits".to_owned(),
            more => format!(", and {more} submitters wait"),
        };
        let since = Stamp::from_micros(i64::try_from(since_us).unwrap_or(i64::MAX));
        Some(PauseRecord { why: format!("the queue holds {queued} of at most {limit} tasks{waiting}"), since })
    }
}

/// How many tasks a submission is. The sizes are the client's word, so their sum may be more than a number holds.
fn size(tasks: &[Submission]) -> u64 {
    tasks.iter().map(|entry| entry.array.as_ref().map_or(1, Array::len)).fold(0, u64::saturating_add)
}

impl Supervisor {
    fn fullness(&self) -> Fullness {
        Fullness::new(&self.config.queue, self.queued())
    }

    /// Gives the tasks of a submission back if they may be taken in now; else the call waits.
    ///
    /// # Errors
    /// The queue is full, and the call does not want to wait.
    pub(super) fn let_in(
        &mut self,
        client: ClientId,
        connection: ClientId,
        submit: request::Submit,
    ) -> Result<Option<Vec<Submission>>, RequestError> {
        let (wanted, fullness) = (size(&submit.tasks), self.fullness());
        let fate = match fullness.fate(wanted) {
            // Whoever came before comes first.
            Fate::LetIn if !self.backlog.waiting.is_empty() => Fate::Wait,
            fate => fate,
        };
        let patience_ns = match submit.wait_ms {
            Some(ms) => ms.saturating_mul(1_000_000),
            None => u64::try_from(self.config.queue.max_wait.as_nanos()).unwrap_or(u64::MAX),
        };
        match fate {
            Fate::LetIn => Ok(Some(submit.tasks)),
            Fate::Wait if patience_ns > 0 && self.backlog.waiting.len() >= self.waiting_max() => {
                let reason = format!("{} submitters wait for room in the queue already", self.backlog.waiting.len());
                Err(CallError::Busy { reason }.into())
            }
            Fate::Wait if patience_ns > 0 => {
                let until_ns = self.now_ns.saturating_add(patience_ns);
                self.clients.keep_waiting(connection);
                self.backlog.waiting.push_back(Waiting { client, connection, tasks: submit.tasks, wanted, until_ns });
                Ok(None)
            }
            Fate::Wait | Fate::Refuse => Err(fullness.refusal(wanted).into()),
        }
    }

    /// How many calls may wait: a quarter of the connections stays for those who make room, or want to know.
    fn waiting_max(&self) -> usize {
        let connections = self.config.control.max_connections as usize;
        (connections - connections / 4).max(1)
    }

    /// Lets in who may come in, refuses whose time is over, and tells when backpressure begins and ends.
    pub(super) fn serve_waiting(&mut self) {
        let mut ended = false;
        if self.broken.is_none() {
            while let Some(first) = self.backlog.waiting.front()
                && self.fullness().fate(first.wanted) == Fate::LetIn
                && let Some(waiting) = self.backlog.waiting.pop_front()
            {
                self.end_wait(waiting);
                ended = true;
            }
        }
        while let Some(place) = self.backlog.waiting.iter().position(|waiting| waiting.until_ns <= self.now_ns)
            && let Some(waiting) = self.backlog.waiting.remove(place)
        {
            self.end_wait(waiting);
            ended = true;
        }
        self.follow_fullness();
        if ended {
            // What was let in must be on disk before the lanes are read again, else nobody would look for it.
            self.commit_if_due();
        }
    }

    /// Takes a submission in that has waited, or refuses it.
    fn end_wait(&mut self, waiting: Waiting) {
        let Waiting { client, connection, tasks, wanted, .. } = waiting;
        if self.clients.is_gone(connection) {
            return;
        }
        let fullness = self.fullness();
        let taken = match self.writable() {
            Ok(()) if fullness.fits(wanted) => self.take_in(client, tasks),
            Ok(()) => Err(fullness.refusal(wanted).into()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = taken {
            let error = self.refusal(error);
            self.answer_error(client, &error);
        }
        self.clients.let_go(connection);
    }

    /// Refuses all that wait, because the pool is about to stop.
    pub(super) fn refuse_waiting(&mut self) {
        for Waiting { client, connection, .. } in std::mem::take(&mut self.backlog.waiting) {
            self.answer_error(client, &CallError::Draining);
            self.clients.let_go(connection);
        }
    }

    fn follow_fullness(&mut self) {
        let (fullness, before) = (self.fullness(), self.backlog.episode);
        if !fullness.presses(before.is_some(), !self.backlog.waiting.is_empty()) {
            if before.is_some() {
                self.backlog.episode = None;
                tracing::info!(queued = fullness.queued, "the queue has room again: submitters do not wait any more");
                self.tell_fullness(EventKind::BackpressureOff, fullness);
            }
            return;
        }
        let since_us = before.map_or_else(requests::now_us, |episode| episode.since_us);
        self.backlog.episode = Some(Episode { since_us, fullness });
        if before.is_none() {
            let Fullness { queued, limit, .. } = fullness;
            tracing::warn!(queued, limit, "the queue is nearly full: submitters wait");
            self.tell_fullness(EventKind::BackpressureOn, fullness);
        }
    }

    fn tell_fullness(&mut self, kind: EventKind, fullness: Fullness) {
        let limit = fullness.threshold.min(fullness.limit);
        self.tell_backpressure(kind, "queue", fullness.queued as f64, limit as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fullness(queued: u64, limit: u64, threshold: f64) -> Fullness {
        let config = config::Queue { max_tasks: limit, backpressure_threshold: threshold, ..config::Queue::default() };
        Fullness::new(&config, queued)
    }

    #[test]
    fn below_the_threshold_whatever_fits_is_let_in() {
        assert_eq!(fullness(0, 100, 0.9).fate(100), Fate::LetIn);
        assert_eq!(fullness(89, 100, 0.9).fate(11), Fate::LetIn);
        assert_eq!(fullness(89, 100, 0.9).fate(12), Fate::Wait);
        assert_eq!(fullness(90, 100, 0.9).fate(1), Fate::Wait);
        assert_eq!(fullness(0, 100, 0.9).fate(101), Fate::Refuse);
    }

    #[test]
    fn a_threshold_of_one_lets_nobody_wait() {
        assert_eq!(fullness(99, 100, 1.0).fate(1), Fate::LetIn);
        assert_eq!(fullness(100, 100, 1.0).fate(1), Fate::Refuse);
        assert!(!fullness(100, 100, 1.0).presses(true, false));
    }

    #[test]
    fn a_tiny_queue_takes_one_task_and_makes_the_next_wait() {
        for limit in 1..10 {
            assert_eq!(fullness(0, limit, 0.01).fate(1), Fate::LetIn, "{limit}");
            assert_eq!(fullness(limit, limit, 0.9).fate(1), Fate::Wait, "{limit}");
            assert!(fullness(limit, limit, 0.9).presses(false, false));
            assert!(!fullness(0, limit, 0.9).presses(true, false));
        }
    }

    #[test]
    fn an_episode_ends_a_tenth_below_the_threshold_and_not_before_the_last_has_been_let_in() {
        let before = |queued| fullness(queued, 1_000, 0.9).presses(true, false);
        assert_eq!((before(811), before(810)), (true, false));
        assert!(!fullness(899, 1_000, 0.9).presses(false, false));
        assert!(fullness(900, 1_000, 0.9).presses(false, false));
        assert!(fullness(10, 1_000, 0.9).presses(true, true));
    }

    #[test]
    fn a_refusal_names_the_limit_that_was_met() {
        let full = |wanted| fullness(95, 100, 0.9).refusal(wanted);
        assert_eq!(full(5), CallError::QueueFull { queued: 95, limit: 90 });
        assert_eq!(full(6), CallError::QueueFull { queued: 95, limit: 100 });
    }
}
