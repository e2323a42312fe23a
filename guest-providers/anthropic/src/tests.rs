//! What the proxy asks of the gateway, natively; the golden cases hold the whole conversation of a call.

use sallyport_guest_sdk::{
    provider::{Auth, Output, RequestBody, RequestKind, UpstreamRequest},
    testing::{attribute, begin, converse, golden, request, transcript},
};

use super::*;

const BODY: &str =
    r#"{"max_tokens":8, "model" : "claude-opus-5","messages":[{"role":"user","content":"hi"}]}"#;

fn first_request(request: Request) -> UpstreamRequest {
    let outputs = converse::<Anthropic>("{}", request, []).unwrap();
    let [Output::SendThenForward(request)] = <[Output; 1]>::try_from(outputs).unwrap() else {
        panic!("not a request whose answer is forwarded")
    };
    request
}

#[test]
fn a_call_is_passed_on_as_the_golden_cases_say() {
    golden(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), |body| {
        let mut request = request(body);
        if request.call.model == "fast" {
            request.upstream_model = "claude-haiku-4-5".into();
        }
        transcript(body, &converse::<Anthropic>("{}", request, []).unwrap())
    });
}

#[test]
fn its_first_output_ends_the_exchange() {
    let begun = begin::<Anthropic>("{}", request(BODY)).unwrap().unwrap();
    assert!(begun.exchange.is_none() && begun.outputs.len() == 1);
}

#[test]
fn the_clients_bytes_go_up_untouched() {
    let request = first_request(request(BODY));
    assert_eq!(request.body, RequestBody::Original);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/messages"));
    assert_eq!(request.auth, Auth::Credential);
}

#[test]
fn a_mapped_model_replaces_just_its_own_span() {
    let mut mapped = request(BODY);
    mapped.upstream_model = "a\"quoted\"model".into();
    let RequestBody::Spliced(edits) = first_request(mapped).body else { panic!("not spliced") };
    let [edit] = edits.as_slice() else { panic!("more than one edit") };
    let (start, end) = (edit.offset as usize, (edit.offset + edit.len) as usize);
    assert_eq!(BODY.get(start..end), Some(r#""claude-opus-5""#));
    assert_eq!(edit.replacement, br#""a\"quoted\"model""#);
}

#[test]
fn every_header_and_the_query_travel() {
    let mut beta = request(BODY);
    beta.target = "/v1/messages?beta=true".into();
    beta.headers.push(attribute("anthropic-beta", "a-2025-01-01,b-2026-02-02"));
    beta.headers.push(attribute("x-not-known-yet", "1"));
    let sent = first_request(beta);
    assert_eq!(sent.path, "/v1/messages?beta=true");
    let names: Vec<_> = sent.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, ["anthropic-version", "content-type", "anthropic-beta", "x-not-known-yet"]);
}

#[test]
fn a_count_goes_to_the_upstreams_own_counter() {
    let mut count = request(BODY);
    count.kind = RequestKind::CountTokens;
    count.target = "/v1/messages/count_tokens?beta=true".into();
    assert_eq!(first_request(count).path, "/v1/messages/count_tokens?beta=true");
}

#[test]
fn where_the_credential_stands_is_not_the_providers_to_say() {
    for config in [r#"{"auth":"bearer"}"#, r#"{"key":"x"}"#] {
        assert!(begin::<Anthropic>(config, request(BODY)).is_err(), "{config}");
    }
}
