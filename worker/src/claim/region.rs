//! The memory of the table: a sealed memfd, mapped raw and shared.
//!
//! The only home of `unsafe` in this module. Memory that other processes write is never behind `&mut` or a plain
//! reference: only shared references to atomics leave this file. Deliberately absent: names in the file system, for a
//! memfd dies with its last holder; and initialising, for zeroed pages are an empty table.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::atomic::AtomicU64;
use super::lane::{Ends, LANES};
use super::row::Row;
use super::slot::Slot;
use super::table::{Geometry, Header, Layout, LayoutError, Table};

/// A mapped claim table. The supervisor makes it, its workers open it by the descriptor that they inherit.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
    fd: OwnedFd,
    layout: Layout,
}

impl Region {
    /// Makes an empty table in a new memfd, sealed against any change of its size. Nothing but the header's page is
    /// resident afterwards.
    ///
    /// # Errors
    /// The geometry is impossible (`InvalidInput`, a [`LayoutError`]), or the kernel refuses the memfd or the mapping.
    pub fn create(geometry: Geometry) -> io::Result<Self> {
        let layout = Layout::of(geometry).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let file = File::from(new_memfd()?);
        file.set_len(layout.total as u64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(required_seals() | SealFlag::F_SEAL_SEAL))?;
        let map = MmapOptions::new().len(layout.total).map_raw(&file)?;
        let region = Self { map, fd: file.into(), layout };
        header(&region.map).write(geometry);
        Ok(region)
    }

    /// Maps the table behind a descriptor that somebody else made.
    ///
    /// # Errors
    /// The descriptor is no sealed claim table of this layout version and of the size that its header demands
    /// (`InvalidData`, a [`LayoutError`]), or the kernel refuses the mapping.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        // A file that knows no seals at all answers EINVAL; it is refused like one without them.
        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS).unwrap_or(0));
        if !seals.contains(required_seals()) {
            return Err(invalid(LayoutError::NotSealed));
        }
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if size < size_of::<Header>() {
            return Err(invalid(LayoutError::Size { found: size, expected: size_of::<Header>() }));
        }
        let map = MmapOptions::new().len(size).map_raw(&file)?;
        let layout = header(&map).read().and_then(Layout::of).map_err(invalid)?;
        if layout.total != size {
            return Err(invalid(LayoutError::Size { found: size, expected: layout.total }));
        }
        Ok(Self { map, fd: file.into(), layout })
    }

    /// The memfd, to be handed to workers. It is close-on-exec.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How large the table is.
    pub fn geometry(&self) -> Geometry {
        self.layout.geometry
    }

    pub(super) fn table(&self) -> Table<'_> {
        let Layout { geometry, rows, ends, cells, slots, total } = self.layout;
        debug_assert!(total <= self.map.len());
        let base = self.map.as_mut_ptr();
        let cell_count = LANES * geometry.lane_capacity as usize;
        // SAFETY: `Layout::of` places each section, with these counts, inside `total` bytes, which both constructors
        // compared with or gave to the mapping; sections begin on multiples of 4096, the mapping on a page, so all are
        // aligned for their types. The types consist of atomics only, for which every bit pattern is valid and which
        // other processes may change. The seals keep the pages from vanishing, and the mapping lives as long as `self`.
        unsafe {
            Table {
                rows: std::slice::from_raw_parts(base.add(rows).cast::<Row>(), usize::from(geometry.workers)),
                ends: std::slice::from_raw_parts(base.add(ends).cast::<Ends>(), LANES),
                cells: std::slice::from_raw_parts(base.add(cells).cast::<AtomicU64>(), cell_count),
                slots: std::slice::from_raw_parts(base.add(slots).cast::<Slot>(), geometry.slots as usize),
            }
        }
    }
}

/// Without these a peer could truncate the memory under us.
fn required_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

fn invalid(error: LayoutError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A new memfd, not executable where the kernel knows of that (6.3 and later; some are set up to insist on it).
fn new_memfd() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    match memfd_create(c"acode-claims", flags | no_exec) {
        Err(Errno::EINVAL) => Ok(memfd_create(c"acode-claims", flags)?),
        Err(error) => Err(error.into()),
        Ok(fd) => Ok(fd),
    }
}

fn header(map: &MmapRaw) -> &Header {
    assert!(map.len() >= size_of::<Header>(), "both constructors map at least a header");
    // SAFETY: the mapping is at least as large as the header (asserted), page-aligned, and lives as long as the
    // reference; the header consists of atomics, for which every bit pattern is valid.
    unsafe { &*map.as_mut_ptr().cast::<Header>() }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const SMALL: Geometry = Geometry { workers: 2, slots: 1000, lane_capacity: 64 };

    fn refusal(fd: OwnedFd) -> LayoutError {
        let error = Region::open(fd).unwrap_err();
        error.into_inner().unwrap().downcast_ref::<LayoutError>().unwrap().clone()
    }

    /// A sealed memfd of `size` bytes that begins with these words.
    fn forged(words: &[u64], size: u64) -> OwnedFd {
        let mut file = File::from(new_memfd().unwrap());
        for word in words {
            file.write_all(&word.to_ne_bytes()).unwrap();
        }
        file.set_len(size).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(required_seals())).unwrap();
        file.into()
    }

    #[test]
    fn what_one_makes_another_opens() {
        let region = Region::create(SMALL).unwrap();
        let other = Region::open(region.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.geometry(), SMALL);
        assert_eq!(other.table().slots.len(), 1000);
    }

    #[test]
    fn an_unused_table_is_one_page() {
        let region = Region::create(SMALL).unwrap();
        let file = File::from(region.fd().try_clone_to_owned().unwrap());
        assert_eq!(file.metadata().unwrap().blocks() * 512, 4096);
    }

    #[test]
    fn its_size_cannot_be_changed() {
        let region = Region::create(SMALL).unwrap();
        let mut file = File::from(region.fd().try_clone_to_owned().unwrap());
        assert!(file.set_len(0).is_err());
        file.seek(SeekFrom::End(0)).unwrap();
        assert!(file.write_all(b"more").is_err());
    }

    #[test]
    fn foreign_memory_is_refused() {
        let (magic, version) = (u64::from_be_bytes(*b"acodeclm"), crate::claim::table::LAYOUT_VERSION);
        assert_eq!(refusal(forged(&[], 3)), LayoutError::Size { found: 3, expected: 40 });
        assert_eq!(refusal(forged(&[7], 4096)), LayoutError::Magic(7));
        assert_eq!(refusal(forged(&[magic, 99], 4096)), LayoutError::Version { found: 99 });
        assert_eq!(refusal(forged(&[magic, version, 0, 1, 1], 4096)), LayoutError::Workers(0));
        assert_eq!(refusal(forged(&[magic, version, u64::MAX, 1, 1], 4096)), LayoutError::Workers(u64::MAX));
        assert_eq!(refusal(forged(&[magic, version, 1, u64::MAX, 1], 4096)), LayoutError::Slots(u64::MAX));
        assert_eq!(refusal(forged(&[magic, version, 1, 1, 3], 4096)), LayoutError::LaneCapacity(3));
        assert!(matches!(refusal(forged(&[magic, version, 1, 1, 4], 4096)), LayoutError::Size { found: 4096, .. }));
        let unsealed = memfd_create(c"unsealed", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(refusal(unsealed), LayoutError::NotSealed);
        assert_eq!(refusal(tempfile::tempfile().unwrap().into()), LayoutError::NotSealed);
    }
}
