//! Point e: what a pool costs that has nothing to do.

use std::time::{Duration, Instant};

use super::Size;
use super::pool::{Outcome, Pool, median};
use super::proc;
use super::table::{Figure, Target};

/// Point e.
pub fn idle(size: Size) -> Outcome<Vec<Figure>> {
    let seconds = size.of(60, 15);
    let mut figures = Vec::new();
    for workers in [2, 100] {
        let mut ups = Vec::new();
        for _ in 0..size.of(5, 2) {
            ups.push(Pool::start(workers)?.up.as_secs_f64() * 1e3);
        }
        let pool = Pool::start(workers)?;
        let family = proc::family(pool.pid())?;
        // What follows the start, as the first ticks, is over by then.
        std::thread::sleep(Duration::from_secs(3));
        let (began, before) = (Instant::now(), proc::sleeps(&family)?);
        std::thread::sleep(Duration::from_secs(seconds));
        let per_minute = (proc::sleeps(&family)? - before) as f64 * 60.0 / began.elapsed().as_secs_f64();
        let figure = |name: &str, value, unit| Figure::new('e', format!("{workers} workers: {name}"), value, unit);
        let (memory, up) =
            if workers == 100 { (Target::AtMost(10.0), Target::AtMost(200.0)) } else { (Target::None, Target::None) };
        figures.push(figure("memory of all (PSS)", proc::pss_mb(&family)?, "MB").target(memory));
        figures.push(figure("wake-ups of all, idle", per_minute, "/min"));
        figures.push(figure("from start to all ready", median(ups), "ms").target(up));
    }
    Ok(figures)
}
