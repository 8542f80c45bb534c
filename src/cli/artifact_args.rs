//! What can be typed about artefacts: `acode task artifacts` and `acode task fetch`. Types only.

use std::path::PathBuf;

use crate::wire::TaskRef;

/// `acode task artifacts`
#[derive(Debug, clap::Args)]
pub struct ArtifactsArgs {
    /// Its id, a beginning of it, its number, or its name
    pub id: TaskRef,
    /// Those of this attempt [default: the last one that has left some]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
}

/// `acode task fetch`
#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    /// Its id, a beginning of it, its number, or its name
    pub id: TaskRef,
    /// The directory to copy to, made if need be; - writes a single file to standard output
    pub dest: PathBuf,
    /// Only what these patterns mean, as in '*.png' or out/**
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Those of this attempt [default: the last one that has left some]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}
