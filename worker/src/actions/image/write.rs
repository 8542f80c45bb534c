//! A picture into a file, whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ColorType, DynamicImage, ImageEncoder, Rgb, RgbImage};

use super::super::context::Context;
use super::super::error::{ActionError, Cancelled};
use super::super::output_file::OutputFile;
use super::super::places::cannot;
use super::params::Format;
use super::read::{Picture, fits};

/// How it is written.
pub(super) struct Target {
    pub(super) format: Format,
    pub(super) quality: u8,
    pub(super) background: Rgb<u8>,
}

/// Writes it, and gives the size of the file in bytes.
pub(super) fn write(
    picture: Picture,
    file: OutputFile,
    path: &Path,
    target: &Target,
    context: &Context<'_>,
) -> Result<u64, ActionError> {
    let mut sink = BufWriter::with_capacity(64 << 10, Cancellable { file, context });
    let image = fitting(picture.image, target);
    let profile = picture.profile.filter(|profile| fits(profile, image.color()));
    let encoded = match target.format {
        Format::Png => encode(PngEncoder::new(&mut sink), &image, profile),
        Format::Jpeg => encode(JpegEncoder::new_with_quality(&mut sink, target.quality), &image, profile),
        Format::Webp => encode(WebPEncoder::new_lossless(&mut sink), &image, profile),
    };
    context.check()?;
    encoded.map_err(|why| cannot("write", path, &why))?;
    let into = sink.into_inner().map_err(|error| cannot("write", path, error.error()))?;
    Ok(into.file.finish()?)
}

fn encode(mut encoder: impl ImageEncoder, image: &DynamicImage, profile: Option<Vec<u8>>) -> Result<(), String> {
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile).map_err(|error| error.to_string())?;
    }
    let (width, height) = (image.width(), image.height());
    let written = encoder.write_image(image.as_bytes(), width, height, image.color().into());
    written.map_err(|error| error.to_string())
}

/// The picture with channels that the format has.
fn fitting(image: DynamicImage, target: &Target) -> DynamicImage {
    match target.format {
        Format::Png => image,
        Format::Webp => match image.color() {
            ColorType::L16 => image.into_luma8().into(),
            ColorType::La16 => image.into_luma_alpha8().into(),
            ColorType::Rgb16 => image.into_rgb8().into(),
            ColorType::Rgba16 => image.into_rgba8().into(),
            _ => image,
        },
        Format::Jpeg => match image.color() {
            ColorType::L8 | ColorType::Rgb8 => image,
            ColorType::L16 => image.into_luma8().into(),
            colours if !colours.has_alpha() => image.into_rgb8().into(),
            _ => over(&image, target.background).into(),
        },
    }
}

/// The picture in front of a colour.
fn over(image: &DynamicImage, background: Rgb<u8>) -> RgbImage {
    let source = image.to_rgba8();
    let mut made = RgbImage::new(source.width(), source.height());
    for (to, from) in made.pixels_mut().zip(source.pixels()) {
        let opacity = u32::from(from[3]);
        for channel in 0..3 {
            let mixed = u32::from(from[channel]) * opacity + u32::from(background[channel]) * (255 - opacity);
            to[channel] = ((mixed + 127) / 255) as u8;
        }
    }
    made
}

/// A file that cannot be written any further once the action is to end, so that encoding ends, too.
struct Cancellable<'c, 'h> {
    file: OutputFile,
    context: &'c Context<'h>,
}

impl Write for Cancellable<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.context.check().map_err(|Cancelled| io::Error::other(Cancelled))?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    #[test]
    fn what_is_transparent_shows_the_background() {
        let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([200, 0, 0, [0, 255, 128][x as usize]]));
        let made = over(&image.into(), Rgb([0, 0, 100]));
        let pixels: Vec<[u8; 3]> = made.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(pixels, [[0, 0, 100], [200, 0, 0], [100, 0, 50]]);
    }
}
