//! Whom the gateway believes: who may sign what, what was revoked, and which serials were in force. Every package that goes
//! into a bundle is verified here, by one sequence of checks, so that no way into force leaves one of them out.
//!
//! Components are what is signed today. Nothing here knows what a package is good for: it knows names, keys and serials.

mod floor;
mod publisher;
mod revocation;
mod rollback;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Package, Publisher, TrustError, Verified};
use sallyport_protocol::signature::SigningKey;
use time::OffsetDateTime;

use crate::db::catalog::TrustedKey;
use crate::db::{Db, DbError};

pub use self::revocation::{RevocationSubject, Revocations};

/// What decides about packages and stays the same while the gateway runs.
#[derive(Clone)]
pub struct Trust {
    db: Db,
    /// Signs the records of steps back, and proves them.
    rollback_key: SigningKey,
    /// What packages mean by the version of the gateway.
    host: semver::Version,
}

/// Who is trusted and what was revoked, as it was stored at one moment.
pub struct TrustState {
    trust: Trust,
    keys: Vec<TrustedKey>,
    revocations: Revocations,
}

/// What a package is verified for.
#[derive(Debug, Clone, Copy)]
pub struct Requirement<'a> {
    /// The tenant in whose bundle it shall run; `None`: in everybody's.
    pub tenant: Option<&'a TenantId>,
    /// Who may sign besides those that are stored: the publishers of the configuration, and of the binary.
    pub publishers: &'a [Publisher],
    /// Keys that were trusted at this time may have signed it: when it was put in its place. What was revoked since does not
    /// run all the same.
    pub signed_by: OffsetDateTime,
    /// The package has to be valid at this time.
    pub valid_at: OffsetDateTime,
    /// A signed record that says that exactly this release was put in force again, after a later one.
    pub rollback: Option<&'a str>,
}

/// Why a package may not run.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It was revoked, for the reason that is given.
    #[error("it was revoked: {0}")]
    Revoked(String),
    /// Nobody who may sign it did, or it is not for here and now.
    #[error("the package is not trusted")]
    Package(#[from] TrustError),
    /// Its serial belongs to another release.
    #[error("the serial {serial} of {name} is known with other bytes")]
    OtherRelease {
        /// `namespace/name`
        name: String,
        /// The publisher's serial.
        serial: u64,
    },
    /// What is stored of the highest serial that was in force cannot be read.
    #[error("the highest serial of {0} cannot be read")]
    Floor(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

// === impl Trust ===

impl Trust {
    /// Decides by what `db` holds, for a gateway of version `host`.
    pub fn new(db: Db, rollback_key: SigningKey, host: semver::Version) -> Self {
        Self { db, rollback_key, host }
    }

    /// What is stored now.
    pub async fn read(&self) -> Result<TrustState, DbError> {
        Ok(TrustState {
            trust: self.clone(),
            keys: self.db.trusted_keys().await?,
            revocations: Revocations::read(&self.db).await?,
        })
    }

    /// The version of the gateway.
    pub fn host(&self) -> &semver::Version {
        &self.host
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Trust").field("host", &self.host).finish_non_exhaustive()
    }
}

// === impl TrustState ===

impl TrustState {
    /// Decides whether the package may run for this purpose. It was not revoked; somebody who may sign it signed it, for this
    /// gateway and this time; and no later release of its name was in force, unless a record proves the step back.
    pub async fn verify(&self, package: &Package, purpose: Requirement<'_>) -> Result<Verified, Distrust> {
        if let Some(revoked) = self.revocations.of(RevocationSubject::package(package, purpose.tenant)) {
            return Err(Distrust::Revoked(revoked.reason.clone()));
        }
        let floor = if self.trust.proves_rollback(package, purpose) {
            None
        } else {
            self.trust.floor(purpose.tenant, package.statement().name.as_str()).await?
        };
        let publishers = self.publishers(purpose);
        let serial = floor.as_ref().map(|floor| floor.serial);
        let verified =
            package.verify(&publishers, purpose.valid_at, &self.trust.host, purpose.tenant, serial)?;
        floor.map_or(Ok(()), |floor| floor.check(&verified))?;
        Ok(verified)
    }

    /// Every stored key.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// Everything that was revoked.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }
}

impl std::fmt::Debug for TrustState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TrustState").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
