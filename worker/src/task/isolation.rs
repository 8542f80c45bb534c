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
}

impl Isolation {
    /// All of them, in the order of their stored numbers.
    pub const ALL: [Self; 2] = [Self::Process, Self::Docker];

    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isolation| isolation.name() == name)
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
