//! The catalog of components as stored: what was uploaded, its place in a bundle, and the epoch that tells every gateway to
//! read again. A `tenant` of `None` is the platform.

use sallyport_protocol::id::TenantId;
pub use sqlx::types::Json;
use time::OffsetDateTime;

use super::{CATALOG_MOVED, Db, DbError, reading, seconds, writing};

mod levels;
mod notify;
mod trust;

pub use self::levels::StoredLevels;
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

/// What a catalog holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Usage {
    /// How many versions.
    pub versions: i64,
    /// Bytes of their packages.
    pub bytes: i64,
}

/// What a catalog may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many versions.
    pub versions: i64,
    /// Bytes of their packages.
    pub bytes: i64,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    Yes,
    /// This version is there already.
    Already,
    /// There is no room: this is what is stored.
    NoRoom(Usage),
}

const USAGE: &str = "SELECT COUNT(*) AS versions, CAST(COALESCE(SUM(LENGTH(package)), 0) AS BIGINT) AS bytes \
                     FROM component_versions WHERE tenant_id = $1";

/// The tenant's column.
pub(crate) fn scope(tenant: Option<&TenantId>) -> &str {
    tenant.map_or("", TenantId::as_str)
}

// === impl Db ===

impl Db {
    /// How often the catalog changed so far.
    pub async fn catalog_epoch(&self) -> Result<i64, DbError> {
        Ok(
            reading!(self, pool => sqlx::query_scalar("SELECT epoch FROM catalog_epoch WHERE id = 1").fetch_one(pool).await?),
        )
    }

    /// Keeps an uploaded package, if there is room for it.
    pub async fn insert_component_version(
        &self,
        version: &Version,
        package: &[u8],
        room: Option<&Room>,
    ) -> Result<Kept, DbError> {
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            // First of all: uploads at once, also at other gateways, are counted one after the other.
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            if let Some(room) = room {
                let used: Usage =
                    sqlx::query_as(USAGE).bind(&version.tenant_id).fetch_one(&mut *tx).await?;
                let more = i64::try_from(package.len()).unwrap_or(i64::MAX);
                if used.versions >= room.versions || used.bytes.saturating_add(more) > room.bytes {
                    return Ok(Kept::NoRoom(used));
                }
            }
            let inserted = sqlx::query(
                "INSERT INTO component_versions \
                 (tenant_id, name, version, serial, kind, digest, package, uploaded_at, uploaded_by) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING")
                .bind(&version.tenant_id).bind(&version.name).bind(&version.version).bind(version.serial)
                .bind(&version.kind).bind(&version.digest).bind(package)
                .bind(seconds(version.uploaded_at)).bind(&version.uploaded_by)
                .execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            inserted
        });
        Ok(if inserted == 1 { Kept::Yes } else { Kept::Already })
    }

    /// What the tenant, or the platform, has stored.
    pub async fn component_usage(&self, tenant: Option<&TenantId>) -> Result<Usage, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(USAGE).bind(scope(tenant)).fetch_one(pool).await?))
    }

    /// Deletes one version, and makes `place.revision` the place's. `false`, and nothing changed, if somebody else was quicker.
    pub async fn delete_component_version(&self, place: &PlaceRow, version: &str) -> Result<bool, DbError> {
        Ok(writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let changed = sqlx::query(
                "INSERT INTO component_entries (tenant_id, name, place, revision) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (tenant_id, name) DO UPDATE SET revision = excluded.revision \
                 WHERE component_entries.revision = excluded.revision - 1")
                .bind(&place.tenant_id).bind(&place.name).bind(&place.place).bind(place.revision)
                .execute(&mut *tx).await?.rows_affected();
            let deleted = sqlx::query(
                "DELETE FROM component_versions WHERE tenant_id = $1 AND name = $2 AND version = $3")
                .bind(&place.tenant_id).bind(&place.name).bind(version)
                .execute(&mut *tx).await?.rows_affected();
            if changed != 1 || deleted != 1 {
                return Ok(false);
            }
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            true
        }))
    }

    /// Whether evidence is kept of a call that a component with this digest answered, of the tenant's or, for the platform's
    /// components, of anybody's.
    pub async fn evidence_needs(&self, tenant: Option<&TenantId>, digest: &str) -> Result<bool, DbError> {
        let found: i64 = reading!(self, pool => sqlx::query_scalar(
            "SELECT COUNT(*) FROM call_evidence JOIN audit_events \
             ON audit_events.trace_id = call_evidence.trace_id \
             AND audit_events.tenant_id = call_evidence.tenant_id \
             WHERE ($1 = '' OR call_evidence.tenant_id = $1) \
             AND CAST(audit_events.payload AS TEXT) LIKE '%' || $2 || '%'")
            .bind(scope(tenant)).bind(digest).fetch_one(pool).await?);
        Ok(found > 0)
    }

    /// Gives the space of what was deleted back to the file system. PostgreSQL does so by itself.
    pub async fn give_space_back(&self) -> Result<(), DbError> {
        if let Self::Sqlite { writing, .. } = self {
            // It works as far as its rows are read.
            sqlx::query("PRAGMA incremental_vacuum").fetch_all(writing).await?;
        }
        Ok(())
    }

    /// What was uploaded for the tenant, or for the platform, by name and age.
    pub async fn component_versions(&self, tenant: Option<&TenantId>) -> Result<Vec<Version>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, version, serial, kind, digest, uploaded_at, uploaded_by \
             FROM component_versions WHERE tenant_id = $1 ORDER BY name, serial, version")
            .bind(scope(tenant)).fetch_all(pool).await?))
    }

    /// The names of the platform's components of a kind.
    pub async fn component_names(&self, kind: &str) -> Result<Vec<String>, DbError> {
        Ok(reading!(self, pool => sqlx::query_scalar(
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
        Ok(reading!(self, pool => sqlx::query_as(
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
        Ok(reading!(self, pool => sqlx::query_scalar(
            "SELECT package FROM component_versions WHERE tenant_id = $1 AND name = $2 AND version = $3")
            .bind(scope(tenant)).bind(name).bind(version).fetch_optional(pool).await?))
    }

    /// Every place of every bundle, the platform's first.
    pub async fn component_places(&self) -> Result<Vec<PlaceRow>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, place, revision FROM component_entries ORDER BY tenant_id, name")
            .fetch_all(pool).await?))
    }

    /// The place of one component; `None` if it never had one.
    pub async fn component_place(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
    ) -> Result<Option<PlaceRow>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, place, revision FROM component_entries \
             WHERE tenant_id = $1 AND name = $2")
            .bind(scope(tenant)).bind(name).fetch_optional(pool).await?))
    }

    /// Changes a place from the revision before `row.revision` to it. `false`, and nothing changed, if somebody else was
    /// quicker.
    pub async fn step_component_place(&self, row: &PlaceRow) -> Result<bool, DbError> {
        let changed = writing!(self, pool => {
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

    use crate::db::audit::testing::sqlite;

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

    #[tokio::test]
    async fn a_file_is_smaller_once_what_filled_it_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let db = sqlite(directory.path()).await;
        let pages = async || -> i64 {
            let Db::Sqlite { reading: pool, .. } = &db else { unreachable!("it was opened as SQLite") };
            sqlx::query_scalar("PRAGMA page_count").fetch_one(pool).await.unwrap()
        };
        let before = pages().await;
        let package = vec![7; 4 << 20];
        db.insert_component_version(&version("acme", "1.0.0"), &package, None).await.unwrap();
        assert!(pages().await > before + 1_000);
        let place = PlaceRow {
            tenant_id: "acme".to_owned(),
            name: "acme/hook".to_owned(),
            place: Json(json!({})),
            revision: 1,
        };
        assert!(db.delete_component_version(&place, "1.0.0").await.unwrap());
        db.give_space_back().await.unwrap();
        let after = pages().await;
        assert!(after < before + 16, "{before} pages before, {after} afterwards");
    }

    on_both! {
        async fn a_version_is_one_set_of_bytes_for_good(fresh: Fresh) {
            let db = fresh.db;
            let acme = TenantId::parse("acme").unwrap();
            let before = db.catalog_epoch().await.unwrap();
            let insert = async |bytes: &[u8]| {
                db.insert_component_version(&version("acme", "1.0.0"), bytes, None).await.unwrap()
            };
            assert_eq!(insert(b"one").await, Kept::Yes);
            assert_eq!(insert(b"two").await, Kept::Already);
            let kept = db.component_package(Some(&acme), "acme/hook", "1.0.0").await.unwrap();
            assert_eq!(kept.as_deref(), Some(b"one".as_slice()));
            assert_eq!(db.component_package(None, "acme/hook", "1.0.0").await.unwrap(), None);
            assert_eq!(db.component_versions(None).await.unwrap(), []);
            assert_eq!(db.component_versions(Some(&acme)).await.unwrap(), [version("acme", "1.0.0")]);
            assert!(db.catalog_epoch().await.unwrap() > before);
        }

        async fn a_catalog_takes_what_there_is_room_for_and_what_is_deleted_makes_room(fresh: Fresh) {
            let db = fresh.db;
            let acme = TenantId::parse("acme").unwrap();
            let room = Room { versions: 2, bytes: 10 };
            let insert = async |tenant: &str, number: &str, bytes: &[u8]| {
                db.insert_component_version(&version(tenant, number), bytes, Some(&room)).await.unwrap()
            };
            assert_eq!(insert("acme", "1.0.0", b"12345678").await, Kept::Yes);
            let used = Usage { versions: 1, bytes: 8 };
            assert_eq!(insert("acme", "2.0.0", b"123").await, Kept::NoRoom(used));
            assert_eq!(insert("other", "1.0.0", b"123").await, Kept::Yes, "another's room is its own");
            assert_eq!(insert("acme", "2.0.0", b"12").await, Kept::Yes);
            let used = Usage { versions: 2, bytes: 10 };
            assert_eq!(insert("acme", "3.0.0", b"").await, Kept::NoRoom(used));

            let place = |revision| PlaceRow {
                tenant_id: "acme".to_owned(),
                name: "acme/hook".to_owned(),
                place: Json(json!("somewhere")),
                revision,
            };
            assert!(!db.delete_component_version(&place(1), "9.0.0").await.unwrap(), "there is none");
            assert_eq!(db.component_place(Some(&acme), "acme/hook").await.unwrap(), None, "nothing changed");
            assert!(db.delete_component_version(&place(1), "1.0.0").await.unwrap());
            assert!(!db.delete_component_version(&place(1), "2.0.0").await.unwrap(), "somebody was quicker");
            assert!(!db.step_component_place(&place(1)).await.unwrap(), "and whoever stepped meanwhile is told");
            assert_eq!(db.component_usage(Some(&acme)).await.unwrap(), Usage { versions: 1, bytes: 2 });
            assert_eq!(insert("acme", "3.0.0", b"12345678").await, Kept::Yes);
        }

        async fn evidence_needs_the_components_that_its_rows_name(fresh: Fresh) {
            let db = fresh.db;
            let (acme, digest) = (TenantId::parse("acme").unwrap(), "cd".repeat(32));
            let other = TenantId::parse("other").unwrap();
            db.insert_evidence(&crate::db::evidence::SealedCall {
                tenant_id: "acme".to_owned(),
                trace_id: "t_1".to_owned(),
                request_id: "r_1".to_owned(),
                recorded_ms: 1,
                sealed: vec![1],
            }).await.unwrap();
            assert!(!db.evidence_needs(Some(&acme), &digest).await.unwrap());
            let payload = format!("{{\"components\": [{{\"digest\": \"{digest}\"}}]}}");
            crate::db::audit::testing::insert_payload(&db, "acme", "t_1", &payload).await;
            assert!(db.evidence_needs(Some(&acme), &digest).await.unwrap());
            assert!(db.evidence_needs(None, &digest).await.unwrap(), "the platform's are asked in every call");
            assert!(!db.evidence_needs(Some(&other), &digest).await.unwrap());
            assert!(!db.evidence_needs(Some(&acme), &"ef".repeat(32)).await.unwrap());
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
