//! Pages for people: made on the server, without script, with a policy that lets nothing else in and nobody frame them.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};

use super::{Edge, mark};
use crate::auth::SignedIn;

/// The cookie of whoever is signed in.
pub(super) const SESSION_COOKIE: &str = "__Host-sp_session";
/// The cookie of whoever looks at the form for that.
pub(super) const FORM_COOKIE: &str = "__Host-sp_form";
/// Longest form.
pub(super) const LONGEST_FORM: usize = 64 * 1024;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
h1{font-size:1.4rem}label{display:block;margin:1rem 0 .25rem}input{font:inherit;width:100%;padding:.5rem;box-sizing:border-box;border:1px solid #767676}\
button{font:inherit;padding:.5rem 1.25rem;margin:1rem .5rem 0 0;border:1px solid #1b1b1b;background:#fff;cursor:pointer}\
button.yes{background:#1b1b1b;color:#fff}:focus-visible{outline:3px solid #1a5fb4;outline-offset:2px}\
.bad{border-left:4px solid #a51d2d;padding-left:.75rem}dt{font-weight:600}dd{margin:0 0 .5rem;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4rem .6rem .4rem 0;border-bottom:1px solid #ccc;overflow-wrap:anywhere}";

/// Why a form is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormFault {
    /// Another media type.
    Media,
    /// Too long, not UTF-8, or a name twice.
    Unreadable,
    /// Too slow.
    Slow,
}

/// The fields of a form or a query: each name once.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

/// `GET /style.css`
pub(super) async fn style() -> Response {
    let mut response = Response::new(Body::from(STYLE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A page. `leads_to`: the origin that its form may be sent on to, besides the gateway.
pub(super) fn page(edge: &Edge, status: StatusCode, title: &str, body: &str, leads_to: &str) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><link rel=\"stylesheet\" href=\"/style.css\"></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {leads_to}; frame-ancestors 'none'; base-uri 'none'"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    guard(&mut response, &policy);
    mark(&mut response, &edge.request_id());
    response
}

/// Sends a browser on.
pub(super) fn see_other(edge: &Edge, to: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    guard(&mut response, "default-src 'none'; frame-ancestors 'none'");
    mark(&mut response, &edge.request_id());
    response
}

/// A page that says what is wrong.
pub(super) fn problem(edge: &Edge, status: StatusCode, said: &str) -> Response {
    page(
        edge,
        status,
        "This did not work",
        &format!("<p class=\"bad\" role=\"alert\">{}</p>", escape(said)),
        "",
    )
}

/// Sets a cookie that no other site and no script sees; an empty value takes it back.
pub(super) fn set_cookie(response: &mut Response, name: &str, value: &str, seconds: u64) {
    cookie_of(response, name, value, seconds, "Strict");
}

/// The same for a browser that comes back from another site: the cookie comes along when that site leads here, and with nothing else
/// that it does.
pub(super) fn set_returning_cookie(response: &mut Response, name: &str, value: &str, seconds: u64) {
    cookie_of(response, name, value, seconds, "Lax");
}

fn cookie_of(response: &mut Response, name: &str, value: &str, seconds: u64, site: &str) {
    let age = if value.is_empty() { 0 } else { seconds };
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={site}; Max-Age={age}");
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The value of a cookie; none if it stands twice.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

/// Who is signed in with the cookie of a request.
pub(super) async fn visitor(edge: &Edge, head: &Parts) -> Result<Option<SignedIn>, Response> {
    let Some(cookie) = cookie(&head.headers, SESSION_COOKIE) else { return Ok(None) };
    edge.auth.signed_in(cookie).await.map_err(|_| {
        problem(edge, StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot tell now who you are. Try again.")
    })
}

/// Whether a request with a cookie came from a page of the gateway's own: browsers say where a form stands, and no site can make one
/// say otherwise (<https://www.rfc-editor.org/rfc/rfc6454#section-7.3>).
pub(super) fn is_from_here(edge: &Edge, head: &Parts) -> bool {
    let mut origins = head.headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next().and_then(|it| it.to_str().ok()), origins.next()) else {
        return false;
    };
    let config = edge.pipeline.config();
    let own = &config.server.public_url;
    let is_own = own.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // HTTP/2 has the name in its target.
    let host = head.uri.authority().map(|it| it.as_str().to_owned());
    let host = host.or_else(|| Some(head.headers.get(header::HOST)?.to_str().ok()?.to_owned()));
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    is_own || authority.is_some() && authority == host.as_deref()
}

/// Whether two secrets are the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Text as it may stand in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Marks that reorder text could make one name look like another.
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Hidden fields of a form.
pub(super) fn hidden(fields: &[(&str, &str)]) -> String {
    let input = |(name, value): &(&str, &str)| {
        format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
    };
    fields.iter().map(input).collect::<Vec<_>>().concat()
}

/// Reads a form.
pub(super) async fn form(headers: &HeaderMap, body: Body) -> Result<Fields, FormFault> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(FormFault::Media);
    }
    let read = Limited::new(body, LONGEST_FORM).collect();
    let read = tokio::time::timeout(super::secure::HANDSHAKE, read).await.map_err(|_| FormFault::Slow)?;
    Fields::parse(&read.map_err(|_| FormFault::Unreadable)?.to_bytes()).ok_or(FormFault::Unreadable)
}

// === impl Fields ===

impl Fields {
    /// The fields of a form's body; none if a name stands twice (RFC 6749, section 3.1) or something is no UTF-8.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (decoded(halves.next()?)?, decoded(halves.next().unwrap_or_default())?);
            if fields.iter().any(|(other, _)| *other == name) || fields.len() >= 64 {
                return None;
            }
            fields.push((name, value));
        }
        Some(Self(fields))
    }

    /// The fields of a query.
    pub(super) fn of_query(head: &Parts) -> Option<Self> {
        Self::parse(head.uri.query().unwrap_or_default().as_bytes())
    }

    /// A field that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// The same; empty if it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
}

/// Text as it may stand in a query: everything but what RFC 3986 calls unreserved is encoded.
pub(super) fn encode(text: &str) -> String {
    let encoded = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encoded).collect::<Vec<_>>().concat()
}

// === private helpers ===

/// What a browser keeps from others, on every answer to it.
fn guard(response: &mut Response, policy: &str) {
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
}

fn decoded(bytes: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_chose_stays_text_in_a_page() {
        assert_eq!(
            escape("<script>alert('x')&\"\u{202e}\n"),
            "&lt;script&gt;alert(&#39;x&#39;)&amp;&quot;\u{fffd} "
        );
        assert_eq!(
            hidden(&[("a", "\"><b>")]),
            "<input type=\"hidden\" name=\"a\" value=\"&quot;&gt;&lt;b&gt;\">"
        );
    }

    #[test]
    fn a_form_with_a_name_twice_or_broken_escapes_is_none() {
        let read = |text: &str| Fields::parse(text.as_bytes());
        let fields = read("a=1+2&b=%C3%A4%26&c&d=").unwrap();
        assert_eq!((fields.get("a"), fields.get("b"), fields.get("c")), (Some("1 2"), Some("ä&"), None));
        assert_eq!((fields.text("d"), fields.text("e")), ("", ""));
        for bad in ["a=1&a=2", "a=1&%61=2", "a=%", "a=%g0", "a=%ff", "a=%+1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(encode("a b/ä&~"), "a%20b%2F%C3%A4%26~");
        let many: Vec<String> = (0..65).map(|number| format!("f{number}=")).collect();
        assert_eq!(read(&many.join("&")), None);
    }

    #[test]
    fn a_cookie_that_stands_twice_is_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; __Host-sp_session=x".parse().unwrap());
        assert_eq!(cookie(&headers, SESSION_COOKIE), Some("x"));
        headers.append(header::COOKIE, "__Host-sp_session=y".parse().unwrap());
        assert_eq!(cookie(&headers, SESSION_COOKIE), None);
        assert_eq!(cookie(&headers, "a"), Some("1"));
    }
}
