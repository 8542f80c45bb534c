//! The whole pool's output as one stream: follows every segment in the directory, while they appear, grow and go.
//!
//! An inotify watch on the directory says which segments changed, so nothing is polled and an idle pool costs
//! nothing. Frames at hand are merged by their time. Memory and open files are bounded whatever the number of
//! segments. Deliberately absent: names of tasks, colours, lines; that is the command line's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::OutputError;
use super::frame::Frame;
use super::lane::Lane;
use super::segment::{parse_name, segment_path, segments};
use crate::task::{TaskId, WorkerId};

/// The most segment files that a follower has open at once.
const OPEN_MAX: usize = 300;
/// The most frames given out by one call of `poll`, so that its caller gets to do other things.
const DELIVERED_MAX: usize = 4096;
/// The most frames looked at by one call of `poll`, for a filter that lets nothing through.
const EXAMINED_MAX: usize = 256 * 1024;
/// The most reads of inotify events by one call of `poll`; what is left waits for the next.
const EVENT_READS_MAX: usize = 256;
/// How far a file's modification time, which comes from a coarse clock, is trusted.
const MTIME_SLACK_US: i64 = 1_000_000;

/// From where on to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Everything that is kept.
    Beginning,
    /// Only what is written from now on.
    End,
    /// What was written at or after this time, in microseconds of Unix time.
    Time(i64),
}

/// Which frames to give out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Only this task's.
    pub task: TaskId,
    /// Only this attempt's, or those of all attempts.
    pub attempt: Option<u32>,
}

impl Filter {
    fn admits(&self, frame: &Frame<'_>) -> bool {
        frame.task == self.task && self.attempt.is_none_or(|attempt| attempt == frame.attempt)
    }
}

/// Follows the output of all workers.
pub struct Follower {
    dir: PathBuf,
    inotify: Inotify,
    lanes: HashMap<WorkerId, Lane>,
    /// The time of the frame at hand of every lane that has one.
    queue: BinaryHeap<Reverse<(i64, WorkerId)>>,
    /// Lanes with news that were not looked at yet.
    fresh: Vec<WorkerId>,
    /// Lanes with an open file.
    open: usize,
    filter: Option<Filter>,
    /// Frames older than this are not given out.
    since_us: i64,
}

impl Follower {
    /// Follows the segments in the existing directory `dir`.
    ///
    /// # Errors
    /// The directory cannot be watched or read.
    pub fn new(dir: impl Into<PathBuf>, since: Since, filter: Option<Filter>) -> Result<Self, OutputError> {
        let dir = dir.into();
        // Watch first and list then: what appears in between is seen twice, which does no harm, and never missed.
        let inotify = watch(&dir).map_err(|errno| OutputError::io("watching", &dir)(errno.into()))?;
        let since_us = match since {
            Since::Beginning | Since::End => i64::MIN,
            Since::Time(time_us) => time_us,
        };
        let (lanes, queue, fresh) = (HashMap::new(), BinaryHeap::new(), Vec::new());
        let mut follower = Self { dir, inotify, lanes, queue, fresh, open: 0, filter, since_us };
        for (worker, numbers) in by_worker(&follower.dir)? {
            if let Some(lane) = start(&follower.dir, worker, &numbers, since) {
                follower.lanes.insert(worker, lane);
                follower.fresh.push(worker);
            }
        }
        Ok(follower)
    }

    /// Gives the frames that are there to `f`, in the order of their times as far as they are there together, and
    /// returns how many it gave. Call it until it returns 0, then [`Self::wait`].
    ///
    /// # Errors
    /// The directory or a segment cannot be read. Nothing that was not given out is lost; the call may be repeated.
    pub fn poll(&mut self, mut f: impl FnMut(&Frame<'_>)) -> Result<usize, OutputError> {
        self.read_events()?;
        while let Some(&worker) = self.fresh.last() {
            self.look(worker)?;
            self.fresh.pop();
        }
        let (mut delivered, mut examined) = (0, 0);
        while delivered < DELIVERED_MAX && examined < EXAMINED_MAX {
            let Some(&Reverse((_, worker))) = self.queue.peek() else { break };
            if let Some(lane) = self.lanes.get_mut(&worker) {
                // The lane may have been parked since it was queued.
                self.open -= usize::from(lane.is_open());
                let outcome = lane.peek(&self.dir);
                self.open += usize::from(lane.is_open());
                outcome?;
                if let Some(frame) = lane.take() {
                    examined += 1;
                    if frame.time_us >= self.since_us && self.filter.is_none_or(|filter| filter.admits(&frame)) {
                        f(&frame);
                        delivered += 1;
                    }
                }
                lane.queued = false;
            }
            self.queue.pop();
            self.look(worker)?;
        }
        Ok(delivered)
    }

    /// Whether frames are at hand, so that the next `poll` is worth calling without waiting.
    pub fn pending(&self) -> bool {
        !self.queue.is_empty() || !self.fresh.is_empty()
    }

    /// Waits until there is news, or for `timeout`; for ever without one. Says whether there is news.
    ///
    /// # Errors
    /// `poll(2)` failed. A signal is no error: it ends the wait.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.pending() {
            return Ok(true);
        }
        let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Looks whether a lane has a frame at hand, queues it if so, and forgets it if it is over.
    fn look(&mut self, worker: WorkerId) -> Result<(), OutputError> {
        if self.open >= OPEN_MAX {
            self.park_all();
        }
        let Some(lane) = self.lanes.get_mut(&worker) else { return Ok(()) };
        if lane.queued {
            return Ok(());
        }
        self.open -= usize::from(lane.is_open());
        let outcome = lane.peek(&self.dir);
        self.open += usize::from(lane.is_open());
        match outcome? {
            Some(time_us) => {
                lane.queued = true;
                self.queue.push(Reverse((time_us, worker)));
            }
            None if lane.is_over() => {
                self.open -= usize::from(lane.is_open());
                self.lanes.remove(&worker);
            }
            None => {}
        }
        Ok(())
    }

    /// Closes all files. Those that are needed again are opened again, and they are the ones with the oldest frames;
    /// so the price is paid once in [`OPEN_MAX`] lanes.
    fn park_all(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.park();
        }
        self.open = 0;
    }

    fn read_events(&mut self) -> Result<(), OutputError> {
        for _ in 0..EVENT_READS_MAX {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(OutputError::io("watching", &self.dir)(errno.into())),
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.rescan()?;
                } else if let Some(name) = event.name {
                    self.changed(&name, event.mask);
                }
            }
        }
        Ok(())
    }

    /// Notes what an event says of the file `name`.
    fn changed(&mut self, name: &OsStr, mask: AddWatchFlags) {
        let Some((worker, segment)) = parse_name(name) else { return };
        if mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
            if let Some(lane) = self.lanes.get_mut(&worker) {
                lane.removed(segment);
                self.freshen(worker);
            }
            return;
        }
        self.lanes.entry(worker).or_insert_with(|| Lane::from_start(worker, segment, segment)).created(segment);
        self.freshen(worker);
    }

    fn freshen(&mut self, worker: WorkerId) {
        // Events of one worker come in runs; the queue of news must not grow with them.
        if self.fresh.last() != Some(&worker) {
            self.fresh.push(worker);
        }
    }

    /// Events were lost: compares with the directory, and takes every lane for changed.
    fn rescan(&mut self) -> Result<(), OutputError> {
        for (worker, numbers) in by_worker(&self.dir)? {
            let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else { continue };
            self.lanes.entry(worker).or_insert_with(|| Lane::from_start(worker, first, last)).created(last);
        }
        self.fresh = self.lanes.keys().copied().collect();
        Ok(())
    }
}

impl AsFd for Follower {
    /// The inotify descriptor: readable when there is news. For an event loop of one's own, see [`Self::pending`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn watch(dir: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let what = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(dir, what)?;
    Ok(inotify)
}

/// The segments in `dir` by worker, ascending.
fn by_worker(dir: &Path) -> Result<BTreeMap<WorkerId, Vec<u64>>, OutputError> {
    let mut workers = BTreeMap::<WorkerId, Vec<u64>>::new();
    for (worker, segment) in segments(dir)? {
        workers.entry(worker).or_default().push(segment);
    }
    for numbers in workers.values_mut() {
        numbers.sort_unstable();
    }
    Ok(workers)
}

/// Where to begin in one worker's segments.
fn start(dir: &Path, worker: WorkerId, numbers: &[u64], since: Since) -> Option<Lane> {
    let (&first, &last) = (numbers.first()?, numbers.last()?);
    match since {
        Since::Beginning => Some(Lane::from_start(worker, first, last)),
        Since::End => Some(Lane::from_end(worker, last, length_and_mtime(dir, worker, last)?.0)),
        Since::Time(time_us) => {
            for &segment in numbers {
                let recent = length_and_mtime(dir, worker, segment)
                    .is_some_and(|(_, mtime_us)| mtime_us.saturating_add(MTIME_SLACK_US) >= time_us);
                if recent {
                    return Some(Lane::from_start(worker, segment, last));
                }
            }
            Some(Lane::from_end(worker, last, length_and_mtime(dir, worker, last)?.0))
        }
    }
}

/// A segment's length in bytes and its modification time in microseconds; `None` if it is gone.
fn length_and_mtime(dir: &Path, worker: WorkerId, segment: u64) -> Option<(u64, i64)> {
    let meta = std::fs::symlink_metadata(segment_path(dir, worker, segment)).ok()?;
    let mtime = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((meta.len(), i64::try_from(mtime.as_micros()).unwrap_or(i64::MAX)))
}
