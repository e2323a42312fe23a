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
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use quick_cache::sync::Cache;
use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TenantId, UserId};
use sallyport_protocol::token::{PREFIX, Pat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::clock::{Clock, Entropy};
use crate::db::pat::PatHolder;
use crate::db::revocation::Revocation;
use crate::db::{Db, DbError};

mod bootstrap;
mod bounds;
mod browser;
mod client_document;
mod clients;
mod entitlement;
pub mod form;
mod headers;
mod issue;
mod jwt;
pub mod keys;
mod oauth;
mod oidc;
pub mod password;
pub mod pat;
mod redirect;
mod revocation;
mod throttle;
mod token_keys;
mod upkeep;

pub use self::bootstrap::{ADMIN, DEFAULT_TENANT, bootstrap};
pub use self::bounds::limits;
pub use self::browser::{BROWSER_LIFETIME, DEVICE_LIFETIME, SignInFault, SignedIn, csrf, is_challenge};
pub use self::client_document::{
    ClientDocuments, DOCUMENT_TIMEOUT, DocumentFault, DocumentRules, LONGEST_DOCUMENT, is_document_id,
};
pub use self::clients::new_client;
pub use self::entitlement::{MOST_PATTERNS, UsableModels, is_pattern};
pub use self::form::SCOPES;
pub use self::headers::{Mismatch, check_headers, foreign_headers};
use self::issue::TokenGrant;
pub use self::issue::{CertificateFault, ShownCertificate};
pub use self::jwt::{BadKey, JwtFault, MAX_TOKEN};
use self::jwt::{Claims, Signer};
use self::keys::{Keys, SecretKey};
pub use self::oauth::{
    AuthorizationRequest, AuthorizeFault, AuthorizeParams, DEVICE_CODE_LIFETIME, DEVICE_INTERVAL, OauthFault,
    TokenSet,
};
use self::oidc::KnownProvider;
pub use self::oidc::{
    AskFault, EntryStep, GroupRule, IdTokenFault, IdentityQuestion, IdentityServers, NotEntered, OidcFault,
    OidcProvider, PlacementFault, ProviderAnswer, ProviderEntry, VISIT_LIFETIME, role_fits,
};
use self::password::Passwords;
pub use self::pat::PatFault;
pub use self::redirect::loopback;
use self::revocation::Revoked;
use self::throttle::Throttle;
pub use self::token_keys::{KeyRotation, PUBLISHED_AHEAD, RotateError, RotationPace, rotate};
use self::token_keys::{TokenKeySource, TokenKeys};
pub use crate::db::oauth::OauthClient;

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
    pub roles: Arc<[String]>,
    /// The user's department, where the tenant keeps departments.
    pub department: Option<Arc<str>>,
    /// What the credential may be used for.
    pub scopes: Arc<[String]>,
    /// The bundle in force when the token was issued; `None` for a personal access token.
    pub policy_version: Option<PolicyVersion>,
    /// What it showed.
    pub credential: Credential,
    /// The models that its roles may call.
    pub models: UsableModels,
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
        /// How its user proved who it is.
        tier: Tier,
        /// The certificate without which it is good for nothing: `cnf.x5t#S256` (RFC 8705).
        bound_to: Option<String>,
    },
}

/// How a user proves who it is before it is given an access token, the weakest way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// A personal access token.
    Pat,
    /// A sign-in in a browser.
    Session,
    /// A certificate of the device, shown in the handshake of TLS.
    Mtls,
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
    /// Whether clients may register themselves.
    pub registration: bool,
    /// Which clients may be known by a document about themselves; none: no client is.
    pub documents: Option<DocumentRules>,
    /// The identity providers that people may sign in at. A reload may change them.
    pub providers: Vec<Arc<OidcProvider>>,
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
    /// The tenant asks for a stronger way to sign in. The one refusal that says why, so that the client can take the other way.
    #[error("the tenant asks for the tier {} at least", needed.as_str())]
    TierTooLow {
        /// Whose it is.
        holder: Box<Principal>,
        /// The weakest tier that the tenant accepts.
        needed: Tier,
    },
    /// The device showed no certificate, or one that names none of our users.
    #[error("the certificate names no user")]
    Certificate(CertificateFault),
    /// A code or a cookie is refused; the name of the reason.
    #[error("the code or the session is refused")]
    Code(&'static str),
    /// There is more than one credential, or one where it would be written into logs.
    #[error("there are several credentials, or one in the address")]
    Ambiguous,
    /// The access token belongs to the holder of a certificate, and this connection showed another, or none.
    #[error("the access token is bound to another certificate")]
    Binding(Box<Principal>),
    /// The personal access token is refused.
    #[error("the personal access token is refused")]
    Pat {
        /// Whose it was, if it was genuine.
        holder: Option<Box<Principal>>,
        /// Why.
        #[source]
        reason: PatFault,
    },
    /// The access token is refused.
    #[error("the access token is refused")]
    Jwt {
        /// Whose it was, if we signed it.
        holder: Option<Box<Principal>>,
        /// Why.
        #[source]
        reason: JwtFault,
    },
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
    keys: ArcSwap<TokenKeys>,
    key_source: TokenKeySource,
    pepper: SecretKey,
    manifest: VerifyingKey,
    passwords: Passwords,
    throttle: Throttle,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    revoked: ArcSwap<Revoked>,
    refreshing: tokio::sync::Mutex<()>,
    /// By SHA-256 of the whole credential, so that none is kept and a near miss is a miss.
    remembered: Cache<[u8; 32], Remembered>,
    used: Mutex<HashMap<String, OffsetDateTime>>,
    providers: ArcSwap<Vec<Arc<KnownProvider>>>,
    /// Codes of providers that are exchanged now.
    exchanges: tokio::sync::Semaphore,
    /// Clients as their documents say, and until when that counts.
    documents: Cache<String, (OauthClient, Duration)>,
    /// Documents that are fetched now.
    document_turns: tokio::sync::Semaphore,
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
            roles: holder.user.roles.into(),
            department: holder.user.department.map(Arc::from),
            scopes: holder.pat.scopes.into(),
            policy_version: None,
            credential: Credential::Pat { id: holder.pat.id },
            models: UsableModels::All,
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
            roles: claims.roles.into(),
            department: claims.dept.map(Arc::from),
            scopes: claims.scope.split(' ').map(str::to_owned).collect(),
            policy_version: Some(claims.pv),
            credential: Credential::Jwt {
                jti: claims.jti,
                tier: claims.auth_tier,
                bound_to: claims.cnf.map(|it| it.thumbprint),
            },
            models: UsableModels::All,
        }
    }
}

// === impl Credential ===

impl Credential {
    /// Its public id, for logs and audit rows.
    pub fn id(&self) -> &str {
        match self {
            Self::Pat { id } => id,
            Self::Jwt { jti, .. } => jti,
        }
    }

    /// How its user proved who it is.
    pub const fn tier(&self) -> Tier {
        match self {
            Self::Pat { .. } => Tier::Pat,
            Self::Jwt { tier, .. } => *tier,
        }
    }

    /// Whether it may be used over a connection on which this certificate was shown.
    fn may_come_with(&self, shown: Option<&str>) -> bool {
        match self {
            Self::Pat { .. } | Self::Jwt { bound_to: None, .. } => true,
            Self::Jwt { bound_to: Some(bound), .. } => shown == Some(bound.as_str()),
        }
    }
}

// === impl Tier ===

impl Tier {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pat => "pat",
            Self::Session => "session",
            Self::Mtls => "mtls",
        }
    }

    /// Every tier, the weakest first.
    pub const ALL: [Self; 3] = [Self::Pat, Self::Session, Self::Mtls];

    /// The tier with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text)
    }
}

// === impl AuthSettings ===

impl AuthSettings {
    /// The defaults, for a gateway at this public URL.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: "cowork".to_owned(),
            ttl: MAX_TTL,
            tiers: vec![Tier::Pat, Tier::Session],
            registration: false,
            documents: None,
            providers: Vec::new(),
        }
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
            Self::TierTooLow { .. } => "tier_required",
            Self::Certificate(reason) => reason.code(),
            Self::Binding(_) => "token_binding",
            Self::Code(reason) => reason,
            Self::Ambiguous => "credential_ambiguous",
            Self::Pat { reason, .. } => reason.code(),
            Self::Jwt { reason, .. } => reason.code(),
            Self::Unavailable(_) => "identity_unavailable",
            Self::Issue(_) => "token_not_issued",
        }
    }

    /// Whose credential it was, where it is genuine but good no more. Only for rows: the caller learns nothing of it.
    pub fn holder(&self) -> Option<&Principal> {
        match self {
            Self::Pat { holder, .. } | Self::Jwt { holder, .. } => holder.as_deref(),
            Self::TierTooLow { holder, .. } | Self::Binding(holder) => Some(holder),
            _ => None,
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
        let key_source = TokenKeySource::of(keys);
        // What was revoked comes first, with the epoch: one that moves in between has both read again.
        let revoked = Revoked::load(&db, clock.now()).await?;
        let token_keys = TokenKeys::load(&db, &key_source, &settings, clock.now()).await?;
        let fresh_at_ms = AtomicU64::new(millis(clock.monotonic()));
        let auth = Arc::new(Self {
            db,
            settings,
            keys: ArcSwap::from_pointee(token_keys),
            key_source,
            pepper: keys.pat_pepper().clone(),
            manifest: keys.manifest().verifying_key(),
            passwords: Passwords::default(),
            throttle: Throttle::default(),
            clock,
            entropy,
            revoked: ArcSwap::from_pointee(revoked),
            refreshing: tokio::sync::Mutex::new(()),
            remembered: Cache::new(REMEMBERED),
            used: Mutex::new(HashMap::new()),
            providers: ArcSwap::default(),
            exchanges: tokio::sync::Semaphore::new(oidc::MOST_EXCHANGES),
            documents: Cache::new(client_document::MOST_KEPT),
            document_turns: tokio::sync::Semaphore::new(client_document::MOST_FETCHES),
            fresh_at_ms,
        });
        auth.adopt_providers(&auth.settings.providers);
        Ok(auth)
    }

    /// Whose credential this is: a personal access token, or an access token of ours. Direct use of a personal access
    /// token is a call of client `sp_cli` from source `api`, in a session that is always the same for the same token.
    /// `shown` is the thumbprint of the certificate that the connection's client showed.
    pub async fn authenticate(
        &self,
        credential: &str,
        shown: Option<&str>,
    ) -> Result<Arc<Principal>, AuthFault> {
        let principal = self.holder_of(credential).await?;
        if principal.credential.may_come_with(shown) {
            Ok(principal)
        } else {
            Err(AuthFault::Binding(Box::new(Principal::clone(&principal))))
        }
    }

    /// Whose credential this is, wherever it came from.
    async fn holder_of(&self, credential: &str) -> Result<Arc<Principal>, AuthFault> {
        if credential.is_empty() {
            return Err(AuthFault::Missing);
        }
        if credential.len() > MAX_TOKEN {
            return Err(AuthFault::Jwt { holder: None, reason: JwtFault::TooLarge });
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
        let (mut principal, until) = if credential.starts_with(PREFIX) {
            if !self.settings.tiers.contains(&Tier::Pat) {
                return Err(AuthFault::TierDisabled);
            }
            let holder = self.holder(credential, now).await?;
            if holder.session_revoked {
                let holder = Some(Box::new(Principal::of_pat(holder)));
                return Err(AuthFault::Pat { holder, reason: PatFault::SessionRevoked });
            }
            let until = holder.pat.expires_at.unix_timestamp() - 1;
            (Principal::of_pat(holder), until)
        } else {
            let unknown = |reason| AuthFault::Jwt { holder: None, reason };
            let claims = self.keys.load().verifier().signed(credential).map_err(unknown)?;
            let good = claims.check_times(now.unix_timestamp()).and_then(|()| revoked.check(&claims));
            if let Err(reason) = good {
                return Err(AuthFault::Jwt { holder: Some(Box::new(claims.into())), reason });
            }
            let until = claims.ends();
            (Principal::from(claims), until)
        };
        let needed = revoked.weakest_tier(&principal.tenant);
        if principal.credential.tier() < needed {
            return Err(AuthFault::TierTooLow { holder: Box::new(principal), needed });
        }
        principal.models = revoked.usable_models(&principal.tenant, &principal.roles);
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

        let grant = TokenGrant {
            source: pat.id,
            session: SessionId::from_bytes(self.random()),
            scope: pat.scopes.join(" "),
            until: pat.expires_at.unix_timestamp(),
            tier: Tier::Pat,
            bound_to: None,
            client: ClientId::cowork(),
            call_source: CallSource::Cowork,
        };
        self.issue(user, grant, policy).map(|(_, issued)| issued)
    }

    /// The `iss` of tokens.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Whether clients may register themselves.
    pub fn registers(&self) -> bool {
        self.settings.registration
    }

    /// The keys that verify our access tokens, as a JWK Set.
    pub fn jwks(&self) -> serde_json::Value {
        self.keys.load().jwks(self.clock.now())
    }

    /// The key that signs what workstations install, with what follows it; there is no next one until the key is exchanged.
    pub fn manifest_key(&self) -> serde_json::Value {
        serde_json::json!({
            "kid": jwt::key_id(&self.manifest),
            "alg": "EdDSA",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(self.manifest.as_bytes()),
            "next": null,
        })
    }

    /// What this gateway offers to a client that has to choose: tiers, issuer, and the id of the key of its tokens, which
    /// is that key's RFC 7638 thumbprint.
    pub fn capabilities(&self) -> serde_json::Value {
        let keys = self.keys.load();
        describe(&self.settings, keys.signer(self.clock.now()).map(Signer::kid).unwrap_or_default())
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
        let now = self.clock.now();
        let changed = self.db.auth_epoch().await? != self.revoked.load().epoch();
        if changed || self.keys.load().is_over(now) {
            let revoked = Revoked::load(&self.db, now).await?;
            match TokenKeys::load(&self.db, &self.key_source, &self.settings, now).await {
                Ok(keys) => self.keys.store(Arc::new(keys)),
                Err(OpenError::Database(error)) => return Err(error),
                // They were good when they were made: nothing else goes wrong with them.
                Err(error) => tracing::error!(%error, "the keys of access tokens cannot be used"),
            }
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

    async fn holder(&self, text: &str, now: OffsetDateTime) -> Result<PatHolder, AuthFault> {
        let mistyped = |_| AuthFault::Pat { holder: None, reason: PatFault::Mistyped };
        let pat = Pat::parse(text).map_err(mistyped)?;
        let checked = pat::check(&self.db, &self.pepper, &pat, now).await?;
        checked.map_err(|(holder, reason)| {
            let holder = holder.map(|holder| Box::new(Principal::of_pat(*holder)));
            AuthFault::Pat { holder, reason }
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
pub async fn capabilities(
    db: &Db,
    settings: &AuthSettings,
    keys: &Keys,
    now: OffsetDateTime,
) -> Result<serde_json::Value, OpenError> {
    Ok(describe(settings, &token_keys::current_kid(db, keys, settings, now).await?))
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
