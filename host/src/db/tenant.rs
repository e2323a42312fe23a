//! Tenants as stored: the walls between organisations that share a gateway.

use sallyport_protocol::id::TenantId;
use time::OffsetDateTime;

use super::{AUTH_MOVED, CATALOG_MOVED, Db, DbError, corrupt, reading, seconds, writing};

/// An organisation, or a part of one, whose users, components and audit rows are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id, chosen when it is created.
    pub id: TenantId,
    /// Its name for people.
    pub name: String,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// Since when nobody of it may call; `None` while it is enabled.
    pub disabled_at: Option<OffsetDateTime>,
    /// The weakest way to sign in that it takes: `pat`, `session` or `mtls`.
    pub min_auth_tier: String,
    /// Which models its users may call: `all`, or those that are `listed` for their roles.
    pub models: String,
}

#[derive(sqlx::FromRow)]
struct TenantRow {
    id: String,
    name: String,
    created_at: OffsetDateTime,
    disabled_at: Option<OffsetDateTime>,
    min_auth_tier: String,
    models: String,
}

// === impl Db ===

impl Db {
    /// Stores a new tenant; `false` if there is one with this id already.
    pub async fn insert_tenant(
        &self,
        id: &TenantId,
        name: &str,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let inserted = sqlx::query(
                "INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
                .bind(id.as_str()).bind(name).bind(seconds(now)).execute(&mut *tx).await?.rows_affected();
            if inserted == 1 {
                // Where a tenant's components run depends on how many tenants there are.
                sqlx::query(CATALOG_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            inserted
        });
        Ok(inserted == 1)
    }

    /// The tenant with this id; `None` if there is none.
    pub async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, DbError> {
        let row: Option<TenantRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, name, created_at, disabled_at, min_auth_tier, models FROM tenants WHERE id = $1")
            .bind(id.as_str()).fetch_optional(pool).await?);
        row.map(Tenant::try_from).transpose()
    }

    /// Says what the weakest way to sign in is that a tenant takes; `false` if there is no such tenant. Holds for tokens that are
    /// out already too.
    pub async fn set_weakest_tier(&self, id: &TenantId, tier: &str) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE tenants SET min_auth_tier = $2 WHERE id = $1")
                .bind(id.as_str()).bind(tier).execute(&mut *tx).await?.rows_affected();
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// The weakest way to sign in of every tenant that does not take all of them.
    pub async fn weakest_tiers(&self) -> Result<Vec<(String, String)>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT id, min_auth_tier FROM tenants WHERE min_auth_tier <> 'pat'")
            .fetch_all(pool).await?))
    }

    /// Every tenant, by id.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, DbError> {
        let rows: Vec<TenantRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, name, created_at, disabled_at, min_auth_tier, models FROM tenants ORDER BY id")
            .fetch_all(pool).await?);
        rows.into_iter().map(Tenant::try_from).collect()
    }

    /// How many tenants there are.
    pub async fn tenant_count(&self) -> Result<u64, DbError> {
        let (count,): (i64,) = reading!(self, pool => sqlx::query_as("SELECT count(*) FROM tenants")
            .fetch_one(pool).await?);
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Takes the right to call from everybody in the tenant; `false` if there is no such tenant.
    pub async fn disable_tenant(&self, id: &TenantId, now: OffsetDateTime) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE tenants SET disabled_at = COALESCE(disabled_at, $2) WHERE id = $1")
                .bind(id.as_str()).bind(seconds(now)).execute(&mut *tx).await?.rows_affected();
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Gives the right back; `false` if there is no such tenant.
    pub async fn enable_tenant(&self, id: &TenantId) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE tenants SET disabled_at = NULL WHERE id = $1")
                .bind(id.as_str()).execute(&mut *tx).await?.rows_affected();
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }
}

// === impl Tenant ===

impl TryFrom<TenantRow> for Tenant {
    type Error = DbError;

    fn try_from(row: TenantRow) -> Result<Self, DbError> {
        Ok(Self {
            id: TenantId::parse(&row.id).map_err(corrupt)?,
            name: row.name,
            created_at: row.created_at,
            disabled_at: row.disabled_at,
            min_auth_tier: row.min_auth_tier,
            models: row.models,
        })
    }
}
