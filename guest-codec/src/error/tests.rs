//! Errors of every shape, mapped.

use sallyport_guest_sdk::provider::ResponseHead;

use super::{UpstreamError, of_answer};

fn mapped(code: u16, body: &str) -> (u16, String, String, bool) {
    let failure = of_answer(&ResponseHead { status: code, headers: Vec::new() }, body.as_bytes());
    (failure.status, failure.error_type, failure.message, failure.retryable)
}

#[test]
fn every_status_becomes_the_one_that_clients_know() {
    for (code, status, kind, retryable) in [
        (301, 502, "api_error", false),
        (400, 400, "invalid_request_error", false),
        (402, 402, "billing_error", true),
        (404, 404, "not_found_error", false),
        (408, 504, "timeout_error", true),
        (409, 409, "invalid_request_error", false),
        (413, 413, "request_too_large", false),
        (422, 400, "invalid_request_error", false),
        (429, 429, "rate_limit_error", true),
        (500, 500, "api_error", true),
        (502, 502, "api_error", true),
        (503, 529, "overloaded_error", true),
        (504, 504, "timeout_error", true),
        (529, 529, "overloaded_error", true),
    ] {
        let got = mapped(code, r#"{"error":{"message":"why"}}"#);
        assert_eq!(got, (status, kind.to_owned(), "why".to_owned(), retryable), "{code}");
    }
}

#[test]
fn a_credential_that_the_upstream_refuses_is_not_the_callers_fault() {
    for code in [401, 403] {
        let got = mapped(code, r#"{"error":{"message":"Incorrect API key provided: sk-canary"}}"#);
        let message = "the gateway's credential was refused by the upstream".to_owned();
        assert_eq!(got, (502, "api_error".to_owned(), message, false), "{code}");
    }
    let quota = mapped(403, r#"{"error":{"message":"why","code":"insufficient_quota"}}"#);
    assert_eq!(quota.0, 402);
}

#[test]
fn the_upstreams_words_are_found_in_every_shape() {
    for body in [
        r#"{"error":{"message":"why","type":"x","param":null,"code":null}}"#,
        r#"{"error":"why"}"#,
        r#"{"object":"error","message":"why","type":"BadRequestError","code":400}"#,
        r#"{"detail":"why"}"#,
        r#"{"message":"why"}"#,
        r#"[{"error":{"code":400,"message":"why"}}]"#,
        "why\n",
    ] {
        assert_eq!(mapped(400, body).2, "why", "{body}");
    }
}

#[test]
fn the_upstreams_own_code_stands_behind_its_words() {
    for (body, told) in [
        (r#"{"error":{"message":"why","code":"model_not_found"}}"#, "why [model_not_found]"),
        (r#"{"error":{"code":400,"message":"why","status":"INVALID_ARGUMENT"}}"#, "why [INVALID_ARGUMENT]"),
        (r#"{"error":{"message":"why: model_not_found","code":"model_not_found"}}"#, "why: model_not_found"),
        (r#"{"error":{"message":"why","code":"not a code"}}"#, "why"),
        (r#"{"error":{"message":"why","code":""}}"#, "why"),
    ] {
        assert_eq!(mapped(400, body).2, told);
    }
}

#[test]
fn a_page_is_not_shown_to_the_user() {
    assert_eq!(mapped(500, "<html>trace</html>").2, "the upstream answered with status 500");
    assert_eq!(mapped(500, "").2, "the upstream answered with status 500");
    assert_eq!(mapped(500, &"x".repeat(5000)).2, "the upstream answered with status 500");
}

#[test]
fn a_long_message_is_cut_at_a_character() {
    let message = mapped(400, &format!(r#"{{"error":"{}"}}"#, "é".repeat(4000))).2;
    assert_eq!(message.len(), 4096);
}

#[test]
fn a_conversation_that_is_too_long_says_so_in_the_words_clients_read() {
    let message = mapped(400, r#"{"error":{"message":"too many","code":"context_length_exceeded"}}"#).2;
    assert_eq!(message, "prompt is too long: too many [context_length_exceeded]");
}

#[test]
fn what_is_no_error_says_nothing() {
    assert!(UpstreamError::read(b"{}").is_empty());
    assert!(UpstreamError::read(b"{\"error\":null}").is_empty());
    assert!(UpstreamError::read(b"not json").is_empty());
}
