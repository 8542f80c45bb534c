//! The formats of compressed files, each as a stream.
//!
//! Deliberately absent: files, names and limits of the output.

use std::io::{self, BufRead, BufReader, Read, Write};

use super::Format;
use crate::actions::files::PIECE;

/// The most bytes of a window that zstd can be told to allow, as a power of two.
const WINDOW_LOG_MAX: u32 = 31;
/// The same, the least.
const WINDOW_LOG_MIN: u32 = 10;
/// From this window on zstd looks for repetitions far away.
const LONG_FROM: u32 = 27;

/// A stream that compresses what is written to it.
pub(super) enum Encoder<W: Write> {
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Gzip(flate2::write::GzEncoder<W>),
    Xz(liblzma::write::XzEncoder<W>),
}

impl<W: Write> Encoder<W> {
    /// For so many bytes. `level` is one that the format has.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn new(to: W, format: Format, level: i32, size: u64, window_log: Option<u32>) -> io::Result<Self> {
        let plain = level.unsigned_abs();
        Ok(match format {
            Format::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(to, level)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(size))?;
                if let Some(log) = window_log {
                    encoder.window_log(log)?;
                    encoder.long_distance_matching(log >= LONG_FROM)?;
                }
                Self::Zstd(encoder)
            }
            Format::Gzip => Self::Gzip(flate2::write::GzEncoder::new(to, flate2::Compression::new(plain))),
            Format::Xz => {
                let stream = liblzma::stream::Stream::new_easy_encoder(plain, liblzma::stream::Check::Crc64)?;
                Self::Xz(liblzma::write::XzEncoder::new_stream(to, stream))
            }
        })
    }

    /// Writes what is left; gives back what it wrote to.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
        }
    }
}

/// A stream that decompresses all of what `from` has, however many members it is made of, and takes no more than so
/// much memory for it, in bytes.
///
/// # Errors
/// What the library says.
pub(super) fn decoder<'f>(from: impl Read + 'f, format: Format, memory: u64) -> io::Result<Box<dyn Read + 'f>> {
    let from = BufReader::with_capacity(PIECE, from);
    Ok(match format {
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
            decoder.window_log_max(memory.ilog2().clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX))?;
            Box::new(decoder)
        }
        Format::Gzip => Box::new(Members::new(from)),
        Format::Xz => {
            let flags = liblzma::stream::CONCATENATED | liblzma::stream::TELL_UNSUPPORTED_CHECK;
            let stream = liblzma::stream::Stream::new_stream_decoder(memory, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(from, stream))
        }
    })
}

/// The members of a gzip file, one after the other. As gzip has it, zeroes after the last one are padding; anything else
/// there is an error.
struct Members<R> {
    decoder: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(from: R) -> Self {
        Self { decoder: Some(flate2::bufread::GzDecoder::new(from)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(mut from) = self.decoder.take().map(flate2::bufread::GzDecoder::into_inner) else { break };
            match from.fill_buf()?.first() {
                None => {}
                Some(0) => only_zeroes(from)?,
                Some(0x1f) => self.decoder = Some(flate2::bufread::GzDecoder::new(from)),
                Some(_) => return Err(garbage()),
            }
        }
        Ok(0)
    }
}

fn only_zeroes(mut from: impl BufRead) -> io::Result<()> {
    loop {
        let rest = from.fill_buf()?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(garbage());
        }
        let count = rest.len();
        if count == 0 {
            return Ok(());
        }
        from.consume(count);
    }
}

fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "something other than gzip follows its end")
}
