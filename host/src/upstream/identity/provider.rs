//! Questions to the servers of identity providers at which people sign in: as bounded as those to clouds, and with as little believed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::{Method, header};
use zeroize::Zeroizing;

use super::super::{Upstream, percent};
use super::fetch::{self, IdentityError};
use crate::auth::{AskFault, IdentityQuestion, IdentityServers};
use crate::config::TokenUrl;

impl IdentityServers for Upstream {
    fn ask(&self, question: IdentityQuestion) -> BoxFuture<'_, Result<Zeroizing<Vec<u8>>, AskFault>> {
        Box::pin(async move {
            let url = TokenUrl::parse(&question.url)
                .map_err(|_| AskFault::Unusable("it names an address that is no plain URL, or in clear"))?;
            let mut headers = Vec::new();
            let proof = question.basic.as_ref().map(|(client, secret)| basic(client, secret));
            headers.extend(proof.as_ref().map(|proof| (header::AUTHORIZATION, proof.as_str())));
            let request = match &question.form {
                None => fetch::request(Method::GET, &url, &headers, String::new()),
                Some(fields) => {
                    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    headers.push((header::CONTENT_TYPE, "application/x-www-form-urlencoded"));
                    fetch::request(Method::POST, &url, &headers, fetch::form(&fields))
                }
            };
            Ok(fetch::ask(self, request?).await?)
        })
    }
}

// === impl AskFault ===

impl From<IdentityError> for AskFault {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Unreachable => Self::Unreachable,
            IdentityError::TimedOut => Self::TimedOut,
            IdentityError::Failing(status) => Self::Failing(status),
            IdentityError::Refused { status, code } => Self::Refused { status, code },
            IdentityError::Unusable(what) => Self::Unusable(what),
            IdentityError::Own(_) => Self::Unusable("it could not be asked"),
        }
    }
}

// === private helpers ===

/// Client and secret in a header: each is encoded as in a form before (RFC 6749, section 2.3.1).
fn basic(client: &str, secret: &str) -> Zeroizing<String> {
    let mut pair = String::new();
    percent::encode_into(&mut pair, client.as_bytes(), b"");
    pair.push(':');
    percent::encode_into(&mut pair, secret.as_bytes(), b"");
    let pair = Zeroizing::new(pair);
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::basic;

    #[test]
    fn a_client_with_a_colon_and_a_secret_with_a_space_can_be_told_apart() {
        assert_eq!(basic("a:b", "c d").as_str(), "Basic YSUzQWI6YyUyMGQ=");
    }
}
