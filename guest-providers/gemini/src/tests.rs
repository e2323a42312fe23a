//! The exchange as the host drives it: golden cases, every byte split of every recorded stream, and conversations that go on.

use sallyport_guest_codec::golden::{self, Outcome, Suite, calls_of, head, kept, text_of};
use sallyport_guest_sdk::provider::{Auth, Input, RequestKind, TransportFault};
use sallyport_guest_sdk::testing;
use serde_json::{Value, json};

use crate::Gemini;

const SSE: (&str, &str) = ("content-type", "text/event-stream");

fn suite() -> Suite<Gemini> {
    Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).with_paths()
}

fn ask(body: &Value, model: &str, inputs: impl IntoIterator<Item = Input>) -> Outcome {
    let mut request = testing::request(&body.to_string());
    model.clone_into(&mut request.upstream_model);
    golden::run::<Gemini>("{}", request, inputs)
}

fn answered(body: &Value, pieces: &[Value]) -> Outcome {
    let stream = pieces.iter().map(|it| format!("data: {it}\r\n\r\n")).collect::<Vec<_>>().concat();
    let chunk = Input::Chunk(stream.into_bytes());
    ask(body, "gemini-3-flash", [head(200, &[SSE]), chunk, Input::End])
}

fn tools() -> Value {
    json!([{"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}])
}

#[test]
fn each_case_comes_out_as_recorded() {
    assert!(suite().cases().len() > 60, "all cases are there");
    suite().check_outcomes();
}

#[test]
fn a_stream_comes_out_the_same_at_every_byte_split() {
    suite().check_splits();
}

#[test]
fn a_stream_cut_at_any_byte_is_whole_or_a_failure() {
    suite().check_cuts();
}

#[test]
fn signatures_go_back_with_the_calls_that_they_came_with_and_nothing_else_is_kept() {
    let call = |id: &str, at: &str, signature: Option<&str>| {
        let mut part = json!({"functionCall": {"id": id, "name": "look", "args": {"at": at}}});
        if let Some(signature) = signature {
            part["thoughtSignature"] = json!(signature);
        }
        part
    };
    let mut body = json!({"model": "m", "stream": true, "thinking": {"type": "adaptive"}, "tools": tools(),
        "messages": [{"role": "user", "content": "Look."}]});
    let mut given = Vec::new();
    for (step, signature) in ["c2ln+/==", "czI=", "czM="].into_iter().enumerate() {
        let calls = [call(&format!("a{step}"), "x", Some(signature)), call(&format!("b{step}"), "y", None)];
        let told = answered(
            &body,
            &[
                json!({"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": true}]}}]}),
                json!({"candidates": [{"content": {"parts": calls}, "finishReason": "STOP"}]}),
            ],
        );
        given.push(json!(calls));
        let results: Vec<Value> = calls_of(&told.events)
            .into_iter()
            .map(|(id, _)| json!({"type": "tool_result", "tool_use_id": id, "content": "done"}))
            .collect();
        let messages = body["messages"].as_array_mut().expect("messages");
        messages.push(json!({"role": "assistant", "content": kept(&told.events)}));
        messages.push(json!({"role": "user", "content": results}));
    }
    let told = ask(&body, "gemini-3-flash", []);
    let contents = told.sent.expect("a request is sent")["contents"].clone();
    let turns: Vec<Value> = contents
        .as_array()
        .expect("turns")
        .iter()
        .filter(|it| it["role"] == "model")
        .map(|it| it["parts"].clone())
        .collect();
    assert_eq!(turns, given);
    assert!(told.losses.is_empty(), "{:?}", told.losses);
    for (at, turn) in contents.as_array().expect("turns").iter().enumerate().skip(2).step_by(2) {
        let ids: Vec<&Value> =
            turn["parts"].as_array().expect("parts").iter().map(|it| &it["functionResponse"]["id"]).collect();
        assert_eq!(ids, [&json!(format!("a{}", at / 2 - 1)), &json!(format!("b{}", at / 2 - 1))]);
    }
}

#[test]
fn a_signature_of_another_vendor_does_not_go_up() {
    for signature in ["EqQBCgIYAhIM", "sallyport.other.canary", "canary"] {
        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "canary", "signature": signature},
                {"type": "tool_use", "id": "c", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]}]});
        let told = ask(&body, "gemini-2.5-pro", []);
        let sent = told.sent.expect("a request is sent").to_string();
        assert!(!sent.contains("canary") && !sent.contains("EqQB"), "{sent}");
        assert_eq!(told.losses, ["messages[1].content[0]: thinking dropped"]);
    }
}

#[test]
fn the_host_authenticates_and_the_model_stands_in_the_path() {
    for (stream, path) in [
        (true, "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"),
        (false, "/v1beta/models/gemini-3-flash:generateContent"),
    ] {
        let body = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]});
        let sent = ask(&body, "gemini-3-flash", []).request.expect("a request is sent");
        assert_eq!((sent.method.as_str(), sent.path.as_str(), sent.auth), ("POST", path, Auth::Credential));
    }
}

#[test]
fn a_models_name_says_nothing_else_in_a_path() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for model in ["", "models/", "a/b", "../x", "a?key=1", "a:countTokens", "a b", "é", ".."] {
        let failure = ask(&body, model, []).failure.expect("it fails");
        assert_eq!((failure.status, failure.error_type.as_str()), (400, "invalid_request_error"), "{model}");
    }
}

#[test]
fn the_clients_user_id_is_not_sent() {
    let body = json!({"model": "m", "metadata": {"user_id": "canary"}, "messages": [{"role": "user", "content": "Hi"}]});
    let told = ask(&body, "gemini-3-flash", []);
    assert!(!told.sent.expect("a request is sent").to_string().contains("canary"));
    assert_eq!(told.losses, ["metadata: dropped"]);
}

#[test]
fn a_broken_connection_is_a_failure_unless_the_reply_was_whole() {
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    let piece = |finish: &str| {
        let piece = json!({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": finish}]});
        Input::Chunk(format!("data: {piece}\n\n").into_bytes())
    };
    let broken = || Input::Failed(TransportFault::Closed);
    let told = ask(&body, "m", [head(200, &[SSE]), piece(""), broken()]);
    assert_eq!(told.failure.map(|it| it.status), Some(502));
    let told = ask(&body, "m", [head(200, &[SSE]), piece("STOP"), broken()]);
    assert_eq!((told.is_done, text_of(&told.events).as_str()), (true, "Hi"));
}

#[test]
fn a_batch_is_refused() {
    let mut request = testing::request(r#"{"model":"m","messages":[]}"#);
    request.kind = RequestKind::Other("batches".to_owned());
    "gemini-3-flash".clone_into(&mut request.upstream_model);
    let told = golden::run::<Gemini>("{}", request, []);
    assert_eq!(told.failure.map(|it| it.status), Some(400));
}
