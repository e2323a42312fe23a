//! Names in certificates of devices, and whose they are.

use sallyport_protocol::id::{TenantId, UserId};
use time::OffsetDateTime;

use super::user::{User, UserRow};
use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// A name that stands in certificates, with the user that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct CertificateName {
    /// Its kind and the name: `email:alice@example.org`.
    pub name: String,
    /// Whose it is.
    pub user_id: String,
    /// Since when.
    pub created_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct NamedRow {
    #[sqlx(flatten)]
    user: UserRow,
    tenant_disabled_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// Links a name to a user; `false` if it is somebody's already, in whatever tenant.
    pub async fn link_certificate(
        &self,
        name: &str,
        tenant: &TenantId,
        user: &UserId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let linked = writing!(self, pool => sqlx::query(
            "INSERT INTO certificate_names (name, tenant_id, user_id, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name) DO NOTHING")
            .bind(name).bind(tenant.as_str()).bind(user.as_str()).bind(seconds(now))
            .execute(pool).await?.rows_affected());
        Ok(linked == 1)
    }

    /// Takes a name from a user, and voids the tokens that its certificates were exchanged for, with all others of the user;
    /// `false` if it is not the user's.
    pub async fn unlink_certificate(
        &self,
        name: &str,
        tenant: &TenantId,
        user: &UserId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let unlinked = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let unlinked = sqlx::query(
                "DELETE FROM certificate_names WHERE name = $1 AND tenant_id = $2 AND user_id = $3")
                .bind(name).bind(tenant.as_str()).bind(user.as_str()).execute(&mut *tx).await?.rows_affected();
            if unlinked == 1 {
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(user.as_str()).bind(seconds(now)).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            unlinked
        });
        Ok(unlinked == 1)
    }

    /// Whose name it is, and whether the user's tenant is disabled.
    pub async fn user_of_certificate(&self, name: &str) -> Result<Option<(User, bool)>, DbError> {
        let row: Option<NamedRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, \
                    t.disabled_at AS tenant_disabled_at \
             FROM certificate_names c \
             JOIN users u ON u.id = c.user_id AND u.tenant_id = c.tenant_id \
             JOIN tenants t ON t.id = c.tenant_id \
             WHERE c.name = $1")
            .bind(name).fetch_optional(pool).await?);
        row.map(|row| Ok((User::try_from(row.user)?, row.tenant_disabled_at.is_some()))).transpose()
    }

    /// The names of a user.
    pub async fn certificate_names(
        &self,
        tenant: &TenantId,
        user: &UserId,
    ) -> Result<Vec<CertificateName>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT name, user_id, created_at FROM certificate_names WHERE tenant_id = $1 AND user_id = $2 ORDER BY name")
            .bind(tenant.as_str()).bind(user.as_str()).fetch_all(pool).await?))
    }
}
