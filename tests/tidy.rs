//! Guards the shape of the house: who may import whom, how large a file and a function may be, where `unsafe` lives.
//!
//! Reads the sources as text. A rule that a person would have to remember is a rule that is broken; here it fails a
//! test with file and line. Deliberately absent: what rustfmt and clippy check.

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file, and of a file of tests.
const FILE_LINES: usize = 600;
const TEST_FILE_LINES: usize = 800;
/// The most lines of a function, from its head to its closing brace.
const FUNCTION_LINES: usize = 70;
/// The only places of `unsafe`.
const UNSAFE_HOMES: [&str; 2] = ["worker/src/sys/", "worker/src/claim/region.rs"];

/// What each module of a crate may import of ours. `worker::` is the lower half. A row is sought by the longest
/// beginning of the file's path; a module may always import itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("src/tree", &[]),
    ("src/config", &["tree", "worker::task"]),
    ("src/rundir", &["worker::task"]),
    ("src/repository", &["worker::task", "worker::room"]),
    ("src/taskfile", &["tree", "repository", "worker::task", "worker::actions"]),
    ("src/doctor", &["config", "rundir", "worker::task", "worker::sys", "worker::room"]),
    ("src/store", &["worker::task"]),
    ("src/wire", &["worker::task", "worker::sys"]),
    ("src/records", &["store", "wire", "worker::task"]),
    ("src/requests", &["records", "store", "wire", "worker::task", "worker::sys", "worker::actions"]),
    ("src/artifacts", &["worker::task", "worker::sys", "worker::room"]),
    ("src/sweep", &["store", "worker::task", "worker::room"]),
    (
        "src/local",
        &[
            "requests",
            "records",
            "sweep",
            "store",
            "wire",
            "rundir",
            "worker::task",
            "worker::output",
            "worker::room",
            "worker::actions",
        ],
    ),
    (
        "src/supervisor",
        &[
            "requests",
            "records",
            "sweep",
            "store",
            "wire",
            "rundir",
            "config",
            "worker::claim",
            "worker::wire",
            "worker::output",
            "worker::room",
            "worker::task",
            "worker::sys",
            "worker::nursery",
            "worker::actions",
        ],
    ),
    (
        "src/api",
        &[
            "supervisor",
            "local",
            "requests",
            "records",
            "wire",
            "rundir",
            "store",
            "config",
            "taskfile",
            "worker::task",
            "worker::output",
            "worker::actions",
            "worker::sys",
        ],
    ),
    (
        "src/cli",
        &[
            "api",
            "artifacts",
            "supervisor",
            "local",
            "requests",
            "records",
            "wire",
            "rundir",
            "store",
            "config",
            "doctor",
            "repository",
            "taskfile",
            "tree",
            "worker::task",
            "worker::output",
            "worker::actions",
        ],
    ),
    ("src/lib.rs", &["*"]),
    ("src/main.rs", &["cli", "*"]),
    ("worker/src/task", &[]),
    ("worker/src/sys", &[]),
    ("worker/src/claim", &["worker::task", "worker::sys"]),
    // A ticket is what travels in a report.
    ("worker/src/wire", &["worker::claim", "worker::task", "worker::sys"]),
    ("worker/src/room", &["worker::task", "worker::sys"]),
    ("worker/src/output", &["worker::task", "worker::sys"]),
    ("worker/src/actions", &["worker::task", "worker::sys"]),
    (
        "worker/src/execute",
        &[
            "worker::room",
            "worker::output",
            "worker::claim",
            "worker::wire",
            "worker::actions",
            "worker::task",
            "worker::sys",
        ],
    ),
    (
        "worker/src/claim_loop",
        &[
            "worker::execute",
            "worker::room",
            "worker::output",
            "worker::claim",
            "worker::wire",
            "worker::actions",
            "worker::task",
            "worker::sys",
        ],
    ),
    ("worker/src/nursery", &["worker::claim_loop", "worker::wire", "worker::actions", "worker::sys"]),
    ("worker/src/lib.rs", &["*"]),
];

/// What anybody may import: means of testing, and the crate's own way to tell an error with its causes.
const EVERYWHERE: [&str; 3] = ["failpoint", "worker::failpoint", "error_chain"];

struct Source {
    /// From the root of the repository, as in `src/config/mod.rs`.
    path: String,
    text: String,
}

impl Source {
    /// Whether the whole file is a test, an example or a benchmark.
    fn is_test(&self) -> bool {
        let path = format!("/{}", self.path);
        ["/tests/", "/examples/", "/benches/"].iter().any(|folder| path.contains(folder))
            || path.ends_with("/tests.rs")
            || path.ends_with("_tests.rs")
    }

    /// The lines outside the tests at the file's end, each with its number.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test() { Some(0) } else { self.text.lines().position(is_test_mark) };
        self.text.lines().enumerate().take(end.unwrap_or(usize::MAX)).map(|(at, line)| (at + 1, line))
    }
}

/// Whether the line opens a file's tests. `mod tests;` alone does not end the file's code.
fn is_test_mark(line: &str) -> bool {
    line.starts_with("mod tests {") || line.starts_with("mod test {")
}

/// The line without its comment, and without what stands in quotes.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => {
                letters.next();
            }
            '"' if code.ends_with('\'') && !quoted => code.push(letter),
            '"' => quoted = !quoted,
            '/' if !quoted && letters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(letter),
        }
    }
    code
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let shown = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path: shown, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in
        ["src", "tests", "examples", "benches", "worker/src", "worker/tests", "worker/examples", "worker/benches"]
    {
        collect(&root().join(folder), &mut sources);
    }
    assert!(sources.len() > 10, "the sources are not where they should be");
    sources
}

/// Fails with every finding, one a line.
fn none(findings: Vec<String>, rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

fn find_in_code(rule: &str, wrong: impl Fn(&Source, &str) -> bool) {
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in source.lines() {
            if wrong(&source, &code(line)) {
                findings.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(findings, rule);
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!")).map(|source| source.path);
    none(silent.collect(), "a file opens with //!: its purpose, its owner, what is deliberately absent");
}

#[test]
fn files_are_small() {
    let large = sources().into_iter().filter_map(|source| {
        let (lines, most) = (source.text.lines().count(), if source.is_test() { TEST_FILE_LINES } else { FILE_LINES });
        (lines > most).then(|| format!("{}: {lines} lines, at most {most}", source.path))
    });
    none(large.collect(), "a file is read in one sitting");
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    for source in sources() {
        // rustfmt puts a function's closing brace under its head, so the indentation finds it.
        let mut open: Option<(usize, String)> = None;
        for (number, line) in source.lines() {
            let trimmed = line.trim_start();
            let indent = &line[..line.len() - trimmed.len()];
            match &open {
                Some((start, closing)) if line == closing => {
                    if number - start + 1 > FUNCTION_LINES {
                        findings.push(format!("{}:{start}: {} lines", source.path, number - start + 1));
                    }
                    open = None;
                }
                Some(_) => {}
                None if is_function_head(trimmed) && !trimmed.ends_with(['}', ';']) => {
                    open = Some((number, format!("{indent}}}")));
                }
                None => {}
            }
        }
    }
    none(findings, &format!("a function has at most {FUNCTION_LINES} lines"));
}

fn is_function_head(line: &str) -> bool {
    let before = line.split("fn ").next().unwrap_or_default();
    let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    line.contains("fn ") && before.split_whitespace().all(|word| words.contains(&word))
}

#[test]
fn unsafe_stays_at_home() {
    find_in_code("unsafe lives in worker/src/sys and worker/src/claim/region.rs alone", |source, code| {
        let at_home = UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home));
        !at_home && code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    });
}

#[test]
fn nothing_is_left_undone() {
    find_in_code("no todo!, unimplemented! or dbg! is committed", |_, code| {
        ["todo!(", "unimplemented!(", "dbg!("].iter().any(|mark| code.contains(mark))
    });
}

#[test]
fn nothing_unwraps_outside_tests() {
    find_in_code("unwrap is for tests", |_, code| code.contains(".unwrap()"));
}

#[test]
fn imports_go_downwards() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| source.path.contains("src/")) {
        let row = LAYERS.iter().filter(|(path, _)| belongs(&source.path, path)).max_by_key(|(path, _)| path.len());
        let Some((home, allowed)) = row else {
            findings.push(format!("{}: has no row in the table of layers", source.path));
            continue;
        };
        for (number, statement) in joined(source.lines()) {
            for import in imports(&source.path, &statement) {
                let own = home.replace("worker/src/", "worker::").replace("src/", "");
                let fine = under(&import, &own)
                    || EVERYWHERE.iter().chain(allowed.iter()).any(|layer| *layer == "*" || under(&import, layer));
                if !fine {
                    findings.push(format!("{}:{number}: imports {import}", source.path));
                }
            }
        }
    }
    none(findings, "a module imports what lies below it, as docs/architecture.md draws it");
}

/// The code of each line, with a `use` that goes over several lines put on one.
fn joined<'s>(lines: impl Iterator<Item = (usize, &'s str)>) -> Vec<(usize, String)> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in lines {
        let code = code(line);
        match statements.last_mut() {
            Some((_, statement)) if open => statement.push_str(code.trim()),
            Some(_) | None => {
                open = code.trim_start().trim_start_matches("pub ").starts_with("use ");
                statements.push((number, code.clone()));
            }
        }
        open &= !code.contains(';');
    }
    statements
}

/// Whether the file belongs to the module at `home`, which is a file or a folder with or without its own file.
fn belongs(file: &str, home: &str) -> bool {
    file.strip_prefix(home).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

fn under(import: &str, layer: &str) -> bool {
    import.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The modules of ours that a line of code names, with `worker::` in front of those of the lower half. Only what
/// begins with a small letter is a module or a function; a type or a constant of a crate's root belongs to nobody.
fn imports(file: &str, code: &str) -> Vec<String> {
    let lower = file.starts_with("worker/");
    let mut found = Vec::new();
    for (mark, prefix) in [("crate::", if lower { "worker::" } else { "" }), ("acode_worker::", "worker::")] {
        for (at, _) in code.match_indices(mark) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            let rest = &code[at + mark.len()..];
            let heads = match rest.strip_prefix('{') {
                Some(group) => top_level(group),
                None => vec![rest],
            };
            for head in heads {
                let end = head.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(head.len());
                let path = head[..end].trim_end_matches(':');
                if path.starts_with(|c: char| c.is_lowercase()) {
                    found.push(format!("{prefix}{path}"));
                }
            }
        }
    }
    found
}

/// The parts of a `{a::b, c::{d, e}}` group, cut at the commas that are not inside another group.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_u32, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(group[start..at].trim());
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(group[start..].trim());
    parts
}

#[test]
fn imports_are_found_in_every_form() {
    let found = |code| imports("src/x.rs", code);
    assert_eq!(found("use crate::store::Queue;"), ["store::Queue"]);
    assert_eq!(found("use acode_worker::{task::{A, b}, sys, Thing};"), ["worker::task", "worker::sys"]);
    assert_eq!(found("let x = crate::config::load(acode_worker::task::id());"), ["config::load", "worker::task::id"]);
    assert_eq!(found("$crate::store::x"), Vec::<String>::new());
    let lines = [(1, "use crate::{"), (2, "    a,"), (3, "    b::{c, D},"), (4, "};"), (5, "x")];
    let statements = joined(lines.into_iter());
    assert_eq!((statements.len(), imports("src/x.rs", &statements[0].1)), (2, vec!["a".into(), "b".into()]));
    assert_eq!(imports("worker/src/x.rs", "use crate::task::TaskId;"), ["worker::task::TaskId"]);
    assert!(code("let a = \"unsafe\"; // unsafe").contains("let a = ;"));
    assert!(under("store::Queue", "store") && !under("storehouse", "store"));
}
