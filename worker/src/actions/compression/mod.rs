//! Files compressed and decompressed: zstd, gzip and xz.
//!
//! One pass in pieces: memory depends on level and window, never on the size of the file. Deliberately absent: archives,
//! and the formats themselves, which are `codec`'s.

mod codec;
#[cfg(test)]
mod tests;

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::codec::{Encoder, decoder};
use super::files::{Counted, FileError, Input, Meter, check_path, check_paths, pump};
use super::{ActionError, Context, OutputFile, WorkAction};

/// The default of `memoryLimitMb`, in MiB: what every file needs that the tools make without being told otherwise.
const MEMORY_LIMIT_MB: u32 = 128;
/// The largest `memoryLimitMb`.
const MEMORY_LIMIT_MB_MAX: u32 = 4_096;
/// Which windows zstd has, as powers of two.
const WINDOW_LOGS: std::ops::RangeInclusive<u32> = 10..=30;

/// The built-in action.
pub struct Compression;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Params {
    /// Compresses.
    Compress(Compress),
    /// Decompresses.
    Decompress(Decompress),
    /// Tests.
    Test(Test),
}

/// A file to be compressed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compress {
    /// The file to be read.
    pub input: PathBuf,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// The format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How hard to try; the range is the format's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// How far back zstd looks, as a power of two of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_log: Option<u32>,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// A file to be decompressed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decompress {
    /// The file to be read.
    pub input: PathBuf,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// The format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The most that may come out, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
    /// The most memory for it, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_mb: Option<u32>,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// A file to be decompressed to nowhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// The file to be read.
    pub input: PathBuf,
    /// The format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The most that may come out, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
    /// The most memory for it, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_mb: Option<u32>,
}

/// A format of compressed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
}

impl Format {
    const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Xz];

    fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
        }
    }

    /// The suffix that stands for `.tar` and this.
    fn tar_suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".tzst",
            Self::Gzip => ".tgz",
            Self::Xz => ".txz",
        }
    }

    /// The first bytes of its files.
    fn magic(self) -> &'static [u8] {
        match self {
            Self::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
            Self::Gzip => &[0x1f, 0x8b],
            Self::Xz => &[0xfd, b'7', b'z', b'X', b'Z', 0],
        }
    }

    fn levels(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::Zstd => -50..=22,
            Self::Gzip => 1..=9,
            Self::Xz => 0..=9,
        }
    }

    fn default_level(self) -> i32 {
        match self {
            Self::Zstd => 3,
            Self::Gzip | Self::Xz => 6,
        }
    }

    /// The format that a file's name tells.
    fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        Self::ALL.into_iter().find(|format| name.ends_with(format.suffix()) || name.ends_with(format.tar_suffix()))
    }

    /// The format that a file's beginning tells.
    fn of_contents(input: &Input) -> Result<Self, ActionError> {
        let mut start = [0; 6];
        let count = input.file.read_at(&mut start, 0).map_err(FileError::of("read", &input.path))?;
        let start = &start[..count];
        // zstd frames may be preceded by frames to be skipped.
        let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
        let found = Self::ALL.into_iter().find(|format| start.starts_with(format.magic()));
        found.or(skippable.then_some(Self::Zstd)).ok_or_else(|| {
            let why = if start.is_empty() { "it is empty" } else { "it begins like neither zstd nor gzip nor xz" };
            ActionError::new(format!("cannot decompress {}: {why}", input.path.display()))
        })
    }
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// What was done.
    pub operation: String,
    /// The format.
    pub format: Format,
    /// The file to be read.
    pub input: String,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// How hard to try; the range is the format's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// The size of the input.
    pub input_bytes: u64,
    /// The size of what came out.
    pub output_bytes: u64,
    /// How many times smaller the compressed file is.
    pub ratio: f64,
}

impl WorkAction for Compression {
    const NAME: &'static str = "compression";
    type Params = Params;
    type Output = Done;

    fn validate(params: &Params) -> Result<(), String> {
        match params {
            Params::Compress(params) => params.validate(),
            Params::Decompress(params) => {
                check_paths(&params.input, params.output.as_deref())?;
                check_bounds(params.max_output_bytes, params.memory_limit_mb)?;
                params.place().map(drop)
            }
            Params::Test(params) => {
                check_path("input", &params.input)?;
                check_bounds(params.max_output_bytes, params.memory_limit_mb)
            }
        }
    }

    fn execute(params: Params, context: &mut Context<'_>) -> Result<Done, ActionError> {
        match params {
            Params::Compress(params) => compress(&params, context),
            Params::Decompress(params) => decompress(&params, context),
            Params::Test(params) => test(&params, context),
        }
    }
}

fn check_bounds(most: Option<u64>, memory: Option<u32>) -> Result<(), String> {
    if most == Some(0) {
        return Err("maxOutputBytes is 0: give at least 1".to_owned());
    }
    match memory {
        Some(memory) if !(1..=MEMORY_LIMIT_MB_MAX).contains(&memory) => {
            Err(format!("memoryLimitMb is {memory}: give 1 to {MEMORY_LIMIT_MB_MAX}"))
        }
        Some(_) | None => Ok(()),
    }
}

impl Compress {
    fn format(&self) -> Format {
        self.format.or_else(|| Format::of_name(self.output.as_ref()?)).unwrap_or(Format::Zstd)
    }

    fn level(&self) -> i32 {
        self.level.unwrap_or(self.format().default_level())
    }

    fn place(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| {
            let mut name = self.input.clone().into_os_string();
            name.push(self.format().suffix());
            name.into()
        })
    }

    fn validate(&self) -> Result<(), String> {
        check_paths(&self.input, self.output.as_deref())?;
        let (format, levels) = (self.format(), self.format().levels());
        let name = format!("{format:?}").to_lowercase();
        if !levels.contains(&self.level()) {
            return Err(format!("level is {}: {name} has {} to {}", self.level(), levels.start(), levels.end()));
        }
        match self.window_log {
            Some(_) if format != Format::Zstd => Err(format!("windowLog is for zstd alone, not for {name}")),
            Some(log) if !WINDOW_LOGS.contains(&log) => {
                Err(format!("windowLog is {log}: give {} to {}", WINDOW_LOGS.start(), WINDOW_LOGS.end()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Decompress {
    /// Where the output goes: the input's name without its suffix if nothing is said.
    fn place(&self) -> Result<PathBuf, String> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let name = self.input.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        for format in Format::ALL {
            let plain = name.strip_suffix(format.suffix()).filter(|plain| !plain.is_empty());
            let tar = name.strip_suffix(format.tar_suffix()).filter(|plain| !plain.is_empty());
            if let Some(plain) = plain.map(str::to_owned).or(tar.map(|plain| format!("{plain}.tar"))) {
                return Ok(self.input.with_file_name(plain));
            }
        }
        Err("output is missing: the input's name has no suffix of a format to be left out".to_owned())
    }
}

fn compress(params: &Compress, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let (format, level) = (params.format(), params.level());
    let input = Input::open(&context.path(&params.input)?)?;
    let place = context.path(params.place())?;
    let output = OutputFile::create_private(&place, params.overwrite, &[&input.facts])?;
    let meter = Meter::of_bytes(context, input.size());
    // What is appended meanwhile is another state of the file.
    let mut reader = Counted::new(io::Read::take(&input.file, input.size()), &meter);
    let write_error = |error| FileError::of("write to", &place)(error).into();
    let encoder = Encoder::new(output, format, level, input.size(), params.window_log);
    let mut encoder = encoder.map_err(FileError::of("compress", &input.path))?;
    let read_error = |error| FileError::of("read", &input.path)(error).into();
    let read = pump(&mut reader, &mut encoder, u64::MAX, &meter, &read_error, &write_error)?;
    if read < input.size() {
        return Err(ActionError::new(format!("{} became shorter while it was read", input.path.display())));
    }
    let output = encoder.finish().map_err(|error| meter.error(write_error(error)))?;
    let size = appear(output, &input)?;
    Ok(Done { level: Some(level), ..done("compress", format, &input, Some(&place), size, input.size()) })
}

fn decompress(params: &Decompress, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let input = Input::open(&context.path(&params.input)?)?;
    let place = context.path(params.place().map_err(ActionError::new)?)?;
    let format = params.format.map_or_else(|| Format::of_contents(&input), Ok)?;
    let mut output = OutputFile::create_private(&place, params.overwrite, &[&input.facts])?;
    unpack(&input, format, &mut output, &place, params.max_output_bytes, params.memory_limit_mb, context)?;
    let size = appear(output, &input)?;
    Ok(done("decompress", format, &input, Some(&place), input.size(), size))
}

fn test(params: &Test, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let input = Input::open(&context.path(&params.input)?)?;
    let format = params.format.map_or_else(|| Format::of_contents(&input), Ok)?;
    let (most, memory) = (params.max_output_bytes, params.memory_limit_mb);
    let size = unpack(&input, format, &mut io::sink(), Path::new(""), most, memory, context)?;
    Ok(done("test", format, &input, None, input.size(), size))
}

/// Decompresses all of the input; gives how many bytes came out.
fn unpack(
    input: &Input,
    format: Format,
    to: &mut dyn Write,
    place: &Path,
    most: Option<u64>,
    memory_mb: Option<u32>,
    context: &mut Context<'_>,
) -> Result<u64, ActionError> {
    let memory = u64::from(memory_mb.unwrap_or(MEMORY_LIMIT_MB)) << 20;
    let meter = Meter::of_bytes(context, input.size());
    let read_error = |error: io::Error| {
        let words = error.to_string();
        let error = ActionError::from(FileError::of("decompress", &input.path)(error));
        // The libraries' own words, zstd's and liblzma's.
        if words.contains("requires too much memory") || words.contains("memory limit reached") {
            return ActionError::new(format!("{error}; a larger memoryLimitMb may do"));
        }
        error
    };
    let reader = decoder(Counted::new(&input.file, &meter), format, memory);
    let mut reader = reader.map_err(|error| meter.error(read_error(error)))?;
    let write_error = |error| FileError::of("write to", place)(error).into();
    pump(&mut reader, to, most.unwrap_or(u64::MAX), &meter, &read_error, &write_error)
}

/// The output with the input's permissions.
fn appear(output: OutputFile, input: &Input) -> Result<u64, ActionError> {
    output.set_permissions(Permissions::from_mode(input.facts.permissions().mode() & 0o777))?;
    Ok(output.finish()?)
}

/// The result. The last two are the bytes of the compressed and of the plain file.
fn done(operation: &str, format: Format, input: &Input, place: Option<&Path>, compressed: u64, plain: u64) -> Done {
    let output_bytes = if operation == "compress" { compressed } else { plain };
    Done {
        operation: operation.to_owned(),
        format,
        input: input.path.display().to_string(),
        output: place.map(|place| place.display().to_string()),
        level: None,
        input_bytes: input.size(),
        output_bytes,
        ratio: (plain as f64 / compressed.max(1) as f64 * 1_000.0).round() / 1_000.0,
    }
}
