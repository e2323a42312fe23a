//! What was revoked, as stored, and the epoch that tells every process to look again.

use sallyport_protocol::id::{SessionId, TenantId, UserId};
use time::OffsetDateTime;

use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// What is taken back. A personal access token is revoked by [`Db::revoke_pat`], which names its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// Everything issued to the user so far, personal access tokens included.
    User(TenantId, UserId),
    /// Every token of one session.
    Session(SessionId),
    /// One token, by its `jti`.
    Token(String),
}

/// One row of what was revoked.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RevocationRow {
    /// `user`, `session` or `token`; `pat`, `disabled_user` or `disabled_tenant` for rows of the other tables.
    pub kind: String,
    /// The id of what was revoked.
    pub subject: String,
    /// Since when.
    pub revoked_at: OffsetDateTime,
}

// === impl Db ===

impl Db {
    /// How often rights were taken away so far.
    pub async fn auth_epoch(&self) -> Result<i64, DbError> {
        Ok(
            reading!(self, pool => sqlx::query_scalar("SELECT epoch FROM auth_epoch WHERE id = 1").fetch_one(pool).await?),
        )
    }

    /// Everything that voids a token issued after `since`: older revocations can only concern tokens that have expired.
    pub async fn revocations(&self, since: OffsetDateTime) -> Result<Vec<RevocationRow>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT kind, subject, revoked_at FROM revocations WHERE revoked_at >= $1 \
             UNION ALL SELECT 'pat', id, revoked_at FROM pats WHERE revoked_at >= $1 \
             UNION ALL SELECT 'disabled_user', id, disabled_at FROM users WHERE disabled_at IS NOT NULL \
             UNION ALL SELECT 'disabled_tenant', id, disabled_at FROM tenants WHERE disabled_at IS NOT NULL")
            .bind(seconds(since)).fetch_all(pool).await?))
    }

    /// Takes back what was issued; takes effect in every process at its next look at the epoch. `false` if there is no
    /// such user; a session or a token that nobody knows is revoked all the same.
    pub async fn revoke(&self, what: &Revocation, now: OffsetDateTime) -> Result<bool, DbError> {
        let now = seconds(now);
        let (kind, subject) = match what {
            Revocation::User(_, user) => ("user", user.as_str()),
            Revocation::Session(session) => ("session", session.as_str()),
            Revocation::Token(jti) => ("token", jti.as_str()),
        };
        if let Revocation::User(tenant, user) = what
            && self.user(tenant, user).await?.is_none()
        {
            return Ok(false);
        }
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query(
                "INSERT INTO revocations (kind, subject, revoked_at) VALUES ($1, $2, $3) \
                 ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                .bind(kind).bind(subject).bind(now).execute(&mut *tx).await?;
            if let Revocation::User(tenant, user) = what {
                sqlx::query(
                    "UPDATE pats SET revoked_at = $3 WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL")
                    .bind(tenant.as_str()).bind(user.as_str()).bind(now).execute(&mut *tx).await?;
            }
            sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            tx.commit().await?;
        });
        Ok(true)
    }
}
