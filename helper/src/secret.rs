//! A text that nobody prints: wiped when it is dropped, masked where it is debugged.

use std::fmt;

use serde::{Deserialize, Deserializer, Serializer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A token, a cookie, a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

// === impl Secret ===

impl Secret {
    /// Takes it over.
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for who sends or stores it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// What tells it from others without saying what it is.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        String::deserialize(source).map(Self::new)
    }
}

/// Writes a secret where it is kept: a file has to ask for this by name.
pub(crate) fn exposed<S: Serializer>(secret: &Secret, sink: S) -> Result<S::Ok, S::Error> {
    sink.serialize_str(secret.expose())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_where_it_is_debugged() {
        assert_eq!(format!("{:?}", Secret::new("sp_pat_x".to_owned())), "Secret(..)");
    }
}
