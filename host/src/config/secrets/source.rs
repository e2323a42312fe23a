//! Where the value of a secret is found: beside its name, in a file, in the environment, or printed by a command.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::tree::Tree;
use crate::modes;

/// Longest credential accepted: 64 KiB holds a service account's key file.
const MAX_SECRET: u64 = 64 * 1024;
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// What may stand where a secret is expected.
const FORMS: &str = "must be text, or one of {file: ..}, {env: ..}, {command: [..]}";

/// Where a secret's value comes from.
pub(in crate::config) enum Source {
    Value(SecretString),
    File(PathBuf),
    Env(String),
    Command(Vec<String>),
}

// === impl Source ===

impl Source {
    /// What stands in the file. Errors never quote it.
    pub(in crate::config) fn of(tree: &Tree) -> Result<Self, String> {
        let entries = match tree {
            Tree::Text(text) if text.expose_secret().trim().is_empty() => return Err("is empty".to_owned()),
            Tree::Text(text) => return Ok(Self::Value(text.clone())),
            Tree::Nothing => return Err("is empty".to_owned()),
            Tree::Flag(_) | Tree::Number => return Err("must be text: quote it".to_owned()),
            Tree::List(_) => return Err(FORMS.to_owned()),
            Tree::Map(entries) => entries,
        };
        let mut entries = entries.iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else {
            return Err("must name exactly one of file, env and command".to_owned());
        };
        match (key.as_str(), value) {
            ("file", Tree::Text(path)) => Ok(Self::File(path.expose_secret().into())),
            ("env", Tree::Text(name)) => Ok(Self::Env(name.expose_secret().to_owned())),
            ("file" | "env", _) => Err(format!("{key} must be text")),
            ("command", Tree::List(words)) => {
                let words = words.iter().map(word).collect::<Option<Vec<_>>>();
                words.map(Self::Command).ok_or_else(|| "command must be a list of texts".to_owned())
            }
            ("command", _) => Err("command must be a list of texts".to_owned()),
            _ => Err(FORMS.to_owned()),
        }
    }

    /// The value. A path is one below `home`, unless it is absolute.
    pub(in crate::config) fn resolve(self, home: &Path) -> Result<SecretString, String> {
        let text = match self {
            Self::Value(value) => return Ok(value),
            // Orchestrators mount secrets readable for a group: that far is accepted for files that are not ours.
            Self::File(path) => modes::read_private(&home.join(path), 0o037, MAX_SECRET)?,
            Self::Env(name) => environment(&name)?,
            Self::Command(words) => output(&words)?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.into()) }
    }
}

// === private helpers ===

fn word(tree: &Tree) -> Option<String> {
    if let Tree::Text(text) = tree { Some(text.expose_secret().to_owned()) } else { None }
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
