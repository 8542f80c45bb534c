//! Typed tasks of type `file_io` through the real binary, beside sha256sum, b3sum, cp, wc and ripgrep.
//!
//! Deliberately absent: each single parameter, which the type's own tests have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use acode_worker::task::ActionType::FileIo;
use acode_worker::task::{TaskSpec, TaskState};
use command::{Acode, entries};
use common::{Options, Pool, signal};
use more::{cancel, verdict, written};
use nix::sys::signal::Signal;
use serde_json::json;
use typed::{ISOLATIONS, done, fails, have, is_under_way, result, says, text, tool, typed};

/// Makes the folder `tree`: hostile names, hidden files, empty ones, large ones, links, texts of all kinds.
fn grow(folder: &Path, names_are_utf8: bool) {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("sub/deep")).unwrap();
    let poem = "Ein Löwe\nsagt nichts,\r\n\tdoch 獅子 brüllt\u{2003}laut\n\nohne Ende";
    for (name, contents) in [
        ("-rf", &b"dash\n"[..]),
        ("two\nlines", b"a name of two lines\n"),
        ("back\\slash", b"needle\n"),
        (" ", b"a blank name: needle"),
        (".hidden", b"a hidden needle\n"),
        (".gitignore", b"*\n"),
        ("empty", b""),
        ("binary", b"text\n\0needle\n"),
        ("sub/poem", poem.as_bytes()),
        ("sub/deep/needles", b"needle needle\nno\nNeedle\n\nneed le\nthe last needle"),
    ] {
        fs::write(tree.join(name), contents).unwrap();
    }
    fs::write(tree.join("sub/large"), text(1_000_000)).unwrap();
    let late = [b"needle\n", &text(300_000)[..], b"\n\0\nneedle\n"].concat();
    fs::write(tree.join("sub/late-binary"), late).unwrap();
    if !names_are_utf8 {
        fs::write(tree.join(OsStr::from_bytes(b"latin-\xe9")), b"caf\xe9\n").unwrap();
    }
    fs::write(folder.join("outside"), "needle outside\n").unwrap();
    symlink("../../outside", tree.join("sub/link")).unwrap();
    symlink("nowhere", tree.join("dangling")).unwrap();
    symlink("..", tree.join("sub/up")).unwrap();
}

#[test]
fn sha256sum_and_b3sum_verify_our_lists_and_we_verify_theirs() {
    let pool = Pool::start(Options::workers(1));
    for (tool_name, algorithm) in [("sha256sum", "sha256"), ("b3sum", "blake3")] {
        if !have(&[tool_name]) {
            continue;
        }
        let folder = pool.file(algorithm);
        // b3sum takes no name that is not UTF-8.
        grow(&folder, algorithm == "blake3");
        let sum = json!({"operation": "checksum", "input": format!("{algorithm}/tree"), "algorithm": algorithm, "output": format!("{algorithm}/list")});
        let files = done(&pool, FileIo, sum)["files"].as_u64().unwrap();
        assert_eq!(files, if algorithm == "sha256" { 13 } else { 12 });
        let said = says(&folder.join("tree"), &[tool_name, "-c", "../list"]);
        assert_eq!(said.matches(": OK").count() as u64, files, "{said}");
        let script = format!("find . -type f -print0 | xargs -0 {tool_name} > ../theirs");
        says(&folder.join("tree"), &["sh", "-c", &script]);
        let verify = |list: &str| json!({"operation": "verify", "list": format!("{algorithm}/{list}"), "root": format!("{algorithm}/tree"), "algorithm": algorithm});
        for list in ["theirs", "list"] {
            assert_eq!(done(&pool, FileIo, verify(list))["files"], files);
        }
        fs::write(folder.join("tree/sub/poem"), "other").unwrap();
        assert!(tool(&folder.join("tree"), &[tool_name, "-c", "../list"]).is_err());
        let error = fails(&pool, FileIo, verify("list"));
        assert!(error.contains("1 differ and 0 could not be read: sub/poem differs"), "{error}");
    }
}

#[test]
fn a_copy_is_what_cp_makes() {
    let pool = Pool::start(Options::workers(1));
    grow(&pool.file("work"), false);
    let folder = pool.file("work");
    fs::set_permissions(folder.join("tree/empty"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(folder.join("tree/sub"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(folder.join("tree/sub"), fs::Permissions::from_mode(0o750)).unwrap();
    says(
        &folder,
        &["touch", "-h", "-d", "2001-02-03 04:05:06.789", "tree/sub/link", "tree/sub/poem", "tree/sub", "tree"],
    );
    let copied = done(&pool, FileIo, json!({"operation": "copy", "input": "work/tree", "output": "work/copy"}));
    assert_eq!((&copied["links"], &copied["folders"], &copied["verified"]), (&json!(3), &json!(3), &json!(true)));
    says(&folder, &["cp", "-a", "tree", "theirs"]);
    says(&folder, &["diff", "-r", "--no-dereference", "copy", "theirs"]);
    let list = |tree: &str| {
        let words = ["find", ".", "-printf", "%y %m %T@ %l %P\\n"];
        let mut lines: Vec<String> =
            String::from_utf8_lossy(&tool(&folder.join(tree), &words).unwrap()).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(list("copy"), list("theirs"));
    assert!(
        fails(&pool, FileIo, json!({"operation": "copy", "input": "work/tree", "output": "work/copy"}))
            .starts_with("cannot make")
    );
    let mut left = entries(&folder);
    left.sort();
    assert_eq!(left, ["copy", "outside", "theirs", "tree"]);
}

#[test]
fn lines_words_characters_and_bytes_are_those_of_wc() {
    if !have(&["wc"]) {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    grow(&pool.file("work"), false);
    let folder = pool.file("work");
    let params = json!({"operation": "count", "input": "work/tree", "perFile": true});
    let task = pool.wait(pool.submit_spec(typed(&pool, FileIo, params)));
    let total = result(&pool, &task);
    let script = "find tree -type f -print0 | xargs -0 cat | wc -lwmc";
    let lines = written(&pool, task.id).out();
    for name in ["sub/poem", "sub/large", "binary", "empty", ".hidden"] {
        let theirs = says(&folder, &["wc", "-lwmc", &format!("tree/{name}")]);
        let theirs: Vec<&str> = theirs.split_whitespace().collect();
        let theirs = theirs.join(" ").replace("tree/", "work/tree/");
        assert!(lines.lines().any(|line| line == theirs), "{theirs}\n{lines}");
    }
    let theirs = says(&folder, &["sh", "-c", script]);
    let theirs: Vec<u64> = theirs.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // Words are counted file by file, and one may end where the next file begins.
    assert_eq!([&total["lines"], &total["chars"], &total["bytes"]], [theirs[0], theirs[2], theirs[3]]);
}

#[test]
fn lines_are_found_as_ripgrep_finds_them() {
    if !have(&["rg"]) {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    grow(&pool.file("work"), false);
    for (pattern, options, more) in [
        ("needle", &[][..], json!({})),
        ("^need", &[], json!({})),
        ("needle", &["-i"], json!({"ignoreCase": true})),
        (r"\bL\w+e$|brüllt.laut", &[], json!({})),
        ("e.", &["-F"], json!({"literal": true})),
        ("says 1[0-9]+7$", &[], json!({})),
        ("", &[], json!({"maxMatches": 100_000})),
    ] {
        let mut params = json!({"operation": "search", "input": "work/tree", "pattern": pattern, "output": "found", "overwrite": true});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = done(&pool, FileIo, params);
        let words = ["rg", "-uu", "-n", "-H", "--no-heading", "--sort", "path", "--color", "never"];
        let words = [&words[..], options, &["-e", pattern, "work/tree"]].concat();
        let theirs = tool(&pool.file(""), &words).unwrap_or_default();
        let ours = fs::read(pool.file("found")).unwrap();
        assert_eq!(comparable(&ours), comparable(&theirs), "{pattern}");
        assert_eq!(found["truncated"], false, "{pattern}");
    }
}

/// The lines, but for ripgrep's word that it leaves a file which turns out to be binary, and those of such a file in which
/// it leaves out all of a buffer.
fn comparable(found: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(found).into_owned();
    let late = |line: &str| line.contains("late-binary:") && !line.contains("late-binary:1:");
    text.split('\n').filter(|line| !line.contains("WARNING:") && !late(line)).map(str::to_owned).collect()
}

/// Makes a file in a tree that nobody can open by its path, whose length is more than the kernel takes.
fn beyond_reach(tree: &Path) {
    let mut deep = tree.to_owned();
    while deep.as_os_str().len() < 3_700 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    let aside = tree.join("aside");
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("f".repeat(255)), "").unwrap();
    deep.push("e".repeat(3_890_usize.saturating_sub(deep.as_os_str().len())));
    fs::rename(aside, deep).unwrap();
}

#[test]
fn what_cannot_be_read_fails_at_the_end_or_is_skipped() {
    let pool = Pool::start(Options::workers(1));
    grow(&pool.file("work"), false);
    beyond_reach(&pool.file("work/tree"));
    let mut params = json!({"operation": "copy", "input": "work/tree", "output": "work/copy"});
    let task = pool.wait(pool.submit_spec(typed(&pool, FileIo, params.clone())));
    let error = task.error.unwrap();
    assert!(error.starts_with("1 could not be read: cannot read "), "{error}");
    let told = written(&pool, task.id).err();
    assert!(told.lines().count() == 1 && told.contains(": File name too long"), "{told}");
    assert!(!pool.file("work/copy").exists());
    params["skipUnreadable"] = true.into();
    assert_eq!(done(&pool, FileIo, params)["unreadable"], 1);
    assert!(pool.file("work/copy/sub/poem").exists());
}

#[test]
fn what_is_no_file_is_left_out_of_every_tree() {
    let pool = Pool::start(Options::workers(1));
    grow(&pool.file("work"), true);
    nix::unistd::mkfifo(&pool.file("work/tree/pi\rpe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let task = pool.submit_spec(typed(
        &pool,
        FileIo,
        json!({"operation": "copy", "input": "work/tree", "output": "work/copy"}),
    ));
    let copied = result(&pool, &pool.wait(task));
    assert_eq!((&copied["unreadable"], &copied["leftOut"]), (&json!(0), &json!(1)));
    assert!(!pool.file("work/copy/pi\rpe").exists() && pool.file("work/copy/sub/poem").exists());
    let told = written(&pool, task).err();
    assert!(told.contains("pi\\rpe") && told.contains("is left out: it is a FIFO"), "{told:?}");
    let summed = done(&pool, FileIo, json!({"operation": "checksum", "input": "work/tree"}));
    assert_eq!(summed["files"], copied["files"]);
}

#[test]
fn verify_takes_what_sha256sum_takes_and_says_why_it_cannot_read() {
    if !have(&["sha256sum"]) {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    for name in ["plain", "two\nlines", "back\\slash", "a (b) = c", "-"] {
        fs::write(folder.join(name), name).unwrap();
    }
    let verify = json!({"operation": "verify", "list": "list", "root": "work"});
    for (script, files) in [
        ("sha256sum --tag ./* > ../list", 5),
        ("(echo; echo '# a remark'; sha256sum ./*; echo; sha256sum --tag plain) > ../list", 6),
        ("sha256sum plain - < plain | sed 's/$/\\r/; $d' > ../list; printf '\\r\\n' >> ../list", 1),
    ] {
        says(&folder, &["sh", "-c", script]);
        says(&folder, &["sha256sum", "--strict", "-c", "../list"]);
        assert_eq!(done(&pool, FileIo, verify.clone())["files"], files, "{script}");
    }
    let sum = "0".repeat(64);
    for (list, words) in [
        (format!("{sum}  missing\n"), "/missing: No such file or directory"),
        (format!("{sum}  plain/x\n"), "/plain/x: Not a directory"),
        (format!("{sum}  pl\rain\n"), "pl\\rain: No such file"),
        (format!("BLAKE3 (plain) = {sum}\n"), "line 1 of"),
        (format!("SHA256 (plain) = {}\n", &sum[1..]), "line 1 of"),
        ("\n# only a remark\n".to_owned(), "verifies nothing"),
    ] {
        fs::write(pool.file("list"), list).unwrap();
        let task = pool.wait(pool.submit_spec(typed(&pool, FileIo, verify.clone())));
        let error = task.error.unwrap();
        assert!(error.contains(words), "{error:?}");
        let shown = [Acode::of(&pool).ok(&["task", "why", &task.id.to_string()]), written(&pool, task.id).err(), error];
        assert!(!shown.iter().any(|text| text.contains('\r')), "{shown:?}");
    }
}

#[test]
fn a_search_knows_byte_order_marks_line_ends_and_its_own_former_output() {
    let pool = Pool::start(Options::workers(1));
    let tree = pool.file("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("marked"), "\u{feff}hello\nhello\n").unwrap();
    let search = |pattern: &str| json!({"operation": "search", "input": "tree", "pattern": pattern, "output": "tree/found", "overwrite": true});
    for _ in 0..3 {
        let found = done(&pool, FileIo, search("^hello"));
        assert_eq!((&found["matches"], &found["files"]), (&json!(2), &json!(1)));
        assert_eq!(fs::read_to_string(tree.join("found")).unwrap(), "tree/marked:1:hello\ntree/marked:2:hello\n");
    }
    for pattern in [r"a\nb", "a\nb", r"\x0a", r"[\n]", r"a|(b\n)"] {
        let params = search(pattern).to_string();
        let said = Acode::of(&pool).says(&["task", "submit", "--type", "file_io", "--params", &params]).expect(2);
        assert!(said.err.contains("pattern holds a line end"), "{pattern:?}: {said:?}");
    }
    // Those that can do without it are as those of ripgrep.
    for pattern in [r"h[\ne]l", r"hello\s?", "(?x)h\n ello"] {
        assert_eq!(done(&pool, FileIo, search(pattern))["matches"], 2, "{pattern:?}");
    }
}

#[test]
fn a_copy_that_is_cancelled_or_killed_leaves_no_tree() {
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("work");
    fs::create_dir_all(folder.join("tree")).unwrap();
    fs::write(folder.join("tree/a"), "small").unwrap();
    let params = json!({"operation": "copy", "input": "work/tree", "output": "work/copy"});
    for isolation in ISOLATIONS {
        File::create(folder.join("tree/large")).unwrap().set_len(64 << 30).unwrap();
        let spec = TaskSpec { isolation: Some(isolation), ..typed(&pool, FileIo, params.clone()) };
        let id = pool.submit_spec(spec.clone());
        is_under_way(&pool, id);
        assert!(cancel(&pool, id));
        let task = pool.wait(id);
        assert_eq!((task.state, verdict(&task)), (TaskState::Cancelled, "cancelled"), "{task:?}");
        assert_eq!(entries(&folder), ["tree"], "{isolation}");
        let id = pool.submit_spec(spec);
        is_under_way(&pool, id);
        // The next attempt is to have less to do, and this one has opened what there was.
        fs::write(pool.file("small"), vec![0; 1_000]).unwrap();
        fs::rename(pool.file("small"), folder.join("tree/large")).unwrap();
        signal(pool.worker_of(id).pid, Signal::SIGKILL);
        let task = pool.wait(id);
        assert_eq!((result(&pool, &task)["bytes"].as_u64(), task.crash_count), (Some(1_005), 1));
        let mut left = entries(&folder);
        left.sort();
        assert_eq!(left, ["copy", "tree"], "{isolation}");
        fs::remove_dir_all(folder.join("copy")).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_refused_at_once_with_the_words() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for (params, words) in [
        (r#"{"operation": "search", "input": "x", "pattern": "("}"#, "pattern: regex parse error"),
        (r#"{"operation": "copy", "input": "x", "output": "x"}"#, "the same file"),
        (r#"{"operation": "remove", "input": "x"}"#, "unknown variant `remove`"),
        (r#"{"operation": "count", "input": ["x"]}"#, "params of file_io"),
    ] {
        let said = acode.says(&["task", "submit", "--type", "file_io", "--params", params]).expect(2);
        assert!(said.err.contains("params of file_io: ") && said.err.contains(words), "{said:?}");
    }
}
