//! People in browsers, and devices that a browser let in: signing in with a password, the session behind a cookie, and the code that a
//! browser hands to whoever opened it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sallyport_protocol::id::{CallSource, ClientId, PolicyVersion, SessionId, TenantId, UserId};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::issue::TokenGrant;
use super::password::PasswordFault;
use super::{Auth, AuthFault, Issued, Principal, Tier, form, throttle};
use crate::db::oauth::{AuthorizationCode, Once};
use crate::db::sign_in::SignIn;
use crate::db::user::User;
use crate::db::{Db, DbError};

/// How long a browser stays signed in.
pub const BROWSER_LIFETIME: Duration = Duration::from_hours(12);
/// How long a device stays signed in that a browser let in.
pub const DEVICE_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How long a code waits to be exchanged.
pub(super) const CODE_LIFETIME: Duration = Duration::from_mins(1);
/// How long it is known after that, so that a second use is noticed.
pub(super) const CODE_REMEMBERED: Duration = Duration::from_hours(24);
/// How many codes of one user are known at once; the oldest go.
pub(super) const MOST_CODES: i64 = 100;
/// In how many places a user may be signed in; the oldest go.
pub(super) const MOST_SIGN_INS: i64 = 50;
/// Wrong passwords for one user, and from one address, in a quarter of an hour.
pub(super) const TRIES_PER_USER: u32 = 10;
/// The same from one address.
pub(super) const TRIES_PER_ADDRESS: u32 = 50;
/// The client that devices are which a browser let in.
const DEVICE_CLIENT: &str = "sp_cowork";

/// Who is signed in.
#[derive(Clone)]
pub struct SignedIn {
    /// The user.
    pub user: User,
    /// The session.
    pub sign_in: SignIn,
    /// What its forms have to bring, so that no other site fills them in.
    pub csrf: String,
}

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInFault {
    /// There is no such user, or another password, or it may not call.
    #[error("the name or the password is wrong")]
    Wrong,
    /// Too many were wrong.
    #[error("too many attempts")]
    Throttled(Duration),
    /// Too many passwords are looked at now, or the library failed.
    #[error("passwords cannot be looked at now")]
    Password(#[from] PasswordFault),
    /// Nobody knows.
    #[error("the database of identities does not answer")]
    Unavailable(#[from] DbError),
}

/// What a code was exchanged for.
pub struct LinkedDevice {
    /// Who it is.
    pub principal: Principal,
    /// The first access token.
    pub issued: Issued,
    /// The cookie with which there are more.
    pub cookie: Zeroizing<String>,
}

// === impl SignedIn ===

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("user", &self.user)
            .field("sign_in", &self.sign_in)
            .finish_non_exhaustive()
    }
}

// === impl LinkedDevice ===

impl fmt::Debug for LinkedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkedDevice").field("principal", &self.principal).finish_non_exhaustive()
    }
}

// === impl SignInFault ===

impl SignInFault {
    /// A stable name for the audit row.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Wrong => "password_wrong",
            Self::Throttled(_) => "password_throttled",
            Self::Password(_) => "password_busy",
            Self::Unavailable(_) => "identity_unavailable",
        }
    }
}

// === impl Auth ===

impl Auth {
    /// Signs a user in: the secret of the cookie, and who it is. `address` is `None` behind a proxy, where all addresses are its own.
    pub async fn sign_in(
        &self,
        tenant: &str,
        name: &str,
        password: Zeroizing<String>,
        address: Option<IpAddr>,
        device: &str,
    ) -> Result<(Zeroizing<String>, SignedIn), SignInFault> {
        let moment = self.clock.monotonic();
        let account = format!("account {tenant} {name}");
        if let Some(address) = address {
            let place = throttle::place(address);
            self.throttle.attempt(&place, TRIES_PER_ADDRESS, moment).map_err(SignInFault::Throttled)?;
        }
        self.throttle.attempt(&account, TRIES_PER_USER, moment).map_err(SignInFault::Throttled)?;
        let known = match TenantId::parse(tenant) {
            Ok(tenant) if form::label(name) => self.db.password(&tenant, name).await?,
            _ => None,
        };
        let stored = known.as_ref().map(|(_, hash, _)| hash.clone());
        let matches = self.passwords.matches(stored, password).await?;
        let user = match known {
            Some((user, _, false)) if matches => user,
            _ => return Err(SignInFault::Wrong),
        };
        self.throttle.forget(&account);
        let session = SessionId::from_bytes(self.random());
        let (secret, sign_in) = self.begin(&user, session, device, BROWSER_LIFETIME).await?;
        let csrf = csrf(&secret);
        Ok((secret, SignedIn { user, sign_in, csrf }))
    }

    /// Who is signed in with this cookie.
    pub async fn signed_in(&self, cookie: &str) -> Result<Option<SignedIn>, DbError> {
        if !form::thumbprint(cookie) {
            return Ok(None);
        }
        let found = self.db.signed_in(&digest(cookie), self.clock.now()).await?;
        Ok(found.map(|(user, sign_in)| SignedIn { user, sign_in, csrf: csrf(cookie) }))
    }

    /// Ends a session of a user; `false` if it has no such one.
    pub async fn end_session(&self, user: &User, session: &SessionId) -> Result<bool, DbError> {
        let ended = self.db.end_session(&user.tenant, &user.id, session, self.clock.now()).await?;
        self.refresh().await?;
        Ok(ended)
    }

    /// Where a user is signed in.
    pub async fn sessions_of(&self, user: &User) -> Result<Vec<SignIn>, DbError> {
        self.db.sign_ins(&user.tenant, &user.id, self.clock.now()).await
    }

    /// A code for a device that whoever is signed in lets in.
    pub async fn link_device(
        &self,
        by: &SignedIn,
        challenge: &str,
        device: &str,
    ) -> Result<Zeroizing<String>, DbError> {
        let code = AuthorizationCode {
            client: DEVICE_CLIENT.to_owned(),
            redirect_uri: String::new(),
            challenge: challenge.to_owned(),
            session: SessionId::from_bytes(self.random()),
            tenant: by.user.tenant.clone(),
            user: by.user.id.clone(),
            scope: form::DEFAULT_SCOPE.to_owned(),
            resource: String::new(),
            nonce: String::new(),
            device: device.to_owned(),
            expires_at: self.clock.now() + CODE_LIFETIME,
        };
        self.store_code(&code).await
    }

    /// A cookie and an access token for a device's code, once.
    pub async fn exchange_code(
        &self,
        code: &str,
        verifier: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<LinkedDevice, AuthFault> {
        self.offers_sessions()?;
        let (secret, challenge) = (digest(code), challenge_of(verifier));
        let code = match self.db.use_code(&secret, DEVICE_CLIENT, "", &challenge, self.clock.now()).await? {
            Once::First(code) => code,
            Once::Again(_) => {
                self.refresh().await?;
                return Err(AuthFault::Code("code_used_twice"));
            }
            Once::Unknown => return Err(AuthFault::Code("code_unknown")),
        };
        let user = live_user(&self.db, &code.tenant, &code.user).await?;
        let user = user.ok_or(AuthFault::Code("user_disabled"))?;
        let (cookie, _) = self.begin(&user, code.session.clone(), &code.device, DEVICE_LIFETIME).await?;
        let policy = policy(&user.tenant);
        let (principal, issued) = self.issue(user, self.session_grant(code.session), &policy)?;
        Ok(LinkedDevice { principal, issued, cookie })
    }

    /// An access token for whoever is signed in.
    pub async fn exchange_session(
        &self,
        cookie: &str,
        policy: impl FnOnce(&TenantId) -> PolicyVersion,
    ) -> Result<(Principal, Issued), AuthFault> {
        self.offers_sessions()?;
        let signed_in = self.signed_in(cookie).await?.ok_or(AuthFault::Code("session_unknown"))?;
        let policy = policy(&signed_in.user.tenant);
        let mut grant = self.session_grant(signed_in.sign_in.session);
        grant.until = signed_in.sign_in.expires_at.unix_timestamp();
        self.issue(signed_in.user, grant, &policy)
    }

    /// Stores a code, and says it.
    pub(super) async fn store_code(&self, code: &AuthorizationCode) -> Result<Zeroizing<String>, DbError> {
        let secret = self.secret();
        self.db.insert_code(&digest(&secret), code, self.clock.now() - CODE_REMEMBERED, MOST_CODES).await?;
        Ok(secret)
    }

    /// 256 random bits as text.
    pub(super) fn secret(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.entropy.fill(bytes.as_mut_slice());
        Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
    }

    /// A secret for a form of somebody who is not signed in.
    pub fn form_secret(&self) -> Zeroizing<String> {
        self.secret()
    }

    fn offers_sessions(&self) -> Result<(), AuthFault> {
        if self.settings.tiers.contains(&Tier::Session) { Ok(()) } else { Err(AuthFault::TierDisabled) }
    }

    /// Begins a session of a user: the secret of its cookie, and what is known of it.
    pub(super) async fn begin(
        &self,
        user: &User,
        session: SessionId,
        device: &str,
        lifetime: Duration,
    ) -> Result<(Zeroizing<String>, SignIn), DbError> {
        let now = self.clock.now();
        let sign_in =
            SignIn { session, device: device.to_owned(), created_at: now, expires_at: now + lifetime };
        let secret = self.secret();
        self.db.insert_sign_in(&digest(&secret), user, &sign_in, MOST_SIGN_INS).await?;
        Ok((secret, sign_in))
    }

    fn session_grant(&self, session: SessionId) -> TokenGrant {
        TokenGrant {
            source: self.source_id(),
            session,
            scope: form::DEFAULT_SCOPE.to_owned(),
            until: i64::MAX,
            tier: Tier::Session,
            bound_to: None,
            client: ClientId::cowork(),
            call_source: CallSource::Cowork,
        }
    }
}

/// The SHA-256 of a secret, as it is kept.
pub(super) fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The challenge of a verifier (RFC 7636, section 4.2): a verifier of another form has none.
pub(super) fn challenge_of(verifier: &str) -> String {
    let is_one = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if is_one { URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) } else { String::new() }
}

/// Whether it is the challenge of some verifier.
pub fn is_challenge(text: &str) -> bool {
    form::thumbprint(text)
}

/// What forms bring that were made for the holder of this cookie.
pub fn csrf(cookie: &str) -> String {
    let digest = Sha256::new().chain_update(b"sallyport form\0").chain_update(cookie).finalize();
    URL_SAFE_NO_PAD.encode(digest)
}

/// The user, if it may call.
pub(super) async fn live_user(db: &Db, tenant: &TenantId, user: &UserId) -> Result<Option<User>, DbError> {
    let open = db.tenant(tenant).await?.is_some_and(|tenant| tenant.disabled_at.is_none());
    Ok(db.user(tenant, user).await?.filter(|user| open && user.disabled_at.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_that_of_rfc_7636_and_other_verifiers_have_none() {
        // Appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge_of(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        for bad in ["", &"a".repeat(42), &"a".repeat(129), &format!("{}+", "a".repeat(43)), &"ä".repeat(43)]
        {
            assert_eq!(challenge_of(bad), "", "{bad}");
        }
    }
}
