//! How tasks are kept apart from everything else.

use serde::{Deserialize, Serialize};

/// How an attempt is, or was, kept apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Isolation {
    /// In a process tree of its own.
    #[default]
    Process = 0,
    /// In a container of its own, made through the docker CLI.
    Docker = 1,
    /// Not at all: an action in the worker itself.
    None = 2,
    /// An action in the worker itself, out of a shared object in a link namespace of its own.
    Library = 3,
}

impl Isolation {
    /// All of them, in the order of their stored numbers.
    pub const ALL: [Self; 4] = [Self::Process, Self::Docker, Self::None, Self::Library];
    /// Those that a worker can be made for: its mode.
    pub const MODES: [Self; 2] = [Self::Process, Self::Docker];

    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::None => "none",
            Self::Library => "library",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isolation| isolation.name() == name)
    }

    /// Whether a task that is kept apart so runs in the worker's own process.
    pub fn is_inline(self) -> bool {
        match self {
            Self::None | Self::Library => true,
            Self::Process | Self::Docker => false,
        }
    }

    /// The one with this stored number.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
