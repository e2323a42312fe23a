//! What the database says, read at one moment: places, grants, and who is trusted.

use std::collections::BTreeSet;

use sallyport_protocol::hooks::Attachment;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Capability, Kind, Statement};
use sallyport_protocol::signature::KeyId;
use time::OffsetDateTime;

use super::CatalogError;
use super::place::Place;
use crate::component::{Component, Isolation, RunsIn};
use crate::config::{self, Config};
use crate::db::Db;
use crate::db::catalog::{Grant, PlaceRow};
use crate::trust::{RevocationSubject, Trust, TrustState};

/// What is stored.
pub(super) struct CatalogState {
    /// Who is trusted, and what was revoked.
    pub(super) trust: TrustState,
    grants: Vec<Grant>,
    /// How many tenants there are.
    tenants: u64,
    /// The names of the platform's predicates.
    predicates: BTreeSet<String>,
    pub(super) places: Vec<Placed>,
}

/// A component's place, read.
pub(super) struct Placed {
    pub(super) tenant: Option<TenantId>,
    pub(super) name: String,
    pub(super) place: Place,
    /// For hooks: what the place says of them, read.
    pub(super) attachment: Attachment,
    pub(super) revision: i64,
}

// === impl CatalogState ===

impl CatalogState {
    pub(super) async fn read(db: &Db, trust: &Trust) -> Result<Self, CatalogError> {
        let places = db.component_places().await?;
        Ok(Self {
            trust: trust.read().await?,
            grants: db.grants().await?,
            tenants: db.tenant_count().await?,
            predicates: db.component_names(Kind::Predicate.as_str()).await?.into_iter().collect(),
            places: places.into_iter().map(Placed::read).collect::<Result<_, _>>()?,
        })
    }

    /// Where a component of `kind` runs that `tenant` brought, or that belongs to no tenant.
    pub(super) fn tier(&self, config: &Config, kind: Kind, tenant: Option<&TenantId>) -> RunsIn {
        let isolation = match config.components.isolation {
            config::IsolationSetting::Tenants => Isolation::Tenants,
            config::IsolationSetting::Process => Isolation::Process,
            config::IsolationSetting::Shared => Isolation::Shared,
        };
        isolation.tier(kind, tenant, self.tenants)
    }

    /// Which of the statement's capabilities nobody granted.
    pub(super) fn missing(
        &self,
        tenant: Option<&TenantId>,
        statement: &Statement,
        now: OffsetDateTime,
    ) -> Vec<Capability> {
        let granted = |it: &&Capability| self.is_granted(tenant, statement.name.as_str(), it, now);
        statement.capabilities.iter().filter(|it| !granted(it)).cloned().collect()
    }

    /// Whether a component that ran already may go on: neither revoked nor without a grant.
    pub(super) fn allows(
        &self,
        component: &Component,
        tenant: Option<&TenantId>,
        now: OffsetDateTime,
    ) -> bool {
        let granted = |it: &Capability| self.is_granted(tenant, component.name(), it, now);
        self.trust.revocations().of(subject(component, tenant)).is_none()
            && component.capabilities().iter().all(granted)
    }

    fn is_granted(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        capability: &Capability,
        now: OffsetDateTime,
    ) -> bool {
        let capability = capability.to_string();
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

    /// The place of one of the platform's predicates, if the catalog has it.
    pub(super) fn predicate(&self, name: &str) -> Option<&Placed> {
        self.places.iter().find(|it| it.name == name && self.is_predicate(it))
    }

    /// Whether it is a predicate's place: routes ask it, and no call does.
    pub(super) fn is_predicate(&self, placed: &Placed) -> bool {
        placed.tenant.is_none() && self.predicates.contains(&placed.name)
    }

    /// Every grant.
    pub(super) fn grants(&self) -> &[Grant] {
        &self.grants
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
        let attachment = place.attachment.read().map_err(|_| stored())?;
        Ok(Self { tenant, place, attachment, revision: row.revision, name: row.name })
    }
}

// === private helpers ===

/// A component that runs in the bundle of `tenant`, as a revocation may name it.
pub(super) fn subject<'a>(component: &'a Component, tenant: Option<&'a TenantId>) -> RevocationSubject<'a> {
    RevocationSubject {
        tenant,
        name: component.name(),
        version: component.version(),
        digest: component.digest(),
        key: component.publisher().map(KeyId::as_str),
    }
}
