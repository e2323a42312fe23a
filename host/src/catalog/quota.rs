//! What a tenant may store and upload, so that none fills what all share. The platform's own catalog has no such limits.

use std::sync::PoisonError;

use sallyport_protocol::id::TenantId;

use super::{Actor, Catalog, CatalogError, CatalogUsage};
use crate::component::HourlyBudget;
use crate::config::Quota;
use crate::db::catalog::{Room, Usage};

impl Catalog {
    /// Somebody is about to upload a package: counted before it is read, whatever becomes of it.
    pub fn begin_upload(&self, actor: &Actor) -> Result<(), CatalogError> {
        let Some((tenant, quota)) = self.quota_of(actor.tenant.as_ref())? else { return Ok(()) };
        let now = self.clock.monotonic();
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, left| !left.is_full(now));
        let left =
            uploads.entry(tenant.clone()).or_insert_with(|| HourlyBudget::full(quota.uploads_per_hour, now));
        *left = left.with_hourly(quota.uploads_per_hour, now);
        left.check(now).map_err(|retry_after| CatalogError::QuotaUploads { retry_after })?;
        left.take(1.0, now);
        Ok(())
    }

    /// Whether so many bytes fit besides what is stored.
    pub(super) async fn check_room(
        &self,
        tenant: Option<&TenantId>,
        more: usize,
    ) -> Result<Option<Room>, CatalogError> {
        let Some((_, quota)) = self.quota_of(tenant)? else { return Ok(None) };
        let room = Room {
            versions: i64::from(quota.versions),
            bytes: i64::try_from(quota.bytes).unwrap_or(i64::MAX),
        };
        let used = self.db.component_usage(tenant).await?;
        match no_room(&room, &used, more) {
            Some(error) => Err(error),
            None => Ok(Some(room)),
        }
    }

    /// What is stored in a catalog, and how much may be.
    pub(super) async fn usage(&self, tenant: Option<&TenantId>) -> Result<CatalogUsage, CatalogError> {
        let used = self.db.component_usage(tenant).await?;
        let quota = self.quota_of(tenant)?.map(|(_, quota)| quota);
        Ok(CatalogUsage {
            bytes: used.bytes,
            versions: used.versions,
            max_bytes: quota.map(|quota| quota.bytes),
            max_versions: quota.map(|quota| quota.versions),
        })
    }

    fn quota_of<'a>(
        &self,
        tenant: Option<&'a TenantId>,
    ) -> Result<Option<(&'a TenantId, Quota)>, CatalogError> {
        let Some(tenant) = tenant else { return Ok(None) };
        let config = self.config.load_full().ok_or(CatalogError::NotYet)?;
        Ok(Some((tenant, config.components.quota)))
    }
}

/// What keeps so many bytes from being stored besides what is used; `None` if nothing does.
pub(super) fn no_room(room: &Room, used: &Usage, more: usize) -> Option<CatalogError> {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    if used.versions >= room.versions {
        return Some(CatalogError::QuotaVersions { most: count(room.versions) });
    }
    if count(used.bytes).saturating_add(more) > count(room.bytes) {
        return Some(CatalogError::QuotaBytes { used: count(used.bytes), more, most: count(room.bytes) });
    }
    None
}
