//! Measures claims per second with 1, 2 and 8 claimer processes; prints one line of JSON for each.
//!
//! All slots are filled before a round, the claimers start together on a shared flag, and the clock runs from the flag
//! until the last of them has found the table empty; so the supervisor is not what is measured. Each claim copies a
//! payload of 256 bytes, as a short command's specification has. Deliberately absent: work, reports, and
//! sleeping; what a task costs around its claim is measured elsewhere.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use acode_worker::claim::{Claimer, Geometry, Lane, Producer, Region};
use acode_worker::task::{Class, Priority};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

const SLOTS: u32 = 8192;
const CLAIMS: u64 = 2_000_000;
const ROUNDS: u64 = CLAIMS.div_ceil(SLOTS as u64);
const RUNS: usize = 5;
const LANE: Lane = Lane { priority: Priority::Normal, class: Class::Any };

/// What the processes share beside the table. Zero is its beginning.
#[repr(C)]
struct Gate {
    /// The number of the round that has begun.
    round: AtomicU32,
    /// How many claimers have found the table empty, in all rounds together.
    emptied: AtomicU32,
    /// How many tasks were claimed, in all rounds together.
    claimed: AtomicU64,
}

fn gate() -> &'static Gate {
    let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let size = NonZeroUsize::MIN.saturating_add(size_of::<Gate>());
    // SAFETY: a new anonymous mapping, large enough, page-aligned, zero (valid for atomics), and never unmapped.
    unsafe { mmap_anonymous(None, size, flags, MapFlags::MAP_SHARED).expect("memory").cast::<Gate>().as_ref() }
}

/// A claimer's life: in each round claims until nothing is left.
fn claimer(region: Arc<Region>, gate: &Gate, row: u16, rounds: u32) {
    let claimer = Claimer::new(region, row, &[Class::Any, Class::Process]).expect("a row");
    let mut payload = Vec::new();
    for round in 1..=rounds {
        while gate.round.load(Ordering::Acquire) < round {
            std::thread::yield_now();
        }
        let mut claims = 0;
        while let Some(ticket) = claimer.claim(&mut payload) {
            std::hint::black_box((ticket, &payload));
            claims += 1;
        }
        gate.claimed.fetch_add(claims, Ordering::Relaxed);
        gate.emptied.fetch_add(1, Ordering::Release);
    }
}

/// Claims per second of one run.
fn run(processes: u16) -> f64 {
    let geometry = Geometry { workers: processes, slots: SLOTS, lane_capacity: SLOTS };
    let region = Arc::new(Region::create(geometry).expect("a region"));
    let (gate, mut producer) = (gate(), Producer::new(region.clone()));
    let pids: Vec<Pid> = (0..processes)
        // SAFETY: this process has one thread, so the child may do all that the parent may.
        .map(|row| match unsafe { fork() }.expect("a process") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a death signal");
                claimer(region.clone(), gate, row, ROUNDS as u32 + 1);
                std::process::exit(0)
            }
        })
        .collect();
    let mut seconds = 0.0;
    // The first round only maps the pages into the claimers.
    for round in 0..=ROUNDS {
        while producer.publish(LANE, &[round as u8; 256]).is_ok() {}
        let begun = Instant::now();
        gate.round.fetch_add(1, Ordering::Release);
        while u64::from(gate.emptied.load(Ordering::Acquire)) < (round + 1) * u64::from(processes) {
            std::thread::yield_now();
        }
        seconds += if round == 0 { 0.0 } else { begun.elapsed().as_secs_f64() };
        for ticket in (0..processes).flat_map(|row| producer.reclaim(row)).collect::<Vec<_>>() {
            assert!(producer.release(ticket));
        }
    }
    for pid in pids {
        waitpid(pid, None).expect("a child");
    }
    assert_eq!(gate.claimed.load(Ordering::Relaxed), (ROUNDS + 1) * u64::from(SLOTS));
    (ROUNDS * u64::from(SLOTS)) as f64 / seconds
}

fn main() {
    for processes in [1, 2, 8] {
        let mut rates: Vec<f64> = (0..RUNS).map(|_| run(processes)).collect();
        rates.sort_by(f64::total_cmp);
        println!("{{\"processes\":{processes},\"claims_per_second\":{:.0}}}", rates[RUNS / 2]);
    }
}
