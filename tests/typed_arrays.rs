//! Arrays of typed tasks, from the command line and from task files: each member has parameters of its own.
//!
//! Deliberately absent: what the types do, which their own tests have.

#[path = "common/command.rs"]
mod command;
mod common;

use acode::wire::request::List;
use command::Acode;
use common::{Options, Pool};
use serde_json::{Value, json};

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
