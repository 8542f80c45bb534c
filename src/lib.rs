//! acode: a durable task queue and pre-fork worker pool for one Linux server.

pub mod api;
mod artifacts;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod local;
pub mod records;
pub mod repository;
pub mod requests;
pub mod rundir;
pub mod store;
pub mod supervisor;
mod sweep;
pub mod taskfile;
pub mod tree;
pub mod wire;

/// An error with all of its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent wrappers repeat their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
