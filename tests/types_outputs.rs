//! What the outputs of all built-in types may take the place of, and with which mode: through the real binary.
//!
//! Deliberately absent: what is written. Whatever here is a device was made by the test, in its own folder.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use acode_worker::task::{ActionType, Isolation, TaskSpec};
use command::{Acode, entries};
use common::{Options, Pool};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use typed::{ISOLATIONS, done, fails, result, typed};

/// A picture of one grey pixel.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b, 0x55, 0x00, 0x00, 0x00, 0x0a, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x68, 0x00, 0x00, 0x00, 0x82, 0x00, 0x81, 0x77, 0xcd, 0x72, 0xb6, 0x00, 0x00,
    0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

/// What each type reads; that of the passphrase is an input as well.
const INPUTS: [(&str, &[u8]); 4] =
    [("in", b"one\ntwo\n"), ("in.png", PNG), ("in.csv", b"a,b\n1,2\n"), ("pass", b"open sesame\n")];

/// Every type and operation that writes one file, with an input of its own; only the output is missing.
fn writers() -> Vec<(ActionType, Value)> {
    let same = |of: &str, more: Value| {
        let mut params = json!({ "input": of, "overwrite": true });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    vec![
        (ActionType::Compression, same("in", json!({"operation": "compress", "format": "gzip"}))),
        (ActionType::Compression, same("in.zst", json!({"operation": "decompress"}))),
        (
            ActionType::Encryption,
            same("in", json!({"operation": "encrypt", "passphraseFile": "pass", "workFactor": 2})),
        ),
        (ActionType::Encryption, same("in.age", json!({"operation": "decrypt", "passphraseFile": "pass"}))),
        (ActionType::ImageManipulation, same("in.png", json!({"operation": "convert", "format": "png"}))),
        (ActionType::FileIo, same("in", json!({"operation": "copy"}))),
        (ActionType::FileIo, same("in", json!({"operation": "checksum"}))),
        (ActionType::FileIo, same("in", json!({"operation": "search", "pattern": "o"}))),
        (ActionType::DataProcessing, same("in.csv", json!({"format": "csv", "outputFormat": "csv"}))),
        (ActionType::Analysis, same("in.csv", json!({"format": "csv"}))),
    ]
}

/// A pool, and its folder with all inputs.
fn pool() -> (Pool, std::path::PathBuf) {
    let pool = Pool::start(Options::workers(1).config("tasks: {retries: {count: 0}}"));
    let folder = pool.file("");
    for (name, contents) in INPUTS {
        fs::write(folder.join(name), contents).unwrap();
    }
    done(&pool, ActionType::Compression, json!({"operation": "compress", "input": "in"}));
    let encrypt = json!({"operation": "encrypt", "input": "in", "passphraseFile": "pass", "workFactor": 2});
    done(&pool, ActionType::Encryption, encrypt);
    (pool, folder)
}

fn with_output(params: &Value, output: &str) -> Value {
    let mut params = params.clone();
    params["output"] = output.into();
    params
}

fn kind(path: &Path) -> FileType {
    fs::symlink_metadata(path).unwrap().file_type()
}

#[test]
fn nothing_but_a_file_is_replaced() {
    let (pool, folder) = pool();
    fs::create_dir(folder.join("odd")).unwrap();
    let at = |name: &str| folder.join("odd").join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("fifo", at("to-fifo")).unwrap();
    symlink("folder", at("to-folder")).unwrap();
    // As /dev/stdout is one; behind it may be whatever the worker has there, a regular file too.
    fs::write(folder.join("log"), "log\n").unwrap();
    symlink(format!("/proc/self/root{}", folder.join("log").display()), at("to-proc")).unwrap();
    let mut odd = vec![
        ("fifo", "it is a FIFO"),
        ("socket", "it is a socket"),
        ("folder", "it is a folder"),
        ("to-fifo", "it leads to a FIFO"),
        ("to-folder", "it leads to a folder"),
        ("to-proc", "it leads into /proc"),
    ];
    let null = makedev(1, 3);
    match mknod(&at("device"), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, null) {
        Ok(()) => {
            symlink("device", at("to-device")).unwrap();
            odd.extend([("device", "it is a device"), ("to-device", "it leads to a device")]);
        }
        Err(errno) => eprintln!("not tested with devices: none can be made here: {errno}"),
    }
    let kinds: Vec<FileType> = odd.iter().map(|(name, _)| kind(&at(name))).collect();
    for (action, params) in writers() {
        for overwrite in [true, false] {
            for (name, words) in &odd {
                let mut params = with_output(&params, &format!("odd/{name}"));
                params["overwrite"] = overwrite.into();
                let error = fails(&pool, action, params);
                assert!(error.starts_with("cannot make ") && error.contains(words), "{action:?} {name}: {error}");
                assert!(!error.contains("overwrite"), "{action:?} {name}: {error}");
            }
        }
    }
    assert_eq!(odd.iter().map(|(name, _)| kind(&at(name))).collect::<Vec<_>>(), kinds);
    assert_eq!(entries(&folder.join("odd")).len(), odd.len(), "nothing else is left");
    assert!(kind(&at("fifo")).is_fifo() && kind(&at("socket")).is_socket());
    assert_eq!(fs::read(folder.join("log")).unwrap(), b"log\n");
}

#[test]
fn a_link_is_replaced_and_not_what_it_leads_to() {
    let (pool, folder) = pool();
    for (action, params) in writers() {
        for (name, target) in [("link", "target"), ("dangling", "nowhere")] {
            let _ = fs::remove_file(folder.join(name));
            fs::write(folder.join("target"), "mine\n").unwrap();
            symlink(target, folder.join(name)).unwrap();
            let mut once = with_output(&params, name);
            once["overwrite"] = false.into();
            let error = fails(&pool, action, once);
            assert!(error.ends_with("it exists: overwrite: true replaces it"), "{action:?}: {error}");
            assert!(kind(&folder.join(name)).is_symlink());
            done(&pool, action, with_output(&params, name));
            assert!(kind(&folder.join(name)).is_file(), "{action:?} {name}");
            assert_eq!(fs::read(folder.join("target")).unwrap(), b"mine\n", "{action:?}");
            assert!(!folder.join("nowhere").exists());
        }
    }
}

#[test]
fn no_input_is_ever_the_output() {
    let (pool, folder) = pool();
    let absolute = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for (action, params) in writers() {
        let mut inputs = vec![params["input"].as_str().unwrap().to_owned()];
        if let Some(pass) = params["passphraseFile"].as_str() {
            inputs.push(pass.to_owned());
        }
        for input in inputs {
            let before = fs::read(folder.join(&input)).unwrap();
            let names = [format!("hard-{input}"), format!("soft-{input}")];
            names.iter().for_each(|name| drop(fs::remove_file(folder.join(name))));
            fs::hard_link(folder.join(&input), folder.join(&names[0])).unwrap();
            symlink(&input, folder.join(&names[1])).unwrap();
            let [hard, soft] = names;
            for output in [format!("./{input}"), absolute(&input), format!("x/../{input}"), hard, soft] {
                fs::create_dir_all(folder.join("x")).unwrap();
                for overwrite in [true, false] {
                    let mut params = with_output(&params, &output);
                    params["overwrite"] = overwrite.into();
                    let error = fails(&pool, action, params);
                    assert!(error.contains("input"), "{action:?} {output}: {error}");
                    assert!(!error.contains("replaces it"), "{action:?} {output}: {error}");
                    assert!(fs::read(folder.join(&input)).unwrap() == before, "{action:?} {output}");
                }
            }
        }
    }
}

#[test]
fn the_mode_mask_holds_in_the_worker_as_in_a_process_and_follows_a_reload() {
    let (pool, folder) = pool();
    let acode = Acode::of(&pool);
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    let modes = |isolation: Isolation| {
        let one = |output: &str, params: Value, action| {
            let spec = typed(&pool, action, with_output(&params, output));
            result(&pool, &pool.wait(pool.submit_spec(TaskSpec { isolation: Some(isolation), ..spec })));
            mode(output)
        };
        [
            one("sums", json!({"operation": "checksum", "input": "in", "overwrite": true}), ActionType::FileIo),
            one("out.png", json!({"input": "in.png", "overwrite": true}), ActionType::ImageManipulation),
        ]
    };
    for isolation in ISOLATIONS {
        assert_eq!(modes(isolation), [0o600; 2], "{isolation}: as it is by default");
    }
    for (mask, expected) in [("027", 0o640), ("000", 0o666), ("022", 0o644)] {
        fs::write(pool.file("acode.yaml"), format!("workers: {{count: 1, umask: '{mask}'}}\n")).unwrap();
        acode.ok(&["worker", "reload"]);
        for isolation in ISOLATIONS {
            assert_eq!(modes(isolation), [expected; 2], "{isolation} {mask}");
        }
    }
    // What says whose it is keeps the input's.
    fs::set_permissions(folder.join("in"), fs::Permissions::from_mode(0o604)).unwrap();
    done(&pool, ActionType::FileIo, json!({"operation": "copy", "input": "in", "output": "copy"}));
    assert_eq!(mode("copy"), 0o604);
}
