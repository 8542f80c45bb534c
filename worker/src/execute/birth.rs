//! What a task is born from: its standard input, and the worker's leaf, which somebody may have taken away.
//!
//! Deliberately absent: the limits of the leaf, which are in place by then, and the fallback for kernels that know no birth
//! into a cgroup (`sys::spawn`).

use std::io;

use crate::sys::cgroup::{Leaf, Leaves};
use crate::sys::spawn::{Child, SpawnError, Step};

/// Spawns into the present leaf. Where that is gone another one is made; and where none can be made any more, tasks are born
/// without from now on, and the subreaper alone holds their trees together.
pub fn into_leaf(
    leaves: &mut Option<Leaves>,
    spawn: impl Fn(Option<&Leaf>) -> Result<Child, SpawnError>,
) -> Result<Child, SpawnError> {
    match spawn(leaves.as_ref().map(Leaves::current)) {
        Err(error) if is_gone(&error) && leaves.is_some() => {
            renew_or_forget(leaves);
            spawn(leaves.as_ref().map(Leaves::current))
        }
        born => born,
    }
}

/// Makes sure that the present leaf is there.
pub fn find_leaf(leaves: &mut Option<Leaves>) {
    if leaves.as_ref().is_some_and(|leaves| leaves.current().is_populated().is_err()) {
        renew_or_forget(leaves);
    }
}

fn renew_or_forget(leaves: &mut Option<Leaves>) {
    if leaves.as_mut().is_some_and(|leaves| leaves.replace().is_err()) {
        *leaves = None;
    }
}

/// Whether the cgroup was removed: so says the kernel of a birth into it.
fn is_gone(error: &SpawnError) -> bool {
    error.step == Step::Clone && matches!(error.source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

/// Opens a file that becomes standard input. A FIFO is refused: opening one waits for its writer, and a worker that
/// waits hears neither timeout nor cancellation.
pub fn open_input(path: &str) -> io::Result<std::fs::File> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("a FIFO cannot be a task's standard input"));
    }
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))?;
    Ok(file)
}
