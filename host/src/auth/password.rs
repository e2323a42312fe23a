//! Passwords of local users: Argon2id (RFC 9106) with the parameters that OWASP names as least, few at a time, since each takes 19 MiB.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::clock::Entropy;

/// Shortest password, in characters (NIST SP 800-63B-4, section 3.1.1.2, for a password that stands alone).
pub const SHORTEST: usize = 15;
/// Longest, in bytes.
pub const LONGEST: usize = 512;
/// How many are computed at once.
const AT_ONCE: usize = 2;
/// How many may wait for that.
const WAITING: usize = 32;

/// What is compared where there is no such user, so that it takes as long.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$iPOQ5f2O21FsjnBvo1AiFcDuSXciCnKUrXFO+yfgNoM";

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    /// Too short, too long, or with control characters.
    #[error(
        "a password has at least {SHORTEST} characters, at most {LONGEST} bytes, and no control characters"
    )]
    Form,
    /// The library failed.
    #[error("the password could not be computed")]
    Failed,
    /// Too many are computed now.
    #[error("too many passwords are looked at")]
    Busy,
}

/// Computes passwords, a few at a time.
#[derive(Debug)]
pub(crate) struct Passwords {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

// === impl Passwords ===

impl Default for Passwords {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), waiting: Arc::new(Semaphore::new(WAITING)) }
    }
}

impl Passwords {
    /// Whether it is this one. `None`: nobody has one, and the work is done all the same.
    pub(crate) async fn matches(
        &self,
        stored: Option<String>,
        password: Zeroizing<String>,
    ) -> Result<bool, PasswordFault> {
        let _waits = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| PasswordFault::Busy)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| PasswordFault::Busy)?;
        let is_user = stored.is_some();
        let stored = stored.unwrap_or_else(|| NOBODY.to_owned());
        let compared = tokio::task::spawn_blocking(move || {
            let _place = place;
            let parsed = PasswordHash::new(&stored).map_err(|_| PasswordFault::Failed)?;
            Ok::<_, PasswordFault>(hasher()?.verify_password(password.as_bytes(), &parsed).is_ok())
        });
        let equal = compared.await.map_err(|_| PasswordFault::Failed)??;
        Ok(equal && is_user)
    }
}

/// What is stored of a password that somebody chose.
pub fn hash(password: &str, entropy: &dyn Entropy) -> Result<String, PasswordFault> {
    let fits = password.chars().count() >= SHORTEST && password.len() <= LONGEST;
    if !fits || password.chars().any(char::is_control) {
        return Err(PasswordFault::Form);
    }
    computed(password.as_bytes(), entropy)
}

/// A password of 130 random bits, to be shown once.
pub fn generate(entropy: &dyn Entropy) -> Zeroizing<String> {
    // 32 letters and digits that nobody takes for another: each is five bits.
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut bytes = Zeroizing::new([0; 26]);
    entropy.fill(bytes.as_mut_slice());
    let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte & 31)));
    Zeroizing::new(letters.map(|letter| char::from(*letter)).collect())
}

// === private helpers ===

fn hasher() -> Result<Argon2<'static>, PasswordFault> {
    // 19 MiB, two passes, one lane.
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|_| PasswordFault::Failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn computed(password: &[u8], entropy: &dyn Entropy) -> Result<String, PasswordFault> {
    let mut salt = [0; 16];
    entropy.fill(&mut salt);
    let hash = hasher()?.hash_password_with_salt(password, &salt).map_err(|_| PasswordFault::Failed)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[tokio::test]
    async fn a_password_is_itself_and_nothing_else_and_is_kept_as_argon2id() {
        let kept = hash("correct horse battery", &SystemEntropy).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert_ne!(
            kept,
            hash("correct horse battery", &SystemEntropy).unwrap(),
            "each has a salt of its own"
        );
        let passwords = Passwords::default();
        let matches = async |stored: Option<&str>, given: &str| {
            passwords.matches(stored.map(str::to_owned), Zeroizing::new(given.to_owned())).await
        };
        assert_eq!(matches(Some(&kept), "correct horse battery").await, Ok(true));
        for other in ["", "correct horse batter", "correct horse battery ", "Correct horse battery"] {
            assert_eq!(matches(Some(&kept), other).await, Ok(false), "{other:?}");
        }
        assert_eq!(matches(None, "correct horse battery").await, Ok(false));
        assert_eq!(matches(Some("plain"), "plain").await, Err(PasswordFault::Failed));
    }

    /// Computed by the reference implementation in C (`argon2-cffi` of Python).
    #[tokio::test]
    async fn what_another_implementation_made_is_read() {
        let passwords = Passwords::default();
        let kept = NOBODY;
        let given = |text: &str| Zeroizing::new(text.to_owned());
        assert_eq!(passwords.matches(Some(kept.to_owned()), given("correct horse battery")).await, Ok(true));
        assert_eq!(passwords.matches(Some(kept.to_owned()), given("correct horse batterz")).await, Ok(false));
    }

    #[test]
    fn what_is_too_short_too_long_or_unprintable_is_no_password() {
        let long = "x".repeat(LONGEST + 1);
        for bad in ["", "fourteen chars", "a password\nof two lines", long.as_str()] {
            assert_eq!(hash(bad, &SystemEntropy), Err(PasswordFault::Form), "{bad:?}");
        }
        assert_eq!(generate(&SystemEntropy).len(), 26);
        assert_ne!(*generate(&SystemEntropy), *generate(&SystemEntropy));
    }
}
