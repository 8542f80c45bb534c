//! How far this host lets limits be held: which step of the ladder of cgroups the pool stands on.
//!
//! Pure data. Deliberately absent: how it is found out and climbed, which is `sys::cgroup`'s.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The steps, the highest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// A part of the cgroup v2 hierarchy is ours, with controllers: the kernel holds limits.
    Delegated,
    /// Cgroups can be made, without controllers: trees of processes are killed at once, and limits only looked at.
    Core,
    /// No cgroup can be made.
    #[default]
    None,
}

impl Rung {
    /// Its name, as people and JSON see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delegated => "delegated",
            Self::Core => "core",
            Self::None => "none",
        }
    }
}

/// Which controllers tasks can be limited by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Controllers {
    /// `cpu.max`, `cpu.weight`.
    pub cpu: bool,
    /// `memory.max`, `memory.high`, `memory.swap.max`.
    pub memory: bool,
    /// `pids.max`.
    pub pids: bool,
    /// `io.max`, and on some devices `io.weight`.
    pub io: bool,
}

impl Controllers {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each with its name.
    pub fn named(&self) -> [(&'static str, bool); 4] {
        [("cpu", self.cpu), ("memory", self.memory), ("pids", self.pids), ("io", self.io)]
    }

    /// The names of those that are there.
    pub fn names(&self) -> Vec<String> {
        self.named().into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }

    /// Those of which `has` says so by name.
    pub fn from_names(has: impl Fn(&str) -> bool) -> Self {
        Self { cpu: has("cpu"), memory: has("memory"), pids: has("pids"), io: has("io") }
    }

    /// Those that are here and there.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu && other.cpu,
            memory: self.memory && other.memory,
            pids: self.pids && other.pids,
            io: self.io && other.io,
        }
    }
}

/// Where a pool stands on the ladder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ladder {
    /// The step.
    pub rung: Rung,
    /// The controllers that tasks can be limited by.
    pub controllers: Controllers,
    /// The cgroup under which the pool makes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Why it stands no higher, with a remedy where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
