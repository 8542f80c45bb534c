//! Typed tasks of type `encryption` through the real binary, beside age: both ways.
//!
//! Deliberately absent: each single parameter and kind of damage, which the type's own tests have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use std::fs;

use acode_worker::task::ActionType::Encryption;
use acode_worker::task::{Isolation, TaskSpec, TaskState};
use command::{Acode, entries};
use common::{Options, Pool};
use more::{cancel, verdict};
use serde_json::{Value, json};
use typed::{ISOLATIONS, done, fails, have, is_under_way, result, says, text, tool, typed};

/// Runs age with a passphrase, which it takes from a terminal alone: Python makes one for it.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
passphrase, words = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(words[0], words)
said, sent = b"", 0
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if said.count(b"passphrase") > sent and said.rstrip().endswith(b":"):
        sent = said.count(b"passphrase")
        os.write(terminal, passphrase.encode() + b"\n")
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.stderr.buffer.write(said)
sys.exit(status)
"#;

/// A pool with a file, a key, and a passphrase; and the recipient of the key.
fn pool() -> (Pool, String) {
    let pool = Pool::start(Options::workers(1).var("POOL_PASSPHRASE", "of the pool"));
    fs::create_dir(pool.file("work")).unwrap();
    fs::write(pool.file("work/in"), text(1_000_000)).unwrap();
    fs::write(pool.file("pass"), "correct horse\n").unwrap();
    says(&pool.file(""), &["age-keygen", "-o", "key"]);
    let recipient = says(&pool.file(""), &["age-keygen", "-y", "key"]);
    (pool, recipient)
}

#[test]
fn age_reads_what_we_write_to_recipients_and_we_read_what_it_writes() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let (pool, recipient) = pool();
    let folder = pool.file("work");
    says(&folder, &["age-keygen", "-o", "../second"]);
    let second = says(&folder, &["age-keygen", "-y", "../second"]);
    for bytes in [0, 65_536, 1_000_000] {
        let plain = text(bytes);
        fs::write(folder.join("in"), &plain).unwrap();
        for armor in [false, true] {
            let params = json!({"operation": "encrypt", "input": "work/in", "recipients": [recipient, second], "armor": armor, "overwrite": true});
            assert_eq!(done(&pool, Encryption, params)["inputBytes"], bytes);
            for key in ["../key", "../second"] {
                assert!(tool(&folder, &["age", "-d", "-i", key, "in.age"]).unwrap() == plain, "{bytes} {armor}");
            }
            let mut words = vec!["age", "-r", &recipient, "-o", "theirs.age", "in"];
            if armor {
                words.insert(1, "-a");
            }
            says(&folder, &words);
            let params =
                json!({"operation": "decrypt", "input": "work/theirs.age", "identityFile": "key", "overwrite": true});
            assert_eq!(done(&pool, Encryption, params)["armor"], armor);
            assert!(fs::read(folder.join("theirs")).unwrap() == plain, "{bytes} {armor}");
        }
    }
    let params =
        json!({"operation": "decrypt", "input": "work/theirs.age", "identityFile": "second", "output": "work/x"});
    assert!(fails(&pool, Encryption, params).ends_with("none of the identities is one of its recipients"));
    assert!(!folder.join("x").exists());
}

#[test]
fn passphrases_go_both_ways_too() {
    if !have(&["age", "age-keygen", "python3"]) {
        return;
    }
    let (pool, _) = pool();
    let folder = pool.file("work");
    let plain = fs::read(folder.join("in")).unwrap();
    let params = json!({"operation": "encrypt", "input": "work/in", "passphraseFile": "pass", "workFactor": 12});
    done(&pool, Encryption, params);
    let age =
        |words: &[&str]| tool(&folder, &[&["python3", "-c", ON_A_TERMINAL, "correct horse", "age"], words].concat());
    age(&["-d", "-o", "back", "in.age"]).unwrap();
    assert!(fs::read(folder.join("back")).unwrap() == plain);
    age(&["-p", "-o", "theirs.age", "in"]).unwrap();
    let decrypt = |how: Value| {
        let mut params = json!({"operation": "decrypt", "input": "work/theirs.age", "overwrite": true});
        params.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        params
    };
    done(&pool, Encryption, decrypt(json!({"passphraseFile": "pass"})));
    assert!(fs::read(folder.join("theirs")).unwrap() == plain);
    let error = fails(&pool, Encryption, decrypt(json!({"passphraseFile": "pass", "maxWorkFactor": 17})));
    assert!(error.contains("its work factor is 18"), "{error}");
    fs::write(pool.file("pass"), "wrong").unwrap();
    assert!(fails(&pool, Encryption, decrypt(json!({"passphraseFile": "pass"}))).ends_with("the passphrase is wrong"));
}

#[test]
fn a_passphrase_may_come_from_the_environment_and_is_nowhere_in_the_queue() {
    if !have(&["age-keygen"]) {
        return;
    }
    let (pool, _) = pool();
    let run = |isolation, params, env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let spec = TaskSpec { isolation: Some(isolation), env, ..typed(&pool, Encryption, params) };
        pool.wait(pool.submit_spec(spec))
    };
    // In a process it is the task's own environment, in the worker the worker's.
    let cases = [
        (Isolation::Process, "TASK_PASSPHRASE", &[("TASK_PASSPHRASE", "of the task")][..]),
        (Isolation::None, "POOL_PASSPHRASE", &[]),
    ];
    for (isolation, variable, env) in cases {
        let how = json!({"passphraseEnv": variable, "input": "work/in", "output": "work/x.age", "operation": "encrypt", "workFactor": 4, "overwrite": true});
        result(&pool, &run(isolation, how, env));
        let back = json!({"passphraseEnv": variable, "input": "work/x.age", "operation": "decrypt", "overwrite": true});
        result(&pool, &run(isolation, back.clone(), env));
        assert_eq!(fs::read(pool.file("work/x")).unwrap(), fs::read(pool.file("work/in")).unwrap());
        let mut unset = back;
        unset["passphraseEnv"] = "NO_SUCH_VARIABLE".into();
        let task = run(isolation, unset, env);
        assert!(task.error.as_ref().unwrap().contains("NO_SUCH_VARIABLE for the passphrase is not set"), "{task:?}");
    }
}

#[test]
fn a_cancel_in_the_middle_leaves_nothing() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let (pool, recipient) = pool();
    fs::File::options().write(true).open(pool.file("work/in")).unwrap().set_len(64 << 30).unwrap();
    for isolation in ISOLATIONS {
        let params = json!({"operation": "encrypt", "input": "work/in", "recipients": [recipient]});
        let spec = TaskSpec { isolation: Some(isolation), ..typed(&pool, Encryption, params) };
        let id = pool.submit_spec(spec);
        is_under_way(&pool, id);
        assert!(cancel(&pool, id));
        let task = pool.wait(id);
        assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"), "{task:?}");
        assert_eq!(entries(&pool.file("work")), ["in"]);
    }
}

#[test]
fn what_does_not_fit_is_refused_at_once_with_the_words() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for (params, words) in [
        (r#"{"operation": "encrypt", "input": "x"}"#, "nobody could decrypt it"),
        (r#"{"operation": "encrypt", "input": "x", "passphrase": "secret"}"#, "unknown field `passphrase`"),
        (r#"{"operation": "encrypt", "input": "x", "recipients": ["age1abc"]}"#, "is no recipient of age"),
        (r#"{"operation": "decrypt", "input": "x.age"}"#, "give identityFile, passphraseFile or passphraseEnv"),
    ] {
        let said = acode.says(&["task", "submit", "--type", "encryption", "--params", params]).expect(2);
        assert!(said.err.contains("params of encryption: ") && said.err.contains(words), "{said:?}");
    }
}
