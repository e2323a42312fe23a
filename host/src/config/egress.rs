//! Ways out that hooks may be granted: the `egress:` list. Who may use which, where it leads, and as whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ::http::HeaderName;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::endpoint::{Endpoint, Scheme};
use super::node::{Node, Section};
use super::read::secret_named;
use super::secrets::{SecretString, Secrets};

/// Keys of a way out.
pub(super) const KEYS: [&str; 11] = [
    "name",
    "url",
    "methods",
    "path_prefix",
    "auth",
    "secret",
    "max_request_bytes",
    "max_response_bytes",
    "timeout_ms",
    "allow_private",
    "components",
];

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
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const MAX_REQUEST: usize = 64 * 1024;
const MAX_RESPONSE: usize = 256 * 1024;
const TIMEOUT_MS: u64 = 2_000;

/// One way out. `Debug` shows no credential.
#[derive(Debug, Clone)]
pub struct Egress {
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

/// How a request to the outside is authenticated.
#[derive(Debug, Clone)]
pub enum EgressAuth {
    /// Not at all.
    None,
    /// `authorization: Bearer <credential>`
    Bearer(SecretString),
    /// `<name>: <credential>`
    Header(String, SecretString),
}

// === impl Egress ===

impl Egress {
    /// Whether the component `name` was given it.
    pub fn allows(&self, name: &str) -> bool {
        self.components.iter().any(|component| component == name)
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

/// Whether an address is one of the public internet: neither this machine, nor its network, nor its cloud's metadata service, nor
/// a form that hides an address of another kind. After the registries of special-purpose addresses (RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Only global unicast, and of that neither documentation nor what wraps an IPv4 address (6to4, Teredo). Mapped addresses and
/// NAT64 lie outside of global unicast.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let special = matches!((a, b), (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff));
    (0x2000..=0x3fff).contains(&a) && !special
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
pub(super) fn egress(top: &Section<'_>, secrets: &Secrets) -> BTreeMap<String, Egress> {
    let mut ways: BTreeMap<String, Egress> = BTreeMap::new();
    for item in top.get("egress").map_or_else(Vec::new, |node| node.items()) {
        let Some(way) = way(&item, secrets) else { continue };
        if ways.contains_key(&way.name) {
            item.error_below(".name", format!("{} stands there twice", way.name));
        }
        ways.insert(way.name.clone(), way);
    }
    ways
}

fn way(item: &Node<'_>, secrets: &Secrets) -> Option<Egress> {
    let section = item.section(&KEYS);
    let name = section.required("name").and_then(|node| node.parsed(name));
    let allow_private = section.get("allow_private").and_then(|node| node.flag()).unwrap_or(false);
    let endpoint = section.required("url").and_then(|node| {
        let endpoint = node.parsed(Endpoint::parse)?;
        let complaint = complaint(&endpoint, node.text()?, allow_private);
        complaint.map_or(Some(endpoint), |complaint| {
            node.error(complaint);
            None
        })
    });
    let methods = section.required("methods").map_or_else(Vec::new, |node| {
        let choices = METHODS.map(|method| (method, method));
        node.items().iter().filter_map(|item| item.choice(&choices)).map(str::to_owned).collect::<Vec<_>>()
    });
    let prefix = section.get("path_prefix").map(|node| {
        node.parsed(|text| {
            let plain = text.starts_with('/') && is_plain_path(text) && !text.contains('?');
            plain
                .then(|| text.trim_end_matches('/').to_owned())
                .ok_or("must be a plain path that starts with /")
        })
    });
    let components = section.required("components").map_or_else(Vec::new, |node| {
        node.items().iter().filter_map(|item| item.text().map(str::to_owned)).collect::<Vec<_>>()
    });
    let auth = auth(&section, secrets);
    let bytes = |key: &str, usual: usize, most: usize| {
        let node = section.get(key);
        let number = node.and_then(|node| node.number(0..=u64::try_from(most).unwrap_or(u64::MAX)));
        number.and_then(|number| usize::try_from(number).ok()).unwrap_or(usual)
    };
    let timeout = section.get("timeout_ms").and_then(|node| node.number(10..=8_000)).unwrap_or(TIMEOUT_MS);
    Some(Egress {
        name: name?,
        endpoint: endpoint?,
        methods,
        path_prefix: match prefix {
            Some(prefix) => prefix?,
            None => String::new(),
        },
        auth: auth?,
        max_request: bytes("max_request_bytes", MAX_REQUEST, 512 * 1024),
        max_response: bytes("max_response_bytes", MAX_RESPONSE, 4 * 1024 * 1024),
        timeout: Duration::from_millis(timeout),
        allow_private,
        components,
    })
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
    if endpoint.to_string() != text.trim_end_matches('/') {
        return Some("must be scheme and host alone: say the path in path_prefix");
    }
    if endpoint.scheme == Scheme::Http && !(allow_private && endpoint.is_loopback()) {
        return Some("must be https; http is for loopback with allow_private");
    }
    let host = endpoint.host().trim_start_matches('[').trim_end_matches(']');
    let private = endpoint.is_loopback() || host.parse().is_ok_and(|address| !is_public(address));
    (private && !allow_private).then_some("is not on the public internet: say allow_private if that is meant")
}

fn auth(section: &Section<'_>, secrets: &Secrets) -> Option<EgressAuth> {
    let secret = section.get("secret").map(|node| {
        let name = node.text()?;
        secret_named(&node, name, secrets).cloned()
    });
    let Some(node) = section.get("auth") else {
        if let Some(node) = section.get("secret") {
            node.error_beside("auth", "is missing: how the secret is sent");
            return None;
        }
        return Some(EgressAuth::None);
    };
    if secret.is_none() {
        section.required("secret");
    }
    let header = match node.value() {
        serde_json::Value::String(_) => node.choice(&[("bearer", ())]).map(|()| None)?,
        _ => Some(node.section(&["header"]).required("header")?.parsed(credential_header)?),
    };
    let secret = secret??;
    Some(match header {
        Some(header) => EgressAuth::Header(header, secret),
        None => EgressAuth::Bearer(secret),
    })
}

#[cfg(test)]
mod tests {
    use super::{is_plain_path, is_public};

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

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
