//! Sign-ins at identity providers, as stored: browsers that are to come back, and whom a provider means by a subject.

use sallyport_protocol::id::{TenantId, UserId};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::user::{User, UserRow};
use super::{AUTH_MOVED, Db, DbError, reading, seconds, writing};

/// A browser that was sent to an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderVisit {
    /// The provider's name in the configuration.
    pub provider: String,
    /// Where the browser goes on afterwards.
    pub next: String,
    /// When it was sent.
    pub created_at: OffsetDateTime,
    /// Until when it may come back.
    pub expires_at: OffsetDateTime,
}

/// What became of a browser that comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VisitEnd {
    /// It is the one that was sent, and comes back for the first time.
    Back(ProviderVisit),
    /// Another browser was sent with this.
    OtherBrowser,
    /// Nobody was sent with this, or it was long ago, or it was back already.
    Unknown,
}

/// A user of whom an identity provider speaks by a subject.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LinkedSubject {
    /// The provider's issuer.
    pub issuer: String,
    /// What it calls the user.
    pub subject: String,
    /// Since when.
    pub created_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct VisitRow {
    browser: Vec<u8>,
    provider: String,
    next: String,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct SubjectUserRow {
    #[sqlx(flatten)]
    user: UserRow,
    tenant_disabled_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// Stores that a browser was sent; `false` if too many are away.
    pub async fn insert_provider_visit(
        &self,
        state: &[u8],
        browser: &[u8],
        visit: &ProviderVisit,
        most: i64,
    ) -> Result<bool, DbError> {
        let now = seconds(visit.created_at);
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query("DELETE FROM provider_sign_ins WHERE expires_at <= $1").bind(now).execute(&mut *tx).await?;
            let inserted = sqlx::query(
                "INSERT INTO provider_sign_ins (state, browser, provider, next, created_at, expires_at) \
                 SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT COUNT(*) FROM provider_sign_ins) < $7 ON CONFLICT DO NOTHING")
                .bind(state).bind(browser).bind(&visit.provider).bind(&visit.next).bind(now)
                .bind(seconds(visit.expires_at)).bind(most).execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            inserted
        });
        Ok(inserted == 1)
    }

    /// Takes back the browser that was sent with this, once.
    pub async fn end_provider_visit(
        &self,
        state: &[u8],
        browser: &[u8],
        provider: &str,
        now: OffsetDateTime,
    ) -> Result<VisitEnd, DbError> {
        let row: Option<VisitRow> = reading!(self, pool => sqlx::query_as(
            "SELECT browser, provider, next, created_at, expires_at FROM provider_sign_ins \
             WHERE state = $1 AND provider = $2 AND expires_at > $3")
            .bind(state).bind(provider).bind(seconds(now)).fetch_optional(pool).await?);
        let Some(row) = row else { return Ok(VisitEnd::Unknown) };
        if row.browser != browser {
            return Ok(VisitEnd::OtherBrowser);
        }
        let ended = writing!(self, pool => sqlx::query(
            "DELETE FROM provider_sign_ins WHERE state = $1 AND browser = $2 AND provider = $3 AND expires_at > $4")
            .bind(state).bind(browser).bind(provider).bind(seconds(now)).execute(pool).await?.rows_affected());
        if ended != 1 {
            return Ok(VisitEnd::Unknown);
        }
        let VisitRow { provider, next, created_at, expires_at, .. } = row;
        Ok(VisitEnd::Back(ProviderVisit { provider, next, created_at, expires_at }))
    }

    /// Whom a provider means, and whether the user's tenant is disabled.
    pub async fn user_of_subject(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<(User, bool)>, DbError> {
        let row: Option<SubjectUserRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, \
                    t.disabled_at AS tenant_disabled_at \
             FROM provider_subjects s \
             JOIN users u ON u.id = s.user_id AND u.tenant_id = s.tenant_id \
             JOIN tenants t ON t.id = s.tenant_id \
             WHERE s.issuer = $1 AND s.subject = $2")
            .bind(issuer).bind(subject).fetch_optional(pool).await?);
        row.map(|row| Ok((User::try_from(row.user)?, row.tenant_disabled_at.is_some()))).transpose()
    }

    /// Stores a new user together with whom a provider means by a subject; `false` if the name, or the subject, is taken.
    pub async fn insert_user_of_subject(
        &self,
        user: &User,
        issuer: &str,
        subject: &str,
    ) -> Result<bool, DbError> {
        let now = seconds(user.created_at);
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let mut inserted = sqlx::query(
                "INSERT INTO users (id, tenant_id, name, roles, department, created_at, disabled_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, NULL) ON CONFLICT DO NOTHING")
                .bind(user.id.as_str()).bind(user.tenant.as_str()).bind(&user.name).bind(Json(&user.roles))
                .bind(&user.department).bind(now).execute(&mut *tx).await?.rows_affected();
            if inserted == 1 {
                inserted = sqlx::query(
                    "INSERT INTO provider_subjects (issuer, subject, tenant_id, user_id, created_at) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
                    .bind(issuer).bind(subject).bind(user.tenant.as_str()).bind(user.id.as_str()).bind(now)
                    .execute(&mut *tx).await?.rows_affected();
            }
            if inserted == 1 { tx.commit().await? } else { tx.rollback().await? }
            inserted
        });
        Ok(inserted == 1)
    }

    /// Links a subject to a user; `false` if it is somebody's already, in whatever tenant.
    pub async fn link_subject(
        &self,
        issuer: &str,
        subject: &str,
        tenant: &TenantId,
        user: &UserId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let linked = writing!(self, pool => sqlx::query(
            "INSERT INTO provider_subjects (issuer, subject, tenant_id, user_id, created_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (issuer, subject) DO NOTHING")
            .bind(issuer).bind(subject).bind(tenant.as_str()).bind(user.as_str()).bind(seconds(now))
            .execute(pool).await?.rows_affected());
        Ok(linked == 1)
    }

    /// Takes a subject from a user, and ends all that the user signed in to; `false` if it is not the user's.
    pub async fn unlink_subject(
        &self,
        issuer: &str,
        subject: &str,
        tenant: &TenantId,
        user: &UserId,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let unlinked = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let unlinked = sqlx::query(
                "DELETE FROM provider_subjects WHERE issuer = $1 AND subject = $2 AND tenant_id = $3 AND user_id = $4")
                .bind(issuer).bind(subject).bind(tenant.as_str()).bind(user.as_str())
                .execute(&mut *tx).await?.rows_affected();
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

    /// What providers call a user.
    pub async fn subjects_of(&self, tenant: &TenantId, user: &UserId) -> Result<Vec<LinkedSubject>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT issuer, subject, created_at FROM provider_subjects WHERE tenant_id = $1 AND user_id = $2 \
             ORDER BY issuer, subject")
            .bind(tenant.as_str()).bind(user.as_str()).fetch_all(pool).await?))
    }

    /// Says what a user may do who is just signing in, and ends what says otherwise. Times are whole seconds, and what begins now must
    /// not end with it: so sessions end by name, and what else was issued until the second before.
    pub async fn change_user_at_sign_in(&self, user: &User, now: OffsetDateTime) -> Result<bool, DbError> {
        let now = seconds(now);
        let before = now - time::Duration::SECOND;
        let (tenant, id) = (user.tenant.as_str(), user.id.as_str());
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("UPDATE users SET roles = $3, department = $4 WHERE tenant_id = $1 AND id = $2")
                .bind(tenant).bind(id).bind(Json(&user.roles)).bind(&user.department)
                .execute(&mut *tx).await?.rows_affected();
            if found == 1 {
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) \
                     SELECT 'session', session_id, $3 FROM sign_ins WHERE tenant_id = $1 AND user_id = $2 \
                     UNION SELECT 'session', session_id, $3 FROM oauth_grants WHERE tenant_id = $1 AND user_id = $2 \
                     ON CONFLICT (kind, subject) DO NOTHING")
                    .bind(tenant).bind(id).bind(now).execute(&mut *tx).await?;
                sqlx::query("DELETE FROM sign_ins WHERE tenant_id = $1 AND user_id = $2")
                    .bind(tenant).bind(id).execute(&mut *tx).await?;
                sqlx::query("DELETE FROM oauth_grants WHERE tenant_id = $1 AND user_id = $2")
                    .bind(tenant).bind(id).execute(&mut *tx).await?;
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('user', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at \
                     WHERE revocations.revoked_at < excluded.revoked_at")
                    .bind(id).bind(before).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }
}

#[cfg(test)]
mod tests;
