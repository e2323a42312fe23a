//! The `egress:` list: requests to other servers that hooks may be granted, where they go, and with which credential.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::HeaderName;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::address::is_public;
use super::endpoint::{Endpoint, Scheme};
use super::file::millis;
use super::key::{Absent, ConfigBlock, ConfigKey, Form, Word};
use super::node::{Node, Section};
use super::secrets::{SecretString, Secrets, secret_named};

const NAME: ConfigKey = ConfigKey::text(
    "name",
    "What packages call it. At most 64 lower-case letters, digits, dots, dashes and underscores",
)
.required();
const URL: ConfigKey =
    ConfigKey::text("url", "`https://host[:port]`, without a path; `http` for loopback with `allow_private`")
        .required();
const METHODS: ConfigKey = ConfigKey::list("methods", &Form::Choice(methods), "What may be asked").required();
const PATH_PREFIX: ConfigKey =
    ConfigKey::text("path_prefix", "What every path begins with, in whole segments").or(Absent::Text("/"));
pub(super) const AUTH: ConfigKey = ConfigKey::of(
    "auth",
    Form::Either(&[Form::Choice(bearer), Form::Mapping(&HEADER_AUTH)]),
    "How the secret is sent: `bearer`, or `{ header: NAME }`",
);
pub(super) const SECRET: ConfigKey =
    ConfigKey::text("secret", "Name in the secrets file; needed with `auth`");
const MAX_REQUEST_BYTES: ConfigKey =
    ConfigKey::number("max_request_bytes", &(0..=512 * 1024), 64 * 1024, "Longest body of a request");
const MAX_RESPONSE_BYTES: ConfigKey =
    ConfigKey::number("max_response_bytes", &(0..=4 * 1024 * 1024), 256 * 1024, "Longest body of an answer");
const TIMEOUT: ConfigKey = ConfigKey::number("timeout_ms", &(10..=8_000), 2_000, "For one request");
const ALLOW_PRIVATE: ConfigKey =
    ConfigKey::flag("allow_private", "Addresses of this machine and its networks may be dialled");
const COMPONENTS: ConfigKey =
    ConfigKey::list("components", &Form::Text, "`namespace/name` of the hooks that may use it").required();

const HEADER: ConfigKey = ConfigKey::text("header", "Name of the header that carries the secret").required();
const HEADER_AUTH: ConfigBlock =
    ConfigBlock { about: "A header that carries the secret.", keys: &[HEADER], notes: "" };

/// An entry of the list.
const ENTRY: ConfigBlock = ConfigBlock {
    about: "Requests to other servers that hooks may be granted, a list. A hook whose package declares the capability `egress:<name>` is admitted only where an \
            entry of that name lists it. No redirect is followed, an event has 32 requests, and only addresses of the public \
            internet are dialled.",
    keys: &[
        NAME,
        URL,
        METHODS,
        PATH_PREFIX,
        AUTH,
        SECRET,
        MAX_REQUEST_BYTES,
        MAX_RESPONSE_BYTES,
        TIMEOUT,
        ALLOW_PRIVATE,
        COMPONENTS,
    ],
    notes: "```yaml
egress:
  - name: moderation
    url: https://moderation.example.com
    path_prefix: /v1/check
    methods: [POST]
    auth: bearer
    secret: moderation_key
    components: [acme/moderate]
```",
};

/// The list in the file.
pub(super) const KEY: ConfigKey =
    ConfigKey::list("egress", &Form::Mapping(&ENTRY), "Requests to other servers that hooks may be granted");

/// Headers that frame a message, and no credential.
const FRAMING: [&str; 10] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// A grant: requests to one upstream. `Debug` shows no credential.
#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// What packages call it: `egress:<name>`.
    pub name: String,
    /// Scheme and authority.
    pub endpoint: Endpoint,
    /// HTTP methods, in capitals.
    pub methods: Vec<String>,
    /// What every path begins with: whole segments.
    pub path_prefix: String,
    /// Which credential the gateway adds.
    pub auth: EgressAuth,
    /// Longest body of a request.
    pub max_request: usize,
    /// Longest body of an answer.
    pub max_response: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whether it may lead to addresses that are not of the public internet.
    pub allow_private: bool,
    /// `namespace/name` of the components that may use it.
    pub components: Vec<String>,
}

/// How a hook's request is authenticated.
#[derive(Debug, Clone)]
pub enum EgressAuth {
    /// Not at all.
    None,
    /// `authorization: Bearer <credential>`
    Bearer(SecretString),
    /// `<name>: <credential>`
    Header(String, SecretString),
}

// === impl EgressSettings ===

impl EgressSettings {
    /// Whether the component `name` was given it.
    pub fn allows(&self, name: &str) -> bool {
        self.components.iter().any(|component| component == name)
    }

    fn read(item: &Node<'_>, secrets: &Secrets) -> Option<Self> {
        let section = item.section(&ENTRY);
        let name = section.required(&NAME).and_then(|node| node.parsed(name));
        let allow_private = section.flag(&ALLOW_PRIVATE);
        let endpoint = section.required(&URL).and_then(|node| {
            let endpoint = node.parsed(Endpoint::parse)?;
            let complaint = complaint(&endpoint, node.text()?, allow_private);
            complaint.map_or(Some(endpoint), |complaint| {
                node.error(complaint);
                None
            })
        });
        let methods = section.required(&METHODS).map_or_else(Vec::new, |node| {
            let methods = node.items().iter().filter_map(Node::choice::<Method>).collect::<Vec<_>>();
            methods.into_iter().map(|method| method.0.to_owned()).collect()
        });
        let prefix = section.get(&PATH_PREFIX).map(|node| {
            node.parsed(|text| {
                let plain = text.starts_with('/') && is_plain_path(text) && !text.contains('?');
                plain
                    .then(|| text.trim_end_matches('/').to_owned())
                    .ok_or("must be a plain path that starts with /")
            })
        });
        let components = section.required(&COMPONENTS).map_or_else(Vec::new, |node| {
            node.items().iter().filter_map(|item| item.text().map(str::to_owned)).collect::<Vec<_>>()
        });
        let auth = EgressAuth::read(&section, secrets);
        let timeout = section.millis(&TIMEOUT);
        Some(Self {
            name: name?,
            endpoint: endpoint?,
            methods,
            path_prefix: match prefix {
                Some(prefix) => prefix?,
                None => String::new(),
            },
            auth: auth?,
            max_request: section.number(&MAX_REQUEST_BYTES),
            max_response: section.number(&MAX_RESPONSE_BYTES),
            timeout,
            allow_private,
            components,
        })
    }

    /// As `sallyport config show` prints it.
    pub(super) fn show(&self) -> Value {
        json!({
            "name": self.name,
            "url": self.endpoint.to_string(),
            "methods": self.methods,
            "path_prefix": if self.path_prefix.is_empty() { "/" } else { &self.path_prefix },
            "auth": self.auth.show(),
            "max_request_bytes": self.max_request,
            "max_response_bytes": self.max_response,
            "timeout_ms": millis(self.timeout),
            "allow_private": self.allow_private,
            "components": self.components,
        })
    }

    /// Changes with everything that a user of it could notice, the credential included.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(format!("{self:?}"));
        if let EgressAuth::Bearer(secret) | EgressAuth::Header(_, secret) = &self.auth {
            hasher.update(secret.expose_secret());
        }
        hasher.finalize().into()
    }
}

// === impl EgressAuth ===

impl EgressAuth {
    pub(super) fn read(section: &Section<'_>, secrets: &Secrets) -> Option<Self> {
        let secret = section.get(&SECRET).map(|node| {
            let name = node.text()?;
            secret_named(&node, name, secrets).cloned()
        });
        let Some(node) = section.get(&AUTH) else {
            if let Some(node) = section.get(&SECRET) {
                node.error_beside(AUTH.name, "is missing: how the secret is sent");
                return None;
            }
            return Some(Self::None);
        };
        if secret.is_none() {
            section.missing(&SECRET);
        }
        let header = match node.value() {
            Value::String(_) => node.choice::<Bearer>().map(|_| None)?,
            _ => Some(node.section(&HEADER_AUTH).required(&HEADER)?.parsed(credential_header)?),
        };
        let secret = secret??;
        Some(match header {
            Some(header) => Self::Header(header, secret),
            None => Self::Bearer(secret),
        })
    }
}

impl EgressAuth {
    /// How, without what.
    pub(super) fn show(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Bearer(_) => json!(Bearer.word()),
            Self::Header(name, _) => json!({ "header": name }),
        }
    }
}

// === impl Method ===

/// An HTTP method that a hook may be granted.
#[derive(Clone, Copy)]
struct Method(&'static str);

impl Word for Method {
    const ALL: &'static [Self] = &[Self("GET"), Self("POST"), Self("PUT"), Self("PATCH"), Self("DELETE")];

    fn word(self) -> &'static str {
        self.0
    }
}

/// The one way of sending a secret that has no settings.
#[derive(Clone, Copy)]
struct Bearer;

impl Word for Bearer {
    const ALL: &'static [Self] = &[Self];

    fn word(self) -> &'static str {
        "bearer"
    }
}

/// Whether a path stays where it begins, however the server at the other end reads it.
pub fn is_plain_path(path: &str) -> bool {
    let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'\\' | b'#');
    let path = path.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c", "%00", "%25"].iter().any(|hidden| lower.contains(hidden));
    let climbs = path.split('/').any(|segment| segment == "." || segment == "..");
    !path.bytes().any(odd) && !hidden && !climbs && !path.contains("//")
}

/// Reads the list.
pub(super) fn read(top: &Section<'_>, secrets: &Secrets) -> BTreeMap<String, EgressSettings> {
    let mut grants: BTreeMap<String, EgressSettings> = BTreeMap::new();
    for item in top.items(&KEY) {
        let Some(grant) = EgressSettings::read(&item, secrets) else { continue };
        if grants.contains_key(&grant.name) {
            item.error_below(".name", format!("{} stands there twice", grant.name));
        }
        grants.insert(grant.name.clone(), grant);
    }
    grants
}

fn name(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be at most 64 lower-case letters, digits, dots, dashes and underscores")
    }
}

fn credential_header(text: &str) -> Result<String, &'static str> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| "is no name of a header")?;
    if FRAMING.contains(&name.as_str()) {
        return Err("is a header that carries no credential");
    }
    Ok(name.as_str().to_owned())
}

/// What is wrong with a URL. A name is looked up only when it is dialled, and its addresses are checked there.
fn complaint(endpoint: &Endpoint, text: &str, allow_private: bool) -> Option<&'static str> {
    if endpoint.to_string() != text.trim_end_matches('/') || !endpoint.path.is_empty() {
        return Some("must be scheme and host alone: say the path in path_prefix");
    }
    if endpoint.scheme == Scheme::Http && !(allow_private && endpoint.is_loopback()) {
        return Some("must be https; http is for loopback with allow_private");
    }
    let host = endpoint.host().trim_start_matches('[').trim_end_matches(']');
    let private = endpoint.is_loopback() || host.parse().is_ok_and(|address| !is_public(address));
    (private && !allow_private).then_some("is not on the public internet: say allow_private if that is meant")
}

fn methods() -> Vec<&'static str> {
    Method::ALL.iter().map(|method| method.word()).collect()
}

fn bearer() -> Vec<&'static str> {
    vec![Bearer.word()]
}

#[cfg(test)]
mod tests {
    use super::is_plain_path;

    #[test]
    fn a_path_that_another_server_could_read_otherwise_is_not_plain() {
        for path in ["/", "/v1/check?q=..", "/a%20b", ""] {
            assert!(is_plain_path(path), "{path}");
        }
        for path in [
            "//evil",
            "/a/../b",
            "/a/.",
            "/%2e%2e/b",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a#b",
            "/a b",
            "/a\r\nx",
            "/%252e",
        ] {
            assert!(!is_plain_path(path), "{path}");
        }
    }
}
