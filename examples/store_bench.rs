//! Prints what the queue costs: submits, finished tasks, looking for work, memory and opening, at growing sizes.
//!
//! Run: `cargo run --release --example store_bench [FOLDER] [TASKS]`. The folder should lie on the disk that counts; the
//! raw flush rate of the same disk is printed first. Deliberately absent: assertions. This measures; the tests judge.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acode::store::{AttemptEnd, NewTask, Next, Op, Store};
use acode_worker::task::{
    Array, Class, Isolation, OutputRef, Priority, Submission, TaskId, TaskSpec, TaskState, TreeGuard, Usage, Verdict,
    WorkerId,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
const NOW_MS: u64 = 1_790_000_000_000;
const LANE: (Priority, Class) = (Priority::Normal, Class::Any);

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

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "/var/tmp".into());
    let tasks = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let folder = tempfile::tempdir_in(folder)?;
    let worker = WorkerId::generate(NOW_MS)?;
    let mut store = Store::open(folder.path())?;
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
