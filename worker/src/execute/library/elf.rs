//! What a shared object says of itself: for which machine it is, and which libraries it needs.
//!
//! Every byte is somebody else's: each number is checked before it is used, and bounded. Deliberately absent: everything
//! that the dynamic linker reads for itself.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

/// The most program headers of an object, entries of its dynamic section, and libraries that it names.
const SEGMENTS_MAX: usize = 1024;
const ENTRIES_MAX: usize = 4096;
const NEEDED_MAX: usize = 512;
/// The longest name of a library, in bytes.
const NAME_MAX: usize = 4096;

pub(super) const HEADER_SIZE: usize = 64;
pub(super) const SEGMENT_SIZE: usize = 56;
pub(super) const ENTRY_SIZE: usize = 16;

pub(super) const ET_DYN: u16 = 3;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const DT_NULL: u64 = 0;
pub(super) const DT_NEEDED: u64 = 1;
pub(super) const DT_STRTAB: u64 = 5;

/// The first bytes of an object for this kind of machine, as far as they are always the same.
pub(super) const IDENTITY: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, if cfg!(target_endian = "little") { 1 } else { 2 }, 1];

/// The number of the machine that this program was built for; none if it is not known here.
pub(super) const OWN_MACHINE: Option<u16> = match () {
    () if cfg!(target_arch = "x86_64") => Some(62),
    () if cfg!(target_arch = "aarch64") => Some(183),
    () if cfg!(target_arch = "riscv64") => Some(243),
    () if cfg!(target_arch = "powerpc64") => Some(21),
    () if cfg!(target_arch = "s390x") => Some(22),
    () if cfg!(target_arch = "loongarch64") => Some(258),
    () => None,
};

/// What is wrong with an object.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElfError {
    /// It cannot be read.
    #[error("it cannot be read: {}", crate::sys::describe(.0))]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no shared object")]
    NotElf,
    /// It is for a machine of another word size or byte order.
    #[error("it is a shared object for another kind of machine (not 64 bits, or of another byte order)")]
    OtherClass,
    /// It is for another machine.
    #[error("it is a shared object for another kind of machine ({0}), and this is {arch}", arch = std::env::consts::ARCH)]
    OtherMachine(String),
    /// It is an object file, a program or a core dump.
    #[error("it is no shared object, but {0}")]
    OtherType(&'static str),
    /// What it says of itself cannot be.
    #[error("it is a damaged shared object: {0}")]
    Damaged(&'static str),
}

/// The names of the libraries that the object needs, in its order.
///
/// # Errors
/// It is no shared object for this machine.
pub(super) fn needed(file: &File) -> Result<Vec<OsString>, ElfError> {
    let mut header = [0; HEADER_SIZE];
    read(file, &mut header, 0)?;
    check(&header)?;
    let (start, size, count) = (u64_at(&header, 32), u16_at(&header, 54), usize::from(u16_at(&header, 56)));
    if usize::from(size) != SEGMENT_SIZE || count > SEGMENTS_MAX {
        return Err(ElfError::Damaged("its program headers have a strange size"));
    }
    let mut table = vec![0; count * SEGMENT_SIZE];
    read(file, &mut table, start)?;
    let segments: Vec<Segment> = table.chunks_exact(SEGMENT_SIZE).map(Segment::from_bytes).collect();
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Err(ElfError::OtherType("a program or library without dynamic linking"));
    };
    let entries = dynamic_entries(file, dynamic)?;
    let names = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).map(|(_, at)| *at);
    let names: Vec<u64> = names.take(NEEDED_MAX + 1).collect();
    if names.len() > NEEDED_MAX {
        return Err(ElfError::Damaged("it needs more libraries than can be"));
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB).map(|(_, address)| *address);
    let strings = strings.ok_or(ElfError::Damaged("it has no names"))?;
    let strings = offset_of(&segments, strings).ok_or(ElfError::Damaged("its names are outside of it"))?;
    names.into_iter().map(|at| name_at(file, strings.checked_add(at))).collect()
}

/// Checks the head of a file.
fn check(header: &[u8; HEADER_SIZE]) -> Result<(), ElfError> {
    if header[..4] != IDENTITY[..4] {
        return Err(ElfError::NotElf);
    }
    if header[..7] != IDENTITY {
        return Err(ElfError::OtherClass);
    }
    let machine = u16_at(header, 18);
    if OWN_MACHINE.is_some_and(|own| own != machine) {
        return Err(ElfError::OtherMachine(machine_name(machine)));
    }
    match u16_at(header, 16) {
        ET_DYN => Ok(()),
        1 => Err(ElfError::OtherType("an object file that was not linked")),
        2 => Err(ElfError::OtherType("a program")),
        4 => Err(ElfError::OtherType("a core dump")),
        _ => Err(ElfError::Damaged("it is of no known type")),
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        21 => "powerpc64".to_owned(),
        22 => "s390x".to_owned(),
        258 => "loongarch64".to_owned(),
        other => format!("machine {other}"),
    }
}

/// A program header, as far as it matters here.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    fn from_bytes(bytes: &[u8]) -> Self {
        Self { kind: u32_at(bytes, 0), offset: u64_at(bytes, 8), address: u64_at(bytes, 16), size: u64_at(bytes, 32) }
    }
}

/// The dynamic section: tags with their values, up to its end mark.
fn dynamic_entries(file: &File, dynamic: &Segment) -> Result<Vec<(u64, u64)>, ElfError> {
    let count = usize::try_from(dynamic.size).unwrap_or(usize::MAX) / ENTRY_SIZE;
    if count > ENTRIES_MAX {
        return Err(ElfError::Damaged("its dynamic section is larger than can be"));
    }
    let mut bytes = vec![0; count * ENTRY_SIZE];
    read(file, &mut bytes, dynamic.offset)?;
    let entries = bytes.chunks_exact(ENTRY_SIZE).map(|entry| (u64_at(entry, 0), u64_at(entry, 8)));
    Ok(entries.take_while(|(tag, _)| *tag != DT_NULL).collect())
}

/// Where in the file that lies which is found at this address when it is loaded.
fn offset_of(segments: &[Segment], address: u64) -> Option<u64> {
    let loaded = segments.iter().filter(|segment| segment.kind == PT_LOAD);
    loaded.into_iter().find_map(|segment| {
        let inside = address.checked_sub(segment.address)?;
        if inside < segment.size { segment.offset.checked_add(inside) } else { None }
    })
}

/// The text that ends with a NUL and begins there.
fn name_at(file: &File, offset: Option<u64>) -> Result<OsString, ElfError> {
    const OUTSIDE: ElfError = ElfError::Damaged("the name of a library that it needs is outside of it");
    let mut bytes = vec![0; NAME_MAX + 1];
    let count = file.read_at(&mut bytes, offset.ok_or(OUTSIDE)?)?;
    let end = bytes[..count].iter().position(|byte| *byte == 0).ok_or(OUTSIDE)?;
    bytes.truncate(end);
    Ok(OsString::from_vec(bytes))
}

fn read(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), ElfError> {
    // No file is larger, and the kernel takes no larger offset.
    if i64::try_from(offset).is_err() {
        return Err(ElfError::Damaged("it refers to what is outside of it"));
    }
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof if offset == 0 => ElfError::NotElf,
        io::ErrorKind::UnexpectedEof => ElfError::Damaged("it is cut off"),
        _ => ElfError::Io(error),
    })
}

// The callers give as many bytes as they ask for; what would be missing is zero.
fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        number.copy_from_slice(found);
    }
    number
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(number(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(number(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file in memory with these bytes.
    fn file(bytes: &[u8]) -> File {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// The beginning of this program, in which all its tables are.
    fn own() -> Vec<u8> {
        use std::io::Read;
        let mut bytes = Vec::new();
        File::open("/proc/self/exe").unwrap().take(64 * 1024).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn this_program_needs_the_c_library() {
        let needed = needed(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(needed.iter().any(|name| name.to_string_lossy().starts_with("libc.")), "{needed:?}");
    }

    #[test]
    fn what_is_no_shared_object_is_told_from_one_for_another_machine() {
        let why = |bytes: &[u8]| needed(&file(bytes)).unwrap_err().to_string();
        assert_eq!(why(b""), "it is no shared object");
        assert_eq!(why(&[b'#'; 200]), "it is no shared object");
        let mut other = own()[..4096].to_vec();
        let machine = if OWN_MACHINE == Some(183) { 62_u16 } else { 183 };
        other[18..20].copy_from_slice(&machine.to_ne_bytes());
        assert!(why(&other).contains("another kind of machine (aarch64)") || machine == 62, "{}", why(&other));
        other[4] = 1;
        assert!(why(&other).contains("not 64 bits"), "{}", why(&other));
        assert!(why(&own()[..100]).contains("cut off"));
    }

    proptest! {
        /// Whatever is done to the tables of an object, reading it ends, with names or with an error.
        #[test]
        fn damage_is_survived(at in 0_usize..1024, value in any::<[u8; 8]>(), cut in 0_usize..20_000) {
            let mut bytes = own();
            bytes[at..at + 8].copy_from_slice(&value);
            if cut < 10_000 {
                bytes.truncate(cut);
            }
            let _ = needed(&file(&bytes));
        }
    }
}
