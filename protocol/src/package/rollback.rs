//! The signed record of a step back. Serials only rise; that an older one is in force again is an act of its own, and this is
//! what proves it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::statement::{Digest, Name};
use crate::id::TenantId;
use crate::signature::{self, Envelope, KeyId, SignatureError, SigningKey, VerifyingKey};
use crate::strict_json::{self, StrictError};

/// The payload type of a rollback: a component's signature proves none, and a rollback's proves no component.
pub const ROLLBACK_PAYLOAD_TYPE: &str = "application/vnd.sallyport.rollback.v1+json";

/// One release, as a rollback names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The publisher's version.
    pub version: semver::Version,
    /// The publisher's serial.
    pub serial: u64,
    /// SHA-256 of the component.
    pub digest: Digest,
}

/// A step back from one release to an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Which component.
    pub name: Name,
    /// Whose bundle it is in; `None`: the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What was in force.
    pub from: Release,
    /// What is in force instead.
    pub to: Release,
    /// Who decided it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When (RFC 3339).
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// Why a record proves no rollback.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// The envelope is malformed, signed by another key, or for another purpose.
    #[error("the record of the rollback is not signed as it should be")]
    Signature(#[source] SignatureError),
    /// What was signed is no rollback.
    #[error("the record of the rollback is malformed")]
    Malformed(#[source] StrictError),
}

// === impl Rollback ===

impl Rollback {
    /// Signs the record. Errors: [`RollbackError::Malformed`] if it cannot be written as JSON.
    pub fn sign(&self, key: &SigningKey) -> Result<Envelope, RollbackError> {
        let payload =
            serde_json::to_vec(self).map_err(|error| RollbackError::Malformed(StrictError::Shape(error)))?;
        Ok(signature::sign(ROLLBACK_PAYLOAD_TYPE, payload, key))
    }

    /// Reads a record that `key` signed. Errors: see [`RollbackError`].
    pub fn read(envelope: &[u8], key: &VerifyingKey) -> Result<Self, RollbackError> {
        let envelope = Envelope::parse(envelope).map_err(RollbackError::Signature)?;
        let id = KeyId::of(key);
        let signed = signature::verify(&envelope, ROLLBACK_PAYLOAD_TYPE, &[(&id, key)])
            .map_err(RollbackError::Signature)?;
        strict_json::parse(signed.payload, signature::MAX_ENVELOPE).map_err(RollbackError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::PAYLOAD_TYPE;

    fn rollback() -> Rollback {
        let release = |version: &str, serial| Release {
            version: version.parse().unwrap(),
            serial,
            digest: Digest::of(version.as_bytes()),
        };
        Rollback {
            name: Name::parse("acme/hook").unwrap(),
            tenant: Some(TenantId::parse("acme").unwrap()),
            from: release("1.1.0", 2),
            to: release("1.0.0", 1),
            by: "u_1".to_owned(),
            reason: "it traps".to_owned(),
            at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_was_signed_is_read_again() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let envelope = rollback().sign(&key).unwrap().to_json();
        assert_eq!(Rollback::read(&envelope, &key.verifying_key()).unwrap(), rollback());
    }

    #[test]
    fn another_key_another_purpose_and_changed_bytes_prove_nothing() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let envelope = rollback().sign(&key).unwrap().to_json();
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert!(matches!(Rollback::read(&envelope, &other), Err(RollbackError::Signature(_))));
        let payload = serde_json::to_vec(&rollback()).unwrap();
        let component = signature::sign(PAYLOAD_TYPE, payload, &key).to_json();
        assert!(matches!(
            Rollback::read(&component, &key.verifying_key()),
            Err(RollbackError::Signature(SignatureError::PayloadType { .. }))
        ));
        let unknown = signature::sign(ROLLBACK_PAYLOAD_TYPE, br#"{"name":"a/b"}"#.to_vec(), &key).to_json();
        assert!(matches!(Rollback::read(&unknown, &key.verifying_key()), Err(RollbackError::Malformed(_))));
    }
}
