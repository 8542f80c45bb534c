//! The benchmark of every number that the design promises, each beside its limit or peer from the same run.
//!
//! Run it by `scripts/bench [a b c ..] [--quick] [--json] [--against BINARY]`, which builds all that it needs. State
//! directories are made in /var/tmp, or in $ACODE_BENCH_DIR. Deliberately absent: verdicts that fail a build; a busy
//! machine misses targets that are none of its fault.

mod actions;
mod against;
#[path = "../../tests/common/daemon.rs"]
mod daemon;
mod docker;
mod graph;
mod idle;
mod latency;
mod leaf;
mod pool;
mod pressure;
mod proc;
mod raw;
mod shapes;
mod submits;
mod table;
mod throughput;

use std::process::ExitCode;

use acode::api::Registry;
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

const POINTS: [&str; 14] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"];
const USAGE: &str = "usage: scripts/bench [a b c d e f g h i j k l m n] [--quick] [--json] [--against BINARY]";

fn main() -> ExitCode {
    acode::api::init(Registry::built_in().with::<actions::Noop>());
    if std::env::var_os(actions::AS_ACODE).is_some() {
        return acode::cli::main();
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Outcome {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let other = match args.iter().position(|arg| arg == "--against") {
        Some(place) if place + 1 < args.len() => {
            args.remove(place);
            Some(std::path::PathBuf::from(args.remove(place)))
        }
        Some(_) => return Err(format!("--against needs an acode binary; {USAGE}").into()),
        None => None,
    };
    let has = |name: &str| args.iter().any(|arg| arg == name);
    if let Some(unknown) = args.iter().find(|a| !POINTS.contains(&a.as_str()) && *a != "--quick" && *a != "--json") {
        return Err(format!("'{unknown}' is unknown; {USAGE}").into());
    }
    let size = Size { quick: has("--quick") };
    let all = other.is_none() && !POINTS.iter().any(|point| has(point));
    let mut figures = Vec::new();
    if let Some(other) = other {
        figures.extend(against::against(&other, size)?);
    }
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
            "h" => pressure::inversion(size)?,
            "i" => pressure::followers(size)?,
            "j" => pressure::full_queue(size)?,
            "k" => graph::graphs(size)?,
            "l" => leaf::leaf()?,
            "m" => docker::containers(size)?,
            _ => actions::actions(size)?,
        });
    }
    let text = if has("--json") { table::json(&figures) + "\n" } else { table::render(&figures) };
    print!("{text}");
    Ok(())
}
