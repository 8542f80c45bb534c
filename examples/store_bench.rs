//! Prints what the queue costs: submits, finished tasks, graphs, looking for work, memory and opening, at growing sizes.
//!
//! Run: `cargo run --release --example store_bench [FOLDER] [TASKS]`. The folder should lie on the disk that counts; the
//! raw flush rate of the same disk is printed first. Deliberately absent: assertions. This measures; the tests judge.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acode::store::{AttemptEnd, NewTask, Next, Op, Store, Stream};
use acode_worker::task::{
    Array, Class, DependencyKind, Isolation, OutputRef, Priority, Submission, TaskId, TaskSpec, TaskState, TreeGuard,
    Usage, Verdict, WorkerId,
};

#[path = "bench/shapes.rs"]
mod shapes;

use shapes::Shape;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
const NOW_MS: u64 = 1_790_000_000_000;
const LANE: Stream = Stream { priority: Priority::Normal, class: Class::Any, group: 0 };

fn submission(array: Option<Array>) -> Submission {
    let spec = TaskSpec { command: vec!["/bin/true".into()], cwd: Some("/tmp".into()), ..TaskSpec::default() };
    Submission { spec, array, ..Submission::default() }
}

fn submit(store: &mut Store, count: usize) -> Outcome<Vec<Op>> {
    (0..count)
        .map(|_| {
            let id = store.allocate(NOW_MS, 1);
            Ok(Op::Submit(Arc::new(NewTask::new(id, NOW_MS * 1_000, submission(None), &[])?)))
        })
        .collect()
}

fn finish(id: TaskId, worker: WorkerId, length: u64) -> [Op; 2] {
    let end = AttemptEnd {
        id,
        attempt: 1,
        worker,
        verdict: Verdict::Exited { code: 0 },
        isolation: Isolation::Process,
        guard: TreeGuard::Cgroup,
        usage: Usage { wall_us: 900, user_us: 300, system_us: 400, max_rss_bytes: 1 << 20, ..Usage::default() },
        output: OutputRef { segment: 3, offset: 100_000, length, stdout_bytes: length, ..OutputRef::default() },
        started_us: NOW_MS * 1_000,
        finished_us: NOW_MS * 1_000 + id.seq(),
        leaked: false,
        error: None,
        result: None,
        reason: None,
        notes: acode::store::AttemptNotes::default(),
        next: Next::Final(TaskState::Completed),
    };
    [
        Op::Started { id, attempt: 1, worker, claimed_us: Some(NOW_MS * 1_000), at_us: NOW_MS * 1_000 },
        Op::Finished(Box::new(end)),
    ]
}

fn resident_kb() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

/// Flushes per second of the bare disk, 4 KiB each.
fn raw_flushes(folder: &Path, rounds: u32) -> Outcome<Duration> {
    let file = File::create(folder.join("raw"))?;
    file.write_all_at(&vec![1_u8; 4 << 20], 0)?;
    file.sync_all()?;
    let begin = Instant::now();
    for n in 0..rounds {
        file.write_all_at(&[2_u8; 4_096], u64::from(n % 1_000) * 4_096)?;
        file.sync_data()?;
    }
    Ok(begin.elapsed() / rounds)
}

fn bench_bulk(store: &mut Store, tasks: usize) -> Outcome {
    let (mut made, mut spent, mut submitted) = (0, Duration::ZERO, 0);
    let goals = [1_000, 100_000, tasks];
    for goal in goals {
        while made < goal {
            let ops = submit(store, 1_000)?;
            let begin = Instant::now();
            store.apply(&ops)?;
            spent += begin.elapsed();
            made += ops.len();
            submitted += ops.len();
        }
        let rate = submitted as f64 / spent.as_secs_f64();
        println!("bulk submit to {goal:>9} tasks, batches of 1000: {rate:>9.0} rows/s");
        (spent, submitted) = (Duration::ZERO, 0);
        let begin = Instant::now();
        let mut after = 0;
        for _ in 0..100 {
            let ready = store.ready(LANE, after, 100)?;
            after = ready.last().map_or(0, |r| r.place);
        }
        let per = begin.elapsed() / 100;
        println!("ready(100) with {goal:>9} pending: {per:?}, resident {} KiB", resident_kb()?);
    }
    Ok(())
}

fn bench_finish(store: &mut Store, worker: WorkerId) -> Outcome {
    let flush = raw_flushes(store.path().parent().ok_or("no folder")?, 500)?;
    for (batch, length) in [(1, 0), (20, 0), (200, 0), (20, 500), (200, 500)] {
        let (mut spent, mut done, mut rounds, mut after) = (Duration::ZERO, 0_u32, 0_u32, 0);
        while done < 10_000.min(batch as u32 * 1_000) {
            let ready = store.ready(LANE, after, batch)?;
            after = ready.last().map_or(0, |r| r.place);
            let ops: Vec<Op> = ready.iter().flat_map(|r| finish(r.id, worker, length)).collect();
            let begin = Instant::now();
            store.apply(&ops)?;
            spent += begin.elapsed();
            done += ready.len() as u32;
            rounds += 1;
        }
        let (per, round) = (spent / done, spent / rounds);
        println!(
            "finished tasks, batches of {batch:>3}, output {length:>3} bytes: {per:?} each, {round:?} a batch, of which a bare flush is {flush:?}"
        );
    }
    Ok(())
}

fn bench_single(store: &mut Store) -> Outcome {
    let rounds = 3_000;
    let mut ops = submit(store, rounds)?;
    let begin = Instant::now();
    for op in ops.drain(..) {
        store.apply(&[op])?;
    }
    let each = begin.elapsed() / rounds as u32;
    let raw = raw_flushes(store.path().parent().ok_or("no folder")?, 2_000)?;
    println!(
        "single submits: {:.0}/s ({each:?}); bare 4 KiB write and flush: {:.0}/s ({raw:?})",
        1.0 / each.as_secs_f64(),
        1.0 / raw.as_secs_f64()
    );
    Ok(())
}

fn bench_array(store: &mut Store, members: u64) -> Outcome {
    let id = store.allocate(NOW_MS, 1 + members);
    let array = Some(Array::Range { first: 0, count: members });
    let op = Op::Submit(Arc::new(NewTask::new(id, NOW_MS * 1_000, submission(array), &[])?));
    let begin = Instant::now();
    store.apply(&[op])?;
    println!("array of {members} members: {:?}", begin.elapsed());
    let begin = Instant::now();
    for to in 1..=100 {
        store.apply(&[Op::Expand { header: id, to: to * 200 }])?;
    }
    println!("expand, 200 members at a time: {:?} a member", begin.elapsed() / 20_000);
    Ok(())
}

/// The processor time of this process so far. Unlike the clock it does not count what else the machine does.
fn processor() -> Outcome<Duration> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    Ok(Duration::from_nanos(text.split_whitespace().next().ok_or("no figure")?.parse()?))
}

/// A graph in a queue of its own: microseconds of processor time a task for submitting and for finishing, so many ends to
/// a transaction.
fn graph(folder: &Path, shape: Shape, count: u32, batch: usize) -> Outcome<(f64, f64)> {
    let folder = tempfile::tempdir_in(folder)?;
    let mut store = Store::open(folder.path())?;
    let mut ids: Vec<TaskId> = Vec::new();
    let (mut ops, mut submitted) = (Vec::new(), Duration::ZERO);
    for place in 0..count {
        let id = store.allocate(NOW_MS, 1);
        let on = shape.blockers(place, count).into_iter();
        let dependencies = on.map(|on| (ids[on as usize], DependencyKind::Succeeded)).collect();
        let new = NewTask { dependencies, ..NewTask::new(id, NOW_MS * 1_000, submission(None), &[])? };
        ids.push(id);
        ops.push(Op::Submit(Arc::new(new)));
        if ops.len() == 1_000 || place + 1 == count {
            let begin = processor()?;
            store.apply(&ops)?;
            submitted += processor()?.saturating_sub(begin);
            ops.clear();
        }
    }
    let worker = WorkerId::generate(NOW_MS)?;
    let begin = processor()?;
    while store.counts().pending > 0 {
        let ready = store.ready(LANE, 0, batch)?;
        let ops: Vec<Op> = ready.iter().flat_map(|r| finish(r.id, worker, 0)).collect();
        let mut more = store.apply(&ops)?.more;
        while more {
            more = store.apply(&[Op::Continue])?.more;
        }
    }
    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(count);
    Ok((each(submitted), each(processor()?.saturating_sub(begin))))
}

fn bench_graphs(folder: &Path, count: u32) -> Outcome {
    for batch in [1, 60] {
        let (submit, finish) = graph(folder, Shape::Independent, count, batch)?;
        println!("independent, {batch} ends at a time: submit {submit:.1} us, finish {finish:.1} us a task");
        for shape in Shape::GRAPHS.into_iter().filter(|shape| (*shape == Shape::Chain) == (batch == 1)) {
            let (own_submit, own_finish) = graph(folder, shape, count, batch)?;
            let ratio = (own_submit + own_finish) / (submit + finish);
            let name = shape.name();
            println!(
                "{name} of {count}: submit {own_submit:.1} us, finish {own_finish:.1} us a task: {ratio:.2} times"
            );
        }
    }
    Ok(())
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "/var/tmp".into());
    let tasks = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let folder = tempfile::tempdir_in(folder)?;
    let worker = WorkerId::generate(NOW_MS)?;
    let mut store = Store::open(folder.path())?;
    bench_graphs(folder.path(), 100_000.min(tasks as u32))?;
    println!("resident at start: {} KiB", resident_kb()?);
    bench_single(&mut store)?;
    bench_bulk(&mut store, tasks)?;
    bench_finish(&mut store, worker)?;
    bench_array(&mut store, 10_000_000)?;
    println!("database: {} MiB", fs::metadata(store.path())?.len() >> 20);
    drop(store);
    let begin = Instant::now();
    let store = Store::open(folder.path())?;
    println!("open: {:?}, {:?}", begin.elapsed(), store.counts());
    Ok(())
}
