//! Point l: what a cgroup leaf and the limits in it add to the spawn of a task.
//!
//! Measured by a program of its own, `leaf_bench`, without a pool around it. Deliberately absent: a verdict where no
//! controllers are delegated; there the names of the figures say so.

use std::process::Command;

use super::pool::{Outcome, beside};
use super::table::{Figure, Target};

/// The most that a leaf with limits may add, in microseconds.
const ADDED_MAX_US: f64 = 1_000.0;

/// The added time of each way, beside the bare spawn.
pub fn leaf() -> Outcome<Vec<Figure>> {
    let output = Command::new(beside("leaf_bench")?).output()?;
    let mut lines = std::str::from_utf8(&output.stdout)?.lines();
    let ladder: serde_json::Value = serde_json::from_str(lines.next().ok_or("leaf_bench said nothing")?)?;
    let held = ladder["rung"] == "delegated";
    let mut figures = Vec::new();
    let mut bare = 0.0;
    for line in lines {
        let told: serde_json::Value = serde_json::from_str(line)?;
        let (way, us) = (told["way"].as_str().unwrap_or_default(), told["us"].as_f64().unwrap_or(0.0));
        if way == "bare" {
            bare = us;
            continue;
        }
        let note = if held || way == "leaf" { "" } else { " (no controllers here)" };
        let added = told["added_us"].as_f64().unwrap_or(0.0);
        let figure = Figure::new('l', format!("added to a spawn: {way}{note}"), added, "us");
        figures.push(figure.of("the bare spawn", bare).target(Target::AtMost(ADDED_MAX_US)));
    }
    Ok(figures)
}
