//! Filling the claim table from the queue: which tasks are handed out, and in which order.
//!
//! A lane is refilled when it is half empty, so the queue is read once for many tasks, and however many tasks wait, a
//! bounded number of them is held in memory. The open streams of a lane are merged by place, so it is first in, first
//! out over all groups; a stream whose group is full is not even looked at. When such a group gets room again, what is
//! younger than its next task and not claimed yet is taken back and published behind it.
//!
//! Everything here works on a `Filling`: the desk, a queue, and the producer of a table, without a supervisor. Whoever
//! drives it (the supervisor; a simulator with a queue in memory and claimers in the same process) does this:
//!
//! - `Desk::set_group` for each group of the queue, at the start and when one is made or changed (then also
//!   [`Filling::hold_back`]), and `Desk::expect` for each task that becomes ready: submitted, woken, requeued, released.
//!   At the start `Desk::expect_everything` does for all.
//! - [`fill`] whenever something may have changed. What it answers has to be applied to the queue; after that commit,
//!   `Desk::has_expanded`.
//! - When the end of an attempt is committed: `Desk::take`, then `Producer::release` with its ticket. A group's room
//!   comes from that alone.
//! - [`Filling::take_back`] for a task that is to be changed (cancelled, held, moved) before a worker gets it.
//!
//! Deliberately absent: the clock, doorbells, commits; and the claim itself, which is the workers'.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use acode_worker::claim::{Full, Lane, PAYLOAD_MAX, Producer, Ticket};
use acode_worker::failpoint;
use acode_worker::task::{TaskId, TaskSpec};
use acode_worker::wire::SPILLED;

use super::desk::{Active, Desk, FETCH, Phase};
use super::jobserver::Jobserver;
use super::judge::Policy;
use super::modes::Served;
use crate::store::{Entry, Op, Queue, ReadyTask, StoreError, Stream};

/// Members of an array that get their rows at once, at the least.
const EXPAND_MIN: u64 = 32;
/// A lane that was sorted a moment ago has so few tasks published ahead, or two for each worker.
const NARROW: usize = 32;
/// What taking back and publishing a task again may cost: after a sort the next one has to wait for twenty times what it
/// took, so that sorting never takes more than a twentieth of the supervisor's time.
const SORT_PAUSE_NS: u64 = 200_000;
/// For so long after it was sorted a lane is kept narrow.
const NARROW_NS: u64 = 1_000_000_000;
/// The most tasks of an urgent lane for which way is made at once.
const WAY_MAX: usize = 16;

/// All that filling the table takes.
pub struct Filling<'a> {
    /// What is published already, and how far the queue was read.
    pub desk: &'a mut Desk,
    /// Where tasks come from.
    pub queue: &'a dyn Queue,
    /// Where they go.
    pub producer: &'a mut Producer,
    /// The folder for assignments that are too large for a slot.
    pub spill: &'a Path,
    /// Where tasks that share the pool's job slots are announced.
    pub jobserver: Option<&'a mut Jobserver>,
    /// What a task is retried by that does not say otherwise.
    pub policy: &'a Policy,
    /// How many workers there are.
    pub workers: usize,
    /// How many tasks of a lane are published ahead: from `WINDOW` to `WIDE`.
    pub ahead: usize,
    /// Now, in nanoseconds of the monotonic clock.
    pub now_ns: u64,
}

/// Publishes what is ready and not published yet, as far as there is room. Answers the changes that the queue needs for
/// more: members of arrays that get their rows.
///
/// # Errors
/// The queue could not be read. What was published until then is.
pub fn fill(filling: &mut Filling<'_>) -> Result<Vec<Op>, StoreError> {
    for group in filling.desk.take_contested() {
        filling.make_way(group)?;
    }
    let mut expansions = Vec::new();
    for lane in filling.desk.served() {
        if !filling.desk.is_open(lane) || filling.desk.is_expanding(lane) {
            continue;
        }
        let mut ready = filling.producer.ready_in(lane);
        let sort_at_ns = filling.desk.sort_at_ns(lane);
        if filling.desk.has_reopened(lane) && (ready == 0 || filling.now_ns >= sort_at_ns) {
            filling.sort(lane)?;
            ready = filling.producer.ready_in(lane);
        }
        let window = filling.window(lane);
        if ready < window / 2 {
            match filling.fill_lane(lane, window - ready)? {
                Stopped::Enough => {}
                Stopped::AtArray(op) => expansions.push(op),
                Stopped::LaneFull => {
                    filling.clear_lane(lane);
                    if let Stopped::AtArray(op) = filling.fill_lane(lane, window)? {
                        expansions.push(op);
                    }
                }
            }
        }
    }
    Ok(expansions)
}

/// A stream that is being merged.
struct Source {
    group: u32,
    /// Everything up to this place has been seen.
    read_to: u64,
    page: VecDeque<ReadyTask>,
    /// There is nothing behind the page.
    last: bool,
}

impl Source {
    /// Where its next entry is, or may be at the earliest.
    fn next(&self) -> u64 {
        self.page.front().map_or(self.read_to + 1, |ready| ready.place)
    }
}

/// What came of publishing a task.
enum Published {
    Done,
    /// It cannot be now: the table is full, or the disk.
    Not,
    /// The lane has no room, although few tasks wait in it: retracted ones have used it up.
    LaneFull,
}

/// Why a lane is not filled any further.
enum Stopped {
    /// It is full, or there is nothing more.
    Enough,
    /// At the untouched members of an array, which get their rows by this.
    AtArray(Op),
    /// See [`Published::LaneFull`].
    LaneFull,
}

impl Filling<'_> {
    /// Reads on in the open streams of a lane, and publishes up to `room` tasks in their order.
    fn fill_lane(&mut self, lane: Lane, mut room: usize) -> Result<Stopped, StoreError> {
        // A group that waits for a sort is left out until then: published now, its tasks would come behind younger ones.
        let streams = self.desk.open_streams(lane).filter(|(group, _)| !self.desk.is_reopened(lane, *group));
        let source = |(group, read_to)| Source { group, read_to, page: VecDeque::new(), last: false };
        let mut sources: Vec<Source> = streams.map(source).collect();
        let mut merge: BinaryHeap<Reverse<(u64, usize)>> =
            sources.iter().enumerate().map(|(index, source)| Reverse((source.next(), index))).collect();
        let mut stopped = Stopped::Enough;
        while room > 0
            && let Some(Reverse((_, index))) = merge.pop()
        {
            let source = &mut sources[index];
            let Some(ready) = source.page.pop_front() else {
                if self.read_page(lane, source, room)? {
                    merge.push(Reverse((source.next(), index)));
                }
                continue;
            };
            let space = self.desk.room(source.group);
            if space == 0 {
                // Full: the mark stays before this task.
                source.page.push_front(ready);
                continue;
            }
            let published = match &ready.entry {
                Entry::Array { cursor, count } => {
                    // Its next members are ready when this is committed; whatever stands behind has to wait.
                    let more = (room.min(space) as u64).max(EXPAND_MIN);
                    let to = cursor.saturating_add(more).min(*count);
                    stopped = Stopped::AtArray(Op::Expand { header: ready.id, to });
                    self.desk.expands(lane);
                    Published::Not
                }
                Entry::Task { .. } | Entry::Member { .. } if self.desk.get(ready.id.seq()).is_some() => Published::Done,
                Entry::Task { spec_json } | Entry::Member { spec_json, .. } => {
                    room -= 1;
                    self.publish(lane, source.group, &ready, spec_json)
                }
            };
            match published {
                Published::Done => {
                    source.read_to = ready.place;
                    merge.push(Reverse((source.next(), index)));
                }
                Published::Not | Published::LaneFull => {
                    if matches!(published, Published::LaneFull) {
                        stopped = Stopped::LaneFull;
                    }
                    source.page.push_front(ready);
                    break;
                }
            }
        }
        for source in &sources {
            self.desk.has_read(lane, source.group, source.next() - 1, source.last && source.page.is_empty());
        }
        Ok(stopped)
    }

    /// How many tasks are published ahead in a lane.
    fn window(&self, lane: Lane) -> usize {
        let sort_at_ns = self.desk.sort_at_ns(lane);
        let narrow = sort_at_ns > 0 && self.now_ns < sort_at_ns.saturating_add(NARROW_NS);
        if narrow { NARROW.max(2 * self.workers).min(self.ahead) } else { self.ahead }
    }

    /// Reads the next page of a stream; false if there is none, or no room for it.
    fn read_page(&mut self, lane: Lane, source: &mut Source, room: usize) -> Result<bool, StoreError> {
        let space = self.desk.room(source.group).min(if source.group == 0 { FETCH } else { room.min(FETCH) });
        if source.last || space == 0 {
            return Ok(false);
        }
        let stream = Stream { priority: lane.priority, class: lane.class, group: source.group };
        source.page = self.queue.ready(stream, source.read_to, space)?.into();
        source.last = source.page.len() < space;
        Ok(!source.page.is_empty())
    }

    /// Publishes one task.
    fn publish(&mut self, lane: Lane, group: u32, ready: &ReadyTask, spec_json: &str) -> Published {
        let (id, attempt) = (ready.id, ready.attempts + 1);
        let mut payload = assignment(id, attempt, self.memory_scale(ready.ooms, spec_json), spec_json);
        let mut spilled = None;
        if payload.len() > PAYLOAD_MAX {
            match self.spill(id.seq(), attempt, &payload) {
                Ok(path) => {
                    use std::os::unix::ffi::OsStrExt;
                    payload.clear();
                    payload.push(SPILLED);
                    payload.extend_from_slice(path.as_os_str().as_bytes());
                    spilled = Some(path);
                }
                Err(error) => {
                    tracing::error!(task = %id, %error, "a large task cannot be handed over for now");
                    return Published::Not;
                }
            }
        }
        // Before it is published: whoever claims it must find the fifo.
        if let Some(jobserver) = self.jobserver.as_deref_mut() {
            jobserver.expect(id.seq(), spec_json);
        }
        failpoint!("supervisor.before-publish");
        let ticket = match self.producer.publish(lane, &payload) {
            Ok(ticket) => ticket,
            Err(full) => {
                if let Some(jobserver) = self.jobserver.as_deref_mut() {
                    jobserver.forget(id.seq());
                }
                return match full {
                    Full::Lane => Published::LaneFull,
                    Full::Slots | Full::Payload(_) => Published::Not,
                };
            }
        };
        self.desk.put(Active {
            id,
            ticket,
            lane,
            group,
            ready_us: ready.ready_us,
            attempt,
            failures: ready.failures,
            losses: ready.losses,
            ooms: ready.ooms,
            suspended_us: None,
            overdue_ms: None,
            cancel_now: false,
            discard_by: None,
            cancelled: None,
            phase: Phase::Published,
            progress: None,
            spilled,
        });
        failpoint!("supervisor.after-publish");
        Published::Done
    }

    /// What the task's memory limit is multiplied by. Its specification is read only if it has run out of memory.
    fn memory_scale(&self, ooms: u32, spec_json: &str) -> f64 {
        if ooms == 0 {
            return 1.0;
        }
        let own = serde_json::from_str::<TaskSpec>(spec_json).ok().and_then(|spec| spec.retry).unwrap_or_default();
        self.policy.of_task(&own).retry.memory_scale(ooms).min(f64::MAX)
    }

    /// Writes an assignment that is too large for a slot to a file of its own.
    fn spill(&self, seq: u64, attempt: u32, payload: &[u8]) -> io::Result<PathBuf> {
        let path = self.spill.join(format!("{seq}-{attempt}"));
        std::fs::write(&path, payload)?;
        Ok(path)
    }

    /// Takes a task off the desk, with all that was made for it as it was published.
    pub fn clear(&mut self, seq: u64) -> Option<Active> {
        let active = self.desk.take(seq)?;
        if let Some(jobserver) = self.jobserver.as_deref_mut() {
            jobserver.forget(seq);
        }
        if let Some(path) = &active.spilled {
            // What stays is removed with its folder when the pool stops.
            let _ = std::fs::remove_file(path);
        }
        Some(active)
    }

    /// Takes a task back that no worker has claimed. It is off the desk then, and will not be read again unless it is
    /// expected. `None` if it is not on the desk, or in a worker's hands.
    pub fn take_back(&mut self, seq: u64) -> Option<Active> {
        let active = self.desk.get(seq).filter(|active| active.phase == Phase::Published)?;
        let ticket = active.ticket;
        if self.producer.retract(ticket) { self.clear(seq) } else { None }
    }

    /// As [`Filling::take_back`], for a task that is to be published again in its turn.
    fn put_back(&mut self, seq: u64) -> bool {
        let Some(active) = self.take_back(seq) else { return false };
        self.desk.expect(active.lane, active.group, seq);
        true
    }

    /// The tasks on the desk that no worker has begun and that `wanted` says yes to; the least urgent first, and among
    /// those the youngest.
    fn unclaimed(&self, wanted: impl Fn(&Active) -> bool) -> Vec<u64> {
        let mut found: Vec<_> =
            self.desk.iter().filter(|active| active.phase == Phase::Published && wanted(active)).collect();
        found.sort_unstable_by_key(|active| Reverse((active.lane.priority, active.id.seq())));
        found.into_iter().map(|active| active.id.seq()).collect()
    }

    /// Takes back what was published and is younger than the next task of a group that has got room again. From the
    /// youngest on, so that workers which claim meanwhile still get the oldest first.
    fn sort(&mut self, lane: Lane) -> Result<(), StoreError> {
        let mut oldest: Option<u64> = None;
        for group in self.desk.take_reopened(lane) {
            let Some(from) = self.desk.read_from(lane, group) else { continue };
            let stream = Stream { priority: lane.priority, class: lane.class, group };
            let next = self.queue.ready(stream, from, 1)?.first().map(|ready| ready.place);
            oldest = oldest.into_iter().chain(next).min();
        }
        let Some(oldest) = oldest else { return Ok(()) };
        let younger = self.unclaimed(|active| active.lane == lane && active.id.seq() > oldest);
        let moved = younger.into_iter().filter(|seq| self.put_back(*seq)).count() as u64;
        // Those that were taken back may have made room for groups whose tasks are in order anyhow.
        self.desk.take_reopened(lane);
        if moved > 0 {
            self.desk.sorted(lane, self.now_ns.saturating_add(moved * SORT_PAUSE_NS));
        }
        Ok(())
    }

    /// Takes everything back from the table that no worker has claimed; it is read again when the table is filled again.
    pub fn retract_all(&mut self) {
        self.desk.served().for_each(|lane| self.clear_lane(lane));
    }

    /// Fills the lanes of these classes from now on. What no worker has claimed of the others is taken back.
    pub fn serve(&mut self, served: Served) {
        let before: Vec<Lane> = self.desk.served().collect();
        self.desk.serve(served);
        before.into_iter().filter(|lane| !served.has(lane.class)).for_each(|lane| self.clear_lane(lane));
    }

    /// Makes the whole ring of a lane available, which retracted tasks have used up.
    fn clear_lane(&mut self, lane: Lane) {
        let taken: HashSet<Ticket> = self.producer.retract_lane(lane).into_iter().collect();
        let seqs: Vec<u64> =
            self.desk.iter().filter(|active| taken.contains(&active.ticket)).map(|active| active.id.seq()).collect();
        for active in seqs.into_iter().filter_map(|seq| self.clear(seq)).collect::<Vec<_>>() {
            self.desk.expect(lane, active.group, active.id.seq());
        }
    }

    /// Takes back less urgent tasks of a full group in favour of more urgent ones that are ready.
    fn make_way(&mut self, group: u32) -> Result<(), StoreError> {
        if self.desk.room(group) > 0 {
            return Ok(());
        }
        for lane in self.desk.served() {
            let Some(from) = self.desk.read_from(lane, group) else { continue };
            let less_urgent = self.unclaimed(|active| active.group == group && active.lane.priority > lane.priority);
            if less_urgent.is_empty() {
                continue;
            }
            let stream = Stream { priority: lane.priority, class: lane.class, group };
            // Those that are on the desk already come first, and need no further room.
            let known = self.desk.iter().filter(|active| active.group == group && active.lane == lane).count();
            let ready = self.queue.ready(stream, from, known + WAY_MAX)?;
            let wanted = ready.iter().map(|ready| match ready.entry {
                Entry::Array { cursor, count } => usize::try_from(count - cursor).unwrap_or(usize::MAX),
                Entry::Task { .. } | Entry::Member { .. } => usize::from(self.desk.get(ready.id.seq()).is_none()),
            });
            let wanted = wanted.fold(0, usize::saturating_add).saturating_sub(self.desk.room(group));
            less_urgent.into_iter().filter(|seq| self.put_back(*seq)).take(wanted).for_each(drop);
        }
        Ok(())
    }

    /// Takes back what is published of a group beyond its limit, or all of it if it is held.
    pub fn hold_back(&mut self, group: u32) {
        let excess = self.desk.excess(group);
        if excess > 0 {
            let unclaimed = self.unclaimed(|active| active.group == group);
            unclaimed.into_iter().filter(|seq| self.put_back(*seq)).take(excess).for_each(drop);
        }
    }

    /// The tasks of these that no worker has claimed are taken back; answers the others, which workers hold.
    pub fn take_back_all(&mut self, seqs: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
        let still = |seq: &u64| self.take_back(*seq).is_none() && self.desk.get(*seq).is_some();
        seqs.into_iter().filter(still).collect()
    }
}

/// The payload of a slot. By hand, because the specification is JSON already and most of the whole.
fn assignment(id: TaskId, attempt: u32, memory_scale: f64, spec_json: &str) -> Vec<u8> {
    let mut payload = Vec::with_capacity(spec_json.len() + 80);
    payload.extend_from_slice(br#"{"id":""#);
    payload.extend_from_slice(id.to_string().as_bytes());
    payload.extend_from_slice(br#"","attempt":"#);
    payload.extend_from_slice(attempt.to_string().as_bytes());
    if memory_scale > 1.0 {
        payload.extend_from_slice(format!(r#","memory_scale":{memory_scale}"#).as_bytes());
    }
    payload.extend_from_slice(br#","spec":"#);
    payload.extend_from_slice(spec_json.as_bytes());
    payload.push(b'}');
    payload
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
