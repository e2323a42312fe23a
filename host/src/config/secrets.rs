//! Upstream credentials: the one place that reads them, from a file of mode 0600, files of other systems, the environment or
//! a command. They are wiped when dropped and are never printed, logged or handed to a child process.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::report::Problem;

/// Longest credential accepted: 64 KiB holds a service account's key file.
const MAX_SECRET: u64 = 64 * 1024;
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Named credentials.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, SecretString>,
}

/// Where a secret's value comes from.
enum Source {
    Value(SecretString),
    File(PathBuf),
    Env(String),
    Command(Vec<String>),
    Malformed(String),
}

// === impl Secrets ===

impl Secrets {
    /// The secret of this name.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.values.get(name)
    }

    /// The names there are, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Reads the file, and everything that it refers to. No file: no secrets. Errors: all that is wrong, none of it with a value.
    pub(super) fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let name =
            path.file_name().map_or_else(|| "secrets".to_owned(), |name| name.to_string_lossy().into_owned());
        let fail = |message: String| vec![Problem::new(name.clone(), message)];
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = read_private(path, 0o077, u64::MAX).map_err(fail)?;
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let sources: Option<BTreeMap<String, Source>> =
            serde_saphyr::from_str_with_options(&text, options)
                .map_err(|error| fail(format!("must map names to values{}", place(&error))))?;

        let mut problems = Vec::new();
        let mut values = BTreeMap::new();
        let home = path.parent().unwrap_or_else(|| Path::new("."));
        for (key, source) in sources.into_iter().flatten() {
            match source.resolve(home) {
                Ok(value) => drop(values.insert(key, value)),
                Err(message) => problems.push(Problem::new(format!("{name}: {key}"), message)),
            }
        }
        if problems.is_empty() { Ok(Self { values }) } else { Err(problems) }
    }
}

impl<N: Into<String>, V: Into<SecretString>> FromIterator<(N, V)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { values: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

// === impl Source ===

impl Source {
    fn resolve(self, home: &Path) -> Result<SecretString, String> {
        let text = match self {
            Self::Value(value) => return Ok(value),
            Self::Malformed(message) => return Err(message),
            // Orchestrators mount secrets readable for a group: that far is accepted for files that are not ours.
            Self::File(path) => read_private(&home.join(path), 0o037, MAX_SECRET)?,
            Self::Env(name) => environment(&name)?,
            Self::Command(words) => output(&words)?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.into()) }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

/// Takes whatever stands there, so that one odd entry does not hide what is wrong with the others.
struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or where to find it")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Source, E> {
        Ok(if text.trim().is_empty() {
            Source::Malformed("is empty".to_owned())
        } else {
            Source::Value(text.into())
        })
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Source, E> {
        Ok(unquoted())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Source, E> {
        Ok(unquoted())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Source, E> {
        Ok(unquoted())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Source, E> {
        Ok(unquoted())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Source, E> {
        Ok(Source::Malformed("is empty".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Source, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Source::Malformed("must be text, or one of {file: ..}, {env: ..}, {command: [..]}".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Source, A::Error> {
        let mut sources = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            sources.push(match key.as_str() {
                "file" => Source::File(entries.next_value()?),
                "env" => Source::Env(entries.next_value()?),
                "command" => Source::Command(entries.next_value()?),
                _ => return Err(A::Error::custom("unknown source")),
            });
        }
        Ok(match sources.pop() {
            Some(source) if sources.is_empty() => source,
            _ => Source::Malformed("must name exactly one of file, env and command".to_owned()),
        })
    }
}

fn unquoted() -> Source {
    Source::Malformed("must be text: quote it".to_owned())
}

/// Only the place of a parser's message is repeated: the message itself may quote the file.
fn place(error: &serde_saphyr::Error) -> String {
    error.location().map_or_else(String::new, |location| {
        format!(" (line {}, column {})", location.line(), location.column())
    })
}

/// Reads a file that nobody else may read: none of the bits of `forbidden` may be set in its mode.
fn read_private(path: &Path, forbidden: u32, limit: u64) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let mut file = std::fs::File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot read {shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(format!("{shown} can be read or changed by others (mode {mode:04o}): chmod 600 {shown}"));
    }
    if metadata.len() > limit {
        return Err(format!("{shown} is longer than {limit} bytes"));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Ok(text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment, and only for secrets"
)]
fn environment(name: &str) -> Result<Zeroizing<String>, String> {
    std::env::var(name).map(Zeroizing::new).map_err(|_| format!("the environment has no variable {name}"))
}

/// What a command prints. It sees where to find programs and its home, and nothing else of the environment.
fn output(words: &[String]) -> Result<Zeroizing<String>, String> {
    let Some((program, arguments)) = words.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let kept = ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let stdout = child.stdout.take();
    let (done, printed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Zeroizing::new(String::new());
        let read = stdout.map(|stdout| stdout.take(MAX_SECRET).read_to_string(&mut text));
        // Nobody listens any more once the time is over.
        drop(done.send(matches!(read, Some(Ok(_))).then_some(text)));
    });
    let Ok(text) = printed.recv_timeout(COMMAND_TIMEOUT) else {
        drop(child.kill());
        drop(child.wait());
        return Err(format!("{program} took longer than {} seconds", COMMAND_TIMEOUT.as_secs()));
    };
    match child.wait() {
        Ok(status) if status.success() => {
            text.ok_or_else(|| format!("{program} printed something that is not text"))
        }
        Ok(status) => Err(format!("{program} failed: {status}")),
        Err(error) => Err(format!("{program} failed: {error}")),
    }
}

#[cfg(test)]
mod tests;
