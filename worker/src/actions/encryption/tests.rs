//! Encryption by its own means; tests/types_encryption.rs sets it beside age.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use age::secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::actions::desk_tests::{Desk, names, run as run_type, run_at};
use crate::task::ActionType;

fn run(folder: &Path, params: Value) -> Result<Value, String> {
    run_type(folder, ActionType::Encryption, params)
}

/// A folder with a file, a key for it, and a passphrase.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let key = age::x25519::Identity::generate();
    fs::write(folder.path().join("key"), format!("# mine\n{}\n", key.to_string().expose_secret())).unwrap();
    fs::write(folder.path().join("pass"), "open sesame\n").unwrap();
    fs::write(folder.path().join("in"), b"secret\n".repeat(50_000)).unwrap();
    (folder, key.to_public().to_string())
}

#[test]
fn what_is_encrypted_is_decrypted_by_key_and_by_passphrase() {
    let (folder, recipient) = folder();
    let plain = fs::read(folder.path().join("in")).unwrap();
    for armor in [false, true] {
        for (how, with) in [
            (json!({"recipients": [recipient]}), json!({"identityFile": "key"})),
            (json!({"passphraseFile": "pass", "workFactor": 4}), json!({"passphraseFile": "pass"})),
        ] {
            let encrypt = json!({"operation": "encrypt", "input": "in", "armor": armor, "overwrite": true});
            let done = run(folder.path(), merged(encrypt, &how)).unwrap();
            assert_eq!(done["outputBytes"], fs::metadata(folder.path().join("in.age")).unwrap().len());
            fs::remove_file(folder.path().join("in")).unwrap();
            let done = run(folder.path(), merged(json!({"operation": "decrypt", "input": "in.age"}), &with)).unwrap();
            assert_eq!(done["armor"], armor);
            assert!(fs::read(folder.path().join("in")).unwrap() == plain);
            assert_eq!(fs::metadata(folder.path().join("in")).unwrap().permissions().mode() & 0o077, 0);
        }
    }
}

fn merged(mut one: Value, other: &Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

#[test]
fn who_has_the_wrong_key_or_a_damaged_file_is_told_and_gets_nothing() {
    let (folder, recipient) = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("wrong"), "open barley").unwrap();
    fs::write(at("empty"), "\n").unwrap();
    let stranger = age::x25519::Identity::generate();
    fs::write(at("stranger"), stranger.to_string().expose_secret()).unwrap();
    let encrypt =
        |how: Value| run(folder.path(), merged(json!({"operation": "encrypt", "input": "in"}), &how)).unwrap();
    encrypt(json!({"recipients": [recipient], "output": "by-key"}));
    encrypt(json!({"passphraseFile": "pass", "workFactor": 12, "output": "by-pass"}));
    let whole = fs::read(at("by-key")).unwrap();
    fs::write(at("cut"), &whole[..whole.len() - 1]).unwrap();
    fs::write(at("cut-at-piece"), &whole[..200 + 65_552]).unwrap();
    // The pieces begin behind the last line of the header, whose mark and sum have 48 bytes, and a nonce.
    let body = whole.windows(5).position(|bytes| bytes == b"\n--- ").unwrap() + 49 + 16;
    fs::write(at("cut-after-piece"), &whole[..body + 65_552]).unwrap();
    fs::write(at("cut-header"), &whole[..80]).unwrap();
    fs::write(at("longer"), [&whole[..], b"x"].concat()).unwrap();
    let mut garbled = whole.clone();
    garbled[150_000] ^= 1;
    fs::write(at("garbled"), garbled).unwrap();
    encrypt(json!({"recipients": [recipient], "output": "armor", "armor": true}));
    let mut armor = fs::read(at("armor")).unwrap();
    fs::write(at("cut-armor"), &armor[..armor.len() / 2]).unwrap();
    let place = armor.len() / 2;
    let other = armor[place..].iter().position(|letter| *letter != b'A' && *letter != b'\n').unwrap();
    armor[place + other] = b'A';
    fs::write(at("garbled-armor"), armor).unwrap();
    fs::write(at("nothing"), "").unwrap();
    fs::write(at("large-header"), format!("age-encryption.org/v1\n-> x\n{}", "A".repeat(1 << 20))).unwrap();
    let before = names(folder.path());
    for (input, with, words) in [
        ("by-key", json!({"identityFile": "stranger"}), "none of the identities is one of its recipients"),
        ("by-key", json!({"passphraseFile": "pass"}), "takes an identityFile"),
        ("by-key", json!({"identityFile": "pass"}), "non-identity data on line 1"),
        ("by-key", json!({"identityFile": "missing"}), "cannot read"),
        ("by-pass", json!({"identityFile": "key"}), "with a passphrase"),
        ("by-pass", json!({"passphraseFile": "wrong"}), "the passphrase is wrong"),
        ("by-pass", json!({"passphraseFile": "empty"}), "is empty"),
        ("by-pass", json!({"passphraseEnv": "ACODE_NO_SUCH"}), "ACODE_NO_SUCH for the passphrase is not set"),
        ("by-pass", json!({"passphraseFile": "pass", "maxWorkFactor": 11}), "its work factor is 12"),
        ("cut", json!({"identityFile": "key"}), "/cut: it is damaged or cut off"),
        ("cut-at-piece", json!({"identityFile": "key"}), "/cut-at-piece: it is damaged or cut off"),
        ("cut-after-piece", json!({"identityFile": "key"}), "/cut-after-piece: it is cut off"),
        ("cut-header", json!({"identityFile": "key"}), "it is cut off"),
        ("longer", json!({"identityFile": "key"}), "/longer: it is damaged or cut off"),
        ("garbled", json!({"identityFile": "key"}), "/garbled: it is damaged or cut off"),
        ("garbled-armor", json!({"identityFile": "key"}), "/garbled-armor: it is damaged or cut off"),
        ("cut-armor", json!({"identityFile": "key"}), "cannot decrypt"),
        ("nothing", json!({"identityFile": "key"}), "/nothing: it is empty"),
        ("in", json!({"identityFile": "key"}), "it is no file of age"),
        ("large-header", json!({"identityFile": "key"}), "is larger than"),
    ] {
        let params = merged(json!({"operation": "decrypt", "input": input, "output": "out"}), &with);
        let error = run(folder.path(), params).unwrap_err();
        assert!(error.contains(words), "{input}: {error}");
        assert_eq!(names(folder.path()), before, "{input}");
    }
    let mut desk = Desk::default();
    desk.ends_after.set(Some(4));
    let params = json!({"operation": "encrypt", "input": "in", "recipients": [recipient]});
    let outcome = run_at(&mut desk, folder.path(), ActionType::Encryption, params).unwrap();
    assert_eq!(outcome.error().as_deref(), Some("it was told to end"));
    assert_eq!(names(folder.path()), before);
}

#[test]
fn parameters_are_checked_in_words_and_secrets_are_not_repeated() {
    let (folder, recipient) = folder();
    let encrypt = |how: Value| merged(json!({"operation": "encrypt", "input": "in"}), &how);
    let decrypt = |how: Value| merged(json!({"operation": "decrypt", "input": "in.age"}), &how);
    for (params, words) in [
        (encrypt(json!({})), "nobody could decrypt it"),
        (encrypt(json!({"passphrase": "x"})), "unknown field `passphrase`"),
        (encrypt(json!({"recipients": ["age1x"]})), "'age1x' is no recipient of age"),
        (encrypt(json!({"recipients": [recipient], "passphraseFile": "p"})), "exclude each other"),
        (encrypt(json!({"passphraseFile": "p", "passphraseEnv": "P"})), "exclude each other"),
        (encrypt(json!({"passphraseEnv": "A=B"})), "passphraseEnv is the name"),
        (encrypt(json!({"passphraseFile": "p", "workFactor": 23})), "workFactor is 23: give 1 to 22"),
        (encrypt(json!({"recipients": [recipient], "workFactor": 3})), "for a passphrase alone"),
        (decrypt(json!({})), "give identityFile, passphraseFile or passphraseEnv"),
        (decrypt(json!({"identityFile": ""})), "identityFile is empty"),
        (json!({"operation": "decrypt", "input": "in", "identityFile": "k"}), "output is missing"),
    ] {
        let error = run(folder.path(), params).unwrap_err();
        assert!(error.starts_with("params of encryption: ") && error.contains(words), "{error}");
    }
    let error = run(folder.path(), encrypt(json!({"recipients": ["AGE-SECRET-KEY-1ABC"]}))).unwrap_err();
    assert!(!error.contains("1ABC") && error.contains("age1"), "{error}");
}
