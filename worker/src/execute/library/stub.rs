//! The object that brings a library's own search path with it.
//!
//! The dynamic linker takes no search path when it loads something: LD_LIBRARY_PATH is read when a program starts. But an
//! object may name folders in which all is looked for that it needs. So one is made which holds nothing but that: the folders,
//! the library, and each library of the folders that this one needs. Since these are needed by the object itself, they are
//! found by the folders first, whatever the libraries say; and the linker knows them by name from then on.
//!
//! Deliberately absent: which those are (`shelf`), and code: there is none in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::elf::{
    DT_NEEDED, DT_NULL, DT_STRTAB, ENTRY_SIZE, ET_DYN, HEADER_SIZE, IDENTITY, OWN_MACHINE, PT_DYNAMIC, PT_LOAD,
    SEGMENT_SIZE,
};

const PT_GNU_STACK: u32 = 0x6474_e551;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_SYMENT: u64 = 11;
/// Unlike its successor DT_RUNPATH it also holds for what is needed by what is needed.
const DT_RPATH: u64 = 15;
const READ: u32 = 4;
const WRITE: u32 = 2;
const SYMBOL_SIZE: usize = 24;
/// The largest page that a machine may have, in bytes.
const PAGE: u64 = 64 * 1024;
const SEGMENTS: usize = 3;

/// The bytes of an object that needs these libraries and has them looked for in these folders, which must not hold a colon.
/// Nothing on a machine whose objects are not known here.
pub(super) fn stub<'n>(folders: &[String], libraries: impl IntoIterator<Item = &'n OsStr>) -> Option<Vec<u8>> {
    let machine = OWN_MACHINE?;
    let mut strings = vec![0];
    let mut text = |bytes: &[u8]| {
        let at = strings.len() as u64;
        strings.extend_from_slice(bytes);
        strings.push(0);
        at
    };
    let mut entries: Vec<(u64, u64)> =
        libraries.into_iter().map(|library| (DT_NEEDED, text(library.as_bytes()))).collect();
    entries.push((DT_RPATH, text(folders.join(":").as_bytes())));
    let dynamic_at = HEADER_SIZE + SEGMENTS * SEGMENT_SIZE;
    let dynamic_size = (entries.len() + 5) * ENTRY_SIZE;
    // One symbol, which stands for none, and then the names.
    let symbols_at = dynamic_at + dynamic_size;
    let strings_at = symbols_at + SYMBOL_SIZE;
    entries.extend([
        (DT_STRTAB, strings_at as u64),
        (DT_STRSZ, strings.len() as u64),
        (DT_SYMTAB, symbols_at as u64),
        (DT_SYMENT, SYMBOL_SIZE as u64),
        (DT_NULL, 0),
    ]);
    let whole = (strings_at + strings.len()) as u64;
    let mut object = Vec::with_capacity(strings_at + strings.len());
    header(&mut object, machine);
    // The linker writes into the dynamic section.
    segment(&mut object, PT_LOAD, 0, whole, PAGE);
    segment(&mut object, PT_DYNAMIC, dynamic_at as u64, dynamic_size as u64, 8);
    // Without a word about it the stack of the whole process would become executable.
    segment(&mut object, PT_GNU_STACK, 0, 0, 16);
    for (tag, value) in entries {
        object.extend(tag.to_ne_bytes());
        object.extend(value.to_ne_bytes());
    }
    object.resize(strings_at, 0);
    object.extend(strings);
    Some(object)
}

fn header(object: &mut Vec<u8>, machine: u16) {
    object.extend(IDENTITY);
    object.resize(16, 0);
    for half in [ET_DYN, machine] {
        object.extend(half.to_ne_bytes());
    }
    object.extend(1_u32.to_ne_bytes());
    // No entry; the program headers follow; no section headers.
    for word in [0, HEADER_SIZE as u64, 0] {
        object.extend(word.to_ne_bytes());
    }
    object.extend(0_u32.to_ne_bytes());
    for half in [HEADER_SIZE as u16, SEGMENT_SIZE as u16, SEGMENTS as u16, 0, 0, 0] {
        object.extend(half.to_ne_bytes());
    }
}

fn segment(object: &mut Vec<u8>, kind: u32, at: u64, size: u64, alignment: u64) {
    object.extend(kind.to_ne_bytes());
    object.extend((READ | WRITE).to_ne_bytes());
    // Offset, address, physical address; size in the file and in memory.
    for word in [at, at, at, size, size, alignment] {
        object.extend(word.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_stub_reads_as_what_was_put_into_it() {
        let names = ["/opt/a/libx.so", "liby.so.1"].map(OsStr::new);
        let Some(bytes) = stub(&["/opt/a".to_owned(), "/opt/b".to_owned()], names) else { return };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(super::super::elf::needed(&file).unwrap(), names);
    }
}
