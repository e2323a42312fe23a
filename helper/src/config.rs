//! The configuration file: read strictly, every mistake told with its line and key, and changed without touching what else it
//! says.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::exit::Failure;
use crate::files;

/// A configuration file is small; a larger one is a mistake.
const MOST_BYTES: u64 = 64 * 1024;

/// The file of the reference documents has the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The gateway's address, as it is written.
    pub(crate) gateway_url: Option<String>,
    /// Where the cache is kept.
    pub(crate) cache_dir: Option<String>,
    /// Certificates of authorities that are believed besides the system's.
    pub(crate) ca_bundle: Option<String>,
    /// `os` or `file`.
    pub(crate) keystore: Option<String>,
    /// How long an exchange may take.
    pub(crate) timeout_sec: Option<u64>,
    /// The tier of personal access tokens.
    pub(crate) pat: Option<Store>,
    /// The tier of the browser's sign-in.
    pub(crate) session: Option<Store>,
    /// The tier of the device's certificate.
    pub(crate) mtls: Option<Device>,
    /// The key that manifests are verified with.
    pub(crate) pinned_pubkey: Option<String>,
}

/// `[pat]`, `[session]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Store {
    /// The name of the keystore's entry.
    pub(crate) keystore_service: Option<String>,
}

/// `[mtls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// The certificate: a PEM file, or the name of a keystore's entry that holds one.
    pub(crate) cert_keystore_ref: Option<String>,
    /// A file with the certificate's key, where it is not in the same one.
    pub(crate) key_file: Option<String>,
    /// Certificates of the authorities that the gateway's certificate is verified with.
    pub(crate) ca_bundle: Option<String>,
}

/// A file that was read, to be asked and changed.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    /// Where it is written.
    pub(crate) path: PathBuf,
    /// Where it was read: another place than `path` for a file of the earlier name. `None` where there was none.
    pub(crate) read_from: Option<PathBuf>,
    /// What it says.
    pub(crate) text: String,
    /// What that means.
    pub(crate) config: Config,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    line: usize,
    key: Option<String>,
    what: String,
}

// === impl ConfigFile ===

impl ConfigFile {
    /// Reads the file, or the one of the earlier name, or none.
    pub(crate) fn load(path: &Path, earlier: Option<&Path>) -> Result<Self, Failure> {
        for from in [Some(path), earlier].into_iter().flatten() {
            let Some(text) = read(from)? else { continue };
            let config = Config::parse(&text).map_err(|mistake| mistake.of(from))?;
            let read_from = Some(from.to_owned());
            return Ok(Self { path: path.to_owned(), read_from, text, config });
        }
        Ok(Self { path: path.to_owned(), read_from: None, text: String::new(), config: Config::default() })
    }

    /// Gives a key a value; all else stays as it is, comments included.
    pub(crate) fn set(&mut self, table: Option<&str>, key: &str, value: &str) -> Result<(), Failure> {
        let text = with_key(&self.text, table, key, value).map_err(|mistake| mistake.of(&self.path))?;
        self.config = Config::parse(&text).map_err(|mistake| mistake.of(&self.path))?;
        self.text = text;
        Ok(())
    }

    /// Writes it, whole or not at all. Says whether anything changed.
    pub(crate) fn save(&mut self) -> Result<bool, Failure> {
        if read(&self.path)?.is_some_and(|there| there == self.text) {
            return Ok(false);
        }
        files::write_private(&self.path, self.text.as_bytes())
            .map_err(|error| Failure::file("write", &self.path, &error))?;
        self.read_from = Some(self.path.clone());
        Ok(true)
    }
}

// === impl Config ===

impl Config {
    /// Reads a configuration.
    fn parse(text: &str) -> Result<Self, Mistake> {
        let document = document(text)?;
        let mut config = Self::default();
        for (key, value) in document.get_ref() {
            let at = |what: String| Mistake::at(text, key.span(), Some(key.get_ref()), what);
            let string = || string(text, key.get_ref(), value);
            match key.get_ref().as_ref() {
                "gateway_url" => config.gateway_url = Some(string()?),
                "cache_dir" => config.cache_dir = Some(string()?),
                "ca_bundle" => config.ca_bundle = Some(string()?),
                "keystore" => {
                    let name = string()?;
                    if !matches!(name.as_str(), "os" | "file") {
                        return Err(at(format!("is \"os\" or \"file\", not \"{name}\"")));
                    }
                    config.keystore = Some(name);
                }
                "timeout_sec" => {
                    let seconds =
                        value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
                    let seconds: Option<u64> = seconds.filter(|seconds| (1..=120).contains(seconds));
                    config.timeout_sec =
                        Some(seconds.ok_or_else(|| at("is a whole number from 1 to 120".to_owned()))?);
                }
                "pat" => config.pat = Some(Store::read(text, key.get_ref(), value)?),
                "session" => config.session = Some(Store::read(text, key.get_ref(), value)?),
                "mtls" => {
                    let mut device = Device::default();
                    for (path, name, found) in entries(text, key.get_ref(), value)? {
                        let place = match name.get_ref().as_ref() {
                            "cert_keystore_ref" => &mut device.cert_keystore_ref,
                            "key_file" => &mut device.key_file,
                            "ca_bundle" => &mut device.ca_bundle,
                            _ => return Err(unknown(text, name.span(), &path)),
                        };
                        *place = Some(self::string(text, &path, found)?);
                    }
                    config.mtls = Some(device);
                }
                "sync" => {
                    for (path, name, found) in entries(text, key.get_ref(), value)? {
                        match name.get_ref().as_ref() {
                            "pinned_pubkey" => {
                                config.pinned_pubkey = Some(self::string(text, &path, found)?);
                            }
                            _ => return Err(unknown(text, name.span(), &path)),
                        }
                    }
                }
                other => return Err(unknown(text, key.span(), other)),
            }
        }
        Ok(config)
    }
}

// === impl Store ===

impl Store {
    fn read(text: &str, table: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, Mistake> {
        let mut store = Self::default();
        for (path, name, found) in entries(text, table, value)? {
            match name.get_ref().as_ref() {
                "keystore_service" => store.keystore_service = Some(string(text, &path, found)?),
                _ => return Err(unknown(text, name.span(), &path)),
            }
        }
        Ok(store)
    }
}

// === impl Mistake ===

impl Mistake {
    fn at(text: &str, span: Range<usize>, key: Option<&str>, what: String) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Self { line, key: key.map(str::to_owned), what }
    }

    fn of(&self, path: &Path) -> Failure {
        let key = self.key.as_ref().map(|key| format!("{key} ")).unwrap_or_default();
        Failure::usage(format!("{}, line {}: {key}{}", path.display(), self.line, self.what))
    }
}

fn unknown(text: &str, span: Range<usize>, key: &str) -> Mistake {
    Mistake::at(text, span, Some(key), "is no key of this file".to_owned())
}

fn string(text: &str, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Mistake> {
    let at = |what: String| Mistake::at(text, value.span(), Some(key), what);
    let found = value
        .get_ref()
        .as_str()
        .ok_or_else(|| at(format!("is a string, not a value of type {}", value.get_ref().type_str())))?;
    if found.is_empty() || found.chars().any(char::is_control) {
        return Err(at("is empty, or has control characters".to_owned()));
    }
    Ok(found.to_owned())
}

type Entry<'a, 'i> = (String, &'a Spanned<toml::de::DeString<'i>>, &'a Spanned<DeValue<'i>>);

/// The keys of a table, each with its path.
fn entries<'a, 'i>(
    text: &str,
    table: &str,
    value: &'a Spanned<DeValue<'i>>,
) -> Result<Vec<Entry<'a, 'i>>, Mistake> {
    let Some(found) = value.get_ref().as_table() else {
        return Err(Mistake::at(text, value.span(), Some(table), "is a table".to_owned()));
    };
    Ok(found.iter().map(|(name, value)| (format!("{table}.{}", name.get_ref()), name, value)).collect())
}

fn document(text: &str) -> Result<Spanned<DeTable<'_>>, Mistake> {
    DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        // The key of the line, where it has one: a person looks for it.
        let before = text.get(..span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let key = line.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.is_empty());
        Mistake::at(text, span, key, format!("is not TOML: {}", error.message()))
    })
}

/// The text of a configuration with a key set.
fn with_key(text: &str, table: Option<&str>, key: &str, value: &str) -> Result<String, Mistake> {
    let literal = toml::Value::String(value.to_owned()).to_string();
    let document = document(text)?;
    let line = format!("{key} = {literal}\n");
    let (replaced, insert_at) = match table {
        None => (document.get_ref().iter().find(|(name, _)| name.get_ref() == key), Some(0)),
        Some(table) => match document.get_ref().iter().find(|(name, _)| name.get_ref() == table) {
            Some((_, found)) => {
                let keys = found.get_ref().as_table();
                let there = keys.and_then(|keys| keys.iter().find(|(name, _)| name.get_ref() == key));
                let header = found.span().end;
                let after = text.get(header..).and_then(|rest| rest.find('\n')).map(|at| header + at + 1);
                (there, Some(after.unwrap_or(text.len())))
            }
            None => (None, None),
        },
    };
    if let Some((_, value)) = replaced {
        let span = value.span();
        let (before, after) = (text.get(..span.start), text.get(span.end..));
        return Ok(format!("{}{literal}{}", before.unwrap_or_default(), after.unwrap_or_default()));
    }
    let (before, after) = text.split_at_checked(insert_at.unwrap_or(text.len())).unwrap_or((text, ""));
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    Ok(match (table, insert_at) {
        (Some(table), None) => {
            let blank = if before.is_empty() { "" } else { "\n" };
            format!("{before}{gap}{blank}[{table}]\n{line}")
        }
        _ => format!("{before}{gap}{line}{after}"),
    })
}

/// A text file of bounded size; `None` where there is none.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MOST_BYTES => {
            return Err(Failure::usage(format!("{} is longer than a configuration is", path.display())));
        }
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::file("read", path, &error)),
    }
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let line = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count() + 1;
                Err(Failure::usage(format!("{}, line {line}: is not UTF-8", path.display())))
            }
        },
        Err(error) => Err(Failure::file("read", path, &error)),
    }
}

#[cfg(test)]
mod tests;
