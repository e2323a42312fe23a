//! The one signing envelope of the product: DSSE v1 with Ed25519. Exact bytes are signed, never JSON that is
//! written anew, and the payload type is part of what is signed, so that a signature made for one purpose is
//! worth nothing for another. Format: <https://github.com/secure-systems-lab/dsse/blob/v1.0.0/envelope.md>,
//! with stricter reading: one signature exactly, standard base64 with padding, no unknown members, no
//! duplicate names.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::strict_json::{self, StrictError};

pub use ed25519_dalek::{SigningKey, VerifyingKey};

/// The largest envelope accepted, as JSON, in bytes: 64 KiB.
pub const MAX_ENVELOPE: usize = strict_json::DEFAULT_LIMIT;

/// Names a public key: `ed25519:` and the first 32 hex digits of the SHA-256 of its 32 bytes (128 bits, so
/// that nobody can make a second key of the same id; revocation goes by it).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// Why something is not a usable public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in standard base64 or hex.
    #[error("a public key is 32 bytes in base64 or hexadecimal")]
    Encoding,
    /// Not the one encoding of a point of the curve.
    #[error("the public key is not a point of the curve")]
    Point,
    /// A point of small order: signatures under it prove nothing.
    #[error("the public key is of small order")]
    Weak,
    /// Not 32 bytes in standard base64.
    #[error("a signing key is 32 bytes in base64")]
    Secret,
    /// Not `ed25519:` and 32 lower-case hex digits.
    #[error("a key id is ed25519: and 32 hex digits")]
    Id,
}

/// A signed payload: DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is: a media type, one per purpose.
    pub payload_type: String,
    /// The exact bytes that are signed.
    pub payload: Vec<u8>,
    /// One signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// Which key is said to have made it. A hint: the signature decides.
    pub keyid: KeyId,
    /// Ed25519 over the pre-authentication encoding.
    pub sig: [u8; 64],
}

/// A payload whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The exact bytes that were signed.
    pub payload: &'a [u8],
    /// The key that signed them.
    pub key: KeyId,
}

/// Why an envelope proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Not an envelope.
    #[error("the envelope is malformed")]
    Malformed(#[source] StrictError),
    /// No signature, or more than one.
    #[error("an envelope has exactly one signature, this one has {0}")]
    Count(usize),
    /// Signed for another purpose.
    #[error("the envelope holds {found}, not {expected}")]
    PayloadType {
        /// What it holds.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Signed by a key that is not among the known ones.
    #[error("the envelope is signed by {0}, which is not known")]
    UnknownKey(KeyId),
    /// The signature does not belong to this payload, or the key is of small order.
    #[error("the signature of {0} does not fit the payload")]
    BadSignature(KeyId),
}

/// Signs `payload` for the purpose `payload_type`.
pub fn sign(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Envelope {
    let sig = key.sign(&pae(payload_type, &payload)).to_bytes();
    let keyid = KeyId::of(&key.verifying_key());
    Envelope {
        payload_type: payload_type.to_owned(),
        payload,
        signatures: vec![EnvelopeSignature { keyid, sig }],
    }
}

/// Verifies that one of `keys` signed `envelope` for the purpose `payload_type`. Errors: see
/// [`SignatureError`].
pub fn verify<'a>(
    envelope: &'a Envelope,
    payload_type: &str,
    keys: &[(&KeyId, &VerifyingKey)],
) -> Result<Signed<'a>, SignatureError> {
    if envelope.payload_type != payload_type {
        return Err(SignatureError::PayloadType {
            found: envelope.payload_type.clone(),
            expected: payload_type.to_owned(),
        });
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(SignatureError::Count(envelope.signatures.len()));
    };
    let message = pae(payload_type, &envelope.payload);
    let parsed = Signature::from_bytes(&signature.sig);
    let mut known = false;
    for (id, key) in keys {
        if **id != signature.keyid {
            continue;
        }
        known = true;
        if key.verify_strict(&message, &parsed).is_ok() {
            return Ok(Signed { payload: &envelope.payload, key: signature.keyid.clone() });
        }
    }
    Err(if known {
        SignatureError::BadSignature(signature.keyid.clone())
    } else {
        SignatureError::UnknownKey(signature.keyid.clone())
    })
}

/// Reads a public key: 32 bytes in standard base64 (44 characters) or hexadecimal (64). Refuses points of
/// small order and encodings that are not the canonical one.
pub fn public_key(text: &str) -> Result<VerifyingKey, KeyError> {
    let mut bytes = [0_u8; 32];
    match text.len() {
        64 => {
            let digits = text.as_bytes().chunks_exact(2);
            for (byte, pair) in bytes.iter_mut().zip(digits) {
                let [high, low] = pair else { return Err(KeyError::Encoding) };
                *byte = nibble(*high)? << 4 | nibble(*low)?;
            }
        }
        44 => {
            let decoded = STANDARD.decode(text).map_err(|_| KeyError::Encoding)?;
            bytes = decoded.try_into().map_err(|_| KeyError::Encoding)?;
        }
        _ => return Err(KeyError::Encoding),
    }
    public_key_from_bytes(&bytes)
}

/// A public key as [`public_key`] reads it: standard base64 of its 32 bytes.
pub fn public_key_text(key: &VerifyingKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// Reads a public key from its 32 bytes; see [`public_key`].
pub fn public_key_from_bytes(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Point)?;
    if key.to_edwards().compress().as_bytes() != bytes {
        return Err(KeyError::Point);
    }
    if key.is_weak() { Err(KeyError::Weak) } else { Ok(key) }
}

/// Reads a signing key as it stands in a key file: standard base64 of its 32 bytes, white space around it aside.
pub fn signing_key(text: &str) -> Result<SigningKey, KeyError> {
    let seed = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::Secret)?);
    let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| KeyError::Secret)?;
    Ok(SigningKey::from_bytes(seed))
}

/// A signing key as [`signing_key`] reads it. A secret: for a file that nobody else can read.
pub fn signing_key_text(key: &SigningKey) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key.as_bytes()))
}

// === impl KeyId ===

impl KeyId {
    /// The id of `key`.
    pub fn of(key: &VerifyingKey) -> Self {
        let digest = crate::canonical::sha256(key.as_bytes());
        let digits = digest.strip_prefix("sha256:").and_then(|hex| hex.get(..32)).unwrap_or_default();
        Self(format!("ed25519:{digits}"))
    }

    /// Checks `text`. Errors: [`KeyError::Id`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix("ed25519:").ok_or(KeyError::Id)?;
        let fine =
            digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fine { Ok(Self(text.to_owned())) } else { Err(KeyError::Id) }
    }

    /// As it stands in envelopes and configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

// === impl Envelope ===

impl Envelope {
    /// Reads an envelope strictly: at most [`MAX_ENVELOPE`] bytes, exactly one signature, no unknown members,
    /// no name twice, standard base64.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let wire: WireEnvelope =
            strict_json::parse(bytes, MAX_ENVELOPE).map_err(SignatureError::Malformed)?;
        if wire.signatures.len() != 1 {
            return Err(SignatureError::Count(wire.signatures.len()));
        }
        Ok(Self {
            payload_type: wire.payload_type,
            payload: wire.payload,
            signatures: wire
                .signatures
                .into_iter()
                .map(|signature| EnvelopeSignature { keyid: signature.keyid, sig: signature.sig })
                .collect(),
        })
    }

    /// The envelope as JSON: `{"payload","payloadType","signatures":[{"keyid","sig"}]}`.
    pub fn to_json(&self) -> Vec<u8> {
        use crate::messages::json::string;
        let mut out = Vec::with_capacity(self.payload.len() * 4 / 3 + 320);
        out.extend_from_slice(b"{\"payload\":");
        string(&mut out, &STANDARD.encode(&self.payload));
        out.extend_from_slice(b",\"payloadType\":");
        string(&mut out, &self.payload_type);
        out.extend_from_slice(b",\"signatures\":[");
        for (position, signature) in self.signatures.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"keyid\":");
            string(&mut out, signature.keyid.as_str());
            out.extend_from_slice(b",\"sig\":");
            string(&mut out, &STANDARD.encode(signature.sig));
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        out
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEnvelope {
    #[serde(deserialize_with = "base64_bytes")]
    payload: Vec<u8>,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: KeyId,
    #[serde(deserialize_with = "base64_signature")]
    sig: [u8; 64],
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

fn base64_signature<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
    base64_bytes(deserializer)?.try_into().map_err(|_| serde::de::Error::custom("a signature is 64 bytes"))
}

/// Pre-authentication encoding: `DSSEv1 <len> <payload type> <len> <payload>`
/// (<https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>).
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    let mut out = Vec::with_capacity(head.len() + payload.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(payload);
    out
}

fn nibble(digit: u8) -> Result<u8, KeyError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(KeyError::Encoding),
    }
}

#[cfg(test)]
mod tests;
