//! The catalog of components as stored: what was uploaded, its place in a bundle, and the epoch that tells every gateway to
//! read again. A `tenant` of `None` is the platform.

use sallyport_protocol::id::TenantId;
pub use sqlx::types::Json;
use time::OffsetDateTime;

use super::{CATALOG_MOVED, Db, DbError, on, seconds};

mod notify;
mod trust;

pub use self::notify::Changes;
pub use self::trust::{Grant, RevocationKind, RevokedComponent, TrustedKey};

/// One version of a component, without its package.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Version {
    /// The tenant's id, or empty for the platform.
    pub tenant_id: String,
    /// `namespace/name`
    pub name: String,
    /// The publisher's version.
    pub version: String,
    /// The publisher's serial.
    pub serial: i64,
    /// What it is.
    pub kind: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// When it was uploaded.
    pub uploaded_at: OffsetDateTime,
    /// By whom.
    pub uploaded_by: String,
}

/// A component's place in a bundle.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct PlaceRow {
    /// The tenant's id, or empty for the platform.
    pub tenant_id: String,
    /// `namespace/name`
    pub name: String,
    /// Which versions are in force, are tried, and were in force: JSON of the catalog's own.
    pub place: Json<serde_json::Value>,
    /// Rises with every step.
    pub revision: i64,
}

/// The tenant's column.
pub(crate) fn scope(tenant: Option<&TenantId>) -> &str {
    tenant.map_or("", TenantId::as_str)
}

// === impl Db ===

impl Db {
    /// How often the catalog changed so far.
    pub async fn catalog_epoch(&self) -> Result<i64, DbError> {
        Ok(
            on!(self, pool => sqlx::query_scalar("SELECT epoch FROM catalog_epoch WHERE id = 1").fetch_one(pool).await?),
        )
    }

    /// Keeps an uploaded package; `false` if this version is there already.
    pub async fn insert_component_version(&self, version: &Version, package: &[u8]) -> Result<bool, DbError> {
        let inserted = on!(self, pool => {
            let mut tx = pool.begin().await?;
            let inserted = sqlx::query(
                "INSERT INTO component_versions \
                 (tenant_id, name, version, serial, kind, digest, package, uploaded_at, uploaded_by) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING")
                .bind(&version.tenant_id).bind(&version.name).bind(&version.version).bind(version.serial)
                .bind(&version.kind).bind(&version.digest).bind(package)
                .bind(seconds(version.uploaded_at)).bind(&version.uploaded_by)
                .execute(&mut *tx).await?.rows_affected();
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            inserted
        });
        Ok(inserted == 1)
    }

    /// What was uploaded for the tenant, or for the platform, by name and age.
    pub async fn component_versions(&self, tenant: Option<&TenantId>) -> Result<Vec<Version>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, version, serial, kind, digest, uploaded_at, uploaded_by \
             FROM component_versions WHERE tenant_id = $1 ORDER BY name, serial, version")
            .bind(scope(tenant)).fetch_all(pool).await?))
    }

    /// The names of the platform's components of a kind.
    pub async fn component_names(&self, kind: &str) -> Result<Vec<String>, DbError> {
        Ok(on!(self, pool => sqlx::query_scalar(
            "SELECT DISTINCT name FROM component_versions WHERE tenant_id = $1 AND kind = $2")
            .bind(scope(None)).bind(kind).fetch_all(pool).await?))
    }

    /// One version; `None` if the tenant, or the platform, has none such.
    pub async fn component_version(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        version: &str,
    ) -> Result<Option<Version>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, version, serial, kind, digest, uploaded_at, uploaded_by \
             FROM component_versions WHERE tenant_id = $1 AND name = $2 AND version = $3")
            .bind(scope(tenant)).bind(name).bind(version).fetch_optional(pool).await?))
    }

    /// The exact bytes of a package; `None` if the tenant, or the platform, has none such.
    pub async fn component_package(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        version: &str,
    ) -> Result<Option<Vec<u8>>, DbError> {
        Ok(on!(self, pool => sqlx::query_scalar(
            "SELECT package FROM component_versions WHERE tenant_id = $1 AND name = $2 AND version = $3")
            .bind(scope(tenant)).bind(name).bind(version).fetch_optional(pool).await?))
    }

    /// Every place of every bundle, the platform's first.
    pub async fn component_places(&self) -> Result<Vec<PlaceRow>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, place, revision FROM component_entries ORDER BY tenant_id, name")
            .fetch_all(pool).await?))
    }

    /// The place of one component; `None` if it never had one.
    pub async fn component_place(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
    ) -> Result<Option<PlaceRow>, DbError> {
        Ok(on!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, place, revision FROM component_entries \
             WHERE tenant_id = $1 AND name = $2")
            .bind(scope(tenant)).bind(name).fetch_optional(pool).await?))
    }

    /// Changes a place from the revision before `row.revision` to it. `false`, and nothing changed, if somebody else was
    /// quicker.
    pub async fn step_component_place(&self, row: &PlaceRow) -> Result<bool, DbError> {
        let changed = on!(self, pool => {
            let mut tx = pool.begin().await?;
            let changed = if row.revision == 1 {
                sqlx::query(
                    "INSERT INTO component_entries (tenant_id, name, place, revision) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
                    .bind(&row.tenant_id).bind(&row.name).bind(&row.place).bind(row.revision)
                    .execute(&mut *tx).await?.rows_affected()
            } else {
                sqlx::query(
                    "UPDATE component_entries SET place = $3, revision = $4 \
                     WHERE tenant_id = $1 AND name = $2 AND revision = $4 - 1")
                    .bind(&row.tenant_id).bind(&row.name).bind(&row.place).bind(row.revision)
                    .execute(&mut *tx).await?.rows_affected()
            };
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            changed
        });
        Ok(changed == 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::db::testing::on_both;

    fn version(tenant: &str, version: &str) -> Version {
        Version {
            tenant_id: tenant.to_owned(),
            name: "acme/hook".to_owned(),
            version: version.to_owned(),
            serial: 1,
            kind: "hook".to_owned(),
            digest: "ab".repeat(32),
            uploaded_at: OffsetDateTime::UNIX_EPOCH,
            uploaded_by: "u_1".to_owned(),
        }
    }

    on_both! {
        async fn a_version_is_one_set_of_bytes_for_good(fresh: Fresh) {
            let db = fresh.db;
            let acme = TenantId::parse("acme").unwrap();
            let before = db.catalog_epoch().await.unwrap();
            assert!(db.insert_component_version(&version("acme", "1.0.0"), b"one").await.unwrap());
            assert!(!db.insert_component_version(&version("acme", "1.0.0"), b"two").await.unwrap());
            let kept = db.component_package(Some(&acme), "acme/hook", "1.0.0").await.unwrap();
            assert_eq!(kept.as_deref(), Some(b"one".as_slice()));
            assert_eq!(db.component_package(None, "acme/hook", "1.0.0").await.unwrap(), None);
            assert_eq!(db.component_versions(None).await.unwrap(), []);
            assert_eq!(db.component_versions(Some(&acme)).await.unwrap(), [version("acme", "1.0.0")]);
            assert!(db.catalog_epoch().await.unwrap() > before);
        }

        async fn of_two_who_step_at_once_one_is_told(fresh: Fresh) {
            let db = fresh.db;
            let row = |revision, place| PlaceRow {
                tenant_id: String::new(),
                name: "acme/hook".to_owned(),
                place: Json(json!(place)),
                revision,
            };
            assert!(db.step_component_place(&row(1, "first")).await.unwrap());
            assert!(!db.step_component_place(&row(1, "also first")).await.unwrap());
            let (one, two) = (row(2, "one"), row(2, "two"));
            let (one, two) = tokio::join!(db.step_component_place(&one), db.step_component_place(&two));
            assert!(one.unwrap() != two.unwrap());
            assert_eq!(db.component_place(None, "acme/hook").await.unwrap().unwrap().revision, 2);
            assert_eq!(db.component_places().await.unwrap().len(), 1);
        }
    }
}
