//! Seals: what is a tenant's is encrypted under a data key of that tenant, and bound to the very place where it is stored, so that
//! it can be neither read nor moved nor changed by whoever holds the database alone.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use sallyport_protocol::canonical;
use zeroize::Zeroizing;

use crate::auth::keys::SecretKey;
use crate::clock::Entropy;

/// The form of everything sealed so far.
const FORM: u8 = 1;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;

/// What seals everything of one tenant.
pub(super) struct DataKey {
    id: [u8; ID_BYTES],
    key: Zeroizing<[u8; 32]>,
}

/// Where something sealed is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealedPlace<'a> {
    /// The table.
    pub(super) table: &'a str,
    /// The column.
    pub(super) column: &'a str,
    /// The tenant.
    pub(super) tenant: &'a str,
    /// What else its row is found by.
    pub(super) row: &'a [&'a str],
}

/// Why something sealed cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Its key is gone.
    #[error("its key was shredded")]
    Shredded,
    /// It is not what was sealed here.
    #[error("the seal is broken: it was changed, or is not from here")]
    Broken,
}

// === impl DataKey ===

impl DataKey {
    /// A new one.
    pub(super) fn random(entropy: &dyn Entropy) -> Self {
        let mut it = Self { id: [0; ID_BYTES], key: Zeroizing::new([0; 32]) };
        entropy.fill(&mut it.id);
        entropy.fill(it.key.as_mut_slice());
        it
    }

    /// Tells it from other keys of the tenant.
    pub(super) fn id(&self) -> String {
        canonical::hex(&self.id)
    }

    /// The key under the gateway's own, as it is stored.
    pub(super) fn wrap(
        &self,
        tenant: &str,
        by: &SecretKey,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        let mut wrapped = self.id.to_vec();
        let aad = bound(SealedPlace { row: &[&self.id()], ..wrapping(tenant) });
        wrapped.extend(encrypt(by.expose(), &aad, self.key.as_slice(), entropy)?);
        Ok(wrapped)
    }

    /// What [`DataKey::wrap`] made.
    pub(super) fn unwrap(wrapped: &[u8], tenant: &str, by: &SecretKey) -> Result<Self, SealError> {
        let (id, sealed) = wrapped.split_first_chunk::<ID_BYTES>().ok_or(SealError::Broken)?;
        let aad = bound(SealedPlace { row: &[&canonical::hex(id)], ..wrapping(tenant) });
        let key = decrypt(by.expose(), &aad, sealed)?;
        let key = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| SealError::Broken)?;
        Ok(Self { id: *id, key: Zeroizing::new(key) })
    }

    /// Seals `plain` for `place`.
    pub(super) fn seal(
        &self,
        place: SealedPlace<'_>,
        plain: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![FORM];
        sealed.extend_from_slice(&self.id);
        sealed.extend(encrypt(&self.key, &bound(place), plain, entropy)?);
        Ok(sealed)
    }

    /// What was sealed for `place`.
    pub(super) fn open(
        &self,
        place: SealedPlace<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (form, rest) = sealed.split_first().ok_or(SealError::Broken)?;
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(SealError::Broken)?;
        if *form != FORM {
            return Err(SealError::Broken);
        }
        if *id != self.id {
            return Err(SealError::Shredded);
        }
        decrypt(&self.key, &bound(place), rest)
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("DataKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

// === private helpers ===

fn wrapping(tenant: &str) -> SealedPlace<'_> {
    SealedPlace { table: "tenant_data_keys", column: "wrapped", tenant, row: &[] }
}

/// A place as bytes: each part with its length, so that no two places are written alike.
fn bound(place: SealedPlace<'_>) -> Vec<u8> {
    let mut bytes = b"sallyport sealed 1".to_vec();
    for part in [place.table, place.column, place.tenant].iter().chain(place.row) {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn encrypt(key: &[u8; 32], aad: &[u8], plain: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
    // 24 random bytes do not repeat, however many calls there are.
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    let cipher = XChaCha20Poly1305::new(&Key::from(*key));
    let payload = Payload { msg: plain, aad };
    let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Broken)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn decrypt(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Broken)?;
    let cipher = XChaCha20Poly1305::new(&Key::from(*key));
    let payload = Payload { msg: sealed, aad };
    cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| SealError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    const HERE: SealedPlace<'_> =
        SealedPlace { table: "call_evidence", column: "sealed", tenant: "acme", row: &["t_1", "req_1"] };

    #[test]
    fn what_is_sealed_comes_out_the_same_and_never_looks_the_same() {
        let key = DataKey::random(&SystemEntropy);
        let one = key.seal(HERE, b"a prompt", &SystemEntropy).unwrap();
        let two = key.seal(HERE, b"a prompt", &SystemEntropy).unwrap();
        assert_ne!(one, two);
        assert_eq!(key.open(HERE, &one).unwrap().as_slice(), b"a prompt");
        assert!(memchr::memmem::find(&one, b"prompt").is_none());
    }

    #[test]
    fn a_changed_byte_anywhere_breaks_the_seal() {
        let key = DataKey::random(&SystemEntropy);
        let sealed = key.seal(HERE, b"a prompt", &SystemEntropy).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(HERE, &changed).is_err(), "byte {at}");
        }
        for len in 0..sealed.len() {
            assert!(key.open(HERE, &sealed[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn what_was_sealed_for_one_place_opens_at_no_other() {
        let key = DataKey::random(&SystemEntropy);
        let sealed = key.seal(HERE, b"a prompt", &SystemEntropy).unwrap();
        let others = [
            SealedPlace { table: "evidence_configs", ..HERE },
            SealedPlace { column: "other", ..HERE },
            SealedPlace { tenant: "other", ..HERE },
            SealedPlace { row: &["t_2", "req_1"], ..HERE },
            SealedPlace { row: &["t_1req_1"], ..HERE },
            SealedPlace { row: &["t_1", "req_1", ""], ..HERE },
        ];
        for place in others {
            assert_eq!(key.open(place, &sealed).unwrap_err(), SealError::Broken, "{place:?}");
        }
    }

    #[test]
    fn a_key_is_wrapped_for_its_tenant_alone() {
        let gateway = SecretKey::new([7; 32]);
        let key = DataKey::random(&SystemEntropy);
        let sealed = key.seal(HERE, b"a prompt", &SystemEntropy).unwrap();
        let wrapped = key.wrap("acme", &gateway, &SystemEntropy).unwrap();
        let again = DataKey::unwrap(&wrapped, "acme", &gateway).unwrap();
        assert_eq!(again.open(HERE, &sealed).unwrap().as_slice(), b"a prompt");
        assert!(DataKey::unwrap(&wrapped, "other", &gateway).is_err());
        assert!(DataKey::unwrap(&wrapped, "acme", &SecretKey::new([8; 32])).is_err());
        assert!(!format!("{key:?}").contains(&canonical::hex(key.key.as_slice())));
    }

    #[test]
    fn what_an_earlier_key_sealed_is_known_as_shredded() {
        let (old, new) = (DataKey::random(&SystemEntropy), DataKey::random(&SystemEntropy));
        let sealed = old.seal(HERE, b"a prompt", &SystemEntropy).unwrap();
        assert_eq!(new.open(HERE, &sealed).unwrap_err(), SealError::Shredded);
    }
}
