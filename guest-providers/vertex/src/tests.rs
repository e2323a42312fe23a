//! The exchange as the host drives it: golden cases, every byte split of every recorded stream, and what goes up.

use sallyport_guest_codec::golden::{self, Outcome, Suite, asking, head};
use sallyport_guest_sdk::provider::{Auth, Input, RequestKind, TransportFault};
use sallyport_guest_sdk::testing::{self, attribute};
use serde_json::{Value, json};

use crate::Vertex;

const CLAUDE: &str = "claude-sonnet-4-5@20250929";

fn suite() -> Suite<Vertex> {
    Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).with_paths()
}

fn hi() -> Value {
    json!({"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]})
}

fn claude(inputs: impl IntoIterator<Item = Input>) -> Outcome {
    golden::run::<Vertex>("{}", asking(CLAUDE, &hi()), inputs)
}

#[test]
fn each_case_comes_out_as_recorded() {
    suite().check_outcomes();
}

#[test]
fn a_stream_comes_out_the_same_at_every_byte_split_and_cut_anywhere_it_is_whole_or_a_failure() {
    suite().check_splits();
    suite().check_cuts();
}

#[test]
fn the_clients_bytes_go_up_but_for_the_model_and_the_version() {
    let body = r#"{ "model":"claude-x","stream":true,"max_tokens":8, "system":"caf\u00e9","messages":[ ]}"#;
    let mut request = testing::request(body);
    CLAUDE.clone_into(&mut request.upstream_model);
    request.headers.push(attribute("anthropic-beta", "interleaved-thinking-2025-05-14"));
    let told = golden::run::<Vertex>("{}", request, []);
    let asked = told.request.expect("a request is sent");
    assert_eq!(asked.path, format!("/publishers/anthropic/models/{CLAUDE}:streamRawPredict"));
    assert_eq!(asked.auth, Auth::Credential);
    let names: Vec<&str> = asked.headers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["content-type", "anthropic-beta"]);
    let sallyport_guest_sdk::provider::RequestBody::Spliced(edits) = asked.body else {
        panic!("not spliced")
    };
    assert_eq!(
        sallyport_guest_codec::hosted::edited(body, &edits),
        r#"{"anthropic_version":"vertex-2023-10-16", "stream":true,"max_tokens":8, "system":"caf\u00e9","messages":[ ]}"#
    );
}

#[test]
fn thinking_of_another_vendor_does_not_go_up() {
    let mut body = hi();
    body["messages"].as_array_mut().expect("turns").push(json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "canary", "signature": "sallyport.vertex.x"}, {"type": "text", "text": "a"}]}));
    let mut request = asking(CLAUDE, &body);
    request.call.attributes.push(attribute("unsigned_thinking", "true"));
    let told = golden::run::<Vertex>("{}", request, []);
    assert!(!told.sent.expect("a request is sent").to_string().contains("canary"));
    assert_eq!(
        told.losses,
        ["messages[].content[].thinking: thinking without a signature dropped (1 times)"]
    );
}

#[test]
fn a_signature_goes_back_to_vertex_alone() {
    let kept = |signature: &str| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": signature},
                {"type": "tool_use", "id": "c", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]}]});
        let told = golden::run::<Vertex>("{}", asking("gemini-3-flash", &body), []);
        told.sent.expect("a request is sent")["contents"][1]["parts"][0]["thoughtSignature"].clone()
    };
    assert_eq!(kept("sallyport.vertex.c2ln+/=="), json!("c2ln+/=="));
    for other in ["sallyport.gemini.c2ln+/==", "EqQBCgIYAhIM", ""] {
        assert_eq!(kept(other), json!("skip_thought_signature_validator"), "{other}");
    }
}

#[test]
fn an_answer_that_is_none_is_a_failure_and_a_success_is_handed_on() {
    let anthropic = |status: u16, body: &str| {
        claude([head(status, &[("content-type", "application/json")]), Input::Chunk(body.into()), Input::End])
    };
    assert_eq!(anthropic(200, "{}").forwarded, Some(200));
    let told =
        anthropic(529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
    let failure = told.failure.expect("it fails");
    assert_eq!(
        (failure.status, failure.error_type.as_str(), failure.retryable),
        (529, "overloaded_error", true)
    );
    let told = anthropic(
        403,
        r#"{"error":{"code":403,"message":"Permission canary denied on project","status":"PERMISSION_DENIED"}}"#,
    );
    let failure = told.failure.expect("it fails");
    assert_eq!(failure.status, 502);
    assert!(!failure.message.contains("canary"), "{}", failure.message);
    let told = claude([Input::Failed(TransportFault::TimedOut)]);
    assert_eq!(told.failure.map(|it| it.status), Some(504));
    let told = claude([head(500, &[]), Input::Chunk(vec![b'x'; 1 << 20])]);
    assert_eq!(told.failure.map(|it| it.status), Some(500), "what is too long is not waited for");
}

#[test]
fn a_batch_is_refused() {
    for model in [CLAUDE, "gemini-3-flash"] {
        let mut request = asking(model, &hi());
        request.kind = RequestKind::Other("batches".to_owned());
        let told = golden::run::<Vertex>("{}", request, []);
        assert_eq!(told.failure.map(|it| it.status), Some(400));
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for config in [r#"{"max_output_tokens":0}"#, r#"{"project":"p"}"#] {
        assert!(testing::begin::<Vertex>(config, asking(CLAUDE, &hi())).is_err(), "{config}");
    }
}
