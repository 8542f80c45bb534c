//! Files that tasks leave to be kept: which are taken, what a hostile task can do about it, how they are listed and
//! fetched, and when they go.
//!
//! Deliberately absent: patterns sign by sign and links of all shapes, which the tests beside the code have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use acode_worker::task::{Array, Cleanup, Limits, Retries, Submission, TaskId, TaskSpec, TaskState};
use command::{Acode, entries};
use common::{Options, Pool, shell, wait_until};
use more::{prune_everything, reaches, retry};

fn leaving(patterns: &[&str], script: &str) -> TaskSpec {
    TaskSpec { artifacts: patterns.iter().map(|text| (*text).to_owned()).collect(), ..shell(script, &[]) }
}

fn submit_and_wait(pool: &Pool, spec: TaskSpec) -> TaskId {
    let id = pool.submit_spec(spec);
    pool.wait(id);
    id
}

/// What is in the folder of all artefacts.
fn stored(pool: &Pool) -> Vec<String> {
    let mut names = entries(&pool.state_dir().join("artifacts"));
    names.sort();
    names
}

fn files(pool: &Pool, id: TaskId, attempt: u32) -> PathBuf {
    pool.state_dir().join("artifacts").join(format!("{id}-{attempt}")).join("files")
}

/// The paths that the command line lists for a task.
fn listed(acode: &Acode, id: &str) -> Vec<String> {
    let listed = acode.json(&["task", "artifacts", id]);
    let attempts = listed["attempts"].as_array().unwrap().iter();
    let files = attempts.flat_map(|attempt| attempt["files"].as_array().unwrap());
    files.map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

fn omitted(pool: &Pool, id: TaskId) -> String {
    let task = pool.show(id);
    let last = task.attempts.unwrap().pop().unwrap();
    last.artifacts.and_then(|kept| kept.omitted).unwrap_or_default()
}

const TREE: &str = "mkdir -p out/deep; echo 1 >out/a.png; echo 22 >out/deep/b.png; echo 3 >out/c.txt; echo 4 >top.log";

// What is kept.

#[test]
fn what_the_patterns_mean_is_kept_and_told() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let submit = ["task", "submit", "--artifact", "out/**/*.png", "--artifact", "*.log", "--", "sh", "-c", TREE];
    let id = acode.ok(&submit);
    acode.ok(&["task", "wait", &id]);
    assert_eq!(listed(&acode, &id), ["out/a.png", "out/deep/b.png", "top.log"]);
    let text = acode.ok(&["task", "artifacts", &id]);
    let row = text.lines().find(|line| line.ends_with("out/deep/b.png")).unwrap();
    assert!(row.trim_start().starts_with("3  "), "{text}");
    let task = acode.json(&["task", "show", &id]);
    let kept = &task["attempts"][0]["artifacts"];
    assert_eq!((kept["files"].as_u64(), kept["bytes"].as_u64(), kept.get("omitted")), (Some(3), Some(7), None));
    assert!(acode.ok(&["task", "show", &id]).contains("Artefacts  3 files, 7B"));
    // And by a task file: as one pattern, as a list, as a default that is taken back.
    let file = "defaults: {artifacts: out}\ntasks:\n\
        - {name: one, command: [sh, -c, 'mkdir out; echo >out/x']}\n\
        - {name: list, command: [sh, -c, 'echo >a; echo >b'], artifacts: ['?', 'none-such']}\n\
        - {name: none, command: [sh, -c, 'mkdir out; echo >out/x'], artifacts: none}\n";
    acode.says_to(file, &["task", "submit", "--file", "-"]).expect(0);
    acode.ok(&["task", "wait", "--all"]);
    assert_eq!(
        (listed(&acode, "one"), listed(&acode, "list")),
        (vec!["out/x".to_owned()], vec!["a".into(), "b".into()])
    );
    acode.says(&["task", "artifacts", "none"]).expect(1);
}

#[test]
fn what_is_no_pattern_is_refused_at_submission() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for pattern in ["/etc/passwd", "../up", "a/../../b", "", "a[", "a**b"] {
        let said = acode.says(&["task", "submit", "--artifact", pattern, "--", "true"]).expect(2);
        assert!(said.err.contains("artifacts"), "{said:?}");
    }
    let said = acode.says_to("tasks:\n- command: x\n  artifacts: [good, /bad]\n", &["task", "submit", "--file", "-"]);
    assert!(said.expect(2).err.contains("standard input:3:"));
    assert!(pool.try_call(&acode::wire::request::Submit::new(vec![more::entry(leaving(&["/x"], "true"))])).is_err());
}

#[test]
fn they_are_evidence_of_failed_attempts_and_each_attempt_has_its_own() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let twice = Some(Retries { count: Some(1), delay_ms: Some(1), ..Retries::default() });
    let id = submit_and_wait(&pool, TaskSpec { retry: twice, ..leaving(&["n"], "echo $ACODE_ATTEMPT >n; exit 1") });
    assert!(retry(&pool, id));
    reaches(&pool, id, TaskState::Failed);
    assert!(stored(&pool).len() >= 3, "{:?}", stored(&pool));
    let text = id.to_string();
    let fetched = |attempt: &[&str]| acode.ok(&[&["task", "fetch", &text, "-"], attempt].concat());
    assert_eq!((fetched(&["--attempt", "1"]), fetched(&["--attempt", "2"])), ("1".to_owned(), "2".to_owned()));
    assert_eq!(fetched(&[]), pool.show(id).attempts.unwrap().last().unwrap().number.to_string());
    // One that has left nothing does not hide those before it; nor one that could not be started.
    let spec = leaving(&["n"], "[ $ACODE_ATTEMPT = 2 ] || echo $ACODE_ATTEMPT >n; exit 1");
    let id = submit_and_wait(&pool, TaskSpec { retry: twice, ..spec }).to_string();
    assert_eq!(acode.ok(&["task", "fetch", &id, "-"]), "1");
    acode.says(&["task", "artifacts", &id, "--attempt", "2"]).expect(1);
    let timed_out = TaskSpec { timeout_ms: Some(200), ..leaving(&["n"], "echo x >n; sleep 600") };
    let id = submit_and_wait(&pool, timed_out).to_string();
    assert_eq!(listed(&acode, &id), ["n"]);
    let gone = TaskSpec { command: vec!["no-such-program".into()], ..leaving(&["**"], "") };
    let id = submit_and_wait(&pool, gone).to_string();
    acode.says(&["task", "artifacts", &id]).expect(1);
}

#[test]
fn a_kept_scratch_directory_and_a_limited_one_have_them_all_the_same() {
    let pool = Pool::start(Options::workers(1).config("cleanup: {scratch: never}\nworkers: {disk: {method: tmpfs}}"));
    let id = submit_and_wait(&pool, leaving(&["n"], "echo x >n"));
    assert_eq!(fs::read_to_string(files(&pool, id, 1).join("n")).unwrap(), "x\n");
    assert!(pool.state_dir().join(format!("kept/{id}-1/n")).exists());
    let limits = Limits { disk_mb: Some(8), ..Limits::default() };
    let id =
        submit_and_wait(&pool, TaskSpec { limits, cleanup: Some(Cleanup::Always), ..leaving(&["n"], "echo y >n") });
    assert_eq!(fs::read_to_string(files(&pool, id, 1).join("n")).unwrap(), "y\n");
}

// What is not.

#[test]
fn no_path_leads_out_of_the_scratch_directory() {
    let pool = Pool::start(Options::workers(1));
    fs::create_dir_all(pool.file("outside/deep")).unwrap();
    fs::write(pool.file("outside/deep/mine"), "mine").unwrap();
    let outside = pool.path("outside");
    for (what, script) in [
        ("a link to a directory", "ln -s \"$1\" out"),
        ("a link to a file", "mkdir out; ln -s \"$1/deep/mine\" out/deep"),
        ("a relative one", "mkdir out; cd out; ln -s ../../../../../outside deep"),
        (
            "one that leads through another",
            "mkdir -p out/deep; ln -s .. out/deep/a; ln -s a/../../../../../outside out/b",
        ),
        ("the scratch directory itself", "cd /; mv $ACODE_SCRATCH $ACODE_SCRATCH.old; ln -s \"$1\" $ACODE_SCRATCH"),
        ("one that is moved away", "mkdir -p out/deep; echo x >out/deep/mine; mv $ACODE_SCRATCH \"$1/moved\""),
        ("the room", "cd /; r=$(dirname $ACODE_SCRATCH); mv $r $r.old; ln -s \"$1\" $r; rm -rf $r.old"),
    ] {
        let spec = leaving(&["**", "out/deep/mine", "deep/mine", "out/b/deep/mine"], "");
        let id = submit_and_wait(&pool, TaskSpec { command: shell(script, &[&outside]).command, ..spec });
        assert_eq!(pool.show(id).state, TaskState::Completed, "{what}");
        assert_ne!(omitted(&pool, id), "", "{what}");
        let found = std::process::Command::new("grep").args(["-rq", "mine"]).arg(files(&pool, id, 1)).status().unwrap();
        assert!(!found.success(), "{what}");
        let _ = fs::remove_dir_all(pool.file("outside/moved"));
    }
    assert_eq!(fs::read_to_string(pool.file("outside/deep/mine")).unwrap(), "mine");
}

#[test]
fn what_is_kept_is_whole_and_what_is_special_or_too_much_is_told() {
    let bounds = "artifacts: {maxBytesPerTask: 1000000, maxFilesPerTask: 5}";
    let pool = Pool::start(Options::workers(1).config(bounds));
    let script = "mkfifo pipe; echo x >a; chmod 6755 a; ln a again; ln -s a link; ln -s /etc/passwd away
        truncate -s 900000 sparse; head -c 200000 /dev/zero >much";
    let id = submit_and_wait(&pool, leaving(&["a", "again", "link", "away", "pipe", "sparse"], script));
    let kept = files(&pool, id, 1);
    let mut names = entries(&kept);
    names.sort();
    assert_eq!(names, ["a", "again", "link", "sparse"]);
    let facts = |name: &str| fs::symlink_metadata(kept.join(name)).unwrap();
    assert_eq!((facts("a").permissions().mode() & 0o7777, facts("a").nlink()), (0o755, 1));
    assert!(facts("sparse").blocks() * 512 < 100_000, "{} blocks", facts("sparse").blocks());
    assert_eq!(fs::read_link(kept.join("link")).unwrap(), PathBuf::from("a"));
    let told = omitted(&pool, id);
    assert!(told.contains("away: a link that") && told.contains("pipe: neither a file"), "{told}");
    // Too large, together or by itself; too many.
    let id =
        submit_and_wait(&pool, leaving(&["*"], "head -c 600000 /dev/zero >a; cp a b; head -c 1000001 /dev/zero >c"));
    assert_eq!(entries(&files(&pool, id, 1)).len(), 1);
    assert!(omitted(&pool, id).contains("and 1 more: beyond artifacts.maxBytesPerTask"));
    let id = submit_and_wait(&pool, leaving(&["*"], "for i in 1 2 3 4 5 6 7 8; do echo >$i; done"));
    assert_eq!(entries(&files(&pool, id, 1)).len(), 5);
    assert!(omitted(&pool, id).contains("and 2 more: beyond artifacts.maxFilesPerTask"));
    let id = submit_and_wait(&pool, leaving(&["*"], "head -c 1000001 /dev/zero >c"));
    let said = Acode::of(&pool).says(&["task", "artifacts", &id.to_string()]).expect(1);
    assert!(said.err.contains("maxBytesPerTask") && said.err.contains("has no artefacts"), "{said:?}");
    assert!(!files(&pool, id, 1).exists() && !stored(&pool).iter().any(|name| name.starts_with('.')));
}

#[test]
fn a_long_copy_is_no_silence() {
    let config = "workers: {heartbeatIntervalMs: 50, heartbeatTimeoutMs: 500}\nartifacts: {maxFilesPerTask: 100000}";
    let pool = Pool::start(Options::workers(1).config(config));
    let script = "mkdir d; i=0; while [ $i -lt 200 ]; do head -c 1048576 /dev/zero >d/$i; i=$((i+1)); done";
    let id = submit_and_wait(&pool, leaving(&["d"], script));
    let task = pool.show(id);
    assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 1));
    assert_eq!(entries(&files(&pool, id, 1).join("d")).len(), 200);
}

// Fetching.

#[test]
fn fetched_files_are_whole_and_nothing_is_overwritten_unasked() {
    let mut pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let id = submit_and_wait(&pool, leaving(&["**"], &format!("{TREE}; ln -s out/a.png link; chmod 750 top.log")))
        .to_string();
    // It makes no difference whether a pool is running.
    for round in ["live", "still"] {
        let dest = pool.path(round);
        assert_eq!(acode.ok(&["task", "fetch", &id, &dest]), "5 files, 9B");
        let at = |path: &str| pool.file(round).join(path);
        assert_eq!(fs::read_to_string(at("out/deep/b.png")).unwrap(), "22\n");
        assert_eq!(fs::read_link(at("link")).unwrap(), PathBuf::from("out/a.png"));
        assert_eq!(fs::metadata(at("top.log")).unwrap().permissions().mode() & 0o777, 0o750);
        fs::write(at("out/a.png"), "mine").unwrap();
        fs::remove_file(at("top.log")).unwrap();
        let said = acode.says(&["task", "fetch", &id, &dest]).expect(1);
        assert!(said.err.contains("exists already") && said.err.contains("--force"), "{said:?}");
        assert!(!at("top.log").exists(), "all or nothing");
        assert_eq!(acode.json(&["task", "fetch", "--force", &id, &dest])["files"], 5);
        assert_eq!(fs::read_to_string(at("out/a.png")).unwrap(), "1\n");
        assert!(entries(&at("out")).len() == 3, "nothing temporary is left");
        if round == "live" {
            pool.stop();
        }
    }
    let only = pool.path("only");
    assert_eq!(acode.ok(&["task", "fetch", &id, &only, "**/*.png", "none-such"]), "2 files, 5B");
    assert_eq!(entries(&pool.file("only")), ["out"]);
    assert_eq!(acode.ok(&["task", "fetch", &id, "-", "out/c.txt"]), "3");
    for patterns in [&["out"][..], &["link"], &["../x"]] {
        acode.says(&[&["task", "fetch", &id, "-"], patterns].concat()).expect(2);
    }
    let said = acode.says(&["task", "fetch", &id, &only, "none-such"]).expect(1);
    assert!(said.err.contains("matches"), "{said:?}");
    // Below the destination no link is followed.
    fs::create_dir(pool.file("trap")).unwrap();
    fs::create_dir(pool.file("elsewhere")).unwrap();
    symlink(pool.file("elsewhere"), pool.file("trap/out")).unwrap();
    let said = acode.says(&["task", "fetch", "--force", &id, &pool.path("trap")]).expect(1);
    assert!(said.err.contains("in the way") && entries(&pool.file("elsewhere")).is_empty(), "{said:?}");
}

#[test]
fn members_of_an_array_are_told_apart() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let spec = leaving(&["n"], "[ $1 = 2 ] || echo $1 >n");
    let spec = TaskSpec { command: [spec.command.clone(), vec!["{item}".into()]].concat(), ..spec };
    let array = Some(Array::Range { first: 1, count: 3 });
    let id = pool.submit_all(vec![Submission { spec, array, ..Submission::default() }])[0];
    pool.wait(id);
    let text = id.to_string();
    let listed = acode.json(&["task", "artifacts", &text]);
    let members: Vec<_> = listed["attempts"].as_array().unwrap().iter().map(|one| one["index"].as_u64()).collect();
    assert_eq!(members, [Some(0), Some(2)]);
    assert!(acode.ok(&["task", "artifacts", &text]).starts_with("MEMBER"));
    acode.ok(&["task", "fetch", &text, &pool.path("all")]);
    for (index, value) in [("0", "1\n"), ("2", "3\n")] {
        assert_eq!(fs::read_to_string(pool.file("all").join(index).join("n")).unwrap(), value);
    }
    assert_eq!(entries(&pool.file("all")).len(), 2);
    let member = listed["attempts"][1]["task"].as_str().unwrap();
    acode.ok(&["task", "fetch", member, &pool.path("one")]);
    assert_eq!(fs::read_to_string(pool.file("one/n")).unwrap(), "3\n");
    let other = submit_and_wait(&pool, leaving(&["n"], "echo later >n"));
    assert_eq!(listed["attempts"].as_array().unwrap().len(), 2, "{other} is not of the array");
}

#[test]
fn a_pool_for_one_command_keeps_them_in_a_state_directory_and_else_says_that_they_go() {
    let pool = Pool::prepare(Options::workers(1));
    let run = ["run", "--artifact", "n", "--", "sh", "-c", "echo it >n"];
    let said = Acode::without_state(&pool).says(&run).expect(0);
    assert!(said.err.contains("--state-dir"), "{said:?}");
    let acode = Acode::of(&pool);
    let said = acode.says(&run).expect(0);
    assert!(!said.err.contains("--state-dir"), "{said:?}");
    assert_eq!(acode.ok(&["task", "fetch", "1", "-"]), "it");
}

#[test]
fn what_cannot_be_had_is_an_error_of_its_own() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    for command in [&["task", "artifacts", "999"][..], &["task", "fetch", "999", "x"]] {
        acode.says(command).expect(4);
    }
    let id = submit_and_wait(&pool, shell("echo >n", &[])).to_string();
    let said = acode.says(&["task", "fetch", &id, "x"]).expect(1);
    assert!(said.err.contains("has no artefacts") && said.err.contains("--artifact"), "{said:?}");
    let id = submit_and_wait(&pool, leaving(&["n"], "echo >n"));
    fs::remove_dir_all(files(&pool, id, 1)).unwrap();
    let said = acode.says(&["task", "artifacts", &id.to_string()]).expect(1);
    assert!(said.err.contains("are gone"), "{said:?}");
    assert!(!pool.file("x").exists());
}

// How they go.

#[test]
fn they_go_with_their_task() {
    let mut pool = Pool::start(Options::workers(1));
    for _ in 0..3 {
        submit_and_wait(&pool, leaving(&["**"], "mkdir -p a/b; echo x >a/b/c"));
    }
    let waiting = pool.submit_spec(leaving(&["n"], "until test -e \"$1\"; do sleep 0.02; done; echo >n"));
    assert!(more::cancel(&pool, waiting));
    assert_eq!(stored(&pool).len(), 3);
    prune_everything(&pool);
    wait_until("they went with their tasks", || stored(&pool).is_empty());
    // While nobody is there, by whoever prunes; and by a pool that starts.
    let id = submit_and_wait(&pool, leaving(&["n"], "echo >n"));
    fs::create_dir(pool.state_dir().join("artifacts/notes")).unwrap();
    pool.stop();
    let acode = Acode::of(&pool);
    assert_eq!(listed(&acode, &id.to_string()), ["n"]);
    acode.ok(&["task", "prune"]);
    assert_eq!(stored(&pool), ["notes"]);
    let gone = TaskId::new(1, 1, 1);
    for name in [format!("{gone}-1"), format!(".{gone}-1.tmp")] {
        fs::create_dir(pool.state_dir().join("artifacts").join(name)).unwrap();
    }
    pool.restart();
    assert_eq!(stored(&pool), ["notes"], "what acode has not kept is not its to remove");
}

#[test]
fn retention_takes_them_and_leaves_those_of_tasks_that_stay() {
    let pool = Pool::start(Options::workers(1).config("retention: {maxFinishedTasks: 2, intervalSeconds: 1}"));
    let ids: Vec<TaskId> = (0..6).map(|_| submit_and_wait(&pool, leaving(&["n"], "echo >n"))).collect();
    let mut last: Vec<String> = ids[4..].iter().map(|id| format!("{id}-1")).collect();
    last.sort();
    wait_until("the oldest are gone", || stored(&pool) == last);
}

#[test]
fn whoever_dies_while_they_are_kept_leaves_nothing_half() {
    let points = [
        "artifacts.before-copy@2",
        "artifacts.within-copy@2",
        "artifacts.before-rename",
        "artifacts.after-rename",
        "worker.before-report",
    ];
    for point in points {
        let pool = Pool::start(Options::workers(1).dies_once_at(point));
        let id = submit_and_wait(&pool, leaving(&["*"], "echo $ACODE_ATTEMPT | tee a b >c"));
        assert!(pool.has_struck(point), "nobody passed {point}");
        let task = pool.show(id);
        assert_eq!((task.state, task.attempt_count), (TaskState::Completed, 2), "{point}");
        // What the first attempt may have left whole is there, but no attempt tells of it.
        let whole = ["artifacts.after-rename", "worker.before-report"].contains(&point);
        assert_eq!(files(&pool, id, 1).exists(), whole, "{point}");
        assert_eq!(fs::read_to_string(files(&pool, id, 2).join("b")).unwrap(), "2\n", "{point}");
        assert_eq!(listed(&Acode::of(&pool), &id.to_string()), ["a", "b", "c"]);
        prune_everything(&pool);
        wait_until("all of it went with the task", || stored(&pool).is_empty());
    }
    // The supervisor dies with its worker: the attempt is begun anew under its own number or the next.
    let mut pool = Pool::start(Options::workers(1).dies_once_at("artifacts.before-rename=stop"));
    let id = pool.submit_spec(leaving(&["*"], "echo $ACODE_ATTEMPT >a"));
    wait_until("it is stopped", || pool.has_struck("artifacts.before-rename"));
    assert!(stored(&pool).iter().all(|name| name.starts_with('.')), "{:?}", stored(&pool));
    pool.kill9();
    pool.processes().into_iter().for_each(|pid| common::signal(pid, nix::sys::signal::Signal::SIGKILL));
    pool.restart();
    reaches(&pool, id, TaskState::Completed);
    assert_eq!(stored(&pool).iter().filter(|name| name.starts_with('.')).count(), 0, "{:?}", stored(&pool));
    assert_eq!(listed(&Acode::of(&pool), &id.to_string()), ["a"]);
}

#[test]
fn whoever_dies_while_they_are_removed_has_them_removed_by_the_next() {
    let pool = Pool::start(Options::workers(1).dies_once_at("artifacts.before-removal"));
    submit_and_wait(&pool, leaving(&["n"], "echo >n"));
    prune_everything(&pool);
    wait_until("a worker dies of it", || pool.has_struck("artifacts.before-removal"));
    let id = pool.submit(&["true"]);
    reaches(&pool, id, TaskState::Completed);
    prune_everything(&pool);
    wait_until("it is gone all the same", || stored(&pool).is_empty());
}
