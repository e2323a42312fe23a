//! How a credential is sent to an upstream.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The form in which an upstream takes a credential, written `bearer` or as the name of a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CredentialForm {
    /// `authorization: Bearer <credential>`
    #[default]
    Bearer,
    /// `<name>: <credential>`; the name is in lower case.
    Header(String),
}

/// Not `bearer`, and no header that a credential may stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a credential is sent as bearer or in a header, by its name in lower case: x-api-key")]
pub struct CredentialFormError;

/// Headers that mean something else to an upstream, or to what stands before it.
const NOT_FOR_CREDENTIALS: [&str; 16] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];
/// The longest name of a header.
const LONGEST: usize = 64;

// === impl CredentialForm ===

impl CredentialForm {
    /// Reads a form. Errors: see [`CredentialFormError`].
    pub fn parse(text: &str) -> Result<Self, CredentialFormError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text == "bearer" {
            Ok(Self::Bearer)
        } else if (1..=LONGEST).contains(&text.len())
            && text.bytes().all(plain)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.starts_with("proxy-")
            && !NOT_FOR_CREDENTIALS.contains(&text)
        {
            Ok(Self::Header(text.to_owned()))
        } else {
            Err(CredentialFormError)
        }
    }
}

impl fmt::Display for CredentialForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "bearer",
            Self::Header(name) => name,
        })
    }
}

impl Serialize for CredentialForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CredentialForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::CredentialForm;

    #[test]
    fn a_form_is_bearer_or_a_header_that_means_nothing_else() {
        assert_eq!(CredentialForm::parse("bearer"), Ok(CredentialForm::Bearer));
        for name in ["x-api-key", "api-key", "x-goog-api-key", "authorization"] {
            assert_eq!(CredentialForm::parse(name), Ok(CredentialForm::Header(name.to_owned())));
            assert_eq!(CredentialForm::parse(name).map(|it| it.to_string()).as_deref(), Ok(name));
        }
        let long = "x".repeat(65);
        for wrong in [
            "",
            "Bearer",
            "X-Api-Key",
            "host",
            "proxy-authorization",
            "cookie",
            "x key",
            "-x",
            "1x",
            "x:y",
            &long,
        ] {
            assert!(CredentialForm::parse(wrong).is_err(), "{wrong}");
        }
    }
}
