//! Point k: what dependencies cost a task, in the whole pool, beside independent tasks of the same run.
//!
//! A chain is compared with independent tasks on one worker and a flush of the disk for each, since a link can only start
//! when the end of the one before it is on disk; the rest with independent tasks on two workers.

use std::time::{Duration, Instant};

use acode::wire::{Bulk, Client};
use acode_worker::task::{Blocker, Dependency, DependencyKind, Priority, TaskId};

use super::Size;
use super::pool::{self, Outcome, Pool, median};
use super::raw;
use super::shapes::Shape;
use super::table::{Figure, Target};

const TRUE: &[&str] = &["/bin/true"];

/// Submits a graph; gives how long that took, and the last task.
fn submit(client: &mut Client, shape: Shape, count: u32, priority: Priority) -> Outcome<(Duration, Option<TaskId>)> {
    let (began, mut last) = (Instant::now(), None);
    let mut bulk = Bulk::new(client, true, |ids: &[TaskId]| last = ids.last().copied());
    for place in 0..count {
        let mut task = pool::task(TRUE);
        task.spec.priority = priority;
        let wait = |on: u32| Dependency { on: Blocker::Entry(on), when: DependencyKind::Succeeded };
        task.dependencies = shape.blockers(place, count).into_iter().map(wait).collect();
        bulk.push(&task)?;
    }
    bulk.finish()?;
    Ok((began.elapsed(), last))
}

/// Submits a graph and waits for its end: microseconds a task for the submission alone, and for everything.
fn run(client: &mut Client, shape: Shape, count: u32) -> Outcome<(f64, f64)> {
    let began = Instant::now();
    let (submitted, _) = submit(client, shape, count, Priority::Normal)?;
    pool::wait_all(client)?;
    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(count);
    Ok((each(submitted), each(began.elapsed())))
}

/// Microseconds of a flush of the disk.
fn flush_us(pool: &Pool) -> Outcome<f64> {
    Ok(1e6 / raw::flushes(pool.folder(), 500)?)
}

/// Point k.
pub fn graphs(size: Size) -> Outcome<Vec<Figure>> {
    let (count, rounds) = size.of((100_000, 1), (6_000, 3));
    let mut figures = Vec::new();
    for shape in Shape::GRAPHS {
        let (workers, beside) = if shape == Shape::Chain { (1, "independent and a flush") } else { (2, "independent") };
        let (mut submits, mut wholes, mut ratios, mut alone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let pool = Pool::start(workers)?;
            let mut client = pool.client()?;
            let (_, mut independent) = run(&mut client, Shape::Independent, count)?;
            let before = flush_us(&pool)?;
            let (submit, whole) = run(&mut client, shape, count)?;
            if shape == Shape::Chain {
                independent += (before + flush_us(&pool)?) / 2.0;
            }
            submits.push(submit);
            wholes.push(whole);
            ratios.push(whole / independent);
            alone.push(independent);
        }
        let name = format!("{} of {count}, submit alone", shape.name());
        figures.push(Figure::new('k', name, median(submits), "us/task"));
        let name = format!("{} of {count}, {workers} workers", shape.name());
        let figure = Figure::new('k', name, median(wholes), "us/task").of(beside, median(alone));
        figures.push(figure.ratio(median(ratios)).target(Target::RatioAtMost(2.0)));
    }
    figures.extend(link(size)?);
    Ok(figures)
}

/// The time from link to link of a chain, in a pool that does nothing else and in one that is busy, and what a link is
/// made of: one task alone, from its submission to its end, and a flush of the disk.
fn link(size: Size) -> Outcome<Vec<Figure>> {
    let links = size.of(2_000, 500);
    let pool = Pool::start(2)?;
    let mut client = pool.client()?;
    let flush = flush_us(&pool)?;
    let mut alone = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let id = pool::submit_one(&mut client, pool::task(TRUE))?;
        pool::wait_one(&mut client, id)?;
        alone.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let alone = median(alone);
    let (_, idle) = run(&mut client, Shape::Chain, links)?;
    // A chain of higher priority beside so many others that the workers never lack any.
    submit(&mut client, Shape::Independent, 10 * links, Priority::Low)?;
    let began = Instant::now();
    let (_, last) = submit(&mut client, Shape::Chain, links, Priority::High)?;
    pool::wait_one(&mut client, last.ok_or("no id")?)?;
    let busy = began.elapsed().as_secs_f64() * 1e6 / f64::from(links);
    pool::wait_all(&mut client)?;
    Ok(vec![
        Figure::new('k', "link of a chain, idle pool", idle, "us").of("one task alone", alone),
        Figure::new('k', "link of a chain, busy pool", busy, "us").of("one task alone", alone),
        Figure::new('k', "a flush of the disk", flush, "us"),
    ])
}
