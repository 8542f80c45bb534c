//! The claim table: shared memory through which worker processes take tasks, each by one compare-and-swap.
//!
//! The supervisor publishes tasks into slots and appends their tickets to lanes; any worker claims the oldest of the
//! most urgent lane by changing that slot's word from ready to claimed-by-me. The table is a cache: the store is the
//! truth, and a table dies with its supervisor.
//!
//! Invariant: a slot's word alone says who owns it; there is no lock, and no second step of a claim.
//! Invariant: only the [`Producer`] makes a slot ready or free; only a [`Claimer`] makes it claimed by a worker.
//! Invariant: a ticket names one publication for ever; nothing acts on a ticket of another generation.
//! Invariant: a lane's head passes a position only after its publication is claimed or withdrawn.
//! Invariant: nothing in shared memory is trusted as an index or a size without a check; no peer can cause a panic.
//!
//! Deliberately absent: waiting. Who finds nothing sleeps on its order pipe, and the supervisor wakes it.

mod atomic;
mod claimer;
#[cfg(feature = "loom")]
mod heap;
mod lane;
mod producer;
#[cfg(not(feature = "loom"))]
mod region;
mod row;
mod slot;
mod table;
mod word;

pub use claimer::{Claimer, Pulse};
#[cfg(feature = "loom")]
pub use heap::Region;
pub use lane::{LANES, Lane};
pub use producer::{Full, NoSuchRow, Producer};
#[cfg(not(feature = "loom"))]
pub use region::Region;
pub use row::{RowSnapshot, WorkerState};
pub use slot::PAYLOAD_MAX;
pub use table::{Geometry, LayoutError};
pub use word::{GENERATION_MAX, NOBODY, SLOT_LIMIT, State, Ticket, Word, next_generation};
