//! A worker's row: who it is, and what it says about itself.
//!
//! Identity is written by the supervisor, the rest by the worker; the supervisor reads. Each field is one atomic
//! word, so nothing can be read half written. Deliberately absent: ownership of a task. The row's `held` is what the
//! worker says; the claim word of the slot is what is true.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::atomic::{AtomicU64, Ordering, fence};
use super::word::Ticket;
use crate::task::{LiveUse, WorkerId};

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum WorkerState {
    /// Made, not yet ready to claim.
    Starting = 1,
    /// Waiting for a task.
    Idle = 2,
    /// Running a task.
    Busy = 3,
    /// Its heartbeat stopped, or its row holds nonsense.
    Unhealthy = 4,
    /// Finishing, and claiming no more.
    Stopping = 5,
    /// Gone.
    Stopped = 6,
}

impl WorkerState {
    /// All states, in the order of a worker's life.
    pub const ALL: [Self; 6] = [Self::Starting, Self::Idle, Self::Busy, Self::Unhealthy, Self::Stopping, Self::Stopped];

    /// The state's name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    fn from_stored(value: u64) -> Self {
        Self::ALL.into_iter().find(|s| *s as u64 == value).unwrap_or(Self::Unhealthy)
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A row as it stood when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSnapshot {
    /// The worker's id.
    pub id: WorkerId,
    /// Its process id; only meaningful together with `start`.
    pub pid: u32,
    /// When the process started, in clock ticks since boot, from `/proc/<pid>/stat`.
    pub start: u64,
    /// What it says that it is doing.
    pub state: WorkerState,
    /// The task that it says it holds.
    pub held: Option<Ticket>,
    /// Its last heartbeat in nanoseconds of the monotonic clock; zero before the first.
    pub heartbeat_ns: u64,
    /// How many tasks it has claimed.
    pub claimed: u64,
    /// What its task uses; nothing before the first look at it.
    pub live: Option<LiveUse>,
}

/// One row in shared memory, with two cache lines to itself so that heartbeats do not disturb each other.
#[repr(C, align(128))]
pub(super) struct Row {
    id_high: AtomicU64,
    id_low: AtomicU64,
    pid: AtomicU64,
    start: AtomicU64,
    state: AtomicU64,
    held: AtomicU64,
    heartbeat: AtomicU64,
    claimed: AtomicU64,
    // From here on the second cache line: written only while a task runs for longer than a moment.
    live_cpu: AtomicU64,
    live_memory: AtomicU64,
    live_pids: AtomicU64,
    live_disk: AtomicU64,
}

impl Row {
    #[cfg(feature = "loom")]
    pub(super) fn zeroed() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            id_high: zero(),
            id_low: zero(),
            pid: zero(),
            start: zero(),
            state: zero(),
            held: zero(),
            heartbeat: zero(),
            claimed: zero(),
            live_cpu: zero(),
            live_memory: zero(),
            live_pids: zero(),
            live_disk: zero(),
        }
    }

    /// Supervisor: writes the identity. The worker may be running already, so a state that it has set is kept.
    pub(super) fn register(&self, id: WorkerId, pid: u32, start: u64) {
        let id = id.to_u128();
        self.id_high.store((id >> 64) as u64, Ordering::Relaxed);
        self.id_low.store(id as u64, Ordering::Relaxed);
        self.pid.store(u64::from(pid), Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        let starting = WorkerState::Starting as u64;
        let _ = self.state.compare_exchange(0, starting, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Supervisor: empties the row.
    pub(super) fn clear(&self) {
        let fields = [
            &self.id_high,
            &self.id_low,
            &self.pid,
            &self.start,
            &self.state,
            &self.held,
            &self.heartbeat,
            &self.claimed,
            &self.live_cpu,
            &self.live_memory,
            &self.live_pids,
            &self.live_disk,
        ];
        for field in fields {
            field.store(0, Ordering::Relaxed);
        }
    }

    /// Supervisor: what the row says; nothing if nobody is registered in it.
    pub(super) fn snapshot(&self) -> Option<RowSnapshot> {
        // Partner is the fence in `set_state`: after a publication, either this read sees that the worker is idle, or the
        // worker's look at the lanes before it sleeps sees the publication.
        fence(Ordering::SeqCst);
        let high = u128::from(self.id_high.load(Ordering::Relaxed));
        let id = high << 64 | u128::from(self.id_low.load(Ordering::Relaxed));
        (id != 0).then(|| RowSnapshot {
            id: WorkerId::from_u128(id),
            pid: self.pid.load(Ordering::Relaxed) as u32,
            start: self.start.load(Ordering::Relaxed),
            state: WorkerState::from_stored(self.state.load(Ordering::Relaxed)),
            held: Ticket::unpack(self.held.load(Ordering::Relaxed)),
            heartbeat_ns: self.heartbeat.load(Ordering::Relaxed),
            claimed: self.claimed.load(Ordering::Relaxed),
            live: self.live(),
        })
    }

    fn live(&self) -> Option<LiveUse> {
        let live = LiveUse {
            cpu_us: self.live_cpu.load(Ordering::Relaxed),
            memory_bytes: self.live_memory.load(Ordering::Relaxed),
            pids: self.live_pids.load(Ordering::Relaxed),
            disk_bytes: self.live_disk.load(Ordering::Relaxed),
        };
        (live != LiveUse::default()).then_some(live)
    }

    /// Worker: says what its task uses, but for the disk.
    pub(super) fn set_live(&self, cpu_us: u64, memory_bytes: u64, pids: u64) {
        self.live_cpu.store(cpu_us, Ordering::Relaxed);
        self.live_memory.store(memory_bytes, Ordering::Relaxed);
        self.live_pids.store(pids, Ordering::Relaxed);
    }

    /// Worker: says how much disk space its task uses.
    pub(super) fn set_live_disk(&self, bytes: u64) {
        self.live_disk.store(bytes, Ordering::Relaxed);
    }

    /// Worker: says what it does.
    pub(super) fn set_state(&self, state: WorkerState) {
        self.state.store(state as u64, Ordering::Relaxed);
        // Partner is the fence in `snapshot`.
        fence(Ordering::SeqCst);
    }

    /// Worker: says what it holds.
    pub(super) fn set_held(&self, held: Option<Ticket>) {
        self.held.store(held.map_or(0, Ticket::pack), Ordering::Relaxed);
    }

    /// Worker: stamps its heartbeat.
    pub(super) fn beat(&self, now_ns: u64) {
        self.heartbeat.store(now_ns, Ordering::Relaxed);
    }

    /// Worker: counts a claim. It is the only writer, so no read-modify-write is needed.
    pub(super) fn count_claim(&self) {
        self.claimed.store(self.claimed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}
