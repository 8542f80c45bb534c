//! The presets of the manual: configurations that can be copied, and that a pool starts from.
//!
//! Deliberately absent: what their keys do, which has tests of its own (`scaling.rs`, `recycling.rs`).

#[path = "common/command.rs"]
mod command;
mod common;

use command::Acode;
use common::{Options, Pool};

/// The indented block of the manual that begins with this comment.
fn preset(name: &str) -> String {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manual.md")).unwrap();
    let head = format!("    # acode.yaml: {name}");
    let lines = manual.lines().skip_while(|line| *line != head);
    let lines: Vec<_> = lines.map_while(|line| line.strip_prefix("    ")).collect();
    assert!(!lines.is_empty(), "the manual has no preset '{name}'");
    lines.join("\n")
}

#[test]
fn a_pool_starts_from_each_preset_of_the_manual() {
    for (name, min, max) in [("high throughput", 8, 16), ("much memory", 2, 4)] {
        let pool = Pool::prepare(Options::default());
        std::fs::write(pool.file("preset.yaml"), preset(name)).unwrap();
        let acode = Acode::of(&pool);
        acode.ok(&["worker", "start", "--detach", "--config", &pool.path("preset.yaml")]);
        let workers = acode.json(&["worker", "status"])["workers"].clone();
        assert_eq!((&workers["min"], &workers["max"]), (&min.into(), &max.into()), "{name}");
        assert_eq!(workers["scaling"], "auto", "{name}");
        let id = acode.ok(&["task", "submit", "--", "true"]);
        acode.ok(&["task", "wait", &id]);
        assert_eq!(acode.json(&["task", "show", &id])["state"], "completed", "{name}");
        acode.ok(&["worker", "stop"]);
    }
}

#[test]
fn a_pool_starts_from_the_mixed_one_of_the_manual() {
    let pool = Pool::prepare(Options::default());
    std::fs::write(pool.file("preset.yaml"), preset("a mixed pool")).unwrap();
    let acode = Acode::of(&pool);
    acode.ok(&["worker", "start", "--detach", "--config", &pool.path("preset.yaml")]);
    let status = acode.json(&["worker", "status"]);
    assert_eq!((&status["workers"]["target"], &status["workers"]["scaling"]), (&6.into(), &"off".into()));
    // The mode named first takes what does not say anything, whether or not there is an engine.
    let id = acode.ok(&["task", "submit", "--", "true"]);
    acode.ok(&["task", "wait", &id]);
    let task = acode.json(&["task", "show", &id]);
    assert_eq!((&task["state"], &task["attempts"][0]["isolation"]), (&"completed".into(), &"process".into()));
    acode.ok(&["worker", "stop"]);
}
