//! Who calls.

use std::time::Duration;

/// What the operator decides about access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// The `iss` of our tokens: the gateway's public URL.
    pub issuer: String,
    /// The `aud` of our tokens.
    pub audience: String,
    /// How long an access token lives.
    pub ttl: Duration,
}

impl AuthSettings {
    /// The defaults, for a gateway at this public URL.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: "cowork".to_owned(), ttl: Duration::from_secs(3600) }
    }
}
