//! The output journal: what tasks write to their standard output and error, kept per worker.
//!
//! Every worker appends to one segment file of its own, `<directory>/<worker's ULID>.<n>`, and rolls over to the next
//! number when the segment is full. A file per task would cost half of the spawn rate. The same files serve the log
//! of one attempt ([`Reader`]), the log of the whole pool ([`Follower`]) and retention, which drops whole segments.
//!
//! Invariant: a segment has one writer, and nothing is ever appended behind a torn frame. A torn frame is therefore
//! always the last thing in its segment, and a reader never has to search for the next good one.
//!
//! Deliberately absent: fsync. The journal is the tasks' output, not the queue's truth; it survives the death of any
//! process, and a power cut may cost its last seconds. Also absent: any knowledge of the store.

mod follower;
mod frame;
mod lane;
mod reader;
mod retention;
mod segment;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use follower::{Filter, Follower, Since};
pub use frame::{DATA_MAX, Decoded, End, Frame, HEADER_LEN, Kind, Stream, decode, encode_header};
pub use reader::Reader;
pub use retention::remove_unused;
pub use segment::{segment_path, segments};
pub use writer::{SEGMENT_MAX_DEFAULT, Writer};

/// What can go wrong with the journal's files.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A file or the directory could not be opened, read or removed.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was attempted, as a participle.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The output is no longer there: retention has removed its segment.
    #[error("output segment {} is no longer kept", path.display())]
    Gone {
        /// The missing segment.
        path: PathBuf,
    },
}

impl OutputError {
    /// Returns a function that gives an I/O error the context of `doing` something to `path`.
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
