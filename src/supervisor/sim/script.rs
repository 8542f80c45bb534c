//! The script: what people, machines and bad luck do to the pool, from a seed.
//!
//! Input number `n` is a function of the seed and of `n` alone, so a run with fewer inputs is a prefix of one with more,
//! and a failing seed can be shortened. Whom an input hits is a number that is resolved when it happens.

use acode_worker::task::{Class, DependencyKind, ExitCodes, Priority, Retries};

use super::disk::Health;
use super::rng::Rng;
use crate::config::Modes;

/// One entry of a submission.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Urgency.
    pub priority: Priority,
    /// Which workers may take it.
    pub class: Class,
    /// Members, if it is an array.
    pub members: Option<u64>,
    /// What it waits for: which of the tasks so far, counted back from the last one, and how that must end.
    pub needs: Vec<(u64, DependencyKind)>,
    /// Milliseconds before which it does not start.
    pub delay_ms: Option<u64>,
    /// Milliseconds after which it must have started.
    pub expires_ms: Option<u64>,
    /// It waits for a person.
    pub held: bool,
    /// Its limit group, from 1, which is its limit too.
    pub group: Option<u32>,
    /// Its own retries.
    pub retry: Option<Retries>,
}

/// At which point of a commit the supervisor is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// At once, between two turns of its loop.
    Now,
    /// At the next commit, before it.
    BeforeCommit,
    /// At the next commit, after it: nobody is told.
    AfterCommit,
}

/// One input.
#[derive(Debug, Clone)]
pub enum Input {
    /// A client submits these, in one request.
    Submit(Vec<Entry>),
    /// A client cancels one of the tasks so far.
    Cancel(u64),
    /// A client holds one of the tasks so far.
    Hold(u64),
    /// A client releases one of them.
    Release(u64),
    /// A client has one of the tasks so far run again.
    Retry(u64),
    /// Somebody sets the number of workers.
    Scale(u16),
    /// Somebody reads another configuration of their modes.
    Modes(Modes),
    /// A worker is killed.
    Kill(u64),
    /// A worker stops for ever, and says nothing.
    Hang(u64),
    /// The next so many workers die before they are ready.
    Stillborn(u32),
    /// The supervisor is killed, and started again after so many microseconds.
    Crash(CrashPoint, u64),
    /// The pool is told to stop, and is started again so many microseconds after it has.
    Stop {
        /// Whether its tasks are taken back at once.
        force: bool,
        /// How long they are waited for else.
        patience_ms: u64,
        /// See above.
        down_us: u64,
    },
    /// The disk is ill for so many microseconds.
    Disk(Health, u64),
}

/// What a seed's run is like: shares in a thousand inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Temper {
    cancels: u64,
    retries: u64,
    scalings: u64,
    deaths: u64,
    hangs: u64,
    stillbirths: u64,
    crashes: u64,
    stops: u64,
    disk: u64,
    /// Tasks in a thousand that kill their worker.
    pub poison: u64,
    /// Workers' steps in a hundred thousand at which they die by themselves.
    pub sudden: u64,
    /// Tasks in a thousand that belong to a limit group.
    groups: u64,
    /// The most entries of a request.
    burst: u64,
}

/// The script of one seed.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    seed: u64,
    /// What this run is like.
    pub temper: Temper,
    /// Whether its pool has workers of both modes.
    mixed: bool,
}

/// The modes of mixed pools, which somebody goes over between.
const MIXED: [&str; 4] = ["process:2,docker:2", "docker:3,process:1", "process:3,docker:1", "docker:1,process:9"];
/// In a mixed pool so many inputs in a thousand change its modes.
const MODE_CHANGES: u64 = 20;

/// The tempers, which the seeds take in turn.
const TEMPERS: [Temper; 6] = [
    // Calm: nothing but work.
    Temper { cancels: 0, retries: 0, scalings: 0, groups: 0, burst: 60, ..NONE },
    // People: who change their minds.
    Temper { cancels: 150, retries: 100, scalings: 80, burst: 30, ..NONE },
    // Workers that die.
    Temper {
        cancels: 50,
        retries: 50,
        deaths: 120,
        hangs: 40,
        stillbirths: 20,
        poison: 40,
        sudden: 300,
        burst: 30,
        ..NONE
    },
    // A supervisor that is killed, and stopped.
    Temper { cancels: 40, retries: 30, crashes: 60, stops: 40, deaths: 20, poison: 10, burst: 30, ..NONE },
    // A disk that is full now and then.
    Temper { cancels: 80, retries: 50, disk: 100, deaths: 20, poison: 10, burst: 30, ..NONE },
    // Everything.
    Temper {
        cancels: 80,
        retries: 60,
        scalings: 40,
        deaths: 60,
        hangs: 20,
        stillbirths: 20,
        crashes: 30,
        stops: 20,
        disk: 50,
        poison: 30,
        sudden: 150,
        groups: 60,
        burst: 30,
    },
];

const NONE: Temper = Temper {
    cancels: 0,
    retries: 0,
    scalings: 0,
    deaths: 0,
    hangs: 0,
    stillbirths: 0,
    crashes: 0,
    stops: 0,
    disk: 0,
    poison: 0,
    sudden: 0,
    groups: 60,
    burst: 1,
};

impl Script {
    /// The script of this seed.
    pub fn new(seed: u64) -> Self {
        let mixed = Rng::of(&[seed, 9]).per_mille(400);
        Self { seed, temper: TEMPERS[(seed % TEMPERS.len() as u64) as usize], mixed }
    }

    /// The modes that its pool starts with.
    pub fn modes(&self) -> Modes {
        if self.mixed { mixed(self.seed) } else { Modes::default() }
    }

    /// Input number `index`, and how many microseconds after the one before it comes.
    pub fn input(&self, index: u64) -> (u64, Input) {
        let mut rng = Rng::of(&[self.seed, 1, index]);
        let gap_us = match rng.below(10) {
            0..=5 => rng.below(2_000),
            6..=8 => rng.below(50_000),
            _ => rng.below(1_500_000),
        };
        (gap_us, self.choose(&mut rng))
    }

    fn choose(&self, rng: &mut Rng) -> Input {
        let Temper { cancels, retries, scalings, deaths, hangs, stillbirths, crashes, stops, disk, .. } = self.temper;
        let changes = if self.mixed { MODE_CHANGES } else { 0 };
        let which = [cancels, retries, scalings, deaths, hangs, stillbirths, crashes, stops, disk, changes];
        let mut die = rng.below(1_000);
        let chosen = which.iter().position(|share| match die.checked_sub(*share) {
            Some(left) => {
                die = left;
                false
            }
            None => true,
        });
        let down_us = rng.between(1_000, 3_000_000);
        match chosen {
            Some(0) => match rng.below(4) {
                0 => Input::Hold(rng.next()),
                1 => Input::Release(rng.next()),
                _ => Input::Cancel(rng.next()),
            },
            Some(1) => Input::Retry(rng.next()),
            Some(2) => Input::Scale(rng.between(1, 12) as u16),
            Some(3) => Input::Kill(rng.next()),
            Some(4) => Input::Hang(rng.next()),
            Some(5) => Input::Stillborn(rng.between(1, 3) as u32),
            Some(6) => {
                let points = [CrashPoint::Now, CrashPoint::BeforeCommit, CrashPoint::AfterCommit];
                Input::Crash(points[rng.below(3) as usize], down_us)
            }
            Some(7) => Input::Stop { force: rng.per_mille(300), patience_ms: rng.below(2_000), down_us },
            Some(8) => {
                let health = if rng.per_mille(400) { Health::InDoubt } else { Health::Full };
                Input::Disk(health, rng.between(1_000, 3_000_000))
            }
            Some(9) => Input::Modes(mixed(rng.next())),
            Some(_) | None => {
                let entries = rng.between(1, self.temper.burst);
                Input::Submit((0..entries).map(|_| entry(rng, self.temper.groups, self.mixed)).collect())
            }
        }
    }
}

/// The modes of a mixed pool by this number.
fn mixed(number: u64) -> Modes {
    MIXED[(number % MIXED.len() as u64) as usize].parse().unwrap_or_default()
}

fn entry(rng: &mut Rng, groups: u64, mixed: bool) -> Entry {
    let priority = Priority::ALL[[2, 2, 2, 2, 2, 2, 1, 0, 3, 3][rng.below(10) as usize]];
    let class = match rng.below(1_000) {
        0..150 => Class::Process,
        150..300 if mixed => Class::Docker,
        _ => Class::Any,
    };
    let members = rng.per_mille(25).then(|| match rng.below(10) {
        0 => rng.between(300, 900),
        _ => rng.between(1, 40),
    });
    let needs = match rng.below(10) {
        0 => (0..rng.between(1, 4)).map(|_| (rng.below(60), need(rng))).collect(),
        _ => Vec::new(),
    };
    let delay_ms = rng.per_mille(40).then(|| rng.between(1, 4_000));
    let retry = rng.per_mille(200).then(|| Retries {
        count: Some(rng.below(4) as u32),
        delay_ms: Some([0, 10, 500][rng.below(3) as usize]),
        max_delay_ms: Some(2_000),
        jitter: Some(0.2),
        max_crashes: rng.per_mille(300).then(|| rng.between(1, 5) as u32),
        on_codes: if rng.per_mille(200) { [1].into_iter().collect() } else { ExitCodes::default() },
        ..Retries::default()
    });
    let group = rng.per_mille(groups).then(|| rng.between(1, 5) as u32);
    let held = rng.per_mille(10);
    let expires_ms = rng.per_mille(20).then(|| delay_ms.unwrap_or(0) + rng.between(1, 3_000));
    Entry { priority, class, members, needs, delay_ms, expires_ms, held, group, retry }
}

fn need(rng: &mut Rng) -> DependencyKind {
    match rng.below(6) {
        0 => DependencyKind::Failed,
        1 | 2 => DependencyKind::Ended,
        _ => DependencyKind::Succeeded,
    }
}
