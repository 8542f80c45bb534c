//! The atomics that the claim table is made of: the standard library's, or loom's under the feature `loom`.
//!
//! Everything else in this module names atomics through here, so the code that loom explores is the code that runs.
//! Deliberately absent: any wrapper. A difference between the two would be a thing that loom does not check.

#[cfg(not(feature = "loom"))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(feature = "loom")]
pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
