//! A picture out of a file: its size is looked at first, and what is cut off is no picture.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::super::context::Context;
use super::super::error::{ActionError, Cancelled};
use super::super::files::Input;
use super::super::places::cannot;

/// What a decoder may use beside the picture itself.
const DECODER_MEMORY: u64 = 64 << 20;
/// The most bytes of a pixel in memory.
const PIXEL_BYTES: u64 = 8;

/// A picture in memory.
pub(super) struct Picture {
    pub(super) image: DynamicImage,
    /// Its colour profile, if it has one that fits what is in memory.
    pub(super) profile: Option<Vec<u8>>,
    /// Whether it was turned as its EXIF orientation asked.
    pub(super) oriented: bool,
}

/// Reads a picture of at most so many pixels.
pub(super) fn read(
    input: Input,
    max_pixels: u64,
    auto_orient: bool,
    context: &Context<'_>,
) -> Result<Picture, ActionError> {
    let size = input.size();
    let Input { path, mut file, .. } = input;
    let refuse = |why: &dyn std::fmt::Display| cannot("read", &path, why);
    let memory = max_pixels * PIXEL_BYTES + DECODER_MEMORY;
    if size > memory {
        return Err(refuse(&format!("its {size} bytes are more than a picture of maxPixels = {max_pixels} can have")));
    }
    let mut head = [0; 16];
    let known = read_up_to(&mut file, &mut head).map_err(|error| refuse(&error))?;
    let format = image::guess_format(&head[..known]).ok().filter(|format| is_ours(*format));
    let format = format.ok_or_else(|| refuse(&"it is no PNG, JPEG or WebP"))?;
    file.rewind().map_err(|error| refuse(&error))?;
    check_whole(&mut file, format, size).map_err(|error| refuse(&error))?;
    let source = BufReader::with_capacity(64 << 10, Cancellable { file, context });
    let mut reader = ImageReader::with_format(source, format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(memory);
    reader.limits(limits);
    let decoded = reader.into_decoder().map_err(|error| error.to_string());
    let decoded = decoded.and_then(|decoder| decode(decoder, max_pixels, auto_orient));
    context.check()?;
    decoded.map_err(|why| refuse(&why))
}

fn is_ours(format: ImageFormat) -> bool {
    matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)
}

fn decode(mut decoder: impl ImageDecoder, max_pixels: u64, auto_orient: bool) -> Result<Picture, String> {
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!("it is {width} x {height} pixels large, more than maxPixels = {max_pixels}"));
    }
    if width == 0 || height == 0 {
        return Err("it has no pixels".to_owned());
    }
    // Broken metadata do not make a picture unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let cmyk = matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16);
    let profile = decoder.icc_profile().unwrap_or_default().filter(|_| !cmyk);
    let profile = profile.filter(|profile| fits(profile, decoder.color_type()));
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    let oriented = auto_orient && orientation != Orientation::NoTransforms;
    if oriented {
        image.apply_orientation(orientation);
    }
    Ok(Picture { image, profile, oriented })
}

/// Whether a colour profile speaks of colours such as these: bytes 16 to 19 of it say of which.
pub(super) fn fits(profile: &[u8], colours: ColorType) -> bool {
    match profile.get(16..20) {
        Some(b"RGB ") => colours.has_color(),
        Some(b"GRAY") => !colours.has_color(),
        _ => false,
    }
}

/// A file that cannot be read any further once the action is to end, so that decoding ends, too.
struct Cancellable<'c, 'h> {
    file: File,
    context: &'c Context<'h>,
}

impl Read for Cancellable<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.context.check().map_err(|Cancelled| io::Error::other(Cancelled))?;
        self.file.read(buffer)
    }
}

impl Seek for Cancellable<'_, '_> {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.file.seek(place)
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut known = 0;
    while known < buffer.len() {
        match file.read(&mut buffer[known..])? {
            0 => break,
            count => known += count,
        }
    }
    Ok(known)
}

/// Refuses what is cut off. Decoders do not look for the end of a PNG once they have its pixels; of a JPEG they would make
/// grey ones.
fn check_whole(file: &mut File, format: ImageFormat, size: u64) -> io::Result<()> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off before its end");
    let whole = match format {
        ImageFormat::Jpeg => ends_as_jpeg(&mut BufReader::with_capacity(64 << 10, &mut *file)),
        ImageFormat::Png => ends_as_png(&mut BufReader::with_capacity(64 << 10, &mut *file)),
        ImageFormat::WebP => {
            let mut head = [0; 8];
            file.read_exact(&mut head)?;
            let told = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            Ok(told + 8 <= size)
        }
        _ => Ok(true),
    };
    let whole = match whole {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        whole => whole?,
    };
    file.rewind()?;
    if whole { Ok(()) } else { Err(cut()) }
}

/// Whether the chunks of a PNG go on until its end is said. What follows that is of no account.
fn ends_as_png(file: &mut impl BufRead) -> io::Result<bool> {
    let skip = |file: &mut dyn BufRead, length: u64| Ok(io::copy(&mut file.take(length), &mut io::sink())? == length);
    let mut goes_on: io::Result<bool> = skip(file, 8);
    while goes_on? {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let length = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        // Its sum is behind it.
        goes_on = skip(file, length + 4);
        if &head[4..] == b"IEND" {
            return goes_on;
        }
    }
    Ok(false)
}

/// Whether the segments of a JPEG go on until its end is said. What follows that is of no account.
fn ends_as_jpeg(file: &mut impl BufRead) -> io::Result<bool> {
    const START: u8 = 0xD8;
    const END: u8 = 0xD9;
    let mut byte = [0];
    let mut next = |file: &mut dyn BufRead| file.read_exact(&mut byte).map(|()| byte[0]);
    loop {
        // Between a scan's head and the next marker there are its data; FF 00 is a byte of theirs.
        while next(file)? != 0xFF {}
        let mut marker = next(file)?;
        while marker == 0xFF {
            marker = next(file)?;
        }
        match marker {
            END => return Ok(true),
            0x00 | 0x01 | START | 0xD0..=0xD7 => {}
            _ => {
                let length = u64::from(u16::from_be_bytes([next(file)?, next(file)?])).saturating_sub(2);
                let skipped = io::copy(&mut file.take(length), &mut io::sink())?;
                if skipped < length {
                    return Ok(false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_ends_where_it_says_so() {
        let chunk = |kind: &[u8; 4], length: u8| {
            [&[0, 0, 0, length][..], kind, &vec![7; usize::from(length)], &[1, 2, 3, 4]].concat()
        };
        let whole = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", 13), &chunk(b"tEXt", 9), &chunk(b"IEND", 0)].concat();
        assert!(ends_as_png(&mut &[&whole[..], b"more"].concat()[..]).unwrap());
        for end in 0..whole.len() {
            assert!(!ends_as_png(&mut &whole[..end]).unwrap_or(false), "{end}");
        }
    }

    #[test]
    fn a_jpeg_ends_where_it_says_so() {
        let whole = [0xFF, 0xD8, 0xFF, 0xE1, 0, 4, 0xFF, 0xD9, 0xFF, 0xDA, 0, 2, 1, 0xFF, 0, 2, 0xFF, 0xD9, 7];
        assert!(ends_as_jpeg(&mut &whole[..]).unwrap());
        // The end of a picture within its metadata is not its own.
        for end in 0..whole.len() - 1 {
            assert!(!ends_as_jpeg(&mut &whole[..end]).unwrap_or(false), "{end}");
        }
    }
}
