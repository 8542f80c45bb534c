//! This build held against another one, in turns within one run: what a change costs shows only so on a machine whose
//! speed drifts.

use std::path::Path;
use std::time::Instant;

use acode::wire::Bulk;

use super::Size;
use super::latency::Stamps;
use super::pool::{self, Outcome, Pool, beside, median, wait_all, wait_one};
use super::table::{Figure, Target};
use super::{proc, raw};

const TRUE: &[&str] = &["/bin/true"];
/// Both builds have all that is measured here; nothing in it is newer than the first of them.
const YAML: &str = "queue:\n  maxTasks: 20000000\n";

/// What is measured: a name, a unit, and whether more is better.
const MEASURED: [(&str, &str, bool); 7] = [
    ("/bin/true, distinct tasks", "tasks/s", true),
    ("/bin/true, an array", "tasks/s", true),
    ("processor time per task", "us", false),
    ("submits, one by one", "tasks/s", true),
    ("submits, bulk", "tasks/s", true),
    ("open connection to first instruction, p50", "ms", false),
    ("supervisor resident", "MB", false),
];

/// One round of one build: a value for each of `MEASURED`.
fn round(binary: &Path, size: Size) -> Outcome<[f64; MEASURED.len()]> {
    let count = size.of(6_000, 2_000);
    let pool = Pool::start_as(binary, 2, YAML)?;
    let mut client = pool.client()?;
    let rate = |count: u32, began: Instant| f64::from(count) / began.elapsed().as_secs_f64();
    let family = proc::family(pool.pid())?;
    let spent = proc::cpu_us(&family)?;
    let began = Instant::now();
    let mut bulk = Bulk::new(&mut client, false, |_| ());
    for _ in 0..count {
        bulk.push(&pool::task(TRUE))?;
    }
    bulk.finish()?;
    wait_all(&mut client)?;
    let distinct = rate(count, began);
    let cpu = (proc::cpu_us(&family)? - spent) / f64::from(count);
    let began = Instant::now();
    let id = pool::submit_one(&mut client, pool::array(TRUE, u64::from(count)))?;
    wait_one(&mut client, id)?;
    let array = rate(count, began);
    let later = || {
        let mut later = pool::task(TRUE);
        later.delay_ms = Some(3_600_000);
        later
    };
    let (single, many) = (size.of(1_000, 300), size.of(100_000, 20_000));
    let began = Instant::now();
    for _ in 0..single {
        pool::submit_one(&mut client, later())?;
    }
    let singles = rate(single, began);
    let began = Instant::now();
    let mut bulk = Bulk::new(&mut client, false, |_| ());
    for _ in 0..many {
        bulk.push(&later())?;
    }
    bulk.finish()?;
    let bulked = rate(many, began);
    let first = first_instruction(&pool, &mut client, size)?;
    Ok([distinct, array, cpu, singles, bulked, first, proc::rss_mb(pool.pid())?])
}

/// Milliseconds from a submission to its task's first instruction, the median.
fn first_instruction(pool: &Pool, client: &mut acode::wire::Client, size: Size) -> Outcome<f64> {
    let mut stamps = Stamps::new(pool.folder())?;
    let words = [beside("first_instruction")?, stamps.path().to_owned()];
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut times = Vec::new();
    for _ in 0..size.of(100, 30) {
        std::thread::sleep(std::time::Duration::from_millis(3));
        let then = acode_worker::sys::clock::monotonic_ns();
        let id = pool::submit_one(client, pool::task(&words))?;
        times.push(stamps.since(then)?);
        wait_one(client, id)?;
    }
    Ok(median(times))
}

/// This build against `other`.
pub fn against(other: &Path, size: Size) -> Outcome<Vec<Figure>> {
    let ours = beside("acode")?;
    let rounds = size.of(7, 3);
    let mut values: [[Vec<f64>; 2]; MEASURED.len()] = Default::default();
    raw::bare_loops(2_000)?;
    for n in 0..rounds {
        eprintln!("against {}, round {} of {rounds} ..", other.display(), n + 1);
        // Who goes first changes, so that neither always finds the warmer machine.
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        for who in order {
            let binary = if who == 0 { ours.as_path() } else { other };
            let round = round(binary, size)?;
            values.iter_mut().zip(round).for_each(|(both, value)| both[who].push(value));
        }
    }
    let figures = MEASURED.iter().zip(values).map(|((name, unit, more), [ours, theirs])| {
        let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let target = if *more { Target::RatioAtLeast(0.95) } else { Target::RatioAtMost(1.05) };
        Figure::new('=', *name, median(ours), unit).of("the other build", median(theirs)).ratio(ratio).target(target)
    });
    Ok(figures.collect())
}
