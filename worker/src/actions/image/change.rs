//! One step of a picture's way.
//!
//! A change of size is computed on four channels of 8 bits, with the colours weighed by their opacity, and the picture has
//! its own channels again afterwards. Deliberately absent: gamma; values are weighed as they are stored, as most programs do.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{ColorType, DynamicImage, RgbaImage};

use super::params::{Fit, Flip, ImageOperation, ResizeFilter};

/// Applies one operation to a picture, whose result has at most so many pixels.
pub(super) fn apply(image: DynamicImage, operation: &ImageOperation, max_pixels: u64) -> Result<DynamicImage, String> {
    let size = (image.width(), image.height());
    match operation {
        ImageOperation::Resize { width, height, fit, filter } => {
            let target = target(size, *width, *height, *fit);
            resize(image, target, *fit == Fit::Cover, *filter, max_pixels)
        }
        ImageOperation::Thumbnail { width, height } => {
            let height = height.unwrap_or(*width);
            if size.0 <= *width && size.1 <= height {
                return Ok(image);
            }
            let target = target(size, Some(*width), Some(height), Fit::Contain);
            resize(image, target, false, ResizeFilter::Lanczos3, max_pixels)
        }
        ImageOperation::Crop { x, y, width, height } => {
            let within = |from: u32, length: u32, all: u32| u64::from(from) + u64::from(length) <= u64::from(all);
            if !within(*x, *width, size.0) || !within(*y, *height, size.1) {
                let part = format!("{width} x {height} from ({x}, {y})");
                return Err(format!("{part} is not within the picture, which is {} x {}", size.0, size.1));
            }
            Ok(image.crop_imm(*x, *y, *width, *height))
        }
        ImageOperation::Rotate { degrees } => Ok(match degrees {
            90 => image.rotate90(),
            180 => image.rotate180(),
            _ => image.rotate270(),
        }),
        ImageOperation::Flip { direction: Flip::Horizontal } => Ok(image.fliph()),
        ImageOperation::Flip { direction: Flip::Vertical } => Ok(image.flipv()),
        ImageOperation::Grayscale {} => Ok(image.grayscale()),
        // How it is written is the writer's.
        ImageOperation::Convert { .. } => Ok(image),
    }
}

/// The size that is meant. None of it is ever 0.
fn target(size: (u32, u32), width: Option<u32>, height: Option<u32>, fit: Fit) -> (u32, u32) {
    let scale = |length: u32, by: f64| ((f64::from(length) * by).round() as u32).max(1);
    let across = width.map(|width| f64::from(width) / f64::from(size.0));
    let down = height.map(|height| f64::from(height) / f64::from(size.1));
    match (width, height, fit) {
        (Some(width), Some(height), Fit::Exact | Fit::Cover) => (width, height),
        (width, height, _) => {
            let by = across.unwrap_or(f64::INFINITY).min(down.unwrap_or(f64::INFINITY));
            // The side that decides is as asked, to the pixel.
            let is_width = across.is_some_and(|across| across == by);
            (
                width.filter(|_| is_width).unwrap_or_else(|| scale(size.0, by)),
                height.filter(|_| !is_width).unwrap_or_else(|| scale(size.1, by)),
            )
        }
    }
}

fn resize(
    image: DynamicImage,
    (width, height): (u32, u32),
    cover: bool,
    filter: ResizeFilter,
    max_pixels: u64,
) -> Result<DynamicImage, String> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!("{width} x {height} pixels are more than maxPixels = {max_pixels}"));
    }
    if (width, height) == (image.width(), image.height()) {
        return Ok(image);
    }
    let colours = image.color();
    let source = image.into_rgba8();
    let view = ImageRef::new(source.width(), source.height(), source.as_raw(), PixelType::U8x4);
    let view = view.map_err(|error| error.to_string())?;
    let mut made = Image::new(width, height, PixelType::U8x4);
    let algorithm = match filter {
        ResizeFilter::Nearest => ResizeAlg::Nearest,
        ResizeFilter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        ResizeFilter::CatmullRom => ResizeAlg::Convolution(FilterType::CatmullRom),
        ResizeFilter::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    let mut options = ResizeOptions::new().resize_alg(algorithm).use_alpha(colours.has_alpha());
    if cover {
        options = options.fit_into_destination(None);
    }
    Resizer::new().resize(&view, &mut made, &options).map_err(|error| error.to_string())?;
    drop(source);
    let made = RgbaImage::from_raw(width, height, made.into_vec()).ok_or("its pixels do not fit its size")?;
    Ok(with_channels(made.into(), colours))
}

/// Four channels as those that the picture had.
fn with_channels(image: DynamicImage, colours: ColorType) -> DynamicImage {
    match (colours.has_color(), colours.has_alpha()) {
        (true, true) => image,
        (true, false) => image.into_rgb8().into(),
        (false, true) => image.into_luma_alpha8().into(),
        (false, false) => image.into_luma8().into(),
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    #[test]
    fn a_size_is_what_was_asked_for() {
        assert_eq!(target((400, 200), Some(100), None, Fit::Contain), (100, 50));
        assert_eq!(target((400, 200), None, Some(100), Fit::Exact), (200, 100));
        assert_eq!(target((400, 200), Some(100), Some(100), Fit::Contain), (100, 50));
        assert_eq!(target((200, 400), Some(100), Some(100), Fit::Contain), (50, 100));
        assert_eq!(target((400, 200), Some(100), Some(100), Fit::Cover), (100, 100));
        assert_eq!(target((400, 200), Some(100), Some(90), Fit::Exact), (100, 90));
        assert_eq!(target((10_000, 1), Some(10), None, Fit::Contain), (10, 1));
    }

    #[test]
    fn colours_are_weighed_by_their_opacity() {
        // Half of it is red, half transparent green: no green may be seen in what is made of both.
        let image =
            RgbaImage::from_fn(64, 64, |x, _| if x % 2 == 0 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 255, 0, 0]) });
        let made = resize(image.into(), (8, 8), false, ResizeFilter::Bilinear, 1000).unwrap().into_rgba8();
        for pixel in made.pixels() {
            assert!(pixel[0] >= 250 && pixel[1] <= 5 && (100..155).contains(&pixel[3]), "{pixel:?}");
        }
    }

    #[test]
    fn a_part_is_within_the_whole() {
        let crop = |x, width| ImageOperation::Crop { x, y: 0, width, height: 1 };
        let image = || DynamicImage::new_luma8(4, 4);
        assert_eq!(apply(image(), &crop(2, 2), 16).unwrap().width(), 2);
        assert!(apply(image(), &crop(2, 3), 16).is_err());
        assert!(apply(image(), &crop(u32::MAX, 3), 16).is_err());
        let large =
            ImageOperation::Resize { width: Some(5), height: Some(5), fit: Fit::Exact, filter: ResizeFilter::Nearest };
        assert!(apply(image(), &large, 16).unwrap_err().contains("maxPixels"));
        assert!(matches!(apply(image(), &large, 25).unwrap(), DynamicImage::ImageLuma8(_)));
    }
}
