//! The removal of containers: before an attempt, after it, and of those whose workers are no more.
//!
//! Every container of this queue carries its labels, and only by them, or by the id in a mark, is anything removed here.
//! A container that has ended waits until there are several, or until the worker has nothing else to do; one whose
//! attempt did not succeed waits no longer than to the next claim, because its task may come again. Whatever cannot be
//! removed keeps its mark. Deliberately absent: ending what runs, which is `conclude`'s.

use super::super::process::Tools;
use super::engine::{CallError, call};
use super::marks;
use super::name::Client;
use crate::failpoint;
use crate::sys::clock;
use crate::task::{Isolation, TaskId, WorkerId};

/// So many ended containers are removed at once, whatever else there is to do.
const BATCH: usize = 16;
/// The most that a worker remembers. What is beyond is found by its label when the worker has left.
const REMEMBERED_MAX: usize = 1_024;
/// How long a removal that failed is left alone, in nanoseconds.
const PAUSE_NS: u64 = 2_000_000_000;
/// How long an idle worker leaves alone what has ended, in nanoseconds: the next task may come just now, and would wait.
const IDLE_NS: u64 = 1_000_000_000;
/// The most containers, and the most marks, that one sweep looks at. What is beyond is for the next one.
const SWEEP_MAX: usize = 512;
/// The length of a full container id.
const ID_LENGTH: usize = 64;

/// When containers are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the next claim.
    Claiming,
    /// There is nothing to claim.
    Idle,
    /// The worker leaves.
    Leaving,
}

/// The containers of this worker that have ended, or should have, and are still there.
#[derive(Debug, Default)]
pub struct Ended {
    waiting: Vec<Left>,
    urgent: bool,
    not_before_ns: u64,
    /// When an idle worker removes them.
    idle_at_ns: u64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    task: TaskId,
    /// Its id; nothing if there may be one that nobody was told of.
    container: Option<String>,
}

impl Ended {
    /// Notes one; `urgent` if its task may come again.
    pub fn note(&mut self, task: TaskId, container: String, urgent: bool) {
        self.add(Left { task, container: Some(container) });
        self.urgent |= urgent;
    }

    /// Notes one that could not be removed now.
    pub fn note_stubborn(&mut self, task: TaskId, container: Option<String>) {
        self.add(Left { task, container });
        (self.urgent, self.not_before_ns) = (true, clock::monotonic_ns().saturating_add(PAUSE_NS));
    }

    fn add(&mut self, left: Left) {
        if self.waiting.len() < REMEMBERED_MAX {
            self.waiting.push(left);
        }
        self.idle_at_ns = clock::monotonic_ns().saturating_add(IDLE_NS);
    }

    /// For how long at the most an idle worker may sleep, in milliseconds.
    pub fn nap_ms(&self, now_ns: u64) -> Option<u64> {
        let at_ns = self.not_before_ns.max(self.idle_at_ns);
        (!self.waiting.is_empty()).then(|| at_ns.saturating_sub(now_ns).div_ceil(1_000_000).max(1))
    }

    fn is_due(&self, moment: Moment, now_ns: u64) -> bool {
        let due = match moment {
            Moment::Claiming => self.urgent || self.waiting.len() >= BATCH,
            Moment::Idle => now_ns >= self.idle_at_ns,
            Moment::Leaving => true,
        };
        due && !self.waiting.is_empty() && (now_ns >= self.not_before_ns || moment == Moment::Leaving)
    }
}

/// Removes the containers that have ended, if it is time to, and the engine is there to do it.
pub fn remove_ended(tools: &mut Tools, moment: Moment) {
    while !tools.containers.ended.waiting.is_empty()
        && tools.containers.availability.is_up()
        && tools.containers.ended.is_due(moment, clock::monotonic_ns())
    {
        let ended = &mut tools.containers.ended;
        let count = ended.waiting.len().min(BATCH);
        let batch: Vec<_> = ended.waiting.drain(..count).collect();
        failpoint!("docker.before-remove");
        let left = remove_marked(tools, batch);
        let ended = &mut tools.containers.ended;
        ended.urgent &= !ended.waiting.is_empty() || !left.is_empty();
        if !left.is_empty() {
            ended.waiting.extend(left);
            ended.not_before_ns = clock::monotonic_ns().saturating_add(PAUSE_NS);
            return;
        }
    }
}

/// Removes these containers with their marks; gives back those that could not be removed.
fn remove_marked(tools: &mut Tools, batch: Vec<Left>) -> Vec<Left> {
    let ids: Vec<&str> = batch.iter().filter_map(|left| left.container.as_deref()).collect();
    let all_gone = if ids.is_empty() { Ok(()) } else { remove(tools, &ids) };
    // With one that will not go, each by itself; without any answer, none.
    let hopeless = matches!(all_gone, Err(CallError::TimedOut { .. } | CallError::NotRun { .. }));
    if let Err(error) = &all_gone
        && hopeless
    {
        let why = error.to_string();
        tools.containers.availability.call_failed(&why);
        return batch;
    }
    let mut left = Vec::new();
    for one in batch {
        let is_gone = match &one.container {
            Some(id) => all_gone.is_ok() || remove(tools, &[id]).is_ok(),
            None => remove_own(tools, one.task).is_ok(),
        };
        if is_gone {
            failpoint!("docker.after-remove");
            marks::remove(&tools.settings.docker.folder, one.task, one.container.as_deref());
        } else {
            left.push(one);
        }
    }
    left
}

/// Removes what this worker itself has made for a task, which it does not run now. Others may.
fn remove_own(tools: &mut Tools, task: TaskId) -> Result<(), CallError> {
    let found = list(tools, Some(task))?;
    let is_own = |one: &&Found| one.worker.is_some_and(|worker| worker.to_string() == tools.facts.id);
    let own: Vec<String> = found.containers.iter().filter(is_own).map(|one| one.id.clone()).collect();
    own.iter().try_for_each(|id| remove(tools, &[id]))
}

/// Removes these containers, running or not, with the volumes that are theirs alone. One that is gone is as good.
///
/// # Errors
/// Of several, the first that could not be removed; the others may be gone.
pub fn remove(tools: &mut Tools, ids: &[&str]) -> Result<(), CallError> {
    // Podman would give what runs its time to end first, one after the other.
    let at_once: &[&str] = match Client::of(&tools.settings.docker.program) {
        Client::Docker => &[],
        Client::Podman => &["--time=0"],
    };
    let words = ["rm", "--force", "--volumes"].into_iter().chain(at_once.iter().copied());
    let arguments: Vec<&str> = words.chain(ids.iter().copied()).collect();
    let limit_ms = tools.settings.docker.call_timeout_ms;
    let mut told = call(tools, &arguments, limit_ms);
    if told.as_ref().is_err_and(CallError::means_unreaped) {
        told = call(tools, &arguments, limit_ms);
    }
    match told {
        Err(error) if ids.len() == 1 && error.means_gone() => Ok(()),
        told => told.map(drop),
    }
}

/// Sees to it that no container of an earlier attempt of this task is left, if there is a mark of one.
///
/// # Errors
/// Why that is not known, or not so.
pub fn clear(tools: &mut Tools, task: TaskId) -> Result<(), CallError> {
    if !marks::exists(&tools.settings.docker.folder, task) {
        return Ok(());
    }
    remove_of_task(tools, task)?;
    marks::remove(&tools.settings.docker.folder, task, None);
    tools.containers.ended.waiting.retain(|left| left.task != task);
    Ok(())
}

/// Removes all containers of a task of ours, whatever they are called; says how many there were.
///
/// # Errors
/// As for [`clear`].
pub fn remove_of_task(tools: &mut Tools, task: TaskId) -> Result<usize, CallError> {
    let found = list(tools, Some(task))?;
    for batch in found.containers.chunks(BATCH) {
        let ids: Vec<&str> = batch.iter().map(|one| one.id.as_str()).collect();
        remove(tools, &ids)?;
    }
    Ok(found.containers.len())
}

/// A container of this queue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    id: String,
    /// Its worker's and its task's labels, if they can be read.
    worker: Option<WorkerId>,
    task: Option<TaskId>,
}

/// What a listing has found.
#[derive(Debug)]
struct Listing {
    containers: Vec<Found>,
    /// Whether that is all.
    whole: bool,
}

fn list(tools: &mut Tools, task: Option<TaskId>) -> Result<Listing, CallError> {
    let pool = format!("label=acode.pool={}", tools.settings.docker.pool);
    let of_task = task.map(|task| format!("label=acode.task={task}"));
    let mut arguments = vec!["ps", "--all", "--no-trunc", "--filter", &pool];
    if let Some(filter) = &of_task {
        arguments.extend(["--filter", filter]);
    }
    // Podman before 5 does not know the one, and docker not the other: there labels are one text.
    let format = match Client::of(&tools.settings.docker.program) {
        Client::Docker => "{{.ID}} {{.Label \"acode.worker\"}} {{.Label \"acode.task\"}}",
        Client::Podman => "{{.ID}} {{index .Labels \"acode.worker\"}} {{index .Labels \"acode.task\"}}",
    };
    arguments.extend(["--format", format]);
    let limit_ms = tools.settings.docker.call_timeout_ms;
    let text = call(tools, &arguments, limit_ms)?;
    Ok(read_listing(&text))
}

fn read_listing(text: &str) -> Listing {
    // A listing that was cut off ends in the middle of a line.
    let (text, tail) = text.rsplit_once('\n').unwrap_or(("", text));
    let containers: Vec<Found> = text.lines().filter_map(read_line).take(SWEEP_MAX).collect();
    let whole = tail.is_empty() && containers.len() < SWEEP_MAX;
    Listing { containers, whole }
}

fn read_line(line: &str) -> Option<Found> {
    let mut words = line.split(' ');
    let id = words.next()?;
    let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut label = || words.next().unwrap_or_default();
    is_id.then(|| Found { id: id.to_owned(), worker: label().parse().ok(), task: label().parse().ok() })
}

/// Removes the containers of this queue whose workers are no more, and the marks that have no container.
///
/// The order is what makes it safe: marks first, then containers, then workers. A worker that is missing in the table had
/// left it before that look, and whatever it ran was listed before.
pub fn sweep(tools: &mut Tools) {
    if tools.mode.isolation == Isolation::Docker && !tools.containers.availability.is_up() {
        return;
    }
    let folder = tools.settings.docker.folder.clone();
    let marked = marks::tasks(&folder, SWEEP_MAX);
    // An engine that does not answer has its containers still; the next sweep finds them.
    let Ok(listing) = list(tools, None) else { return };
    let alive = tools.claimer.workers();
    let is_orphan = |one: &&Found| one.worker.is_none_or(|worker| !alive.contains(&worker));
    let orphans: Vec<Found> = listing.containers.iter().filter(is_orphan).cloned().collect();
    let mut left = Vec::new();
    for batch in orphans.chunks(BATCH) {
        failpoint!("docker.before-sweep");
        let ids: Vec<&str> = batch.iter().map(|one| one.id.as_str()).collect();
        match remove(tools, &ids) {
            Ok(()) => {}
            Err(CallError::Refused { .. }) => {
                left.extend(batch.iter().filter(|one| remove(tools, &[&one.id]).is_err()).map(|one| one.id.clone()));
            }
            Err(CallError::TimedOut { .. } | CallError::NotRun { .. }) => return,
        }
    }
    if !listing.whole {
        return;
    }
    let has_container = |task: TaskId| {
        let its = |one: &&Found| one.task == Some(task);
        listing.containers.iter().filter(its).any(|one| !orphans.contains(one) || left.contains(&one.id))
    };
    for task in marked.into_iter().filter(|task| !has_container(*task)) {
        marks::remove(&folder, task, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_believed_as_far_as_it_is_whole() {
        let (worker, task) = (WorkerId::from_u128(7), TaskId::new(1, 2, 3));
        let (first, second) = ("a".repeat(64), "b".repeat(64));
        let listing = read_listing(&format!("{first} {worker} {task}\n{second}  \nnot a line\n"));
        let found = |id: &str, worker, task| Found { id: id.to_owned(), worker, task };
        assert_eq!(listing.containers, [found(&first, Some(worker), Some(task)), found(&second, None, None)]);
        assert!(listing.whole && read_listing("").whole);
        let cut = read_listing(&format!("{first} {worker} {task}\n{second} "));
        assert!(!cut.whole && cut.containers.len() == 1);
        assert!(!read_listing(&format!("{first} \n").repeat(SWEEP_MAX)).whole);
    }

    #[test]
    fn ended_containers_wait_for_each_other_and_failed_ones_do_not() {
        let mut ended = Ended::default();
        let task = |number| TaskId::new(1, 2, number);
        assert!(!ended.is_due(Moment::Leaving, 0) && ended.nap_ms(0).is_none());
        (1..BATCH as u64).for_each(|number| ended.note(task(number), "a".to_owned(), false));
        assert!(!ended.is_due(Moment::Claiming, 0) && !ended.is_due(Moment::Idle, 0));
        assert!(ended.is_due(Moment::Idle, ended.idle_at_ns) && ended.nap_ms(ended.idle_at_ns) == Some(1));
        ended.note(task(99), "a".to_owned(), false);
        assert!(ended.is_due(Moment::Claiming, 0));
        let mut ended = Ended::default();
        ended.note(task(1), "a".to_owned(), true);
        assert!(ended.is_due(Moment::Claiming, 0));
        ended.not_before_ns = 10;
        assert!(!ended.is_due(Moment::Claiming, 5) && ended.is_due(Moment::Leaving, 5));
    }
}
