//! Who is calling: turns a personal access token or an access token of ours into a [`Principal`], issues access tokens,
//! and notices within two seconds when another process took a right away.
//!
//! *Invariant:* a header never says who calls; it is compared with what the credential says ([`check_headers`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use sallyport_protocol::canonical;
use sallyport_protocol::headers::{
    CALL_SOURCE, CLIENT_ID, POLICY_VERSION, SESSION_ID, TENANT_ID, TRACE_ID, USER_ID,
};
use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TenantId, TraceId, UserId};
use sallyport_protocol::token::{PREFIX, Pat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Entropy};
use crate::db::pat::PatHolder;
use crate::db::revocation::Revocation;
use crate::db::{Db, DbError};

mod bootstrap;
pub mod form;
mod headers;
mod jwt;
pub mod keys;
pub mod pat;
mod revocation;

pub use self::bootstrap::{ADMIN, DEFAULT_TENANT, bootstrap};
pub use self::headers::{Mismatch, check_headers, foreign_headers};
pub use self::jwt::{BadKey, JwtFault, MAX_TOKEN};
use self::jwt::{Claims, Signer, Verifier};
use self::keys::{Keys, SecretKey};
pub use self::pat::PatFault;
use self::revocation::Revoked;

/// How often other processes' changes are looked for.
const POLL: Duration = Duration::from_secs(1);
/// Every so many polls, the times of last use are written.
const POLLS_PER_FLUSH: u32 = 10;
/// How many credentials are remembered.
const REMEMBERED: usize = 10_000;
/// The shortest life that may be configured for an access token.
const MIN_TTL: Duration = Duration::from_mins(1);
/// The longest.
const MAX_TTL: Duration = Duration::from_secs(jwt::MAX_LIFETIME.unsigned_abs());

/// The verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who calls.
    pub user: UserId,
    /// Its name for people. Known from a personal access token, not from an access token.
    pub name: Option<String>,
    /// The tenant the user belongs to.
    pub tenant: TenantId,
    /// One conversation, one exchange of a token, or all direct use of one personal access token.
    pub session: SessionId,
    /// The client software.
    pub client: ClientId,
    /// What kind of work causes its calls.
    pub source: CallSource,
    /// Roles within the tenant.
    pub roles: Vec<String>,
    /// The user's department, where the tenant keeps departments.
    pub department: Option<String>,
    /// What the credential may be used for.
    pub scopes: Vec<String>,
    /// The bundle in force when the token was issued; `None` for a personal access token.
    pub policy_version: Option<PolicyVersion>,
    /// What it showed.
    pub credential: Credential,
}

/// What a caller showed, by its public id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A personal access token, used directly.
    Pat {
        /// Its public half.
        id: String,
    },
    /// An access token of ours.
    Jwt {
        /// Its id.
        jti: String,
    },
}

/// How a user proves who it is before it is given an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// A personal access token.
    Pat,
}

/// What the operator decides about access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// The `iss` of our tokens: the gateway's public URL.
    pub issuer: String,
    /// The `aud` of our tokens.
    pub audience: String,
    /// How long an access token lives: 60 to 3600 seconds.
    pub ttl: Duration,
    /// The tiers that are offered.
    pub tiers: Vec<Tier>,
}

/// An access token that was just issued, with the headers that go with it. `Debug` masks the token.
pub struct Issued {
    /// The access token.
    pub token: String,
    /// How long it will be good for.
    pub ttl_seconds: u64,
    /// The seven identity headers that agree with it, in their canonical order.
    pub headers: [(&'static str, String); 7],
}

/// Why a credential is refused. The client sees [`AuthFault::PUBLIC_MESSAGE`], whatever the reason; the audit row holds
/// [`AuthFault::kind`].
#[derive(Debug, thiserror::Error)]
pub enum AuthFault {
    /// There is none.
    #[error("no credential")]
    Missing,
    /// Something else was shown where only a personal access token will do.
    #[error("not a personal access token")]
    NotAPat,
    /// The tier is switched off.
    #[error("the tier is not enabled")]
    TierDisabled,
    /// The personal access token is refused.
    #[error("the personal access token is refused")]
    Pat {
        /// Its public half, if it was genuine.
        id: Option<String>,
        /// Why.
        #[source]
        reason: PatFault,
    },
    /// The access token is refused.
    #[error("the access token is refused")]
    Jwt(#[source] JwtFault),
    /// Whether the credential is good cannot be told now. Not the caller's fault: 503.
    #[error("the database of identities does not answer")]
    Unavailable(#[source] DbError),
    /// An access token could not be signed. Not the caller's fault: 500.
    #[error("the access token could not be issued")]
    Issue(#[source] BadKey),
}

/// Why authentication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The life of tokens is out of bounds.
    #[error("the life of access tokens must be 60 to 3600 seconds")]
    Ttl,
    /// The issuer or the audience is empty.
    #[error("access tokens need an issuer and an audience")]
    Empty,
    /// The key cannot be used.
    #[error("the keys cannot be used")]
    Key(#[from] BadKey),
    /// The database failed.
    #[error("revocations could not be read")]
    Database(#[from] DbError),
}

/// Decides who calls. One for the process.
pub struct Auth {
    db: Db,
    settings: AuthSettings,
    signer: Signer,
    verifier: Verifier,
    pepper: SecretKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    revoked: ArcSwap<Revoked>,
    refreshing: tokio::sync::Mutex<()>,
    /// By SHA-256 of the whole credential, so that none is kept and a near miss is a miss.
    remembered: Cache<[u8; 32], Remembered>,
    used: Mutex<HashMap<String, OffsetDateTime>>,
    /// When the database was last read, in milliseconds of the monotonic clock.
    fresh_at_ms: AtomicU64,
}

#[derive(Clone)]
struct Remembered {
    /// What was revoked then; once that changes, this counts no more.
    epoch: i64,
    /// The last second in which the credential is good.
    until: i64,
    principal: Arc<Principal>,
}

// === impl Principal ===

impl Principal {
    /// Whether the credential may be used for this.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|it| it == scope)
    }

    fn of_pat(holder: PatHolder) -> Self {
        Self {
            session: pat::session_of(&holder.pat.id),
            user: holder.user.id,
            name: Some(holder.user.name),
            tenant: holder.user.tenant,
            client: ClientId::cli(),
            source: CallSource::Api,
            roles: holder.user.roles,
            department: holder.user.department,
            scopes: holder.pat.scopes,
            policy_version: None,
            credential: Credential::Pat { id: holder.pat.id },
        }
    }
}

impl From<Claims> for Principal {
    fn from(claims: Claims) -> Self {
        Self {
            user: claims.sub,
            name: None,
            tenant: claims.tid,
            session: claims.sid,
            client: claims.cid,
            source: claims.src,
            roles: claims.roles,
            department: claims.dept,
            scopes: claims.scope.split(' ').map(str::to_owned).collect(),
            policy_version: Some(claims.pv),
            credential: Credential::Jwt { jti: claims.jti },
        }
    }
}

// === impl Credential ===

impl Credential {
    /// Its public id, for logs and audit rows.
    pub fn id(&self) -> &str {
        match self {
            Self::Pat { id } => id,
            Self::Jwt { jti } => jti,
        }
    }
}

// === impl Tier ===

impl Tier {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pat => "pat",
        }
    }

    /// The tier with this name.
    pub fn parse(text: &str) -> Option<Self> {
        (text == "pat").then_some(Self::Pat)
    }
}

// === impl AuthSettings ===

impl AuthSettings {
    /// The defaults, for a gateway at this public URL.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: "cowork".to_owned(), ttl: MAX_TTL, tiers: vec![Tier::Pat] }
    }
}

// === impl Issued ===

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("ttl_seconds", &self.ttl_seconds)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

// === impl AuthFault ===

impl AuthFault {
    /// What every client is told, so that nobody learns which part of a guess was right.
    pub const PUBLIC_MESSAGE: &'static str = "the credential is missing or not valid";

    /// The reason, as a stable name for the audit row.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "credential_missing",
            Self::NotAPat => "credential_not_a_pat",
            Self::TierDisabled => "tier_disabled",
            Self::Pat { reason, .. } => reason.code(),
            Self::Jwt(reason) => reason.code(),
            Self::Unavailable(_) => "identity_unavailable",
            Self::Issue(_) => "token_not_issued",
        }
    }

    /// Whether the fault is ours rather than the caller's.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Issue(_))
    }
}

impl From<DbError> for AuthFault {
    fn from(error: DbError) -> Self {
        Self::Unavailable(error)
    }
}

// === impl Auth ===

impl Auth {
    /// Reads what was revoked and gets ready to decide.
    pub async fn open(
        db: Db,
        keys: &Keys,
        settings: AuthSettings,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, OpenError> {
        if settings.ttl < MIN_TTL || settings.ttl > MAX_TTL {
            return Err(OpenError::Ttl);
        }
        if settings.issuer.is_empty() || settings.audience.is_empty() {
            return Err(OpenError::Empty);
        }
        let signer = Signer::new(keys.jwt());
        let verifier =
            Verifier::new(&[*signer.public()], &settings.issuer, &settings.audience, &settings.tiers)?;
        let revoked = Revoked::load(&db, clock.now()).await?;
        let fresh_at_ms = AtomicU64::new(millis(clock.monotonic()));
        Ok(Arc::new(Self {
            db,
            settings,
            signer,
            verifier,
            pepper: keys.pat_pepper().clone(),
            clock,
            entropy,
            revoked: ArcSwap::from_pointee(revoked),
            refreshing: tokio::sync::Mutex::new(()),
            remembered: Cache::new(REMEMBERED),
            used: Mutex::new(HashMap::new()),
            fresh_at_ms,
        }))
    }

    /// Whose credential this is: a personal access token, or an access token of ours. Direct use of a personal access
    /// token is a call of client `sp_cli` from source `api`, in a session that is always the same for the same token.
    pub async fn authenticate(&self, credential: &str) -> Result<Arc<Principal>, AuthFault> {
        if credential.is_empty() {
            return Err(AuthFault::Missing);
        }
        if credential.len() > MAX_TOKEN {
            return Err(AuthFault::Jwt(JwtFault::TooLarge));
        }
        let now = self.clock.now();
        let digest: [u8; 32] = Sha256::digest(credential).into();
        // Taken before anything is looked up: what changes meanwhile makes the answer one that is not remembered.
        let revoked = self.revoked.load_full();
        let known = self.remembered.get(&digest);
        if let Some(known) = known
            && known.epoch == revoked.epoch()
            && now.unix_timestamp() <= known.until
        {
            self.touch(&known.principal, now);
            return Ok(known.principal);
        }
        let (principal, until) = if credential.starts_with(PREFIX) {
            let holder = self.holder(credential, now).await?;
            if holder.session_revoked {
                return Err(AuthFault::Pat { id: Some(holder.pat.id), reason: PatFault::SessionRevoked });
            }
            let until = holder.pat.expires_at.unix_timestamp() - 1;
            (Principal::of_pat(holder), until)
        } else {
            let claims = self.verifier.verify(credential, now.unix_timestamp()).map_err(AuthFault::Jwt)?;
            revoked.check(&claims).map_err(AuthFault::Jwt)?;
            let until = claims.ends();
            (Principal::from(claims), until)
        };
        let principal = Arc::new(principal);
        let entry = Remembered { epoch: revoked.epoch(), until, principal: Arc::clone(&principal) };
        self.remembered.insert(digest, entry);
        self.touch(&principal, now);
        Ok(principal)
    }

    /// Issues an access token for a personal access token, for Cowork, in a session of its own. It ends no later than the
    /// personal access token does. Always asks the database: a revoked token gets nothing, however fresh the memory of it.
    pub async fn exchange_pat(&self, pat: &str, policy: &PolicyVersion) -> Result<Issued, AuthFault> {
        if !self.settings.tiers.contains(&Tier::Pat) {
            return Err(AuthFault::TierDisabled);
        }
        if pat.is_empty() {
            return Err(AuthFault::Missing);
        }
        if !pat.starts_with(PREFIX) {
            return Err(AuthFault::NotAPat);
        }
        let now = self.clock.now();
        let holder = self.holder(pat, now).await?;
        let PatHolder { pat, user, .. } = holder;
        self.note_use(&pat.id, now);

        let iat = now.unix_timestamp();
        let exp = (iat + seconds_of(self.settings.ttl)).min(pat.expires_at.unix_timestamp());
        let mut jti = pat.id;
        jti.push('.');
        jti.push_str(&canonical::hex(&self.random()));
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            sub: user.id,
            tid: user.tenant,
            sid: SessionId::from_bytes(self.random()),
            cid: ClientId::cowork(),
            roles: user.roles,
            dept: user.department,
            scope: pat.scopes.join(" "),
            pv: policy.clone(),
            src: CallSource::Cowork,
            jti,
            iat,
            exp,
            nbf: None,
            auth_tier: Tier::Pat,
        };
        let token = self.signer.sign(&claims).map_err(AuthFault::Issue)?;
        let headers = [
            (USER_ID, claims.sub.to_string()),
            (SESSION_ID, claims.sid.to_string()),
            (TRACE_ID, TraceId::from_bytes(self.random()).to_string()),
            (CLIENT_ID, claims.cid.to_string()),
            (TENANT_ID, claims.tid.to_string()),
            (POLICY_VERSION, claims.pv.to_string()),
            (CALL_SOURCE, claims.src.to_string()),
        ];
        Ok(Issued { token, ttl_seconds: (exp - iat).unsigned_abs(), headers })
    }

    /// The keys that verify our access tokens, as a JWK Set.
    pub fn jwks(&self) -> serde_json::Value {
        self.signer.jwks()
    }

    /// What this gateway offers to a client that has to choose: tiers, issuer, and the id of the key of its tokens, which
    /// is that key's RFC 7638 thumbprint.
    pub fn capabilities(&self) -> serde_json::Value {
        describe(&self.settings, self.signer.kid())
    }

    /// Takes back what was issued. Holds here at once, in other processes within two seconds. `false` if there is no such
    /// user.
    pub async fn revoke(&self, what: &Revocation) -> Result<bool, DbError> {
        let found = self.db.revoke(what, self.clock.now()).await?;
        self.refresh().await?;
        Ok(found)
    }

    /// Looks whether any process took a right away, and if so forgets all that was remembered. Returns whether it did.
    pub async fn refresh(&self) -> Result<bool, DbError> {
        // One at a time: an older state must not replace a newer one.
        let _one = self.refreshing.lock().await;
        let asked_at = self.clock.monotonic();
        let changed = self.db.auth_epoch().await? != self.revoked.load().epoch();
        if changed {
            let revoked = Revoked::load(&self.db, self.clock.now()).await?;
            self.revoked.store(Arc::new(revoked));
            self.remembered.clear();
        }
        self.fresh_at_ms.store(millis(asked_at), Ordering::Relaxed);
        Ok(changed)
    }

    /// How old our knowledge of what was revoked is: about a second, more when the database does not answer.
    pub fn lag(&self) -> Duration {
        self.clock.monotonic().saturating_sub(Duration::from_millis(self.fresh_at_ms.load(Ordering::Relaxed)))
    }

    /// Writes when personal access tokens were last used. What cannot be written is kept for the next time.
    pub async fn flush(&self) -> Result<(), DbError> {
        let used: Vec<_> = self.used.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        if used.is_empty() {
            return Ok(());
        }
        let written = self.db.touch_pats(&used).await;
        if written.is_err() {
            let mut waiting = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, at) in used {
                let newest = waiting.entry(id).or_insert(at);
                *newest = (*newest).max(at);
            }
        }
        written
    }

    /// Runs until `shutdown`: polls for changes that other processes made, and writes times of last use in batches.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        self.poll(POLL, &shutdown).await;
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "the last uses of personal access tokens were not written");
        }
    }

    async fn poll(&self, every: Duration, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answering = true;
        let mut polls = 0_u32;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            polls = polls.wrapping_add(1);
            let mut outcome = self.refresh().await.map(|_| ());
            if polls.is_multiple_of(POLLS_PER_FLUSH) {
                outcome = outcome.and(self.flush().await);
            }
            // Said when it starts and when it ends, not every second in between.
            match outcome {
                Ok(()) if !answering => {
                    answering = true;
                    tracing::info!("revocations are read again");
                }
                Err(error) if answering => {
                    answering = false;
                    let cause =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "revocations made elsewhere take no effect until the database answers");
                }
                _ => {}
            }
        }
    }

    async fn holder(&self, text: &str, now: OffsetDateTime) -> Result<PatHolder, AuthFault> {
        let mistyped = |_| AuthFault::Pat { id: None, reason: PatFault::Mistyped };
        let pat = Pat::parse(text).map_err(mistyped)?;
        let checked = pat::check(&self.db, &self.pepper, &pat, now).await?;
        checked.map_err(|reason| {
            let id = (reason != PatFault::Unknown).then(|| pat.id().to_owned());
            AuthFault::Pat { id, reason }
        })
    }

    fn touch(&self, principal: &Principal, now: OffsetDateTime) {
        if let Credential::Pat { id } = &principal.credential {
            self.note_use(id, now);
        }
    }

    fn note_use(&self, id: &str, now: OffsetDateTime) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = used.get_mut(id) {
            *at = now;
        } else {
            used.insert(id.to_owned(), now);
        }
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// [`Auth::capabilities`] of a gateway that is not running.
pub fn capabilities(settings: &AuthSettings, keys: &Keys) -> serde_json::Value {
    describe(settings, &jwt::key_id(&keys.jwt().verifying_key()))
}

fn describe(settings: &AuthSettings, kid: &str) -> serde_json::Value {
    let modes: Vec<_> = settings.tiers.iter().map(|tier| tier.as_str()).collect();
    serde_json::json!({ "modes": modes, "issuer": settings.issuer, "key": kid })
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

fn seconds_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
