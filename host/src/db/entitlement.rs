//! Which models roles may call, as stored.

use sallyport_protocol::id::TenantId;
use time::OffsetDateTime;

use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// Models that a role of a tenant may call.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RoleModels {
    /// The tenant.
    pub tenant_id: String,
    /// The role.
    pub role: String,
    /// A pattern of models, as in routes.
    pub pattern: String,
}

// === impl Db ===

impl Db {
    /// Says whether everybody of a tenant may call every model (`all`), or only what its roles list (`listed`); `false` if there is no
    /// such tenant.
    pub async fn set_tenant_models(&self, tenant: &TenantId, models: &str) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE tenants SET models = $2 WHERE id = $1")
                .bind(tenant.as_str()).bind(models).execute(&mut *tx).await?.rows_affected();
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Lets a role call what matches a pattern; `false` if the tenant lists `most` already. One that is listed already stays.
    pub async fn allow_models(
        &self,
        tenant: &TenantId,
        role: &str,
        pattern: &str,
        now: OffsetDateTime,
        most: i64,
    ) -> Result<bool, DbError> {
        let listed = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query(
                "INSERT INTO role_models (tenant_id, role, pattern, created_at) SELECT $1, $2, $3, $4 \
                 WHERE (SELECT COUNT(*) FROM role_models WHERE tenant_id = $1) < $5 ON CONFLICT DO NOTHING")
                .bind(tenant.as_str()).bind(role).bind(pattern).bind(seconds(now)).bind(most)
                .execute(&mut *tx).await?;
            let listed: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM role_models WHERE tenant_id = $1 AND role = $2 AND pattern = $3")
                .bind(tenant.as_str()).bind(role).bind(pattern).fetch_one(&mut *tx).await?;
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            listed
        });
        Ok(listed == 1)
    }

    /// Takes that back; `false` if it was not listed.
    pub async fn disallow_models(
        &self,
        tenant: &TenantId,
        role: &str,
        pattern: &str,
    ) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("DELETE FROM role_models WHERE tenant_id = $1 AND role = $2 AND pattern = $3")
                .bind(tenant.as_str()).bind(role).bind(pattern).execute(&mut *tx).await?.rows_affected();
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// What the roles of a tenant list.
    pub async fn role_models(&self, tenant: &TenantId) -> Result<Vec<RoleModels>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT tenant_id, role, pattern FROM role_models WHERE tenant_id = $1 ORDER BY role, pattern")
            .bind(tenant.as_str()).fetch_all(pool).await?))
    }

    /// Tenants in which only what is listed counts, and all that is listed in them.
    pub async fn entitlements(&self) -> Result<(Vec<String>, Vec<RoleModels>), DbError> {
        let closed = reading!(self, pool => sqlx::query_scalar("SELECT id FROM tenants WHERE models <> 'all'")
            .fetch_all(pool).await?);
        let listed = reading!(self, pool => sqlx::query_as(
            "SELECT m.tenant_id, m.role, m.pattern FROM role_models m \
             JOIN tenants t ON t.id = m.tenant_id AND t.models <> 'all'").fetch_all(pool).await?);
        Ok((closed, listed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_both;

    on_both! {
        async fn what_roles_list_counts_where_the_tenant_says_so(fresh: Fresh) {
            let db = fresh.db;
            let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
            let acme = TenantId::parse("acme").unwrap();
            assert!(!db.set_tenant_models(&acme, "listed").await.unwrap());
            db.insert_tenant(&acme, "acme", now).await.unwrap();
            let epoch = db.auth_epoch().await.unwrap();
            for _ in 0..2 {
                assert!(db.allow_models(&acme, "author", "claude-*", now, 2).await.unwrap());
            }
            assert!(db.allow_models(&acme, "member", "gpt-*", now, 2).await.unwrap());
            assert!(!db.allow_models(&acme, "member", "gemini-*", now, 2).await.unwrap(), "one too many");
            assert!(db.allow_models(&acme, "member", "gpt-*", now, 2).await.unwrap(), "what is there stays");
            assert_eq!(db.entitlements().await.unwrap(), (vec![], vec![]));
            assert!(db.set_tenant_models(&acme, "listed").await.unwrap());
            let (closed, listed) = db.entitlements().await.unwrap();
            assert_eq!((closed, listed.len()), (vec!["acme".to_owned()], 2));
            assert!(db.disallow_models(&acme, "member", "gpt-*").await.unwrap());
            assert!(!db.disallow_models(&acme, "member", "gpt-*").await.unwrap());
            let left = db.role_models(&acme).await.unwrap();
            assert_eq!(left, [RoleModels { tenant_id: "acme".into(), role: "author".into(), pattern: "claude-*".into() }]);
            assert!(db.auth_epoch().await.unwrap() > epoch);
        }
    }
}
