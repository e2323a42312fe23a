use super::*;
use crate::component::contract::Attribute;

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
        auth: Auth::Bearer,
    }
}

fn refusal(wanted: UpstreamRequest) -> String {
    let endpoint = endpoint();
    let to = Destination { endpoint: &endpoint, credential: None, patience: Patience::default() };
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
fn a_query_is_data_and_may_hold_what_a_path_may_not() {
    let endpoint = endpoint();
    let to = Destination { endpoint: &endpoint, credential: None, patience: Patience::default() };
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
fn a_provider_cannot_set_what_belongs_to_the_host() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "authorization",
        "x-api-key",
        "cookie",
        "connection",
        "te",
    ] {
        assert!(
            refusal(request("/x", &[(name, "1")], RequestBody::Empty)).contains("belongs to the host"),
            "{name}"
        );
    }
    assert!(refusal(request("/x", &[("a", "b\r\nc: d")], RequestBody::Empty)).contains("header value"));
    assert!(refusal(request("/x", &[("a b", "c")], RequestBody::Empty)).contains("header name"));
}

#[test]
fn a_splice_changes_its_ranges_and_nothing_else() {
    let original = Bytes::from_static(b"0123456789");
    let edit = |offset, len, text: &str| Edit { offset, len, replacement: text.as_bytes().to_vec() };
    assert_eq!(splice(&original, vec![edit(1, 2, "ab"), edit(9, 1, "")]).unwrap(), "0ab345678");
    assert_eq!(splice(&original, Vec::new()).unwrap(), original);
    for wrong in
        [vec![edit(9, 2, "")], vec![edit(3, 2, ""), edit(4, 1, "")], vec![edit(u32::MAX, u32::MAX, "")]]
    {
        assert!(splice(&original, wrong).is_err());
    }
}

#[test]
fn the_credential_is_the_routes_and_is_marked_sensitive() {
    let endpoint = endpoint();
    let secret = SecretString::from("k");
    let to = Destination { endpoint: &endpoint, credential: Some(&secret), patience: Patience::default() };
    let built = build(
        to,
        request("/v1/messages?beta=true", &[("a", "b")], RequestBody::Original),
        &Bytes::from_static(b"x"),
    )
    .unwrap();
    assert_eq!(built.uri(), "https://api.example.com/base/v1/messages?beta=true");
    assert_eq!(built.headers()["authorization"], "Bearer k");
    assert!(built.headers()["authorization"].is_sensitive());
    let none = Destination { endpoint: &endpoint, credential: None, patience: Patience::default() };
    let built = build(none, request("/x", &[], RequestBody::Empty), &Bytes::new()).unwrap();
    assert!(!built.headers().contains_key("authorization"));
}

#[test]
fn identity_and_client_headers_stay_here() {
    let mut headers = HeaderMap::new();
    for name in SEVEN_AND_MORE {
        headers.insert(name, HeaderValue::from_static("x"));
    }
    headers.insert("anthropic-beta", HeaderValue::from_static("a,b"));
    headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    let names: Vec<_> = travelling(&headers).into_iter().map(|attribute| attribute.name).collect();
    assert_eq!(names, ["anthropic-beta", "anthropic-version"]);
}

const SEVEN_AND_MORE: [&str; 13] = [
    "x-user-id",
    "x-session-id",
    "x-trace-id",
    "x-client-id",
    "x-tenant-id",
    "x-policy-version",
    "x-call-source",
    "cookie",
    "authorization",
    "x-api-key",
    "x-stainless-os",
    "x-claude-code-session-id",
    "x-agent-name",
];
