//! Keeps `docs/requirements.md` true: every numbered requirement has one row, and every test named there exists.
//!
//! Deliberately absent: whether a test proves what its row says; that is for a reader to judge.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const STATES: [&str; 1] = ["done"];

struct Row {
    id: String,
    state: String,
    tests: Vec<String>,
}

/// The rows of all tables. A row is a line of four cells; the head of a table and the rule under it are none.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/requirements.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let tables = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let rows = tables.filter(|cells| cells[0] != "id" && !cells[0].starts_with("---"));
    rows.map(|cells| {
        let [id, what, state, proof] =
            <[String; 4]>::try_from(cells).unwrap_or_else(|row| panic!("four cells: {row:?}"));
        assert!(!what.is_empty(), "{id} says nothing");
        let tests = proof.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Row { id, state, tests }
    })
    .collect()
}

#[test]
fn every_numbered_requirement_has_exactly_one_row() {
    let mut count = BTreeMap::new();
    for row in rows() {
        *count.entry(row.id).or_insert(0) += 1;
    }
    let families = [("FR", 75), ("NFR", 10), ("AC", 15), ("UT", 5), ("IT", 4)];
    let numbered = families.into_iter().flat_map(|(family, last)| (1..=last).map(move |n| format!("{family}-{n:03}")));
    let missing: Vec<String> = numbered.filter(|id| !count.contains_key(id)).collect();
    assert!(missing.is_empty(), "no row: {missing:?}");
    let twice: Vec<_> = count.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "more than one row: {twice:?}");
}

#[test]
fn every_state_is_known_and_what_is_done_names_a_test() {
    for row in rows() {
        assert!(STATES.contains(&row.state.as_str()), "{}: unknown state '{}'", row.id, row.state);
        assert!(row.state != "done" || !row.tests.is_empty(), "{} is done and names no test", row.id);
    }
}

#[test]
fn every_test_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut missing = Vec::new();
    for row in rows() {
        for test in row.tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{}: '{test}' is no file::test", row.id));
            let read = || fs::read_to_string(root.join(file)).unwrap_or_default();
            let text = texts.entry(file.to_owned()).or_insert_with(read);
            if !text.contains(&format!("fn {name}(")) {
                missing.push(format!("{}: {test}", row.id));
            }
        }
    }
    assert!(missing.is_empty(), "tests that do not exist:\n{}", missing.join("\n"));
}
