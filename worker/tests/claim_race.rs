//! Races real processes on one claim table: exactly once, first in first out, and nothing lost by SIGKILL.
//!
//! The binary has no harness: it must have one thread when it forks. Eight claimers run on a shared region; what they
//! have to tell they write into a second shared mapping, the ledger, whose marks make every check exact.
//! Deliberately absent: pipes, timing, and any tolerance in the counts.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use acode_worker::claim::{Claimer, Full, Geometry, LANES, Lane, NOBODY, Producer, Region, Ticket};
use acode_worker::task::{Class, WorkerId};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

const WORKERS: usize = 8;
const MAIL: usize = 256;
const TASKS_MAX: usize = 1_000_000;
const KILL_TASKS: usize = 200_000;
const DEADLINE: Duration = Duration::from_secs(300);

/// The second mapping: reports, and a set of marks for each task. Zero is its beginning.
struct Ledger {
    /// Set when no claimer shall wait for more.
    finish: AtomicU32,
    /// Claims that a claimer found wrong: out of order, or of a class that is not its own.
    wrong: AtomicU64,
    mail: [Mail; WORKERS],
    /// How often a claimer got each task.
    claimed: [AtomicU32; TASKS_MAX],
}

/// Reports of one claimer: tickets in a ring with one writer and one reader.
#[repr(align(128))]
struct Mail {
    read: AtomicU64,
    written: AtomicU64,
    slots: [AtomicU64; MAIL],
}

fn ledger() -> &'static Ledger {
    let size = NonZeroUsize::new(size_of::<Ledger>()).unwrap();
    // SAFETY: a new anonymous mapping of the right size; it is zero, which is a valid value of every atomic in it, it is
    // page-aligned, and it is never unmapped.
    unsafe {
        let memory =
            mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED).unwrap();
        memory.cast::<Ledger>().as_ref()
    }
}

impl Mail {
    /// Claimer: a report, written so that a killed writer leaves a whole one or none.
    fn post(&self, ticket: Ticket) {
        let at = self.written.load(Ordering::Relaxed);
        while at - self.read.load(Ordering::Acquire) == MAIL as u64 {
            std::thread::yield_now();
        }
        let packed = u64::from(ticket.slot) << 40 | ticket.generation;
        self.slots[at as usize % MAIL].store(packed, Ordering::Relaxed);
        self.written.store(at + 1, Ordering::Release);
    }

    /// Supervisor: the next report.
    fn take(&self) -> Option<Ticket> {
        let at = self.read.load(Ordering::Relaxed);
        if at == self.written.load(Ordering::Acquire) {
            return None;
        }
        let packed = self.slots[at as usize % MAIL].load(Ordering::Relaxed);
        self.read.store(at + 1, Ordering::Release);
        Some(Ticket { slot: (packed >> 40) as u32, generation: packed & ((1 << 40) - 1) })
    }
}

/// A payload: the task's number, its place in its lane, and the lane; long enough to be seen torn, if it were.
fn payload(task: u64, place: u64, lane: usize) -> Vec<u8> {
    [task, place, lane as u64, task ^ place, task].into_iter().flat_map(u64::to_ne_bytes).collect()
}

fn classes(row: usize) -> [Class; 2] {
    if row.is_multiple_of(2) { [Class::Any, Class::Process] } else { [Class::Any, Class::Docker] }
}

/// The life of a claimer process; `work` spins between claim and report, to be killed there too.
fn claimer(region: Arc<Region>, ledger: &Ledger, row: usize, work: u32) {
    let claimer = Claimer::new(region, row as u16, &classes(row)).unwrap();
    let mut bytes = Vec::new();
    let mut last = [None; LANES];
    loop {
        let finish = ledger.finish.load(Ordering::Acquire) != 0;
        let Some(ticket) = claimer.claim(&mut bytes) else {
            if finish {
                return;
            }
            std::thread::yield_now();
            continue;
        };
        claimer.holds(Some(ticket));
        let fields: Vec<u64> = bytes.chunks(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap())).collect();
        let [task, place, lane, check, again] = fields[..] else { panic!("a payload of {} bytes", bytes.len()) };
        let class = Lane::all().nth(lane as usize).unwrap().class;
        let in_order = last[lane as usize].replace(place).is_none_or(|before| before < place);
        if !in_order || task ^ place != check || task != again || !classes(row).contains(&class) {
            ledger.wrong.fetch_add(1, Ordering::Relaxed);
        }
        ledger.claimed[task as usize].fetch_add(1, Ordering::Relaxed);
        (0..work).for_each(|_| std::hint::spin_loop());
        claimer.holds(None);
        ledger.mail[row].post(ticket);
    }
}

/// The supervising side: what it has published, and what has come back.
struct Race {
    region: Arc<Region>,
    ledger: &'static Ledger,
    producer: Producer,
    pids: Vec<Pid>,
    work: u32,
    /// The task in each slot.
    running: Vec<u64>,
    places: [u64; LANES],
    /// How often each task was published, taken back, and reported as done.
    published: Vec<u32>,
    retracted: Vec<u32>,
    done: Vec<u32>,
    finished: usize,
}

impl Race {
    fn new(tasks: usize, work: u32) -> Self {
        let geometry = Geometry { workers: WORKERS as u16, slots: 1024, lane_capacity: 64 };
        let region = Arc::new(Region::create(geometry).unwrap());
        let counts = || vec![0; tasks];
        let mut race = Self {
            region: region.clone(),
            ledger: ledger(),
            producer: Producer::new(region),
            pids: Vec::new(),
            work,
            running: vec![0; 1024],
            places: [0; LANES],
            published: counts(),
            retracted: counts(),
            done: counts(),
            finished: 0,
        };
        race.pids = (0..WORKERS).map(|row| race.start(row)).collect();
        race
    }

    fn start(&mut self, row: usize) -> Pid {
        // SAFETY: this process has one thread, so the child may do all that the parent may.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                let id = WorkerId::generate(1).unwrap();
                self.producer.register(row as u16, id, child.as_raw() as u32, 1).unwrap();
                child
            }
            ForkResult::Child => {
                // A failed check ends the parent; its claimers must not outlive it.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
                let region = Region::open(self.region.fd().try_clone_to_owned().unwrap()).unwrap();
                claimer(Arc::new(region), self.ledger, row, self.work);
                std::process::exit(0)
            }
        }
    }

    /// Publishes a task in the lane that its number and attempt choose. False if there is no room.
    fn publish(&mut self, task: u64) -> bool {
        let index = (task as usize + self.published[task as usize] as usize) % LANES;
        let lane = Lane::all().nth(index).unwrap();
        match self.producer.publish(lane, &payload(task, self.places[index], index)) {
            Ok(ticket) => {
                self.places[index] += 1;
                self.published[task as usize] += 1;
                self.running[ticket.slot as usize] = task;
                // Now and then a task is taken back at once, if no claimer was faster.
                if task % 17 == 3 && self.retracted[task as usize] == 0 && self.producer.retract(ticket) {
                    self.retracted[task as usize] += 1;
                    return self.publish(task);
                }
                true
            }
            Err(Full::Slots | Full::Lane) => false,
            Err(Full::Payload(_)) => unreachable!("payloads are short"),
        }
    }

    /// Reads at most `limit` reports of a claimer; each must be for a task that it holds.
    fn collect(&mut self, row: usize, limit: usize) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(ticket) = self.ledger.mail[row].take()
        {
            assert_eq!(self.producer.holder(ticket), Some(row as u16));
            self.done[self.running[ticket.slot as usize] as usize] += 1;
            assert!(self.producer.release(ticket));
            count += 1;
        }
        self.finished += count;
        count
    }

    /// Kills a claimer, reads what it had reported, and takes back what it held. Returns the tasks to publish again.
    fn kill(&mut self, row: usize) -> Vec<u64> {
        kill(self.pids[row], Signal::SIGKILL).unwrap();
        assert_eq!(waitpid(self.pids[row], None), Ok(WaitStatus::Signaled(self.pids[row], Signal::SIGKILL, false)));
        self.collect(row, MAIL);
        let lost = self.producer.reclaim(row as u16);
        assert!(lost.len() <= 1, "a claimer held {lost:?}");
        assert_eq!(self.producer.reclaim(row as u16), []);
        self.producer.clear(row as u16).unwrap();
        self.pids[row] = self.start(row);
        let tasks = lost.iter().map(|t| self.running[t.slot as usize]).collect();
        for ticket in lost {
            assert_eq!(self.producer.holder(ticket), Some(NOBODY));
            assert!(self.producer.release(ticket));
        }
        tasks
    }

    /// Runs all tasks to their end; kills a random claimer each time that `kill_every` more are done. Returns how many
    /// claimers were killed, and how many of them had claimed and not reported.
    fn run(&mut self, kill_every: Option<usize>) -> (usize, usize) {
        let (deadline, tasks) = (Instant::now() + DEADLINE, self.done.len());
        let (mut next, mut again, mut kills, mut orphans) = (0, Vec::new(), 0, 0);
        // Between two kills only so much is read at once that the next kill is not overdue.
        let limit = kill_every.map_or(MAIL, |every| every.div_ceil(WORKERS));
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        while self.finished < tasks {
            let mut moved = (0..WORKERS).map(|row| self.collect(row, limit)).sum::<usize>();
            while let Some(task) = again.pop() {
                if !self.publish(task) {
                    again.push(task);
                    break;
                }
                moved += 1;
            }
            while next < tasks as u64 && self.publish(next) {
                (next, moved) = (next + 1, moved + 1);
            }
            if kill_every.is_some_and(|every| self.finished / every > kills) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let lost = self.kill((random >> 33) as usize % WORKERS);
                (kills, orphans) = (kills + 1, orphans + lost.len());
                again.extend(lost);
            }
            if moved == 0 {
                assert!(Instant::now() < deadline, "{} of {tasks} tasks are done, and nothing moves", self.finished);
                std::thread::yield_now();
            }
        }
        self.ledger.finish.store(1, Ordering::Release);
        for pid in &self.pids {
            assert_eq!(waitpid(*pid, None), Ok(WaitStatus::Exited(*pid, 0)));
        }
        (kills, orphans)
    }

    /// What must hold at the end of any race, for every single task.
    fn check(&mut self) {
        assert_eq!(self.ledger.wrong.load(Ordering::Relaxed), 0, "out of order, torn, or of a foreign class");
        assert_eq!(self.producer.free_slots(), 1024);
        assert_eq!(self.producer.total_ready(), 0);
        assert!(self.done.iter().all(|done| *done == 1), "a task was lost or done twice");
        for (task, claimed) in self.ledger.claimed[..self.done.len()].iter().enumerate() {
            let claimed = claimed.load(Ordering::Relaxed);
            let attempts = self.published[task] - self.retracted[task];
            assert!((1..=attempts).contains(&claimed), "task {task}: {claimed} claims of {attempts} attempts");
        }
    }
}

fn eight_processes_claim_every_task_exactly_once_and_in_order() {
    let mut race = Race::new(TASKS_MAX, 0);
    race.run(None);
    race.check();
    // No one was killed, so every attempt that was not taken back was claimed, once.
    let claimed = race.ledger.claimed.iter().map(|c| c.load(Ordering::Relaxed)).sum::<u32>();
    assert_eq!(claimed as usize, race.done.len());
}

fn claimers_killed_at_random_lose_nothing_and_double_nothing() {
    let mut race = Race::new(KILL_TASKS, 200);
    let (kills, orphans) = race.run(Some(200));
    race.check();
    assert!(kills >= race.done.len() / 400, "only {kills} claimers were killed");
    assert!(orphans > 0, "none of {kills} claimers was killed with a task in its hands");
    println!("    {kills} claimers killed, {orphans} of them held a task");
}

fn main() {
    let tests: [(&str, fn()); 2] = [
        (
            "eight_processes_claim_every_task_exactly_once_and_in_order",
            eight_processes_claim_every_task_exactly_once_and_in_order,
        ),
        (
            "claimers_killed_at_random_lose_nothing_and_double_nothing",
            claimers_killed_at_random_lose_nothing_and_double_nothing,
        ),
    ];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Runners ask with these before they run one test by its name.
    if arguments.iter().any(|a| a == "--list") {
        if !arguments.iter().any(|a| a == "--ignored") {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let begun = Instant::now();
    let chosen = tests.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    let mut passed = 0;
    println!("\nrunning {} tests", chosen.clone().count());
    for (name, test) in chosen {
        // A failure panics, which ends the process with an error, and its claimers with it.
        test();
        println!("test {name} ... ok");
        passed += 1;
    }
    let (out, seconds) = (tests.len() - passed, begun.elapsed().as_secs_f64());
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {out} filtered out; finished in {seconds:.2}s\n"
    );
}
