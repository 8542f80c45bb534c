//! A deterministic simulation of the pool: thousands of tasks, with time and bad luck as data.
//!
//! The supervisor's decisions are the real ones (`fill`, `desk`, `decide`, `judge`, `ledger`, `attempts`), on a real
//! claim table from which simulated workers claim. Under them is an oracle of the queue, and in some runs the real store
//! beside it. A witness checks after every event what was promised. Owner: the tests of the supervisor. Deliberately
//! absent: what needs a kernel (processes, pipes, sockets), which the tests through the real binary have.
//!
//! `script` says what happens from outside, `scene` has time and workers, `pool` and `clients` hold the real decisions
//! together, `disk` and `model` are the queue, `witness` the promises, `world` one run, `tests` many.

mod clients;
mod disk;
mod mixed;
mod model;
mod oracle;
mod pool;
mod rng;
mod scene;
mod script;
mod tests;
mod turns;
mod witness;
mod world;

/// What is broken on purpose, to see that the witness sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// A slot is freed when its end is reported, and not when that is on disk.
    ReleaseBeforeCommit,
    /// A dead worker's task is given to another one while its processes live.
    BuryTheLiving,
    /// Groups have no limits.
    NoGroupLimits,
    /// What a dead worker has reported is not read before its task is queued again.
    NoLastWords,
    /// Workers take tasks of every class.
    AnyClass,
}
