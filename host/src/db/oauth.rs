//! What the authorization server keeps: clients, codes, grants with their refresh tokens, and devices that wait. Of every secret the
//! SHA-256. What may happen once happens in one statement, so that of any number of requests, on any replica, one has it.

use sallyport_protocol::id::{SessionId, TenantId, UserId};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::user::{User, UserRow};
use super::{AUTH_MOVED, Db, DbError, corrupt, reading, seconds, writing};

/// A client that may ask for tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthClient {
    /// Its id.
    pub id: String,
    /// Whose users may let it in; empty for everybody's.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// Where a browser may be sent back to.
    pub redirect_uris: Vec<String>,
    /// The SHA-256 of its secret; `None` for one that can keep none.
    pub secret: Option<Vec<u8>>,
    /// What it may ask for, in one text.
    pub scope: String,
    /// Whether it registered itself.
    pub registered: bool,
    /// The address of the document by which it is known.
    pub document: Option<String>,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// A code that a browser brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// Who has to bring it.
    pub client: String,
    /// Where it was sent.
    pub redirect_uri: String,
    /// The SHA-256 of the verifier, in base64url.
    pub challenge: String,
    /// The session that it begins.
    pub session: SessionId,
    /// The tenant of its user.
    pub tenant: TenantId,
    /// Who let it in.
    pub user: UserId,
    /// What was granted.
    pub scope: String,
    /// For which resource; empty for the gateway.
    pub resource: String,
    /// What the client wants to see again in its ID token.
    pub nonce: String,
    /// Which device it is for.
    pub device: String,
    /// Until when.
    pub expires_at: OffsetDateTime,
}

/// What a user granted a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthGrant {
    /// Its session.
    pub session: SessionId,
    /// Whom it was granted to.
    pub client: String,
    /// What was granted.
    pub scope: String,
    /// For which resource; empty for the gateway.
    pub resource: String,
    /// Until when.
    pub expires_at: OffsetDateTime,
}

/// A device that waits for its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Who asks.
    pub client: String,
    /// What for.
    pub scope: String,
    /// The session that it begins.
    pub session: SessionId,
    /// `pending`, `approved`, `denied` or `used`.
    pub state: String,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// When it last asked.
    pub polled_at: Option<OffsetDateTime>,
    /// Who let it in.
    pub by: Option<(TenantId, UserId)>,
}

/// What became of a secret that is good once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once<T> {
    /// It was good, and is used up now.
    First(T),
    /// It was used before: its session is revoked.
    Again(SessionId),
    /// There is none such, or no longer.
    Unknown,
}

#[derive(sqlx::FromRow)]
struct ClientRow {
    id: String,
    tenant_id: String,
    name: String,
    redirect_uris: Json<Vec<String>>,
    secret: Option<Vec<u8>>,
    scope: String,
    registered: bool,
    document: Option<String>,
    created_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct CodeRow {
    client_id: String,
    redirect_uri: String,
    challenge: String,
    session_id: String,
    tenant_id: String,
    user_id: String,
    scope: String,
    resource: String,
    nonce: String,
    device: String,
    expires_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct GrantRow {
    #[sqlx(flatten)]
    user: UserRow,
    session_id: String,
    client_id: String,
    scope: String,
    resource: String,
    grant_expires_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct DeviceRow {
    client_id: String,
    scope: String,
    session_id: String,
    state: String,
    tenant_id: Option<String>,
    user_id: Option<String>,
    expires_at: OffsetDateTime,
    polled_at: Option<OffsetDateTime>,
}

// === impl Db ===

impl Db {
    /// Stores a client; `false` if its id is taken.
    pub async fn insert_oauth_client(&self, client: &OauthClient) -> Result<bool, DbError> {
        let inserted = writing!(self, pool => sqlx::query(
            "INSERT INTO oauth_clients (id, tenant_id, name, redirect_uris, secret, scope, registered, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING")
            .bind(&client.id).bind(&client.tenant).bind(&client.name).bind(Json(&client.redirect_uris)).bind(&client.secret)
            .bind(&client.scope).bind(client.registered).bind(seconds(client.created_at))
            .execute(pool).await?.rows_affected());
        Ok(inserted == 1)
    }

    /// Stores a client that is known by its document, or what the document says of it now.
    pub async fn keep_document_client(&self, client: &OauthClient) -> Result<(), DbError> {
        writing!(self, pool => { sqlx::query(
            "INSERT INTO oauth_clients (id, tenant_id, name, redirect_uris, scope, registered, document, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, redirect_uris = excluded.redirect_uris")
            .bind(&client.id).bind(&client.tenant).bind(&client.name).bind(Json(&client.redirect_uris))
            .bind(&client.scope).bind(client.registered).bind(&client.document).bind(seconds(client.created_at))
            .execute(pool).await?; });
        Ok(())
    }

    /// The client with this id.
    pub async fn oauth_client(&self, id: &str) -> Result<Option<OauthClient>, DbError> {
        let row: Option<ClientRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, tenant_id, name, redirect_uris, secret, scope, registered, document, created_at FROM oauth_clients WHERE id = $1")
            .bind(id).fetch_optional(pool).await?);
        Ok(row.map(OauthClient::from))
    }

    /// Every client.
    pub async fn oauth_clients(&self) -> Result<Vec<OauthClient>, DbError> {
        let rows: Vec<ClientRow> = reading!(self, pool => sqlx::query_as(
            "SELECT id, tenant_id, name, redirect_uris, secret, scope, registered, document, created_at FROM oauth_clients ORDER BY id")
            .fetch_all(pool).await?);
        Ok(rows.into_iter().map(OauthClient::from).collect())
    }

    /// How many clients registered themselves.
    pub async fn count_registered_clients(&self) -> Result<i64, DbError> {
        Ok(
            reading!(self, pool => sqlx::query_scalar("SELECT COUNT(*) FROM oauth_clients WHERE registered = TRUE")
            .fetch_one(pool).await?),
        )
    }

    /// Forgets clients that registered themselves before `before` and that nobody granted anything to.
    pub async fn forget_unused_clients(&self, before: OffsetDateTime) -> Result<u64, DbError> {
        Ok(writing!(self, pool => sqlx::query(
            "DELETE FROM oauth_clients WHERE registered = TRUE AND last_used_at IS NULL AND created_at < $1")
            .bind(seconds(before)).execute(pool).await?.rows_affected()))
    }

    /// Deletes a client, with everything that was granted to it; `false` if there is none.
    pub async fn delete_oauth_client(&self, id: &str, now: OffsetDateTime) -> Result<bool, DbError> {
        let found = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let found = sqlx::query("DELETE FROM oauth_clients WHERE id = $1")
                .bind(id).execute(&mut *tx).await?.rows_affected();
            if found == 1 {
                let sessions: Vec<String> = sqlx::query_scalar("SELECT session_id FROM oauth_grants WHERE client_id = $1")
                    .bind(id).fetch_all(&mut *tx).await?;
                for session in sessions {
                    sqlx::query(
                        "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('session', $1, $2) \
                         ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                        .bind(session).bind(seconds(now)).execute(&mut *tx).await?;
                }
                sqlx::query("DELETE FROM oauth_grants WHERE client_id = $1")
                    .bind(id).execute(&mut *tx).await?;
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            found
        });
        Ok(found == 1)
    }

    /// Stores a code. Codes that ended before `forgotten` are forgotten, and of a user's codes all but the newest `most`.
    pub async fn insert_code(
        &self,
        secret: &[u8],
        code: &AuthorizationCode,
        forgotten: OffsetDateTime,
        most: i64,
    ) -> Result<(), DbError> {
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query("DELETE FROM authorization_codes WHERE expires_at < $1")
                .bind(seconds(forgotten)).execute(&mut *tx).await?;
            sqlx::query(
                "DELETE FROM authorization_codes WHERE secret IN (SELECT secret FROM authorization_codes \
                 WHERE tenant_id = $1 AND user_id = $2 ORDER BY expires_at DESC, secret LIMIT 1000 OFFSET $3)")
                .bind(code.tenant.as_str()).bind(code.user.as_str()).bind(most - 1).execute(&mut *tx).await?;
            sqlx::query("UPDATE oauth_clients SET last_used_at = $2 WHERE id = $1")
                .bind(&code.client).bind(seconds(forgotten)).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO authorization_codes (secret, client_id, redirect_uri, challenge, session_id, tenant_id, \
                     user_id, scope, resource, nonce, device, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
                .bind(secret).bind(&code.client).bind(&code.redirect_uri).bind(&code.challenge)
                .bind(code.session.as_str()).bind(code.tenant.as_str()).bind(code.user.as_str()).bind(&code.scope)
                .bind(&code.resource).bind(&code.nonce).bind(&code.device).bind(seconds(code.expires_at))
                .execute(&mut *tx).await?;
            tx.commit().await?;
        });
        Ok(())
    }

    /// Uses a code up. Whoever has not all that it is bound to changes nothing; whoever has, and comes second, ends its session.
    pub async fn use_code(
        &self,
        secret: &[u8],
        client: &str,
        redirect_uri: &str,
        challenge: &str,
        now: OffsetDateTime,
    ) -> Result<Once<AuthorizationCode>, DbError> {
        let row: Option<CodeRow> = writing!(self, pool => sqlx::query_as(
            "UPDATE authorization_codes SET used_at = $5 \
             WHERE secret = $1 AND client_id = $2 AND redirect_uri = $3 AND challenge = $4 AND used_at IS NULL \
                 AND expires_at > $5 \
             RETURNING client_id, redirect_uri, challenge, session_id, tenant_id, user_id, scope, resource, nonce, device, \
                 expires_at")
            .bind(secret).bind(client).bind(redirect_uri).bind(challenge).bind(seconds(now))
            .fetch_optional(pool).await?);
        if let Some(row) = row {
            return Ok(Once::First(row.try_into()?));
        }
        let again: Option<String> = reading!(self, pool => sqlx::query_scalar(
            "SELECT session_id FROM authorization_codes \
             WHERE secret = $1 AND client_id = $2 AND redirect_uri = $3 AND challenge = $4 AND used_at IS NOT NULL")
            .bind(secret).bind(client).bind(redirect_uri).bind(challenge).fetch_optional(pool).await?);
        self.ended_by_reuse(again, now).await
    }

    /// Stores what a user granted, with the first refresh token of its family. Of a user's grants only the newest `most` stay: what
    /// falls out ends like a session that was signed out.
    pub async fn insert_grant(
        &self,
        grant: &OauthGrant,
        tenant: &TenantId,
        user: &UserId,
        refresh: &[u8],
        now: OffsetDateTime,
        most: i64,
    ) -> Result<(), DbError> {
        let now = seconds(now);
        writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query("DELETE FROM oauth_grants WHERE expires_at <= $1").bind(now).execute(&mut *tx).await?;
            let out: Vec<String> = sqlx::query_scalar(
                "SELECT session_id FROM oauth_grants WHERE tenant_id = $1 AND user_id = $2 \
                 ORDER BY created_at DESC, session_id LIMIT 1000 OFFSET $3")
                .bind(tenant.as_str()).bind(user.as_str()).bind(most - 1).fetch_all(&mut *tx).await?;
            for session in &out {
                sqlx::query(
                    "INSERT INTO revocations (kind, subject, revoked_at) VALUES ('session', $1, $2) \
                     ON CONFLICT (kind, subject) DO UPDATE SET revoked_at = excluded.revoked_at")
                    .bind(session).bind(now).execute(&mut *tx).await?;
                sqlx::query("DELETE FROM oauth_grants WHERE session_id = $1").bind(session).execute(&mut *tx).await?;
            }
            if !out.is_empty() {
                sqlx::query(AUTH_MOVED).execute(&mut *tx).await?;
            }
            sqlx::query("UPDATE oauth_clients SET last_used_at = $2 WHERE id = $1")
                .bind(&grant.client).bind(now).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO oauth_grants (session_id, client_id, tenant_id, user_id, scope, resource, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
                .bind(grant.session.as_str()).bind(&grant.client).bind(tenant.as_str()).bind(user.as_str())
                .bind(&grant.scope).bind(&grant.resource).bind(now).bind(seconds(grant.expires_at))
                .execute(&mut *tx).await?;
            sqlx::query("INSERT INTO refresh_tokens (secret, session_id, created_at) VALUES ($1, $2, $3)")
                .bind(refresh).bind(grant.session.as_str()).bind(now).execute(&mut *tx).await?;
            tx.commit().await?;
        });
        Ok(())
    }

    /// The grant of a refresh token and its user, used up or not; `None` where it is good no more.
    pub async fn grant_of(
        &self,
        refresh: &[u8],
        now: OffsetDateTime,
    ) -> Result<Option<(OauthGrant, User)>, DbError> {
        let row: Option<GrantRow> = reading!(self, pool => sqlx::query_as(
            "SELECT u.id, u.tenant_id, u.name, u.roles, u.department, u.created_at, u.disabled_at, \
                    g.session_id, g.client_id, g.scope, g.resource, g.expires_at AS grant_expires_at \
             FROM refresh_tokens f \
             JOIN oauth_grants g ON g.session_id = f.session_id \
             JOIN users u ON u.id = g.user_id AND u.tenant_id = g.tenant_id AND u.disabled_at IS NULL \
             JOIN tenants t ON t.id = g.tenant_id AND t.disabled_at IS NULL \
             WHERE f.secret = $1 AND g.expires_at > $2 AND NOT EXISTS ( \
                 SELECT 1 FROM revocations r WHERE r.kind = 'session' AND r.subject = g.session_id \
                     OR r.kind = 'user' AND r.subject = g.user_id AND r.revoked_at >= g.created_at)")
            .bind(refresh).bind(seconds(now)).fetch_optional(pool).await?);
        row.map(|row| {
            let grant = OauthGrant {
                session: SessionId::parse(&row.session_id).map_err(corrupt)?,
                client: row.client_id,
                scope: row.scope,
                resource: row.resource,
                expires_at: row.grant_expires_at,
            };
            Ok((grant, User::try_from(row.user)?))
        })
        .transpose()
    }

    /// Uses a refresh token up, and stores the one that follows it. Of those that were used, the newest `most` are remembered: an older
    /// one is refused as one that nobody knows.
    pub async fn rotate(
        &self,
        used: &[u8],
        next: &[u8],
        now: OffsetDateTime,
        most: i64,
    ) -> Result<Once<()>, DbError> {
        let now_s = seconds(now);
        let first: Option<String> = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            let first: Option<String> = sqlx::query_scalar(
                "UPDATE refresh_tokens SET used_at = $2 WHERE secret = $1 AND used_at IS NULL RETURNING session_id")
                .bind(used).bind(now_s).fetch_optional(&mut *tx).await?;
            if let Some(session) = &first {
                sqlx::query("INSERT INTO refresh_tokens (secret, session_id, created_at) VALUES ($1, $2, $3)")
                    .bind(next).bind(session).bind(now_s).execute(&mut *tx).await?;
                sqlx::query(
                    "DELETE FROM refresh_tokens WHERE secret IN (SELECT secret FROM refresh_tokens \
                     WHERE session_id = $1 AND used_at IS NOT NULL ORDER BY used_at DESC, created_at DESC, secret \
                     LIMIT 1000 OFFSET $2)")
                    .bind(session).bind(most).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            first
        });
        if first.is_some() {
            return Ok(Once::First(()));
        }
        let again: Option<String> = reading!(self, pool => sqlx::query_scalar(
            "SELECT session_id FROM refresh_tokens WHERE secret = $1")
            .bind(used).fetch_optional(pool).await?);
        self.ended_by_reuse(again, now).await
    }

    /// Stores a device that waits, unless `most` of them wait already; `false` then, and if its user code is taken.
    pub async fn insert_device(
        &self,
        secret: &[u8],
        user_code: &str,
        device: &DeviceRequest,
        now: OffsetDateTime,
        most: i64,
    ) -> Result<bool, DbError> {
        let now = seconds(now);
        let inserted = writing!(self, pool => {
            let mut tx = pool.begin().await?;
            sqlx::query("DELETE FROM device_codes WHERE expires_at <= $1").bind(now).execute(&mut *tx).await?;
            let inserted = sqlx::query(
                "INSERT INTO device_codes (secret, user_code, client_id, scope, session_id, state, created_at, expires_at) \
                 SELECT $1, $2, $3, $4, $5, 'pending', $6, $7 \
                 WHERE (SELECT COUNT(*) FROM device_codes) < $8 ON CONFLICT DO NOTHING")
                .bind(secret).bind(user_code).bind(&device.client).bind(&device.scope).bind(device.session.as_str())
                .bind(now).bind(seconds(device.expires_at)).bind(most).execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            inserted
        });
        Ok(inserted == 1)
    }

    /// The device that waits under this user code.
    pub async fn waiting_device(
        &self,
        user_code: &str,
        now: OffsetDateTime,
    ) -> Result<Option<DeviceRequest>, DbError> {
        let row: Option<DeviceRow> = reading!(self, pool => sqlx::query_as(
            "SELECT client_id, scope, session_id, state, tenant_id, user_id, expires_at, polled_at FROM device_codes \
             WHERE user_code = $1 AND state = 'pending' AND expires_at > $2")
            .bind(user_code).bind(seconds(now)).fetch_optional(pool).await?);
        row.map(DeviceRequest::try_from).transpose()
    }

    /// Lets a device in, or turns it away; `false` if it waits no more.
    pub async fn decide_device(
        &self,
        user_code: &str,
        state: &str,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<bool, DbError> {
        let decided = writing!(self, pool => sqlx::query(
            "UPDATE device_codes SET state = $2, tenant_id = $3, user_id = $4 \
             WHERE user_code = $1 AND state = 'pending' AND expires_at > $5")
            .bind(user_code).bind(state).bind(user.tenant.as_str()).bind(user.id.as_str()).bind(seconds(now))
            .execute(pool).await?.rows_affected());
        Ok(decided == 1)
    }

    /// What became of the device, which asks now: its state as it was when it last asked.
    pub async fn poll_device(
        &self,
        secret: &[u8],
        now: OffsetDateTime,
    ) -> Result<Option<DeviceRequest>, DbError> {
        let row: Option<DeviceRow> = reading!(self, pool => sqlx::query_as(
            "SELECT client_id, scope, session_id, state, tenant_id, user_id, expires_at, polled_at FROM device_codes \
             WHERE secret = $1")
            .bind(secret).fetch_optional(pool).await?);
        if row.as_ref().is_some_and(|row| row.state == "pending") {
            writing!(self, pool => sqlx::query("UPDATE device_codes SET polled_at = $2 WHERE secret = $1")
                .bind(secret).bind(seconds(now)).execute(pool).await.map(drop)?);
        }
        row.map(DeviceRequest::try_from).transpose()
    }

    /// Uses the code of a device up that was let in; `false` if somebody else did.
    pub async fn use_device(&self, secret: &[u8]) -> Result<bool, DbError> {
        let used = writing!(self, pool => sqlx::query(
            "UPDATE device_codes SET state = 'used' WHERE secret = $1 AND state = 'approved'")
            .bind(secret).execute(pool).await?.rows_affected());
        Ok(used == 1)
    }

    /// The session of a refresh token, whatever became of it.
    pub async fn session_of_refresh(&self, refresh: &[u8]) -> Result<Option<(String, String)>, DbError> {
        Ok(reading!(self, pool => sqlx::query_as(
            "SELECT g.session_id, g.client_id FROM refresh_tokens f JOIN oauth_grants g ON g.session_id = f.session_id \
             WHERE f.secret = $1")
            .bind(refresh).fetch_optional(pool).await?))
    }

    /// Ends a session of which a secret was used twice: one of the two was stolen.
    async fn ended_by_reuse<T>(
        &self,
        session: Option<String>,
        now: OffsetDateTime,
    ) -> Result<Once<T>, DbError> {
        let Some(session) = session else { return Ok(Once::Unknown) };
        let session = SessionId::parse(&session).map_err(corrupt)?;
        self.revoke(&super::revocation::Revocation::Session(session.clone()), now).await?;
        Ok(Once::Again(session))
    }
}

// === impl OauthClient ===

impl From<ClientRow> for OauthClient {
    fn from(row: ClientRow) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant_id,
            name: row.name,
            redirect_uris: row.redirect_uris.0,
            secret: row.secret,
            scope: row.scope,
            registered: row.registered,
            document: row.document,
            created_at: row.created_at,
        }
    }
}

// === impl AuthorizationCode ===

impl TryFrom<CodeRow> for AuthorizationCode {
    type Error = DbError;

    fn try_from(row: CodeRow) -> Result<Self, DbError> {
        Ok(Self {
            client: row.client_id,
            redirect_uri: row.redirect_uri,
            challenge: row.challenge,
            session: SessionId::parse(&row.session_id).map_err(corrupt)?,
            tenant: TenantId::parse(&row.tenant_id).map_err(corrupt)?,
            user: UserId::parse(&row.user_id).map_err(corrupt)?,
            scope: row.scope,
            resource: row.resource,
            nonce: row.nonce,
            device: row.device,
            expires_at: row.expires_at,
        })
    }
}

// === impl DeviceRequest ===

impl TryFrom<DeviceRow> for DeviceRequest {
    type Error = DbError;

    fn try_from(row: DeviceRow) -> Result<Self, DbError> {
        let by = match (row.tenant_id, row.user_id) {
            (Some(tenant), Some(user)) => {
                Some((TenantId::parse(&tenant).map_err(corrupt)?, UserId::parse(&user).map_err(corrupt)?))
            }
            _ => None,
        };
        Ok(Self {
            client: row.client_id,
            scope: row.scope,
            session: SessionId::parse(&row.session_id).map_err(corrupt)?,
            state: row.state,
            expires_at: row.expires_at,
            polled_at: row.polled_at,
            by,
        })
    }
}
