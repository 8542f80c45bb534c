//! Why an action did not do its work.

use std::fmt;

/// The action was told to end before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was told to end")
    }
}

impl std::error::Error for Cancelled {}

/// What an action fails with: words for people. Made by `?` out of any error, with its causes; it is no error itself, or
/// it could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionError(String);

impl ActionError {
    /// A failure in these words. Control characters, as names of files may have them, are written as in a program: the words
    /// are shown on terminals. A line end and a tabulator stay.
    pub fn new(words: impl Into<String>) -> Self {
        Self(shown(words.into()))
    }

    /// The words in one line, for a list of failures.
    pub(super) fn in_one_line(&self) -> String {
        self.0.replace('\n', "\\n")
    }
}

fn shown(words: String) -> String {
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !words.contains(odd) {
        return words;
    }
    let mut text = String::with_capacity(words.len() + 8);
    for c in words.chars() {
        if odd(c) { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for ActionError {
    fn from(error: E) -> Self {
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Transparent wrappers repeat their cause.
            if !words.ends_with(&text) {
                words.push_str(": ");
                words.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(words)
    }
}
