//! The gateway's key for what it has workstations install: asked for once, compared ever after.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::gateway::Gateway;
use crate::secret::hex;

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 32]);

/// As the gateway answers it: members of a JSON Web Key (RFC 8037).
#[derive(Deserialize)]
struct KeyAnswer {
    alg: String,
    crv: String,
    x: String,
    kid: Option<String>,
}

// === impl PublicKey ===

impl PublicKey {
    /// Reads a key, in either alphabet of base64.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim().trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD.decode(bare).or_else(|_| STANDARD_NO_PAD.decode(bare));
        let bytes = bytes.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| "is no key: one is 32 bytes in base64".to_owned())
    }

    /// Asks the gateway. `None` from one that has no such key.
    pub(crate) fn ask(client: &Client, gateway: &Gateway) -> Result<Option<Self>, Failure> {
        let answer = client.get("/v1/cowork/pubkey", None)?;
        match answer.status {
            200 => {}
            404 => return Ok(None),
            _ => return Err(answer.unexpected(gateway)),
        }
        let bad = |what: &str| Failure::network(format!("the key that {gateway} answers {what}"));
        let found: KeyAnswer = serde_json::from_slice(&answer.body).map_err(|_| bad("is no JSON Web Key"))?;
        if found.alg != "EdDSA" || found.crv != "Ed25519" {
            return Err(bad("is of another kind than Ed25519"));
        }
        let key = Self::parse(&found.x).map_err(|what| bad(&what))?;
        if found.kid.is_some_and(|kid| kid != key.thumbprint()) {
            return Err(bad("has the id of another one"));
        }
        Ok(Some(key))
    }

    /// As it is written into the configuration.
    pub(crate) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Its thumbprint of RFC 7638, which is the gateway's id of it.
    pub(crate) fn thumbprint(&self) -> String {
        let members = format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{}\"}}", self.text());
        URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
    }

    /// Whether a fingerprint is this key's: its thumbprint, or the SHA-256 of its bytes in hexadecimal.
    pub(crate) fn has_fingerprint(&self, fingerprint: &str) -> bool {
        let given = fingerprint.trim();
        let bare = given.strip_prefix("sha256:").unwrap_or(given).replace(':', "").to_ascii_lowercase();
        given == self.thumbprint() || bare == hex(&Sha256::digest(self.0))
    }
}

/// Which key is pinned: the one that was given, or the gateway's where its fingerprint was given or none is pinned yet. A key that
/// changed is not taken because the gateway says so.
pub(crate) fn choose(
    gateway: &Gateway,
    pinned: Option<PublicKey>,
    answered: Option<PublicKey>,
    given: Option<PublicKey>,
    fingerprint: Option<&str>,
) -> Result<Option<PublicKey>, Failure> {
    let differs = |what: String| Err(Failure::new(Exit::Signature, what));
    match (answered, given, fingerprint) {
        (Some(answered), Some(given), _) if answered != given => differs(format!(
            "{gateway} has another key than the one that was given: its fingerprint is {}",
            answered.thumbprint()
        )),
        (_, Some(given), _) => Ok(Some(given)),
        (Some(answered), None, Some(fingerprint)) if !answered.has_fingerprint(fingerprint) => {
            differs(format!(
                "{gateway} has a key with another fingerprint than the one that was given: {}",
                answered.thumbprint()
            ))
        }
        (None, None, Some(_)) => differs(format!("{gateway} has no key to compare with the fingerprint")),
        (Some(answered), None, None) if pinned.is_some_and(|pinned| pinned != answered) => differs(format!(
            "{gateway} has another key than the one that is pinned: if it was exchanged, give --root-fingerprint {}",
            answered.thumbprint()
        )),
        (Some(answered), None, _) => Ok(Some(answered)),
        (None, None, None) => Ok(pinned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8037, appendix A.2, and its thumbprint of appendix A.3.
    const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    #[test]
    fn a_key_has_the_thumbprint_of_the_rfc() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.text(), KEY);
        assert_eq!(key.thumbprint(), THUMBPRINT);
        assert!(key.has_fingerprint(THUMBPRINT));
        assert!(!key.has_fingerprint(&THUMBPRINT.to_lowercase()));
        // printf 11qY..URo= | tr _- /+ | base64 -d | sha256sum
        let sha = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9";
        assert!(key.has_fingerprint(sha) && key.has_fingerprint(&format!("sha256:{}", sha.to_uppercase())));
        assert_eq!(PublicKey::parse(&format!("{}=", KEY.replace('_', "/"))).unwrap(), key);
        for bad in ["", "short", KEY.trim_start_matches('1'), &format!("{KEY}AA")] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_changed_is_taken_only_if_a_person_says_so() {
        let gateway = Gateway::parse("https://gateway.example.com").unwrap();
        let (old, new) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let choose = |pinned, answered, given, print: Option<&str>| {
            choose(&gateway, pinned, answered, given, print).map_err(|failure| failure.exit)
        };
        let signature = Err(Exit::Signature);
        assert_eq!(choose(None, Some(new), None, None), Ok(Some(new)));
        assert_eq!(choose(Some(new), Some(new), None, None), Ok(Some(new)));
        assert_eq!(choose(Some(old), Some(new), None, None), signature);
        assert_eq!(choose(Some(old), Some(new), None, Some(&new.thumbprint())), Ok(Some(new)));
        assert_eq!(choose(None, Some(new), None, Some(&old.thumbprint())), signature);
        assert_eq!(choose(Some(old), Some(new), Some(new), None), Ok(Some(new)));
        assert_eq!(choose(None, Some(new), Some(old), None), signature);
        assert_eq!(choose(None, None, Some(old), None), Ok(Some(old)));
        assert_eq!(choose(None, None, None, Some("x")), signature);
        assert_eq!(choose(Some(old), None, None, None), Ok(Some(old)));
        assert_eq!(choose(None, None, None, None), Ok(None));
    }
}
