//! Typed tasks as they are submitted, from the command line and from task files: parameters of each member's own, what is
//! refused before anything is queued, and where relative paths start.
//!
//! Deliberately absent: what the types do, which their own tests have.

#[path = "common/command.rs"]
mod command;
mod common;

use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use acode::wire::request::List;
use command::Acode;
use common::{Options, Pool};
use serde_json::{Value, json};

/// A queue without a pool, and the command line in its directory.
fn queue() -> (Pool, Acode) {
    let pool = Pool::prepare(Options::workers(1));
    let acode = Acode::of(&pool);
    (pool, acode)
}

/// How many tasks the queue has.
fn queued(acode: &Acode) -> usize {
    acode.json(&["task", "list"]).as_array().unwrap().len()
}

/// What the members of the only array have answered, in their order.
fn results(pool: &Pool, field: &str) -> Vec<Value> {
    let all = pool.call(&List { limit: Some(100), ..List::default() }).tasks;
    let mut members: Vec<_> = all.into_iter().filter_map(|task| Some((task.member?.index, task.result?))).collect();
    members.sort_by_key(|(index, _)| *index);
    let read = |text: Box<serde_json::value::RawValue>| serde_json::from_str::<Value>(text.get()).unwrap();
    members.into_iter().map(|(_, result)| read(result)[field].clone()).collect()
}

#[test]
fn numbers_and_texts_of_parameters_are_each_members_own() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let params = r#"{"operation": "fibonacci", "n": "{#item}", "modulus": 1000}"#;
    let submit =
        ["task", "submit", "--array", "10-14", "--type", "computation", "--isolation", "none", "--params", params];
    let id = acode.ok(&submit);
    acode.says(&["task", "wait", &id]).expect(0);
    assert_eq!(results(&pool, "value"), [55, 89, 144, 233, 377].map(Value::from));
}

#[test]
fn a_task_file_has_typed_tasks_for_each_item() {
    let pool = Pool::start(Options::workers(2));
    let acode = Acode::of(&pool);
    let file = pool.file("tasks.yaml");
    let text = "
tasks:
- name: chain {item}
  each: [a, b]
  type: computation
  params: {operation: hashChain, seed: '{item}', iterations: 1}
";
    std::fs::write(&file, text).unwrap();
    let id = acode.ok(&["task", "submit", "--file", file.to_str().unwrap()]);
    acode.says(&["task", "wait", &id]).expect(0);
    let sums = [
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
    ];
    assert_eq!(results(&pool, "sha256"), sums.map(|sum| json!(sum)));
}

#[test]
fn parameters_that_fit_no_member_are_refused_before_anything_is_queued() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let params = r#"{"operation": "fibonacci", "n": "{item}", "modulus": 10}"#;
    let submit = ["task", "submit", "--array", "1-2", "--type", "computation", "--params", params];
    let said = acode.says(&submit).expect(2);
    assert!(said.err.contains("params of computation"), "{said:?}");
    assert!(pool.call(&List::default()).tasks.is_empty());
}

#[test]
fn a_file_with_wrong_params_submits_nothing_and_tells_the_place() {
    let (pool, acode) = queue();
    acode.ok(&["task", "submit", "--", "true"]);
    let mut lines = String::new();
    for n in 1..=1_500 {
        writeln!(lines, r#"{{"type": "computation", "params": {{"operation": "primes", "to": {n}}}}}"#).unwrap();
    }
    fs::write(
        pool.file("many.jsonl"),
        lines + r#"{"type": "computation", "params": {"operation": "primes", "upto": 9}}"#,
    )
    .unwrap();
    let said = acode.says(&["task", "submit", "--file", "many.jsonl"]).expect(2);
    assert!(said.err.starts_with("acode: many.jsonl:1501:35: params of computation: unknown field `upto`"), "{said:?}");
    assert_eq!((said.out.as_str(), queued(&acode)), ("", 1));
    let yaml = "tasks:\n- {command: 'true'}\n- type: file_io\n  params: {operation: count}\n";
    let said = acode.says_to(yaml, &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.starts_with("acode: standard input:4:11: params of file_io: missing field `input`"), "{said:?}");
    let none = acode.says_to("tasks: [{type: file_io}]", &["task", "submit", "--file", "-"]).expect(2);
    assert!(none.err.starts_with("acode: standard input:1:10: params of file_io: missing field"), "{none:?}");
    assert_eq!(queued(&acode), 1);
}

#[test]
fn params_that_are_no_object_are_refused_in_plain_words() {
    let (_pool, acode) = queue();
    let words = "params of computation: an object is expected, as in {\"key\": value}";
    let said = acode.says(&["task", "submit", "--type", "computation", "--params", "[1]"]).expect(2);
    assert!(said.err.contains(words), "{said:?}");
    let said =
        acode.says_to("{\"type\": \"computation\", \"params\": [1]}", &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains(&format!("standard input:1:35: {words}")), "{said:?}");
    // What is one's own may take anything.
    acode.ok(&["task", "submit", "--type", "custom", "--action", "own", "--params", "[1]"]);
}

#[test]
fn what_only_the_queue_knows_is_told_with_the_line_of_the_file() {
    let command = |n: usize| format!("{{\"name\": \"n{n}\", \"command\": \"true\"}}\n");
    let many: String = (1..=1_200).map(command).collect();
    let bad = "\n{\"command\": \"true\", \"limits\": {\"memoryMb\": 99}}\n";
    let bound = Options::workers(1).config("workers: {maxLimits: {memoryMb: 10}}\n");
    let pool = Pool::prepare(bound.clone());
    let without = Acode::of(&pool).var("ACODE_CONFIG", pool.path("acode.yaml"));
    let running = Pool::start(bound);
    for acode in [without, Acode::of(&running)] {
        let said = acode.says_to(format!("{many}{bad}"), &["task", "submit", "--file", "-"]).expect(2);
        let words = "acode: standard input:1202:1: limits.memoryMb is 99: at most 10 is allowed";
        assert!(said.err.starts_with(words), "{said:?}");
        // A YAML file's tasks are put in order, and the place is that of the file even so.
        let yaml = "tasks:\n- {command: x, after: b, limits: {memoryMb: 99}}\n- {command: x, name: b}\n";
        let said = acode.says_to(yaml, &["task", "submit", "--file", "-"]).expect(2);
        assert!(said.err.starts_with("acode: standard input:2:3: limits.memoryMb is 99"), "{said:?}");
    }
}

#[test]
fn numbers_in_lines_reach_a_task_as_they_were_written() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    let params =
        r#"{"a":1.0,"b":-3,"c":[1e3,0.5,-2.0],"d":-9007199254740993,"e":18446744073709551615,"f":"\ud83d\ude00"}"#;
    let words = "cat $ACODE_PARAMS";
    let typed = acode.ok(&["task", "submit", "--type", "custom", "--params", params, "--", "sh", "-c", words]);
    let line = format!("{{\"type\": \"custom\", \"params\": {params}, \"command\": [\"sh\", \"-c\", \"{words}\"]}}");
    let said = acode.says_to(line, &["task", "submit", "--file", "-"]).expect(0);
    let read = said.out.trim().to_owned();
    acode.says(&["task", "wait", &typed, &read]).expect(0);
    let expected = acode.ok(&["task", "logs", &typed]);
    assert!(expected.contains("\"a\":1.0") && expected.contains("-9007199254740993"), "{expected}");
    assert_eq!(acode.ok(&["task", "logs", &read]), expected);
    let whole = "{\"type\": \"computation\", \"params\": {\"operation\": \"primes\", \"to\": 1e3}}";
    acode.says_to(whole, &["task", "submit", "--file", "-"]).expect(2);
}

#[test]
fn an_each_finds_its_files_beside_one_whose_name_is_no_text() {
    let (pool, acode) = queue();
    fs::write(pool.file("a1.txt"), "").unwrap();
    fs::write(pool.state_dir().parent().unwrap().join(std::ffi::OsStr::from_bytes(b"zz\xff.dat")), "").unwrap();
    let file = |each: &str| format!("tasks:\n- {{command: 'echo {{item}}', each: '{each}'}}\n");
    let id = acode.says_to(file("a*.txt"), &["task", "submit", "--file", "-"]).expect(0).out;
    assert_eq!(acode.json(&["task", "show", id.trim()])["array"]["count"], 1);
    let said = acode.says_to(file("*.dat"), &["task", "submit", "--file", "-"]).expect(2);
    assert!(said.err.contains(":2:34: each finds ") && said.err.contains("whose name is not UTF-8 text"), "{said:?}");
}

#[test]
fn relative_paths_of_params_start_where_the_task_was_typed() {
    let pool = Pool::start(Options::workers(1));
    let acode = Acode::of(&pool);
    fs::write(pool.file("in.csv"), "a\n1\n").unwrap();
    let params = r#"{"input": "in.csv", "output": "out.csv"}"#;
    for (isolation, name) in [("none", "out.csv"), ("process", "out2.csv")] {
        let params = params.replace("out.csv", name);
        let submit = ["task", "submit", "--type", "data_processing", "--isolation", isolation, "--params", &params];
        let id = acode.ok(&submit);
        acode.says(&["task", "wait", &id]).expect(0);
        assert_eq!(fs::read_to_string(pool.file(name)).unwrap(), "a\n1\n");
    }
    // In a task file at the file's folder, whose name may look like a placeholder.
    fs::create_dir(pool.file("{item}")).unwrap();
    fs::write(pool.file("{item}/in-7.csv"), "b\n2\n").unwrap();
    let file =
        "tasks:\n- {type: data_processing, array: 7-7, params: {input: 'in-{item}.csv', output: 'o-{item}.csv'}}\n";
    fs::write(pool.file("{item}/t.yaml"), file).unwrap();
    let id = acode.ok(&["task", "submit", "--file", "{item}/t.yaml"]);
    acode.says(&["task", "wait", &id]).expect(0);
    assert_eq!(fs::read_to_string(pool.file("{item}/o-7.csv")).unwrap(), "b\n2\n");
}

#[test]
fn only_relative_paths_that_nothing_else_places_change_where_a_task_works() {
    let (pool, acode) = queue();
    let cwd = |more: &[&str], params: &str| {
        let id = acode.ok(&[&["task", "submit", "--type", "compression", "--params", params], more].concat());
        acode.json(&["task", "show", &id])["cwd"].clone()
    };
    let here = json!(pool.state_dir().parent().unwrap());
    let relative = r#"{"operation": "compress", "input": "x"}"#;
    assert_eq!(cwd(&[], relative), here);
    assert_eq!(cwd(&["--cwd", "/srv"], relative), "/srv");
    assert_eq!(cwd(&["--artifact", "*.zst"], relative), Value::Null);
    assert_eq!(cwd(&[], r#"{"operation": "compress", "input": "/x"}"#), Value::Null);
    let contained = ["task", "submit", "--type", "compression", "--image", "i", "--params", relative];
    let said = acode.says(&contained).expect(2);
    assert!(said.err.contains("the path 'x' in the params is relative"), "{said:?}");
}
