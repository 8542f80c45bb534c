//! The minder: a worker's second thread, which does for a running action what the worker cannot do meanwhile.
//!
//! It is made for the first action that runs in the worker. While one does, the line and the action's [`Charge`] lie on a
//! desk, under a lock, and whoever holds the lock may use both; while none does, the line is the worker's again, and there is
//! nothing on the desk but a twin of it that nobody uses. Invariant: whoever waits for the lock waits for one look at most.
//!
//! The minder is not woken for an action: it naps and looks what is there. So a short action costs two uncontended locks and
//! no call of the kernel. When no action has run for a while it waits to be rung. An action that does not end when it is told
//! to cannot be ended by itself: its worker ends with it. Deliberately absent: what an action is told when (`charge`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::charge::{Charge, Flags, Found};
use super::orders::Inbox;
use super::phase::End;
use super::process::Tools;
use super::{inline, panics};
use crate::claim::Pulse;
use crate::failpoint;
use crate::sys::tree::{self, Reaper, Remains, Used};
use crate::sys::{clock, process, usage};
use crate::task::OutputRef;
use crate::wire::{EXIT_ORPHANED, Line, Progress, Report};

/// How long the minder naps while short actions go by.
const NAP: Duration = Duration::from_millis(10);
/// How long it waits for orders at most while one action runs on: the next one may begin, and need it, meanwhile.
const WATCH_MS: u64 = 50;
/// Without an action for so long, in nanoseconds, it waits to be rung.
const PARK_NS: u64 = 1_000_000_000;
/// Bytes of its stack: a report is put together on it, and nothing deep.
const STACK_BYTES: usize = 256 * 1024;
/// How often processes that an overdue action has left are looked for before its worker ends; and in which distance.
const LAST_LOOKS: u32 = 100;
const LAST_LOOK: Duration = Duration::from_millis(2);
/// What was used is counted from the last count if that is not older, in nanoseconds; and for actions not shorter.
const COUNT_NS: u64 = 1_000_000;

/// The worker's side.
#[derive(Default)]
pub struct Minder {
    shared: Option<Arc<Shared>>,
    /// What the worker had used, and when that was.
    counted: (u64, Used),
}

/// What the two threads have in common.
pub struct Shared {
    flags: Flags,
    desk: Mutex<Desk>,
    bell: Condvar,
}

struct Desk {
    /// The worker's line while there is a charge, else its twin.
    line: Line,
    charge: Option<Box<Charge>>,
    /// How many charges there have been.
    turn: u64,
    /// The minder waits to be rung.
    is_parked: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        // A panic with the lock held would be one of this file, and leaves nothing half done that matters.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the running action may look at.
    pub fn flags(&self) -> &Flags {
        &self.flags
    }

    /// Takes note of the running action's progress.
    pub fn progresses(&self, progress: Progress) {
        if let Some(charge) = &mut self.lock().charge {
            charge.progresses(progress);
        }
    }

    /// Takes note of where the running action's output is so far.
    pub fn wrote(&self, output: OutputRef) {
        if let Some(charge) = &mut self.lock().charge {
            charge.finished.output = output;
        }
    }
}

/// The minder, who is made if there is none.
///
/// # Errors
/// No thread can be made, or no descriptors are left.
pub fn ready(tools: &mut Tools) -> io::Result<Arc<Shared>> {
    if let Some(shared) = &tools.minder.shared {
        return Ok(Arc::clone(shared));
    }
    let shared = make(tools)?;
    Ok(Arc::clone(tools.minder.shared.insert(shared)))
}

/// Hands an action that begins over to the minder.
pub fn begin(tools: &mut Tools, shared: &Shared, mut charge: Box<Charge>) {
    let (counted_ns, counted) = &mut tools.minder.counted;
    if charge.started_ns.saturating_sub(*counted_ns) > COUNT_NS {
        (*counted_ns, *counted) = (charge.started_ns, usage::of_ourselves());
    }
    charge.used_before = *counted;
    charge.kept = std::mem::take(&mut tools.orders_kept);
    shared.flags.clear();
    if !charge.kept.is_empty() {
        let now = charge.started_ns;
        charge.take_orders(&mut tools.line, &shared.flags, now);
    }
    let mut desk = shared.lock();
    std::mem::swap(&mut desk.line, &mut tools.line);
    desk.charge = Some(charge);
    desk.turn += 1;
    if desk.is_parked {
        desk.is_parked = false;
        shared.bell.notify_one();
    }
}

/// Takes an action that has ended back from the minder, with what the worker was ordered meanwhile. There is one.
pub fn end(tools: &mut Tools, shared: &Shared) -> Option<Box<Charge>> {
    let mut desk = shared.lock();
    std::mem::swap(&mut desk.line, &mut tools.line);
    let mut charge = desk.charge.take()?;
    drop(desk);
    let Tools { line, stopping, next_settings, chores, .. } = tools;
    charge.hand_over(&mut Inbox { line, stopping, next_settings, chores });
    Some(charge)
}

/// Counts what an action has used that ends at `now`; nothing of a short one, which would cost it more than itself.
pub fn count(tools: &mut Tools, charge: &Charge, now: u64) -> Used {
    let wall_ns = now.saturating_sub(charge.started_ns);
    if wall_ns < COUNT_NS {
        return Used::default();
    }
    let used = usage::of_ourselves();
    tools.minder.counted = (now, used);
    difference(used, charge.used_before)
}

fn difference(now: Used, before: Used) -> Used {
    Used {
        user_us: now.user_us.saturating_sub(before.user_us),
        system_us: now.system_us.saturating_sub(before.system_us),
        max_rss_bytes: 0,
        read_bytes: now.read_bytes.saturating_sub(before.read_bytes),
        written_bytes: now.written_bytes.saturating_sub(before.written_bytes),
    }
}

fn make(tools: &Tools) -> io::Result<Arc<Shared>> {
    let line = tools.line.twin()?;
    let orders = tools.line.orders_fd().try_clone_to_owned()?;
    let desk = Mutex::new(Desk { line, charge: None, turn: 0, is_parked: false });
    let shared = Arc::new(Shared { flags: Flags::default(), desk, bell: Condvar::new() });
    let mut thread = Thread { shared: Arc::clone(&shared), pulse: tools.claimer.pulse(), orders, turn: 0, busy_ns: 0 };
    let builder = std::thread::Builder::new().name("acode-minder".to_owned()).stack_size(STACK_BYTES);
    // It is never joined: it lives as long as the worker.
    drop(builder.spawn(move || thread.live())?);
    panics::keep_quiet();
    failpoint!("minder.after-birth");
    Ok(shared)
}

/// The minder's own side.
struct Thread {
    shared: Arc<Shared>,
    pulse: Pulse,
    /// The order pipe, to be waited for without the lock.
    orders: OwnedFd,
    /// The charge that was looked at last.
    turn: u64,
    /// When there was a charge last.
    busy_ns: u64,
}

/// What the minder does until its next look.
enum Rest {
    Nap,
    /// Waits for orders, so many milliseconds at most.
    Watch(u64),
}

impl Thread {
    fn live(&mut self) {
        self.busy_ns = clock::monotonic_ns();
        loop {
            match self.round() {
                Rest::Nap => std::thread::sleep(NAP),
                Rest::Watch(ms) => {
                    let mut fds = [PollFd::new(self.orders.as_fd(), PollFlags::POLLIN)];
                    // An error is as good as the time being over.
                    let _ = poll(&mut fds, PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
                }
            }
        }
    }

    /// Looks at what is on the desk.
    fn round(&mut self) -> Rest {
        let shared = Arc::clone(&self.shared);
        let mut desk = shared.lock();
        let now = clock::monotonic_ns();
        let is_new = desk.turn != self.turn;
        self.turn = desk.turn;
        if is_new || desk.charge.is_some() {
            self.busy_ns = now;
        } else if now.saturating_sub(self.busy_ns) > PARK_NS {
            desk.is_parked = true;
            while desk.is_parked {
                desk = shared.bell.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            self.busy_ns = clock::monotonic_ns();
            // What has rung may be long over; if not, it is looked at like any other.
            return Rest::Nap;
        }
        let Desk { line, charge, .. } = &mut *desk;
        let Some(charge) = charge else { return Rest::Nap };
        self.pulse.beat(now);
        match charge.look(line, &shared.flags, now) {
            Found::Overdue(why) => end_worker(line, charge, why),
            // An order pipe that is closed is ready for ever.
            Found::Next(_) if is_new || charge.is_closed => Rest::Nap,
            Found::Next(at) => {
                Rest::Watch(at.saturating_sub(now).div_ceil(1_000_000).clamp(1, charge.beat_ms.clamp(1, WATCH_MS)))
            }
        }
    }
}

/// Ends this process, because its action does not end: what it has left is killed, and the end of the attempt reported. The
/// action goes on meanwhile, on the other thread, and cannot report anything: the lock is held.
fn end_worker(line: &mut Line, charge: &mut Charge, why: End) -> ! {
    failpoint!("minder.before-kill");
    let mut reaper = Reaper::new(0);
    for _ in 0..LAST_LOOKS {
        if reaper.reap() == Remains::Nothing {
            break;
        }
        charge.finished.leaked = true;
        tree::kill_all(None);
        std::thread::sleep(LAST_LOOK);
    }
    let used = difference(usage::of_ourselves(), charge.used_before);
    inline::overdue(charge, why, used);
    failpoint!("minder.before-report");
    // Nobody is there to hear it where the supervisor is gone.
    let told = line.report(&Report::Finished(Box::new(charge.finished.clone())));
    failpoint!("minder.after-report");
    let left = told.and_then(|()| line.report(&Report::Leaving));
    process::exit_now(if left.is_ok() { 0 } else { EXIT_ORPHANED })
}
