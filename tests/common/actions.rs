//! Typed tasks of the program that has actions for tests: `examples/pool_actions.rs`.
//!
//! Deliberately absent: what they do, which that file says.

use acode_worker::task::{Action, Isolation, TaskSpec};
use serde_json::Value;

/// The path of the program: an acode with more actions. `cargo test` builds it with all other examples.
#[track_caller]
pub fn program() -> String {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/pool_actions");
    assert!(path.exists(), "{} is missing: cargo build --example pool_actions", path.display());
    path.to_str().unwrap().to_owned()
}

/// A task of one of its actions, in this isolation.
pub fn action(isolation: Isolation, name: &str, params: Value) -> TaskSpec {
    let action = Action { name: Some(name.to_owned()), params, ..Action::default() };
    TaskSpec { action: Some(Box::new(action)), isolation: Some(isolation), ..TaskSpec::default() }
}

/// A task of one of its actions, in the worker itself.
pub fn inline(name: &str, params: Value) -> TaskSpec {
    action(Isolation::None, name, params)
}
