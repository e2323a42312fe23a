//! Access tokens of Microsoft Entra
//! (<https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow>).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::Upstream;
use super::fetch::{self, IdentityError};
use super::{FreshIdentity, Given};
use crate::assertion::{AssertionAlgorithm, AssertionKey};
use crate::config::{AzureCredential, AzureProof, ExposeSecret as _};

/// How long an assertion lives, in seconds: it is used at once.
const ASSERTED: i64 = 600;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Fetches a token.
pub(super) async fn mint(
    upstream: &Upstream,
    azure: &AzureCredential,
) -> Result<FreshIdentity, IdentityError> {
    let assertion;
    let mut form = vec![
        ("grant_type", "client_credentials"),
        ("client_id", azure.client_id.as_str()),
        ("scope", azure.scope.as_str()),
    ];
    match &azure.proof {
        AzureProof::Secret(secret) => form.push(("client_secret", secret.expose_secret())),
        AzureProof::Certificate { key, thumbprint } => {
            assertion = signed(upstream, azure, key, thumbprint)?;
            form.extend([
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", assertion.as_str()),
            ]);
        }
        AzureProof::TokenFile(path) => {
            assertion = fetch::file(path)?;
            form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.trim())]);
        }
    }
    let (token, lifetime) = fetch::token(upstream, &azure.token_url, &form).await?;
    Ok(FreshIdentity { given: Given::Token(token.as_str().into()), lifetime })
}

// === private helpers ===

/// As Entra wants it: <https://learn.microsoft.com/en-us/entra/identity-platform/certificate-credentials>.
fn signed(
    upstream: &Upstream,
    azure: &AzureCredential,
    key: &AssertionKey,
    thumbprint: &[u8; 32],
) -> Result<Zeroizing<String>, IdentityError> {
    let now = upstream.clock.now();
    let audience = azure.token_url.to_string();
    // Names this assertion and no other; nothing has to be unpredictable about it.
    let id = Sha256::digest(format!("{audience} {} {}", azure.client_id, now.unix_timestamp_nanos()));
    let claims = json!({
        "aud": audience,
        "iss": azure.client_id,
        "sub": azure.client_id,
        "jti": sallyport_protocol::canonical::hex(id.get(..16).unwrap_or_default()),
        "nbf": now.unix_timestamp(),
        "iat": now.unix_timestamp(),
        "exp": now.unix_timestamp() + ASSERTED,
    });
    let mut head = Map::new();
    head.insert("x5t#S256".to_owned(), URL_SAFE_NO_PAD.encode(thumbprint).into());
    key.assertion(AssertionAlgorithm::Ps256, head, &claims)
        .ok_or_else(|| IdentityError::Own("the application's key does not sign".to_owned()))
}
