//! Points h, i and j: how soon a critical task starts before a long queue, what followers of events cost, and how
//! submits fare with a queue that is full.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use acode::wire::request::Events;
use acode::wire::{Bulk, Client};
use acode_worker::sys::clock;
use acode_worker::task::Priority;

use super::Size;
use super::latency::Stamps;
use super::pool::{self, Outcome, Pool, beside, median, percentile, wait_all, wait_one};
use super::raw;
use super::table::{Figure, Target};

const TRUE: &[&str] = &["/bin/true"];

fn submit_bulk(client: &mut Client, count: u32) -> Outcome {
    let mut bulk = Bulk::new(client, false, |_| ());
    for _ in 0..count {
        bulk.push(&pool::task(TRUE))?;
    }
    bulk.finish()?;
    Ok(())
}

/// Point h: from the submission of a critical task, behind 100,000 normal ones that both workers are running off, to
/// its first instruction. What is running is not preempted, so one short task is what it may have to wait for.
pub fn inversion(size: Size) -> Outcome<Vec<Figure>> {
    let (queued, rounds) = size.of((100_000, 100), (20_000, 30));
    let pool = Pool::start(2)?;
    let mut stamps = Stamps::new(pool.folder())?;
    let words = [beside("first_instruction")?, stamps.path().to_owned()];
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut client = pool.client()?;
    let measure = |client: &mut Client, stamps: &mut Stamps| -> Outcome<Vec<f64>> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            thread::sleep(Duration::from_millis(3));
            let mut critical = pool::task(&words);
            critical.spec.priority = Priority::Critical;
            let then = clock::monotonic_ns();
            let id = pool::submit_one(client, critical)?;
            times.push(stamps.since(then)?);
            wait_one(client, id)?;
        }
        Ok(times)
    };
    let mut idle = measure(&mut client, &mut stamps)?;
    submit_bulk(&mut client, queued)?;
    let mut behind = measure(&mut client, &mut stamps)?;
    let figure = |part, name, times: &mut [f64], idle: &mut [f64]| {
        let name = format!("critical task behind {queued} normal ones, {name}");
        Figure::new('h', name, percentile(times, part), "ms").of("the pool idle", percentile(idle, part))
    };
    Ok(vec![figure(0.5, "p50", &mut behind, &mut idle), figure(0.99, "p99", &mut behind, &mut idle)])
}

/// Follows all events until told to stop, and at least one more comes.
fn follow(mut client: Client, stop: &AtomicBool) {
    let request = Events { after: Some(0), follow: true, ..Events::default() };
    if let Ok(batches) = client.call_more(&request) {
        for _ in batches.take_while(|batch| batch.is_ok() && !stop.load(Ordering::Relaxed)) {}
    }
}

/// Point i: `/bin/true` with nobody, one, and ten following the events, and one that follows and never reads.
pub fn followers(size: Size) -> Outcome<Vec<Figure>> {
    let (count, rounds) = size.of((5_000, 5), (2_000, 3));
    let mut figures = Vec::new();
    let mut alone = None;
    for (readers, sleepers) in [(0, 0), (1, 0), (10, 0), (0, 1)] {
        let pool = Pool::start(2)?;
        let mut client = pool.client()?;
        let stop = AtomicBool::new(false);
        let mut costs = Vec::new();
        let mut asleep_clients = Vec::new();
        for _ in 0..sleepers {
            let mut asleep = pool.client()?;
            let _never_read = asleep.call_more(&Events { after: Some(0), follow: true, ..Events::default() })?;
            asleep_clients.push(asleep);
        }
        thread::scope(|scope| -> Outcome {
            for _ in 0..readers {
                let (client, stop) = (pool.client()?, &stop);
                scope.spawn(move || follow(client, stop));
            }
            for _ in 0..rounds {
                let before = raw::bare_loops(count)?;
                let began = Instant::now();
                submit_bulk(&mut client, count)?;
                wait_all(&mut client)?;
                let took = began.elapsed();
                let bare = (before + raw::bare_loops(count)?) / 2;
                costs.push(bare.as_secs_f64() / took.as_secs_f64());
            }
            stop.store(true, Ordering::Relaxed);
            // One more task, so that each follower hears something and looks.
            pool::submit_one(&mut client, pool::task(TRUE))?;
            Ok(())
        })?;
        let ratio = median(costs);
        let first = *alone.get_or_insert(ratio);
        let name = match (readers, sleepers) {
            (readers, 0) => format!("/bin/true, {readers} followers of events"),
            _ => "/bin/true, a follower that never reads".to_owned(),
        };
        figures.push(Figure::new('i', name, ratio, "of two bare loops").of("without followers", first));
    }
    Ok(figures)
}

/// Point j: bulk submits into a queue that is full while the pool works it off: nothing is lost, and the rate is that of
/// the workers.
pub fn full_queue(size: Size) -> Outcome<Vec<Figure>> {
    let count = size.of(8_000, 3_000);
    let yaml = "queue:\n  maxTasks: 2000\n  backpressureThreshold: 0.5\n";
    let pool = Pool::start_as(&beside("acode")?, 2, yaml)?;
    let mut client = pool.client()?;
    let before = raw::bare_loops(count)?;
    let began = Instant::now();
    submit_bulk(&mut client, count)?;
    let accepted = began.elapsed();
    wait_all(&mut client)?;
    let took = began.elapsed();
    let bare = f64::from(count) / ((before + raw::bare_loops(count)?) / 2).as_secs_f64();
    let per_second = |time: Duration| f64::from(count) / time.as_secs_f64();
    Ok(vec![
        Figure::new('j', "bulk submits to a full queue, accepted", per_second(accepted), "tasks/s")
            .of("two bare loops", bare),
        Figure::new('j', "the same, completed", per_second(took), "tasks/s")
            .of("two bare loops", bare)
            .target(Target::RatioAtLeast(0.8)),
    ])
}
