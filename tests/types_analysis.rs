//! Typed tasks of type `analysis` through the real binary, beside datamash and Python.
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
use std::path::PathBuf;

use acode_worker::task::ActionType::Analysis;
use command::entries;
use common::{Options, Pool};
use serde_json::{Value, json};
use typed::{done, fails, have, says};

fn pool() -> (Pool, PathBuf) {
    let pool = Pool::start(Options::workers(1).config("tasks: {retries: {count: 0}}"));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    (pool, folder)
}

/// Rows of a group, two numbers that go together somewhat, and an id.
fn table(rows: u64) -> String {
    let mut text = "group,x,y,id\n".to_owned();
    let mut state = 9u64;
    for row in 0..rows {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (x, noise) = ((state >> 44) as f64 / 64.0, (state >> 20 & 0xFFFF) as f64);
        writeln!(text, "g{},{x},{},{row}", (state >> 60) % 5, 3.0 * x - noise / 4.0).unwrap();
    }
    text
}

#[track_caller]
fn near(ours: &Value, theirs: f64) {
    let ours = ours.as_f64().unwrap_or_else(|| panic!("{ours} is no number"));
    assert!((ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0), "{ours} and {theirs}");
}

#[test]
fn figures_are_those_of_datamash_and_python() {
    let (pool, folder) = pool();
    fs::write(folder.join("in.csv"), table(8_000)).unwrap();
    let report = done(
        &pool,
        Analysis,
        json!({
            "input": "work/in.csv", "groupBy": "group", "correlations": ["x", "y", "id"],
            "histograms": [{"column": "x", "min": 1000, "max": 9000, "bins": 4}, {"column": "y"}],
        }),
    );
    assert_eq!(report["rows"], 8_000);
    let columns = report["columns"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["group", "x", "y", "id"]);
    assert_eq!((&columns[0]["type"], &columns[0]["distinct"]), (&json!("text"), &json!(5)));
    assert_eq!((&columns[3]["type"], &columns[3]["distinctExact"]), (&json!("number"), &json!(true)));
    if have(&["datamash"]) {
        let script = "datamash -t, -H count 2 sum 2 min 2 max 2 mean 2 svar 2 sstdev 2 perc:5 2 q1 2 median 2 q3 2 perc:99 2 \
            ppearson 2:3 -R 12 <in.csv | tail -1 | tr , '\\n'";
        // Covariances of a sample are what its other options have.
        let script = script.replace("ppearson 2:3 -R 12 ", "");
        let theirs: Vec<f64> =
            says(&folder, &["sh", "-c", &script]).lines().map(|number| number.parse().unwrap()).collect();
        let (x, quantiles) = (&columns[1]["numbers"], &columns[1]["quantiles"]);
        let ours = [
            &x["count"],
            &x["sum"],
            &x["min"],
            &x["max"],
            &x["mean"],
            &x["variance"],
            &x["deviation"],
            &quantiles["p5"],
            &quantiles["p25"],
            &quantiles["p50"],
            &quantiles["p75"],
            &quantiles["p99"],
        ];
        assert_eq!(columns[1]["quantilesExact"], true);
        for (ours, theirs) in ours.into_iter().zip(&theirs) {
            // It prints fourteen digits.
            let ours = ours.as_f64().unwrap();
            assert!((ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0), "{ours} and {theirs}");
        }
        let groups =
            says(&folder, &["sh", "-c", "datamash -t, -H -s groupby 1 count 1 mean 3 svar 3 <in.csv | tail -n +2"]);
        assert_eq!(groups.lines().count(), report["groups"].as_array().unwrap().len());
        for line in groups.lines() {
            let [name, count, mean, variance] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let ours = report["groups"].as_array().unwrap().iter().find(|group| group["value"] == name).unwrap();
            assert_eq!(ours["rows"].as_u64(), count.parse().ok());
            near(&ours["columns"]["y"]["mean"], mean.parse().unwrap());
            near(&ours["columns"]["y"]["variance"], variance.parse().unwrap());
        }
    }
    if have(&["python3"]) {
        let script = "import csv, json, math
from collections import Counter
rows = list(csv.DictReader(open('in.csv')))
x, y, i = ([float(row[name]) for row in rows] for name in ('x', 'y', 'id'))
def r(a, b):
    ma, mb = math.fsum(a) / len(a), math.fsum(b) / len(b)
    cov = math.fsum((p - ma) * (q - mb) for p, q in zip(a, b))
    return cov / math.sqrt(math.fsum((p - ma) ** 2 for p in a) * math.fsum((q - mb) ** 2 for q in b))
bins = [sum(1 for v in x if 1000 + 2000 * k <= v < 3000 + 2000 * k) for k in range(4)]
print(json.dumps({'r': [r(x, y), r(x, i), r(y, i)], 'bins': bins, 'below': sum(v < 1000 for v in x),
    'top': [[v, c] for v, c in sorted(Counter(row['group'] for row in rows).items(), key=lambda e: (-e[1], e[0]))]}))";
        let theirs: Value = serde_json::from_str(&says(&folder, &["python3", "-c", script])).unwrap();
        for (ours, theirs) in report["correlations"].as_array().unwrap().iter().zip(theirs["r"].as_array().unwrap()) {
            near(&ours["r"], theirs.as_f64().unwrap());
        }
        assert_eq!(columns[1]["histogram"]["counts"], theirs["bins"]);
        assert_eq!(columns[1]["histogram"]["below"], theirs["below"]);
        let top: Vec<Value> =
            columns[0]["top"].as_array().unwrap().iter().map(|top| json!([top["value"], top["count"]])).collect();
        assert_eq!(json!(top), theirs["top"]);
    }
}

#[test]
fn many_values_are_estimated_and_the_report_says_so() {
    const ROWS: u64 = 60_000;
    let (pool, folder) = pool();
    fs::write(folder.join("in.csv"), table(ROWS)).unwrap();
    let params = json!({"input": "work/in.csv", "columns": ["id"], "histograms": [{"column": "id", "bins": 6}]});
    let report = done(&pool, Analysis, params);
    let id = &report["columns"][0];
    assert_eq!((&id["distinctExact"], &id["quantilesExact"]), (&json!(false), &json!(false)));
    assert_eq!(id["top"], Value::Null, "none of them is frequent");
    let close = |ours: &Value, right: f64, share: f64| {
        let off = (ours.as_f64().unwrap() - right).abs() / ROWS as f64;
        assert!(off < share, "{ours} and {right}");
    };
    close(&id["distinct"], ROWS as f64, 0.04);
    for (name, fraction) in [("p5", 0.05), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p99", 0.99)] {
        close(&id["quantiles"][name], fraction * ROWS as f64, 0.005);
    }
    assert_eq!(id["histogram"]["exact"], false);
    for count in id["histogram"]["counts"].as_array().unwrap() {
        close(count, ROWS as f64 / 6.0, 0.01);
    }
    near(&id["numbers"]["mean"], (ROWS - 1) as f64 / 2.0);
}

#[test]
fn what_is_missing_or_no_number_is_counted_apart() {
    let (pool, folder) = pool();
    let rows = "{\"a\":1,\"b\":\"x\"}\n{\"a\":null}\n{\"a\":\"2.5\",\"b\":\"\",\"late\":true}\n{\"a\":\"no\"}\n";
    fs::write(folder.join("in.jsonl"), rows).unwrap();
    let report = done(&pool, Analysis, json!({"input": "work/in.jsonl"}));
    let columns = report["columns"].as_array().unwrap();
    let facts = |place: usize| {
        (columns[place]["type"].clone(), columns[place]["count"].clone(), columns[place]["missing"].clone())
    };
    assert_eq!(facts(0), (json!("mixed"), json!(3), json!(1)));
    assert_eq!(facts(1), (json!("text"), json!(1), json!(3)));
    assert_eq!(facts(2), (json!("text"), json!(1), json!(3)));
    assert_eq!((&columns[0]["numbers"]["count"], &columns[0]["numbers"]["sum"]), (&json!(2), &json!(3.5)));
    let report =
        done(&pool, Analysis, json!({"data": [1, 2, 3, 4], "where": {"column": "value", "op": ">", "value": 1}}));
    assert_eq!((&report["rows"], &report["columns"][0]["numbers"]["mean"]), (&json!(4), &json!(3.0)));
    let report = done(&pool, Analysis, json!({"data": []}));
    assert_eq!(report, json!({"rows": 0}));
}

#[test]
fn a_large_report_goes_to_a_file() {
    let (pool, folder) = pool();
    let head: Vec<String> = (0..400).map(|column| format!("column{column}")).collect();
    let row: Vec<String> = (0..400).map(|column| column.to_string()).collect();
    fs::write(folder.join("in.csv"), format!("{}\n{}\n", head.join(","), row.join(","))).unwrap();
    let error = fails(&pool, Analysis, json!({"input": "work/in.csv"}));
    assert!(error.contains("give an output file"), "{error}");
    let report = done(&pool, Analysis, json!({"input": "work/in.csv", "output": "work/report.json"}));
    let bytes = fs::metadata(folder.join("report.json")).unwrap().len();
    assert_eq!(report, json!({"rows": 1, "output": folder.join("report.json"), "bytes": bytes, "onlyInOutput": true}));
    let whole: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert_eq!(whole["columns"].as_array().unwrap().len(), 400);
    assert!(fails(&pool, Analysis, json!({"input": "work/in.csv", "output": "work/report.json"})).contains("exists"));
    let groups = json!({"input": "work/in.csv", "groupBy": "column1", "maxGroups": 0, "output": "work/other.json"});
    assert!(fails(&pool, Analysis, groups).contains("in.csv:2: more than 0 values of 'column1'"));
    assert_eq!(entries(&folder), ["in.csv", "report.json"]);
}

#[test]
fn a_histogram_tells_of_all_numbers_whatever_its_bounds() {
    let (pool, folder) = pool();
    let rows: String = (0..30_000).map(|row| format!("{}\n", row % 101)).collect();
    fs::write(folder.join("in.csv"), format!("b\n{rows}")).unwrap();
    let histogram = |rows: &Value, bounds: Value| {
        let mut asked = json!({"column": "value", "bins": 2});
        asked.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        let params = if rows.is_null() {
            asked["column"] = json!("b");
            json!({"input": "work/in.csv", "histograms": [asked]})
        } else {
            json!({"data": rows, "histograms": [asked]})
        };
        done(&pool, Analysis, params)["columns"][0]["histogram"].clone()
    };
    let few = json!((0..=100).collect::<Vec<_>>());
    let made = |min: f64, max: f64, counts: [u64; 2], below: u64, above: u64| json!({"min": min, "max": max, "counts": counts, "below": below, "above": above, "exact": true});
    assert_eq!(histogram(&few, json!({"min": 10})), made(10.0, 100.0, [45, 46], 10, 0));
    assert_eq!(histogram(&few, json!({"max": 90})), made(0.0, 90.0, [45, 46], 0, 10));
    // Bounds beyond all numbers.
    assert_eq!(histogram(&few, json!({"min": 200})), made(200.0, 200.0, [0, 0], 101, 0));
    assert_eq!(histogram(&few, json!({"max": -1})), made(-1.0, -1.0, [0, 0], 0, 101));
    // Of many numbers it is an estimate, and still of all.
    let many = histogram(&Value::Null, json!({"min": 10}));
    let number = |value: &Value| value.as_u64().unwrap();
    let all = number(&many["below"]) + number(&many["above"]) + number(&many["counts"][0]) + number(&many["counts"][1]);
    assert_eq!((all, &many["exact"]), (30_000, &json!(false)), "{many}");
    assert!(number(&many["below"]) > 2_500, "{many}");
    let wide = histogram(&json!([-1e308, 0, 1e308]), json!({}));
    assert_eq!(wide["counts"], json!([1, 2]));
}

#[test]
fn figures_beyond_floating_point_are_null_and_no_others() {
    let (pool, _) = pool();
    let column = |data: Value, more: Value| {
        let mut params = json!({"data": data});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        done(&pool, Analysis, params)["columns"][0].clone()
    };
    let column_of = column(json!([1e308, 1e308, -1e308]), json!({"quantiles": [0, 0.25, 0.5]}));
    let numbers = &column_of["numbers"];
    assert_eq!(
        (&numbers["mean"], &numbers["variance"], &numbers["deviation"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!((&numbers["min"], &numbers["max"]), (&json!(-1e308), &json!(1e308)));
    assert_eq!(column_of["quantiles"], json!({"p0": -1e308, "p25": 0.0, "p50": 1e308}));
    // Quantiles however close have names of their own.
    let close = column(json!([1, 2]), json!({"quantiles": [0.5, 0.500000001, 0.5000000001]}));
    let names: Vec<&String> = close["quantiles"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["p50", "p50.00000001", "p50.0000001"]);
    // An estimate is never more than there is.
    for rows in [10_500, 11_000, 12_000, 13_000, 20_000] {
        let made = column(json!((0..rows).collect::<Vec<_>>()), json!({"quantiles": [], "top": 0}));
        assert!(made["distinct"].as_u64() <= made["count"].as_u64(), "{made}");
    }
}

#[test]
fn a_pipe_is_no_table() {
    let (pool, folder) = pool();
    nix::unistd::mkfifo(&folder.join("pipe.csv"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = fails(&pool, Analysis, json!({"input": "work/pipe.csv"}));
    assert!(error.contains("pipe.csv: it is no regular file"), "{error}");
    fs::write(folder.join("in.csv"), "a,b\r\n\r\n1,\"2\r\n").unwrap();
    let error = fails(&pool, Analysis, json!({"input": "work/in.csv"}));
    assert!(error.contains("in.csv:3: the file ends within quotes"), "{error}");
}
