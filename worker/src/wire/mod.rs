//! What supervisor and worker say to each other on their two pipes.
//!
//! Orders go down, reports come up; each is one frame behind its length: JSON, but for the end of an attempt of which there is
//! little to tell. Deliberately absent: the tasks
//! themselves, which go through the claim table.

mod birth;
mod brief;
mod docker;
mod frame;
mod line;
mod order;
mod report;

pub use birth::{Birth, EXIT_BOOT_FAILED, EXIT_ORPHANED, Inherited, SPILLED};
pub use docker::{ArtifactSettings, DockerSettings, WorkerMode, WorktreeSettings};
pub use frame::{FrameError, Frames, MAX_FRAME, encode, encode_finished};
pub use line::{Line, LineClosed};
pub use order::{ActionSettings, Chore, JobserverPlace, KeptPlace, Order, WorkerSettings};
pub use report::{Finished, Progress, Report};
