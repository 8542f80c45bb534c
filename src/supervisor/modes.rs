//! Of which mode workers are: how many of each there shall be, who is missing, who is too many, and which classes of tasks
//! they serve. Pure.
//!
//! Places are given out one by one, each to the mode that is furthest behind its share, and every mode has one before any
//! has two. So a pool of the configured number is exactly as configured, one more worker never takes another mode's
//! place, and shrinking is growing backwards. Deliberately absent: who becomes or leaves as a worker (`decide`).

use acode_worker::task::{Class, Isolation};
use acode_worker::wire::WorkerMode;

use crate::config::Modes;

/// A number for each mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByMode([u16; Isolation::ALL.len()]);

impl ByMode {
    /// How many of this mode.
    pub fn of(&self, mode: Isolation) -> u16 {
        self.0[mode as usize]
    }

    /// One more of this mode.
    pub fn add(&mut self, mode: Isolation) {
        self.0[mode as usize] = self.0[mode as usize].saturating_add(1);
    }

    /// One less of this mode.
    pub fn take(&mut self, mode: Isolation) {
        self.0[mode as usize] = self.0[mode as usize].saturating_sub(1);
    }

    /// All together.
    pub fn total(&self) -> u16 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl FromIterator<Isolation> for ByMode {
    fn from_iter<T: IntoIterator<Item = Isolation>>(modes: T) -> Self {
        let mut counts = Self::default();
        modes.into_iter().for_each(|mode| counts.add(mode));
        counts
    }
}

/// How many workers of each mode a pool of so many has.
pub fn shares(modes: &Modes, workers: u16) -> ByMode {
    let mut shares = ByMode::default();
    for _ in 0..workers {
        shares.add(next(modes, &shares));
    }
    shares
}

/// The mode furthest behind its share, where so many places are given out: the first of those that have none, else the
/// one whose weight for each of its places, counted to the middle of the next one, is the largest.
fn next(modes: &Modes, given: &ByMode) -> Isolation {
    let mut best: Option<(Isolation, u64, u64)> = None;
    for (mode, weight) in modes.weights() {
        let (weight, places) = (u64::from(weight), u64::from(given.of(mode)));
        if places == 0 {
            return mode;
        }
        let halves = 2 * places + 1;
        let better = best.is_none_or(|(_, other, of)| weight * of > other * halves);
        if better {
            best = Some((mode, weight, halves));
        }
    }
    best.map_or_else(|| modes.default_mode(), |(mode, ..)| mode)
}

/// The mode of which the most are missing.
pub fn most_behind(wanted: &ByMode, have: &ByMode) -> Option<Isolation> {
    let missing = |mode: Isolation| wanted.of(mode).saturating_sub(have.of(mode));
    // Of equals the last one would be taken.
    Isolation::ALL.into_iter().rev().filter(|mode| missing(*mode) > 0).max_by_key(|mode| missing(*mode))
}

/// The mode of which there are the most too many.
pub fn most_ahead(wanted: &ByMode, have: &ByMode) -> Option<Isolation> {
    most_behind(have, wanted)
}

/// What a worker of this mode is born as.
pub fn born_as(modes: &Modes, isolation: Isolation) -> WorkerMode {
    WorkerMode { isolation, serves_any: isolation == modes.default_mode() }
}

/// What the pool is called by its modes.
pub fn name(modes: &Modes) -> &'static str {
    match (modes.has(Isolation::Process), modes.has(Isolation::Docker)) {
        (true, true) => "mixed",
        (false, true) => Isolation::Docker.name(),
        (true, false) | (false, false) => Isolation::Process.name(),
    }
}

/// The mode that a task of this class asks for; none if it does not.
pub fn asked_by(class: Class) -> Option<Isolation> {
    match class {
        Class::Any => None,
        Class::Process => Some(Isolation::Process),
        Class::Docker => Some(Isolation::Docker),
    }
}

/// How a worker that nobody has seen any more kept a task of this class apart. `default` is the mode that takes tasks which
/// do not say, `modes` are the names of all modes of its pool's workers.
pub fn of_lost<'m>(class: Class, default: Isolation, modes: impl Iterator<Item = &'m str>) -> Isolation {
    let known: Vec<Isolation> = modes.filter_map(Isolation::from_name).collect();
    // If none was of the mode that is the default now, it was another one then.
    let default = if known.contains(&default) { default } else { known.first().copied().unwrap_or(default) };
    asked_by(class).unwrap_or(default)
}

/// The classes of tasks that a pool hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served([bool; Class::ALL.len()]);

impl Default for Served {
    /// Those of a pool of processes.
    fn default() -> Self {
        Self::by(&Modes::default(), 1, None)
    }
}

impl Served {
    /// The classes that so many workers of these modes take; `down` if none of them can use the engine.
    pub fn by(modes: &Modes, workers: u16, down: Option<Down>) -> Self {
        let shares = shares(modes, workers);
        let there = || Isolation::ALL.into_iter().filter(|mode| shares.of(*mode) > 0);
        let down_for = |mode| down.filter(|_| mode == Isolation::Docker);
        let workers = || there().map(|mode| (born_as(modes, mode), down_for(mode)));
        Self(Class::ALL.map(|class| workers().any(|(mode, down)| takes(mode, down, class))))
    }

    /// Whether this is one of them.
    pub fn has(&self, class: Class) -> bool {
        self.0[class as usize]
    }
}

/// How many tasks lie ready, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready(pub [usize; Class::ALL.len()]);

impl Ready {
    /// All together.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// How many of these a worker of this mode may take; while the engine is `down`, only what it may run without.
    pub fn for_worker(&self, mode: WorkerMode, down: Option<Down>) -> usize {
        Class::ALL.into_iter().filter(|class| takes(mode, down, *class)).map(|class| self.0[class as usize]).sum()
    }

    /// Takes away one that such a worker may take; false if there is none. What only its mode may take comes first.
    pub fn take(&mut self, mode: WorkerMode, down: Option<Down>) -> bool {
        let mut classes = [Class::Process, Class::Docker, Class::Any].into_iter();
        let found = classes.find(|class| takes(mode, down, *class) && self.0[*class as usize] > 0);
        if let Some(class) = found {
            self.0[class as usize] -= 1;
        }
        found.is_some()
    }
}

/// What a worker does whose engine cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// It runs tasks that do not ask for a container as processes.
    Process,
    /// It takes no task.
    Refuse,
}

/// Whether a worker of this mode takes tasks of this class.
pub fn takes(mode: WorkerMode, down: Option<Down>, class: Class) -> bool {
    let able = match (asked_by(class), down) {
        (_, None) => true,
        (Some(_), Some(_)) | (None, Some(Down::Refuse)) => false,
        (None, Some(Down::Process)) => true,
    };
    able && mode.takes(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Isolation::{Docker, Process};

    fn modes(text: &str) -> Modes {
        text.parse().unwrap()
    }

    fn pair(counts: ByMode) -> (u16, u16) {
        (counts.of(Process), counts.of(Docker))
    }

    #[test]
    fn shares_are_exact_at_the_configured_number_and_its_multiples() {
        for (text, process, docker) in
            [("process:4,docker:2", 4, 2), ("docker:7,process:3", 3, 7), ("process:1,docker:30", 1, 30)]
        {
            let modes = modes(text);
            let total = modes.total().unwrap() as u16;
            for times in 1..=5 {
                assert_eq!(pair(shares(&modes, times * total)), (times * process, times * docker), "{text}");
            }
        }
        assert_eq!(pair(shares(&modes("docker"), 5)), (0, 5));
        assert_eq!(pair(shares(&Modes::default(), 5)), (5, 0));
    }

    #[test]
    fn everybody_has_a_place_before_anybody_has_two_and_the_default_is_first() {
        let lopsided = modes("docker:100,process:1");
        assert_eq!(pair(shares(&lopsided, 0)), (0, 0));
        assert_eq!(pair(shares(&lopsided, 1)), (0, 1));
        assert_eq!(pair(shares(&lopsided, 2)), (1, 1));
        assert_eq!(pair(shares(&lopsided, 50)), (1, 49));
    }

    #[test]
    fn one_more_worker_takes_nobody_s_place() {
        for text in ["process:4,docker:2", "process:1,docker:1", "process:5,docker:3", "docker:100,process:1"] {
            let modes = modes(text);
            let mut before = ByMode::default();
            for workers in 1..400 {
                let now = shares(&modes, workers);
                assert_eq!(now.total(), workers);
                assert!(now.of(Process) >= before.of(Process) && now.of(Docker) >= before.of(Docker), "{text} {now:?}");
                let exact = |mode| {
                    let weight = modes.weights().find(|(of, _)| *of == mode).unwrap().1;
                    f64::from(workers) * f64::from(weight) / f64::from(modes.total().unwrap())
                };
                // Beside the first place, which everybody has, nobody is off by a whole one.
                let off = (f64::from(now.of(Docker)) - exact(Docker)).abs();
                assert!(off < 1.0 || now.of(Docker) == 1 || now.of(Process) == 1, "{text} {workers}: {now:?}");
                before = now;
            }
        }
    }

    #[test]
    fn who_is_missing_and_who_is_too_many() {
        let wanted = shares(&modes("process:4,docker:2"), 6);
        let have: ByMode = [Process, Process, Docker].into_iter().collect();
        assert_eq!((most_behind(&wanted, &have), most_ahead(&wanted, &have)), (Some(Process), None));
        let have: ByMode = [Docker; 4].into_iter().collect();
        assert_eq!((most_behind(&wanted, &have), most_ahead(&wanted, &have)), (Some(Process), Some(Docker)));
        assert_eq!((most_behind(&wanted, &wanted), most_ahead(&wanted, &wanted)), (None, None));
        let even: ByMode = [Process, Docker].into_iter().collect();
        assert_eq!(most_behind(&even, &ByMode::default()), Some(Process), "of equals the first");
    }

    #[test]
    fn a_lost_task_was_kept_apart_as_it_asked_or_as_the_workers_did() {
        let lost = |class, workers: &[&str]| of_lost(class, Process, workers.iter().copied());
        assert_eq!(lost(Class::Docker, &["process"]), Docker);
        assert_eq!(lost(Class::Any, &["docker", "process"]), Process);
        assert_eq!(lost(Class::Any, &["docker"]), Docker, "the default was another one");
        assert_eq!(lost(Class::Any, &[]), Process);
    }

    #[test]
    fn a_pool_hands_out_what_its_workers_take() {
        let classes = |text: &str, down| Class::ALL.map(|class| Served::by(&modes(text), 2, down).has(class));
        let served = |text: &str| classes(text, None);
        assert_eq!(Class::ALL, [Class::Any, Class::Process, Class::Docker]);
        assert_eq!(served("process"), [true, true, false]);
        assert_eq!(served("docker"), [true, false, true]);
        assert_eq!(served("process:1,docker:1"), [true, true, true]);
        assert_eq!(classes("docker", Some(Down::Process)), [true, false, false]);
        assert_eq!(classes("docker", Some(Down::Refuse)), [false, false, false]);
        assert_eq!(classes("process:1,docker:1", Some(Down::Refuse)), [true, true, false]);
        assert_eq!(classes("docker:1,process:1", Some(Down::Refuse)), [false, true, false]);
        let alone = Served::by(&modes("process:9,docker:1"), 1, None);
        assert!(!alone.has(Class::Docker), "the one worker that there is is of the default mode");
        assert_eq!((name(&modes("docker")), name(&modes("docker:1,process:3"))), ("docker", "mixed"));
    }

    #[test]
    fn a_worker_without_its_engine_takes_what_needs_none() {
        let mixed = modes("docker:1,process:1");
        let (docker, process) = (born_as(&mixed, Docker), born_as(&mixed, Process));
        let ready = Ready([5, 3, 2]);
        assert_eq!((ready.for_worker(docker, None), ready.for_worker(process, None)), (7, 3));
        assert_eq!(ready.for_worker(docker, Some(Down::Process)), 5);
        assert_eq!(ready.for_worker(docker, Some(Down::Refuse)), 0);
        let mut left = Ready([1, 0, 1]);
        assert!(!left.take(process, None), "neither is for it");
        assert!(left.take(docker, None) && left == Ready([1, 0, 0]), "what nobody else may take comes first");
        assert!(left.take(docker, Some(Down::Process)) && !left.take(docker, None));
    }
}
