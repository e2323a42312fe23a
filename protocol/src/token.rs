//! Personal access tokens: their text form, minting and parsing. A mistyped token fails its checksum here and
//! never costs a database look-up.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize as _, Zeroizing};

/// What every personal access token starts with.
pub const PREFIX: &str = "sp_pat_";

const ID_LEN: usize = 16;
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 8;
/// Length of a token in bytes.
pub const LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + 1 + CHECKSUM_LEN;

/// A personal access token: `sp_pat_<16 hex>_<43 base64url>_<8 hex>`: a public id, 32 random bytes and the
/// CRC-32 (IEEE) of all that stands before the last `_`. `Debug` shows the id alone; the secret is wiped when
/// it is dropped.
#[derive(Clone)]
pub struct Pat {
    id: String,
    secret: Zeroizing<[u8; 32]>,
}

/// Why a text is not a personal access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatError {
    /// It does not start with `sp_pat_`.
    #[error("not a personal access token")]
    NotAPat,
    /// It is too short or too long, or its parts are not where they belong.
    #[error("a personal access token has another form")]
    Form,
    /// It was mistyped or cut.
    #[error("the checksum of the personal access token does not match")]
    Checksum,
}

// === impl Pat ===

impl Pat {
    /// A new token of random bytes.
    pub fn mint(id: [u8; 8], mut secret: [u8; 32]) -> Self {
        let pat = Self { id: crate::canonical::hex(&id), secret: Zeroizing::new(secret) };
        secret.zeroize();
        pat
    }

    /// Reads a token; its checksum is checked before anything else is looked at.
    pub fn parse(text: &str) -> Result<Self, PatError> {
        let rest = text.strip_prefix(PREFIX).ok_or(PatError::NotAPat)?;
        if text.len() != LEN || !text.is_ascii() {
            return Err(PatError::Form);
        }
        let (body, checksum) = text.split_at_checked(LEN - CHECKSUM_LEN - 1).ok_or(PatError::Form)?;
        let checksum = checksum.strip_prefix('_').ok_or(PatError::Form)?;
        if checksum != checksum_of(body) {
            return Err(PatError::Checksum);
        }
        let (id, rest) = rest.split_at_checked(ID_LEN).ok_or(PatError::Form)?;
        let (secret, _) = rest
            .strip_prefix('_')
            .and_then(|rest| rest.split_at_checked(SECRET_LEN))
            .ok_or(PatError::Form)?;
        if !id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(PatError::Form);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        match URL_SAFE_NO_PAD.decode_slice(secret, bytes.as_mut_slice()) {
            Ok(32) => Ok(Self { id: id.to_owned(), secret: bytes }),
            _ => Err(PatError::Form),
        }
    }

    /// The public half, by which it is found: 16 lower-case hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The token's text, to be shown once.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(LEN));
        text.push_str(PREFIX);
        text.push_str(&self.id);
        text.push('_');
        URL_SAFE_NO_PAD.encode_string(self.secret.as_slice(), &mut text);
        let checksum = checksum_of(&text);
        text.push('_');
        text.push_str(&checksum);
        text
    }
}

impl fmt::Debug for Pat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pat").field("id", &self.id).finish_non_exhaustive()
    }
}

fn checksum_of(body: &str) -> String {
    crate::canonical::hex(&crc32fast::hash(body.as_bytes()).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_minted_token_has_the_documented_form() {
        let pat = Pat::mint([0x0a; 8], [0xff; 32]);
        let text = pat.to_text();
        assert_eq!(text.len(), LEN);
        assert_eq!(
            text.as_str(),
            "sp_pat_0a0a0a0a0a0a0a0a___________________________________________8_23e66973"
        );
        let again = Pat::parse(&text).unwrap();
        assert_eq!((again.id(), again.secret()), (pat.id(), &[0xff; 32]));
    }

    #[test]
    fn the_secret_is_never_printed() {
        let pat = Pat::mint([1; 8], [0x5a; 32]);
        assert_eq!(format!("{pat:?}"), "Pat { id: \"0101010101010101\", .. }");
    }

    #[test]
    fn another_credential_is_told_apart_from_a_mistyped_token() {
        assert_eq!(Pat::parse("eyJhbGciOi").unwrap_err(), PatError::NotAPat);
        assert_eq!(Pat::parse("sp_pat_").unwrap_err(), PatError::Form);
        assert_eq!(Pat::parse(&format!("sp_pat_{}", "é".repeat(34))).unwrap_err(), PatError::Form);
    }

    #[test]
    fn a_right_checksum_over_a_wrong_form_is_refused() {
        for body in [
            format!("sp_pat_{}_{}", "A".repeat(16), "A".repeat(43)),
            format!("sp_pat_{}-{}", "a".repeat(16), "A".repeat(43)),
            format!("sp_pat_{}_{}", "a".repeat(16), "+".repeat(43)),
            format!("sp_pat_{}_{}B", "a".repeat(16), "A".repeat(42)),
        ] {
            let text = format!("{body}_{}", checksum_of(&body));
            assert_eq!(Pat::parse(&text).unwrap_err(), PatError::Form, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_minted_parses_again(id: [u8; 8], secret: [u8; 32]) {
            let pat = Pat::mint(id, secret);
            let again = Pat::parse(&pat.to_text()).unwrap();
            prop_assert_eq!((again.id(), again.secret()), (pat.id(), &secret));
        }

        #[test]
        fn one_wrong_character_is_always_noticed(id: [u8; 8], secret: [u8; 32], at in 0..LEN, flip in 1..128u8) {
            let text = Pat::mint(id, secret).to_text();
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= flip;
            let wrong = String::from_utf8(bytes).unwrap();
            prop_assert!(Pat::parse(&wrong).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,100}") {
            let _parsed = Pat::parse(&text);
        }
    }
}
