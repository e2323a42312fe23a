//! The components that come inside the binary, and the key that signed them.

use ed25519_dalek::VerifyingKey;
use sallyport_protocol::package::{Kind, Publisher};
use sallyport_protocol::signature::public_key;
use serde::Deserialize;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/first_party.rs"));
}

/// A package inside the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// `sallyport/anthropic`
    pub name: &'static str,
    /// The whole package.
    pub bytes: &'static [u8],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: String,
    namespace: String,
    kinds: Vec<Kind>,
    #[serde(default)]
    development: bool,
}

/// Every package inside the binary.
pub fn first_party() -> Vec<Embedded> {
    embedded::COMPONENTS.iter().map(|(name, bytes)| Embedded { name, bytes }).collect()
}

/// Who signed them; none, where the binary was built without any.
pub fn first_party_publisher() -> Option<Publisher> {
    read(embedded::PUBLISHER?)
}

// === private helpers ===

fn read(text: &str) -> Option<Publisher> {
    let File { key, namespace, kinds, development } = serde_json::from_str(text).ok()?;
    let key: VerifyingKey = public_key(&key).ok()?;
    Some(Publisher { key, namespace, kinds, tenant: None, development, revoked: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn a_publisher_file_names_a_key_and_what_it_may_sign() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]).verifying_key();
        let text = base64::engine::general_purpose::STANDARD.encode(key.as_bytes());
        let file = format!(r#"{{"key":"{text}","namespace":"sallyport","kinds":["provider","policy"],"development":true}}"#);
        let publisher = read(&file).unwrap();
        assert_eq!(publisher.key, key);
        assert_eq!(publisher.namespace, "sallyport");
        assert_eq!(publisher.kinds, [Kind::Provider, Kind::Policy]);
        assert!(publisher.development && !publisher.revoked && publisher.tenant.is_none());
        assert!(read("{}").is_none());
        assert!(read(&file.replace("sallyport", "x\",\"y\":\"z")).is_none(), "unknown members are refused");
    }
}
