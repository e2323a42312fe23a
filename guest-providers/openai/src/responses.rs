//! The Responses API as the host drives it: golden cases, every byte split of every recorded stream, and conversations that go on.

use sallyport_guest_codec::golden::{self, Outcome, Suite, calls_of, head, kept, text_of};
use sallyport_guest_sdk::provider::{Input, RequestKind, TransportFault};
use sallyport_guest_sdk::testing::{self, attribute};
use serde_json::{Value, json};

use crate::OpenAi;

const SSE: (&str, &str) = ("content-type", "text/event-stream");
const CONFIG: &str = r#"{"api":"responses"}"#;
const FACTS: &str = r#"{"reasoning":"openai","efforts":["none","low","medium","high"]}"#;

fn suite() -> Suite<OpenAi> {
    Suite::open(concat!(env!("CARGO_MANIFEST_DIR"), "/golden-responses"))
        .with_paths()
        .prepared(crate::tests::with_facts)
}

fn ask(body: &Value, inputs: impl IntoIterator<Item = Input>) -> Outcome {
    let mut request = golden::asking("gpt-5.4", body);
    request.call.attributes.push(attribute("model_facts", FACTS));
    golden::run::<OpenAi>(CONFIG, request, inputs)
}

fn answered(body: &Value, events: &[Value]) -> Outcome {
    let stream = events.iter().map(|it| format!("data: {it}\n\n")).collect::<Vec<_>>().concat();
    ask(body, [head(200, &[SSE]), Input::Chunk(stream.into_bytes()), Input::End])
}

fn completed(status: &str) -> Value {
    json!({"type": "response.completed", "response": {"id": "resp_1", "model": "gpt-5.4", "status": status, "output": [],
        "usage": {"input_tokens": 9, "output_tokens": 3}}})
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
fn reasoning_goes_back_in_its_place_in_every_turn_and_nothing_is_stored() {
    let mut body = json!({"model": "m", "stream": true, "thinking": {"type": "adaptive"},
        "tools": [{"name": "look", "input_schema": {"type": "object"}}], "messages": [{"role": "user", "content": "Look."}]});
    let mut given = Vec::new();
    for (step, summary) in ["I look.", "", "Once more."].into_iter().enumerate() {
        let reasoning = json!({"type": "reasoning", "id": format!("rs_{step}"), "encrypted_content": format!("gAAA{step}+/=="),
            "summary": if summary.is_empty() { json!([]) } else { json!([{"type": "summary_text", "text": summary}]) }});
        let call = json!({"type": "function_call", "call_id": format!("call_{step}"), "name": "look", "arguments": "{\"at\":1}"});
        let told = answered(
            &body,
            &[
                json!({"type": "response.output_item.done", "output_index": 0, "item": reasoning}),
                json!({"type": "response.output_item.done", "output_index": 1, "item": call}),
                completed("completed"),
            ],
        );
        given.extend([
            reasoning,
            call,
            json!({"type": "function_call_output", "call_id": format!("call_{step}"), "output": "done"}),
        ]);
        let results: Vec<Value> = calls_of(&told.events)
            .into_iter()
            .map(|(id, _)| json!({"type": "tool_result", "tool_use_id": id, "content": "done"}))
            .collect();
        let messages = body["messages"].as_array_mut().expect("messages");
        messages.push(json!({"role": "assistant", "content": kept(&told.events)}));
        messages.push(json!({"role": "user", "content": results}));
    }
    let told = ask(&body, []);
    let sent = told.sent.expect("a request is sent");
    let items = sent["input"].as_array().expect("items");
    assert_eq!(items.get(1..), Some(given.as_slice()));
    assert_eq!((&sent["store"], &sent["include"]), (&json!(false), &json!(["reasoning.encrypted_content"])));
    assert!(told.losses.is_empty(), "{:?}", told.losses);
}

#[test]
fn thinking_of_anybody_else_does_not_go_up() {
    for signature in [
        "",
        "EqQBCgIYAhIM",
        "sallyport.gemini.canary",
        "sallyport.azure.rs_1.canary",
        "sallyport.openai.canary",
    ] {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "canary", "signature": signature}, {"type": "text", "text": "a"}]},
            {"role": "user", "content": "Go on."}]});
        let told = ask(&body, []);
        let sent = told.sent.expect("a request is sent").to_string();
        assert!(!sent.contains("canary") && !sent.contains("EqQB"), "{sent}");
        assert_eq!(told.losses, ["messages[1].content[0]: thinking dropped"]);
    }
}

#[test]
fn a_server_that_does_not_count_is_estimated() {
    let count = |status: u16| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hello there"}]});
        let mut request = golden::asking("gpt-5.4", &body);
        request.kind = RequestKind::CountTokens;
        golden::run::<OpenAi>(CONFIG, request, [head(status, &[])])
    };
    for status in [404, 405, 501] {
        let told = count(status);
        assert!(told.is_done && told.estimate.is_some_and(|it| (8..40).contains(&it)), "{status}: {told:?}");
    }
    assert_eq!(count(429).estimate, None);
}

#[test]
fn a_broken_connection_is_a_failure_unless_the_reply_was_whole() {
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    let text = json!({"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"});
    let chunk = |events: &[&Value]| {
        Input::Chunk(
            events.iter().map(|it| format!("data: {it}\n\n")).collect::<Vec<_>>().concat().into_bytes(),
        )
    };
    let broken = || Input::Failed(TransportFault::Closed);
    let told = ask(&body, [head(200, &[SSE]), chunk(&[&text]), broken()]);
    assert_eq!(told.failure.map(|it| it.status), Some(502));
    let told = ask(&body, [head(200, &[SSE]), chunk(&[&text, &completed("completed")]), broken()]);
    assert_eq!((told.is_done, text_of(&told.events).as_str()), (true, "Hi"));
}

#[test]
fn the_route_says_which_api_is_asked_before_the_configuration_does() {
    let path = |config: &str, facts: &str| {
        let mut request = golden::asking("m", &json!({"model": "m", "messages": []}));
        request.call.attributes.push(attribute("model_facts", facts));
        golden::run::<OpenAi>(config, request, []).request.expect("a request is sent").path
    };
    let (chat, responses) = ("/v1/chat/completions", "/v1/responses");
    assert_eq!(path("{}", "{}"), chat);
    assert_eq!(path(CONFIG, "{}"), responses);
    assert_eq!(path(CONFIG, r#"{"api":"chat_completions"}"#), chat);
    assert_eq!(path("{}", r#"{"api":"responses"}"#), responses);
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let hi = || golden::asking("m", &json!({"model": "m", "messages": []}));
    for config in [
        r#"{"reasoning_summary":"long"}"#,
        r#"{"api":"assistants"}"#,
        r#"{"api":"responses","max_output_tokens":0}"#,
        r#"{"api":"responses","stored":true}"#,
    ] {
        assert!(testing::begin::<OpenAi>(config, hi()).is_err(), "{config}");
    }
}
