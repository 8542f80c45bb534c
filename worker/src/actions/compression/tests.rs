//! Compression by its own means; tests/types_compression.rs sets it beside the standard tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::actions::desk_tests::{Desk, names, run as run_type, run_at};
use crate::task::ActionType;

const FORMATS: [(&str, &str); 3] = [("zstd", "zst"), ("gzip", "gz"), ("xz", "xz")];

fn run(folder: &Path, params: Value) -> Result<Value, String> {
    run_type(folder, ActionType::Compression, params)
}

fn text(bytes: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| format!("line {n} of {}\n", n * n % 977).into_bytes()).take(bytes).collect()
}

#[test]
fn what_goes_in_comes_out_again_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for bytes in [0, 1, 300_000] {
        for (format, suffix) in FORMATS {
            let plain = text(bytes);
            fs::write(at("in"), &plain).unwrap();
            fs::set_permissions(at("in"), fs::Permissions::from_mode(0o640)).unwrap();
            let done = run(
                folder.path(),
                json!({"operation": "compress", "input": "in", "format": format, "overwrite": true}),
            )
            .unwrap();
            let packed = at(&format!("in.{suffix}"));
            assert_eq!(done["outputBytes"], fs::metadata(&packed).unwrap().len());
            assert_eq!(fs::metadata(&packed).unwrap().permissions().mode() & 0o777, 0o640);
            let input = format!("in.{suffix}");
            let tested = run(folder.path(), json!({"operation": "test", "input": input})).unwrap();
            assert_eq!((tested["outputBytes"].as_u64(), tested["format"].as_str()), (Some(bytes as u64), Some(format)));
            fs::remove_file(at("in")).unwrap();
            run(folder.path(), json!({"operation": "decompress", "input": input})).unwrap();
            assert!(fs::read(at("in")).unwrap() == plain, "{format} {bytes}");
        }
    }
}

#[test]
fn members_follow_each_other_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("in"), text(100_000)).unwrap();
    for (format, suffix) in FORMATS {
        run(folder.path(), json!({"operation": "compress", "input": "in", "format": format})).unwrap();
        let one = fs::read(at(&format!("in.{suffix}"))).unwrap();
        let test = |bytes: &[u8]| {
            fs::write(at("x"), bytes).unwrap();
            let done = run(folder.path(), json!({"operation": "test", "input": "x", "format": format}));
            done.map(|done| done["outputBytes"].as_u64().unwrap())
        };
        assert_eq!(test(&one), Ok(100_000));
        assert_eq!(test(&[&one[..], &one[..]].concat()), Ok(200_000), "{format}");
        for cut in [0, 1, one.len() / 2, one.len() - 9, one.len() - 1] {
            assert!(test(&one[..cut]).is_err(), "{format} cut at {cut}");
        }
        for garbage in [&b"g"[..], b"garbage", &one[..3], &b"garbage".repeat(100_000)] {
            let error = test(&[&one[..], garbage].concat()).unwrap_err();
            assert!(error.starts_with("cannot decompress "), "{format}: {error}");
        }
        let mut garbled = one.clone();
        garbled[one.len() / 2] ^= 0x10;
        assert!(test(&garbled).is_err(), "{format}");
        // Padding: of gzip any number of zeroes, of xz a multiple of four.
        assert_eq!(test(&[&one[..], &[0; 512]].concat()).is_ok(), format != "zstd");
        assert_eq!(test(&[&one[..], &[0; 511]].concat()).is_ok(), format == "gzip");
    }
}

#[test]
fn failures_leave_nothing_and_replace_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("in"), text(1 << 20)).unwrap();
    run(folder.path(), json!({"operation": "compress", "input": "in"})).unwrap();
    let again = json!({"operation": "decompress", "input": "in.zst"});
    assert!(run(folder.path(), again).unwrap_err().contains("cannot make"));
    let bomb = json!({"operation": "decompress", "input": "in.zst", "output": "out", "maxOutputBytes": 1_000});
    assert!(run(folder.path(), bomb).unwrap_err().contains("1000 bytes of maxOutputBytes"));
    let itself = json!({"operation": "compress", "input": "in", "output": "./in", "overwrite": true});
    assert!(run(folder.path(), itself).unwrap_err().contains("the same file"));
    let mut desk = Desk::default();
    desk.ends_after.set(Some(5));
    let params = json!({"operation": "compress", "input": "in", "output": "out", "format": "xz"});
    let outcome = run_at(&mut desk, folder.path(), ActionType::Compression, params).unwrap();
    assert_eq!(outcome.error().as_deref(), Some("it was told to end"));
    assert_eq!(names(folder.path()), ["in", "in.zst"]);
}

#[test]
fn windows_are_held_to_the_memory_limit() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in"), text(3 << 20)).unwrap();
    for (format, more) in [("zstd", json!({"windowLog": 22})), ("xz", json!({}))] {
        let mut params =
            json!({"operation": "compress", "input": "in", "output": "out", "format": format, "overwrite": true});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run(folder.path(), params).unwrap();
        let test = |mb: u32| run(folder.path(), json!({"operation": "test", "input": "out", "memoryLimitMb": mb}));
        let error = test(1).unwrap_err();
        assert!(error.ends_with("a larger memoryLimitMb may do"), "{error}");
        test(64).unwrap();
    }
}

#[test]
fn parameters_are_checked_in_words() {
    let folder = tempfile::tempdir().unwrap();
    for (params, words) in [
        (json!({}), "missing field `operation`"),
        (json!({"operation": "inflate"}), "unknown variant `inflate`"),
        (json!({"operation": "compress"}), "missing field `input`"),
        (json!({"operation": "compress", "input": "x", "levle": 3}), "unknown field `levle`"),
        (json!({"operation": "compress", "input": ""}), "input is empty"),
        (json!({"operation": "compress", "input": "x", "output": "x"}), "the same file"),
        (json!({"operation": "compress", "input": "x", "level": 23}), "level is 23: zstd has -50 to 22"),
        (json!({"operation": "compress", "input": "x", "output": "x.gz", "level": 0}), "gzip has 1 to 9"),
        (json!({"operation": "compress", "input": "x", "format": "xz", "level": -1}), "xz has 0 to 9"),
        (json!({"operation": "compress", "input": "x", "format": "xz", "windowLog": 20}), "for zstd alone"),
        (json!({"operation": "compress", "input": "x", "windowLog": 31}), "windowLog is 31: give 10 to 30"),
        (json!({"operation": "decompress", "input": "x"}), "output is missing"),
        (json!({"operation": "decompress", "input": ".gz"}), "output is missing"),
        (json!({"operation": "test", "input": "x", "memoryLimitMb": 0}), "memoryLimitMb is 0: give 1 to 4096"),
        (json!({"operation": "test", "input": "x", "output": "y"}), "unknown field `output`"),
    ] {
        let error = run(folder.path(), params).unwrap_err();
        assert!(error.starts_with("params of compression: ") && error.contains(words), "{error}");
    }
}
