//! Isolation `library`: actions out of shared objects that are built here, in the worker itself, through the real binary.
//!
//! Deliberately absent: how the attempt around an action is run, which is that of isolation `none` (`inline.rs`).

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use acode::wire::types::TaskRecord;
use acode_worker::task::{Action, Isolation, Library, Retries, TaskSpec, TaskState};
use command::Acode;
use common::{Options, Pool, wait_until};
use more::{cancel, only_attempt, reaches, verdict, written};
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Whether there is a compiler; says so if not.
fn has_compiler(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success());
    if !found {
        eprintln!("not tested: there is no {name} here to build a library with");
    }
    found
}

#[track_caller]
fn build(compiler: &str, arguments: &[&str], out: &Path) -> String {
    let said = Command::new(compiler).args(arguments).arg("-o").arg(out).output().unwrap();
    assert!(said.status.success(), "{compiler} {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    out.to_str().unwrap().to_owned()
}

/// Builds a shared object out of one of this test's sources.
#[track_caller]
fn cc(source: &str, arguments: &[&str], out: &Path) -> String {
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    let (source, include) =
        (format!("{ROOT}/tests/library_sources/{source}"), format!("-I{ROOT}/docs/examples/library"));
    let all = [&["-Wall", "-shared", "-fPIC", &include, &source], arguments].concat();
    build("cc", &all, out)
}

/// The library with actions for tests.
#[track_caller]
fn probe(pool: &Pool, name: &str, arguments: &[&str]) -> String {
    cc("probe.c", arguments, &pool.file(name))
}

/// A version of the library that the one with actions needs.
#[track_caller]
fn greeting(folder: &Path, says: &str, arguments: &[&str]) -> String {
    let says = format!("-DSAYS=\"{says}\"");
    cc("greeting.c", &[&["-DNAME=greeting", &says], arguments].concat(), &folder.join("libgreeting.so"))
}

fn task(library: &str, search_path: &[&str], name: &str, params: Value) -> TaskSpec {
    let search_path = search_path.iter().map(|&folder| folder.to_owned()).collect();
    let library = Some(Library { path: library.to_owned(), search_path });
    let action = Action { name: Some(name.to_owned()), params, library, ..Action::default() };
    TaskSpec { action: Some(Box::new(action)), ..TaskSpec::default() }
}

#[track_caller]
fn run(pool: &Pool, library: &str, search_path: &[&str], name: &str) -> TaskRecord {
    pool.wait(pool.submit_spec(task(library, search_path, name, Value::Null)))
}

#[track_caller]
fn result(task: &TaskRecord) -> Value {
    assert_eq!(task.state, TaskState::Completed, "{task:?}");
    task.result.as_ref().map_or(Value::Null, |result| serde_json::from_str(result.get()).unwrap())
}

/// What the library and the one that it needs say that they are, and how often the library was called.
#[track_caller]
fn counted(pool: &Pool, library: &str, search_path: &[&str]) -> (u64, String, u64) {
    let result = result(&run(pool, library, search_path, "count"));
    let number = |key: &str| result[key].as_u64().unwrap();
    (number("version"), result["greeting"].as_str().unwrap().to_owned(), number("calls"))
}

#[track_caller]
fn only_worker(pool: &Pool) -> u32 {
    pool.idle_workers().remove(0).pid
}

#[test]
fn two_tasks_use_two_versions_of_one_library_in_one_worker() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    // By the name that the library says of itself, by that of its file, and against the library's own search path.
    for (case, soname) in
        [("soname", "-Wl,-soname,libgreeting.so.1"), ("file", ""), ("runpath", "-Wl,-soname,libgreeting.so")]
    {
        let soname: Vec<&str> = Some(soname).into_iter().filter(|word| !word.is_empty()).collect();
        let [one, two] = ["one", "two"].map(|name| pool.file(&format!("{case}/{name}")));
        for (folder, says) in [(&one, "good day"), (&two, "hello")] {
            greeting(folder, says, &soname);
            if case == "soname" {
                fs::rename(folder.join("libgreeting.so"), folder.join("libgreeting.so.1")).unwrap();
                std::os::unix::fs::symlink("libgreeting.so.1", folder.join("libgreeting.so")).unwrap();
            }
        }
        let own = format!("-L{}", one.display());
        let mut arguments = vec!["-DGREETING", own.as_str(), "-lgreeting"];
        let runpath = format!("-Wl,--enable-new-dtags,-rpath,{}", one.display());
        if case == "runpath" {
            arguments.push(&runpath);
        }
        let library = probe(&pool, &format!("{case}.so"), &arguments);
        let [one, two] = [&one, &two].map(|folder| folder.to_str().unwrap());
        let worker = only_worker(&pool);
        for turn in 1..=3 {
            assert_eq!(counted(&pool, &library, &[one]), (1, "good day".to_owned(), turn), "{case}");
            assert_eq!(counted(&pool, &library, &[two]), (1, "hello".to_owned(), turn), "{case}");
        }
        assert_eq!(only_worker(&pool), worker, "one worker did it all");
    }
}

#[test]
fn what_is_needed_by_what_is_needed_is_looked_for_in_the_search_path_too() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let [middle, one, two, empty] = ["middle", "one", "two", "empty"].map(|name| pool.file(name));
    fs::create_dir(&empty).unwrap();
    for (folder, says) in [(&one, "first"), (&two, "second")] {
        let says = format!("-DSAYS=\"{says}\"");
        cc("greeting.c", &["-DNAME=greeting_name", &says], &folder.join("libname.so"));
    }
    let [to_one, to_middle] = [&one, &middle].map(|folder| format!("-L{}", folder.display()));
    cc("greeting.c", &["-DNEEDS_NAME", &to_one, "-lname"], &middle.join("libgreeting.so"));
    let library = probe(&pool, "lib.so", &["-DGREETING", &to_middle, "-lgreeting", "-Wl,--allow-shlib-undefined"]);
    let [middle, one, two, empty] = [&middle, &one, &two, &empty].map(|folder| folder.to_str().unwrap());
    assert_eq!(counted(&pool, &library, &[empty, middle, one]).1, "first");
    assert_eq!(counted(&pool, &library, &[middle, two]).1, "second");
    let missing = run(&pool, &library, &[middle], "count");
    assert_eq!(verdict(&missing), "not-started");
    assert!(missing.error.as_deref().unwrap().contains("libname.so"), "{missing:?}");
}

#[test]
fn two_versions_of_the_library_itself_share_nothing_and_each_remembers() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let [one, two] = [1, 2].map(|version| {
        probe(&pool, &format!("v{version}/lib.so"), &[&format!("-DVERSION={version}"), "-Wl,-soname,lib.so"])
    });
    for turn in 1..=3 {
        assert_eq!(counted(&pool, &one, &[]), (1, String::new(), turn));
        assert_eq!(counted(&pool, &two, &[]), (2, String::new(), turn));
    }
}

#[test]
fn a_library_that_was_built_anew_is_loaded_anew() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let folder = pool.file("needed");
    let place = folder.to_str().unwrap();
    greeting(&folder, "old", &[]);
    let build = |version: &str| probe(&pool, "lib.so", &["-DGREETING", version, &format!("-L{place}"), "-lgreeting"]);
    let library = build("-DVERSION=1");
    let worker = only_worker(&pool);
    assert_eq!(counted(&pool, &library, &[place]), (1, "old".to_owned(), 1));
    assert_eq!(counted(&pool, &library, &[place]), (1, "old".to_owned(), 2));
    build("-DVERSION=2");
    assert_eq!(counted(&pool, &library, &[place]), (2, "old".to_owned(), 1));
    greeting(&folder, "new", &[]);
    assert_eq!(counted(&pool, &library, &[place]), (2, "new".to_owned(), 1));
    // What appears in a folder that comes first counts as well.
    let first = pool.file("first");
    fs::create_dir(&first).unwrap();
    let search_path = [first.to_str().unwrap(), place];
    assert_eq!(counted(&pool, &library, &search_path), (2, "new".to_owned(), 1));
    greeting(&first, "newest", &[]);
    assert_eq!(counted(&pool, &library, &search_path), (2, "newest".to_owned(), 1));
    assert_eq!(only_worker(&pool), worker);
}

#[test]
fn an_action_of_a_library_answers_fails_and_finds_its_facts() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let library = probe(&pool, "lib.so", &["-pthread"]);
    let end = |name: &str| {
        let task = run(&pool, &library, &[], name);
        (verdict(&task).to_owned(), task.exit_code, task.error.unwrap_or_default())
    };
    assert_eq!(end("fail"), ("exited".to_owned(), Some(1), "no luck".to_owned()));
    assert_eq!(end("panic"), ("exited".to_owned(), Some(101), "panicked: a defect".to_owned()));
    let silent = end("silent");
    assert!(silent.1 == Some(1) && silent.2.contains("returned 7"), "{silent:?}");
    let unknown = run(&pool, &library, &[], "unknown");
    assert_eq!(verdict(&unknown), "not-started");
    assert!(unknown.error.unwrap().contains("no such action"));
    assert_eq!(result(&run(&pool, &library, &[], "results")), json!(["kept"]));
    let print = run(&pool, &library, &[], "print");
    let said = written(&pool, print.id);
    assert_eq!((said.out().as_str(), said.err().as_str()), ("out", "err"));
    assert_eq!((result(&print), only_attempt(&print).isolation), (Value::Null, Some(Isolation::Library)));
    let mut spec = task(&library, &[], "facts", json!({ "text": "ä\n", "n": 12345678901234567890_u64 }));
    spec.meta.insert("colour".to_owned(), "green".to_owned());
    let asked = pool.wait(pool.submit_spec(spec));
    let facts = result(&asked);
    assert_eq!(facts["params"], json!({ "text": "ä\n", "n": 12345678901234567890_u64 }));
    assert_eq!((&facts["id"], &facts["same"]), (&json!(asked.id.to_string()), &json!(true)));
    assert_eq!((&facts["abi"], &facts["whole"], &facts["attempt"]), (&json!(1), &json!(true), &json!(1)));
    assert_eq!(
        (&facts["colour"], &facts["missing"], &facts["checkpoint"]),
        (&json!("green"), &json!("none"), &json!("none"))
    );
    assert_eq!(facts["scratch"], facts["cwd"], "relative paths start in the scratch directory");
    assert!(!Path::new(facts["scratch"].as_str().unwrap()).join("x").exists());
    let mut spec = task(&library, &[], "facts", Value::Null);
    (spec.cwd, spec.checkpoint) = (Some("/usr".to_owned()), true);
    let facts = result(&pool.wait(pool.submit_spec(spec)));
    assert_eq!((&facts["cwd"], &facts["params"]), (&json!("/usr"), &Value::Null));
    assert!(facts["checkpoint"].as_str().unwrap().starts_with('/'), "{facts}");
}

#[test]
fn a_librarys_own_threads_may_speak_to_the_host() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let library = probe(&pool, "lib.so", &["-pthread"]);
    for _ in 0..3 {
        let task = run(&pool, &library, &[], "threads");
        assert_eq!(result(&task), json!(400));
        assert_eq!(written(&pool, task.id).stdout.len(), 400);
    }
}

#[test]
fn a_cancelled_action_is_told() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let library = probe(&pool, "lib.so", &[]);
    let id = pool.submit_spec(task(&library, &[], "wait", Value::Null));
    wait_until("it has begun", || pool.show(id).progress.is_some());
    assert!(cancel(&pool, id));
    let task = reaches(&pool, id, TaskState::Cancelled);
    assert_eq!(written(&pool, task.id).err(), "ended", "it ended by itself");
}

#[test]
fn what_is_no_library_with_actions_is_refused_in_words() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let good = fs::read(probe(&pool, "good.so", &[])).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(pool.file(name), bytes).unwrap();
        pool.path(name)
    };
    let mut other = good.clone();
    other[18..20].copy_from_slice(&if cfg!(target_arch = "aarch64") { 62_u16 } else { 183 }.to_ne_bytes());
    let needy = pool.file("needy");
    greeting(&needy, "x", &["-Wl,-soname,libnowhere.so"]);
    let needy = format!("-L{}", needy.display());
    let cases = [
        (pool.path("nowhere.so"), "No such file or directory"),
        (pool.path("s"), "no shared object"),
        (file("text.so", b"not a library"), "no shared object"),
        (file("cut.so", &good[..200]), "cut off"),
        (file("half.so", &good[..good.len() / 2]), ""),
        (file("other.so", &other), "another kind of machine"),
        (
            build(
                "cc",
                &["-c", &format!("{ROOT}/tests/library_sources/greeting.c"), "-DNAME=x", "-DSAYS=\"\""],
                &pool.file("x.o"),
            ),
            "not linked",
        ),
        (probe(&pool, "lacks.so", &["-DNO_EXECUTE"]), "no function acode_execute()"),
        (probe(&pool, "version.so", &["-DOTHER_ABI"]), "version 77"),
        (probe(&pool, "needy.so", &["-DGREETING", &needy, "-lgreeting"]), "libnowhere.so"),
    ];
    let worker = only_worker(&pool);
    for (path, words) in cases {
        let task = run(&pool, &path, &[], "count");
        assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "not-started"), "{task:?}");
        let error = task.error.unwrap();
        assert!(error.contains(&path) && error.contains(words), "{path}: {error}");
    }
    for (folder, words) in [("/nowhere", "no folder"), ("/usr:/lib", "meaning of its own")] {
        let task = run(&pool, &pool.path("good.so"), &[folder], "count");
        assert!(task.error.as_deref().unwrap().contains(words), "{task:?}");
    }
    assert_eq!(only_worker(&pool), worker, "the worker lives on");
    assert_eq!(counted(&pool, &pool.path("good.so"), &[]).0, 1);
}

#[test]
fn a_library_that_crashes_takes_its_worker_and_nothing_else() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let constructor = probe(&pool, "constructor.so", &["-DCRASHES"]);
    let library = probe(&pool, "lib.so", &[]);
    for (library, action) in [(&constructor, "count"), (&library, "crash")] {
        let mut spec = task(library, &[], action, Value::Null);
        spec.retry = Some(Retries { max_crashes: Some(1), ..Retries::default() });
        let task = pool.wait(pool.submit_spec(spec));
        assert_eq!((task.state, verdict(&task)), (TaskState::Failed, "worker-lost"), "{task:?}");
        assert_eq!(counted(&pool, &pool.path("lib.so"), &[]).2, 1, "a new worker goes on");
    }
}

#[test]
fn more_libraries_than_fit_take_turns() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let original = probe(&pool, "lib.so", &[]);
    let copies: Vec<PathBuf> = (0..20).map(|n| pool.file(&format!("copy{n}.so"))).collect();
    for copy in &copies {
        fs::copy(&original, copy).unwrap();
    }
    let worker = only_worker(&pool);
    for copy in copies.iter().chain(&copies) {
        assert_eq!(counted(&pool, copy.to_str().unwrap(), &[]).2, 1, "it was closed meanwhile");
    }
    let last = copies.last().unwrap().to_str().unwrap();
    assert_eq!(counted(&pool, last, &[]).2, 2, "and the last ones stay loaded");
    assert_eq!(only_worker(&pool), worker);
}

#[test]
fn a_worker_that_is_full_of_libraries_that_stay_makes_way_for_another() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    // As with many a library in C++ or Rust, whose thread-local data or templates hold it.
    let original = probe(&pool, "lib.so", &["-Wl,-z,nodelete"]);
    let worker = only_worker(&pool);
    for n in 0..16 {
        let copy = pool.path(&format!("copy{n}.so"));
        fs::copy(&original, &copy).unwrap();
        assert_eq!(counted(&pool, &copy, &[]), (1, String::new(), 1));
    }
    assert_ne!(only_worker(&pool), worker);
    assert!(!pool.log().contains("lost its worker"), "no task was harmed");
}

#[test]
fn a_pool_whose_sandbox_may_not_be_loosened_runs_no_library() {
    if !has_compiler("cc") {
        return;
    }
    let strict = "workers:\n  sandbox:\n    network: none\n    override: false";
    let pool = Pool::start(Options::workers(1).config(strict));
    let library = probe(&pool, "lib.so", &[]);
    let refused = run(&pool, &library, &[], "count");
    assert_eq!(verdict(&refused), "not-started");
    assert!(refused.error.as_deref().unwrap().contains("workers.sandbox.override"), "{refused:?}");
    let loose = Pool::start(Options::workers(1).config(&strict.replace("false", "true")));
    assert_eq!(counted(&loose, &library, &[]).0, 1);
}

/// The example in Rust.
#[track_caller]
fn checksum(pool: &Pool) -> String {
    let source = format!("{ROOT}/docs/examples/library/rust/src/lib.rs");
    let arguments = ["-O", "--edition", "2024", "--crate-type", "cdylib", "-D", "warnings", &source];
    build("rustc", &arguments, &pool.file("libchecksum.so"))
}

#[test]
fn the_example_in_c_counts_as_wc_does() {
    if !has_compiler("cc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let source = format!("{ROOT}/docs/examples/library/c/word_count.c");
    let include = format!("-I{ROOT}/docs/examples/library");
    let strict = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", &include, &source];
    build("cc", &strict, &pool.file("libwords.so"));
    let text: String =
        (0..50_000).map(|n| format!("line {n}\tof  many\r\n{}", if n % 7 == 0 { "\n \n" } else { "" })).collect();
    fs::write(pool.file("a \"text\" ä"), text).unwrap();
    let params = json!({ "path": "a \"text\" ä" }).to_string();
    let count = |params: &str| {
        let here = pool.file("");
        let submit = ["task", "submit", "--type", "custom", "--library", "libwords.so", "--action", "word_count"];
        let id = acode.ok(&[&submit[..], &["--cwd", here.to_str().unwrap(), "--params", params]].concat());
        pool.wait(id.parse().unwrap())
    };
    let task = count(&params);
    let wc = Command::new("wc").arg(pool.file("a \"text\" ä")).env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8_lossy(&wc.stdout).into_owned();
    let counts: Vec<u64> = said.split_whitespace().take(3).map(|word| word.parse().unwrap()).collect();
    assert_eq!(result(&task), json!({ "lines": counts[0], "words": counts[1], "bytes": counts[2] }));
    assert_eq!(task.progress.as_ref().map(|progress| progress.percent), Some(100));
    assert_eq!(written(&pool, task.id).out(), format!("{} lines, {} words\n", counts[0], counts[1]));
    let escaped = count(r#" { "p\u0061th" : "a \"t\u0065xt\" \u00e4" } "#);
    assert_eq!(result(&escaped)["bytes"], counts[2]);
    assert_eq!(count(r#"{"path": "nowhere"}"#).exit_code, Some(1));
    for wrong in ["{}", "[]", r#"{"path": 5}"#, r#"{"path": "a", "b": "c"}"#, r#"{"path": "\u0000"}"#] {
        assert_eq!(verdict(&count(wrong)), "not-started", "{wrong}");
    }
}

#[test]
fn the_example_in_rust_sums_up_and_lets_no_panic_out() {
    if !has_compiler("rustc") {
        return;
    }
    let pool = Pool::start(Options::workers(1));
    let library = checksum(&pool);
    fs::write(pool.file("digits"), "123456789").unwrap();
    let mut spec = task(&library, &[], "crc32", json!("digits"));
    spec.cwd = Some(pool.path(""));
    let task_ended = pool.wait(pool.submit_spec(spec));
    assert_eq!(result(&task_ended), json!({ "crc32": "cbf43926", "bytes": 9 }));
    let missing = pool.wait(pool.submit_spec(task(&library, &[], "crc32", json!("/nowhere"))));
    assert!(missing.error.unwrap().contains("/nowhere: No such file"));
    let wrong = pool.wait(pool.submit_spec(task(&library, &[], "crc32", json!({}))));
    assert_eq!(verdict(&wrong), "not-started");
    let source = "mod acode_action;\nlibrary!(a);\nfn a(_: &str, _: &str, _: &acode_action::Host<'_>) -> \
                  Result<String, acode_action::Failure> { panic!(\"on {}\", 1 + 1) }";
    let folder = pool.file("panics");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lib.rs"), source).unwrap();
    fs::copy(format!("{ROOT}/docs/examples/library/rust/src/acode_action.rs"), folder.join("acode_action.rs")).unwrap();
    let arguments =
        ["--edition", "2024", "--crate-type", "cdylib", folder.join("lib.rs").to_str().unwrap()].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let panics = build("rustc", &arguments, &pool.file("libpanics.so"));
    let worker = only_worker(&pool);
    let task = run(&pool, &panics, &[], "a");
    assert_eq!((task.exit_code, task.error.as_deref()), (Some(101), Some("panicked: on 2")));
    assert_eq!(only_worker(&pool), worker);
}

#[test]
fn the_header_is_c99_and_cpp() {
    for (compiler, language, standard) in [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")] {
        if has_compiler(compiler) {
            let header = format!("{ROOT}/docs/examples/library/acode_action.h");
            let flags =
                [standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-x", language, &header];
            let said = Command::new(compiler).args(flags).output().unwrap();
            let words = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.status.success() || words.contains("pragma once"), "{compiler}: {words}");
        }
    }
}
