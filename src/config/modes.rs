//! Of which modes a pool's workers are, and in which proportion: `workers.mode`.
//!
//! Pure data. Deliberately absent: which mode the next worker gets, which is `supervisor::modes`'.

use std::fmt;
use std::str::FromStr;

use acode_worker::task::{Class, Isolation};

/// The modes of a pool's workers. The first one is the default: its workers take the tasks that do not say how they are
/// to be kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes {
    /// Each mode once, with its number of workers where numbers were given; then all have one, of at least 1.
    shares: Vec<(Isolation, Option<u32>)>,
}

/// A text says no modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no mode: process, docker, or both with their numbers, as in process:4,docker:2, is expected")]
pub struct ModesError(String);

/// The most workers of one mode.
const WORKERS_MAX: u32 = 1024;

impl Default for Modes {
    fn default() -> Self {
        Self { shares: vec![(Isolation::Process, None)] }
    }
}

impl Modes {
    /// All workers of this mode.
    pub fn only(mode: Isolation) -> Self {
        Self { shares: vec![(mode, None)] }
    }

    /// Workers for tasks of these classes too, of `count` in all, or 2 where there must be two kinds: what a pool for
    /// known work does. The default stays what it is, unless there is no task for it.
    #[must_use]
    pub fn serving(&self, classes: &[Class], count: u32) -> Self {
        let wanted = [(Class::Process, Isolation::Process), (Class::Docker, Isolation::Docker)];
        let missing = wanted.into_iter().find(|(class, mode)| classes.contains(class) && !self.has(*mode));
        let Some((class, mode)) = missing else { return self.clone() };
        if classes.iter().all(|other| *other == class) {
            return Self::only(mode);
        }
        let count = count.max(2);
        Self { shares: vec![(self.default_mode(), Some(count - count / 2)), (mode, Some(count / 2))] }
    }

    /// The mode whose workers take the tasks that do not say anything.
    pub fn default_mode(&self) -> Isolation {
        self.shares.first().map(|(mode, _)| *mode).unwrap_or_default()
    }

    /// Whether there are workers of this mode.
    pub fn has(&self, wanted: Isolation) -> bool {
        self.shares.iter().any(|(mode, _)| *mode == wanted)
    }

    /// The modes with their weights, the default first.
    pub fn weights(&self) -> impl Iterator<Item = (Isolation, u32)> {
        self.shares.iter().map(|(mode, count)| (*mode, count.unwrap_or(1)))
    }

    /// How many modes these are: so many workers there must be at the least.
    pub fn kinds(&self) -> u32 {
        u32::try_from(self.shares.len()).unwrap_or(u32::MAX)
    }

    /// How many workers that are together, if numbers were given.
    pub fn total(&self) -> Option<u32> {
        self.shares.iter().map(|(_, count)| *count).sum()
    }
}

impl FromStr for Modes {
    type Err = ModesError;

    /// Reads `docker`, or `process:4,docker:2`.
    fn from_str(text: &str) -> Result<Self, ModesError> {
        let wrong = || ModesError(text.to_owned());
        let mut shares: Vec<(Isolation, Option<u32>)> = Vec::new();
        for part in text.split(',') {
            let (name, count) = part.trim().split_once(':').map_or((part.trim(), None), |(n, c)| (n, Some(c)));
            let mode = Isolation::from_name(name).filter(|mode| !mode.is_inline()).ok_or_else(wrong)?;
            let count = count.map(|count| count.parse::<u32>().map_err(|_| wrong())).transpose()?;
            let is_new = shares.iter().all(|(known, _)| *known != mode);
            let fits = count.is_none_or(|count| (1..=WORKERS_MAX).contains(&count));
            if !is_new || !fits {
                return Err(wrong());
            }
            shares.push((mode, count));
        }
        // In which proportion they stand must be said, if there are two.
        let counted = shares.iter().filter(|(_, count)| count.is_some()).count();
        if shares.len() > 1 && counted < shares.len() { Err(wrong()) } else { Ok(Self { shares }) }
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (mode, count)) in self.shares.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match count {
                Some(count) => write!(f, "{comma}{mode}:{count}")?,
                None => write!(f, "{comma}{mode}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_for_known_work_has_workers_for_all_of_it() {
        let serving =
            |modes: &str, classes: &[Class], count| modes.parse::<Modes>().unwrap().serving(classes, count).to_string();
        assert_eq!(serving("process", &[Class::Any, Class::Process], 8), "process");
        assert_eq!(serving("process", &[Class::Docker], 8), "docker");
        assert_eq!(serving("process", &[Class::Any, Class::Docker], 5), "process:3,docker:2");
        assert_eq!(serving("docker", &[Class::Process, Class::Any], 1), "docker:1,process:1");
        assert_eq!(serving("process:1,docker:3", &[Class::Docker], 4), "process:1,docker:3");
        assert_eq!(serving("process:4", &[], 4), "process:4");
    }

    #[test]
    fn modes_are_read_with_and_without_numbers() {
        let read = |text: &str| text.parse::<Modes>();
        let mixed = read("process:4, docker:2").unwrap();
        assert_eq!((mixed.default_mode(), mixed.total()), (Isolation::Process, Some(6)));
        assert_eq!(mixed.to_string(), "process:4,docker:2");
        let docker = read("docker").unwrap();
        assert_eq!((docker.default_mode(), docker.total()), (Isolation::Docker, None));
        assert!(docker.has(Isolation::Docker) && !docker.has(Isolation::Process));
        for wrong in ["", "dock", "process,docker", "process:4,docker", "docker:0", "docker:2,docker:3", "docker:-1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
