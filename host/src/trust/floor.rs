//! Floors: the highest serial of each name that was in force. Serials only rise, and a publisher never gives one to two releases.

use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::Verified;

use super::{Distrust, Trust};
use crate::db::component::Floor as Stored;

/// What was in force, of one name in one catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SerialFloor {
    pub(super) serial: u64,
    digest: String,
}

// === impl SerialFloor ===

impl SerialFloor {
    /// Refuses another release with the same serial. A developer builds the same serial again and again.
    pub(super) fn check(&self, verified: &Verified) -> Result<(), Distrust> {
        let statement = verified.statement();
        let same = self.serial == statement.serial && self.digest == statement.digest.hex();
        if self.serial != statement.serial || same || verified.is_development() {
            return Ok(());
        }
        Err(Distrust::OtherRelease { name: statement.name.to_string(), serial: statement.serial })
    }
}

// === impl Trust ===

impl Trust {
    /// The highest serial of `name` that was in force in the catalog of `tenant`; `None` if it never was.
    pub(super) async fn floor(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
    ) -> Result<Option<SerialFloor>, Distrust> {
        let Some(Stored { serial, digest }) = self.db.component_floor(&key(tenant, name)).await? else {
            return Ok(None);
        };
        let serial = u64::try_from(serial).map_err(|_| Distrust::Floor(name.to_owned()))?;
        Ok(Some(SerialFloor { serial, digest }))
    }

    /// A release was put in force: nothing older of its name follows without a record.
    pub async fn raise_floor(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        serial: u64,
        digest: &str,
    ) -> Result<(), Distrust> {
        let serial = i64::try_from(serial).map_err(|_| Distrust::Floor(name.to_owned()))?;
        let floor = Stored { serial, digest: digest.to_owned() };
        Ok(self.db.raise_component_floor(&key(tenant, name), &floor).await?)
    }
}

// === private helpers ===

/// Each tenant's catalog has floors of its own. No component's name has a colon.
fn key(tenant: Option<&TenantId>, name: &str) -> String {
    tenant.map_or_else(|| name.to_owned(), |tenant| format!("{tenant}:{name}"))
}
