//! Actions: typed work that is done by a function, in the worker itself or in a process made for it.
//!
//! An action sees nothing of where it runs: what it may ask for is its [`Context`], behind which there is a [`Host`].
//! The registry holds the actions by their names; `check` looks at parameters before a task is accepted. Deliberately
//! absent: how an action is kept apart, which is `execute`'s.

#[cfg(feature = "data")]
mod analysis;
pub mod child;
#[cfg(feature = "compression")]
pub mod compression;
pub mod computation;
mod context;
pub mod daemon;
#[cfg(feature = "data")]
mod data;
#[cfg(test)]
mod desk_tests;
#[cfg(feature = "encryption")]
pub mod encryption;
mod error;
pub mod file_io;
mod files;
#[cfg(feature = "image")]
mod image;
mod output_file;
mod paths;
#[cfg(any(feature = "image", feature = "data"))]
mod places;
pub mod protocol;
mod registry;
#[cfg(feature = "data")]
mod table;

#[cfg(feature = "data")]
pub use analysis::{
    Analysis, AnalysisParams, AnalysisReport, ColumnReport, Correlation, Group, Histogram, HistogramAsked, Numbers,
    TopValue,
};
pub use context::{Context, Facts, Host, Why};
#[cfg(feature = "data")]
pub use data::{
    CellType, Comparison, Condition, DataParams, DataProcessing, DataResult, Deduplicate, Direction, Filter, Head,
    Join, JoinKind, Map, Sample, Select, Sort, SortBy, SortKind, Split, Step, Types, WrittenFile,
};
pub use error::{ActionError, Cancelled};
#[cfg(feature = "image")]
pub use image::{
    Fit, Flip, Format as ImageFormat, ImageManipulation, ImageOperation, ImageParams, ImageResult, ResizeFilter,
};
pub use output_file::{OutputFile, OutputFileError};
pub use paths::relative_paths;
pub use registry::{Outcome, ParamsError, Registry, WorkAction};
#[cfg(feature = "data")]
pub use table::TableFormat;
