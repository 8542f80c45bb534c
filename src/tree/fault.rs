//! What can be wrong in a document, in words, and the search for the word that was meant.
//!
//! Deliberately absent: the file's name. Whoever opened the document knows it and puts it in front.

use std::fmt;

/// A place in a document, from 1. Zeros stand for a value that has no place: a variable or a flag gave it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
}

impl At {
    /// No place.
    pub const NOWHERE: Self = Self { line: 0, column: 0 };

    /// Whether this is a place at all.
    pub fn is_known(self) -> bool {
        self.line > 0
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A mistake in a document, and where it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind}")]
pub struct Fault {
    /// Where.
    pub at: At,
    /// What.
    pub kind: FaultKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultKind {
    /// The text is not a document of its format at all.
    #[error("{0}")]
    Syntax(String),
    /// A key that nobody knows.
    #[error("unknown key '{key}'{}{}", within(.parent), meant(.nearest))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The path of the mapping that holds it; empty at the top.
        parent: String,
        /// The known key that is most like it, if one is.
        nearest: Option<String>,
    },
    /// A key that the mapping has already.
    #[error("duplicate key '{key}'")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A key that must be there is not.
    #[error("{what} is missing: {expected} is expected")]
    Missing {
        /// The key.
        what: String,
        /// What it should hold.
        expected: String,
    },
    /// A value of another kind than the key wants.
    #[error("{key} is {found}: {expected} is expected")]
    WrongType {
        /// The key's path.
        key: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A value of the right kind that is not allowed.
    #[error("{key} is {value}: {expected} is expected")]
    OutOfRange {
        /// The key's path.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// Anything that only one kind of document can get wrong.
    #[error("{0}")]
    Other(String),
}

fn within(parent: &str) -> String {
    if parent.is_empty() { String::new() } else { format!(" in {parent}") }
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!(": did you mean '{key}'?")).unwrap_or_default()
}

impl Fault {
    /// The fault `kind` at `at`.
    pub fn new(at: At, kind: FaultKind) -> Self {
        Self { at, kind }
    }

    /// A fault in the words given.
    pub fn other(at: At, words: impl Into<String>) -> Self {
        Self::new(at, FaultKind::Other(words.into()))
    }

    /// The fault that the mapping at `parent` has the unknown `key`, when it knows the keys of `known`.
    pub fn unknown_key<'k>(at: At, key: &str, parent: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        let nearest = nearest(key, known).map(str::to_owned);
        Self::new(at, FaultKind::UnknownKey { key: key.to_owned(), parent: parent.to_owned(), nearest })
    }

    /// `file:line:column: `, or `file: ` when the place is not known.
    pub fn place(&self, file: &str) -> String {
        if self.at.is_known() { format!("{file}:{}: ", self.at) } else { format!("{file}: ") }
    }
}

/// The word of `known` that `word` was probably meant to be: the one with the smallest edit distance, if that is
/// small against the word's length. Case and the signs between words do not count, so `poll_interval_ms` finds
/// `pollIntervalMs`.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// Longer words are nobody's typing mistake, and the distance costs the product of the lengths.
    const WORD_MAX: usize = 100;
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if word.len() > WORD_MAX {
        return None;
    }
    let wanted: String = plain(word);
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_over_typing_and_style_and_none_where_nothing_is_near() {
        let known = ["count", "pollIntervalMs", "mode"];
        assert_eq!(nearest("cuont", known), Some("count"));
        assert_eq!(nearest("poll_interval_ms", known), Some("pollIntervalMs"));
        assert_eq!(nearest("pollInterval", known), Some("pollIntervalMs"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
