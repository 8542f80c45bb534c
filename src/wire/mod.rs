//! The control protocol: how the command line, and anybody else on this machine, talks to a running pool.
//!
//! It is Varlink: JSON messages, each ended by a NUL byte, over a Unix stream socket. The interface is `io.acode`,
//! written down in `io.acode.varlink`. Deliberately absent: threads, an async runtime, and any I/O of the server's
//! side. [`Inbox`] and [`Outbox`] are byte buffers that the supervisor's event loop fills and empties; [`Client`] is
//! the blocking other end.
//!
//! Owner of a connection's state is whoever holds its `Inbox` and `Outbox`. Bytes from a peer never panic us: they
//! become a [`Call`], or a [`CallError`] to answer with, or a reason to hang up.

mod bulk;
pub mod client;
mod codec;
mod engine;
mod error;
pub mod metrics;
mod peer;
mod record;
pub mod reply;
pub mod request;
mod stamp;
mod task_ref;
pub mod types;
mod usage;

pub use client::{Bulk, Client, ClientError, Slowness};
pub use codec::{Inbox, Outbox, OutboxFull, TooLarge};
pub use engine::{EngineRecord, ModeCounts};
pub use error::CallError;
pub use metrics::MetricsRecord;
pub use peer::{PeerError, check_peer};
pub use request::{BadCall, Call, Method, Request};
pub use stamp::{Stamp, StampError};
pub use task_ref::{TaskRef, TaskRefError};
pub use usage::{CgroupRecord, LiveRecord, Rung, RunningUse, TaskUsage, UsageRecord};

/// The version of the protocol: grows when something that clients know changes its meaning or goes away.
pub const PROTOCOL: u32 = 1;

/// The name of the interface.
pub const INTERFACE: &str = "io.acode";
/// The interface's text, as `org.varlink.service.GetInterfaceDescription` gives it.
pub const DESCRIPTION: &str = include_str!("io.acode.varlink");
/// The largest message of either direction, in bytes without its NUL. A peer that sends a larger one is hung up on.
pub const MAX_MESSAGE: usize = 32 << 20;
/// How many bytes may wait in an [`Outbox`] before its owner stops reading requests from that peer.
pub const OUTBOX_BOUND: usize = 1 << 20;
/// The most entries of one `Submit`. More are sent as several calls, one behind the other.
pub const MAX_ENTRIES: usize = 10_000;
/// The most ids of one request other than `Submit`.
pub const MAX_IDS: usize = 10_000;
/// The most tasks of one `List` reply.
pub const MAX_LIST: u32 = 10_000;
/// The `schema` number of every JSON record. It grows when a field changes its meaning or goes; new fields alone do
/// not change it.
pub const SCHEMA: u32 = 1;
