//! A container while its attempt runs: whether it has begun, and how it is asked to end, killed, suspended, warned.
//!
//! The client that runs it is the attempt's leader; a signal to the client would leave the container alone in the world. So
//! everything that the task is to feel goes through the engine, by errands that nobody waits for. When the engine does not
//! follow within its time the container is killed by its cgroup, and at last the client. Deliberately absent: what becomes
//! of it when the client is dead (`conclude`).

use super::super::process::Tools;
use super::errand::Errands;
use super::marks::Mark;
use super::meter::Meter;
use super::name::Client;
use crate::output::Stream;
use crate::sys::process;
use crate::sys::tree::{self, Ended};

/// The time between two looks for the container, in nanoseconds: short enough for what ends at once.
const LOOK_NS: u64 = 10_000_000;
/// The same when it has not been seen for long: an image is pulled, or the engine is slow.
const LOOK_LATE_NS: u64 = 100_000_000;
/// How long that is.
const LATE_NS: u64 = 3_000_000_000;
/// How long a container may be there and not be seen before the engine is asked, where others were seen, in nanoseconds.
const ASK_NS: u64 = 500_000_000;
/// The time between two such questions, which doubles with each.
const ASK_PAUSE_NS: u64 = 50_000_000;
/// The longest time between two.
const ASK_MAX_NS: u64 = 2_000_000_000;
/// How long the client may outlive its container that was killed behind the engine's back, in nanoseconds.
const CLIENT_NS: u64 = 2_000_000_000;
/// How long podman may take to tidy up after a container that has ended, in nanoseconds.
const KEEPER_NS: u64 = 5_000_000_000;
/// What does so: the container's keeper, and the client that the keeper starts when the container has ended.
const KEEPERS: [&str; 2] = ["conmon", "podman"];
/// The most of the end of the client's standard error that is kept, in bytes.
const WORDS_MAX: usize = 4096;

/// A container and its client.
#[derive(Debug)]
pub struct Container {
    pub(super) mark: Mark,
    pub(super) meter: Meter,
    errands: Errands,
    client: Client,
    /// Until when what a dead client has left may end by itself.
    rest_until_ns: Option<u64>,
    /// Milliseconds that a call may take which should return at once.
    limit_ms: u64,
    grace_ms: u64,
    birth: Birth,
    began_ns: u64,
    look_ns: u64,
    /// When it was first asked to be killed.
    killed_ns: Option<u64>,
    asked_to_end: bool,
    paused: bool,
    words: Vec<u8>,
    /// Something was said since the container was made.
    spoken: bool,
    /// When the engine is asked whether it runs, once it is there.
    ask_ns: Option<u64>,
    ask_pause_ns: u64,
    /// Its cgroup is not found, and may be.
    seeks: bool,
    /// Where its cgroup was found.
    pub(super) cgroup_parent: Option<String>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Birth {
    /// Nothing is seen of it, and this is when something must be.
    Awaited { until_ns: u64 },
    /// Its processes run, or have run.
    Seen,
}

/// What a look at it has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing new.
    Nothing,
    /// It has begun to run.
    Begun,
    /// It should have begun by now.
    TooLate,
}

impl Container {
    /// The container of a client that was just started.
    pub fn new(tools: &Tools, mark: Mark, meter: Meter, grace_ms: u64, now_ns: u64) -> Self {
        let settings = &tools.settings.docker;
        let start_ns = settings.start_timeout_ms.saturating_mul(1_000_000);
        Self {
            mark,
            meter,
            errands: Errands::default(),
            client: Client::of(&settings.program),
            rest_until_ns: None,
            limit_ms: settings.call_timeout_ms,
            grace_ms,
            birth: Birth::Awaited { until_ns: now_ns.saturating_add(start_ns) },
            began_ns: now_ns,
            look_ns: now_ns.saturating_add(LOOK_NS),
            killed_ns: None,
            asked_to_end: false,
            paused: false,
            words: Vec::new(),
            spoken: false,
            ask_ns: None,
            ask_pause_ns: ASK_PAUSE_NS,
            seeks: true,
            cgroup_parent: None,
        }
    }

    /// Keeps the end of what the client says. What the task says by it is a sign of life.
    pub fn hear(&mut self, stream: Stream, said: &[u8]) {
        if self.birth != Birth::Seen && self.mark.container().is_some() {
            self.spoken = true;
        }
        if stream == Stream::Stdout {
            return;
        }
        self.words.extend_from_slice(said);
        let beyond = self.words.len().saturating_sub(WORDS_MAX);
        self.words.drain(..beyond);
    }

    /// The end of what the client and the task have said to standard error.
    pub(super) fn last_words(&self) -> &[u8] {
        &self.words
    }

    /// When it wants to be looked at.
    pub fn next_ns(&self, now_ns: u64) -> u64 {
        let errands = self.errands.next_ns(now_ns).unwrap_or(u64::MAX);
        let look_ns = if self.is_looked_for() { self.look_ns } else { u64::MAX };
        errands.min(self.meter.next_ns()).min(look_ns)
    }

    /// Whether it is not known to run, or not where: what has spoken at once may have been faster than the engine's word.
    fn is_looked_for(&self) -> bool {
        match self.birth {
            Birth::Awaited { .. } => true,
            Birth::Seen => self.seeks && !self.asked_to_end,
        }
    }

    /// Looks at what is due.
    pub fn look(&mut self, tools: &Tools, now_ns: u64) -> Found {
        self.errands.tend(tools, now_ns);
        self.meter.look(tools, now_ns);
        if now_ns < self.look_ns || !self.is_looked_for() {
            return Found::Nothing;
        }
        let is_late = now_ns.saturating_sub(self.began_ns) > LATE_NS;
        self.look_ns = now_ns.saturating_add(if is_late { LOOK_LATE_NS } else { LOOK_NS });
        let is_seen = self.is_seen(tools, now_ns);
        match self.birth {
            Birth::Awaited { .. } if is_seen => {
                self.birth = Birth::Seen;
                // The engine was asked too early, and now it knows.
                (self.ask_ns, self.ask_pause_ns) = (Some(now_ns), ASK_PAUSE_NS);
                self.meter.look(tools, now_ns);
                if self.paused {
                    self.pause(tools, true);
                }
                Found::Begun
            }
            Birth::Awaited { until_ns } if now_ns >= until_ns => Found::TooLate,
            Birth::Awaited { .. } => Found::Nothing,
            Birth::Seen => {
                // An engine that has not answered for so long is not asked for ever.
                self.seeks &= self.ask_pause_ns < ASK_MAX_NS || !self.errands.are_done();
                Found::Nothing
            }
        }
    }

    /// Whether the container is seen to run: by its cgroup, by what it says, or because the engine says so, who is asked
    /// when the cgroup is in no place that is known.
    fn is_seen(&mut self, tools: &Tools, now_ns: u64) -> bool {
        let Some(id) = self.mark.container() else { return false };
        if self.meter.finds(&id, &tools.containers.cgroup_parent) {
            self.seeks = false;
            return true;
        }
        let answer = self.errands.take_answer();
        if let Some(pid) = answer.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0) {
            self.cgroup_parent = self.meter.find_by_process(&id, pid);
            self.seeks = false;
            return true;
        }
        let first_ns = if tools.containers.sees_cgroups { ASK_NS } else { 0 };
        let ask_ns = *self.ask_ns.get_or_insert_with(|| now_ns.saturating_add(first_ns));
        if now_ns >= ask_ns && self.errands.are_done() {
            self.ask_ns = Some(now_ns.saturating_add(self.ask_pause_ns));
            self.ask_pause_ns = self.ask_pause_ns.saturating_mul(2).min(ASK_MAX_NS);
            self.errands.ask(tools, ["inspect", "--format", "{{.State.Pid}}", &id], self.limit_ms);
        }
        self.spoken
    }

    /// Asks it to end, and has the engine kill it after the grace. False if there is nothing to ask yet.
    pub fn ask_to_end(&mut self, tools: &Tools) -> bool {
        let Some(id) = self.mark.container() else { return false };
        self.asked_to_end = true;
        let seconds = self.grace_seconds();
        let limit_ms = self.limit_ms.saturating_add(seconds.saturating_mul(1_000));
        self.errands.send(tools, ["stop", "-t", &seconds.to_string(), &id], limit_ms);
        true
    }

    /// Kills it: by the engine first, then by its cgroup, and at last its client. To be repeated until nothing is left.
    /// `client` is how the client has ended, if it has.
    pub fn kill(&mut self, tools: &Tools, client: Option<Ended>, now_ns: u64) {
        if let Some(client) = client {
            return self.kill_rest(tools, client, now_ns);
        }
        let Some(id) = self.mark.container() else { return tree::kill_all(tools.leaf()) };
        let limit_ns = self.limit_ms.saturating_mul(1_000_000);
        let since_ns = *self.killed_ns.get_or_insert_with(|| {
            self.errands.give_up();
            if self.paused {
                self.errands.send(tools, ["unpause", &id], self.limit_ms);
            }
            self.errands.send(tools, ["kill", &id], self.limit_ms);
            now_ns
        });
        self.asked_to_end = true;
        let passed_ns = now_ns.saturating_sub(since_ns);
        // An errand that is done and has had no effect: it found the container not running yet, or gone.
        let is_in_vain = self.errands.are_done() && passed_ns > CLIENT_NS;
        if passed_ns > limit_ns || is_in_vain {
            self.meter.kill();
        }
        if passed_ns > limit_ns.saturating_add(CLIENT_NS) || is_in_vain {
            tree::kill_all(tools.leaf());
        }
    }

    /// Ends what a dead client has left behind. Beside errands that is nothing of docker's, whose engine has the
    /// containers. Podman has no engine: each container has a keeper, which falls to us with the client's end, and the
    /// container with it. It writes down how the container ended, and sees to it that it is tidied up.
    fn kill_rest(&mut self, tools: &Tools, client: Ended, now_ns: u64) {
        let until_ns = match (self.rest_until_ns, self.client, client) {
            (Some(until_ns), _, _) => until_ns,
            (None, Client::Docker, _) => now_ns,
            // One that was killed has left a container that runs.
            (None, Client::Podman, Ended::Signalled { .. }) if !self.asked_to_end => {
                if self.paused {
                    self.pause(tools, false);
                }
                let limit_ms = self.limit_ms.saturating_add(self.grace_seconds().saturating_mul(1_000));
                let is_asked = self.ask_to_end(tools);
                if is_asked { now_ns.saturating_add(limit_ms.saturating_mul(1_000_000)) } else { now_ns }
            }
            (None, Client::Podman, Ended::Signalled { .. } | Ended::Exited(_)) => now_ns.saturating_add(KEEPER_NS),
        };
        self.rest_until_ns = Some(until_ns);
        if now_ns >= until_ns || !keeper_lives() {
            tree::kill_all(tools.leaf());
        }
    }

    /// Sends it a signal.
    pub fn signal(&mut self, tools: &Tools, signal: i32) {
        if let Some(id) = self.mark.container() {
            self.errands.send(tools, ["kill", "--signal", &signal.to_string(), &id], self.limit_ms);
        }
    }

    /// Stops it where it is, or lets it go on; one that does not run yet, when it does.
    pub fn pause(&mut self, tools: &Tools, paused: bool) {
        self.paused = paused;
        if let Some(id) = self.mark.container().filter(|_| self.birth == Birth::Seen) {
            self.errands.send(tools, [if paused { "pause" } else { "unpause" }, &id], self.limit_ms);
        }
    }

    /// The grace in whole seconds, as the engine wants it.
    pub(super) fn grace_seconds(&self) -> u64 {
        self.grace_ms.div_ceil(1_000)
    }

    /// Whether it was asked to end, or killed.
    pub(super) fn was_asked_to_end(&self) -> bool {
        self.asked_to_end
    }
}

/// Whether a container of podman's is being looked after by one of our descendants.
fn keeper_lives() -> bool {
    let is_keeper = |pid: i32| process::name(pid).is_some_and(|name| KEEPERS.contains(&name.as_str()));
    tree::descendants().into_iter().any(is_keeper)
}
