//! Lines in which a pattern is found, as `rg -uu -n -H --no-heading --sort path` has them.
//!
//! A file with a NUL byte in its first piece is no text, as rg has it, and left out; at a later one it is left. Deliberately
//! absent: matches across lines, and UTF-16, whose NUL bytes make a file no text.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Literal};
use serde::{Deserialize, Serialize};

use super::Search;
use super::walk::{Problems, Tree};
use crate::actions::files::{Counted, FileError, Input, Meter, PIECE};
use crate::actions::{ActionError, Context, OutputFile};

/// The default of `maxMatches`.
const MATCHES: u64 = 10_000;
/// The byte order mark of UTF-8, which is no part of a file's first line.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// The longest line that is searched, in bytes.
const LINE_MAX: u64 = 8 << 20;

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Lines.
    pub matches: u64,
    /// Files with a match.
    pub files_matched: u64,
    /// How many files.
    pub files: u64,
    /// Files left at a NUL byte.
    pub binary_files: u64,
    /// How many could not be read.
    pub unreadable: u64,
    /// Whether the search ended at `maxMatches`.
    pub truncated: bool,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// The pattern of the parameters, ready for use.
///
/// # Errors
/// It is none; the words say where.
pub(super) fn pattern(params: &Search) -> Result<Regex, String> {
    let text = if params.literal { regex::escape(&params.pattern) } else { params.pattern.clone() };
    if params.max_matches == Some(0) {
        return Err("maxMatches is 0: give at least 1".to_owned());
    }
    let hir = ParserBuilder::new().utf8(false).case_insensitive(params.ignore_case).build().parse(&text);
    if hir.is_ok_and(|hir| needs_line_end(&hir)) {
        return Err("pattern holds a line end: lines are searched one by one".to_owned());
    }
    let regex = RegexBuilder::new(&text).case_insensitive(params.ignore_case).build();
    regex.map_err(|error| format!("pattern: {error}"))
}

/// Whether a part of a pattern is a line end and nothing else, however it was written; a class that has others beside it can
/// do without.
fn needs_line_end(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(Literal(bytes)) => bytes.contains(&b'\n'),
        HirKind::Capture(capture) => needs_line_end(&capture.sub),
        HirKind::Repetition(repetition) => needs_line_end(&repetition.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(needs_line_end),
        // A class of one letter is a literal by then.
        HirKind::Class(_) | HirKind::Look(_) | HirKind::Empty => false,
    }
}

/// Where matches go.
enum Sink {
    File(io::BufWriter<OutputFile>, PathBuf),
    Stdout,
}

impl Sink {
    fn add(&mut self, line: &[u8], meter: &Meter<'_, '_>) -> Result<(), ActionError> {
        match self {
            Self::File(file, place) => file.write_all(line).map_err(FileError::of("write to", place))?,
            Self::Stdout => meter.with(|context| context.stdout().write_all(line))?,
        }
        Ok(())
    }

    /// Whether this is the file that it writes, or is to replace.
    fn is(&self, input: &Input) -> bool {
        match self {
            Self::File(file, _) => file.get_ref().is(&input.facts),
            Self::Stdout => false,
        }
    }
}

/// How a file was left.
#[derive(PartialEq, Eq)]
enum Left {
    AtEnd,
    Binary,
    Enough,
}

struct Searcher<'s, 'c, 'h> {
    regex: Regex,
    sink: Sink,
    meter: &'s Meter<'c, 'h>,
    most: u64,
    matches: u64,
}

impl Searcher<'_, '_, '_> {
    /// Searches one file. The outer error ends the action, the inner one is the file's.
    fn file(&mut self, input: &Input, name: &Path) -> Result<Result<Left, FileError>, ActionError> {
        let mut reader = BufReader::with_capacity(PIECE, Counted::new(&input.file, self.meter));
        let (mut line, mut number) = (Vec::new(), 0_u64);
        let fail = FileError::of("search", &input.path);
        let mark = match reader.fill_buf() {
            Ok(start) if start.contains(&0) => return Ok(Ok(Left::Binary)),
            Ok(start) => {
                if start.starts_with(MARK) {
                    MARK.len()
                } else {
                    0
                }
            }
            Err(error) => {
                self.meter.check()?;
                return Ok(Err(fail(error)));
            }
        };
        reader.consume(mark);
        loop {
            line.clear();
            match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return Ok(Ok(Left::AtEnd)),
                Ok(_) => {}
                Err(error) => {
                    self.meter.check()?;
                    return Ok(Err(fail(error)));
                }
            }
            number += 1;
            if line.contains(&0) {
                return Ok(Ok(Left::Binary));
            }
            if line.len() as u64 == LINE_MAX && line.last() != Some(&b'\n') {
                let words = format!("line {number} is longer than {LINE_MAX} bytes");
                return Ok(Err(fail(io::Error::other(words))));
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if !self.regex.is_match(text) {
                continue;
            }
            if self.matches == self.most {
                return Ok(Ok(Left::Enough));
            }
            self.matches += 1;
            let mut told = name.as_os_str().as_bytes().to_vec();
            told.extend(format!(":{number}:").bytes());
            told.extend(text);
            told.push(b'\n');
            self.sink.add(&told, self.meter)?;
        }
    }
}

pub(super) fn run(params: &Search, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let regex = pattern(params).map_err(ActionError::new)?;
    let tree = Tree::find(&params.input, context)?;
    let sink = match &params.output {
        Some(output) => {
            let place = context.path(output)?;
            let file = OutputFile::create_beside(&place, params.overwrite, &tree.inputs())?;
            Sink::File(io::BufWriter::new(file), place)
        }
        None => Sink::Stdout,
    };
    let tree = tree.measured(context)?;
    let meter = Meter::of_bytes(context, tree.bytes);
    let most = params.max_matches.unwrap_or(MATCHES);
    let mut searcher = Searcher { regex, sink, meter: &meter, most, matches: 0 };
    let (mut problems, mut files, mut files_matched, mut binary_files) = (Problems::default(), 0, 0, 0);
    let mut truncated = false;
    tree.each_file(&meter, &mut problems, |path, problems| {
        if truncated {
            return Ok(());
        }
        let before = searcher.matches;
        let left = match tree.open(path) {
            // What was found before, in a file within the tree, is not of it.
            Ok(input) if searcher.sink.is(&input) => return Ok(()),
            Ok(input) => searcher.file(&input, &tree.as_given(path))?,
            Err(error) => Err(error),
        };
        files_matched += u64::from(searcher.matches > before);
        match left {
            Ok(left) => {
                files += 1;
                binary_files += u64::from(left == Left::Binary);
                truncated = left == Left::Enough;
            }
            Err(error) => problems.note(&meter, error),
        }
        Ok(())
    })?;
    let (matches, sink) = (searcher.matches, searcher.sink);
    let unreadable = problems.end(params.skip_unreadable)?;
    let output = match sink {
        Sink::Stdout => None,
        Sink::File(file, place) => {
            let file = file.into_inner().map_err(|error| FileError::of("write to", &place)(error.into_error()))?;
            file.finish()?;
            Some(place.display().to_string())
        }
    };
    Ok(Done { matches, files_matched, files, binary_files, unreadable, truncated, output })
}
