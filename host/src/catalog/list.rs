//! What an administrator sees of a catalog.

use std::collections::BTreeMap;

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Package, Statement};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::place::{Place, Placement};
use super::stock::{Placed, Stock};
use super::{Catalog, CatalogError};
use crate::db::catalog::{Version, scope};

impl Catalog {
    /// Every component of a catalog.
    pub async fn list(&self, tenant: Option<&TenantId>) -> Result<Value, CatalogError> {
        let mut versions: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        for version in self.db.component_versions(tenant).await? {
            versions.entry(version.name.clone()).or_default().push(version);
        }
        let stock = Stock::read(&self.db).await?;
        let components: Vec<_> = versions
            .iter()
            .map(|(name, versions)| {
                let placed = stock.places.iter().find(|it| it.tenant.as_ref() == tenant && it.name == *name);
                json!({
                    "name": name,
                    "kind": versions.last().map(|version| version.kind.as_str()),
                    "place": placed.map(shown),
                    "versions": versions.iter().map(|it| state(it, placed)).collect::<Vec<_>>(),
                })
            })
            .collect();
        Ok(json!({ "components": components, "usage": self.usage(tenant).await? }))
    }

    /// One component: its versions, its place, what it may do, and what the newest release wants besides.
    pub async fn show(&self, tenant: Option<&TenantId>, name: &str) -> Result<Value, CatalogError> {
        let versions = self.db.component_versions(tenant).await?;
        let versions: Vec<_> = versions.into_iter().filter(|version| version.name == name).collect();
        let Some(newest) = versions.last() else { return Err(CatalogError::NotFound) };
        let stock = Stock::read(&self.db).await?;
        let placed = stock.places.iter().find(|it| it.tenant.as_ref() == tenant && it.name == name);
        let statement = self.stated(tenant, name, &newest.version).await?;
        let active = placed.and_then(|placed| placed.place.active.as_ref());
        let held = match active {
            Some(active) => self.stated(tenant, name, &active.version).await?.capabilities,
            None => Vec::new(),
        };
        let grants: Vec<_> = stock
            .grants()
            .iter()
            .filter(|grant| grant.tenant_id == scope(tenant) && grant.name == name)
            .map(|grant| {
                json!({
                    "capability": grant.capability,
                    "granted_at": stamp(grant.granted_at),
                    "granted_by": grant.granted_by,
                    "expires_at": grant.expires_at.map(stamp),
                })
            })
            .collect();
        let added: Vec<_> = statement.capabilities.iter().filter(|it| !held.contains(it)).collect();
        let dropped: Vec<_> = held.iter().filter(|it| !statement.capabilities.contains(it)).collect();
        Ok(json!({
            "name": name,
            "kind": newest.kind,
            "place": placed.map(shown),
            "versions": versions.iter().map(|it| state(it, placed)).collect::<Vec<_>>(),
            "grants": grants,
            "newest": {
                "version": newest.version,
                "capabilities": statement.capabilities,
                "events": statement.events.iter().map(|event| event.as_str()).collect::<Vec<_>>(),
                "added_capabilities": added,
                "dropped_capabilities": dropped,
                "needs_grant": stock.missing(tenant, &statement, self.clock.now()),
            },
        }))
    }

    async fn stated(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        version: &str,
    ) -> Result<Statement, CatalogError> {
        let stored = || CatalogError::Stored(name.to_owned());
        let bytes = self.db.component_package(tenant, name, version).await?.ok_or_else(stored)?;
        Package::parse(bytes).map(|package| package.statement().clone()).map_err(|_| stored())
    }
}

// === private helpers ===

fn shown(placed: &Placed) -> Value {
    let Place { order, told, active, trial, previous } = &placed.place;
    json!({
        "order": order,
        "told": told,
        "revision": placed.revision,
        "active": active.as_ref().map(placement),
        "trial": trial.as_ref().map(|trial| json!({
            "stage": if trial.percent.is_some() { "canary" } else { "shadow" },
            "percent": trial.percent,
            "version": trial.placement.version,
            "mode": trial.placement.mode.as_str(),
            "config": trial.placement.config,
            "since": stamp(trial.placement.since),
        })),
        "previous": previous.iter().map(|it| it.version.as_str()).collect::<Vec<_>>(),
    })
}

fn placement(placement: &Placement) -> Value {
    json!({
        "version": placement.version,
        "mode": placement.mode.as_str(),
        "config": placement.config,
        "since": stamp(placement.since),
        "rolled_back": placement.rollback.is_some(),
    })
}

/// A version and where it is in its life.
fn state(version: &Version, placed: Option<&Placed>) -> Value {
    let place = placed.map(|placed| &placed.place);
    let is = |placement: Option<&Placement>| placement.is_some_and(|it| it.version == version.version);
    let tried = place.and_then(|place| place.trial.as_ref());
    let stage = if is(place.and_then(|place| place.active.as_ref())) {
        "active"
    } else if is(tried.map(|trial| &trial.placement)) {
        if tried.is_some_and(|trial| trial.percent.is_some()) { "canary" } else { "shadow" }
    } else if place.is_some_and(|place| place.previous.iter().any(|it| it.version == version.version)) {
        "superseded"
    } else {
        "staged"
    };
    json!({
        "version": version.version,
        "serial": version.serial,
        "digest": version.digest,
        "stage": stage,
        "uploaded_at": stamp(version.uploaded_at),
        "uploaded_by": version.uploaded_by,
    })
}

pub(super) fn stamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
