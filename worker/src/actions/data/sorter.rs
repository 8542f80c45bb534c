//! Sorting of more than memory holds: sorted runs on disk, merged.
//!
//! What is sorted are byte strings with a payload each; equal ones stay in the order in which they came. The memory is one
//! piece, which grows up to its bound. Runs are files of the attempt's private directory, so that nothing of them outlives it, and
//! what they take is charged to the task. Deliberately absent: what keys mean.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use super::super::error::ActionError;
use super::super::places::cannot;
use super::super::table::Run;

/// How many runs are merged at once.
const FAN_IN: usize = 64;
/// How many entries are sorted between two looks at whether to end.
const SLICE: usize = 16 * 1024;
/// What the memory is at first, in bytes.
const SMALLEST: usize = 64 << 10;
/// The lengths before each entry.
const HEAD: usize = 8;

/// What is put in.
pub(super) struct Sorter {
    memory: usize,
    arena: Vec<u8>,
    entries: Vec<usize>,
    runs: Vec<RunFile>,
    /// Which files of the scratch directory are this sorter's.
    label: String,
    made: u32,
    /// Entries put in.
    pub(super) count: u64,
}

/// A sorted run; the file goes with it.
struct RunFile {
    path: PathBuf,
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Sorter {
    /// One that uses so many bytes of memory, and files whose names begin with the label.
    pub(super) fn new(memory: usize, label: &str) -> Self {
        let (arena, entries) = (Vec::new(), Vec::new());
        Self { memory, arena, entries, runs: Vec::new(), label: label.to_owned(), made: 0, count: 0 }
    }

    /// Whether some of it is on disk.
    #[cfg(test)]
    fn has_spilled(&self) -> bool {
        !self.runs.is_empty()
    }

    pub(super) fn push(&mut self, key: &[u8], payload: &[u8], run: &mut Run<'_, '_>) -> Result<(), ActionError> {
        // The list of entries doubles when it grows.
        let taken =
            self.arena.len() + HEAD + key.len() + payload.len() + (self.entries.len() + 1) * 3 * size_of::<usize>();
        if taken > self.memory && !self.entries.is_empty() {
            self.spill(run)?;
        }
        self.make_room(HEAD + key.len() + payload.len())?;
        self.entries.push(self.arena.len());
        self.arena.extend_from_slice(&head(key.len(), payload.len()));
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(payload);
        self.count += 1;
        Ok(())
    }

    /// Doubles the arena when it is full, but not beyond the bound: that may be more than the machine has.
    fn make_room(&mut self, more: usize) -> Result<(), ActionError> {
        let (length, capacity) = (self.arena.len(), self.arena.capacity());
        if length + more <= capacity {
            return Ok(());
        }
        let wanted = (2 * capacity).max(SMALLEST).min(self.memory).max(length + more);
        self.arena.try_reserve_exact(wanted - length).map_err(|_| {
            let mib = wanted >> 20;
            ActionError::new(format!("the machine has no {mib} MiB of memory for this step: lower memoryMb"))
        })
    }

    /// All of it, in order.
    pub(super) fn finish(mut self, run: &mut Run<'_, '_>) -> Result<Sorted, ActionError> {
        if self.runs.is_empty() {
            let merge = self.merge_memory(run)?;
            return Ok(Sorted { merge, _runs: Vec::new() });
        }
        if !self.entries.is_empty() {
            self.spill(run)?;
        }
        self.arena = Vec::new();
        while self.runs.len() > FAN_IN {
            let mut waiting = std::mem::take(&mut self.runs).into_iter();
            loop {
                let group: Vec<RunFile> = waiting.by_ref().take(FAN_IN).collect();
                if group.is_empty() {
                    break;
                }
                let merge = self.merge_files(&group)?;
                let merged = self.write_run(merge, run)?;
                self.runs.push(merged);
            }
        }
        let runs = std::mem::take(&mut self.runs);
        let merge = self.merge_files(&runs)?;
        Ok(Sorted { merge, _runs: runs })
    }

    fn spill(&mut self, run: &mut Run<'_, '_>) -> Result<(), ActionError> {
        let merge = self.merge_memory(run)?;
        let written = self.write_run_keeping(merge, run)?;
        self.runs.push(written);
        Ok(())
    }

    /// Sorts what is in memory, slice by slice; the memory goes into the merge.
    fn merge_memory(&mut self, run: &mut Run<'_, '_>) -> Result<Merge, ActionError> {
        let (arena, mut entries) = (std::mem::take(&mut self.arena), std::mem::take(&mut self.entries));
        for slice in entries.chunks_mut(SLICE) {
            run.context.check()?;
            slice.sort_by(|one, two| key_of(&arena, *one).cmp(key_of(&arena, *two)));
        }
        let all = entries.len();
        let memory = Rc::new(Memory { arena, entries });
        let cursors = (0..all)
            .step_by(SLICE)
            .map(|from| Cursor::Memory { memory: Rc::clone(&memory), left: from..(from + SLICE).min(all) });
        Merge::new(cursors.collect())
    }

    fn merge_files(&self, runs: &[RunFile]) -> Result<Merge, ActionError> {
        let buffer = (self.memory / (2 * FAN_IN)).clamp(4 << 10, 256 << 10);
        let open = |run: &RunFile| {
            let file = File::open(&run.path).map_err(|error| cannot("read", &run.path, &error))?;
            Ok(Cursor::File(BufReader::with_capacity(buffer, file)))
        };
        Merge::new(runs.iter().map(open).collect::<Result<_, ActionError>>()?)
    }

    /// Writes a run out of memory, and takes the memory back.
    fn write_run_keeping(&mut self, mut merge: Merge, run: &mut Run<'_, '_>) -> Result<RunFile, ActionError> {
        let memory = merge.memory();
        let written = self.write_run(merge, run)?;
        if let Some(Ok(mut memory)) = memory.map(Rc::try_unwrap) {
            memory.arena.clear();
            memory.entries.clear();
            (self.arena, self.entries) = (memory.arena, memory.entries);
        }
        Ok(written)
    }

    fn write_run(&mut self, mut merge: Merge, run: &mut Run<'_, '_>) -> Result<RunFile, ActionError> {
        let path = run.context.scratch()?.join(format!("{}-{}.run", self.label, self.made));
        self.made += 1;
        let file = File::create_new(&path).map_err(|error| cannot("write", &path, &error))?;
        let written = RunFile { path: path.clone() };
        let mut file = BufWriter::with_capacity(64 << 10, file);
        let fail = |error: io::Error| cannot("write", &path, &error);
        while merge.advance()? {
            run.tick()?;
            let (key, payload) = (merge.key(), merge.payload());
            file.write_all(&head(key.len(), payload.len())).map_err(fail)?;
            file.write_all(key).and_then(|()| file.write_all(payload)).map_err(fail)?;
        }
        file.flush().map_err(fail)?;
        Ok(written)
    }
}

fn head(key: usize, payload: usize) -> [u8; HEAD] {
    // Rows are bounded far below 4 GiB.
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(key as u32).to_le_bytes());
    head[4..].copy_from_slice(&(payload as u32).to_le_bytes());
    head
}

fn lengths(head: &[u8]) -> (usize, usize) {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
    (number(&head[..4]), number(&head[4..HEAD]))
}

fn key_of(arena: &[u8], entry: usize) -> &[u8] {
    let (key, _) = lengths(&arena[entry..]);
    &arena[entry + HEAD..entry + HEAD + key]
}

struct Memory {
    arena: Vec<u8>,
    entries: Vec<usize>,
}

enum Cursor {
    Memory { memory: Rc<Memory>, left: Range<usize> },
    File(BufReader<File>),
}

impl Cursor {
    /// Its next entry into `into`; false at its end.
    fn read(&mut self, into: &mut Entry) -> Result<bool, ActionError> {
        match self {
            Self::Memory { memory, left } => {
                let Some(place) = left.next() else { return Ok(false) };
                let entry = memory.entries[place];
                let (key, payload) = lengths(&memory.arena[entry..]);
                let bytes = &memory.arena[entry + HEAD..entry + HEAD + key + payload];
                into.bytes.clear();
                into.bytes.extend_from_slice(bytes);
                into.key = key;
                Ok(true)
            }
            Self::File(file) => {
                let mut head = [0; HEAD];
                match file.read_exact(&mut head) {
                    Ok(()) => {}
                    // Runs are written whole, or there is no merging.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
                let (key, payload) = lengths(&head);
                into.bytes.resize(key + payload, 0);
                file.read_exact(&mut into.bytes)?;
                into.key = key;
                Ok(true)
            }
        }
    }
}

/// The next entry of one cursor.
#[derive(Default)]
struct Entry {
    bytes: Vec<u8>,
    key: usize,
    cursor: usize,
}

impl Entry {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key]
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Equal ones as they came: earlier runs have earlier entries.
        self.key().cmp(other.key()).then(self.cursor.cmp(&other.cursor))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

struct Merge {
    cursors: Vec<Cursor>,
    heap: BinaryHeap<Reverse<Entry>>,
    current: Option<Entry>,
}

impl Merge {
    fn new(mut cursors: Vec<Cursor>) -> Result<Self, ActionError> {
        let mut heap = BinaryHeap::with_capacity(cursors.len());
        for (number, cursor) in cursors.iter_mut().enumerate() {
            let mut entry = Entry { cursor: number, ..Entry::default() };
            if cursor.read(&mut entry)? {
                heap.push(Reverse(entry));
            }
        }
        Ok(Self { cursors, heap, current: None })
    }

    fn memory(&mut self) -> Option<Rc<Memory>> {
        self.cursors.iter().find_map(|cursor| match cursor {
            Cursor::Memory { memory, .. } => Some(Rc::clone(memory)),
            Cursor::File(_) => None,
        })
    }

    fn advance(&mut self) -> Result<bool, ActionError> {
        if let Some(mut entry) = self.current.take()
            && self.cursors[entry.cursor].read(&mut entry)?
        {
            self.heap.push(Reverse(entry));
        }
        self.current = self.heap.pop().map(|Reverse(entry)| entry);
        Ok(self.current.is_some())
    }

    fn key(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], Entry::key)
    }

    fn payload(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |entry| &entry.bytes[entry.key..])
    }
}

/// What comes out: before the first entry at first.
pub(super) struct Sorted {
    merge: Merge,
    _runs: Vec<RunFile>,
}

impl Sorted {
    /// Goes on to the next entry; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, ActionError> {
        self.merge.advance()
    }

    /// The key of the entry it is at.
    pub(super) fn key(&self) -> &[u8] {
        self.merge.key()
    }

    /// What belongs to it.
    pub(super) fn payload(&self) -> &[u8] {
        self.merge.payload()
    }
}

/// How many files there are.
#[cfg(test)]
fn runs_in(folder: &std::path::Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::super::super::context::{Context, Facts, Host, Why};
    use super::*;
    use crate::task::TaskId;

    struct Here(tempfile::TempDir);
    impl Host for Here {
        fn told_to_end(&self) -> Option<Why> {
            None
        }
        fn progress(&mut self, _: f64, _: &str) {}
        fn write(&mut self, _: bool, _: &[u8]) {}
        fn scratch(&mut self) -> io::Result<PathBuf> {
            Ok(self.0.path().to_owned())
        }
    }

    /// Sorts so many entries in so much memory, and compares with what the standard library makes of them.
    fn sorts(count: u64, memory: usize, spills: bool) {
        let id = TaskId::new(1, 1, 1);
        let facts = Facts { id, attempt: 1, slot: 0, meta: Default::default(), cwd: None, checkpoint: None };
        let mut host = Here(tempfile::tempdir().unwrap());
        let folder = host.0.path().to_owned();
        let mut context = Context::new(&facts, &mut host);
        let mut run = Run::new(&mut context);
        let mut sorter = Sorter::new(memory, "test");
        let mut expected = Vec::new();
        let mut state = 1u64;
        for number in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Many are equal, so that their order counts.
            let key = format!("{}", (state >> 33) % (count / 4 + 1));
            sorter.push(key.as_bytes(), &number.to_le_bytes(), &mut run).unwrap();
            expected.push((key, number));
        }
        assert_eq!(sorter.has_spilled(), spills);
        expected.sort();
        let mut sorted = sorter.finish(&mut run).unwrap();
        for (key, number) in expected {
            assert!(sorted.advance().unwrap());
            assert_eq!((sorted.key(), sorted.payload()), (key.as_bytes(), &number.to_le_bytes()[..]));
        }
        assert!(!sorted.advance().unwrap());
        drop(sorted);
        assert_eq!(runs_in(&folder), 0);
    }

    #[test]
    fn entries_come_out_in_order_and_equal_ones_as_they_came() {
        sorts(0, 1 << 20, false);
        sorts(1, 1 << 20, false);
        sorts(50_000, 64 << 20, false);
        sorts(50_000, 1 << 20, true);
        // More runs than are merged at once.
        sorts(20_000, 4 << 10, true);
    }
}
