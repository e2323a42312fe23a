//! The signed package in which a component travels, and the one place that decides whether it may be trusted.
//!
//! A package is `SALLYPORT-COMPONENT-1\n`, the length of the envelope (four bytes, big endian), the envelope
//! (DSSE, see [`crate::signature`]) and then the component's exact bytes. The envelope's payload is the
//! [`Statement`], JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::canonical;
use crate::id::TenantId;
use crate::signature::{self, Envelope, KeyId, SignatureError, SigningKey, VerifyingKey};
use crate::strict_json::{self, StrictError};

pub use self::capability::{Capability, CapabilityError};
pub use self::credential::{CredentialForm, CredentialFormError};
pub use self::fact::{Fact, FactError};
pub use self::interface::{CONFIGURABLE, CONTRACT};
pub use self::manifest::{Manifest, ManifestError};
pub use self::rollback::{ROLLBACK_PAYLOAD_TYPE, Release, Rollback, RollbackError};
pub use self::statement::{
    Digest, HookEvent, Kind, Limits, Name, Statement, StatementError, Upstream, UpstreamApi, World,
};

mod capability;
mod credential;
mod fact;
mod interface;
mod manifest;
mod rollback;
mod statement;

/// What every package starts with.
pub const MAGIC: &[u8] = b"SALLYPORT-COMPONENT-1\n";
/// The payload type of a component's statement: a signature made for anything else is worth nothing here.
pub const PAYLOAD_TYPE: &str = "application/vnd.sallyport.component.v1+json";
/// The largest component accepted, in bytes: 32 MiB.
pub const MAX_COMPONENT: usize = 32 * 1024 * 1024;
/// The largest package accepted, in bytes.
pub const MAX_PACKAGE: usize = MAGIC.len() + 4 + signature::MAX_ENVELOPE + MAX_COMPONENT;

/// A package that was read, but not verified: nothing it says is true yet.
#[derive(Debug, Clone)]
pub struct Package {
    envelope: Envelope,
    statement: Statement,
    component: Bytes,
}

/// Who may sign what. As JSON: `{"key","namespace","kinds","tenant","development","revoked"}`, the last three
/// optional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// The public key; in JSON as [`signature::public_key`] reads it.
    #[serde(with = "public_key")]
    pub key: VerifyingKey,
    /// The namespace whose components it may sign: the part of the name before the `/`.
    pub namespace: String,
    /// The kinds of component it may sign.
    pub kinds: Vec<Kind>,
    /// The tenant whose components it may sign and who alone may run them; `None`: for all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// A key that a development build made for itself.
    #[serde(default)]
    pub development: bool,
    /// No longer trusted.
    #[serde(default)]
    pub revoked: bool,
}

/// A component that may be trusted. Only [`Package::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    statement: Statement,
    component: Bytes,
    key: KeyId,
    tenant: Option<TenantId>,
    development: bool,
}

/// Why bytes are not a package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// They do not start as a package does.
    #[error("not a sallyport component package")]
    Magic,
    /// They end early.
    #[error("the package is cut off")]
    Truncated,
    /// The component is larger than [`MAX_COMPONENT`], or there is none.
    #[error("the component has {0} bytes, which is not between 1 and {MAX_COMPONENT}")]
    ComponentSize(usize),
    /// The envelope is larger than [`signature::MAX_ENVELOPE`].
    #[error("the envelope has {0} bytes, more than {max}", max = signature::MAX_ENVELOPE)]
    EnvelopeSize(usize),
    /// The envelope is malformed.
    #[error("the envelope is refused")]
    Envelope(#[source] SignatureError),
    /// The statement is not JSON of the right shape.
    #[error("the statement is malformed")]
    Statement(#[source] StrictError),
    /// The statement contradicts itself.
    #[error("the statement is refused")]
    Contradiction(#[source] StatementError),
}

/// Why a package is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No publisher has the key that signed it.
    #[error("signed by {0}, which is no publisher's key")]
    UnknownKey(KeyId),
    /// The signature does not belong to the statement, or was made for another purpose.
    #[error("the signature does not fit the statement")]
    BadSignature,
    /// The component's SHA-256 is not the one that was signed.
    #[error("the component is not the one that was signed")]
    Digest,
    /// The component's size is not the one that was signed.
    #[error("the component has {actual} bytes, {signed} were signed")]
    Size {
        /// What was signed.
        signed: u64,
        /// What came.
        actual: u64,
    },
    /// The publisher may not sign in this namespace.
    #[error("the publisher may not sign in the namespace {namespace}")]
    Namespace {
        /// The component's namespace.
        namespace: String,
    },
    /// The publisher may not sign components of this kind.
    #[error("the publisher may not sign a {kind}")]
    Kind {
        /// The component's kind.
        kind: Kind,
    },
    /// The publisher signs for one tenant, and it is not the one asked for.
    #[error("the publisher signs for another tenant")]
    Tenant,
    /// Its time has not come.
    #[error("not valid before {0}")]
    NotYetValid(OffsetDateTime),
    /// Its time is over.
    #[error("expired at {0}")]
    Expired(OffsetDateTime),
    /// It needs a newer host.
    #[error("needs sallyport {needs}")]
    HostTooOld {
        /// The lowest version it runs on.
        needs: semver::Version,
    },
    /// A later one was already accepted.
    #[error("serial {serial} is below {floor}, which was already accepted")]
    Downgraded {
        /// Its serial.
        serial: u64,
        /// The lowest serial accepted.
        floor: u64,
    },
    /// The publisher is revoked.
    #[error("the publisher's key {0} is revoked")]
    Revoked(KeyId),
    /// The statement that was signed cannot be read.
    #[error("the package is malformed")]
    Malformed(#[source] PackageError),
}

// === impl Package ===

impl Package {
    /// Reads a package. The component's bytes are shared with `bytes`, not copied. Errors: see
    /// [`PackageError`].
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, PackageError> {
        let bytes = bytes.into();
        let rest = bytes.strip_prefix(MAGIC).ok_or(PackageError::Magic)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(PackageError::Truncated)?;
        let length = usize::try_from(u32::from_be_bytes(*length))
            .map_err(|_| PackageError::EnvelopeSize(usize::MAX))?;
        if length > signature::MAX_ENVELOPE {
            return Err(PackageError::EnvelopeSize(length));
        }
        let (envelope, component) = rest.split_at_checked(length).ok_or(PackageError::Truncated)?;
        if component.is_empty() || component.len() > MAX_COMPONENT {
            return Err(PackageError::ComponentSize(component.len()));
        }
        let envelope = Envelope::parse(envelope).map_err(PackageError::Envelope)?;
        let statement = read_statement(&envelope.payload)?;
        let component = bytes.slice_ref(component);
        Ok(Self { envelope, statement, component })
    }

    /// Signs `statement` with `key` and packs it with `component`. `digest` and `size` of the statement are
    /// set from the component. Errors: [`PackageError::ComponentSize`], [`PackageError::EnvelopeSize`] and
    /// [`PackageError::Contradiction`], so that what is built can be read again.
    pub fn build(
        mut statement: Statement,
        key: &SigningKey,
        component: &[u8],
    ) -> Result<Vec<u8>, PackageError> {
        if component.is_empty() || component.len() > MAX_COMPONENT {
            return Err(PackageError::ComponentSize(component.len()));
        }
        statement.digest = Digest::of(component);
        statement.size = component.len() as u64;
        statement.check().map_err(PackageError::Contradiction)?;
        let payload = serde_json::to_vec(&statement)
            .map_err(|error| PackageError::Statement(StrictError::Shape(error)))?;
        let envelope = signature::sign(PAYLOAD_TYPE, payload, key).to_json();
        if envelope.len() > signature::MAX_ENVELOPE {
            return Err(PackageError::EnvelopeSize(envelope.len()));
        }
        let length = u32::try_from(envelope.len()).map_err(|_| PackageError::EnvelopeSize(envelope.len()))?;
        let mut out = Vec::with_capacity(MAGIC.len() + 4 + envelope.len() + component.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&envelope);
        out.extend_from_slice(component);
        Ok(out)
    }

    /// The envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// What the package says of itself. Unverified: fit for showing, not for deciding.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The component's bytes. Unverified.
    pub fn component(&self) -> &Bytes {
        &self.component
    }

    /// Decides whether the package may be trusted: signed, for this very purpose, by a publisher that may
    /// sign this name and kind for this tenant; the component is the one that was signed; the time is right;
    /// the host is new enough; no later serial was accepted before.
    ///
    /// `tenant` is the one that shall run it, `None` for all tenants: a publisher bound to a tenant is
    /// trusted for that tenant alone. `floor` is the highest serial accepted so far for this name. Errors:
    /// see [`TrustError`].
    pub fn verify(
        &self,
        publishers: &[Publisher],
        now: OffsetDateTime,
        host: &semver::Version,
        tenant: Option<&TenantId>,
        floor: Option<u64>,
    ) -> Result<Verified, TrustError> {
        let keys: Vec<(KeyId, &Publisher)> =
            publishers.iter().map(|publisher| (KeyId::of(&publisher.key), publisher)).collect();
        let pairs: Vec<_> = keys.iter().map(|(id, publisher)| (id, &publisher.key)).collect();
        let signed =
            signature::verify(&self.envelope, PAYLOAD_TYPE, &pairs).map_err(|error| match error {
                SignatureError::UnknownKey(key) => TrustError::UnknownKey(key),
                SignatureError::BadSignature(_) | SignatureError::PayloadType { .. } => {
                    TrustError::BadSignature
                }
                other => TrustError::Malformed(PackageError::Envelope(other)),
            })?;
        let statement = read_statement(signed.payload).map_err(TrustError::Malformed)?;
        let signers: Vec<&Publisher> =
            keys.iter().filter(|(id, _)| *id == signed.key).map(|(_, publisher)| *publisher).collect();
        if signers.iter().any(|signer| signer.revoked) {
            return Err(TrustError::Revoked(signed.key));
        }
        let signer = authorised(&signers, &statement, tenant)?;
        let actual = self.component.len() as u64;
        if actual != statement.size {
            return Err(TrustError::Size { signed: statement.size, actual });
        }
        if canonical::sha256(&self.component) != statement.digest.as_str() {
            return Err(TrustError::Digest);
        }
        if now < statement.not_before {
            return Err(TrustError::NotYetValid(statement.not_before));
        }
        if now >= statement.expires {
            return Err(TrustError::Expired(statement.expires));
        }
        if *host < statement.min_host {
            return Err(TrustError::HostTooOld { needs: statement.min_host });
        }
        if let Some(floor) = floor.filter(|floor| statement.serial < *floor) {
            return Err(TrustError::Downgraded { serial: statement.serial, floor });
        }
        Ok(Verified {
            statement,
            component: self.component.clone(),
            key: signed.key,
            tenant: signer.tenant.clone(),
            development: signer.development,
        })
    }
}

// === impl Verified ===

impl Verified {
    /// What was signed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The component's exact bytes.
    pub fn component(&self) -> &Bytes {
        &self.component
    }

    /// SHA-256 of the component: its identity.
    pub fn digest(&self) -> &Digest {
        &self.statement.digest
    }

    /// The key that signed it.
    pub fn key(&self) -> &KeyId {
        &self.key
    }

    /// The tenant that alone may run it; `None`: all.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Whether a development key signed it: refused off loopback.
    pub fn is_development(&self) -> bool {
        self.development
    }
}

/// The publisher entry that covers the statement. A key may have several; the error is that of the entry
/// which came closest.
fn authorised<'a>(
    signers: &[&'a Publisher],
    statement: &Statement,
    tenant: Option<&TenantId>,
) -> Result<&'a Publisher, TrustError> {
    let mut closest = TrustError::Namespace { namespace: statement.name.namespace().to_owned() };
    let in_namespace = signers.iter().filter(|signer| signer.namespace == statement.name.namespace());
    for signer in in_namespace {
        if !signer.kinds.contains(&statement.kind) {
            if !matches!(closest, TrustError::Tenant) {
                closest = TrustError::Kind { kind: statement.kind };
            }
        } else if signer.tenant.is_some() && signer.tenant.as_ref() != tenant {
            closest = TrustError::Tenant;
        } else {
            return Ok(signer);
        }
    }
    Err(closest)
}

/// A public key as text, for serde.
mod public_key {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::signature::{self, VerifyingKey};

    pub(super) fn serialize<S: Serializer>(key: &VerifyingKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&signature::public_key_text(key))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VerifyingKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        signature::public_key(&text).map_err(serde::de::Error::custom)
    }
}

fn read_statement(payload: &[u8]) -> Result<Statement, PackageError> {
    let statement: Statement =
        strict_json::parse(payload, strict_json::DEFAULT_LIMIT).map_err(PackageError::Statement)?;
    statement.check().map_err(PackageError::Contradiction)?;
    Ok(statement)
}

#[cfg(test)]
mod tests;
