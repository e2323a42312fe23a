//! Users that an identity provider keeps over SCIM, as stored.

use sallyport_protocol::id::{TenantId, UserId};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::user::{User, UserRow};
use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// A user that a provider keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScimUser {
    /// The user.
    pub user: User,
    /// What the provider calls it.
    pub external_id: Option<String>,
    /// Its name for people, as the provider has it.
    pub display_name: Option<String>,
    /// When it was changed last.
    pub changed_at: OffsetDateTime,
}

/// Which users or groups are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ScimFilter {
    /// All of them.
    #[default]
    All,
    /// The one of this name.
    Name(String),
    /// Those that the provider calls so.
    ExternalId(String),
}

#[derive(sqlx::FromRow)]
struct ScimUserRow {
    #[sqlx(flatten)]
    user: UserRow,
    external_id: Option<String>,
    display_name: Option<String>,
    changed_at: OffsetDateTime,
}

// === impl ScimFilter ===

impl ScimFilter {
    /// Name and external id as a statement takes them: empty for any.
    pub(super) fn parts(&self) -> (&str, &str) {
        match self {
            Self::All => ("", ""),
            Self::Name(name) => (name, ""),
            Self::ExternalId(id) => ("", id),
        }
    }
}

// === impl Db ===

impl Db {
    /// A page of the users that a tenant's provider keeps, and how many there are.
    pub async fn scim_users(
        &self,
        tenant: &TenantId,
        filter: &ScimFilter,
        skip: i64,
        most: i64,
    ) -> Result<(i64, Vec<ScimUser>), DbError> {
        let (name, external_id) = filter.parts();
        let total = reading!(self, pool => sqlx::query_scalar(
            "SELECT COUNT(*) FROM scim_users s JOIN users u ON u.id = s.user_id \
             WHERE s.tenant_id = $1 AND ($2 = '' OR u.name = $2) AND ($3 = '' OR s.external_id = $3)")
            .bind(tenant.as_str()).bind(name).bind(external_id).fetch_one(pool).await?);
        let rows: Vec<ScimUserRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, \
                    s.external_id, s.display_name, s.changed_at \
             FROM scim_users s JOIN users u ON u.id = s.user_id \
             WHERE s.tenant_id = $1 AND ($2 = '' OR u.name = $2) AND ($3 = '' OR s.external_id = $3) \
             ORDER BY u.created_at, u.id LIMIT $4 OFFSET $5")
            .bind(tenant.as_str()).bind(name).bind(external_id).bind(most).bind(skip).fetch_all(pool).await?);
        Ok((total, rows.into_iter().map(ScimUser::try_from).collect::<Result<_, _>>()?))
    }

    /// One of them.
    pub async fn scim_user(&self, tenant: &TenantId, id: &str) -> Result<Option<ScimUser>, DbError> {
        let row: Option<ScimUserRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, \
                    s.external_id, s.display_name, s.changed_at \
             FROM scim_users s JOIN users u ON u.id = s.user_id WHERE s.tenant_id = $1 AND s.user_id = $2")
            .bind(tenant.as_str()).bind(id).fetch_optional(pool).await?);
        row.map(ScimUser::try_from).transpose()
    }

    /// Stores a new one; `false` if its name or what the provider calls it is taken.
    pub async fn insert_scim_user(&self, new: &ScimUser) -> Result<bool, DbError> {
        let (user, now) = (&new.user, seconds(new.changed_at));
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let mut inserted = sqlx::query(
                "INSERT INTO users (id, tenant_id, name, roles, department, created_at, disabled_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING")
                .bind(user.id.as_str()).bind(user.tenant.as_str()).bind(&user.name).bind(Json(&user.roles))
                .bind(&user.department).bind(seconds(user.created_at)).bind(user.disabled_at.map(seconds))
                .execute(&mut *tx).await?.rows_affected();
            if inserted == 1 {
                inserted = sqlx::query(
                    "INSERT INTO scim_users (user_id, tenant_id, external_id, display_name, changed_at) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
                    .bind(user.id.as_str()).bind(user.tenant.as_str()).bind(&new.external_id)
                    .bind(&new.display_name).bind(now).execute(&mut *tx).await?.rows_affected();
            }
            if inserted == 1 { tx.commit().await? } else { tx.rollback().await? }
            inserted
        });
        Ok(inserted == 1)
    }

    /// Stores what a provider says of one now. `ends`: its sessions and access tokens end with it. `false` if a name is taken, or there is
    /// no such user.
    pub async fn change_scim_user(&self, changed: &ScimUser, ends: bool) -> Result<bool, DbError> {
        let (user, now) = (&changed.user, seconds(changed.changed_at));
        let (tenant, id) = (user.tenant.as_str(), user.id.as_str());
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let free: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM users u LEFT JOIN scim_users s ON s.user_id = u.id \
                 WHERE u.tenant_id = $1 AND u.id <> $2 AND (u.name = $3 OR s.external_id = $4)")
                .bind(tenant).bind(id).bind(&user.name).bind(&changed.external_id).fetch_one(&mut *tx).await?;
            let mut found = 0;
            if free == 0 {
                found = sqlx::query(
                    "UPDATE scim_users SET external_id = $3, display_name = $4, changed_at = $5 \
                     WHERE tenant_id = $1 AND user_id = $2")
                    .bind(tenant).bind(id).bind(&changed.external_id).bind(&changed.display_name).bind(now)
                    .execute(&mut *tx).await?.rows_affected();
            }
            if found == 1 {
                sqlx::query(
                    "UPDATE users SET name = $3, department = $4, disabled_at = $5 WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant).bind(id).bind(&user.name).bind(&user.department)
                    .bind(user.disabled_at.map(seconds)).execute(&mut *tx).await?;
                if ends {
                    sqlx::query(
                        "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                         ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                        .bind(id).bind(now).execute(&mut *tx).await?;
                }
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Lets the provider have one no more: the user stays, for the rows that name it, disabled and under a name that nobody has. `false`
    /// if there is no such user.
    pub async fn delete_scim_user(
        &self,
        tenant: &TenantId,
        id: &UserId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let now = seconds(now);
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            // Members are forgotten before those whom they are members as.
            sqlx::query("DELETE FROM scim_members WHERE user_id = $1").bind(id.as_str()).execute(&mut *tx).await?;
            let found = sqlx::query("DELETE FROM scim_users WHERE tenant_id = $1 AND user_id = $2")
                .bind(tenant.as_str()).bind(id.as_str()).execute(&mut *tx).await?.rows_affected();
            if found == 1 {
                sqlx::query(
                    "UPDATE users SET name = $3, disabled_at = COALESCE(disabled_at, $4) WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant.as_str()).bind(id.as_str()).bind(format!("deleted {}", id.as_str())).bind(now)
                    .execute(&mut *tx).await?;
                sqlx::query("DELETE FROM provider_subjects WHERE tenant_id = $1 AND user_id = $2")
                    .bind(tenant.as_str()).bind(id.as_str()).execute(&mut *tx).await?;
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(id.as_str()).bind(now).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
                tx.commit().await?;
            } else {
                tx.rollback().await?;
            }
            found
        });
        Ok(found == 1)
    }
}

// === impl ScimUser ===

impl TryFrom<ScimUserRow> for ScimUser {
    type Error = DbError;

    fn try_from(row: ScimUserRow) -> Result<Self, DbError> {
        Ok(Self {
            user: User::try_from(row.user)?,
            external_id: row.external_id,
            display_name: row.display_name,
            changed_at: row.changed_at,
        })
    }
}

#[cfg(test)]
mod tests;
