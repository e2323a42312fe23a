//! What an administrator sees of a catalog.

use std::collections::BTreeMap;

use sallyport_protocol::canonical;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{Capability, Package, Statement};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::place::{Place, Placement, Tried};
use super::state::{CatalogState, Placed};
use super::{
    ActiveRelease, Catalog, CatalogError, ComponentList, ComponentPlace, ComponentVersion, ListedComponent,
    NewestRelease, ShownComponent, ShownGrant, TriedRelease, VersionStage,
};
use crate::db::catalog::{Version, scope};

impl Catalog {
    /// Every component of a catalog.
    pub async fn list(&self, tenant: Option<&TenantId>) -> Result<ComponentList, CatalogError> {
        let mut versions: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        for version in self.db.component_versions(tenant).await? {
            versions.entry(version.name.clone()).or_default().push(version);
        }
        let snapshot = CatalogState::read(&self.db, &self.trust).await?;
        let levels = self.shown_levels().await?;
        let components = versions.into_iter().filter_map(|(name, versions)| {
            let placed = snapshot.places.iter().find(|it| it.tenant.as_ref() == tenant && it.name == name);
            Some(ListedComponent {
                kind: versions.last()?.kind.clone(),
                place: placed.map(shown),
                versions: versions.iter().map(|it| state(it, placed, &levels)).collect(),
                name,
            })
        });
        Ok(ComponentList { components: components.collect(), usage: self.usage(tenant).await? })
    }

    /// One component: its versions, its place, what it may do, and what the newest release wants besides.
    pub async fn show(&self, tenant: Option<&TenantId>, name: &str) -> Result<ShownComponent, CatalogError> {
        let versions = self.db.component_versions(tenant).await?;
        let versions: Vec<_> = versions.into_iter().filter(|version| version.name == name).collect();
        let Some(newest) = versions.last() else { return Err(CatalogError::NotFound) };
        let snapshot = CatalogState::read(&self.db, &self.trust).await?;
        let levels = self.shown_levels().await?;
        let placed = snapshot.places.iter().find(|it| it.tenant.as_ref() == tenant && it.name == name);
        let statement = self.stated(tenant, name, &newest.version).await?;
        let active = placed.and_then(|placed| placed.place.active.as_ref());
        let held = match active {
            Some(active) => self.stated(tenant, name, &active.version).await?.capabilities,
            None => Vec::new(),
        };
        let granted = snapshot.grants().iter();
        let grants = granted.filter(|grant| grant.tenant_id == scope(tenant) && grant.name == name);
        let grants = grants.map(|grant| ShownGrant {
            capability: grant.capability.clone(),
            granted_at: stamp(grant.granted_at),
            granted_by: grant.granted_by.clone(),
            expires_at: grant.expires_at.map(stamp),
        });
        let added = statement.capabilities.iter().filter(|it| !held.contains(it));
        let dropped = held.iter().filter(|it| !statement.capabilities.contains(it));
        let missing = snapshot.missing(tenant, &statement, self.clock.now());
        Ok(ShownComponent {
            name: name.to_owned(),
            kind: newest.kind.clone(),
            place: placed.map(shown),
            versions: versions.iter().map(|it| state(it, placed, &levels)).collect(),
            grants: grants.collect(),
            newest: NewestRelease {
                version: newest.version.clone(),
                capabilities: statement.capabilities.iter().map(Capability::to_string).collect(),
                events: statement.events.iter().map(|event| event.as_str().to_owned()).collect(),
                added_capabilities: added.map(Capability::to_string).collect(),
                dropped_capabilities: dropped.map(Capability::to_string).collect(),
                needs_grant: missing.iter().map(Capability::to_string).collect(),
            },
        })
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

/// What was shown of providers, by the digests of component and configuration.
type KnownLevels = BTreeMap<(String, String), BTreeMap<String, String>>;

fn shown(placed: &Placed) -> ComponentPlace {
    let Place { order, attachment, active, trial, previous } = &placed.place;
    ComponentPlace {
        order: *order,
        attachment: attachment.clone(),
        revision: placed.revision,
        active: active.as_ref().map(in_force),
        trial: trial.as_ref().map(tried),
        previous: previous.iter().map(|it| it.version.clone()).collect(),
    }
}

fn in_force(placement: &Placement) -> ActiveRelease {
    ActiveRelease {
        version: placement.version.clone(),
        mode: placement.mode,
        config: placement.config.clone(),
        since: stamp(placement.since),
        rolled_back: placement.rollback.is_some(),
    }
}

fn tried(trial: &Tried) -> TriedRelease {
    TriedRelease {
        stage: stage(trial),
        percent: trial.percent,
        version: trial.placement.version.clone(),
        mode: trial.placement.mode,
        config: trial.placement.config.clone(),
        since: stamp(trial.placement.since),
    }
}

fn stage(trial: &Tried) -> VersionStage {
    if trial.percent.is_some() { VersionStage::Canary } else { VersionStage::Shadow }
}

/// A version and where it is in its life.
fn state(version: &Version, placed: Option<&Placed>, levels: &KnownLevels) -> ComponentVersion {
    let place = placed.map(|placed| &placed.place);
    let is = |placement: Option<&Placement>| placement.is_some_and(|it| it.version == version.version);
    let trial = place.and_then(|place| place.trial.as_ref());
    let stage = if is(place.and_then(|place| place.active.as_ref())) {
        VersionStage::Active
    } else if let Some(trial) = trial.filter(|trial| is(Some(&trial.placement))) {
        stage(trial)
    } else if place.is_some_and(|place| place.previous.iter().any(|it| it.version == version.version)) {
        VersionStage::Superseded
    } else {
        VersionStage::Staged
    };
    let placements = [place.and_then(|place| place.active.as_ref()), trial.map(|trial| &trial.placement)];
    let placement = placements.into_iter().flatten().find(|it| it.version == version.version);
    let unconfigured = json!({});
    let config = canonical::digest(placement.map_or(&unconfigured, |it| &it.config));
    ComponentVersion {
        version: version.version.clone(),
        serial: version.serial,
        digest: version.digest.clone(),
        stage,
        uploaded_at: stamp(version.uploaded_at),
        uploaded_by: version.uploaded_by.clone(),
        levels: levels.get(&(version.digest.clone(), config)).cloned(),
    }
}

pub(super) fn stamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
