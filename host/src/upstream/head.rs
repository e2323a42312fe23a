//! Which headers pass: from the client to the provider, from the provider to the upstream, and back.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use sallyport_protocol::headers::SEVEN;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

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

/// The headers of a client's request that travel. Those that `connection` names belong to the connection (RFC 9110, section 7.6.1).
/// A name with an underscore is another spelling of one with a hyphen to many servers, and so could say what the gateway took away.
pub fn travelling(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let of_connection: Vec<&str> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    pairs(headers).filter(move |(name, _)| {
        !HOST_ONLY.contains(name)
            && !name.contains('_')
            && !of_connection.iter().any(|it| it.eq_ignore_ascii_case(name))
            && !CLIENT_ONLY.contains(name)
            && !SEVEN.contains(name)
            && !CLIENT_ONLY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// The headers of an upstream's answer that a provider sees.
pub fn for_guest(headers: &HeaderMap) -> Vec<Attribute> {
    let seen = pairs(headers).filter(|(name, _)| *name != "set-cookie");
    seen.map(|(name, value)| Attribute { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// The headers of an upstream's answer that a client sees where no provider looks at them: those that [`for_client`] leaves of
/// what [`for_guest`] shows.
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    let seen = headers.iter().filter(|(name, value)| is_for_client(name.as_str()) && value.to_str().is_ok());
    for (name, value) in seen.take(MOST_FOR_CLIENT) {
        out.append(name, value.clone());
    }
    out
}

/// Those of a provider's answer headers that a client sees.
pub fn for_client(headers: &[Attribute]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for Attribute { name, value } in headers {
        if out.len() == MOST_FOR_CLIENT {
            break;
        }
        if !is_for_client(name) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            out.append(name, value);
        }
    }
    out
}

/// For how long an upstream asks not to be called: `retry-after-ms` as its SDKs read it, or `retry-after` (RFC 9110, section 10.2.3),
/// in seconds or as a date, which is told by the upstream's own clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(ms));
    }
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| OffsetDateTime::parse(text, &Rfc2822).ok();
    Duration::try_from(date(after)? - date(text("date")?)?).ok()
}

/// A header that a provider wants to send, if it may.
pub(super) fn allowed(name: &str, value: String) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "header name")?;
    if HOST_ONLY.contains(&name.as_str()) {
        return Err("a header that belongs to the host");
    }
    let value = HeaderValue::try_from(value).map_err(|_| "header value")?;
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

fn is_for_client(name: &str) -> bool {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix));
    FOR_CLIENT.iter().any(|known| name.eq_ignore_ascii_case(known)) || begins("anthropic-")
}

/// Names and values, of which the latter are text.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        retry_after(&map)
    }

    #[test]
    fn an_upstreams_wait_is_read_in_every_form_that_it_may_have() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(
            wait(&[("retry-after", "7"), ("retry-after-ms", "250")]),
            Some(Duration::from_millis(250))
        );
        let date =
            [("date", "Fri, 27 Nov 2026 20:00:00 GMT"), ("retry-after", "Fri, 27 Nov 2026 20:01:30 GMT")];
        assert_eq!(wait(&date), Some(Duration::from_secs(90)));
        let past =
            [("date", "Fri, 27 Nov 2026 20:02:00 GMT"), ("retry-after", "Fri, 27 Nov 2026 20:01:30 GMT")];
        for odd in [&past[..], &date[1..], &[("retry-after", "soon")], &[("retry-after", "-1")], &[]] {
            assert_eq!(wait(odd), None, "{odd:?}");
        }
    }
}
