//! Where an engine puts the cgroups of its containers, when that is none of the usual places: the engine is asked for the
//! first process of a container, and that one says where it is.
//!
//! A question is a call of the client, and costs more than all looks at a cgroup together. So it is put late, to give the
//! usual places their chance, again only while there is no answer, and not at all by a worker that has found a cgroup
//! before. Deliberately absent: what is made of the answer, which is the `meter`'s.

use super::super::process::Tools;
use super::errand::Errands;

/// How long the container has a name before the question is put, in nanoseconds: it is being started.
const FIRST_NS: u64 = 150_000_000;
/// The time between two questions; it doubles with each.
const AGAIN_NS: u64 = 200_000_000;
/// The most questions about one container.
const QUESTIONS_MAX: u32 = 6;
/// What is asked for: the pid on the host, 0 without one.
const QUESTION: [&str; 5] = ["inspect", "--type", "container", "--format", "{{.State.Pid}}"];

/// The search for one container.
#[derive(Debug)]
pub struct Whereabouts {
    /// When the next question is due; nothing before the container has a name.
    ask_ns: Option<u64>,
    look_ns: u64,
    asked: u32,
    settled: bool,
}

impl Whereabouts {
    /// Begins; `known` if no question is worth its price.
    pub fn new(known: bool) -> Self {
        Self { ask_ns: None, look_ns: 0, asked: 0, settled: known }
    }

    /// Whether there is nothing to be found out any more.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// There is nothing to be found out any more.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// There is nobody to be asked for yet.
    pub fn wait(&mut self, now_ns: u64) {
        self.look_ns = now_ns.saturating_add(FIRST_NS);
    }

    /// When it wants to be looked at.
    pub fn next_ns(&self) -> u64 {
        if self.settled { u64::MAX } else { self.look_ns }
    }

    /// Puts the question when it is time to; gives the pid when it is answered.
    pub fn look(&mut self, tools: &Tools, errands: &mut Errands, id: &str, limit_ms: u64, now_ns: u64) -> Option<i32> {
        if let Some(answer) = errands.take_answer() {
            let pid = answer.trim().parse().ok().filter(|pid| *pid > 0);
            self.settled = pid.is_none() && self.asked >= QUESTIONS_MAX;
            return pid;
        }
        let ask_ns = *self.ask_ns.get_or_insert(now_ns.saturating_add(FIRST_NS));
        self.look_ns = ask_ns;
        if now_ns >= ask_ns && self.asked < QUESTIONS_MAX && errands.are_done() {
            let [a, b, c, d, e] = QUESTION;
            errands.ask(tools, [a, b, c, d, e, id], limit_ms);
            let pause_ns = AGAIN_NS << self.asked;
            self.asked += 1;
            self.ask_ns = Some(now_ns.saturating_add(pause_ns));
        }
        // What is asked shows as an errand under way, which wakes the worker by itself.
        self.look_ns = self.ask_ns.unwrap_or(ask_ns).max(now_ns.saturating_add(AGAIN_NS / 10));
        None
    }
}
