//! A program that behaves badly in exactly the way that it is told to: for the tests of limits.
//!
//!     hostile memory MIB [SECONDS]    touches so much memory, says `held MIB`, and holds it so long
//!     hostile burn THREADS SECONDS    keeps so many threads busy so long, and says `burned CPU WALL` in seconds
//!     hostile forks COUNT             makes so many children, each of which sleeps, says `made N`, and waits
//!     hostile bomb                    makes children that do the same, for ever
//!
//! Deliberately absent: anything clever. How much it takes must be plain from the words above.

use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, fork, pause};

const USAGE: &str = "usage: hostile memory MIB [SECONDS] | burn THREADS SECONDS | forks COUNT | bomb";
const PAGE: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["memory", mib] => memory(mib.parse()?, Duration::ZERO),
        ["memory", mib, seconds] => memory(mib.parse()?, Duration::from_secs_f64(seconds.parse()?)),
        ["burn", threads, seconds] => burn(threads.parse()?, Duration::from_secs_f64(seconds.parse()?)),
        ["forks", count] => return forks(count.parse()?),
        ["bomb"] => bomb(),
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

/// One MiB after the other, so that whoever watches sees it grow.
fn memory(mib: usize, hold: Duration) {
    let mut held = Vec::with_capacity(mib);
    for _ in 0..mib {
        let mut block = vec![0_u8; 1 << 20];
        // A page of zeroes takes no memory until it is written to.
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        held.push(std::hint::black_box(block));
    }
    say(&format!("held {mib}"));
    std::thread::sleep(hold);
    drop(held);
}

fn burn(threads: usize, long: Duration) {
    let (began, used) = (Instant::now(), processor_time());
    let busy = move || {
        while began.elapsed() < long {
            std::hint::spin_loop();
        }
    };
    let others: Vec<_> = (1..threads).map(|_| std::thread::spawn(busy)).collect();
    busy();
    others.into_iter().for_each(|other| drop(other.join()));
    // Whoever was held back at the end notices it late, so the time that passed counts, and not that which was asked for.
    say(&format!("burned {} {}", processor_time() - used, began.elapsed().as_secs_f64()));
}

/// The processor time of this process in seconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(TimeSpec::from_duration(Duration::ZERO));
    Duration::from(time).as_secs_f64()
}

/// Tells how many of the children could be made, and why no more.
fn forks(count: usize) -> Result<(), Box<dyn Error>> {
    for made in 0..count {
        // SAFETY: this process has one thread, so its copy is as whole as itself.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => loop {
                pause();
            },
            Ok(ForkResult::Parent { .. }) => {}
            Err(error) => {
                say(&format!("made {made}: {error}"));
                loop {
                    pause();
                }
            }
        }
    }
    say(&format!("made {count}"));
    loop {
        pause();
    }
}

fn bomb() {
    loop {
        // SAFETY: as above. What fails is tried again at once: that is what makes it a bomb.
        let _ = unsafe { fork() };
    }
}

fn say(line: &str) {
    // Whoever closed our output does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
