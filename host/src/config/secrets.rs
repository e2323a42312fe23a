//! Upstream credentials: the one place that reads them, from a file of mode 0600, files of other systems, the environment or
//! a command. They are wiped when dropped and are never printed, logged or handed to a child process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::credential::CloudCredential;
use super::file::MASK;
use super::key::{Absent, ConfigKey};
use super::node::{Node, Section};
use super::report::{Problem, Problems};
use crate::modes;

pub(super) use self::fields::SecretFields;
use self::source::Source;
pub(super) use self::tree::Tree;

mod fields;
mod source;
mod tree;

/// The key in the file.
pub(super) const KEY: ConfigKey = ConfigKey::text(
    "secrets_file",
    "Path of the secrets file. It maps names to values:
```yaml
anthropic_prod: \"sk-ant-...\"                     # the value itself
openai_prod: { file: /run/secrets/openai }       # first line to last, line end removed; mode at most 0640
groq_prod: { env: GROQ_API_KEY }
vault_key: { command: [vault, kv, get, -field=key, secret/upstream] }   # sees PATH and HOME only; 10 s
bedrock_prod: { aws: { profile: gateway } }      # a credential of a cloud: see below
```
Values are wiped from memory when they are no longer needed and never reach a log, an error, the audit trail or a child process",
)
.or(Absent::Text(super::SECRETS_FILE));

/// Named credentials.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, RouteCredential>,
}

/// What a name of the secrets file stands for.
#[derive(Debug, Clone)]
pub enum RouteCredential {
    /// A text that is sent as it is.
    Text(SecretString),
    /// An identity in a cloud: what is sent is made of it, call by call or for an hour.
    Cloud(Arc<CloudCredential>),
}

// === impl Secrets ===

impl Secrets {
    /// Reads the file that the configuration names.
    pub(super) fn read(top: &Section<'_>, home: &Path, problems: &Problems) -> Self {
        let node = top.get(&KEY);
        let name = node.as_ref().and_then(Node::text).unwrap_or(super::SECRETS_FILE);
        Self::load(&home.join(name)).unwrap_or_else(|found| {
            problems.extend(found);
            Self::default()
        })
    }

    /// As `sallyport config show` prints them: the names, and which cloud they are of.
    pub(super) fn show(&self) -> Value {
        let shown = |credential: &RouteCredential| match credential {
            RouteCredential::Text(_) => Value::from(MASK),
            RouteCredential::Cloud(cloud) => json!({ cloud.cloud(): MASK }),
        };
        self.values.iter().map(|(name, it)| (name.clone(), shown(it))).collect::<Map<_, _>>().into()
    }

    /// The secret of this name, if it is a text.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        match self.values.get(name)? {
            RouteCredential::Text(text) => Some(text),
            RouteCredential::Cloud(_) => None,
        }
    }

    /// The credential of this name.
    pub fn credential(&self, name: &str) -> Option<&RouteCredential> {
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
        let text = modes::read_private(path, 0o077, u64::MAX).map_err(fail)?;
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let entries: Option<BTreeMap<String, Tree>> = serde_saphyr::from_str_with_options(&text, options)
            .map_err(|error| fail(format!("must map names to values{}", place(&error))))?;

        let mut problems = Vec::new();
        let mut values = BTreeMap::new();
        let home = path.parent().unwrap_or_else(|| Path::new("."));
        for (key, tree) in entries.into_iter().flatten() {
            let path = format!("{name}: {key}");
            match RouteCredential::read(&key, &tree, path, home) {
                Ok(value) => drop(values.insert(key, value)),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(Self { values }) } else { Err(problems) }
    }
}

impl<N: Into<String>, V: Into<SecretString>> FromIterator<(N, V)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let text = |(name, value): (N, V)| (name.into(), RouteCredential::Text(value.into()));
        Self { values: pairs.into_iter().map(text).collect() }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

// === impl RouteCredential ===

impl RouteCredential {
    fn read(name: &str, tree: &Tree, path: String, home: &Path) -> Result<Self, Vec<Problem>> {
        if let Tree::Map(entries) = tree {
            let mut clouds = entries.keys().filter(|key| CloudCredential::CLOUDS.contains(&key.as_str()));
            match (clouds.next(), entries.len()) {
                (Some(_), 2..) => {
                    return Err(vec![Problem::new(path, "must hold a cloud alone: aws, gcp or azure")]);
                }
                (Some(cloud), _) => {
                    let Some(tree) = entries.get(cloud) else { return Err(Vec::new()) };
                    return CloudCredential::read(name, cloud, tree, &format!("{path}.{cloud}"), home)
                        .map(|credential| Self::Cloud(Arc::new(credential)));
                }
                (None, _) => {}
            }
        }
        let value = Source::of(tree).and_then(|source| source.resolve(home));
        value.map(Self::Text).map_err(|message| vec![Problem::new(path, message)])
    }
}

/// The secret that a key names, which has to be a text; noted, where there is none.
pub(super) fn secret_named<'s>(
    node: &Node<'_>,
    name: &str,
    secrets: &'s Secrets,
) -> Option<&'s SecretString> {
    match credential_named(node, name, secrets)? {
        RouteCredential::Text(text) => Some(text),
        RouteCredential::Cloud(cloud) => {
            let cloud = cloud.cloud();
            node.error(format!(
                "{name} is a credential of a cloud ({cloud}): only api_key_secret of a route may name it"
            ));
            None
        }
    }
}

/// The credential that a key names; noted, where there is none.
pub(super) fn credential_named<'s>(
    node: &Node<'_>,
    name: &str,
    secrets: &'s Secrets,
) -> Option<&'s RouteCredential> {
    let credential = secrets.credential(name);
    if credential.is_none() {
        node.error(format!("the secrets file has no value for {name}"));
    }
    credential
}

// === private helpers ===

/// Only the place of a parser's message is repeated: the message itself may quote the file.
fn place(error: &serde_saphyr::Error) -> String {
    error.location().map_or_else(String::new, |location| {
        format!(" (line {}, column {})", location.line(), location.column())
    })
}

#[cfg(test)]
mod tests;
