//! Files by our own means; tests/types_file_io.rs sets them beside the standard tools.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::count::counts;
use super::list::{Algorithm, Line};
use crate::actions::desk_tests::{Desk, names, run as run_type, run_at};
use crate::task::ActionType;

fn run(folder: &Path, params: Value) -> Result<Value, String> {
    run_type(folder, ActionType::FileIo, params)
}

/// A folder with a tree: two files, an empty one, one below, and a link out of it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("tree/sub")).unwrap();
    for (name, text) in [("a", "one\ntwo\n"), ("b\nc", "drei"), ("empty", ""), ("sub/d", "näh\n"), (".hidden", "h\n")]
    {
        fs::write(at("tree").join(name), text).unwrap();
    }
    fs::write(at("outside"), "outside\n").unwrap();
    symlink(at("outside"), at("tree/link")).unwrap();
    folder
}

#[test]
fn a_tree_is_summed_up_and_verified() {
    let folder = folder();
    for algorithm in ["sha256", "blake3"] {
        let sum = json!({"operation": "checksum", "input": "tree", "algorithm": algorithm});
        let done = run(folder.path(), sum).unwrap();
        assert_eq!((&done["files"], &done["bytes"]), (&json!(5), &json!(19)));
        let list = done["list"].as_str().unwrap();
        let found: Vec<&str> = list.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        assert_eq!(found, [".hidden", "a", "b\\nc", "empty", "sub/d"]);
        fs::write(folder.path().join("list"), list).unwrap();
        let verify = json!({"operation": "verify", "list": "list", "root": "tree", "algorithm": algorithm});
        assert_eq!(run(folder.path(), verify.clone()).unwrap()["files"], 5);
        fs::write(folder.path().join("tree/a"), "one\nTwo\n").unwrap();
        fs::remove_file(folder.path().join("tree/empty")).unwrap();
        let error = run(folder.path(), verify).unwrap_err();
        assert!(error.starts_with("of 5 files 1 differ and 1 could not be read: a differs; cannot read "), "{error}");
        fs::write(folder.path().join("tree/a"), "one\ntwo\n").unwrap();
        fs::write(folder.path().join("tree/empty"), "").unwrap();
    }
    let one = run(folder.path(), json!({"operation": "checksum", "input": "tree/a", "names": "full"})).unwrap();
    assert!(one["list"].as_str().unwrap().ends_with("  tree/a\n"));
    for (text, words) in [("", "verifies nothing"), ("abc  a\n", "line 1 of"), ("\n", "verifies nothing")] {
        fs::write(folder.path().join("list"), text).unwrap();
        let error = run(folder.path(), json!({"operation": "verify", "list": "list"})).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_list_within_the_tree_is_not_part_of_itself() {
    let folder = folder();
    let params = json!({"operation": "checksum", "input": "tree", "output": "tree/SUMS", "overwrite": true});
    for _ in 0..2 {
        run(folder.path(), params.clone()).unwrap();
        assert_eq!(run(folder.path(), json!({"operation": "verify", "list": "tree/SUMS"})).unwrap()["files"], 5);
    }
}

#[test]
fn a_long_list_asks_for_an_output() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..400 {
        fs::write(folder.path().join(format!("file-{number}")), "").unwrap();
    }
    let error = run(folder.path(), json!({"operation": "checksum", "input": "."})).unwrap_err();
    assert!(error.contains("give an output"), "{error}");
}

#[test]
fn a_copy_has_modes_times_and_links() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::set_permissions(at("tree/a"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(at("tree/sub"), fs::Permissions::from_mode(0o550)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for name in ["tree/a", "tree/sub", "tree"] {
        fs::File::open(at(name)).unwrap().set_modified(old).unwrap();
    }
    let copy = json!({"operation": "copy", "input": "tree", "output": "copy"});
    let done = run(folder.path(), copy.clone()).unwrap();
    assert_eq!([&done["files"], &done["folders"], &done["links"], &done["bytes"]], [5, 2, 1, 19]);
    for name in ["", "a", "b\nc", "empty", "sub", "sub/d", "link", ".hidden"] {
        let facts = [at("tree").join(name), at("copy").join(name)].map(|path| fs::symlink_metadata(path).unwrap());
        assert_eq!(facts[0].mode(), facts[1].mode(), "{name}");
        assert_eq!(facts[0].modified().unwrap(), facts[1].modified().unwrap(), "{name}");
        if facts[0].is_file() {
            assert_eq!(fs::read(at("tree").join(name)).unwrap(), fs::read(at("copy").join(name)).unwrap());
        }
    }
    assert_eq!(fs::read_link(at("copy/link")).unwrap(), at("outside"));
    assert!(run(folder.path(), copy).unwrap_err().starts_with("cannot make"));
    let within = json!({"operation": "copy", "input": "tree", "output": "tree/sub/copy"});
    assert!(run(folder.path(), within).unwrap_err().contains("is within the tree"));
    let one = json!({"operation": "copy", "input": "tree/a", "output": "one"});
    assert_eq!(run(folder.path(), one).unwrap()["bytes"], 8);
    assert_eq!(fs::metadata(at("one")).unwrap().mode() & 0o777, 0o751);
    fs::set_permissions(at("tree/sub"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(at("copy/sub"), fs::Permissions::from_mode(0o750)).unwrap();
}

#[test]
fn a_copy_that_ends_early_leaves_nothing_and_one_that_was_killed_is_cleared_away() {
    let folder = folder();
    let before = names(folder.path());
    let copy = json!({"operation": "copy", "input": "tree", "output": "copy"});
    let mut questions = 1;
    loop {
        let mut desk = Desk::default();
        desk.ends_after.set(Some(questions));
        let outcome = run_at(&mut desk, folder.path(), ActionType::FileIo, copy.clone()).unwrap();
        if outcome.error().is_none() {
            break;
        }
        assert_eq!(names(folder.path()), before, "{questions}");
        questions += 1;
    }
    assert!(questions > 20, "{questions}");
    fs::remove_dir_all(folder.path().join("copy")).unwrap();
    // The task of these tests has always the same id.
    let id = crate::task::TaskId::new(1, 1, 1);
    let rest = folder.path().join(format!(".acode-copy-{id}/x"));
    fs::create_dir_all(&rest).unwrap();
    fs::set_permissions(rest.parent().unwrap(), fs::Permissions::from_mode(0o500)).unwrap();
    nix::unistd::mkfifo(&folder.path().join("tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let done = run(folder.path(), copy).unwrap();
    assert_eq!((&done["unreadable"], &done["leftOut"]), (&json!(0), &json!(1)));
    assert_eq!(names(folder.path()).len(), before.len() + 1);
}

#[test]
fn lines_words_and_characters() {
    for (bytes, expected) in [
        (&b""[..], [0, 0, 0, 0]),
        (b"one two\nthree", [1, 3, 13, 13]),
        ("näh\u{3000}jä\n".as_bytes(), [1, 2, 7, 11]),
        (b"a\xffb \xff c\n\x01", [1, 2, 7, 9]),
        (b"cut \xe2\x82", [0, 1, 4, 6]),
    ] {
        for step in [1, 2, 3, 100] {
            let found = counts(InSteps { rest: bytes, step }).unwrap();
            let found = [found.lines, found.words, found.chars, found.bytes];
            assert_eq!(found, expected, "{:?} by {step}", String::from_utf8_lossy(bytes));
        }
    }
    let folder = folder();
    let mut desk = Desk::default();
    let params = json!({"operation": "count", "input": "tree", "perFile": true});
    run_at(&mut desk, folder.path(), ActionType::FileIo, params).unwrap();
    let told = String::from_utf8(desk.out).unwrap();
    assert_eq!(
        told,
        "1 1 2 2 tree/.hidden\n2 2 8 8 tree/a\n0 1 4 4 tree/b\nc\n0 0 0 0 tree/empty\n1 1 4 5 tree/sub/d\n"
    );
}

struct InSteps<'b> {
    rest: &'b [u8],
    step: usize,
}

impl Read for InSteps<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let step = self.step.min(buffer.len());
        self.rest.read(&mut buffer[..step])
    }
}

#[test]
fn lines_are_found_and_binary_files_left() {
    let folder = folder();
    let at = |name: &str| folder.path().join("tree").join(name);
    fs::write(at("binary"), b"\0one\n").unwrap();
    fs::write(at("text"), "One\r\nno\nt.o\none one").unwrap();
    let mut search = json!({"operation": "search", "input": "tree", "pattern": "one"});
    let mut desk = Desk::default();
    let outcome = run_at(&mut desk, folder.path(), ActionType::FileIo, search.clone()).unwrap();
    assert_eq!(String::from_utf8(desk.out).unwrap(), "tree/a:1:one\ntree/text:4:one one\n");
    let crate::actions::Outcome::Done(Some(done)) = outcome else { panic!("{outcome:?}") };
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!([&done["matches"], &done["filesMatched"], &done["files"], &done["binaryFiles"]], [2, 2, 7, 1]);
    search["ignoreCase"] = true.into();
    search["maxMatches"] = 2.into();
    let done = run(folder.path(), search.clone()).unwrap();
    assert_eq!((&done["matches"], &done["truncated"]), (&json!(2), &json!(true)));
    search["maxMatches"] = 3.into();
    search["output"] = "found".into();
    assert_eq!(run(folder.path(), search).unwrap()["truncated"], false);
    assert_eq!(
        fs::read(folder.path().join("found")).unwrap(),
        b"tree/a:1:one\ntree/text:1:One\r\ntree/text:4:one one\n"
    );
    let literal = json!({"operation": "search", "input": "tree", "pattern": "t.o", "literal": true});
    assert_eq!(run(folder.path(), literal).unwrap()["matches"], 1);
}

#[test]
fn parameters_are_checked_in_words() {
    let folder = folder();
    for (params, words) in [
        (json!({"operation": "delete", "input": "x"}), "unknown variant `delete`"),
        (json!({"operation": "checksum", "input": "x", "algorithm": "md5"}), "unknown variant `md5`"),
        (json!({"operation": "checksum", "input": "x\0"}), "input holds a NUL byte"),
        (json!({"operation": "copy", "input": "x"}), "missing field `output`"),
        (json!({"operation": "copy", "input": "x", "output": "x"}), "the same file"),
        (json!({"operation": "verify", "list": "x", "root": ""}), "root is empty"),
        (json!({"operation": "count", "input": "x", "words": true}), "unknown field `words`"),
        (json!({"operation": "search", "input": "x", "pattern": "("}), "pattern: regex parse error"),
        (json!({"operation": "search", "input": "x", "pattern": "a{1000}{1000}"}), "pattern: "),
        (json!({"operation": "search", "input": "x", "pattern": "x", "maxMatches": 0}), "maxMatches is 0"),
    ] {
        let error = run(folder.path(), params).unwrap_err();
        assert!(error.starts_with("params of file_io: ") && error.contains(words), "{error}");
    }
    let missing = run(folder.path(), json!({"operation": "count", "input": "missing"})).unwrap_err();
    assert!(missing.contains("/missing: ") && missing.starts_with("cannot read"), "{missing}");
}

proptest! {
    #[test]
    fn a_line_says_again_which_name_it_was(name in prop::collection::vec(1_u8.., 1..40)) {
        let path = Path::new(OsStr::from_bytes(&name));
        for algorithm in [Algorithm::Sha256, Algorithm::Blake3] {
            let sum = algorithm.sum(&b"x"[..]).unwrap();
            let line = algorithm.line(&sum, path);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let Some(Line::Sum(found, name)) = algorithm.read(line.strip_suffix(b"\n").unwrap()) else {
                panic!("{line:?}");
            };
            prop_assert_eq!(found, sum);
            prop_assert!(name == path || name == Path::new("./-"));
        }
    }
}
