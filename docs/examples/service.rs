//! A service that has its pool inside: whatever it has accepted is done, whoever is killed when.
//!
//!     service FOLDER
//!
//! Each line of its standard input is a piece of work; it says `accepted LINE` when that is on disk. What comes of it is a
//! line of `FOLDER/results`. On SIGTERM or SIGINT it lets finish what runs, and leaves the rest to its next start. When it is
//! killed its pool ends with it, and the next start goes on from there: the queue is durable, and how far the results have
//! been written is remembered by the number of an event. A result may be there twice then, and never not at all.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use acode::api::{
    self, ActionError, ApiError, Context, EventKind, Isolation, Registry, Task, WorkAction, WorkerPool,
    WorkerPoolOptions,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The work: a text turned round, slowly.
struct Reverse;

impl WorkAction for Reverse {
    const NAME: &'static str = "reverse";
    type Params = String;
    type Output = String;

    fn execute(text: String, context: &mut Context<'_>) -> Result<String, ActionError> {
        for _ in 0..10 {
            context.check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(text.chars().rev().collect())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The pool executes this program again for its other processes: this call does their work.
    api::init(Registry::built_in().with::<Reverse>());
    let folder = std::env::args_os().nth(1).ok_or("usage: service FOLDER")?;
    let folder = std::path::absolute(folder)?;
    fs::create_dir_all(&folder)?;

    let options = WorkerPoolOptions::default().durable(folder.join("queue")).worker_count(2);
    let pool = WorkerPool::start(options.drain_timeout(Duration::from_secs(30)))?;
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let collector = std::thread::spawn({
        let (pool, folder) = (pool.clone(), folder.clone());
        move || collect(&pool, &folder).map_err(|error| acode::error_chain(&*error))
    });
    std::thread::spawn({
        let pool = pool.clone();
        move || accept(&pool)
    });
    wait_for(signals);
    eprintln!("service: stopping");
    pool.stop(false)?;
    // The stream of events ends with the pool, and everything before that has been collected.
    collector.join().map_err(|_| "the collector has panicked")??;
    Ok(())
}

fn wait_for(mut signals: Signals) {
    signals.forever().next();
}

/// Takes work until there is none any more. What it has said yes to is on disk.
fn accept(pool: &WorkerPool) -> Result<(), ApiError> {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let task = Task::of::<Reverse>(&line)?.isolation(Isolation::None).name("line");
        match pool.submit(task) {
            Ok(_) => println!("accepted {line}"),
            Err(error) => eprintln!("service: {line}: {error}"),
        }
    }
    Ok(())
}

/// Writes down what has come of the work, from where the last life of this service has got to.
fn collect(pool: &WorkerPool, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let place = folder.join("seen");
    let seen = fs::read_to_string(&place).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let mut results = File::options().create(true).append(true).open(folder.join("results"))?;
    for event in pool.events_after(seen)? {
        let event = event?;
        let (Some(EventKind::TaskCompleted), Some(id)) = (event.kind, event.task) else { continue };
        // The pool may be gone before it could be asked: then the queue knows.
        let text: String = pool.handle(id).wait()?.output()?;
        writeln!(results, "{text}")?;
        results.sync_data()?;
        // In one step: half a number would be another number.
        fs::write(folder.join("seen.new"), event.seq.to_string())?;
        fs::rename(folder.join("seen.new"), &place)?;
    }
    Ok(())
}
