//! Signing in at identity providers (`OpenID` Connect Core 1.0): several at once, each with what it may say of whom. The gateway is the client;
//! what a provider says is checked here, and what comes of it. Who asks it over the wire is [`IdentityServers`]' to know.
//!
//! *Invariant:* whom a provider means, its issuer and subject say. No name and no address links a person to a user that exists.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sallyport_protocol::id::{SessionId, TenantId, UserId};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::browser::{BROWSER_LIFETIME, SignedIn, csrf, digest};
use super::{ADMIN, Auth, DEFAULT_TENANT, form, throttle};
use crate::db::DbError;
use crate::db::provider::{ProviderVisit, VisitEnd};
use crate::db::user::User;

mod ask;
mod id_token;
mod metadata;
mod placement;

pub use self::ask::{AskFault, IdentityQuestion, IdentityServers};
pub use self::id_token::IdTokenFault;
pub(super) use self::metadata::KnownProvider;
pub use self::placement::{GroupRule, PlacementFault};

/// How long a browser may stay at a provider.
pub const VISIT_LIFETIME: Duration = Duration::from_mins(10);
/// How many browsers are at providers at once.
pub(super) const MOST_VISITS: i64 = 10_000;
/// How many are sent from one address in a quarter of an hour.
pub(super) const VISITS_PER_ADDRESS: u32 = 100;
/// How many codes are exchanged at once: each may wait for a provider that does not answer.
pub(super) const MOST_EXCHANGES: usize = 64;
/// Longest code that is handed to a provider.
const LONGEST_CODE: usize = 8 * 1024;
/// Words of RFC 6749 and `OpenID` Connect in which a provider says that nobody signed in there.
const KNOWN_ERRORS: [&str; 12] = [
    "access_denied",
    "account_selection_required",
    "consent_required",
    "interaction_required",
    "invalid_request",
    "invalid_scope",
    "login_required",
    "request_not_supported",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_response_type",
];

/// What the operator says of an identity provider.
#[derive(Clone, PartialEq, Eq)]
pub struct OidcProvider {
    /// Its name: in addresses and rows.
    pub name: String,
    /// What its button says.
    pub label: String,
    /// Its issuer, to the letter.
    pub issuer: String,
    /// Who the gateway is there.
    pub client_id: String,
    /// What proves that; none for a client without a secret.
    pub client_secret: Option<Zeroizing<String>>,
    /// What it is asked for.
    pub scopes: Vec<String>,
    /// The claim that becomes the name of a new user.
    pub name_claim: String,
    /// The claim that lists groups.
    pub groups_claim: String,
    /// What follows from being in a group, in their order.
    pub groups: Vec<GroupRule>,
    /// Roles of everybody who comes from there.
    pub roles: Vec<String>,
    /// The tenant of whoever no group puts elsewhere.
    pub tenant: TenantId,
    /// Whether who is in none of the groups stays out.
    pub groups_only: bool,
    /// Whether who comes for the first time becomes a user.
    pub creates_users: bool,
    /// Domains of addresses; empty: any.
    pub email_domains: Vec<String>,
}

/// What a browser brings back from a provider. Empty: not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProviderAnswer<'a> {
    /// What it was sent with.
    pub state: &'a str,
    /// What is exchanged for an ID token.
    pub code: &'a str,
    /// Who says so (RFC 9207).
    pub iss: &'a str,
    /// Why nobody signed in there.
    pub error: &'a str,
}

/// Where a browser is sent.
pub struct ProviderRedirect {
    /// The address.
    pub url: String,
    /// The cookie by which the browser is known again.
    pub browser: Zeroizing<String>,
}

/// Somebody of whom a provider spoke, before anything is stored of it.
#[derive(Debug, Clone)]
pub struct ProviderEntry {
    /// The provider.
    pub provider: Arc<OidcProvider>,
    /// Who it is, as it will be stored.
    pub user: User,
    /// What has to be stored.
    pub step: EntryStep,
    /// Where the browser goes on.
    pub next: String,
    subject: String,
}

/// What has to be stored before somebody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryStep {
    /// Nothing: the user is known, and as it was.
    Known,
    /// The user may do other things than before, or has another department.
    Change,
    /// The user is new.
    Create,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum OidcFault {
    /// No provider of this name is configured.
    #[error("no such provider is configured")]
    Provider,
    /// Too many were sent from this address.
    #[error("too many attempts")]
    Throttled(Duration),
    /// Too many are away, or come back at once.
    #[error("too many people sign in now")]
    Busy,
    /// The browser did not come from where it was sent, or is another one.
    #[error("the sign-in was not begun in this browser, or is over")]
    Visit(&'static str),
    /// The provider says that nobody signed in; its word, if that is one that is known.
    #[error("the provider says that nobody signed in")]
    Refused(&'static str),
    /// Another provider answered than the one that was asked (RFC 9207).
    #[error("another provider answered")]
    Issuer,
    /// Neither code nor error, or too long a code.
    #[error("the answer has no code")]
    Answer,
    /// The provider's server does not do its part.
    #[error("the provider cannot be asked")]
    Server(#[from] AskFault),
    /// What it says of itself cannot be used.
    #[error("what the provider says of itself cannot be used: {0}")]
    Metadata(&'static str),
    /// Its ID token is not believed.
    #[error("the ID token is not believed")]
    IdToken(#[from] IdTokenFault),
    /// Whom it means may not come in.
    #[error("this person may not come in")]
    Placement(#[from] PlacementFault),
    /// Nobody knows.
    #[error("the database of identities does not answer")]
    Unavailable(#[from] DbError),
}

/// A fault, and where the browser wanted to go, if that is known.
#[derive(Debug)]
pub struct NotEntered {
    /// Why.
    pub fault: OidcFault,
    /// Where to.
    pub next: Option<String>,
}

// === impl OidcProvider ===

impl fmt::Debug for OidcProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcProvider")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

// === impl ProviderRedirect ===

impl fmt::Debug for ProviderRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderRedirect").finish_non_exhaustive()
    }
}

// === impl OidcFault ===

impl OidcFault {
    /// A stable name for the audit row.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Provider => "provider_unknown",
            Self::Throttled(_) => "provider_throttled",
            Self::Busy => "provider_busy",
            Self::Visit(code) => code,
            Self::Refused(_) => "provider_refused",
            Self::Issuer => "provider_issuer",
            Self::Answer => "provider_answer",
            Self::Server(fault) => fault.code(),
            Self::Metadata(_) => "provider_metadata",
            Self::IdToken(fault) => fault.code(),
            Self::Placement(fault) => fault.code(),
            Self::Unavailable(_) => "identity_unavailable",
        }
    }

    /// More for the row; never what a provider chose to say.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Refused(word) => Some((*word).to_owned()),
            Self::Metadata(what) => Some((*what).to_owned()),
            Self::Server(fault) => Some(fault.to_string()),
            _ => None,
        }
    }

    /// Whether neither the person nor the provider is at fault.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy)
    }
}

// === impl NotEntered ===

impl From<OidcFault> for NotEntered {
    fn from(fault: OidcFault) -> Self {
        Self { fault, next: None }
    }
}

impl From<DbError> for NotEntered {
    fn from(error: DbError) -> Self {
        OidcFault::from(error).into()
    }
}

// === impl Auth ===

impl Auth {
    /// Takes over which providers there are, at a start or a reload.
    pub fn adopt_providers(&self, providers: &[Arc<OidcProvider>]) {
        let before = self.providers.load();
        let kept = |settings: &Arc<OidcProvider>| {
            let same = before.iter().find(|it| *it.settings == **settings);
            same.map_or_else(|| Arc::new(KnownProvider::new(Arc::clone(settings))), Arc::clone)
        };
        self.providers.store(Arc::new(providers.iter().map(kept).collect()));
    }

    /// The providers that there are, in the order of their buttons.
    pub fn providers(&self) -> Vec<Arc<OidcProvider>> {
        self.providers.load().iter().map(|it| Arc::clone(&it.settings)).collect()
    }

    /// Sends a browser to a provider. `browser` is its cookie, if it has one already; `redirect_uri` where it comes back to.
    pub async fn send_to_provider(
        &self,
        servers: &dyn IdentityServers,
        name: &str,
        browser: Option<&str>,
        redirect_uri: &str,
        next: &str,
        address: Option<IpAddr>,
    ) -> Result<ProviderRedirect, OidcFault> {
        let provider = self.provider(name)?;
        if let Some(address) = address {
            let place = format!("provider {}", throttle::place(address));
            self.throttle
                .attempt(&place, VISITS_PER_ADDRESS, self.clock.monotonic())
                .map_err(OidcFault::Throttled)?;
        }
        let metadata = provider.metadata(servers, self.clock.as_ref()).await?;
        let known = browser.filter(|it| form::thumbprint(it));
        let browser = known.map_or_else(|| self.secret(), |it| Zeroizing::new(it.to_owned()));
        let state = self.secret();
        let now = self.clock.now();
        let visit = ProviderVisit {
            provider: name.to_owned(),
            next: next.to_owned(),
            created_at: now,
            expires_at: now + VISIT_LIFETIME,
        };
        if !self.db.insert_provider_visit(&digest(&state), &digest(&browser), &visit, MOST_VISITS).await? {
            return Err(OidcFault::Busy);
        }
        let challenge =
            URL_SAFE_NO_PAD.encode(Sha256::digest(derived("verifier", &browser, &state).as_bytes()));
        let nonce = derived("nonce", &browser, &state);
        let scope = provider.settings.scopes.join(" ");
        let fields = [
            ("response_type", "code"),
            ("client_id", provider.settings.client_id.as_str()),
            ("redirect_uri", redirect_uri),
            ("scope", scope.as_str()),
            ("state", state.as_str()),
            ("nonce", nonce.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        Ok(ProviderRedirect { url: metadata.authorization_url(&fields), browser })
    }

    /// Whom a provider means, of whom a browser brings an answer. Nothing is stored but that the browser was back.
    pub async fn back_from_provider(
        &self,
        servers: &dyn IdentityServers,
        name: &str,
        browser: Option<&str>,
        redirect_uri: &str,
        answer: ProviderAnswer<'_>,
    ) -> Result<ProviderEntry, NotEntered> {
        let provider = self.provider(name)?;
        let browser =
            browser.filter(|it| form::thumbprint(it)).ok_or(OidcFault::Visit("provider_other_browser"))?;
        if !form::thumbprint(answer.state) {
            return Err(OidcFault::Visit("provider_state").into());
        }
        let (state, keeper) = (digest(answer.state), digest(browser));
        let visit = match self.db.end_provider_visit(&state, &keeper, name, self.clock.now()).await? {
            VisitEnd::Back(visit) => visit,
            VisitEnd::OtherBrowser => return Err(OidcFault::Visit("provider_other_browser").into()),
            VisitEnd::Unknown => return Err(OidcFault::Visit("provider_state").into()),
        };
        let found = self.person(servers, &provider, browser, redirect_uri, answer).await;
        found
            .map(|(user, step, subject)| ProviderEntry {
                provider: Arc::clone(&provider.settings),
                user,
                step,
                next: visit.next.clone(),
                subject,
            })
            .map_err(|fault| NotEntered { fault, next: Some(visit.next) })
    }

    /// Stores what has to be stored of somebody, and signs it in: the secret of the cookie, and who it is.
    pub async fn enter_from_provider(
        &self,
        entry: &ProviderEntry,
        device: &str,
    ) -> Result<(Zeroizing<String>, SignedIn), OidcFault> {
        let user = &entry.user;
        match entry.step {
            EntryStep::Known => {}
            EntryStep::Change => {
                self.db.change_user_at_sign_in(user, self.clock.now()).await?;
                self.refresh().await?;
            }
            EntryStep::Create => {
                let issuer = &entry.provider.issuer;
                if !self.db.insert_user_of_subject(user, issuer, &entry.subject).await? {
                    // Somebody else was faster, with the name or with the subject.
                    return Err(PlacementFault::NameTaken.into());
                }
            }
        }
        let session = SessionId::from_bytes(self.random());
        let (secret, sign_in) = self.begin(user, session, device, BROWSER_LIFETIME).await?;
        let csrf = csrf(&secret);
        Ok((secret, SignedIn { user: user.clone(), sign_in, csrf }))
    }

    fn provider(&self, name: &str) -> Result<Arc<KnownProvider>, OidcFault> {
        let providers = self.providers.load();
        providers.iter().find(|it| it.settings.name == name).map(Arc::clone).ok_or(OidcFault::Provider)
    }

    /// Exchanges the code, and looks who it is.
    async fn person(
        &self,
        servers: &dyn IdentityServers,
        provider: &KnownProvider,
        browser: &str,
        redirect_uri: &str,
        answer: ProviderAnswer<'_>,
    ) -> Result<(User, EntryStep, String), OidcFault> {
        let settings = &provider.settings;
        let metadata = provider.metadata(servers, self.clock.as_ref()).await?;
        // The address tells providers apart. One that names itself is held to it.
        let named = !answer.iss.is_empty() || metadata.names_itself;
        if named && answer.iss != settings.issuer {
            return Err(OidcFault::Issuer);
        }
        if !answer.error.is_empty() {
            let known = KNOWN_ERRORS.iter().find(|it| **it == answer.error);
            return Err(OidcFault::Refused(known.copied().unwrap_or("another error")));
        }
        if answer.code.is_empty() || answer.code.len() > LONGEST_CODE {
            return Err(OidcFault::Answer);
        }
        let _turn = self.exchanges.try_acquire().map_err(|_| OidcFault::Busy)?;
        let began = self.clock.monotonic();
        let verifier = derived("verifier", browser, answer.state);
        let token = metadata.exchange(servers, settings, answer.code, redirect_uri, &verifier).await?;
        let nonce = derived("nonce", browser, answer.state);
        let claims =
            provider.verified(servers, &metadata, &token, &nonce, self.clock.as_ref(), began).await?;
        let place = settings.place(&claims)?;
        let known = self.db.user_of_subject(&settings.issuer, &claims.subject).await?;
        let Some((user, tenant_disabled)) = known else {
            let user = self.new_person(settings, place, claims.name)?;
            if self.db.user_by_name(&user.tenant, &user.name).await?.is_some() {
                return Err(PlacementFault::NameTaken.into());
            }
            if self.db.tenant(&user.tenant).await?.is_none_or(|tenant| tenant.disabled_at.is_some()) {
                return Err(PlacementFault::Tenant.into());
            }
            return Ok((user, EntryStep::Create, claims.subject));
        };
        if tenant_disabled || user.disabled_at.is_some() {
            return Err(PlacementFault::Disabled.into());
        }
        if user.tenant != place.tenant {
            return Err(PlacementFault::Tenant.into());
        }
        let mut placed = user.clone();
        if settings.decides() {
            placed.roles = place.roles;
            if settings.decides_departments() {
                placed.department = place.department;
            }
        }
        let step = if placed == user { EntryStep::Known } else { EntryStep::Change };
        Ok((placed, step, claims.subject))
    }

    fn new_person(
        &self,
        settings: &OidcProvider,
        place: placement::PersonPlace,
        name: Option<String>,
    ) -> Result<User, PlacementFault> {
        if !settings.creates_users {
            return Err(PlacementFault::NotLinked);
        }
        // An id names one user for ever; a name that looks like one would be ambiguous.
        let name = name.filter(|name| form::label(name) && !name.starts_with("u_"));
        Ok(User {
            id: UserId::from_bytes(self.random()),
            tenant: place.tenant,
            name: name.ok_or(PlacementFault::Name)?,
            roles: place.roles,
            department: place.department,
            created_at: self.clock.now(),
            disabled_at: None,
        })
    }
}

// === private helpers ===

/// What a provider has to repeat, and what it does not see before a code is exchanged: known to whoever has both the cookie and the
/// address, and to nobody who reads the database.
fn derived(what: &str, browser: &str, state: &str) -> Zeroizing<String> {
    let digest = Sha256::new()
        .chain_update(b"sallyport provider ")
        .chain_update(what)
        .chain_update(b"\0")
        .chain_update(browser)
        .chain_update(b"\0")
        .chain_update(state)
        .finalize();
    Zeroizing::new(URL_SAFE_NO_PAD.encode(digest))
}

/// Whether a role may be given in a tenant: the platform's administrator belongs to the tenant that every gateway has.
pub fn role_fits(role: &str, tenant: &TenantId) -> bool {
    role != ADMIN || tenant.as_str() == DEFAULT_TENANT
}

/// How old an answer may be at `now`.
const fn is_fresh(at: Duration, now: Duration, lifetime: Duration) -> bool {
    now.as_nanos().saturating_sub(at.as_nanos()) < lifetime.as_nanos()
}

/// Seconds since 1970.
const fn unix(at: OffsetDateTime) -> i64 {
    at.unix_timestamp()
}

#[cfg(test)]
mod tests;
