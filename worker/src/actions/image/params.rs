//! What `image_manipulation` is told.
//!
//! A picture is described by one `operation` with its keys beside `input` and `output`, or by a list of `operations`.

use image::Rgb;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::error::ActionError;
use super::super::files::check_path;

/// The parameters of `image_manipulation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub struct ImageParams {
    /// The picture: PNG, JPEG or WebP, told by its first bytes.
    pub input: String,
    /// The picture that is made. Its name ends as the format's do, unless an operation `convert` names one.
    pub output: String,
    /// What is done, in this order.
    pub operations: Vec<ImageOperation>,
    /// Whether a file that is there already is replaced.
    pub overwrite: bool,
    /// Whether the picture is turned first as its EXIF orientation says.
    pub auto_orient: bool,
    /// The most pixels that it may have, when read and after each step.
    pub max_pixels: u64,
    /// What is seen through transparent pixels in a format that has none: `#rrggbb`.
    pub background: String,
}

/// As it is written in JSON, when the short form has been put into the long one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(alias = "image")]
    input: String,
    output: String,
    #[serde(default)]
    operations: Vec<ImageOperation>,
    #[serde(default)]
    overwrite: bool,
    #[serde(default = "yes")]
    auto_orient: bool,
    #[serde(default = "default_pixels")]
    max_pixels: u64,
    #[serde(default = "white")]
    background: String,
}

fn yes() -> bool {
    true
}

fn default_pixels() -> u64 {
    ImageParams::DEFAULT_MAX_PIXELS
}

fn white() -> String {
    "#ffffff".to_owned()
}

/// The keys that do not belong to the single operation of the short form.
const GENERAL: [&str; 7] = ["image", "input", "output", "overwrite", "autoOrient", "maxPixels", "background"];

impl TryFrom<Value> for ImageParams {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let Value::Object(mut object) = value else { return Err("expected an object".to_owned()) };
        if object.contains_key("operation") {
            if object.contains_key("operations") {
                return Err("either operation or operations is given".to_owned());
            }
            let all = std::mem::take(&mut object);
            let (general, own): (Map<_, _>, Map<_, _>) =
                all.into_iter().partition(|(key, _)| GENERAL.contains(&key.as_str()));
            object = general;
            object.insert("operations".to_owned(), Value::Array(vec![Value::Object(own)]));
        }
        let written: Written = serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())?;
        Ok(Self {
            input: written.input,
            output: written.output,
            operations: written.operations,
            overwrite: written.overwrite,
            auto_orient: written.auto_orient,
            max_pixels: written.max_pixels,
            background: written.background,
        })
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ImageOperation {
    /// Another size.
    Resize {
        /// In pixels; absent: as the height has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        width: Option<u32>,
        /// In pixels; absent: as the width has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        height: Option<u32>,
        /// What both together mean.
        #[serde(default)]
        fit: Fit,
        /// How pixels are made of others.
        #[serde(default)]
        filter: ResizeFilter,
    },
    /// A part of it.
    Crop {
        /// Of the left edge, from 0.
        #[serde(default)]
        x: u32,
        /// Of the upper edge, from 0.
        #[serde(default)]
        y: u32,
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Turned clockwise.
    Rotate {
        /// 90, 180 or 270.
        degrees: u32,
    },
    /// Mirrored.
    Flip {
        /// Which way.
        direction: Flip,
    },
    /// Without colours.
    Grayscale {},
    /// As large as fits into a box, never larger than it is.
    Thumbnail {
        /// The box's width in pixels.
        width: u32,
        /// The box's height in pixels; absent: its width.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        height: Option<u32>,
    },
    /// Written in another format.
    Convert {
        /// Which one; absent: as the name of the output ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<Format>,
        /// Of a JPEG: 1 to 100.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quality: Option<u8>,
    },
}

/// What width and height together mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// As large as fits into them; the proportions stay.
    #[default]
    Contain,
    /// They are filled; the proportions stay, and what is too much on two sides is cut off.
    Cover,
    /// Both are as given; the proportions change.
    Exact,
}

/// How pixels are made of others, from fast to fine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeFilter {
    /// The nearest one.
    Nearest,
    /// A mean of its neighbours.
    Bilinear,
    /// Cubic.
    CatmullRom,
    /// The finest.
    #[default]
    Lanczos3,
}

/// Which way a picture is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flip {
    /// Left becomes right.
    Horizontal,
    /// Upside down.
    Vertical,
}

/// What is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG.
    #[serde(alias = "jpg")]
    Jpeg,
    /// WebP; written without loss.
    Webp,
}

impl Format {
    fn from_path(path: &str) -> Option<Self> {
        let extension = std::path::Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }
}

impl ImageOperation {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Resize { .. } => "resize",
            Self::Crop { .. } => "crop",
            Self::Rotate { .. } => "rotate",
            Self::Flip { .. } => "flip",
            Self::Grayscale {} => "grayscale",
            Self::Thumbnail { .. } => "thumbnail",
            Self::Convert { .. } => "convert",
        }
    }

    fn validate(&self) -> Result<(), String> {
        let positive = |name: &str, value: Option<u32>| match value {
            Some(0) => Err(format!("{name} is 0: expected at least 1")),
            _ => Ok(()),
        };
        match self {
            Self::Resize { width: None, height: None, .. } => Err("give width, height, or both".to_owned()),
            Self::Resize { width, height, fit, .. } => {
                if (width.is_none() || height.is_none()) && *fit == Fit::Cover {
                    return Err("fit cover needs both width and height".to_owned());
                }
                positive("width", *width).and(positive("height", *height))
            }
            Self::Crop { width, height, .. } => positive("width", Some(*width)).and(positive("height", Some(*height))),
            Self::Rotate { degrees: 90 | 180 | 270 } => Ok(()),
            Self::Rotate { degrees } => Err(format!("degrees is {degrees}: expected 90, 180 or 270")),
            Self::Thumbnail { width, height } => positive("width", Some(*width)).and(positive("height", *height)),
            Self::Convert { quality: Some(quality), .. } if !(1..=100).contains(quality) => {
                Err(format!("quality is {quality}: expected 1 to 100"))
            }
            Self::Flip { .. } | Self::Grayscale {} | Self::Convert { .. } => Ok(()),
        }
    }
}

impl ImageParams {
    /// The most pixels if nothing else is said.
    pub const DEFAULT_MAX_PIXELS: u64 = 100_000_000;
    /// The most that can be asked for: some 8 GiB of memory.
    pub const PIXELS_LIMIT: u64 = 2_000_000_000;
    /// The quality of a JPEG if none is given.
    pub const DEFAULT_QUALITY: u8 = 85;
    /// The most steps.
    pub const OPERATIONS_MAX: usize = 100;

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), String> {
        check_path("input", &self.input)?;
        check_path("output", &self.output)?;
        if self.input == self.output {
            return Err(format!("input and output are the same file: {}", self.input));
        }
        if !(1..=Self::PIXELS_LIMIT).contains(&self.max_pixels) {
            return Err(format!("maxPixels is {}: expected 1 to {}", self.max_pixels, Self::PIXELS_LIMIT));
        }
        if self.operations.len() > Self::OPERATIONS_MAX {
            return Err(format!("{} operations: expected at most {}", self.operations.len(), Self::OPERATIONS_MAX));
        }
        for (index, operation) in self.operations.iter().enumerate() {
            let checked = operation.validate();
            checked.map_err(|why| format!("operation {} ({}): {why}", index + 1, operation.name()))?;
        }
        self.background().map_err(|error| error.to_string())?;
        let (format, quality) = self.written_as()?;
        match (format, self.quality_asked()) {
            (Format::Jpeg, _) | (_, None) => Ok(()),
            (Format::Png | Format::Webp, Some(_)) => {
                Err(format!("quality {quality} is for JPEG only: PNG and WebP are written without loss"))
            }
        }
    }

    fn quality_asked(&self) -> Option<u8> {
        self.operations.iter().rev().find_map(|operation| match operation {
            ImageOperation::Convert { quality, .. } => *quality,
            _ => None,
        })
    }

    /// The format of the output, and the quality if it is JPEG: what the last `convert` says, else how its name ends.
    pub(super) fn written_as(&self) -> Result<(Format, u8), String> {
        let named = self.operations.iter().rev().find_map(|operation| match operation {
            ImageOperation::Convert { format, .. } => *format,
            _ => None,
        });
        let format = named.or_else(|| Format::from_path(&self.output)).ok_or_else(|| {
            format!(
                "the format of {} is not known: end its name in .png, .jpg, .jpeg or .webp, or convert with a format",
                self.output
            )
        })?;
        Ok((format, self.quality_asked().unwrap_or(Self::DEFAULT_QUALITY)))
    }

    /// The colour behind transparent pixels.
    pub(super) fn background(&self) -> Result<Rgb<u8>, ActionError> {
        let wrong = || ActionError::new(format!("background is '{}': expected #rrggbb", self.background));
        let digits = self.background.strip_prefix('#').filter(|digits| digits.len() == 6).ok_or_else(wrong)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let colour = u32::from_str_radix(digits, 16).map_err(|_| wrong())?;
        let [_, red, green, blue] = colour.to_be_bytes();
        Ok(Rgb([red, green, blue]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(value: Value) -> Result<ImageParams, String> {
        let params = serde_json::from_value::<ImageParams>(value).map_err(|error| error.to_string())?;
        params.validate().map(|()| params)
    }

    #[test]
    fn the_short_form_is_a_list_of_one() {
        let short =
            params(json!({"image": "a.jpg", "output": "b.png", "operation": "resize", "width": 800, "height": 600}));
        let long = params(json!({"input": "a.jpg", "output": "b.png",
            "operations": [{"operation": "resize", "width": 800, "height": 600}]}));
        assert_eq!(short, long);
        let again = serde_json::to_value(short.as_ref().unwrap()).unwrap();
        assert_eq!(params(again), short);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (operation, words) in [
            (json!({"operation": "resize"}), "give width, height, or both"),
            (json!({"operation": "resize", "width": 0}), "width is 0"),
            (json!({"operation": "resize", "width": 3, "fit": "cover"}), "needs both"),
            (json!({"operation": "rotate", "degrees": 45}), "expected 90, 180 or 270"),
            (json!({"operation": "blur"}), "unknown variant"),
            (json!({"operation": "crop", "width": 1, "height": 1, "z": 1}), "unknown field"),
            (json!({"operation": "convert", "format": "gif"}), "unknown variant"),
            (json!({"operation": "convert", "format": "png", "quality": 3}), "for JPEG only"),
            (json!({"operation": "convert", "format": "jpg", "quality": 0}), "expected 1 to 100"),
        ] {
            let error = params(json!({"input": "a", "output": "b.png", "operations": [operation]})).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(params(json!({"input": "a", "output": "b.gif"})).unwrap_err().contains("format of b.gif"));
        assert!(params(json!({"input": "a.png", "output": "a.png"})).unwrap_err().contains("same file"));
        assert!(params(json!({"input": "a", "output": "b.png", "background": "#+1+1+1"})).is_err());
        assert!(params(json!({"input": "a", "output": "b.png", "colour": 1})).unwrap_err().contains("unknown field"));
    }
}
