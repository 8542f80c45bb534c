//! Patterns of paths below a directory: `*`, `?` and `[..]` within a part, `**` for any number of parts.
//!
//! Matched part by part while somebody walks down, so that only directories are entered in which something can match,
//! and no pattern costs more than its length for each name. Pure. Deliberately absent: the walk.

use std::ffi::OsStr;

use glob::{MatchOptions, Pattern};

/// The most parts of one pattern.
const PARTS_MAX: usize = 64;
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: false, require_literal_leading_dot: false };

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPattern;

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This name.
    Name(String),
    /// Names like this.
    Like(Pattern),
    /// Any number of names, none included.
    Any,
}

impl Part {
    fn read(text: &str) -> Result<Self, NoPattern> {
        if text == "**" {
            return Ok(Self::Any);
        }
        if text == ".." {
            return Err(NoPattern);
        }
        if !text.contains(['*', '?', '[']) {
            return Ok(Self::Name(text.to_owned()));
        }
        Pattern::new(text).map(Self::Like).map_err(|_| NoPattern)
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Like(pattern) => pattern.matches_with(name, OPTIONS),
            Self::Any => true,
        }
    }
}

/// Some patterns; a path is meant if one of them matches it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Vec<Part>>);

/// How far the patterns have come with the parts of a path: for each that still can match, where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach(Vec<(usize, usize)>);

/// What a name comes to in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Whether a file of this name is meant.
    pub is_meant: bool,
    /// How far the patterns have come if it is a directory. Nothing: none can match in it.
    pub within: Option<Reach>,
}

impl Patterns {
    /// Reads patterns. One that ends with a plain name means a file of that name, or all that is in a directory of
    /// that name; one that ends with `/` means the latter alone.
    ///
    /// # Errors
    /// The first text that is no pattern: absolute, empty, with `..`, or with brackets or stars that make no sense.
    pub fn read<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, NoPattern)> {
        let mut patterns = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let text = text.as_ref();
            let refuse = |_| (index, NoPattern);
            let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
            let parts: Vec<Part> = parts.map(Part::read).collect::<Result<_, _>>().map_err(refuse)?;
            if parts.len() > PARTS_MAX || text.starts_with('/') || text.is_empty() || text.contains('\0') {
                return Err((index, NoPattern));
            }
            let whole = text.ends_with('/') || parts.is_empty();
            if whole || matches!(parts.last(), Some(Part::Name(_))) {
                patterns.push(parts.iter().cloned().chain([Part::Any]).collect());
            }
            if !whole {
                patterns.push(parts);
            }
        }
        Ok(Self(patterns))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where all of them begin.
    pub fn begin(&self) -> Reach {
        let mut begin = Reach(Vec::with_capacity(self.0.len()));
        (0..self.0.len()).for_each(|pattern| self.enter(&mut begin, pattern, 0));
        begin
    }

    /// One name further.
    pub fn step(&self, from: &Reach, name: &OsStr) -> Step {
        let name = name.to_string_lossy();
        let mut within = Reach(Vec::new());
        let mut is_meant = false;
        for &(pattern, at) in &from.0 {
            let parts = &self.0[pattern];
            if !parts[at].matches(&name) {
                continue;
            }
            is_meant |= at + 1 == parts.len();
            let next = if parts[at] == Part::Any { at } else { at + 1 };
            self.enter(&mut within, pattern, next);
        }
        Step { is_meant, within: Some(within).filter(|within| !within.0.is_empty()) }
    }

    /// Whether one of them matches this path, whose parts are given.
    pub fn match_path<'p>(&self, parts: impl Iterator<Item = &'p OsStr>) -> bool {
        let mut step = Step { is_meant: false, within: Some(self.begin()) };
        for part in parts {
            let Some(within) = &step.within else { return false };
            step = self.step(within, part);
        }
        step.is_meant
    }

    /// Notes a place, and those behind it that `**` may leave out.
    fn enter(&self, reach: &mut Reach, pattern: usize, mut at: usize) {
        let parts = &self.0[pattern];
        let known = |reach: &Reach, at| reach.0.iter().rev().take_while(|p| p.0 == pattern).any(|p| p.1 == at);
        while at < parts.len() && !known(reach, at) {
            reach.0.push((pattern, at));
            if parts[at] != Part::Any {
                break;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(pattern: &str, path: &str) -> bool {
        Patterns::read(&[pattern]).unwrap().match_path(path.split('/').map(OsStr::new))
    }

    #[test]
    fn each_sign_means_what_it_says() {
        for (pattern, yes, no) in [
            ("*.txt", &["a.txt", ".txt"][..], &["d/a.txt", "a.txt.gz", "txt"][..]),
            ("out/*", &["out/a", "out/.hidden"], &["out", "out/d/a", "a"]),
            ("out/**", &["out/a", "out/d/e/a"], &["out", "outer/a"]),
            ("**/*.png", &["a.png", "d/a.png", "d/e/a.png"], &["a.jpg", "a.png/b"]),
            ("**", &["a", "d/e"], &[]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z/in/it"], &["z", "a/y/x"]),
            ("**/a/**/b", &["a/b", "x/a/y/b", "a/a/b/b"], &["b/a"]),
            ("?[0-9][!x]", &["a1y", "é2z"], &["a1x", "1y", "aay"]),
            ("./out//log", &["out/log", "out/log/deep/er"], &["log", "out"]),
            ("out/", &["out/a", "out/d/a"], &["out"]),
            (".", &["a", "d/a"], &[]),
            ("build-*/", &["build-1/a"], &["build-1"]),
            ("*", &["a"], &["d/a"]),
        ] {
            yes.iter().for_each(|path| assert!(meant(pattern, path), "{pattern} is to match {path}"));
            no.iter().for_each(|path| assert!(!meant(pattern, path), "{pattern} is not to match {path}"));
        }
    }

    #[test]
    fn only_directories_are_entered_in_which_something_can_match() {
        let patterns = Patterns::read(&["out/*/a", "log"]).unwrap();
        let enters = |from: &Reach, name: &str| patterns.step(from, OsStr::new(name)).within;
        let out = enters(&patterns.begin(), "out").unwrap();
        assert!(enters(&patterns.begin(), "node_modules").is_none() && enters(&patterns.begin(), "log").is_some());
        assert!(enters(&enters(&out, "x").unwrap(), "b").is_none());
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_told_by_its_place() {
        for text in ["", "/etc/passwd", "a/../b", "..", "a[", "[a/b]", "a**", "***", "a\0b", &"x/".repeat(65)] {
            assert_eq!(Patterns::read(&["good", text]), Err((1, NoPattern)), "{text}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_no_slower_than_it_is_long() {
        let pattern = format!("{}b/{}x", "*a".repeat(60), "**/".repeat(60));
        let patterns = Patterns::read(&[pattern]).unwrap();
        let name = "a".repeat(255);
        let path = std::iter::repeat_n(OsStr::new(&name), 60);
        assert!(!patterns.match_path(path));
    }
}
