//! Revocations: what may not run any more, and which releases each of them names.

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::Package;

use crate::db::catalog::{RevocationKind, RevokedComponent};
use crate::db::{Db, DbError};

/// What may not run any more.
pub struct Revocations(Vec<RevokedComponent>);

/// What a revocation may name of a release.
#[derive(Debug, Clone, Copy)]
pub struct RevocationSubject<'a> {
    /// The tenant in whose bundle it is; `None`: in everybody's.
    pub tenant: Option<&'a TenantId>,
    /// `namespace/name`
    pub name: &'a str,
    /// The publisher's version.
    pub version: &'a semver::Version,
    /// SHA-256 of the component, 64 hex digits.
    pub digest: &'a str,
    /// The id of the key that signed it.
    pub key: Option<&'a str>,
}

// === impl Revocations ===

impl Revocations {
    /// What is revoked now.
    pub async fn read(db: &Db) -> Result<Self, DbError> {
        Ok(Self(db.revoked_components().await?))
    }

    /// The first that names the release.
    pub fn of(&self, subject: RevocationSubject<'_>) -> Option<&RevokedComponent> {
        let release = format!("{}@{}", subject.name, subject.version);
        self.0.iter().find(|it| {
            covers(it, subject.tenant)
                && (names(it, RevocationKind::Digest, subject.digest)
                    || names(it, RevocationKind::Version, &release)
                    || subject.key.is_some_and(|key| names(it, RevocationKind::Key, key)))
        })
    }

    /// The first that names everything that a key signed, for all or for `tenant`.
    pub fn of_key(&self, key: &str, tenant: Option<&TenantId>) -> Option<&RevokedComponent> {
        self.0.iter().find(|it| covers(it, tenant) && names(it, RevocationKind::Key, key))
    }

    /// Those that `tenant` may see: its own, and those that count for all.
    pub fn seen_by(&self, tenant: Option<&TenantId>) -> impl Iterator<Item = &RevokedComponent> {
        self.0.iter().filter(move |it| covers(it, tenant))
    }
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Revocations").field(&self.0.len()).finish()
    }
}

// === impl RevocationSubject ===

impl<'a> RevocationSubject<'a> {
    /// A package as it may be put into the bundle of `tenant`.
    pub fn package(package: &'a Package, tenant: Option<&'a TenantId>) -> Self {
        let statement = package.statement();
        let key = package.envelope().signatures.first().map(|signature| signature.keyid.as_str());
        Self {
            tenant,
            name: statement.name.as_str(),
            version: &statement.version,
            digest: statement.digest.hex(),
            key,
        }
    }
}

// === private helpers ===

fn names(revoked: &RevokedComponent, kind: RevocationKind, subject: &str) -> bool {
    revoked.kind == kind.as_str() && revoked.subject == subject
}

/// A revocation without a tenant counts for all; one of a tenant for what is in its own bundle.
fn covers(revoked: &RevokedComponent, tenant: Option<&TenantId>) -> bool {
    revoked.tenant_id.is_empty() || tenant.is_some_and(|tenant| tenant.as_str() == revoked.tenant_id)
}
