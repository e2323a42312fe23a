//! What the proxy asks of the gateway, natively; the golden cases hold the whole conversation of a call.

use sallyport_guest_sdk::{
    provider::{RequestKind, ResponseHead, TransportFault},
    testing::{attribute, exchange, golden, request, transcript},
};

use super::*;

const BODY: &str =
    r#"{"max_tokens":8, "model" : "claude-opus-5","messages":[{"role":"user","content":"hi"}]}"#;

fn first_request(config: &str, request: Request) -> UpstreamRequest {
    let outputs = exchange::<Anthropic>(config, request).unwrap().next(Input::Start).unwrap();
    let [Output::Send(request)] = <[Output; 1]>::try_from(outputs).unwrap() else { panic!("not a request") };
    request
}

fn head(status: u16) -> ResponseHead {
    ResponseHead {
        status,
        headers: vec![attribute("content-type", "application/json"), attribute("request-id", "req_1")],
    }
}

#[test]
fn a_call_is_passed_on_as_the_golden_cases_say() {
    golden(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), |body| {
        let mut request = request(body);
        if request.call.model == "fast" {
            request.upstream_model = "claude-haiku-4-5".into();
        }
        let mut exchange = exchange::<Anthropic>("{}", request).unwrap();
        transcript(body, &mut exchange, [Input::Start, Input::Head(head(200))])
    });
}

#[test]
fn the_clients_bytes_go_up_untouched() {
    let request = first_request("{}", request(BODY));
    assert_eq!(request.body, RequestBody::Original);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/messages"));
    assert_eq!(request.auth, Auth::Header("x-api-key".into()));
}

#[test]
fn a_mapped_model_replaces_just_its_own_span() {
    let mut mapped = request(BODY);
    mapped.upstream_model = "a\"quoted\"model".into();
    let RequestBody::Spliced(edits) = first_request("{}", mapped).body else { panic!("not spliced") };
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
    let sent = first_request("{}", beta);
    assert_eq!(sent.path, "/v1/messages?beta=true");
    let names: Vec<_> = sent.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, ["anthropic-version", "content-type", "anthropic-beta", "x-not-known-yet"]);
}

#[test]
fn a_count_goes_to_the_upstreams_own_counter() {
    let mut count = request(BODY);
    count.kind = RequestKind::CountTokens;
    count.target = "/v1/messages/count_tokens?beta=true".into();
    assert_eq!(first_request("{}", count).path, "/v1/messages/count_tokens?beta=true");
}

#[test]
fn the_credential_stands_where_the_entry_says() {
    assert_eq!(first_request(r#"{"auth":"bearer"}"#, request(BODY)).auth, Auth::Bearer);
    assert_eq!(first_request(r#"{"auth":"none"}"#, request(BODY)).auth, Auth::None);
    assert!(exchange::<Anthropic>(r#"{"auth":"basic"}"#, request(BODY)).is_err());
    assert!(exchange::<Anthropic>(r#"{"key":"x"}"#, request(BODY)).is_err());
}

#[test]
fn an_error_comes_back_as_the_upstream_wrote_it() {
    for status in [400, 401, 404, 429, 500, 529] {
        let mut exchange = exchange::<Anthropic>("{}", request(BODY)).unwrap();
        exchange.next(Input::Start).unwrap();
        assert_eq!(exchange.next(Input::Head(head(status))), Ok(vec![Output::Forward(head(status))]));
    }
}

#[test]
fn an_unreachable_upstream_is_a_failure_that_another_may_mend() {
    for (fault, status, error_type) in [
        (TransportFault::Connect, 502, "api_error"),
        (TransportFault::Closed, 502, "api_error"),
        (TransportFault::TimedOut, 504, "timeout_error"),
    ] {
        let mut exchange = exchange::<Anthropic>("{}", request(BODY)).unwrap();
        exchange.next(Input::Start).unwrap();
        let failure = exchange.next(Input::Failed(fault)).unwrap_err();
        assert_eq!(
            (failure.status, failure.error_type.as_str(), failure.retryable),
            (status, error_type, true)
        );
    }
}

#[test]
fn an_event_out_of_order_ends_the_call_and_sends_nothing() {
    for early in [Input::End, Input::Elapsed, Input::Chunk(b"x".to_vec()), Input::Head(head(200))] {
        let mut exchange = exchange::<Anthropic>("{}", request(BODY)).unwrap();
        assert!(exchange.next(early).is_err());
    }
    let mut exchange = exchange::<Anthropic>("{}", request(BODY)).unwrap();
    exchange.next(Input::Start).unwrap();
    assert!(exchange.next(Input::Start).is_err());
}
