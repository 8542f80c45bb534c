//! Bulk submission: any number of entries through one connection, in bounded memory, several calls under way at once.
//!
//! Each call is all or nothing; the whole is not. Entries are written straight into the call's bytes, so that nothing
//! but those bytes is held. Deliberately absent: reading task files, which is `cli`'s part.

use std::collections::VecDeque;
use std::io::ErrorKind;

use acode_worker::task::{Array, Blocker, Submission, TaskId};

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

/// How a bulk submission meets a queue that is nearly full.
pub struct Slowness<'c> {
    /// Milliseconds that each call waits for room; the pool's bound if absent.
    pub wait_ms: Option<u64>,
    /// The most tasks of one call, members of arrays counted one by one: so few that a queue which takes any takes
    /// these. A larger array is a call of its own.
    pub tasks_max: u64,
    /// Asked whenever nothing has moved for the connection's patience: whether to go on waiting.
    pub go_on: Box<dyn FnMut() -> Result<(), ClientError> + 'c>,
}

impl Default for Slowness<'_> {
    fn default() -> Self {
        Self { wait_ms: None, tasks_max: u64::MAX, go_on: Box::new(|| Ok(())) }
    }
}

/// A bulk submission under way; [`Bulk::finish`] ends it.
pub struct Bulk<'c, F> {
    client: &'c mut Client,
    sink: F,
    slowness: Slowness<'c>,
    /// There was no hope any more: what was not answered is not waited for.
    gave_up: bool,
    /// The call that is being written.
    call: Vec<u8>,
    entries: usize,
    /// Its tasks, members of arrays counted one by one.
    tasks: u64,
    /// Entries of each call whose reply has not come, oldest first.
    waiting: VecDeque<usize>,
    in_flight: usize,
    /// Entries pushed so far.
    pushed: usize,
    /// Entries of the calls that were answered.
    answered: usize,
    /// All ids so far, kept only if entries may name earlier ones.
    known: Option<Vec<TaskId>>,
}

impl<'c, F: FnMut(&[TaskId])> Bulk<'c, F> {
    /// Begins. `sink` is given the ids of accepted entries in their order, as they are acknowledged. With `linked`,
    /// entries may depend on earlier ones by their place in the whole submission, at 16 bytes of memory for each entry.
    pub fn new(client: &'c mut Client, linked: bool, sink: F) -> Self {
        let (call, waiting) = (Vec::new(), VecDeque::new());
        let known = linked.then(Vec::new);
        let slowness = Slowness::default();
        Self {
            client,
            sink,
            slowness,
            gave_up: false,
            call,
            entries: 0,
            tasks: 0,
            waiting,
            in_flight: 0,
            pushed: 0,
            answered: 0,
            known,
        }
    }

    /// Meets a queue that is nearly full like this.
    #[must_use]
    pub fn slowed(mut self, slowness: Slowness<'c>) -> Self {
        self.slowness = slowness;
        self
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The connection broke, or a call was refused; then nothing more may be pushed, and [`Bulk::finish`] tells what
    /// became of the rest.
    pub fn push(&mut self, submission: &Submission) -> Result<(), ClientError> {
        let size = submission.array.as_ref().map_or(1, Array::len);
        if self.entries > 0 && self.tasks.saturating_add(size) > self.slowness.tasks_max {
            self.send()?;
        }
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
        self.tasks = self.tasks.saturating_add(size);
        self.pushed += 1;
        if self.entries == BATCH_ENTRIES || self.call.len() >= BATCH_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Sends what is left and waits for the remaining replies. Gives the number of entries pushed.
    ///
    /// # Errors
    /// The connection broke, or a call was refused, or [`Slowness::go_on`] said no: then the client must be dropped, so
    /// that what waits is not accepted after all. The ids of calls that were accepted have been given out even so.
    pub fn finish(mut self) -> Result<usize, ClientError> {
        if self.gave_up {
            return Err(ClientError::Unfinished);
        }
        let mut first = self.send().err();
        while !self.waiting.is_empty() && !self.gave_up {
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
        self.call.push(b']');
        if let Some(ms) = self.slowness.wait_ms {
            self.call.extend_from_slice(b",\"wait_ms\":");
            self.call.extend_from_slice(ms.to_string().as_bytes());
        }
        self.call.extend_from_slice(b"}}\0");
        self.client.queue_encoded(&self.call);
        self.call.clear();
        self.waiting.push_back(self.entries);
        self.in_flight += self.entries;
        (self.entries, self.tasks) = (0, 0);
        self.patiently(Client::flush)?;
        while self.in_flight > WINDOW - BATCH_ENTRIES {
            self.collect()?;
        }
        Ok(())
    }

    /// Takes the reply to the oldest call under way.
    fn collect(&mut self) -> Result<(), ClientError> {
        let Some(entries) = self.waiting.pop_front() else { return Ok(()) };
        self.in_flight -= entries;
        let before = self.answered;
        self.answered += entries;
        let reply = self.patiently(Client::receive::<Submit>).map_err(|error| match error {
            ClientError::Call(error) => ClientError::Call(error.behind(before)),
            other => other,
        })?;
        if let Some(known) = &mut self.known {
            known.extend_from_slice(&reply.ids);
        }
        (self.sink)(&reply.ids);
        Ok(())
    }

    /// Repeats what gave up for want of progress, for as long as there is hope.
    fn patiently<T>(&mut self, act: fn(&mut Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
        loop {
            match act(self.client) {
                Err(ClientError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    let hope = (self.slowness.go_on)();
                    self.gave_up |= hope.is_err();
                    hope?;
                }
                done => return done,
            }
        }
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
