//! The exchange as the host drives it: golden cases, every byte split of every recorded stream, and what goes up.

use sallyport_guest_codec::golden::{self, Suite, head};
use sallyport_guest_sdk::provider::{Auth, Input, RequestBody, TransportFault, UpstreamRequest};
use sallyport_guest_sdk::testing::{self, attribute};

use crate::Bedrock;

const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const STREAM: (&str, &str) = ("content-type", "application/vnd.amazon.eventstream");

fn suite() -> Suite<Bedrock> {
    Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).with_paths()
}

fn asked(body: &str, betas: &str, attributes: &[&str]) -> UpstreamRequest {
    let mut request = testing::request(body);
    MODEL.clone_into(&mut request.upstream_model);
    if !betas.is_empty() {
        request.headers.push(attribute("anthropic-beta", betas));
    }
    request.call.attributes.extend(attributes.iter().map(|it| attribute(it, "true")));
    golden::run::<Bedrock>("{}", request, []).request.expect("a request is sent")
}

fn sent(body: &str, request: &UpstreamRequest) -> String {
    let RequestBody::Spliced(edits) = &request.body else { panic!("{:?}", request.body) };
    sallyport_guest_codec::hosted::edited(body, edits)
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
fn the_clients_bytes_go_up_but_for_what_the_path_and_the_headers_say() {
    let body = r#"{ "model":"claude-x","stream":true,"max_tokens":8, "system":"caf\u00e9","messages":[ ]}"#;
    let request = asked(body, "interleaved-thinking-2025-05-14,context-1m-2025-08-07", &[]);
    assert_eq!(request.path, format!("/model/{MODEL}/invoke-with-response-stream"));
    assert_eq!(request.auth, Auth::Credential);
    assert_eq!(
        sent(body, &request),
        r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["interleaved-thinking-2025-05-14","context-1m-2025-08-07"], "max_tokens":8, "system":"caf\u00e9","messages":[ ]}"#
    );
    let whole = asked(r#"{"model":"claude-x","messages":[]}"#, "", &[]);
    assert_eq!(whole.path, format!("/model/{MODEL}/invoke"));
}

#[test]
fn thinking_of_another_vendor_does_not_go_up() {
    let body = r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"canary","signature":"sallyport.gemini.x"},{"type":"text","text":"a"}]}]}"#;
    let made = sent(body, &asked(body, "", &["unsigned_thinking"]));
    assert!(!made.contains("canary") && made.contains(r#"[{"type":"text","text":"a"}]"#), "{made}");
}

#[test]
fn a_models_id_says_nothing_else_in_a_path() {
    for model in
        ["", "a/b", "..", "a?b", "arn:aws:bedrock/../x", "arn:aws//x", "arn:x/", "a/arn:aws:x", "arn:a%2Fb"]
    {
        let mut request = testing::request(r#"{"model":"m","messages":[]}"#);
        model.clone_into(&mut request.upstream_model);
        let failure = golden::run::<Bedrock>("{}", request, []).failure.expect("it fails");
        assert_eq!(failure.status, 400, "{model}");
    }
}

/// As botocore 1.44.8 writes the path of `InvokeModel` for this ARN.
#[test]
fn an_arn_is_one_segment_of_the_path() {
    let mut request = testing::request(r#"{"model":"m","messages":[]}"#);
    "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-opus-4-5-20251101-v1:0"
        .clone_into(&mut request.upstream_model);
    let sent = golden::run::<Bedrock>("{}", request, []).request.expect("a request is sent");
    assert_eq!(
        sent.path,
        "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Ainference-profile%2Feu.anthropic.claude-opus-4-5-20251101-v1%3A0/invoke"
    );
}

#[test]
fn damaged_bytes_and_a_broken_connection_are_failures() {
    let case =
        suite().cases().iter().find(|it| it.name == "text").map(|it| it.upstream.clone()).expect("text");
    let run = |bytes: Vec<u8>, last: Input| {
        let mut request = testing::request(r#"{"model":"m","stream":true,"messages":[]}"#);
        MODEL.clone_into(&mut request.upstream_model);
        golden::run::<Bedrock>("{}", request, [head(200, &[STREAM]), Input::Chunk(bytes), last])
    };
    for at in [5, 9, 40, 200] {
        let mut damaged = case.clone();
        damaged[at] ^= 1;
        let told = run(damaged, Input::End);
        assert_eq!(told.failure.map(|it| it.status), Some(502), "{at}");
    }
    let told = run(case[..300].to_vec(), Input::Failed(TransportFault::Closed));
    assert_eq!(told.failure.map(|it| it.status), Some(502));
    assert!(run(case, Input::Failed(TransportFault::Closed)).is_done, "what was whole stays whole");
}

#[test]
fn reasoning_of_other_models_goes_back_as_it_came_and_that_of_others_does_not() {
    const NOVA: &str = "us.amazon.nova-2-lite-v1:0";
    let sent = |signature: &str| {
        let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "canary", "signature": signature}, {"type": "text", "text": "a"}]},
            {"role": "user", "content": "Go on."}]});
        golden::sent::<Bedrock>(NOVA, &body)
    };
    let case = suite();
    let case = case.cases().iter().find(|it| it.name == "converse-reasoning").expect("the case");
    let told = case.upstream.clone();
    let hi =
        serde_json::json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    let answered = golden::run::<Bedrock>(
        "{}",
        golden::asking(NOVA, &hi),
        [head(200, &[STREAM]), Input::Chunk(told), Input::End],
    );
    let kept = golden::kept(&answered.events);
    let signature = kept[0]["signature"].as_str().expect("a signature");
    let (body, losses) = sent(signature);
    let reasoning = &body["messages"][1]["content"][0]["reasoningContent"]["reasoningText"];
    assert_eq!(reasoning["signature"], "c2ln+/==");
    assert!(losses.is_empty(), "{losses:?}");
    for other in ["", "EqQBCgIYAhIM", "sallyport.gemini.s.canary", "sallyport.bedrock.canary"] {
        let (body, losses) = sent(other);
        assert!(!body.to_string().contains("canary"), "{body}");
        assert_eq!(losses, ["messages[1].content[0]: thinking dropped"]);
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for config in [r#"{"api":"both"}"#, r#"{"max_output_tokens":0}"#, r#"{"region":"us-east-1"}"#] {
        let hi = golden::asking(MODEL, &serde_json::json!({"model": "m", "messages": []}));
        assert!(testing::begin::<Bedrock>(config, hi).is_err(), "{config}");
    }
}
