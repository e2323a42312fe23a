//! The authorization server's decisions: which client may have a code sent where, what a code, a refresh token or a device is given, and
//! what is told of a token. Wires and pages are elsewhere.

use std::fmt;
use std::time::Duration;

use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TenantId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::browser::{CODE_LIFETIME, SignedIn, challenge_of, digest, is_challenge, live_user};
use super::client_document::{ClientDocuments, DocumentFault, is_document_id};
use super::issue::TokenGrant;
use super::{Auth, AuthFault, Principal, Tier, form, redirect};
use crate::db::oauth::{AuthorizationCode, DeviceRequest, OauthClient, OauthGrant, Once};
use crate::db::revocation::Revocation;
use crate::db::user::User;
use crate::db::{DbError, seconds};

/// How long what a user granted a client holds.
pub(super) const GRANT_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How many grants a user has at once. One more ends the oldest.
pub(super) const MOST_GRANTS: i64 = 100;
/// How many used refresh tokens of a grant are remembered, so that a second use is noticed.
pub(super) const MOST_USED_TOKENS: i64 = 1_000;
/// How long a device waits for its user.
pub const DEVICE_CODE_LIFETIME: Duration = Duration::from_mins(10);
/// How long it waits between two questions.
pub const DEVICE_INTERVAL: Duration = Duration::from_secs(5);
/// How many devices wait at once.
pub(super) const MOST_WAITING: i64 = 10_000;
/// Codes that one user may try, or one address may ask for, in a quarter of an hour.
pub(super) const DEVICE_TRIES: u32 = 20;
pub(super) const DEVICE_REQUESTS: u32 = 100;
/// What clients without an id are: Claude Code, which has none.
pub(super) const DEVICE_CLIENT: &str = "sp_cli";
/// Letters of user codes: no vowels, so that no words come about (RFC 8628, section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Scopes that mean nothing here and that clients ask for all the same.
const PASSED_OVER: [&str; 3] = ["profile", "email", "offline_access"];

/// What the authorization server refuses, in the words of RFC 6749, 7009, 7591, 8628 and 8707.
#[derive(Debug, thiserror::Error)]
pub enum OauthFault {
    /// A parameter is missing, malformed or there twice.
    #[error("{0}")]
    Request(&'static str),
    /// The client is not known, or did not prove who it is.
    #[error("the client is not known, or did not prove who it is")]
    Client,
    /// The client may not do this.
    #[error("{0}")]
    UnauthorizedClient(&'static str),
    /// What was brought is good no more, or is somebody else's.
    #[error("the grant is not valid")]
    Grant,
    /// No such grant.
    #[error("this grant type is not supported")]
    GrantType,
    /// No such response.
    #[error("response_type has to be code")]
    ResponseType,
    /// A scope that is not known, or is not the client's.
    #[error("the scope is not known, or not granted")]
    Scope,
    /// A resource that is not this gateway.
    #[error("the resource is not served here")]
    Target,
    /// The user said no.
    #[error("the user refused")]
    Denied,
    /// The user has said nothing yet.
    #[error("the user has not decided")]
    Pending,
    /// The device asks too often.
    #[error("ask less often")]
    SlowDown,
    /// The device waited too long.
    #[error("the code is over")]
    Expired,
    /// An address that no client may have.
    #[error("a redirect_uri has to be https, or http on the own machine, and exact")]
    RedirectUri,
    /// What a client says of itself cannot be taken.
    #[error("{0}")]
    ClientMetadata(&'static str),
    /// Too many.
    #[error("too many requests")]
    TooMany(Duration),
    /// The gateway cannot tell.
    #[error("the gateway cannot answer now")]
    Unavailable(#[source] AuthFault),
}

/// What a client asks of a browser. Empty: not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuthorizeParams<'a> {
    /// Who asks.
    pub client_id: &'a str,
    /// Where the code goes.
    pub redirect_uri: &'a str,
    /// `code`.
    pub response_type: &'a str,
    /// The SHA-256 of a verifier.
    pub code_challenge: &'a str,
    /// `S256`.
    pub code_challenge_method: &'a str,
    /// What for.
    pub scope: &'a str,
    /// Whose resource.
    pub resource: &'a str,
    /// What the client wants to see again in its ID token.
    pub nonce: &'a str,
}

/// A request that may be put to a user.
#[derive(Debug, Clone)]
pub struct AuthorizationRequest {
    /// Who asks.
    pub client: OauthClient,
    /// Where the code goes.
    pub redirect_uri: String,
    /// What for.
    pub scope: String,
    resource: String,
    challenge: String,
    nonce: String,
}

/// Why a request is not put to a user.
#[derive(Debug)]
pub enum AuthorizeFault {
    /// Nobody knows where the browser would be sent: it stays here.
    Here(&'static str),
    /// The client is told.
    There(OauthFault),
    /// The client's document is not taken: the browser stays here.
    Document(DocumentFault),
    /// The gateway cannot tell.
    Unavailable(DbError),
}

/// What a client is given.
pub struct TokenSet {
    /// Whose it is.
    pub principal: Principal,
    /// The answer of the token endpoint.
    pub answer: Value,
}

/// A device that was told to wait.
pub struct DeviceWait {
    /// What it asks with.
    pub device_code: Zeroizing<String>,
    /// What its user types in: `WDJB-MJHT`.
    pub user_code: String,
}

// === impl TokenSet ===

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet").field("principal", &self.principal).finish_non_exhaustive()
    }
}

// === impl DeviceWait ===

impl fmt::Debug for DeviceWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceWait").finish_non_exhaustive()
    }
}

// === impl OauthFault ===

impl OauthFault {
    /// `error` of an answer.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => "invalid_request",
            Self::Client => "invalid_client",
            Self::UnauthorizedClient(_) => "unauthorized_client",
            Self::Grant => "invalid_grant",
            Self::GrantType => "unsupported_grant_type",
            Self::ResponseType => "unsupported_response_type",
            Self::Scope => "invalid_scope",
            Self::Target => "invalid_target",
            Self::Denied => "access_denied",
            Self::Pending => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::Expired => "expired_token",
            Self::RedirectUri => "invalid_redirect_uri",
            Self::ClientMetadata(_) => "invalid_client_metadata",
            Self::TooMany(_) => "too_many_requests",
            Self::Unavailable(_) => "temporarily_unavailable",
        }
    }
}

impl From<DbError> for OauthFault {
    fn from(error: DbError) -> Self {
        Self::Unavailable(AuthFault::Unavailable(error))
    }
}

// === impl Auth ===

impl Auth {
    /// Looks at what a client asks of a browser. A document about a client is fetched for somebody alone who is signed in, so that no
    /// stranger chooses what the gateway asks for.
    pub async fn authorization(
        &self,
        asked: AuthorizeParams<'_>,
        by: Option<&SignedIn>,
        documents: &dyn ClientDocuments,
    ) -> Result<AuthorizationRequest, AuthorizeFault> {
        let found = match by {
            Some(by) if is_document_id(asked.client_id) && self.takes_documents() => {
                let client = self.client_of_document(asked.client_id, by, documents).await;
                Some(client.map_err(AuthorizeFault::Document)?)
            }
            _ => self.known_client(asked.client_id).await.map_err(AuthorizeFault::Unavailable)?,
        };
        let Some(client) = found else {
            return Err(AuthorizeFault::Here("No client with this client_id is known."));
        };
        if !client.redirect_uris.iter().any(|registered| redirect::matches(registered, asked.redirect_uri)) {
            return Err(AuthorizeFault::Here("redirect_uri is not one of the client's."));
        }
        let there = |fault| Err(AuthorizeFault::There(fault));
        match asked.response_type {
            "code" => {}
            "" => return there(OauthFault::Request("response_type is missing")),
            _ => return there(OauthFault::ResponseType),
        }
        if !is_challenge(asked.code_challenge) || asked.code_challenge_method != "S256" {
            return there(OauthFault::Request("code_challenge with code_challenge_method S256 is needed"));
        }
        if asked.nonce.len() > 512 {
            return there(OauthFault::Request("nonce is too long"));
        }
        let scope = match granted(&client.scope, asked.scope) {
            Ok(scope) => scope,
            Err(fault) => return there(fault),
        };
        if !self.serves(asked.resource) {
            return there(OauthFault::Target);
        }
        Ok(AuthorizationRequest {
            client,
            redirect_uri: asked.redirect_uri.to_owned(),
            scope,
            resource: asked.resource.to_owned(),
            challenge: asked.code_challenge.to_owned(),
            nonce: asked.nonce.to_owned(),
        })
    }

    /// A code for a request that whoever is signed in granted.
    pub async fn grant_code(
        &self,
        by: &SignedIn,
        request: &AuthorizationRequest,
    ) -> Result<Zeroizing<String>, OauthFault> {
        let client = &request.client;
        if !client.tenant.is_empty() && client.tenant != by.user.tenant.as_str() {
            return Err(OauthFault::Denied);
        }
        let scope = within_roles(&request.scope, &by.user)?;
        if client.document.is_some() {
            self.keep_client_of_document(client).await?;
        }
        let code = AuthorizationCode {
            client: client.id.clone(),
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge.clone(),
            session: SessionId::from_bytes(self.random()),
            tenant: by.user.tenant.clone(),
            user: by.user.id.clone(),
            scope,
            resource: request.resource.clone(),
            nonce: request.nonce.clone(),
            device: client.name.clone(),
            expires_at: self.clock.now() + CODE_LIFETIME,
        };
        Ok(self.store_code(&code).await?)
    }

    /// Tokens for a code.
    pub async fn tokens_for_code(
        &self,
        client: &OauthClient,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        resource: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<TokenSet, OauthFault> {
        if code.is_empty() || redirect_uri.is_empty() {
            return Err(OauthFault::Request("code and redirect_uri are needed"));
        }
        let challenge = challenge_of(verifier);
        if challenge.is_empty() {
            return Err(OauthFault::Request("code_verifier has 43 to 128 characters"));
        }
        let now = self.clock.now();
        let code = match self.db.use_code(&digest(code), &client.id, redirect_uri, &challenge, now).await? {
            Once::First(code) => code,
            Once::Again(_) => {
                self.refresh().await?;
                return Err(OauthFault::Grant);
            }
            Once::Unknown => return Err(OauthFault::Grant),
        };
        if !resource.is_empty() && resource != code.resource && !code.resource.is_empty()
            || !self.serves(resource)
        {
            return Err(OauthFault::Target);
        }
        let user = live_user(&self.db, &code.tenant, &code.user).await?.ok_or(OauthFault::Grant)?;
        let grant = OauthGrant {
            session: code.session,
            client: client.id.clone(),
            scope: code.scope,
            resource: code.resource,
            expires_at: now + GRANT_LIFETIME,
        };
        self.first_tokens(client, user, grant, &code.nonce, policy).await
    }

    /// Tokens for a refresh token, which is good once. The second use ends everything that came from the first.
    pub async fn tokens_for_refresh(
        &self,
        client: &OauthClient,
        refresh: &str,
        scope: &str,
        resource: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<TokenSet, OauthFault> {
        if refresh.is_empty() {
            return Err(OauthFault::Request("refresh_token is needed"));
        }
        let now = self.clock.now();
        let used = digest(refresh);
        let (mut grant, user) = self.db.grant_of(&used, now).await?.ok_or(OauthFault::Grant)?;
        if grant.client != client.id {
            return Err(OauthFault::Grant);
        }
        if !resource.is_empty() && resource != grant.resource && !grant.resource.is_empty()
            || !self.serves(resource)
        {
            return Err(OauthFault::Target);
        }
        if !scope.is_empty() {
            grant.scope = granted(&grant.scope, scope)?;
        }
        let next = self.secret();
        match self.db.rotate(&used, &digest(&next), now, MOST_USED_TOKENS).await? {
            Once::First(()) => self.tokens(client, user, &grant, &next, "", policy),
            Once::Again(_) => {
                self.refresh().await?;
                Err(OauthFault::Grant)
            }
            Once::Unknown => Err(OauthFault::Grant),
        }
    }

    /// Has a device wait for its user.
    pub async fn device_request(
        &self,
        client: &OauthClient,
        scope: &str,
        address: Option<std::net::IpAddr>,
    ) -> Result<DeviceWait, OauthFault> {
        if let Some(address) = address {
            let key = format!("device {}", super::throttle::place(address));
            self.throttle
                .attempt(&key, DEVICE_REQUESTS, self.clock.monotonic())
                .map_err(OauthFault::TooMany)?;
        }
        let scope = granted(&client.scope, scope)?;
        let now = self.clock.now();
        // A user code that is taken is one chance in millions for each device that waits; a few more tries find a free one.
        for _ in 0..4 {
            let mut bytes = [0; 32];
            self.entropy.fill(&mut bytes);
            // Without what would make some letters likelier than others.
            let letters: String = bytes
                .iter()
                .filter(|byte| **byte < 240)
                .filter_map(|byte| LETTERS.get(usize::from(byte % 20)).map(|it| char::from(*it)))
                .take(8)
                .collect();
            let Some((one, other)) = letters.split_at_checked(4).filter(|(_, other)| other.len() == 4) else {
                continue;
            };
            let wait = DeviceWait { device_code: self.secret(), user_code: format!("{one}-{other}") };
            let device = DeviceRequest {
                client: client.id.clone(),
                scope: scope.clone(),
                session: SessionId::from_bytes(self.random()),
                state: "pending".to_owned(),
                expires_at: now + DEVICE_CODE_LIFETIME,
                polled_at: None,
                by: None,
            };
            let secret = digest(&wait.device_code);
            if self.db.insert_device(&secret, &wait.user_code, &device, now, MOST_WAITING).await? {
                return Ok(wait);
            }
        }
        Err(OauthFault::TooMany(DEVICE_CODE_LIFETIME))
    }

    /// The device that waits under what somebody typed in, and its client's name. Who guesses is stopped.
    pub async fn waiting_device(
        &self,
        by: &SignedIn,
        typed: &str,
    ) -> Result<Option<(String, DeviceRequest, String)>, OauthFault> {
        let letters: String =
            typed.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).take(9).collect();
        let key = format!("code {}", by.user.id);
        self.throttle.attempt(&key, DEVICE_TRIES, self.clock.monotonic()).map_err(OauthFault::TooMany)?;
        let Some((one, other)) = letters.split_at_checked(4).filter(|(_, other)| other.len() == 4) else {
            return Ok(None);
        };
        let code = format!("{one}-{other}");
        let Some(device) = self.db.waiting_device(&code, self.clock.now()).await? else { return Ok(None) };
        let name = if device.client == DEVICE_CLIENT {
            self.device_client().name
        } else {
            self.db.oauth_client(&device.client).await?.map(|client| client.name).unwrap_or_default()
        };
        Ok(Some((code, device, name)))
    }

    /// Lets a device in, or turns it away; `false` if it waits no more.
    pub async fn decide_device(&self, by: &SignedIn, code: &str, allow: bool) -> Result<bool, DbError> {
        let state = if allow { "approved" } else { "denied" };
        self.db.decide_device(code, state, &by.user, self.clock.now()).await
    }

    /// Tokens for a device that was let in.
    pub async fn tokens_for_device(
        &self,
        client: &OauthClient,
        device_code: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<TokenSet, OauthFault> {
        if device_code.is_empty() {
            return Err(OauthFault::Request("device_code is needed"));
        }
        let now = self.clock.now();
        let secret = digest(device_code);
        let device = self.db.poll_device(&secret, now).await?.ok_or(OauthFault::Grant)?;
        if device.client != client.id {
            return Err(OauthFault::Grant);
        }
        match device.state.as_str() {
            "denied" => return Err(OauthFault::Denied),
            "approved" | "pending" if device.expires_at <= now => return Err(OauthFault::Expired),
            "approved" => {}
            "pending" => {
                // Times are kept in whole seconds: who waited for as long as it was told is never too fast.
                let least = seconds(now) - DEVICE_INTERVAL + Duration::from_secs(1);
                let too_fast = device.polled_at.is_some_and(|last| last > least);
                return Err(if too_fast { OauthFault::SlowDown } else { OauthFault::Pending });
            }
            _ => return Err(OauthFault::Grant),
        }
        let (tenant, user) = device.by.ok_or(OauthFault::Grant)?;
        if !self.db.use_device(&secret).await? {
            return Err(OauthFault::Grant);
        }
        let user = live_user(&self.db, &tenant, &user).await?.ok_or(OauthFault::Grant)?;
        let grant = OauthGrant {
            session: device.session,
            client: client.id.clone(),
            scope: within_roles(&device.scope, &user)?,
            resource: String::new(),
            expires_at: now + GRANT_LIFETIME,
        };
        self.first_tokens(client, user, grant, "", policy).await
    }

    /// Takes a token back that is the client's; one that nobody knows is taken back as well (RFC 7009, section 2.2).
    pub async fn revoke_token(&self, client: &OauthClient, token: &str) -> Result<(), DbError> {
        if let Some((session, owner)) = self.db.session_of_refresh(&digest(token)).await? {
            if let (true, Ok(session)) = (owner == client.id, SessionId::parse(&session)) {
                self.revoke(&Revocation::Session(session)).await?;
            }
            return Ok(());
        }
        if let Ok(claims) = self.keys.load().verifier().signed(token)
            && claims.cid.as_str() == client.id
        {
            self.revoke(&Revocation::Token(claims.jti)).await?;
        }
        Ok(())
    }

    /// What a client with a secret is told of a token (RFC 7662): of one that is good, and of a tenant that the client may know.
    pub async fn introspect(&self, client: &OauthClient, token: &str) -> Result<Value, OauthFault> {
        let none = json!({ "active": false });
        let principal = match self.holder_of(token).await {
            Ok(principal) => principal,
            Err(fault) if fault.is_ours() => return Err(OauthFault::Unavailable(fault)),
            Err(_) => return Ok(none),
        };
        if !client.tenant.is_empty() && client.tenant != principal.tenant.as_str() {
            return Ok(none);
        }
        let mut told = json!({
            "active": true,
            "sub": principal.user,
            "tid": principal.tenant,
            "sid": principal.session,
            "client_id": principal.client,
            "scope": principal.scopes.join(" "),
            "token_type": "Bearer",
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "auth_tier": principal.credential.tier().as_str(),
        });
        if let (Ok(claims), Some(fields)) = (self.keys.load().verifier().signed(token), told.as_object_mut())
        {
            fields.insert("exp".to_owned(), claims.exp.into());
            fields.insert("iat".to_owned(), claims.iat.into());
            fields.insert("jti".to_owned(), claims.jti.into());
            if let Some(cnf) = claims.cnf {
                fields.insert("cnf".to_owned(), json!({ "x5t#S256": cnf.thumbprint }));
            }
        }
        Ok(told)
    }

    /// Who the holder of an access token is, for clients (`OpenID` Connect Core, section 5.3).
    pub async fn userinfo(&self, principal: &Principal) -> Result<Value, DbError> {
        let user = self.db.user(&principal.tenant, &principal.user).await?;
        let name = user.map(|user| user.name);
        let email = name.clone().filter(|name| name.contains('@'));
        let mut told = json!({
            "sub": principal.user,
            "name": name,
            "tid": principal.tenant,
            "roles": principal.roles,
            "dept": principal.department,
        });
        if let (Some(email), Some(fields)) = (email, told.as_object_mut()) {
            fields.insert("email".to_owned(), email.into());
        }
        Ok(told)
    }

    pub(super) fn device_client(&self) -> OauthClient {
        OauthClient {
            id: DEVICE_CLIENT.to_owned(),
            tenant: String::new(),
            name: "Claude Code".to_owned(),
            redirect_uris: Vec::new(),
            secret: None,
            scope: form::DEFAULT_SCOPE.to_owned(),
            registered: false,
            document: None,
            created_at: self.clock.now(),
        }
    }

    /// Whether a resource is this gateway, or something below it; none is meant where none is named.
    fn serves(&self, resource: &str) -> bool {
        let below = resource.strip_prefix(self.settings.issuer.as_str());
        resource.is_empty()
            || !resource.contains('#') && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    async fn first_tokens(
        &self,
        client: &OauthClient,
        user: User,
        grant: OauthGrant,
        nonce: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<TokenSet, OauthFault> {
        let refresh = self.secret();
        self.db
            .insert_grant(&grant, &user.tenant, &user.id, &digest(&refresh), self.clock.now(), MOST_GRANTS)
            .await?;
        self.tokens(client, user, &grant, &refresh, nonce, policy)
    }

    fn tokens(
        &self,
        client: &OauthClient,
        user: User,
        grant: &OauthGrant,
        refresh: &str,
        nonce: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<TokenSet, OauthFault> {
        let policy = policy(&user.tenant);
        let scope = granted(&grant.scope, "")?;
        let is_cli = grant.client == DEVICE_CLIENT;
        let what = TokenGrant {
            source: self.source_id(),
            session: grant.session.clone(),
            scope: scope.clone(),
            until: grant.expires_at.unix_timestamp(),
            tier: Tier::Session,
            bound_to: None,
            client: ClientId::parse(&grant.client).map_err(|_| OauthFault::Client)?,
            call_source: if is_cli { CallSource::Cli } else { CallSource::Oauth },
        };
        let name = user.name.clone();
        let (principal, issued) = match self.issue(user, what, &policy) {
            Ok(issued) => issued,
            Err(AuthFault::TierTooLow { .. }) => return Err(OauthFault::Denied),
            Err(fault) => return Err(OauthFault::Unavailable(fault)),
        };
        let mut answer = json!({
            "access_token": issued.token,
            "token_type": "Bearer",
            "expires_in": issued.ttl_seconds,
            "refresh_token": refresh,
            "scope": scope,
        });
        if let Some(fields) = answer.as_object_mut() {
            if name.contains('@') {
                fields.insert("email".to_owned(), name.clone().into());
            }
            if scope.split(' ').any(|it| it == "openid") {
                let now = self.clock.now().unix_timestamp();
                let mut claims = json!({
                    "iss": self.settings.issuer,
                    "sub": principal.user,
                    "aud": client.document.as_ref().unwrap_or(&client.id),
                    "iat": now,
                    "exp": now + i64::try_from(issued.ttl_seconds).unwrap_or_default(),
                    "sid": principal.session,
                    "name": name,
                });
                if let (false, Some(claims)) = (nonce.is_empty(), claims.as_object_mut()) {
                    claims.insert("nonce".to_owned(), nonce.into());
                }
                let keys = self.keys.load();
                let token = keys.signer(self.clock.now()).and_then(|signer| signer.sign_id(&claims));
                let token = token.map_err(|error| OauthFault::Unavailable(AuthFault::Issue(error)))?;
                fields.insert("id_token".to_owned(), token.into());
            }
        }
        Ok(TokenSet { principal, answer })
    }
}

// === private helpers ===

/// What is granted of what is asked: all of it, or nothing. Who asks for nothing in particular gets what there is.
pub(super) fn granted(most: &str, asked: &str) -> Result<String, OauthFault> {
    let known = |scope: &str| form::SCOPES.iter().any(|(known, _)| *known == scope);
    let mut scopes: Vec<&str> = Vec::new();
    let wanted = if asked.is_empty() { most } else { asked };
    for scope in wanted.split(' ') {
        if PASSED_OVER.contains(&scope) || scopes.contains(&scope) {
            continue;
        }
        if !known(scope) || !most.split(' ').any(|it| it == scope) {
            return Err(OauthFault::Scope);
        }
        scopes.push(scope);
    }
    if scopes.is_empty() { Err(OauthFault::Scope) } else { Ok(scopes.join(" ")) }
}

/// No more than the user may do itself: `admin` is for those whose roles reach somewhere.
fn within_roles(scope: &str, user: &User) -> Result<String, OauthFault> {
    let administers =
        user.roles.iter().any(|role| matches!(role.as_str(), "admin" | "tenant-admin" | "author"));
    let kept: Vec<_> = scope.split(' ').filter(|scope| *scope != "admin" || administers).collect();
    if kept.is_empty() { Err(OauthFault::Scope) } else { Ok(kept.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_granted_whole_or_not_at_all() {
        let of = |most: &str, asked: &str| granted(most, asked).map_err(|fault| fault.code());
        assert_eq!(of("inference openid", ""), Ok("inference openid".to_owned()));
        assert_eq!(of("inference openid", "openid offline_access profile"), Ok("openid".to_owned()));
        for beyond in ["admin", "inference admin", "root", "inference  openid", "offline_access"] {
            assert_eq!(of("inference openid", beyond), Err("invalid_scope"), "{beyond}");
        }
    }
}
