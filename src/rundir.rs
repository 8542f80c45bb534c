//! Every path of the state and runtime directories, and the two locks on them.
//!
//! The state directory holds what must outlive the machine's next start (the queue, the journal); the runtime
//! directory holds what must not (the socket, scratch rooms). Both belong to one user alone: whoever could write there
//! could feed the pool commands. Deliberately absent: what is inside the files.

mod dirs;
mod locks;

pub use dirs::{DirError, Dirs, Vars};
pub use locks::{Holder, InstanceLock, LockError, StillHeld, WorkersLock};
