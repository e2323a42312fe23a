//! Passwords and who is signed in, as stored. Every question about a session asks for its user and tenant too, and for what was
//! revoked: a session that is good here is good now, on whatever replica it is asked for.

use sallyport_protocol::id::{SessionId, TenantId, UserId};
use time::OffsetDateTime;

use super::user::{User, UserRow};
use super::{AUTH_MOVED, Db, DbError, corrupt, reading, seconds, writing};

/// A browser or a device that is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// Its session.
    pub session: SessionId,
    /// What it said that it is.
    pub device: String,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// Until when.
    pub expires_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct SignInRow {
    session_id: String,
    device: String,
    signed_in_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct SignedInRow {
    #[sqlx(flatten)]
    user: UserRow,
    #[sqlx(flatten)]
    sign_in: SignInRow,
}

#[derive(sqlx::FromRow)]
struct PasswordRow {
    #[sqlx(flatten)]
    user: UserRow,
    hash: String,
    tenant_disabled_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// Gives a user a password. Where there was another one, whoever signed in with it is signed out, and the access tokens of the
    /// user end; personal access tokens stay. `false` if the tenant has no such user.
    pub async fn set_password(
        &self,
        tenant: &TenantId,
        user: &UserId,
        hash: &str,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let now = seconds(now);
        if self.user(tenant, user).await?.is_none() {
            return Ok(false);
        }
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let replaced = sqlx::query("DELETE FROM passwords WHERE user_id = $1")
                .bind(user.as_str()).execute(&mut *tx).await?.rows_affected();
            sqlx::query("INSERT INTO passwords (user_id, tenant_id, hash, changed_at) VALUES ($1, $2, $3, $4)")
                .bind(user.as_str()).bind(tenant.as_str()).bind(hash).bind(now).execute(&mut *tx).await?;
            if replaced > 0 {
                sqlx::query("DELETE FROM sign_ins WHERE user_id = $1")
                    .bind(user.as_str()).execute(&mut *tx).await?;
                sqlx::query("DELETE FROM oauth_grants WHERE user_id = $1")
                    .bind(user.as_str()).execute(&mut *tx).await?;
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(user.as_str()).bind(now).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        });
        Ok(true)
    }

    /// The user with this name and its password, and whether user or tenant are disabled; `None` if there is no such user, or no password.
    pub async fn password(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<(User, String, bool)>, DbError> {
        let row: Option<PasswordRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, p.hash, \
                    t.disabled_at AS tenant_disabled_at \
             FROM users u \
             JOIN passwords p ON p.user_id = u.id AND p.tenant_id = u.tenant_id \
             JOIN tenants t ON t.id = u.tenant_id \
             WHERE u.tenant_id = $1 AND u.name = $2")
            .bind(tenant.as_str()).bind(name).fetch_optional(pool).await?);
        row.map(|row| {
            let disabled = row.tenant_disabled_at.is_some() || row.user.is_disabled();
            Ok((User::try_from(row.user)?, row.hash, disabled))
        })
        .transpose()
    }

    /// Stores that somebody signed in. Sessions that are over are forgotten, and the user's oldest beyond `most`.
    pub async fn insert_sign_in(
        &self,
        secret: &[u8],
        user: &User,
        sign_in: &SignIn,
        most: i64,
    ) -> Result<(), DbError> {
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query("DELETE FROM sign_ins WHERE expires_at <= $1")
                .bind(seconds(sign_in.created_at)).execute(&mut *tx).await?;
            sqlx::query(
                "DELETE FROM sign_ins WHERE secret IN (SELECT secret FROM sign_ins WHERE tenant_id = $1 AND user_id = $2 \
                 ORDER BY created_at DESC, session_id LIMIT 1000 OFFSET $3)")
                .bind(user.tenant.as_str()).bind(user.id.as_str()).bind(most - 1).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO sign_ins (secret, session_id, tenant_id, user_id, device, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)")
                .bind(secret).bind(sign_in.session.as_str()).bind(user.tenant.as_str()).bind(user.id.as_str())
                .bind(&sign_in.device).bind(seconds(sign_in.created_at)).bind(seconds(sign_in.expires_at))
                .execute(&mut *tx).await?;
            tx.commit().await?;
        });
        Ok(())
    }

    /// Who is signed in with this secret; `None` if nobody is, or is no longer.
    pub async fn signed_in(
        &self,
        secret: &[u8],
        now: OffsetDateTime,
    ) -> Result<Option<(User, SignIn)>, DbError> {
        let row: Option<SignedInRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, \
                    s.session_id, s.device, s.created_at AS signed_in_at, s.expires_at \
             FROM sign_ins s \
             JOIN users u ON u.id = s.user_id AND u.tenant_id = s.tenant_id AND u.disabled_at IS NULL \
             JOIN tenants t ON t.id = s.tenant_id AND t.disabled_at IS NULL \
             WHERE s.secret = $1 AND s.expires_at > $2 AND NOT EXISTS ( \
                 SELECT 1 FROM revocations r WHERE r.kind = 'session' AND r.subject = s.session_id \
                     OR r.kind = 'user' AND r.subject = s.user_id AND r.revoked_at >= s.created_at)")
            .bind(secret).bind(seconds(now)).fetch_optional(pool).await?);
        row.map(|row| Ok((User::try_from(row.user)?, SignIn::try_from(row.sign_in)?))).transpose()
    }

    /// Everywhere that a user is signed in, the newest first.
    pub async fn sign_ins(
        &self,
        tenant: &TenantId,
        user: &UserId,
        now: OffsetDateTime,
    ) -> Result<Vec<SignIn>, DbError> {
        let rows: Vec<SignInRow> = reading!(self, pool => sqlx::query_as(
            "SELECT s.session_id, s.device, s.created_at AS signed_in_at, s.expires_at FROM sign_ins s \
             WHERE s.tenant_id = $1 AND s.user_id = $2 AND s.expires_at > $3 AND NOT EXISTS ( \
                 SELECT 1 FROM revocations r WHERE r.kind = 'session' AND r.subject = s.session_id \
                     OR r.kind = 'user' AND r.subject = s.user_id AND r.revoked_at >= s.created_at) \
             UNION ALL \
             SELECT g.session_id, COALESCE(c.name, g.client_id), g.created_at, g.expires_at FROM oauth_grants g \
             LEFT JOIN oauth_clients c ON c.id = g.client_id \
             WHERE g.tenant_id = $1 AND g.user_id = $2 AND g.expires_at > $3 AND NOT EXISTS ( \
                 SELECT 1 FROM revocations r WHERE r.kind = 'session' AND r.subject = g.session_id \
                     OR r.kind = 'user' AND r.subject = g.user_id AND r.revoked_at >= g.created_at) \
             ORDER BY 3 DESC, 1")
            .bind(tenant.as_str()).bind(user.as_str()).bind(seconds(now)).fetch_all(pool).await?);
        rows.into_iter().map(SignIn::try_from).collect()
    }

    /// Ends a session of a user, with the access tokens that it was given; `false` if it is not the user's.
    pub async fn end_session(
        &self,
        tenant: &TenantId,
        user: &UserId,
        session: &SessionId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let mut found = 0;
            found += sqlx::query("DELETE FROM sign_ins WHERE session_id = $1 AND tenant_id = $2 AND user_id = $3")
                .bind(session.as_str()).bind(tenant.as_str()).bind(user.as_str())
                .execute(&mut *tx).await?.rows_affected();
            found += sqlx::query("DELETE FROM oauth_grants WHERE session_id = $1 AND tenant_id = $2 AND user_id = $3")
                .bind(session.as_str()).bind(tenant.as_str()).bind(user.as_str())
                .execute(&mut *tx).await?.rows_affected();
            if found > 0 {
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('session', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(session.as_str()).bind(seconds(now)).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            found
        });
        Ok(found > 0)
    }
}

// === impl SignIn ===

impl TryFrom<SignInRow> for SignIn {
    type Error = DbError;

    fn try_from(row: SignInRow) -> Result<Self, DbError> {
        Ok(Self {
            session: SessionId::parse(&row.session_id).map_err(corrupt)?,
            device: row.device,
            created_at: row.signed_in_at,
            expires_at: row.expires_at,
        })
    }
}

#[cfg(test)]
mod tests;
