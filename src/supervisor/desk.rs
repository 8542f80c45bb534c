//! What is on the desk: the tasks that are published in the claim table or held by a worker, how far each stream of the
//! queue has been read, and how much room its limit group has.
//!
//! A stream is the part of a lane that belongs to one limit group; the tasks of no group are group 0, which has no limit.
//! A stream is open while there may be something to read in it and its group has room; the closed ones are not even
//! looked at. A cache over the queue, bounded by the table's slots and the number of groups: whatever is lost with it is
//! pending in the queue. Deliberately absent: I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use acode_worker::claim::{LANES, Lane, Ticket};
use acode_worker::task::TaskId;
use acode_worker::wire::Progress;

use super::modes::Served;

/// How many tasks are published ahead in one lane, as a rule. Half of them keep the workers busy while the supervisor waits
/// for a slow disk, or for a processor: 60 ms at 4,000 tasks a second.
pub const WINDOW: usize = 512;
/// How many at the most, where tasks are so short that those would be gone before the supervisor comes back.
pub const WIDE: usize = 2_048;
/// The most tasks that are read from the queue at once.
pub const FETCH: usize = 256;

/// Where a task on the desk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In a lane, or claimed by a worker that has not said so yet.
    Published,
    /// Its process runs.
    Running {
        /// In which worker.
        row: u16,
        /// Since when, in microseconds of Unix time.
        started_us: u64,
    },
    /// It has ended, and the end is not committed yet.
    Ended,
}

/// One task on the desk.
#[derive(Debug, Clone)]
pub struct Active {
    /// Which.
    pub id: TaskId,
    /// Its slot.
    pub ticket: Ticket,
    /// The lane that it was published in.
    pub lane: Lane,
    /// Its limit group; 0 for none.
    pub group: u32,
    /// Since when only its turn was missing, in microseconds of Unix time.
    #[allow(dead_code, reason = "a fact for those who measure")]
    pub ready_us: u64,
    /// The number of this attempt.
    pub attempt: u32,
    /// Attempts that failed before.
    pub failures: u32,
    /// Workers lost before.
    pub losses: u32,
    /// Attempts before that ran out of memory.
    pub ooms: u32,
    /// Since when it is suspended, in microseconds of Unix time.
    pub suspended_us: Option<u64>,
    /// It did not start within so many milliseconds, and is being ended for that.
    pub overdue_ms: Option<u64>,
    /// Whether whoever cancelled it left it no grace.
    pub cancel_now: bool,
    /// The row of the worker that is to remove its checkpoint directory when its end is on disk.
    pub discard_by: Option<u16>,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// What it says about itself.
    pub progress: Option<Progress>,
    /// The file that holds its assignment, if the slot was too small.
    pub spilled: Option<PathBuf>,
}

/// How far a stream has been read.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Everything up to this place has been seen.
    read_to: u64,
    /// Nothing was found beyond.
    exhausted: bool,
}

/// A limit group, as far as dispatching is concerned.
#[derive(Debug, Default)]
struct Group {
    /// The most tasks of it on the desk; `None` for as many as there are.
    limit: Option<u32>,
    /// Nothing of it is to be handed out.
    held: bool,
    /// Its tasks on the desk.
    active: u32,
    marks: [Mark; LANES],
}

impl Group {
    fn room(&self) -> usize {
        match (self.held, self.limit) {
            (true, _) => 0,
            (false, None) => usize::MAX,
            (false, Some(limit)) => limit.saturating_sub(self.active) as usize,
        }
    }
}

/// The desk.
#[derive(Debug, Default)]
pub struct Desk {
    active: HashMap<u64, Active>,
    /// The classes whose lanes are filled.
    served: Served,
    /// The marks of group 0, which is most of the time the only one.
    marks: [Mark; LANES],
    groups: BTreeMap<u32, Group>,
    /// Of each lane, the groups whose streams are open.
    open: [BTreeSet<u32>; LANES],
    /// Of each lane, the groups that have got room again while something younger may have been published.
    reopened: [BTreeSet<u32>; LANES],
    /// Full groups of which a more urgent task may wait behind a less urgent one.
    contested: BTreeSet<u32>,
    /// Full groups that have more to read.
    held_up: BTreeSet<u32>,
    /// Lanes in which members of an array come into being with the next commit.
    expanding: [bool; LANES],
    /// Of each lane, when it may be sorted again, in nanoseconds of the monotonic clock.
    sort_at_ns: [u64; LANES],
}

impl Desk {
    /// The task with this number, if it is on the desk.
    pub fn get(&self, seq: u64) -> Option<&Active> {
        self.active.get(&seq)
    }

    /// The task with this number, if it is on the desk.
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Active> {
        self.active.get_mut(&seq)
    }

    /// The task of this report, unless the report is about an older claim.
    pub fn current(&mut self, id: TaskId, ticket: Ticket) -> Option<&mut Active> {
        self.active.get_mut(&id.seq()).filter(|active| active.id == id && active.ticket == ticket)
    }

    /// The task in this slot.
    pub fn by_ticket(&self, ticket: Ticket) -> Option<&Active> {
        self.active.values().find(|active| active.ticket == ticket)
    }

    /// All tasks on the desk.
    pub fn iter(&self) -> impl Iterator<Item = &Active> {
        self.active.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Puts a task on the desk.
    pub fn put(&mut self, active: Active) {
        let (seq, group) = (active.id.seq(), active.group);
        let new = self.active.insert(seq, active).is_none();
        if new && let Some(entry) = self.groups.get_mut(&group) {
            entry.active += 1;
            if entry.room() == 0 {
                self.close(group);
            }
        }
    }

    /// Takes a task off the desk.
    pub fn take(&mut self, seq: u64) -> Option<Active> {
        let active = self.active.remove(&seq)?;
        if let Some(entry) = self.groups.get_mut(&active.group) {
            let was_full = entry.room() == 0;
            entry.active = entry.active.saturating_sub(1);
            if was_full && entry.room() > 0 {
                self.reopen(active.group);
            }
        }
        Some(active)
    }

    /// Enters a group, or changes what is known of it. A group that is entered has nothing to read unless something of
    /// it is expected.
    pub fn set_group(&mut self, group: u32, limit: Option<u32>, held: bool) {
        let entry = self
            .groups
            .entry(group)
            .or_insert_with(|| Group { marks: [Mark { read_to: 0, exhausted: true }; LANES], ..Group::default() });
        let was_full = entry.room() == 0;
        (entry.limit, entry.held) = (limit, held);
        match (was_full, entry.room() == 0) {
            (true, false) => self.reopen(group),
            (false, true) => self.close(group),
            (true, true) | (false, false) => {}
        }
    }

    /// The groups that are entered.
    pub fn groups(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.keys().copied()
    }

    /// How many more tasks of a group may be put on the desk.
    pub fn room(&self, group: u32) -> usize {
        self.groups.get(&group).map_or(usize::MAX, Group::room)
    }

    /// By how many tasks on the desk a group is above its limit, or held.
    pub fn excess(&self, group: u32) -> usize {
        self.groups.get(&group).map_or(0, |entry| match (entry.held, entry.limit) {
            (true, _) => entry.active as usize,
            (false, None) => 0,
            (false, Some(limit)) => entry.active.saturating_sub(limit) as usize,
        })
    }

    /// Whether a group that is full has more to read, so that the end of one of its tasks lets another start.
    pub fn is_held_up(&self) -> bool {
        !self.held_up.is_empty()
    }

    fn mark(&self, lane: Lane, group: u32) -> Option<&Mark> {
        if group == 0 {
            Some(&self.marks[lane.index()])
        } else {
            self.groups.get(&group).map(|entry| &entry.marks[lane.index()])
        }
    }

    fn mark_mut(&mut self, lane: Lane, group: u32) -> &mut Mark {
        if group == 0 {
            &mut self.marks[lane.index()]
        } else {
            &mut self.groups.entry(group).or_default().marks[lane.index()]
        }
    }

    /// Where to go on reading a stream, whether its group has room or not; `None` if there is nothing more.
    pub fn read_from(&self, lane: Lane, group: u32) -> Option<u64> {
        self.mark(lane, group).filter(|mark| !mark.exhausted).map(|mark| mark.read_to)
    }

    /// The open streams of a lane, with where to go on reading them.
    pub fn open_streams(&self, lane: Lane) -> impl Iterator<Item = (u32, u64)> + '_ {
        let groups = self.open[lane.index()].iter().copied();
        std::iter::once(0).chain(groups).filter_map(move |group| Some((group, self.read_from(lane, group)?)))
    }

    /// Whether a lane has an open stream.
    pub fn is_open(&self, lane: Lane) -> bool {
        !self.marks[lane.index()].exhausted || !self.open[lane.index()].is_empty()
    }

    /// Notes how far a stream has been read, and whether that was all.
    pub fn has_read(&mut self, lane: Lane, group: u32, to: u64, exhausted: bool) {
        *self.mark_mut(lane, group) = Mark { read_to: to, exhausted };
        if group != 0 {
            self.settle(lane, group);
        }
    }

    /// The lanes that are filled, most urgent first.
    pub fn served(&self) -> impl Iterator<Item = Lane> + use<> {
        let served = self.served;
        Lane::all().filter(move |lane| served.has(lane.class))
    }

    /// The classes whose lanes are filled.
    pub fn serves(&self) -> Served {
        self.served
    }

    /// Serves these classes from now on. What is on the desk of others stays there, and nothing of theirs is read.
    pub fn serve(&mut self, served: Served) {
        let before = std::mem::replace(&mut self.served, served);
        let groups: Vec<u32> = std::iter::once(0).chain(self.groups()).collect();
        for lane in Lane::all() {
            match (before.has(lane.class), served.has(lane.class)) {
                (false, true) => groups.iter().for_each(|group| self.expect(lane, *group, 1)),
                (true, false) => {
                    groups.iter().for_each(|group| self.has_read(lane, *group, 0, true));
                    self.reopened[lane.index()].clear();
                }
                (true, true) | (false, false) => {}
            }
        }
    }

    /// Notes that a task has become ready in this stream, so that it will be read, if its lane is served.
    pub fn expect(&mut self, lane: Lane, group: u32, seq: u64) {
        if !self.served.has(lane.class) {
            return;
        }
        let mark = self.mark_mut(lane, group);
        mark.exhausted = false;
        mark.read_to = mark.read_to.min(seq.saturating_sub(1));
        if group != 0 {
            self.settle(lane, group);
            if self.room(group) == 0 {
                self.contested.insert(group);
            }
        }
    }

    /// Notes that all streams may hold something unread.
    pub fn expect_everything(&mut self) {
        let groups: Vec<u32> = std::iter::once(0).chain(self.groups()).collect();
        for lane in self.served() {
            groups.iter().for_each(|group| self.expect(lane, *group, 1));
        }
    }

    /// Notes that members of an array come into being in this lane with the next commit; until then it is not filled.
    pub fn expands(&mut self, lane: Lane) {
        self.expanding[lane.index()] = true;
    }

    /// Whether a lane waits for members of an array.
    pub fn is_expanding(&self, lane: Lane) -> bool {
        self.expanding[lane.index()]
    }

    /// Notes that a commit has brought those members into being.
    pub fn has_expanded(&mut self) {
        self.expanding = [false; LANES];
    }

    /// The groups that got room again in a lane, while younger tasks may have been published. They are told once.
    pub fn take_reopened(&mut self, lane: Lane) -> BTreeSet<u32> {
        std::mem::take(&mut self.reopened[lane.index()])
    }

    /// Whether there are such groups.
    pub fn has_reopened(&self, lane: Lane) -> bool {
        !self.reopened[lane.index()].is_empty()
    }

    /// Whether this is one of them.
    pub fn is_reopened(&self, lane: Lane, group: u32) -> bool {
        self.reopened[lane.index()].contains(&group)
    }

    /// When this lane may be sorted again, in nanoseconds of the monotonic clock.
    pub fn sort_at_ns(&self, lane: Lane) -> u64 {
        self.sort_at_ns[lane.index()]
    }

    /// Notes when this lane may be sorted again.
    pub fn sorted(&mut self, lane: Lane, again_at_ns: u64) {
        self.sort_at_ns[lane.index()] = again_at_ns;
    }

    /// When the next lane wants to be sorted that has to be, in nanoseconds of the monotonic clock.
    pub fn next_sort_ns(&self) -> Option<u64> {
        self.served().filter(|lane| self.has_reopened(*lane)).map(|lane| self.sort_at_ns(lane)).min()
    }

    /// The full groups of which a more urgent task may wait behind a less urgent one. They are told once.
    pub fn take_contested(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.contested)
    }

    /// Makes the set of open streams agree with one stream's mark.
    fn settle(&mut self, lane: Lane, group: u32) {
        let open = self.room(group) > 0 && self.read_from(lane, group).is_some();
        let set = &mut self.open[lane.index()];
        if open {
            set.insert(group)
        } else {
            set.remove(&group)
        };
        self.note_held_up(group);
    }

    fn note_held_up(&mut self, group: u32) {
        let waits = |entry: &Group| entry.room() == 0 && entry.marks.iter().any(|mark| !mark.exhausted);
        let held_up = self.groups.get(&group).is_some_and(waits);
        if held_up {
            self.held_up.insert(group)
        } else {
            self.held_up.remove(&group)
        };
    }

    fn close(&mut self, group: u32) {
        self.contested.insert(group);
        for index in 0..LANES {
            self.open[index].remove(&group);
            self.reopened[index].remove(&group);
        }
        self.note_held_up(group);
    }

    fn reopen(&mut self, group: u32) {
        let Some(entry) = self.groups.get(&group) else { return };
        for (index, _) in entry.marks.iter().enumerate().filter(|(_, mark)| !mark.exhausted) {
            self.open[index].insert(group);
            self.reopened[index].insert(group);
        }
        self.note_held_up(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acode_worker::task::{Class, Priority};

    const NORMAL: Lane = Lane { class: Class::Any, priority: Priority::Normal };

    fn active(seq: u64, group: u32) -> Active {
        Active {
            id: TaskId::new(1, 1, seq),
            ticket: Ticket { slot: seq as u32, generation: 1 },
            lane: NORMAL,
            group,
            ready_us: 0,
            attempt: 1,
            failures: 0,
            losses: 0,
            ooms: 0,
            suspended_us: None,
            overdue_ms: None,
            cancel_now: false,
            discard_by: None,
            cancelled: None,
            phase: Phase::Published,
            progress: None,
            spilled: None,
        }
    }

    fn open(desk: &Desk) -> Vec<(u32, u64)> {
        desk.open_streams(NORMAL).collect()
    }

    #[test]
    fn a_stream_is_read_on_from_where_something_became_ready() {
        let mut desk = Desk::default();
        desk.has_read(NORMAL, 0, 90, true);
        assert_eq!(desk.read_from(NORMAL, 0), None);
        assert!(!desk.is_open(NORMAL));
        desk.expect(NORMAL, 0, 100);
        assert_eq!(desk.read_from(NORMAL, 0), Some(90));
        desk.expect(NORMAL, 0, 20);
        assert_eq!(desk.read_from(NORMAL, 0), Some(19));
    }

    #[test]
    fn a_full_group_closes_its_streams_and_the_end_of_one_opens_them() {
        let mut desk = Desk::default();
        desk.has_read(NORMAL, 0, 0, true);
        desk.set_group(7, Some(2), false);
        assert!(!desk.is_open(NORMAL), "nothing of it is expected yet");
        desk.expect(NORMAL, 7, 5);
        assert_eq!(open(&desk), [(7, 0)]);
        desk.put(active(5, 7));
        assert_eq!((desk.room(7), open(&desk).len()), (1, 1));
        desk.put(active(6, 7));
        desk.has_read(NORMAL, 7, 6, false);
        assert_eq!((desk.room(7), open(&desk).len(), desk.is_held_up()), (0, 0, true));
        desk.expect(NORMAL, 7, 9);
        assert_eq!(open(&desk), [], "what becomes ready does not open it");
        desk.take(5);
        assert_eq!(open(&desk), [(7, 6)]);
        assert_eq!(desk.take_reopened(NORMAL).into_iter().collect::<Vec<_>>(), [7]);
        assert!(!desk.has_reopened(NORMAL) && !desk.is_held_up());
    }

    #[test]
    fn a_limit_that_sinks_tells_the_excess_and_one_that_rises_opens() {
        let mut desk = Desk::default();
        desk.set_group(1, None, false);
        desk.expect(NORMAL, 1, 1);
        (1..=4).for_each(|seq| desk.put(active(seq, 1)));
        assert_eq!((desk.room(1), desk.excess(1)), (usize::MAX, 0));
        desk.set_group(1, Some(3), false);
        assert_eq!((desk.room(1), desk.excess(1)), (0, 1));
        assert!(desk.take_contested().contains(&1));
        desk.set_group(1, Some(9), true);
        assert_eq!((desk.room(1), desk.excess(1)), (0, 4), "held: all of it is too much");
        desk.set_group(1, Some(9), false);
        assert_eq!((desk.room(1), open(&desk).contains(&(1, 0))), (5, true));
    }
}
