//! A task that says when it began: writes the monotonic clock, eight bytes of nanoseconds, to the file named first.
//!
//! Used by the benchmark of the way from a submission to a task's first instruction. Deliberately absent: anything else.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = acode_worker::sys::clock::monotonic_ns();
    let path = std::env::args_os().nth(1).ok_or("usage: first_instruction FILE")?;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(&now.to_ne_bytes())?;
    Ok(())
}
