//! A library with one action: the CRC-32 of a file, as gzip and zip have it.
//!
//!     cargo build --release        # or: rustc -O --edition 2024 --crate-type cdylib -o libchecksum.so src/lib.rs
//!     acode task submit --type custom --library ./libchecksum.so --action crc32 --params '"/etc/services"'
//!
//! It shows what every action should do: tell how far it is, ask whether it is to end, and fail in words. It depends on
//! nothing but the standard library, and so takes its parameters as one plain JSON string; with serde_json they would be a
//! struct.

mod acode_action;

use std::fs::File;
use std::io::Read;

use acode_action::{Failure, Host};

library!(action);

/// What is read at once, in bytes.
const PIECE: usize = 256 * 1024;

fn action(name: &str, params: &str, host: &Host<'_>) -> Result<String, Failure> {
    match name {
        "crc32" => crc32(params, host),
        other => Err(Failure::Refused(format!("there is no action '{other}': there is crc32"))),
    }
}

fn crc32(params: &str, host: &Host<'_>) -> Result<String, Failure> {
    let given = plain_string(params).ok_or_else(|| Failure::Refused(format!("crc32 takes a path, and not {params}")))?;
    let path = host.resolve(given);
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, mut file) = opened.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let table = table();
    let (mut sum, mut bytes, mut buffer) = (u32::MAX, 0_u64, vec![0; PIECE]);
    loop {
        host.check()?;
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        sum = buffer[..length].iter().fold(sum, |sum, byte| table[usize::from(sum as u8 ^ byte)] ^ (sum >> 8));
        bytes += length as u64;
        if size > 0 {
            host.progress(100.0 * bytes as f64 / size as f64, &format!("{bytes} bytes"));
        }
    }
    host.print(&format!("{:08x}  {}\n", !sum, path.display()));
    Ok(format!(r#"{{"crc32": "{:08x}", "bytes": {bytes}}}"#, !sum))
}

/// What a JSON string says that has no escapes.
fn plain_string(json: &str) -> Option<&str> {
    let inside = json.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!inside.contains(['"', '\\'])).then_some(inside)
}

/// The remainder that each byte leaves.
fn table() -> [u32; 256] {
    std::array::from_fn(|byte| {
        (0..8).fold(byte as u32, |rest, _| if rest & 1 == 1 { 0xedb8_8320 ^ (rest >> 1) } else { rest >> 1 })
    })
}
