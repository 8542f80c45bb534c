//! Sandboxes in the configuration: the default for tasks, and what holds beside it.
//!
//! Deliberately absent: the pool's own directories, which `rundir` knows, and what a value means to a task.

use std::path::PathBuf;

use acode_worker::task::{DeviceAccess, FileAccess, NetworkAccess, Sandbox, SignalReach};

use super::Named;
use crate::tree::{Fault, Node};

/// `workers.sandbox`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandboxes {
    /// What tasks may reach that do not say otherwise.
    pub default: Sandbox,
    /// Whether a task may have less of a sandbox than that.
    pub may_loosen: bool,
    /// To whom tasks without a sandbox may send signals.
    pub signals: SignalReach,
    /// What can be read under `scratch` on top of programs and libraries. Absolute.
    pub readable: Vec<PathBuf>,
    /// What can be written under `read-only` and `scratch`. Absolute.
    pub writable: Vec<PathBuf>,
}

impl Named for SignalReach {
    const NAMES: &'static [(&'static str, Self)] = &[("own", Self::Own), ("host", Self::Host)];
}

/// What the part of a sandbox with this name may be, in words.
pub(super) fn allowed(part: &str) -> String {
    fn words<T>(names: &[(&str, T)]) -> String {
        names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" or ")
    }
    match part {
        "network" => words(&NetworkAccess::NAMES),
        "filesystem" => words(&FileAccess::NAMES),
        "devices" => words(&DeviceAccess::NAMES),
        _ => "a user, or USER:GROUP, or none".to_owned(),
    }
}

/// Puts the part of the default sandbox with this name into its place.
pub(super) fn apply(node: &Node<'_>, path: &str, part: &str, default: &mut Sandbox) -> Result<(), Fault> {
    let text = node.as_text(path).unwrap_or("none");
    if part == "user" && (node.is_null() || text == "none") {
        default.user = None;
        return Ok(());
    }
    default.set(part, node.as_text(path)?).map_err(|_| node.refused(path, &allowed(part)))
}

/// The part of a sandbox with this name, as it would be written.
pub(super) fn show(part: &str, default: &Sandbox) -> String {
    fn name<T: Copy + PartialEq>(names: &[(&'static str, T)], value: Option<T>) -> String {
        // What is not said is the first, which restricts nothing.
        let found = names.iter().find(|(_, known)| Some(*known) == value).or(names.first());
        found.map_or_else(String::new, |(name, _)| (*name).to_owned())
    }
    match part {
        "network" => name(&NetworkAccess::NAMES, default.network),
        "filesystem" => name(&FileAccess::NAMES, default.filesystem),
        "devices" => name(&DeviceAccess::NAMES, default.devices),
        _ => default.user.clone().unwrap_or_else(|| "none".to_owned()),
    }
}

/// A list of absolute paths.
pub(super) fn paths(node: &Node<'_>, path: &str, allowed: &str) -> Result<Vec<PathBuf>, Fault> {
    let one = |item: &Node<'_>| {
        let text = item.as_text(path)?;
        let fits = text.starts_with('/')
            && text.len() > 1
            && !text.contains('\0')
            && !text.split('/').any(|part| part == "..");
        if fits { Ok(PathBuf::from(text.trim_end_matches('/'))) } else { Err(item.refused(path, allowed)) }
    };
    node.items(path)?.iter().map(one).collect()
}
