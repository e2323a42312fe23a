//! What the database says, read at one moment: places, publishers, grants, revocations.

use std::collections::BTreeSet;

use sallyport_protocol::hooks::Attachment;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Kind, Package, Publisher, Statement};
use sallyport_protocol::signature::{self, KeyId};
use time::OffsetDateTime;

use super::CatalogError;
use super::place::Place;
use crate::component::{Component, Isolation, Tier, first_party_publisher};
use crate::config::{self, Config};
use crate::db::catalog::{Grant, PlaceRow, RevokedComponent, TrustedKey};
use crate::db::{Db, DbError};

/// What is stored.
pub(super) struct Stock {
    keys: Vec<TrustedKey>,
    grants: Vec<Grant>,
    revocations: Revocations,
    /// How many tenants there are.
    tenants: u64,
    /// The names of the platform's predicates.
    predicates: BTreeSet<String>,
    pub(super) places: Vec<Placed>,
}

/// What may not run any more.
pub(super) struct Revocations(Vec<RevokedComponent>);

/// A component's place, read.
pub(super) struct Placed {
    pub(super) tenant: Option<TenantId>,
    pub(super) name: String,
    pub(super) place: Place,
    /// For hooks: what the place says of them, read.
    pub(super) attachment: Attachment,
    pub(super) revision: i64,
}

/// What a revocation may name of a release.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) tenant: Option<&'a TenantId>,
    pub(super) name: &'a str,
    pub(super) version: &'a semver::Version,
    pub(super) digest: &'a str,
    pub(super) key: Option<&'a str>,
}

// === impl Stock ===

impl Stock {
    pub(super) async fn read(db: &Db) -> Result<Self, CatalogError> {
        let places = db.component_places().await?;
        Ok(Self {
            keys: db.trusted_keys().await?,
            grants: db.grants().await?,
            revocations: Revocations::read(db).await?,
            tenants: db.tenant_count().await?,
            predicates: db.component_names(Kind::Predicate.as_str()).await?.into_iter().collect(),
            places: places.into_iter().map(Placed::read).collect::<Result<_, _>>()?,
        })
    }

    /// Who could sign what for the bundle of `tenant` at the time `at`: those of the configuration, those of the catalog, and whoever signed the
    /// components inside the binary. A key that was revoked since is among them, marked.
    pub(super) fn publishers(
        &self,
        config: &Config,
        tenant: Option<&TenantId>,
        at: OffsetDateTime,
    ) -> Vec<Publisher> {
        let mut publishers = config.components.publishers.clone();
        publishers.extend(first_party_publisher());
        let standing = self.keys.iter().filter(|key| key.expires_at.is_none_or(|expires| at < expires));
        publishers.extend(standing.filter_map(publisher));
        // Whom another tenant trusts, or trusts no longer, is its own affair, though it may be the same key.
        publishers.retain(|it| it.tenant.is_none() || it.tenant.as_ref() == tenant);
        for publisher in &mut publishers {
            let id = KeyId::of(&publisher.key);
            publisher.revoked |= self.revoked().iter().any(|it| {
                it.kind == "key" && it.subject == id.as_str() && covers(it, publisher.tenant.as_ref())
            });
        }
        publishers
    }

    /// Where a component of `kind` runs that `tenant` brought, or that belongs to no tenant.
    pub(super) fn tier(&self, config: &Config, kind: Kind, tenant: Option<&TenantId>) -> Tier {
        let isolation = match config.components.isolation {
            config::Isolation::Tenants => Isolation::Tenants,
            config::Isolation::Process => Isolation::Process,
            config::Isolation::Shared => Isolation::Shared,
        };
        isolation.tier(kind, tenant, self.tenants)
    }

    /// Which of the statement's capabilities nobody granted.
    pub(super) fn missing(
        &self,
        tenant: Option<&TenantId>,
        statement: &Statement,
        now: OffsetDateTime,
    ) -> Vec<String> {
        let granted = |it: &&String| self.is_granted(tenant, statement.name.as_str(), it, now);
        statement.capabilities.iter().filter(|it| !granted(it)).cloned().collect()
    }

    /// Whether a component that ran already may go on: neither revoked nor without a grant.
    pub(super) fn allows(
        &self,
        component: &Component,
        tenant: Option<&TenantId>,
        now: OffsetDateTime,
    ) -> bool {
        let granted = |it: &String| self.is_granted(tenant, component.name(), it, now);
        self.revocation(Subject::component(component, tenant)).is_none()
            && component.capabilities().iter().all(granted)
    }

    fn is_granted(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        capability: &str,
        now: OffsetDateTime,
    ) -> bool {
        self.grants.iter().any(|grant| {
            grant.tenant_id == crate::db::catalog::scope(tenant)
                && grant.name == name
                && grant.capability == capability
                && grant.expires_at.is_none_or(|expires| now < expires)
        })
    }

    /// When the next grant expires.
    pub(super) fn next_expiry(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.grants.iter().filter_map(|grant| grant.expires_at).filter(|expires| *expires > now).min()
    }

    /// Why this release may not run.
    pub(super) fn revocation(&self, subject: Subject<'_>) -> Option<&RevokedComponent> {
        self.revocations.of(subject)
    }

    /// The place of one of the platform's predicates, if the catalog has it.
    pub(super) fn predicate(&self, name: &str) -> Option<&Placed> {
        self.places.iter().find(|it| it.name == name && self.is_predicate(it))
    }

    /// Whether it is a predicate's place: routes ask it, and no call does.
    pub(super) fn is_predicate(&self, placed: &Placed) -> bool {
        placed.tenant.is_none() && self.predicates.contains(&placed.name)
    }

    /// Everything that was revoked.
    pub(super) fn revoked(&self) -> &[RevokedComponent] {
        &self.revocations.0
    }

    /// Every trusted key.
    pub(super) fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// Every grant.
    pub(super) fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

// === impl Revocations ===

impl Revocations {
    pub(super) async fn read(db: &Db) -> Result<Self, DbError> {
        Ok(Self(db.revoked_components().await?))
    }

    /// The first that names the release.
    pub(super) fn of(&self, subject: Subject<'_>) -> Option<&RevokedComponent> {
        let release = format!("{}@{}", subject.name, subject.version);
        self.0.iter().find(|it| {
            covers(it, subject.tenant)
                && match it.kind.as_str() {
                    "digest" => it.subject == subject.digest,
                    "version" => it.subject == release,
                    "key" => subject.key == Some(it.subject.as_str()),
                    _ => false,
                }
        })
    }
}

// === impl Placed ===

impl Placed {
    pub(super) fn read(row: PlaceRow) -> Result<Self, CatalogError> {
        let stored = || CatalogError::Stored(row.name.clone());
        let tenant = match row.tenant_id.as_str() {
            "" => None,
            id => Some(TenantId::parse(id).map_err(|_| stored())?),
        };
        let place: Place = serde_json::from_value(row.place.0.clone()).map_err(|_| stored())?;
        let attachment = place.told.attachment().map_err(|_| stored())?;
        Ok(Self { tenant, place, attachment, revision: row.revision, name: row.name })
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// A package as it may be put into the bundle of `tenant`.
    pub(super) fn package(package: &'a Package, tenant: Option<&'a TenantId>) -> Self {
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

    /// A component that runs in the bundle of `tenant`.
    pub(super) fn component(component: &'a Component, tenant: Option<&'a TenantId>) -> Self {
        Self {
            tenant,
            name: component.name(),
            version: component.version(),
            digest: component.digest(),
            key: component.publisher().map(KeyId::as_str),
        }
    }
}

// === private helpers ===

/// A revocation without a tenant counts for all; one of a tenant for what is in its own bundle.
fn covers(revoked: &RevokedComponent, tenant: Option<&TenantId>) -> bool {
    revoked.tenant_id.is_empty() || tenant.is_some_and(|tenant| tenant.as_str() == revoked.tenant_id)
}

/// A stored key, as the package's judge wants it; `None` if it cannot be read, and so signs nothing.
fn publisher(key: &TrustedKey) -> Option<Publisher> {
    let tenant = match key.tenant_id.as_str() {
        "" => None,
        id => Some(TenantId::parse(id).ok()?),
    };
    let kinds = key.kinds.0.iter().map(|kind| Kind::parse(kind)).collect::<Option<_>>()?;
    let public = signature::public_key(&key.public_key).ok()?;
    Some(Publisher {
        key: public,
        namespace: key.namespace.clone(),
        kinds,
        tenant,
        development: false,
        revoked: false,
    })
}
