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
    /// A failure in these words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
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
        Self(words)
    }
}
