//! The keys of access tokens and how one follows another: the new one is published before it signs, and the one before verifies until its
//! last token has ended. Every gateway that shares the database derives the same keys.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use time::OffsetDateTime;

use super::jwt::{BadKey, LEEWAY, MAX_LIFETIME, Signer, Verifier, key_id};
use super::keys::{Keys, SecretKey};
use super::{AuthSettings, OpenError};
use crate::clock::{Clock, Entropy};
use crate::db::token_key::TokenKeyRow;
use crate::db::{Db, DbError};

/// How long a new key is published before it signs: every gateway looks once a second.
pub const PUBLISHED_AHEAD: Duration = Duration::from_secs(5);
/// How far the clocks of gateways may differ.
const CLOCKS: Duration = Duration::from_mins(1);
/// Keys that count at once: those of so many exchanges within an hour.
pub(super) const MOST_KEYS: i64 = 8;

/// What keys are made of.
pub(super) struct TokenKeySource {
    root: SecretKey,
    /// The key that every gateway begins with.
    first: SigningKey,
}

/// The keys that count, as of one epoch of the database.
pub(super) struct TokenKeys {
    keys: Vec<TimedSigner>,
    verifier: Verifier,
    /// When the next of them ends, in seconds since 1970.
    until: i64,
}

struct TimedSigner {
    signer: Signer,
    signs_at: i64,
}

/// What an exchange of keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRotation {
    /// The id of the new key.
    pub kid: String,
    /// From when on it signs.
    pub signs_at: OffsetDateTime,
    /// When the keys before it end.
    pub before_until: OffsetDateTime,
}

/// How keys are exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationPace {
    /// Nobody notices.
    Orderly,
    /// What the keys before signed is believed no more.
    AtOnce,
}

/// Why keys are not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Too many were exchanged within an hour.
    #[error(
        "{MOST_KEYS} keys count already: wait until the oldest has ended, or end all of them (--at-once)"
    )]
    TooMany,
    /// The database failed.
    #[error("the keys could not be exchanged")]
    Database(#[from] DbError),
}

// === impl TokenKeySource ===

impl TokenKeySource {
    pub(super) fn of(keys: &Keys) -> Self {
        Self { root: keys.token_root().clone(), first: keys.jwt().clone() }
    }

    /// The key of a salt. Whoever has the database alone cannot make it.
    fn derived(&self, salt: &[u8]) -> Option<SigningKey> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.root.expose()).ok()?;
        mac.update(b"sallyport token key\0");
        mac.update(salt);
        let seed = zeroize::Zeroizing::<[u8; 32]>::new(mac.finalize().into_bytes().into());
        Some(SigningKey::from_bytes(&seed))
    }

    /// The key of a row, if this gateway can make it.
    fn key(&self, row: &TokenKeyRow) -> Option<SigningKey> {
        let key = match &row.salt {
            None => self.first.clone(),
            Some(salt) => self.derived(salt)?,
        };
        (key_id(&key.verifying_key()) == row.kid).then_some(key)
    }
}

// === impl TokenKeys ===

impl TokenKeys {
    /// Reads which keys count. One that this gateway cannot make is not believed, whatever the database says of it.
    pub(super) async fn load(
        db: &Db,
        source: &TokenKeySource,
        settings: &AuthSettings,
        now: OffsetDateTime,
    ) -> Result<Self, OpenError> {
        let rows = db.token_keys(now).await?;
        let mut keys = Vec::new();
        for row in &rows {
            let Some(key) = source.key(row) else {
                tracing::error!(
                    kid = row.kid,
                    "a key of access tokens is not this gateway's: gateways that share a database need the same keys/token-root.key"
                );
                continue;
            };
            keys.push(TimedSigner { signer: Signer::new(&key), signs_at: row.signs_at.unix_timestamp() });
        }
        if rows.is_empty() {
            keys.push(TimedSigner { signer: Signer::new(&source.first), signs_at: i64::MIN });
        }
        let public: Vec<_> = keys.iter().map(|key| *key.signer.public()).collect();
        let verifier = Verifier::new(&public, &settings.issuer, &settings.audience, &settings.tiers)?;
        let ends = rows.iter().filter_map(|row| row.ends_at).map(OffsetDateTime::unix_timestamp);
        Ok(Self { keys, verifier, until: ends.min().unwrap_or(i64::MAX) })
    }

    /// Whether one of them has ended.
    pub(super) const fn is_over(&self, now: OffsetDateTime) -> bool {
        now.unix_timestamp() >= self.until
    }

    /// Looks who signed a token.
    pub(super) const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The one that signs now. None: this gateway cannot make it.
    pub(super) fn signer(&self, now: OffsetDateTime) -> Result<&Signer, BadKey> {
        let now = now.unix_timestamp();
        let signs = self.keys.iter().rev().find(|key| key.signs_at <= now);
        signs.map(|key| &key.signer).ok_or(BadKey)
    }

    /// The JWK Set: the one that signs now first, then those that follow, then those before.
    pub(super) fn jwks(&self, now: OffsetDateTime) -> serde_json::Value {
        let first = self.signer(now).map(Signer::kid).unwrap_or_default();
        let (current, others): (Vec<_>, Vec<_>) =
            self.keys.iter().rev().map(|key| &key.signer).partition(|signer| signer.kid() == first);
        let keys: Vec<_> = current.into_iter().chain(others).map(Signer::jwk).collect();
        serde_json::json!({ "keys": keys })
    }
}

/// Makes a key that follows the one that signs now.
pub async fn rotate(
    db: &Db,
    keys: &Keys,
    pace: RotationPace,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<KeyRotation, RotateError> {
    let source = TokenKeySource::of(keys);
    let mut salt = [0; 32];
    entropy.fill(&mut salt);
    let now = clock.now();
    let row = |key: &SigningKey, salt: Option<Vec<u8>>, signs_at| TokenKeyRow {
        kid: key_id(&key.verifying_key()),
        salt,
        created_at: now,
        signs_at,
        ends_at: None,
    };
    let (signs_at, before_until) = match pace {
        RotationPace::Orderly => {
            let signs_at = now + PUBLISHED_AHEAD;
            // The last token of the key before is signed just then, by the slowest clock, and lives as long as any.
            (signs_at, signs_at + CLOCKS + Duration::from_secs((MAX_LIFETIME + LEEWAY).unsigned_abs()))
        }
        RotationPace::AtOnce => (now, now),
    };
    // HMAC takes a key of any length.
    let Some(key) = source.derived(&salt) else { return Err(RotateError::TooMany) };
    let key = row(&key, Some(salt.to_vec()), signs_at);
    let first = row(&source.first, None, OffsetDateTime::UNIX_EPOCH);
    if !db.rotate_token_key(&key, &first, before_until, MOST_KEYS).await? {
        return Err(RotateError::TooMany);
    }
    Ok(KeyRotation { kid: key.kid, signs_at, before_until })
}

/// The id of the key that signs now.
pub(super) async fn current_kid(
    db: &Db,
    keys: &Keys,
    settings: &AuthSettings,
    now: OffsetDateTime,
) -> Result<String, OpenError> {
    let keys = TokenKeys::load(db, &TokenKeySource::of(keys), settings, now).await?;
    Ok(keys.signer(now)?.kid().to_owned())
}
