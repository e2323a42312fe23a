//! Who may sign what, which capabilities were granted, and what was revoked, as stored.

use sallyport_protocol::id::TenantId;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::scope;
use crate::db::{CATALOG_MOVED, Db, DbError, reading, seconds, writing};

/// A publisher's key and what it may sign.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TrustedKey {
    /// The key's id.
    pub key_id: String,
    /// The namespace whose components it may sign.
    pub namespace: String,
    /// The tenant it signs for, or empty for all.
    pub tenant_id: String,
    /// The public key, base64.
    pub public_key: String,
    /// Its name for people.
    pub label: String,
    /// The kinds it may sign.
    pub kinds: Json<Vec<String>>,
    /// Since when.
    pub trusted_at: OffsetDateTime,
    /// On whose word.
    pub trusted_by: String,
    /// From when it may sign nothing new.
    pub expires_at: Option<OffsetDateTime>,
}

/// A capability that a component may have.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Grant {
    /// The tenant's id, or empty for the platform.
    pub tenant_id: String,
    /// `namespace/name`
    pub name: String,
    /// Which one.
    pub capability: String,
    /// Since when.
    pub granted_at: OffsetDateTime,
    /// By whom.
    pub granted_by: String,
    /// From when no longer.
    pub expires_at: Option<OffsetDateTime>,
}

/// What a revocation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationKind {
    /// One component, whatever its name: 64 hex digits.
    Digest,
    /// One release: `namespace/name@version`.
    Version,
    /// Everything that a key signed: the key's id.
    Key,
}

/// Something that may not run any more.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RevokedComponent {
    /// `digest`, `version` or `key`.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// The tenant for which it counts, or empty: for all.
    pub tenant_id: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub revoked_at: OffsetDateTime,
    /// By whom.
    pub revoked_by: String,
}

// === impl RevocationKind ===

impl RevocationKind {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Version => "version",
            Self::Key => "key",
        }
    }
}

// === impl Db ===

impl Db {
    /// Trusts a key for a namespace, or changes what it may sign there.
    pub async fn trust_key(&self, key: &TrustedKey) -> Result<(), DbError> {
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query(
                "INSERT INTO publishers \
                 (key_id, namespace, tenant_id, public_key, label, kinds, trusted_at, trusted_by, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                 ON CONFLICT (key_id, namespace, tenant_id) DO UPDATE SET label = excluded.label, \
                 kinds = excluded.kinds, trusted_at = excluded.trusted_at, \
                 trusted_by = excluded.trusted_by, expires_at = excluded.expires_at")
                .bind(&key.key_id).bind(&key.namespace).bind(&key.tenant_id).bind(&key.public_key)
                .bind(&key.label).bind(&key.kinds).bind(seconds(key.trusted_at)).bind(&key.trusted_by)
                .bind(key.expires_at.map(seconds)).execute(&mut *tx).await?;
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
        });
        Ok(())
    }

    /// Every trusted key, oldest first.
    pub async fn trusted_keys(&self) -> Result<Vec<TrustedKey>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT key_id, namespace, tenant_id, public_key, label, kinds, trusted_at, trusted_by, expires_at \
             FROM publishers ORDER BY trusted_at, key_id, namespace, tenant_id").fetch_all(pool).await?))
    }

    /// Grants a capability, or changes until when.
    pub async fn grant_capability(&self, grant: &Grant) -> Result<(), DbError> {
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query(
                "INSERT INTO component_grants (tenant_id, name, capability, granted_at, granted_by, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (tenant_id, name, capability) DO UPDATE SET granted_at = excluded.granted_at, \
                 granted_by = excluded.granted_by, expires_at = excluded.expires_at")
                .bind(&grant.tenant_id).bind(&grant.name).bind(&grant.capability)
                .bind(seconds(grant.granted_at)).bind(&grant.granted_by).bind(grant.expires_at.map(seconds))
                .execute(&mut *tx).await?;
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
        });
        Ok(())
    }

    /// Takes a grant back; `false` if there was none.
    pub async fn withdraw_grant(
        &self,
        tenant: Option<&TenantId>,
        name: &str,
        capability: &str,
    ) -> Result<bool, DbError> {
        let gone = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let gone = sqlx::query(
                "DELETE FROM component_grants WHERE tenant_id = $1 AND name = $2 AND capability = $3")
                .bind(scope(tenant)).bind(name).bind(capability).execute(&mut *tx).await?.rows_affected();
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            gone
        });
        Ok(gone == 1)
    }

    /// Every grant.
    pub async fn grants(&self) -> Result<Vec<Grant>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, name, capability, granted_at, granted_by, expires_at \
             FROM component_grants ORDER BY tenant_id, name, capability").fetch_all(pool).await?))
    }

    /// Revokes; `false` if it was revoked before.
    pub async fn revoke_component(&self, revoked: &RevokedComponent) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let inserted = sqlx::query(
                "INSERT INTO component_revocations (kind, subject, tenant_id, reason, revoked_at, revoked_by) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING")
                .bind(&revoked.kind).bind(&revoked.subject).bind(&revoked.tenant_id).bind(&revoked.reason)
                .bind(seconds(revoked.revoked_at)).bind(&revoked.revoked_by)
                .execute(&mut *tx).await?.rows_affected();
            sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            inserted
        });
        Ok(inserted == 1)
    }

    /// Everything that was revoked.
    pub async fn revoked_components(&self) -> Result<Vec<RevokedComponent>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT kind, subject, tenant_id, reason, revoked_at, revoked_by \
             FROM component_revocations ORDER BY revoked_at, kind, subject").fetch_all(pool).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_both;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    on_both! {
        async fn a_key_is_trusted_once_and_changed_in_place(fresh: Fresh) {
            let mut key = TrustedKey {
                key_id: "k".to_owned(),
                namespace: "acme".to_owned(),
                tenant_id: String::new(),
                public_key: "p".to_owned(),
                label: "first".to_owned(),
                kinds: Json(vec!["hook".to_owned()]),
                trusted_at: NOW,
                trusted_by: "u_1".to_owned(),
                expires_at: None,
            };
            fresh.db.trust_key(&key).await.unwrap();
            key.expires_at = Some(NOW + time::Duration::HOUR);
            fresh.db.trust_key(&key).await.unwrap();
            assert_eq!(fresh.db.trusted_keys().await.unwrap(), [key]);
        }

        async fn a_grant_comes_and_goes_and_each_change_moves_the_epoch(fresh: Fresh) {
            let db = fresh.db;
            let grant = Grant {
                tenant_id: "acme".to_owned(),
                name: "acme/hook".to_owned(),
                capability: "egress:tickets".to_owned(),
                granted_at: NOW,
                granted_by: "u_1".to_owned(),
                expires_at: None,
            };
            let before = db.catalog_epoch().await.unwrap();
            db.grant_capability(&grant).await.unwrap();
            assert_eq!(db.grants().await.unwrap(), [grant]);
            let acme = TenantId::parse("acme").unwrap();
            assert!(!db.withdraw_grant(None, "acme/hook", "egress:tickets").await.unwrap());
            assert!(db.withdraw_grant(Some(&acme), "acme/hook", "egress:tickets").await.unwrap());
            assert_eq!(db.grants().await.unwrap(), []);
            assert_eq!(db.catalog_epoch().await.unwrap(), before + 3);
        }

        async fn a_revocation_is_for_good(fresh: Fresh) {
            let revoked = RevokedComponent {
                kind: RevocationKind::Digest.as_str().to_owned(),
                subject: "ab".repeat(32),
                tenant_id: String::new(),
                reason: "it steals".to_owned(),
                revoked_at: NOW,
                revoked_by: "u_1".to_owned(),
            };
            assert!(fresh.db.revoke_component(&revoked).await.unwrap());
            let again = RevokedComponent { reason: "it is fine".to_owned(), ..revoked.clone() };
            assert!(!fresh.db.revoke_component(&again).await.unwrap());
            assert_eq!(fresh.db.revoked_components().await.unwrap(), [revoked]);
        }
    }
}
