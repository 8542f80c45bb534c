//! The sandbox of a task in a task file: a mapping, laid over that of `defaults`.
//!
//! Deliberately absent: whether the pool allows it, which is known when the task is started.

use acode_worker::task::Sandbox;

use crate::tree::{Entry, Fault, Node};

/// Reads `{network: none, ...}`; `none` in place of the mapping takes the defaults' back.
pub(super) fn read(sandbox: &mut Option<Sandbox>, node: &Node<'_>) -> Result<(), Fault> {
    if node.is_null() || node.as_text("sandbox").is_ok_and(|text| text == "none") {
        *sandbox = None;
        return Ok(());
    }
    let own = sandbox.get_or_insert_default();
    for Entry { at, key, node } in node.entries("sandbox")? {
        if !Sandbox::KEYS.contains(&key.as_ref()) {
            return Err(Fault::unknown_key(*at, key, "sandbox", Sandbox::KEYS));
        }
        let text = node.as_text(&format!("sandbox.{key}"))?;
        own.set(key, text).map_err(|error| Fault::other(node.at, error.to_string()))?;
    }
    Ok(())
}
