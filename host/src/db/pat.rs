//! Personal access tokens as stored: everything but the secret, which only its MAC stands for.

use sallyport_protocol::id::{SessionId, TenantId, UserId};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::user::User;
use super::{AUTH_MOVED, Db, DbError, corrupt, reading, seconds, writing};

/// What is known of a personal access token after it was shown once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatRecord {
    /// Its public half: 16 hex digits.
    pub id: String,
    /// The tenant of its user.
    pub tenant: TenantId,
    /// Whose it is.
    pub user: UserId,
    /// What the user called it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was last used, give or take the batching interval.
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked; `None` while it is good.
    pub revoked_at: Option<OffsetDateTime>,
}

/// A token together with all that decides whether it is good now.
#[derive(Debug, Clone)]
pub struct PatHolder {
    /// The token.
    pub pat: PatRecord,
    /// The stored MAC.
    pub mac: Vec<u8>,
    /// Whose it is.
    pub user: User,
    /// Whether the user's tenant is disabled.
    pub tenant_disabled: bool,
    /// Whether the session that direct use of the token belongs to is revoked.
    pub session_revoked: bool,
}

#[derive(sqlx::FromRow)]
struct PatRow {
    id: String,
    tenant_id: String,
    user_id: String,
    name: String,
    scopes: Json<Vec<String>>,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct HolderRow {
    id: String,
    tenant_id: String,
    user_id: String,
    name: String,
    scopes: Json<Vec<String>>,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    mac: Vec<u8>,
    user_name: String,
    user_roles: Json<Vec<String>>,
    user_department: Option<String>,
    user_created_at: OffsetDateTime,
    user_disabled_at: Option<OffsetDateTime>,
    tenant_disabled_at: Option<OffsetDateTime>,
    session_revoked_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// Stores a new token; `false` if its id is taken.
    pub async fn insert_pat(&self, pat: &PatRecord, mac: &[u8]) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => sqlx::query(
            "INSERT INTO pats (id, tenant_id, user_id, name, mac, scopes, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING")
            .bind(&pat.id).bind(pat.tenant.as_str()).bind(pat.user.as_str()).bind(&pat.name).bind(mac)
            .bind(Json(&pat.scopes)).bind(seconds(pat.created_at)).bind(seconds(pat.expires_at))
            .execute(pool).await?.rows_affected());
        Ok(inserted == 1)
    }

    /// The token with this id and whose it is; `None` if there is none, or if its tenant is not that of its user.
    /// `session` is the one that direct use of the token belongs to.
    pub async fn pat_holder(&self, id: &str, session: &SessionId) -> Result<Option<PatHolder>, DbError> {
        let row: Option<HolderRow> = reading!(self, pool => sqlx::query_as(
            "SELECT p.id, p.tenant_id, p.user_id, p.name, p.scopes, p.created_at, p.expires_at, p.last_used_at, \
                    p.revoked_at, p.mac, u.name AS user_name, u.roles AS user_roles, \
                    u.department AS user_department, u.created_at AS user_created_at, \
                    u.disabled_at AS user_disabled_at, t.disabled_at AS tenant_disabled_at, \
                    r.revoked_at AS session_revoked_at \
             FROM pats p \
             JOIN users u ON u.id = p.user_id AND u.tenant_id = p.tenant_id \
             JOIN tenants t ON t.id = p.tenant_id \
             LEFT JOIN revocations r ON r.kind = 'session' AND r.subject = $2 \
             WHERE p.id = $1")
            .bind(id).bind(session.as_str()).fetch_optional(pool).await?);
        row.map(PatHolder::try_from).transpose()
    }

    /// The tokens of a tenant, or of one of its users, newest first.
    pub async fn pats(&self, tenant: &TenantId, user: Option<&UserId>) -> Result<Vec<PatRecord>, DbError> {
        let rows: Vec<PatRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, tenant_id, user_id, name, scopes, created_at, expires_at, last_used_at, revoked_at \
             FROM pats WHERE tenant_id = $1 AND ($2 = '' OR user_id = $2) ORDER BY created_at DESC, id")
            .bind(tenant.as_str()).bind(user.map_or("", UserId::as_str)).fetch_all(pool).await?);
        rows.into_iter().map(PatRecord::try_from).collect()
    }

    /// Revokes a token and with it every session that was exchanged for it; a token already revoked stays so. Returns
    /// the token; `None` if the tenant has no such token.
    pub async fn revoke_pat(
        &self,
        tenant: &TenantId,
        id: &str,
        now: OffsetDateTime,
    ) -> Result<Option<PatRecord>, DbError> {
        let row: Option<PatRow> = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let row = sqlx::query_as(
                "UPDATE pats SET revoked_at = COALESCE(revoked_at, $3) WHERE tenant_id = $1 AND id = $2 \
                 RETURNING id, tenant_id, user_id, name, scopes, created_at, expires_at, last_used_at, revoked_at")
                .bind(tenant.as_str()).bind(id).bind(seconds(now)).fetch_optional(&mut *tx).await?;
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
            row
        });
        row.map(PatRecord::try_from).transpose()
    }

    /// Notes when tokens were last used, in one transaction; a time earlier than the one stored changes nothing.
    pub async fn touch_pats(&self, used: &[(String, OffsetDateTime)]) -> Result<(), DbError> {
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            for (id, at) in used {
                sqlx::query(
                    "UPDATE pats SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)")
                    .bind(id).bind(seconds(*at)).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        });
        Ok(())
    }
}

// === impl PatRecord ===

impl TryFrom<PatRow> for PatRecord {
    type Error = DbError;

    fn try_from(row: PatRow) -> Result<Self, DbError> {
        Ok(Self {
            id: row.id,
            tenant: TenantId::parse(&row.tenant_id).map_err(corrupt)?,
            user: UserId::parse(&row.user_id).map_err(corrupt)?,
            name: row.name,
            scopes: row.scopes.0,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })
    }
}

// === impl PatHolder ===

impl TryFrom<HolderRow> for PatHolder {
    type Error = DbError;

    fn try_from(row: HolderRow) -> Result<Self, DbError> {
        let pat = PatRecord::try_from(PatRow {
            id: row.id,
            tenant_id: row.tenant_id,
            user_id: row.user_id,
            name: row.name,
            scopes: row.scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })?;
        let user = User {
            id: pat.user.clone(),
            tenant: pat.tenant.clone(),
            name: row.user_name,
            roles: row.user_roles.0,
            department: row.user_department,
            created_at: row.user_created_at,
            disabled_at: row.user_disabled_at,
        };
        Ok(Self {
            pat,
            mac: row.mac,
            user,
            tenant_disabled: row.tenant_disabled_at.is_some(),
            session_revoked: row.session_revoked_at.is_some(),
        })
    }
}
