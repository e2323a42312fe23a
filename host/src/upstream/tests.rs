use http::HeaderMap;

use super::*;
use crate::clock::SystemClock;
use crate::component::contract::{Attribute, Edit};

/// The machine's clock.
pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

/// With the certificates and the resolver of the machine.
pub(super) fn upstream(clock: Arc<dyn Clock>) -> Upstream {
    Upstream::new(&Outbound::new(&TrustedServers::System).unwrap(), clock)
}

fn endpoint() -> Endpoint {
    Endpoint::parse("https://api.example.com/base").unwrap()
}

fn request(path: &str, headers: &[(&str, &str)], body: RequestBody) -> UpstreamRequest {
    let headers =
        headers.iter().map(|(name, value)| Attribute { name: (*name).into(), value: (*value).into() });
    UpstreamRequest {
        method: "POST".into(),
        path: path.into(),
        headers: headers.collect(),
        body,
        auth: Auth::Credential,
    }
}

fn refusal(wanted: UpstreamRequest) -> String {
    let endpoint = endpoint();
    let to = Destination { endpoint: &endpoint, credential: None, timeouts: Timeouts::default() };
    build(to, wanted, &Bytes::from_static(b"0123456789")).unwrap_err().to_string()
}

#[test]
fn a_provider_cannot_leave_the_route_by_its_path() {
    for path in [
        "http://evil/",
        "//evil/x",
        "x",
        "/a\\b",
        "/a#b",
        "/../x",
        "/a/..",
        "/a b",
        "/%2e%2e/x",
        "/a%2F..%2Fb/x",
        "/a/..%2Fb",
        "/a%2F%2Fb",
        "/%2Fevil/x",
        "/a%2F%2e%2e/x",
        "/a/%2E./x",
        "/a/..;/x",
        "/a/..;v=1/x",
        "/a%2fb",
        "/a%5Cb",
        "/a/%252e%252e/x",
        "/a\r\nHost: x",
        "/\u{7f}",
    ] {
        assert!(refusal(request(path, &[], RequestBody::Empty)).contains("path"), "{path}");
    }
    assert!(refusal(request(&format!("/{}", "a".repeat(9_000)), &[], RequestBody::Empty)).contains("path"));
}

#[test]
fn a_slash_within_a_segment_is_sent_as_it_is() {
    let endpoint = endpoint();
    let to = Destination { endpoint: &endpoint, credential: None, timeouts: Timeouts::default() };
    let path = "/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Fx/invoke";
    let built = build(to, request(path, &[], RequestBody::Empty), &Bytes::new()).unwrap();
    assert_eq!(built.uri().path(), format!("/base{path}"));
}

#[test]
fn a_query_is_data_and_may_hold_what_a_path_may_not() {
    let endpoint = endpoint();
    let to = Destination { endpoint: &endpoint, credential: None, timeouts: Timeouts::default() };
    for query in ["a=/../..", "a=%2e%2e", "beta=true&a=..;/", "q=//x"] {
        let path = format!("/v1/messages?{query}");
        let built = build(to, request(&path, &[], RequestBody::Empty), &Bytes::new()).unwrap();
        assert_eq!(built.uri().query(), Some(query));
    }
}

#[test]
fn a_provider_cannot_use_a_method_that_asks_nothing_of_a_resource() {
    for method in ["CONNECT", "TRACE", "OPTIONS", "PURGE", "post", "", "GET "] {
        let wanted = UpstreamRequest { method: method.into(), ..request("/x", &[], RequestBody::Empty) };
        assert!(refusal(wanted).contains("method"), "{method}");
    }
}

#[test]
fn a_provider_cannot_write_a_second_line_into_a_header() {
    assert!(refusal(request("/x", &[("a", "b\r\nc: d")], RequestBody::Empty)).contains("header value"));
    assert!(refusal(request("/x", &[("a b", "c")], RequestBody::Empty)).contains("header name"));
}

#[test]
fn a_splice_changes_its_ranges_and_nothing_else() {
    let original = Bytes::from_static(b"0123456789");
    let edit = |offset, len, text: &str| Edit { offset, len, replacement: text.as_bytes().to_vec() };
    let spliced = |edits| Pieces::spliced(&original, edits).map(|pieces| pieces.together());
    assert_eq!(spliced(vec![edit(1, 2, "ab"), edit(9, 1, "")]).unwrap(), "0ab345678");
    assert_eq!(spliced(vec![edit(0, 0, "a"), edit(0, 10, ""), edit(10, 0, "b")]).unwrap(), "ab");
    assert_eq!(spliced(Vec::new()).unwrap(), original);
    let many = (0..10).map(|at| edit(at, 1, "xy")).collect();
    assert_eq!(spliced(many).unwrap(), "xy".repeat(10));
    let large = Bytes::from(vec![b'a'; 1_000]);
    let many = (0..500).map(|at| edit(2 * at, 1, "b")).collect();
    let pieces = Pieces::spliced(&large, many).unwrap();
    assert_eq!((pieces.len(), pieces.together()), (1, Bytes::from("ba".repeat(500))));
    for wrong in
        [vec![edit(9, 2, "")], vec![edit(3, 2, ""), edit(4, 1, "")], vec![edit(u32::MAX, u32::MAX, "")]]
    {
        assert!(spliced(wrong).is_none());
    }
}

#[test]
fn the_credential_is_the_routes_and_is_marked_sensitive() {
    let endpoint = endpoint();
    let secret = SecretString::from("k");
    let credential = |form| Some(UpstreamCredential::Text { secret: &secret, form });
    let to = |credential| Destination { endpoint: &endpoint, credential, timeouts: Timeouts::default() };
    let built = build(
        to(credential(&CredentialForm::Bearer)),
        request("/v1/messages?beta=true", &[("a", "b")], RequestBody::Original),
        &Bytes::from_static(b"x"),
    )
    .unwrap();
    assert_eq!(built.uri(), "https://api.example.com/base/v1/messages?beta=true");
    assert_eq!(built.headers()["authorization"], "Bearer k");
    assert!(built.headers()["authorization"].is_sensitive());
    let built = build(to(None), request("/x", &[], RequestBody::Empty), &Bytes::new()).unwrap();
    assert!(!built.headers().contains_key("authorization"));
}

/// Headers that nobody but the host sets, written down here once more by why: the oracle of the tests is not the list under test.
const NOBODYS: [(&str, &[&str]); 4] = [
    // RFC 9110, section 7.6.1, and the names from before it that are read all the same.
    (
        "one connection",
        &["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"],
    ),
    (
        "the framing of a message",
        &["Content-Length", "Content-Encoding", "Accept-Encoding", "Expect", "Host"],
    ),
    ("a credential", &["Authorization", "X-Api-Key", "Cookie", "Proxy-Authenticate", "Proxy-Authorization"]),
    ("the way of a message", &["Via", "Forwarded"]),
];

/// What a client says of itself, of its user, of its way here or of the call: none of it is an upstream's business.
const CLIENTS: [&str; 29] = [
    "X-User-Id",
    "X-Session-Id",
    "X-Trace-Id",
    "X-Client-Id",
    "X-Tenant-Id",
    "X-Policy-Version",
    "X-Call-Source",
    "X-Agent-Name",
    "X-Request-Id",
    "X-Real-Ip",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "CF-Connecting-IP",
    "CF-Ray",
    "Sec-Fetch-Mode",
    "Sec-CH-UA",
    "Origin",
    "Referer",
    "Priority",
    "Traceparent",
    "Tracestate",
    "Baggage",
    "X-Stainless-OS",
    "X-Stainless-Retry-Count",
    "X-Stainless-Helper-Method",
    "X-Claude-Code-Session-Id",
    "X-Claude-Code-Prompt-Id",
    "X-Claude-Code-Agent-Id",
];

/// What says how a call is meant: an upstream reads it.
const TRAVELLERS: [&str; 5] =
    ["anthropic-beta", "anthropic-version", "accept", "content-type", "x-a-header-of-tomorrow"];

#[test]
fn the_form_of_the_credential_is_the_hosts_to_know_and_the_provider_says_only_whether() {
    let endpoint = endpoint();
    let secret = SecretString::from("k");
    let form = CredentialForm::Header("x-api-key".to_owned());
    let credential = Some(UpstreamCredential::Text { secret: &secret, form: &form });
    let to = Destination { endpoint: &endpoint, credential, timeouts: Timeouts::default() };
    let sent = |auth| {
        let wanted = UpstreamRequest { auth, ..request("/x", &[], RequestBody::Empty) };
        build(to, wanted, &Bytes::new())
    };
    let built = sent(Auth::Credential).unwrap();
    assert_eq!(built.headers()["x-api-key"], "k");
    assert!(built.headers()["x-api-key"].is_sensitive() && !built.headers().contains_key("authorization"));
    let built = sent(Auth::None).unwrap();
    assert!(!built.headers().contains_key("x-api-key") && !built.headers().contains_key("authorization"));
    let other = Attribute { name: "signature".to_owned(), value: String::new() };
    assert!(sent(Auth::Other(other.clone())).is_err(), "what this gateway does not know is not sent without");
    assert!(refusal(request("/x", &[], RequestBody::Other(other))).contains("body"));
}

#[test]
fn of_a_clients_headers_those_travel_that_are_about_the_call() {
    let mut headers = HeaderMap::new();
    let nobodys = NOBODYS.iter().flat_map(|(_, names)| names.iter());
    for name in nobodys.chain(&CLIENTS).chain(&TRAVELLERS) {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_static("x"));
    }
    let names: Vec<_> = travelling(&headers).map(|(name, _)| name).collect();
    assert_eq!(names, TRAVELLERS);
}

#[test]
fn a_provider_sets_no_header_that_is_the_hosts_and_carries_no_credential_in_one() {
    for (why, names) in NOBODYS {
        for name in names {
            let refused = refusal(request("/x", &[(name, "1")], RequestBody::Empty));
            assert!(refused.contains("belongs to the host"), "{name} ({why}): {refused}");
            let holds_credential = matches!(*name, "Authorization" | "X-Api-Key");
            assert_eq!(head::credential_name(name).is_ok(), holds_credential, "{name}");
        }
    }
}

#[test]
fn of_an_upstreams_headers_a_client_sees_those_it_reads_and_no_more_than_so_many() {
    let attribute = |name: &str| Attribute { name: name.to_owned(), value: "x".to_owned() };
    let nobodys = NOBODYS.iter().flat_map(|(_, names)| names.iter());
    let hidden = nobodys.chain(&["Set-Cookie", "Server", "X-Internal-Host", "Location", "Alt-Svc"]);
    let hidden: Vec<_> =
        hidden.filter(|name| **name != "Content-Encoding").map(|name| attribute(name)).collect();
    assert!(for_client(&hidden).is_empty(), "{:?}", for_client(&hidden));
    let read = [
        "content-type",
        "retry-after",
        "Request-Id",
        "anthropic-ratelimit-requests-remaining",
        "x-should-retry",
    ];
    assert_eq!(for_client(&read.map(attribute)).len(), read.len());
    let many: Vec<_> = (0..1000).map(|number| attribute(&format!("anthropic-{number}"))).collect();
    assert_eq!(for_client(&many).len(), 128);
}

#[test]
fn what_no_provider_looks_at_is_what_one_would_have_passed_on() {
    let mut headers = HeaderMap::new();
    let names = NOBODYS.iter().flat_map(|(_, names)| names.iter());
    for name in
        names.chain(&["set-cookie", "server", "content-type", "Request-Id", "anthropic-beta", "retry-after"])
    {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name.clone(), HeaderValue::from_static("one"));
        headers.append(name, HeaderValue::from_static("two"));
    }
    headers.append("anthropic-odd", HeaderValue::from_bytes(b"\xff").unwrap());
    for number in 0..200 {
        let name = http::HeaderName::from_bytes(format!("anthropic-{number}").as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_static("x"));
    }
    let passed = passed_on(&headers);
    assert_eq!(passed.len(), 128);
    assert!(passed.contains_key("request-id") && !passed.contains_key("anthropic-odd"));
    assert_eq!(passed, for_client(&for_guest(&headers)));
}

#[test]
fn an_upstream_is_asked_for_bytes_as_they_are() {
    let endpoint = endpoint();
    let to = Destination { endpoint: &endpoint, credential: None, timeouts: Timeouts::default() };
    let built = build(to, request("/x", &[], RequestBody::Empty), &Bytes::new()).unwrap();
    assert_eq!(built.headers()["accept-encoding"], "identity");
}
