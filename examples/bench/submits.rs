//! Point d: durable submissions per second, beside the bare disk and the bare database.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::time::Instant;

use acode::wire::request::Submit;
use acode::wire::{Bulk, Client};
use acode_worker::task::Submission;

use super::Size;
use super::pool::{self, Outcome, Pool, median};
use super::raw;
use super::table::{Figure, Target};

/// Calls under way at once when pipelining.
const PIPELINE: usize = 64;

/// A task that waits an hour, so that what is measured is the submission alone.
fn waiting() -> Submission {
    Submission { delay_ms: Some(3_600_000), ..pool::task(&["/bin/true"]) }
}

fn one_by_one(client: &mut Client, count: u32) -> Outcome {
    for _ in 0..count {
        pool::submit_one(client, waiting())?;
    }
    Ok(())
}

fn pipelined(client: &mut Client, count: u32) -> Outcome {
    let mut under_way = VecDeque::new();
    for n in 0..count {
        client.queue(&pool::submit(vec![waiting()]))?;
        under_way.push_back(n);
        if under_way.len() == PIPELINE {
            client.flush()?;
            for _ in under_way.drain(..PIPELINE / 2) {
                client.receive::<Submit>()?;
            }
        }
    }
    for _ in under_way {
        client.receive::<Submit>()?;
    }
    Ok(())
}

fn bulk(client: &mut Client, count: u32) -> Outcome {
    let mut bulk = Bulk::new(client, false, |_| ());
    for _ in 0..count {
        bulk.push(&waiting())?;
    }
    bulk.finish()?;
    Ok(())
}

fn arrays(client: &mut Client, count: u32) -> Outcome {
    for _ in 0..count {
        let array = pool::array(&["/bin/true"], 1_000);
        pool::submit_one(client, Submission { delay_ms: Some(3_600_000), ..array })?;
    }
    Ok(())
}

/// How many per second.
fn rate(count: u32, work: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let began = Instant::now();
    work()?;
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Point d.
pub fn submits(size: Size) -> Outcome<Vec<Figure>> {
    let (rounds, scale) = size.of((5, 10), (3, 1));
    let mut rates: [Vec<f64>; 8] = Default::default();
    for _ in 0..rounds {
        let pool = Pool::start(2)?;
        let mut client = pool.client()?;
        let folder = pool.folder();
        let (single, many) = (scale * 200, scale * 10_000);
        let lines = scale * 20;
        let typed = ["task", "submit", "--delay", "1h", "--", "/bin/true"].map(OsStr::new);
        let measured = [
            raw::flushes(folder, single)?,
            raw::sqlite(folder, 1, single)?,
            rate(single, || one_by_one(&mut client, single))?,
            rate(scale * 1_000, || pipelined(&mut client, scale * 1_000))?,
            raw::sqlite(folder, 1_000, many / 1_000)?,
            rate(many, || bulk(&mut client, many))?,
            rate(scale * 100_000, || arrays(&mut client, scale * 100))?,
            match pool.has_command_line() {
                false => f64::NAN,
                true => rate(lines, || {
                    (0..lines).try_for_each(|_| match pool.command_line(&typed)? {
                        true => Ok(()),
                        false => Err("task submit failed".into()),
                    })
                })?,
            },
        ];
        rates.iter_mut().zip(measured).for_each(|(all, one)| all.push(one));
    }
    let [flush, sql, single, piped, sql_bulk, bulk, arrays, line] = rates.map(median);
    let figure = |name: &str, value, least| {
        Figure::new('d', format!("submits, {name}"), value, "tasks/s").target(Target::AtLeast(least))
    };
    let mut figures = vec![
        figure("one by one, one connection", single, 9_000.0).of("SQLite, a commit each", sql),
        figure("one by one, one connection", single, 9_000.0).of("bare write and fdatasync", flush),
        figure("pipelined, one connection", piped, 9_000.0).of("SQLite, a commit each", sql),
        figure("bulk, 1,000 a call", bulk, 200_000.0).of("SQLite, 1,000 a commit", sql_bulk),
        figure("arrays of 1,000, members", arrays, 1_000_000.0).of("SQLite, a commit each", sql),
    ];
    if line.is_finite() {
        figures.push(figure("command line, one after the other", line, 1_000.0).of("SQLite, a commit each", sql));
    }
    Ok(figures)
}
