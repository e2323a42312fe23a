//! The state machine: what is asked of the host, and what its answers lead to.

use sallyport_guest_codec::golden::{assert_well_formed, head, text_of};
use sallyport_guest_sdk::provider::{Auth, Failure, Input, RequestKind, TransportFault};
use sallyport_guest_sdk::testing::{self, attribute};

use super::{request, run};
use crate::OpenAi;

const STREAMED: &str =
    r#"{"model":"claude-x","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
const WHOLE: &str = r#"{"model":"claude-x","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}"#;
const SSE: (&str, &str) = ("content-type", "text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");

fn chunk(text: &str) -> Input {
    Input::Chunk(text.as_bytes().to_vec())
}

fn failure(body: &str, inputs: impl IntoIterator<Item = Input>) -> Failure {
    run("{}", request(body, "gpt-4o"), inputs).failure.expect("the exchange fails")
}

#[test]
fn the_host_authenticates_the_request_and_the_type_asked_for_is_named() {
    for (body, accept, stream) in [(STREAMED, "text/event-stream", true), (WHOLE, "application/json", false)]
    {
        let told = run("{}", request(body, "gpt-4o"), []);
        let sent = told.request.expect("a request is sent");
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/v1/chat/completions"));
        assert_eq!(sent.auth, Auth::Credential);
        assert!(sent.headers.iter().any(|it| it.name == "accept" && it.value == accept));
        assert_eq!(told.sent.unwrap()["stream"], stream);
    }
}

#[test]
fn the_clients_user_id_is_not_sent() {
    let body = r#"{"model":"m","metadata":{"user_id":"canary"},"messages":[{"role":"user","content":"Hi"}]}"#;
    let told = run("{}", request(body, "gpt-4o"), []);
    assert!(!told.sent.unwrap().to_string().contains("canary"));
    assert_eq!(told.losses, ["metadata: dropped"]);
}

#[test]
fn limits_and_the_request_id_reach_the_client() {
    let told = run(
        "{}",
        request(STREAMED, "gpt-4o"),
        [head(200, &[SSE, ("x-request-id", "req_9"), ("server", "x")])],
    );
    assert_eq!(told.headers, ["request-id: req_9"]);
}

#[test]
fn a_request_without_an_answer_may_be_retried_elsewhere() {
    for (fault, status, kind, retryable) in [
        (TransportFault::Connect, 502, "api_error", true),
        (TransportFault::TimedOut, 504, "timeout_error", true),
        (TransportFault::Closed, 502, "api_error", true),
        (TransportFault::TooLarge, 502, "api_error", false),
    ] {
        for before in [vec![], vec![head(200, &[JSON]), chunk("{")]] {
            let failure = failure(WHOLE, before.into_iter().chain([Input::Failed(fault.clone())]));
            assert_eq!(
                (failure.status, failure.error_type.as_str(), failure.retryable),
                (status, kind, retryable)
            );
        }
    }
}

#[test]
fn a_connection_that_breaks_after_the_last_token_costs_nothing() {
    let last = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let inputs = [head(200, &[SSE]), chunk(last), Input::Failed(TransportFault::Closed)];
    let told = run("{}", request(STREAMED, "gpt-4o"), inputs);
    assert_well_formed(&told.events, true);
    assert!(told.is_done);
}

#[test]
fn a_connection_that_breaks_before_the_last_token_is_a_failure() {
    let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let inputs = [head(200, &[SSE]), chunk(piece), Input::Failed(TransportFault::Closed)];
    assert_eq!(failure(STREAMED, inputs).status, 502);
}

#[test]
fn an_answer_of_the_wrong_type_is_a_failure() {
    let page = "<html>canary</html>";
    for (body, kind) in [
        (STREAMED, "text/html"),
        (WHOLE, "text/html"),
        (WHOLE, "text/event-stream"),
        (STREAMED, "application/json"),
    ] {
        let failure = failure(body, [head(200, &[("content-type", kind)]), chunk(page), Input::End]);
        assert_eq!((failure.status, failure.error_type.as_str()), (502, "api_error"));
        assert!(!failure.message.contains("canary"));
    }
}

#[test]
fn an_empty_answer_is_a_failure() {
    for (body, kind) in [(STREAMED, SSE), (WHOLE, JSON)] {
        let failure = failure(body, [head(200, &[kind]), Input::End]);
        assert_eq!((failure.status, failure.error_type.as_str()), (502, "api_error"));
    }
}

#[test]
fn an_endless_line_is_a_failure_at_a_mebibyte() {
    let piece = Input::Chunk(vec![b'x'; 300_000]);
    let inputs = std::iter::once(head(200, &[SSE])).chain(std::iter::repeat_n(piece, 4));
    assert!(failure(STREAMED, inputs).message.contains("larger than 1 MiB"));
}

#[test]
fn an_endless_reply_is_a_failure_at_sixteen() {
    let piece = Input::Chunk(vec![b' '; 1 << 20]);
    let inputs = std::iter::once(head(200, &[JSON])).chain(std::iter::repeat_n(piece, 17));
    assert!(failure(WHOLE, inputs).message.contains("larger than 16 MiB"));
}

#[test]
fn an_endless_error_is_read_to_64_kibibytes() {
    let piece = Input::Chunk(vec![b'x'; 60_000]);
    let inputs = std::iter::once(head(500, &[])).chain(std::iter::repeat_n(piece, 2));
    let failure = failure(WHOLE, inputs);
    assert_eq!((failure.status, failure.message.as_str()), (500, "the upstream answered with status 500"));
}

#[test]
fn nothing_is_said_after_the_end() {
    let whole = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\ndata: [DONE]\n\n";
    let inputs = [head(200, &[SSE]), chunk(whole), chunk(whole), Input::End];
    let told = run("{}", request(STREAMED, "gpt-4o"), inputs);
    assert_well_formed(&told.events, true);
    assert!(told.is_done && told.failure.is_none());
}

#[test]
fn input_out_of_order_is_refused() {
    for input in [Input::End, Input::Elapsed, chunk("x")] {
        assert_eq!(failure(WHOLE, [input]), Failure::out_of_order());
    }
}

#[test]
fn what_this_version_does_not_know_is_passed_over_or_refused() {
    let news = || Input::Other(attribute("news", "1"));
    let last = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let told =
        run("{}", request(STREAMED, "gpt-4o"), [news(), head(200, &[SSE]), news(), chunk(last), Input::End]);
    assert!(told.is_done);
    let mut other = request(WHOLE, "gpt-4o");
    other.kind = RequestKind::Other("embeddings".to_owned());
    let failure = run("{}", other, []).failure.expect("it is refused");
    assert_eq!((failure.status, failure.error_type.as_str()), (400, "invalid_request_error"));
}

#[test]
fn text_that_came_before_a_failure_reaches_the_client() {
    let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let error = "data: {\"error\":{\"message\":\"no\"}}\n\n";
    let told = run("{}", request(STREAMED, "gpt-4o"), [head(200, &[SSE]), chunk(&format!("{piece}{error}"))]);
    assert_eq!((text_of(&told.events).as_str(), told.failure.is_some()), ("Hi", true));
}

#[test]
fn a_body_that_is_no_request_is_refused_with_the_field_named() {
    for (body, message) in [
        ("[]", "the body: invalid type: sequence, expected an object at line 1 column 0"),
        ("{}", "messages: Field required"),
        (r#"{"messages":[{"role":"user"}]}"#, "messages[0].content: Field required"),
        (
            r#"{"messages":[{"role":"user","content":7}]}"#,
            "messages[0].content: a string or an array of blocks expected",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            "messages[0].content[0].text: Field required",
        ),
        (
            r#"{"messages":[],"max_tokens":1,"max_tokens":2}"#,
            "the body: duplicate field `max_tokens` at line 1 column 42",
        ),
        (r#"{"messages":[],"tools":[{"input_schema":{}}]}"#, "tools[0].name: Field required"),
        (r#"{"messages":[],"tool_choice":{"type":"some"}}"#, r#"tool_choice.type: "some" is not known"#),
    ] {
        let failure = failure(body, []);
        assert_eq!((failure.status, failure.error_type.as_str()), (400, "invalid_request_error"));
        assert_eq!(failure.message, message);
        assert!(!failure.retryable);
    }
}

#[test]
fn an_image_does_not_blow_up_the_estimate() {
    let image = "A".repeat(400_000);
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{image}"}}}}]}}]}}"#
    );
    let mut request = request(&body, "gpt-4o");
    request.kind = RequestKind::CountTokens;
    let tokens = run("{}", request, []).estimate.unwrap();
    assert!((1600..2000).contains(&tokens), "{tokens}");
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for config in [r#"{"max_output_tokens":0}"#, r#"{"reasoning":"much"}"#, r#"{"modle":1}"#] {
        assert!(testing::begin::<OpenAi>(config, request(WHOLE, "gpt-4o")).is_err(), "{config}");
    }
}

#[test]
fn what_waits_for_an_open_tool_call_is_bounded() {
    let open = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"A","arguments":"{"}}]}}]}"#;
    let other = format!(
        r#"data: {{"choices":[{{"delta":{{"tool_calls":[{{"index":1,"id":"b","function":{{"name":"B","arguments":"{}"}}}}]}}}}]}}"#,
        "x".repeat(500_000)
    );
    let inputs = [head(200, &[SSE]), chunk(&format!("{open}\n\n"))]
        .into_iter()
        .chain(std::iter::repeat_n(chunk(&format!("{other}\n\n")), 34));
    assert!(failure(STREAMED, inputs).message.contains("larger than the 16 MiB"));
}

#[test]
fn a_reply_with_no_end_of_tool_calls_is_a_failure() {
    let calls = (0..2000).map(|n| {
        chunk(&format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":{n},\"function\":{{\"name\":\"A\"}}}}]}}}}]}}\n\n"
        ))
    });
    let inputs = [head(200, &[SSE])].into_iter().chain(calls);
    assert!(failure(STREAMED, inputs).message.contains("too many tools"));
}

#[test]
fn escaped_slashes_in_base64_do_not_break_an_image() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image\/png","data":"a\/b="}}]}]}"#;
    let sent = run("{}", request(body, "gpt-4o"), []).sent.unwrap();
    assert_eq!(sent["messages"][0]["content"][0]["image_url"]["url"], "data:image/png;base64,a/b=");
}

#[test]
fn a_body_that_would_not_fit_beside_its_translation_is_refused() {
    let body =
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(32 << 20));
    let failure = failure(&body, []);
    assert_eq!((failure.status, failure.error_type.as_str()), (413, "request_too_large"));
}
