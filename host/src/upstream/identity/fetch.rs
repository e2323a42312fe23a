//! One question to an identity server, and the ways in which it is not answered. What the server says is never repeated: it may hold what
//! it was sent. Of an error only words are kept that a list here knows.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::{FetchError, FetchLimits, Upstream, percent};
use crate::config::TokenUrl;

/// How long an identity server may take.
pub(in crate::upstream) const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of one.
pub(in crate::upstream) const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Longest file with a token of another identity provider.
pub(in crate::upstream) const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// How long a token lives of which nothing is said (RFC 6749, section 5.1, recommends to say it).
const UNSAID: Duration = Duration::from_mins(5);

/// Why there is no identity. Callers who waited for the same fetch are told the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No answer of the server.
    #[error("the identity server cannot be reached")]
    Unreachable,
    /// Its answer did not come in time.
    #[error("the identity server did not answer in time")]
    TimedOut,
    /// It fails.
    #[error("the identity server fails with status {0}")]
    Failing(u16),
    /// It refuses.
    #[error("the identity server refuses with status {status}{}", words(.code.as_deref()))]
    Refused {
        /// Its status.
        status: u16,
        /// Its reason, if that is one that is known.
        code: Option<String>,
    },
    /// Its answer is not what it should be.
    #[error("the identity server's answer cannot be used: {0}")]
    Unusable(&'static str),
    /// The gateway's own part failed before anything was asked.
    #[error("{0}")]
    Own(String),
}

/// What a token endpoint answers (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    /// A number, which some servers write as text.
    expires_in: Option<Value>,
}

/// Reasons that may be repeated: of RFC 6749 and RFC 8693, of AWS STS, and of Google.
const KNOWN: [&str; 24] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredTokenException",
    "IDPCommunicationError",
    "IDPRejectedClaim",
    "InvalidIdentityToken",
    "MalformedPolicyDocument",
    "PackedPolicyTooLarge",
    "RegionDisabledException",
    "ValidationError",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
];

// === impl IdentityError ===

impl IdentityError {
    /// Whether the same may succeed a moment later, with nothing put right by anybody.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable | Self::TimedOut | Self::Failing(_))
    }
}

/// Sends a form and reads the token that comes for it.
pub(super) async fn token(
    upstream: &Upstream,
    url: &TokenUrl,
    form: &[(&str, &str)],
) -> Result<(Zeroizing<String>, Duration), IdentityError> {
    token_in(&ask(upstream, posted(url, form)?).await?)
}

/// The token that an answer holds.
pub(super) fn token_in(answer: &[u8]) -> Result<(Zeroizing<String>, Duration), IdentityError> {
    let answer: TokenAnswer = serde_json::from_slice(answer)
        .map_err(|_| IdentityError::Unusable("it is no JSON with an access_token"))?;
    let token = Zeroizing::new(answer.access_token);
    let seconds = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let lifetime = match &answer.expires_in {
        None => UNSAID,
        Some(value) => seconds(value)
            .map(Duration::from_secs)
            .ok_or(IdentityError::Unusable("its expires_in is no number of seconds"))?,
    };
    check_token(&token)?;
    if lifetime.is_zero() {
        return Err(IdentityError::Unusable("the token is over as it comes"));
    }
    Ok((token, lifetime))
}

/// A token becomes the value of a header.
pub(super) fn check_token(token: &str) -> Result<(), IdentityError> {
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(IdentityError::Unusable("the token cannot stand in a header")) }
}

/// A form to be posted.
pub(super) fn posted(url: &TokenUrl, form: &[(&str, &str)]) -> Result<Request<Bytes>, IdentityError> {
    request(
        Method::POST,
        url,
        &[(header::CONTENT_TYPE, "application/x-www-form-urlencoded")],
        self::form(form),
    )
}

/// A form as it is sent.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        percent::encode_into(&mut body, name.as_bytes(), b"");
        body.push('=');
        percent::encode_into(&mut body, value.as_bytes(), b"");
    }
    body
}

/// A request of any kind.
pub(super) fn request(
    method: Method,
    url: &TokenUrl,
    headers: &[(HeaderName, &str)],
    body: String,
) -> Result<Request<Bytes>, IdentityError> {
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.uri().clone();
    let out = request.headers_mut();
    out.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| IdentityError::Unusable("what it gave out cannot stand in a header"))?;
        value.set_sensitive(true);
        out.insert(name, value);
    }
    Ok(request)
}

/// Asks, and reads an answer of success whole. Nothing is asked twice, and nothing is followed that points elsewhere.
pub(super) async fn ask(
    upstream: &Upstream,
    request: Request<Bytes>,
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let limits = FetchLimits { timeout: TIMEOUT, max_bytes: MAX_ANSWER_BYTES };
    let answer = upstream.client.fetch(request, limits).await.map_err(|error| match error {
        FetchError::TimedOut => IdentityError::TimedOut,
        FetchError::TooLarge(_) => IdentityError::Unusable("it is too large"),
        FetchError::Unreachable(cause) | FetchError::Closed(cause) => {
            tracing::debug!("the identity server did not answer: {cause}");
            IdentityError::Unreachable
        }
    })?;
    match answer.status.as_u16() {
        200..=299 => Ok(answer.body),
        status @ (408 | 429 | 500..=599) => Err(IdentityError::Failing(status)),
        status @ 400..=499 => Err(IdentityError::Refused { status, code: reason(&answer.body) }),
        300..=399 => Err(IdentityError::Unusable("it points elsewhere, where the gateway does not follow")),
        _ => Err(IdentityError::Unusable("its status means nothing here")),
    }
}

/// What a file holds that others write anew from time to time. Its path may be told, its text may not.
pub(super) fn file(path: &std::path::Path) -> Result<Zeroizing<String>, IdentityError> {
    let shown = path.display();
    let failed = |error: std::io::Error| IdentityError::Own(format!("cannot read {shown}: {error}"));
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_TOKEN_BYTES {
        return Err(IdentityError::Own(format!("{shown} is longer than {MAX_TOKEN_BYTES} bytes")));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    if text.trim().is_empty() {
        return Err(IdentityError::Own(format!("{shown} is empty")));
    }
    Ok(text)
}

// === private helpers ===

fn words(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}

/// The reason in the body of an error, if it is one that may be repeated: Entra's is a number, the others' is a word.
fn reason(body: &[u8]) -> Option<String> {
    let known = |word: &str| KNOWN.iter().find(|known| **known == word).map(|known| (*known).to_owned());
    let text = std::str::from_utf8(body).ok()?;
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return known(super::aws::element(text, "Code")?);
    };
    if let Some(number) = json.pointer("/error_codes/0").and_then(Value::as_u64) {
        return Some(format!("AADSTS{number}"));
    }
    let mut words = ["/error", "/error/status", "/Error/Code"].into_iter();
    known(words.find_map(|place| json.pointer(place)?.as_str())?)
}
