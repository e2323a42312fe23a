//! Personal access tokens: made once, shown once, kept as a MAC, and checked so that every refusal looks the same.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sallyport_protocol::id::SessionId;
use sallyport_protocol::token::Pat;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::form;
use super::keys::SecretKey;
use crate::clock::{Clock, Entropy};
use crate::db::pat::{PatHolder, PatRecord};
use crate::db::user::User;
use crate::db::{Db, DbError, seconds};

/// How long a personal access token lives unless told otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How long it may live at most.
pub const MAX_LIFETIME: Duration = Duration::from_hours(366 * 24);

/// Why a personal access token is refused. The client learns none of it; the audit row holds [`PatFault::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatFault {
    /// Mistyped or cut: its checksum is wrong, or its parts are not where they belong. Costs no query.
    #[error("the token is mistyped")]
    Mistyped,
    /// There is none with this id and secret, or it is not that of its user and tenant.
    #[error("the token is not known")]
    Unknown,
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// The session of its direct use was revoked.
    #[error("the session was revoked")]
    SessionRevoked,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its user is disabled.
    #[error("the user is disabled")]
    UserDisabled,
    /// Its tenant is disabled.
    #[error("the tenant is disabled")]
    TenantDisabled,
}

/// What a new token shall be.
#[derive(Debug, Clone)]
pub struct NewPat<'a> {
    /// Whose it will be.
    pub user: &'a User,
    /// What its user calls it.
    pub name: &'a str,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// How long it will live.
    pub lifetime: Duration,
}

/// A token that was just made. Its text is not kept anywhere else: `Debug` masks it, and it is wiped when dropped.
pub struct Minted {
    /// The text to show, once.
    pub text: Zeroizing<String>,
    /// What is kept.
    pub record: PatRecord,
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The name is empty, too long, or has control characters.
    #[error("the name of a token has 1 to 128 characters and no control characters")]
    Name,
    /// A scope that we do not know, twice the same, or none at all.
    #[error("the scopes of a token are one or more of: inference, admin, openid")]
    Scope,
    /// No time at all, or more than [`MAX_LIFETIME`].
    #[error("a token lives for at least a minute and at most 366 days")]
    Lifetime,
    /// Its user is disabled.
    #[error("the user is disabled")]
    Disabled,
    /// The database failed.
    #[error("the token could not be stored")]
    Database(#[from] DbError),
}

// === impl PatFault ===

impl PatFault {
    /// A stable name for the audit row.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Mistyped => "pat_mistyped",
            Self::Unknown => "pat_unknown",
            Self::Revoked => "pat_revoked",
            Self::SessionRevoked => "session_revoked",
            Self::Expired => "pat_expired",
            Self::UserDisabled => "user_disabled",
            Self::TenantDisabled => "tenant_disabled",
        }
    }
}

// === impl Minted ===

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted").field("record", &self.record).finish_non_exhaustive()
    }
}

/// Makes a token and stores what is kept of it.
pub async fn mint(
    db: &Db,
    pepper: &SecretKey,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    new: NewPat<'_>,
) -> Result<Minted, MintError> {
    if !form::label(new.name) {
        return Err(MintError::Name);
    }
    if form::scopes(&new.scopes.join(" ")).is_none() {
        return Err(MintError::Scope);
    }
    if new.lifetime < Duration::from_mins(1) || new.lifetime > MAX_LIFETIME {
        return Err(MintError::Lifetime);
    }
    if new.user.disabled_at.is_some() {
        return Err(MintError::Disabled);
    }
    let now = seconds(clock.now());
    loop {
        let mut id = [0; 8];
        let mut secret = Zeroizing::new([0; 32]);
        entropy.fill(&mut id);
        entropy.fill(secret.as_mut_slice());
        let pat = Pat::mint(id, *secret);
        let record = PatRecord {
            id: pat.id().to_owned(),
            tenant: new.user.tenant.clone(),
            user: new.user.id.clone(),
            name: new.name.to_owned(),
            scopes: new.scopes.clone(),
            created_at: now,
            expires_at: now + new.lifetime,
            last_used_at: None,
            revoked_at: None,
        };
        let mac = mac_of(pepper, &pat, record.tenant.as_str(), record.user.as_str());
        // An id that is taken is one chance in 2^64 for each token there is; another is as good.
        if db.insert_pat(&record, &mac).await? {
            return Ok(Minted { text: pat.to_text(), record });
        }
    }
}

/// The session that direct use of a token belongs to: always the same for the same token, so that its calls can be found
/// together and revoked together.
pub(crate) fn session_of(id: &str) -> SessionId {
    let digest = Sha256::new().chain_update(b"sallyport direct session\0").chain_update(id).finalize();
    let mut bytes = [0; 16];
    for (byte, from) in bytes.iter_mut().zip(digest) {
        *byte = from;
    }
    SessionId::from_bytes(bytes)
}

/// Looks a token up and decides whether it is good. Whatever is wrong with it, the same work is done: one query, one
/// MAC, one comparison in constant time; only then is the reason looked at. Whose a genuine one is, is told with the reason.
pub(crate) async fn check(
    db: &Db,
    pepper: &SecretKey,
    pat: &Pat,
    now: OffsetDateTime,
) -> Result<Result<PatHolder, (Option<Box<PatHolder>>, PatFault)>, DbError> {
    let holder = db.pat_holder(pat.id(), &session_of(pat.id())).await?;
    // Nobody has these ids: the MAC of a token that does not exist is computed like any other, and matches nothing.
    let (tenant, user): (&str, &str) =
        holder.as_ref().map_or(("-", "u_00000000000000000000000000000000"), |it| {
            (it.user.tenant.as_str(), it.user.id.as_str())
        });
    let mac = mac_of(pepper, pat, tenant, user);
    let stored: &[u8] = holder.as_ref().map_or(&[0; 32], |it| it.mac.as_slice());
    let genuine = bool::from(mac.as_slice().ct_eq(stored));
    Ok(match holder {
        Some(holder) if genuine => match is_good(&holder, now) {
            Ok(()) => Ok(holder),
            Err(reason) => Err((Some(Box::new(holder)), reason)),
        },
        _ => Err((None, PatFault::Unknown)),
    })
}

fn is_good(holder: &PatHolder, now: OffsetDateTime) -> Result<(), PatFault> {
    if holder.pat.revoked_at.is_some() {
        Err(PatFault::Revoked)
    } else if now >= holder.pat.expires_at {
        Err(PatFault::Expired)
    } else if holder.tenant_disabled {
        Err(PatFault::TenantDisabled)
    } else if holder.user.disabled_at.is_some() {
        Err(PatFault::UserDisabled)
    } else {
        Ok(())
    }
}

/// Binds the secret to the token's id, tenant and user: a row that is given another user matches nothing any more.
fn mac_of(pepper: &SecretKey, pat: &Pat, tenant: &str, user: &str) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(pepper.expose()).expect("HMAC takes keys of any length");
    for part in [
        b"sallyport pat 1".as_slice(),
        pat.id().as_bytes(),
        tenant.as_bytes(),
        user.as_bytes(),
        pat.secret().as_slice(),
    ] {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}
