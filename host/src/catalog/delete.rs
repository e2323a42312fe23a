//! Deletions: a version that nobody uses is forgotten, and its bytes are given back.

use serde_json::json;

use super::place::{DEFAULT_ORDER, Place};
use super::state::Placed;
use super::{Actor, Catalog, CatalogError, DeletedVersion};
use crate::audit::Action;
use crate::causes::Causes;
use crate::db::catalog::{Json, PlaceRow, scope};

impl Catalog {
    /// Deletes a version: neither in force nor tried, no step back leads to it, and no evidence needs it to be run again.
    pub async fn delete(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<DeletedVersion, CatalogError> {
        let tenant = actor.tenant.as_ref();
        let found = self.db.component_version(tenant, name, version).await?.ok_or(CatalogError::NotFound)?;
        let (place, revision) = match self.db.component_place(tenant, name).await? {
            Some(row) => Placed::read(row).map(|placed| (placed.place, placed.revision))?,
            None => (Place::new(DEFAULT_ORDER), 0),
        };
        if let Some(use_) = place.use_of(version) {
            return Err(CatalogError::InUse(format!("{name}@{version} {use_}")));
        }
        if self.db.evidence_needs(tenant, &found.digest).await? {
            let what =
                format!("{name}@{version} answered calls whose evidence is kept, and could not be run again");
            return Err(CatalogError::InUse(what));
        }
        let payload = json!({
            "component": name,
            "version": version,
            "serial": found.serial,
            "digest": found.digest,
        });
        self.record(actor, Action::ComponentDelete, payload).await?;
        let stored = |_| CatalogError::Stored(name.to_owned());
        // The place's next revision: whoever was about to put this version there is told that something changed.
        let row = PlaceRow {
            tenant_id: scope(tenant).to_owned(),
            name: name.to_owned(),
            place: Json(serde_json::to_value(&place).map_err(stored)?),
            revision: revision + 1,
        };
        if !self.db.delete_component_version(&row, version).await? {
            return Err(CatalogError::Changed);
        }
        if let Err(error) = self.db.give_space_back().await {
            tracing::warn!("the database keeps the space of what was deleted: {}", Causes(&error));
        }
        let usage = self.usage(tenant).await?;
        Ok(DeletedVersion { name: name.to_owned(), deleted: version.to_owned(), usage })
    }
}
