//! Which headers pass: from the client to the provider, from the provider to the upstream, and back.

use http::{HeaderMap, HeaderName, HeaderValue};
use sallyport_protocol::headers::SEVEN;

use super::SendError;
use crate::component::contract::Attribute;

/// Headers that belong to one connection, to its framing, or to the gateway's own credential: nobody but the host sets them.
/// RFC 9110 section 7.6.1 names the hop-by-hop ones.
const HOST_ONLY: [&str; 19] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-api-key",
];
/// What a client sends about itself, its user, or its way here: read for lineage, never told to an upstream.
const CLIENT_ONLY: [&str; 9] = [
    "origin",
    "priority",
    "referer",
    "traceparent",
    "tracestate",
    "x-agent-name",
    "x-real-ip",
    "x-request-id",
    "baggage",
];
const CLIENT_ONLY_PREFIXES: [&str; 5] = ["x-stainless-", "x-claude-code-", "x-forwarded-", "sec-", "cf-"];
/// What a client may see of an upstream's answer.
const FOR_CLIENT: [&str; 7] = [
    "content-encoding",
    "content-type",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-sallyport-count",
];

/// How many of them, whatever a provider makes up.
const MOST_FOR_CLIENT: usize = 128;

/// The headers of a client's request that travel.
pub fn travelling(headers: &HeaderMap) -> Vec<Attribute> {
    let travels = |name: &str| {
        !HOST_ONLY.contains(&name)
            && !CLIENT_ONLY.contains(&name)
            && !SEVEN.contains(&name)
            && !CLIENT_ONLY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    attributes(headers, travels)
}

/// The headers of an upstream's answer that a provider sees.
pub fn for_guest(headers: &HeaderMap) -> Vec<Attribute> {
    attributes(headers, |name| name != "set-cookie")
}

/// Those of a provider's answer headers that a client sees.
pub fn for_client(headers: &[Attribute]) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len());
    for Attribute { name, value } in headers {
        if out.len() == MOST_FOR_CLIENT {
            break;
        }
        let name = name.to_ascii_lowercase();
        if !FOR_CLIENT.contains(&name.as_str()) && !name.starts_with("anthropic-") {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            out.append(name, value);
        }
    }
    out
}

/// A header that a provider wants to send, if it may.
pub(super) fn allowed(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "header name")?;
    if HOST_ONLY.contains(&name.as_str()) {
        return Err("a header that belongs to the host");
    }
    let value = HeaderValue::from_str(value).map_err(|_| "header value")?;
    Ok((name, value))
}

/// The header that carries the credential, if it may.
pub(super) fn credential_name(name: &str) -> Result<HeaderName, SendError> {
    let name =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| SendError::NotAllowed("credential header"))?;
    let credential = matches!(name.as_str(), "x-api-key" | "authorization");
    if !credential && HOST_ONLY.contains(&name.as_str()) {
        return Err(SendError::NotAllowed("credential header"));
    }
    Ok(name)
}

fn attributes(headers: &HeaderMap, passes: impl Fn(&str) -> bool) -> Vec<Attribute> {
    let passing = headers.iter().filter(|(name, _)| passes(name.as_str()));
    passing
        .filter_map(|(name, value)| {
            let value = value.to_str().ok()?.to_owned();
            Some(Attribute { name: name.as_str().to_owned(), value })
        })
        .collect()
}
