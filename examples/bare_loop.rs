//! The raw limit that the benchmarks compare with: one process that spawns a program and waits for it, N times.
//!
//! `bare_loop N [PROGRAM]` prints the seconds it took. Two of them at once are what two workers could do at best.
//! Deliberately absent: everything that a pool does.

use std::ffi::CString;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: u32 = args.next().ok_or("usage: bare_loop N [PROGRAM]")?.parse()?;
    let program = CString::new(args.next().unwrap_or_else(|| "/bin/true".to_owned()))?;
    let environment: Vec<CString> =
        std::env::vars().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect();
    let actions = nix::spawn::PosixSpawnFileActions::init()?;
    let attributes = nix::spawn::PosixSpawnAttr::init()?;
    let began = Instant::now();
    for _ in 0..count {
        let argv = [program.as_c_str()];
        let pid = nix::spawn::posix_spawn(program.as_c_str(), &actions, &attributes, &argv, &environment)?;
        nix::sys::wait::waitpid(pid, None)?;
    }
    println!("{:.6}", began.elapsed().as_secs_f64());
    Ok(())
}
