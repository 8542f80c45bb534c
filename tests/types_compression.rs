//! Typed tasks of type `compression` through the real binary, beside zstd, gzip and xz: both ways, and what damage, kills and
//! cancels leave.
//!
//! Deliberately absent: each single parameter, which the type's own tests have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use std::fs::{self, File};

use acode_worker::task::ActionType::Compression;
use acode_worker::task::{Isolation, TaskState};
use command::{Acode, entries};
use common::{Options, Pool, signal, wait_until};
use more::{cancel, only_attempt, verdict};
use nix::sys::signal::Signal;
use serde_json::json;
use typed::{ISOLATIONS, done, fails, have, is_under_way, result, text, tool, typed};

const FORMATS: [(&str, &str); 3] = [("zstd", "zst"), ("gzip", "gz"), ("xz", "xz")];

#[test]
fn the_tools_read_what_we_write_and_we_read_what_they_write() {
    if !have(&["zstd", "gzip", "xz"]) {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    for bytes in [0, 5, 3_000_000] {
        let plain = text(bytes);
        fs::write(folder.join("in"), &plain).unwrap();
        for (format, suffix) in FORMATS {
            for level in [1, 9] {
                let packed = format!("work/ours.{suffix}");
                let params = json!({"operation": "compress", "input": "work/in", "output": packed, "level": level, "overwrite": true});
                let ours = done(&pool, Compression, params);
                assert_eq!((&ours["format"], &ours["inputBytes"]), (&json!(format), &json!(bytes)));
                assert!(
                    tool(&folder, &[format, "-dc", &format!("ours.{suffix}")]).unwrap() == plain,
                    "{format} {level}"
                );
                let theirs = tool(&folder, &[format, &format!("-{level}"), "-c", "in"]).unwrap();
                // Two members, the second of which is theirs too.
                fs::write(folder.join("theirs"), [&theirs[..], &theirs[..]].concat()).unwrap();
                let params =
                    json!({"operation": "decompress", "input": "work/theirs", "output": "work/out", "overwrite": true});
                assert_eq!(done(&pool, Compression, params)["outputBytes"], 2 * bytes);
                assert!(fs::read(folder.join("out")).unwrap() == [&plain[..], &plain[..]].concat(), "{format} {level}");
            }
        }
    }
    // A window that takes more memory than is allowed, until more is.
    fs::write(folder.join("in"), text(1_000)).unwrap();
    let long = "zstd --long=29 -c < in > long.zst";
    tool(&folder, &["sh", "-c", long]).unwrap();
    let test = |mb: u32| json!({"operation": "test", "input": "work/long.zst", "memoryLimitMb": mb});
    assert!(fails(&pool, Compression, test(128)).contains("a larger memoryLimitMb may do"));
    assert_eq!(done(&pool, Compression, test(1_024))["outputBytes"], 1_000);
}

#[test]
fn damage_is_told_as_the_tools_tell_it_and_nothing_is_left() {
    if !have(&["zstd", "gzip", "xz"]) {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("in"), text(200_000)).unwrap();
    for (format, suffix) in FORMATS {
        let whole = tool(&folder, &[format, "-c", "in"]).unwrap();
        let middle = whole.len() / 2;
        let mut garbled = whole.clone();
        garbled[middle] ^= 0xff;
        for (what, bytes) in [
            ("cut", &whole[..middle]),
            ("cut-at-end", &whole[..whole.len() - 1]),
            ("garbled", &garbled[..]),
            ("followed", &[&whole[..], b"something else"].concat()),
        ] {
            let name = format!("{what}.{suffix}");
            fs::write(folder.join(&name), bytes).unwrap();
            assert!(tool(&folder, &[format, "-t", &name]).is_err(), "{name}");
            let params = json!({"operation": "decompress", "input": format!("work/{name}"), "output": "work/out"});
            let error = fails(&pool, Compression, params);
            assert!(error.starts_with("cannot decompress ") && error.contains(&name), "{error}");
            fs::remove_file(folder.join(&name)).unwrap();
        }
    }
    assert_eq!(entries(&folder), ["in"]);
}

#[test]
fn names_may_be_hostile() {
    let pool = Pool::start(Options::workers(1));
    for name in ["-rf", "two\nlines", "*", "'; reboot; '", "ünïcode", " "] {
        fs::write(pool.file(name), b"x").unwrap();
        for isolation in ISOLATIONS {
            let params = json!({"operation": "compress", "input": name, "format": "gzip", "overwrite": true});
            let spec = acode_worker::task::TaskSpec { isolation: Some(isolation), ..typed(&pool, Compression, params) };
            result(&pool, &pool.wait(pool.submit_spec(spec)));
        }
        assert!(pool.file(&format!("{name}.gz")).exists(), "{name:?}");
    }
}

#[test]
fn two_gigabytes_go_through_in_little_memory() {
    const SIZE: u64 = 2 << 30;
    let pool = Pool::start(Options::workers(1));
    File::create(pool.file("in")).unwrap().set_len(SIZE).unwrap();
    for params in [
        json!({"operation": "compress", "input": "in", "output": "out.zst", "level": 1}),
        json!({"operation": "test", "input": "out.zst"}),
    ] {
        let spec = acode_worker::task::TaskSpec {
            isolation: Some(Isolation::Process),
            ..typed(&pool, Compression, params.clone())
        };
        let task = pool.wait(pool.submit_spec(spec));
        let done = result(&pool, &task);
        let plain = if params["operation"] == "test" { "outputBytes" } else { "inputBytes" };
        assert_eq!(done[plain], SIZE);
        let rss = only_attempt(&task).usage.as_ref().unwrap().max_rss_bytes;
        assert!(rss < 128 << 20, "{rss} bytes of memory");
    }
    if have(&["zstd"]) {
        tool(&pool.file(""), &["zstd", "-q", "-t", "out.zst"]).unwrap();
    }
    let bomb = json!({"operation": "decompress", "input": "out.zst", "output": "out", "maxOutputBytes": 1 << 20});
    assert!(fails(&pool, Compression, bomb).contains("maxOutputBytes"));
    assert!(!pool.file("out").exists());
}

#[test]
fn a_cancel_in_the_middle_leaves_nothing() {
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    File::create(folder.join("in")).unwrap().set_len(64 << 30).unwrap();
    for isolation in ISOLATIONS {
        let params = json!({"operation": "compress", "input": "work/in", "format": "gzip"});
        let spec = acode_worker::task::TaskSpec { isolation: Some(isolation), ..typed(&pool, Compression, params) };
        let id = pool.submit_spec(spec);
        is_under_way(&pool, id);
        assert!(cancel(&pool, id));
        let task = pool.wait(id);
        assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"), "{task:?}");
        assert_eq!(entries(&folder), ["in"], "{isolation}");
    }
}

#[test]
fn a_worker_killed_in_the_middle_leaves_nothing_and_the_next_attempt_succeeds() {
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    for isolation in ISOLATIONS {
        File::create(folder.join("in")).unwrap().set_len(64 << 30).unwrap();
        let params = json!({"operation": "compress", "input": "work/in", "format": "gzip", "overwrite": true});
        let spec = acode_worker::task::TaskSpec { isolation: Some(isolation), ..typed(&pool, Compression, params) };
        let id = pool.submit_spec(spec);
        is_under_way(&pool, id);
        assert_eq!(entries(&folder), ["in"], "it has no name yet: {isolation}");
        // The next attempt is to have less to do, and this one has opened what there was.
        fs::write(pool.file("small"), vec![0; 1 << 20]).unwrap();
        fs::rename(pool.file("small"), folder.join("in")).unwrap();
        signal(pool.worker_of(id).pid, Signal::SIGKILL);
        let task = pool.wait(id);
        assert_eq!((result(&pool, &task)["inputBytes"].as_u64(), task.crash_count), (Some(1 << 20), 1), "{task:?}");
        let mut left = entries(&folder);
        left.sort();
        assert_eq!(left, ["in", "in.gz"], "{isolation}");
        fs::remove_file(folder.join("in.gz")).unwrap();
    }
    wait_until("the worker is back", || !pool.workers().is_empty());
}

#[test]
fn what_does_not_fit_is_refused_at_once_with_the_words() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for (params, words) in [
        (r#"{"operation": "compress", "input": "x", "level": 99}"#, "level is 99: zstd has -50 to 22"),
        (r#"{"operation": "compress", "input": "x", "colour": "red"}"#, "unknown field `colour`"),
        (r#"{"operation": "compress"}"#, "missing field `input`"),
        (r#"{"input": "x"}"#, "missing field `operation`"),
        ("{}", "missing field `operation`"),
        (r#"{"operation": "decompress", "input": "x"}"#, "output is missing"),
    ] {
        let said = acode.says(&["task", "submit", "--type", "compression", "--params", params]).expect(2);
        assert!(said.err.contains("params of compression: ") && said.err.contains(words), "{said:?}");
    }
}

#[test]
fn an_error_names_the_file_and_what_helps() {
    let pool = Pool::start(Options::workers(1));
    fs::write(pool.file("in"), text(100_000)).unwrap();
    let compress = json!({"operation": "compress", "input": "in"});
    done(&pool, Compression, compress.clone());
    let error = fails(&pool, Compression, compress);
    assert_eq!(error, format!("cannot make {}: it exists: overwrite: true replaces it", pool.path("in.zst")));
    let bomb = json!({"operation": "decompress", "input": "in.zst", "output": "out", "maxOutputBytes": 1_000});
    let error = fails(&pool, Compression, bomb);
    let place = pool.path("in.zst");
    assert_eq!(error, format!("cannot decompress {place}: more comes out than the 1000 bytes of maxOutputBytes"));
    let said = Acode::of(&pool).says(&["task", "submit", "--type", "compression", "--params", "[1]"]).expect(2);
    assert!(said.err.contains("params of compression: an object is expected"), "{said:?}");
}
