//! When what a task has left in its scratch directory is removed.

use serde::{Deserialize, Serialize};

/// After which ends something is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cleanup {
    /// After success only: what a failed attempt left is kept.
    Success,
    /// After failure only: what a successful attempt left is kept.
    Failure,
    /// After every attempt.
    #[default]
    Always,
    /// Never.
    Never,
}

impl Cleanup {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Always, Self::Success, Self::Failure, Self::Never];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Always => "always",
            Self::Never => "never",
        }
    }

    /// What removes only after ends after which both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let removes = |success| self.removes_after(success) && other.removes_after(success);
        match (removes(true), removes(false)) {
            (true, true) => Self::Always,
            (true, false) => Self::Success,
            (false, true) => Self::Failure,
            (false, false) => Self::Never,
        }
    }

    /// Whether it is removed after an attempt that ended so.
    pub fn removes_after(self, success: bool) -> bool {
        match self {
            Self::Success => success,
            Self::Failure => !success,
            Self::Always => true,
            Self::Never => false,
        }
    }
}
