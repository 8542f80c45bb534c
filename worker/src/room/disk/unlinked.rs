//! Files that were unlinked and are still open: they take their space until the last descriptor is closed, and no walk
//! finds them.
//!
//! They are found by the descriptors of the task's processes, whose links in `/proc` say ` (deleted)` behind the path
//! that a file had. Deliberately absent: files that are mapped and not open any more, and descriptors that travel in a
//! socket.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::walk::Count;
use crate::sys::entries;

/// The most descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 65_536;

/// A way through the descriptors of some processes.
#[derive(Debug)]
pub(super) struct Unlinked {
    pids: Vec<i32>,
    path: PathBuf,
    device: (u32, u32),
}

impl Unlinked {
    /// The descriptors of `pids` that were opened below `path`, on this device.
    pub fn new(pids: Vec<i32>, path: PathBuf, device: (u32, u32)) -> Self {
        Self { pids, path, device }
    }

    /// Looks at processes until `budget` descriptors were looked at; true when all are done.
    pub fn step(&mut self, budget: usize, count: &mut Count) -> bool {
        let mut left = budget;
        while left > 0 {
            let Some(pid) = self.pids.pop() else { return true };
            left = left.saturating_sub(1 + self.look(pid, count));
        }
        self.pids.is_empty()
    }

    /// Looks at one process; gives how many descriptors it has. One that has ended, or is closed to us, has none.
    fn look(&self, pid: i32, count: &mut Count) -> usize {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut looked_at = 0;
        for link in entries.take(DESCRIPTORS_MAX).map(|entry| entry.path()) {
            looked_at += 1;
            let Ok(target) = fs::read_link(&link) else { continue };
            let deleted = target.as_os_str().as_bytes().ends_with(b" (deleted)");
            if !deleted || !target.starts_with(&self.path) {
                continue;
            }
            let Ok(link) = CString::new(link.as_os_str().as_bytes()) else { continue };
            if let Ok(facts) = entries::look_behind(&link)
                && facts.links == 0
                && facts.device == self.device
            {
                count.add(&facts);
            }
        }
        looked_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_unlinked_file_is_counted_once_while_it_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        let open = |path: PathBuf| {
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(&vec![1; 1 << 20]).unwrap();
            file.sync_all().unwrap();
            fs::remove_file(path).unwrap();
            file
        };
        let (file, _other) = (open(inside.join("gone")), open(outside));
        let _copy = file.try_clone().unwrap();
        let device = entries::look(&file, c"").unwrap().device;
        let look = || {
            let mut count = Count::default();
            let pid = std::process::id() as i32;
            assert!(Unlinked::new(vec![pid], inside.clone(), device).step(1_000_000, &mut count));
            count.amount
        };
        let found = look();
        assert_eq!(found.files, 1);
        assert!((1 << 20..2 << 20).contains(&found.bytes), "{found:?}");
        drop((file, _copy));
        assert_eq!(look().files, 0);
    }
}
