//! Points a, b and f: how many tasks and claims per second, and whether a long queue makes them dearer.

use std::process::Command;
use std::time::{Duration, Instant};

use acode::wire::{Bulk, Client};
use acode_worker::task::Isolation;

use super::Size;
use super::pool::{self, Outcome, Pool, beside, median, wait_all};
use super::proc;
use super::raw;
use super::table::{Figure, Target};

const TRUE: &[&str] = &["/bin/true"];

/// Submits distinct tasks through one connection.
fn submit_bulk(client: &mut Client, count: u32) -> Outcome {
    let mut bulk = Bulk::new(client, false, |_| ());
    for _ in 0..count {
        bulk.push(&pool::task(TRUE))?;
    }
    bulk.finish()?;
    Ok(())
}

/// One contender: its name, and how long it takes for so many tasks.
type Contender<'c> = (&'static str, Box<dyn FnMut(u32) -> Outcome<Option<Duration>> + 'c>);

fn peers<'c>() -> Vec<Contender<'c>> {
    let xargs = |n: u32| raw::peer("xargs", &format!("seq {n} | xargs -P2 -n1 /bin/true"));
    let make = |n: u32| {
        let rules = format!("seq {n} | sed 's/.*/t& /' | tr -d '\\n' > $d/l");
        let file = "printf 'T:=%s\\nall: $(T)\\n$(T):\\n\\t@/bin/true\\n.PHONY: all $(T)\\n' \"$(cat $d/l)\" > $d/m";
        raw::peer("make", &format!("d=$(mktemp -d); {rules}; {file}; make -s -j2 -f $d/m; s=$?; rm -r $d; exit $s"))
    };
    // So slow that a part of the tasks says enough.
    let tenth = |took: Option<Duration>| took.map(|took| took * 10);
    let parallel = move |n: u32| {
        // Another program of that name does something else.
        if !raw::says("parallel", "GNU parallel") {
            return Ok(None);
        }
        let script = format!("seq {} | parallel -j2 /bin/true", n / 10);
        Ok(tenth(raw::peer("parallel", &script)?))
    };
    let tsp = move |n: u32| {
        let wait = "while tsp | grep -qE 'queued|running'; do :; done";
        let all = format!("for i in $(seq {}); do tsp -n /bin/true; done; {wait}; tsp -K", n / 10);
        let script = format!("export TS_SOCKET=$(mktemp -u) TS_MAXFINISHED=10; tsp -S 2; {all}");
        Ok(tenth(raw::peer("tsp", &script)?))
    };
    vec![
        ("xargs -P2", Box::new(xargs)),
        ("make -j2", Box::new(make)),
        ("GNU parallel -j2", Box::new(parallel)),
        ("task-spooler", Box::new(tsp)),
    ]
}

/// Point a: `/bin/true`, two at a time.
pub fn tasks(size: Size) -> Outcome<Vec<Figure>> {
    let (count, rounds) = size.of((5_000, 5), (2_000, 3));
    let pool = Pool::start(2)?;
    let (mut first, mut second) = (pool.client()?, pool.client()?);
    let distinct = |n: u32| {
        let began = Instant::now();
        submit_bulk(&mut first, n)?;
        wait_all(&mut first)?;
        Ok(Some(began.elapsed()))
    };
    let array = |n: u32| {
        let began = Instant::now();
        pool::submit_one(&mut second, pool::array(TRUE, u64::from(n)))?;
        wait_all(&mut second)?;
        Ok(Some(began.elapsed()))
    };
    let mut contenders: Vec<Contender<'_>> =
        vec![("distinct tasks", Box::new(distinct)), ("an array", Box::new(array))];
    contenders.extend(peers());
    raw::bare_loops(count / 5)?;
    let mut rates = vec![Vec::new(); contenders.len()];
    let (mut ratios, mut bare_rates) = (rates.clone(), Vec::new());
    for _ in 0..rounds {
        // Each is held against the bare loops right before and right after it: a shared machine changes its speed.
        let mut before = raw::bare_loops(count)?;
        for (index, (_, run)) in contenders.iter_mut().enumerate() {
            let Some(took) = run(count)? else { continue };
            let after = raw::bare_loops(count)?;
            let bare = (before + after) / 2;
            bare_rates.push(f64::from(count) / bare.as_secs_f64());
            rates[index].push(f64::from(count) / took.as_secs_f64());
            ratios[index].push(bare.as_secs_f64() / took.as_secs_f64());
            before = after;
        }
    }
    let bare = median(bare_rates);
    let measured =
        contenders.iter().zip(rates).zip(ratios).enumerate().filter(|(_, ((_, rates), _))| !rates.is_empty());
    let figures = measured.map(|(index, (((name, _), rates), ratios))| {
        let target = if index < 2 { Target::RatioAtLeast(0.85) } else { Target::None };
        let name = if index < 2 { format!("/bin/true, {name}") } else { format!("peer: {name}") };
        Figure::new('a', name, median(rates), "tasks/s").of("two bare loops", bare).ratio(median(ratios)).target(target)
    });
    let mut figures: Vec<Figure> = figures.collect();
    figures.insert(0, processor_time(size)?);
    Ok(figures)
}

/// Processor time per task, ours beside the bare loops'. On a machine that does other work as well this is what can be
/// trusted: whoever has more processes gets more of the processors, so a ratio of rates flatters the pool.
fn processor_time(size: Size) -> Outcome<Figure> {
    let (count, rounds) = size.of((5_000, 5), (2_000, 3));
    // A worker that is replaced takes its processor time with it.
    let yaml = "workers:\n  recycle:\n    maxTasks: none\n";
    let pool = Pool::start_as(&beside("acode")?, 2, yaml)?;
    let mut client = pool.client()?;
    let own = [i32::try_from(std::process::id())?];
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let before = proc::cpu_us(&own)?;
        raw::bare_loops(count)?;
        bare.push((proc::cpu_us(&own)? - before) / f64::from(count));
        let family = proc::family(pool.pid())?;
        let before = proc::cpu_us(&family)?;
        submit_bulk(&mut client, count)?;
        wait_all(&mut client)?;
        ours.push((proc::cpu_us(&family)? - before) / f64::from(count));
    }
    let ratio = median(ours.iter().zip(&bare).map(|(ours, bare)| bare / ours).collect());
    let figure = Figure::new('a', "processor time per task, distinct", median(ours), "us");
    Ok(figure.of("two bare loops", median(bare)).ratio(ratio).target(Target::RatioAtLeast(0.85)))
}

/// Point b: claims per second.
pub fn claims() -> Outcome<Vec<Figure>> {
    let output = Command::new(beside("claim_bench")?).output()?;
    let mut figures = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let told: serde_json::Value = serde_json::from_str(line)?;
        let processes = told["processes"].as_u64().ok_or("no number of processes")?;
        let rate = told["claims_per_second"].as_f64().ok_or("no rate")?;
        let target = if processes == 1 { Target::AtLeast(2e6) } else { Target::None };
        figures.push(Figure::new('b', format!("claims, {processes} processes"), rate, "claims/s").target(target));
    }
    Ok(figures)
}

/// Point f: the cost of a task with so many in the queue.
pub fn depth(size: Size) -> Outcome<Vec<Figure>> {
    let (run, depths) = size.of((4_000, vec![1_000, 100_000, 1_000_000]), (2_000, vec![1_000, 100_000]));
    let pool = Pool::start(2)?;
    let mut client = pool.client()?;
    let mut figures = Vec::new();
    let (mut queued, mut base) = (0, None);
    for depth in depths {
        // What is queued is ready, but for workers of a mode that this pool has none of, so that the queue stays as
        // long as it is while the measured tasks run.
        let mut bulk = Bulk::new(&mut client, false, |_| ());
        for _ in queued..depth {
            let mut waiting = pool::task(TRUE);
            waiting.spec.isolation = Some(Isolation::Docker);
            bulk.push(&waiting)?;
        }
        bulk.finish()?;
        queued = depth;
        let mut costs = Vec::new();
        for _ in 0..3 {
            let before = raw::bare_loops(run)?;
            let began = Instant::now();
            let id = pool::submit_one(&mut client, pool::array(TRUE, u64::from(run)))?;
            pool::wait_one(&mut client, id)?;
            let took = began.elapsed();
            let bare = (before + raw::bare_loops(run)?) / 2;
            costs.push(took.as_secs_f64() / bare.as_secs_f64());
        }
        let cost = median(costs);
        let first = *base.get_or_insert(cost);
        let name = format!("cost of a task, {depth} queued");
        figures.push(Figure::new('f', name, cost, "bare tasks").of("at 1,000", first).target(Target::RatioAtMost(1.2)));
        let target = if depth == 100_000 { Target::AtMost(40.0) } else { Target::None };
        let name = format!("supervisor resident, {depth} queued");
        figures.push(Figure::new('f', name, proc::rss_mb(pool.pid())?, "MB").target(target));
    }
    Ok(figures)
}
