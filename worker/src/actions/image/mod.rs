//! `image_manipulation`: one picture is read, changed step by step, and written.
//!
//! A picture is held in memory whole, so how large one may be is known before it is decoded: `maxPixels`. What it
//! looks like is kept by each step; colours are not converted, and their profile goes with them. Deliberately absent: formats
//! other than PNG, JPEG and WebP, animations (the first frame counts), lossy WebP, and metadata but for the colour profile.

mod change;
mod params;
mod read;
mod write;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::error::ActionError;
use super::files::Input;
use super::output_file::OutputFile;
use super::registry::WorkAction;

pub use params::{Fit, Flip, Format, ImageOperation, ImageParams, ResizeFilter};

/// The built-in action `image_manipulation`.
#[derive(Debug)]
pub struct ImageManipulation;

/// What has become of a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageResult {
    /// The format that was written.
    pub format: Format,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The size of the output file.
    pub bytes: u64,
    /// Whether it was turned first, as its EXIF orientation asked.
    pub oriented: bool,
}

impl WorkAction for ImageManipulation {
    const NAME: &'static str = "image_manipulation";
    type Params = ImageParams;
    type Output = ImageResult;

    fn validate(params: &ImageParams) -> Result<(), String> {
        params.validate()
    }

    fn execute(params: ImageParams, context: &mut Context<'_>) -> Result<ImageResult, ActionError> {
        let (format, quality) = params.written_as().map_err(ActionError::new)?;
        let input = Input::open(&context.path(&params.input)?)?;
        let output = context.path(&params.output)?;
        let file = OutputFile::create_beside(&output, params.overwrite, &[&input.facts])?;
        let path = input.path.clone();
        let steps = params.operations.len() + 2;
        context.progress(0.0, "decoding");
        let mut picture = read::read(input, params.max_pixels, params.auto_orient, context)?;
        for (index, operation) in params.operations.iter().enumerate() {
            context.check()?;
            context.progress(percent(index + 1, steps), operation.name());
            let changed = change::apply(picture.image, operation, params.max_pixels);
            picture.image = changed.map_err(|why| step_failed(&path, index, operation, &why))?;
        }
        context.check()?;
        context.progress(percent(steps - 1, steps), "encoding");
        let (width, height) = (picture.image.width(), picture.image.height());
        let oriented = picture.oriented;
        let target = write::Target { format, quality, background: params.background()? };
        let bytes = write::write(picture, file, &output, &target, context)?;
        context.progress(100.0, "written");
        Ok(ImageResult { format, width, height, bytes, oriented })
    }
}

fn percent(done: usize, all: usize) -> f64 {
    100.0 * done as f64 / all as f64
}

fn step_failed(input: &Path, index: usize, operation: &ImageOperation, why: &str) -> ActionError {
    ActionError::new(format!("{}: operation {} ({}): {why}", input.display(), index + 1, operation.name()))
}
