//! The lower half of acode: what runs inside one worker process, and the contract by which the halves meet.
//!
//! The contract is the task vocabulary, the claim table in shared memory, the frames on the pipes, and the kernel
//! primitives. Deliberately absent: the queue, the control socket and the command line. A worker cannot open the
//! queue, because nothing in this crate can.
//!
//! With the feature `loom`, which is for the model checker alone, there is nothing but the claim table.

#[cfg(not(feature = "loom"))]
pub mod actions;
pub mod claim;
#[cfg(not(feature = "loom"))]
pub mod claim_loop;
#[cfg(not(feature = "loom"))]
pub mod execute;
#[cfg(not(feature = "loom"))]
pub mod nursery;
#[cfg(not(feature = "loom"))]
pub mod output;
#[cfg(not(feature = "loom"))]
pub mod room;
#[cfg(not(feature = "loom"))]
pub mod sys;
pub mod task;
#[cfg(not(feature = "loom"))]
pub mod wire;
