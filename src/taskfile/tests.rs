//! What a task file may say, what comes of it, and the exact words of every refusal.

use std::io::{BufReader, Cursor};
use std::path::Path;

use acode_worker::task::{
    ActionType, Array, Blocker, Class, Dependency, DependencyKind, Docker, IfExists, Isolation, Key, Library, Priority,
    Pull, Retries, SoftTimeout, Submission, TaskId,
};

use super::*;

fn read_all(text: &str, folder: &Path) -> Result<Vec<Submission>, TaskFileError> {
    // A tiny buffer, so that lines lie across its ends.
    let reader = BufReader::with_capacity(7, Cursor::new(text.as_bytes().to_vec()));
    read(reader, "tasks", folder)?.collect()
}

fn good(text: &str) -> Vec<Submission> {
    read_all(text, Path::new("/base")).unwrap_or_else(|error| panic!("{error}"))
}

fn one(text: &str) -> Submission {
    good(&format!("tasks:\n- {{command: [x], {text}}}\n")).remove(0)
}

fn error(text: &str) -> String {
    read_all(text, Path::new("/base")).unwrap_err().to_string()
}

fn names(submissions: &[Submission]) -> Vec<&str> {
    submissions.iter().map(|s| s.spec.display_name()).collect()
}

#[test]
fn every_option_of_a_task_is_read() {
    let text = "
tasks:
  - name: all
    command: [./run, 10, 1.50, yes]
    priority: high
    timeout: 1h30m
    grace: 2
    retries: {count: 3, delay: 500ms, factor: 1.5, maxDelay: 1m, jitter: 0}
    delay: 1.5
    cwd: work
    env: {A: 1.50, B: , C: yes}
    meta: {user: 7}
    stdin: in.txt
    rlimits: {openFiles: 64}
    jobserver: true
    array: 1-1000
";
    let submission = good(text).remove(0);
    let spec = &submission.spec;
    assert_eq!(spec.command, ["/base/run", "10", "1.50", "yes"]);
    assert_eq!((spec.priority, spec.timeout_ms, spec.grace_ms), (Priority::High, Some(5_400_000), Some(2_000)));
    let retry = Retries {
        count: Some(3),
        delay_ms: Some(500),
        factor: Some(1.5),
        max_delay_ms: Some(60_000),
        jitter: Some(0.0),
        ..Retries::default()
    };
    assert_eq!((spec.retry, submission.delay_ms), (Some(retry), Some(1_500)));
    assert_eq!((spec.cwd.as_deref(), spec.stdin.as_deref()), (Some("/base/work"), Some("/base/in.txt")));
    assert_eq!((&*spec.env["A"], &*spec.env["B"], &*spec.env["C"], &*spec.meta["user"]), ("1.50", "", "yes", "7"));
    assert_eq!((spec.rlimits.open_files, spec.jobserver), (Some(64), true));
    assert_eq!(submission.array, Some(Array::Range { first: 1, count: 1_000 }));
}

#[test]
fn json_lines_mean_the_same_as_yaml() {
    let line = r#"{"name":"a","command":["./x",1,"y"],"timeout":"5m","retries":2,"env":{"K":"v"},"array":"5-9"}"#;
    assert_eq!(good(&format!("{line}\n\n{line}")), good(&format!("tasks:\n- {line}\n- {line}\n")));
    // A number that JSON gives without its spelling is read as it was written.
    assert_eq!(good(r#"{"command":["x",1.50]}"#)[0].spec.command, ["x", "1.50"]);
    assert_eq!(good(r#"{"command":"x","timeout":1.5}"#)[0].spec.timeout_ms, Some(1_500));
}

#[test]
fn the_format_is_told_by_content() {
    let format = |text: &str| {
        let reader = BufReader::with_capacity(7, Cursor::new(text.as_bytes().to_vec()));
        read(reader, "tasks", Path::new("/base")).map(|submissions| submissions.format())
    };
    let line = r#"{"command":["x"]}"#;
    assert_eq!(format(&format!("\u{feff}\n  \n{line}\n")).unwrap(), Format::JsonLines);
    assert_eq!(format("").unwrap(), Format::JsonLines);
    assert_eq!(format(r#"{"command": nonsense}"#).unwrap(), Format::JsonLines);
    assert_eq!(format(&format!("# a comment\ntasks: [{line}]")).unwrap(), Format::Yaml);
    assert_eq!(format(&format!(r#"{{"tasks":[{line}]}}"#)).unwrap(), Format::Yaml);
    assert_eq!(format(&format!("{{\n \"tasks\": [{line}]\n}}\n")).unwrap(), Format::Yaml);
    assert_eq!(format(&format!("{{tasks: [{line}]}}")).unwrap(), Format::Yaml);
    assert!(good("\n \n").is_empty() && good("tasks: []").is_empty());
}

#[test]
fn commands_are_split_like_a_shells() {
    let command = |text: &str| good(&format!("tasks:\n- command: {text}\n")).remove(0).spec.command;
    assert_eq!(command(r#"grep -e 'a b' "c d" e\ f $HOME"#), ["grep", "-e", "a b", "c d", "e f", "$HOME"]);
    assert_eq!(command("bin/x a"), ["/base/bin/x", "a"]);
    assert_eq!(command("/bin/x a"), ["/bin/x", "a"]);
}

#[test]
fn defaults_lie_under_every_task() {
    let text = "
defaults: {timeout: 10, env: {A: a, B: b}, retries: {count: 2, delay: 1}, rlimits: {openFiles: 9}, cwd: d}
tasks:
- command: x
- {command: y, timeout: none, env: {B: other}, retries: 5, rlimits: {coreBytes: 0}, cwd: /z}
";
    let both = good(text);
    let (first, second) = (&both[0].spec, &both[1].spec);
    assert_eq!((first.timeout_ms, second.timeout_ms), (Some(10_000), None));
    assert_eq!((&*first.env["B"], &*second.env["A"], &*second.env["B"]), ("b", "a", "other"));
    assert_eq!(second.retry.map(|retry| (retry.count, retry.delay_ms)), Some((Some(5), Some(1_000))));
    assert_eq!((second.rlimits.open_files, second.rlimits.core_bytes), (Some(9), Some(0)));
    assert_eq!((first.cwd.as_deref(), second.cwd.as_deref()), (Some("/base/d"), Some("/z")));
}

#[test]
fn tasks_come_after_those_that_they_wait_for_and_otherwise_in_the_files_order() {
    let text = "
tasks:
- {command: x, name: last, after: [b, c], afterAny: a}
- {command: x, name: a}
- {command: x, name: b, afterFailed: c}
- {command: x, name: c}
- {command: x, name: d, after: 01ARZ3NDEKTSV4RRFFQ69G5FAV}
";
    let ordered = good(text);
    assert_eq!(names(&ordered), ["c", "b", "a", "last", "d"]);
    let on = |place, when| Dependency { on: Blocker::Entry(place), when };
    assert_eq!(ordered[1].dependencies, [on(0, DependencyKind::Failed)]);
    let last = [on(1, DependencyKind::Succeeded), on(0, DependencyKind::Succeeded), on(2, DependencyKind::Ended)];
    assert_eq!(ordered[3].dependencies, last);
    assert!(matches!(ordered[4].dependencies[0].on, Blocker::Id(_)));
}

#[test]
fn a_long_chain_of_tasks_is_ordered_without_recursion() {
    let tasks = (0..20_000).map(|n| format!("- {{command: x, name: t{n}, after: t{}}}\n", n + 1));
    let text = format!("tasks:\n{}- {{command: x, name: t20000}}\n", tasks.collect::<String>());
    let ordered = good(&text);
    assert_eq!((ordered.len(), ordered[0].spec.display_name()), (20_001, "t20000"));
    assert_eq!(ordered[20_000].dependencies[0].on, Blocker::Entry(19_999));
}

#[test]
fn an_array_is_made_from_a_glob_a_list_or_lines() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    std::fs::create_dir_all(folder.path().join("in/sub")).unwrap();
    for name in ["in/b.txt", "in/a.txt", "in/.hidden.txt", "in/sub/c.txt", "in/[x].txt"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    std::fs::write(folder.path().join("list"), "one\n\ntwo words\r\n").unwrap();
    let items = |each: &str| {
        let text = format!("tasks:\n- {{command: 'x {{item}}', each: {each}}}\n");
        let array = read_all(&text, folder.path()).unwrap_or_else(|error| panic!("{error}")).remove(0).array;
        let Some(Array::Items(items)) = array else { panic!("{each}") };
        items.into_iter().map(|item| item.replace(root, "")).collect::<Vec<_>>()
    };
    assert_eq!(items("'in/*.txt'"), ["/in/[x].txt", "/in/a.txt", "/in/b.txt"]);
    assert_eq!(items("./in/**/c.txt"), ["/in/sub/c.txt"]);
    assert_eq!(items("{glob: 'in/*', type: dir}"), ["/in/sub"]);
    std::fs::create_dir_all(folder.path().join("in/.git/sub")).unwrap();
    std::fs::write(folder.path().join("in/.git/sub/c.txt"), "").unwrap();
    std::os::unix::fs::symlink("..", folder.path().join("in/sub/up")).unwrap();
    assert_eq!(items("'in/**/**/[a-c].txt'"), ["/in/a.txt", "/in/b.txt", "/in/sub/c.txt"]);
    assert_eq!(items("'in/.*.txt'"), ["/in/.hidden.txt"]);
    assert_eq!(items("'*/.git/**/*.txt'"), ["/in/.git/sub/c.txt"]);
    assert_eq!(items("'in/sub/../?.txt'"), ["/in/sub/../a.txt", "/in/sub/../b.txt"]);
    assert_eq!(items(&format!("'{root}/in/sub/up/b.*'")), ["/in/sub/up/b.txt"]);
    assert_eq!(items("{glob: '**', type: dir}"), ["/in", "/in/sub"]);
    assert_eq!(items("{glob: 'in/*/', type: any}"), ["/in/sub"]);
    assert_eq!(items("[b, 1.0]"), ["b", "1.0"]);
    assert_eq!(items("{lines: list}"), ["one", "two words"]);
    let words = |text: &str| read_all(text, folder.path()).unwrap_err().to_string().replace(root, "");
    insta::assert_snapshot!(words("tasks:\n- {command: x, each: '*.none'}\n"), @"tasks:2:22: each matches nothing (allowEmpty: true permits that)");
    insta::assert_snapshot!(words("tasks:\n- {command: x, each: 'a***'}\n"), @"tasks:2:22: each is not a glob: wildcards are either regular `*` or recursive `**`");
    insta::assert_snapshot!(words("tasks:\n- {command: x, each: {lines: missing}}\n"), @"tasks:2:30: each.lines cannot read /missing: No such file or directory (os error 2)");
    insta::assert_snapshot!(words("tasks:\n- {command: x, each: {blog: missing}}\n"), @"tasks:2:23: unknown key 'blog' in each");
}

#[test]
fn an_array_that_may_be_empty_is_left_out_and_nobody_waits_for_it() {
    let text = "
tasks:
- {command: x, name: none, each: [], allowEmpty: true}
- {command: x, name: b}
- {command: x, name: c, after: [none, b]}
";
    let rest = good(text);
    assert_eq!(names(&rest), ["b", "c"]);
    assert_eq!(rest[1].dependencies.len(), 1);
    assert_eq!(rest[1].dependencies[0].on, Blocker::Entry(0));
    let lines =
        "{\"command\":\"x\",\"name\":\"n\",\"each\":[],\"allowEmpty\":true}\n{\"command\":\"y\",\"after\":\"n\"}\n";
    assert_eq!((good(lines).len(), good(lines)[0].dependencies.len()), (1, 0));
}

#[test]
fn paths_may_begin_with_the_item() {
    let rooted = one("each: [/a/b, /c/d], cwd: '{dir}', stdin: '{item}'");
    let member = rooted.spec.member("/a/b", 0);
    assert_eq!((member.cwd.as_deref(), member.stdin.as_deref()), (Some("//a"), Some("//a/b")));
    let relative = one("each: [b, d], cwd: 'in/{item}', stdin: '{item}'");
    let member = relative.spec.member("b", 0);
    assert_eq!((member.cwd.as_deref(), member.stdin.as_deref()), (Some("/base/in/b"), Some("/base/b")));
    insta::assert_snapshot!(error("tasks:\n- {command: x, each: [/a, b], cwd: '{item}'}\n"), @"tasks:2:36: cwd: '{item}' is an absolute path for some items and a relative one for others");
}

#[test]
fn names_that_lead_nowhere_are_refused_with_their_place() {
    insta::assert_snapshot!(error("tasks:\n- {command: x, name: alpha}\n- {command: x, after: alhpa}\n"), @"tasks:3:23: no task is named 'alhpa': did you mean 'alpha'?");
    insta::assert_snapshot!(error("tasks:\n- {command: x, name: a}\n- {command: x, name: a}\n- {command: x, after: a}\n"), @"tasks:4:23: 'a' is the name of more than one task");
    insta::assert_snapshot!(error("tasks:\n- {command: x, name: a, after: b}\n- {command: x, name: b, after: a}\n"), @"tasks:3:32: the tasks wait for each other: a -> b -> a");
    insta::assert_snapshot!(error("tasks:\n- {command: x, name: a, after: a}\n"), @"tasks:2:32: the tasks wait for each other: a -> a");
    insta::assert_snapshot!(error("{\"command\":\"x\",\"after\":\"b\"}\n{\"command\":\"x\",\"name\":\"b\"}\n"), @"tasks:1:24: no earlier line is named 'b' (a task that the queue has already is written name:b)");
    insta::assert_snapshot!(error("tasks:\n- {command: x, name: n, each: [], allowEmpty: true}\n- {command: x, afterFailed: n}\n"), @"tasks:3:29: no member of 'n' can fail: its each matches nothing");
}

#[test]
fn what_the_queue_has_already_is_named_with_its_kind() {
    let on = |text: &str| one(&format!("after: ['{text}']")).dependencies.remove(0).on;
    assert_eq!(on("name:fetch all"), Blocker::Task("name:fetch all".into()));
    assert_eq!(on("id:42"), Blocker::Task("42".into()));
    let id = TaskId::new(1_790_000_000_000, 2, 3);
    assert_eq!(on(&id.to_string()), Blocker::Id(id));
    // A task of the file comes first, whatever it is named.
    let both = good("tasks:\n- {command: x, name: 'name:a'}\n- {command: x, after: 'name:a'}\n");
    assert_eq!(both[1].dependencies[0].on, Blocker::Entry(0));
}

#[test]
fn one_task_may_wait_for_a_hundred_thousand_others() {
    use std::fmt::Write;
    let mut text = "tasks:\n- command: x\n  after:\n".to_owned();
    (0..100_000).for_each(|n| writeln!(text, "  - t{n}").unwrap());
    (0..100_000).for_each(|n| writeln!(text, "- {{command: x, name: t{n}}}").unwrap());
    let tasks = good(&text);
    let last = tasks.last().unwrap();
    assert_eq!((tasks.len(), last.dependencies.len()), (100_001, 100_000));
}

#[test]
fn keys_and_finish_hooks_are_read() {
    let task = one("key: nightly, ifExists: existing, onFinish: [./tell.sh, done]");
    assert_eq!(task.key, Some(Key { text: "nightly".into(), if_exists: IfExists::Existing }));
    assert_eq!(task.spec.on_finish, ["/base/tell.sh", "done"]);
    assert_eq!(one("onFinish: \"tell 'it is' over\"").spec.on_finish, ["tell", "it is", "over"]);
    let shared = good("defaults: {onFinish: tell}\ntasks:\n- command: x\n- {command: x, onFinish: none}\n");
    assert_eq!((shared[0].spec.on_finish.len(), shared[1].spec.on_finish.len()), (1, 0));
    insta::assert_snapshot!(error("tasks:\n- {command: x, ifExists: refuse}\n"), @"tasks:2:26: ifExists says what becomes of a key, and there is no key");
    insta::assert_snapshot!(error("tasks:\n- {command: x, key: ''}\n"), @"tasks:2:21: key is : 1 to 256 bytes is expected");
    insta::assert_snapshot!(error("tasks:\n- {command: x, key: a, ifExists: replace}\n"), @"tasks:2:34: ifExists is replace: refuse or existing is expected");
    insta::assert_snapshot!(error("tasks:\n- {command: x, onFinish: ['']}\n"), @"tasks:2:26: onFinish is empty: name a program to run");
    insta::assert_snapshot!(error("defaults: {key: a}\ntasks: []\n"), @"tasks:1:12: 'key' cannot be a default: it is each task's own");
}

#[test]
fn a_broken_document_is_refused_with_its_place() {
    insta::assert_snapshot!(error("tasks:\n- comand: [x]\n"), @"tasks:2:3: unknown key 'comand': did you mean 'command'?");
    insta::assert_snapshot!(error("taks: []\n"), @"tasks:1:1: unknown key 'taks': did you mean 'tasks'?");
    insta::assert_snapshot!(error("defaults: {}\n"), @"tasks:1:1: tasks is missing: a list of tasks is expected");
    insta::assert_snapshot!(error("defaults: {after: a}\ntasks: []\n"), @"tasks:1:12: 'after' cannot be a default: it is each task's own");
    insta::assert_snapshot!(error("defaults: {timout: 1}\ntasks: []\n"), @"tasks:1:12: unknown key 'timout' in defaults: did you mean 'timeout'?");
    insta::assert_snapshot!(error("tasks: {command: x}\n"), @"tasks:1:8: tasks is a mapping: a list is expected");
    insta::assert_snapshot!(error("tasks: [x]\n"), @"tasks:1:9: the task is the text 'x': a mapping is expected");
    insta::assert_snapshot!(error("just text\n"), @"tasks:1:1: the task file is the text 'just text': a mapping is expected");
    insta::assert_snapshot!(error("tasks:\n- name: x\n"), @"tasks:2:3: command is missing: a list of words, or a text that is split like a shell's, is expected");
    insta::assert_snapshot!(error("tasks:\n- command: []\n"), @"tasks:2:12: command is empty: name a program to run");
    insta::assert_snapshot!(error("tasks:\n- command: ''\n"), @"tasks:2:12: command is empty: name a program to run");
    insta::assert_snapshot!(error("tasks:\n- {type: custom, program: []}\n"), @"tasks:2:27: program is empty: name a program to run");
    insta::assert_snapshot!(error("tasks:\n- {type: custom, reuse: true, stdin: x}\n"), @"tasks:2:38: stdin and a worker program, or reuse, whose standard input has the messages, exclude each other: give one of them");
    insta::assert_snapshot!(error("tasks:\n- command: \"it's\"\n"), @"tasks:2:12: command has a quote that is not closed");
    insta::assert_snapshot!(error("tasks:\n- command: [a, [b]]\n"), @"tasks:2:16: command is a list: a text is expected");
    insta::assert_snapshot!(error("tasks:\n- command: [\"a\\0\"]\n"), @"tasks:2:12: command holds a NUL byte");
    insta::assert_snapshot!(error("tasks:\n- {command: x, command: y}\n"), @"tasks:2:16: duplicate key 'command'");
    insta::assert_snapshot!(error("tasks:\n- command: [x\n- command: y\n"), @"tasks:3:10: not YAML: illegal placement of ':' indicator");
}

#[test]
fn a_wrong_option_is_refused_with_its_place() {
    let error = |text: &str| error(&format!("tasks:\n- command: x\n  {text}\n"));
    insta::assert_snapshot!(error("timeout: soon"), @"tasks:3:12: timeout: 'soon' is not a duration: 30s, 5m, 1h30m, 2d, 500ms or a number of seconds is expected");
    insta::assert_snapshot!(error("timeout: 0"), @"tasks:3:12: timeout is 0: more than 0, or none, is expected");
    insta::assert_snapshot!(error("timeout: -1"), @"tasks:3:12: timeout is -1: a duration from 0 to ten years is expected");
    insta::assert_snapshot!(error("timeout: [1]"), @"tasks:3:12: timeout is a list: a duration such as 30s is expected");
    insta::assert_snapshot!(error("priority: urgent"), @"tasks:3:13: priority is urgent: critical, high, normal or low is expected");
    insta::assert_snapshot!(error("retries: many"), @"tasks:3:12: retries is the text 'many': a whole number or a mapping is expected");
    insta::assert_snapshot!(error("retries: {factor: 0.5}"), @"tasks:3:21: retries.factor is 0.5: 1 to 1000 is expected");
    insta::assert_snapshot!(error("retries: {cuont: 2}"), @"tasks:3:13: unknown key 'cuont' in retries: did you mean 'count'?");
    insta::assert_snapshot!(error("env: [A=1]"), @"tasks:3:8: env is a list: a mapping is expected");
    insta::assert_snapshot!(error("env: {A=B: 1}"), @"tasks:2:3: 'A=B' is not a name of an environment variable");
    insta::assert_snapshot!(error("env: {A: {b: c}}"), @"tasks:3:12: env.A is a mapping: a text is expected");
    insta::assert_snapshot!(error("rlimits: {openFiles: many}"), @"tasks:3:24: rlimits.openFiles is the text 'many': a whole number is expected");
    insta::assert_snapshot!(error("array: 9-1"), @"tasks:3:10: array is 9-1: a range of at most 100000000 numbers, such as 1-1000, is expected");
    insta::assert_snapshot!(error("array: 1000"), @"tasks:3:10: array is 1000: a range of at most 100000000 numbers, such as 1-1000, is expected");
    insta::assert_snapshot!(error("array: 0-99999999999"), @"tasks:3:10: array is 0-99999999999: a range of at most 100000000 numbers, such as 1-1000, is expected");
    insta::assert_snapshot!(error("{array: 1-2"), @"tasks:3:3: not YAML: unclosed bracket '{'");
    insta::assert_snapshot!(error("each: [a]\n  array: 1-2"), @"tasks:4:3: each and array exclude each other");
    insta::assert_snapshot!(error("after: {a: b}"), @"tasks:3:10: after is a mapping: a name or a list of names is expected");
    insta::assert_snapshot!(error("allowEmpty: maybe"), @"tasks:3:15: allowEmpty is the text 'maybe': true or false is expected");
}

#[test]
fn a_broken_line_is_refused_with_its_place_and_ends_the_stream() {
    let good = r#"{"command":["x"]}"#;
    let error = |line: &str| error(&format!("{good}\n{line}\n{good}\n"));
    insta::assert_snapshot!(error(r#"{"command":["x"], "timout": 3}"#), @"tasks:2:19: unknown key 'timout': did you mean 'timeout'?");
    insta::assert_snapshot!(error(r#"{"command":["x"], "timeout": "soon"}"#), @"tasks:2:30: timeout: 'soon' is not a duration: 30s, 5m, 1h30m, 2d, 500ms or a number of seconds is expected");
    insta::assert_snapshot!(error(r#"{"command":["x"]"#), @"tasks:2:16: not JSON: EOF while parsing an object");
    insta::assert_snapshot!(error(r#"{"command":["x"],}"#), @"tasks:2:18: not JSON: trailing comma");
    insta::assert_snapshot!(error(r#"["x"]"#), @"tasks:2:1: the task is a list: a mapping is expected");
    insta::assert_snapshot!(error(r#"{"command":["x"],"command":["y"]}"#), @"tasks:2:18: duplicate key 'command'");
    insta::assert_snapshot!(error(r#"{"name":"x"}"#), @"tasks:2:1: command is missing: a list of words, or a text that is split like a shell's, is expected");
    let text = format!("{good}\n\n{{\"commnd\":1}}\n{good}\n");
    let reader = BufReader::new(Cursor::new(text.into_bytes()));
    let all: Vec<_> = read(reader, "tasks", Path::new("/base")).unwrap().collect();
    assert_eq!((all.len(), all[0].is_ok(), all[1].is_err()), (2, true, true));
}

#[test]
fn bytes_that_are_not_text_and_endless_lines_are_refused() {
    let words = |bytes: &[u8]| {
        let all: Result<Vec<_>, _> =
            read(BufReader::new(Cursor::new(bytes.to_vec())), "tasks", Path::new("/base")).and_then(Iterator::collect);
        all.unwrap_err().to_string()
    };
    insta::assert_snapshot!(words(b"tasks:\n- command: \xFF\n"), @"tasks:2:12: not UTF-8 text");
    insta::assert_snapshot!(words(b"{\"command\":[\"x\"]}\n{\"command\":\xFF}\n"), @"tasks:2:12: not UTF-8 text");
    let mut line = b"{\"command\":[\"".to_vec();
    line.resize(LINE_MAX + 10, b'x');
    insta::assert_snapshot!(words(&line), @"tasks:1:1: the line is longer than 8388608 bytes");
    let mut large = b"tasks:\n".to_vec();
    large.resize(YAML_MAX + 1, b'#');
    insta::assert_snapshot!(words(&large), @"tasks is larger than 33554432 bytes, the most for YAML (JSON Lines may be of any length)");
    let heavy = format!("{{\"command\":[\"{}\"]}}", "x".repeat(2 << 20));
    insta::assert_snapshot!(words(heavy.as_bytes()), @"tasks:1:1: the specification takes 2097168 bytes: at most 1048576 are allowed (pass large input by --stdin)");
}

#[test]
fn a_task_says_what_is_tried_again_when_it_is_warned_and_what_it_keeps() {
    let text = "
defaults: {retries: {memoryFactor: 2}, startTimeout: 5s}
tasks:
- {command: a, timeout: 1h, softTimeout: {before: 30s, signal: TERM}, retries: {onCodes: [1, 75], maxCrashes: 2}}
- {command: b, softTimeout: 10, startTimeout: none, checkpoint: true, retries: {exceptCodes: 2}}
";
    let both = good(text);
    let (first, second) = (&both[0].spec, &both[1].spec);
    let retries = Retries { memory_factor: Some(2.0), ..Retries::default() };
    let on_codes = [1, 75].into_iter().collect();
    assert_eq!(first.retry, Some(Retries { on_codes, max_crashes: Some(2), ..retries }));
    assert_eq!(second.retry, Some(Retries { except_codes: [2].into_iter().collect(), ..retries }));
    assert_eq!(first.soft_timeout, Some(SoftTimeout { before_ms: 30_000, signal: "TERM".parse().unwrap() }));
    assert_eq!(
        second.soft_timeout.map(|soft| (soft.before_ms, soft.signal.to_string())),
        Some((10_000, "USR1".into()))
    );
    assert_eq!((first.start_timeout_ms, second.start_timeout_ms), (Some(5_000), None));
    assert_eq!((first.checkpoint, second.checkpoint), (false, true));
}

#[test]
fn a_task_says_what_container_it_wants_over_the_defaults() {
    let text = "
defaults:
  docker: {image: 'debian:12', network: bridge, mounts: [data:ro], args: [--shm-size=1g]}
tasks:
- {command: [/bin/ls, ./in], cwd: /work, isolation: docker}
- command: ./tool --all
  docker: {image: busybox, entrypoint: '', platform: linux/amd64, user: '1000:1000', pull: missing, mounts: ['/a:/b', ./c/./d:/e:rw], args: }
- {command: ./tool, docker: none}
- {command: ./tool, isolation: process}
- {command: x, docker: {image: }}
";
    let all = good(text);
    let docker: Vec<Option<Docker>> = all.iter().map(|task| task.spec.docker.clone()).collect();
    let mounts = |docker: &Option<Docker>| -> Vec<String> {
        docker.iter().flat_map(|docker| &docker.mounts).map(ToString::to_string).collect()
    };
    let classes: Vec<Class> = all.iter().map(|task| task.spec.class()).collect();
    assert_eq!(classes, [Class::Docker, Class::Docker, Class::Any, Class::Process, Class::Docker]);
    let some = |text: &str| Some(text.to_owned());
    let first = docker[0].clone().unwrap();
    assert_eq!(
        (first.image, first.network, first.args),
        (some("debian:12"), some("bridge"), vec!["--shm-size=1g".into()])
    );
    assert_eq!(mounts(&docker[0]), ["/base/data:/base/data:ro"], "the same place inside and outside");
    let second = docker[1].clone().unwrap();
    assert_eq!((second.image, second.entrypoint, second.network), (some("busybox"), some(""), some("bridge")));
    assert_eq!(
        (second.platform, second.user, second.pull),
        (some("linux/amd64"), some("1000:1000"), Some(Pull::Missing))
    );
    assert_eq!((mounts(&docker[1]), second.args), (vec!["/a:/b".into(), "/base/c/d:/e".into()], vec![]));
    assert_eq!((&docker[2], &docker[3]), (&None, &None));
    assert_eq!(docker[4].clone().unwrap().image, None, "that of the pool");
    // What is in the container is not looked for beside the task file.
    let programs: Vec<&str> = all.iter().map(|task| task.spec.command[0].as_str()).collect();
    assert_eq!(programs, ["/bin/ls", "./tool", "/base/tool", "/base/tool", "x"]);
    assert_eq!(all[0].spec.cwd, some("/work"));
}

#[test]
fn a_working_directory_in_a_container_is_absolute() {
    let each = "tasks:\n- {command: x, cwd: '{dir}', each: [/in/a, /in/b], docker: {image: i}}\n";
    assert_eq!(good(each)[0].spec.cwd.as_deref(), Some("/{dir}"));
    let error = |text: &str| error(&format!("tasks:\n- command: x\n  {text}\n  docker: {{image: i}}\n"));
    insta::assert_snapshot!(error("cwd: work"), @"tasks:3:8: cwd is work: a path in the container, which must be absolute, is expected");
    insta::assert_snapshot!(error("cwd: '{dir}'\n  each: [a, /b]"), @"tasks:3:8: cwd is {dir}: a path in the container, which must be absolute, is expected");
}

#[test]
fn a_wrong_container_is_refused_with_its_place() {
    let error = |text: &str| error(&format!("tasks:\n- command: x\n  {text}\n"));
    insta::assert_snapshot!(error("isolation: vm"), @"tasks:3:14: isolation is vm: none, library, process, docker or default is expected");
    insta::assert_snapshot!(error("docker: debian"), @"tasks:3:11: docker is the text 'debian': a mapping is expected");
    insta::assert_snapshot!(error("docker: {imgae: debian}"), @"tasks:3:12: unknown key 'imgae' in docker: did you mean 'image'?");
    insta::assert_snapshot!(error("docker: {image: --privileged}"), @"tasks:3:19: docker.image is --privileged: a name without spaces that does not begin with a dash is expected");
    insta::assert_snapshot!(error("docker: {image: ''}"), @"tasks:3:19: docker.image is : a name without spaces that does not begin with a dash is expected");
    insta::assert_snapshot!(error("docker: {pull: often}"), @"tasks:3:18: docker.pull is often: never, missing or always is expected");
    insta::assert_snapshot!(error("docker: {mounts: /a}"), @"tasks:3:20: docker.mounts is the text '/a': a list is expected");
    insta::assert_snapshot!(error("docker: {mounts: [/a:b]}"), @"tasks:3:21: docker.mounts: '/a:b': SOURCE[:/TARGET][:ro] is expected, without commas, quotes and further colons");
    insta::assert_snapshot!(error("docker: {mounts: [../a]}"), @"tasks:3:21: docker.mounts: '../a': its source cannot be found: No such file or directory (os error 2)");
    insta::assert_snapshot!(error("docker: {args: [--gpus=all, -v]}"), @"tasks:3:31: docker.args is -v: a long option of docker run with its value behind a '=', as in --shm-size=1g, that does not name, detach, restart or remove the container, is expected");
    insta::assert_snapshot!(error("docker: {image: i}\n  isolation: process"), @"tasks:3:11: isolation process and docker exclude each other: give one of them");
    insta::assert_snapshot!(error("docker: {image: i}\n  sandbox: {network: none}"), @"tasks:4:12: sandbox and isolation docker exclude each other: give one of them");
}

#[test]
fn typed_tasks_are_read_with_their_parameters() {
    let text = "
tasks:
- name: pack
  type: custom
  params: {operation: compress, input: '{item}', level: -5, ratio: 0.5, list: [1, ~, yes, true]}
  each: [/a, /b]
  isolation: none
- {type: custom, action: double, library: lib/x.so, libraryPath: deps}
- {type: custom, program: ./worker.py --fast, params: 3}
- {type: custom, command: [./run], params: {a: 1}}
- {type: computation, reuse: true, isolation: default, params: {operation: primes, to: 9}}
";
    let read = good(text);
    let action = |at: usize| read[at].spec.action.as_deref().unwrap();
    let params = serde_json::json!({
        "operation": "compress", "input": "{item}", "level": -5, "ratio": 0.5, "list": [1, null, "yes", true],
    });
    assert_eq!((action(0).kind, &action(0).params), (ActionType::Custom, &params));
    assert_eq!(read[0].first_action().unwrap().params["input"], "/a");
    assert_eq!((read[0].spec.isolation, read[0].spec.class()), (Some(Isolation::None), Class::Any));
    let library = Library { path: "/base/lib/x.so".into(), search_path: vec!["/base/deps".into()] };
    assert_eq!((action(1).name.as_deref(), &action(1).library), (Some("double"), &Some(library)));
    assert_eq!(
        (&*action(2).program, &action(2).params),
        (&["/base/worker.py", "--fast"].map(String::from)[..], &3.into())
    );
    assert_eq!((&*read[3].spec.command, action(3).kind), (&["/base/run".to_owned()][..], ActionType::Custom));
    assert!(action(4).reuse && read[4].spec.isolation.is_none());
}

#[test]
fn a_wrong_typed_task_is_refused_with_its_place() {
    insta::assert_snapshot!(error("tasks:\n- {params: 1}\n"), @"tasks:2:4: params belongs to a typed task, and there is no type");
    insta::assert_snapshot!(error("tasks:\n- {type: cooking}\n"), @"tasks:2:10: type is cooking: data_processing, image_manipulation, compression, encryption, analysis, computation, file_io, custom is expected");
    insta::assert_snapshot!(error("tasks:\n- {type: compression, command: x}\n"), @"tasks:2:3: a built-in action type and command exclude each other: give one of them");
    insta::assert_snapshot!(error("tasks:\n- {command: x, isolation: none}\n"), @"tasks:2:27: isolation none is for actions: a command runs in a process or in a container");
    insta::assert_snapshot!(error("tasks:\n- {type: custom, libraryPath: x}\n"), @"tasks:2:31: libraryPath belongs to a library, and there is none");
    insta::assert_snapshot!(error("defaults: {type: custom}\ntasks: []\n"), @"tasks:1:12: 'type' cannot be a default: it is each task's own");
}

#[test]
fn params_are_checked_and_their_paths_placed_where_the_type_is_known() {
    let wrong = "tasks:\n- {type: computation, params: {operation: primes, upto: 3}}\n";
    insta::assert_snapshot!(error(wrong), @"tasks:2:31: params of computation: unknown field `upto`, expected `from` or `to`");
    insta::assert_snapshot!(error("tasks:\n- {type: compression, docker: {image: i}, params: {operation: test, input: a}}\n"), @"tasks:2:51: the path 'a' in the params is relative, and nothing says where in the container: give an absolute one, or cwd");
    let cwd = |params: &str, more: &str| {
        let text = format!("tasks:\n- {{type: compression, params: {{operation: test, input: {params}}}{more}}}\n");
        good(&text).remove(0).spec.cwd
    };
    assert_eq!(cwd("a.gz", "").as_deref(), Some("/base"));
    assert_eq!(cwd("a.gz", ", cwd: d").as_deref(), Some("/base/d"));
    assert_eq!(cwd("'{item}'", ", each: [b.gz, /c.gz]").as_deref(), Some("/base"));
    for (params, more) in [("/a.gz", ""), ("'{item}'", ", each: [/b.gz, /c.gz]"), ("a.gz", ", artifacts: '*.gz'")] {
        assert_eq!(cwd(params, more), None, "{params}{more}");
    }
    // Without members there is nothing to be checked.
    let none =
        "tasks:\n- {type: computation, params: {operation: primes, to: '{#item}'}, each: [], allowEmpty: true}\n";
    assert!(good(none).is_empty());
}
