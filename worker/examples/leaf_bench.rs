//! What a cgroup leaf and its limits cost a task: spawns of `/bin/true`, bare and in a leaf, round by round in turns.
//!
//! Prints one line of JSON for each way: the median in microseconds from just before the limits are put in place until the
//! process is reaped, and what that is above the bare spawn. Limits are enforced only where controllers are delegated; the
//! first line says so. Deliberately absent: the queue, the claim and the output, which have benchmarks of their own.

use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use acode_worker::sys::cgroup::{Grounds, Leaf, Leaves, Setting};
use acode_worker::sys::ladder::Ladder;
use acode_worker::sys::process;
use acode_worker::sys::spawn::{CStringArray, Spawn, spawn};

const ROUNDS: usize = 500;
const WAYS: [&str; 4] = ["bare", "leaf", "leaf and the same limits", "leaf and other limits each time"];

fn main() -> Result<(), Box<dyn Error>> {
    let (mut grounds, ladder) = match Grounds::find(u64::from(std::process::id())) {
        Ok(mut grounds) => {
            let ladder = grounds.build(i32::try_from(std::process::id())?)?;
            (Some(grounds), ladder)
        }
        Err(ladder) => (None, ladder),
    };
    let measured = measure(grounds.as_ref(), &ladder);
    if let Some(grounds) = grounds.take() {
        grounds.dissolve(Duration::from_secs(1));
    }
    measured
}

fn measure(grounds: Option<&Grounds>, ladder: &Ladder) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string(ladder)?);
    let leaves = match grounds {
        Some(grounds) => {
            let (_, home) = grounds.make_home(0)?;
            Some(Leaves::new(home.as_fd().try_clone_to_owned()?)?)
        }
        None => None,
    };
    let mut took: [Vec<f64>; WAYS.len()] = Default::default();
    for round in 0..ROUNDS {
        for (way, took) in took.iter_mut().enumerate() {
            let leaf = leaves.as_ref().map(Leaves::current);
            if way > 0 && leaf.is_none() {
                continue;
            }
            took.push(one(way, round, leaf)?);
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let bare = median(&mut took[0]).unwrap_or(0.0);
    for (name, took) in WAYS.iter().zip(&mut took) {
        if let Some(us) = median(took) {
            println!("{}", serde_json::json!({ "way": name, "us": us, "added_us": us - bare }));
        }
    }
    Ok(())
}

/// One spawn in this way, in microseconds.
fn one(way: usize, round: usize, leaf: Option<&Leaf>) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let leaf = leaf.filter(|_| way > 0);
    if let Some(leaf) = leaf.filter(|_| way > 1) {
        // The third way has a round's own numbers, so that each file is written.
        let own = if way == 3 { round as u32 + 1 } else { 0 };
        let settings = [
            Setting::cpu(400 + own),
            Setting::number("memory.max", u64::from(256 + own) << 20),
            Setting::number("memory.swap.max", u64::from(own) << 20),
            Setting::number("pids.max", u64::from(64 + own)),
        ];
        leaf.let_go_of_others(|file| settings.iter().any(|setting| setting.file == file));
        for setting in &settings {
            // Without controllers only the attempt is measured.
            let _ = leaf.hold(setting);
        }
    }
    let (mut argv, mut envp) = (CStringArray::default(), CStringArray::default());
    argv.push(&[b"true"]);
    argv.seal();
    envp.seal();
    let null = std::fs::File::open("/dev/null")?;
    let child = spawn(&Spawn {
        programs: &[c"/bin/true"],
        argv: &argv,
        envp: &envp,
        cwd: c"/",
        stdio: [null.as_fd(); 3],
        cgroup: leaf.map(AsFd::as_fd),
        rlimits: &[],
        umask: 0o077,
        heeds_quota: false,
        confinement: None,
    })?;
    process::wait(child.pidfd.as_fd())?;
    if let Some(leaf) = leaf.filter(|_| way > 1) {
        let _ = leaf.gauges().take_oom_kills();
    }
    Ok(began.elapsed().as_secs_f64() * 1e6)
}
