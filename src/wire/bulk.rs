//! Bulk submission: any number of entries through one connection, in bounded memory, several calls under way at once.
//!
//! Each call is all or nothing; the whole is not. Entries are written straight into the call's bytes, so that nothing
//! but those bytes is held. Deliberately absent: reading task files, which is `cli`'s part.

use std::collections::VecDeque;

use acode_worker::task::{Blocker, Submission, TaskId};

use super::request::Submit;
use super::{CallError, Client, ClientError, Method};

/// Entries of one call. Large enough that a commit is shared by many, small enough that the queue answers others
/// between two calls.
const BATCH_ENTRIES: usize = 1_000;
/// Bytes of one call after which no entry is added.
const BATCH_BYTES: usize = 256 << 10;
/// The most entries whose ids have not come back. Their replies, 29 bytes each, fit into the socket's own buffer, so
/// the server can always be rid of them while we only write: the two cannot wait for each other.
const WINDOW: usize = 4 * BATCH_ENTRIES;

/// A bulk submission under way; [`Bulk::finish`] ends it.
pub struct Bulk<'c, F> {
    client: &'c mut Client,
    sink: F,
    /// The call that is being written.
    call: Vec<u8>,
    entries: usize,
    /// Entries of each call whose reply has not come, oldest first.
    waiting: VecDeque<usize>,
    in_flight: usize,
    /// Entries pushed so far.
    pushed: usize,
    /// All ids so far, kept only if entries may name earlier ones.
    known: Option<Vec<TaskId>>,
}

impl<'c, F: FnMut(&[TaskId])> Bulk<'c, F> {
    /// Begins. `sink` is given the ids of accepted entries in their order, as they are acknowledged. With `linked`,
    /// entries may depend on earlier ones by their place in the whole submission, at 16 bytes of memory for each entry.
    pub fn new(client: &'c mut Client, linked: bool, sink: F) -> Self {
        let (call, waiting) = (Vec::new(), VecDeque::new());
        let known = linked.then(Vec::new);
        Self { client, sink, call, entries: 0, waiting, in_flight: 0, pushed: 0, known }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The connection broke, or a call was refused; then nothing more may be pushed, and [`Bulk::finish`] tells what
    /// became of the rest.
    pub fn push(&mut self, submission: &Submission) -> Result<(), ClientError> {
        // Most entries depend on nothing: only those that do are copied, to have their places turned.
        let linked = (!submission.dependencies.is_empty()).then(|| self.link(submission.clone())).transpose()?;
        if self.call.is_empty() {
            self.call.extend_from_slice(b"{\"method\":\"");
            self.call.extend_from_slice(Submit::NAME.as_bytes());
            self.call.extend_from_slice(b"\",\"parameters\":{\"tasks\":[");
        } else {
            self.call.push(b',');
        }
        serde_json::to_writer(&mut self.call, linked.as_ref().unwrap_or(submission))?;
        self.entries += 1;
        self.pushed += 1;
        if self.entries == BATCH_ENTRIES || self.call.len() >= BATCH_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Sends what is left and waits for the remaining replies. Gives the number of entries pushed.
    ///
    /// # Errors
    /// The connection broke, or a call was refused. The ids of calls that were accepted have been given out even so.
    pub fn finish(mut self) -> Result<usize, ClientError> {
        let mut first = self.send().err();
        while !self.waiting.is_empty() {
            match self.collect() {
                Ok(()) => {}
                // The other calls under way were refused or accepted by themselves.
                Err(error @ ClientError::Call(_)) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(first.unwrap_or(error)),
            }
        }
        first.map_or(Ok(self.pushed), Err)
    }

    fn send(&mut self) -> Result<(), ClientError> {
        if self.entries == 0 {
            return Ok(());
        }
        self.call.extend_from_slice(b"]}}\0");
        self.client.queue_encoded(&self.call);
        self.call.clear();
        self.waiting.push_back(self.entries);
        self.in_flight += self.entries;
        self.entries = 0;
        self.client.flush()?;
        while self.in_flight > WINDOW - BATCH_ENTRIES {
            self.collect()?;
        }
        Ok(())
    }

    /// Takes the reply to the oldest call under way.
    fn collect(&mut self) -> Result<(), ClientError> {
        let Some(entries) = self.waiting.pop_front() else { return Ok(()) };
        self.in_flight -= entries;
        let reply = self.client.receive::<Submit>()?;
        if let Some(known) = &mut self.known {
            known.extend_from_slice(&reply.ids);
        }
        (self.sink)(&reply.ids);
        Ok(())
    }

    /// Turns places in the whole submission into places in this call, or into ids.
    fn link(&mut self, mut submission: Submission) -> Result<Submission, ClientError> {
        for dependency in &mut submission.dependencies {
            let Blocker::Entry(place) = dependency.on else { continue };
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let first_here = self.pushed - self.entries;
            if place >= first_here {
                // A place that is not earlier than this one is wrong in any numbering; the server says so.
                dependency.on = Blocker::Entry(u32::try_from(place - first_here).unwrap_or(u32::MAX));
                continue;
            }
            while self.known.as_ref().is_some_and(|known| known.len() <= place) && !self.waiting.is_empty() {
                self.collect()?;
            }
            let id = self.known.as_ref().and_then(|known| known.get(place)).copied();
            let reason = || format!("it waits for entry {}, whose id was not kept", place + 1);
            let entry = u32::try_from(self.pushed).ok();
            dependency.on = Blocker::Id(id.ok_or_else(|| CallError::InvalidSubmission { entry, reason: reason() })?);
        }
        Ok(submission)
    }
}
