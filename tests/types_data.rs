//! Typed tasks of type `data_processing` through the real binary, beside awk, sort, join and Python: what comes out, what
//! broken tables come to, and how much memory is used.
//!
//! Deliberately absent: each single parameter, which the type's own tests have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use acode_worker::task::ActionType::DataProcessing;
use acode_worker::task::TaskState;
use command::{Acode, entries};
use common::{Options, Pool, signal, wait_until};
use more::cancel;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use typed::{ISOLATIONS, done, fails, have, is_under_way, says, tool, typed};

fn pool() -> (Pool, PathBuf) {
    let pool = Pool::start(Options::workers(1).config("tasks: {retries: {count: 0}}"));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    (pool, folder)
}

/// Processes `input` into `output`, both in the folder, with more parameters; the result.
#[track_caller]
fn process(pool: &Pool, input: &str, output: &str, more: Value) -> Value {
    done(pool, DataProcessing, params(input, output, more))
}

fn params(input: &str, output: &str, more: Value) -> Value {
    let mut params = json!({"input": format!("work/{input}"), "output": format!("work/{output}"), "overwrite": true});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Rows of an id, one of some names, and a number, in no order.
fn table(rows: u64) -> String {
    let mut text = "id,name,amount\n".to_owned();
    let mut state = 1u64;
    for row in 0..rows {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let amount = (state >> 33) as i64 % 2_000_000 - 1_000_000;
        writeln!(text, "{},name{},{}.{:02}", row * 7919 % 1_000_003, state >> 56, amount / 100, amount.abs() % 100)
            .unwrap();
    }
    text
}

#[test]
fn rows_are_those_of_awk_sort_and_join() {
    let (pool, folder) = pool();
    if !have(&["awk", "sort", "join"]) {
        return;
    }
    fs::write(folder.join("in.csv"), table(5_000)).unwrap();
    let both = |steps: Value, script: &str| {
        let made = process(&pool, "in.csv", "out.csv", json!({"steps": steps}));
        let theirs = says(&folder, &["sh", "-c", script]);
        assert!(read(&folder, "out.csv").trim_end() == theirs, "{script}");
        assert_eq!(made["rowsOut"], json!(theirs.lines().count() - 1));
        // What nobody asks for is not read.
        let reads_all = !script.contains("head -10");
        assert_eq!(made["rowsIn"], if reads_all { 5_000 } else { 15 });
    };
    both(
        json!([{"operation": "filter", "where": {"all": [{"column": "amount", "op": ">", "value": 100},
            {"not": {"column": "name", "op": "matches", "value": "^name1"}}]}}]),
        "awk -F, 'NR == 1 || ($3 > 100 && $2 !~ /^name1/)' in.csv",
    );
    both(
        json!([{"operation": "map", "column": "double", "to": {"multiply": [{"column": "id"}, 2]}},
            {"operation": "select", "columns": ["double", "name"], "rename": {"name": "who"}}]),
        "awk -F, -v OFS=, 'NR == 1 { print \"double\", \"who\"; next } { print $1 * 2, $2 }' in.csv",
    );
    for (by, keys) in [
        (json!([{"column": "name"}]), "-k2,2"),
        (json!([{"column": "name", "order": "desc"}]), "-k2,2r"),
        (json!([{"column": "amount", "as": "number"}]), "-k3,3g"),
        (json!([{"column": "name"}, {"column": "amount", "as": "number", "order": "desc"}]), "-k2,2 -k3,3gr"),
    ] {
        let script = format!("head -1 in.csv; tail -n +2 in.csv | LC_ALL=C sort -s -t, {keys}");
        both(json!([{"operation": "sort", "by": by}]), &script);
    }
    both(json!([{"operation": "deduplicate", "by": ["name"]}]), "awk -F, '!seen[$2]++' in.csv");
    both(json!([{"operation": "head", "rows": 10, "skip": 5}]), "head -1 in.csv; tail -n +7 in.csv | head -10");
    fs::write(folder.join("names.csv"), "who,group\nname1,one\nname17,two\nname17,three\nname9999,none\n").unwrap();
    let script = "echo id,name,amount,group; tail -n +2 in.csv | nl -ba -s, | tr -d ' ' | sort -s -t, -k3,3 >l
        tail -n +2 names.csv | sort -s -t, -k1,1 >r; join -t, -1 3 -2 1 -o 1.1,1.2,1.3,1.4,2.2 ARGS l r |
        sort -s -t, -k1,1n | cut -d, -f2-";
    let join = |kind: &str| json!([{"operation": "join", "with": "work/names.csv", "on": ["name"], "onOther": ["who"], "type": kind}]);
    let made = |kind: &str, args: &str| {
        process(&pool, "in.csv", "out.csv", json!({"steps": join(kind)}));
        let theirs = says(&folder, &["env", "LC_ALL=C", "sh", "-c", &script.replace("ARGS", args)]);
        assert!(read(&folder, "out.csv").trim_end() == theirs, "{kind}");
    };
    made("inner", "");
    made("left", "-a 1");
}

#[test]
fn little_memory_changes_nothing_but_the_time() {
    let (pool, folder) = pool();
    fs::write(folder.join("in.csv"), table(60_000)).unwrap();
    fs::write(folder.join("other.csv"), table(50_000).replace("amount", "other").replace("name,", "label,")).unwrap();
    for steps in [
        json!([{"operation": "sort", "by": [{"column": "amount", "as": "number"}]}]),
        json!([{"operation": "select", "columns": ["amount", "name"]}, {"operation": "deduplicate", "by": ["amount"]}]),
        json!([{"operation": "join", "with": "work/other.csv", "on": ["id"], "type": "left"}]),
        json!([{"operation": "join", "with": "work/other.csv", "on": ["id"], "columns": ["other"], "prefix": "x_"}]),
    ] {
        let large = process(&pool, "in.csv", "large.csv", json!({"steps": steps, "memoryMb": 256}));
        let small = process(&pool, "in.csv", "small.csv", json!({"steps": steps, "memoryMb": 1}));
        assert_eq!(large["rowsOut"], small["rowsOut"], "{steps}");
        assert!(read(&folder, "large.csv") == read(&folder, "small.csv"), "{steps}");
    }
}

#[test]
fn tables_larger_than_memory_are_sorted_within_it() {
    const MEMORY_MB: u64 = 8;
    let (pool, folder) = pool();
    // Three times what the process may take at most.
    let rows = 6_000_000 / if cfg!(debug_assertions) { 4 } else { 1 };
    let text = table(rows);
    let bytes = text.len() as u64;
    fs::write(folder.join("in.csv"), text).unwrap();
    let worker = pool.idle_workers().remove(0);
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", worker.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let before = peak();
    let by = json!([{"operation": "sort", "by": [{"column": "amount", "as": "number"}]}]);
    process(&pool, "in.csv", "out.csv", json!({"steps": by, "memoryMb": MEMORY_MB}));
    let grown = peak() - before;
    assert!(grown < 2 * (MEMORY_MB << 20), "{bytes} bytes sorted in {MEMORY_MB} MiB took {grown} more");
    assert_eq!(fs::metadata(folder.join("out.csv")).unwrap().len(), bytes);
    tool(&folder, &["sh", "-c", "tail -n +2 out.csv | LC_ALL=C sort -c -s -t, -k3,3g"]).unwrap();
}

#[test]
fn csv_and_json_lines_become_each_other_as_in_python() {
    let (pool, folder) = pool();
    if !have(&["python3"]) {
        return;
    }
    // Quotes, line ends in fields, a mark at the start, CRLF, an empty field, and what only looks like a number.
    let csv = "\u{feff}id,text,n\r\n1,\"a, \"\"b\"\"\r\nc\",1.50\r\n2,ö,\r\n3,\"\",007\r\n";
    fs::write(folder.join("in.csv"), csv).unwrap();
    process(&pool, "in.csv", "out.jsonl", json!({}));
    let script = "import csv, json, sys
for row in csv.DictReader(open('in.csv', encoding='utf-8-sig', newline='')):
    print(json.dumps(row, ensure_ascii=False, separators=(',', ':')))";
    assert_eq!(read(&folder, "out.jsonl").trim_end(), says(&folder, &["python3", "-c", script]));
    process(&pool, "out.jsonl", "back.csv", json!({}));
    let script = "import csv
rows = lambda name: list(csv.reader(open(name, encoding='utf-8-sig', newline='')))
assert rows('in.csv') == rows('back.csv'), rows('back.csv')";
    says(&folder, &["python3", "-c", script]);
    process(&pool, "in.csv", "typed.jsonl", json!({"infer": true}));
    let first = r#"{"id":1,"text":"a, \"b\"\r\nc","n":1.50}"#;
    let typed = format!("{first}\n{}\n{}\n", r#"{"id":2,"text":"ö","n":null}"#, r#"{"id":3,"text":null,"n":"007"}"#);
    assert_eq!(read(&folder, "typed.jsonl"), typed);
    let types = json!([{"operation": "types", "columns": {"n": "number", "id": "number"}}]);
    process(&pool, "in.csv", "numbers.jsonl", json!({"steps": types}));
    assert!(read(&folder, "numbers.jsonl").ends_with("{\"id\":3,\"text\":\"\",\"n\":7}\n"));
    // Digits beyond any number of the machine, members in their order, nested values.
    let lines = "{\"z\":12345678901234567890.123456789,\"a\":{\"k\":[1,null]},\"b\":true}\n\n{\"a\":null,\"new\":1}\n";
    fs::write(folder.join("in.jsonl"), lines).unwrap();
    process(&pool, "in.jsonl", "same.jsonl", json!({}));
    assert_eq!(read(&folder, "same.jsonl"), lines.replace("\n\n", "\n"));
    let error = fails(&pool, DataProcessing, params("in.jsonl", "no.csv", json!({})));
    assert!(error.contains("in.jsonl:3: column 'new' is not in the first row"), "{error}");
    process(&pool, "in.jsonl", "yes.tsv", json!({"flexible": true}));
    let expected = "z\ta\tb\n12345678901234567890.123456789\t\"{\"\"k\"\":[1,null]}\"\ttrue\n\t\t\n";
    assert_eq!(read(&folder, "yes.tsv"), expected);
}

#[test]
fn broken_tables_are_refused_by_their_line_and_leave_nothing() {
    let (pool, folder) = pool();
    let refused = |name: &str, bytes: &[u8], more: Value| {
        fs::write(folder.join(name), bytes).unwrap();
        let error = fails(&pool, DataProcessing, params(name, "out.csv", more));
        assert_eq!(entries(&folder), [name], "{error}");
        fs::remove_file(folder.join(name)).unwrap();
        error
    };
    let uneven = b"a,b\n1,\"2\n2\"\n3\n4,5,6\n";
    let error = refused("in.csv", uneven, json!({}));
    assert!(error.contains("in.csv:4: the row has 1 fields, and there are 2 columns"), "{error}");
    for (bytes, more, words) in [
        (&b"a,b\n1,\xFF\n"[..], json!({}), "in.csv:2: field 2 is not UTF-8"),
        (b"a,a\n", json!({}), "two columns 'a'"),
        (
            b"a,b\n1,x\n",
            json!({"steps": [{"operation": "map", "column": "c", "to": {"add": [{"column": "b"}, 1]}}]}),
            "in.csv:2: column 'b' is no number: 'x'",
        ),
        (
            b"a,b\n",
            json!({"steps": [{"operation": "filter", "where": {"column": "c", "op": "present"}}]}),
            "step 1 (filter): there is no column 'c': there are a, b",
        ),
        (
            b"a\nx\n",
            json!({"steps": [{"operation": "types", "columns": {"a": "number"}}]}),
            "in.csv:2: column 'a' is no number",
        ),
    ] {
        let error = refused("in.csv", bytes, more);
        assert!(error.contains(words), "{error}");
    }
    for (line, words) in
        [("{\"a\":1", "EOF"), ("[1]", "expected an object"), ("nonsense", "expected"), ("{\"a\":1} x", "trailing")]
    {
        let error = refused("in.jsonl", format!("{{\"a\":1}}\n{line}\n").as_bytes(), json!({}));
        assert!(error.contains("in.jsonl:2: ") && error.contains(words) && !error.contains("column 0"), "{error}");
    }
    let nothing = json!({"steps": [{"operation": "filter", "where": {"column": "c", "op": "present"}}]});
    assert!(refused("in.csv", b"", nothing).ends_with("there is no column 'c': there are none"));
    // A row that does not end must not fill the memory.
    let endless = [b"a,b\n1,\"".as_slice(), &vec![b'x'; 20 << 20]].concat();
    assert!(refused("in.csv", &endless, json!({})).contains("the row is longer than"));
    fs::write(folder.join("in.csv"), uneven).unwrap();
    process(&pool, "in.csv", "out.csv", json!({"flexible": true}));
    assert_eq!(read(&folder, "out.csv"), "a,b\n1,\"2\n2\"\n3,\n4,5\n");
    let error = fails(&pool, DataProcessing, params("nowhere.csv", "out2.csv", json!({})));
    assert!(error.contains("nowhere.csv"), "{error}");
    let same = json!({"input": "work/in.csv", "output": "work/same.csv", "overwrite": true, "flexible": true});
    fs::hard_link(folder.join("in.csv"), folder.join("same.csv")).unwrap();
    assert!(fails(&pool, DataProcessing, same).contains("the same file"));
    let there = json!({"input": "work/in.csv", "output": "work/out.csv", "flexible": true});
    assert!(fails(&pool, DataProcessing, there).contains("exists"));
}

#[test]
fn errors_name_the_line_that_an_editor_shows() {
    let (pool, folder) = pool();
    let numbers = json!({"steps": [{"operation": "types", "columns": {"a": "number"}}]});
    for (text, more, line) in [
        (&b"a,b\r\n1,2\r\n3,4\r\n5,6,7\r\n"[..], json!({}), 4),
        (b"a,b\r\n1,2\r\nx,4\r\n", numbers.clone(), 3),
        (b"a,b\r\n1,2\r\n3,\xFF\r\n", json!({}), 3),
        (b"a,b\n1,2\n\n\n3\n", json!({}), 5),
        (b"\n\r\na,b\r\n\r\n1,2\r\n\r\n3", json!({}), 7),
        (b"a,b\r\n1,\"2\r\n\r\n\"\r\nx,\"3\n\"", numbers, 5),
        (b"a,b\n1,2\n3", json!({}), 3),
    ] {
        fs::write(folder.join("in.csv"), text).unwrap();
        let error = fails(&pool, DataProcessing, params("in.csv", "out.csv", more));
        assert!(error.contains(&format!("in.csv:{line}: ")), "{:?}: {error}", String::from_utf8_lossy(text));
    }
}

#[test]
fn quotes_that_do_not_end_are_an_error() {
    let (pool, folder) = pool();
    for (text, line) in
        [("id,name\n1,\"abc\n2,def\n3,ghi\n", 2), ("id,name\n1,a\n\"2\"\",b", 3), ("\"id,name\n1,a\n", 1)]
    {
        fs::write(folder.join("in.csv"), text).unwrap();
        for more in [json!({}), json!({"flexible": true})] {
            let error = fails(&pool, DataProcessing, params("in.csv", "out.csv", more));
            let words = format!("in.csv:{line}: the file ends within quotes");
            assert!(error.contains(&words), "{text}: {error}");
        }
    }
    // These do end, and a quote within a field that has none around it is a quote.
    fs::write(folder.join("in.csv"), "id,name\n1,\"a\"\"\"\n2,b\"c\n3,\"\"").unwrap();
    process(&pool, "in.csv", "out.jsonl", json!({}));
    let rows = [r#"{"id":"1","name":"a\""}"#, r#"{"id":"2","name":"b\"c"}"#, r#"{"id":"3","name":""}"#];
    assert_eq!(read(&folder, "out.jsonl"), rows.join("\n") + "\n");
}

#[test]
fn no_output_takes_the_place_of_a_table_that_is_read() {
    let (pool, folder) = pool();
    let files = [("a.csv", "k,v\na,1\nb,2\n"), ("b.csv", "k,v\nb,3\n"), ("r.csv", "k,w\na,7\nb,8\n")];
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    let join = json!([{"operation": "join", "with": "work/r.csv", "on": ["k"]}]);
    let split = json!({"column": "k"});
    for params in [
        json!({"input": "work/../work/a.csv", "output": "work/{}.csv", "split": split}),
        json!({"inputs": ["work/a.csv", "work/./b.csv"], "output": "work/{}.csv", "split": split}),
        json!({"inputs": ["work/a.csv", "work/b.csv"], "output": "work/../work/b.csv"}),
        json!({"input": "work/a.csv", "output": "work/../work/r.csv", "steps": join}),
        json!({"data": [{"k": "a", "v": "r"}], "output": "work/{}.csv", "split": {"column": "v"}, "steps": join}),
    ] {
        let mut over = params.clone();
        over["overwrite"] = json!(true);
        let error = fails(&pool, DataProcessing, over);
        assert!(error.contains("the same file"), "{params}: {error}");
        files.iter().for_each(|(name, text)| assert_eq!(read(&folder, name), *text, "{params}"));
    }
    assert_eq!(entries(&folder).len(), files.len());
}

#[test]
fn a_pipe_is_no_table() {
    let (pool, folder) = pool();
    nix::unistd::mkfifo(&folder.join("pipe.csv"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let join = json!({"data": [{"a": 1}], "steps": [{"operation": "join", "with": "work/pipe.csv", "on": ["a"]}]});
    for params in [json!({"input": "work/pipe.csv"}), join] {
        let error = fails(&pool, DataProcessing, params);
        assert!(error.contains("pipe.csv: it is no regular file"), "{error}");
    }
}

#[test]
fn memory_is_taken_as_it_is_needed() {
    let (pool, _) = pool();
    let steps = json!([{"operation": "sort", "by": [{"column": "value", "as": "number"}]}]);
    let made = done(&pool, DataProcessing, json!({"data": [3, 1, 2], "memoryMb": 1 << 20, "steps": steps}));
    assert_eq!(made["data"], json!([1, 2, 3]));
}

#[test]
fn digits_come_through_to_the_result_in_every_isolation() {
    let (mut pool, folder) = pool();
    const DIGITS: &str = "12345678901234567890.10";
    fs::write(folder.join("in.csv"), format!("a,j\n{DIGITS},\"{{\"\"z\"\":{DIGITS},\n\"\"a\"\":1.0}}\"\n")).unwrap();
    let types = json!([{"operation": "types", "columns": {"j": "json"}}]);
    let row = format!(r#"{{"a":{DIGITS},"j":{{"z":{DIGITS}, "a":1.0}}}}"#);
    process(&pool, "in.csv", "out.jsonl", json!({"infer": true, "steps": types}));
    assert_eq!(read(&folder, "out.jsonl"), row.clone() + "\n");
    for isolation in ISOLATIONS {
        let mut spec =
            typed(&pool, DataProcessing, json!({"input": "work/in.csv", "infer": true, "steps": types.clone()}));
        spec.isolation = Some(isolation);
        let task = pool.wait(pool.submit_spec(spec));
        let result = task.result.as_ref().unwrap_or_else(|| panic!("{task:?}"));
        // What a process leaves as its result is put into one line.
        let result = result.get().replace(", ", ",");
        assert!(result.contains(&format!("\"data\":[{}]", row.replace(", ", ","))), "{isolation:?}: {result}");
    }
    // What nobody could read as JSON is no result.
    fs::write(folder.join("in.jsonl"), format!("{{\"a\":{}{}}}\n", "[".repeat(200), "]".repeat(200))).unwrap();
    let error = fails(&pool, DataProcessing, json!({"input": "work/in.jsonl"}));
    assert!(error.contains("in.jsonl:1: ") && error.contains("give an output file"), "{error}");
    // It is shown with them, too, by a pool and without one.
    let acode = Acode::of(&pool);
    let shown = |acode: &Acode| acode.says(&["task", "show", "2", "--json"]).expect(0).out;
    assert!(shown(&acode).contains(DIGITS), "{}", shown(&acode));
    pool.stop();
    assert!(shown(&acode).contains(DIGITS), "{}", shown(&acode));
}

#[test]
fn a_split_that_cannot_be_whole_leaves_nothing() {
    let (pool, folder) = pool();
    let refused = |values: Vec<String>, words: &str| {
        fs::write(folder.join("in.csv"), format!("k\n{}\n", values.join("\n"))).unwrap();
        let split =
            json!({"input": "work/in.csv", "output": "work/p-{}.csv", "split": {"column": "k", "maxFiles": 500}});
        for _ in 0..2 {
            let error = fails(&pool, DataProcessing, split.clone());
            assert!(error.contains(words), "{error}");
            assert_eq!(entries(&folder), ["in.csv"], "{error}");
        }
    };
    refused((0..450).map(|value| format!("{value:0154}")).collect(), "the list of files is larger than a result");
    refused(vec!["a".to_owned(), "x".repeat(260), "z".to_owned()], "in.csv:3: cannot make ");
    // The name of a single file is looked at as early.
    let long = format!("work/{}.csv", "x".repeat(260));
    let error = fails(&pool, DataProcessing, json!({"input": "work/in.csv", "output": long}));
    assert!(error.contains("File name too long"), "{error}");
}

#[test]
fn a_split_makes_several_files_or_none() {
    let (pool, folder) = pool();
    let rows = "k,v\na,1\nb/c,2\n,3\na,4\n";
    fs::write(folder.join("in.csv"), rows).unwrap();
    let made = process(&pool, "in.csv", "part-{}.csv", json!({"split": {"rows": 3}}));
    assert_eq!(made["files"][1]["path"], json!(folder.join("part-00002.csv")));
    assert_eq!(read(&folder, "part-00001.csv") + &read(&folder, "part-00002.csv").replace("k,v\n", ""), rows);
    process(&pool, "in.csv", "by-{}.jsonl", json!({"split": {"column": "k"}}));
    assert_eq!(read(&folder, "by-a.jsonl"), "{\"k\":\"a\",\"v\":\"1\"}\n{\"k\":\"a\",\"v\":\"4\"}\n");
    assert_eq!(read(&folder, "by-b%2Fc.jsonl"), "{\"k\":\"b/c\",\"v\":\"2\"}\n");
    assert_eq!(read(&folder, "by-%.jsonl"), "{\"k\":\"\",\"v\":\"3\"}\n");
    let before = entries(&folder);
    let split = json!({"split": {"column": "v", "maxFiles": 3}});
    let error = fails(&pool, DataProcessing, params("in.csv", "many-{}.csv", split));
    assert!(error.contains("in.csv:5: there would be more than 3 files"), "{error}");
    assert_eq!(entries(&folder), before);
}

#[test]
fn rows_can_be_in_the_parameters_and_in_the_result() {
    let (pool, folder) = pool();
    let numbers: Vec<u32> = (0..10_000).collect();
    let made = done(&pool, DataProcessing, json!({"data": numbers}));
    assert_eq!((&made["data"], &made["rowsOut"]), (&json!(numbers), &json!(10_000)));
    let objects: Vec<Value> = (0..1000).map(|id| json!({"id": id, "value": f64::from(id) / 7.0})).collect();
    let steps = json!([{"operation": "filter", "where": {"column": "id", "op": "<", "value": 3}},
        {"operation": "sort", "by": [{"column": "value", "as": "number", "order": "desc"}]}]);
    let made = done(&pool, DataProcessing, json!({"data": objects, "steps": steps}));
    assert_eq!(made["data"], json!([objects[2], objects[1], objects[0]]));
    fs::write(folder.join("in.csv"), table(10_000)).unwrap();
    let error = fails(&pool, DataProcessing, json!({"input": "work/in.csv"}));
    assert!(error.contains("give an output file"), "{error}");
    let sample = |seed: u64| {
        let steps = json!([{"operation": "sample", "rows": 50, "seed": seed}]);
        done(&pool, DataProcessing, json!({"input": "work/in.csv", "steps": steps}))["data"].clone()
    };
    assert_eq!(sample(1).as_array().unwrap().len(), 50);
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn who_is_cancelled_or_killed_leaves_nothing() {
    let (pool, folder) = pool();
    fs::write(folder.join("in.csv"), table(1_500_000)).unwrap();
    let sort = json!({"memoryMb": 1, "steps": [{"operation": "sort", "by": [{"column": "name"}]}]});
    let submit = || pool.submit_spec(typed(&pool, DataProcessing, params("in.csv", "out.csv", sort.clone())));
    let id = submit();
    is_under_way(&pool, id);
    assert!(cancel(&pool, id));
    assert_eq!(pool.wait(id).state, TaskState::Cancelled);
    assert_eq!(entries(&folder), ["in.csv"]);
    let id = submit();
    is_under_way(&pool, id);
    signal(pool.worker_of(id).pid, Signal::SIGKILL);
    wait_until("the worker is found to be gone", || {
        let task = pool.show(id);
        task.state.is_final() || task.attempts.is_some_and(|attempts| attempts.iter().any(|one| one.verdict.is_some()))
    });
    cancel(&pool, id);
    pool.wait(id);
    // A file under a temporary name may stay; the one that was asked for is not there.
    let left = entries(&folder);
    assert!(left.iter().all(|name| name == "in.csv" || name.starts_with(".out.csv.")), "{left:?}");
}
