//! Users as stored: a person or a service within one tenant, with roles and a department.

use sallyport_protocol::id::{TenantId, UserId};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{AUTH_MOVED, Db, DbError, corrupt, reading, seconds, writing};

/// A person or a service that may hold credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `u_...`.
    pub id: UserId,
    /// The tenant it belongs to, for good.
    pub tenant: TenantId,
    /// Its name for people, unique within the tenant.
    pub name: String,
    /// Roles within the tenant.
    pub roles: Vec<String>,
    /// Its department, where the tenant keeps departments.
    pub department: Option<String>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// Since when it may not call; `None` while it is enabled.
    pub disabled_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
pub(super) struct UserRow {
    id: String,
    tenant_id: String,
    name: String,
    roles: Json<Vec<String>>,
    department: Option<String>,
    created_at: OffsetDateTime,
    disabled_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// Stores a new user; `false` if its id, or its name within the tenant, is taken.
    pub async fn insert_user(&self, user: &User) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => sqlx::query(
            "INSERT INTO users (id, tenant_id, name, roles, department, created_at, disabled_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING")
            .bind(user.id.as_str()).bind(user.tenant.as_str()).bind(&user.name).bind(Json(&user.roles))
            .bind(&user.department).bind(seconds(user.created_at)).bind(user.disabled_at.map(seconds))
            .execute(pool).await?.rows_affected());
        Ok(inserted == 1)
    }

    /// The user with this id within the tenant; `None` if there is none.
    pub async fn user(&self, tenant: &TenantId, id: &UserId) -> Result<Option<User>, DbError> {
        let row: Option<UserRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, tenant_id, name, roles, department, created_at, disabled_at FROM users \
             WHERE tenant_id = $1 AND id = $2")
            .bind(tenant.as_str()).bind(id.as_str()).fetch_optional(pool).await?);
        row.map(User::try_from).transpose()
    }

    /// The user with this name within the tenant; `None` if there is none.
    pub async fn user_by_name(&self, tenant: &TenantId, name: &str) -> Result<Option<User>, DbError> {
        let row: Option<UserRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, tenant_id, name, roles, department, created_at, disabled_at FROM users \
             WHERE tenant_id = $1 AND name = $2")
            .bind(tenant.as_str()).bind(name).fetch_optional(pool).await?);
        row.map(User::try_from).transpose()
    }

    /// Every user of the tenant, by name.
    pub async fn users(&self, tenant: &TenantId) -> Result<Vec<User>, DbError> {
        let rows: Vec<UserRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, tenant_id, name, roles, department, created_at, disabled_at FROM users \
             WHERE tenant_id = $1 ORDER BY name, id")
            .bind(tenant.as_str()).fetch_all(pool).await?);
        rows.into_iter().map(User::try_from).collect()
    }

    /// Says what a user may do and where it works, and voids its access tokens, which say what held before; its personal access tokens
    /// stay. `false` if the tenant has no such user.
    pub async fn change_user(
        &self,
        tenant: &TenantId,
        id: &UserId,
        roles: &[String],
        department: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE users SET roles = $3, department = $4 WHERE tenant_id = $1 AND id = $2")
                .bind(tenant.as_str()).bind(id.as_str()).bind(Json(roles)).bind(department)
                .execute(&mut *tx).await?.rows_affected();
            if found == 1 {
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(id.as_str()).bind(seconds(now)).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Takes the right to call from the user, and voids every token issued to it so far: enabling it again revives its
    /// personal access tokens, not its sessions. `false` if the tenant has no such user.
    pub async fn disable_user(
        &self,
        tenant: &TenantId,
        id: &UserId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let now = seconds(now);
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query(
                "UPDATE users SET disabled_at = COALESCE(disabled_at, $3) WHERE tenant_id = $1 AND id = $2")
                .bind(tenant.as_str()).bind(id.as_str()).bind(now).execute(&mut *tx).await?.rows_affected();
            if found == 1 {
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(id.as_str()).bind(now).execute(&mut *tx).await?;
            }
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Gives the right back; `false` if the tenant has no such user.
    pub async fn enable_user(&self, tenant: &TenantId, id: &UserId) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE users SET disabled_at = NULL WHERE tenant_id = $1 AND id = $2")
                .bind(tenant.as_str()).bind(id.as_str()).execute(&mut *tx).await?.rows_affected();
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }
}

// === impl UserRow ===

impl UserRow {
    /// Whether it may not call.
    pub(super) const fn is_disabled(&self) -> bool {
        self.disabled_at.is_some()
    }
}

// === impl User ===

impl TryFrom<UserRow> for User {
    type Error = DbError;

    fn try_from(row: UserRow) -> Result<Self, DbError> {
        Ok(Self {
            id: UserId::parse(&row.id).map_err(corrupt)?,
            tenant: TenantId::parse(&row.tenant_id).map_err(corrupt)?,
            name: row.name,
            roles: row.roles.0,
            department: row.department,
            created_at: row.created_at,
            disabled_at: row.disabled_at,
        })
    }
}
