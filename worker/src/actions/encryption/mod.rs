//! Files encrypted and decrypted with age.
//!
//! To recipients or with a passphrase, in one pass in pieces of 64 KiB. A passphrase comes out of a file or of the
//! environment, never out of the parameters, which are kept in the queue. Deliberately absent: keys of SSH, plugins, and
//! identity files that are encrypted themselves.

#[cfg(test)]
mod tests;

use std::fs::{Metadata, Permissions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, IdentityFile, Recipient, scrypt, x25519};
use serde::{Deserialize, Serialize};

use super::files::{Counted, FileError, Input, Meter, PIECE, check_path, check_paths, pump};
use super::{ActionError, Context, OutputFile, WorkAction};

/// What the name of an encrypted file ends in.
const SUFFIX: &str = ".age";
/// How a file in letters begins.
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// How any other begins.
const MAGIC: &[u8] = b"age-encryption.org/";
/// The default of `workFactor`, as a power of two, which is age's: 256 MiB of memory and about a second.
const WORK_FACTOR: u8 = 18;
/// The default of `maxWorkFactor`: 1 GiB.
const MAX_WORK_FACTOR: u8 = 20;
/// The largest of either: 4 GiB.
const WORK_FACTOR_MAX: u8 = 22;
/// The most recipients of one file.
const RECIPIENTS_MAX: usize = 1_000;
/// The longest passphrase, and the largest identity file, in bytes.
const PASSPHRASE_MAX: u64 = 4 << 10;
const IDENTITIES_MAX: u64 = 1 << 20;
/// The largest header of an encrypted file, in bytes: some two thousand recipients. It is held in memory.
const HEADER_MAX: u64 = 256 << 10;

/// The built-in action.
pub struct Encryption;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase")]
pub enum Params {
    /// Encrypts.
    Encrypt(Encrypt),
    /// Decrypts.
    Decrypt(Decrypt),
}

/// A file to be encrypted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encrypt {
    /// The file to be read.
    pub input: PathBuf,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Who may decrypt it: `age1...`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// The file that holds the passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// The environment variable that holds the passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_env: Option<String>,
    /// What a guess costs, as a power of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_factor: Option<u8>,
    /// Whether it is in letters.
    #[serde(default)]
    pub armor: bool,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// A file to be decrypted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decrypt {
    /// The file to be read.
    pub input: PathBuf,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// The file that holds the secret keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<PathBuf>,
    /// The file that holds the passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// The environment variable that holds the passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_env: Option<String>,
    /// The largest work factor that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_work_factor: Option<u8>,
    /// Whether an output that exists is replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// What was done.
    pub operation: String,
    /// The file to be read.
    pub input: String,
    /// Where the result goes.
    pub output: String,
    /// Whether it is in letters.
    pub armor: bool,
    /// The size of the input.
    pub input_bytes: u64,
    /// The size of what came out.
    pub output_bytes: u64,
}

/// Where a passphrase comes from.
enum Source<'p> {
    File(&'p Path),
    Env(&'p str),
}

impl WorkAction for Encryption {
    const NAME: &'static str = "encryption";
    type Params = Params;
    type Output = Done;

    fn validate(params: &Params) -> Result<(), String> {
        match params {
            Params::Encrypt(params) => params.validate(),
            Params::Decrypt(params) => params.validate(),
        }
    }

    fn execute(params: Params, context: &mut Context<'_>) -> Result<Done, ActionError> {
        match params {
            Params::Encrypt(params) => encrypt(&params, context),
            Params::Decrypt(params) => decrypt(&params, context),
        }
    }
}

/// The source of the passphrase, if one is named.
fn source<'p>(file: Option<&'p PathBuf>, env: Option<&'p String>) -> Result<Option<Source<'p>>, String> {
    match (file, env) {
        (Some(_), Some(_)) => Err("passphraseFile and passphraseEnv exclude each other".to_owned()),
        (Some(file), None) => check_path("passphraseFile", file).map(|()| Some(Source::File(file))),
        (None, Some(name)) if name.is_empty() || name.contains(['=', '\0']) => {
            Err("passphraseEnv is the name of an environment variable".to_owned())
        }
        (None, Some(name)) => Ok(Some(Source::Env(name))),
        (None, None) => Ok(None),
    }
}

fn check_factor(key: &str, factor: Option<u8>) -> Result<(), String> {
    match factor {
        Some(factor) if !(1..=WORK_FACTOR_MAX).contains(&factor) => {
            Err(format!("{key} is {factor}: give 1 to {WORK_FACTOR_MAX}"))
        }
        Some(_) | None => Ok(()),
    }
}

impl Encrypt {
    fn place(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| {
            let mut name = self.input.clone().into_os_string();
            name.push(SUFFIX);
            name.into()
        })
    }

    fn source(&self) -> Result<Option<Source<'_>>, String> {
        source(self.passphrase_file.as_ref(), self.passphrase_env.as_ref())
    }

    fn recipients(&self) -> Result<Vec<Box<dyn Recipient>>, String> {
        let parse = |text: &String| match text.parse::<x25519::Recipient>() {
            Ok(recipient) => Ok(Box::new(recipient) as Box<dyn Recipient>),
            // A secret key put there by mistake is not repeated.
            Err(_) if text.starts_with("age1") => Err(format!("recipients: '{text}' is no recipient of age")),
            Err(why) => Err(format!("recipients: one does not begin with age1: {why}")),
        };
        self.recipients.iter().map(parse).collect()
    }

    fn validate(&self) -> Result<(), String> {
        check_paths(&self.input, self.output.as_deref())?;
        check_factor("workFactor", self.work_factor)?;
        if self.recipients.len() > RECIPIENTS_MAX {
            return Err(format!("there are more than {RECIPIENTS_MAX} recipients"));
        }
        match (self.recipients()?.is_empty(), self.source()?) {
            (true, None) => Err("nobody could decrypt it: give recipients, passphraseFile or passphraseEnv".to_owned()),
            (false, Some(_)) => Err("recipients and a passphrase exclude each other".to_owned()),
            (false, None) if self.work_factor.is_some() => Err("workFactor is for a passphrase alone".to_owned()),
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }
}

impl Decrypt {
    /// Where the output goes: the input's name without its suffix if nothing is said.
    fn place(&self) -> Result<PathBuf, String> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let name = self.input.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let plain = name.strip_suffix(SUFFIX).filter(|plain| !plain.is_empty());
        let plain =
            plain.ok_or_else(|| format!("output is missing: the input's name has no {SUFFIX} to be left out"))?;
        Ok(self.input.with_file_name(plain))
    }

    fn source(&self) -> Result<Option<Source<'_>>, String> {
        source(self.passphrase_file.as_ref(), self.passphrase_env.as_ref())
    }

    fn validate(&self) -> Result<(), String> {
        check_paths(&self.input, self.output.as_deref())?;
        check_factor("maxWorkFactor", self.max_work_factor)?;
        self.place()?;
        match (&self.identity_file, self.source()?) {
            (None, None) => Err("give identityFile, passphraseFile or passphraseEnv".to_owned()),
            (Some(_), Some(_)) => Err("identityFile and a passphrase exclude each other".to_owned()),
            (Some(_), None) if self.max_work_factor.is_some() => {
                Err("maxWorkFactor is for a passphrase alone".to_owned())
            }
            (Some(file), None) => check_path("identityFile", file),
            (None, Some(_)) => Ok(()),
        }
    }
}

impl Source<'_> {
    /// The passphrase: all of the file but one line end, or the variable's value. The file's facts come with it.
    fn passphrase(&self, context: &mut Context<'_>) -> Result<(SecretString, Option<Metadata>), ActionError> {
        let (text, place, facts) = match self {
            Self::File(file) => {
                let file = context.path(file)?;
                let (bytes, facts) = read_small(&file, PASSPHRASE_MAX)?;
                let text = String::from_utf8(bytes).map_err(|_| {
                    ActionError::new(format!("the passphrase in {} is not valid UTF-8", file.display()))
                })?;
                let text = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
                (text.to_owned(), file.display().to_string(), Some(facts))
            }
            Self::Env(name) => {
                let value = std::env::var(name).map_err(|_| {
                    ActionError::new(format!("the environment variable {name} for the passphrase is not set here"))
                })?;
                (value, format!("the environment variable {name}"), None)
            }
        };
        if text.is_empty() {
            return Err(ActionError::new(format!("the passphrase in {place} is empty")));
        }
        Ok((SecretString::from(text), facts))
    }
}

/// The contents of a file that cannot be large, and its facts.
fn read_small(path: &Path, most: u64) -> Result<(Vec<u8>, Metadata), ActionError> {
    let input = Input::open(path)?;
    let mut bytes = Vec::new();
    input.file.take(most + 1).read_to_end(&mut bytes).map_err(FileError::of("read", path))?;
    if bytes.len() as u64 > most {
        return Err(ActionError::new(format!("{} is larger than {most} bytes", path.display())));
    }
    Ok((bytes, input.facts))
}

fn encrypt(params: &Encrypt, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let mut recipients = params.recipients().map_err(ActionError::new)?;
    let input = Input::open(&context.path(&params.input)?)?;
    let place = context.path(params.place())?;
    let mut secret = None;
    if let Some(source) = params.source().map_err(ActionError::new)? {
        let (passphrase, facts) = source.passphrase(context)?;
        secret = facts;
        let mut recipient = scrypt::Recipient::new(passphrase);
        recipient.set_work_factor(params.work_factor.unwrap_or(WORK_FACTOR));
        recipients.push(Box::new(recipient));
    }
    let output = OutputFile::create_private(&place, params.overwrite, &inputs(&input, secret.as_ref()))?;
    context.check()?;
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|recipient| &**recipient as &dyn Recipient))?;
    let meter = Meter::of_bytes(context, input.size());
    let read_error = |error| FileError::of("read", &input.path)(error).into();
    let write_error = |error| FileError::of("write to", &place)(error).into();
    let fail = |error| meter.error(write_error(error));
    let format = if params.armor { Format::AsciiArmor } else { Format::Binary };
    let armored = ArmoredWriter::wrap_output(output, format).map_err(fail)?;
    let mut writer = encryptor.wrap_output(armored).map_err(fail)?;
    let mut reader = Counted::new(&input.file, &meter);
    pump(&mut reader, &mut writer, u64::MAX, &meter, &read_error, &write_error)?;
    let output = writer.finish().and_then(ArmoredWriter::finish).map_err(fail)?;
    output.set_permissions(Permissions::from_mode(input.facts.permissions().mode() & 0o777))?;
    let size = output.finish()?;
    Ok(done("encrypt", &input, &place, params.armor, size))
}

fn decrypt(params: &Decrypt, context: &mut Context<'_>) -> Result<Done, ActionError> {
    let input = Input::open(&context.path(&params.input)?)?;
    let place = context.path(params.place().map_err(ActionError::new)?)?;
    let passphrase = params.source().map_err(ActionError::new)?.map(|source| source.passphrase(context)).transpose()?;
    let (identities, secret): (Vec<Box<dyn age::Identity>>, _) = match (passphrase, &params.identity_file) {
        (Some((passphrase, facts)), _) => {
            let mut identity = scrypt::Identity::new(passphrase);
            identity.set_max_work_factor(params.max_work_factor.unwrap_or(MAX_WORK_FACTOR));
            (vec![Box::new(identity)], facts)
        }
        (None, Some(file)) => {
            let (identities, facts) = identities(&context.path(file)?)?;
            (identities, Some(facts))
        }
        (None, None) => return Err(ActionError::new("there is neither an identity nor a passphrase")),
    };
    let by_passphrase = params.identity_file.is_none();
    let armor = is_armored(&input)?;
    check_header(&input, armor)?;
    let mut output = OutputFile::create_private(&place, params.overwrite, &inputs(&input, secret.as_ref()))?;
    context.check()?;
    let meter = Meter::of_bytes(context, input.size());
    let reader = ArmoredReader::new(BufReader::with_capacity(PIECE, Counted::new(&input.file, &meter)));
    let fail = |error| meter.error(wrong(&input.path, by_passphrase, error));
    let decryptor = Decryptor::new_buffered(BufReader::with_capacity(PIECE, reader)).map_err(fail)?;
    if decryptor.is_scrypt() != by_passphrase {
        let made = if decryptor.is_scrypt() { "with a passphrase" } else { "to recipients: it takes an identityFile" };
        return Err(ActionError::new(format!("{} was encrypted {made}", input.path.display())));
    }
    let mut plain = decryptor.decrypt(identities.iter().map(|identity| &**identity)).map_err(fail)?;
    let read_error = |error| wrong(&input.path, by_passphrase, DecryptError::Io(error));
    let write_error = |error| FileError::of("write to", &place)(error).into();
    pump(&mut plain, &mut output, u64::MAX, &meter, &read_error, &write_error)?;
    // What was encrypted is nobody else's to read, though its encrypted form may be.
    output.set_permissions(Permissions::from_mode(input.facts.permissions().mode() & 0o700))?;
    let size = output.finish()?;
    Ok(done("decrypt", &input, &place, armor, size))
}

/// What must not be replaced: the input, and the file with the secret.
fn inputs<'f>(input: &'f Input, secret: Option<&'f Metadata>) -> Vec<&'f Metadata> {
    std::iter::once(&input.facts).chain(secret).collect()
}

/// The identities in a file, and its facts.
fn identities(path: &Path) -> Result<(Vec<Box<dyn age::Identity>>, Metadata), ActionError> {
    let (bytes, facts) = read_small(path, IDENTITIES_MAX)?;
    let file = IdentityFile::from_buffer(&bytes[..]).map_err(FileError::of("read", path))?;
    let identities = file.into_identities().map_err(|error| wrong(path, false, error))?;
    if identities.is_empty() {
        return Err(ActionError::new(format!("there is no identity in {}", path.display())));
    }
    Ok((identities.into_iter().map(|identity| identity as Box<dyn age::Identity>).collect(), facts))
}

/// Whether the file is in letters.
fn is_armored(input: &Input) -> Result<bool, ActionError> {
    let mut start = [0; 128];
    let count = input.file.read_at(&mut start, 0).map_err(FileError::of("read", &input.path))?;
    Ok(start[..count].trim_ascii_start().starts_with(ARMOR))
}

/// Reads what would be the header within bounds, before the library reads it without any.
fn check_header(input: &Input, armor: bool) -> Result<(), ActionError> {
    if input.size() == 0 {
        return Err(ActionError::new(format!("cannot decrypt {}: it is empty", input.path.display())));
    }
    let file: Box<dyn Read> =
        if armor { Box::new(ArmoredReader::new(BufReader::new(&input.file))) } else { Box::new(&input.file) };
    let mut start = Vec::new();
    let read = file.take(HEADER_MAX).read_to_end(&mut start);
    (&input.file).rewind().map_err(FileError::of("read", &input.path))?;
    // What is wrong with it, the library says better.
    let large = read.is_ok() && start.starts_with(MAGIC) && start.len() as u64 == HEADER_MAX;
    if large && !start.windows(5).any(|bytes| bytes == b"\n--- ") {
        return Err(ActionError::new(format!(
            "the header of {} is larger than {HEADER_MAX} bytes",
            input.path.display()
        )));
    }
    Ok(())
}

/// The words for a file that cannot be decrypted.
fn wrong(path: &Path, by_passphrase: bool, error: DecryptError) -> ActionError {
    let why = match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed if by_passphrase => {
            "the passphrase is wrong".to_owned()
        }
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => "it is damaged".to_owned(),
        DecryptError::NoMatchingKeys => "none of the identities is one of its recipients".to_owned(),
        DecryptError::ExcessiveWork { required, .. } => {
            format!("its work factor is {required}: give a maxWorkFactor that allows it, and mind the memory it takes")
        }
        DecryptError::InvalidHeader | DecryptError::UnknownFormat => "it is no file of age".to_owned(),
        DecryptError::InvalidMac => "its header is damaged".to_owned(),
        DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
        // A piece of the contents that is not what was written, which nobody can tell from one that lacks its end. The
        // library's own words are these two, beside those for letters, which say more.
        DecryptError::Io(error) if error.to_string() == "decryption error" => "it is damaged or cut off".to_owned(),
        DecryptError::Io(error) => error.to_string(),
        // The library may have more of them one day.
        other => other.to_string(),
    };
    ActionError::new(format!("cannot decrypt {}: {why}", path.display()))
}

fn done(operation: &str, input: &Input, place: &Path, armor: bool, size: u64) -> Done {
    Done {
        operation: operation.to_owned(),
        input: input.path.display().to_string(),
        output: place.display().to_string(),
        armor,
        input_bytes: input.size(),
        output_bytes: size,
    }
}
