//! The benchmark of every number that the design promises, each beside its limit or peer from the same run.
//!
//! Run it by `scripts/bench [a b c ..] [--quick] [--json]`, which builds all that it needs. State directories are made
//! in /var/tmp, or in $ACODE_BENCH_DIR. Deliberately absent: verdicts that fail a build; a busy machine misses targets
//! that are none of its fault.

mod graph;
mod idle;
mod latency;
mod pool;
mod proc;
mod raw;
mod shapes;
mod submits;
mod table;
mod throughput;

use pool::Outcome;

/// How thorough a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    quick: bool,
}

impl Size {
    /// The first for a whole run, the second for a quick one.
    pub fn of<T>(self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}

const POINTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    if let Some(unknown) = args.iter().find(|a| !POINTS.contains(&a.as_str()) && *a != "--quick" && *a != "--json") {
        return Err(format!("'{unknown}' is unknown; usage: scripts/bench [a b c d e f g h] [--quick] [--json]").into());
    }
    let size = Size { quick: has("--quick") };
    let all = !POINTS.iter().any(|point| has(point));
    let mut figures = Vec::new();
    for point in POINTS.into_iter().filter(|point| all || has(point)) {
        eprintln!("point {point} ..");
        figures.extend(match point {
            "a" => throughput::tasks(size)?,
            "b" => throughput::claims()?,
            "c" => latency::first_instruction(size)?,
            "d" => submits::submits(size)?,
            "e" => idle::idle(size)?,
            "f" => throughput::depth(size)?,
            "g" => latency::death(size)?,
            _ => graph::graphs(size)?,
        });
    }
    let text = if has("--json") { table::json(&figures) + "\n" } else { table::render(&figures) };
    print!("{text}");
    Ok(())
}
