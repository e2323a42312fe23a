//! The `database:` block: where rows, users and packages are kept.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use super::file::MASK;
use super::key::{Absent, ConfigBlock, ConfigKey};
use super::node::{Node, Section};
use super::secrets::{ExposeSecret as _, Secrets, secret_named};

const URL: ConfigKey =
    ConfigKey::text("url", "`sqlite:PATH` or `postgres://HOST/NAME`; a URL with a password is refused here")
        .or(Absent::Text("sqlite:sallyport.sqlite"));
const URL_SECRET: ConfigKey = ConfigKey::text("url_secret", "Name of a secret that holds the URL");

/// The block in the file.
pub(super) const KEY: ConfigKey = ConfigKey::mapping(
    "database",
    &ConfigBlock {
        about: "Where rows, users and packages are kept. One of the two keys, not both.",
        keys: &[URL, URL_SECRET],
        notes: "",
    },
    "Where rows, users and packages are kept",
);

/// The `database:` block. Its `Debug` masks the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// `sqlite:<path>` or `postgres://...`: may hold a password, and is never shown whole.
    pub url: String,
}

// === impl DatabaseSettings ===

impl DatabaseSettings {
    /// Reads the block.
    pub(super) fn read(top: &Section<'_>, home: &Path, secrets: &Secrets) -> Self {
        Self { url: url(&top.block(&KEY), home, secrets) }
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({ "url": masked_url(&self.url) })
    }
}

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSettings").field("url", &masked_url(&self.url)).finish()
    }
}

/// Everything between scheme and host goes, and so do parameters: both can hold a password.
pub(crate) fn masked_url(url: &str) -> String {
    let url = url.split('?').next().unwrap_or(url);
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://{MASK}@{host}"),
        None => url.to_owned(),
    }
}

fn url(section: &Section<'_>, home: &Path, secrets: &Secrets) -> String {
    let local = format!("sqlite:{}", home.join("sallyport.sqlite").display());
    let secret = section.get(&URL_SECRET);
    if let (Some(url), Some(_)) = (section.get(&URL), &secret) {
        url.error("stands beside url_secret: only one of them can hold");
    }
    let check = |node: &Node<'_>, url: &str| {
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            node.error("must start with sqlite: or postgres:");
        }
    };
    if let Some(node) = secret {
        let Some(value) = node.text().and_then(|name| secret_named(&node, name, secrets)) else {
            return local;
        };
        check(&node, value.expose_secret());
        return value.expose_secret().to_owned();
    }
    let Some(node) = section.get(&URL) else { return local };
    let Some(url) = node.text() else { return local };
    check(&node, url);
    if url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
    {
        node.error("holds a password: put the URL into the secrets file and name it in database.url_secret");
    }
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.starts_with(['/', ':']) => format!("sqlite:{}", home.join(path).display()),
        _ => url.to_owned(),
    }
}
