//! The clocks: one that people read, one that never jumps, and one that counts what a thread works.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock; the same clock in all processes of this boot.
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC, 1_000_000_000, 1)
}

/// Microseconds of Unix time.
pub fn unix_us() -> i64 {
    i64::try_from(read(ClockId::CLOCK_REALTIME, 1_000_000, 1_000)).unwrap_or(i64::MAX)
}

/// Nanoseconds of processor time that the calling thread has used.
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID, 1_000_000_000, 1)
}

fn read(clock: ClockId, per_second: u64, nanos_per_unit: u64) -> u64 {
    // These clocks exist on every Linux, so the call cannot fail; zero keeps a miracle from becoming a panic.
    clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * per_second + t.tv_nsec() as u64 / nanos_per_unit)
}
